//! What the clients of a broker may see, and must.

use std::collections::{HashMap, HashSet};
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use secure_socket::frame::{Decoder, ErrorCode, Frame, FrameLimit, Received, Side};
use secure_socket::ids::{Gid, Uid};
use secure_socket::peer::{Credentials, Fact, Facts, IdMaps};
use secure_socket::service::broker::{Action, Broker, Ending, Identity, Limits, Port, Sink};

/// A socket that holds a stated number of bytes.
#[derive(Default)]
pub(super) struct Wire {
    pub(super) room: usize,
    pub(super) held: Vec<u8>,
    /// The peer is gone, or the machine fails.
    pub(super) broken: bool,
}

pub(super) struct FakeSocket(Mutex<Wire>);

impl FakeSocket {
    pub(super) fn lock(&self) -> MutexGuard<'_, Wire> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take(&self, most: usize) -> Vec<u8> {
        let mut wire = self.lock();
        let count = most.min(wire.held.len());
        let rest = wire.held.split_off(count);
        std::mem::replace(&mut wire.held, rest)
    }
}

impl Sink for FakeSocket {
    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut wire = self.lock();
        if wire.broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let before = wire.held.len();
        for slice in slices {
            let room = wire.room.saturating_sub(wire.held.len());
            wire.held.extend_from_slice(&slice[..room.min(slice.len())]);
        }
        match wire.held.len() - before {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            sent => Ok(sent),
        }
    }

    fn wake(&self) {}
}

pub(super) struct Client {
    pub(super) port: Port,
    pub(super) wire: Arc<FakeSocket>,
    /// What it sends, and what it gets.
    pub(super) decoder: Decoder,
    answers: Decoder,
    pub(super) unsent: Vec<u8>,
    pub(super) told_to_go: bool,
    /// The broker's ids of requests that came to it.
    pub(super) delivered: Vec<u64>,
    pub(super) gap_frames: usize,
    connection: u64,
    uid: u32,
    subscriptions: HashMap<u64, String>,
    registrations: HashMap<u64, String>,
    /// Every pattern that an id ever had.
    asked_for: HashMap<u64, Vec<String>>,
    served: Vec<String>,
    /// Answers that are due, that may come, and that came, by id.
    due: HashMap<u64, u64>,
    optional: HashMap<u64, u64>,
    came: HashMap<u64, u64>,
    /// Messages by subscription: published, received, dropped.
    published: HashMap<u64, u64>,
    received: HashMap<u64, u64>,
    dropped: HashMap<u64, u64>,
    /// The last number by subscription and publisher.
    last: HashMap<(u64, u64), u64>,
    sequence: (u64, u64),
    /// MESSAGEs that may still end after a reload: one that has left in part.
    torn: bool,
}

impl Client {
    pub(super) fn join(
        broker: &Arc<Broker>,
        connection: u64,
        uid: u32,
        accepts: FrameLimit,
        broker_accepts: FrameLimit,
    ) -> Self {
        let wire = Arc::new(FakeSocket(Mutex::new(Wire {
            room: usize::MAX,
            held: Vec::new(),
            broken: false,
        })));
        let identity = Identity {
            connection,
            uid: Uid::from_raw(uid),
            gid: Gid::from_raw(uid),
            pid: None,
            flags: 0,
        };
        let facts = Facts::of(Fact::Known(Credentials::from_raw(
            7,
            uid,
            uid,
            IdMaps::FULL,
        )));
        let port = broker.join(identity, facts, Arc::clone(&wire) as Arc<dyn Sink>, accepts);
        let mut decoder = Decoder::new(Side::Client, broker_accepts);
        decoder.greeted();
        let mut answers = Decoder::new(Side::Broker, accepts);
        answers.greeted();
        Self {
            port,
            wire,
            decoder,
            answers,
            unsent: Vec::new(),
            told_to_go: false,
            delivered: Vec::new(),
            gap_frames: 0,
            connection,
            uid,
            subscriptions: HashMap::new(),
            registrations: HashMap::new(),
            asked_for: HashMap::new(),
            served: Vec::new(),
            due: HashMap::new(),
            optional: HashMap::new(),
            came: HashMap::new(),
            published: HashMap::new(),
            received: HashMap::new(),
            dropped: HashMap::new(),
            last: HashMap::new(),
            sequence: (0, 0),
            torn: false,
        }
    }

    pub(super) fn writable(&mut self) {
        self.port.writable();
    }

    fn is_open(&self) -> bool {
        self.port.outgoing().ending.is_none()
    }

    pub(super) fn may_answer(&mut self, id: u64) {
        *self.optional.entry(id).or_default() += 1;
    }

    fn answered(&mut self, id: u64) {
        let came = self.came.entry(id).or_default();
        *came += 1;
        let most = self.due.get(&id).unwrap_or(&0) + self.optional.get(&id).unwrap_or(&0);
        assert!(
            id == 0 || *came <= most,
            "id {id:#x} is answered {came} times, {most} may be"
        );
    }

