//! The one table of options: what each is called, takes, defaults to and means.
//!
//! The argument parser, the file parser, `help`, `check`, the README's table and
//! the completion scripts are all made from it, so that none of them can drift.
//!
//! - A name occurs once in the table, in lower case; names of the original
//!   program that differ are listed in `old`.
//! - Every default that is a value parses as its own kind (a test tries each).
//!
//! Not here: what values turn into (`settings`), and rules that tie two options
//! together (`checks`).

use std::time::Duration;

use super::table;

/// What an option's value looks like, with its bounds (both inclusive).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A decimal number.
    Number {
        /// The smallest that is taken.
        min: u64,
        /// The largest.
        max: u64,
    },
    /// Bytes, with `K`, `M` or `G` for powers of 1024.
    Size {
        /// The smallest that is taken, in bytes.
        min: u64,
        /// The largest, in bytes.
        max: u64,
    },
    /// A time, with `ms`, `s`, `m` or `h`; a bare number is seconds.
    Duration {
        /// The shortest that is taken.
        min: Duration,
        /// The longest.
        max: Duration,
    },
    /// Yes or no.
    YesNo,
    /// One of some words.
    Word(&'static [&'static str]),
    /// Text with a form of its own, which this phrase describes.
    Text(&'static str),
}

/// What holds where an option is not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// This value.
    Value(&'static str),
    /// The option is off.
    Nothing,
    /// It follows from other options or from who runs the program, as told here.
    Follows(&'static str),
}

/// How often an option may be given, and with how many values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arity {
    /// Once, with one value.
    Once,
    /// Once, with a list of values, separated by commas.
    List,
    /// As often as wanted, with one value each; the order counts.
    Repeated,
}

/// One option.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name, as it is written.
    pub name: &'static str,
    /// What its value looks like.
    pub kind: Kind,
    /// What holds without it.
    pub preset: Preset,
    /// How often it may be given.
    pub arity: Arity,
    /// What it does: sentences, in Markdown's inline form.
    pub help: &'static str,
    /// A value that works.
    pub example: &'static str,
    /// Names that the original program's parameter files had for it, besides its
    /// own in upper case.
    pub old: &'static [&'static str],
    /// Whether a reload (SIGHUP) puts a new value in force; else it waits for the
    /// next start.
    pub live: bool,
}

impl Key {
    pub(super) const fn new(name: &'static str, kind: Kind, preset: Preset) -> Self {
        Self {
            name,
            kind,
            preset,
            arity: Arity::Once,
            help: "",
            example: "",
            old: &[],
            live: false,
        }
    }

    pub(super) const fn help(self, help: &'static str) -> Self {
        Self { help, ..self }
    }

    pub(super) const fn example(self, example: &'static str) -> Self {
        Self { example, ..self }
    }

    pub(super) const fn live(self) -> Self {
        Self { live: true, ..self }
    }

    pub(super) const fn list(self) -> Self {
        Self {
            arity: Arity::List,
            ..self
        }
    }

    pub(super) const fn repeated(self) -> Self {
        Self {
            arity: Arity::Repeated,
            ..self
        }
    }

    pub(super) const fn old(self, old: &'static [&'static str]) -> Self {
        Self { old, ..self }
    }

    /// Whether `none` is a value of it, which turns it off.
    pub fn takes_none(&self) -> bool {
        self.arity == Arity::Once && self.preset == Preset::Nothing
    }
}

/// Options that belong together, under one heading of `help` and the README.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// The heading.
    pub title: &'static str,
    /// Its options, in the order in which they are shown.
    pub keys: &'static [Key],
}

