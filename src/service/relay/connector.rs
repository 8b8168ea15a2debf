//! Connects to the upstream as a peer, so that the upstream's own peer
//! authentication sees the real user (`upstream_identity=peer`).
//!
//! One thread does nothing else. It alone holds CAP_SETUID and CAP_SETGID, and
//! changes the effective ids and the groups of itself, connects, and changes
//! them back. Path permissions are those of the peer, too.
//!
//! Invariants: real and saved ids stay the server's, so a peer can neither
//! signal nor trace the thread; the queue is bounded; a thread that can't take
//! its own identity back ends, and every request after that fails. A peer that is
//! root is passed on only by a server that is root itself.
//!
//! Not here: how it gets its capabilities (`sandbox`), and waiting for a
//! connect that is under way. The upstream sees the server's pid.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::Errno;
use rustix::net::SocketType;
use rustix::thread as ids;

use super::connect::{self, Attempt};
use super::targets::Target;
use crate::ids::{Gid, Uid};
use crate::service::Waker;

/// Whom to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Identity {
    pub(super) uid: Uid,
    pub(super) gid: Gid,
    pub(super) groups: Vec<Gid>,
}

/// Why there is no connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    /// The thread could not become the peer.
    Identity(Errno),
    /// The connection could not be made.
    Connect(Errno),
}

/// Where the answer comes.
#[derive(Debug, Default)]
pub(super) struct Answer(Mutex<Option<Result<Attempt, Refusal>>>);

impl Answer {
    /// The result, once it is there.
    pub(super) fn take(&self) -> Option<Result<Attempt, Refusal>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// One connection to be made.
struct Request {
    identity: Identity,
    target: Arc<Target>,
    kind: SocketType,
    answer: Arc<Answer>,
    waker: Waker,
}

/// The way to the thread.
#[derive(Clone)]
pub(super) struct Connector(SyncSender<Request>);

/// What the thread does, once it has its capabilities.
pub(super) struct Body(Receiver<Request>);

/// Both ends; at most `bound` requests wait.
pub(super) fn connector(bound: usize) -> (Connector, Body) {
    let (sender, receiver) = sync_channel(bound);
    (Connector(sender), Body(receiver))
}

impl Connector {
    /// Asks for a connection; `waker` is called when the answer is there. An
    /// answer that was dropped is not worked for.
    ///
    /// # Errors
    /// `AGAIN` when too many wait, `NOTCONN` when the thread is gone.
    pub(super) fn ask(
        &self,
        identity: Identity,
        target: Arc<Target>,
        kind: SocketType,
        waker: Waker,
    ) -> Result<Arc<Answer>, Errno> {
        let answer = Arc::new(Answer::default());
        let request = Request {
            identity,
            target,
            kind,
            answer: Arc::clone(&answer),
            waker,
        };
        match self.0.try_send(request) {
            Ok(()) => Ok(answer),
            Err(TrySendError::Full(_)) => Err(Errno::AGAIN),
            Err(TrySendError::Disconnected(_)) => Err(Errno::NOTCONN),
        }
    }
}

impl Body {
    /// Works until the relay is gone.
    pub(super) fn run(self) {
        let own = match Own::of_this_thread() {
            Ok(own) => own,
            Err(error) => {
                crate::critical!("the connector does not know who it is: {error}");
                return;
            }
        };
        while let Ok(request) = self.0.recv() {
            if Arc::strong_count(&request.answer) == 1 {
                continue;
            }
            let (result, back) = own.connect_as(&request);
            *request
                .answer
                .0
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = Some(result);
            request.waker.wake();
            if let Err(error) = back {
                crate::critical!(
                    "the connector can't take its own identity back: {error}; \
                     upstream_identity=peer is out of service"
                );
                return;
            }
        }
    }
}

#[cfg(test)]
impl Body {
    /// Answers the request that waits, in the place of the thread. False if none does.
    pub(super) fn answer(&self, result: Result<Attempt, Refusal>) -> bool {
        let Ok(request) = self.0.try_recv() else {
            return false;
        };
        *request.answer.0.lock().unwrap() = Some(result);
        request.waker.wake();
        true
    }
}

/// Who the thread is between two requests.
struct Own {
    uid: rustix::fs::Uid,
    gid: rustix::fs::Gid,
    groups: Vec<rustix::fs::Gid>,
}

impl Own {
    fn of_this_thread() -> Result<Self, Errno> {
        let uid = rustix::process::geteuid();
        let gid = rustix::process::getegid();
        Ok(Self {
            uid,
            gid,
            groups: rustix::process::getgroups()?,
        })
    }

