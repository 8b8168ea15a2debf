//! What rules name by path or number, tied down when the rules come into force.
//!
//! An executable's path and all its parents may be writable by root only: then
//! only root decides which file it leads to, and asking for that file at each
//! check is sound. A process is held by a pidfd, so that its number can't pass to
//! another without notice.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::fs::Metadata;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::FileId;
use super::socket::still_alive;
use crate::ids::Pid;
use crate::sys;

/// As many symbolic links as the kernel follows (path_resolution(7)).
const LINKS_MAX: usize = 40;
/// Write permission for the group or for others (inode(7)).
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Why a rule's executable or process can't be relied upon.
#[derive(Debug)]
#[non_exhaustive]
pub enum PinError {
    /// The path leads nowhere, or can't be followed.
    Unreachable {
        /// As the rule names it.
        path: PathBuf,
        /// Where it breaks off.
        at: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Someone other than root could put another program there.
    Writable {
        /// As the rule names it.
        path: PathBuf,
        /// The directory or file at fault.
        at: PathBuf,
        /// Its permissions.
        mode: u32,
        /// Its owner.
        owner: u32,
    },
    /// What it leads to can't be run.
    NotAProgram {
        /// As the rule names it.
        path: PathBuf,
    },
    /// There is no such process, or it can't be held.
    NoProcess {
        /// As the rule names it.
        pid: Pid,
        /// Why.
        source: io::Error,
    },
}

impl fmt::Display for PinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable { path, at, .. } if path == at => {
                write!(f, "exe:{} can not be followed", path.display())
            }
            Self::Unreachable { path, at, .. } => {
                write!(
                    f,
                    "exe:{} can not be followed at {}",
                    path.display(),
                    at.display()
                )
            }
            Self::Writable {
                path,
                at,
                mode,
                owner,
            } => {
                let (mode, at) = (mode & 0o7777, at.display());
                write!(
                    f,
                    "exe:{}: {at} has owner {owner} and mode {mode:04o}, ",
                    path.display()
                )?;
                f.write_str("expected owner 0 and no write permission for group and others ")?;
                write!(f, "(chown root {at}; chmod go-w {at})")
            }
            Self::NotAProgram { path } => {
                write!(f, "exe:{} expected an executable file", path.display())
            }
            Self::NoProcess { pid, .. } => write!(f, "pid:{pid} can not be held"),
        }
    }
}

impl std::error::Error for PinError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreachable { source, .. } | Self::NoProcess { source, .. } => Some(source),
            Self::Writable { .. } | Self::NotAProgram { .. } => None,
        }
    }
}

/// The executables and processes that rules name. Immutable; may be shared.
#[derive(Clone, Default, Debug)]
pub struct Pins {
    paths: Vec<PathBuf>,
    processes: BTreeMap<Pid, Arc<OwnedFd>>,
}

impl Pins {
    /// Checks the paths and holds the processes. A process that `before` holds
    /// stays the one that it was, whoever bears its number now.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, not only the first.
    pub fn open(
        paths: &BTreeSet<PathBuf>,
        pids: &BTreeSet<Pid>,
        before: Option<&Self>,
    ) -> Result<Self, Vec<PinError>> {
        let mut errors: Vec<PinError> = paths
            .iter()
            .filter_map(|path| check_path(path).err())
            .collect();
        let mut processes = BTreeMap::new();
        for pid in pids {
            match hold(*pid, before) {
                Ok(pidfd) => drop(processes.insert(*pid, pidfd)),
                Err(source) => errors.push(PinError::NoProcess { pid: *pid, source }),
            }
        }
        let pins = Self {
            paths: paths.iter().cloned().collect(),
            processes,
        };
        if errors.is_empty() {
            Ok(pins)
        } else {
            Err(errors)
        }
    }

    /// The paths of executables.
    pub(super) fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Whether the process that bore this number at the start still lives, so that
    /// nobody else can bear it.
    pub(super) fn still_holds(&self, pid: Pid) -> bool {
        self.processes
            .get(&pid)
            .is_some_and(|pidfd| still_alive(pidfd.as_fd()).is_ok())
    }
}

fn hold(pid: Pid, before: Option<&Pins>) -> io::Result<Arc<OwnedFd>> {
    if let Some(pidfd) = before.and_then(|pins| pins.processes.get(&pid)) {
        return Ok(Arc::clone(pidfd));
    }
    sys::process::open_pidfd(pid).map(Arc::new)
}

