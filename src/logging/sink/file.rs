//! A log file that is rolled by size and by age, at the end of a line.
//!
//! Invariants: a line is never split over two files; what could not be written
//! is kept and continued at the byte where it stopped; the old file stays open
//! until the new one is, so a failed roll loses nothing; whoever renames or
//! removes the file is followed within a second of the next line, or at
//! `reopen`.
//!
//! Not here: compression and retention, see `compress`.

use super::super::lines::Lines;
use super::super::rotation_names::Archive;
use super::super::{LoggingError, line};
use super::directory::{Directory, Owner};
use super::open::{Open, cannot_open, inode, open_file, refuse_if_rolling};
use super::{Backlog, Backoff, Sink, complain};
use rustix::fs;
use rustix::io::Errno;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the file's name is looked at while lines come.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(1);

/// A log file: where, how large, how long, how many.
#[derive(Clone, Debug)]
pub struct FileSpec {
    /// The file. Its directory is created, 0700, if it is missing.
    pub path: PathBuf,
    /// Bytes at which the file is rolled; 0 for never.
    pub max_size: u64,
    /// Age at which the file is rolled, at its next line.
    pub max_age: Option<Duration>,
    /// How many rolled files are kept.
    pub keep: u32,
    /// How many bytes the rolled files may have together.
    pub keep_bytes: Option<u64>,
    /// Whether each batch of lines is synced to the disk (fdatasync(2)).
    pub sync: bool,
    /// Whether rolled files are compressed.
    pub compress: bool,
    /// Mode of the file and of rolled ones.
    pub mode: u32,
    /// Who owns the files; the process's own user if nobody is named.
    pub owner: Owner,
}

impl FileSpec {
    /// A file that is rolled at 10 MiB, of which 7 are kept, 0600.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            max_size: 10 << 20,
            max_age: None,
            keep: 7,
            keep_bytes: None,
            sync: false,
            compress: true,
            mode: 0o600,
            owner: None,
        }
    }
}

/// An open log file.
pub(in super::super) struct File {
    spec: FileSpec,
    directory: Arc<Directory>,
    open: Open,
    /// The newest rolled file of ours: what is rolled now comes behind it, wherever the
    /// clock is.
    newest: Option<Archive>,
    /// As in the specification, or less where the system allows less.
    max_size: u64,
    backlog: Backlog,
    backoff: Backoff,
    roll_backoff: Backoff,
    followed: Instant,
    /// What is to be said in the log.
    notices: Vec<String>,
    /// Why the last roll failed, if it did.
    roll_failure: String,
    /// Lines lost since the last success, for the complaint.
    lost: u64,
    /// Tells the compressor that there is a rolled file.
    rolled: Box<dyn Fn() + Send>,
}

