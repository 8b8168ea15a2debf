//! Reads a process's facts below `/proc`, between two proofs that it lives.
//!
//! The number comes from the pidfd, `/proc/PID` is opened once, everything is read
//! through that descriptor, and at the end the pidfd is asked again: had the
//! process died meanwhile, its number might have passed on, and nothing counts.
//! The executable is looked at before and after the rest, so that facts of two
//! programs, one run after the other, are never put together.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat, openat2};

use super::error::{process_reason, reason};
use super::pins::{Pins, file_at, file_id};
use super::socket::still_alive;
use super::{Exe, Fact, FactKind, Facts, FileId, Needs, Unreadable};
use crate::ids::Pid;
use crate::proc::{PidfdState, command_line, command_name, pidfd_state};
use crate::sys;

/// The longest command line that is read, in bytes.
pub const ARGS_MAX: u64 = 131_072;
/// What the kernel appends to the path of an executable without a name.
const DELETED: &[u8] = b" (deleted)";

/// What was read of one process, all at one time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProcessFacts {
    /// The executable.
    pub exe: Fact<Exe>,
    /// Its digest.
    pub sha256: Fact<[u8; 32]>,
    /// `comm`.
    pub name: Fact<Vec<u8>>,
    /// The command line.
    pub args: Fact<Vec<u8>>,
}

impl ProcessFacts {
    const UNASKED: Self = Self {
        exe: Fact::Unasked,
        sha256: Fact::Unasked,
        name: Fact::Unasked,
        args: Fact::Unasked,
    };

    /// All that was wanted, and could not be had, for one reason.
    pub(crate) fn all_unreadable(needs: Needs, why: Unreadable) -> Self {
        let mut facts = Facts::of(Fact::Unasked);
        facts.give_up(needs, why);
        let Facts {
            exe,
            sha256,
            name,
            args,
            ..
        } = facts;
        Self {
            exe,
            sha256,
            name,
            args,
        }
    }
}

impl Facts {
    /// Takes over what was read of the process. Facts of an earlier reading that are
    /// not in this one are dropped: they may be of another program.
    pub fn absorb(&mut self, process: ProcessFacts) {
        self.exe = process.exe;
        self.sha256 = process.sha256;
        self.name = process.name;
        self.args = process.args;
    }
}

/// An open `/proc` (proc(5)).
#[derive(Debug)]
pub(super) struct ProcRoot(OwnedFd);

impl ProcRoot {
    /// Opens `/proc`, and makes sure that it is one.
    ///
    /// # Errors
    ///
    /// As open(2); ENOTSUP if something else is mounted there.
    pub(super) fn open() -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(rustix::fs::CWD, "/proc", flags, Mode::empty())?;
        let is_proc = rustix::fs::fstatfs(&root)?.f_type == rustix::fs::PROC_SUPER_MAGIC;
        if is_proc {
            Ok(Self(root))
        } else {
            Err(io::Error::from_raw_os_error(libc::ENOTSUP))
        }
    }
}

/// A process in the middle of being read.
pub(super) struct Reading<'p> {
    directory: OwnedFd,
    pidfd: BorrowedFd<'p>,
    exe: Option<(File, Exe)>,
    facts: ProcessFacts,
}

impl Reading<'_> {
    /// The executable, for its digest.
    pub(super) fn take_exe(&mut self) -> Option<(File, FileId)> {
        self.exe.take().map(|(file, exe)| (file, exe.file))
    }
}

/// Reads all that is wanted except the digest. The answer counts only once
/// [`confirm`] has been asked.
pub(super) fn read<'p>(
    proc: &ProcRoot,
    pidfd: BorrowedFd<'p>,
    pid: Pid,
    needs: Needs,
    pins: &Pins,
) -> Result<Reading<'p>, Unreadable> {
    let directory = open_directory(proc, pidfd, pid)?;
    let mut reading = Reading {
        directory,
        pidfd,
        exe: None,
        facts: ProcessFacts::UNASKED,
    };
    let first = exe_id(&reading.directory);
    if needs.has(FactKind::Name) {
        reading.facts.name = read_name(&reading.directory).into();
    }
    if needs.has(FactKind::Args) {
        reading.facts.args = read_args(&reading.directory).into();
    }
    if needs.has_any(Needs::EXECUTABLE) {
        let with_digest = needs.has(FactKind::Sha256);
        // One that could not be seen before the rest may have been another.
        match first.and_then(|_| read_exe(&reading.directory, with_digest, pins)) {
            Ok((file, exe)) => {
                reading.facts.exe = Fact::Known(exe.clone());
                reading.exe = Some((file, exe));
            }
            Err(why) => {
                reading.facts.exe = Fact::Unreadable(why);
                if with_digest {
                    reading.facts.sha256 = Fact::Unreadable(why);
                }
            }
        }
    }
    // Where executables can't be read at all, no rule that names one admits, and
    // names and arguments are forgeable anyway.
    let last = exe_id(&reading.directory);
    let read = reading.facts.exe.known().map(|exe| exe.file);
    let is_same = |id: FileId| last == Ok(id) && read.is_none_or(|read| read == id);
    if first.is_ok_and(|id| !is_same(id)) {
        still_alive(pidfd)?;
        // Two programs were seen, or one and then none.
        let unseen = read == first.ok() || read.is_none();
        return Err(match last {
            Err(Unreadable::NoMemory) if unseen => Unreadable::NoMemory,
            _ => Unreadable::Changed,
        });
    }
    Ok(reading)
}

