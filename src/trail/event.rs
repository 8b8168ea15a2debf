//! What a line says: a decision, or a step in the life of the server.

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use super::json::Members;
use crate::ids::{Gid, Uid};
use crate::peer::{Fact, Facts};
use crate::policy::RuleRef;

/// The most bytes of one text. With all that a line can hold it stays below
/// [`MAX_LINE`](super::MAX_LINE).
const MOST_TEXT: usize = 4_096;
/// The most supplementary groups of one peer.
const MOST_GROUPS: usize = 1_024;

/// Who a line is about.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub enum Peer<'a> {
    /// All that is known.
    Facts(&'a Facts),
    /// Its uid, gid and pid, where a line before this one has the rest.
    Ids(&'a Facts),
    /// As far as admission knows it, e.g. `uid=33 pid=812`.
    Who(&'a dyn fmt::Display),
}

/// What happened.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The server starts.
    Start {
        /// Its version.
        version: &'a str,
        /// Where it listens.
        socket: &'a str,
    },
    /// A peer was admitted.
    Admit {
        /// The connection's number.
        connection: u64,
        /// Who.
        peer: Peer<'a>,
        /// By which rule.
        rule: &'a RuleRef,
    },
    /// A peer was denied by the policy, or refused by a limit.
    Deny {
        /// The connection's number. `None` where a line speaks for several.
        connection: Option<u64>,
        /// Who.
        peer: Peer<'a>,
        /// The rule that decided, if one did.
        rule: Option<&'a RuleRef>,
        /// The stable code of the reason.
        reason: &'a str,
        /// The reason in words.
        detail: Option<&'a dyn fmt::Display>,
        /// How many others before it, of the same kind, this line speaks for.
        others: u64,
    },
    /// A penalty begins.
    Penalty {
        /// For whom.
        peer: Peer<'a>,
        /// How long.
        length: Duration,
    },
    /// A connection that was admitted is over.
    Close {
        /// Its number.
        connection: u64,
        /// Who.
        peer: Peer<'a>,
        /// The stable code of the reason.
        reason: &'a str,
        /// Bytes from the peer.
        received: u64,
        /// Bytes to the peer.
        sent: u64,
        /// From accept to the end.
        duration: Duration,
    },
    /// The configuration was read again.
    Reload {
        /// Whether it was put in force.
        applied: bool,
        /// What was wrong, or what changed.
        detail: Option<&'a dyn fmt::Display>,
    },
    /// The server stops. The last line, if it does so in order.
    Stop {
        /// The exit code.
        code: u8,
    },
    /// A new file was begun.
    Roll {
        /// What the file before it is called now.
        before: &'a str,
    },
}

impl Event<'_> {
    /// Appends the members, each with a comma before it.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let members = &mut Members(out);
        members.text("event", self.name().as_bytes(), MOST_TEXT);
        match self {
            Self::Start { version, socket } => {
                members.text("version", version.as_bytes(), MOST_TEXT);
                members.number("server_pid", std::process::id());
                members.text("socket", socket.as_bytes(), MOST_TEXT);
            }
            Self::Admit {
                connection,
                peer,
                rule,
            } => {
                members.number("conn", *connection);
                write_peer(members, *peer);
                write_rule(members, rule);
            }
            Self::Deny {
                connection,
                peer,
                rule,
                reason,
                detail,
                others,
            } => {
                match connection {
                    Some(connection) => members.number("conn", *connection),
                    None => members.null("conn"),
                }
                write_peer(members, *peer);
                if let Some(rule) = rule {
                    write_rule(members, rule);
                }
                members.text("reason", reason.as_bytes(), MOST_TEXT);
                write_detail(members, *detail);
                if *others > 0 {
                    members.number("others", *others);
                }
            }
            Self::Penalty { peer, length } => {
                write_peer(members, *peer);
                members.number("length_ms", whole(length.as_millis()));
            }
            Self::Close {
                connection,
                peer,
                reason,
                received,
                sent,
                duration,
            } => {
                members.number("conn", *connection);
                write_peer(members, *peer);
                members.text("reason", reason.as_bytes(), MOST_TEXT);
                members.number("received", *received);
                members.number("sent", *sent);
                members.number("duration_us", whole(duration.as_micros()));
            }
            Self::Reload { applied, detail } => {
                members.flag("applied", *applied);
                write_detail(members, *detail);
            }
            Self::Stop { code } => members.number("code", *code),
            Self::Roll { before } => members.text("before", before.as_bytes(), MOST_TEXT),
        }
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::Start { .. } => "start",
            Self::Admit { .. } => "admit",
            Self::Deny { .. } => "deny",
            Self::Penalty { .. } => "penalty",
            Self::Close { .. } => "close",
            Self::Reload { .. } => "reload",
            Self::Stop { .. } => "stop",
            Self::Roll { .. } => "roll",
        }
    }
}

