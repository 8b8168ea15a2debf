//! What a service of an embedding program does by the standard library's means,
//! behind the walls of its role.

use std::fs::{self, File};
use std::io::{IoSlice, IoSliceMut, Read, Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use secure_socket::ids::Uid;
use secure_socket::listener::{Address, Listener, Options, SocketPath};
use secure_socket::policy::{Numeric, Policy, Rule};
use secure_socket::sandbox::{self, Access, PathGrant, Plan, Role, SeccompAction};
use secure_socket::server::{Outcome, Rules, Server};
use secure_socket::service::Connection;

/// Where the service goes beyond its peer.
#[derive(Clone)]
struct Outside {
    files: PathBuf,
    socket: PathBuf,
    v4: std::net::SocketAddr,
    v6: Option<std::net::SocketAddr>,
}

/// Serves one peer of its own, which then sends `x` to end the whole process where
/// `exits`.
pub(crate) fn serve(directory: &Path, exits: bool) {
    let files = directory.join("files");
    fs::create_dir(&files).expect("directory");
    fs::write(files.join("greeting"), "hello from a file").expect("file");
    let socket = directory.join("outside");
    let unix = UnixListener::bind(&socket).expect("bound");
    let v4 = TcpListener::bind("127.0.0.1:0").expect("bound");
    let v6 = TcpListener::bind("[::1]:0").ok();
    let outside = Outside {
        files: files.clone(),
        socket,
        v4: v4.local_addr().expect("address"),
        v6: v6.as_ref().map(|v6| v6.local_addr().expect("address")),
    };
    let ports = [Some(outside.v4), outside.v6];
    let own_user = Uid::from_raw(rustix::process::geteuid().as_raw()).expect("a uid");
    let path = directory.join("s/embedded");
    let address = Address::Unix(SocketPath::parse(path.as_os_str()).expect("a path"));
    let listener = Listener::bind(&Options::new(address)).expect("bound");
    let rule = Rule::parse("uid:self", &Numeric { own_user }).expect("a rule");
    let rules = Rules::new(Policy::new(vec![rule], Vec::new(), own_user));
    let plan = Plan {
        seccomp: SeccompAction::Trap,
        paths: vec![
            PathGrant {
                path: path.parent().expect("a directory").to_owned(),
                access: Access::Remove,
                roles: vec![],
            },
            PathGrant {
                path: files,
                access: Access::Read,
                roles: vec![Role::EmbeddedWorker],
            },
        ],
        tcp_connect: ports
            .into_iter()
            .flatten()
            .map(|address| (address.port(), vec![Role::EmbeddedWorker]))
            .collect(),
        ..Plan::default()
    };
    let sealed = sandbox::enter(plan).expect("sealed");
    let inner = sealed.clone();
    let service = move |connection: &Connection| speak(connection, &outside);
    let server = Server::with_service(listener.seal(&sealed), service, rules)
        .on_thread_start(Box::new(move || {
            inner
                .enter_role(Role::EmbeddedWorker)
                .map_err(std::io::Error::other)
        }))
        .build()
        .expect("server");
    let handle = server.handle();
    let peer = std::thread::spawn(move || {
        let mut peer = UnixStream::connect(&path).expect("accepted");
        let wait = Duration::from_secs(20);
        peer.set_read_timeout(Some(wait)).expect("a timeout");
        peer.write_all(if exits { b"x" } else { b"." })
            .expect("sent");
        let mut text = String::new();
        peer.read_to_string(&mut text).expect("answered");
        assert_eq!(text, "hello from a file");
        handle.stop(Duration::from_secs(5));
    });
    let _listening = (unix, v4, v6);
    assert_eq!(server.run().expect("served"), Outcome::Drained);
    peer.join().expect("the peer is content");
    sealed.attest().expect("walls stand");
}

/// The peer's turn first, then one of everything that the role allows.
fn speak(mut connection: &Connection, outside: &Outside) -> std::io::Result<()> {
    let mut order = [0];
    connection.read_exact(&mut order)?;
    if order == *b"x" {
        std::process::exit(0);
    }
    let mut names = fs::read_dir(&outside.files)?;
    let entry = names.next().expect("one file")?;
    assert!(entry.metadata()?.len() > 0 && fs::metadata(entry.path())?.size() > 0);
    let mut file = File::open(entry.path())?;
    let mut part = [0; 5];
    file.read_exact_at(&mut part, 6)?;
    assert_eq!(&part, b"from ");
    file.seek(SeekFrom::Start(6))?;
    let mut rest = [0; 5];
    let mut more = [0; 5];
    let count =
        file.read_vectored(&mut [IoSliceMut::new(&mut rest), IoSliceMut::new(&mut more)])?;
    assert_eq!(count, 10);
    let text = fs::read_to_string(entry.path())?;
    let wait = Duration::from_secs(5);
    let mut unix = UnixStream::connect(&outside.socket)?;
    unix.set_nonblocking(false)?;
    let sent = unix.write_vectored(&[IoSlice::new(b"a"), IoSlice::new(b"b")])?;
    assert_eq!(sent, 2);
    let again = unix.try_clone()?;
    again.shutdown(std::net::Shutdown::Both)?;
    for address in [Some(outside.v4), outside.v6].into_iter().flatten() {
        let mut tcp = TcpStream::connect_timeout(&address, wait)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(wait))?;
        assert_eq!(
            (tcp.peer_addr()?, tcp.local_addr()?.ip()),
            (address, address.ip())
        );
        tcp.write_all(b"c")?;
    }
    connection.write_all(text.as_bytes())
}
