//! Several clients of one broker, their frames in any order, against a model.
//!
//! - What comes to a client is always whole frames; `sequence` only grows.
//! - A MESSAGE or DELIVER comes only to a pattern that was asked for and, where
//!   permits are in force, permitted; it says who really sent it.
//! - What one client publishes arrives in order, and never twice.
//! - Each frame that wants an answer gets exactly one: OK, PONG, ANSWER or ERROR.
//! - For each subscription: received and dropped (GAP) are all that was published.
//! - What waits for a client is within `broker_pending` and one frame.

#[path = "broker_model.rs"]
mod model;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arbitrary::Arbitrary;
use secure_socket::frame::{Decoder, Frame, FrameLimit, Pattern, Received, Side, Subject};
use secure_socket::ids::Uid;
use secure_socket::peer::Needs;
use secure_socket::policy::{Numeric, Rule};
use secure_socket::service::broker::{Action, Broker, Limits, Permit, Permits};

use model::{Client, Model};

const SUBJECTS: [&str; 6] = ["a", "a.b", "a.b.c", "x", "x.b", "x.y.z"];
const PATTERNS: [&str; 8] = ["a", "a.b", "*", "a.*", ">", "a.>", "*.b", "x.*.z"];

#[derive(Arbitrary, Debug)]
pub struct Input {
    /// Bit 0: small bounds. Bits 4 and 5: how large a frame may be. Bits 6 and 7: how many
    /// frames are one batch, and whether they come in bursts.
    kind: u8,
    ops: Vec<Op>,
}

#[derive(Arbitrary, Debug)]
enum Op {
    Subscribe {
        who: u8,
        id: u8,
        pattern: u8,
        drop_oldest: bool,
    },
    Unsubscribe {
        who: u8,
        id: u8,
    },
    Publish {
        who: u8,
        id: u8,
        subject: u8,
        size: u16,
    },
    Request {
        who: u8,
        id: u8,
        subject: u8,
        size: u16,
    },
    Serve {
        who: u8,
        id: u8,
        pattern: u8,
    },
    Unserve {
        who: u8,
        id: u8,
    },
    Reply {
        who: u8,
        nth: u8,
        size: u16,
    },
    Ping {
        who: u8,
        id: u8,
    },
    /// Bytes of the client's own making.
    Raw {
        who: u8,
        bytes: Vec<u8>,
    },
    /// Does what was sent so far, as one read.
    Flush {
        who: u8,
    },
    /// How many bytes its socket holds.
    Room {
        who: u8,
        room: u16,
    },
    Read {
        who: u8,
        most: u16,
    },
    Join {
        accepts: bool,
        uid: bool,
    },
    Leave {
        who: u8,
    },
    Later {
        millis: u16,
    },
    GoAway {
        who: u8,
    },
    Reload {
        permits: u8,
    },
    Stop,
}

/// What each set of permits says, for the uids 1 and 2.
const PERMITS: [&[(Action, &str, &str)]; 3] = [
    &[],
    &[
        (Action::Publish, ">", "any"),
        (Action::Request, "a.>", "any"),
        (Action::Serve, ">", "uid:1"),
        (Action::Subscribe, "a.>", "any"),
        (Action::Subscribe, "*", "uid:2"),
    ],
    &[
        (Action::Publish, "x.>", "uid:2"),
        (Action::Subscribe, ">", "uid:1"),
    ],
];

fn permits(which: usize) -> Permits {
    let names = Numeric {
        own_user: Uid::ROOT,
    };
    let permit = |(action, pattern, rule): &(Action, &str, &str)| {
        let of = Pattern::new(pattern.as_bytes()).expect("a pattern");
        let permit = Permit::new(*action, of, Rule::parse(rule, &names).expect("a rule"));
        assert_eq!((permit.action(), permit.pattern()), (*action, *pattern));
        permit
    };
    let permits = Permits::new(PERMITS[which].iter().map(permit).collect());
    // Rules of users ask for nothing that the broker must look up.
    assert!(!permits.needs().has_any(Needs::PROCESS));
    permits
}

pub fn check(input: Input) {
    let frame = [1 << 10, 16 << 10, 256 << 10, 256 << 10][usize::from(input.kind >> 4 & 3)];
    let frame = FrameLimit::new(frame).expect("within its bounds");
    let small = input.kind & 1 == 1;
    let pending_bytes = match (small, frame) {
        (true, FrameLimit::MIN) => 2_000,
        (false, FrameLimit::MIN) | (true, _) => 20_000,
        _ => 200_000,
    };
    let limits = Limits {
        frame,
        pending_bytes,
        pending_bytes_per_uid: pending_bytes + pending_bytes / 2,
        subscriptions: 4,
        requests: 3,
        request_timeout: Duration::from_secs(1),
        ..Limits::default()
    };
    let broker = Broker::new(limits, permits(0));
    let mut world = World {
        model: Model::new(limits),
        broker,
        clients: Vec::new(),
        joined: 0,
        counter: 0,
        now: Instant::now(),
        together: [1, 8, 64, usize::MAX][usize::from(input.kind >> 6)],
    };
    world.join(true, true);
    world.join(true, false);
    for op in input.ops.iter().take(400) {
        world.apply(op);
    }
    world.end();
}

