//! The client's side: who serves the socket, judged by rules as a server judges
//! its peers.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;

use super::authorized::Authorized;
use super::check::Policy;
use super::denial::Denial;
use crate::peer::{Checker, CheckerConfig, Inspector, Needs, Peer, PidfdSource, PinError, Pins};

/// Why a server is not trusted.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServerError {
    /// The rules can't be relied upon.
    Pins(Vec<PinError>),
    /// `/proc` isn't there, which the rules need.
    Proc(io::Error),
    /// It is someone else, or it can't be told who it is.
    Denied {
        /// Which rule, and which fact was missing.
        denial: Denial,
        /// Who it is, as far as the socket says.
        found: String,
    },
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pins(errors) => {
                let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
                f.write_str(&texts.join("; "))
            }
            Self::Proc(_) => f.write_str("can not read /proc to check the server's process"),
            Self::Denied { denial, found } => {
                write!(f, "the server is not the expected one: {found} {denial}")
            }
        }
    }
}

impl std::error::Error for ServerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        if let Self::Proc(error) = self {
            Some(error)
        } else {
            None
        }
    }
}

/// Judges the server at the other end of a connected `AF_UNIX` socket, before a
/// byte is sent to it. Waits for digests, up to 5 s.
///
/// The kernel recorded the server when it called listen(2) (unix(7),
/// `SO_PEERCRED`): user and process are those of before a drop of privileges, and
/// of the service manager where that opened the socket.
///
/// # Errors
///
/// Why the server is not to be trusted.
pub fn verify_server(socket: BorrowedFd<'_>, policy: &Policy) -> Result<Authorized, ServerError> {
    let pins = Pins::open(&policy.exe_paths(), &policy.pids(), None).map_err(ServerError::Pins)?;
    let checker = if policy.needs().has_any(Needs::PROC) {
        Some(Checker::direct(CheckerConfig::default()).map_err(ServerError::Proc)?)
    } else {
        None
    };
    let inspector = Inspector::new(pins, checker);
    let peer = Peer::from_socket(socket, policy.needs(), PidfdSource::Socket);
    let mut facts = peer.facts().clone();
    let verdict = policy.judge(&mut facts, |facts, needs| {
        inspector.learn(&peer, facts, needs)
    });
    verdict.map_err(|denial| ServerError::Denied {
        denial,
        found: facts.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    fn verify(policy: &Policy) -> Result<Authorized, ServerError> {
        let (socket, _server) = UnixStream::pair().unwrap();
        verify_server(socket.as_fd(), policy)
    }

    #[test]
    fn a_server_is_judged_by_what_its_socket_says() {
        let expected = Policy::builder().build().unwrap();
        let found = verify(&expected).unwrap();
        assert_eq!(found.uid(), Some(expected.own_user()));

        let denied = verify(&Policy::parse("address:::1").unwrap()).unwrap_err();
        let raw = found.credentials();
        assert_eq!(
            denied.to_string(),
            format!("the server is not the expected one: {raw} reason=no_rule")
        );
        assert!(denied.source().is_none());
    }

    #[test]
    fn rules_that_can_not_be_relied_upon_are_all_named() {
        let policy = Policy::parse("exe:/nowhere/a|exe:/nowhere/b").unwrap();
        let text = verify(&policy).unwrap_err().to_string();
        assert_eq!(
            text,
            "exe:/nowhere/a can not be followed at /nowhere; \
             exe:/nowhere/b can not be followed at /nowhere"
        );
    }

    #[test]
    fn without_proc_the_cause_is_kept() {
        let error = ServerError::Proc(io::ErrorKind::NotFound.into());
        assert_eq!(
            error.to_string(),
            "can not read /proc to check the server's process"
        );
        assert!(error.source().is_some());
    }
}
