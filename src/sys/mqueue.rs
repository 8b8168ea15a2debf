//! POSIX message queues (mq_overview(7)).
//!
//! On Linux a queue's descriptor is a file descriptor: fstat(2), fchmod(2) and
//! fchown(2) work on it.

use nix::errno::Errno;
use nix::mqueue::{self, MQ_OFlag, MqAttr, MqdT};
use nix::sys::stat::Mode;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// An open queue, closed when dropped.
#[derive(Debug)]
pub(crate) struct MessageQueue {
    descriptor: Option<MqdT>,
    message_size: usize,
}

/// Why a queue is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    /// To send; creates it, mode 0600, for 10 messages of 8192 bytes (the
    /// system's default bounds). Never waits.
    Send,
    /// To receive; waits.
    Receive,
}

impl MessageQueue {
    /// Opens a queue. The name is `/` and at most 254 other bytes without `/`.
    /// Gives whether it was created now. Errors are those of mq_open(3).
    pub(crate) fn open(name: &str, purpose: Purpose) -> io::Result<(Self, bool)> {
        let name = CString::new(name)?;
        let existing = match purpose {
            // Read as well: the oldest message is taken out when there is no room.
            Purpose::Send => MQ_OFlag::O_RDWR | MQ_OFlag::O_NONBLOCK | MQ_OFlag::O_CLOEXEC,
            Purpose::Receive => MQ_OFlag::O_RDONLY | MQ_OFlag::O_CLOEXEC,
        };
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let opened = match mqueue::mq_open(name.as_c_str(), existing, mode, None) {
            Err(Errno::ENOENT) if purpose == Purpose::Send => {
                let create = existing | MQ_OFlag::O_CREAT | MQ_OFlag::O_EXCL;
                let bounds = MqAttr::new(0, 10, 8192, 0);
                let created = mqueue::mq_open(name.as_c_str(), create, mode, Some(&bounds));
                created.map(|descriptor| (descriptor, true))
            }
            other => other.map(|descriptor| (descriptor, false)),
        };
        let (descriptor, created) = opened?;
        let mut queue = Self {
            descriptor: Some(descriptor),
            message_size: 8192,
        };
        let attributes = mqueue::mq_getattr(queue.inner()?)?;
        if let Ok(size) = usize::try_from(attributes.msgsize()) {
            queue.message_size = size;
        }
        Ok((queue, created))
    }

    /// Bytes of the longest message.
    pub(crate) const fn message_size(&self) -> usize {
        self.message_size
    }

    /// For fstat and the like.
    pub(crate) fn descriptor(&self) -> io::Result<BorrowedFd<'_>> {
        self.inner().map(AsFd::as_fd)
    }

    /// Sends one message. `WouldBlock` if there is no room.
    pub(crate) fn send(&self, message: &[u8]) -> io::Result<()> {
        Ok(mqueue::mq_send(self.inner()?, message, 0)?)
    }

    /// Takes the oldest message; `buffer` has at least `message_size` bytes.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut priority = 0;
        Ok(mqueue::mq_receive(self.inner()?, buffer, &mut priority)?)
    }

    fn inner(&self) -> io::Result<&MqdT> {
        self.descriptor
            .as_ref()
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))
    }
}

impl Drop for MessageQueue {
    fn drop(&mut self) {
        if let Some(descriptor) = self.descriptor.take() {
            let _ = mqueue::mq_close(descriptor);
        }
    }
}
