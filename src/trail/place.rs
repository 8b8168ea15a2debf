//! The directory and the files of a trail: opened without following links,
//! examined before they are trusted, locked.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self, FlockOperation, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::chain::{self, Head, MAX_LINE};
use super::error::TrailError;
use super::time;
use crate::ids::{Gid, Uid};
use crate::sys::rename;
use crate::text;

/// Owner may read and write, nobody else anything.
const PRIVATE: Mode = Mode::from_raw_mode(0o600);

/// Where a trail lies, and whose it is.
#[derive(Debug)]
pub(super) struct Place {
    directory: OwnedFd,
    path: PathBuf,
    name: String,
    owner: Option<(Uid, Gid)>,
    _lock: OwnedFd,
}

/// What was found in the file.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) lines: Lines,
    /// Where a torn last line went, and its length in bytes.
    pub(super) torn: Option<(PathBuf, u64)>,
}

/// A file, as far as it has whole lines.
#[derive(Debug)]
pub(super) struct Lines {
    pub(super) file: File,
    path: PathBuf,
    /// Bytes in whole lines.
    pub(super) length: u64,
    size: u64,
}

impl Place {
    /// Opens the directory and takes the lock.
    pub(super) fn open(path: &Path, owner: Option<(Uid, Gid)>) -> Result<Self, TrailError> {
        let unfit = |found: &str| TrailError::Unfit {
            path: path.into(),
            found: found.into(),
        };
        let parent = path.parent().filter(|_| path.is_absolute());
        let parent = parent.ok_or_else(|| unfit("expected an absolute path of a file"))?;
        let name = path.file_name().and_then(OsStr::to_str);
        let name = name
            .ok_or_else(|| unfit("expected a file name in UTF-8"))?
            .to_owned();
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let directory =
            fs::openat2(fs::CWD, parent, flags, Mode::empty(), resolve).map_err(|error| {
                TrailError::file(
                    "open the directory (without following links)",
                    parent,
                    error,
                )
            })?;
        check_directory(&directory, parent, owner)?;
        let lock_name = format!("{name}.lock");
        let lock_path = parent.join(&lock_name);
        let lock = open_private(&directory, &lock_path, &lock_name, owner)?;
        fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(
            |error| match error {
                Errno::WOULDBLOCK => TrailError::Locked {
                    path: lock_path.clone(),
                },
                error => TrailError::file("lock", &lock_path, error),
            },
        )?;
        Ok(Self {
            directory,
            path: path.into(),
            name,
            owner,
            _lock: lock,
        })
    }

    /// Opens the file, makes it if it is missing, and sets a torn last line aside.
    pub(super) fn open_file(&self) -> Result<Found, TrailError> {
        let file = open_private(&self.directory, &self.path, &self.name, self.owner)?;
        let mut lines = Lines::of(File::from(file), self.path.clone())?;
        let torn = self.set_torn_aside(&mut lines)?;
        Ok(Found { lines, torn })
    }

    /// The head that the next line continues from: that of the file or, if there
    /// is no line in it yet, of the newest file before it. A crash of the machine
    /// may have torn that one as well.
    pub(super) fn head(&self, found: &mut Found) -> Result<Head, TrailError> {
        if found.lines.length > 0 {
            return found.lines.head();
        }
        let mut newest: Option<(Head, Lines)> = None;
        for name in self
            .before()
            .map_err(|error| TrailError::file("list", &self.path, error))?
        {
            // Only read: it may be write-protected by now, or have a second name in a backup.
            let (file, path) = self.open_before(&name, OFlags::RDONLY)?;
            let lines = Lines::of(File::from(file), path)?;
            let head = match lines.length {
                0 => Head::START,
                _ => lines.head()?,
            };
            let is_newer = |(newest, _): &(Head, Lines)| head.sequence >= newest.sequence;
            if newest.as_ref().is_none_or(is_newer) {
                newest = Some((head, lines));
            }
        }
        let Some((head, mut lines)) = newest else {
            return Ok(Head::START);
        };
        if lines.is_torn() {
            let name = lines.name().unwrap_or_default().to_owned();
            let (file, path) = self.open_before(&name, OFlags::RDWR)?;
            check_file(&file, &path, self.owner)?;
            lines = Lines::of(File::from(file), path)?;
            found.torn = self.set_torn_aside(&mut lines)?.or(found.torn.take());
        }
        Ok(head)
    }

