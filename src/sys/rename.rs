//! Renames within a directory that never replace what is there, on every file system.
//!
//! Only renameat2(2) is called, with and without a flag: no filter of a thread that rolls
//! files has another call for it.

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, RenameFlags, renameat_with, statat};
use rustix::io::{Errno, Result};

/// Gives a file another name, which must be free.
///
/// # Errors
///
/// `EEXIST` if it is not, else as renameat2(2).
pub(crate) fn to_free_name(directory: BorrowedFd<'_>, from: &OsStr, to: &OsStr) -> Result<()> {
    let refusing = RenameFlags::NOREPLACE;
    let tried = renameat_with(directory, from, directory, to, refusing);
    or_looking_first(tried, directory, from, to)
}

/// What is left where the file system can't refuse, as NFS, 9p and some of FUSE
/// (`EINVAL`). Between the look and the rename only those can make the name who may write
/// the directory: root and the own user.
fn or_looking_first(
    tried: Result<()>,
    directory: BorrowedFd<'_>,
    from: &OsStr,
    to: &OsStr,
) -> Result<()> {
    if tried != Err(Errno::INVAL) {
        return tried;
    }
    match statat(directory, to, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Err(Errno::EXIST),
        Err(Errno::NOENT) => renameat_with(directory, from, directory, to, RenameFlags::empty()),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::fd::AsFd;

    use crate::testing::TempDir;

    /// What is at the two names after a rename whose first attempt went so.
    #[track_caller]
    fn check(tried: Result<()>, taken: bool, expect: (Result<()>, &[&str])) {
        let temp = TempDir::new();
        let path = temp.path();
        fs::write(path.join("from"), "moved").unwrap();
        if taken {
            // A link that leads nowhere takes a name as well.
            std::os::unix::fs::symlink("nowhere", path.join("to")).unwrap();
        }
        let directory = fs::File::open(path).unwrap();
        let (from, to) = (OsStr::new("from"), OsStr::new("to"));
        let result = or_looking_first(tried, directory.as_fd(), from, to);
        let mut names: Vec<_> = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        assert_eq!((result, names.as_slice()), expect);
    }

    #[test]
    fn a_file_system_that_cant_refuse_is_looked_at_first() {
        check(Err(Errno::INVAL), false, (Ok(()), &["to"]));
        let refused = Err(Errno::EXIST);
        check(Err(Errno::INVAL), true, (refused, &["from", "to"]));
    }

    #[test]
    fn what_the_file_system_says_else_stands() {
        for errno in [Errno::EXIST, Errno::ACCESS, Errno::NOSPC] {
            check(Err(errno), false, (Err(errno), &["from"]));
        }
        check(Ok(()), false, (Ok(()), &["from"]));
    }

    #[test]
    fn a_taken_name_is_refused() {
        let temp = TempDir::new();
        let path = temp.path();
        fs::write(path.join("from"), "moved").unwrap();
        let directory = fs::File::open(path).unwrap();
        let rename = |to: &str| to_free_name(directory.as_fd(), "from".as_ref(), to.as_ref());
        assert_eq!(rename("from"), Err(Errno::EXIST));
        assert_eq!(rename("to"), Ok(()));
        assert_eq!(fs::read(path.join("to")).unwrap(), b"moved");
    }
}