struct World {
    model: Model,
    broker: Arc<Broker>,
    clients: Vec<Client>,
    joined: u64,
    counter: u64,
    now: Instant,
    /// Frames of one batch.
    together: usize,
}

impl World {
    fn join(&mut self, accepts: bool, one: bool) {
        if self.clients.len() >= 5 {
            return;
        }
        self.joined += 1;
        let limit = if accepts {
            FrameLimit::DEFAULT
        } else {
            FrameLimit::MIN
        };
        let uid = if one { 1 } else { 2 };
        self.clients.push(Client::join(
            &self.broker,
            self.joined,
            uid,
            limit,
            self.model.limits.frame,
        ));
    }

    /// The number of a client, if there is any.
    fn pick(&self, who: u8) -> Option<usize> {
        (!self.clients.is_empty()).then(|| usize::from(who) % self.clients.len())
    }

    /// A body that tells its number.
    fn body(&mut self, size: u16) -> Vec<u8> {
        self.counter += 1;
        let mut body = self.counter.to_be_bytes().to_vec();
        let most = if self.model.limits.frame == FrameLimit::MIN {
            1_200
        } else {
            20_000
        };
        body.resize(8 + usize::from(size) % most, 0x55);
        body
    }

    fn send(&mut self, who: u8, frame: &Frame<'_>) {
        if let Some(at) = self.pick(who) {
            frame.encode(&mut self.clients[at].unsent);
        }
    }

    fn apply(&mut self, op: &Op) {
        let subject = |n: u8| Subject::new(SUBJECTS[usize::from(n) % 6].as_bytes()).expect("one");
        let pattern = |n: u8| Pattern::new(PATTERNS[usize::from(n) % 8].as_bytes()).expect("one");
        // Few ids, so that they meet; those of other kinds are apart, mostly.
        let id = |n: u8, kind: u64| u64::from(n % 6) + kind * 0x100;
        match *op {
            Op::Subscribe {
                who,
                id: n,
                pattern: p,
                drop_oldest,
            } => {
                let (id, pattern) = (id(n, 1), pattern(p));
                self.send(
                    who,
                    &Frame::Subscribe {
                        id,
                        pattern,
                        drop_oldest,
                    },
                );
            }
            Op::Unsubscribe { who, id: n } => self.send(who, &Frame::Unsubscribe { id: id(n, 1) }),
            Op::Publish {
                who,
                id: n,
                subject: s,
                size,
            } => {
                let id = if n % 6 == 0 { 0 } else { id(n, 2) };
                let bursts = self.together > 1;
                for _ in 0..if bursts { 1 + (size >> 11) } else { 1 } {
                    let body = &self.body(size)[..];
                    self.send(
                        who,
                        &Frame::Publish {
                            id,
                            subject: subject(s),
                            body,
                        },
                    );
                }
            }
            Op::Request {
                who,
                id: n,
                subject: s,
                size,
            } => {
                let body = &self.body(size)[..];
                self.send(
                    who,
                    &Frame::Request {
                        id: id(n, 3),
                        subject: subject(s),
                        body,
                    },
                );
            }
            Op::Serve {
                who,
                id: n,
                pattern: p,
            } => {
                self.send(
                    who,
                    &Frame::Serve {
                        id: id(n, 4),
                        pattern: pattern(p),
                    },
                );
            }
            Op::Unserve { who, id: n } => self.send(who, &Frame::Unserve { id: id(n, 4) }),
            Op::Reply { who, nth, size } => {
                let body = &self.body(size)[..];
                let owed = self.pick(who).map(|at| &self.clients[at].delivered);
                let owed = owed.filter(|owed| !owed.is_empty());
                let id = owed.map_or(7, |owed| owed[usize::from(nth) % owed.len()]);
                self.send(who, &Frame::Reply { id, body });
            }
            Op::Ping { who, id: n } => self.send(
                who,
                &Frame::Ping {
                    id: id(n, 5),
                    body: b"?",
                },
            ),
            Op::Raw { who, ref bytes } => {
                if let Some(at) = self.pick(who) {
                    self.clients[at].unsent.extend_from_slice(bytes);
                }
            }
            Op::Flush { who } => self.flush(who),
            Op::Room { who, room } => {
                if let Some(at) = self.pick(who) {
                    let mut wire = self.clients[at].wire.lock();
                    wire.room = usize::from(room);
                    wire.broken |= room == 0xdead;
                    drop(wire);
                    self.clients[at].writable();
                }
            }
            Op::Read { who, most } => {
                if let Some(at) = self.pick(who) {
                    self.read(at, usize::from(most));
                    self.clients[at].writable();
                }
            }
            Op::Join { accepts, uid } => self.join(accepts, uid),
            Op::Leave { who } => self.leave(who),
            Op::Later { millis } => {
                self.now += Duration::from_millis(millis.into());
                for client in &mut self.clients {
                    client.port.tick(self.now);
                }
            }
            Op::GoAway { who } => {
                if let Some(at) = self.pick(who) {
                    self.clients[at].port.go_away(Duration::from_secs(1));
                    self.clients[at].told_to_go = true;
                }
            }
            Op::Reload { permits } => self.reload(usize::from(permits) % PERMITS.len()),
            Op::Stop => {
                self.broker.stop(self.now + Duration::from_secs(5));
                self.model.stopping = true;
            }
        }
    }

