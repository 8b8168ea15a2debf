//! What a listener leaves at its path, and what it refuses.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod listener_support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use listener_support::*;
use rustix::fs::inotify::{self, ReadFlags};
use rustix::io::Errno;
use secure_socket::ids::{Gid, Uid};
use secure_socket::listener::{
    Address, BindError, Kind, Listener, Notice, Options, Removal, SocketMode, SocketPath,
};

fn mode(text: &str) -> SocketMode {
    text.parse().unwrap()
}

/// Binding at `path` is refused with this text and code, and changes nothing in `temp`.
#[track_caller]
fn refused(temp: &TempDir, options: &Options, expected: &str, code: u8) -> BindError {
    let before = temp.listing();
    let error = Listener::bind(options).expect_err("bind was not refused");
    assert_eq!(
        text(&error).replace(&temp.path().display().to_string(), "TMP"),
        expected
    );
    assert_eq!(error.exit_code(), code);
    assert_eq!(temp.listing(), before, "something was left behind");
    error
}

#[track_caller]
fn talks(path: &Path, listener: Listener<secure_socket::listener::Bound>) {
    let listener = listener.dangerously_unconfined();
    let mut client = UnixStream::connect(path).unwrap();
    let accepted = listener.accept().unwrap();
    let mut server = UnixStream::from(accepted.socket);
    client.write_all(b"ping").unwrap();
    let mut buffer = [0; 4];
    server.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"ping");
    assert!(matches!(listener.close(), Removal::Removed));
}

#[test]
fn a_socket_is_made_served_and_removed() {
    let temp = TempDir::new();
    let path = temp.join("a.sock");
    let listener = bind(&path).unwrap();
    assert!(fs::symlink_metadata(&path).unwrap().file_type().is_socket());
    assert_eq!(rights(&path).0, 0o600);
    let lock = temp.join("a.sock.lock");
    assert_eq!(rights(&lock).0, 0o600);
    assert_eq!(
        fs::read_to_string(&lock).unwrap(),
        format!("{}\n", std::process::id())
    );
    assert_eq!(temp.listing().len(), 2);
    assert_eq!(listener.notices(), []);
    assert_eq!(listener.paths_needed().unwrap().path, temp.path());
    talks(&path, listener);
    assert_eq!(temp.listing(), [""; 0]);
}

#[test]
fn dropping_removes_too() {
    let temp = TempDir::new();
    drop(bind(&temp.join("a.sock")).unwrap());
    assert_eq!(temp.listing(), [""; 0]);
}

#[test]
fn missing_directories_are_made_for_us_alone() {
    let temp = TempDir::new();
    let path = temp.join("one/two/a.sock");
    let listener = bind(&path).unwrap();
    assert_eq!(rights(&temp.join("one")).0, 0o700);
    assert_eq!(rights(&temp.join("one/two")).0, 0o700);
    let made: Vec<_> = listener
        .notices()
        .iter()
        .map(|notice| notice.is_warning())
        .collect();
    assert_eq!(made, [false, false]);
    drop(listener);
    // Not sealed: something else has refused the start.
    assert_eq!(temp.listing(), [""; 0]);
    let listener = bind(&path).unwrap().dangerously_unconfined();
    drop(listener);
    assert_eq!(temp.listing().len(), 2);
}

#[test]
fn missing_directories_can_be_crossed_by_the_authorised() {
    if !needs_root() {
        return;
    }
    let temp = TempDir::new();
    let path = temp.join("one/two/a.sock");
    let options = unix(&path)
        .mode(mode("0660"))
        .run_as(
            Uid::from_raw(SERVICE).unwrap(),
            Gid::from_raw(SERVICE).unwrap(),
        )
        .socket_group(Gid::from_raw(33))
        .others_authorised(true);
    let listener = Listener::bind(&options).unwrap();
    assert_eq!(rights(&temp.join("one")), (0o711, SERVICE, SERVICE));
    assert_eq!(rights(&temp.join("one/two")), (0o710, SERVICE, 33));
    assert_eq!(rights(&path), (0o660, SERVICE, 33));
    assert_eq!(
        rights(&temp.join("one/two/a.sock.lock")),
        (0o600, SERVICE, SERVICE)
    );
    talks(&path, listener);
}

#[test]
fn an_existing_directory_that_the_authorised_cannot_cross_is_said() {
    if !needs_root() {
        return;
    }
    let temp = TempDir::new();
    let directory = temp.directory("d", 0o700, None);
    let options = unix(&directory.join("a.sock"))
        .socket_group(Gid::from_raw(33))
        .others_authorised(true);
    let listener = Listener::bind(&options).unwrap();
    assert_eq!(
        listener.notices()[0].to_string(),
        format!(
            "directory {} (mode 0700, owner uid 0, group gid 0) can't be crossed by gid 33, so \
             authorised peers may not reach the socket",
            directory.display()
        )
    );
}

