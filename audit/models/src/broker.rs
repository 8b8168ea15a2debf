//! The broker's registry, `src/service/broker/`: members, routes, outboxes, requests and
//! reloads. shuttle runs its threads one at a time and chooses at each lock and each
//! atomic which goes on, thousands of times: a schedule that hangs or breaks a promise is
//! printed and can be run again. It does not model memory order, which the ring's models do.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use secure_socket::frame::{
    Decoder, ErrorCode, Frame, FrameLimit, Pattern, Received, Side, Subject,
};
use secure_socket::ids::Uid;
use secure_socket::peer::{Fact, Facts};
use secure_socket::policy::{Numeric, Rule};
use shuttle::sync::{Arc, Condvar, Mutex};
use shuttle::thread;

use crate::service::broker::{
    Action, Broker, Identity, Limits, Permit, Permits, Port, Sink, Stats,
};

const EVERYTHING: &str = ">";

/// How often each model runs: with schedules by chance, and with those that switch rarely,
/// at places chosen by chance (PCT).
fn check(model: impl Fn() + Send + Sync + Clone + 'static) {
    const RUNS: usize = 20_000;
    shuttle::check_random(model.clone(), RUNS);
    shuttle::check_pct(model, RUNS, 3);
}

/// A socket with room for so many bytes, and more when its owner has been woken.
struct Socket {
    taken: std::sync::Mutex<Vec<u8>>,
    room: AtomicUsize,
    /// With so many messages its owner has seen enough, and is woken.
    enough: usize,
    woken: Mutex<bool>,
    wake: Condvar,
}

impl Socket {
    fn with_room(bytes: usize, enough: usize) -> Arc<Self> {
        Arc::new(Self {
            taken: std::sync::Mutex::default(),
            room: AtomicUsize::new(bytes),
            enough,
            woken: Mutex::new(false),
            wake: Condvar::new(),
        })
    }

    fn endless() -> Arc<Self> {
        Self::with_room(usize::MAX, usize::MAX)
    }

    /// Waits for the next wake, as the connection's own thread does in ppoll(2).
    fn sleep(&self) {
        let mut woken = self.woken.lock().unwrap();
        while !*woken {
            woken = self.wake.wait(woken).unwrap();
        }
        *woken = false;
    }

    /// The frames so far, all of them whole.
    fn frames(&self) -> Vec<Seen> {
        let (seen, is_whole) = self.decoded();
        assert!(is_whole, "the last frame is torn");
        seen
    }

    fn messages(&self) -> usize {
        let (seen, _) = self.decoded();
        seen.iter().filter(|seen| seen.is_message()).count()
    }

    /// Messages and requests.
    fn deliveries(&self) -> usize {
        let (seen, _) = self.decoded();
        let is_delivery =
            |seen: &&Seen| matches!(seen, Seen::Message { .. } | Seen::Request { .. });
        seen.iter().filter(is_delivery).count()
    }

    fn decoded(&self) -> (Vec<Seen>, bool) {
        let mut decoder = Decoder::new(Side::Broker, FrameLimit::MAX);
        decoder.greeted();
        let taken = self.taken.lock().unwrap();
        let mut rest: &[u8] = &taken;
        let mut seen = Vec::new();
        while !rest.is_empty() {
            let pushed = decoder.push(rest);
            rest = &rest[pushed..];
            for received in decoder.frames() {
                if let Received::Frame(frame) = received.unwrap() {
                    seen.push(Seen::of(&frame));
                }
            }
        }
        (seen, decoder.is_between_frames())
    }
}

