//! From accept to the verdict: facts are learnt as far as they can still change
//! it, the policy judges, the process proves itself where that is asked for, and
//! the limits are kept.
//!
//! What the socket answers is read here; what stands below `/proc` is read by the
//! process checker, and waited for without holding up anybody else.
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, RwLockReadGuard};
use std::time::Instant;

use super::answer::{Answer, BETWEEN_LOOKS};
use super::counted::subject_of;
use super::journal;
use super::rules::Rules;
use super::shared::Shared;
use crate::admission::{Abuse, Examined, Refusal, Subject, Ticket};
use crate::listener::Accepted;
use crate::peer::proof::{Challenge, Progress, ProofFailure};
use crate::peer::{Fact, Facts, Needs, Peer, Unreadable};
use crate::policy::{Authorized, Denial, DenialReason};
use crate::service::{CloseReason, Connection, Interest, Wait, Waker};
use crate::sys;

/// A peer that is not admitted yet.
pub(super) struct Candidate {
    id: u64,
    socket: OwnedFd,
    accepted: Instant,
    peer: Peer,
    /// Those of the peer, until more are learnt.
    facts: Arc<Facts>,
    subject: Subject,
    rules: Arc<Rules>,
    doing: Doing,
    /// Whether it has proved to be the process that it was when it connected.
    proved: bool,
    /// Its place, from the moment that the policy has admitted it.
    ticket: Option<Ticket>,
    /// Its part of its user's share, from the moment that the checker is asked.
    examined: Option<Examined>,
}

enum Doing {
    /// Looking at the facts.
    Judging,
    /// The checker reads facts.
    Learning(Answer),
    /// Admitted by the policy; the bytes of the challenge are on their way.
    Proving(Proof),
    /// They came back; the checker looks once more.
    Confirming(Answer),
}

struct Proof {
    challenge: Challenge,
    sent: usize,
    until: Instant,
}

/// What became of a candidate.
pub(super) enum Verdict {
    /// Undecided.
    Wait(Box<Candidate>, Wait),
    /// Closed.
    TurnedAway,
    /// To be served.
    Admitted(Admitted),
}

/// Whom the policy lets in, with a place of its own.
pub(super) struct Admitted {
    pub(super) connection: Arc<Connection>,
    pub(super) subject: Subject,
    pub(super) ticket: Ticket,
}

/// Whether there is a place for one whom the policy admits.
enum Place {
    Taken,
    /// Not yet.
    Wait(Wait),
    /// A limit is reached; all is said.
    Refused,
}

/// How far it is.
enum Stage {
    Undecided(Wait),
    GoesOn,
    Authorized(Authorized),
    Denied(Denial),
    /// By a limit, or as the server ends; all is said.
    Refused,
}

impl Candidate {
    /// Learns who has come. `None` if that one is refused unread.
    pub(super) fn greet(shared: &Shared, accepted: Accepted, now: Instant) -> Option<Box<Self>> {
        let id = shared.next_id();
        let rules = shared.rules();
        let peer = match accepted.address {
            Some(address) => Peer::from_address(address),
            None => look_at(shared, accepted.socket.as_fd(), &rules),
        };
        let subject = subject_of(&peer, &rules);
        if let Err(refusal) = shared.admission.greet(&subject, now) {
            shared.refused(id, &subject, &refusal);
            return None;
        }
        let facts = Arc::clone(peer.shared_facts());
        let socket = accepted.socket;
        let doing = Doing::Judging;
        Some(Box::new(Self {
            id,
            socket,
            accepted: now,
            peer,
            facts,
            subject,
            rules,
            doing,
            proved: false,
            ticket: None,
            examined: None,
        }))
    }