#[test]
fn a_directory_that_the_server_cannot_write_later_is_said() {
    if !needs_root() {
        return;
    }
    let temp = TempDir::new();
    let service = (
        Uid::from_raw(SERVICE).unwrap(),
        Gid::from_raw(SERVICE).unwrap(),
    );
    let options = unix(&temp.join("a.sock")).run_as(service.0, service.1);
    let listener = Listener::bind(&options).unwrap();
    assert!(matches!(listener.notices(), [Notice::CannotCleanUp { .. }]));
    drop(listener);
    let shared = temp.directory("shared", 0o1777, None);
    let options = unix(&shared.join("a.sock")).run_as(service.0, service.1);
    let listener = Listener::bind(&options).unwrap();
    assert!(matches!(
        listener.notices(),
        [Notice::SharedDirectory { .. }]
    ));
}

#[test]
fn a_symbolic_link_is_refused_with_the_path_to_use() {
    let temp = TempDir::new();
    let real = temp.directory("real", 0o755, None);
    fs::create_dir(real.join("deep")).unwrap();
    symlink("real", temp.join("link")).unwrap();
    refused(
        &temp,
        &unix(&temp.join("link/deep/a.sock")),
        "TMP/link: expected a directory, found a symbolic link to real; use \
         TMP/real/deep/a.sock instead",
        73,
    );
    symlink("nowhere", temp.join("dangling")).unwrap();
    refused(
        &temp,
        &unix(&temp.join("dangling/a.sock")),
        "TMP/dangling: expected a directory, found a symbolic link to nowhere, which leads \
         nowhere",
        73,
    );
}

#[test]
fn var_run_is_explained() {
    if fs::read_link("/var/run").ok().as_deref() != Some(Path::new("/run")) {
        return skip("/var/run as a link to /run");
    }
    let error = bind(Path::new("/var/run/ss-test/a.sock")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "/var/run: expected a directory, found a symbolic link to /run; use \
         /run/ss-test/a.sock instead"
    );
}

#[test]
fn a_component_that_is_no_directory_is_refused() {
    let temp = TempDir::new();
    fs::write(temp.join("file"), "").unwrap();
    refused(
        &temp,
        &unix(&temp.join("file/a.sock")),
        "TMP/file: expected a directory, found a regular file",
        73,
    );
}

#[test]
fn a_directory_that_others_can_write_is_refused() {
    let temp = TempDir::new();
    let (uid, gid) = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    for (name, mode) in [("group", 0o775), ("world", 0o757), ("all", 0o777)] {
        let directory = temp.directory(name, mode, None);
        fs::create_dir(directory.join("inner")).unwrap();
        for tail in ["a.sock", "inner/a.sock", "new/a.sock"] {
            refused(
                &temp,
                &unix(&directory.join(tail)),
                &format!(
                    "TMP/{name}: expected a directory that only its owner can write (mode 0755), \
                     or a sticky one, found mode {mode:04o}, owner uid {uid}, group gid {gid}"
                ),
                73,
            );
        }
    }
}

