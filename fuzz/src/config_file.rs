//! A configuration file, as bytes.
//!
//! - It leads to settings, or to errors alone, each with a place inside of it.
//! - The text that `check` prints leads to the same settings, and to itself.
//! - Line ends of DOS, a byte order mark and a comment change nothing.

use secure_socket::config::{self, Settings, Weight};

use crate::surroundings::{AS_ROOT, check_diagnostics};

pub fn check(data: &[u8]) {
    let settings = match config::parse_file("f", data, &AS_ROOT) {
        Ok(settings) => settings,
        Err(errors) => {
            assert!(errors.iter().all(|one| one.weight == Weight::Error));
            assert_eq!(errors.exit_code(), 78, "{errors}");
            check_diagnostics(&errors);
            return;
        }
    };
    // One of these for each input: each costs a whole reading.
    match data.len() % 4 {
        0 if !data.starts_with(b"\xef\xbb\xbf") => {
            check_same(&settings, &[b"\xef\xbb\xbf", data].concat());
        }
        1 if !data.contains(&b'\r') => {
            let lines: Vec<&[u8]> = data.split(|byte| *byte == b'\n').collect();
            check_same(&settings, &lines.join(&b"\r\n"[..]));
        }
        2 => check_same(&settings, &[data, b"\n# a comment"].concat()),
        _ => check_settings(&settings),
    }
}

/// What `check` prints reads back.
pub(crate) fn check_settings(settings: &Settings) {
    check_diagnostics(&settings.remarks);
    let text = config::effective(settings);
    assert!(text.lines().all(crate::is_quiet), "{text}");
    let again = config::parse_file("g", text.as_bytes(), &AS_ROOT);
    let again = again.unwrap_or_else(|errors| panic!("{errors}\n{text}"));
    assert_eq!(
        config::digest_input(settings),
        config::digest_input(&again),
        "{text}"
    );
    for name in config::needs_restart(settings, &again) {
        assert!(
            text.contains(&format!("# {name}")),
            "{name} changed: {text}"
        );
    }
}

fn check_same(settings: &Settings, text: &[u8]) {
    let again = config::parse_file("f", text, &AS_ROOT);
    let again = again.unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(config::digest_input(settings), config::digest_input(&again));
}
