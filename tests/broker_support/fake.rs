//! The broker without its server: clients whose sockets hold as much as a test says.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test; each program uses its own part of it"
)]

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use secure_socket::frame::{
    Decoder, ErrorCode, Frame, FrameLimit, Greeting, Pattern, Received, Side, Stamp, Subject,
};
use secure_socket::ids::{Gid, Uid};
use secure_socket::peer::{Credentials, Fact, Facts, IdMaps};
use secure_socket::service::broker::{Broker, Identity, Limits, Permits, Port, Sink};

/// A socket that holds a stated number of bytes.
pub struct Wire {
    room: usize,
    held: VecDeque<u8>,
    wakes: usize,
}

pub struct FakeSocket(Mutex<Wire>);

impl Sink for FakeSocket {
    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut wire = self.0.lock().unwrap();
        let before = wire.held.len();
        for byte in slices.iter().flat_map(|slice| slice.iter()) {
            if wire.held.len() >= wire.room {
                break;
            }
            wire.held.push_back(*byte);
        }
        match wire.held.len() - before {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            sent => Ok(sent),
        }
    }

    fn wake(&self) {
        self.0.lock().unwrap().wakes += 1;
    }
}

/// A frame that arrived, owned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Got {
    Message {
        id: u64,
        subject: String,
        stamp: Stamp,
        body: Vec<u8>,
    },
    Deliver {
        id: u64,
        subject: String,
        stamp: Stamp,
        body: Vec<u8>,
    },
    Answer {
        id: u64,
        stamp: Stamp,
        body: Vec<u8>,
    },
    Ok(u64),
    Error(u64, ErrorCode, String),
    Gap(u64, u64),
    Other(String),
}

pub struct Client {
    pub port: Port,
    pub wire: Arc<FakeSocket>,
    decoder: Decoder,
}

impl Client {
    pub fn join(broker: &Arc<Broker>, connection: u64, uid: u32) -> Self {
        Self::join_with(broker, connection, uid, FrameLimit::MAX)
    }

    pub fn join_with(broker: &Arc<Broker>, connection: u64, uid: u32, accepts: FrameLimit) -> Self {
        let wire = Wire {
            room: usize::MAX,
            held: VecDeque::new(),
            wakes: 0,
        };
        let wire = Arc::new(FakeSocket(Mutex::new(wire)));
        let credentials = Credentials::from_raw(7, uid, uid, IdMaps::FULL);
        let identity = Identity {
            connection,
            uid: Uid::from_raw(uid),
            gid: Gid::from_raw(uid),
            pid: None,
            flags: 0,
        };
        let facts = Facts::of(Fact::Known(credentials));
        let port = broker.join(identity, facts, Arc::clone(&wire) as Arc<dyn Sink>, accepts);
        let mut decoder = Decoder::new(Side::Broker, FrameLimit::MAX);
        decoder.push(
            &Greeting {
                accepts: FrameLimit::DEFAULT,
            }
            .encode(),
        );
        decoder.frames().next();
        Self {
            port,
            wire,
            decoder,
        }
    }

    pub fn send(&mut self, frames: &[Frame<'_>]) {
        let mut batch = self.port.batch(Instant::now());
        for frame in frames {
            batch.frame(frame);
        }
    }

    pub fn room(&self, bytes: usize) {
        self.wire.0.lock().unwrap().room = bytes;
    }

    /// Reads everything that is there or waits.
    pub fn read(&mut self) -> Vec<Got> {
        let mut found = Vec::new();
        self.room(usize::MAX);
        loop {
            let held: Vec<u8> = self.wire.0.lock().unwrap().held.drain(..).collect();
            if held.is_empty() && self.port.outgoing().empty {
                break;
            }
            for part in held.chunks(1000) {
                self.decoder.push(part);
                found.extend(self.decoder.frames().map(|item| got(item.unwrap())));
            }
            self.port.writable();
        }
        assert!(self.decoder.is_between_frames(), "a frame is torn");
        found
    }
}

pub fn got(received: Received<'_>) -> Got {
    let Received::Frame(frame) = received else {
        panic!("{received:?}")
    };
    match frame {
        Frame::Message {
            id,
            subject,
            stamp,
            body,
        } => Got::Message {
            id,
            subject: subject.to_string(),
            stamp,
            body: body.to_vec(),
        },
        Frame::Deliver {
            id,
            subject,
            stamp,
            body,
        } => Got::Deliver {
            id,
            subject: subject.to_string(),
            stamp,
            body: body.to_vec(),
        },
        Frame::Answer { id, stamp, body } => Got::Answer {
            id,
            stamp,
            body: body.to_vec(),
        },
        Frame::Ok { id } => Got::Ok(id),
        Frame::Error { id, code, text } => Got::Error(id, code, text.to_owned()),
        Frame::Gap { id, count } => Got::Gap(id, count),
        other => Got::Other(format!("{other:?}")),
    }
}

pub fn subject(text: &str) -> Subject<'_> {
    Subject::new(text.as_bytes()).unwrap()
}

pub fn pattern(text: &str) -> Pattern<'_> {
    Pattern::new(text.as_bytes()).unwrap()
}

pub fn subscribe(id: u64, text: &str) -> Frame<'_> {
    Frame::Subscribe {
        id,
        pattern: pattern(text),
        drop_oldest: false,
    }
}

pub fn dropping(id: u64, text: &str) -> Frame<'_> {
    Frame::Subscribe {
        id,
        pattern: pattern(text),
        drop_oldest: true,
    }
}

pub fn publish<'a>(text: &'a str, body: &'a [u8]) -> Frame<'a> {
    Frame::Publish {
        id: 0,
        subject: subject(text),
        body,
    }
}

pub fn request<'a>(id: u64, text: &'a str, body: &'a [u8]) -> Frame<'a> {
    Frame::Request {
        id,
        subject: subject(text),
        body,
    }
}

pub fn hub(limits: Limits) -> Arc<Broker> {
    Broker::new(limits, Permits::default())
}

pub fn codes(got: &[Got]) -> Vec<(u64, Option<u16>)> {
    got.iter()
        .filter_map(|got| match got {
            Got::Ok(id) => Some((*id, None)),
            Got::Error(id, code, _) => Some((*id, Some(code.to_wire()))),
            _ => None,
        })
        .collect()
}

pub fn bodies(got: &[Got]) -> Vec<Vec<u8>> {
    got.iter()
        .filter_map(|got| match got {
            Got::Message { body, .. } => Some(body.clone()),
            _ => None,
        })
        .collect()
}
