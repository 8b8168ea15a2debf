//! Plays one history: random steps, each confirmed before the next.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use secure_socket::frame::{ErrorCode, Frame, Pattern, Stamp, Subject};
use secure_socket::policy::{Numeric, Rule};
use secure_socket::service::broker::{Action, Limits, Permit};

use super::broker_support::{Running, own_uid};
use super::end::{End, Got, body};
use super::helper::Helper;
use super::model::{Asked, Counts, Peer, Publication, Subscription, Who, check, distinct, selects};

const SUBJECTS: [&str; 6] = ["a.x", "a.y", "a.x.z", "b", "s.x", "s.y"];
const PATTERNS: [&str; 9] = ["a.x", "a.*", "a.>", "*.x", ">", "b", "*", "s.*", "s.x"];
const ACTIONS: [Action; 4] = [
    Action::Publish,
    Action::Subscribe,
    Action::Request,
    Action::Serve,
];

/// Everything for three users, something for the other two.
pub fn permits() -> Vec<Permit> {
    let permit = |action, pattern: &str, rule: &str| {
        let rule = Rule::parse(
            rule,
            &Numeric {
                own_user: own_uid(),
            },
        )
        .unwrap();
        Permit::new(action, Pattern::new(pattern.as_bytes()).unwrap(), rule)
    };
    let mut all: Vec<Permit> = ACTIONS
        .iter()
        .map(|action| permit(*action, ">", "uid:0|uid:33|uid:1001"))
        .collect();
    all.push(permit(Action::Publish, "a.>", "uid:1002"));
    all.push(permit(Action::Subscribe, "a.*", "uid:65533"));
    all.push(permit(Action::Request, "s.x", "uid:65533"));
    all
}

/// The same, said once more.
fn may(who: Who, action: Action, pattern: &str) -> bool {
    match (who.uid, action) {
        (0 | 33 | 1001, _) => true,
        (1002, Action::Publish) => pattern.starts_with("a."),
        (65_533, Action::Subscribe) => ["a.x", "a.y", "a.*"].contains(&pattern),
        (65_533, Action::Request) => pattern == "s.x",
        _ => false,
    }
}

/// Random numbers (xorshift64*), the same for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound
    }

    fn one_in(&mut self, chance: usize) -> bool {
        self.below(chance) == 0
    }
}

/// A request that was delivered and not yet answered.
struct Pending {
    asker: usize,
    id: u64,
    responder: usize,
    number: u64,
}

struct Play<'a> {
    dice: Dice,
    helpers: &'a mut [Helper],
    limits: Limits,
    peers: Vec<Peer>,
    ends: Vec<Option<End>>,
    slow: Vec<bool>,
    publications: BTreeMap<u64, Publication>,
    pending: Vec<Pending>,
    numbers: Vec<u64>,
    last: u64,
}

pub fn history(
    seed: u64,
    broker: &Running,
    helpers: &mut [Helper],
    limits: Limits,
    tally: &mut Tally,
) {
    let mut play = Play {
        dice: Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
        helpers,
        limits,
        peers: Vec::new(),
        ends: Vec::new(),
        slow: Vec::new(),
        publications: BTreeMap::new(),
        pending: Vec::new(),
        numbers: Vec::new(),
        last: 0,
    };
    for _ in 0..3 {
        play.connect();
    }
    let steps = 20 + play.dice.below(40);
    for _ in 0..steps {
        play.step();
    }
    play.finish();
    for me in 0..play.peers.len() {
        tally.add(&check(me, &play.peers, &play.publications));
    }
    assert!(
        distinct(&play.numbers),
        "a number was used twice: {:?}",
        play.numbers
    );
    tally.histories += 1;
    drop(play);
    broker.await_connections(0);
}