    fn in_order(&mut self, sequence: u64, what: u64) {
        let (last, which) = self.sequence;
        let same = last == sequence && which == what && what != 0;
        assert!(sequence > last || same, "sequence {sequence} after {last}");
        self.sequence = (sequence, what);
    }

    /// All has been read, and all time limits have passed.
    pub(super) fn check_end(&self, counts_are_exact: bool) {
        if let Some(ending) = self.port.outgoing().ending {
            assert!(ending != Ending::Broken || self.wire.lock().broken);
            return;
        }
        assert!(self.port.outgoing().empty && self.answers.is_between_frames());
        assert!(!self.port.may_close() || self.told_to_go && self.port.is_idle());
        assert!(self.port.is_idle() || !self.delivered.is_empty());
        for (id, due) in self.due.iter().filter(|(id, _)| **id != 0) {
            let came = self.came.get(id).unwrap_or(&0);
            assert!(came >= due, "id {id:#x} is owed {due} answers, {came} came");
        }
        for (id, published) in self.published.iter().filter(|_| counts_are_exact) {
            let received = self.received.get(id).unwrap_or(&0);
            let dropped = self.dropped.get(id).unwrap_or(&0);
            assert_eq!(
                *published,
                received + dropped,
                "subscription {id:#x}: {dropped} dropped"
            );
        }
    }
}

pub(super) struct Model {
    pub(super) limits: Limits,
    pub(super) stopping: bool,
    /// Frames that their sender's end came before were counted.
    pub(super) has_counted_too_much: bool,
    permits: Vec<(Action, &'static str, &'static str)>,
    /// By the number in the body: who published it, where, and whether it may be seen.
    messages: HashMap<u64, (u64, u32, String)>,
    requests: HashMap<u64, (u64, String)>,
    /// By the broker's id: the requester.
    open: HashMap<u64, u64>,
    delivered: HashSet<u64>,
    replies: HashMap<u64, u64>,
}

