//! Who is admitted: the rules, and how processes are checked.

use std::time::Duration;

use super::super::accounts::RuleNames;
use super::super::given::Wrong;
use super::super::reader::{Reader, Sourced};
use super::super::words::{self, CheckOverload, Service};
use super::{ServiceSettings, SocketSettings, Surroundings};
use crate::ids::Uid;
use crate::listener::Address;
use crate::peer::Needs;
use crate::policy::{Criterion, Names, Policy, Rule, RuleBuilder, Warning};
use crate::server::Choice;

/// Who is admitted.
#[derive(Clone, Debug)]
pub struct PeerSettings {
    /// The rules.
    pub policy: Policy,
    /// Whether peers prove that they are the process that was checked.
    pub process_proof: Choice,
    /// How long they may take for it.
    pub proof_timeout: Duration,
    /// Whether a connection ends with the authorised process.
    pub session_ends_with_peer: Choice,
    /// How processes are checked.
    pub checks: ProcessChecks,
}

/// How processes are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessChecks {
    /// How often an open connection's process is looked at again.
    pub interval: Duration,
    /// How many are looked at at once, 1 to 64.
    pub parallel: u16,
    /// How many may wait for it.
    pub queue: u32,
    /// What happens to those beyond.
    pub overload: CheckOverload,
    /// How long one check may take.
    pub timeout: Duration,
    /// The largest executable that is hashed, in bytes.
    pub hash_max_size: u64,
    /// How many digests are remembered.
    pub hash_cache: u32,
}

/// The options of the one rule that the original's names make, and the keyword
/// of each inside a rule.
const AUTHORISED: &[(&str, &str)] = &[
    ("authorised_peer_username", "user"),
    ("authorised_peer_uid", "uid"),
    ("authorised_peer_groupname", "group"),
    ("authorised_peer_gid", "gid"),
    ("authorised_peer_pid", "pid"),
    ("authorised_peer_process_name", "name"),
    ("authorised_peer_cli_args", "args"),
    ("authorised_peer_exe", "exe"),
    ("authorised_peer_exe_sha256", "sha256"),
    ("authorised_peer_label", "label"),
];

pub(super) fn read(
    reader: &mut Reader<'_>,
    surroundings: &Surroundings<'_>,
    own_user: Uid,
) -> Option<PeerSettings> {
    let names = RuleNames {
        accounts: surroundings.accounts,
        own_user,
    };
    let authorised = authorised(reader, &names);
    let policy = policy(reader, &names, authorised, "allow", "deny");
    let checks = ProcessChecks {
        interval: reader.duration("process_check_interval")?,
        parallel: reader.number("process_check_parallel")?,
        queue: reader.number("process_check_queue")?,
        overload: reader.one("process_check_overload", CheckOverload::parse)?,
        timeout: reader.duration("process_check_timeout")?,
        hash_max_size: reader.size("process_hash_max_size")?,
        hash_cache: reader.number("process_hash_cache")?,
    };
    Some(PeerSettings {
        policy,
        process_proof: reader.one("process_proof", words::choice)?,
        proof_timeout: reader.duration("proof_timeout")?,
        session_ends_with_peer: reader.one("session_ends_with_peer", words::choice)?,
        checks,
    })
}

/// The rule that the `authorised_peer_*` options make together.
fn authorised(reader: &mut Reader<'_>, names: &dyn Names) -> Option<Sourced<Rule>> {
    let mut builder = RuleBuilder::default();
    let mut first = None;
    for (option, keyword) in AUTHORISED {
        let criteria = reader.many(option, |text| criterion(keyword, text, names));
        first = first.or_else(|| criteria.first().map(|one| one.origin.clone()));
        let criteria = criteria.into_iter().map(|one| one.value).collect();
        if let Err(text) = builder.any_of(criteria) {
            reader.error(option, text);
        }
    }
    builder
        .build()
        .zip(first)
        .map(|(value, origin)| Sourced { value, origin })
}

fn criterion(keyword: &str, text: &str, names: &dyn Names) -> Result<Criterion, Wrong> {
    visible(text)?;
    Criterion::from_parts(keyword, text, names).map_err(|error| {
        // The option's name says already what the keyword would.
        let sentence = error.to_string();
        let prefix = format!("{keyword}: ");
        Wrong::says(sentence.strip_prefix(&prefix).unwrap_or(&sentence), text)
    })
}

