//! What links one line to the next. Pure.
//!
//! A line is `{"seq":N,` members `,"prev":"…","check":"…"}` and a newline. `prev`
//! is the SHA-256 of the line before, without its newline; of the first line it
//! is all zeros. `check` is the first 8 bytes, 16 digits,
//! of the SHA-256 of the line as far as `"prev":"…"` reaches: it tells damage to
//! a line from damage to the one before, and holds nobody off.
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

use std::fmt;
use std::io::Write;

use sha2::{Digest, Sha256};

use super::json::{self, is_flat_object};

/// How long a line may be, with its newline, in bytes.
pub const MAX_LINE: usize = 256 * 1024;

/// The last line of a chain, or of a part of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// Its number: 1 for the first line of the trail. 0 before that.
    pub sequence: u64,
    /// Its SHA-256, without the newline.
    pub digest: [u8; 32],
}

impl Head {
    /// Before the first line.
    pub const START: Self = Self {
        sequence: 0,
        digest: [0; 32],
    };

    /// Takes back what its display gives: `SEQUENCE:SHA256`.
    pub fn parse(text: &str) -> Option<Self> {
        let (sequence, digest) = text.split_once(':')?;
        Some(Self {
            sequence: sequence.parse().ok()?,
            digest: unhex(digest)?,
        })
    }
}

impl fmt::Display for Head {
    /// `SEQUENCE:SHA256`, as it stands in the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = Vec::with_capacity(64);
        json::hex(&mut digits, &self.digest);
        write!(
            f,
            "{}:{}",
            self.sequence,
            std::str::from_utf8(&digits).unwrap_or_default()
        )
    }
}

/// Makes the next line of members (each begins with a comma) into `line`, and
/// returns the head that it becomes.
pub(super) fn link(line: &mut Vec<u8>, head: Head, write: impl FnOnce(&mut Vec<u8>)) -> Head {
    line.clear();
    let sequence = head.sequence.saturating_add(1);
    let _ = write!(line, "{{\"seq\":{sequence}");
    write(line);
    line.extend_from_slice(b",\"prev\":\"");
    json::hex(line, &head.digest);
    line.push(b'"');
    let mut hash = Sha256::new_with_prefix(&line);
    let so_far = line.len();
    line.extend_from_slice(b",\"check\":\"");
    let check: [u8; 32] = hash.clone().finalize().into();
    json::hex(line, check.get(..CHECK_BYTES).unwrap_or_default());
    line.extend_from_slice(b"\"}");
    hash.update(line.get(so_far..).unwrap_or_default());
    line.push(b'\n');
    Head {
        sequence,
        digest: hash.finalize().into(),
    }
}

const CHECK_BYTES: usize = 8;

/// What a line says about its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Link {
    pub(super) previous: [u8; 32],
    pub(super) head: Head,
}

/// Why a line is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Malformed {
    /// Not UTF-8, or not one flat JSON object.
    NotJson,
    /// Without `seq`, `prev` or `check` in their places.
    NotOurs,
    /// It was changed: `check` differs.
    Changed,
    /// Longer than [`MAX_LINE`].
    TooLong,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotJson => "it is not one JSON object",
            Self::NotOurs => "it has no seq, prev and check in their places",
            Self::Changed => "it was changed: its check does not fit",
            Self::TooLong => "it is longer than any line of a trail",
        })
    }
}

/// Reads the place of a line, given without its newline.
pub(super) fn read(line: &[u8]) -> Result<Link, Malformed> {
    if line.len() >= MAX_LINE {
        return Err(Malformed::TooLong);
    }
    let text = std::str::from_utf8(line).map_err(|_| Malformed::NotJson)?;
    if !is_flat_object(text) {
        return Err(Malformed::NotJson);
    }
    parts(text)
        .ok_or(Malformed::NotOurs)
        .and_then(|(sequence, previous, covered, check)| {
            let mut digits = Vec::with_capacity(2 * CHECK_BYTES);
            let sum: [u8; 32] = Sha256::digest(covered).into();
            json::hex(&mut digits, sum.get(..CHECK_BYTES).unwrap_or_default());
            if digits != check.as_bytes() {
                return Err(Malformed::Changed);
            }
            let digest = Sha256::digest(line).into();
            Ok(Link {
                previous,
                head: Head { sequence, digest },
            })
        })
}

fn parts(text: &str) -> Option<(u64, [u8; 32], &str, &str)> {
    let after = text.strip_prefix("{\"seq\":")?;
    let (digits, _) = after.split_once(",\"")?;
    let whole = text.strip_suffix("\"}")?;
    let (covered, check) = whole.rsplit_once(",\"check\":\"")?;
    let (_, previous) = covered.strip_suffix('"')?.rsplit_once(",\"prev\":\"")?;
    Some((digits.parse().ok()?, unhex(previous)?, covered, check))
}

/// 64 lower case digits.
fn unhex(digits: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if digits.len() != 64
        || digits
            .bytes()
            .any(|digit| !matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
    {
        return None;
    }
    let mut rest = digits;
    for byte in &mut bytes {
        let (pair, tail) = rest.split_at_checked(2)?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
        rest = tail;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line_after(head: Head) -> (Vec<u8>, Head) {
        let mut line = Vec::new();
        let next = link(&mut line, head, |out| {
            out.extend_from_slice(b",\"event\":\"x\"")
        });
        (line, next)
    }

    #[test]
    fn a_line_tells_its_place() {
        let (first, head) = line_after(Head::START);
        let read_back = read(first.strip_suffix(b"\n").unwrap()).unwrap();
        assert_eq!((read_back.previous, read_back.head), ([0; 32], head));
        let (second, _) = line_after(head);
        assert_eq!(
            read(second.strip_suffix(b"\n").unwrap()).unwrap().previous,
            head.digest
        );
        assert_eq!(Head::parse(&head.to_string()), Some(head));
    }

    #[test]
    fn every_flipped_bit_is_found_in_its_own_line() {
        let (line, _) = line_after(line_after(Head::START).1);
        let line = line.strip_suffix(b"\n").unwrap();
        for place in 0..line.len() * 8 {
            let mut flipped = line.to_vec();
            flipped[place / 8] ^= 1 << (place % 8);
            assert!(read(&flipped).is_err(), "bit {place}");
        }
    }
}
