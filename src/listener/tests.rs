//! What a listener tells of itself in each of its states, and the small decisions of this
//! room. What it leaves on the disk and what it refuses is in `tests/listener_*.rs`.

use std::error::Error;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::*;
use crate::ids::Gid;
use crate::policy::{Numeric, Rule};
use crate::testing::TempDir;

/// A socket's path in a directory of its own.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(TempDir::new())
    }

    fn options(&self) -> Options {
        Options::at(self.0.join("socket")).unwrap()
    }

    fn connect(&self) -> UnixStream {
        UnixStream::connect(self.0.join("socket")).unwrap()
    }
}

fn policy(rules: &[&str]) -> Policy {
    let names = Numeric {
        own_user: effective_uid(),
    };
    let rules = rules
        .iter()
        .map(|rule| Rule::parse(rule, &names).unwrap())
        .collect();
    Policy::new(rules, Vec::new(), effective_uid())
}

fn uid(number: u32) -> Uid {
    Uid::from_raw(number).unwrap()
}

#[test]
fn a_listener_tells_what_it_is() {
    let place = Place::new();
    let listener = place.options().bind().unwrap();
    assert_eq!(listener.kind(), Kind::Stream);
    assert_eq!(
        listener.address(),
        &Address::Unix(SocketPath::parse(place.0.join("socket").as_os_str()).unwrap())
    );
    assert!(!listener.is_handed_over());
    assert_eq!(listener.paths_needed().unwrap().path, place.0.path());
    assert!(listener.policy().is_none() && listener.vetting().is_none());
    let (pair, _other) = UnixStream::pair().unwrap();
    let refuses = crate::sys::socket::set_pass_rights(pair.as_fd(), false).unwrap();
    assert_eq!(listener.lets_descriptors_in(), !refuses);
    let name = format!("@listener-{}", std::process::id());
    let listener = Options::at(name).unwrap().bind().unwrap();
    assert!(listener.paths_needed().is_none());
    assert!(matches!(
        listener.notices().first(),
        Some(Notice::AbstractName { .. })
    ));
    assert!(listener.dangerously_unconfined().walls().is_none());
}

#[test]
fn what_notices_say_decides_whether_descriptors_come_in() {
    let place = Place::new();
    let mut listener = place.options().bind().unwrap();
    listener.notices = vec![Notice::NoGroup];
    assert!(!listener.lets_descriptors_in());
    listener.notices.push(Notice::NoPassRights);
    assert!(listener.lets_descriptors_in());
}