/// An access control list as the kernel stores it (`linux/posix_acl_xattr.h`): all for
/// the owner and for [`HOSTILE`], nothing for group and others.
fn list(mask: u16) -> Vec<u8> {
    const NOBODY_NAMED: u32 = u32::MAX;
    let entries: [(u16, u16, u32); 5] = [
        (0x01, 7, NOBODY_NAMED),
        (0x02, 7, HOSTILE),
        (0x04, 0, NOBODY_NAMED),
        (0x10, mask, NOBODY_NAMED),
        (0x20, 1, NOBODY_NAMED),
    ];
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, rights, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(rights.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// False, with a word about it, where the file system has no such lists.
fn give_list(directory: &Path, name: &str, list: &[u8]) -> bool {
    use rustix::fs::{XattrFlags, setxattr};
    match setxattr(directory, name, list, XattrFlags::empty()) {
        Ok(()) => true,
        Err(Errno::OPNOTSUPP) => {
            eprintln!("SKIP: needs a file system with access control lists");
            false
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn what_a_directory_hands_down_gives_nobody_rights() {
    if !needs_root() {
        return;
    }
    let temp = TempDir::new();
    if !give_list(temp.path(), "system.posix_acl_default", &list(7)) {
        return;
    }
    for path in ["a.sock", "one/two/a.sock"] {
        let path = temp.join(path);
        let options = unix(&path)
            .mode(mode("0660"))
            .socket_group(Gid::from_raw(33))
            .others_authorised(true);
        let listener = Listener::bind(&options).unwrap();
        assert_eq!(rights(&path), (0o660, 0, 33));
        let connects = |user: u32, group: u32| {
            let mut client = helper("helper_connect", Some(user), &path);
            client.gid(group).output().unwrap().status.success()
        };
        assert!(!connects(HOSTILE, HOSTILE), "{path:?}: a user of the list");
        assert!(connects(SERVICE, 33), "{path:?}: the group of the socket");
        drop(listener);
    }
    // Nor do the directories that were made pass it on.
    let listener = bind(&temp.join("three/four/a.sock")).unwrap();
    for made in ["three", "three/four", "three/four/a.sock"] {
        let length = rustix::fs::listxattr_query(temp.join(made)).unwrap();
        assert_eq!(length, 0, "{made}");
    }
    drop(listener);
}

/// Fails where it may not connect.
#[test]
fn helper_connect() {
    if let Some(path) = task() {
        UnixStream::connect(path).unwrap();
    }
}

/// The bits of the group are the mask of the list then, so they show it (acl(5)).
#[test]
fn a_directory_whose_list_lets_others_write_is_refused() {
    if !needs_root() {
        return;
    }
    let temp = TempDir::new();
    let directory = temp.directory("d", 0o755, None);
    let path = directory.join("a.sock");
    if !give_list(&directory, "system.posix_acl_access", &list(7)) {
        return;
    }
    let error = bind(&path).unwrap_err();
    assert!(
        matches!(error, BindError::DirectoryWritable { .. }),
        "{error}"
    );
    // What is beyond the mask counts for nothing.
    give_list(&directory, "system.posix_acl_access", &list(5));
    drop(bind(&path).unwrap());
}

#[test]
fn a_sticky_directory_is_allowed_and_said() {
    let temp = TempDir::new();
    let directory = temp.directory("sticky", 0o1777, None);
    let listener = bind(&directory.join("a.sock")).unwrap();
    assert!(matches!(
        listener.notices(),
        [notice @ Notice::SharedDirectory { path, .. }] if *path == directory && notice.is_warning()
    ));
    drop(listener);
    let listener = bind(&directory.join("own/a.sock")).unwrap();
    assert!(matches!(
        listener.notices(),
        [Notice::CreatedDirectory { .. }]
    ));
}

#[test]
fn a_directory_of_another_user_is_refused() {
    if !needs_root() {
        return;
    }
    let temp = TempDir::new();
    for (name, mode) in [("foreign", 0o755), ("sticky", 0o1777)] {
        let directory = temp.directory(name, mode, Some(HOSTILE));
        refused(
            &temp,
            &unix(&directory.join("a.sock")),
            &format!(
                "TMP/{name}: expected a directory owned by uid 0, found mode {mode:04o}, owner \
                 uid 64002, group gid 64002"
            ),
            73,
        );
        let service = Uid::from_raw(SERVICE).unwrap();
        refused(
            &temp,
            &unix(&directory.join("a.sock")).run_as(service, Gid::ROOT),
            &format!(
                "TMP/{name}: expected a directory owned by uid 0 or 64001, found mode \
                 {mode:04o}, owner uid 64002, group gid 64002"
            ),
            73,
        );
    }
    let owned = temp.directory("owned", 0o755, Some(SERVICE));
    let service = Uid::from_raw(SERVICE).unwrap();
    Listener::bind(&unix(&owned.join("a.sock")).run_as(service, Gid::ROOT)).unwrap();
}

#[test]
fn what_is_no_socket_is_never_removed() {
    let temp = TempDir::new();
    let path = temp.join("a.sock");
    type Maker = fn(&Path);
    let makers: [(&str, Maker); 4] = [
        ("a regular file", |path| {
            fs::write(path, "precious").unwrap()
        }),
        ("a directory", |path| fs::create_dir(path).unwrap()),
        ("a symbolic link", |path| symlink("/nowhere", path).unwrap()),
        ("a FIFO", |path| {
            rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::RUSR).unwrap();
        }),
    ];
    for (what, make) in makers {
        make(&path);
        refused(
            &temp,
            &unix(&path),
            &format!(
                "TMP/a.sock: expected nothing or a stale socket, found {what}, which is left alone"
            ),
            73,
        );
        if path.is_dir() {
            fs::remove_dir(&path)
        } else {
            fs::remove_file(&path)
        }
        .unwrap();
    }
    if is_root() {
        let device = rustix::fs::makedev(1, 3);
        let kind = rustix::fs::FileType::CharacterDevice;
        let mode = rustix::fs::Mode::RUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, device).unwrap();
        refused(
            &temp,
            &unix(&path),
            "TMP/a.sock: expected nothing or a stale socket, found a character device, which is \
             left alone",
            73,
        );
    }
}

#[test]
fn a_live_socket_without_a_lock_is_never_removed() {
    let temp = TempDir::new();
    let path = temp.join("a.sock");
    let expected = "TMP/a.sock: another server answers at this socket";
    let live = UnixListener::bind(&path).unwrap();
    refused(&temp, &unix(&path), expected, 73);
    refused(&temp, &unix(&path).kind(Kind::SeqPacket), expected, 73);
    drop(live);
    fs::remove_file(&path).unwrap();
    let datagram = UnixDatagram::bind(&path).unwrap();
    refused(&temp, &unix(&path), expected, 73);
    drop(datagram);
    // A child that another test forks holds it until it has executed its program.
    for _ in 0..500 {
        match bind(&path) {
            Err(BindError::Live { .. }) => std::thread::sleep(std::time::Duration::from_millis(10)),
            bound => return drop(bound.unwrap()),
        }
    }
    panic!("still live");
}

#[test]
fn a_live_socket_with_a_full_backlog_is_live() {
    let temp = TempDir::new();
    let path = temp.join("a.sock");
    let listener = Listener::bind(&unix(&path).backlog(0)).unwrap();
    // The lock goes with the name, as if somebody had removed it by hand.
    fs::remove_file(temp.join("a.sock.lock")).unwrap();
    let _waiting = UnixStream::connect(&path).unwrap();
    refused(
        &temp,
        &unix(&path),
        "TMP/a.sock: another server answers at this socket",
        73,
    );
    drop(listener);
}

#[test]
fn a_stale_socket_is_replaced() {
    let temp = TempDir::new();
    let path = temp.join("a.sock");
    stale(&path);
    fs::write(temp.join("a.sock.lock"), "4194304\n").unwrap();
    set_mode(&temp.join("a.sock.lock"), 0o600);
    let listener = bind(&path).unwrap();
    assert!(matches!(listener.notices(), [Notice::ReplacedStale { path: at }] if *at == path));
    assert_eq!(temp.listing().len(), 2);
    talks(&path, listener);
}

#[test]
fn a_stale_socket_of_another_user_is_refused() {
    if !needs_root() {
        return;
    }
    let temp = TempDir::new();
    let directory = temp.directory("sticky", 0o1777, None);
    let path = directory.join("a.sock");
    stale(&path);
    std::os::unix::fs::chown(&path, Some(HOSTILE), Some(HOSTILE)).unwrap();
    set_mode(&path, 0o755);
    refused(
        &temp,
        &unix(&path),
        "TMP/sticky/a.sock: expected nothing or a stale socket owned by uid 0, found a socket of \
         mode 0755, owner uid 64002, group gid 64002",
        73,
    );
}

#[test]
fn a_second_server_is_refused_with_the_pid_of_the_first() {
    let temp = TempDir::new();
    let path = temp.join("a.sock");
    let first = bind(&path).unwrap();
    let error = refused(
        &temp,
        &unix(&path),
        &format!(
            "TMP/a.sock.lock: another server holds this lock, pid {}",
            std::process::id()
        ),
        73,
    );
    assert!(matches!(error, BindError::Locked { pid: Some(_), .. }));
    drop(first);
    bind(&path).unwrap();
}

#[test]
fn a_lock_file_that_is_not_ours_is_refused_and_kept() {
    let temp = TempDir::new();
    let path = temp.join("a.sock");
    let lock = temp.join("a.sock.lock");
    let refused = |found: &str| {
        let ids = (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        );
        let found = found.replace("US", &format!("owner uid {}, group gid {}", ids.0, ids.1));
        let owners = if ids.0 == 0 {
            "0".to_owned()
        } else {
            format!("0 or {}", ids.0)
        };
        refused(
            &temp,
            &unix(&path),
            &format!(
                "TMP/a.sock.lock: expected a lock file of this server (a regular file with one \
                 name, mode 0600, owned by uid {owners}, that holds a pid), found {found}"
            ),
            73,
        );
    };
    fs::write(&lock, "precious").unwrap();
    set_mode(&lock, 0o600);
    refused("other content");
    assert_eq!(fs::read_to_string(&lock).unwrap(), "precious");
    set_mode(&lock, 0o644);
    refused("a regular file with 1 name, mode 0644, US");
    set_mode(&lock, 0o600);
    fs::hard_link(&lock, temp.join("other")).unwrap();
    refused("a regular file with 2 names, mode 0600, US");
    fs::remove_file(temp.join("other")).unwrap();
    fs::remove_file(&lock).unwrap();
    fs::write(temp.join("target"), "").unwrap();
    set_mode(&temp.join("target"), 0o600);
    symlink("target", &lock).unwrap();
    refused("a symbolic link with 1 name, mode 0777, US");
    fs::remove_file(&lock).unwrap();
    fs::create_dir(&lock).unwrap();
    set_mode(&lock, 0o700);
    refused("a directory with 2 names, mode 0700, US");
    fs::remove_dir(&lock).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &lock, rustix::fs::Mode::RUSR).unwrap();
    set_mode(&lock, 0o600);
    refused("a FIFO with 1 name, mode 0600, US");
}

/// As a start under a umask of 0777 leaves it for a moment (root may open it all the same).
#[test]
fn a_lock_file_that_cannot_be_opened_yet_is_waited_for() {
    let temp = TempDir::new();
    let directory = temp.directory("d", 0o700, is_root().then_some(NOBODY));
    let user = is_root().then_some(NOBODY);
    let status = helper("helper_closed_lock", user, &directory).status();
    assert!(status.unwrap().success());
}

#[test]
fn helper_closed_lock() {
    let Some(directory) = task() else { return };
    let path = directory.join("a.sock");
    let lock = directory.join("a.sock.lock");
    let set_mode = |mode| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(&lock, mode).unwrap();
    };
    fs::write(&lock, "").unwrap();
    set_mode(0);
    let error = bind(&path).unwrap_err();
    assert!(
        matches!(error, BindError::System { action: "open", .. }),
        "{error}"
    );
    assert_eq!(error.exit_code(), 77);
    assert!(lock.exists());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            set_mode(0o600);
        });
        drop(bind(&path).unwrap());
    });
}