    fn open_before(&self, name: &str, access: OFlags) -> Result<(OwnedFd, PathBuf), TrailError> {
        let path = self.path.with_file_name(name);
        let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = fs::openat(&self.directory, name, flags, Mode::empty())
            .map_err(|error| TrailError::file("open", &path, error))?;
        Ok((file, path))
    }

    /// Gives the file its final name, behind all that were rolled before, wherever the clock
    /// is, and begins a new one. Returns that and the name.
    pub(super) fn roll(&self) -> Result<(File, String), TrailError> {
        let newest = match self.rolled() {
            Ok(mut names) => names.pop(),
            // A directory that may be written and not read: nothing is removed there.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => None,
            Err(error) => return Err(TrailError::file("list", &self.path, error)),
        };
        let now = format!("{}.{}", self.name, time::now().for_name());
        let mut name = match newest {
            Some(newest) if newest >= now => self.name_behind(&newest)?,
            _ => now,
        };
        while let Err(error) = self.rename(&self.name, &name) {
            if error != Errno::EXIST {
                return Err(TrailError::file("rename", &self.path, error));
            }
            name = self.name_behind(&name)?;
        }
        let flags = create_flags() | OFlags::EXCL;
        let file = fs::openat(&self.directory, &self.name, flags, PRIVATE).map_err(|error| {
            // Under its old name it goes on as if nothing had been tried.
            let _ = self.rename(&name, &self.name);
            TrailError::file("create", &self.path, error)
        })?;
        let file = File::from(file);
        let _ = fs::fchmod(&file, PRIVATE);
        let _ = fs::fsync(&self.directory);
        Ok((file, name))
    }

    /// Puts the names of files on the disk, where the file system has a way to.
    pub(super) fn sync_directory(&self) -> io::Result<()> {
        match fs::fsync(&self.directory) {
            Err(Errno::INVAL) => Ok(()),
            done => Ok(done?),
        }
    }

    /// Removes the oldest files beyond `keep`. Returns how many, and the newest of them.
    pub(super) fn forget_beyond(&self, keep: usize) -> io::Result<Option<(usize, String)>> {
        let mut names = self.rolled()?;
        names.truncate(names.len().saturating_sub(keep));
        for name in &names {
            fs::unlinkat(&self.directory, name, fs::AtFlags::empty())?;
        }
        let count = names.len();
        Ok(names.pop().map(|newest| (count, newest)))
    }

