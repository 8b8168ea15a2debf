//! nats-server. It has no Unix-domain listener, so it is spoken to over the
//! loopback interface, without delay for small packets.

use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;

use super::{Duplex, Pair, Server, Stream, System, first_line, program, read_line, send};

const TOPIC: &str = "bench.topic";
const ASK: &str = "bench.ask";
const TELL: &str = "bench.tell";

pub struct Nats;

fn publish_to(subject: &str, reply: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("PUB {subject}{reply} {}\r\n", body.len());
    [head.as_bytes(), body, b"\r\n"].concat()
}

fn connect(server: &Server) -> Stream {
    let stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut stream = Stream::from(OwnedFd::from(stream));
    assert!(read_line(&mut stream).starts_with("INFO"));
    send(&mut stream, b"CONNECT {\"verbose\":false}\r\nPING\r\n");
    assert_eq!(read_line(&mut stream), "PONG\r\n");
    stream
}

fn subscribe(server: &Server, subject: &str) -> Stream {
    let mut stream = connect(server);
    send(
        &mut stream,
        format!("SUB {subject} 1\r\nPING\r\n").as_bytes(),
    );
    assert_eq!(read_line(&mut stream), "PONG\r\n");
    stream
}

impl System for Nats {
    fn name(&self) -> &'static str {
        "nats-server"
    }

    fn version(&self) -> Option<String> {
        first_line("nats-server", "--version").map(|line| format!("{line}, TCP on loopback"))
    }

    fn start(&self, folder: &Path) -> Server {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let mut nats = Command::new(program("nats-server").unwrap());
        nats.args(["-a", "127.0.0.1", "-p", &port.to_string()]);
        Server::start(nats.current_dir(folder), folder.join("none"), port)
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
        publish_to(TOPIC, "", &vec![b'x'; size])
    }

    fn pair(&self, server: &Server, size: usize) -> Pair {
        Pair {
            asker: Duplex::one(subscribe(server, TELL)),
            request: publish_to(ASK, &format!(" {TELL}"), &vec![b'x'; size]),
            responder: Duplex::one(subscribe(server, ASK)),
            answer: |_, size| publish_to(TELL, "", &vec![b'y'; size]),
        }
    }
}
