//! Trails, good ones that were changed, and anything at all. The trail's own files are
//! compiled in here: the half that writes is not public.
//!
//! - A chain made by a second implementation of the format verifies.
//! - With the last head, each change of any byte or line is found, even if the
//!   check of a changed line was computed anew and its number is another; but for whole
//!   lines that are missing at the start, which the number of the first line tells.
//! - Of two heads with one number none is overlooked, whichever comes first.
//! - Without a head, what verifies from number 1 on is a beginning of the chain.
//! - What the trail itself writes is what the second implementation makes of the same
//!   members, and a text comes back out of it.
//! - In whatever files a chain lies, and in whatever order they are given, it is the same.
//! - Anything else ends in an error that names a line that is there.

#[path = "../../src/trail/chain.rs"]
mod chain;
#[path = "../../src/trail/json.rs"]
mod json;
#[path = "../../src/trail/verify.rs"]
mod verify;

use std::fs;
use std::io::Cursor;
use std::path::PathBuf;

use arbitrary::Arbitrary;
use sha2::{Digest, Sha256};

use chain::{Head, MAX_LINE, Malformed};
use verify::{FileError, ProblemKind, Summary, Verifier, VerifyError, verify_files};

#[derive(Arbitrary, Debug)]
pub enum Input {
    /// As it comes, with heads as an operator may type them.
    Raw(Vec<u8>, Vec<String>, Vec<(u64, u8)>),
    /// A chain with these members, what was done to it, and heads of an operator.
    Changed(Vec<Member>, Vec<Change>, Vec<(u64, u8)>),
    /// Lines of the trail's own, with their members.
    Written(Vec<Vec<Value>>),
    /// A chain in files: how many lines each holds, and one that goes first.
    Files(Vec<Member>, Vec<u8>, u8),
    /// A line that is so much longer than may be, or shorter, and whether it has an end.
    Long(i8, bool),
}

/// What the trail writes, with its bound.
#[derive(Arbitrary, Debug)]
pub enum Value {
    Number(u64),
    Flag(bool),
    Null,
    Text(Vec<u8>, u8),
    Digest([u8; 32]),
    Numbers(Vec<u32>, u8),
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
        Input::Written(lines) => check_written(&lines),
        Input::Files(members, cuts, first) => check_files(&members, &cuts, first),
        Input::Long(more, whole) => check_long(more, whole),
    }
}

fn check_written(lines: &[Vec<Value>]) {
    let (mut head, mut text, mut line) = (Head::START, Vec::new(), Vec::new());
    for values in lines.iter().take(12) {
        let before = head;
        head = chain::link(&mut line, before, |out| {
            values.iter().take(12).for_each(|value| write(out, value));
        });
        let body = line.strip_suffix(b"\n").expect("one line");
        assert!(!body.contains(&b'\n'));
        let written = std::str::from_utf8(body).expect("JSON is UTF-8");
        assert!(crate::is_quiet(written), "{written}");
        // The second implementation, as far as the members.
        let end = body.windows(10).rposition(|part| part == b",\"check\":\"");
        let covered = &body[..end.expect("a check")];
        let prev = format!(",\"prev\":\"{}\"", hex(&before.digest));
        assert!(covered.starts_with(format!("{{\"seq\":{}", before.sequence + 1).as_bytes()));
        assert!(covered.ends_with(prev.as_bytes()));
        assert_eq!(sealed(covered), body);
        let digest: [u8; 32] = Sha256::digest(body).into();
        assert_eq!((head.sequence, head.digest), (before.sequence + 1, digest));
        text.extend_from_slice(&line);
    }
    if !text.is_empty() {
        let summary = verify(&text, &[head]).expect("what the trail writes verifies");
        assert_eq!((summary.head, summary.first), (head, 1));
        assert_eq!(Head::parse(&head.to_string()), Some(head));
    }
}

fn write(out: &mut Vec<u8>, value: &Value) {
    let before = out.len();
    let mut members = json::Members(out);
    match value {
        Value::Number(number) => members.number("n", *number),
        Value::Flag(flag) => members.flag("f", *flag),
        Value::Null => members.null("z"),
        Value::Digest(digest) => members.digest("d", digest),
        Value::Numbers(numbers, most) => {
            members.numbers("l", numbers.iter().copied(), usize::from(*most));
        }
        Value::Text(bytes, most) => {
            let most = usize::from(*most);
            members.text("t", bytes, most);
            let written = std::str::from_utf8(&out[before..]).expect("JSON is UTF-8");
            let (found, rest) = text_of(written);
            // Cut where no character is split.
            assert!(bytes.starts_with(&found) && found.len() <= most);
            assert!(found.len() == bytes.len() || found.len() + 4 > most);
            let length = format!(",\"t_bytes\":{}", bytes.len());
            let expected = if found.len() < bytes.len() {
                &length
            } else {
                ""
            };
            assert_eq!(rest, expected);
        }
    }
}

