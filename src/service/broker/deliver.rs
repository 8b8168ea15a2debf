//! Messages: from one PUBLISH to a MESSAGE for each subscription.
//!
//! The sequence is drawn while the outboxes of all receivers are locked, in the
//! order of their connections. So it grows on every connection, whoever publishes
//! at the same time, and publishers to other receivers don't wait.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};

use crate::frame::{ErrorCode, Frame, HEADER_BYTES, Subject};

use super::outbox::Out;
use super::port::{Batch, Port};
use super::rights::Action;
use super::routes::{Entry, Route};
use super::run::Run;

/// From here on a message is not copied for each queue that it waits in, but
/// shared. Below it, the reference would weigh more than the copy.
const SHARED_FROM_BYTES: usize = 8 << 10;

/// A run is delivered when it has grown to this.
const RUN_BYTES: usize = 128 << 10;

/// Routes that a connection has at hand.
const RECENT: usize = 4;

/// A subject that this connection has used.
pub(super) struct Recent {
    route: Arc<Route>,
    may_publish: bool,
    reload: u64,
}

impl Port {
    /// Takes the rights in force, after a reload.
    pub(super) fn refresh_rights(&mut self) {
        let reload = self.broker.reloads.load(Ordering::Acquire);
        if self.reload != reload {
            self.rights = self.member.rights();
            self.reload = reload;
        }
    }

    /// The route of a subject, if this connection may publish there.
    fn route(&mut self, subject: Subject<'_>) -> Option<Arc<Route>> {
        self.refresh_rights();
        let found = self
            .recent
            .iter()
            .position(|recent| *recent.route.subject == *subject.as_str());
        if let Some(recent) = found.and_then(|place| self.recent.get(place))
            && recent.reload == self.reload
            && self.broker.routes.is_fresh(&recent.route)
        {
            return recent.may_publish.then(|| Arc::clone(&recent.route));
        }
        if let Some(place) = found {
            self.recent.swap_remove(place);
        } else if self.recent.len() >= RECENT {
            self.recent.remove(0);
        }
        let may_publish = self.rights.allow_subject(Action::Publish, subject);
        let route = self.broker.routes.find(subject);
        let reload = self.reload;
        self.recent.push(Recent {
            route: Arc::clone(&route),
            may_publish,
            reload,
        });
        may_publish.then_some(route)
    }
}

