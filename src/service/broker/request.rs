//! Requests: from REQUEST to exactly one ANSWER or ERROR.
//!
//! A request is known under a random number, and only to the connection that it
//! was delivered to: another can't answer it, whatever it guesses. Whoever ends it
//! first (a reply, the clock, the death of either side) takes a flag that is taken
//! once, and tells the requester.

use std::collections::{HashSet, VecDeque};
use std::iter;
use std::sync::Arc;

use crate::frame::{ErrorCode, Frame, Subject};
use crate::sys::peer::random;
use crate::sys::time::after;

use super::hub::count_in;
use super::limits::Quota;
use super::limits::Refused;
use super::member::{Member, Request};
use super::port::Batch;
use super::rights::Action;
use super::routes::Entry;

/// Random numbers, drawn from the kernel many at a time.
#[derive(Debug, Default)]
pub(super) struct Numbers(VecDeque<u64>);

impl Numbers {
    /// `None` when the kernel gives none, which getrandom(2) rules out once the
    /// machine is up.
    fn next(&mut self) -> Option<u64> {
        if self.0.is_empty() {
            let bytes: [u8; 256] = random().ok()?;
            self.0.extend(
                bytes
                    .as_chunks()
                    .0
                    .iter()
                    .map(|eight| u64::from_ne_bytes(*eight)),
            );
        }
        self.0.pop_front()
    }
}

/// Why a request went to nobody.
enum Nobody {
    Serves,
    /// What the last one that was tried is at.
    HasRoom(Quota),
    AcceptsSoMuch,
    MayBeAsked,
}

impl Batch<'_> {
    pub(super) fn request(&mut self, id: u64, subject: Subject<'_>, body: &[u8]) {
        if let Err((code, text)) = self.may_request(id, subject) {
            return self.refuse(id, code, &text);
        }
        let route = self.port.broker.routes.find(subject);
        let nobody = match self.ask_in_turn(&route.responders, id, subject, body) {
            Ok(()) => return,
            Err(nobody) => nobody,
        };
        self.port.member.account.requests.subtract(1);
        match nobody {
            Nobody::Serves => self.refuse(id, ErrorCode::NoResponder, "nobody serves this"),
            Nobody::HasRoom(quota) => self.refuse(id, ErrorCode::Quota, &no_room(quota)),
            Nobody::AcceptsSoMuch => {
                self.refuse(
                    id,
                    ErrorCode::TooLarge,
                    "no responder accepts so large a frame",
                );
            }
            Nobody::MayBeAsked => {
                self.refuse(id, ErrorCode::Denied, "no permit to request this any more");
            }
        }
    }

    /// Counts the request in if it may be made.
    fn may_request(&mut self, id: u64, subject: Subject<'_>) -> Result<(), (ErrorCode, String)> {
        if self.is_stopping() {
            return Err((
                ErrorCode::Stopping,
                String::from("the broker is about to stop"),
            ));
        }
        self.port.refresh_rights();
        if !self.port.rights.allow_subject(Action::Request, subject) {
            return Err((ErrorCode::Denied, format!("no permit to request {subject}")));
        }
        let open = self.port.member.open();
        if open.asked.contains_key(&id) {
            return Err((ErrorCode::DuplicateId, String::from("this id is in use")));
        }
        let (counter, limit) = (
            &self.port.member.account.requests,
            self.port.limits.requests,
        );
        count_in(
            counter,
            open.asked.len(),
            limit,
            Quota::Requests,
            Quota::RequestsPerUid,
        )
        .map_err(|quota| (ErrorCode::Quota, quota.to_string()))
    }

    fn ask_in_turn(
        &mut self,
        responders: &[Arc<Entry>],
        id: u64,
        subject: Subject<'_>,
        body: &[u8],
    ) -> Result<(), Nobody> {
        let mut nobody = Nobody::Serves;
        // Each is asked once, however often it serves the subject: whoever registers
        // much must not make requests dear.
        let mut full = HashSet::new();
        let broker = Arc::clone(&self.port.broker);
        let first = broker.next_in_turn(responders).into_iter();
        let others = iter::once_with(|| broker.all_in_turn(responders)).flatten();
        for entry in first.chain(others) {
            if full.contains(&entry.member.id()) {
                continue;
            }
            match self.ask(entry, id, subject, body) {
                Ok(()) => return Ok(()),
                // That one has ended; or all that its connection serves has.
                Err(Refused::Gone) if !entry.is_alive() => continue,
                Err(Refused::Gone) => {}
                Err(Refused::Quota(quota)) => nobody = Nobody::HasRoom(quota),
                Err(Refused::TooLarge) => nobody = Nobody::AcceptsSoMuch,
                Err(Refused::Denied) => return Err(Nobody::MayBeAsked),
            }
            full.insert(entry.member.id());
        }
        Err(nobody)
    }

    /// Delivers the request to one responder.
    fn ask(
        &mut self,
        entry: &Entry,
        id: u64,
        subject: Subject<'_>,
        body: &[u8],
    ) -> Result<(), Refused> {
        let (member, responder) = (Arc::clone(&self.port.member), &entry.member);
        let number = self.port.numbers.next().ok_or(Refused::Gone)?;
        let timeout = self.port.limits.request_timeout;
        let deadline = after(self.now, timeout);
        let request = Request::new(&member, id, responder, number, deadline);
        // The requester knows of it first: the responder may leave at any moment
        // from its knowing on, and then ends it.
        {
            let mut open = member.open();
            open.asked.insert(id, Arc::clone(&request));
            open.deadlines.push_back(Arc::clone(&request));
        }
        let taken = self
            .owe(responder, &request)
            .and_then(|()| self.deliver(entry, number, subject, body));
        if taken.is_ok() || !request.end() {
            // Delivered, or ended meanwhile by the responder's leaving, which has
            // told the requester.
            return Ok(());
        }
        responder.open().owed.remove(number);
        member.open().give_up(&request);
        taken
    }

    fn deliver(
        &mut self,
        entry: &Entry,
        number: u64,
        subject: Subject<'_>,
        body: &[u8],
    ) -> Result<(), Refused> {
        let mut out = entry.member.outbox.lock();
        // Asked again under the lock: what has been ended or taken away by now gets
        // nothing any more.
        if !entry.is_alive() {
            return Err(Refused::Gone);
        }
        if !self.still_permitted(Action::Request, subject.as_str()) {
            return Err(Refused::Denied);
        }
        let stamp = self.port.member.stamp(self.port.broker.places(1));
        let taken = out.append(&Frame::Deliver {
            id: number,
            subject,
            stamp,
            body,
        });
        self.touch(&entry.member, &mut out);
        taken
    }

    fn owe(&self, responder: &Member, request: &Arc<Request>) -> Result<(), Refused> {
        let mut open = responder.open();
        if open.closed {
            return Err(Refused::Gone);
        }
        let uid = self.port.member.identity.uid;
        if !open.owed.has_room(uid, self.port.limits.requests) {
            return Err(Refused::Quota(Quota::Responders));
        }
        if open.owed.insert(request) {
            Ok(())
        } else {
            Err(Refused::Gone)
        }
    }

    pub(super) fn reply(&mut self, number: u64, body: &[u8]) {
        let request = self.port.member.open().owed.remove(number);
        let Some(request) = request.filter(|request| request.end()) else {
            return self.refuse(number, ErrorCode::Gone, "no such request is open");
        };
        let id = request.id;
        // Settled under the lock: a connection that is told to go closes when nothing
        // is open and nothing is queued, and must not find it between the two.
        let mut out = request.requester.outbox.lock();
        request.settle();
        let stamp = self.port.member.stamp(self.port.broker.places(1));
        out.control(&Frame::Answer { id, stamp, body });
        self.touch(&request.requester, &mut out);
        if self.is_stopping() {
            // It may have been the last thing that it waited for.
            out.wake();
        }
    }
}