impl Sink for Socket {
    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        // Another may come between any two writes.
        thread::yield_now();
        let mut taken = self.taken.lock().unwrap();
        let mut sent = 0;
        for slice in slices {
            let room = self.room.load(Ordering::SeqCst);
            let part = &slice[..slice.len().min(room)];
            taken.extend_from_slice(part);
            sent += part.len();
            if room != usize::MAX {
                self.room.fetch_sub(part.len(), Ordering::SeqCst);
            }
        }
        drop(taken);
        if sent == 0 && !slices.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if self.messages() >= self.enough {
            self.wake();
        }
        Ok(sent)
    }

    fn wake(&self) {
        *self.woken.lock().unwrap() = true;
        self.wake.notify_all();
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Seen {
    Message {
        id: u64,
        sequence: u64,
        text: Vec<u8>,
    },
    Request {
        number: u64,
        sequence: u64,
    },
    Answer {
        id: u64,
        sequence: u64,
    },
    Error {
        id: u64,
        code: ErrorCode,
    },
    Other(u64),
}

impl Seen {
    fn of(frame: &Frame<'_>) -> Self {
        match *frame {
            Frame::Message {
                id, stamp, body, ..
            } => Self::Message {
                id,
                sequence: stamp.sequence,
                text: body.to_vec(),
            },
            Frame::Deliver { id, stamp, .. } => Self::Request {
                number: id,
                sequence: stamp.sequence,
            },
            Frame::Answer { id, stamp, .. } => Self::Answer {
                id,
                sequence: stamp.sequence,
            },
            Frame::Error { id, code, .. } => Self::Error { id, code },
            _ => Self::Other(frame.id()),
        }
    }

    fn sequence(&self) -> Option<u64> {
        match self {
            Self::Message { sequence, .. }
            | Self::Request { sequence, .. }
            | Self::Answer { sequence, .. } => Some(*sequence),
            Self::Error { .. } | Self::Other(_) => None,
        }
    }

    fn is_message(&self) -> bool {
        matches!(self, Self::Message { .. })
    }
}

fn pattern(text: &str) -> Pattern<'_> {
    Pattern::new(text.as_bytes()).unwrap()
}

fn subject(text: &str) -> Subject<'_> {
    Subject::new(text.as_bytes()).unwrap()
}

/// These permits, on every subject, for everybody.
fn only(actions: &[Action]) -> Permits {
    let names = Numeric {
        own_user: Uid::ROOT,
    };
    let permit = |action: &Action| {
        Permit::new(
            *action,
            pattern(EVERYTHING),
            Rule::parse("any", &names).unwrap(),
        )
    };
    Permits::new(actions.iter().map(permit).collect())
}

fn broker() -> Arc<Broker> {
    Broker::new(Limits::default(), Permits::default())
}

fn join(broker: &Arc<Broker>, connection: u64, socket: &Arc<Socket>) -> Port {
    let identity = Identity {
        connection,
        uid: Uid::from_raw(1000),
        gid: None,
        pid: None,
        flags: 0,
    };
    let sink = Arc::clone(socket) as Arc<dyn Sink>;
    broker.join(identity, Facts::of(Fact::Unasked), sink, FrameLimit::MAX)
}

fn send(port: &mut Port, frame: &Frame<'_>) {
    assert!(port.batch(Instant::now()).frame(frame));
}

fn subscribe(port: &mut Port, id: u64, text: &str) {
    let (pattern, drop_oldest) = (pattern(text), false);
    send(
        port,
        &Frame::Subscribe {
            id,
            pattern,
            drop_oldest,
        },
    );
}

fn serve(port: &mut Port, id: u64, text: &str) {
    let pattern = pattern(text);
    send(port, &Frame::Serve { id, pattern });
}

fn publish(port: &mut Port, on: &str, body: &[u8]) {
    let (id, subject) = (0, subject(on));
    send(port, &Frame::Publish { id, subject, body });
}

/// On every connection the sequence only grows.
#[track_caller]
fn check_order(frames: &[Seen]) {
    let sequences: Vec<u64> = frames.iter().filter_map(Seen::sequence).collect();
    assert!(sequences.is_sorted_by(|one, next| one < next), "{frames:?}");
}

/// Whoever has left holds nothing.
#[track_caller]
fn check_empty(broker: &Broker) {
    let Stats { sequenced, .. } = broker.stats();
    let empty = Stats {
        sequenced,
        ..Stats::default()
    };
    assert_eq!(broker.stats(), empty);
}

