//! What the tests of the logger share: a directory that goes away, lines put
//! into a logger that is not the program's, and all lines of a file and its
//! archives.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use secure_socket::logging::{Guard, Logger};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("secure_socket-{name}-{}-{count}", std::process::id());
        let path = fs::canonicalize(std::env::temp_dir()).unwrap().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Mounts a file system of 1 MiB; `None` where that isn't allowed.
pub(crate) struct Tmpfs(pub(crate) TempDir);

impl Tmpfs {
    pub(crate) fn mount() -> Option<Self> {
        let directory = TempDir::new("full");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs"])
            .arg(directory.path())
            .status();
        mounted
            .is_ok_and(|status| status.success())
            .then_some(Self(directory))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

pub(crate) fn start(logger: &Logger) -> Guard {
    logger.start_writer(Arc::new(|_| Ok(()))).unwrap()
}

/// Puts lines into a logger that is not installed.
pub(crate) struct Front(Box<dyn log::Log>);

impl Front {
    pub(crate) fn of(logger: &Logger) -> Self {
        Self(logger.as_log())
    }

    pub(crate) fn say(&self, level: log::Level, text: &str) {
        let arguments = format_args!("{text}");
        self.0.log(
            &log::Record::builder()
                .level(level)
                .target("test")
                .args(arguments)
                .build(),
        );
    }

    pub(crate) fn info(&self, text: &str) {
        self.say(log::Level::Info, text);
    }
}

/// The archives in the order of time, then the file.
pub(crate) fn files(path: &Path) -> Vec<PathBuf> {
    let base = path.file_name().unwrap().to_str().unwrap().to_owned() + ".";
    let mut files: Vec<PathBuf> = fs::read_dir(path.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|file| {
            file.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with(&base)
        })
        .collect();
    files.sort();
    files.push(path.to_owned());
    files
}

/// A file's text, unpacked. A compressed one must be whole.
pub(crate) fn text_of(file: &Path) -> String {
    let mut text = String::new();
    if file.extension().is_some_and(|extension| extension == "gz") {
        let mut decoder = flate2::read::MultiGzDecoder::new(fs::File::open(file).unwrap());
        decoder
            .read_to_string(&mut text)
            .unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    } else {
        text = fs::read_to_string(file).unwrap();
    }
    text
}

/// All lines, the oldest first.
pub(crate) fn all_lines(path: &Path) -> Vec<String> {
    let texts = files(path).into_iter().map(|file| text_of(&file));
    texts
        .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

/// The message of a text line that was logged without a place.
pub(crate) fn message(line: &str) -> &str {
    line.splitn(3, ' ').nth(2).unwrap_or_default().trim_start()
}

/// Whether figures are taken at full scale: `SECURE_SOCKET_LONG=1`.
pub(crate) fn long() -> bool {
    std::env::var_os("SECURE_SOCKET_LONG").is_some()
}
