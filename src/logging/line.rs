//! One line on its way from the call to the writer: when, where, how severe,
//! and the message as it was given. And its form in the ring.
//!
//! The ring takes a copy: a line borrows its message from the caller's stack on
//! one side, from the writer's buffer on the other. A place in the source
//! travels as the number of its call site; a line of the `log` crate, and one of
//! a program with more call sites than are numbered, carries file and module.

use super::message::floor_boundary;
use super::ring::{halves, joined};
use super::site::{self, Site};
use super::{Severity, escape};
pub(super) use crate::sys::time::realtime_micros as now_micros;

/// No sink-independent verbosity holds for the line's module.
pub(super) const NO_SCOPE: u8 = u8::MAX;

/// Bytes of a file's or a module's name that travel.
const LONGEST_NAME: usize = 1024;

/// Only printable ASCII without backslash: needs no escape in a text.
const PLAIN: u8 = 1;
/// The line is about a connection.
const HAS_CONN: u8 = 2;
/// The place travels in words.
const NAMED: u8 = 4;

/// Where a line was logged.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin<'a> {
    /// By one of our macros.
    Site(&'static Site),
    /// By a macro of the `log` crate: names that the compiler wrote.
    Named {
        file: &'a str,
        line: u32,
        module: &'a str,
    },
}

/// One line, not yet rendered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line<'a> {
    pub(super) micros: u64,
    pub(super) severity: Severity,
    /// The verbosity of the line's module, as a threshold, or `NO_SCOPE`.
    pub(super) scope: u8,
    pub(super) plain: bool,
    /// Number of the connection that the line is about.
    pub(super) conn: Option<u64>,
    pub(super) origin: Origin<'a>,
    /// UTF-8.
    pub(super) message: &'a [u8],
}

impl<'a> Line<'a> {
    /// A line of now.
    #[inline]
    pub(super) fn new(
        severity: Severity,
        scope: u8,
        conn: Option<u64>,
        origin: Origin<'a>,
        message: &'a [u8],
    ) -> Self {
        Self {
            micros: now_micros(),
            severity,
            scope,
            plain: escape::is_plain(message),
            conn,
            origin,
            message,
        }
    }

    /// Hands the line's form in the ring to `put`: a tag, fields, texts. The two
    /// usual forms have arrays of their own, which need not be put together first.
    #[inline]
    pub(super) fn pack<R>(&self, put: impl FnOnce(u32, &[u64], &[&'a [u8]]) -> R) -> R {
        let number = match self.origin {
            Origin::Site(site) => site.number(),
            Origin::Named { .. } => None,
        };
        let length = u32::try_from(self.message.len()).unwrap_or(u32::MAX);
        match (number, self.conn) {
            (Some(number), None) => {
                let fields = [self.micros, joined(number, length)];
                put(self.tag(0), &fields, &[self.message])
            }
            (Some(number), Some(conn)) => {
                let fields = [self.micros, joined(number, length), conn];
                put(self.tag(HAS_CONN), &fields, &[self.message])
            }
            (None, conn) => {
                let (file, module) = (cut(self.file()), cut(self.module()));
                let place = joined(self.file_line(), length);
                let names = joined(byte_count(file), byte_count(module));
                let texts = [self.message, file.as_bytes(), module.as_bytes()];
                match conn {
                    None => put(self.tag(NAMED), &[self.micros, place, names], &texts),
                    Some(conn) => {
                        let fields = [self.micros, place, names, conn];
                        put(self.tag(NAMED | HAS_CONN), &fields, &texts)
                    }
                }
            }
        }
    }

    #[inline]
    fn tag(&self, flags: u8) -> u32 {
        let flags = flags | (u8::from(self.plain) * PLAIN);
        u32::from_le_bytes([self.severity.number(), self.scope, flags, 0])
    }

    /// The inverse of `pack`. `None` for what no `pack` has made.
    #[inline]
    pub(super) fn unpack(tag: u32, mut body: &'a [u8]) -> Option<Self> {
        let [severity, scope, flags, _] = tag.to_le_bytes();
        let micros = take_field(&mut body)?;
        let (number, length) = halves(take_field(&mut body)?);
        let names = match flags & NAMED {
            0 => None,
            _ => Some(halves(take_field(&mut body)?)),
        };
        let conn = match flags & HAS_CONN {
            0 => None,
            _ => Some(take_field(&mut body)?),
        };
        let message = take_text(&mut body, length)?;
        let origin = match names {
            None => Origin::Site(site::numbered(number)?),
            Some((file, module)) => Origin::Named {
                file: std::str::from_utf8(take_text(&mut body, file)?).ok()?,
                line: number,
                module: std::str::from_utf8(take_text(&mut body, module)?).ok()?,
            },
        };
        Some(Self {
            micros,
            severity: Severity::from_number(severity)?,
            scope,
            plain: flags & PLAIN != 0,
            conn,
            origin,
            message,
        })
    }

    /// The severity in a tag; error, if there is none.
    pub(super) fn severity_in(tag: u32) -> Severity {
        let [severity, ..] = tag.to_le_bytes();
        Severity::from_number(severity).unwrap_or(Severity::Error)
    }

    /// Source file, or nothing if it isn't known.
    pub(super) fn file(&self) -> &'a str {
        match self.origin {
            Origin::Site(site) => site.file(),
            Origin::Named { file, .. } => file,
        }
    }

    /// Line in the source file.
    pub(super) fn file_line(&self) -> u32 {
        match self.origin {
            Origin::Site(site) => site.line(),
            Origin::Named { line, .. } => line,
        }
    }

    /// Path of the module, or nothing if it isn't known.
    pub(super) fn module(&self) -> &'a str {
        match self.origin {
            Origin::Site(site) => site.module(),
            Origin::Named { module, .. } => module,
        }
    }