impl Play<'_> {
    fn new_number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn step(&mut self) {
        let Some(me) = self.someone() else {
            return self.connect();
        };
        match self.dice.below(24) {
            0 | 1 => self.connect(),
            2..=4 => self.subscribe(me),
            5 => self.unsubscribe(me),
            6..=9 => {
                let text = SUBJECTS[self.dice.below(SUBJECTS.len())];
                self.publish(me, text, 200);
            }
            10 | 20..=22 => self.burst(me),
            11 | 12 => self.serve(me),
            13 => self.unserve(me),
            14..=15 => self.request(me),
            16 => self.reply(),
            17 => self.forge(me),
            18 | 23 => self.grow_slow(me),
            _ if self.dice.one_in(2) => self.kill(me),
            _ => self.violate(me),
        }
    }

    /// Somebody who reads.
    fn someone(&mut self) -> Option<usize> {
        let live: Vec<usize> = self.quick().collect();
        (!live.is_empty()).then(|| live[self.dice.below(live.len())])
    }

    fn quick(&self) -> impl Iterator<Item = usize> {
        (0..self.ends.len()).filter(|n| self.ends[*n].is_some() && !self.slow[*n])
    }

    fn connect(&mut self) {
        if self.ends.iter().flatten().count() >= 8 {
            return;
        }
        let helper = self.dice.below(self.helpers.len());
        let helper = &mut self.helpers[helper];
        self.ends.push(Some(End::new(helper.connect())));
        self.slow.push(false);
        self.peers.push(Peer {
            who: Who {
                uid: helper.uid,
                gid: helper.gid,
                pid: helper.pid,
            },
            subscriptions: BTreeMap::new(),
            registrations: BTreeMap::new(),
            asked: BTreeMap::new(),
            seen: Vec::new(),
            killed: false,
        });
    }

    fn send(&mut self, me: usize, frame: &Frame<'_>) {
        let dice = &mut self.dice;
        let whole = !dice.one_in(4);
        let cut = |left: usize| if whole { left } else { 1 + dice.below(left) };
        if let Some(end) = &mut self.ends[me] {
            end.send(frame, cut);
        }
    }

    /// The OK or ERROR with this id.
    fn outcome(&mut self, me: usize, id: u64) -> Option<ErrorCode> {
        let seen = &mut self.peers[me].seen;
        let from = seen.len();
        let of = |got: &Got| match got {
            Got::Ok(of) if *of == id => Some(None),
            Got::Error(of, code) if *of == id => Some(Some(*code)),
            _ => None,
        };
        let end = self.ends[me].as_mut().unwrap();
        end.read_until(seen, |seen| {
            seen[from..].iter().any(|got| of(got).is_some())
        });
        let found = seen[from..].iter().find_map(of);
        found.unwrap_or_else(|| panic!("closed instead of an answer: {:?}", seen.last()))
    }

    fn subscribe(&mut self, me: usize) {
        let id = self.new_number();
        let text = PATTERNS[self.dice.below(PATTERNS.len())];
        let drop_oldest = self.dice.one_in(2);
        let pattern = Pattern::new(text.as_bytes()).unwrap();
        self.send(
            me,
            &Frame::Subscribe {
                id,
                pattern,
                drop_oldest,
            },
        );
        let outcome = self.outcome(me, id);
        let peer = &mut self.peers[me];
        let held = peer.subscriptions.values().filter(|s| !s.ended).count();
        let expect = match () {
            () if !may(peer.who, Action::Subscribe, text) => Some(ErrorCode::Denied),
            () if held >= self.limits.subscriptions => Some(ErrorCode::Quota),
            () => None,
        };
        assert_eq!(outcome, expect, "subscribe {text}");
        if outcome.is_none() {
            let pattern = text.to_owned();
            let new = Subscription {
                pattern,
                drop_oldest,
                expected: Vec::new(),
                ended: false,
            };
            peer.subscriptions.insert(id, new);
        }
    }

    fn unsubscribe(&mut self, me: usize) {
        let of = &self.peers[me].subscriptions;
        let Some(id) = of.iter().find(|(_, s)| !s.ended).map(|(id, _)| *id) else {
            return;
        };
        self.send(me, &Frame::Unsubscribe { id });
        assert_eq!(self.outcome(me, id), None);
        self.peers[me].subscriptions.get_mut(&id).unwrap().ended = true;
    }

    fn publish(&mut self, me: usize, text: &str, filling: usize) {
        let id = self.new_number();
        let data = body(id, self.dice.below(filling));
        let subject = Subject::new(text.as_bytes()).unwrap();
        self.send(
            me,
            &Frame::Publish {
                id,
                subject,
                body: &data,
            },
        );
        let outcome = self.outcome(me, id);
        let allowed = may(self.peers[me].who, Action::Publish, text);
        assert_eq!(
            outcome,
            (!allowed).then_some(ErrorCode::Denied),
            "publish {text}"
        );
        if !allowed {
            return;
        }
        self.publications.insert(
            id,
            Publication {
                by: me,
                subject: text.to_owned(),
            },
        );
        for peer in self.peers.iter_mut().filter(|peer| !peer.killed) {
            for subscription in peer.subscriptions.values_mut().filter(|s| !s.ended) {
                if selects(&subscription.pattern, text) {
                    subscription.expected.push(id);
                }
            }
        }
        // Who reads, reads; else it would be slow.
        let quick: Vec<usize> = self.quick().collect();
        for other in quick {
            let end = self.ends[other].as_mut().unwrap();
            end.read(1 << 20, &mut self.peers[other].seen);
        }
    }

    fn burst(&mut self, me: usize) {
        let text = SUBJECTS[self.dice.below(2)];
        for _ in 0..self.dice.below(40) {
            self.publish(me, text, 30_000);
        }
    }

    fn serve(&mut self, me: usize) {
        let id = self.new_number();
        let text = PATTERNS[self.dice.below(PATTERNS.len())];
        self.send(
            me,
            &Frame::Serve {
                id,
                pattern: Pattern::new(text.as_bytes()).unwrap(),
            },
        );
        let outcome = self.outcome(me, id);
        let peer = &mut self.peers[me];
        let expect = match () {
            () if !may(peer.who, Action::Serve, text) => Some(ErrorCode::Denied),
            () if peer.registrations.len() >= self.limits.subscriptions => Some(ErrorCode::Quota),
            () => None,
        };
        assert_eq!(outcome, expect, "serve {text}");
        if outcome.is_none() {
            peer.registrations.insert(id, text.to_owned());
        }
    }

    fn unserve(&mut self, me: usize) {
        // What was delivered to it is checked against what it serves at the end.
        let of = &self.peers[me];
        let had = of.seen.iter().any(|got| matches!(got, Got::Deliver { .. }));
        let Some(id) = of.registrations.keys().next().copied().filter(|_| !had) else {
            return;
        };
        self.send(me, &Frame::Unserve { id });
        assert_eq!(self.outcome(me, id), None);
        self.peers[me].registrations.remove(&id);
    }

    fn request(&mut self, me: usize) {
        let id = self.new_number();
        let text = SUBJECTS[self.dice.below(SUBJECTS.len())];
        let data = body(id, self.dice.below(100));
        let subject = Subject::new(text.as_bytes()).unwrap();
        let open = self
            .pending
            .iter()
            .filter(|pending| pending.asker == me)
            .count();
        self.peers[me].asked.insert(
            id,
            Asked {
                ends: 0,
                responder: None,
                answer: None,
            },
        );
        self.send(
            me,
            &Frame::Request {
                id,
                subject,
                body: &data,
            },
        );
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            assert!(Instant::now() < deadline, "a request without an end");
            let quick: Vec<usize> = self.quick().collect();
            for other in quick {
                let seen = &mut self.peers[other].seen;
                let from = seen.len();
                self.ends[other].as_mut().unwrap().read(1 << 20, seen);
                let news = seen[from..].to_vec();
                for got in news {
                    match got {
                        Got::Deliver {
                            id: number, body, ..
                        } if body == id => {
                            self.numbers.push(number);
                            self.pending.push(Pending {
                                asker: me,
                                id,
                                responder: other,
                                number,
                            });
                            self.peers[me].asked.get_mut(&id).unwrap().responder = Some(other);
                            return;
                        }
                        Got::Error(of, code) if of == id && other == me => {
                            self.peers[me].asked.get_mut(&id).unwrap().ends += 1;
                            return self.refused(me, text, open, code);
                        }
                        _ => (),
                    }
                }
            }
            std::thread::yield_now();
        }
    }

    /// Whether a request may have been refused for this.
    fn refused(&self, me: usize, text: &str, open: usize, code: ErrorCode) {
        let serves = |peer: &Peer| peer.registrations.values().any(|p| selects(p, text));
        let live = self.peers.iter().any(|peer| !peer.killed && serves(peer));
        let dead = self.peers.iter().any(|peer| peer.killed && serves(peer));
        let allowed = may(self.peers[me].who, Action::Request, text);
        let right = match code {
            ErrorCode::Denied => !allowed,
            // Its own bound, or that of everyone who serves it.
            ErrorCode::Quota => allowed && (open >= self.limits.requests || live),
            ErrorCode::NoResponder => allowed && !live,
            ErrorCode::Gone => allowed && dead,
            _ => false,
        };
        assert!(
            right,
            "request {text}: {code}, served: {live}, by a dead one: {dead}"
        );
    }

    fn reply(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let which = self.dice.below(self.pending.len());
        let Pending {
            asker,
            id,
            responder,
            number,
        } = self.pending.swap_remove(which);
        let answer = self.new_number();
        self.peers[asker].asked.get_mut(&id).unwrap().answer = Some(answer);
        self.send(
            responder,
            &Frame::Reply {
                id: number,
                body: &body(answer, 10),
            },
        );
        let seen = &mut self.peers[asker].seen;
        let is = |got: &Got| matches!(got, Got::Answer { id: of, .. } if *of == id);
        self.ends[asker]
            .as_mut()
            .unwrap()
            .read_until(seen, |seen| seen.iter().any(is));
        self.peers[asker].asked.get_mut(&id).unwrap().ends += 1;
    }

    /// Answers a request that was delivered to somebody else, or to nobody.
    fn forge(&mut self, me: usize) {
        let others = self
            .pending
            .iter()
            .filter(|pending| pending.responder != me);
        let number = others
            .map(|pending| pending.number)
            .next()
            .unwrap_or(self.last + (1 << 40));
        self.send(
            me,
            &Frame::Reply {
                id: number,
                body: &body(0, 0),
            },
        );
        assert_eq!(self.outcome(me, number), Some(ErrorCode::Gone));
    }

    /// From here on it reads nothing, and does nothing else.
    fn grow_slow(&mut self, me: usize) {
        let busy = self
            .pending
            .iter()
            .any(|p| p.asker == me || p.responder == me);
        let peer = &self.peers[me];
        self.slow[me] = !busy && peer.registrations.is_empty() && !peer.subscriptions.is_empty();
    }

    fn kill(&mut self, me: usize) {
        self.ends[me] = None;
        self.lost(me);
    }

    /// Sends what only the broker may.
    fn violate(&mut self, me: usize) {
        let subject = Subject::new(b"a.x").unwrap();
        let stamp = Stamp {
            connection: 1,
            sequence: 1,
            uid: None,
            gid: None,
            pid: None,
            flags: 0,
        };
        let frames = [
            Frame::Message {
                id: 1,
                subject,
                stamp,
                body: b"12345678",
            },
            Frame::Deliver {
                id: 1,
                subject,
                stamp,
                body: b"12345678",
            },
            Frame::Answer {
                id: 1,
                stamp,
                body: b"12345678",
            },
            Frame::Ok { id: 1 },
            Frame::Gap { id: 1, count: 1 },
        ];
        let frame = frames[self.dice.below(frames.len())];
        self.send(me, &frame);
        let seen = &mut self.peers[me].seen;
        let over = |seen: &[Got]| seen.last() == Some(&Got::Closed);
        self.ends[me].as_mut().unwrap().read_until(seen, over);
        assert_eq!(seen[seen.len() - 2], Got::Error(0, ErrorCode::Protocol));
        self.ends[me] = None;
        self.lost(me);
    }

    /// Requests that it was to answer end; those that it asked need not.
    fn lost(&mut self, me: usize) {
        self.peers[me].killed = true;
        let (open, rest): (Vec<_>, Vec<_>) = self
            .pending
            .drain(..)
            .partition(|p| p.asker == me || p.responder == me);
        self.pending = rest;
        for Pending { asker, id, .. } in open {
            if asker != me {
                let seen = &mut self.peers[asker].seen;
                let gone = Got::Error(id, ErrorCode::Gone);
                self.ends[asker]
                    .as_mut()
                    .unwrap()
                    .read_until(seen, |seen| seen.contains(&gone));
                assert!(seen.contains(&gone));
                self.peers[asker].asked.get_mut(&id).unwrap().ends += 1;
            }
        }
    }

    /// Answers what is open, and reads everything.
    fn finish(&mut self) {
        while !self.pending.is_empty() {
            self.reply();
        }
        for me in 0..self.ends.len() {
            if self.ends[me].is_none() {
                continue;
            }
            let id = u64::MAX - me as u64;
            self.send(me, &Frame::Ping { id, body: &[] });
            let seen = &mut self.peers[me].seen;
            let end = self.ends[me].as_mut().unwrap();
            end.read_until(seen, |seen| seen.contains(&Got::Ok(id)));
            let quota = seen.contains(&Got::Error(0, ErrorCode::Quota));
            let over = seen.last() == Some(&Got::Closed);
            assert_eq!(over, quota, "closed without a reason");
        }
    }
}

/// What all histories together have shown.
#[derive(Default, Debug)]
pub struct Tally {
    pub histories: u64,
    counts: Counts,
}

impl Tally {
    fn add(&mut self, more: &Counts) {
        let of = &mut self.counts;
        of.messages += more.messages;
        of.dropped += more.dropped;
        of.requests += more.requests;
        of.answers += more.answers;
        of.gone += more.gone;
        of.nobody += more.nobody;
        of.denied += more.denied;
        of.closed_for_quota += more.closed_for_quota;
    }

    pub fn assert_that_everything_happened(&self) {
        let of = &self.counts;
        let all = [
            of.messages,
            of.dropped,
            of.requests,
            of.answers,
            of.gone,
            of.nobody,
            of.denied,
            of.closed_for_quota,
        ];
        assert!(all.iter().all(|count| *count > 0), "{self:?}");
    }
}
