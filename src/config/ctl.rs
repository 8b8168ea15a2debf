//! The command line of `secure_socketctl`.
//!
//! The same grammar, table and diagnostics as the daemon's, without a file.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::accounts::RuleNames;
use super::args::{self, Grammar, Line, Verb, Word};
use super::diagnostics::Diagnostics;
use super::endpoint;
use super::given::Wrong;
use super::key::{CTL, Key};
use super::merge::merge;
use super::place::Place;
use super::reader::Reader;
use super::settings::{self, Surroundings};
use super::values;
use crate::frame::{FrameLimit, Pattern, Subject};
use crate::listener::{Kind, SocketPath};
use crate::policy::Rule;
use crate::trail::Head;

/// What `secure_socketctl` is to do.
#[derive(Debug)]
pub enum CtlCommand {
    /// Stdin and stdout to the socket.
    Connect(Target),
    /// A message for each piece of stdin.
    Publish(Target, Messages, String),
    /// Messages to stdout; the text is a valid pattern.
    Subscribe(Target, Messages, String),
    /// Stdin is the request, stdout the answer.
    Request(Target, Messages, String),
    /// A command answers requests.
    Respond(Target, Messages, Responder),
    /// Follow this message queue.
    MqCat(String),
    /// Check these files, which follow each other; at least one.
    VerifyTrail {
        /// The files.
        files: Vec<PathBuf>,
        /// Lines that must be in them.
        heads: Vec<Head>,
    },
    /// Print how to call the program, or what one option means.
    Help(Option<&'static Key>),
    /// Print the version.
    Version,
}

/// The server to connect to.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its socket.
    pub path: SocketPath,
    /// The type of the socket.
    pub kind: Kind,
    /// Whom the server must be.
    pub server: Rule,
    /// Whether to answer the 16 bytes that a server may send first.
    pub process_proof: bool,
    /// How long connecting may take. `None` is no bound, here and below.
    pub connect_timeout: Option<Duration>,
}

/// How messages are read and written.
#[derive(Clone, Copy, Debug)]
pub struct Messages {
    /// Messages have their length before them; else each is a line.
    pub length_prefixed: bool,
    /// Write JSON with stamps.
    pub json: bool,
    /// End after so many.
    pub count: Option<u32>,
    /// Lose the oldest rather than the connection.
    pub drop_oldest: bool,
    /// Have each message confirmed.
    pub confirm: bool,
    /// How long to wait for an answer.
    pub request_timeout: Option<Duration>,
    /// The largest message.
    pub max_frame_size: FrameLimit,
}

/// A command that answers requests.
#[derive(Clone, Debug)]
pub struct Responder {
    /// A valid subject or pattern.
    pub pattern: String,
    /// Program and arguments; at least the program.
    pub command: Vec<OsString>,
    /// How many run at once, 1 to 1024.
    pub parallel: u16,
    /// How long one may run.
    pub timeout: Duration,
}

pub(super) static GRAMMAR: Grammar = Grammar {
    program: "secure_socketctl",
    table: CTL,
    verbs: &[
        Verb::new("connect", 0),
        Verb::new("publish", 1),
        Verb::new("subscribe", 1),
        Verb::new("request", 1),
        Verb {
            name: "respond",
            max_words: 1,
            takes_rest: true,
        },
        Verb::new("mqcat", 0),
        Verb {
            name: "verify-trail",
            max_words: usize::MAX,
            takes_rest: true,
        },
        Verb::new("help", 1),
        Verb::new("version", 0),
    ],
    extras: &[],
    bare_flags: true,
};

/// Reads the arguments, without the program's name.
///
/// # Errors
///
/// All that is wrong, with places; [`Diagnostics::exit_code`] is the code to
/// exit with.
pub fn parse(
    args: impl Iterator<Item = OsString>,
    surroundings: &Surroundings<'_>,
) -> Result<CtlCommand, Diagnostics> {
    let mut diagnostics = Diagnostics::default();
    let mut line = args::read(&GRAMMAR, args, &mut diagnostics);
    let name = line.verb_name();
    if line.wants_help || name == "help" {
        let topic = super::topic(&GRAMMAR, &line, &mut diagnostics);
        return finish(Some(CtlCommand::Help(topic)), diagnostics);
    }
    if line.wants_version || name == "version" {
        return Ok(CtlCommand::Version);
    }
    let given = merge(
        std::mem::take(&mut line.given),
        Vec::new(),
        &mut diagnostics,
    );
    let mut reader = Reader::new(CTL, &given);
    let command = command(&mut reader, &line, surroundings);
    let (_, found) = reader.finish();
    diagnostics.append(found);
    finish(command, diagnostics)
}

fn finish(
    command: Option<CtlCommand>,
    mut diagnostics: Diagnostics,
) -> Result<CtlCommand, Diagnostics> {
    diagnostics.sort();
    match command.filter(|_| !diagnostics.has_errors()) {
        Some(command) => Ok(command),
        None => Err(diagnostics.into_errors()),
    }
}

