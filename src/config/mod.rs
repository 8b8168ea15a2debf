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
mod diagnostics;
mod endpoint;
mod file;
mod given;
pub mod help;
pub mod key;
mod reader;
mod settings;
mod table;
mod values;
mod words;

use std::ffi::OsString;
use std::path::Path;

pub use accounts::{Accounts, SystemAccounts};
pub use check::{digest_input, effective};
pub use diagnostics::{Diagnostic, Diagnostics, Place, Source, Weight};
pub use endpoint::{Endpoint, HostPort};
pub use reader::{Effective, Origin, Sourced};
pub use settings::{
    BrokerSettings, LimitSettings, LogSettings, LogTarget, MetricsSettings, PeerSettings, Permit,
    PermitAction, ProcessChecks, ServiceSettings, Settings, SocketSettings, Surroundings,
    TrailSettings, WallSettings,
};
pub use words::{
    Auto, CheckOverload, Domain, LogFormat, LogOverflow, LogSink, Overload, ProxyProtocol, Service,
    Threads, TrailSync, UpstreamIdentity,
};

use crate::policy::{Facts, describe};
use accounts::RuleNames;
use args::{Line, Verb};
use key::Key;

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
    let line = args::read(args, &mut diagnostics);
    match line.verb {
        Verb::Help if diagnostics.has_errors() => return Err(diagnostics),
        Verb::Help => return Ok(Command::Help(line.topic)),
        Verb::Version => return Ok(Command::Version),
        Verb::Serve | Verb::Check | Verb::Explain => {}
    }
    let verb = line.verb;
    let peer = peer(&line, &mut diagnostics);
    let peer_text = line.peer.clone();
    let settings = read(line, surroundings, &mut diagnostics);
    let facts = match (&peer_text, &settings) {
        (Some((text, at)), Some(settings)) if peer => {
            let own_user = settings.peers.policy.own_user();
            let names = RuleNames {
                accounts: surroundings.accounts,
                own_user,
            };
            match describe(text, &names) {
                Ok(facts) => Some(facts),
                Err(error) => {
                    let wrong = settings::at_column(text, error.column, error.message);
                    let place = at.place(text, wrong.bytes, wrong.caret);
                    diagnostics.error(Some(place), "peer", wrong.text);
                    None
                }
            }
        }
        _ => None,
    };
    diagnostics.sort();
    let Some(mut settings) = settings.filter(|_| !diagnostics.has_errors()).map(Box::new) else {
        return Err(diagnostics);
    };
    settings.remarks = diagnostics;
    Ok(match (verb, facts) {
        (Verb::Check, _) => Command::Check(settings),
        (Verb::Explain, Some(facts)) => Command::Explain(settings, Box::new(facts)),
        _ => Command::Serve(settings),
    })
}

/// Reads the same arguments and the file that they name again, for a reload.
///
/// # Errors
///
/// As for [`parse`]; then everything is to stay as it was.
pub fn reload(
    args: impl Iterator<Item = OsString>,
    surroundings: &Surroundings<'_>,
) -> Result<Box<Settings>, Diagnostics> {
    let mut diagnostics = Diagnostics::default();
    let line = args::read(args, &mut diagnostics);
    let settings = read(line, surroundings, &mut diagnostics);
    diagnostics.sort();
    match settings.filter(|_| !diagnostics.has_errors()) {
        Some(settings) => Ok(Box::new(Settings {
            remarks: diagnostics,
            ..settings
        })),
        None => Err(diagnostics),
    }
}

/// Whether a peer is described, which `explain` needs and nothing else takes.
fn peer(line: &Line, diagnostics: &mut Diagnostics) -> bool {
    match (&line.peer, line.verb) {
        (Some(_), Verb::Explain) => true,
        (Some((text, at)), _) => {
            let place = at.place(text, 0..text.len(), 0);
            diagnostics.error(Some(place), "peer", "only for explain");
            false
        }
        (None, Verb::Explain) => {
            let text = "expected peer=uid:33,gid:33,groups:4+27,pid:812,exe:/usr/sbin/nginx";
            diagnostics.error(line.verb_place.clone(), "explain", text);
            false
        }
        (None, _) => false,
    }
}

/// Reads the file that a command line names, and all options.
fn read(
    line: Line,
    surroundings: &Surroundings<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<Settings> {
    let named = line.given.iter().find(|given| given.key.name == "config");
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
    let given = reader::merge(line.given, from_file, diagnostics);
    settings::read(&given, surroundings, diagnostics)
}

#[cfg(test)]
mod tests;
