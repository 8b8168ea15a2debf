//! Tells the service manager how the server is doing (sd_notify(3)).
//!
//! Invariants: the socket is connected once, before the process is confined,
//! and kept; a message is one datagram; a manager that doesn't read delays the
//! server by a second at most for each message.
//!
//! Not here: when to say what.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use rustix::time::{ClockId, clock_gettime};

use super::address::{ABSTRACT_MAX_LEN, CLIENT_PATH_MAX_LEN};
use super::file;

/// How long a message may wait for room.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest status text in bytes; what is beyond is cut off.
const STATUS_MAX_LEN: usize = 512;

/// A connection to the service manager's notification socket.
///
/// It can be shared between threads.
#[derive(Debug)]
pub struct Notify {
    socket: OwnedFd,
}

/// Why the service manager can't be told anything.
#[derive(Debug)]
#[non_exhaustive]
pub enum NotifyError {
    /// `NOTIFY_SOCKET` holds neither an absolute path nor an abstract name.
    Address {
        /// What it holds.
        found: OsString,
    },
    /// The socket can't be reached.
    Connect {
        /// What `NOTIFY_SOCKET` holds.
        address: OsString,
        /// The system's reason.
        source: io::Error,
    },
}

impl fmt::Display for NotifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { found } => {
                write!(
                    f,
                    "NOTIFY_SOCKET: expected an absolute path or @name, found {found:?}"
                )
            }
            Self::Connect { address, .. } => {
                write!(f, "NOTIFY_SOCKET: can't connect to {address:?}")
            }
        }
    }
}

impl std::error::Error for NotifyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Address { .. } => None,
            Self::Connect { source, .. } => Some(source),
        }
    }
}

impl Notify {
    /// Connects to the socket that `NOTIFY_SOCKET` names. `Ok(None)` if it
    /// names none.
    ///
    /// # Errors
    ///
    /// A [`NotifyError`] if the name can't be used.
    pub fn from_env() -> Result<Option<Self>, NotifyError> {
        match env::var_os("NOTIFY_SOCKET") {
            Some(address) if !address.is_empty() => Self::connect(&address).map(Some),
            _ => Ok(None),
        }
    }

    /// Connects to this absolute path or `@name`.
    ///
    /// # Errors
    ///
    /// A [`NotifyError`] if the name can't be used.
    pub fn connect(address: &OsStr) -> Result<Self, NotifyError> {
        let refuse = |error: rustix::io::Errno| NotifyError::Connect {
            address: address.to_owned(),
            source: error.into(),
        };
        let flags = SocketFlags::CLOEXEC;
        let kind = SocketType::DGRAM;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None).map_err(refuse)?;
        let connected = match address.as_bytes() {
            [b'@', name @ ..] if (1..=ABSTRACT_MAX_LEN).contains(&name.len()) => {
                SocketAddrUnix::new_abstract_name(name)
                    .and_then(|target| rustix::net::connect(&socket, &target))
            }
            [b'/', ..] if address.len() <= CLIENT_PATH_MAX_LEN => SocketAddrUnix::new(address)
                .and_then(|target| rustix::net::connect(&socket, &target)),
            [b'/', ..] => {
                let found =
                    rustix::fs::open(address, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
                        .map_err(refuse)?;
                SocketAddrUnix::new(file::path_of(found.as_fd()))
                    .and_then(|target| rustix::net::connect(&socket, &target))
            }
            _ => {
                return Err(NotifyError::Address {
                    found: address.to_owned(),
                });
            }
        };
        connected.map_err(refuse)?;
        // rustix looks for the vDSO at its first use, by a call that a sealed
        // process may not make.
        let _found = clock_gettime(ClockId::Monotonic);
        set_socket_timeout(&socket, Timeout::Send, Some(SEND_TIMEOUT)).map_err(refuse)?;
        Ok(Self { socket })
    }

    /// The server serves, for the first time or again after a reload. For the
    /// status, see [`status`](Self::status).
    ///
    /// # Errors
    ///
    /// Those of send(2), here and below: `EAGAIN` after a second, if the
    /// manager doesn't read.
    pub fn ready(&self, status: &str) -> io::Result<()> {
        self.send(&format!("READY=1\nSTATUS={}\n", status_text(status)))
    }

    /// The server reads its configuration again. [`ready`](Self::ready) ends that.
    ///
    /// # Errors
    ///
    /// As [`ready`](Self::ready).
    pub fn reloading(&self) -> io::Result<()> {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = now
            .tv_sec
            .saturating_mul(1_000_000)
            .saturating_add(now.tv_nsec / 1_000);
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\n"))
    }

    /// The server is about to stop. For the status, see [`status`](Self::status).
    ///
    /// # Errors
    ///
    /// As [`ready`](Self::ready).
    pub fn stopping(&self, status: &str) -> io::Result<()> {
        self.send(&format!("STOPPING=1\nSTATUS={}\n", status_text(status)))
    }

    /// Shows this text in the manager's status. Control characters become
    /// spaces, and what is beyond 512 bytes is cut off.
    ///
    /// # Errors
    ///
    /// As [`ready`](Self::ready).
    pub fn status(&self, text: &str) -> io::Result<()> {
        self.send(&format!("STATUS={}\n", status_text(text)))
    }

    /// The server is alive. To be said at least twice in
    /// [`watchdog_timeout`].
    ///
    /// # Errors
    ///
    /// As [`ready`](Self::ready).
    pub fn watchdog(&self) -> io::Result<()> {
        self.send("WATCHDOG=1\n")
    }

    fn send(&self, message: &str) -> io::Result<()> {
        rustix::io::retry_on_intr(|| {
            rustix::net::send(&self.socket, message.as_bytes(), SendFlags::NOSIGNAL)
        })?;
        Ok(())
    }
}