impl Model {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            stopping: false,
            has_counted_too_much: false,
            permits: Vec::new(),
            messages: HashMap::new(),
            requests: HashMap::new(),
            open: HashMap::new(),
            delivered: HashSet::new(),
            replies: HashMap::new(),
        }
    }

    fn may(&self, uid: u32, action: Action, pattern: &str) -> bool {
        let own = format!("uid:{uid}");
        self.permits.is_empty()
            || self.permits.iter().any(|(permitted, of, who)| {
                *permitted == action && (*who == "any" || *who == own) && covers(of, pattern)
            })
    }

    /// Before the broker is told.
    pub(super) fn sent(&mut self, clients: &mut [Client], at: usize, frame: &Frame<'_>) {
        let id = frame.id();
        let (connection, uid) = (clients[at].connection, clients[at].uid);
        let refused = self.stopping || clients[at].told_to_go;
        if !matches!(
            frame,
            Frame::Pong { .. } | Frame::Reply { .. } | Frame::Proof { .. }
        ) {
            *clients[at].due.entry(id).or_default() += 1;
        }
        match *frame {
            Frame::Subscribe { pattern, .. } => {
                let client = &mut clients[at];
                let new = !client.subscriptions.contains_key(&id);
                let room = client.subscriptions.len() < self.limits.subscriptions;
                if new && room && !refused && self.may(uid, Action::Subscribe, pattern.as_str()) {
                    let pattern = pattern.as_str().to_owned();
                    client
                        .asked_for
                        .entry(id)
                        .or_default()
                        .push(pattern.clone());
                    client.subscriptions.insert(id, pattern);
                }
            }
            Frame::Unsubscribe { .. } => {
                clients[at].subscriptions.remove(&id);
            }
            Frame::Serve { pattern, .. } => {
                let client = &mut clients[at];
                let new = !client.registrations.contains_key(&id);
                let room = client.registrations.len() < self.limits.subscriptions;
                if new && room && !refused && self.may(uid, Action::Serve, pattern.as_str()) {
                    client.served.push(pattern.as_str().to_owned());
                    client.registrations.insert(id, pattern.as_str().to_owned());
                }
            }
            Frame::Unserve { .. } => {
                clients[at].registrations.remove(&id);
            }
            Frame::Publish { subject, body, .. } => {
                let subject = subject.as_str();
                if refused || !self.may(uid, Action::Publish, subject) {
                    return;
                }
                self.messages
                    .insert(number(body), (connection, uid, subject.to_owned()));
                for client in clients.iter_mut().filter(|client| client.is_open()) {
                    for (id, pattern) in &client.subscriptions {
                        if covers(pattern, subject) {
                            *client.published.entry(*id).or_default() += 1;
                        }
                    }
                }
            }
            Frame::Request { subject, body, .. } => {
                let request = (connection, subject.as_str().to_owned());
                self.requests.insert(number(body), request);
            }
            Frame::Reply { id, body } => {
                clients[at].may_answer(id);
                self.replies.insert(number(body), connection);
            }
            _ => {}
        }
    }

    pub(super) fn arrived(&mut self, clients: &mut [Client], at: usize, bytes: &[u8]) {
        let mut decoder = std::mem::replace(
            &mut clients[at].answers,
            Decoder::new(Side::Broker, FrameLimit::MIN),
        );
        for part in bytes.chunks(1_000) {
            assert_eq!(decoder.push(part), part.len());
            for received in decoder.frames() {
                match received {
                    Ok(Received::Frame(frame)) => self.got(&mut clients[at], &frame),
                    other => panic!("a client got {other:?}"),
                }
            }
        }
        clients[at].answers = decoder;
    }

    fn got(&mut self, client: &mut Client, frame: &Frame<'_>) {
        match *frame {
            Frame::Message {
                id,
                subject,
                stamp,
                body,
            } => {
                let what = number(body);
                let (connection, uid, to) = self.messages.get(&what).expect("it was published");
                assert_eq!(
                    (stamp.connection, subject.as_str()),
                    (*connection, to.as_str())
                );
                assert_eq!(stamp.uid.map(Uid::as_raw), Some(*uid));
                let asked_for = client.asked_for.get(&id).expect("it was asked for");
                assert!(asked_for.iter().any(|pattern| covers(pattern, to)));
                let torn = std::mem::take(&mut client.torn);
                let may = self.may(client.uid, Action::Subscribe, to);
                assert!(may || torn, "not permitted: {to}");
                client.in_order(stamp.sequence, what);
                *client.received.entry(id).or_default() += 1;
                // Bodies without a number of ours may be alike.
                let last = client.last.insert((id, *connection), what);
                assert!(body.len() < 8 || what >= 1 << 32 || last.is_none_or(|last| last < what));
            }
            Frame::Deliver {
                id,
                subject,
                stamp,
                body,
            } => {
                let (requester, to) = self.requests.get(&number(body)).expect("it was requested");
                assert_eq!(
                    (stamp.connection, subject.as_str()),
                    (*requester, to.as_str())
                );
                assert!(client.served.iter().any(|pattern| covers(pattern, to)));
                assert!(self.delivered.insert(id), "delivered twice");
                self.open.insert(id, *requester);
                client.in_order(stamp.sequence, 0);
                client.delivered.push(id);
            }
            Frame::Answer { id, stamp, body } => {
                let replier = self.replies.get(&number(body)).expect("it was replied");
                assert_eq!(stamp.connection, *replier);
                client.in_order(stamp.sequence, 0);
                client.answered(id);
            }
            Frame::Ok { id } | Frame::Pong { id, .. } => client.answered(id),
            Frame::Error { id, code, text } => {
                assert!(crate::is_quiet(text));
                let ends = matches!(code, ErrorCode::Protocol | ErrorCode::Quota) && id == 0;
                if !ends {
                    client.answered(id);
                }
            }
            Frame::Gap { id, count } => {
                assert!(count > 0 && client.asked_for.contains_key(&id));
                client.gap_frames += 1;
                *client.dropped.entry(id).or_default() += count;
            }
            Frame::GoAway { .. } => assert!(client.told_to_go),
            _ => panic!("a client got {frame:?}"),
        }
    }

    /// After the broker was told.
    pub(super) fn reload(
        &mut self,
        clients: &mut [Client],
        permits: &[(Action, &'static str, &'static str)],
    ) {
        self.permits = permits.to_vec();
        for client in clients {
            let uid = client.uid;
            client.torn = true;
            let lost = |of: &HashMap<u64, String>, action| {
                let lost = of
                    .iter()
                    .filter(|(_, pattern)| !self.may(uid, action, pattern));
                lost.map(|(id, _)| *id).collect::<Vec<_>>()
            };
            let subscriptions = lost(&client.subscriptions, Action::Subscribe);
            let registrations = lost(&client.registrations, Action::Serve);
            for id in subscriptions.iter().chain(&registrations) {
                *client.due.entry(*id).or_default() += 1;
            }
            client
                .subscriptions
                .retain(|id, _| !subscriptions.contains(id));
            client
                .registrations
                .retain(|id, _| !registrations.contains(id));
        }
    }
}

/// The number at the start of a body.
fn number(body: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    for (place, byte) in bytes.iter_mut().zip(body) {
        *place = *byte;
    }
    u64::from_be_bytes(bytes)
}

/// Whether a pattern selects all that another one (or a subject) does.
fn covers(pattern: &str, other: &str) -> bool {
    let (one, other): (Vec<&str>, Vec<&str>) =
        (pattern.split('.').collect(), other.split('.').collect());
    let ends = one.last() == Some(&">");
    let fixed = if ends { one.len() - 1 } else { one.len() };
    if ends && other.len() < one.len() || !ends && other.len() != one.len() {
        return false;
    }
    (0..fixed).all(|at| other[at] != ">" && (one[at] == "*" || one[at] == other[at]))
}
