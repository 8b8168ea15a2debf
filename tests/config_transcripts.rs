//! Command lines and files, good and bad, each with its exact output and exit
//! code.
//!
//! `tests/config/*.txt` are transcripts: the file, if there is one, in lines that
//! begin with `| `; the command line after `$ `; the exit code; the messages;
//! what `check` prints in lines that begin with `> `. `UPDATE_EXPECT=1` writes
//! what is found instead of comparing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![cfg(feature = "daemon")]

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process;

use rustix::fs::inotify;
use rustix::io::Errno;
use secure_socket::config::{self, Accounts, Command, Surroundings};
use secure_socket::ids::{Gid, Uid};

const NAME: &str = "parameters.conf";

/// One block of the transcript.
struct Case {
    comment: Vec<String>,
    file: Option<String>,
    command: String,
    expected: String,
}

fn read(transcript: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    for block in transcript
        .split("\n\n")
        .map(str::trim_end)
        .filter(|block| !block.is_empty())
    {
        let mut lines = block.lines().peekable();
        let mut case = Case {
            comment: Vec::new(),
            file: None,
            command: String::new(),
            expected: String::new(),
        };
        for line in lines.by_ref() {
            if let Some(comment) = line.strip_prefix("## ") {
                case.comment.push(comment.to_owned());
            } else if let Some(text) = line.strip_prefix('|') {
                let file = case.file.get_or_insert_default();
                file.push_str(text.strip_prefix(' ').unwrap_or(text));
                file.push('\n');
            } else if let Some(command) = line.strip_prefix("$ ") {
                case.command = command.to_owned();
                break;
            } else {
                panic!("a line of the transcript that is neither: {line}");
            }
        }
        for line in lines {
            case.expected.push_str(line);
            case.expected.push('\n');
        }
        cases.push(case);
    }
    cases
}

fn write(cases: &[Case]) -> String {
    let mut text = String::new();
    for case in cases {
        for comment in &case.comment {
            writeln!(text, "## {comment}").unwrap();
        }
        for line in case.file.iter().flat_map(|file| file.lines()) {
            writeln!(text, "{}", format!("| {line}").trim_end()).unwrap();
        }
        writeln!(text, "$ {}", case.command).unwrap();
        writeln!(text, "{}", case.expected).unwrap();
    }
    text
}

/// Words as a shell would take them: blanks separate, `'...'` keeps them, and
/// `\xHH` is a byte.
fn arguments(command: &str) -> Vec<OsString> {
    let (mut words, mut word, mut quoted, mut open) = (Vec::new(), Vec::new(), false, false);
    let bytes = unescape(command);
    for byte in bytes {
        match byte {
            b'\'' => {
                quoted = !quoted;
                open = true;
            }
            b' ' if !quoted => {
                if open {
                    words.push(OsString::from_vec(std::mem::take(&mut word)));
                }
                open = false;
            }
            byte => {
                word.push(byte);
                open = true;
            }
        }
    }
    if open {
        words.push(OsString::from_vec(word));
    }
    words
}

fn unescape(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let (mut found, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        if bytes[at..].starts_with(b"\\x") {
            found.push(u8::from_str_radix(&text[at + 2..at + 4], 16).unwrap());
            at += 4;
        } else {
            found.push(bytes[at]);
            at += 1;
        }
    }
    found
}

/// root 0, www-data 33 and shop 61000, and groups of the same names.
struct TestAccounts;

const KNOWN: &[(&str, u32)] = &[("root", 0), ("www-data", 33), ("shop", 61_000)];

fn uid(number: u32) -> Uid {
    Uid::from_raw(number).unwrap()
}

fn gid(number: u32) -> Gid {
    Gid::from_raw(number).unwrap()
}

impl Accounts for TestAccounts {
    fn user(&self, name: &str) -> io::Result<Option<(Uid, Gid)>> {
        let found = KNOWN.iter().find(|(known, _)| *known == name);
        Ok(found.map(|(_, number)| (uid(*number), gid(*number))))
    }

    fn user_of(&self, uid: Uid) -> io::Result<Option<(String, Gid)>> {
        let found = KNOWN.iter().find(|(_, number)| *number == uid.as_raw());
        Ok(found.map(|(name, number)| ((*name).to_owned(), gid(*number))))
    }

    fn group(&self, name: &str) -> io::Result<Option<Gid>> {
        Ok(self.user(name)?.map(|(_, gid)| gid))
    }

    fn groups_of(&self, _name: &str, primary: Gid) -> io::Result<Vec<Gid>> {
        Ok(vec![primary])
    }
}

