//! redis: PUBLISH and SUBSCRIBE (RESP2) over its Unix-domain socket. Publishers
//! turn replies off, which is the quickest that it offers.

use std::path::Path;
use std::process::Command;

use super::{Duplex, Pair, Server, Stream, System, first_line, program, read_exactly, send};

const TOPIC: &[u8] = b"bench.topic";
const ASK: &[u8] = b"bench.ask";
const TELL: &[u8] = b"bench.tell";

pub struct Redis;

fn command(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", parts.len()).into_bytes();
    for part in parts {
        bytes.extend(format!("${}\r\n", part.len()).bytes());
        bytes.extend_from_slice(part);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

fn subscribe(server: &Server, topic: &[u8]) -> Stream {
    let mut stream = server.connect();
    send(&mut stream, &command(&[b"SUBSCRIBE", topic]));
    let confirmation = command(&[b"subscribe", topic]).len() + b":1\r\n".len();
    read_exactly(&mut stream, confirmation);
    stream
}

impl System for Redis {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn version(&self) -> Option<String> {
        first_line("redis-server", "--version")
    }

    fn start(&self, folder: &Path) -> Server {
        let path = folder.join("s");
        let mut redis = Command::new(program("redis-server").unwrap());
        redis.arg("--unixsocket").arg(&path).args([
            "--port",
            "0",
            "--save",
            "",
            "--appendonly",
            "no",
            "--client-output-buffer-limit",
            "pubsub 0 0 0",
        ]);
        Server::start(redis.current_dir(folder), path, 0)
    }

    fn connect(&self, server: &Server) -> Stream {
        server.connect()
    }

    fn subscriber(&self, server: &Server) -> Stream {
        subscribe(server, TOPIC)
    }

    fn publisher(&self, server: &Server) -> Stream {
        let mut stream = server.connect();
        send(&mut stream, &command(&[b"CLIENT", b"REPLY", b"OFF"]));
        stream
    }

    fn publish(&self, size: usize) -> Vec<u8> {
        command(&[b"PUBLISH", TOPIC, &vec![b'x'; size]])
    }

    fn pair(&self, server: &Server, size: usize) -> Pair {
        Pair {
            asker: Duplex {
                input: subscribe(server, TELL),
                output: self.publisher(server),
            },
            request: command(&[b"PUBLISH", ASK, &vec![b'x'; size]]),
            responder: Duplex {
                input: subscribe(server, ASK),
                output: self.publisher(server),
            },
            answer: |_, size| command(&[b"PUBLISH", TELL, &vec![b'y'; size]]),
        }
    }
}
