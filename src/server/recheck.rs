//! Looks again at a process that was admitted by its executable: it may run
//! another one since (execve(2)), and nothing tells. Also judges open connections
//! again after a reload.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use super::rules::Rules;
use super::shared::Shared;
use super::wards::Ward;
use crate::peer::{Fact, Facts, Needs, Peer, ProcessFacts, Unreadable};
use crate::policy::{Authorized, Denial, DenialReason};
use crate::service::{CloseReason, Connection, Waker};
use crate::sys;

/// How long an answer of the checker may take before it is given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// By how much an answer may come later than the checker promises.
pub(super) const MARGIN: Duration = Duration::from_secs(1);
/// How long to wait before the checker is asked again.
const BETWEEN_ROUNDS: Duration = Duration::from_millis(10);

/// How often an answer is looked for that nobody tells of.
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// The repeated look at one process.
pub(super) struct Recheck {
    due: Instant,
    answer: Option<Arc<Mutex<Option<ProcessFacts>>>>,
    /// Since when the process has had no memory, and so no executable to be seen.
    unsure_since: Option<Instant>,
}

impl Recheck {
    pub(super) fn new(first: Instant) -> Self {
        Self {
            due: first,
            answer: None,
            unsure_since: None,
        }
    }

    /// When to call [`go_on`](Self::go_on) at the latest.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// When to look for an answer that nobody tells of; far off if none is awaited.
    pub(super) fn next_look(&self) -> Instant {
        match self.answer {
            Some(_) => Instant::now() + BETWEEN_LOOKS,
            None => self.due,
        }
    }

    /// Whether an answer is awaited, or has come.
    pub(super) fn is_asked(&self) -> bool {
        self.answer.is_some()
    }

    /// Whether an answer has come.
    pub(super) fn has_answer(&self) -> bool {
        let answer = self.answer.as_ref();
        answer.is_some_and(|answer| {
            answer
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .is_some()
        })
    }

    /// Asks if it is time to, or takes the answer that has come. Gives why the
    /// connection must end, if so.
    pub(super) fn go_on(
        &mut self,
        shared: &Shared,
        connection: &Connection,
        waker: Option<&Waker>,
        now: Instant,
    ) -> Option<CloseReason> {
        let (id, peer, authorized) = (connection.id(), connection.peer(), connection.authorized());
        self.go_on_with(shared, id, peer, authorized, waker, now)
    }

    /// The same by another verdict than the one that opened connection `id`.
    pub(super) fn go_on_with(
        &mut self,
        shared: &Shared,
        id: u64,
        peer: &Peer,
        authorized: &Authorized,
        waker: Option<&Waker>,
        now: Instant,
    ) -> Option<CloseReason> {
        let Some(answer) = self.answer.take() else {
            if now >= self.due {
                self.ask(shared, peer, waker, now);
            }
            return None;
        };
        let process = answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(process) = process else {
            if now < self.due {
                self.answer = Some(answer);
                return None;
            }
            // A checker that does not answer can't vouch for anybody.
            return Some(CloseReason::ExecutableChanged);
        };
        self.due = sys::time::after(now, shared.rules().between_rechecks());
        let mut facts = Facts::of(Fact::Unasked);
        facts.absorb(process);
        if facts.exe == Fact::Unreadable(Unreadable::NoMemory) {
            // On its way out, which takes the longer the more memory it had, or in the
            // middle of execve(2): it is soon to be seen which.
            let since = *self.unsure_since.get_or_insert(now);
            if now < since + PATIENCE {
                self.due = now + BETWEEN_LOOKS;
                return None;
            }
        } else {
            self.unsure_since = None;
        }
        match authorized.still_holds(&facts) {
            Ok(()) => None,
            // A busy checker has seen nothing wrong; it is asked again.
            Err(DenialReason::CheckerBusy) => None,
            Err(reason) => {
                crate::limited!(
                    notice, conn = id;
                    "the process is no longer what was admitted {} reason={reason}",
                    authorized.facts()
                );
                Some(match reason {
                    DenialReason::PeerGone => CloseReason::PeerExited,
                    _ => CloseReason::ExecutableChanged,
                })
            }
        }
    }

    fn ask(&mut self, shared: &Shared, peer: &Peer, waker: Option<&Waker>, now: Instant) {
        let answer: Arc<Mutex<Option<ProcessFacts>>> = Arc::default();
        let (place, waker) = (Arc::clone(&answer), waker.cloned());
        let on_done = move |facts| {
            *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(facts);
            if let Some(waker) = waker {
                waker.wake();
            }
        };
        let exe = Needs::only(crate::peer::FactKind::Exe);
        self.due = now + PATIENCE;
        self.answer = Some(answer);
        shared
            .rules()
            .inspector
            .learn_later(peer, exe, Box::new(on_done));
    }
}