#[test]
fn messages_of_two_publishers_come_in_one_order_and_all_of_them() {
    check(|| {
        let broker = broker();
        let sockets = [Socket::endless(), Socket::endless()];
        let mut readers = [join(&broker, 1, &sockets[0]), join(&broker, 2, &sockets[1])];
        subscribe(&mut readers[0], 1, "a.*");
        subscribe(&mut readers[1], 1, EVERYTHING);
        let publishers: Vec<_> = [3, 4]
            .map(|number| {
                let mut port = join(&broker, number, &Socket::endless());
                thread::spawn(move || {
                    let name = u8::try_from(number).unwrap();
                    publish(&mut port, "a.x", &[name, 1]);
                    publish(&mut port, "a.y", &[name, 2]);
                })
            })
            .into();
        for publisher in publishers {
            publisher.join().unwrap();
        }
        let common = sockets.map(|socket| {
            let frames = socket.frames();
            check_order(&frames);
            let text = |seen: Seen| match seen {
                Seen::Message { text, .. } => Some(text),
                _ => None,
            };
            let texts: Vec<Vec<u8>> = frames.into_iter().filter_map(text).collect();
            for name in [3, 4] {
                let own: Vec<u8> = texts
                    .iter()
                    .filter(|text| text[0] == name)
                    .map(|text| text[1])
                    .collect();
                assert_eq!(own, [1, 2], "each once, in the order of its publisher");
            }
            texts
        });
        assert_eq!(common[0], common[1], "one order for all who get both");
        drop(readers);
        check_empty(&broker);
    });
}

/// Somebody sends on `a` three times, and a reader with subscription 1 and registration 3
/// on everything does `meanwhile`. Once a reload has taken both rights away and returned,
/// nothing comes to the reader any more.
fn check_reload(
    sends: impl Fn(&mut Port, u64) + Send + Sync + Clone + 'static,
    meanwhile: impl Fn(Port) -> Option<Port> + Send + Sync + Clone + 'static,
    after: impl Fn(&[Seen]) + Send + Sync + Clone + 'static,
) {
    check(move || {
        let broker = broker();
        let socket = Socket::endless();
        let mut reader = join(&broker, 1, &socket);
        subscribe(&mut reader, 1, EVERYTHING);
        serve(&mut reader, 3, EVERYTHING);
        let mut port = join(&broker, 2, &Socket::endless());
        let sends = sends.clone();
        let sender = thread::spawn(move || (1..=3).for_each(|id| sends(&mut port, id)));
        let meanwhile = meanwhile.clone();
        let busy = thread::spawn(move || meanwhile(reader));
        broker.reload(Limits::default(), only(&[Action::Publish, Action::Request]));
        let before = socket.deliveries();
        sender.join().unwrap();
        if let Some(mut reader) = busy.join().unwrap() {
            reader.writable();
            after(&socket.frames());
        }
        assert_eq!(socket.deliveries(), before, "{:?}", socket.frames());
        check_empty(&broker);
    });
}

fn send_message(port: &mut Port, _: u64) {
    publish(port, "a", b"");
}

fn send_request(port: &mut Port, id: u64) {
    let (subject, body) = (subject("a"), &b"?"[..]);
    send(port, &Frame::Request { id, subject, body });
}

#[test]
fn once_a_reload_has_returned_no_message_comes_to_one_who_subscribes_anew() {
    let meanwhile = |mut reader: Port| {
        send(&mut reader, &Frame::Unsubscribe { id: 1 });
        subscribe(&mut reader, 2, "a");
        Some(reader)
    };
    let after = |frames: &[Seen]| {
        let over = Seen::Error {
            id: 2,
            code: ErrorCode::Denied,
        };
        assert!(frames.contains(&over), "refused, or ended: {frames:?}");
    };
    check_reload(send_message, meanwhile, after);
}

#[test]
fn once_a_reload_has_returned_no_request_comes_to_one_who_serves_anew() {
    let meanwhile = |mut reader: Port| {
        send(&mut reader, &Frame::Unserve { id: 3 });
        serve(&mut reader, 4, "a");
        Some(reader)
    };
    check_reload(send_request, meanwhile, |_| {});
}

#[test]
fn once_a_reload_has_returned_no_message_comes_to_one_who_leaves() {
    check_reload(send_message, |_| None, |_| {});
}

#[test]
fn once_a_reload_has_returned_no_request_comes_to_one_who_leaves() {
    check_reload(send_request, |_| None, |_| {});
}

#[test]
fn a_publisher_that_lost_its_right_reaches_nobody_any_more() {
    check(|| {
        let broker = broker();
        let socket = Socket::endless();
        let mut reader = join(&broker, 1, &socket);
        subscribe(&mut reader, 1, EVERYTHING);
        let mut port = join(&broker, 2, &Socket::endless());
        let publisher = thread::spawn(move || {
            for number in 0..3 {
                publish(&mut port, "a", &[number]);
            }
        });
        broker.reload(Limits::default(), only(&[Action::Subscribe]));
        let before = socket.frames().len();
        publisher.join().unwrap();
        assert_eq!(socket.frames().len(), before);
    });
}

