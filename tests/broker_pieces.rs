//! A whole conversation with the broker of the daemon, cut at every byte: however the
//! bytes come, the same frames come back.
#![cfg(feature = "daemon")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod support;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use secure_socket::frame::{
    Decoder, Frame, FrameLimit, Greeting, Kind, Pattern, Received, Side, Subject,
};
use support::Daemon;

/// Kind, id and body of a frame that came.
type Got = (Kind, u64, Vec<u8>);

struct Client {
    stream: UnixStream,
    decoder: Decoder,
}

impl Client {
    fn connect(daemon: &Daemon) -> Self {
        let stream = daemon.connect();
        let decoder = Decoder::new(Side::Broker, FrameLimit::MAX);
        Self { stream, decoder }
    }

    fn read(&mut self, wanted: usize) -> Vec<Got> {
        let mut found = Vec::new();
        while found.len() < wanted {
            let count = self.stream.read(self.decoder.space()).unwrap();
            assert!(count > 0, "closed after {found:?}");
            self.decoder.filled(count);
            for received in self.decoder.frames() {
                match received.unwrap() {
                    Received::Greeting(_) => {}
                    Received::Frame(frame) => {
                        found.push((frame.kind(), frame.id(), body(&frame).to_vec()));
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        assert!(self.decoder.is_between_frames());
        found
    }
}

fn body<'a>(frame: &Frame<'a>) -> &'a [u8] {
    match *frame {
        Frame::Message { body, .. }
        | Frame::Deliver { body, .. }
        | Frame::Answer { body, .. }
        | Frame::Pong { body, .. } => body,
        _ => b"",
    }
}

fn bytes(frames: &[Frame<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    frames.iter().for_each(|frame| frame.encode(&mut out));
    out
}

fn opening() -> Vec<u8> {
    let subject = |text: &'static str| Subject::new(text.as_bytes()).unwrap();
    let pattern = |text: &'static str| Pattern::new(text.as_bytes()).unwrap();
    let accepts = FrameLimit::DEFAULT;
    let mut all = Greeting { accepts }.encode().to_vec();
    all.extend(bytes(&[
        Frame::Ping { id: 1, body: b"?" },
        Frame::Subscribe {
            id: 2,
            pattern: pattern("a.*"),
            drop_oldest: true,
        },
        Frame::Serve {
            id: 3,
            pattern: pattern("s"),
        },
        Frame::Publish {
            id: 4,
            subject: subject("a.b"),
            body: b"news",
        },
        Frame::Request {
            id: 5,
            subject: subject("s"),
            body: b"when",
        },
    ]));
    all
}

fn closing(number: u64) -> Vec<u8> {
    bytes(&[
        Frame::Reply {
            id: number,
            body: b"now",
        },
        Frame::Unsubscribe { id: 2 },
        Frame::Unserve { id: 3 },
        Frame::Unsubscribe { id: 9 },
        Frame::Ping { id: 6, body: b"" },
    ])
}

/// Says all of it by way of `send`, and checks every answer.
#[track_caller]
fn converse(daemon: &Daemon, send: impl Fn(&mut UnixStream, &[u8]), how: &str) {
    let mut client = Client::connect(daemon);
    let frame = |kind, id, body: &[u8]| (kind, id, body.to_vec());
    send(&mut client.stream, &opening());
    let got = client.read(6);
    let number = got[5].1;
    let expect = [
        frame(Kind::Pong, 1, b"?"),
        frame(Kind::Ok, 2, b""),
        frame(Kind::Ok, 3, b""),
        frame(Kind::Message, 2, b"news"),
        frame(Kind::Ok, 4, b""),
        frame(Kind::Deliver, number, b"when"),
    ];
    assert_eq!(got, expect, "{how}");
    send(&mut client.stream, &closing(number));
    let expect = [
        frame(Kind::Answer, 5, b"now"),
        frame(Kind::Ok, 2, b""),
        frame(Kind::Ok, 3, b""),
        frame(Kind::Error, 9, b""),
        frame(Kind::Pong, 6, b""),
    ];
    assert_eq!(client.read(5), expect, "{how}");
}

/// So that the daemon reads what was written, and no more.
fn pause() {
    thread::sleep(Duration::from_micros(500));
}

#[test]
fn a_conversation_may_be_cut_anywhere() {
    for threads in ["threads=multi", "threads=single", "threads=2"] {
        let daemon = Daemon::start(&["service=broker", threads]);
        for cut in 0..opening().len().max(closing(0).len()) {
            let in_two = |stream: &mut UnixStream, all: &[u8]| {
                let (first, second) = all.split_at(cut.min(all.len()));
                stream.write_all(first).unwrap();
                pause();
                stream.write_all(second).unwrap();
            };
            converse(&daemon, in_two, &format!("{threads}, cut at {cut}"));
        }
    }
}

#[test]
fn each_byte_may_come_on_its_own() {
    for threads in ["threads=multi", "threads=single", "threads=2"] {
        let daemon = Daemon::start(&["service=broker", threads]);
        let one_by_one = |stream: &mut UnixStream, all: &[u8]| {
            for byte in all.chunks(1) {
                stream.write_all(byte).unwrap();
                pause();
            }
        };
        converse(&daemon, one_by_one, threads);
    }
}
