//! Compresses rolled files and removes the oldest, in a thread of its own at
//! low priority, which sleeps until a file is rolled.
//!
//! Invariants: `NAME.gz` is whole: it is written to `.gz.tmp`, synced, renamed,
//! and only then is the original removed, so a crash at any point loses no line;
//! what a crash left is finished at the next start. Only names of exactly our
//! shape are touched, and only regular files.

use super::super::rotation_names::{Archive, Stage};
use super::directory::{Directory, is_ours, settle};
use super::file::FileSpec;
use crossbeam::channel::{Receiver, Sender, bounded};
use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::fs::{FlockOperation, OFlags, Stat, flock, fstat};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Lowest priority (setpriority(2)).
const NICE: i32 = 19;

/// Bytes read at once.
const CHUNK: usize = 256 * 1024;

/// Level 1 takes an eighth of level 6's time for a fifth more bytes.
const LEVEL: Compression = Compression::fast();

/// What the thread needs.
pub(in super::super) struct Compressor {
    directory: Arc<Directory>,
    keep: usize,
    keep_bytes: u64,
    compress: bool,
    mode: u32,
    wakes: Receiver<()>,
    stop: Arc<AtomicBool>,
    /// Says what belongs into the log.
    note: Box<dyn Fn(String) + Send>,
}

/// Wakes and stops the thread.
#[derive(Clone, Debug)]
pub(in super::super) struct Handle {
    wake: Sender<()>,
    stop: Arc<AtomicBool>,
}

impl Handle {
    /// There is a rolled file.
    pub(in super::super) fn wake(&self) {
        // Full means that a wake-up waits already.
        let _ = self.wake.try_send(());
    }

    /// The thread ends as soon as it can; an unfinished file is left for the
    /// next start.
    pub(in super::super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.wake();
    }
}

impl Compressor {
    pub(in super::super) fn new(
        spec: &FileSpec,
        directory: Arc<Directory>,
        note: Box<dyn Fn(String) + Send>,
    ) -> (Self, Handle) {
        let (wake, wakes) = bounded(1);
        let stop = Arc::new(AtomicBool::new(false));
        let handle = Handle {
            wake,
            stop: Arc::clone(&stop),
        };
        let compressor = Self {
            directory,
            keep: usize::try_from(spec.keep).unwrap_or(usize::MAX),
            keep_bytes: spec.keep_bytes.unwrap_or(u64::MAX),
            compress: spec.compress,
            mode: spec.mode,
            wakes,
            stop,
            note,
        };
        (compressor, handle)
    }

    /// Lets everybody else go first.
    pub(in super::super) fn lower_priority() {
        let thread = Some(rustix::thread::gettid());
        let _ = rustix::process::setpriority_process(thread, NICE);
    }