    /// Whether the owner could rename files here, as far as the mode tells.
    pub(super) fn can_roll(&self) -> bool {
        let Some((uid, gid)) = self.owner else {
            return true;
        };
        let Ok(stat) = fs::fstat(&self.directory) else {
            return false;
        };
        uid == Uid::ROOT
            || (stat.st_uid == uid.as_raw() && stat.st_mode & 0o300 == 0o300)
            || (stat.st_gid == gid.as_raw() && stat.st_mode & 0o030 == 0o030)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The next name. Behind the last that there is the trail goes on in its file: a name
    /// before it would be the first to be removed.
    fn name_behind(&self, name: &str) -> Result<String, TrailError> {
        let next = self.stamp_of(name).and_then(text::counted_up);
        let next = next.map(|stamp| format!("{}.{stamp}", self.name));
        next.ok_or_else(|| TrailError::file("find a free name for", &self.path, Errno::EXIST))
    }

    fn rename(&self, from: &str, to: &str) -> rustix::io::Result<()> {
        rename::to_free_name(self.directory.as_fd(), from.as_ref(), to.as_ref())
    }

    /// Where it went, and how many bytes, if there was one.
    fn set_torn_aside(&self, lines: &mut Lines) -> Result<Option<(PathBuf, u64)>, TrailError> {
        let bytes = lines.size.saturating_sub(lines.length);
        if bytes == 0 {
            return Ok(None);
        }
        let whose = lines.name().unwrap_or(&self.name);
        let name = format!("{whose}.torn-{}", time::now().for_name());
        let path = self.path.with_file_name(&name);
        self.set_aside(lines, &name)
            .map_err(|error| TrailError::file("set the torn last line aside in", &path, error))?;
        lines.size = lines.length;
        Ok(Some((path, bytes)))
    }

    fn set_aside(&self, lines: &Lines, name: &str) -> io::Result<()> {
        let flags = create_flags() | OFlags::EXCL;
        let aside = fs::openat(&self.directory, name, flags, PRIVATE)?;
        give_to(&aside, self.owner)?;
        let mut aside = File::from(aside);
        let mut whole = &lines.file;
        whole.seek(SeekFrom::Start(lines.length))?;
        let bytes = lines.size.saturating_sub(lines.length);
        io::copy(&mut whole.take(bytes), &mut aside)?;
        aside.sync_all()?;
        fs::fsync(&self.directory)?;
        lines.file.set_len(lines.length)
    }

    /// The names that rolling gave, and no others, in its order. Those of others, which may
    /// lie in a sticky directory, are none.
    fn rolled(&self) -> io::Result<Vec<String>> {
        self.named(|stat| self.is_ours(stat))
    }

    /// Those that the trail may go on from. Where only trusted users can have put them, they
    /// count whomever they belong to now, and whatever other names they have: left out, one
    /// would be forgotten, and the chain begin anew.
    fn before(&self) -> io::Result<Vec<String>> {
        let is_shared = fs::fstat(&self.directory)?.st_mode & 0o022 != 0;
        self.named(|stat| !is_shared || self.is_ours(stat))
    }

    fn named(&self, counts: impl Fn(&fs::Stat) -> bool) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::Dir::read_from(&self.directory)? {
            let entry = entry?;
            let Ok(name) = std::str::from_utf8(entry.file_name().to_bytes()) else {
                continue;
            };
            if !self.stamp_of(name).is_some_and(is_stamp) {
                continue;
            }
            let stat = match fs::statat(&self.directory, name, fs::AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                found => found?,
            };
            if fs::FileType::from_raw_mode(stat.st_mode).is_file() && counts(&stat) {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    fn stamp_of<'a>(&self, name: &'a str) -> Option<&'a str> {
        name.strip_prefix(&self.name)?.strip_prefix('.')
    }

    fn is_ours(&self, stat: &fs::Stat) -> bool {
        // A second name may have been given by another user.
        stat.st_nlink == 1 && is_trusted(stat.st_uid, self.owner)
    }
}

impl Lines {
    fn of(file: File, path: PathBuf) -> Result<Self, TrailError> {
        let fail = |what| {
            let path = &path;
            move |error: io::Error| TrailError::file(what, path, error)
        };
        let size = file.metadata().map_err(fail("examine"))?.len();
        let length = end_of_lines(&file, size).map_err(fail("read"))?;
        Ok(Self {
            file,
            path,
            length,
            size,
        })
    }

    fn is_torn(&self) -> bool {
        self.size > self.length
    }

    fn name(&self) -> Option<&str> {
        self.path.file_name().and_then(OsStr::to_str)
    }

