//! The configuration in force as text: for people and to be read back (`check`),
//! and in one fixed form, to be hashed (`trail`).

use super::file::quote;
use super::key::DAEMON;
use super::place::Escaped;
use super::reader::{Effective, Origin, Sourced};
use super::settings::Settings;
use crate::policy::Criterion;

/// What `check` prints: a configuration file that leads to the same settings,
/// with the place that each value came from.
pub fn effective(settings: &Settings) -> String {
    let mut text = String::from("# the configuration in force, and where each value came from\n");
    for group in DAEMON.0 {
        text.push_str(&format!("\n# {}\n", group.title));
        let in_group = |one: &&Effective| group.keys.iter().any(|key| key.name == one.key.name);
        settings
            .effective
            .iter()
            .filter(in_group)
            .for_each(|one| option(&mut text, one));
    }
    text.push_str("\n# Rules, as they were understood\n");
    for (kind, number, rule) in rules(settings) {
        text.push_str(&format!("# {kind} rule {number}: {}\n", Escaped(&rule)));
    }
    text
}

fn option(text: &mut String, one: &Effective) {
    let name = one.key.name;
    if one.values.is_empty() {
        text.push_str(&format!("# {name} is not set\n"));
        return;
    }
    for value in &one.values {
        let line = format!("{name} = {}", shown(&value.value));
        let from = origin(value);
        // The file can't name another file.
        let comment = if one.idle.is_some() || name == "config" {
            "# "
        } else {
            ""
        };
        let idle = one.idle.as_ref().map(|why| format!("; no effect: {why}"));
        text.push_str(&format!(
            "{comment}{line}  # {from}{}\n",
            idle.unwrap_or_default()
        ));
    }
}

/// A value that was given can't contain what a line of the file could not.
fn shown(value: &str) -> String {
    quote(value)
}

fn origin(value: &Sourced<String>) -> String {
    match &value.origin {
        Origin::Default => "default".to_owned(),
        Origin::Follows(why) => format!("default ({why})"),
        Origin::Given(place) => format!("from {}", place.origin()),
    }
}

/// One text for one configuration, whatever the order, the places and the
/// comments in which it was given; ids included, so that a user who got another
/// uid makes another configuration.
pub fn digest_input(settings: &Settings) -> String {
    let mut text = String::new();
    let in_force = settings.effective.iter().filter(|one| one.idle.is_none());
    for one in in_force.filter(|one| one.key.name != "config") {
        for value in &one.values {
            text.push_str(&format!("{}={}\n", one.key.name, Escaped(&value.value)));
        }
    }
    for (kind, number, rule) in rules(settings) {
        text.push_str(&format!("{kind}.{number}={}\n", Escaped(&rule)));
    }
    if let Some(run_as) = &settings.walls.run_as {
        let groups: Vec<_> = run_as.groups.iter().map(ToString::to_string).collect();
        let (uid, gid) = (run_as.uid, run_as.gid);
        text.push_str(&format!("run_as={uid}:{gid}:{}\n", groups.join("+")));
    }
    text
}

/// Options that differ and that a reload does not put in force.
pub fn needs_restart(old: &Settings, new: &Settings) -> Vec<&'static str> {
    let texts = |settings: &Settings, name: &str| {
        let one = settings.effective.iter().find(|one| one.key.name == name);
        let values = one.iter().flat_map(|one| &one.values);
        values.map(|value| value.value.clone()).collect::<Vec<_>>()
    };
    let fixed = DAEMON.keys().filter(|key| !key.live);
    let differs = |name: &&str| texts(old, name) != texts(new, name);
    fixed.map(|key| key.name).filter(differs).collect()
}

/// All rules with the ids of the names in them.
fn rules(settings: &Settings) -> Vec<(&'static str, usize, String)> {
    let mut found = Vec::new();
    let policies = [
        ("allow", "deny", Some(&settings.peers.policy)),
        (
            "metrics allow",
            "metrics deny",
            settings.metrics.as_ref().map(|one| &one.policy),
        ),
    ];
    for (allow, deny, policy) in policies {
        let Some(policy) = policy else { continue };
        for (kind, rules) in [(allow, policy.allow_rules()), (deny, policy.deny_rules())] {
            for (number, rule) in (1..).zip(rules) {
                found.push((kind, number, format!("{rule}{}", ids(rule.clauses()))));
            }
        }
    }
    found
}

/// The ids behind the names of a rule: ` (www-data is uid 33)`.
fn ids(clauses: &[Vec<Criterion>]) -> String {
    let named: Vec<_> = clauses
        .iter()
        .flatten()
        .filter_map(|criterion| match criterion {
            Criterion::User(uid, Some(name)) => Some(format!("{name} is uid {uid}")),
            Criterion::Group(gid, Some(name)) => Some(format!("{name} is gid {gid}")),
            _ => None,
        })
        .collect();
    match named.is_empty() {
        true => String::new(),
        false => format!(" ({})", named.join(", ")),
    }
}
