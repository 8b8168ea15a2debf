//! A process under another user that connects and hands the descriptor over.

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

const SOCKET: &str = "BROKER_HELPER_SOCKET";

pub struct Helper {
    child: Child,
    link: UnixStream,
    pub uid: u32,
    pub gid: u32,
    pub pid: i32,
}

impl Helper {
    pub fn start(socket: &Path, uid: u32, gid: u32) -> Self {
        let (link, theirs) = UnixStream::pair().unwrap();
        // Others can't reach the build's directory: a copy that they can run.
        let program = socket.parent().unwrap().parent().unwrap().join("helper");
        if !program.exists() {
            // By another process: were this one to hold it open for writing while a thread
            // forks, its execution could fail as busy (execve(2), ETXTBSY).
            let copied = Command::new("cp")
                .arg(std::env::current_exe().unwrap())
                .arg(&program)
                .status();
            assert!(copied.unwrap().success());
        }
        let child = Command::new(&program)
            .args(["--exact", "helper", "--nocapture", "-q"])
            .env(SOCKET, socket)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .current_dir("/")
            .uid(uid)
            .gid(gid)
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        Self {
            child,
            link,
            uid,
            gid,
            pid,
        }
    }

    pub fn connect(&mut self) -> UnixStream {
        self.link.write_all(b"c").unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let mut parts = [IoSliceMut::new(&mut byte)];
        let got = recvmsg(
            &self.link,
            &mut parts,
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )
        .unwrap();
        assert_eq!(got.bytes, 1, "the helper is gone");
        let fd = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        UnixStream::from(fd.expect("no descriptor"))
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The other side, in the helper's process.
pub fn serve_if_asked() {
    let Some(path) = std::env::var_os(SOCKET) else {
        return;
    };
    let link = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    while (&link).read_exact(&mut [0]).is_ok() {
        let stream = UnixStream::connect(&path).unwrap();
        let fds = [stream.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        sendmsg(
            &link,
            &[IoSlice::new(b"d")],
            &mut control,
            SendFlags::empty(),
        )
        .unwrap();
    }
}