#[test]
fn only_our_own_socket_is_unlinked() {
    let temp = TempDir::new();
    let path = temp.join("a.sock");
    let listener = bind(&path).unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, "somebody else's").unwrap();
    assert!(matches!(listener.close(), Removal::NotOurs));
    assert_eq!(fs::read_to_string(&path).unwrap(), "somebody else's");
    assert!(!temp.join("a.sock.lock").exists());
    fs::remove_file(&path).unwrap();
    let listener = bind(&path).unwrap();
    fs::remove_file(&path).unwrap();
    assert!(matches!(listener.close(), Removal::NotOurs));
}

#[test]
fn a_lock_that_was_taken_over_is_kept() {
    let temp = TempDir::new();
    let path = temp.join("a.sock");
    let first = bind(&path).unwrap();
    fs::remove_file(temp.join("a.sock.lock")).unwrap();
    fs::remove_file(&path).unwrap();
    let second = bind(&path).unwrap();
    assert!(matches!(first.close(), Removal::NotOurs));
    assert!(temp.join("a.sock.lock").exists());
    talks(&path, second);
}

#[test]
fn what_a_killed_server_left_in_the_making_is_cleared() {
    let temp = TempDir::new();
    let path = temp.join("a.sock");
    let staging = temp.directory(".a.sock.new", 0o700, None);
    stale(&staging.join("a.sock"));
    stale(&staging.join("replaced"));
    let listener = bind(&path).unwrap();
    assert!(matches!(listener.notices(), [Notice::ReplacedStale { .. }]));
    assert_eq!(temp.listing().len(), 2, "{:?}", temp.listing());
    drop(listener);
    // Put aside by mistake and then killed: it comes back, and is refused.
    let staging = temp.directory(".a.sock.new", 0o700, None);
    fs::write(staging.join("replaced"), "precious").unwrap();
    assert!(matches!(bind(&path), Err(BindError::Occupied { .. })));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn a_staging_name_that_is_taken_is_no_obstacle() {
    let temp = TempDir::new();
    let path = temp.join("a.sock");
    fs::write(temp.join(".a.sock.new"), "precious").unwrap();
    drop(bind(&path).unwrap());
    assert_eq!(
        fs::read_to_string(temp.join(".a.sock.new")).unwrap(),
        "precious"
    );
}

#[test]
fn long_paths_are_bound_and_said() {
    let temp = TempDir::new();
    for length in [106, 107, 108, 300, 4095] {
        let mut path = temp.path().to_owned();
        while path.as_os_str().len() + 200 < length {
            path.push("d".repeat(99));
        }
        let rest = length - path.as_os_str().len() - 1;
        path.push("s".repeat(rest));
        assert_eq!(path.as_os_str().len(), length);
        let listener = bind(&path).unwrap();
        let said = listener.notices().iter().any(
            |notice| matches!(notice, Notice::LongPath { length: found, .. } if *found == length),
        );
        assert_eq!(said, length > 107);
        // As a client with a long path would do it.
        let directory = fs::File::open(path.parent().unwrap()).unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&directory);
        let link = PathBuf::from(format!("/proc/self/fd/{number}"));
        let short = link.join(path.file_name().unwrap());
        if short.as_os_str().len() <= 107 {
            talks(&short, listener);
        }
    }
    assert!(SocketPath::parse(format!("/{}", "a/".repeat(2048)).as_ref()).is_err());
}

