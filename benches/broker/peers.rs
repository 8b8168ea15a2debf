//! The systems under test, each in its own protocol, as bytes.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a benchmark"
)]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use secure_socket::frame::{Frame, FrameLimit, Greeting, Pattern, STAMP_BYTES, Subject};

const TOPIC: &str = "bench.topic";
const ASK: &str = "bench.ask";
const TELL: &str = "bench.tell";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum System {
    SecureSocket,
    Redis,
    Mosquitto,
}

fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let extra = ["/usr/sbin", "/sbin"].map(std::path::PathBuf::from);
    std::env::split_paths(&path)
        .chain(extra)
        .any(|folder| folder.join(program).exists())
}

fn subject(text: &str) -> Subject<'_> {
    Subject::new(text.as_bytes()).unwrap()
}

fn encoded(frame: &Frame<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    bytes
}

fn resp(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", parts.len()).into_bytes();
    for part in parts {
        bytes.extend(format!("${}\r\n", part.len()).bytes());
        bytes.extend_from_slice(part);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// A packet of MQTT 3.1.1.
fn mqtt(first: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut left = content.len();
    loop {
        let more = if left > 127 { 0x80 } else { 0 };
        bytes.push((left & 127) as u8 | more);
        left >>= 7;
        if left == 0 {
            break;
        }
    }
    bytes.extend_from_slice(content);
    bytes
}

fn mqtt_text(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u16).to_be_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

fn mqtt_publish(topic: &str, body: &[u8]) -> Vec<u8> {
    let mut content = mqtt_text(&topic.replace('.', "/"));
    content.extend_from_slice(body);
    mqtt(0x30, &content)
}

impl System {
    pub fn available() -> Vec<Self> {
        let mut all = vec![Self::SecureSocket];
        all.extend(is_there("redis-server").then_some(Self::Redis));
        all.extend(is_there("mosquitto").then_some(Self::Mosquitto));
        all
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::SecureSocket => "secure_socket",
            Self::Redis => "redis",
            Self::Mosquitto => "mosquitto",
        }
    }

    /// How to start it; `None` for our own.
    pub fn command(self, path: &str) -> Option<Command> {
        match self {
            Self::SecureSocket => None,
            Self::Redis => {
                let mut command = Command::new("redis-server");
                command.args([
                    "--port",
                    "0",
                    "--unixsocket",
                    path,
                    "--save",
                    "",
                    "--appendonly",
                    "no",
                ]);
                command.args(["--client-output-buffer-limit", "pubsub 0 0 0"]);
                Some(command)
            }
            Self::Mosquitto => {
                let file = format!("{path}.conf");
                let text = format!(
                    "listener 0 {path}\nallow_anonymous true\nmax_queued_messages 0\n\
                     max_inflight_messages 0\nset_tcp_nodelay true\nuser root\n"
                );
                std::fs::write(&file, text).unwrap();
                let mut command = Command::new("/usr/sbin/mosquitto");
                command.args(["-c", &file]);
                Some(command)
            }
        }
    }

    fn connect(self, path: &str, name: &str) -> UnixStream {
        let mut stream = UnixStream::connect(path).unwrap();
        match self {
            Self::SecureSocket => {
                stream
                    .write_all(
                        &Greeting {
                            accepts: FrameLimit::DEFAULT,
                        }
                        .encode(),
                    )
                    .unwrap();
                stream.read_exact(&mut [0; 16]).unwrap();
            }
            Self::Redis => (),
            Self::Mosquitto => {
                let mut content = mqtt_text("MQTT");
                content.extend([4, 2, 0, 0]);
                content.extend(mqtt_text(name));
                stream.write_all(&mqtt(0x10, &content)).unwrap();
                stream.read_exact(&mut [0; 4]).unwrap();
            }
        }
        stream
    }

    pub fn publisher(self, path: &str) -> UnixStream {
        static NUMBER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        self.connect(
            path,
            &format!("p{}", NUMBER.fetch_add(1, Ordering::Relaxed)),
        )
    }

    pub fn subscriber(self, path: &str, number: usize) -> UnixStream {
        self.subscribe(path, &format!("s{number}"), TOPIC)
    }

    fn subscribe(self, path: &str, name: &str, topic: &str) -> UnixStream {
        let mut stream = self.connect(path, name);
        match self {
            Self::SecureSocket => {
                let pattern = Pattern::new(topic.as_bytes()).unwrap();
                let frame = Frame::Subscribe {
                    id: 1,
                    pattern,
                    drop_oldest: false,
                };
                stream.write_all(&encoded(&frame)).unwrap();
                stream.read_exact(&mut [0; 16]).unwrap();
            }
            Self::Redis => {
                stream
                    .write_all(&resp(&[b"SUBSCRIBE", topic.as_bytes()]))
                    .unwrap();
                let answer = resp(&[b"subscribe", topic.as_bytes()]).len() + ":1\r\n".len();
                stream.read_exact(&mut vec![0; answer]).unwrap();
            }
            Self::Mosquitto => {
                let mut content = vec![0, 1];
                content.extend(mqtt_text(&topic.replace('.', "/")));
                content.push(0);
                stream.write_all(&mqtt(0x82, &content)).unwrap();
                stream.read_exact(&mut [0; 5]).unwrap();
            }
        }
        stream
    }

    pub fn publish_frame(self, size: usize) -> Vec<u8> {
        self.publish_to(TOPIC, size)
    }

    fn publish_to(self, topic: &str, size: usize) -> Vec<u8> {
        let body = vec![b'x'; size];
        match self {
            Self::SecureSocket => encoded(&Frame::Publish {
                id: 0,
                subject: subject(topic),
                body: &body,
            }),
            Self::Redis => resp(&[b"PUBLISH", topic.as_bytes(), &body]),
            Self::Mosquitto => mqtt_publish(topic, &body),
        }
    }

    /// Length of a message as it arrives.
    pub fn delivered_bytes(self, size: usize) -> u64 {
        self.arriving(TOPIC, size) as u64
    }

    fn arriving(self, topic: &str, size: usize) -> usize {
        match self {
            Self::SecureSocket => 16 + topic.len() + STAMP_BYTES + size,
            Self::Redis => resp(&[b"message", topic.as_bytes(), &vec![0; size]]).len(),
            Self::Mosquitto => mqtt_publish(topic, &vec![0; size]).len(),
        }
    }

    /// Whether publishers must read.
    pub fn answers_publishers(self) -> bool {
        self == Self::Redis
    }

    /// Two connections: one that asks, one that answers. Systems without requests
    /// use a topic in each direction, on two connections for each side if need be.
    pub fn request_pair(self, path: &str) -> (Duplex, Duplex) {
        match self {
            Self::SecureSocket => {
                let asker = self.connect(path, "a");
                let mut server = self.connect(path, "b");
                let pattern = Pattern::new(ASK.as_bytes()).unwrap();
                server
                    .write_all(&encoded(&Frame::Serve { id: 1, pattern }))
                    .unwrap();
                server.read_exact(&mut [0; 16]).unwrap();
                (Duplex::one(asker), Duplex::one(server))
            }
            _ => {
                let asker = self.subscribe(path, "a", TELL);
                let server = self.subscribe(path, "b", ASK);
                let (out, back) = (self.connect(path, "c"), self.connect(path, "d"));
                (
                    Duplex {
                        input: asker,
                        output: out,
                    },
                    Duplex {
                        input: server,
                        output: back,
                    },
                )
            }
        }
    }

    /// A request, and the length of its answer.
    pub fn ask(self, size: usize) -> (Vec<u8>, usize) {
        match self {
            Self::SecureSocket => {
                let body = vec![b'x'; size];
                let frame = Frame::Request {
                    id: 1,
                    subject: subject(ASK),
                    body: &body,
                };
                (encoded(&frame), 16 + STAMP_BYTES + size)
            }
            _ => (self.publish_to(ASK, size), self.arriving(TELL, size)),
        }
    }

    /// Answers until the connection ends.
    pub fn answer_all(self, server: &mut Duplex, size: usize, over: &AtomicBool) {
        let mut request = vec![0; self.arriving(ASK, size)];
        let mut answer = match self {
            Self::SecureSocket => encoded(&Frame::Reply {
                id: 0,
                body: &vec![b'y'; size],
            }),
            _ => self.publish_to(TELL, size),
        };
        while !over.load(Ordering::Relaxed) {
            if server.read_exact(&mut request).is_err() {
                return;
            }
            if self == Self::SecureSocket {
                answer[8..16].copy_from_slice(&request[8..16]);
            }
            if server.write_all(&answer).is_err() {
                return;
            }
        }
    }
}

/// Where to read, and where to write.
pub struct Duplex {
    input: UnixStream,
    output: UnixStream,
}

impl Duplex {
    fn one(stream: UnixStream) -> Self {
        Self {
            output: stream.try_clone().unwrap(),
            input: stream,
        }
    }

    pub fn read_exact(&mut self, buffer: &mut [u8]) -> std::io::Result<()> {
        self.input.read_exact(buffer)
    }

    pub fn write_all(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.output.write_all(bytes)
    }
}