    /// Finishes what an earlier process left, then serves until told to stop.
    pub(in super::super) fn run(self) {
        self.report(self.remove_leftovers());
        loop {
            while !self.stopped() && self.report(self.sweep()) {}
            if self.stopped() || self.wakes.recv().is_err() {
                return;
            }
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Gives whether there may be more to do.
    fn report(&self, result: io::Result<bool>) -> bool {
        result.unwrap_or_else(|error| {
            let path = self.directory.file_path();
            (self.note)(format!("{}: rolled files: {error}", path.display()));
            false
        })
    }

    /// Finishes what needs no time: half archives go, and so do originals whose
    /// archive is whole, as it is under its own name.
    fn remove_leftovers(&self) -> io::Result<bool> {
        let base = &self.directory.base;
        let archives = self.directory.archives()?;
        for archive in &archives {
            let is_done = archive.stage == Stage::Plain
                && archives.contains(&archive.at_stage(Stage::Compressed))
                && self.is_our_file(&archive.at_stage(Stage::Compressed))?
                && self.is_our_file(archive)?;
            if archive.stage == Stage::Temporary || is_done {
                self.directory.remove(&archive.name(base))?;
            }
        }
        Ok(true)
    }

    fn is_our_file(&self, archive: &Archive) -> io::Result<bool> {
        Ok(self.is_ours(&self.directory.stat(&archive.name(&self.directory.base))?))
    }

    /// Removes what is too much, then compresses one file.
    fn sweep(&self) -> io::Result<bool> {
        let archives = self.archives()?;
        self.remove_oldest(&archives)?;
        if !self.compress {
            return Ok(false);
        }
        let kept = archives
            .iter()
            .map(|(archive, _)| archive)
            .skip(archives.len().saturating_sub(self.keep));
        for archive in kept.filter(|archive| archive.stage == Stage::Plain) {
            if self.compress(archive)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Rolled files of ours with their sizes, the oldest first. Those of others, which may
    /// lie in a sticky directory, have no part in what is too much.
    fn archives(&self) -> io::Result<Vec<(Archive, u64)>> {
        let mut found = Vec::new();
        for archive in self.directory.archives()? {
            match self.directory.stat(&archive.name(&self.directory.base)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Ok(stat) if archive.stage != Stage::Temporary && self.is_ours(&stat) => {
                    found.push((archive, u64::try_from(stat.st_size).unwrap_or(0)));
                }
                other => drop(other?),
            }
        }
        Ok(found)
    }

    /// Counts from the newest, and removes from where it is too much.
    fn remove_oldest(&self, archives: &[(Archive, u64)]) -> io::Result<()> {
        let mut bytes: u64 = 0;
        for (count, (archive, size)) in archives.iter().rev().enumerate() {
            bytes = bytes.saturating_add(*size);
            if count >= self.keep || bytes > self.keep_bytes {
                self.directory.remove(&archive.name(&self.directory.base))?;
            }
        }
        Ok(())
    }

    fn is_ours(&self, stat: &Stat) -> bool {
        is_ours(stat, self.directory.owner)
    }

    /// Compresses one file; gives whether that was possible now.
    fn compress(&self, archive: &Archive) -> io::Result<bool> {
        let base = &self.directory.base;
        let (original, temporary) = (
            archive.name(base),
            archive.at_stage(Stage::Temporary).name(base),
        );
        let source = match self.directory.open_file(&original, OFlags::RDONLY, 0) {
            // A link that somebody put there, or it is gone.
            Err(_) => return Ok(false),
            Ok(source) => source,
        };
        // The writer keeps a file locked until it has a new one.
        let locked = flock(&source, FlockOperation::NonBlockingLockExclusive).is_err();
        if locked || !self.is_ours(&fstat(&source)?) {
            return Ok(false);
        }
        let written = self.write_temporary(source, &temporary);
        if !matches!(written, Ok(true)) {
            let _ = self.directory.remove(&temporary);
            return written;
        }
        let compressed = archive.at_stage(Stage::Compressed).name(base);
        match self.directory.rename(&temporary, &compressed) {
            // Removed by its first step a crash ago: the archive is whole.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.directory.remove(&compressed)?;
                self.directory.rename(&temporary, &compressed)?;
            }
            other => other?,
        }
        self.directory.sync()?;
        self.directory.remove(&original)?;
        Ok(true)
    }

    /// Gives whether it got to the end.
    fn write_temporary(&self, source: OwnedFd, name: &OsStr) -> io::Result<bool> {
        let _ = self.directory.remove(name);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let target = self.directory.open_file(name, flags, self.mode)?;
        settle(&target, self.mode, self.directory.owner)?;
        let mut source = File::from(source);
        let mut encoder = GzEncoder::new(Blocks::new(File::from(target)), LEVEL);
        let mut chunk = vec![0; CHUNK];
        loop {
            if self.stopped() {
                return Ok(false);
            }
            match source.read(&mut chunk)? {
                0 => break,
                bytes => encoder.write_all(chunk.get(..bytes).unwrap_or_default())?,
            }
        }
        let target = encoder.finish()?.finish()?;
        target.sync_all()?;
        Ok(true)
    }
}

/// Gathers the encoder's output into writes of a useful size.
struct Blocks {
    file: File,
    buffer: Vec<u8>,
}

impl Blocks {
    fn new(file: File) -> Self {
        Self {
            file,
            buffer: Vec::with_capacity(2 * CHUNK),
        }
    }

    fn finish(mut self) -> io::Result<File> {
        self.file.write_all(&self.buffer)?;
        Ok(self.file)
    }
}

impl Write for Blocks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() >= CHUNK {
            self.file.write_all(&self.buffer)?;
            self.buffer.clear();
        }
        self.buffer.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
