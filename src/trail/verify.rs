//! Checks that lines follow one another, over several files.
//!
//! A chain shows by itself: a line that was changed, removed, added or moved,
//! anywhere but at the end. It can't show that lines are missing at its end, nor
//! that somebody who could write the file wrote all of it anew from some line on.
//! For that, heads that the server logged elsewhere are compared ([`Head`]): it
//! logs one at start, at stop, hourly, and when it rolls a file.
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
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::chain::{Head, MAX_LINE, Malformed, read};

/// What a good trail contains.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Summary {
    /// Lines in all files.
    pub lines: u64,
    /// Number of the first line; 1 if the trail is here from its start.
    pub first: u64,
    /// The last line.
    pub head: Head,
    /// The files in the order of the chain.
    pub files: Vec<String>,
}

/// The first line that does not fit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The file.
    pub file: String,
    /// The line in that file, from 1.
    pub line: u64,
    /// Its number in the trail, as far as it can be told.
    pub sequence: Option<u64>,
    /// What is wrong.
    pub kind: ProblemKind,
}

/// Why a line does not fit.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ProblemKind {
    /// It is not a line of a trail.
    Malformed(Malformed),
    /// The last line of a file has no end: it is torn.
    Torn,
    /// Another number was expected: lines are missing, added or moved.
    Sequence {
        /// Which.
        expected: u64,
    },
    /// The number fits, the digest of the line before does not: one of the two
    /// was written anew.
    Previous,
    /// A head that was given is another line here.
    OtherHead(Head),
    /// A head that was given lies behind the end: lines are missing there.
    MissingHead(Head),
    /// All heads that were given, of which this is the last, lie before the start, and not
    /// just before: none of them says anything about these lines.
    HeadsBefore(Head),
}

impl fmt::Display for ProblemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(why) => fmt::Display::fmt(why, f),
            Self::Torn => f.write_str("it is torn: the file ends before the line does"),
            Self::Sequence { expected } => write!(
                f,
                "its number does not follow, expected {expected}: lines were removed, added or moved"
            ),
            Self::Previous => f.write_str(
                "prev is not the SHA-256 of the line before: that line, or this one, was written anew",
            ),
            Self::OtherHead(head) => write!(
                f,
                "it is not the line that the head {head} names: the trail was written anew"
            ),
            Self::MissingHead(head) => {
                write!(f, "the trail ends here, but the head {head} was logged: its end was cut off")
            }
            Self::HeadsBefore(head) => write!(
                f,
                "the trail starts here, after the last head that was given, {head}: nothing vouches \
                 for it; give a later head, or the files before as well"
            ),
        }
    }
}

impl fmt::Display for Problem {
    /// `FILE:LINE: seq N: what is wrong`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.file, self.line)?;
        if let Some(sequence) = self.sequence {
            write!(f, "seq {sequence}: ")?;
        }
        fmt::Display::fmt(&self.kind, f)
    }
}

/// Why a check has no good end.
#[derive(Debug)]
#[non_exhaustive]
pub enum VerifyError {
    /// The trail does not verify.
    Problem(Problem),
    /// A file can't be read.
    Read(PathBuf, io::Error),
    /// There is no line at all.
    Empty,
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Problem(problem) => fmt::Display::fmt(problem, f),
            Self::Read(path, _) => write!(f, "can't read {}", path.display()),
            Self::Empty => f.write_str("no file holds a line"),
        }
    }
}

impl std::error::Error for VerifyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read(_, error) => Some(error),
            _ => None,
        }
    }
}

/// Checks files, whose order is told from their first lines, against each other
/// and against heads that were logged.
///
/// # Errors
/// The first line that does not fit, or a file that can't be read.
pub fn verify_files(paths: &[PathBuf], heads: &[Head]) -> Result<Summary, VerifyError> {
    let mut order = Vec::new();
    for path in paths {
        let fail = |error| VerifyError::Read(path.clone(), error);
        let mut file = BufReader::new(File::open(path).map_err(fail)?);
        // One whose first line is none comes first, and is named.
        let (line, _) = next_line(&mut file).map_err(fail)?;
        if !line.is_empty() {
            order.push((read(&line).map_or(0, |link| link.head.sequence), path));
        }
    }
    order.sort();
    let mut chain = Verifier::new(heads);
    for (_, path) in order {
        let fail = |error| VerifyError::Read(path.clone(), error);
        let file = File::open(path).map_err(fail)?;
        chain
            .file(&name_of(path), &mut BufReader::with_capacity(1 << 18, file))
            .map_err(|error| match error {
                FileError::Problem(problem) => VerifyError::Problem(problem),
                FileError::Read(error) => fail(error),
            })?;
    }
    chain.finish()
}

fn name_of(path: &Path) -> String {
    path.display().to_string()
}