/// Which of these open connections other rules no longer admit, and why, and which of
/// the others need somebody who looks after what those rules ask. Reads what
/// the rules ask for: what a process runs, and which files paths lead to, may have
/// changed.
///
/// All wait for the process checker at the same time: together they take little
/// longer than one answer of it may take. What it had no means to tell is asked again
/// until then, and then does not admit.
pub(super) fn judge_again(
    rules: &Rules,
    connections: Vec<Arc<Connection>>,
) -> (Vec<(Arc<Connection>, Denial)>, Vec<Ward>) {
    let patience = rules.inspector.patience().saturating_add(MARGIN);
    let until = sys::time::after(Instant::now(), patience);
    let (mut left, mut denied, mut wards) = (connections, Vec::new(), Vec::new());
    loop {
        let (unsure, sure): (Vec<_>, Vec<_>) = judge_once(rules, left, until, &mut wards)
            .into_iter()
            .partition(|(_, denial)| denial.is_for_lack_of_means());
        denied.extend(sure);
        if unsure.is_empty() || Instant::now() >= until {
            denied.extend(unsure);
            return (denied, wards);
        }
        left = unsure
            .into_iter()
            .map(|(connection, _)| connection)
            .collect();
        std::thread::sleep(BETWEEN_ROUNDS);
    }
}

fn judge_once(
    rules: &Rules,
    connections: Vec<Arc<Connection>>,
    until: Instant,
    wards: &mut Vec<Ward>,
) -> Vec<(Arc<Connection>, Denial)> {
    let (sender, answers) = mpsc::channel();
    let (mut asked, mut denied) = (HashMap::new(), Vec::new());
    let mut go_on = |number, mut judged: Judged, asked: &mut HashMap<usize, Judged>| {
        if judged.asks_checker(rules, number, &sender) {
            asked.insert(number, judged);
            return;
        }
        match rules.policy.check(&judged.facts) {
            Ok(authorized) => wards.extend(judged.ward(rules, authorized)),
            Err(denial) => denied.push((judged.connection, denial)),
        }
    };
    for (number, connection) in connections.into_iter().enumerate() {
        go_on(number, Judged::new(rules, connection), &mut asked);
    }
    while !asked.is_empty() {
        let patience = until.saturating_duration_since(Instant::now());
        let Ok((number, process)) = answers.recv_timeout(patience) else {
            break;
        };
        if let Some(mut judged) = asked.remove(&number) {
            judged.facts.absorb(process);
            go_on(number, judged, &mut asked);
        }
    }
    let late = asked.into_values().map(|judged| {
        let denial = Denial::without_rule(DenialReason::CheckerBusy);
        (judged.connection, denial)
    });
    denied.extend(late);
    denied
}

/// An open connection on its way to another verdict.
struct Judged {
    connection: Arc<Connection>,
    peer: Peer,
    facts: Facts,
}

impl Judged {
    fn new(rules: &Rules, connection: Arc<Connection>) -> Self {
        let needs = rules.needs();
        let mut peer = connection.peer().clone();
        let is_local = peer.facts().address.is_none();
        if is_local && !needs.is_empty() {
            // The socket still answers as at connect. What is held stays held: opened
            // again for all connections at once, it might be more than the limit allows.
            peer = peer.asked(connection.as_fd(), needs, rules.pidfd_source);
        }
        let facts = peer.facts().clone();
        Self {
            connection,
            peer,
            facts,
        }
    }

    fn ward(self, rules: &Rules, authorized: Authorized) -> Option<Ward> {
        // The choice alone, like all options, holds for those who come from now on.
        let ends = authorized.names_process() && rules.ends_with_peer(&authorized);
        Ward::of(&self.connection, self.peer, authorized, ends)
    }

