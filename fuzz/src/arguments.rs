//! A command line of each program, as in `/proc/PID/cmdline`: NULs between.
//!
//! - It leads to a command, or to errors alone, each with a place inside of it.
//! - `--option=value` is the same as `option=value`.
//! - What `check` prints, as a file, leads to the same settings; so does reading the same
//!   command line again, for a reload. A reload keeps what takes a restart.
//! - Help is text.
//!
//! Each of these costs one or two whole readings, so an input is held against one
//! of them, by its length; inputs of every length are made.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use secure_socket::config::ctl::{self, CtlCommand};
use secure_socket::config::{self, Command, help, key};

use crate::config_file::check_settings;
use crate::surroundings::{AS_ROOT, check_diagnostics};

pub fn check(data: &[u8]) {
    let names_a_file = |arg: &&[u8]| arg.windows(7).any(|bytes| bytes == b"config=");
    let args: Vec<&[u8]> = data
        .split(|byte| *byte == 0)
        .filter(|arg| !names_a_file(arg))
        .collect();
    let given = |args: &[Vec<u8>]| {
        args.iter()
            .cloned()
            .map(OsString::from_vec)
            .collect::<Vec<_>>()
    };
    let plain: Vec<Vec<u8>> = args.iter().map(|arg| arg.to_vec()).collect();
    if data.len() % 4 == 3 {
        match ctl::parse(given(&plain).into_iter(), &AS_ROOT) {
            Ok(CtlCommand::Help(key)) => check_help(key, help::ctl_overview),
            Ok(_) => {}
            Err(errors) => {
                assert_eq!(errors.exit_code(), 64, "{errors}");
                check_diagnostics(&errors);
            }
        }
        return;
    }
    let one = config::parse(given(&plain).into_iter(), &AS_ROOT);
    if let Err(errors) = &one {
        assert_eq!(errors.exit_code(), 64, "{errors}");
        check_diagnostics(errors);
    }
    if data.len() % 2 == 0 {
        let dashed: Vec<Vec<u8>> = args.iter().map(|arg| with_dashes(arg)).collect();
        let other = config::parse(given(&dashed).into_iter(), &AS_ROOT);
        assert_eq!(one.is_ok(), other.is_ok(), "dashes change the answer");
        if let (Ok(one), Ok(other)) = (&one, &other) {
            assert_eq!(summary(one), summary(other));
        }
        return;
    }
    match &one {
        Ok(Command::Help(key)) => check_help(*key, help::overview),
        Ok(Command::Serve(settings)) if data.len() % 8 == 1 => {
            let again = config::reload(given(&plain).into_iter(), &AS_ROOT);
            let again = again.unwrap_or_else(|errors| panic!("{errors}"));
            assert_eq!(config::digest_input(settings), config::digest_input(&again));
            // Started with a half of them, what takes a restart stays as that half says.
            let half = given(&plain[..plain.len() / 2]);
            if let Ok(start) = config::reload(half.into_iter(), &AS_ROOT) {
                match config::keep_fixed(again, &start, &AS_ROOT) {
                    Ok(kept) => assert!(config::needs_restart(&start, &kept).is_empty()),
                    Err(errors) => check_diagnostics(&errors),
                }
            }
        }
        Ok(Command::Serve(settings) | Command::Check(settings)) => check_settings(settings),
        _ => {}
    }
}

fn check_help(key: Option<&key::Key>, overview: fn() -> String) {
    let text = key.map_or_else(overview, help::option);
    assert!(text.lines().all(crate::is_quiet) && text.ends_with('\n'));
    assert!(key.is_none_or(|key| text.starts_with(key.name)));
}

fn with_dashes(arg: &[u8]) -> Vec<u8> {
    let is_option = arg.contains(&b'=') && !arg.starts_with(b"-");
    [if is_option { &b"--"[..] } else { b"" }, arg].concat()
}

fn summary(command: &Command) -> String {
    match command {
        Command::Serve(settings) => format!("serve\n{}", config::digest_input(settings)),
        Command::Check(settings) => format!("check\n{}", config::digest_input(settings)),
        Command::Explain(settings, facts) => {
            format!("explain {facts:?}\n{}", config::digest_input(settings))
        }
        Command::Help(key) => format!("help {:?}", key.map(|key| key.name)),
        Command::Version => "version".to_owned(),
    }
}
