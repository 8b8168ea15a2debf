//! Walks to the socket's directory from the root, one component at a time, and
//! refuses what others could tamper with.
//!
//! Invariants: no symbolic link is followed; what is checked is what is opened,
//! since both go by the descriptor; a directory that was created is opened and
//! checked again by its name. Missing directories are made and given away in a
//! [`Staging`] and then moved into place, so that no one can have a directory
//! of his changed.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::error::BindError;
use super::file::{self, FileId};
use super::notice::Notice;
use super::rights::{Rights, Trusted};
use super::staging::{Staging, refuse_rights};
use crate::ids::{Gid, Uid};

/// How often a component is looked at anew when it comes and goes meanwhile.
const ATTEMPTS: u32 = 16;

/// The name of a directory while it is made.
const ENTRY: &str = "directory";

/// What to do about a missing directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Creation {
    /// Who is to own it.
    pub(super) owner: Uid,
    pub(super) group: Gid,
    /// The group that may cross the last one, if others are authorised.
    pub(super) crossed_by: Option<Gid>,
    pub(super) others_authorised: bool,
}

impl Creation {
    fn rights(&self, is_last: bool) -> Rights {
        let mode = match (self.others_authorised, is_last) {
            (false, _) => 0o700,
            (true, true) => 0o710,
            (true, false) => 0o711,
        };
        let group = match (is_last, self.crossed_by) {
            (true, Some(group)) => group,
            _ => self.group,
        };
        Rights {
            owner: self.owner,
            group,
            mode,
        }
    }
}

/// The socket's directory, opened and checked.
#[derive(Debug)]
pub(super) struct Directory {
    /// Opened with `O_PATH`.
    pub(super) descriptor: OwnedFd,
    pub(super) path: PathBuf,
    pub(super) rights: Rights,
    created: Vec<Created>,
}

/// A directory that was made on the way, and is unmade if the start is refused.
#[derive(Debug)]
struct Created {
    parent: OwnedFd,
    path: PathBuf,
    id: FileId,
}

impl Directory {
    /// Whether others can write here, and only the sticky bit guards the socket.
    pub(super) fn is_shared(&self) -> bool {
        self.rights.mode & 0o022 != 0
    }

    /// Keeps the directories that were created, which go with this otherwise.
    pub(super) fn keep(&mut self) {
        self.created.clear();
    }

    /// Why a file can't be created in here. The one who had made the directory
    /// may have failed, and removed it again.
    pub(super) fn refuse_creation(&self, action: &'static str, source: io::Error) -> BindError {
        let path = self.path.clone();
        let gone = rustix::fs::fstat(&self.descriptor).is_ok_and(|stat| stat.st_nlink == 0);
        if gone && source.kind() == io::ErrorKind::NotFound {
            return BindError::Interfered { path };
        }
        BindError::DirectoryAccess {
            action,
            path,
            found: self.rights,
            source,
        }
    }

    /// Whether files of `user` in here can be removed by that user.
    pub(super) fn lets_remove(&self, user: Uid) -> bool {
        user == Uid::ROOT
            || self.is_shared()
            || (self.rights.owner == user && self.rights.mode & 0o300 == 0o300)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        while let Some(Created { parent, path, id }) = self.created.pop() {
            let Some(name) = path.file_name() else {
                continue;
            };
            if file::is_at(parent.as_fd(), name, id).unwrap_or(false) {
                // Another server may have moved in: then it is not empty.
                let _gone = rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR);
            }
        }
    }
}

/// Opens the directory at `path`, which is absolute, and creates what is
/// missing of it if there is a `creation`.
pub(super) fn open(
    path: &Path,
    socket: &Path,
    trusted: Trusted,
    creation: Option<Creation>,
    notices: &mut Vec<Notice>,
) -> Result<Directory, BindError> {
    let root = Path::new("/");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let descriptor = rustix::fs::open(root, flags, Mode::empty())
        .map_err(|error| BindError::system("open", root, error))?;
    let rights = check(&descriptor, root, trusted)?;
    let mut here = Directory {
        descriptor,
        path: root.to_owned(),
        rights,
        created: Vec::new(),
    };
    let mut names = path
        .components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name),
            _ => None,
        })
        .peekable();
    while let Some(name) = names.next() {
        let rights = creation.map(|creation| creation.rights(names.peek().is_none()));
        enter(&mut here, name, socket, trusted, rights, notices)?;
        warn_if_closed(&here, creation, notices);
    }
    if here.is_shared() {
        notices.push(Notice::SharedDirectory {
            path: here.path.clone(),
            found: here.rights,
        });
    }
    Ok(here)
}