    /// The result, and whether the thread is itself again.
    fn connect_as(&self, request: &Request) -> (Result<Attempt, Refusal>, Result<(), Errno>) {
        let socket = match connect::open(&request.target.address, request.kind) {
            Ok(socket) => socket,
            Err(error) => return (Err(Refusal::Connect(error)), Ok(())),
        };
        let result = self
            .become_peer(&request.identity)
            .map_err(Refusal::Identity);
        let result = result.and_then(|()| {
            connect::connect(socket, &request.target.address).map_err(Refusal::Connect)
        });
        (result, self.come_back())
    }

    fn become_peer(&self, identity: &Identity) -> Result<(), Errno> {
        if identity.uid == Uid::ROOT && !self.uid.is_root() {
            // On the way back from effective user 0 the kernel clears the
            // effective capabilities (capabilities(7)), and this thread may not
            // raise them again.
            return Err(Errno::PERM);
        }
        let groups: Vec<_> = identity.groups.iter().map(|gid| group(*gid)).collect();
        ids::set_thread_groups(&groups)?;
        ids::set_thread_res_gid(None, group(identity.gid), None)?;
        // Last, since it may take the capabilities away until it is undone.
        let uid = rustix::fs::Uid::from_raw(identity.uid.as_raw());
        ids::set_thread_res_uid(None, uid, None)
    }

    fn come_back(&self) -> Result<(), Errno> {
        ids::set_thread_res_uid(None, self.uid, None)?;
        ids::set_thread_res_gid(None, self.gid, None)?;
        ids::set_thread_groups(&self.groups)
    }
}

fn group(gid: Gid) -> rustix::fs::Gid {
    rustix::fs::Gid::from_raw(gid.as_raw())
}

#[cfg(test)]
mod tests {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::targets::Targets;
    use super::*;
    use crate::sys::peer::credentials;

    fn identity(uid: u32, gid: u32, groups: &[u32]) -> Identity {
        Identity {
            uid: Uid::from_raw(uid).unwrap(),
            gid: Gid::from_raw(gid).unwrap(),
            groups: groups
                .iter()
                .map(|gid| Gid::from_raw(*gid).unwrap())
                .collect(),
        }
    }

    #[test]
    fn the_upstream_sees_the_peer_and_the_thread_comes_back() {
        if !rustix::process::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "needs root");
            let said = b"\nSKIP service::relay::connector::tests::the_upstream_sees_the_peer_and_the_thread_comes_back: needs root\n";
            let _ = std::io::Write::write_all(&mut std::io::stderr(), said);
            return;
        }
        let name = format!("secure-socket-connector-{}", std::process::id());
        let upstream = format!("unix:@{name}").parse().unwrap();
        let address = SocketAddr::from_abstract_name(name).unwrap();
        let listener = UnixListener::bind_addr(&address).unwrap();
        let targets = Targets::resolve(vec![upstream]).unwrap();
        let target = targets.in_order(std::time::Instant::now()).remove(0);
        let (connector, body) = connector(4);
        let thread = std::thread::spawn(|| {
            body.run();
            (
                rustix::process::geteuid().as_raw(),
                rustix::process::getegid().as_raw(),
            )
        });
        static WOKEN: AtomicUsize = AtomicUsize::new(0);
        let waker = Waker::new(|| WOKEN.store(1, Ordering::SeqCst));
        for (uid, gid) in [(1234, 5678), (0, 0), (4_000_000_000, 33)] {
            let ask = connector.ask(
                identity(uid, gid, &[7, 8]),
                Arc::clone(&target),
                SocketType::STREAM,
                waker.clone(),
            );
            let (accepted, _) = listener.accept().unwrap();
            let seen = credentials(std::os::fd::AsFd::as_fd(&accepted)).unwrap();
            assert_eq!((seen.uid, seen.gid), (uid, gid));
            let answer = ask.unwrap();
            while WOKEN.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            WOKEN.store(0, Ordering::SeqCst);
            assert!(matches!(answer.take(), Some(Ok(Attempt::Done(_)))));
        }
        drop(connector);
        assert_eq!(thread.join().unwrap(), (0, 0));
    }

    #[test]
    fn a_request_that_nobody_waits_for_is_not_made_and_the_queue_is_bounded() {
        let upstream = "unix:/nonexistent/socket".parse().unwrap();
        let targets = Targets::resolve(vec![upstream]).unwrap();
        let target = targets.in_order(std::time::Instant::now()).remove(0);
        let (connector, body) = connector(1);
        let waker = Waker::new(|| panic!("nobody asked"));
        let ask = || {
            let me = identity(0, 0, &[]);
            connector.ask(me, Arc::clone(&target), SocketType::STREAM, waker.clone())
        };
        drop(ask().unwrap());
        assert_eq!(ask().unwrap_err(), Errno::AGAIN);
        drop(connector);
        body.run();
    }
}