#[test]
fn an_unwritable_directory_is_refused() {
    let temp = TempDir::new();
    if is_root() {
        // Root may write everywhere but where the file system can't.
        let error = bind(Path::new("/proc/a.sock")).unwrap_err();
        assert!(
            matches!(error, BindError::DirectoryAccess { .. }),
            "{error}"
        );
        let directory = temp.directory("d", 0o755, None);
        let status = helper("helper_bind_unwritable", Some(NOBODY), &directory)
            .status()
            .unwrap();
        assert!(status.success());
    } else {
        let directory = temp.directory("d", 0o555, None);
        unwritable(&directory);
    }
}

#[test]
fn helper_bind_unwritable() {
    if let Some(directory) = task() {
        unwritable(&directory);
    }
}

#[track_caller]
fn unwritable(directory: &Path) {
    for tail in ["a.sock", "new/a.sock"] {
        let error = bind(&directory.join(tail)).unwrap_err();
        assert!(
            matches!(error, BindError::DirectoryAccess { .. }),
            "{error}"
        );
        assert_eq!(error.exit_code(), 77);
    }
    assert_eq!(fs::read_dir(directory).unwrap().count(), 0);
}

#[test]
fn a_directory_that_cannot_be_entered_is_refused() {
    let temp = TempDir::new();
    let directory = temp.directory("d", 0o600, is_root().then_some(NOBODY));
    let user = is_root().then_some(NOBODY);
    let status = helper("helper_bind_closed", user, &directory).status();
    assert!(status.unwrap().success());
}

