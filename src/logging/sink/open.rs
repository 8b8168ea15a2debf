//! Opens a log file: checks that it is one that may be written, locks it, and
//! mends what a crash left at its end.
//!
//! Invariants: no link is followed and nothing is waited for; a file of
//! somebody else, with a second name, or locked by another process is refused.

use super::super::rotation_names::Stage;
use super::super::{LoggingError, line};
use super::directory::{Directory, may_own, settle};
use rustix::fs::{self, FileType, FlockOperation, OFlags, Stat};
use rustix::io::Errno;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Bytes at the end of a file in which the start of a torn line is looked for.
const TORN_TAIL: u64 = 512 * 1024;

/// One opened file.
pub(super) struct Open {
    pub(super) descriptor: OwnedFd,
    pub(super) size: u64,
    pub(super) inode: (u64, u64),
    pub(super) born_micros: u64,
}

impl Open {
    /// How old the file is. A clock that was set back behind its birth makes it new: it
    /// gets too old at most one span later than it would have, and not when the clock has
    /// caught up.
    pub(super) fn age(&mut self, now_micros: u64) -> Duration {
        self.born_micros = self.born_micros.min(now_micros);
        Duration::from_micros(now_micros.saturating_sub(self.born_micros))
    }
}

pub(super) fn inode(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

/// Why a file can't be a log file.
pub(super) enum Refused {
    Io(io::Error),
    Other(String),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Errno> for Refused {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

impl From<Refused> for io::Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Io(error) => error,
            Refused::Other(why) => Self::other(why),
        }
    }
}

pub(super) fn cannot_open(directory: &Directory, refused: Refused) -> LoggingError {
    let path = directory.file_path();
    match refused {
        Refused::Io(error) => {
            let why = match error.raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::LOOP) => "it is a symbolic link, expected a regular file".into(),
                Some(Errno::NXIO | Errno::ISDIR) => "expected a regular file".into(),
                _ => "it can't be opened".into(),
            };
            LoggingError::File {
                path,
                why,
                source: Some(error),
            }
        }
        Refused::Other(why) => LoggingError::File {
            path,
            why,
            source: None,
        },
    }
}

/// Opens, checks and locks the log file. Gives what is to be said of a line
/// that a crash tore, and that was taken out.
pub(super) fn open_file(
    directory: &Directory,
    mode: u32,
    new: bool,
) -> Result<(Open, Option<String>), Refused> {
    let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE;
    let flags = if new { flags | OFlags::EXCL } else { flags };
    let descriptor = directory.open_file(&directory.base, flags, mode)?;
    let stat = fs::fstat(&descriptor)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Refused::Other("expected a regular file".into()));
    }
    if !may_own(stat.st_uid, directory.owner) {
        let why = format!(
            "it is owned by uid {}, expected root or the server's user",
            stat.st_uid
        );
        return Err(Refused::Other(why));
    }
    if stat.st_nlink > 1 {
        let why = format!("it has {} names, expected one", stat.st_nlink);
        return Err(Refused::Other(why));
    }
    lock(&descriptor)?;
    settle(&descriptor, mode, directory.owner)?;
    let (size, notice) = mend_tail(&descriptor)?;
    let born_micros = if size == 0 {
        line::now_micros()
    } else {
        born(&descriptor, &stat)
    };
    Ok((
        Open {
            descriptor,
            size,
            inode: inode(&stat),
            born_micros,
        },
        notice,
    ))
}

fn lock(descriptor: &OwnedFd) -> Result<(), Refused> {
    match fs::flock(descriptor, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => Err(Refused::Other("another process logs to it".into())),
        other => Ok(other?),
    }
}

/// When the file was created, or last changed where that isn't known.
fn born(descriptor: &OwnedFd, stat: &Stat) -> u64 {
    let created = fs::statx(
        descriptor,
        "",
        fs::AtFlags::EMPTY_PATH,
        fs::StatxFlags::BTIME,
    );
    let created = created
        .ok()
        .filter(|statx| statx.stx_mask & fs::StatxFlags::BTIME.bits() != 0);
    let seconds = created.map_or(stat.st_mtime, |statx| statx.stx_btime.tv_sec);
    u64::try_from(seconds)
        .unwrap_or(0)
        .saturating_mul(1_000_000)
}

/// Cuts off a last line that has no end: a crash tore it. Gives the file's size.
fn mend_tail(descriptor: &OwnedFd) -> Result<(u64, Option<String>), Refused> {
    let size = u64::try_from(fs::fstat(descriptor)?.st_size).unwrap_or(0);
    let from = size.saturating_sub(TORN_TAIL);
    let mut tail = vec![0; usize::try_from(size - from).unwrap_or(0)];
    let mut read = 0;
    while let Some(rest) = tail.get_mut(read..).filter(|rest| !rest.is_empty()) {
        let at = from + u64::try_from(read).unwrap_or(0);
        match rustix::io::pread(descriptor, rest, at)? {
            0 => break,
            bytes => read += bytes,
        }
    }
    tail.truncate(read);
    if tail.last().is_none_or(|byte| *byte == b'\n') {
        return Ok((size, None));
    }
    let start = tail
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    if start == 0 && from > 0 {
        // No line of ours is as long: end it instead.
        rustix::io::write(descriptor, b"\n")?;
        return Ok((size + 1, None));
    }
    let whole = from + u64::try_from(start).unwrap_or(0);
    fs::ftruncate(descriptor, whole)?;
    let torn = tail.get(start..).unwrap_or_default();
    let shown = crate::logging::escape::Untrusted(torn.get(..1024).unwrap_or(torn));
    Ok((
        whole,
        Some(format!(
            "a crash tore the last line of the log file, it began: {shown}"
        )),
    ))
}

/// Refuses the directory while another process is in the middle of a roll: its
/// old file has no name of its own, but is locked still.
pub(super) fn refuse_if_rolling(directory: &Directory) -> Result<(), LoggingError> {
    let archives = directory
        .archives()
        .map_err(|error| cannot_open(directory, error.into()))?;
    for archive in archives
        .iter()
        .rev()
        .filter(|archive| archive.stage == Stage::Plain)
        .take(2)
    {
        let name = archive.name(&directory.base);
        let opened = directory.open_file(&name, OFlags::RDONLY, 0);
        let locked = opened.is_ok_and(|descriptor| {
            fs::flock(&descriptor, FlockOperation::NonBlockingLockExclusive)
                == Err(Errno::WOULDBLOCK)
        });
        if locked {
            return Err(cannot_open(
                directory,
                Refused::Other("another process logs to it".into()),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_back_makes_a_file_new_and_not_for_ever() {
        let mut open = Open {
            descriptor: std::fs::File::open("/dev/null").unwrap().into(),
            size: 1,
            inode: (0, 0),
            born_micros: 1_000_000,
        };
        let mut check = |now, expect| assert_eq!(open.age(now), Duration::from_micros(expect));
        check(1_000_007, 7);
        check(10, 0);
        check(15, 5);
        check(1_000_007, 999_997);
    }
}