/// What the program answers: exit code, messages and output.
fn answer(command: &str) -> String {
    // The file belongs to whoever runs the test, and is trusted for that.
    let surroundings = Surroundings {
        euid: uid(rustix::process::geteuid().as_raw()),
        egid: gid(rustix::process::getegid().as_raw()),
        runtime_dir: None,
        accounts: &TestAccounts,
    };
    let (program, command) = command.split_once(' ').unwrap_or((command, ""));
    let args = arguments(command).into_iter();
    if program == "secure_socketctl" {
        return match config::ctl::parse(args, &surroundings) {
            Ok(command) => format!("exit 0\n> {command:?}\n"),
            Err(found) => format!("exit {}\n{found}", found.exit_code()),
        };
    }
    match config::parse(args, &surroundings) {
        Ok(Command::Check(settings)) => {
            let mut text = format!("exit 0\n{}", settings.remarks);
            for line in config::effective(&settings).lines() {
                writeln!(text, "{}", format!("> {line}").trim_end()).unwrap();
            }
            text
        }
        Ok(Command::Help(Some(key))) => {
            let lines = config::help::option(key);
            let lines = lines.lines().map(|line| format!("> {line}"));
            lines.fold("exit 0\n".to_owned(), |text, line| {
                text + line.trim_end() + "\n"
            })
        }
        Ok(Command::Serve(settings)) => format!("exit 0\n{}", settings.remarks),
        Ok(Command::Explain(settings, facts)) => {
            let verdict = settings.peers.policy.explain(&facts);
            let lines = verdict.lines().map(|line| format!("> {line}\n"));
            lines.fold("exit 0\n".to_owned(), |text, line| text + &line)
        }
        Ok(_) => "exit 0\n".to_owned(),
        Err(found) => format!("exit {}\n{found}", found.exit_code()),
    }
}

/// A directory that is removed with its contents.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        let name = format!("secure_socket-config-{}", process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs a transcript and says how many of its commands were refused.
fn check(name: &str) -> usize {
    let transcript = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/config")
        .join(name);
    let mut cases = read(&std::fs::read_to_string(&transcript).unwrap());
    let mut wrong = String::new();
    for case in &mut cases {
        let _ = std::fs::remove_file(NAME);
        if let Some(file) = &case.file {
            std::fs::write(NAME, unescape(file)).unwrap();
            let mode = std::fs::Permissions::from_mode(0o644);
            std::fs::set_permissions(NAME, mode).unwrap();
        }
        let found = answer(&case.command);
        if found != case.expected {
            let expected = &case.expected;
            writeln!(
                wrong,
                "$ {}\nexpected:\n{expected}found:\n{found}",
                case.command
            )
            .unwrap();
            case.expected = found;
        }
    }
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&transcript, write(&cases)).unwrap();
    } else {
        assert!(wrong.is_empty(), "{name}: {wrong}");
    }
    cases
        .iter()
        .filter(|case| !case.expected.starts_with("exit 0"))
        .count()
}

// One test: the working directory belongs to the whole process.
#[test]
fn every_command_line_and_file_is_answered_with_these_words() {
    let directory = Directory::new();
    std::env::set_current_dir(&directory.0).unwrap();
    let refused = check("refusals.txt");
    assert!(refused >= 100, "only {refused} refusals");
    assert_eq!(check("accepted.txt"), 0);
    check("ctl.txt");
    let watched = Watched::new(&directory.0);
    let tried = the_programs_refuse_in_the_same_words(&directory.0, "refusals.txt", &watched);
    assert!(tried >= 80, "only {tried} with files to open as well");
    the_programs_refuse_in_the_same_words(&directory.0, "ctl.txt", &watched);
    watched.sees_a_start();
    untrusted_files_are_refused();
}

/// Places that a server opens files and sockets in, and what was done there.
struct Watched {
    directory: PathBuf,
    inotify: std::os::fd::OwnedFd,
}

impl Watched {
    const PLACES: [&str; 4] = ["run", "log", "trail", "metrics"];

    fn new(directory: &Path) -> Self {
        let inotify = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
        for place in Self::PLACES {
            let place = directory.join(place);
            std::fs::create_dir(&place).unwrap();
            inotify::add_watch(&inotify, &place, inotify::WatchFlags::ALL_EVENTS).unwrap();
        }
        let directory = directory.to_owned();
        Self { directory, inotify }
    }

    /// Options that have something opened or made in each of them.
    fn options(&self) -> Vec<OsString> {
        let at = self.directory.display();
        let options = [
            format!("socket_path={at}/run/socket"),
            format!("log_file={at}/log/file"),
            "log_target=stdout,file".to_owned(),
            format!("trail_file={at}/trail/file"),
            format!("metrics_socket={at}/metrics/socket"),
        ];
        options.map(OsString::from).into()
    }