    /// The number of its connection.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Goes on until there is a verdict, or something to wait for.
    pub(super) fn go_on(
        mut self: Box<Self>,
        shared: &Shared,
        waker: Option<&Waker>,
        now: Instant,
    ) -> Verdict {
        // The registry doesn't know it yet, so nobody else ends it.
        if shared.phase.is_forced() {
            shared.phase.cut();
            return Verdict::TurnedAway;
        }
        loop {
            let stage = match std::mem::replace(&mut self.doing, Doing::Judging) {
                Doing::Judging => self.judge(shared, waker, now),
                Doing::Learning(answer) => self.learn(answer, waker, now),
                Doing::Proving(proof) => self.prove(proof, waker, now),
                Doing::Confirming(answer) => self.confirm(answer, waker, now),
            };
            match stage {
                Stage::GoesOn => {}
                Stage::Undecided(wait) => return Verdict::Wait(self, wait),
                Stage::Authorized(authorized) => {
                    match self.take_place(shared, now) {
                        Place::Taken => {}
                        Place::Wait(wait) => return Verdict::Wait(self, wait),
                        Place::Refused => return Verdict::TurnedAway,
                    }
                    match shared.hold(&self.rules) {
                        Some(in_force) => return self.enter(shared, authorized, in_force),
                        None => self.begin_again(shared),
                    }
                }
                Stage::Denied(denial) => {
                    self.deny(shared, &denial, now);
                    return Verdict::TurnedAway;
                }
                Stage::Refused => return Verdict::TurnedAway,
            }
        }
    }

    // The steps are not inlined: what one takes of the stack is given back before the next,
    // and before the line in the log. An idle worker keeps the pages of the deepest call
    // that it ever made: two, with this.

    /// Other rules came into force on the way to the verdict, and decide; or there was no
    /// place for so long that what was learnt may have changed.
    #[inline(never)]
    fn begin_again(&mut self, shared: &Shared) {
        self.rules = shared.rules();
        if self.peer.facts().address.is_none() {
            // They may ask for more. The socket still answers as at connect, and holds
            // the same process.
            self.peer = look_at(shared, self.socket.as_fd(), &self.rules);
        }
        self.facts = Arc::clone(self.peer.shared_facts());
        self.doing = Doing::Judging;
    }

    /// Asks for what can still change the verdict, or gives it.
    #[inline(never)]
    fn judge(&mut self, shared: &Shared, waker: Option<&Waker>, now: Instant) -> Stage {
        let rules = Arc::clone(&self.rules);
        loop {
            let asks = rules.policy.asks(&self.facts);
            if asks.is_empty() {
                break;
            }
            let later = {
                let facts = Arc::make_mut(&mut self.facts);
                rules.inspector.learn_now(&self.peer, facts, asks)
            };
            if !later.is_empty() {
                return match self.take_share(shared, now) {
                    Place::Taken => {
                        self.doing = Doing::Learning(self.ask_checker(later, waker, now));
                        Stage::GoesOn
                    }
                    Place::Wait(wait) => Stage::Undecided(wait),
                    Place::Refused => Stage::Refused,
                };
            }
        }
        match rules.policy.check_shared(&self.facts) {
            // A proof takes as long as the peer likes: it counts as open.
            Ok(authorized) if !self.proved && shared.must_prove(&rules, &authorized) => {
                match self.take_place(shared, now) {
                    Place::Taken => self.begin_proof(now),
                    Place::Wait(wait) => Stage::Undecided(wait),
                    Place::Refused => Stage::Refused,
                }
            }
            Ok(authorized) => Stage::Authorized(authorized),
            Err(denial) => Stage::Denied(denial),
        }
    }

    #[inline(never)]
    fn ask_checker(&self, needs: Needs, waker: Option<&Waker>, now: Instant) -> Answer {
        Answer::ask(&self.rules.inspector, &self.peer, needs, waker, now)
    }

    #[inline(never)]
    fn learn(&mut self, answer: Answer, waker: Option<&Waker>, now: Instant) -> Stage {
        match answer.take(now) {
            Some(process) => {
                Arc::make_mut(&mut self.facts).absorb(process);
                Stage::GoesOn
            }
            None => {
                let wait = answer.wait(waker, now);
                self.doing = Doing::Learning(answer);
                Stage::Undecided(wait)
            }
        }
    }

