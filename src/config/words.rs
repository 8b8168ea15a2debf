//! Options that take one of a few words, as types.
//!
//! Each knows its words, so that the table and the types can be held against
//! each other by a test.

use std::num::NonZeroUsize;

use super::given::Wrong;
use super::values;
use crate::server::{Choice, Overload, Threads};
use crate::service::relay::Identity;

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? })+) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
            pub enum $name {
                $($(#[$vdoc])* $variant,)+
            }

            impl $name {
                /// The words, in the order of the table.
                pub const WORDS: &'static [&'static str] = &[$($word),+];

                /// The word for it.
                pub const fn word(self) -> &'static str {
                    match self {
                        $(Self::$variant => $word,)+
                    }
                }

                pub(crate) fn parse(text: &str) -> Result<Self, Wrong> {
                    match values::word(text, Self::WORDS)? {
                        $($word => Ok(Self::$variant),)+
                        _ => Err(Wrong::expected("a known word", text, 0)),
                    }
                }
            }
        )+
    };
}

words! {
    /// The address family.
    Domain {
        /// Unix-domain sockets.
        Unix = "AF_UNIX",
        /// The same by its other name.
        Local = "AF_LOCAL",
        /// IPv4.
        Inet = "AF_INET",
        /// IPv6.
        Inet6 = "AF_INET6",
    }
    /// What happens to peers whose process can't be checked yet, because too
    /// many wait already.
    CheckOverload {
        /// They wait in the kernel's backlog.
        Wait = "wait",
        /// They are denied.
        Deny = "deny",
    }
    /// Which service is given.
    Service {
        /// Returns the bytes.
        Echo = "echo",
        /// Joins the peer to an upstream.
        Relay = "relay",
        /// Passes messages and requests between peers.
        Broker = "broker",
    }
    /// Form of log lines.
    LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
        /// Syslog's form of RFC 5424.
        Rfc5424 = "rfc5424",
    }
    /// What happens when the queue to the log writer is full.
    LogOverflow {
        /// Lines are dropped, counted and reported.
        Drop = "drop",
        /// The caller waits.
        Block = "block",
    }
    /// Where log lines go.
    LogSink {
        /// Standard output.
        Stdout = "stdout",
        /// Standard error.
        Stderr = "stderr",
        /// The file `log_file`.
        File = "file",
        /// The POSIX message queue `mq_name`.
        Mq = "mq",
        /// The syslog server `log_remote`.
        Remote = "remote",
    }
}

/// `auto`, `yes` or `no`.
pub(crate) fn choice(text: &str) -> Result<Choice, Wrong> {
    match values::word(text, CHOICES)? {
        "auto" => Ok(Choice::Auto),
        "yes" => Ok(Choice::Yes),
        _ => Ok(Choice::No),
    }
}

const CHOICES: &[&str] = &["auto", "yes", "no"];

/// `wait` or `refuse`.
pub(crate) fn overload(text: &str) -> Result<Overload, Wrong> {
    match values::word(text, OVERLOADS)? {
        "wait" => Ok(Overload::Wait),
        _ => Ok(Overload::Refuse),
    }
}

const OVERLOADS: &[&str] = &["wait", "refuse"];

/// `own` or `peer`.
pub(crate) fn identity(text: &str) -> Result<Identity, Wrong> {
    match values::word(text, IDENTITIES)? {
        "own" => Ok(Identity::Own),
        _ => Ok(Identity::Peer),
    }
}

const IDENTITIES: &[&str] = &["own", "peer"];

/// `off` or `v2`: whether a PROXY header is sent.
pub(crate) fn proxy(text: &str) -> Result<bool, Wrong> {
    values::word(text, PROXIES).map(|word| word == "v2")
}

const PROXIES: &[&str] = &["off", "v2"];

/// `multi`, `single`, or a number of threads.
pub(crate) fn threads(text: &str) -> Result<Threads, Wrong> {
    let what = "multi, single or a number from 1 to 1024";
    let loops = match text {
        "multi" => return Ok(Threads::Multi),
        "single" => Some(1),
        _ => values::number(text, 1, 1024).ok(),
    };
    let loops = loops
        .and_then(|loops| usize::try_from(loops).ok())
        .and_then(NonZeroUsize::new);
    loops
        .map(Threads::Loops)
        .ok_or_else(|| Wrong::expected(what, text, 0))
}

#[cfg(test)]
mod tests {
    use super::super::key::{DAEMON, Kind};
    use super::*;

    #[test]
    fn the_types_and_the_table_know_the_same_words() {
        let types = [
            ("domain", Domain::WORDS),
            ("process_proof", CHOICES),
            ("session_ends_with_peer", CHOICES),
            ("process_check_overload", CheckOverload::WORDS),
            ("service", Service::WORDS),
            ("upstream_identity", IDENTITIES),
            ("proxy_protocol", PROXIES),
            ("overload", OVERLOADS),
            ("log_format", LogFormat::WORDS),
            ("log_overflow", LogOverflow::WORDS),
        ];
        for (name, words) in types {
            assert_eq!(DAEMON.find(name).unwrap().kind, Kind::Word(words), "{name}");
        }
    }

    #[test]
    fn threads_are_a_pool_or_a_number() {
        let loops = |number| Ok(Threads::Loops(NonZeroUsize::new(number).unwrap()));
        assert_eq!(threads("multi"), Ok(Threads::Multi));
        assert_eq!(threads("single"), loops(1));
        assert_eq!(threads("1024"), loops(1024));
        for text in ["0", "1025", "", "two", "-1"] {
            assert!(threads(text).is_err(), "{text:?}");
        }
    }
}
