//! Names of rolled files. Pure.
//!
//! `NAME.YYYYMMDD-HHMMSS.uuuuuu` is a rolled file, with `.gz` a compressed one,
//! with `.gz.tmp` one that is being compressed. Sorted by name they are in the
//! order of rolling, also where the clock was set back meanwhile: then a stamp
//! follows the one before and not the clock. Only names of exactly this shape are
//! ours to touch.

use super::layout::time::{Civil, push_padded};
use crate::text;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// How far a rolled file has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Stage {
    /// Rolled, not compressed.
    Plain,
    /// Compressed, whole.
    Compressed,
    /// Being compressed, or what a crash left of that.
    Temporary,
}

impl Stage {
    const fn suffix(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Compressed => ".gz",
            Self::Temporary => ".gz.tmp",
        }
    }
}

/// A rolled file: when it was rolled, and how far it has come.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Archive {
    /// `YYYYMMDD-HHMMSS.uuuuuu`, in UTC.
    stamp: String,
    /// How far it has come.
    pub stage: Stage,
}

/// Bytes of a stamp.
const STAMP_LENGTH: usize = 22;

impl Archive {
    /// A file rolled at this time, in microseconds since 1970.
    pub fn at(micros: u64) -> Self {
        let civil = Civil::from_unix(micros / 1_000_000);
        let mut stamp = Vec::with_capacity(STAMP_LENGTH);
        push_padded(civil.year, 4, &mut stamp);
        push_padded(civil.month, 2, &mut stamp);
        push_padded(civil.day, 2, &mut stamp);
        stamp.push(b'-');
        push_padded(civil.hour, 2, &mut stamp);
        push_padded(civil.minute, 2, &mut stamp);
        push_padded(civil.second, 2, &mut stamp);
        stamp.push(b'.');
        push_padded(micros % 1_000_000, 6, &mut stamp);
        Self {
            stamp: String::from_utf8(stamp).unwrap_or_default(),
            stage: Stage::Plain,
        }
    }

    /// The next in order, not compressed; `None` behind the last that there is.
    #[must_use]
    pub fn next(&self) -> Option<Self> {
        text::counted_up(&self.stamp).map(|stamp| Self {
            stamp,
            stage: Stage::Plain,
        })
    }

    /// Takes a file's name apart; `None` if it isn't a rolled file of `base`.
    pub fn parse(base: &OsStr, name: &OsStr) -> Option<Self> {
        let rest = name
            .as_bytes()
            .strip_prefix(base.as_bytes())?
            .strip_prefix(b".")?;
        let (stamp, suffix) = rest.split_at_checked(STAMP_LENGTH)?;
        let shaped = stamp.iter().enumerate().all(|(at, byte)| match at {
            8 => *byte == b'-',
            15 => *byte == b'.',
            _ => byte.is_ascii_digit(),
        });
        let stages = [Stage::Plain, Stage::Compressed, Stage::Temporary];
        let stage = stages
            .into_iter()
            .find(|stage| stage.suffix().as_bytes() == suffix)?;
        let stamp = std::str::from_utf8(stamp).ok()?.to_owned();
        shaped.then_some(Self { stamp, stage })
    }

    /// The same file, further or less far.
    #[must_use]
    pub fn at_stage(&self, stage: Stage) -> Self {
        Self {
            stamp: self.stamp.clone(),
            stage,
        }
    }

    /// The file's name.
    pub fn name(&self, base: &OsStr) -> OsString {
        let mut name = base.as_bytes().to_vec();
        name.push(b'.');
        name.extend_from_slice(self.stamp.as_bytes());
        name.extend_from_slice(self.stage.suffix().as_bytes());
        OsString::from_vec(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, expected: Option<Stage>) {
        let archive = Archive::parse(OsStr::new("log"), OsStr::new(name));
        assert_eq!(archive.as_ref().map(|archive| archive.stage), expected);
        if let Some(archive) = archive {
            assert_eq!(archive.name(OsStr::new("log")), OsStr::new(name));
        }
    }

    #[test]
    fn only_names_of_exactly_our_shape_are_ours() {
        check("log.20261123-102030.123456", Some(Stage::Plain));
        check("log.20261123-102030.123456.gz", Some(Stage::Compressed));
        check("log.20261123-102030.123456.gz.tmp", Some(Stage::Temporary));
        for wrong in [
            "log",
            "log.",
            "log.gz",
            "log.1",
            "log.20261123-102030.12345",
            "log.20261123-102030.1234567",
            "log.20261123-102030.123456.tmp",
            "log.20261123-102030.123456.gz.tmp.gz",
            "log.20261123 102030.123456",
            "log.2026112x-102030.123456",
            "log2.20261123-102030.123456",
            "xlog.20261123-102030.123456",
            "log.20261123-102030.123456.xz",
        ] {
            check(wrong, None);
        }
    }

    #[test]
    fn names_sort_by_time() {
        let earlier = Archive::at(1_795_429_230_999_999);
        let later = Archive::at(1_795_429_231_000_000);
        assert!(earlier < later);
        assert_eq!(
            later.name(OsStr::new("a")),
            OsStr::new("a.20261123-102031.000000")
        );
        assert_eq!(earlier.next(), Some(later.clone()));
        assert_eq!(later.at_stage(Stage::Temporary).next(), later.next());
    }
}
