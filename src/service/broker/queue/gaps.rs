//! How many messages are missing at one place of a queue, by subscription.
//!
//! A place weighs more than what it will say: its counts, and the piece of frames that
//! begins behind it. So it is charged for while it waits: else a peer that doesn't read
//! could have its queue filled with places, which no bound would count.

use std::collections::BTreeMap;

use crate::frame::Frame;

/// What a place with one count weighs, about.
const PLACE_BYTES: usize = 512;
/// What each further count weighs, about.
const COUNT_BYTES: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Gaps {
    counts: BTreeMap<u64, u64>,
    charge: usize,
}

impl Gaps {
    pub(super) fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// What it is charged for.
    pub(super) fn charge(&self) -> usize {
        self.charge
    }

    /// Counts messages of subscription `id`; returns what that is charged for.
    pub(super) fn add(&mut self, id: u64, count: u64) -> usize {
        let more = if self.counts.is_empty() {
            PLACE_BYTES
        } else if self.counts.contains_key(&id) {
            0
        } else {
            COUNT_BYTES
        };
        self.charge = self.charge.saturating_add(more);
        self.count(id, count);
        more
    }

    /// Counts messages that are dropped from the queue, without a charge: they give
    /// back more, and all that one walk drops is said at one place.
    pub(super) fn count(&mut self, id: u64, count: u64) {
        let held = self.counts.entry(id).or_default();
        *held = held.saturating_add(count);
    }

    /// Takes in what an earlier place counts.
    pub(super) fn merge(&mut self, earlier: Self) {
        for (id, count) in earlier.counts {
            self.count(id, count);
        }
    }

    /// Appends the frames that say it.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        for (&id, &count) in &self.counts {
            Frame::Gap { id, count }.encode(out);
        }
    }
}