/// A policy of the rules in these two options, after `first`.
pub(super) fn policy(
    reader: &mut Reader<'_>,
    names: &dyn Names,
    first: Option<Sourced<Rule>>,
    allow_option: &str,
    deny_option: &str,
) -> Policy {
    let mut allow: Vec<_> = first.into_iter().collect();
    allow.extend(reader.many(allow_option, |text| rule(text, names)));
    let deny = reader.many(deny_option, |text| rule(text, names));
    if allow.is_empty() && !reader.is_given(allow_option) {
        let why = "no rule is given: only the server's own user";
        reader.follows(allow_option, "uid:self", why);
    }
    let rules = |list: &[Sourced<Rule>]| list.iter().map(|one| one.value.clone()).collect();
    let policy = Policy::new(rules(&allow), rules(&deny), names.own_user());
    for warning in policy.warnings() {
        let (list, number) = match &warning {
            Warning::AdmitsEveryone { number }
            | Warning::Forgeable { number, .. }
            | Warning::Interpreter { number, .. } => (&allow, *number),
            Warning::Evadable { number, .. } => (&deny, *number),
        };
        let at = usize::try_from(number)
            .unwrap_or(usize::MAX)
            .saturating_sub(1);
        let place = list.get(at).and_then(|one| one.origin.place());
        // The sentence names the rule already.
        reader.diagnostics.warning(place, "", warning.to_string());
    }
    policy
}

/// A rule, with its fault at the column that the policy names.
pub(crate) fn rule(text: &str, names: &dyn Names) -> Result<Rule, Wrong> {
    visible(text)?;
    Rule::parse(text, names).map_err(|error| at_column(text, error.column, error.message))
}

/// A character that would control the terminal of whoever reads the rule, or the
/// order in which it is shown, has to be written as bytes.
fn visible(text: &str) -> Result<(), Wrong> {
    let hides = |character: char| {
        let bidirectional = matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        character.is_control() || bidirectional
    };
    let Some((at, character)) = text.char_indices().find(|(_, one)| hides(*one)) else {
        return Ok(());
    };
    Err(Wrong {
        text: format!(
            "expected \\xHH for each byte of the control character U+{:04X}",
            u32::from(character)
        ),
        bytes: at..at + character.len_utf8(),
        caret: at,
    })
}

/// A fault from a character's column on to the end of its criterion.
pub(crate) fn at_column(text: &str, column: usize, message: String) -> Wrong {
    let skipped = column.saturating_sub(1);
    let start = text
        .char_indices()
        .nth(skipped)
        .map_or(text.len(), |(at, _)| at);
    let rest = text.get(start..).unwrap_or_default();
    let end = start + rest.find([',', '|']).unwrap_or(rest.len());
    Wrong {
        text: message,
        bytes: start..end,
        caret: start,
    }
}

/// What rules can't ask of this socket or this service.
pub(super) fn check_against_service(
    reader: &mut Reader<'_>,
    peers: &PeerSettings,
    socket: &SocketSettings,
    service: &ServiceSettings,
) {
    if let Address::Inet(_) = socket.address {
        // A rule that failed to parse might have admitted them.
        if !peers.policy.can_admit_internet() && !reader.has_failed("allow") {
            let text = "peers over the internet have no user: expected a rule that admits them, \
                        such as allow=address:127.0.0.0/8";
            reader.error("domain", text);
        }
        if peers.process_proof == Choice::Yes {
            reader.error(
                "process_proof",
                "expected no or auto: only unix sockets can prove it",
            );
        }
        if peers.session_ends_with_peer == Choice::Yes {
            let text = "expected no or auto: the process of a peer over the internet is not known";
            reader.error("session_ends_with_peer", text);
        }
    }
    if peers.process_proof == Choice::No && service.service == Service::Broker {
        let allow = peers.policy.allow_rules();
        let asks = |rule: &Rule| rule.needs().has_any(Needs::EXECUTABLE);
        if allow.iter().any(Rule::names_executable) || service.permits.rules().any(asks) {
            let text = "a process may exec the named program after it connected and pass for it";
            reader.warning("process_proof", text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_controls_a_terminal_is_refused_in_rules() {
        let names = crate::policy::Numeric {
            own_user: Uid::ROOT,
        };
        for (text, caret) in [
            ("uid:0,exe:/a\u{c}b", 12),
            ("args:\u{1b}[2J", 5),
            ("name:a\u{202e}b", 6),
        ] {
            let wrong = rule(text, &names).unwrap_err();
            assert_eq!(wrong.caret, caret, "{}", wrong.text);
            assert!(wrong.text.contains("\\xHH"), "{}", wrong.text);
        }
        assert!(rule("args:a\\x0cb", &names).is_ok());
    }
}