fn whole(number: u128) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

fn write_rule(members: &mut Members<'_>, rule: &RuleRef) {
    let list = match rule.kind {
        crate::policy::RuleKind::Allow => "allow",
        crate::policy::RuleKind::Deny => "deny",
    };
    members.text("list", list.as_bytes(), MOST_TEXT);
    members.number("rule", rule.number);
    members.text("rule_text", rule.text.as_bytes(), MOST_TEXT);
}

fn write_detail(members: &mut Members<'_>, detail: Option<&dyn fmt::Display>) {
    if let Some(detail) = detail {
        members.text("detail", detail.to_string().as_bytes(), MOST_TEXT);
    }
}

fn write_peer(members: &mut Members<'_>, peer: Peer<'_>) {
    match peer {
        Peer::Facts(facts) => write_facts(members, facts),
        Peer::Ids(facts) => write_ids(members, facts),
        Peer::Who(who) => members.text("who", who.to_string().as_bytes(), MOST_TEXT),
    }
}

/// Only what is known. An id without a mapping here is `null`, and the number
/// that the kernel showed for it stands under `raw_uid` or `raw_gid`.
fn write_facts(members: &mut Members<'_>, facts: &Facts) {
    write_ids(members, facts);
    if let Some(groups) = facts.groups.known() {
        members.numbers("groups", groups.iter().map(|gid| gid.as_raw()), MOST_GROUPS);
    }
    if let Some(exe) = facts.exe.known() {
        members.text("exe", exe.path.as_os_str().as_bytes(), MOST_TEXT);
        members.number("exe_device", exe.file.device);
        members.number("exe_inode", exe.file.inode);
    }
    if let Some(digest) = facts.sha256.known() {
        members.digest("sha256", digest);
    }
    for (name, fact) in [
        ("label", &facts.label),
        ("name", &facts.name),
        ("args", &facts.args),
    ] {
        if let Fact::Known(text) = fact {
            members.text(name, text, MOST_TEXT);
        }
    }
}

fn write_ids(members: &mut Members<'_>, facts: &Facts) {
    if let Some(address) = facts.address {
        members.text("address", address.to_string().as_bytes(), MOST_TEXT);
    }
    if let Some(raw) = facts
        .credentials
        .known()
        .and_then(|ids| Some((ids, ids.raw()?)))
    {
        let (ids, (_, raw_uid, raw_gid)) = raw;
        write_id(
            members,
            "uid",
            "raw_uid",
            ids.uid().map(Uid::as_raw),
            raw_uid,
        );
        write_id(
            members,
            "gid",
            "raw_gid",
            ids.gid().map(Gid::as_raw),
            raw_gid,
        );
        match ids.pid().and_then(|pid| u32::try_from(pid.as_raw()).ok()) {
            Some(pid) => members.number("pid", pid),
            None => members.null("pid"),
        }
    }
}

