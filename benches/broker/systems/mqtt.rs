//! mosquitto: MQTT 3.1.1 with QoS 0 over a Unix-domain listener.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Duplex, Pair, Server, Stream, System, first_line, program, read_exactly, send};

const TOPIC: &str = "bench/topic";
const ASK: &str = "bench/ask";
const TELL: &str = "bench/tell";

pub struct Mosquitto;

fn packet(first: u8, content: &[u8]) -> Vec<u8> {
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

fn text(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u16).to_be_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

fn publish_to(topic: &str, body: &[u8]) -> Vec<u8> {
    packet(0x30, &[&text(topic), body].concat())
}

fn connect(server: &Server) -> Stream {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let name = format!("c{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let mut stream = server.connect();
    let head = [text("MQTT"), vec![4, 2, 0, 0], text(&name)];
    send(&mut stream, &packet(0x10, &head.concat()));
    read_exactly(&mut stream, 4);
    stream
}

fn subscribe(server: &Server, topic: &str) -> Stream {
    let mut stream = connect(server);
    let content = [vec![0, 1], text(topic), vec![0]].concat();
    send(&mut stream, &packet(0x82, &content));
    read_exactly(&mut stream, 5);
    stream
}

impl System for Mosquitto {
    fn name(&self) -> &'static str {
        "mosquitto"
    }

    fn version(&self) -> Option<String> {
        first_line("mosquitto", "-h")
    }

    fn start(&self, folder: &Path) -> Server {
        let (path, file) = (folder.join("s"), folder.join("conf"));
        let settings = format!(
            "listener 0 {}\nallow_anonymous true\nmax_queued_messages 0\n\
             max_inflight_messages 0\nuser root\n",
            path.display()
        );
        std::fs::write(&file, settings).unwrap();
        let mut mosquitto = Command::new(program("mosquitto").unwrap());
        Server::start(mosquitto.arg("-c").arg(file), path, 0)
    }

    fn connect(&self, server: &Server) -> Stream {
        connect(server)
    }

    fn subscriber(&self, server: &Server) -> Stream {
        subscribe(server, TOPIC)
    }

    fn publisher(&self, server: &Server) -> Stream {
        connect(server)
    }

    fn publish(&self, size: usize) -> Vec<u8> {
        publish_to(TOPIC, &vec![b'x'; size])
    }

    fn pair(&self, server: &Server, size: usize) -> Pair {
        Pair {
            asker: Duplex {
                input: subscribe(server, TELL),
                output: connect(server),
            },
            request: publish_to(ASK, &vec![b'x'; size]),
            responder: Duplex {
                input: subscribe(server, ASK),
                output: connect(server),
            },
            answer: |_, size| publish_to(TELL, &vec![b'y'; size]),
        }
    }
}