impl File {
    /// Opens the file. `rolled` is called after each roll.
    pub(in super::super) fn open(
        spec: FileSpec,
        directory: Arc<Directory>,
        rolled: Box<dyn Fn() + Send>,
    ) -> Result<Self, LoggingError> {
        let (open, notice) = open_file(&directory, spec.mode, false)
            .map_err(|error| cannot_open(&directory, error))?;
        refuse_if_rolling(&directory)?;
        let mut notices: Vec<String> = notice.into_iter().collect();
        notices.extend(directory.remarks());
        // Once: later files are our own, and the writer lists no directory.
        let newest = directory
            .newest()
            .map_err(|error| cannot_open(&directory, error.into()))?;
        let max_size = if spec.max_size == 0 {
            u64::MAX
        } else {
            spec.max_size
        };
        let mut file = Self {
            spec,
            directory,
            open,
            newest,
            max_size,
            backlog: Backlog::default(),
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(1)),
            roll_backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(10)),
            followed: Instant::now(),
            notices,
            roll_failure: String::new(),
            lost: 0,
            rolled,
        };
        if file.open.size >= file.max_size || file.is_too_old() {
            file.roll(Instant::now());
        }
        Ok(file)
    }

    /// Writes the lines from `next` on, beginning at byte `sent`. Gives how far
    /// it came.
    fn put(
        &mut self,
        lines: &Lines,
        mut sent: usize,
        mut next: usize,
        now: Instant,
    ) -> (usize, usize) {
        while let Some(mark) = lines.marks.get(next) {
            let start = lines.start(next);
            if sent == start && self.must_roll(mark.end - start) && self.roll_backoff.is_over(now) {
                self.roll(now);
            }
            let room = usize::try_from(self.max_size.saturating_sub(self.open.size));
            let limit = sent.saturating_add(room.unwrap_or(usize::MAX));
            let rest = lines.marks.get(next..).unwrap_or_default();
            let fitting = rest.partition_point(|mark| mark.end <= limit);
            let end = rest
                .get(fitting.saturating_sub(1))
                .map_or(mark.end, |mark| mark.end);
            match rustix::io::write(
                &self.open.descriptor,
                lines.bytes.get(sent..end).unwrap_or_default(),
            ) {
                Ok(written) => {
                    sent += written;
                    self.open.size += u64::try_from(written).unwrap_or(0);
                    let ended = rest.partition_point(|mark| mark.end <= sent);
                    next += ended;
                    self.backlog.count_written(ended);
                    if ended > 0 {
                        // A part may be taken back, and the next try end there as well.
                        self.backoff.succeeded();
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::FBIG) if self.shrink(sent - start) => {
                    // The line goes elsewhere, whole, or is tried again, whole.
                    sent = start;
                    let whole = self.open.size;
                    if self.roll_backoff.is_over(now) {
                        self.roll(now);
                    }
                    if self.open.size >= whole {
                        self.failed(Errno::FBIG, now);
                        break;
                    }
                }
                Err(errno) => {
                    self.failed(errno, now);
                    break;
                }
            }
        }
        (sent, next)
    }

    /// The system allows no larger file (RLIMIT_FSIZE): takes back what was
    /// written of the line, and remembers the bound. Not where it has no room for
    /// one line.
    fn shrink(&mut self, torn: usize) -> bool {
        let whole = self
            .open
            .size
            .saturating_sub(u64::try_from(torn).unwrap_or(0));
        if whole == 0 || fs::ftruncate(&self.open.descriptor, whole).is_err() {
            return false;
        }
        self.open.size = whole;
        self.max_size = whole;
        true
    }

    fn must_roll(&mut self, line: usize) -> bool {
        let after = self
            .open
            .size
            .saturating_add(u64::try_from(line).unwrap_or(u64::MAX));
        self.open.size > 0 && (after > self.max_size || self.is_too_old())
    }

    fn is_too_old(&mut self) -> bool {
        let Some(max_age) = self.spec.max_age else {
            return false;
        };
        self.open.age(line::now_micros()) >= max_age && self.open.size > 0
    }

    fn failed(&mut self, errno: Errno, now: Instant) {
        let error = io::Error::from(errno);
        self.backoff.failed(now);
        let lost = self.lost;
        complain(&format!(
            "{}: {error}; lost {lost} lines",
            self.directory.file_path().display()
        ));
        self.backlog.set_cause(error);
    }

    /// Renames the file and opens a new one. Whatever fails, there is an open
    /// file afterwards.
    fn roll(&mut self, now: Instant) {
        match self.try_roll() {
            Ok(()) => {
                self.roll_backoff.succeeded();
                self.roll_failure.clear();
                (self.rolled)();
            }
            Err(error) => {
                self.roll_backoff.failed(now);
                let path = self.directory.file_path();
                complain(&format!("{}: roll: {error}", path.display()));
                let cause = error.to_string();
                // Once for each cause: it is tried again and again.
                if cause != self.roll_failure {
                    self.notices.push(format!(
                        "log file {} can't be rolled, and grows: {cause}",
                        path.display()
                    ));
                    self.roll_failure = cause;
                }
            }
        }
    }

    fn try_roll(&mut self) -> io::Result<()> {
        if self.was_moved() {
            return self.open_again();
        }
        if self.spec.sync {
            fs::fdatasync(&self.open.descriptor)?;
        }
        let base = self.directory.base.clone();
        let now = Archive::at(line::now_micros());
        let mut archive = match &self.newest {
            Some(newest) if newest >= &now => behind(newest)?,
            _ => now,
        };
        while let Err(error) = self.directory.rename(&base, &archive.name(&base)) {
            if error.kind() != io::ErrorKind::AlreadyExists {
                return Err(error);
            }
            // A link or a file that somebody put there.
            archive = behind(&archive)?;
        }
        match open_file(&self.directory, self.spec.mode, true) {
            Ok((open, _)) => self.open = open,
            Err(error) => {
                // Lines go on into the old file, so it gets its name back.
                let _ = self.directory.rename(&archive.name(&base), &base);
                return Err(error.into());
            }
        }
        self.newest = Some(archive);
        if self.spec.sync {
            self.directory.sync()
        } else {
            Ok(())
        }
    }

    /// Whether the name stands for another file now, or for none.
    fn was_moved(&self) -> bool {
        let stat = self.directory.stat(&self.directory.base);
        !stat.is_ok_and(|stat| inode(&stat) == self.open.inode)
    }

    fn open_again(&mut self) -> io::Result<()> {
        let (open, notice) = open_file(&self.directory, self.spec.mode, false)?;
        self.open = open;
        self.notices.extend(notice);
        Ok(())
    }

    /// Follows a file that was renamed, removed or truncated by others.
    fn follow(&mut self, now: Instant) {
        self.followed = now;
        if self.was_moved() {
            self.take_back_torn();
            if let Err(error) = self.open_again() {
                complain(&format!(
                    "{}: {error}",
                    self.directory.file_path().display()
                ));
            }
        } else if let Ok(stat) = fs::fstat(&self.open.descriptor) {
            self.open.size = u64::try_from(stat.st_size).unwrap_or(0);
        }
    }

    /// A line that is partly in a file which was moved goes to the new one,
    /// whole.
    fn take_back_torn(&mut self) {
        let torn = u64::try_from(self.backlog.torn()).unwrap_or(0);
        let size = fs::fstat(&self.open.descriptor).map(|stat| stat.st_size);
        let size = size
            .ok()
            .and_then(|size| u64::try_from(size).ok())
            .unwrap_or(0);
        if torn > 0 && fs::ftruncate(&self.open.descriptor, size.saturating_sub(torn)).is_ok() {
            self.backlog.rewind_line();
        }
    }

    fn follow_sometimes(&mut self, now: Instant) {
        if now.duration_since(self.followed) >= FOLLOW_INTERVAL {
            self.follow(now);
        }
    }

    fn after_batch(&mut self, now: Instant) {
        if self.spec.sync
            && let Err(errno) = fs::fdatasync(&self.open.descriptor)
        {
            self.failed(errno, now);
        }
    }
}

