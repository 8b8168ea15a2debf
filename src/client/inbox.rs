//! What has come in and nobody has taken yet.
//!
//! Bounded, for programs that send and never ask what came: of the publications that
//! were refused the last [`REFUSALS_MAX`] are kept, and with [`INBOX_BYTES_MAX`] of
//! everything nothing more is read. The reply that a call waits for takes no place
//! here, and the late reply of a call that has given up is dropped.
//!
//! Not here: the socket, and whose turn it is to wait.

use std::collections::{BTreeSet, VecDeque};

use super::event::Event;
use crate::frame::ErrorCode;

/// With so many bytes nothing more is read: eight times what a broker with default
/// settings keeps for a connection.
pub(super) const INBOX_BYTES_MAX: usize = 64 << 20;
/// Refused publications that are kept.
pub(super) const REFUSALS_MAX: usize = 1024;
/// Calls that have given up and whose replies are known by their ids.
const GIVEN_UP_MAX: usize = 1024;

/// What a call waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Awaited {
    /// The frame of this id is done.
    Done(u64),
    /// The request of this id is answered.
    Answer(u64),
}

impl Awaited {
    const fn id(self) -> u64 {
        match self {
            Self::Done(id) | Self::Answer(id) => id,
        }
    }

    /// An error ends either.
    fn is(self, event: &Event) -> bool {
        match event {
            Event::Done { id } => self == Self::Done(*id),
            Event::Answer { id, .. } => self == Self::Answer(*id),
            Event::Error { id, .. } => self.id() == *id,
            _ => false,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Inbox {
    events: VecDeque<Event>,
    bytes: usize,
    /// How many of the events are refused publications.
    refusals: usize,
    refusals_dropped: u64,
    awaited: Option<Awaited>,
    reply: Option<Event>,
    given_up: BTreeSet<u64>,
    violation: Option<String>,
}

impl Inbox {
    pub(super) fn push(&mut self, event: Event) {
        if self.awaited.is_some_and(|awaited| awaited.is(&event)) {
            self.awaited = None;
            self.reply = Some(event);
        } else if !event.ends().is_some_and(|id| self.given_up.remove(&id)) {
            self.keep(event);
        }
    }

    fn keep(&mut self, event: Event) {
        if let Event::Error { id: 0, code, text } = &event {
            if *code == ErrorCode::Protocol {
                self.violation = Some(text.clone());
            }
            self.refusals += 1;
        }
        self.bytes += event.memory_bytes();
        self.events.push_back(event);
        if self.refusals > REFUSALS_MAX {
            self.drop_refusal();
        }
    }

    /// The oldest: the newest may say why the broker closes.
    fn drop_refusal(&mut self) {
        let oldest = self.events.iter().position(is_refusal);
        if let Some(event) = oldest.and_then(|at| self.events.remove(at)) {
            self.forget(&event);
            self.refusals_dropped += 1;
        }
    }

    fn forget(&mut self, event: &Event) {
        self.bytes = self.bytes.saturating_sub(event.memory_bytes());
        self.refusals -= usize::from(is_refusal(event));
    }

    /// The oldest.
    pub(super) fn pop(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        self.forget(&event);
        Some(event)
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes >= INBOX_BYTES_MAX
    }

    /// Refused publications that nobody has taken, and that were dropped for it.
    pub(super) fn refusals_dropped(&self) -> u64 {
        self.refusals_dropped
    }

    /// From now on a call waits for this.
    pub(super) fn expect(&mut self, awaited: Awaited) {
        self.reply = None;
        self.awaited = Some(awaited);
    }

    pub(super) fn take_reply(&mut self) -> Option<Event> {
        self.reply.take()
    }

    /// The call waits no more.
    pub(super) fn give_up(&mut self) {
        if let Some(awaited) = self.awaited.take() {
            self.ignore(awaited.id());
        }
    }

    /// Nobody knows this id: its late reply is dropped.
    pub(super) fn ignore(&mut self, id: u64) {
        self.given_up.insert(id);
        if self.given_up.len() > GIVEN_UP_MAX {
            self.given_up.pop_first();
        }
    }

    /// What the broker said of a frame that breaks the protocol; it closes then.
    pub(super) fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    /// The last thing that the broker said of no frame with an id: before it closes,
    /// that is why.
    pub(super) fn last_words(&self) -> Option<(ErrorCode, String)> {
        self.events.iter().rev().find_map(|event| match event {
            Event::Error { id: 0, code, text } => Some((*code, text.clone())),
            _ => None,
        })
    }
}

/// Of a publication that asked for no confirmation; or the broker's last words.
fn is_refusal(event: &Event) -> bool {
    matches!(event, Event::Error { id: 0, .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(number: usize) -> Event {
        let (id, code, text) = (0, ErrorCode::Denied, number.to_string());
        Event::Error { id, code, text }
    }

    fn gone(id: u64) -> Event {
        let (code, text) = (ErrorCode::Gone, String::new());
        Event::Error { id, code, text }
    }

    #[test]
    fn the_last_refusals_are_kept_and_the_others_counted() {
        let mut inbox = Inbox::default();
        inbox.push(Event::GoAway { millis: 1 });
        for number in 0..REFUSALS_MAX + 3 {
            inbox.push(refusal(number));
            let dropped = (number + 1).saturating_sub(REFUSALS_MAX);
            assert_eq!(inbox.refusals_dropped(), dropped as u64);
        }
        assert_eq!(inbox.pop(), Some(Event::GoAway { millis: 1 }));
        for number in 3..REFUSALS_MAX + 3 {
            assert_eq!(inbox.pop(), Some(refusal(number)));
        }
        assert_eq!((inbox.pop(), inbox.bytes, inbox.refusals), (None, 0, 0));
    }

    #[test]
    fn it_is_full_at_its_bound_and_has_room_again_when_one_is_taken() {
        let mut inbox = Inbox::default();
        let done = Event::Done { id: 1 };
        let most = INBOX_BYTES_MAX.div_ceil(done.memory_bytes());
        for _ in 1..most {
            inbox.push(done.clone());
        }
        assert!(!inbox.is_full());
        inbox.push(done);
        assert!(inbox.is_full());
        inbox.pop();
        assert!(!inbox.is_full());
    }

    #[test]
    fn a_reply_goes_to_its_call_and_a_late_one_nowhere() {
        let mut inbox = Inbox::default();
        for end in [Event::Done { id: 4 }, gone(4)] {
            inbox.expect(Awaited::Done(4));
            inbox.push(gone(5));
            inbox.push(end.clone());
            assert_eq!(inbox.take_reply(), Some(end));
            assert_eq!((inbox.pop(), inbox.pop()), (Some(gone(5)), None));
        }
        inbox.expect(Awaited::Answer(6));
        inbox.give_up();
        inbox.push(gone(6));
        assert_eq!((inbox.take_reply(), inbox.pop()), (None, None));
        // An id ends once; what says it again is not the late reply.
        inbox.push(gone(6));
        assert_eq!(inbox.pop(), Some(gone(6)));
    }

    #[test]
    fn calls_that_have_given_up_are_remembered_up_to_a_bound() {
        let mut inbox = Inbox::default();
        for id in 1..=GIVEN_UP_MAX as u64 + 1 {
            inbox.expect(Awaited::Answer(id));
            inbox.give_up();
        }
        inbox.push(gone(2));
        assert_eq!(inbox.pop(), None);
        inbox.push(gone(1));
        assert_eq!(inbox.pop(), Some(gone(1)));
    }
}
