//! The systems under test, each in its own protocol, as bytes.
//!
//! A subscriber is known to be subscribed when it is handed out. The first message
//! shows how long one is as it arrives; from then on messages are counted by their
//! bytes, the same way for everyone.

mod dbus;
mod minimal;
mod mqtt;
mod nats;
mod own;
mod resp;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A socket of any family.
pub type Stream = UnixStream;

/// Where a program is looked for.
const FOLDERS: [&str; 4] = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"];

/// A broker and how to speak to it.
pub trait System: Sync {
    /// As the table calls it.
    fn name(&self) -> &'static str;

    /// What was measured; `None` where it isn't installed.
    fn version(&self) -> Option<String>;

    /// Starts it with an empty directory of its own.
    fn start(&self, folder: &Path) -> Server;

    /// A connection that has been greeted.
    fn connect(&self, server: &Server) -> Stream;

    /// A connection that is subscribed to the subject of [`System::publish`].
    fn subscriber(&self, server: &Server) -> Stream;

    /// A connection that publishes. Nothing has to be read from it.
    fn publisher(&self, server: &Server) -> Stream;

    /// One message with a body of this size.
    fn publish(&self, size: usize) -> Vec<u8>;

    /// Two peers, one that asks and one that answers.
    fn pair(&self, server: &Server, size: usize) -> Pair;
}

/// What is needed for requests.
pub struct Pair {
    pub asker: Duplex,
    /// One request.
    pub request: Vec<u8>,
    pub responder: Duplex,
    /// One answer to the request that came in.
    pub answer: fn(&[u8], usize) -> Vec<u8>,
}

/// Where to read, and where to write: systems without requests take a connection
/// for each.
pub struct Duplex {
    pub input: Stream,
    pub output: Stream,
}

impl Duplex {
    pub fn one(stream: Stream) -> Self {
        Self {
            output: stream.try_clone().unwrap(),
            input: stream,
        }
    }
}

/// A system that runs; dropping it ends it.
pub struct Server {
    child: Child,
    pub path: PathBuf,
    /// For those that have no Unix-domain socket.
    pub port: u16,
    /// What has to stay open while it runs.
    _held: Option<Stream>,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Starts `command` and waits until `path` (or `port`) takes connections.
    fn start(command: &mut Command, path: PathBuf, port: u16) -> Self {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self {
            child,
            path,
            port,
            _held: None,
        };
        let deadline = Instant::now() + Duration::from_secs(10);
        while !server.takes_connections() {
            assert!(Instant::now() < deadline, "{command:?} doesn't start");
            std::thread::sleep(Duration::from_millis(5));
        }
        server
    }

    fn takes_connections(&self) -> bool {
        if self.port == 0 {
            UnixStream::connect(&self.path).is_ok()
        } else {
            std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok()
        }
    }

    fn connect(&self) -> Stream {
        UnixStream::connect(&self.path).unwrap()
    }
}

/// All that this machine has, ours first.
pub fn installed() -> Vec<Box<dyn System>> {
    let all: Vec<Box<dyn System>> = vec![
        Box::new(own::SecureSocket::POOL),
        Box::new(own::SecureSocket::LOOPS),
        Box::new(resp::Redis),
        Box::new(nats::Nats),
        Box::new(mqtt::Mosquitto),
        Box::new(dbus::Dbus::Daemon),
        Box::new(dbus::Dbus::Broker),
        Box::new(minimal::Minimal),
    ];
    let is_there = |system: &dyn System| {
        let there = system.version().is_some();
        if !there {
            eprintln!("SKIP: {} is not installed", system.name());
        }
        there
    };
    all.into_iter()
        .filter(|system| is_there(&**system))
        .collect()
}

fn program(name: &str) -> Option<PathBuf> {
    FOLDERS
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.exists())
}

/// The first line that a program says of itself.
fn first_line(name: &str, argument: &str) -> Option<String> {
    let output = Command::new(program(name)?).arg(argument).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().next().map(str::to_owned)
}

fn read_exactly(stream: &mut Stream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

fn read_line(stream: &mut Stream) -> String {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        line.extend(read_exactly(stream, 1));
    }
    String::from_utf8(line).unwrap()
}

fn send(stream: &mut Stream, bytes: &[u8]) {
    stream.write_all(bytes).unwrap();
}
