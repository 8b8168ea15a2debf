//! The command line and the configuration file, to settings of the types that
//! the rooms below define.
//!
//! - One table (`key`) names every option; the parsers, `help`, `check` and the
//!   README are made from it.
//! - All that is wrong is said at once, each fault with its place; while an
//!   error stands there are no [`Settings`].
//! - The command line wins over the file, option by option.
//! - Nothing is opened but the configuration file, and nothing is created.
//!
//! Not here: what the settings lead to. No room below knows that files or flags
//! exist.

mod accounts;
mod args;
mod check;
pub mod completion;
pub mod ctl;
mod diagnostics;
mod endpoint;
mod file;
mod given;
pub mod help;
mod kept;
pub mod key;
pub mod manual;
mod merge;
mod place;
mod reader;
mod settings;
mod table;
mod values;
mod words;

use std::ffi::OsString;
use std::path::Path;

pub use accounts::{Accounts, OwnProcess, SystemAccounts};
pub use check::{digest_input, effective, needs_restart};
pub use diagnostics::{Diagnostic, Diagnostics, Weight};
pub use endpoint::{Endpoint, HostPort};
pub use kept::keep_fixed;
pub use place::{Place, Source};
pub use reader::{Effective, Origin, Sourced};
pub use settings::{
    LimitSettings, LogSettings, LogTarget, MetricsSettings, PeerSettings, ProcessChecks,
    ServiceSettings, Settings, SocketSettings, Surroundings, WallSettings,
};
pub use words::{CheckOverload, Domain, LogFormat, LogOverflow, LogSink, Service};

use crate::policy::{Facts, describe};
use accounts::RuleNames;
use args::{Grammar, Line, Verb};
use key::{DAEMON, Key};

/// What the daemon is to do.
#[derive(Debug)]
pub enum Command {
    /// Open the socket and serve.
    Serve(Box<Settings>),
    /// Print the configuration in force.
    Check(Box<Settings>),
    /// Tell which rule decides for such a peer.
    Explain(Box<Settings>, Box<Facts>),
    /// Print how to call the program, or what one option means.
    Help(Option<&'static Key>),
    /// Print the version.
    Version,
}

/// Reads the arguments, without the program's name, and the file that they name.
///
/// # Errors
///
/// All that is wrong, with places; [`Diagnostics::exit_code`] is the code to
/// exit with. Warnings and notices of a configuration without errors are in
/// [`Settings::remarks`].
pub fn parse(
    args: impl Iterator<Item = OsString>,
    surroundings: &Surroundings<'_>,
) -> Result<Command, Diagnostics> {
    let mut diagnostics = Diagnostics::default();
    let mut line = args::read(&GRAMMAR, args, &mut diagnostics);
    let verb = line.verb_name();
    if line.wants_help || verb == "help" {
        let topic = topic(&GRAMMAR, &line, &mut diagnostics);
        return match diagnostics.has_errors() {
            true => Err(diagnostics.into_errors()),
            false => Ok(Command::Help(topic)),
        };
    }
    if line.wants_version || verb == "version" {
        return Ok(Command::Version);
    }
    let settings = read(&mut line, surroundings, &mut diagnostics);
    let facts = peer(&line, surroundings, settings.as_ref(), &mut diagnostics);
    let settings = finish(settings, diagnostics)?;
    Ok(match (verb, facts) {
        ("check", _) => Command::Check(settings),
        (_, Some(facts)) => Command::Explain(settings, Box::new(facts)),
        (_, None) => Command::Serve(settings),
    })
}

/// Reads the text of a configuration file alone, as if it had that name.
///
/// # Errors
///
/// As for [`parse`].
pub fn parse_file(
    name: &str,
    text: &[u8],
    surroundings: &Surroundings<'_>,
) -> Result<Box<Settings>, Diagnostics> {
    let mut diagnostics = Diagnostics::default();
    let given = file::read(name, text, &mut diagnostics);
    let given = merge::merge(Vec::new(), given, &mut diagnostics);
    let settings = settings::read(&given, surroundings, &mut diagnostics);
    finish(settings, diagnostics)
}

/// Reads the same arguments and the file that they name again, for a reload. What
/// comes into force of it says [`keep_fixed`].
///
/// # Errors
///
/// As for [`parse`]; then everything is to stay as it was.
pub fn reload(
    args: impl Iterator<Item = OsString>,
    surroundings: &Surroundings<'_>,
) -> Result<Box<Settings>, Diagnostics> {
    let mut diagnostics = Diagnostics::default();
    let mut line = args::read(&GRAMMAR, args, &mut diagnostics);
    let settings = read(&mut line, surroundings, &mut diagnostics);
    finish(settings, diagnostics)
}

/// The settings with their remarks, or all errors.
fn finish(
    settings: Option<Settings>,
    mut diagnostics: Diagnostics,
) -> Result<Box<Settings>, Diagnostics> {
    diagnostics.sort();
    match settings.filter(|_| !diagnostics.has_errors()) {
        Some(settings) => Ok(Box::new(Settings {
            remarks: diagnostics,
            ..settings
        })),
        None => Err(diagnostics.into_errors()),
    }
}

static GRAMMAR: Grammar = Grammar {
    program: "secure_socket",
    table: DAEMON,
    verbs: &[
        Verb::new("serve", 0),
        Verb::new("check", 0),
        Verb::new("explain", 0),
        Verb::new("help", 1),
        Verb::new("version", 0),
    ],
    extras: &["peer"],
    bare_flags: false,
};

/// The option that help is wanted for.
fn topic(grammar: &Grammar, line: &Line, diagnostics: &mut Diagnostics) -> Option<&'static Key> {
    let word = line.words.first()?;
    let name = word.text.trim_start_matches('-');
    args::find(grammar, name, || word.place(), diagnostics)
}

