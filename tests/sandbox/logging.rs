//! The log behind its walls: every sink, rolling, compression, reopening.

use std::fs::{self, Permissions};
use std::io::Read;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use secure_socket::ids::{Gid, Uid};
use secure_socket::logging::{
    FileSpec, Logger, Overflow, RemoteSpec, SinkSpec, ThreadRole, Verbosity,
};
use secure_socket::sandbox::{self, Access, PathGrant, Plan, Role, SeccompAction};

pub(crate) fn log(directory: &Path, queue: &str) {
    let directory = directory.to_owned();
    let tcp = TcpListener::bind("127.0.0.1:0").expect("bound");
    // A machine may be without IPv6.
    let udp = UdpSocket::bind("[::1]:0").or_else(|_| UdpSocket::bind("127.0.0.1:0"));
    let udp = udp.expect("bound");
    hand_down(&directory);
    // As for the programs: files get the rest of their mode afterwards.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    // Asked here: behind the walls it is no longer answered.
    let uid = rustix::process::geteuid().as_raw();
    let gid = rustix::process::getegid().as_raw();
    let _local = UnixDatagram::bind(directory.join("syslog")).expect("bound");
    let port = tcp.local_addr().expect("address").port();
    let logger = Logger::builder()
        .verbosity(Verbosity::default())
        .overflow(Overflow::Block)
        .target(SinkSpec::Stdout)
        .target(SinkSpec::File(FileSpec {
            max_size: 64 << 10,
            keep: 2,
            sync: true,
            mode: 0o640,
            owner: Uid::from_raw(uid).zip(Gid::from_raw(gid)),
            ..FileSpec::new(directory.join("log"))
        }))
        .target(SinkSpec::Mq {
            name: queue.to_owned(),
            owner: None,
        })
        .target(SinkSpec::Remote(RemoteSpec::Tcp(format!(
            "127.0.0.1:{port}"
        ))))
        .target(SinkSpec::Remote(RemoteSpec::Udp(
            udp.local_addr().expect("address").to_string(),
        )))
        .target(SinkSpec::Remote(RemoteSpec::Unix(directory.join("syslog"))))
        .build()
        .expect("logger");
    logger.install().expect("first logger");
    let paths = logger
        .paths_needed()
        .iter()
        .map(|needed| PathGrant {
            path: needed.path.clone(),
            access: Access::Manage,
            roles: vec![Role::LogWriter, Role::LogCompressor],
        })
        .collect();
    let plan = Plan {
        seccomp: SeccompAction::Trap,
        paths,
        tcp_connect: vec![(port, vec![Role::LogWriter])],
        ..Plan::default()
    };
    let sealed = sandbox::enter(plan).expect("sealed");
    let inner = sealed.clone();
    let guard = logger
        .start_writer(Arc::new(move |role| {
            let role = match role {
                ThreadRole::LogCompressor => Role::LogCompressor,
                _ => Role::LogWriter,
            };
            inner.enter_role(role).map_err(std::io::Error::other)
        }))
        .expect("writer");
    for number in 0..6_000 {
        secure_socket::info!("a line with the number {number}");
        if number == 3_000 {
            logger.reopen();
        }
    }
    drain(&tcp);
    drop(tcp);
    assert!(logger.flush(Duration::from_secs(10)));
    secure_socket::fatal!("the last line");
    sealed.attest().expect("walls stand");
    // Others go before the compressor, and what it has not begun is left for the next start.
    let end = Instant::now() + Duration::from_secs(120);
    while count(&directory, ".gz") == 0 {
        assert!(
            Instant::now() < end,
            "no archive was made: {:?}",
            names(&directory)
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(guard.shutdown());
    let archives = count(&directory, ".gz");
    assert!((1..=2).contains(&archives), "{archives} archives");
    for name in names(&directory)
        .iter()
        .filter(|name| name.starts_with("log"))
    {
        let file = fs::metadata(directory.join(name)).expect("granted");
        let found = (file.mode() & 0o7777, file.gid());
        assert_eq!(found, (0o640, gid), "{name}");
    }
}

/// Lets the directory hand its group down to new files, another one where we may choose.
fn hand_down(directory: &Path) {
    if rustix::process::geteuid().is_root() {
        chown(directory, None, Some(12_345)).expect("root may");
        fs::set_permissions(directory, Permissions::from_mode(0o2700)).expect("our own");
    }
}

/// Takes what a syslog server would.
fn drain(server: &TcpListener) {
    let (mut stream, _) = server.accept().expect("the writer connects");
    stream
        .set_read_timeout(Some(Duration::from_millis(200)))
        .expect("a timeout");
    let mut block = [0; 65_536];
    while stream.read(&mut block).is_ok_and(|length| length > 0) {}
}

fn count(directory: &Path, ending: &str) -> usize {
    names(directory)
        .iter()
        .filter(|name| name.ends_with(ending))
        .count()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("granted to the main thread too");
    entries
        .map(|entry| {
            entry
                .expect("entry")
                .file_name()
                .into_string()
                .expect("utf-8")
        })
        .collect()
}