/// After what time without [`Notify::watchdog`] the service manager takes the
/// server for dead (sd_watchdog_enabled(3)). `None` if it doesn't watch this
/// process.
pub fn watchdog_timeout() -> Option<Duration> {
    let own = rustix::process::getpid().as_raw_pid();
    parse_watchdog(
        env::var_os("WATCHDOG_USEC"),
        env::var_os("WATCHDOG_PID"),
        own,
    )
}

fn parse_watchdog(micros: Option<OsString>, pid: Option<OsString>, own: i32) -> Option<Duration> {
    if let Some(pid) = pid
        && pid.to_str()?.parse::<i32>().ok()? != own
    {
        return None;
    }
    let micros = micros?.to_str()?.parse::<u64>().ok()?;
    // 0 and all bits set are refused by sd_watchdog_enabled(3), too.
    (micros != 0 && micros != u64::MAX).then(|| Duration::from_micros(micros))
}

fn status_text(text: &str) -> String {
    let mut line = String::new();
    for character in text.chars() {
        let character = if character.is_control() {
            ' '
        } else {
            character
        };
        if line.len() + character.len_utf8() > STATUS_MAX_LEN {
            break;
        }
        line.push(character);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    fn heard(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 1024];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[track_caller]
    fn all_is_said(socket: &UnixDatagram, address: &OsStr) {
        let notify = Notify::connect(address).unwrap();
        notify.ready("echo").unwrap();
        assert_eq!(heard(socket), "READY=1\nSTATUS=echo\n");
        let now = || {
            let now = clock_gettime(ClockId::Monotonic);
            Duration::new(
                now.tv_sec.cast_unsigned(),
                u32::try_from(now.tv_nsec).unwrap(),
            )
        };
        let before = now().as_micros();
        notify.reloading().unwrap();
        let text = heard(socket);
        let micros = text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        let micros = micros.trim_end().parse::<u128>().unwrap();
        assert!((before..=now().as_micros()).contains(&micros), "{micros}");
        notify.status("17 open\nREADY=1\u{1b}").unwrap();
        assert_eq!(heard(socket), "STATUS=17 open READY=1 \n");
        notify.watchdog().unwrap();
        assert_eq!(heard(socket), "WATCHDOG=1\n");
        notify.stopping("2 left").unwrap();
        assert_eq!(heard(socket), "STOPPING=1\nSTATUS=2 left\n");
    }

    #[test]
    fn an_abstract_manager_hears_all() {
        let name = format!("ss-notify-{}", std::process::id());
        let socket =
            UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        all_is_said(&socket, OsStr::new(&format!("@{name}")));
    }

    #[test]
    fn a_manager_with_a_path_hears_all() {
        let directory = env::temp_dir().join(format!("ss-notify-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let path = directory.join("n");
        let socket = UnixDatagram::bind(&path).unwrap();
        all_is_said(&socket, path.as_os_str());
        let long = directory.join(format!("{}/n", "./".repeat(100)));
        all_is_said(&socket, long.as_os_str());
        std::fs::remove_dir_all(&directory).unwrap();
        assert!(matches!(
            Notify::connect(path.as_os_str()),
            Err(NotifyError::Connect { .. })
        ));
    }

    #[test]
    fn other_addresses_are_refused() {
        for text in ["", "@", "run/x", "vsock:2:1234"] {
            let refused = Notify::connect(OsStr::new(text));
            let error = refused.err().unwrap();
            assert!(matches!(error, NotifyError::Address { .. }), "{text:?}");
            let expected = "NOTIFY_SOCKET: expected an absolute path or @name, found ";
            assert_eq!(error.to_string(), format!("{expected}{text:?}"));
            assert!(std::error::Error::source(&error).is_none());
        }
        let error = Notify::connect(OsStr::new("/none/at/all")).err().unwrap();
        let expected = "NOTIFY_SOCKET: can't connect to \"/none/at/all\"";
        assert_eq!(error.to_string(), expected);
        let source = std::error::Error::source(&error).unwrap();
        assert!(source.is::<io::Error>());
    }

    #[test]
    fn a_status_is_one_line_of_512_bytes_at_most() {
        let whole = "x".repeat(STATUS_MAX_LEN);
        assert_eq!(status_text(&whole), whole);
        assert_eq!(status_text(&format!("{whole}y")), whole);
        // Cut between characters.
        let wide = "\u{e4}".repeat(STATUS_MAX_LEN);
        assert_eq!(status_text(&wide), "\u{e4}".repeat(STATUS_MAX_LEN / 2));
        assert_eq!(status_text(&format!("x{wide}")).len(), STATUS_MAX_LEN - 1);
        assert_eq!(status_text("a\nb\u{9b}c"), "a b c");
    }

    #[test]
    fn a_deaf_manager_delays_by_a_second_at_most() {
        let name = format!("ss-deaf-{}", std::process::id());
        let _socket =
            UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let notify = Notify::connect(OsStr::new(&format!("@{name}"))).unwrap();
        let error = (0..10_000).find_map(|_| notify.watchdog().err()).unwrap();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn the_watchdog_is_for_one_process() {
        #[track_caller]
        fn check(micros: &str, pid: Option<&str>, expected: Option<u64>) {
            let pid = pid.map(OsString::from);
            let found = parse_watchdog(Some(OsString::from(micros)), pid, 812);
            assert_eq!(found, expected.map(Duration::from_micros));
        }
        check("30000000", None, Some(30_000_000));
        check("30000000", Some("812"), Some(30_000_000));
        check("30000000", Some("811"), None);
        check("30000000", Some("x"), None);
        check("0", None, None);
        check("18446744073709551615", None, None);
        check("-1", None, None);
        assert_eq!(parse_watchdog(None, None, 812), None);
    }
}