    /// ` (FILE:LINE FUNCTION)`, if one of our macros made the line.
    #[inline]
    pub(super) fn place(&self) -> &'a str {
        match self.origin {
            Origin::Site(site) => site.place(),
            Origin::Named { .. } => "",
        }
    }

    /// Name of the function, or nothing if it isn't known.
    pub(super) fn function(&self) -> &'static str {
        match self.origin {
            Origin::Site(site) => site.function(),
            Origin::Named { .. } => "",
        }
    }
}

fn byte_count(text: &str) -> u32 {
    u32::try_from(text.len()).unwrap_or(u32::MAX)
}

/// The longest start of a name that travels.
fn cut(name: &str) -> &str {
    name.get(..floor_boundary(name, LONGEST_NAME))
        .unwrap_or_default()
}

fn take_field(body: &mut &[u8]) -> Option<u64> {
    let (field, rest) = body.split_first_chunk()?;
    *body = rest;
    Some(u64::from_le_bytes(*field))
}

/// A text, which is filled up to a word.
fn take_text<'a>(body: &mut &'a [u8], length: u32) -> Option<&'a [u8]> {
    let length = usize::try_from(length).ok()?;
    let (filled, rest) = body.split_at_checked(length.checked_next_multiple_of(8)?)?;
    *body = rest;
    filled.get(..length)
}

#[cfg(test)]
mod tests {
    use super::super::message;
    use super::super::ring::{Ring, Share};
    use super::*;

    fn here() {}
    static SITE: Site = crate::__log_site!(Wire, here);

    #[track_caller]
    fn check(line: Line<'_>) {
        let ring = Ring::new(1 << 16);
        let share = Share {
            records: 1,
            words: ring.capacity(),
        };
        assert!(line.pack(|tag, fields, texts| ring.append(share, tag, fields, texts)));
        let mut times = 0;
        ring.take(9, &mut Vec::new(), |tag, body| {
            let back = Line::unpack(tag, body).unwrap();
            assert_eq!(format!("{back:?}"), format!("{line:?}"));
            times += 1;
        });
        assert_eq!(times, 1);
    }

    #[test]
    fn a_line_comes_back_as_it_was_given() {
        let named = Origin::Named {
            file: "src/x.rs",
            line: u32::MAX,
            module: "a::b",
        };
        let unknown = Origin::Named {
            file: "",
            line: 0,
            module: "",
        };
        for origin in [Origin::Site(&SITE), named, unknown] {
            for conn in [None, Some(0), Some(u64::MAX)] {
                for length in [0, 1, 7, 8, 9, 200, message::LONGEST] {
                    let message = "x".repeat(length);
                    check(Line::new(
                        Severity::Wire,
                        NO_SCOPE,
                        conn,
                        origin,
                        message.as_bytes(),
                    ));
                }
            }
        }
    }

    #[test]
    fn long_names_are_cut_between_characters() {
        let file = "ä".repeat(LONGEST_NAME);
        let origin = Origin::Named {
            file: &file,
            line: 1,
            module: "",
        };
        let line = Line::new(Severity::Info, 3, None, origin, b"x");
        line.pack(|_, _, texts| assert_eq!(texts[1].len(), LONGEST_NAME));
        assert_eq!(cut(&"a".repeat(LONGEST_NAME + 1)).len(), LONGEST_NAME);
        let odd = format!("a{file}");
        assert_eq!(cut(&odd).len(), LONGEST_NAME - 1);
    }

    #[test]
    fn what_is_no_line_is_none() {
        for (tag, body) in [
            (0, &[][..]),
            (u32::MAX, &[0; 64]),
            (u32::from_le_bytes([11, 0, NAMED, 0]), &[0; 64]),
            (u32::from_le_bytes([0, 0, 0, 0]), &[0xff; 64]),
        ] {
            assert!(Line::unpack(tag, body).is_none());
        }
    }
}
