//! Requests: from REQUEST to exactly one ANSWER or ERROR.
//!
//! A request is known under a random number, and only to the connection that it
//! was delivered to: another can't answer it, whatever it guesses. Whoever ends it
//! first (a reply, the clock, the death of either side) takes a flag that is taken
//! once, and tells the requester.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::frame::{ErrorCode, Frame, Subject};
use crate::sys::peer::random;

use super::hub::count_in;
use super::limits::Quota;
use super::member::{Member, Request};
use super::outbox::Refused;
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
    HasRoom,
    AcceptsSoMuch,
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
            Nobody::HasRoom => {
                self.refuse(id, ErrorCode::Quota, &Quota::Responders.to_string());
            }
            Nobody::AcceptsSoMuch => {
                self.refuse(
                    id,
                    ErrorCode::TooLarge,
                    "no responder accepts so large a frame",
                );
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
        let mut tried = Vec::new();
        let mut nobody = Nobody::Serves;
        let broker = Arc::clone(&self.port.broker);
        while let Some((number, entry)) = broker.next_in_turn(responders, &tried) {
            tried.push(number);
            match self.ask(&entry.member, id, subject, body) {
                Ok(()) => return Ok(()),
                Err(Refused::Gone) => (),
                Err(Refused::Quota(_)) => nobody = Nobody::HasRoom,
                Err(Refused::TooLarge) => nobody = Nobody::AcceptsSoMuch,
            }
        }
        Err(nobody)
    }

    /// Delivers the request to one responder.
    fn ask(
        &mut self,
        responder: &Arc<Member>,
        id: u64,
        subject: Subject<'_>,
        body: &[u8],
    ) -> Result<(), Refused> {
        let member = Arc::clone(&self.port.member);
        let number = self.port.numbers.next().ok_or(Refused::Gone)?;
        let deadline = self.now + self.port.limits.request_timeout;
        let request = Request::new(&member, id, responder, number, deadline);
        // The requester knows of it first: the responder may leave at any moment
        // from its knowing on, and then ends it.
        {
            let mut open = member.open();
            open.asked.insert(id, Arc::clone(&request));
            open.deadlines.push_back(Arc::clone(&request));
        }
        if let Err(refused) = self.owe(responder, &request) {
            request.end();
            member.open().asked.remove(&id);
            return Err(refused);
        }
        let taken = {
            let mut out = responder.outbox.lock();
            let stamp = member.stamp(self.port.broker.places(1));
            let taken = out.append(&Frame::Deliver {
                id: number,
                subject,
                stamp,
                body,
            });
            self.touch(responder, &mut out);
            taken
        };
        if taken.is_ok() || !request.end() {
            // Delivered, or ended meanwhile by the responder's leaving, which has
            // told the requester.
            return Ok(());
        }
        responder.open().owed.remove(&number);
        member.open().asked.remove(&id);
        taken
    }

    fn owe(&self, responder: &Member, request: &Arc<Request>) -> Result<(), Refused> {
        let mut open = responder.open();
        if open.closed || open.owed.contains_key(&request.number) {
            return Err(Refused::Gone);
        }
        if open.owed.len() >= self.port.limits.requests {
            return Err(Refused::Quota(Quota::Responders));
        }
        open.owed.insert(request.number, Arc::clone(request));
        Ok(())
    }

    pub(super) fn reply(&mut self, number: u64, body: &[u8]) {
        let request = self.port.member.open().owed.remove(&number);
        let Some(request) = request.filter(|request| request.end()) else {
            return self.refuse(number, ErrorCode::Gone, "no such request is open");
        };
        let id = request.id;
        // Settled under the lock: a connection that is told to go closes when nothing
        // is open and nothing is queued, and must not find it between the two.
        let mut out = request.requester.outbox.lock();
        request.settle();
        let stamp = self.port.member.stamp(self.port.broker.places(1));
        match out.append(&Frame::Answer { id, stamp, body }) {
            Ok(()) | Err(Refused::Gone) => (),
            Err(Refused::TooLarge) => {
                let text = "the answer is larger than you accept";
                out.control(&Frame::Error {
                    id,
                    code: ErrorCode::TooLarge,
                    text,
                });
            }
            Err(Refused::Quota(quota)) => out.end(ErrorCode::Quota, &quota.to_string()),
        }
        self.touch(&request.requester, &mut out);
        if self.is_stopping() {
            // It may have been the last thing that it waited for.
            out.wake();
        }
    }
}
