//! `publish`, `subscribe`, `request`, `respond`: the commands that speak to a broker.

use std::io::{IsTerminal, stdin, stdout};
use std::time::Duration;

use super::{Failure, connect, is_broken_pipe};
use crate::client::ctl::{self, Format};
use crate::client::{Client, ClientError, WhenSlow};
use crate::config::ctl::{Messages, Responder, Target};
use crate::exit;
use crate::frame::ErrorCode;

/// How long a broker may take for what has no bound of its own.
const PATIENCE: Duration = Duration::from_secs(60);

/// Each piece of stdin is a message.
pub(super) fn publish(target: &Target, how: &Messages, subject: &str) -> Result<u8, Failure> {
    let mut client = open(target, how)?;
    let input = stdin().lock();
    let done = ctl::publish(&mut client, subject, input, format(how), how.confirm);
    finish("publish", done.map(drop))
}

/// Messages go to stdout.
pub(super) fn subscribe(target: &Target, how: &Messages, pattern: &str) -> Result<u8, Failure> {
    let mut client = open(target, how)?;
    let count = how.count.map(u64::from);
    let output = stdout().lock();
    let when_slow = if how.drop_oldest {
        WhenSlow::DropOldest
    } else {
        WhenSlow::Disconnect
    };
    let done = ctl::subscribe(&mut client, pattern, output, format(how), when_slow, count);
    finish("subscribe", done)
}

/// Stdin is the request, stdout the answer.
pub(super) fn request(target: &Target, how: &Messages, subject: &str) -> Result<u8, Failure> {
    let mut client = open(target, how)?;
    let done = ctl::request(
        &mut client,
        subject,
        stdin().lock(),
        stdout().lock(),
        format(how),
    );
    finish("request", done)
}

/// A command answers requests.
pub(super) fn respond(
    target: &Target,
    how: &Messages,
    responder: &Responder,
) -> Result<u8, Failure> {
    let mut client = open(target, how)?;
    let settings = ctl::Responder {
        command: responder.command.clone(),
        parallel: usize::from(responder.parallel),
        timeout: responder.timeout,
        max_answer_bytes: usize::try_from(how.max_frame_size.bytes()).unwrap_or(usize::MAX),
        count: how.count.map(u64::from),
    };
    finish(
        "respond",
        ctl::respond(&mut client, &responder.pattern, &settings),
    )
}

fn open(target: &Target, how: &Messages) -> Result<Client, Failure> {
    let socket = connect::open(target)?;
    let timeout = how.request_timeout.unwrap_or(PATIENCE);
    // A message comes with 32 bytes more than was published.
    let accepts = how.max_frame_size.with_stamp();
    Client::over(socket, accepts, timeout).map_err(|error| {
        let code = match error {
            // Before its greeting: that is how it turns somebody away.
            ClientError::Closed => exit::NO_PERMISSION,
            _ => code_of(&error),
        };
        Failure::because(code, &format!("can't speak to {}", target.path), &error)
    })
}

fn format(how: &Messages) -> Format {
    Format {
        length_prefixed: how.length_prefixed,
        json: how.json,
        terminal: stdout().is_terminal(),
    }
}

fn finish(what: &str, done: Result<(), ClientError>) -> Result<u8, Failure> {
    match done {
        Ok(()) => Ok(exit::OK),
        // A reader of stdout that has seen enough.
        Err(error) if is_broken_pipe(&error) => Ok(exit::OK),
        Err(error) => Err(Failure::because(code_of(&error), what, &error)),
    }
}

fn code_of(error: &ClientError) -> u8 {
    match error {
        ClientError::Refused {
            code: ErrorCode::Denied,
            ..
        }
        | ClientError::Untrusted(_) => exit::NO_PERMISSION,
        ClientError::Subject(_) => exit::USAGE,
        ClientError::TooLarge { .. }
        | ClientError::Refused {
            code: ErrorCode::TooLarge,
            ..
        } => exit::DATA,
        ClientError::CannotVerify(_) => exit::CONFIG,
        _ => exit::UNAVAILABLE,
    }
}