#[test]
fn helper_bind_closed() {
    let Some(directory) = task() else { return };
    for tail in ["a.sock", "there/a.sock"] {
        let error = bind(&directory.join(tail)).unwrap_err();
        let BindError::DirectoryAccess { action, path, .. } = &error else {
            panic!("{tail}: {error}");
        };
        assert_eq!(path, &directory);
        assert_eq!(*action, "look into", "{tail}");
        assert_eq!(error.exit_code(), 77);
    }
}

#[test]
fn a_group_that_cannot_be_given_is_refused() {
    if !needs_root() {
        return;
    }
    let temp = TempDir::new();
    let directory = temp.directory("d", 0o755, Some(NOBODY));
    let status = helper("helper_foreign_group", Some(NOBODY), &directory)
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn helper_foreign_group() {
    let Some(directory) = task() else { return };
    for tail in ["a.sock", "new/a.sock"] {
        let options = unix(&directory.join(tail))
            .socket_group(Gid::from_raw(33))
            .others_authorised(true);
        let error = Listener::bind(&options).unwrap_err();
        assert!(matches!(error, BindError::Ownership { .. }), "{error}");
        assert_eq!(error.exit_code(), 77);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
    }
}

/// What inotify(7) tells of one name in a directory.
fn told_of(watch: impl AsFd, name: &str) -> Vec<ReadFlags> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(watch, &mut buffer);
    let mut told = Vec::new();
    loop {
        match reader.next() {
            Ok(event)
                if event
                    .file_name()
                    .is_some_and(|of| of.to_bytes() == name.as_bytes()) =>
            {
                told.push(event.events());
            }
            Ok(_) => {}
            Err(Errno::AGAIN) => return told,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Made and changed where nobody else comes, then moved to its path: who binds there
/// and protects afterwards shows a creation, or a change of attributes.
#[test]
fn the_socket_comes_to_its_path_complete() {
    let temp = TempDir::new();
    let status = helper("helper_complete", None, temp.path()).status();
    assert!(status.unwrap().success());
}

#[test]
fn helper_complete() {
    let Some(directory) = task() else { return };
    rustix::process::umask(rustix::fs::Mode::empty());
    let bind_with = |path: &Path, wanted: &str| {
        let options = unix(path).mode(mode(wanted));
        let other = Uid::from_raw(SERVICE).zip(Gid::from_raw(SERVICE));
        match other.filter(|_| is_root()) {
            Some((uid, gid)) => Listener::bind(&options.run_as(uid, gid)),
            None => Listener::bind(&options),
        }
    };
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
    inotify::add_watch(&watch, &directory, inotify::WatchFlags::ALL_EVENTS).unwrap();
    for wanted in ["0600", "0660", "0777", "0000"] {
        let path = directory.join(format!("{wanted}.sock"));
        let listener = bind_with(&path, wanted).unwrap();
        let told = told_of(&watch, &format!("{wanted}.sock"));
        assert_eq!(told, [ReadFlags::MOVED_TO], "{wanted}");
        let owner = if is_root() {
            SERVICE
        } else {
            rights(&directory).1
        };
        let bits = u32::from_str_radix(wanted, 8).unwrap();
        assert_eq!(rights(&path), (bits, owner, rights(&path).2));
        drop(listener);
    }
}

/// Whoever looks at any moment sees the final rights at the path, and nothing that he may
/// enter where the socket is made.
#[test]
fn at_no_moment_are_there_wider_rights() {
    let temp = TempDir::new();
    let status = helper("helper_moments", None, temp.path()).status();
    assert!(status.unwrap().success());
}

#[test]
fn helper_moments() {
    let Some(directory) = task() else { return };
    rustix::process::umask(rustix::fs::Mode::empty());
    let (path, done) = (directory.join("a.sock"), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let looks = scope.spawn(|| {
            let mut seen = BTreeSet::new();
            while !done.load(Ordering::SeqCst) {
                for name in ["a.sock", ".a.sock.new", "a.sock.lock"] {
                    if let Ok(stat) = fs::symlink_metadata(directory.join(name)) {
                        seen.insert((name, stat.mode() & 0o7777));
                    }
                }
            }
            seen
        });
        let mut rounds = 0;
        while rounds < 300 && !looks.is_finished() {
            drop(Listener::bind(&unix(&path).mode(mode("0620"))).unwrap());
            rounds += 1;
        }
        done.store(true, Ordering::SeqCst);
        let allowed = [
            ("a.sock", 0o620),
            (".a.sock.new", 0o700),
            ("a.sock.lock", 0o600),
        ];
        for one in looks.join().unwrap() {
            assert!(allowed.contains(&one), "{} with mode {:o}", one.0, one.1);
        }
    });
}

#[test]
fn the_umask_has_no_influence() {
    let temp = TempDir::new();
    for umask in ["0", "777"] {
        let directory = temp.directory(&format!("u{umask}"), 0o755, is_root().then_some(NOBODY));
        let user = is_root().then_some(NOBODY);
        let mut command = helper("helper_umask", user, &directory);
        assert!(
            command
                .env("LISTENER_TEST_UMASK", umask)
                .status()
                .unwrap()
                .success()
        );
    }
}

#[test]
fn helper_umask() {
    let Some(directory) = task() else { return };
    let umask = std::env::var("LISTENER_TEST_UMASK").unwrap();
    let umask = u32::from_str_radix(&umask, 8).unwrap();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(umask));
    for (number, wanted) in ["0600", "0660", "0777", "0000", "0604"]
        .into_iter()
        .enumerate()
    {
        let path = directory.join(format!("new{number}/deep/a.sock"));
        let listener = Listener::bind(&unix(&path).mode(mode(wanted))).unwrap();
        assert_eq!(rights(&path).0, u32::from_str_radix(wanted, 8).unwrap());
        assert_eq!(rights(path.parent().unwrap()).0, 0o700);
        assert_eq!(rights(path.parent().unwrap().parent().unwrap()).0, 0o700);
        assert_eq!(rights(&path.with_file_name("a.sock.lock")).0, 0o600);
        let world = listener
            .notices()
            .iter()
            .any(|n| matches!(n, Notice::WorldAccessible { .. }));
        assert_eq!(world, !wanted.ends_with('0'));
    }
}

#[test]
fn an_own_stale_socket_is_replaced_whatever_its_mode() {
    let temp = TempDir::new();
    let user = is_root().then_some(NOBODY);
    let directory = temp.directory("own", 0o700, user);
    let status = helper("helper_stale_modes", user, &directory).status();
    assert!(status.unwrap().success());
}

#[test]
fn helper_stale_modes() {
    let Some(directory) = task() else { return };
    for bits in [0o600, 0o060, 0o400, 0o000] {
        let path = directory.join(format!("{bits:o}.sock"));
        stale(&path);
        set_mode(&path, bits);
        let listener = bind(&path).unwrap();
        let replaced = |notice: &Notice| matches!(notice, Notice::ReplacedStale { .. });
        assert!(listener.notices().iter().any(replaced), "{bits:o}");
        // One that is in use keeps its mode.
        let path = directory.join(format!("{bits:o}.live"));
        let live = UnixListener::bind(&path).unwrap();
        set_mode(&path, bits);
        assert!(matches!(bind(&path).unwrap_err(), BindError::Live { .. }));
        assert_eq!(rights(&path).0, bits);
        drop(live);
    }
}

#[test]
fn an_abstract_name_is_one_server_s() {
    let name = format!("@ss-test-{}", std::process::id());
    let options = Options::new(Address::Unix(name.parse().unwrap()));
    let first = Listener::bind(&options).unwrap();
    assert!(matches!(first.notices(), [Notice::AbstractName { .. }]));
    assert!(first.paths_needed().is_none());
    let error = Listener::bind(&options).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("{name}: another server has this abstract name")
    );
    assert_eq!(error.exit_code(), 73);
    assert!(matches!(first.close(), Removal::NotNeeded));
    Listener::bind(&options).unwrap();
}

