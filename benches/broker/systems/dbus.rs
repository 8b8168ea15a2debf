//! The two message buses of D-Bus, dbus-daemon and dbus-broker: a message is a
//! signal for which subscribers have a match rule, a request is a method call.
//!
//! dbus-broker is told by its controller what to listen on, and who may do what; the
//! benchmark is that controller, over the child's standard input.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::{Duplex, Pair, Server, Stream, System, first_line, program, read_exactly, send};

pub enum Dbus {
    Daemon,
    Broker,
}

/// More than any of these shapes needs, so that nobody is cut off for it.
const CONFIGURATION: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>unix:path=PATH</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
    <allow user="*"/>
  </policy>
  <limit name="max_incoming_bytes">1000000000</limit>
  <limit name="max_outgoing_bytes">1000000000</limit>
  <limit name="max_message_size">100000000</limit>
  <limit name="max_completed_connections">100000</limit>
  <limit name="max_connections_per_user">100000</limit>
</busconfig>
"#;

const CALL: u8 = 1;
const ANSWER: u8 = 2;
const SIGNAL: u8 = 4;

/// Values in D-Bus's encoding, little-endian (D-Bus Specification, "Marshaling").
#[derive(Default)]
struct Body(Vec<u8>);

impl Body {
    fn align(&mut self, to: usize) -> &mut Self {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
        self
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        self.align(4).0.extend(value.to_le_bytes());
        self
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.align(8).0.extend(value.to_le_bytes());
        self
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.u32(text.len() as u32).0.extend(text.as_bytes());
        self.0.push(0);
        self
    }

    fn signature(&mut self, text: &str) -> &mut Self {
        self.0.push(text.len() as u8);
        self.0.extend(text.as_bytes());
        self.0.push(0);
        self
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.u32(bytes.len() as u32).0.extend(bytes);
        self
    }

    /// An array whose elements start at a multiple of 8.
    fn structs(&mut self, fill: impl FnOnce(&mut Self)) -> &mut Self {
        self.u32(0);
        let place = self.0.len() - 4;
        self.align(8);
        let start = self.0.len();
        fill(self);
        let length = (self.0.len() - start) as u32;
        self.0[place..place + 4].copy_from_slice(&length.to_le_bytes());
        self
    }
}

