//! What must be true of a history, from what was sent and what was seen alone.

use std::collections::{BTreeMap, BTreeSet};

use secure_socket::frame::{ErrorCode, Stamp};

use super::end::Got;

/// Who a connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Who {
    pub uid: u32,
    pub gid: u32,
    pub pid: i32,
}

/// A subscription, and every message that it should see, in order.
#[derive(Debug)]
pub struct Subscription {
    pub pattern: String,
    pub drop_oldest: bool,
    pub expected: Vec<u64>,
    pub ended: bool,
}

/// One connection as the model knows it.
#[derive(Debug)]
pub struct Peer {
    pub who: Who,
    /// Every id that was ever used is used once, so that it names one subscription.
    pub subscriptions: BTreeMap<u64, Subscription>,
    pub registrations: BTreeMap<u64, String>,
    /// Requests by their id, and how often each has ended.
    pub asked: BTreeMap<u64, Asked>,
    pub seen: Vec<Got>,
    pub killed: bool,
}

#[derive(Debug)]
pub struct Asked {
    pub ends: usize,
    /// Who was delivered it, once it was seen.
    pub responder: Option<usize>,
    pub answer: Option<u64>,
}

/// Which publication is whose.
#[derive(Debug)]
pub struct Publication {
    pub by: usize,
    pub subject: String,
}

/// Tokens by hand: another way than the broker's.
pub fn selects(pattern: &str, subject: &str) -> bool {
    fn go(pattern: &[&str], subject: &[&str]) -> bool {
        match (pattern, subject) {
            ([], []) => true,
            ([">"], [_, ..]) => true,
            (["*", p @ ..], [_, s @ ..]) => go(p, s),
            ([a, p @ ..], [b, s @ ..]) if a == b => go(p, s),
            _ => false,
        }
    }
    let pattern: Vec<&str> = pattern.split('.').collect();
    let subject: Vec<&str> = subject.split('.').collect();
    go(&pattern, &subject)
}

fn stamp_is(stamp: &Stamp, who: Who) -> bool {
    stamp.uid.map(|id| id.as_raw()) == Some(who.uid)
        && stamp.gid.map(|id| id.as_raw()) == Some(who.gid)
        && stamp.pid.map(|id| id.as_raw()) == Some(who.pid)
}

/// Checks everything that one peer has seen.
pub fn check(me: usize, peers: &[Peer], publications: &BTreeMap<u64, Publication>) -> Counts {
    let peer = &peers[me];
    let mut counts = Counts::default();
    let mut last_sequence = 0;
    let mut last_message: Option<u64> = None;
    let mut progress: BTreeMap<u64, Progress> = BTreeMap::new();
    for got in &peer.seen {
        match got {
            Got::Message {
                id,
                subject,
                stamp,
                body,
            } => {
                let publication = &publications[body];
                assert!(
                    stamp_is(stamp, peers[publication.by].who),
                    "{me}: forged stamp {got:?}"
                );
                assert_eq!(*subject, publication.subject);
                // One message for two subscriptions has one place in the order.
                let same = stamp.sequence == last_sequence && last_message == Some(*body);
                assert!(
                    same || stamp.sequence > last_sequence,
                    "{me}: order {got:?}"
                );
                (last_sequence, last_message) = (stamp.sequence, Some(*body));
                let expected = &peer.subscriptions[id].expected;
                let of = progress.entry(*id).or_default();
                let at = expected[of.next..].iter().position(|number| number == body);
                let at = at.unwrap_or_else(|| panic!("{me}: {got:?} is not for it, or again"));
                assert_eq!(at as u64, of.missing, "{me}: GAP before {got:?}");
                of.next += at + 1;
                of.missing = 0;
                counts.messages += 1;
            }
            Got::Gap { id, count } => {
                assert!(*count > 0);
                progress.entry(*id).or_default().missing += count;
                counts.dropped += count;
            }
            Got::Deliver {
                stamp,
                body,
                subject,
                ..
            } => {
                assert!(stamp.sequence > last_sequence);
                (last_sequence, last_message) = (stamp.sequence, None);
                let asker = peers.iter().find(|peer| peer.asked.contains_key(body));
                assert!(stamp_is(stamp, asker.expect("nobody asked that").who));
                let serves = |pattern: &String| selects(pattern, subject);
                assert!(
                    peer.registrations.values().any(serves),
                    "{me}: not for it: {got:?}"
                );
                counts.requests += 1;
            }
            Got::Answer { id, stamp, body } => {
                assert!(stamp.sequence > last_sequence);
                (last_sequence, last_message) = (stamp.sequence, None);
                let asked = &peer.asked[id];
                let responder = asked.responder.expect("an answer of nobody");
                assert!(stamp_is(stamp, peers[responder].who), "{me}: forged answer");
                assert_eq!(asked.answer, Some(*body));
                counts.answers += 1;
            }
            Got::Error(0, ErrorCode::Quota) => counts.closed_for_quota += 1,
            Got::Error(_, ErrorCode::Gone) => counts.gone += 1,
            Got::Error(_, ErrorCode::Denied) => counts.denied += 1,
            Got::Error(_, ErrorCode::NoResponder) => counts.nobody += 1,
            Got::Ok(_) | Got::Error(..) | Got::Closed => (),
        }
    }
    let closed_by_broker = counts.closed_for_quota > 0;
    for (id, subscription) in &peer.subscriptions {
        let of = progress.remove(id).unwrap_or_default();
        let left = (subscription.expected.len() - of.next) as u64;
        if peer.killed {
            continue;
        }
        if closed_by_broker {
            // What waited when it was closed is said; what came later is not its.
            assert!(of.missing <= left, "{me}/{id}: GAP too large");
        } else {
            assert_eq!(
                of.missing, left,
                "{me}/{id}: lost in silence {subscription:?}"
            );
            assert!(left == 0 || subscription.drop_oldest);
        }
    }
    assert!(
        progress.is_empty(),
        "{me}: messages of subscriptions it hasn't: {progress:?}"
    );
    for (id, asked) in &peer.asked {
        let open = peer.killed || closed_by_broker;
        assert!(
            asked.ends == 1 || open && asked.ends == 0,
            "{me}: request {id}: {asked:?}"
        );
        let is_end = |got: &&Got| match got {
            Got::Answer { id: of, .. } | Got::Error(of, _) => of == id,
            _ => false,
        };
        assert_eq!(
            peer.seen.iter().filter(is_end).count(),
            asked.ends,
            "{me}: request {id}"
        );
    }
    counts
}

#[derive(Default, Debug)]
struct Progress {
    next: usize,
    missing: u64,
}

/// What was seen, to be sure that histories are not empty.
#[derive(Clone, Copy, Default, Debug)]
pub struct Counts {
    pub messages: u64,
    pub dropped: u64,
    pub requests: u64,
    pub answers: u64,
    pub gone: u64,
    pub nobody: u64,
    pub denied: u64,
    pub closed_for_quota: u64,
}

/// Whether each of these numbers was used once.
pub fn distinct(numbers: &[u64]) -> bool {
    numbers.iter().collect::<BTreeSet<_>>().len() == numbers.len()
}
