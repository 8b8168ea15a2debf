//! A relay between two programs that write, read, shut down and close in any
//! order, over Unix sockets, of streams and of messages, and TCP. The relay's own files are compiled in here:
//! nothing of it is public for this.
//!
//! - Each byte arrives once, in its place.
//! - After both sides ended in order, all that was sent has arrived, and both see
//!   the end; nothing waits for ever.
//! - What a side sent before it closed a Unix socket still arrives.
//! - A message stays one, or the relay ends because it has no room for it.

#[path = "../../src/service/relay/descriptors.rs"]
#[allow(dead_code)]
mod descriptors;
#[path = "../../src/service/relay/flow.rs"]
#[allow(dead_code)]
mod flow;
#[path = "../../src/service/relay/joint.rs"]
#[allow(dead_code)]
mod joint;
#[path = "../../src/service/relay/pipes.rs"]
#[allow(dead_code)]
mod pipes;
#[path = "../../src/service/relay/wire.rs"]
#[allow(dead_code)]
mod wire;

#[path = "relay_programs.rs"]
mod programs;

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use arbitrary::Arbitrary;

use flow::{Passing, Shape, Tools};
use joint::{End, Events, Joint, Outcome, Side};
use pipes::Pipes;
use programs::{Kind, Program, Seen, pair, poll};

#[derive(Arbitrary, Debug)]
pub struct Input {
    wire: Wire,
    scratch: u8,
    descriptors: u8,
    half_close: bool,
    write_timeout: bool,
    ahead: Vec<u8>,
    ops: Vec<Op>,
}

#[derive(Arbitrary, Debug)]
enum Wire {
    Unix,
    /// Whether the client's side and the upstream's are TCP.
    Inet(bool, bool),
    /// `SOCK_SEQPACKET` on both sides.
    Packets,
}

#[derive(Arbitrary, Debug)]
enum Op {
    Write(bool, u16, u8),
    Read(bool, u16, u8),
    ShutDown(bool),
    Close(bool, bool),
    Step(u8),
    Later(u16),
}

struct Bench {
    client: OwnedFd,
    joint: Option<Joint>,
    wait: Option<(Events, Events)>,
    until: Option<Instant>,
    now: Instant,
    told: (bool, bool),
    pipes: Pipes,
    scratch: Vec<u8>,
    end: Option<End>,
    /// Bytes that were counted from the client, and to it.
    counted: (usize, usize),
}

pub fn check(input: Input) {
    let kinds = match input.wire {
        Wire::Unix => (Kind::Unix, Kind::Unix),
        Wire::Inet(client, upstream) => (Kind::tcp(client), Kind::tcp(upstream)),
        Wire::Packets => (Kind::Packets, Kind::Packets),
    };
    let (Some((near, client)), Some((far, upstream))) = (pair(kinds.0), pair(kinds.1)) else {
        return;
    };
    let mut sides = [
        Program::new(near, kinds.0, 0),
        Program::new(far, kinds.1, 1),
    ];
    let shape = Shape {
        packets: matches!(input.wire, Wire::Packets),
        descriptors: [Passing::Ignored, Passing::Refused, Passing::Forwarded(2)]
            [usize::from(input.descriptors) % 3],
        write_timeout: input.write_timeout.then_some(Duration::from_secs(10)),
    };
    let half_close = input.half_close.then_some(Duration::from_secs(60));
    // What goes first is of the client's pattern, so that it is checked as well.
    let ahead = sides[0].said_before(input.ahead.len() % 4_097);
    let joint = Joint::new(upstream, (shape, shape), half_close, ahead);
    let mut bench = Bench {
        client,
        joint: Some(joint),
        wait: None,
        until: None,
        now: Instant::now(),
        told: (false, false),
        pipes: Pipes::default(),
        scratch: vec![0; [64, 1_024, 64 << 10][usize::from(input.scratch) % 3]],
        end: None,
        counted: (0, 0),
    };
    let spoken = sides[0].sent;
    let mut late = false;
    for op in input.ops.iter().take(200) {
        // Most of them within one buffer; some fill every buffer on the way at once.
        let length = |low: u16, high: u8| {
            1 + usize::from(low) + (usize::from(high.saturating_sub(251)) << 16)
        };
        match *op {
            Op::Write(side, low, high) => sides[usize::from(side)].write(length(low, high)),
            Op::Read(side, low, high) => sides[usize::from(side)].read(length(low, high)),
            Op::ShutDown(side) => sides[usize::from(side)].shut_down(),
            Op::Close(side, reset) => sides[usize::from(side)].close(reset),
            Op::Step(times) => (0..times % 8).for_each(|_| bench.step()),
            Op::Later(millis) => {
                late = true;
                bench.now += Duration::from_millis(millis.into());
            }
        }
    }
    finish(&mut bench, &mut sides);
    if matches!(bench.end, Some(End::Finished)) && !sides[0].closed && !sides[1].closed {
        let (from_client, to_client) = bench.counted;
        assert_eq!(
            (from_client, to_client),
            (sides[0].sent - spoken, sides[0].received)
        );
    }
    check_end(&sides, bench.end, late);
}