#[test]
fn internet_addresses_are_loopback_or_exposed() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let options = Options::new(Address::Inet(address.parse().unwrap()));
        let listener = Listener::bind(&options).unwrap();
        let Address::Inet(bound) = *listener.address() else {
            panic!()
        };
        assert_ne!(bound.port(), 0);
        let error = Listener::bind(&Options::new(Address::Inet(bound))).unwrap_err();
        assert!(matches!(error, BindError::PortInUse { .. }));
        assert_eq!(error.exit_code(), 73);
        let client = std::net::TcpStream::connect(bound).unwrap();
        let listener = listener.dangerously_unconfined();
        let accepted = listener.accept().unwrap();
        assert_eq!(accepted.address, Some(client.local_addr().unwrap()));
        let records = options.kind(Kind::SeqPacket);
        assert!(matches!(
            Listener::bind(&records),
            Err(BindError::SeqPacketNeedsUnix)
        ));
    }
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "[::ffff:127.0.0.1]:0"] {
        let options = Options::new(Address::Inet(address.parse().unwrap()));
        let error = Listener::bind(&options).unwrap_err();
        assert!(matches!(error, BindError::NotLoopback { .. }));
        assert_eq!(error.exit_code(), 78);
    }
    let options = Options::new(Address::Inet("0.0.0.0:0".parse().unwrap())).expose(true);
    let listener = Listener::bind(&options).unwrap();
    assert!(matches!(listener.notices(), [Notice::Exposed { .. }]));
}

