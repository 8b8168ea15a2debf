//! What the server gives up before it serves, and whom it becomes.

use super::super::file::reason;
use super::super::given::Wrong;
use super::super::place::quoted;
use super::super::reader::{Reader, Sourced};
use super::super::values;
use super::Surroundings;
use crate::ids::{Gid, Uid};
use crate::sandbox::{Mode, RunAs, SeccompAction};

/// What the server gives up before it serves.
#[derive(Clone, Debug)]
pub struct WallSettings {
    /// Whom it becomes after bind.
    pub run_as: Option<RunAs>,
    /// How firm the walls must stand.
    pub sandbox: Mode,
    /// What a system call that is not on the list does.
    pub seccomp: SeccompAction,
}

pub(super) fn read(
    reader: &mut Reader<'_>,
    surroundings: &Surroundings<'_>,
) -> Option<WallSettings> {
    let sandbox = reader.one("sandbox", |text| {
        match values::word(text, &["enforce", "best_effort", "off"])? {
            "enforce" => Ok(Mode::Enforce),
            "best_effort" => Ok(Mode::BestEffort),
            _ => Ok(Mode::Off),
        }
    })?;
    let seccomp = reader.one("seccomp", |text| {
        match values::word(text, &["kill", "trap", "log", "off"])? {
            "kill" => Ok(SeccompAction::Kill),
            "trap" => Ok(SeccompAction::Trap),
            "log" => Ok(SeccompAction::Log),
            _ => Ok(SeccompAction::Off),
        }
    })?;
    if sandbox == Mode::Off && seccomp != SeccompAction::Off {
        reader.idle("seccomp", "sandbox=off");
    }
    let run_as = run_as(reader, surroundings);
    Some(WallSettings {
        run_as,
        sandbox,
        seccomp,
    })
}

/// A user, with the primary group and the name, where it has an entry.
struct User {
    uid: Uid,
    entry: Option<(String, Gid)>,
}

fn run_as(reader: &mut Reader<'_>, surroundings: &Surroundings<'_>) -> Option<RunAs> {
    let user = reader.maybe("run_as_user", |text| user(text, surroundings));
    let group = reader.maybe("run_as_group", |text| group(text, surroundings));
    let user_failed = user.is_none() && reader.is_given("run_as_user");
    let user = match (user, &group) {
        (Some(user), _) => user.value,
        (None, Some(_)) if !user_failed => User {
            uid: surroundings.euid,
            entry: None,
        },
        (None, _) => return None,
    };
    let gid = match (group, &user.entry) {
        (Some(group), _) => group.value,
        (None, Some((_, primary))) => {
            let primary = *primary;
            reader.follows(
                "run_as_group",
                primary.to_string(),
                "primary group of run_as_user",
            );
            primary
        }
        (None, None) => {
            let uid = user.uid;
            if !reader.is_given("run_as_group") {
                let text = format!("uid {uid} has no entry, so run_as_group must be given");
                reader.error("run_as_user", text);
            }
            return None;
        }
    };
    let groups = match &user.entry {
        Some((name, _)) => match surroundings.accounts.groups_of(name, gid) {
            Ok(groups) => groups,
            Err(error) => {
                let why = reason(&error);
                let text = format!("cannot look up the groups of {}: {why}", quoted(name));
                reader.error("run_as_user", text);
                return None;
            }
        },
        None => vec![gid],
    };
    Some(RunAs {
        uid: user.uid,
        gid,
        groups,
    })
}

fn user(text: &str, surroundings: &Surroundings<'_>) -> Result<User, Wrong> {
    let what = "a user's name or uid";
    let name = values::plain(text, what, 256)?;
    let cannot = |error: std::io::Error| {
        Wrong::says(
            format!("cannot look up {}: {}", quoted(text), reason(&error)),
            text,
        )
    };
    if name.bytes().all(|byte| byte.is_ascii_digit()) {
        let wrong = |_| Wrong::expected("a uid from 0 to 4294967294", text, 0);
        let number = name.parse::<u32>().map_err(|_| wrong(()))?;
        let uid = Uid::from_raw(number).ok_or(()).map_err(wrong)?;
        let entry = surroundings.accounts.user_of(uid).map_err(cannot)?;
        return Ok(User { uid, entry });
    }
    match surroundings.accounts.user(name).map_err(cannot)? {
        Some((uid, gid)) => Ok(User {
            uid,
            entry: Some((name.to_owned(), gid)),
        }),
        None => Err(Wrong::says(
            format!("no user is named {}", quoted(text)),
            text,
        )),
    }
}

/// A group by name or number.
pub(super) fn group(text: &str, surroundings: &Surroundings<'_>) -> Result<Gid, Wrong> {
    let name = values::plain(text, "a group's name or gid", 256)?;
    if name.bytes().all(|byte| byte.is_ascii_digit()) {
        let gid = name.parse::<u32>().ok().and_then(Gid::from_raw);
        return gid.ok_or_else(|| Wrong::expected("a gid from 0 to 4294967294", text, 0));
    }
    match surroundings.accounts.group(name) {
        Ok(Some(gid)) => Ok(gid),
        Ok(None) => Err(Wrong::says(
            format!("no group is named {}", quoted(text)),
            text,
        )),
        Err(error) => {
            let text_of_error = format!("cannot look up {}: {}", quoted(text), reason(&error));
            Err(Wrong::says(text_of_error, text))
        }
    }
}

/// A group that an option gives, if it does.
pub(super) fn group_option(
    reader: &mut Reader<'_>,
    name: &str,
    surroundings: &Surroundings<'_>,
) -> Option<Sourced<Gid>> {
    reader.maybe(name, |text| group(text, surroundings))
}
