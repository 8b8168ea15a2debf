//! One end of a connection, steered by hand.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use secure_socket::frame::{
    Decoder, ErrorCode, Frame, FrameLimit, Greeting, Received, Side, Stamp,
};

/// What came in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Got {
    Message {
        id: u64,
        subject: String,
        stamp: Stamp,
        body: u64,
    },
    Deliver {
        id: u64,
        subject: String,
        stamp: Stamp,
        body: u64,
    },
    Answer {
        id: u64,
        stamp: Stamp,
        body: u64,
    },
    Ok(u64),
    Error(u64, ErrorCode),
    Gap {
        id: u64,
        count: u64,
    },
    Closed,
}

pub struct End {
    stream: UnixStream,
    decoder: Decoder,
    closed: bool,
}

/// A body is a number, and bytes to fill it up.
pub fn body(number: u64, filling: usize) -> Vec<u8> {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.resize(8 + filling, 0xaa);
    bytes
}

fn number(body: &[u8]) -> u64 {
    u64::from_be_bytes(body[..8].try_into().unwrap())
}

impl End {
    pub fn new(mut stream: UnixStream) -> Self {
        stream
            .write_all(
                &Greeting {
                    accepts: FrameLimit::DEFAULT,
                }
                .encode(),
            )
            .unwrap();
        stream.set_nonblocking(true).unwrap();
        let decoder = Decoder::new(Side::Broker, FrameLimit::DEFAULT);
        Self {
            stream,
            decoder,
            closed: false,
        }
    }

    /// Sends in pieces as long as `cut` says.
    pub fn send(&mut self, frame: &Frame<'_>, mut cut: impl FnMut(usize) -> usize) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        let mut left = &bytes[..];
        while !left.is_empty() {
            let now = &left[..cut(left.len()).clamp(1, left.len())];
            match self.stream.write(now) {
                Ok(sent) => left = &left[sent..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
                // It was closed by the broker; what was said before is read later.
                Err(_) => return,
            }
        }
    }

    /// Takes in what is there, up to about `most` bytes.
    pub fn read(&mut self, most: usize, into: &mut Vec<Got>) {
        let mut total = 0;
        while !self.closed && total < most {
            let space = self.decoder.space();
            let part = space.len().min(most - total);
            match self.stream.read(&mut space[..part]) {
                Ok(0) => self.close(into),
                Ok(count) => {
                    total += count;
                    self.decoder.filled(count);
                    into.extend(self.decoder.frames().filter_map(|item| got(&item.unwrap())));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.close(into),
            }
        }
    }

    fn close(&mut self, into: &mut Vec<Got>) {
        assert!(self.decoder.is_between_frames(), "the last frame is torn");
        self.closed = true;
        into.push(Got::Closed);
    }

    /// Reads until `found` says yes.
    #[track_caller]
    pub fn read_until(&mut self, into: &mut Vec<Got>, found: impl Fn(&[Got]) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !found(into) && !self.closed {
            self.read(1 << 20, into);
            if !found(into) {
                assert!(
                    Instant::now() < deadline,
                    "nothing comes after {:?}",
                    into.last()
                );
                std::thread::yield_now();
            }
        }
    }
}

fn got(received: &Received<'_>) -> Option<Got> {
    let Received::Frame(frame) = received else {
        return None;
    };
    Some(match *frame {
        Frame::Message {
            id,
            subject,
            stamp,
            body,
        } => Got::Message {
            id,
            subject: subject.to_string(),
            stamp,
            body: number(body),
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
            body: number(body),
        },
        Frame::Answer { id, stamp, body } => Got::Answer {
            id,
            stamp,
            body: number(body),
        },
        Frame::Ok { id } | Frame::Pong { id, .. } => Got::Ok(id),
        Frame::Error { id, code, .. } => Got::Error(id, code),
        Frame::Gap { id, count } => Got::Gap { id, count },
        _ => panic!("{frame:?}"),
    })
}