/// The command with all that it needs. `None` where an error was reported.
fn command(
    reader: &mut Reader<'_>,
    line: &Line,
    surroundings: &Surroundings<'_>,
) -> Option<CtlCommand> {
    let target = target(reader, surroundings);
    let messages = messages(reader);
    let parallel = reader.number("respond_parallel");
    let timeout = reader.duration("respond_timeout");
    let mq_name = reader.one("mq_name", values::mq_name);
    let heads = reader
        .many("head", head)
        .into_iter()
        .map(|one| one.value)
        .collect();
    let Some((verb, place)) = &line.verb else {
        let text = "expected connect, publish, subscribe, request, respond, mqcat, verify-trail, \
                    help or version";
        usage(reader, None, text);
        return None;
    };
    let subject = |reader: &mut Reader<'_>| {
        let is_subject = |text: &str| Subject::new(text.as_bytes()).is_some();
        word(
            reader,
            line,
            place,
            "a subject such as orders.new",
            is_subject,
        )
    };
    let pattern = |reader: &mut Reader<'_>| {
        let is_pattern = |text: &str| Pattern::new(text.as_bytes()).is_some();
        word(
            reader,
            line,
            place,
            "a pattern such as orders.>",
            is_pattern,
        )
    };
    match verb.name {
        "connect" => Some(CtlCommand::Connect(target?)),
        "publish" => Some(CtlCommand::Publish(target?, messages?, subject(reader)?)),
        "subscribe" => Some(CtlCommand::Subscribe(target?, messages?, pattern(reader)?)),
        "request" => Some(CtlCommand::Request(target?, messages?, subject(reader)?)),
        "respond" => {
            let pattern = pattern(reader);
            if line.rest.is_empty() {
                usage(
                    reader,
                    Some(place),
                    "expected -- COMMAND behind the options",
                );
            }
            let (parallel, timeout, command) = (parallel?, timeout?, line.rest.clone());
            let responder = Responder {
                pattern: pattern?,
                command,
                parallel,
                timeout,
            };
            Some(CtlCommand::Respond(target?, messages?, responder))
        }
        "mqcat" => Some(CtlCommand::MqCat(mq_name?)),
        "verify-trail" => {
            let words = line.words.iter().map(|word| OsString::from(&word.text));
            let files: Vec<_> = words
                .chain(line.rest.iter().cloned())
                .map(PathBuf::from)
                .collect();
            if files.is_empty() {
                usage(reader, Some(place), "expected a file of the trail");
            }
            Some(CtlCommand::VerifyTrail { files, heads })
        }
        // `help` and `version` were answered before.
        _ => None,
    }
}

fn usage(reader: &mut Reader<'_>, place: Option<&Place>, text: &str) {
    match place {
        Some(_) => reader.diagnostics.error(place.cloned(), "", text),
        None => reader.diagnostics.bad_usage(text),
    }
}

/// The one word of a command.
fn word(
    reader: &mut Reader<'_>,
    line: &Line,
    verb: &Place,
    what: &str,
    is_valid: impl Fn(&str) -> bool,
) -> Option<String> {
    let Some(Word { text, .. }) = line.words.first() else {
        usage(reader, Some(verb), &format!("expected {what}"));
        return None;
    };
    if !is_valid(text) {
        let place = line.words.first().map(Word::place);
        let wrong = Wrong::expected(what, text, 0);
        reader.diagnostics.error(place, "", wrong.text);
        return None;
    }
    Some(text.clone())
}

fn target(reader: &mut Reader<'_>, surroundings: &Surroundings<'_>) -> Option<Target> {
    let names = RuleNames {
        accounts: surroundings.accounts,
        own_user: surroundings.euid,
    };
    let path = settings::socket_path(reader, surroundings);
    let kind = reader.one("protocol", endpoint::kind);
    let server = reader.one("server", |text| settings::rule(text, &names));
    let process_proof = reader.yes_no("process_proof");
    let connect_timeout = reader.timeout("connect_timeout");
    Some(Target {
        path: path?,
        kind: kind?,
        server: server?,
        process_proof: process_proof?,
        connect_timeout: connect_timeout?,
    })
}

fn messages(reader: &mut Reader<'_>) -> Option<Messages> {
    let framing = reader.one("framing", |text| values::word(text, &["lines", "length"]))?;
    let count: u32 = reader.number("count")?;
    let max_frame_size = reader.size("max_frame_size")?;
    Some(Messages {
        length_prefixed: framing == "length",
        json: reader.yes_no("json")?,
        count: (count > 0).then_some(count),
        drop_oldest: reader.yes_no("drop_oldest")?,
        confirm: reader.yes_no("confirm")?,
        request_timeout: reader.timeout("request_timeout")?,
        max_frame_size: FrameLimit::new(u32::try_from(max_frame_size).ok()?)?,
    })
}

/// `SEQUENCE:SHA256`.
fn head(text: &str) -> Result<Head, Wrong> {
    let what = "SEQUENCE:SHA256, with 64 hexadecimal digits";
    Head::parse(text).ok_or_else(|| Wrong::expected(what, text, 0))
}