    /// Which places something was done in since it was asked last.
    fn touched(&self) -> BTreeSet<String> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut touched = BTreeSet::new();
        loop {
            match reader.next() {
                // Watches are numbered from 1.
                Ok(event) => {
                    let number = usize::try_from(event.wd() - 1).unwrap();
                    touched.insert(Self::PLACES[number].to_owned());
                }
                Err(Errno::AGAIN) => return touched,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Without a mistake each place is used: else the others would show nothing.
    fn sees_a_start(&self) {
        self.touched();
        let mut command = process::Command::new(env!("CARGO_BIN_EXE_secure_socket"));
        command.args(self.options()).stdin(process::Stdio::null());
        let mut server = command.stdout(process::Stdio::null()).spawn().unwrap();
        let mut touched = BTreeSet::new();
        while touched.len() < Self::PLACES.len() {
            touched.append(&mut self.touched());
            std::thread::sleep(std::time::Duration::from_millis(5));
            assert_eq!(server.try_wait().unwrap(), None);
        }
        let pid = rustix::process::Pid::from_child(&server);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(server.wait().unwrap().success());
    }
}

/// Everything beneath the directory, and whether there is anything where the words say.
fn traces(directory: &Path, words: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![directory.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let stat = entry.metadata().unwrap();
            found.insert(format!(
                "{:?} {:o} {} {} {:?}",
                entry.path(),
                stat.mode(),
                stat.uid(),
                stat.ino(),
                stat.modified().unwrap()
            ));
            if stat.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    for word in words.split(|c: char| c.is_whitespace() || "=:,'|".contains(c)) {
        for place in Path::new(word)
            .ancestors()
            .filter(|path| path.is_absolute())
        {
            let inode = std::fs::symlink_metadata(place).map(|stat| stat.ino());
            found.insert(format!("{} {:?}", place.display(), inode.ok()));
        }
    }
    found
}

/// What was asked of the library above, asked of the programs: each refusal on
/// stderr, nothing on stdout, the exit code, and nothing opened or made, also where more
/// options say what. Says how many were tried with those.
fn the_programs_refuse_in_the_same_words(directory: &Path, name: &str, watched: &Watched) -> usize {
    let transcript = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/config")
        .join(name);
    let cases = read(&std::fs::read_to_string(transcript).unwrap());
    let mut tried = 0;
    for case in cases
        .iter()
        .filter(|case| !case.expected.starts_with("exit 0"))
    {
        let _ = std::fs::remove_file(NAME);
        if let Some(file) = &case.file {
            std::fs::write(NAME, unescape(file)).unwrap();
            let mode = std::fs::Permissions::from_mode(0o644);
            std::fs::set_permissions(NAME, mode).unwrap();
        }
        let (program, command) = case.command.split_once(' ').unwrap_or((&case.command, ""));
        let is_server = program == "secure_socket";
        let program = if is_server {
            env!("CARGO_BIN_EXE_secure_socket")
        } else {
            env!("CARGO_BIN_EXE_secure_socketctl")
        };
        let named = format!("{command} {}", case.file.as_deref().unwrap_or(""));
        let run = |more: Vec<OsString>| {
            let before = traces(directory, &named);
            watched.touched();
            let output = process::Command::new(program)
                .args(arguments(command))
                .args(more)
                .current_dir(directory)
                .stdin(process::Stdio::null())
                .output()
                .unwrap();
            assert_eq!(watched.touched(), BTreeSet::new(), "$ {}", case.command);
            assert_eq!(traces(directory, &named), before, "$ {}", case.command);
            output
        };
        let output = run(Vec::new());
        let code = output.status.code();
        let code = code.map_or("killed".to_owned(), |code| code.to_string());
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            format!("exit {code}\n{errors}"),
            case.expected,
            "$ {}",
            case.command
        );
        assert_eq!(output.stdout, b"", "$ {}", case.command);
        // One that lacked only what these options say would be a start.
        let more = watched.options();
        let asked = more.iter().fold(case.command.clone(), |text, option| {
            text + " " + option.to_str().unwrap()
        });
        if is_server && !answer(&asked).starts_with("exit 0\n") {
            let output = run(more);
            assert_ne!(output.status.code(), Some(0), "$ {asked}");
            tried += 1;
        }
    }
    tried
}

/// Whoever can write the file could choose who is admitted.
fn untrusted_files_are_refused() {
    let refuses = |expected: &str| {
        let found = answer(&format!("secure_socket config={NAME}"));
        assert!(found.starts_with("exit 78\n"), "{found}");
        assert!(found.contains(expected), "{found}");
    };
    let mode = |mode| {
        std::fs::set_permissions(NAME, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    std::fs::write(NAME, "port=1\n").unwrap();
    mode(0o620);
    refuses("is writable by its group or others, expected at most 0755, found 0620");
    mode(0o602);
    refuses("is writable by its group or others, expected at most 0755, found 0602");
    mode(0o600);
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(NAME, Some(4711), None).unwrap();
        refuses("parameters.conf belongs to uid 4711, expected root or uid 0");
    }
    let _ = std::fs::remove_file(NAME);
    let line = "# 456789 123456\n";
    std::fs::write(NAME, line.repeat((1 << 20) / line.len())).unwrap();
    assert_eq!(answer(&format!("secure_socket config={NAME}")), "exit 0\n");
    std::fs::write(NAME, line.repeat((1 << 20) / line.len()) + "#").unwrap();
    refuses("parameters.conf is larger than 1M");
    let _ = std::fs::remove_file(NAME);
    let fifo = rustix::fs::FileType::Fifo;
    let rights = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, NAME, fifo, rights, 0).unwrap();
    refuses("expected a regular file at parameters.conf, found a FIFO");
}