    #[inline(never)]
    fn begin_proof(&mut self, now: Instant) -> Stage {
        let until = sys::time::after(now, self.rules.proof_timeout);
        match self.peer.pid().map(Challenge::new) {
            Some(Ok(challenge)) => {
                self.doing = Doing::Proving(Proof {
                    challenge,
                    sent: 0,
                    until,
                });
                Stage::GoesOn
            }
            Some(Err(_)) | None => Stage::Denied(Denial::without_rule(DenialReason::ProofForeign)),
        }
    }

    #[inline(never)]
    fn prove(&mut self, mut proof: Proof, waker: Option<&Waker>, now: Instant) -> Stage {
        if now >= proof.until {
            return Stage::Denied(Denial::without_rule(DenialReason::ProofTimeout));
        }
        let until = Some(proof.until);
        if let Some(rest) = proof
            .challenge
            .bytes()
            .get(proof.sent..)
            .filter(|b| !b.is_empty())
        {
            use rustix::net::{SendFlags, send};
            match send(
                &self.socket,
                rest,
                SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
            ) {
                Ok(count) => proof.sent = proof.sent.saturating_add(count),
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(_) => return Stage::Denied(Denial::without_rule(DenialReason::PeerGone)),
            }
            if proof.sent < proof.challenge.bytes().len() {
                self.doing = Doing::Proving(proof);
                return Stage::Undecided(Wait {
                    client: Interest::WRITE,
                    until,
                    ..Wait::default()
                });
            }
        }
        match proof.challenge.receive(self.socket.as_fd()) {
            Ok(Progress::Pending) => {
                self.doing = Doing::Proving(proof);
                Stage::Undecided(Wait {
                    client: Interest::READ,
                    until,
                    ..Wait::default()
                })
            }
            Ok(Progress::Proved) => {
                self.proved = true;
                let again = Needs::PROC.without(self.facts.unasked(Needs::PROC));
                self.doing = Doing::Confirming(self.ask_checker(again, waker, now));
                Stage::GoesOn
            }
            Err(failure) => Stage::Denied(Denial::without_rule(reason_of(&failure))),
        }
    }

    /// The second look, after the proof: all that could have changed since.
    #[inline(never)]
    fn confirm(&mut self, answer: Answer, waker: Option<&Waker>, now: Instant) -> Stage {
        let Some(process) = answer.take(now) else {
            let wait = answer.wait(waker, now);
            self.doing = Doing::Confirming(answer);
            return Stage::Undecided(wait);
        };
        let facts = Arc::make_mut(&mut self.facts);
        facts.absorb(process);
        if !facts.process.is_unasked() {
            facts.process = Fact::Unasked;
            let only = Needs::only(crate::peer::FactKind::Process);
            self.rules.inspector.learn_now(&self.peer, facts, only);
        }
        match self.rules.policy.check_shared(&self.facts) {
            Ok(authorized) => Stage::Authorized(authorized),
            Err(denial) => Stage::Denied(denial),
        }
    }

    #[inline(never)]
    fn deny(self, shared: &Shared, denial: &Denial, now: Instant) {
        journal::denied(&*shared.observer, self.id, &self.facts, denial);
        // What the server had no means for is not held against the peer: others
        // may have used them up.
        if denial.is_for_lack_of_means() {
            return;
        }
        if let Some(penalty) = shared.admission.denied(&self.subject, now) {
            journal::penalty(&*shared.observer, &self.subject, &penalty);
        }
    }

    /// Keeps the limits.
    fn take_place(&mut self, shared: &Shared, now: Instant) -> Place {
        if self.ticket.is_some() {
            return Place::Taken;
        }
        let (waits, admission) = (shared.waits_for_places(), &shared.admission);
        let (subject, facts, examined) = (&self.subject, &self.facts, &mut self.examined);
        match admission.enter_known(subject, facts, examined, waits, now) {
            Ok(ticket) => {
                self.ticket = Some(ticket);
                Place::Taken
            }
            Err(refusal) => self.refuse(shared, &refusal, waits, now),
        }
    }