/// The next name. Behind the last that there is a roll fails, and the file grows: a
/// name before it would be the first to be removed.
fn behind(archive: &Archive) -> io::Result<Archive> {
    archive
        .next()
        .ok_or_else(|| io::Error::other("no name is left behind the newest rolled file"))
}

impl Sink for File {
    fn write(&mut self, lines: &Lines, now: Instant) {
        if !self.backlog.is_empty() {
            self.backlog.take(lines);
            return self.retry(now);
        }
        self.follow_sometimes(now);
        let (sent, next) = self.put(lines, 0, 0, now);
        if next < lines.marks.len() {
            self.backlog.adopt(lines, sent, next);
        }
        self.after_batch(now);
    }

    fn retry(&mut self, now: Instant) {
        if self.backlog.is_empty() || !self.backoff.is_over(now) {
            return;
        }
        self.follow_sometimes(now);
        self.lost = self.backlog.loss().lines();
        let mut backlog = std::mem::take(&mut self.backlog);
        let (lines, sent, next) = backlog.parts();
        let (after, _) = self.put(lines, sent, next, now);
        // `put` counted what it wrote, and why it stopped, in an empty backlog.
        backlog.moved_to(after, std::mem::take(&mut self.backlog));
        self.backlog = backlog;
        self.after_batch(now);
    }

    fn backlog(&mut self) -> &mut Backlog {
        &mut self.backlog
    }

    fn retry_at(&self) -> Option<Instant> {
        if self.backlog.is_empty() {
            None
        } else {
            self.backoff.until()
        }
    }

    fn reopen(&mut self, now: Instant) {
        self.follow(now);
    }

    fn take_notice(&mut self) -> Option<String> {
        (!self.notices.is_empty()).then(|| self.notices.remove(0))
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::lines::Mark;
    use super::*;
    use std::os::unix::fs::DirBuilderExt;

    /// The most that a file here may have.
    fn largest(file: &File) -> u64 {
        let (mut fits, mut too_large) = (0, 1 << 63);
        while too_large - fits > 1 {
            let middle = fits + (too_large - fits) / 2;
            match fs::ftruncate(&file.open.descriptor, middle) {
                Ok(()) => fits = middle,
                Err(_) => too_large = middle,
            }
        }
        fits
    }

    #[test]
    fn a_file_that_takes_parts_of_lines_only_is_tried_less_and_less() {
        let name = format!("secure_socket-parts-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .unwrap();
        let directory = Directory::open(&path.join("log"), None).unwrap();
        let mut spec = FileSpec::new(path.join("log"));
        spec.max_size = 0;
        let mut file = File::open(spec, Arc::new(directory), Box::new(|| ())).unwrap();
        // So that no roll succeeds.
        let last = "log.99999999-999999.999999";
        file.newest = Archive::parse("log".as_ref(), last.as_ref());
        assert!(behind(file.newest.as_ref().unwrap()).is_err());
        file.open.size = largest(&file) - 10;
        let size = file.open.size;
        fs::ftruncate(&file.open.descriptor, size).unwrap();
        let mut lines = Lines::default();
        let mark = Mark {
            end: 0,
            severity: super::super::Severity::Info,
            micros: 1,
        };
        lines.push(&[b'x'; 100], &mark);
        let mut now = Instant::now();
        file.write(&lines, now);
        for _ in 0..20 {
            now += Duration::from_secs(2);
            file.retry(now);
            assert_eq!((file.backlog.len(), file.backlog.torn()), (1, 0));
        }
        std::fs::remove_dir_all(path).unwrap();
        assert_eq!(file.open.size, size);
        assert!(file.backoff.failures > 10, "{:?}", file.backoff);
    }
}