/// Gives the facts out, if the process still lives, and, where a digest was
/// computed meanwhile, still runs the file that was read.
pub(super) fn confirm(
    reading: Reading<'_>,
    digest: Option<(FileId, Result<[u8; 32], Unreadable>)>,
) -> Result<ProcessFacts, Unreadable> {
    let Reading {
        directory,
        pidfd,
        mut facts,
        ..
    } = reading;
    if let Some((file, digest)) = digest {
        if exe_id(&directory) != Ok(file) {
            still_alive(pidfd)?;
            return Err(Unreadable::Changed);
        }
        facts.sha256 = digest.into();
    }
    still_alive(pidfd)?;
    Ok(facts)
}

/// Opens `/proc/PID` for the process that a pidfd holds.
fn open_directory(proc: &ProcRoot, pidfd: BorrowedFd<'_>, pid: Pid) -> Result<OwnedFd, Unreadable> {
    let text = sys::process::descriptor_info(proc.0.as_fd(), pidfd).map_err(|e| reason(&e))?;
    match pidfd_state(&text) {
        Some(PidfdState::Pid(shown)) if shown == pid => {}
        Some(PidfdState::Gone) => return Err(Unreadable::Gone),
        // A number that differs from the socket's: this /proc is of another namespace.
        Some(PidfdState::Pid(_) | PidfdState::NotVisible) => return Err(Unreadable::NotVisible),
        None => return Err(Unreadable::Unsupported),
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    match openat2(&proc.0, pid.to_string(), flags, Mode::empty(), resolve) {
        Ok(directory) => Ok(directory),
        Err(rustix::io::Errno::NOENT) => {
            // Gone, or hidden by the mount option hidepid.
            still_alive(pidfd)?;
            Err(Unreadable::Permission)
        }
        Err(error) => Err(process_reason(&error.into())),
    }
}

fn open_entry(directory: &OwnedFd, name: &str, flags: OFlags) -> io::Result<File> {
    Ok(openat(directory, name, flags | OFlags::CLOEXEC, Mode::empty())?.into())
}

fn read_entry(directory: &OwnedFd, name: &str, bound: u64) -> Result<Vec<u8>, Unreadable> {
    let file = open_entry(directory, name, OFlags::RDONLY).map_err(|e| process_reason(&e))?;
    let mut bytes = Vec::new();
    let read = file.take(bound.saturating_add(1)).read_to_end(&mut bytes);
    read.map_err(|error| process_reason(&error))?;
    let fits = u64::try_from(bytes.len()).is_ok_and(|length| length <= bound);
    if fits {
        Ok(bytes)
    } else {
        Err(Unreadable::TooLarge)
    }
}

/// The file is opened only to be named, which `/proc/PID/exe` allows to whoever may
/// trace the process (proc_pid_exe(5)).
fn exe_id(directory: &OwnedFd) -> Result<FileId, Unreadable> {
    let file = open_entry(directory, "exe", OFlags::PATH).map_err(|e| process_reason(&e))?;
    file.metadata()
        .map(|found| file_id(&found))
        .map_err(|error| reason(&error))
}

fn read_exe(directory: &OwnedFd, for_digest: bool, pins: &Pins) -> Result<(File, Exe), Unreadable> {
    let flags = if for_digest {
        OFlags::RDONLY | OFlags::NONBLOCK
    } else {
        OFlags::PATH
    };
    let file = open_entry(directory, "exe", flags).map_err(|error| process_reason(&error))?;
    let found = file.metadata().map_err(|error| reason(&error))?;
    let link = rustix::fs::readlinkat(directory, "exe", Vec::new())
        .map_err(|error| process_reason(&error.into()))?;
    let deleted = found.nlink() == 0 || link.as_bytes().ends_with(DELETED);
    let id = file_id(&found);
    let path = PathBuf::from(std::ffi::OsStr::from_bytes(link.as_bytes()));
    let same_as = same_as(id, pins.paths())?;
    Ok((
        file,
        Exe {
            file: id,
            path,
            deleted,
            same_as,
        },
    ))
}

/// A path that leads nowhere is no match; one that can't be followed leaves open
/// whether it is.
fn same_as(id: FileId, paths: &[PathBuf]) -> Result<Vec<PathBuf>, Unreadable> {
    let leads_here = |path: &Path| file_at(path).map(|file| file == Some(id));
    let mut same = Vec::new();
    for path in paths {
        if leads_here(path).map_err(|error| reason(&error))? {
            same.push(path.clone());
        }
    }
    Ok(same)
}

fn read_name(directory: &OwnedFd) -> Result<Vec<u8>, Unreadable> {
    read_entry(directory, "comm", 4_096).map(command_name)
}

fn read_args(directory: &OwnedFd) -> Result<Vec<u8>, Unreadable> {
    read_entry(directory, "cmdline", ARGS_MAX).map(command_line)
}
