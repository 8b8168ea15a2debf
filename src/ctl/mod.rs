//! The client program `secure_socketctl`: from its arguments to its exit code.
//!
//! Whoever talks to a server here first makes sure who it is; a server that does
//! not match is told nothing.
//!
//! Not here: the protocol of the broker (`client`), the chain of the trail
//! (`trail`), the reading of options (`config`).

mod broker;
mod connect;

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use crate::config::ctl::CtlCommand;
use crate::config::{self, OwnProcess};
use crate::exit;
use crate::text::chain;
use crate::trail::{VerifyError, verify_files};

/// Why the program failed, and the code to exit with.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    pub(crate) fn new(code: u8, what: impl Into<String>) -> Self {
        Self {
            code,
            text: what.into(),
        }
    }

    /// With a cause and its causes.
    pub(crate) fn because(code: u8, what: &str, cause: &dyn Error) -> Self {
        let text = format!("{what}: {}", chain(cause));
        Self { code, text }
    }
}

/// Runs the client with the arguments of the process, to its end.
pub fn main() -> ExitCode {
    let Some(own) = OwnProcess::look() else {
        eprintln!("secure_socketctl: this process has no user");
        return ExitCode::from(exit::SYSTEM);
    };
    let surroundings = own.surroundings();
    let args = std::env::args_os().skip(1);
    let command = match config::ctl::parse(args, &surroundings) {
        Ok(command) => command,
        Err(diagnostics) => {
            eprint!("{diagnostics}");
            return ExitCode::from(diagnostics.exit_code());
        }
    };
    match run(command) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            eprintln!("secure_socketctl: {}", failure.text);
            ExitCode::from(failure.code)
        }
    }
}

fn run(command: CtlCommand) -> Result<u8, Failure> {
    match command {
        CtlCommand::Connect(target) => connect::run(&target),
        CtlCommand::MqCat(name) => mqcat(&name),
        CtlCommand::VerifyTrail { files, heads } => verify_trail(&files, &heads),
        CtlCommand::Help(None) => print(&config::help::ctl_overview()),
        CtlCommand::Help(Some(key)) => print(&config::help::option(key)),
        CtlCommand::Version => print(&format!("secure_socketctl {}\n", env!("CARGO_PKG_VERSION"))),
        CtlCommand::Publish(target, messages, subject) => {
            broker::publish(&target, &messages, &subject)
        }
        CtlCommand::Subscribe(target, messages, pattern) => {
            broker::subscribe(&target, &messages, &pattern)
        }
        CtlCommand::Request(target, messages, subject) => {
            broker::request(&target, &messages, &subject)
        }
        CtlCommand::Respond(target, messages, responder) => {
            broker::respond(&target, &messages, &responder)
        }
    }
}

fn mqcat(name: &str) -> Result<u8, Failure> {
    let mut out = std::io::stdout().lock();
    match crate::logging::mqcat(name, &mut out, || true) {
        Ok(()) => Ok(exit::OK),
        // A reader that has seen enough.
        Err(error) if is_broken_pipe(&error) => Ok(exit::OK),
        Err(error) => Err(Failure::because(exit::UNAVAILABLE, "mqcat", &error)),
    }
}

fn verify_trail(files: &[std::path::PathBuf], heads: &[crate::trail::Head]) -> Result<u8, Failure> {
    match verify_files(files, heads) {
        Ok(summary) => print(&format!(
            "verified: lines {} to {} of {} files, head {}\n",
            summary.first,
            summary.head.sequence,
            summary.files.len(),
            summary.head
        )),
        Err(error @ VerifyError::Read(..)) => {
            Err(Failure::because(exit::UNAVAILABLE, "verify-trail", &error))
        }
        Err(error) => Err(Failure::because(exit::DATA, "verify-trail", &error)),
    }
}

fn is_broken_pipe(error: &dyn Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        let io = error.downcast_ref::<std::io::Error>();
        if io.is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Prints to stdout. A reader that left early is no fault of ours.
fn print(text: &str) -> Result<u8, Failure> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => Ok(exit::OK),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(exit::OK),
        Err(error) => Err(Failure::because(exit::CANNOT_CREATE, "stdout", &error)),
    }
}