    /// Learns what the policy asks for. True if the checker will send the rest.
    fn asks_checker(
        &mut self,
        rules: &Rules,
        number: usize,
        answer: &mpsc::Sender<(usize, ProcessFacts)>,
    ) -> bool {
        loop {
            let asks = rules.policy.asks(&self.facts);
            if asks.is_empty() {
                return false;
            }
            let inspector = &rules.inspector;
            let later = inspector.learn_now(&self.peer, &mut self.facts, asks);
            if !later.is_empty() {
                let answer = answer.clone();
                let on_done = move |process| drop(answer.send((number, process)));
                inspector.learn_later(&self.peer, later, Box::new(on_done));
                return true;
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::super::tests::{Bench, connection, connection_running};
    use super::*;
    use crate::ids::Uid;
    use crate::peer::PidfdSource;
    use crate::policy::{Numeric, Policy, Rule};
    use crate::service::{Kind, Timeouts};

    #[test]
    fn nothing_is_asked_before_it_is_due() {
        let bench = Bench::new();
        let (connection, _other_end) = connection();
        let now = Instant::now();
        let due = now + Duration::from_secs(60);
        let mut recheck = Recheck::new(due);
        let mut go_on = |now| recheck.go_on(&bench.shared, &connection, None, now);
        assert_eq!(go_on(now), None);
        assert_eq!(go_on(due - Duration::from_nanos(1)), None);
        assert!(!recheck.has_answer());
        assert_eq!(recheck.due(), due);
        // Without a checker the answer is there at once.
        assert_eq!(recheck.go_on(&bench.shared, &connection, None, due), None);
        assert!(recheck.has_answer());
    }

    #[test]
    fn one_that_is_on_its_way_out_is_asked_for_again_for_a_while() {
        let bench = Bench::new();
        let (connection, _other_end) = connection_running();
        let begin = Instant::now();
        let tell = |recheck: &mut Recheck, why, now| {
            let place = Place::default();
            answer(&place, why);
            recheck.answer = Some(place);
            recheck.go_on(&bench.shared, &connection, None, now)
        };
        let mut recheck = Recheck::new(begin);
        for round in 0..2 {
            let begin = begin + PATIENCE * round;
            let (first, last) = (begin, begin + PATIENCE - Duration::from_millis(1));
            for now in [first, last] {
                assert_eq!(tell(&mut recheck, Unreadable::NoMemory, now), None);
                assert_eq!(recheck.due(), now + BETWEEN_LOOKS);
            }
            // One that is seen again has all of that time the next time.
            assert_eq!(tell(&mut recheck, Unreadable::Busy, begin), None);
        }
        let exited = tell(&mut recheck, Unreadable::Gone, begin);
        assert_eq!(exited, Some(CloseReason::PeerExited));
        assert_eq!(tell(&mut recheck, Unreadable::NoMemory, begin), None);
        let end = begin + PATIENCE;
        let unseen = tell(&mut recheck, Unreadable::NoMemory, end);
        assert_eq!(unseen, Some(CloseReason::ExecutableChanged));
        // Two programs within one look are one too many.
        let changed = tell(&mut Recheck::new(begin), Unreadable::Changed, begin);
        assert_eq!(changed, Some(CloseReason::ExecutableChanged));
    }

    pub(in crate::server) type Place = Arc<Mutex<Option<ProcessFacts>>>;

    /// One that awaits an answer, and where that comes.
    pub(in crate::server) fn asked() -> (Recheck, Place) {
        let mut recheck = Recheck::new(Instant::now() + PATIENCE);
        let place = Place::default();
        recheck.answer = Some(Arc::clone(&place));
        (recheck, place)
    }

    /// That the executable can't be told.
    pub(in crate::server) fn answer(place: &Place, why: Unreadable) {
        let exe = Needs::only(crate::peer::FactKind::Exe);
        *place.lock().unwrap() = Some(ProcessFacts::all_unreadable(exe, why));
    }

    fn policy(rule: &str) -> Policy {
        let own_user = Uid::ROOT;
        let rule = Rule::parse(rule, &Numeric { own_user }).unwrap();
        Policy::new(vec![rule], Vec::new(), own_user)
    }

    #[test]
    fn a_process_that_is_held_is_judged_by_the_same_descriptor() {
        let (socket, _client) = UnixStream::pair().unwrap();
        let peer = Peer::from_socket(socket.as_fd(), Needs::PROCESS, PidfdSource::Socket);
        let authorized = policy("any").check(peer.facts()).unwrap();
        let timeouts = Arc::new(Timeouts::default());
        let (kind, now) = (Kind::default(), Instant::now());
        let connection = Connection::new(1, socket.into(), kind, peer, authorized, timeouts, now);
        let rules = Rules::new(policy(&format!("pid:{}", std::process::id())));
        assert!(rules.needs().has_any(Needs::PROCESS));
        let judged = Judged::new(&rules, Arc::new(connection));
        let of = |peer: &Peer| peer.pidfd().unwrap().as_raw_fd();
        assert_eq!(of(&judged.peer), of(judged.connection.peer()));
    }
}