/// The options of one program, in the order in which they are shown.
#[derive(Clone, Copy, Debug)]
pub struct Table(pub &'static [Group]);

/// The options of the daemon.
pub static DAEMON: Table = Table(&[
    Group {
        title: "The socket",
        keys: table::socket::KEYS,
    },
    Group {
        title: "Who is admitted",
        keys: table::peers::KEYS,
    },
    Group {
        title: "The service",
        keys: table::service::KEYS,
    },
    Group {
        title: "Limits",
        keys: table::limits::KEYS,
    },
    Group {
        title: "Logs",
        keys: table::logs::KEYS,
    },
    Group {
        title: "Trail and metrics",
        keys: table::records::KEYS,
    },
    Group {
        title: "Walls",
        keys: table::walls::KEYS,
    },
]);

/// The options of `secure_socketctl`.
pub static CTL: Table = Table(&[
    Group {
        title: "The server",
        keys: table::ctl::SERVER,
    },
    Group {
        title: "Messages",
        keys: table::ctl::MESSAGES,
    },
    Group {
        title: "Answers",
        keys: table::ctl::ANSWERS,
    },
    Group {
        title: "Records",
        keys: table::ctl::RECORDS,
    },
]);

/// Names in the original program's parameter file that steered its build; they
/// mean nothing here.
pub(super) static ORIGINAL_BUILD_NAMES: &[&str] = &[
    "SHELL_H",
    "newline",
    "RELEASE",
    "DEBUG",
    "BUILD",
    "CMAKE_OPTIONS",
    "EXEC",
    "LINK",
    "RUNNER",
    "CLEANER",
    "LOG_DIRECTORY",
];

impl Table {
    /// All options, in their order.
    pub fn keys(&self) -> impl Iterator<Item = &'static Key> {
        self.0.iter().flat_map(|group| group.keys)
    }

    /// The option of that name, in lower case.
    pub fn find(&self, name: &str) -> Option<&'static Key> {
        self.keys().find(|key| key.name == name)
    }

    /// The option that an original parameter file means by this name in upper
    /// case.
    pub fn find_original(&self, name: &str) -> Option<&'static Key> {
        let is_upper = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
        if name.is_empty() || !name.bytes().all(is_upper) {
            return None;
        }
        let lower = name.to_ascii_lowercase();
        self.find(&lower)
            .or_else(|| self.keys().find(|key| key.old.contains(&name)))
    }

    /// The name that this one was most likely meant to be.
    pub fn nearest(&self, wrong: &str) -> Option<&'static str> {
        nearest(wrong, self.keys().map(|key| key.name))
    }
}

/// Of `names`, the one that `wrong` was most likely meant to be, or `None` where
/// nothing is near.
pub fn nearest<'a>(wrong: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let wrong: String = wrong
        .chars()
        .take(64)
        .map(|c| if c == '-' { '_' } else { c })
        .collect();
    let wrong = wrong.to_lowercase();
    // A third of the letters may be wrong: enough for typing errors, too few for
    // guesses.
    let length = wrong.chars().count();
    let bound = (length / 3).max(1);
    // Each letter more or less is one wrong: most names need no closer look.
    let may_be_near =
        |name: &&str| name.chars().count().abs_diff(length) <= bound || name.starts_with(&wrong);
    names
        .filter(may_be_near)
        .map(|name| (distance(&wrong, name), name))
        .filter(|(distance, name)| {
            *distance <= bound || (wrong.len() >= 4 && name.starts_with(&wrong))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// How many letters must be put in, taken out, changed or swapped with their
/// neighbour (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let at = |row: &[usize], i: usize| row.get(i).copied().unwrap_or(usize::MAX / 2);
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, cb) in b.iter().enumerate() {
            let change = at(&row, j) + usize::from(ca != cb);
            let mut best = change.min(at(&row, j + 1) + 1).min(at(&next, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(cb) && b.get(j - 1) == Some(ca);
            if swapped {
                best = best.min(at(&before, j - 1) + 1);
            }
            next.push(best);
        }
        before = row;
        row = next;
    }
    at(&row, b.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_lower_case() {
        let mut names: Vec<_> = DAEMON.keys().map(|key| key.name).collect();
        assert!(names.iter().all(|n| {
            n.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        }));
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn every_option_has_help_and_an_example() {
        for key in DAEMON.keys() {
            assert!(key.help.ends_with('.'), "{}: help is sentences", key.name);
            assert!(!key.help.contains('\n'), "{}", key.name);
            assert!(!key.example.is_empty(), "{}", key.name);
        }
    }

    #[test]
    fn the_nearest_name_is_found_and_guesses_are_not() {
        let near = |wrong| DAEMON.nearest(wrong);
        assert_eq!(near("max_conections"), Some("max_connections"));
        assert_eq!(near("max-connections"), Some("max_connections"));
        assert_eq!(near("sokcet_path"), Some("socket_path"));
        assert_eq!(
            near("authorized_peer_username"),
            Some("authorised_peer_username")
        );
        assert_eq!(near("verbosty"), Some("verbosity"));
        assert_eq!(near("frobnicate"), None);
    }

    #[test]
    fn original_names_in_upper_case_are_known() {
        let name = |old| DAEMON.find_original(old).map(|key| key.name);
        assert_eq!(name("SOCKET_PATH"), Some("socket_path"));
        assert_eq!(
            name("AUTHORISED_PEER_NAME"),
            Some("authorised_peer_username")
        );
        assert_eq!(name("Socket_Path"), None);
        assert_eq!(name("socket_path"), None);
        assert_eq!(name(""), None);
    }
}
