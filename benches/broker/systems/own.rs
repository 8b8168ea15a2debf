//! secure_socket itself: the daemon as it is installed, with policy, sandbox and
//! logging as they are by default.

use std::path::Path;
use std::process::Command;

use secure_socket::frame::{Frame, FrameLimit, Greeting, HEADER_BYTES, Pattern, Subject};

use super::{Duplex, Pair, Server, Stream, System, read_exactly, send};

const TOPIC: &[u8] = b"bench.topic";
const ASK: &[u8] = b"bench.ask";

pub struct SecureSocket {
    name: &'static str,
    threads: &'static str,
}

impl SecureSocket {
    pub const POOL: Self = Self {
        name: "secure_socket multi",
        threads: "threads=multi",
    };
    pub const LOOPS: Self = Self {
        name: "secure_socket 2",
        threads: "threads=2",
    };
}

fn encoded(frame: &Frame<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    bytes
}

impl System for SecureSocket {
    fn name(&self) -> &'static str {
        self.name
    }

    fn version(&self) -> Option<String> {
        Some(format!("{}, {}", env!("CARGO_PKG_VERSION"), self.threads))
    }

    fn start(&self, folder: &Path) -> Server {
        let path = folder.join("d/s");
        let mut command = Command::new(env!("CARGO_BIN_EXE_secure_socket"));
        command
            .arg(format!("socket_path={}", path.display()))
            .args(["service=broker", "max_connections=256", self.threads])
            // As for the others: no bound that a user of one machine has.
            .arg("broker_pending_per_uid=4G");
        Server::start(&mut command, path, 0)
    }

    fn connect(&self, server: &Server) -> Stream {
        let mut stream = server.connect();
        let accepts = FrameLimit::DEFAULT;
        send(&mut stream, &Greeting { accepts }.encode());
        read_exactly(&mut stream, 16);
        stream
    }

    fn subscriber(&self, server: &Server) -> Stream {
        let mut stream = self.connect(server);
        let frame = Frame::Subscribe {
            id: 1,
            pattern: Pattern::new(TOPIC).unwrap(),
            drop_oldest: false,
        };
        send(&mut stream, &encoded(&frame));
        read_exactly(&mut stream, HEADER_BYTES);
        stream
    }

    fn publisher(&self, server: &Server) -> Stream {
        self.connect(server)
    }

    fn publish(&self, size: usize) -> Vec<u8> {
        encoded(&Frame::Publish {
            id: 0,
            subject: Subject::new(TOPIC).unwrap(),
            body: &vec![b'x'; size],
        })
    }

    fn pair(&self, server: &Server, size: usize) -> Pair {
        let mut responder = self.connect(server);
        let pattern = Pattern::new(ASK).unwrap();
        send(&mut responder, &encoded(&Frame::Serve { id: 1, pattern }));
        read_exactly(&mut responder, HEADER_BYTES);
        let request = encoded(&Frame::Request {
            id: 1,
            subject: Subject::new(ASK).unwrap(),
            body: &vec![b'x'; size],
        });
        let answer = |request: &[u8], size| {
            encoded(&Frame::Reply {
                id: u64::from_be_bytes(request[8..16].try_into().unwrap()),
                body: &vec![b'y'; size],
            })
        };
        Pair {
            asker: Duplex::one(self.connect(server)),
            request,
            responder: Duplex::one(responder),
            answer,
        }
    }
}