    /// The session's reading of its socket.
    fn flush(&mut self, who: u8) {
        let Some(at) = self.pick(who) else { return };
        let bytes = std::mem::take(&mut self.clients[at].unsent);
        let read = if self.together > 1 { 60_000 } else { 3_000 };
        for part in bytes.chunks(read) {
            let mut rest = part;
            while !rest.is_empty() {
                if self.clients[at].port.outgoing().ending.is_some() {
                    return;
                }
                let taken = self.clients[at].decoder.push(rest);
                rest = &rest[taken..];
                self.batch(at);
            }
        }
    }

    fn batch(&mut self, at: usize) {
        let mut decoder = std::mem::replace(
            &mut self.clients[at].decoder,
            Decoder::new(Side::Client, FrameLimit::MIN),
        );
        let received: Vec<_> = decoder.frames().collect();
        for together in received.chunks(self.together) {
            // The model is asked before. With one frame for each batch it is told what
            // ended a client by what the frames before it filled.
            for received in together {
                match received {
                    Ok(Received::Frame(frame)) => self.model.sent(&mut self.clients, at, frame),
                    Ok(Received::TooLarge(header)) => self.clients[at].may_answer(header.id),
                    _ => {}
                }
            }
            let mut batch = self.clients[at].port.batch(self.now);
            let done = together.iter().take_while(|received| match received {
                Ok(Received::Frame(frame)) => batch.frame(frame),
                Ok(Received::TooLarge(header)) => {
                    batch.too_large(header);
                    true
                }
                Ok(_) => true,
                Err(error) => {
                    batch.violation(error);
                    false
                }
            });
            let done = done.count();
            drop(batch);
            // What follows the frame that ended it is not done: the model has counted it.
            self.model.has_counted_too_much |= done + 1 < together.len();
            if done < together.len() || self.clients[at].port.outgoing().ending.is_some() {
                break;
            }
        }
        drop(received);
        self.clients[at].decoder = decoder;
    }

    fn read(&mut self, at: usize, most: usize) {
        let taken = self.clients[at].wire.take(most);
        self.model.arrived(&mut self.clients, at, &taken);
    }

    /// Reads everything; what waited is within the bound.
    fn read_all(&mut self, at: usize) {
        self.clients[at].wire.lock().room = usize::MAX;
        self.read(at, usize::MAX);
        self.clients[at].writable();
        let waited = self.clients[at].wire.lock().held.len();
        let gaps = self.clients[at].gap_frames;
        self.read(at, usize::MAX);
        let gaps = (self.clients[at].gap_frames - gaps) * 24;
        // Two frames: one that left in part, and one that an empty queue takes in any case.
        let frame = self.model.limits.frame.bytes() as usize;
        let bound = self.model.limits.pending_bytes + gaps + 2 * (16 + 255 + 32 + frame) + 128;
        assert!(waited <= bound, "{waited} bytes waited, {bound} may");
    }

    fn leave(&mut self, who: u8) {
        if let Some(at) = self.pick(who) {
            self.read(at, usize::MAX);
            let gone = self.clients.remove(at);
            drop(gone.port);
        }
    }

    fn reload(&mut self, which: usize) {
        // What is in the sockets left before.
        for at in 0..self.clients.len() {
            self.read(at, usize::MAX);
        }
        self.broker.reload(self.model.limits, permits(which));
        self.model.reload(&mut self.clients, PERMITS[which]);
    }

    fn end(mut self) {
        for _ in 0..3 {
            self.now += Duration::from_secs(10);
            for at in 0..self.clients.len() {
                self.clients[at].port.tick(self.now);
                self.read_all(at);
            }
        }
        for client in &self.clients {
            client.check_end(!self.model.has_counted_too_much);
        }
        assert_eq!(self.broker.connections(), self.clients.len());
        assert_eq!(self.broker.stats().members, self.clients.len());
        self.clients.clear();
        assert_eq!(self.broker.connections(), 0);
        let stats = self.broker.stats();
        let left = [
            stats.members,
            stats.pending_bytes,
            stats.subscriptions,
            stats.registrations,
            stats.requests,
        ];
        assert_eq!(left, [0; 5], "who has left holds nothing");
    }
}