/// The peer that `explain` is asked about. Nothing else takes one.
fn peer(
    line: &Line,
    surroundings: &Surroundings<'_>,
    settings: Option<&Settings>,
    diagnostics: &mut Diagnostics,
) -> Option<Facts> {
    let described = line.extras.first().map(|(_, word)| word);
    let explains = line.verb_name() == "explain";
    let word = match (described, &line.verb) {
        (Some(word), _) if explains => word,
        (Some(word), _) => {
            diagnostics.error(Some(word.place()), "peer", "only for explain");
            return None;
        }
        (None, Some((_, place))) if explains => {
            let text = "expected peer=uid:33,gid:33,groups:4+27,pid:812,exe:/usr/sbin/nginx";
            diagnostics.error(Some(place.clone()), "explain", text);
            return None;
        }
        (None, _) => return None,
    };
    let own_user = settings.map_or(surroundings.euid, |one| one.peers.policy.own_user());
    let names = RuleNames {
        accounts: surroundings.accounts,
        own_user,
    };
    describe(&word.text, &names)
        .map_err(|error| {
            let wrong = settings::at_column(&word.text, error.column, error.message);
            let place = word.at.place(&word.text, wrong.bytes, wrong.caret);
            diagnostics.error(Some(place), "peer", wrong.text);
        })
        .ok()
}

/// Reads the file that a command line names, and all options.
fn read(
    line: &mut Line,
    surroundings: &Surroundings<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<Settings> {
    let on_command_line = std::mem::take(&mut line.given);
    let named = on_command_line
        .iter()
        .find(|given| given.key.name == "config");
    let named = named.filter(|given| given.text != "none").cloned();
    let from_file = match named {
        None => Vec::new(),
        Some(given) if given.text.is_empty() => {
            diagnostics.error(Some(given.place()), "config", "expected the path of a file");
            Vec::new()
        }
        Some(given) => match file::open(Path::new(&given.text), surroundings.euid) {
            Ok(bytes) => file::read(&given.text, &bytes, diagnostics),
            Err(text) => {
                diagnostics.bad_file(Some(given.place()), "config", text);
                Vec::new()
            }
        },
    };
    let given = merge::merge(on_command_line, from_file, diagnostics);
    settings::read(&given, surroundings, diagnostics)
}

#[cfg(test)]
mod tests;