#[test]
fn a_plan_gets_what_the_end_needs_and_fits_the_user() {
    let place = Place::new();
    let mut listener = place.options().bind().unwrap();
    let mut plan = Plan::default();
    listener.join(&mut plan).unwrap();
    let grants: Vec<_> = plan
        .paths
        .iter()
        .map(|grant| (&*grant.path, grant.access))
        .collect();
    assert_eq!(grants, [(place.0.path(), Access::Remove)]);
    assert!(plan.privileged.is_empty());
    // Bound for another user than the one that the process stays.
    let other = uid(effective_uid().as_raw() + 1);
    listener.owner = Some(other);
    let refused = listener.join(&mut Plan::default());
    let Err(SandboxError::OtherUser { bound_for, planned }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!((bound_for, planned), (other, effective_uid()));
}

#[test]
fn accepted_sockets_wait_or_not_as_was_asked() {
    let is_nonblocking = |listener: &Listener<Sealed>, place: &Place| {
        let _client = place.connect();
        let socket = listener.accept().unwrap().socket;
        let flags = rustix::fs::fcntl_getfl(&socket).unwrap();
        flags.contains(OFlags::NONBLOCK)
    };
    for (listening, accepted) in [(false, false), (true, false), (false, true), (true, true)] {
        let place = Place::new();
        let options = place.options().nonblocking(listening);
        let options = options.nonblocking_accepted(accepted);
        let mut listener = options.bind().unwrap().dangerously_unconfined();
        assert_eq!(is_nonblocking(&listener, &place), listening || accepted);
        let flags = rustix::fs::fcntl_getfl(&listener).unwrap();
        assert_eq!(flags.contains(OFlags::NONBLOCK), listening);
        listener.accept_nonblocking();
        assert!(is_nonblocking(&listener, &place));
    }
}

#[test]
fn an_own_listener_is_shut_down_and_a_shared_one_is_not() {
    let place = Place::new();
    let mut listener = place.options().bind().unwrap().dangerously_unconfined();
    listener.handed_over = true;
    assert!(listener.is_handed_over());
    assert!(!listener.shut_down().unwrap());
    let _client = place.connect();
    assert!(listener.accept().is_ok());
    listener.handed_over = false;
    assert!(listener.shut_down().unwrap());
    let refused = listener.accept().err().unwrap();
    assert_eq!(refused.raw_os_error(), Some(libc::EINVAL));
}

#[test]
fn a_policy_brings_the_means_to_judge_by_it() {
    let place = Place::new();
    let options = place.options().policy(policy(&["uid:self"]));
    let listener = options.bind().unwrap();
    assert_eq!(listener.policy().unwrap().allow_rules().len(), 1);
    assert!(listener.vetting().unwrap().take_threads().is_empty());
    drop(listener);
    // One thread looks at executables, another computes digests; the plan starts both.
    for (rule, threads) in [("uid:self,name:x", 1), ("uid:self,exe:/bin/true", 1)] {
        let options = place.options().policy(policy(&[rule]));
        let listener = options.bind().unwrap();
        let mut plan = Plan::default();
        listener.join(&mut plan).unwrap();
        assert!(plan.privileged.len() >= threads, "{rule}");
        assert!(plan.privileged.iter().all(|thread| thread.outside_landlock));
        assert!(
            listener.vetting().unwrap().take_threads().is_empty(),
            "taken"
        );
    }
}

#[cfg(feature = "digest")]
#[test]
fn only_a_rule_with_a_digest_starts_a_thread_for_digests() {
    let digest = "0".repeat(64);
    let count = |rule: &str| {
        let place = Place::new();
        let listener = place.options().policy(policy(&[rule])).bind().unwrap();
        listener.vetting().unwrap().take_threads().len()
    };
    let without = count("uid:self,exe:/bin/true");
    assert!(count(&format!("uid:self,sha256:{digest}")) > without);
}

#[test]
fn a_policy_that_cant_be_judged_by_is_refused() {
    let place = Place::new();
    let refused = place.options().policy(policy(&["label:x"])).bind();
    let labels = crate::peer::Kernel::probe().peer_label;
    match refused {
        Err(BindError::PolicyOutOfReach { missing }) => assert!(!labels && missing.len() == 1),
        Ok(_) => assert!(labels),
        Err(other) => panic!("{other}"),
    }
    let nobody = policy(&["uid:self,exe:/nowhere/at/all", "uid:self,exe:/nowhere/else"]);
    let refused = place.options().policy(nobody).bind().unwrap_err();
    let BindError::PolicyUnreliable { errors } = &refused else {
        panic!("{refused}");
    };
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(texts.len(), 2);
    assert_eq!(refused.to_string(), texts.join("; "));
}

#[test]
fn mode_and_group_follow_from_the_policy() {
    let place = Place::new();
    let resolved = |options: Options| {
        let mut notices = Vec::new();
        let found = options.resolved(&mut notices).unwrap();
        let none = notices.contains(&Notice::NoGroup);
        (found.mode_bits(), found.socket_group, none)
    };
    let group = Gid::from_raw(54_321).unwrap();
    assert_eq!(resolved(place.options()), (SocketMode::OWNER, None, false));
    let own = place.options().policy(policy(&["uid:self"]));
    assert_eq!(resolved(own), (SocketMode::OWNER, None, false));
    let one = policy(&["gid:54321"]);
    assert_eq!(
        resolved(place.options().policy(one.clone())),
        (SocketMode::GROUP, Some(group), false)
    );
    let given = place
        .options()
        .policy(policy(&["any"]))
        .socket_group(Some(group));
    assert_eq!(resolved(given), (SocketMode::GROUP, Some(group), false));
    let many = place.options().policy(policy(&["any"]));
    assert_eq!(resolved(many), (SocketMode::GROUP, None, true));
    // A name in the abstract namespace has no group, and none is looked for.
    let name = Options::at("@nobody").unwrap().policy(one);
    assert_eq!(resolved(name), (SocketMode::GROUP, None, false));
}

#[test]
fn the_backlog_is_what_was_asked_for() {
    let of = |backlog| Place::new().options().backlog(backlog).backlog_for_listen();
    assert_eq!((of(0), of(7), of(4096)), (0, 7, 4096));
    assert_eq!(of(u32::MAX), i32::MAX);
}

#[test]
fn root_the_own_user_and_the_server_s_are_trusted() {
    let trusted = Trusted {
        current: uid(7),
        server: uid(8),
        overflow_is_nobody: true,
    };
    for (number, expected) in [(0, true), (7, true), (8, true), (9, false), (65_534, false)] {
        assert_eq!(trusted.includes(uid(number)), expected, "{number}");
    }
    let full = Trusted {
        server: Uid::OVERFLOW,
        overflow_is_nobody: false,
        ..trusted
    };
    assert!(full.includes(Uid::OVERFLOW));
    let partial = Trusted {
        overflow_is_nobody: true,
        ..full
    };
    assert!(!partial.includes(Uid::OVERFLOW) && partial.includes(uid(7)));
    let text = |current, server| {
        let trusted = Trusted {
            current: uid(current),
            server: uid(server),
            overflow_is_nobody: true,
        };
        trusted.to_string()
    };
    assert_eq!(text(0, 0), "uid 0");
    assert_eq!(text(7, 8), "uid 0 or 8 or 7");
    assert_eq!(
        (text(7, 7), text(0, 7)),
        ("uid 0 or 7".into(), "uid 0 or 7".into())
    );
    assert_eq!(text(7, 0), "uid 0 or 7");
}

#[test]
fn modes_are_told_apart_bit_by_bit() {
    for bits in 0..=0o777 {
        let mode = SocketMode::from_bits(bits).unwrap();
        assert_eq!(mode.is_world_accessible(), bits % 8 != 0, "{bits:o}");
        assert_eq!(mode.is_group_writable(), bits / 8 % 4 >= 2, "{bits:o}");
    }
}

#[test]
fn errors_have_the_exit_code_of_their_kind_and_their_cause() {
    let system = |errno: i32| {
        BindError::system("bind", Path::new("/a"), io::Error::from_raw_os_error(errno))
    };
    let codes = [
        (libc::EACCES, 77),
        (libc::EPERM, 77),
        (libc::EMFILE, 71),
        (libc::ENFILE, 71),
        (libc::ENOMEM, 71),
        (libc::ENOBUFS, 71),
        (libc::EEXIST, 73),
        (libc::EROFS, 73),
    ];
    for (errno, code) in codes {
        let error = system(errno);
        assert_eq!(error.exit_code(), code, "{errno}");
        let cause = error.source().unwrap().downcast_ref::<io::Error>();
        assert_eq!(cause.unwrap().raw_os_error(), Some(errno));
    }
    assert_eq!(BindError::SeqPacketNeedsUnix.exit_code(), 78);
    assert!(BindError::SeqPacketNeedsUnix.source().is_none());
    let path = BindError::from(SocketPathError::Empty);
    assert_eq!(path.exit_code(), 78);
    assert!(path.source().unwrap().is::<SocketPathError>());
    let live = BindError::Live { path: "/a".into() };
    assert_eq!((live.exit_code(), live.source().is_none()), (73, true));
    let source = Errno::ACCESS.into();
    let path = PathBuf::from("/a");
    let undecidable = BindError::Undecidable { path, source };
    assert_eq!(undecidable.exit_code(), 77);
    assert!(undecidable.source().is_some());
}

#[test]
fn news_are_no_warnings() {
    let path = || PathBuf::from("/a/b");
    let found = Rights {
        owner: uid(7),
        group: Gid::from_raw(8).unwrap(),
        mode: 0o1777,
    };
    let mode = SocketMode::from_bits(0o666).unwrap();
    let (group, server) = (Gid::from_raw(9), uid(5));
    let name = SocketPath::parse("@a".as_ref()).unwrap();
    let exposed = "0.0.0.0:7".parse().unwrap();
    let all = [
        (
            Notice::SharedDirectory {
                path: path(),
                found,
            },
            true,
            "mode 1777",
        ),
        (Notice::WorldAccessible { path: path(), mode }, true, "0666"),
        (
            Notice::NotCrossable {
                path: path(),
                found,
                group,
            },
            true,
            "9",
        ),
        (Notice::ReplacedStale { path: path() }, false, "/a/b"),
        (
            Notice::CreatedDirectory {
                path: path(),
                rights: found,
            },
            false,
            "/a/b",
        ),
        (
            Notice::LongPath {
                path: path(),
                length: 108,
            },
            true,
            "108",
        ),
        (
            Notice::CannotCleanUp {
                path: path(),
                server,
            },
            true,
            "5",
        ),
        (Notice::AbstractName { name }, true, "@a"),
        (Notice::Exposed { address: exposed }, true, "0.0.0.0:7"),
        (Notice::NoGroup, true, "group"),
        (Notice::NoPassRights, false, "descriptors"),
    ];
    for (notice, is_warning, says) in all {
        assert_eq!(notice.is_warning(), is_warning, "{notice}");
        assert!(notice.to_string().contains(says), "{notice}");
    }
}

#[test]
fn a_path_that_is_none_says_why() {
    let long = "x".repeat(108);
    for (text, says) in [
        ("", "found nothing"),
        ("a", "expected a path that begins with /"),
        ("/a\0b", "NUL"),
        ("/a/", "directory"),
        ("@", "expected a name after @, found nothing"),
        (&format!("@{long}"), "108"),
    ] {
        let error = SocketPath::parse(text.as_ref()).unwrap_err().to_string();
        assert!(error.contains(says), "{text:?}: {error}");
    }
    let path = SocketPath::parse("/a/b".as_ref()).unwrap();
    assert_eq!(path.as_path(), Some(Path::new("/a/b")));
    assert!(!path.is_abstract());
    let name = SocketPath::parse("@a".as_ref()).unwrap();
    assert_eq!((name.as_path(), name.is_abstract()), (None, true));
}

#[test]
fn addresses_and_kinds_are_written_as_they_are_configured() {
    for text in ["/a/b", "@a"] {
        let address = Address::Unix(SocketPath::parse(text.as_ref()).unwrap());
        assert_eq!(address.to_string(), text);
    }
    let address = Address::Inet("127.0.0.1:7".parse().unwrap());
    assert_eq!(address.to_string(), "127.0.0.1:7");
    assert_eq!(Kind::Stream.to_string(), "SOCK_STREAM");
    assert_eq!(Kind::SeqPacket.to_string(), "SOCK_SEQPACKET");
}

#[test]
fn what_became_of_the_socket_is_said() {
    for (removal, expected) in [
        (Removal::NotNeeded, "no socket to unlink"),
        (Removal::Removed, "socket unlinked"),
        (
            Removal::NotOurs,
            "the path is no longer our socket's, so it stays",
        ),
        (
            Removal::Failed(Errno::ROFS.into()),
            "the socket could not be unlinked: Read-only file system (os error 30)",
        ),
    ] {
        assert_eq!(removal.to_string(), expected);
    }
}

#[test]
fn a_mode_that_is_none_says_why() {
    for text in ["", "8", "1777", "rw", "0o"] {
        let error = text.parse::<SocketMode>().unwrap_err().to_string();
        assert!(error.contains("0777"), "{text:?}: {error}");
    }
}

#[test]
fn a_directory_is_opened_or_said_to_be_missing() {
    let place = Place::new();
    let trusted = Trusted::new(effective_uid());
    let open = |path: &Path| directory::open(path, Path::new("/s"), trusted, None, &mut Vec::new());
    assert!(matches!(
        open(&place.0.join("none")),
        Err(BindError::DirectoryMissing { .. })
    ));
    let mut directory = open(place.0.path()).unwrap();
    assert_eq!(directory.path, place.0.path());
    assert!(!directory.is_shared());
    let user = |number| uid(number);
    // Owner, mode: who may remove his files.
    for (owner, mode, who, expected) in [
        (7, 0o700, 7, true),
        (7, 0o500, 7, false),
        (7, 0o600, 7, false),
        (7, 0o700, 8, false),
        (8, 0o755, 7, false),
        (0, 0o1777, 7, true),
        (0, 0o755, 0, true),
    ] {
        directory.rights.owner = user(owner);
        directory.rights.mode = mode;
        assert_eq!(
            directory.lets_remove(user(who)),
            expected,
            "{owner} {mode:o} {who}"
        );
    }
}
