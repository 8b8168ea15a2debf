//! Learns about a peer what a policy asks for: from the socket's answers at once,
//! from the process checker where `/proc` must be read.

use std::sync::Arc;
use std::time::Duration;

use super::checker::{Checker, OnDone};
use super::pins::Pins;
use super::{Fact, FactKind, Facts, Needs, Peer, Process, Unreadable};

/// What it takes to learn about peers under one set of rules. Cheap to clone; a
/// reload makes another one, with the same checker.
#[derive(Clone, Debug)]
pub struct Inspector {
    pins: Arc<Pins>,
    checker: Option<Checker>,
}

impl Inspector {
    /// Without a checker, facts below `/proc` are [`Unreadable::NoChecker`].
    pub fn new(pins: Pins, checker: Option<Checker>) -> Self {
        Self {
            pins: Arc::new(pins),
            checker,
        }
    }

    /// What rules name, tied down; for the next set of rules.
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// Fills in what can be had without waiting, and returns what is left for
    /// [`Inspector::learn_later`].
    pub fn learn_now(&self, peer: &Peer, facts: &mut Facts, needs: Needs) -> Needs {
        let wanted = facts.unasked(needs);
        let of_socket = wanted.within(Needs::SOCKET);
        facts.give_up(of_socket, Unreadable::Unsupported);
        if wanted.has(FactKind::Process) {
            facts.process = self.process(peer).into();
        }
        let later = wanted.within(Needs::PROC);
        if self.checker.is_none() {
            facts.give_up(later, Unreadable::NoChecker);
            return Needs::NONE;
        }
        all_of_process(facts, later)
    }

    /// Has the checker read the process; the answer is for [`Facts::absorb`], and
    /// comes on one of its threads, or at once on this one.
    pub fn learn_later(&self, peer: &Peer, needs: Needs, on_done: OnDone) {
        match &self.checker {
            Some(checker) => checker.submit(peer, needs, &self.pins, on_done),
            None => on_done(super::ProcessFacts::all_unreadable(
                needs,
                Unreadable::NoChecker,
            )),
        }
    }

    /// Whether anything below `/proc` can be read at all.
    pub fn reads_processes(&self) -> bool {
        self.checker.is_some()
    }

    /// Within about what time [`Inspector::learn_later`] has answered.
    pub fn patience(&self) -> Duration {
        let checker = self.checker.as_ref();
        checker.map_or(Duration::ZERO, Checker::patience)
    }

    /// Fills in all that is wanted, and waits for it.
    pub fn learn(&self, peer: &Peer, facts: &mut Facts, needs: Needs) {
        let later = self.learn_now(peer, facts, needs);
        if let (Some(checker), false) = (&self.checker, later.is_empty()) {
            facts.absorb(checker.read(peer, later, &self.pins));
        }
    }

    /// The number comes from the socket, which recorded the process itself: its
    /// pidfd and its number are of one process. While that lives, and the one that
    /// the rule meant lives, equal numbers mean that they are the same.
    fn process(&self, peer: &Peer) -> Result<Process, Unreadable> {
        let pid = peer.pid().ok_or(Unreadable::NotVisible)?;
        let pinned = self.pins.still_holds(pid);
        peer.is_alive()?;
        Ok(Process { pid, pinned })
    }
}

/// What to read of a process: the new, and again all that was read before, since
/// facts of different times are never put together.
fn all_of_process(facts: &Facts, needs: Needs) -> Needs {
    if needs.is_empty() {
        return needs;
    }
    fn asked<T>(fact: &Fact<T>, kind: FactKind) -> Needs {
        if fact.is_unasked() {
            Needs::NONE
        } else {
            Needs::only(kind)
        }
    }
    needs
        .and(asked(&facts.exe, FactKind::Exe))
        .and(asked(&facts.name, FactKind::Name))
        .and(asked(&facts.args, FactKind::Args))
}
