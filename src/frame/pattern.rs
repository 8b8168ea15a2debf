//! Subjects, and the patterns that select them.

use std::fmt;

/// Longest subject or pattern, in bytes.
pub const MAX_SUBJECT_BYTES: usize = 255;

/// Most tokens of a subject or pattern.
pub const MAX_TOKENS: usize = 16;

/// The name of a message: 1 to 16 tokens of `A-Z a-z 0-9 _ -` joined by dots.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Subject<'a>(&'a str);

/// Selects subjects: a subject in which a whole token may be `*`, which stands
/// for any one token, and the last may be `>`, which stands for one or more.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Pattern<'a>(&'a str);

impl<'a> Subject<'a> {
    /// `None` unless `bytes` are a subject.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        checked(bytes, false).map(Self)
    }

    /// The text, ASCII.
    pub fn as_str(self) -> &'a str {
        self.0
    }

    /// The tokens in their order.
    pub fn tokens(self) -> impl Iterator<Item = &'a str> {
        self.0.split('.')
    }
}

impl<'a> Pattern<'a> {
    /// `None` unless `bytes` are a pattern.
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        checked(bytes, true).map(Self)
    }

    /// The text, ASCII.
    pub fn as_str(self) -> &'a str {
        self.0
    }

    /// The tokens in their order.
    pub fn tokens(self) -> impl Iterator<Item = &'a str> {
        self.0.split('.')
    }

    /// Whether it selects this subject.
    pub fn matches(self, subject: Subject<'_>) -> bool {
        self.covers(Pattern(subject.0))
    }

    /// Whether it selects every subject that `other` selects.
    pub fn covers(self, other: Pattern<'_>) -> bool {
        let mut others = other.tokens();
        for token in self.tokens() {
            match (token, others.next()) {
                (">", Some(_)) => return true,
                (_, Some(">")) => return false,
                ("*", Some(_)) => (),
                (mine, Some(theirs)) if mine == theirs => (),
                _ => return false,
            }
        }
        others.next().is_none()
    }
}

impl<'a> From<Subject<'a>> for Pattern<'a> {
    fn from(subject: Subject<'a>) -> Self {
        Self(subject.0)
    }
}

impl fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl fmt::Display for Pattern<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

#[inline]
fn checked(bytes: &[u8], wild: bool) -> Option<&str> {
    if bytes.is_empty() || bytes.len() > MAX_SUBJECT_BYTES {
        return None;
    }
    let mut tokens = 1_usize;
    let mut previous = b'.';
    for &byte in bytes {
        // A wildcard is a token of its own, and nothing follows `>`.
        let fits = match byte {
            b'.' => previous != b'.' && previous != b'>',
            b'*' | b'>' => wild && previous == b'.',
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' => {
                previous != b'*' && previous != b'>'
            }
            _ => false,
        };
        if !fits {
            return None;
        }
        tokens = tokens.saturating_add(usize::from(byte == b'.'));
        previous = byte;
    }
    if previous == b'.' || tokens > MAX_TOKENS {
        return None;
    }
    std::str::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, subject: bool, pattern: bool) {
        assert_eq!(
            Subject::new(text.as_bytes()).is_some(),
            subject,
            "subject {text:?}"
        );
        assert_eq!(
            Pattern::new(text.as_bytes()).is_some(),
            pattern,
            "pattern {text:?}"
        );
    }

    #[test]
    fn tokens_are_joined_by_single_dots() {
        for text in ["a", "orders.new", "A-z_0.9", "-", "_"] {
            check(text, true, true);
        }
        for text in [
            "", ".", "a.", ".a", "a..b", "a b", "a/b", "ä", "a\0", "a\n", "a*", "*a", ">.a",
            "a.>b", "**",
        ] {
            check(text, false, false);
        }
        for text in ["*", ">", "a.*", "*.a", "*.*.>", "a.>"] {
            check(text, false, true);
        }
    }

    #[test]
    fn bounds_hold_at_the_edge() {
        for n in [15, 16, 17] {
            check(&vec!["t"; n].join("."), n <= 16, n <= 16);
            check(&vec!["*"; n].join("."), false, n <= 16);
        }
        for n in [254, 255, 256] {
            check(&"x".repeat(n), n <= 255, n <= 255);
        }
    }

    #[track_caller]
    fn covers(pattern: &str, other: &str, expect: bool) {
        let [pattern, other] = [pattern, other].map(|text| Pattern::new(text.as_bytes()).unwrap());
        assert_eq!(pattern.covers(other), expect, "{pattern} covers {other}");
        if let Some(subject) = Subject::new(other.as_str().as_bytes()) {
            assert_eq!(pattern.matches(subject), expect);
        }
    }

    #[test]
    fn a_pattern_covers_what_it_selects() {
        for (pattern, other, expect) in [
            ("a", "a", true),
            ("a", "b", false),
            ("a", "a.b", false),
            ("a.b", "a", false),
            ("*", "a", true),
            ("*", "a.b", false),
            ("*", "*", true),
            ("a", "*", false),
            ("a.*", "a.b", true),
            ("a.*", "a", false),
            ("a.*.c", "a.b.c", true),
            (">", "a.b.c", true),
            (">", ">", true),
            (">", "*.>", true),
            ("*.>", ">", false),
            ("a.>", "a", false),
            ("a.>", "a.b", true),
            ("a.>", "a.>", true),
            ("a.>", "a.*.>", true),
            ("a.*.>", "a.>", false),
            ("a.*", "a.>", false),
            ("*.*", "a.*", true),
        ] {
            covers(pattern, other, expect);
        }
    }

    #[test]
    fn texts_and_tokens_are_those_that_were_given() {
        let text = "orders.new.A-1";
        let subject = Subject::new(text.as_bytes()).unwrap();
        let pattern = Pattern::from(subject);
        let tokens = ["orders", "new", "A-1"];
        assert!(subject.tokens().eq(tokens) && pattern.tokens().eq(tokens));
        assert_eq!((subject.as_str(), pattern.as_str()), (text, text));
        assert_eq!(format!("{subject} {pattern}"), format!("{text} {text}"));
    }
}