/// The fields of a header, by their codes.
enum Field<'a> {
    Path(&'a str),
    Interface(&'a str),
    Member(&'a str),
    ReplySerial(u32),
    Destination(&'a str),
    Signature(&'a str),
    Descriptors(u32),
}

fn message(kind: u8, flags: u8, fields: &[Field<'_>], body: &[u8]) -> Vec<u8> {
    let mut head = Body(vec![b'l', kind, flags, 1]);
    // The serial may repeat once its call was answered.
    head.u32(body.len() as u32).u32(1);
    head.structs(|head| {
        for field in fields {
            head.align(8);
            let (code, signature) = match field {
                Field::Path(_) => (1, "o"),
                Field::Interface(_) => (2, "s"),
                Field::Member(_) => (3, "s"),
                Field::ReplySerial(_) => (5, "u"),
                Field::Destination(_) => (6, "s"),
                Field::Signature(_) => (8, "g"),
                Field::Descriptors(_) => (9, "u"),
            };
            head.0.push(code);
            head.signature(signature);
            match field {
                Field::Path(text)
                | Field::Interface(text)
                | Field::Member(text)
                | Field::Destination(text) => head.text(text),
                Field::ReplySerial(number) | Field::Descriptors(number) => head.u32(*number),
                Field::Signature(text) => head.signature(text),
            };
        }
    });
    head.align(8);
    head.0.extend(body);
    head.0
}

/// One message as it comes.
fn read_message(stream: &mut Stream) -> Vec<u8> {
    let mut bytes = read_exactly(stream, 16);
    let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let rest = number(12).next_multiple_of(8) + number(4);
    bytes.extend(read_exactly(stream, rest));
    bytes
}

fn read_answer(stream: &mut Stream) -> Vec<u8> {
    loop {
        let bytes = read_message(stream);
        match bytes[1] {
            ANSWER => return bytes,
            SIGNAL => (),
            kind => panic!("kind {kind}: {}", String::from_utf8_lossy(&bytes)),
        }
    }
}

fn authenticate(stream: &mut Stream) {
    let uid = rustix::process::geteuid().as_raw().to_string();
    let hex: String = uid.bytes().map(|byte| format!("{byte:02x}")).collect();
    send(stream, format!("\0AUTH EXTERNAL {hex}\r\n").as_bytes());
    assert!(super::read_line(stream).starts_with("OK"));
    send(stream, b"NEGOTIATE_UNIX_FD\r\n");
    assert_eq!(super::read_line(stream), "AGREE_UNIX_FD\r\n");
    send(stream, b"BEGIN\r\n");
}

fn ask_the_bus(stream: &mut Stream, member: &str, signature: &str, body: &[u8]) -> Vec<u8> {
    let mut fields = vec![
        Field::Path("/org/freedesktop/DBus"),
        Field::Interface("org.freedesktop.DBus"),
        Field::Member(member),
        Field::Destination("org.freedesktop.DBus"),
    ];
    if !signature.is_empty() {
        fields.push(Field::Signature(signature));
    }
    send(stream, &message(CALL, 0, &fields, body));
    read_answer(stream)
}

/// A connection, and the name that the bus gave it.
fn connect(server: &Server) -> (Stream, String) {
    let mut stream = server.connect();
    authenticate(&mut stream);
    let answer = ask_the_bus(&mut stream, "Hello", "", &[]);
    let start = answer.len() - u32::from_le_bytes(answer[4..8].try_into().unwrap()) as usize;
    let name = String::from_utf8(answer[start + 4..answer.len() - 1].to_vec()).unwrap();
    // What it says besides: NameAcquired.
    if !answer.is_empty() {
        read_message(&mut stream);
    }
    (stream, name)
}

fn method(kind: u8, fields: &[Field<'_>], size: usize) -> Vec<u8> {
    let mut body = Body::default();
    body.bytes(&vec![b'x'; size]);
    message(kind, 0, fields, &body.0)
}

/// Everybody may do everything.
fn policy(body: &mut Body) {
    let rules = |body: &mut Body| {
        body.align(8).u32(1).u64(1);
        body.structs(|body| {
            body.align(8).u32(1).u64(1).u32(1).text("");
        });
        for _ in ["send", "receive"] {
            body.structs(|body| {
                body.align(8).u32(1).u64(1);
                for _ in ["name", "path", "interface", "member"] {
                    body.text("");
                }
                body.u32(0).u32(0).u64(0).u64(u64::MAX);
            });
        }
    };
    let batch = "bta(btbs)a(btssssuutt)a(btssssuutt)";
    body.signature(&format!("(a(u({batch}))a(buu({batch}))a(ss)bs)"));
    body.align(8);
    body.structs(|body| {
        body.align(8).u32(u32::MAX);
        rules(body);
    });
    body.structs(|_| ()).structs(|_| ()).u32(0).text("session");
}

/// Tells dbus-broker, over its controller's socket, to serve this listener.
fn add_listener(controller: &mut Stream, listener: &UnixListener) {
    authenticate(controller);
    let mut body = Body::default();
    body.text("/org/bus1/DBus/Listener/0").u32(0);
    policy(&mut body);
    let fields = [
        Field::Path("/org/bus1/DBus/Broker"),
        Field::Interface("org.bus1.DBus.Broker"),
        Field::Member("AddListener"),
        Field::Signature("ohv"),
        Field::Descriptors(1),
    ];
    let bytes = message(CALL, 0, &fields, &body.0);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [listener.as_fd()];
    assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
    let slices = [IoSlice::new(&bytes)];
    let sent = sendmsg(&*controller, &slices, &mut control, SendFlags::empty()).unwrap();
    assert_eq!(sent, bytes.len());
    read_answer(controller);
}

fn start_broker(folder: &Path) -> Server {
    let path = folder.join("s");
    let listener = UnixListener::bind(&path).unwrap();
    listener.set_nonblocking(true).unwrap();
    let (mut ours, theirs) = Stream::pair().unwrap();
    let child = Command::new(program("dbus-broker").unwrap())
        .args([
            "--controller",
            "0",
            "--machine-id",
            &"0123456789abcdef".repeat(2),
        ])
        .args(["--max-bytes", "1000000000", "--max-fds", "1000000"])
        .args(["--max-matches", "1000000", "--max-objects", "1000000"])
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    add_listener(&mut ours, &listener);
    Server {
        child,
        path,
        port: 0,
        _held: Some(ours),
    }
}

impl System for Dbus {
    fn name(&self) -> &'static str {
        match self {
            Self::Daemon => "dbus-daemon",
            Self::Broker => "dbus-broker",
        }
    }

    fn version(&self) -> Option<String> {
        let version = first_line(self.name(), "--version")?;
        Some(match self {
            Self::Daemon => version,
            Self::Broker => format!("dbus-broker {version}"),
        })
    }

    fn start(&self, folder: &Path) -> Server {
        if matches!(self, Self::Broker) {
            return start_broker(folder);
        }
        let (path, file) = (folder.join("s"), folder.join("conf"));
        let settings = CONFIGURATION.replace("PATH", path.to_str().unwrap());
        std::fs::write(&file, settings).unwrap();
        let mut daemon = Command::new(program("dbus-daemon").unwrap());
        daemon
            .arg(format!("--config-file={}", file.display()))
            .args(["--nofork", "--nosyslog", "--nopidfile"]);
        Server::start(&mut daemon, path, 0)
    }

    fn connect(&self, server: &Server) -> Stream {
        connect(server).0
    }

    fn subscriber(&self, server: &Server) -> Stream {
        let (mut stream, _) = connect(server);
        let mut rule = Body::default();
        rule.text("type='signal',interface='bench.Topic',member='Said'");
        ask_the_bus(&mut stream, "AddMatch", "s", &rule.0);
        stream
    }

    fn publisher(&self, server: &Server) -> Stream {
        connect(server).0
    }

    fn publish(&self, size: usize) -> Vec<u8> {
        let fields = [
            Field::Path("/bench"),
            Field::Interface("bench.Topic"),
            Field::Member("Said"),
            Field::Signature("ay"),
        ];
        method(SIGNAL, &fields, size)
    }

    fn pair(&self, server: &Server, size: usize) -> Pair {
        // In this order: it makes the asker ":1.N" of what the answer is sent to.
        let (asker, _) = connect(server);
        let (responder, name) = connect(server);
        let fields = [
            Field::Path("/bench"),
            Field::Interface("bench.Service"),
            Field::Member("Ask"),
            Field::Destination(&name),
            Field::Signature("ay"),
        ];
        let answer = |request: &[u8], size| {
            let fields = [
                Field::ReplySerial(1),
                Field::Destination(sender_of(request)),
                Field::Signature("ay"),
            ];
            method(ANSWER, &fields, size)
        };
        Pair {
            asker: Duplex::one(asker),
            request: method(CALL, &fields, size),
            responder: Duplex::one(responder),
            answer,
        }
    }
}

/// What the bus wrote into the field SENDER (7).
fn sender_of(message: &[u8]) -> &str {
    let mark = [7, 1, b's', 0];
    let at = message.windows(4).position(|four| four == mark).unwrap() + 4;
    let length = u32::from_le_bytes(message[at..at + 4].try_into().unwrap()) as usize;
    std::str::from_utf8(&message[at + 4..at + 4 + length]).unwrap()
}