/// One step down.
fn enter(
    here: &mut Directory,
    name: &OsStr,
    socket: &Path,
    trusted: Trusted,
    missing: Option<Rights>,
    notices: &mut Vec<Notice>,
) -> Result<(), BindError> {
    let path = here.path.join(name);
    for _ in 0..ATTEMPTS {
        let error = match file::refer_directory(here.descriptor.as_fd(), name) {
            Ok(descriptor) => {
                here.rights = check(&descriptor, &path, trusted)?;
                // It may be one that a killed server has made.
                if missing == Some(here.rights) {
                    Staging::sweep(here.descriptor.as_fd(), name, OsStr::new(ENTRY));
                }
                here.descriptor = descriptor;
                here.path = path;
                return Ok(());
            }
            Err(error) => error,
        };
        match (error, missing) {
            (Errno::NOENT, Some(rights)) => {
                if let Some(created) = create(here, name, rights)? {
                    notices.push(Notice::CreatedDirectory {
                        path: path.clone(),
                        rights,
                    });
                    here.created.push(created);
                }
            }
            (Errno::NOENT, None) => return Err(BindError::DirectoryMissing { path }),
            (Errno::NOTDIR | Errno::LOOP, _) => {
                if let Some(refusal) = not_a_directory(here, name, &path, socket)? {
                    return Err(refusal);
                }
            }
            (Errno::ACCESS, _) => {
                return Err(here.refuse_creation("look into", error.into()));
            }
            _ => return Err(BindError::system("open", &path, error)),
        }
    }
    Err(BindError::Interfered { path })
}

/// The rights of an opened directory, if it can be trusted.
fn check(descriptor: &OwnedFd, path: &Path, trusted: Trusted) -> Result<Rights, BindError> {
    let stat =
        rustix::fs::fstat(descriptor).map_err(|error| BindError::system("examine", path, error))?;
    let found = file::rights(&stat);
    if !trusted.includes(found.owner) {
        let path = path.to_owned();
        return Err(BindError::DirectoryOwner {
            path,
            found,
            expected: trusted,
        });
    }
    if found.mode & 0o022 != 0 && found.mode & 0o1000 == 0 {
        return Err(BindError::DirectoryWritable {
            path: path.to_owned(),
            found,
        });
    }
    Ok(found)
}

/// Makes a directory with its final rights. `None` if somebody was faster.
fn create(here: &Directory, name: &OsStr, rights: Rights) -> Result<Option<Created>, BindError> {
    let entry = OsStr::new(ENTRY);
    let path = here.path.join(name);
    let refuse = |error: Errno| BindError::system("create", &path, error);
    let staging = match Staging::create(here.descriptor.as_fd(), &here.path, name, entry) {
        Err(BindError::DirectoryAccess { action, source, .. }) => {
            return Err(here.refuse_creation(action, source));
        }
        other => other?,
    };
    rustix::fs::mkdirat(staging.as_fd(), entry, Mode::RWXU).map_err(refuse)?;
    let made = file::refer_directory(staging.as_fd(), entry).map_err(refuse)?;
    file::set_rights(&made, rights).map_err(|error| refuse_rights(&path, rights, error))?;
    let id = FileId::of(&rustix::fs::fstat(&made).map_err(refuse)?);
    // Whatever can fail comes before the directory is in its place.
    let parent = rustix::io::fcntl_dupfd_cloexec(&here.descriptor, 0).map_err(refuse)?;
    match staging.publish(here.descriptor.as_fd(), name) {
        Ok(()) => Ok(Some(Created { parent, path, id })),
        Err(Errno::EXIST) => Ok(None),
        Err(error) => Err(refuse(error)),
    }
}

/// Why a component can't be entered, or `None` if it has changed meanwhile.
fn not_a_directory(
    here: &Directory,
    name: &OsStr,
    path: &Path,
    socket: &Path,
) -> Result<Option<BindError>, BindError> {
    let stat: Stat = match file::look(here.descriptor.as_fd(), name) {
        Ok(Some(stat)) => stat,
        Ok(None) => return Ok(None),
        Err(error) => return Err(BindError::system("examine", path, error)),
    };
    match file::kind(&stat) {
        FileType::Directory => Ok(None),
        FileType::Symlink => Ok(Some(symbolic_link(path, socket))),
        other => {
            let found = file::describe(other);
            Ok(Some(BindError::NotADirectory {
                path: path.to_owned(),
                found,
            }))
        }
    }
}