impl Batch<'_> {
    pub(super) fn publish(&mut self, id: u64, subject: Subject<'_>, body: &[u8]) {
        if !self.continues_run(subject) {
            self.deliver_run(false);
            if self.is_stopping() {
                return self.refuse(id, ErrorCode::Stopping, "the broker is about to stop");
            }
            let Some(route) = self.port.route(subject) else {
                let text = format!("no permit to publish {subject}");
                return self.refuse(id, ErrorCode::Denied, &text);
            };
            self.route = Some(route);
        }
        let stamp = self.port.member.stamp(0);
        let frame = Frame::Message {
            id: 0,
            subject,
            stamp,
            body,
        };
        if body.len() >= SHARED_FROM_BYTES {
            let route = self.route.clone();
            self.deliver_run(false);
            self.acknowledge(id);
            if let Some(route) = route {
                self.deliver_large(&route, &frame);
            }
            return;
        }
        self.port.run.push(&frame);
        self.acknowledge(id);
        if self.port.run.bytes.len() >= RUN_BYTES {
            self.deliver_run(true);
        }
    }

    fn acknowledge(&mut self, id: u64) {
        if id != 0 {
            self.acknowledge.push(id);
        }
    }

    fn continues_run(&self, subject: Subject<'_>) -> bool {
        let Some(route) = &self.route else {
            return false;
        };
        *route.subject == *subject.as_str() && self.is_current(route) && !self.is_stopping()
    }

    fn is_current(&self, route: &Route) -> bool {
        self.port.reload == self.port.broker.reloads.load(Ordering::Acquire)
            && self.port.broker.routes.is_fresh(route)
    }

    /// Delivers the run; with `now`, straight to the sockets.
    pub(super) fn deliver_run(&mut self, now: bool) {
        let Some(route) = self.route.take() else {
            return;
        };
        let mut run = std::mem::take(&mut self.port.run);
        let count = run.starts.len();
        let locked = if count == 0 {
            Vec::new()
        } else {
            lock_all(&route)
        };
        let permitted = self.still_permitted(Action::Publish, &route.subject);
        if permitted && !locked.is_empty() {
            run.set_sequence(self.port.broker.places(count), route.subject.len());
            for (entries, mut out) in locked {
                let alive = || entries.iter().filter(|entry| entry.is_alive());
                match (alive().next(), alive().nth(1)) {
                    (Some(_), Some(_)) if count > 1 => {
                        let ids: Vec<u64> = alive().map(|entry| entry.id).collect();
                        deliver_in_turn(&mut out, &ids, &run);
                    }
                    _ => alive().for_each(|entry| out.messages(entry.id, &mut run, now)),
                }
                if let Some(entry) = alive().next() {
                    self.touch(&entry.member, &mut out);
                }
            }
        } else {
            drop(locked);
        }
        run.clear();
        self.port.run = run;
        self.say_published(permitted);
    }

    /// Delivers one message whose data is shared.
    fn deliver_large(&mut self, route: &Route, frame: &Frame<'_>) {
        let Frame::Message { subject, body, .. } = *frame else {
            return;
        };
        let locked = lock_all(route);
        let permitted = self.still_permitted(Action::Publish, &route.subject);
        if permitted && !locked.is_empty() {
            let stamp = self.port.member.stamp(self.port.broker.places(1));
            let mut shared = None;
            for (entries, mut out) in locked {
                for entry in entries.iter().filter(|entry| entry.is_alive()) {
                    let frame = Frame::Message {
                        id: entry.id,
                        subject,
                        stamp,
                        body,
                    };
                    out.large(entry.id, frame.split().0.as_bytes(), body, &mut shared);
                    self.touch(&entry.member, &mut out);
                }
            }
        } else {
            drop(locked);
        }
        self.say_published(permitted);
    }

    /// Asked again under the locks: a reload that has returned is obeyed.
    pub(super) fn still_permitted(&mut self, action: Action, subject: &str) -> bool {
        if self.port.reload == self.port.broker.reloads.load(Ordering::Acquire) {
            return true;
        }
        self.port.refresh_rights();
        let rights = &self.port.rights;
        Subject::new(subject.as_bytes()).is_some_and(|of| rights.allow_subject(action, of))
    }

    fn say_published(&mut self, permitted: bool) {
        for id in std::mem::take(&mut self.acknowledge) {
            if permitted {
                self.answer(&Frame::Ok { id });
            } else {
                self.refuse(id, ErrorCode::Denied, "no permit to publish this any more");
            }
        }
    }
}

/// Subscriptions of one connection that get the same messages get them in turn: one after
/// the other they would get the run twice, and the sequence would go back.
fn deliver_in_turn(out: &mut Out, ids: &[u64], run: &Run) {
    for frame in run.frames() {
        let mut frame = frame.to_vec();
        for id in ids {
            if let Some(place) = frame.get_mut(8..HEADER_BYTES) {
                place.copy_from_slice(&id.to_be_bytes());
            }
            out.message(*id, &frame, None);
        }
    }
}

/// Locks the outboxes of all targets, each once, in the order of connections.
fn lock_all(route: &Route) -> Vec<(&[Arc<Entry>], MutexGuard<'_, Out>)> {
    route
        .targets
        .chunk_by(|one, other| Arc::ptr_eq(&one.member, &other.member))
        .filter_map(|entries| {
            entries
                .first()
                .map(|first| (entries, first.member.outbox.lock()))
        })
        .collect()
}