/// Both end in order, as far as they still can, and read what comes.
fn finish(bench: &mut Bench, sides: &mut [Program; 2]) {
    sides.iter_mut().for_each(Program::shut_down);
    let until = Instant::now() + Duration::from_secs(10);
    while bench.joint.is_some() || sides.iter().any(Program::is_reading) {
        bench.step();
        sides.iter_mut().for_each(|side| side.read(1 << 20));
        assert!(Instant::now() < until, "never ends: {:?}", bench.wait);
    }
}

fn check_end(sides: &[Program; 2], end: Option<End>, late: bool) {
    let [client, server] = sides;
    assert!(client.received <= server.sent && server.received <= client.sent);
    let timed_out = matches!(end, Some(End::Stalled(_) | End::HalfClosed));
    assert!(!timed_out || late, "{end:?} before its time");
    if let Some(End::TooLarge(from)) = end {
        assert!(client.packets, "a stream has no messages");
        let (sender, other) = match from {
            Side::Client => (client, server),
            Side::Upstream => (server, client),
        };
        assert!(
            other.received < sender.sent,
            "it is not {from:?} that sent it"
        );
        return;
    }
    if timed_out {
        return;
    }
    if !client.closed && !server.closed {
        let received = (client.received, server.received);
        assert_eq!(received, (server.sent, client.sent));
        assert_eq!(
            (client.seen, server.seen, end),
            (Seen::End, Seen::End, Some(End::Finished))
        );
        return;
    }
    for (one, other) in [(client, server), (server, client)] {
        if one.closed && !other.closed && !one.tcp && !other.tcp {
            assert_eq!(
                other.received, one.sent,
                "sent before a close, and lost: {end:?}"
            );
        }
        if one.reset && !one.shut && one.tcp && other.tcp && !other.closed {
            assert!(
                other.seen == Seen::Reset || other.refused,
                "a reset looks like an end"
            );
        }
    }
}

impl Bench {
    /// One step, unless nothing came that it waits for.
    fn step(&mut self) {
        let Some(joint) = &mut self.joint else { return };
        let mut events = (Events::default(), Events::default());
        if let Some((client, upstream)) = self.wait {
            let polled = poll(
                (self.client.as_fd(), client, self.told.0),
                (joint.upstream(), upstream, self.told.1),
            );
            let late = self.until.is_some_and(|until| self.now >= until);
            let Some(polled) = polled.or(late.then_some(events)) else {
                return;
            };
            events = polled;
            self.told.0 |= events.0.hangup;
            self.told.1 |= events.1.hangup;
        }
        let mut tools = Tools {
            scratch: &mut self.scratch,
            pipes: &self.pipes,
            now: self.now,
            cut: &|| false,
        };
        let outcome = joint.step(self.client.as_fd(), events, &mut tools);
        let (read, written) = joint.tally();
        self.counted.0 += read;
        self.counted.1 += written;
        match outcome {
            Outcome::More => self.wait = None,
            Outcome::Wait {
                client,
                upstream,
                until,
            } => {
                self.until = until;
                let before = self.wait.replace((client, upstream));
                self.told.0 &= before.is_some_and(|before| before.0 == client);
                self.told.1 &= before.is_some_and(|before| before.1 == upstream);
            }
            Outcome::Over(end) => {
                self.end = Some(end);
                self.joint = None;
                // The driver closes the client's socket now.
                let (other, _) = std::os::unix::net::UnixStream::pair().expect("a pair");
                self.client = other.into();
            }
        }
    }
}
