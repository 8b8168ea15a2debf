//! Where a configuration may lie at a reload that is reached by links which are switched
//! meanwhile, as in a volume of Kubernetes: `app.conf` leads to `..data/app.conf`, and
//! `..data` to `..2026_x`, later to `..2026_y`.
//!
//! The walls rise with the links as they stand at the start. So what is granted is the
//! directory that the path names, that of the file itself, and that of each link on the
//! way which leads below it, for where such a link leads later is mostly there as well.
//! A link that leads out of its directory, as `/var/run` does, opens nothing: else all of
//! `/var` could be read. Nor is all of `/` ever granted for a link.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

/// How many links are followed at most, as by the kernel (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// The directories, without links in their paths. None for a file that isn't there.
pub(super) fn folders(file: &Path) -> Vec<PathBuf> {
    let Ok(real) = file.canonicalize() else {
        return Vec::new();
    };
    let mut folders: Vec<PathBuf> = links(file)
        .unwrap_or_default()
        .into_iter()
        .filter_map(|link| {
            let leads_below = link.canonicalize().ok()?.starts_with(link.parent()?);
            leads_below.then(|| link.parent().map(Path::to_path_buf))?
        })
        .collect();
    let named = std::path::absolute(file).ok();
    let named = named.as_deref().and_then(Path::parent);
    folders.extend(named.and_then(|named| named.canonicalize().ok()));
    folders.retain(|folder| may_be_read_whole(folder));
    folders.extend(real.parent().map(Path::to_path_buf));
    folders.sort();
    folders.dedup();
    folders
}

/// Whether a directory that the walls open for a link has nothing in it but files: not
/// all there is, nor what the kernel shows of processes and devices (`config=/dev/stdin`).
fn may_be_read_whole(folder: &Path) -> bool {
    let kernels = ["/proc", "/dev", "/sys"];
    folder != Path::new("/") && !kernels.iter().any(|of| folder.starts_with(of))
}

/// The links on the way, each with a path that has none before its last component.
fn links(file: &Path) -> io::Result<Vec<PathBuf>> {
    let absolute = std::path::absolute(file)?;
    let mut rest = parts(&absolute);
    let (mut walked, mut links) = (PathBuf::from("/"), Vec::new());
    while let Some(part) = rest.pop_front() {
        if part == ".." {
            walked.pop();
            continue;
        }
        let next = walked.join(&part);
        match fs::read_link(&next) {
            Err(_) => walked = next,
            Ok(_) if links.len() >= LINKS_MAX => {
                return Err(rustix::io::Errno::LOOP.into());
            }
            Ok(target) => {
                if target.is_absolute() {
                    walked = PathBuf::from("/");
                }
                links.push(next);
                for part in parts(&target).into_iter().rev() {
                    rest.push_front(part);
                }
            }
        }
    }
    Ok(links)
}

/// The components that lead somewhere: names and `..`.
fn parts(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_os_string()),
            Component::ParentDir => Some("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

/// Whether the file may be out of reach because of the walls: EACCES, which a mode may be
/// the reason of as well.
pub(super) fn is_out_of_reach(file: &Path) -> bool {
    // Of a FIFO there may be nobody at the other end.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
    let opened = File::options().read(true).custom_flags(flags).open(file);
    opened.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    use crate::testing::TempDir;

    /// Makes directories, links and files, and tells what is granted for `file`.
    #[track_caller]
    fn check(links: &[(&str, &str)], file: &str, expect: &[&str]) {
        let temp = TempDir::new();
        let root = temp.path();
        for folder in ["etc/app/..2026_x", "srv/releases/1"] {
            fs::create_dir_all(root.join(folder)).unwrap();
            fs::write(root.join(folder).join("app.conf"), "").unwrap();
        }
        for (link, target) in links {
            let target = target.replace("ROOT", root.to_str().unwrap());
            symlink(target, root.join(link)).unwrap();
        }
        let found = folders(&root.join(file));
        let expect: Vec<PathBuf> = expect.iter().map(|folder| root.join(folder)).collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn a_plain_file_has_its_directory() {
        let file = "srv/releases/1/app.conf";
        check(&[], file, &["srv/releases/1"]);
        check(&[], "srv/releases/2/app.conf", &[]);
    }

    #[test]
    fn links_that_lead_below_themselves_have_theirs() {
        let volume = [
            ("etc/app/..data", "..2026_x"),
            ("etc/app/app.conf", "..data/app.conf"),
        ];
        let both = ["etc/app", "etc/app/..2026_x"];
        check(&volume, "etc/app/app.conf", &both);
        check(&volume, "etc/app/..data/app.conf", &both);
        check(&volume, "srv/../etc/app/./app.conf", &both);
        let current = [("srv/current", "ROOT/srv/releases/1")];
        let both = ["srv", "srv/releases/1"];
        check(&current, "srv/current/app.conf", &both);
    }

    #[test]
    fn a_link_that_leads_elsewhere_opens_no_more_than_the_path_says() {
        let run = [("etc/run", "../srv/releases")];
        check(&run, "etc/run/1/app.conf", &["srv/releases/1"]);
        let file = [("etc/app/app.conf", "ROOT/srv/releases/1/app.conf")];
        let both = ["etc/app", "srv/releases/1"];
        check(&file, "etc/app/app.conf", &both);
    }

    #[test]
    fn what_the_kernel_shows_is_not_opened_for_a_link() {
        for (folder, may) in [("/etc/app", true), ("/", false), ("/proc", false)] {
            assert_eq!(may_be_read_whole(Path::new(folder)), may);
        }
        assert!(!may_be_read_whole(Path::new("/dev")) && may_be_read_whole(Path::new("/devel")));
        let found = folders(Path::new("/dev/stdin"));
        let of_links = found.iter().filter(|folder| folder.starts_with("/proc"));
        // The directory of what stdin is at the moment, and no other.
        assert!(
            of_links.count() <= 1 && !found.contains(&PathBuf::from("/proc")),
            "{found:?}"
        );
    }

    #[test]
    fn links_in_a_ring_end() {
        let ring = [("etc/a", "b"), ("etc/b", "a")];
        check(&ring, "etc/a/app.conf", &[]);
        let file = [("etc/self", "self")];
        check(&file, "etc/self", &[]);
    }
}