    /// The last whole line, if there is one.
    fn head(&self) -> Result<Head, TrailError> {
        let line = last_line(&self.file, self.length)
            .map_err(|error| TrailError::file("read", &self.path, error))?;
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        let link = chain::read(line).map_err(|why| TrailError::NotATrail {
            path: self.path.clone(),
            why,
        })?;
        Ok(link.head)
    }
}

/// `YYYYMMDD-HHMMSS.uuuuuu`
fn is_stamp(text: &str) -> bool {
    text.len() == 22
        && text.bytes().enumerate().all(|(place, byte)| match place {
            8 => byte == b'-',
            15 => byte == b'.',
            _ => byte.is_ascii_digit(),
        })
}

fn create_flags() -> OFlags {
    // Append, so that nothing is ever written over; non-blocking, as a FIFO
    // would hold up the open.
    OFlags::RDWR
        | OFlags::APPEND
        | OFlags::CREATE
        | OFlags::NOFOLLOW
        | OFlags::NONBLOCK
        | OFlags::CLOEXEC
}

/// Opens a file or makes it. What lies there is examined before it is changed: a second
/// name may have been given to a file that is none of ours.
fn open_private(
    directory: &OwnedFd,
    path: &Path,
    name: &str,
    owner: Option<(Uid, Gid)>,
) -> Result<OwnedFd, TrailError> {
    let fail = |what| move |error: io::Error| TrailError::file(what, path, error);
    let file = fs::openat(directory, name, create_flags(), PRIVATE)
        .map_err(|error| fail("open")(error.into()))?;
    let stat = check_file(&file, path, owner)?;
    if stat.st_mode & 0o7777 != 0o600 {
        fs::fchmod(&file, PRIVATE).map_err(|error| fail("set the mode of")(error.into()))?;
    }
    if stat.st_uid == rustix::process::geteuid().as_raw() {
        give_to(&file, owner).map_err(fail("give away"))?;
    }
    Ok(file)
}

fn check_file(
    file: &OwnedFd,
    path: &Path,
    owner: Option<(Uid, Gid)>,
) -> Result<fs::Stat, TrailError> {
    let unfit = |found: String| TrailError::Unfit {
        path: path.into(),
        found,
    };
    let stat = fs::fstat(file).map_err(|error| TrailError::file("examine", path, error))?;
    if !fs::FileType::from_raw_mode(stat.st_mode).is_file() || stat.st_nlink != 1 {
        let links = stat.st_nlink;
        return Err(unfit(format!(
            "expected a regular file with one name, found {links} names or another kind"
        )));
    }
    if !is_trusted(stat.st_uid, owner) {
        return Err(unfit(format!(
            "it belongs to uid {}, expected the server's user",
            stat.st_uid
        )));
    }
    Ok(stat)
}

fn give_to(file: &OwnedFd, owner: Option<(Uid, Gid)>) -> io::Result<()> {
    let Some((uid, gid)) = owner else {
        return Ok(());
    };
    let uid = fs::Uid::from_raw(uid.as_raw());
    let gid = fs::Gid::from_raw(gid.as_raw());
    Ok(fs::fchown(file, Some(uid), Some(gid))?)
}

fn is_trusted(uid: u32, owner: Option<(Uid, Gid)>) -> bool {
    uid == 0
        || uid == rustix::process::geteuid().as_raw()
        || owner.is_some_and(|(owner, _)| owner.as_raw() == uid)
}

fn check_directory(
    directory: &OwnedFd,
    path: &Path,
    owner: Option<(Uid, Gid)>,
) -> Result<(), TrailError> {
    let stat = fs::fstat(directory).map_err(|error| TrailError::file("examine", path, error))?;
    let sticky = stat.st_mode & 0o1000 != 0;
    if !is_trusted(stat.st_uid, owner) || (stat.st_mode & 0o022 != 0 && !sticky) {
        let found = format!(
            "the directory belongs to uid {} with mode {:04o}; expected root or the server's user, and no write permission for others",
            stat.st_uid,
            stat.st_mode & 0o7777
        );
        return Err(TrailError::Unfit {
            path: path.into(),
            found,
        });
    }
    Ok(())
}

/// Where the last whole line ends.
fn end_of_lines(file: &File, size: u64) -> io::Result<u64> {
    let mut end = size;
    let mut chunk = vec![0; 64 * 1024];
    while end > 0 {
        let start = end.saturating_sub(chunk.len() as u64);
        let part = read_part(file, &mut chunk, start, end)?;
        if let Some(place) = part.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + place as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// The line that ends at `length`, with its newline.
fn last_line(file: &File, length: u64) -> io::Result<Vec<u8>> {
    let start = length.saturating_sub(MAX_LINE as u64 + 1);
    let mut chunk = vec![0; MAX_LINE + 1];
    let part = read_part(file, &mut chunk, start, length)?;
    let body = part.split_last().map(|(_, body)| body).unwrap_or_default();
    let begin = body
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |place| place + 1);
    Ok(part.get(begin..).unwrap_or_default().to_vec())
}

fn read_part<'a>(file: &File, chunk: &'a mut [u8], start: u64, end: u64) -> io::Result<&'a [u8]> {
    let length = usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX);
    let part = chunk.get_mut(..length).ok_or(io::ErrorKind::InvalidInput)?;
    file.read_exact_at(part, start)?;
    Ok(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_rolling_gives_are_touched() {
        assert!(is_stamp("20261123-102030.123456"));
        for other in [
            "20261123-102030.123456.gz",
            "20261123-102030",
            "torn-20261123-102030.1",
            "lock",
        ] {
            assert!(!is_stamp(other), "{other}");
        }
        assert!(is_stamp(&time::now().for_name()));
    }
}
