//! What `secure_socketctl publish`, `subscribe`, `request` and `respond` do, once
//! the command line is read.
//!
//! Messages are lines, or have their length before them (u32, big-endian); with
//! JSON each is one object on a line of its own, with its stamp.
//!
//! Not here: the command line (`config`), signals, exit codes.

mod input;
mod output;
mod respond;

use std::io::{Read, Write};

use crate::frame::ErrorCode;

use super::{Client, ClientError, Event, WhenSlow};
use input::Pieces;
use output::Output;

pub use respond::{Responder, respond};

/// How messages are read and written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Format {
    /// Messages have their length before them; else each is a line.
    pub length_prefixed: bool,
    /// Write JSON with stamps.
    pub json: bool,
    /// Escape what could steer a terminal, because output goes to one.
    pub terminal: bool,
}

/// Publishes each line, or each piece, of the input. With `confirm`, each is
/// confirmed before the next is read. Returns how many there were.
///
/// # Errors
///
/// As [`Client::publish_confirmed`]; the first refusal ends it.
pub fn publish(
    client: &mut Client,
    subject: &str,
    input: impl Read,
    format: Format,
    confirm: bool,
) -> Result<u64, ClientError> {
    let mut pieces = Pieces::new(input, format.length_prefixed);
    let mut count = 0;
    while let Some(piece) = pieces.next()? {
        if confirm {
            client.publish_confirmed(subject, &piece)?;
        } else {
            client.publish_later(subject, &piece)?;
            if !pieces.has_more_at_hand() {
                client.flush()?;
            }
        }
        count += 1;
    }
    client.sync()?;
    match first_refusal(client) {
        Some(refusal) => Err(refusal),
        None => Ok(count),
    }
}

/// Writes messages until `count` have come, or for ever.
///
/// # Errors
///
/// As [`Client::subscribe`] and [`Client::next`]; [`ClientError::Socket`] where the
/// output can't be written.
pub fn subscribe(
    client: &mut Client,
    pattern: &str,
    output: impl Write,
    format: Format,
    when_slow: WhenSlow,
    count: Option<u64>,
) -> Result<(), ClientError> {
    client.subscribe(pattern, when_slow)?;
    let mut output = Output::new(output, format);
    let mut seen = 0;
    while count.is_none_or(|count| seen < count) {
        let event = match client.try_next() {
            Some(event) => Some(event),
            None => {
                output.flush()?;
                client.next(None)?
            }
        };
        match event {
            Some(Event::Message {
                subject,
                stamp,
                body,
                ..
            }) => {
                output.message(&subject, &stamp, &body)?;
                seen += 1;
            }
            Some(Event::Gap { count, .. }) => output.gap(count)?,
            Some(Event::Error { code, text, .. }) => {
                output.flush()?;
                return Err(ClientError::Refused { code, text });
            }
            _ => (),
        }
    }
    output.flush().map_err(ClientError::from)
}

/// Sends all of the input as one request, and writes the answer.
///
/// # Errors
///
/// As [`Client::request`]; [`ClientError::Socket`] where input or output fail.
pub fn request(
    client: &mut Client,
    subject: &str,
    mut input: impl Read,
    output: impl Write,
    format: Format,
) -> Result<(), ClientError> {
    let mut body = Vec::new();
    input.read_to_end(&mut body)?;
    let (stamp, answer) = client.request(subject, &body)?;
    let mut output = Output::new(output, format);
    if format.json || format.length_prefixed {
        output.message(subject, &stamp, &answer)?;
    } else {
        output.whole(&answer)?;
    }
    output.flush().map_err(ClientError::from)
}

fn first_refusal(client: &mut Client) -> Option<ClientError> {
    while let Some(event) = client.try_next() {
        if let Event::Error { id: 0, code, text } = event {
            return Some(ClientError::Refused { code, text });
        }
        if matches!(event, Event::GoAway { .. }) {
            let text = String::from("the broker is about to stop");
            return Some(ClientError::Refused {
                code: ErrorCode::Stopping,
                text,
            });
        }
    }
    None
}
