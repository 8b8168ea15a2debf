//! Whatever a file or a command line holds, it is answered: with settings whose
//! text reads back to the same settings, or with errors that have a place inside
//! of what was given. `MUTATIONS=100000` tries longer than the thousand of each
//! kind that a plain run does.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![cfg(feature = "daemon")]

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;

use secure_socket::config::{self, Accounts, Diagnostics, Surroundings, Weight};
use secure_socket::ids::{Gid, Uid};

/// Nobody but root.
struct OnlyRoot;

impl Accounts for OnlyRoot {
    fn user(&self, name: &str) -> io::Result<Option<(Uid, Gid)>> {
        Ok((name == "root").then_some((Uid::ROOT, Gid::ROOT)))
    }

    fn user_of(&self, uid: Uid) -> io::Result<Option<(String, Gid)>> {
        Ok((uid == Uid::ROOT).then(|| ("root".to_owned(), Gid::ROOT)))
    }

    fn group(&self, name: &str) -> io::Result<Option<Gid>> {
        Ok((name == "root").then_some(Gid::ROOT))
    }

    fn groups_of(&self, _name: &str, primary: Gid) -> io::Result<Vec<Gid>> {
        Ok(vec![primary])
    }
}

const SURROUNDINGS: Surroundings<'static> = Surroundings {
    euid: Uid::ROOT,
    egid: Gid::ROOT,
    runtime_dir: None,
    accounts: &OnlyRoot,
};

/// xorshift64*: the same numbers in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(number).unwrap() % bound
    }
}

/// Pieces that change what surrounds them.
const PIECES: &[&str] = &[
    "=",
    "\"",
    "'",
    "\\",
    "#",
    " ",
    "\n",
    "\r",
    "\t",
    ",",
    "|",
    ":",
    "/",
    "@",
    "..",
    "0",
    "1",
    "-",
    "none",
    "auto",
    "self",
    "any",
    "uid:",
    "\u{202e}",
    "é",
    "\u{1b}[0m",
    "\u{0}",
    "18446744073709551616",
    "K",
    "ms",
    "peer=",
    "config=",
    "--",
    "\u{feff}",
];

fn rounds() -> usize {
    let asked = std::env::var("MUTATIONS").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(1_000)
}

fn lines() -> Vec<String> {
    let examples = config::key::DAEMON
        .keys()
        .filter(|key| key.name != "config");
    examples
        .map(|key| format!("{} = {}", key.name, key.example))
        .collect()
}

fn mutate(text: &mut Vec<u8>, numbers: &mut Numbers) {
    for _ in 0..=numbers.below(3) {
        let at = numbers.below(text.len() + 1);
        match numbers.below(4) {
            0 => {
                let piece = PIECES[numbers.below(PIECES.len())];
                text.splice(at..at, piece.bytes());
            }
            1 if at < text.len() => {
                text.remove(at);
            }
            2 if at < text.len() => text[at] = u8::try_from(numbers.below(256)).unwrap(),
            _ => {
                let end = at + numbers.below(text.len() - at + 1);
                let copy = text[at..end].to_vec();
                text.splice(at..at, copy);
            }
        }
    }
}

fn check_places(found: &Diagnostics) {
    let text = found.to_string();
    let quiet = |c: char| c == '\n' || !c.is_control() && !('\u{202a}'..='\u{202e}').contains(&c);
    assert!(text.chars().all(quiet), "{text:?}");
    for place in found.iter().filter_map(|one| one.place.as_ref()) {
        let length = u32::try_from(place.line.chars().count()).unwrap();
        assert!(
            place.row >= 1 && place.column >= 1 && place.start <= place.column,
            "{place:?}"
        );
        assert!(place.column <= length + 1, "{place:?}");
        assert!(place.start + place.width <= length + 2, "{place:?}");
    }
}

#[test]
fn a_file_leads_to_settings_that_read_back_or_to_errors_with_a_place() {
    let (lines, mut numbers) = (lines(), Numbers(0x5EED));
    let mut accepted = 0;
    for _ in 0..rounds() {
        let mut file = Vec::new();
        for _ in 0..1 + numbers.below(4) {
            file.extend_from_slice(lines[numbers.below(lines.len())].as_bytes());
            file.push(b'\n');
        }
        if numbers.below(4) > 0 {
            mutate(&mut file, &mut numbers);
        }
        match config::parse_file("f", &file, &SURROUNDINGS) {
            Ok(settings) => {
                accepted += 1;
                check_places(&settings.remarks);
                let text = config::effective(&settings);
                let again = config::parse_file("g", text.as_bytes(), &SURROUNDINGS);
                let again = again.unwrap_or_else(|errors| panic!("{errors}\n{text}"));
                assert_eq!(
                    config::digest_input(&settings),
                    config::digest_input(&again),
                    "{text}"
                );
                let changed = config::needs_restart(&settings, &again);
                assert!(
                    changed
                        .iter()
                        .all(|name| text.contains(&format!("# {name}"))),
                    "{changed:?}"
                );
            }
            Err(errors) => {
                assert!(errors.iter().all(|one| one.weight == Weight::Error));
                assert_eq!(errors.exit_code(), 78, "{errors}");
                check_places(&errors);
            }
        }
    }
    assert!(accepted > rounds() / 10, "only {accepted} files were good");
}

#[test]
fn a_command_line_is_answered_whatever_it_holds() {
    let (lines, mut numbers) = (lines(), Numbers(0xC0DE));
    let verbs = [
        "serve",
        "check",
        "explain",
        "help",
        "publish",
        "respond",
        "verify-trail",
    ];
    for _ in 0..rounds() {
        let mut args = vec![verbs[numbers.below(verbs.len())].as_bytes().to_vec()];
        for _ in 0..numbers.below(4) {
            let mut arg = lines[numbers.below(lines.len())]
                .replace(" = ", "=")
                .into_bytes();
            mutate(&mut arg, &mut numbers);
            // No file is to be read.
            if !arg.windows(7).any(|bytes| bytes == b"config=") {
                args.push(arg);
            }
        }
        let args = || args.clone().into_iter().map(OsString::from_vec);
        if let Err(errors) = config::parse(args(), &SURROUNDINGS) {
            assert_eq!(errors.exit_code(), 64, "{errors}");
            check_places(&errors);
        }
        if let Err(errors) = config::ctl::parse(args(), &SURROUNDINGS) {
            assert_eq!(errors.exit_code(), 64, "{errors}");
            check_places(&errors);
        }
    }
}