fn write_id(members: &mut Members<'_>, name: &str, raw_name: &str, id: Option<u32>, raw: u32) {
    match id {
        Some(id) => members.number(name, id),
        None => {
            members.null(name);
            members.number(raw_name, raw);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::chain::{Head, MAX_LINE, link, read};
    use super::*;
    use crate::peer::{Credentials, Exe, FileId, IdMaps};
    use std::path::PathBuf;
    use std::sync::Arc;

    fn facts() -> Facts {
        let mut facts = Facts::of(Fact::Known(Credentials::from_raw(
            812,
            33,
            33,
            IdMaps::FULL,
        )));
        facts.groups = Fact::Known(vec![Gid::ROOT]);
        facts
    }

    fn rule(text: &str) -> RuleRef {
        RuleRef {
            kind: crate::policy::RuleKind::Allow,
            number: 1,
            text: Arc::from(text),
        }
    }

    #[track_caller]
    fn check(event: &Event<'_>, expected: &str) {
        let mut line = Vec::new();
        event.write(&mut line);
        assert_eq!(String::from_utf8(line).unwrap(), expected);
    }

    #[test]
    fn lines_say_what_was_decided() {
        let (facts, rule) = (facts(), rule("uid:33"));
        check(
            &Event::Admit {
                connection: 17,
                peer: Peer::Facts(&facts),
                rule: &rule,
            },
            r#","event":"admit","conn":17,"uid":33,"gid":33,"pid":812,"groups":[0],"list":"allow","rule":1,"rule_text":"uid:33""#,
        );
        let close = Event::Close {
            connection: 17,
            peer: Peer::Who(&"uid=33"),
            reason: "finished",
            received: 64,
            sent: 65,
            duration: Duration::from_millis(3),
        };
        check(
            &close,
            r#","event":"close","conn":17,"who":"uid=33","reason":"finished","received":64,"sent":65,"duration_us":3000"#,
        );
    }

    #[test]
    fn an_unmapped_id_is_nobodys() {
        let ids = Credentials::from_raw(0, 65_534, 5, IdMaps::PARTIAL);
        let facts = Facts::of(Fact::Known(ids));
        check(
            &Event::Penalty {
                peer: Peer::Facts(&facts),
                length: Duration::from_secs(60),
            },
            r#","event":"penalty","uid":null,"raw_uid":65534,"gid":5,"pid":null,"length_ms":60000"#,
        );
    }

    #[test]
    fn the_longest_line_is_within_the_bound() {
        let mut facts = facts();
        // A control character takes six bytes in its escaped form.
        let long = vec![1_u8; 70_000];
        facts.groups = Fact::Known(vec![Gid::from_raw(u32::MAX - 1).unwrap(); 65_536]);
        facts.label = Fact::Known(long.clone());
        facts.name = Fact::Known(vec![1; 16]);
        facts.args = Fact::Known(long.clone());
        facts.exe = Fact::Known(Exe {
            file: FileId {
                device: u64::MAX,
                inode: u64::MAX,
            },
            path: PathBuf::from(String::from_utf8(long).unwrap()),
            deleted: false,
            same_as: Vec::new(),
        });
        facts.sha256 = Fact::Known([1; 32]);
        let rule = rule(&"\u{1}".repeat(65_536));
        let event = Event::Deny {
            connection: Some(u64::MAX),
            peer: Peer::Facts(&facts),
            rule: Some(&rule),
            reason: "no_rule",
            detail: None,
            others: u64::MAX,
        };
        let mut line = Vec::new();
        let head = Head {
            sequence: u64::MAX - 1,
            digest: [9; 32],
        };
        link(&mut line, head, |out| event.write(out));
        assert!(line.len() > 70_000, "{}", line.len());
        assert!(line.len() < MAX_LINE, "{}", line.len());
        assert!(read(line.strip_suffix(b"\n").unwrap()).is_ok());
    }
}