/// The refusal of a link, with the path to write instead. This only makes a
/// better message, so it may go by name.
fn symbolic_link(link: &Path, socket: &Path) -> BindError {
    let target = fs::read_link(link).unwrap_or_default();
    let instead = fs::canonicalize(link)
        .ok()
        .and_then(|real| Some(real.join(socket.strip_prefix(link).ok()?)));
    BindError::SymbolicLink {
        link: link.to_owned(),
        target,
        instead,
    }
}

/// Says it if the authorised can't get through here.
fn warn_if_closed(here: &Directory, creation: Option<Creation>, notices: &mut Vec<Notice>) {
    let Some(Creation {
        others_authorised: true,
        crossed_by: group,
        ..
    }) = creation
    else {
        return;
    };
    let by_group = here.rights.mode & 0o010 != 0 && group == Some(here.rights.group);
    if here.rights.mode & 0o001 == 0 && !by_group {
        let path = here.path.clone();
        notices.push(Notice::NotCrossable {
            path,
            found: here.rights,
            group,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::effective_uid;
    use super::*;
    use crate::testing::TempDir;

    fn creation() -> Creation {
        let group = rustix::process::getegid().as_raw();
        Creation {
            owner: effective_uid(),
            group: Gid::from_raw(group).unwrap(),
            crossed_by: None,
            others_authorised: false,
        }
    }

    fn opened(path: &Path, creation: Option<Creation>) -> Result<Directory, BindError> {
        let trusted = Trusted::new(effective_uid());
        open(path, &path.join("s"), trusted, creation, &mut Vec::new())
    }

    #[test]
    fn a_directory_that_went_is_no_refusal_of_the_system() {
        let temp = TempDir::new();
        let path = temp.directory("d", 0o700);
        let directory = opened(&path, None).unwrap();
        let interfered = |error: Errno| {
            let refused = directory.refuse_creation("create a file in", error.into());
            matches!(refused, BindError::Interfered { .. })
        };
        assert!(!interfered(Errno::NOENT) && !interfered(Errno::ACCESS));
        fs::remove_dir(&path).unwrap();
        assert!(interfered(Errno::NOENT) && !interfered(Errno::ACCESS));
    }

    #[test]
    fn what_a_killed_server_left_is_swept_beside_a_directory_as_it_makes_them() {
        let temp = TempDir::new();
        for (mode, swept) in [(0o700, true), (0o750, false)] {
            let path = temp.directory(&format!("d{mode:o}"), mode);
            let left = temp.directory(&format!(".d{mode:o}.new"), 0o700);
            fs::create_dir(left.join(ENTRY)).unwrap();
            drop(opened(&path, Some(creation())).unwrap());
            assert_eq!(!left.exists(), swept, "{mode:o}");
        }
    }

    #[test]
    fn the_root_is_referred_to_and_not_handed_on() {
        let root = opened(Path::new("/"), None).unwrap();
        let flags = rustix::fs::fcntl_getfl(&root.descriptor).unwrap();
        assert!(flags.contains(OFlags::PATH | OFlags::DIRECTORY));
        let flags = rustix::io::fcntl_getfd(&root.descriptor).unwrap();
        assert_eq!(flags, rustix::io::FdFlags::CLOEXEC);
    }

    #[test]
    fn it_is_said_where_the_authorised_cannot_get_through() {
        let temp = TempDir::new();
        let mut here = opened(temp.path(), None).unwrap();
        let group = |number| Gid::from_raw(number);
        here.rights.group = group(7).unwrap();
        for (mode, crossed_by, others_authorised, said) in [
            (0o711, None, true, false),
            (0o701, group(8), true, false),
            (0o710, group(7), true, false),
            (0o700, group(7), true, true),
            (0o766, group(7), true, true),
            (0o710, group(8), true, true),
            (0o710, None, true, true),
            (0o700, None, false, false),
        ] {
            here.rights.mode = mode;
            let creation = Creation {
                crossed_by,
                others_authorised,
                ..creation()
            };
            let mut notices = Vec::new();
            warn_if_closed(&here, Some(creation), &mut notices);
            assert_eq!(!notices.is_empty(), said, "{mode:o} {crossed_by:?}");
            warn_if_closed(&here, None, &mut notices);
            assert_eq!(!notices.is_empty(), said, "nobody to let through");
        }
    }

    #[test]
    fn nothing_is_swept_where_nothing_would_be_made() {
        let temp = TempDir::new();
        let path = temp.directory("d", 0o700);
        let left = temp.directory(".d.new", 0o700);
        drop(opened(&path, None).unwrap());
        assert!(left.exists());
    }
}