/// The text behind `,"t":` or `,"t_hex":`, and what follows it.
fn text_of(written: &str) -> (Vec<u8>, &str) {
    if let Some(digits) = written.strip_prefix(",\"t_hex\":\"") {
        let (digits, rest) = digits.split_once('"').expect("an end");
        let pairs = digits.as_bytes().chunks(2);
        let pairs = pairs.map(|pair| std::str::from_utf8(pair).expect("digits"));
        let bytes = pairs.map(|pair| u8::from_str_radix(pair, 16).expect("two digits"));
        return (bytes.collect(), rest);
    }
    let quoted = written.strip_prefix(",\"t\":\"").expect("a text");
    let (mut text, mut rest) = (String::new(), quoted.chars());
    loop {
        match rest.next().expect("an end") {
            '"' => return (text.into_bytes(), rest.as_str()),
            '\\' => match rest.next().expect("what is escaped") {
                'u' => {
                    let digits = &rest.as_str()[..4];
                    let code = u32::from_str_radix(digits, 16).expect("four digits");
                    text.push(char::from_u32(code).expect("no half of a pair"));
                    rest = rest.as_str()[4..].chars();
                }
                other => text.push(other),
            },
            other => text.push(other),
        }
    }
}

fn check_files(members: &[Member], cuts: &[u8], first: u8) {
    let (lines, head) = chain(members);
    let directory = std::env::temp_dir().join(format!("trail_verify-{}", std::process::id()));
    fs::create_dir_all(&directory).expect("a directory");
    let (mut rest, mut paths) = (&lines[..], Vec::<PathBuf>::new());
    for cut in cuts
        .iter()
        .take(4)
        .map(|cut| usize::from(*cut % 4))
        .chain([12])
    {
        let (part, others) = rest.split_at(cut.min(rest.len()));
        let path = directory.join(paths.len().to_string());
        fs::write(&path, part.concat()).expect("a file");
        paths.push(path);
        rest = others;
    }
    let turn = usize::from(first) % paths.len();
    paths.rotate_left(turn);
    match verify_files(&paths, &[head]) {
        Ok(summary) => {
            assert_eq!((summary.head, summary.first), (head, 1));
            assert_eq!(summary.lines, lines.len() as u64);
        }
        Err(VerifyError::Empty) => assert!(lines.is_empty()),
        Err(error) => panic!("{error}"),
    }
    paths.push(directory.join("none"));
    let missing = verify_files(&paths, &[]).expect_err("a file that is not there");
    assert!(matches!(missing, VerifyError::Read(..)) && crate::is_quiet(&missing.to_string()));
    fs::remove_dir_all(&directory).expect("it is there");
}

/// Around the bound on a line, which is one byte more with its end.
fn check_long(more: i8, whole: bool) {
    let length = (MAX_LINE - 1).saturating_add_signed(more.into());
    let head = b"{\"seq\":1,\"a\":\"";
    let tail = format!("\",\"prev\":\"{}\"", hex(&[0; 32]));
    let check = ",\"check\":\"0123456789abcdef\"}".len();
    let fill = vec![b'x'; length - head.len() - tail.len() - check];
    let mut line = sealed(&[&head[..], &fill, tail.as_bytes()].concat());
    assert_eq!(line.len(), length);
    line.extend_from_slice(if whole { b"\n" } else { b"" });
    let too_long = ProblemKind::Malformed(Malformed::TooLong);
    match verify(&line, &[]) {
        Ok(_) => assert!(whole && length < MAX_LINE),
        Err(VerifyError::Problem(problem)) if problem.kind == too_long => {
            assert!(length + usize::from(whole) > MAX_LINE, "{length} bytes");
        }
        Err(VerifyError::Problem(problem)) => {
            assert!(!whole && problem.kind == ProblemKind::Torn, "{problem}");
        }
        Err(other) => panic!("{other}"),
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
        let mut other = head;
        other.digest[0] ^= 1;
        for heads in [[head, other], [other, head]] {
            verify(&original, &heads).expect_err("two heads of one number");
        }
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
    let result = match verifier.file("t", &mut Cursor::new(bytes)) {
        Ok(()) => verifier.finish(),
        Err(FileError::Problem(problem)) => Err(VerifyError::Problem(problem)),
        Err(FileError::Read(error)) => panic!("{error}"),
    };
    if let Err(error) = &result {
        assert!(crate::is_quiet(&error.to_string()));
    }
    result
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
