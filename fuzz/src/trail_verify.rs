//! Trails, good ones that were changed, and anything at all.
//!
//! - A chain made by a second implementation of the format verifies.
//! - With the last head, each change of any byte or line is found, even if the
//!   check of a changed line was computed anew and its number is another; but for whole
//!   lines that are missing at the start, which the number of the first line tells.
//! - Without a head, what verifies from number 1 on is a beginning of the chain.
//! - Anything else ends in an error that names a line that is there.

use std::io::Cursor;

use arbitrary::Arbitrary;
use secure_socket::trail::{FileError, Head, Summary, Verifier, VerifyError};
use sha2::{Digest, Sha256};

#[derive(Arbitrary, Debug)]
pub enum Input {
    /// As it comes, with heads as an operator may type them.
    Raw(Vec<u8>, Vec<String>, Vec<(u64, u8)>),
    /// A chain with these members, what was done to it, and heads of an operator.
    Changed(Vec<Member>, Vec<Change>, Vec<(u64, u8)>),
}

#[derive(Arbitrary, Debug)]
pub enum Member {
    Number(u32),
    Text(String),
    Flag(bool),
    Nothing,
    List(Vec<u16>),
}

#[derive(Arbitrary, Debug)]
pub enum Change {
    Flip(u16, u8),
    Insert(u16, u8),
    Cut(u16, u8),
    Truncate(u16),
    Remove(u8),
    Repeat(u8),
    Swap(u8, u8),
    /// A byte of a line, with the check of that line computed anew.
    Forge(u8, u16, u8),
}

pub fn check(input: Input) {
    match input {
        Input::Raw(bytes, texts, numbers) => check_raw(&bytes, &texts, &numbers),
        Input::Changed(members, changes, numbers) => check_changed(&members, &changes, &numbers),
    }
}

fn check_raw(bytes: &[u8], texts: &[String], numbers: &[(u64, u8)]) {
    let mut heads: Vec<Head> = texts.iter().filter_map(|text| Head::parse(text)).collect();
    for head in &heads {
        assert_eq!(Head::parse(&head.to_string()).as_ref(), Some(head));
    }
    heads.extend(numbers.iter().map(as_head));
    match verify(bytes, &heads) {
        Ok(summary) => assert!(summary.lines >= 1 && summary.first <= summary.head.sequence),
        Err(VerifyError::Problem(problem)) => {
            let lines = bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
            assert!((1..=lines + 1).contains(&problem.line), "{problem}");
            assert!(crate::is_quiet(&problem.to_string()));
        }
        Err(VerifyError::Empty) => assert!(bytes.is_empty()),
        Err(other) => panic!("{other}"),
    }
}

fn as_head((sequence, byte): &(u64, u8)) -> Head {
    Head {
        sequence: *sequence,
        digest: [*byte; 32],
    }
}

fn check_changed(members: &[Member], changes: &[Change], numbers: &[(u64, u8)]) {
    let (lines, head) = chain(members);
    let original = lines.concat();
    if !lines.is_empty() {
        let summary = verify(&original, &[head]).expect("a good chain");
        assert_eq!((summary.head, summary.first), (head, 1));
    }
    let mut text = original.clone();
    let mut forged = false;
    for change in changes.iter().take(8) {
        forged |= matches!(change, Change::Forge(..));
        text = changed(text, change);
    }
    // A head that nobody logged is never found.
    let strange: Vec<Head> = numbers.iter().map(as_head).collect();
    if let Ok(summary) = verify(&text, &strange) {
        let is_there = |head: &Head| head.sequence >= summary.first;
        assert!(!strange.iter().any(is_there));
    }
    if text == original {
        return;
    }
    // Lines before the first that is there may lie in other files: it is said.
    if let Ok(summary) = verify(&text, &[head]) {
        assert!(summary.first > 1 && original.ends_with(&text));
    }
    if let Ok(summary) = verify(&text, &[])
        && !forged
        && summary.first == 1
    {
        assert!(
            original.starts_with(&text),
            "{}",
            String::from_utf8_lossy(&text)
        );
    }
}

fn verify(bytes: &[u8], heads: &[Head]) -> Result<Summary, VerifyError> {
    let mut verifier = Verifier::new(heads);
    match verifier.file("t", &mut Cursor::new(bytes)) {
        Ok(()) => verifier.finish(),
        Err(FileError::Problem(problem)) => Err(VerifyError::Problem(problem)),
        Err(FileError::Read(error)) => panic!("{error}"),
    }
}

fn chain(members: &[Member]) -> (Vec<Vec<u8>>, Head) {
    let mut head = Head {
        sequence: 0,
        digest: [0; 32],
    };
    let mut lines = Vec::new();
    for member in members.iter().take(12) {
        let value = match member {
            Member::Number(number) => number.to_string(),
            Member::Text(text) => quoted(text),
            Member::Flag(flag) => flag.to_string(),
            Member::Nothing => "null".to_owned(),
            Member::List(list) => format!("{list:?}").replace(' ', ""),
        };
        let sequence = head.sequence + 1;
        let prev = hex(&head.digest);
        let body = format!("{{\"seq\":{sequence},\"value\":{value},\"prev\":\"{prev}\"");
        let line = sealed(body.as_bytes());
        head = Head {
            sequence,
            digest: Sha256::digest(&line).into(),
        };
        lines.push([&line[..], b"\n"].concat());
    }
    (lines, head)
}

/// The body of a line with its check, without a newline.
fn sealed(body: &[u8]) -> Vec<u8> {
    let check = hex(&Sha256::digest(body)[..8]);
    [body, format!(",\"check\":\"{check}\"}}").as_bytes()].concat()
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for unit in text.encode_utf16() {
        out.push_str(&format!("\\u{unit:04x}"));
    }
    out + "\""
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn changed(mut text: Vec<u8>, change: &Change) -> Vec<u8> {
    if text.is_empty() {
        return text;
    }
    let place = |at: u16, length: usize| usize::from(at) % length;
    let mut lines: Vec<Vec<u8>> = text
        .split_inclusive(|byte| *byte == b'\n')
        .map(<[u8]>::to_vec)
        .collect();
    let count = lines.len();
    match *change {
        Change::Flip(at, mask) => {
            let at = place(at, text.len());
            text[at] ^= mask;
            return text;
        }
        Change::Insert(at, byte) => {
            text.insert(place(at, text.len() + 1), byte);
            return text;
        }
        Change::Cut(at, length) => {
            let at = place(at, text.len());
            let end = (at + usize::from(length)).min(text.len());
            text.drain(at..end);
            return text;
        }
        Change::Truncate(at) => {
            text.truncate(place(at, text.len()));
            return text;
        }
        Change::Remove(line) => {
            lines.remove(place(line.into(), count));
        }
        Change::Repeat(line) => {
            let line = place(line.into(), count);
            lines.insert(line, lines[line].clone());
        }
        Change::Swap(one, other) => {
            lines.swap(place(one.into(), count), place(other.into(), count))
        }
        Change::Forge(line, at, mask) => {
            let line = &mut lines[place(line.into(), count)];
            let end = line.windows(10).rposition(|part| part == b",\"check\":\"");
            if let Some(end) = end.filter(|end| *end > 0) {
                line.truncate(end);
                line[usize::from(at) % end] ^= mask;
                *line = [&sealed(line)[..], b"\n"].concat();
            }
        }
    }
    lines.concat()
}