/// A request ends in exactly one ANSWER or ERROR, whatever its responder does while a
/// reload may take its right away, and nothing stays behind in the accounts.
fn check_requests(does: impl Fn(Port, &Socket) + Send + Sync + Clone + 'static, reload: bool) {
    check(move || {
        let broker = broker();
        let sockets = [Socket::endless(), Socket::endless()];
        let mut responder = join(&broker, 1, &sockets[0]);
        serve(&mut responder, 1, EVERYTHING);
        let mut asker = join(&broker, 2, &sockets[1]);
        let asking = thread::spawn(move || {
            send_request(&mut asker, 1);
            send_request(&mut asker, 2);
            asker
        });
        let serving = {
            let (does, socket) = (does.clone(), Arc::clone(&sockets[0]));
            thread::spawn(move || does(responder, &socket))
        };
        if reload {
            let rights = [Action::Request, Action::Publish];
            broker.reload(Limits::default(), only(&rights));
        }
        let mut asker = asking.join().unwrap();
        serving.join().unwrap();
        // What nobody has answered by now ends by the clock.
        asker.tick(Instant::now() + Duration::from_secs(3600));
        asker.writable();
        let frames = sockets[1].frames();
        check_order(&frames);
        let mut ends: HashMap<u64, usize> = HashMap::new();
        for seen in &frames {
            if let Seen::Answer { id, .. } | Seen::Error { id, .. } = seen {
                *ends.entry(*id).or_default() += 1;
            }
        }
        assert_eq!(ends, HashMap::from([(1, 1), (2, 1)]), "{frames:?}");
        assert!(asker.is_idle());
        drop(asker);
        check_empty(&broker);
    });
}

/// Answers what has come so far, two times, and a number that nobody has given.
fn answer(mut port: Port, socket: &Socket) {
    for _ in 0..2 {
        for seen in socket.frames() {
            if let Seen::Request { number, .. } = seen {
                let body = &b"!"[..];
                send(&mut port, &Frame::Reply { id: number, body });
            }
        }
        thread::yield_now();
    }
    send(&mut port, &Frame::Reply { id: 0, body: b"!" });
}

#[test]
fn a_request_that_is_answered_by_one_who_leaves_ends_once() {
    check_requests(answer, false);
}

#[test]
fn a_request_whose_responder_loses_its_right_ends_once() {
    check_requests(answer, true);
}

#[test]
fn a_request_whose_responder_stops_serving_ends_once() {
    let stops = |mut port: Port, _: &Socket| send(&mut port, &Frame::Unserve { id: 1 });
    check_requests(stops, true);
}

#[test]
fn what_a_full_socket_does_not_take_is_written_when_it_has_room() {
    check(|| {
        let broker = broker();
        let socket = Socket::with_room(100, 4);
        let mut reader = join(&broker, 1, &socket);
        subscribe(&mut reader, 1, EVERYTHING);
        let publishers: Vec<_> = [2, 3]
            .map(|number| {
                let mut port = join(&broker, number, &Socket::endless());
                thread::spawn(move || {
                    publish(&mut port, "a", &[0; 80]);
                    publish(&mut port, "b", &[0; 80]);
                })
            })
            .into();
        // Its own thread. One wake too few, and it sleeps for ever: shuttle reports that.
        while socket.messages() < 4 {
            socket.sleep();
            while reader.needs_owner() && reader.outgoing().blocked {
                socket.room.fetch_add(150, Ordering::SeqCst);
                reader.writable();
            }
        }
        for publisher in publishers {
            publisher.join().unwrap();
        }
        check_order(&socket.frames());
        drop(reader);
        check_empty(&broker);
    });
}

#[test]
fn who_leaves_amid_messages_and_a_stop_leaves_nothing_behind() {
    check(|| {
        let broker = broker();
        let mut leaving = join(&broker, 1, &Socket::with_room(60, usize::MAX));
        subscribe(&mut leaving, 1, EVERYTHING);
        let mut port = join(&broker, 2, &Socket::endless());
        let publisher = thread::spawn(move || {
            publish(&mut port, "a", &[0; 80]);
            publish(&mut port, "a", &[0; 80]);
        });
        let leaves = thread::spawn(move || drop(leaving));
        broker.stop(Instant::now());
        publisher.join().unwrap();
        leaves.join().unwrap();
        check_empty(&broker);
    });
}
