//! Completion for bash, zsh and fish, made from the grammars and the tables of
//! options.
//!
//! What is made are files of the repository (`packaging/completions`); a test
//! holds them to this, and types into each shell to see that it takes them.
//!
//! Not here: the manual pages (`manual`).

mod bash;
mod fish;
mod zsh;

use super::args::Grammar;
use super::key::{Arity, Key, Kind};
use super::{GRAMMAR, ctl};
use crate::policy::KEYWORDS;

/// The file for bash, which serves both programs.
pub fn bash() -> String {
    bash::file(&[&GRAMMAR, &ctl::GRAMMAR])
}

/// The file for zsh, which serves both programs.
pub fn zsh() -> String {
    zsh::file(&[&GRAMMAR, &ctl::GRAMMAR])
}

/// The file for fish, for the daemon; fish looks for one by the program's name.
pub fn fish() -> String {
    fish::file(&GRAMMAR)
}

/// The file for fish, for the client.
pub fn fish_ctl() -> String {
    fish::file(&ctl::GRAMMAR)
}

/// What can be offered as the value of an option.
#[derive(Debug, PartialEq, Eq)]
enum Values {
    Words(Vec<String>),
    Users,
    Groups,
    Files,
    /// Nothing that could be listed.
    Unknown,
}

/// What can be offered as the value of this option.
fn values(key: &Key) -> Values {
    let Kind::Text(form) = key.kind else {
        return match key.kind {
            Kind::Word(words) => Values::Words(words.iter().map(ToString::to_string).collect()),
            Kind::YesNo => Values::Words(vec!["yes".to_owned(), "no".to_owned()]),
            _ => Values::Unknown,
        };
    };
    if form.contains("path") && !form.contains("unix:") {
        Values::Files
    } else if form.contains("user names") || form.contains("user's name") {
        Values::Users
    } else if form.contains("group names") || form.contains("group's name") {
        Values::Groups
    } else if form.starts_with("a rule") {
        Values::Words(criteria())
    } else {
        Values::Unknown
    }
}

/// How each criterion of a rule begins.
fn criteria() -> Vec<String> {
    let one = |word: &&str| match *word {
        "any" => "any".to_owned(),
        word => format!("{word}:"),
    };
    KEYWORDS.iter().map(one).collect()
}

/// Whether a comma in the value is followed by a further one.
fn is_list(key: &Key) -> bool {
    let is_rule = matches!(key.kind, Kind::Text(form) if form.starts_with("a rule"));
    key.arity == Arity::List || is_rule
}

/// The first sentence about an option, as plain text.
fn summary(key: &Key) -> String {
    super::manual::first_sentence(key.help).replace('`', "")
}

/// `option=` for each option and each extra of a program.
fn names(grammar: &Grammar) -> Vec<String> {
    let keys = grammar.table.keys().map(|key| key.name);
    let names = keys.chain(grammar.extras.iter().copied());
    names.map(|name| format!("{name}=")).collect()
}

/// The commands of a program.
fn verbs(grammar: &Grammar) -> Vec<&'static str> {
    grammar.verbs.iter().map(|verb| verb.name).collect()
}

/// Options whose values are offered in the same way, in the order of the table.
fn by_values<'a>(
    grammar: &Grammar,
    one: impl Fn(&Key) -> Option<String> + 'a,
) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for key in grammar.table.keys() {
        let Some(action) = one(key) else { continue };
        match found.iter_mut().find(|(_, same)| *same == action) {
            Some((names, _)) => {
                names.push('|');
                names.push_str(key.name);
            }
            None => found.push((key.name.to_owned(), action)),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::key::{CTL, DAEMON};

    #[track_caller]
    fn check(name: &str, expected: Values) {
        assert_eq!(values(DAEMON.find(name).unwrap()), expected);
    }

    #[test]
    fn values_are_offered_by_kind() {
        let words = |text: &str| Values::Words(text.split(' ').map(str::to_owned).collect());
        check("config", Values::Files);
        check("socket_path", Values::Files);
        check("authorised_peer_exe", Values::Files);
        check("run_as_user", Values::Users);
        check("authorised_peer_username", Values::Users);
        check("socket_group", Values::Groups);
        check("expose", words("yes no"));
        check("service", words("echo relay broker"));
        check("upstream", Values::Unknown);
        check("port", Values::Unknown);
        check("allow", Values::Words(criteria()));
    }

    #[test]
    fn every_option_is_offered_in_every_shell() {
        for (table, files) in [
            (DAEMON, [bash(), zsh(), fish()]),
            (CTL, [bash(), zsh(), fish_ctl()]),
        ] {
            for key in table.keys() {
                assert!(
                    files.iter().all(|file| file.contains(key.name)),
                    "{}",
                    key.name
                );
            }
        }
    }
}
