//! `connect`: joins stdin and stdout to the socket, once the server was verified.
//!
//! The end of stdin is passed on as the end of what is sent; the program ends
//! when the server has ended its side, or with an error where stdin can't be read
//! or sent to its end.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType,
    connect, recv, send, shutdown, socket_with,
};

use super::Failure;
use crate::config::ctl::Target;
use crate::exit;
use crate::ids::Uid;
use crate::listener::{Kind, SocketName};
use crate::peer::proof;
use crate::policy::{Policy, ServerError, verify_server};
use crate::sys;

/// More than the largest record that a Unix socket carries with default settings.
const RECEIVED_MAX: usize = 256 * 1024;
/// What is sent at once, and the largest record of SOCK_SEQPACKET: well below what a
/// socket takes with default settings (unix(7): `net.core.wmem_default`, less 32).
const SENT_MAX: usize = 64 * 1024;
/// How long a server may take to send its challenge, where connecting has no bound.
const PROOF_PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn run(target: &Target) -> Result<u8, Failure> {
    let socket = Arc::new(open(target)?);
    let writer = Arc::clone(&socket);
    let (failed, failure) = channel();
    // It may still wait for stdin when all is over; the end of the process ends it.
    let sending = thread::Builder::new().name("stdin".into()).spawn(move || {
        if let Err(error) = send_stdin(&writer) {
            let _ = failed.send(error);
            // What the server has sent so far is still received, and then the end.
            let _ = shutdown(&writer, Shutdown::Both);
        }
    });
    sending.map_err(|e| Failure::because(exit::SYSTEM, "can't start a thread", &e))?;
    let received = receive_to_stdout(&socket);
    match failure.try_recv() {
        Ok(failure) => Err(failure),
        Err(_) => received,
    }
}

/// Connects, and makes sure that the server is the one that was asked for.
pub(super) fn open(target: &Target) -> Result<OwnedFd, Failure> {
    let socket = connect_in_time(target).map_err(|error| {
        let code = match error.raw_os_error() {
            Some(libc::EACCES | libc::EPERM) => exit::NO_PERMISSION,
            _ => exit::UNAVAILABLE,
        };
        Failure::because(code, &format!("can't connect to {}", target.path), &error)
    })?;
    let own_user = Uid::from_raw(rustix::process::geteuid().as_raw()).unwrap_or(Uid::OVERFLOW);
    let policy = Policy::new(vec![target.server.clone()], Vec::new(), own_user);
    verify_server(socket.as_fd(), &policy).map_err(|error| {
        let code = match error {
            ServerError::Denied { .. } => exit::NO_PERMISSION,
            _ => exit::CONFIG,
        };
        let what = format!("the server at {} is not {}", target.path, target.server);
        Failure::because(code, &what, &error)
    })?;
    if target.process_proof {
        let deadline = Instant::now() + target.connect_timeout.unwrap_or(PROOF_PATIENCE);
        proof::answer(socket.as_fd(), deadline).map_err(|error| {
            Failure::because(exit::UNAVAILABLE, "no proof was asked for", &error)
        })?;
    }
    Ok(socket)
}

/// connect(2) on a Unix socket waits where the server's backlog is full; the send
/// timeout bounds that (socket(7)).
fn connect_in_time(target: &Target) -> io::Result<OwnedFd> {
    let address = match target.path.name() {
        SocketName::Path(path) => SocketAddrUnix::new(path)?,
        SocketName::Abstract(name) => SocketAddrUnix::new_abstract_name(name)?,
    };
    let kind = match target.kind {
        Kind::Stream => SocketType::STREAM,
        Kind::SeqPacket => SocketType::SEQPACKET,
    };
    let socket = socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
    let timeout = target.connect_timeout;
    rustix::net::sockopt::set_socket_timeout(
        &socket,
        rustix::net::sockopt::Timeout::Send,
        timeout,
    )?;
    match connect(&socket, &address) {
        Ok(()) => {}
        Err(Errno::AGAIN) => return Err(io::ErrorKind::TimedOut.into()),
        Err(error) => return Err(error.into()),
    }
    rustix::net::sockopt::set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Send, None)?;
    Ok(socket)
}

/// Sends all of stdin. That the server has closed is no failure here: the other
/// direction says how.
fn send_stdin(socket: &OwnedFd) -> Result<(), Failure> {
    let mut buffer = vec![0; SENT_MAX];
    let mut stdin = io::stdin().lock();
    loop {
        let count = match stdin.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Failure::because(exit::UNAVAILABLE, "stdin", &error)),
        };
        match send_all(socket, buffer.get(..count).unwrap_or_default()) {
            Ok(()) => {}
            Err(Errno::PIPE | Errno::CONNRESET) => return Ok(()),
            Err(error) => {
                let error = io::Error::from(error);
                return Err(Failure::because(exit::UNAVAILABLE, "send", &error));
            }
        }
    }
    let _ = shutdown(socket, Shutdown::Write);
    Ok(())
}

fn send_all(socket: &OwnedFd, mut bytes: &[u8]) -> Result<(), Errno> {
    let mut most = bytes.len();
    while !bytes.is_empty() {
        let record = bytes.get(..most).unwrap_or(bytes);
        match send(socket, record, SendFlags::NOSIGNAL) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            // The machine's default is lower.
            Err(Errno::MSGSIZE) if most > 1 => most /= 2,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn receive_to_stdout(socket: &OwnedFd) -> Result<u8, Failure> {
    let mut buffer = vec![0; RECEIVED_MAX];
    let mut stdout = io::stdout().lock();
    loop {
        let count = match recv(socket, buffer.as_mut_slice(), RecvFlags::empty()) {
            Ok((_, 0)) if has_ended(socket) => return Ok(exit::OK),
            Ok((_, count)) => count,
            Err(Errno::INTR) => continue,
            // Closed with bytes of ours unread.
            Err(Errno::CONNRESET) => {
                return Err(Failure::new(
                    exit::UNAVAILABLE,
                    "the server closed the connection",
                ));
            }
            Err(error) => {
                return Err(Failure::because(
                    exit::UNAVAILABLE,
                    "receive",
                    &io::Error::from(error),
                ));
            }
        };
        let bytes = buffer.get(..count).unwrap_or_default();
        match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(exit::OK),
            Err(error) => return Err(Failure::because(exit::CANNOT_CREATE, "stdout", &error)),
        }
    }
}

/// Tells the end from an empty record of SOCK_SEQPACKET.
fn has_ended(socket: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(socket, PollFlags::RDHUP)];
    let now = sys::time::timespec(Duration::ZERO);
    !matches!(rustix::event::poll(&mut fds, Some(&now)), Ok(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{socketpair, sockopt};

    #[test]
    fn records_fit_a_socket_that_takes_less_than_usual() {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        sockopt::set_socket_send_buffer_size(&ours, 4096).unwrap();
        let bytes: Vec<u8> = (0_u16..32_768).flat_map(u16::to_be_bytes).collect();
        let sent = bytes.clone();
        let sending = thread::spawn(move || send_all(&ours, &sent));
        let (mut received, mut buffer) = (Vec::new(), vec![0; RECEIVED_MAX]);
        loop {
            let (_, count) = recv(&theirs, buffer.as_mut_slice(), RecvFlags::empty()).unwrap();
            if count == 0 {
                break;
            }
            received.extend_from_slice(&buffer[..count]);
        }
        sending.join().unwrap().unwrap();
        assert!(received == bytes, "{} bytes came", received.len());
    }
}