/// What ends the check of one file.
#[derive(Debug)]
pub enum FileError {
    /// A line does not fit.
    Problem(Problem),
    /// The reader failed.
    Read(io::Error),
}

/// Checks one file after the other, in the order of the chain.
#[derive(Debug)]
pub struct Verifier<'a> {
    heads: &'a [Head],
    last: Option<Head>,
    first: u64,
    /// The file that it is in.
    start: String,
    lines: u64,
    files: Vec<String>,
    place: (String, u64),
}

impl<'a> Verifier<'a> {
    /// `heads` were logged, and are to be found.
    pub fn new(heads: &'a [Head]) -> Self {
        let place = (String::new(), 0);
        Self {
            heads,
            last: None,
            first: 0,
            start: String::new(),
            lines: 0,
            files: Vec::new(),
            place,
        }
    }

    /// Checks the next file.
    ///
    /// # Errors
    /// The first line that does not fit.
    pub fn file(&mut self, name: &str, reader: &mut impl BufRead) -> Result<(), FileError> {
        self.files.push(name.to_owned());
        for number in 1.. {
            let (line, is_whole) = next_line(reader).map_err(FileError::Read)?;
            if line.is_empty() && !is_whole {
                break;
            }
            self.place = (name.to_owned(), number);
            self.line(&line, is_whole).map_err(FileError::Problem)?;
        }
        Ok(())
    }

    /// What was found, after the last file.
    ///
    /// # Errors
    /// A head is missing, none of them is about these lines, or there was no line.
    pub fn finish(self) -> Result<Summary, VerifyError> {
        let Some(head) = self.last else {
            return Err(VerifyError::Empty);
        };
        let behind = self
            .heads
            .iter()
            .find(|logged| logged.sequence > head.sequence);
        if let Some(logged) = behind {
            let kind = ProblemKind::MissingHead(*logged);
            return Err(VerifyError::Problem(
                self.problem(Some(head.sequence), kind),
            ));
        }
        let last = self.heads.iter().max_by_key(|logged| logged.sequence);
        if let Some(last) = last.filter(|last| last.sequence < self.first.saturating_sub(1)) {
            let file = self.start.clone();
            return Err(VerifyError::Problem(Problem {
                file,
                line: 1,
                sequence: Some(self.first),
                kind: ProblemKind::HeadsBefore(*last),
            }));
        }
        Ok(Summary {
            lines: self.lines,
            first: self.first,
            head,
            files: self.files,
        })
    }

    fn line(&mut self, line: &[u8], is_whole: bool) -> Result<(), Problem> {
        let expected = self.last.map(|last| last.sequence.saturating_add(1));
        if !is_whole {
            let kind = match line.len() > MAX_LINE {
                true => ProblemKind::Malformed(Malformed::TooLong),
                false => ProblemKind::Torn,
            };
            return Err(self.problem(expected, kind));
        }
        let link = read(line).map_err(|why| self.problem(expected, ProblemKind::Malformed(why)))?;
        let sequence = Some(link.head.sequence);
        if let Some(expected) = expected.filter(|expected| *expected != link.head.sequence) {
            return Err(self.problem(sequence, ProblemKind::Sequence { expected }));
        }
        let is_previous = match self.last {
            Some(last) => last.digest == link.previous,
            None if link.head.sequence == 1 => link.previous == Head::START.digest,
            // Earlier files are not here: heads may know.
            None => self
                .heads
                .iter()
                .filter(|head| head.sequence.checked_add(1) == Some(link.head.sequence))
                .all(|head| head.digest == link.previous),
        };
        if !is_previous {
            return Err(self.problem(sequence, ProblemKind::Previous));
        }
        // Two heads of one number are of two trails: one of them is not in this.
        let other = self
            .heads
            .iter()
            .find(|head| head.sequence == link.head.sequence && **head != link.head);
        if let Some(other) = other {
            return Err(self.problem(sequence, ProblemKind::OtherHead(*other)));
        }
        if self.last.is_none() {
            self.first = link.head.sequence;
            self.start.clone_from(&self.place.0);
        }
        self.last = Some(link.head);
        self.lines = self.lines.saturating_add(1);
        Ok(())
    }

    fn problem(&self, sequence: Option<u64>, kind: ProblemKind) -> Problem {
        Problem {
            file: self.place.0.clone(),
            line: self.place.1,
            sequence,
            kind,
        }
    }
}

/// The next line without its newline, and whether it had one. Bounded.
fn next_line(reader: &mut impl BufRead) -> io::Result<(Vec<u8>, bool)> {
    let mut line = Vec::new();
    reader
        .take((MAX_LINE as u64).saturating_add(1))
        .read_until(b'\n', &mut line)?;
    let is_whole = line.last() == Some(&b'\n');
    if is_whole {
        line.pop();
    }
    Ok((line, is_whole))
}