#[test]
fn records_and_non_blocking_and_credentials() {
    let temp = TempDir::new();
    let path = temp.join("a.sock");
    let options = unix(&path)
        .kind(Kind::SeqPacket)
        .nonblocking(true)
        .pass_credentials(true);
    let listener = Listener::bind(&options).unwrap().dangerously_unconfined();
    let error = listener.accept().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    let kind = rustix::net::SocketType::SEQPACKET;
    let client = rustix::net::socket(rustix::net::AddressFamily::UNIX, kind, None).unwrap();
    let target = rustix::net::SocketAddrUnix::new(&path).unwrap();
    rustix::net::connect(&client, &target).unwrap();
    let accepted = listener.accept().unwrap();
    let flags = rustix::fs::fcntl_getfl(&accepted.socket).unwrap();
    assert!(flags.contains(rustix::fs::OFlags::NONBLOCK));
    let flags = rustix::io::fcntl_getfd(&accepted.socket).unwrap();
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    assert!(rustix::net::sockopt::socket_passcred(accepted.socket.as_fd()).unwrap());
}

#[test]
fn descriptors_cannot_be_pushed_in() {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    let temp = TempDir::new();
    let path = temp.join("a.sock");
    let listener = bind(&path).unwrap();
    if listener.notices().contains(&Notice::NoPassRights) {
        return skip_by_kernel("SO_PASSRIGHTS, Linux 6.16 or newer");
    }
    let listener = listener.dangerously_unconfined();
    let client = UnixStream::connect(&path).unwrap();
    let _accepted = listener.accept().unwrap();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let pushed = [client.as_fd()];
    assert!(control.push(SendAncillaryMessage::ScmRights(&pushed)));
    let data = [std::io::IoSlice::new(b"x")];
    let error = sendmsg(&client, &data, &mut control, SendFlags::empty()).unwrap_err();
    assert_eq!(error, Errno::PERM);
}

#[test]
fn shutting_down_wakes_those_who_wait() {
    let temp = TempDir::new();
    let path = temp.join("a.sock");
    let listener = bind(&path).unwrap().dangerously_unconfined();
    std::thread::scope(|scope| {
        let waiting: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| listener.accept().unwrap_err().raw_os_error()))
            .collect();
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(listener.shut_down().unwrap());
        for thread in waiting {
            assert_eq!(thread.join().unwrap(), Some(22));
        }
    });
    assert!(UnixStream::connect(&path).is_err());
}

#[test]
fn the_documented_command_line_gets_its_socket() {
    if !needs_root() {
        return;
    }
    let temp = TempDir::new();
    let shared = temp.directory("tmp", 0o1777, None);
    let path = shared.join("sock_secure_socket");
    let options = unix(&path)
        .mode(mode("0770"))
        .socket_group(Gid::from_raw(33))
        .others_authorised(true);
    let listener = Listener::bind(&options).unwrap();
    assert_eq!(rights(&path), (0o770, 0, 33));
    assert!(matches!(
        listener.notices(),
        [Notice::SharedDirectory { .. }]
    ));
    talks(&path, listener);
}

#[test]
fn running_out_of_descriptors_leaves_nothing_behind() {
    let temp = TempDir::new();
    let status = helper("helper_few_descriptors", None, temp.path())
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn helper_few_descriptors() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let Some(directory) = task() else { return };
    // The lowest free number, so that limits above it come to each system call.
    let lowest = fs::File::open("/").unwrap();
    let lowest = u64::try_from(std::os::fd::AsRawFd::as_raw_fd(&lowest)).unwrap();
    let path = directory.join("one/two/a.sock");
    // Whatever is loaded at the first use is loaded now.
    drop(bind(&directory.join("warm.sock")).unwrap());
    let mut failures = 0;
    for limit in lowest..lowest + 32 {
        let limits = |limit| Rlimit {
            current: Some(limit),
            maximum: Some(1024),
        };
        setrlimit(Resource::Nofile, limits(limit)).unwrap();
        let bound = bind(&path);
        setrlimit(Resource::Nofile, limits(1024)).unwrap();
        match bound {
            Ok(listener) => drop(listener),
            Err(error) => {
                assert_eq!(error.exit_code(), 71, "limit {limit}: {}", text(&error));
                assert_eq!(
                    fs::read_dir(&directory).unwrap().count(),
                    0,
                    "limit {limit}: {error}"
                );
                failures += 1;
            }
        }
    }
    assert!((5..32).contains(&failures), "{failures}");
}

#[test]
fn a_server_that_gave_up_its_privileges_cleans_up() {
    if !needs_root() {
        return;
    }
    let temp = TempDir::new();
    let shared = temp.directory("shared", 0o1777, None);
    for path in [temp.join("own/a.sock"), shared.join("a.sock")] {
        let mut command = helper("helper_drop", None, &path);
        assert!(command.status().unwrap().success());
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
    }
}

#[test]
fn helper_drop() {
    let Some(path) = task() else { return };
    let service = (
        Uid::from_raw(SERVICE).unwrap(),
        Gid::from_raw(SERVICE).unwrap(),
    );
    let listener = Listener::bind(&unix(&path).run_as(service.0, service.1)).unwrap();
    // Of this thread alone, which is the one that closes.
    let gid = rustix::process::Gid::from_raw(SERVICE);
    let uid = rustix::process::Uid::from_raw(SERVICE);
    rustix::thread::set_thread_groups(&[]).unwrap();
    rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
    rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
    let listener = listener.dangerously_unconfined();
    assert!(matches!(listener.close(), Removal::Removed));
}