/// Which bound, and that it is not the requester's own.
fn no_room(quota: Quota) -> String {
    match quota {
        Quota::Responders => quota.to_string(),
        other => format!("{other}, which the responder has reached"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, IoSlice};
    use std::time::Instant;

    use super::*;
    use crate::frame::{FrameLimit, Pattern};
    use crate::peer::{Fact, Facts};
    use crate::service::broker::{Broker, Identity, Limits, Permits, Port, Sink};

    struct Nowhere;

    impl Sink for Nowhere {
        fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            Ok(slices.iter().map(|slice| slice.len()).sum())
        }

        fn wake(&self) {}
    }

    fn join(broker: &Arc<Broker>, connection: u64, accepts: FrameLimit) -> Port {
        let identity = Identity {
            connection,
            uid: None,
            gid: None,
            pid: None,
            flags: 0,
        };
        broker.join(
            identity,
            Facts::of(Fact::Unasked),
            Arc::new(Nowhere),
            accepts,
        )
    }

    #[test]
    fn what_nobody_takes_is_forgotten_though_another_request_stays_open() {
        let broker = Broker::new(Limits::default(), Permits::default());
        let mut server = join(&broker, 1, FrameLimit::MIN);
        let mut asker = join(&broker, 2, FrameLimit::MIN);
        let pattern = Pattern::new(b"s").unwrap();
        let now = Instant::now();
        server.batch(now).frame(&Frame::Serve { id: 1, pattern });
        let subject = Subject::new(b"s").unwrap();
        let large = [0; 2000];
        for (id, body) in (0..1000).map(|id| (id, if id == 0 { &[][..] } else { &large })) {
            asker
                .batch(now)
                .frame(&Frame::Request { id, subject, body });
        }
        let open = asker.member.open();
        assert_eq!((open.asked.len(), open.deadlines.len()), (1, 1));
        assert!(server.member.open().owed.requests().count() == 1);
        assert_eq!(asker.member.account.requests.get(), 1);
    }

    #[test]
    fn who_takes_nothing_more_is_asked_once_however_much_it_serves() {
        let broker = Broker::new(Limits::default(), Permits::default());
        let mut server = join(&broker, 1, FrameLimit::MAX);
        let mut asker = join(&broker, 2, FrameLimit::MAX);
        let now = Instant::now();
        let mut batch = server.batch(now);
        for id in 1..=200 {
            let pattern = Pattern::new(b">").unwrap();
            batch.frame(&Frame::Serve { id, pattern });
        }
        batch.violation(&crate::frame::FrameError::UnknownKind(0));
        drop(batch);
        let (subject, body) = (Subject::new(b"s").unwrap(), &[][..]);
        let request = Frame::Request {
            id: 1,
            subject,
            body,
        };
        asker.batch(now).frame(&request);
        // Each time that one is asked takes a place in the order.
        assert_eq!(broker.stats().sequenced, 1);
        assert_eq!(broker.stats().requests, 0);
    }
}