/// The file that a path leads to now. `Ok(None)` if it leads nowhere.
///
/// # Errors
///
/// As stat(2), when that can't be said.
pub(super) fn file_at(path: &Path) -> io::Result<Option<FileId>> {
    match std::fs::metadata(path) {
        Ok(file) => Ok(Some(file_id(&file))),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(None),
            _ => Err(error),
        },
    }
}

pub(super) fn file_id(file: &Metadata) -> FileId {
    FileId {
        device: file.dev(),
        inode: file.ino(),
    }
}

/// Walks a path from the root, through symbolic links, and checks that nobody but
/// root can change where it leads, nor what lies there.
///
/// # Errors
///
/// The first place at fault.
pub fn check_path(path: &Path) -> Result<(), PinError> {
    let mut at = PathBuf::from("/");
    let mut left: Vec<OsString> = names_of(path);
    let mut links = 0;
    let unreachable = |at: &Path, source| PinError::Unreachable {
        path: path.to_path_buf(),
        at: at.to_path_buf(),
        source,
    };
    let look = |at: &Path| std::fs::symlink_metadata(at).map_err(|error| unreachable(at, error));
    only_root_may_write(path, &at, &look(&at)?)?;
    while let Some(name) = left.pop() {
        if name == ".." {
            at.pop();
            continue;
        }
        at.push(&name);
        let file = look(&at)?;
        if !file.is_symlink() {
            only_root_may_write(path, &at, &file)?;
            continue;
        }
        // A link's own mode means nothing; its directory was checked above.
        links = usize::saturating_add(links, 1);
        if links > LINKS_MAX {
            return Err(unreachable(&at, io::Error::from_raw_os_error(libc::ELOOP)));
        }
        // Behind the walls at a reload, where readlink(2), which std calls, is not to be had.
        let target = rustix::fs::readlinkat(rustix::fs::CWD, &at, Vec::new())
            .map_err(|error| unreachable(&at, error.into()))?;
        let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
        if target.is_absolute() {
            at = PathBuf::from("/");
        } else {
            at.pop();
        }
        left.extend(names_of(&target));
    }
    let file = look(&at)?;
    let runs = file.is_file() && file.mode() & 0o111 != 0;
    if runs {
        Ok(())
    } else {
        Err(PinError::NotAProgram {
            path: path.to_path_buf(),
        })
    }
}

/// The names in a path, last one first.
fn names_of(path: &Path) -> Vec<OsString> {
    let names = path
        .components()
        .rev()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_os_string()),
            Component::ParentDir => Some(OsString::from("..")),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        });
    names.filter(|name| !name.as_bytes().is_empty()).collect()
}

/// A sticky directory doesn't do: others could not replace the file, but they
/// could have put it there.
fn only_root_may_write(path: &Path, at: &Path, file: &Metadata) -> Result<(), PinError> {
    if file.uid() == 0 && file.mode() & WRITABLE_BY_OTHERS == 0 {
        return Ok(());
    }
    Err(PinError::Writable {
        path: path.to_path_buf(),
        at: at.to_path_buf(),
        mode: file.mode(),
        owner: file.uid(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_of_the_system_are_safe_through_links_too() {
        for path in ["/bin/sh", "/usr/bin/env"] {
            check_path(Path::new(path)).unwrap();
        }
    }

    #[test]
    fn what_others_can_write_is_refused() {
        let dir = std::env::temp_dir().join(format!("secure_socket-pin-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let program = dir.join("program");
        std::fs::copy("/bin/true", &program).unwrap();
        let refused = check_path(&program);
        std::fs::remove_dir_all(&dir).unwrap();
        let error = refused.unwrap_err();
        assert!(matches!(error, PinError::Writable { .. }), "{error}");
    }

    #[test]
    fn what_is_no_program_is_refused() {
        assert!(matches!(
            check_path(Path::new("/etc")),
            Err(PinError::NotAProgram { .. })
        ));
        assert!(matches!(
            check_path(Path::new("/etc/passwd")),
            Err(PinError::NotAProgram { .. })
        ));
        let missing = check_path(Path::new("/usr/bin/no-such-program"));
        assert!(matches!(missing, Err(PinError::Unreachable { .. })));
    }

    #[test]
    fn a_process_that_exits_is_never_found_again() {
        let mut child = std::process::Command::new("sleep")
            .arg("10")
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        let pids = BTreeSet::from([pid]);
        let pins = Pins::open(&BTreeSet::new(), &pids, None).unwrap();
        assert!(pins.still_holds(pid));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!pins.still_holds(pid));
        assert!(Pins::open(&BTreeSet::new(), &pids, None).is_err());
        let kept = Pins::open(&BTreeSet::new(), &pids, Some(&pins)).unwrap();
        assert!(!kept.still_holds(pid));
    }
}