    /// Who waits for the checker holds a thread or a seat, whatever the verdict will be.
    fn take_share(&mut self, shared: &Shared, now: Instant) -> Place {
        if self.ticket.is_some() || self.examined.is_some() {
            return Place::Taken;
        }
        let (waits, admission) = (shared.waits_for_places(), &shared.admission);
        match admission.examine(&self.subject, &self.facts, waits, now) {
            Ok(examined) => {
                self.examined = Some(examined);
                Place::Taken
            }
            Err(refusal) => self.refuse(shared, &refusal, waits, now),
        }
    }

    fn refuse(&mut self, shared: &Shared, refusal: &Refusal, waits: bool, now: Instant) -> Place {
        if waits && refusal.is_server_full() {
            // What is known of the process would be old by then.
            self.begin_again(shared);
            return Place::Wait(Wait {
                until: Some(sys::time::after(now, BETWEEN_LOOKS)),
                ..Wait::default()
            });
        }
        shared.refused(self.id, &self.subject, refusal);
        shared.note_abuse(&self.subject, &self.peer, Some(Abuse::Flood));
        Place::Refused
    }

    /// Lets the peer in. `in_force` are its rules, which stay so until it stands in the
    /// registry, where a reload finds it.
    fn enter(
        self: Box<Self>,
        shared: &Shared,
        authorized: Authorized,
        in_force: RwLockReadGuard<'_, Arc<Rules>>,
    ) -> Verdict {
        let id = self.id;
        let Some(admitted) = self.open(shared, authorized) else {
            return Verdict::TurnedAway;
        };
        let connection = &admitted.connection;
        let entry = shared.registry.enter(connection);
        drop(in_force);
        if let Err(error) = journal::admitted(&*shared.observer, connection) {
            let facts = connection.authorized().facts();
            journal::unrecorded(&*shared.observer, id, facts, &error);
            return Verdict::TurnedAway;
        }
        entry.keep();
        // A stop by force may have gone through the registry just before.
        if shared.phase.is_forced() {
            shared.phase.cut();
            connection.end_by_force(CloseReason::Stopping);
        }
        Verdict::Admitted(admitted)
    }

    /// What was learnt becomes a connection.
    #[inline(never)]
    #[expect(
        clippy::boxed_local,
        reason = "it would be copied into the caller's frame"
    )]
    fn open(self: Box<Self>, shared: &Shared, authorized: Authorized) -> Option<Admitted> {
        let this = *self;
        let ticket = this.ticket?;
        // From here on who sent what is of no interest. It would cost time, and a receive
        // that gives no room for it is told that something was cut off (recv(2)).
        if shared.was_told_senders(&this.rules)
            && this.facts.address.is_none()
            && let Err(error) = sys::peer::pass_credentials(this.socket.as_fd(), false)
        {
            journal::not_served(&*shared.observer, this.id, &this.facts, &error);
            return None;
        }
        let timeouts = Arc::clone(&this.rules.timeouts);
        let connection = Connection::new(
            this.id,
            this.socket,
            shared.connection_kind,
            this.peer,
            authorized,
            timeouts,
            this.accepted,
        );
        if this.rules.ends_with_peer(connection.authorized()) {
            connection.end_with_peer();
        }
        Some(Admitted {
            connection: Arc::new(connection),
            subject: this.subject,
            ticket,
        })
    }
}

impl AsFd for Candidate {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Asks the socket for what these rules want to know at once.
fn look_at(shared: &Shared, socket: BorrowedFd<'_>, rules: &Rules) -> Peer {
    let look = || Peer::from_socket(socket, rules.needs(), rules.pidfd_source);
    let peer = look();
    // Accept may have taken the last descriptor.
    if peer.pidfd_error() == Some(Unreadable::Descriptors) {
        return shared.reserve.spend_on(look);
    }
    peer
}

fn reason_of(failure: &ProofFailure) -> DenialReason {
    match failure {
        ProofFailure::Timeout => DenialReason::ProofTimeout,
        ProofFailure::Closed | ProofFailure::Io(_) => DenialReason::PeerGone,
        ProofFailure::ForeignProcess => DenialReason::ProofForeign,
        _ => DenialReason::ProofWrong,
    }
}
