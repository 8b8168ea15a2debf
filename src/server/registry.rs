//! The connections that are open, for those who act on all of them: a forced
//! stop, a reload that judges them again, a summary of the state.
//!
//! Sharded, so that workers that open and close at the same time rarely meet.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use crate::service::Connection;

const SHARDS: usize = 16;

type Open = HashMap<u64, Arc<Connection>, BuildHasherDefault<Spread>>;
type Shard = Mutex<Open>;

/// Spreads numbers that the server itself gives out, one after the other: no peer
/// can choose them to collide.
#[derive(Debug, Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(self.0 ^ u64::from(*byte));
        }
    }

    /// Half of splitmix64's finalizer: all bits reach all places.
    fn write_u64(&mut self, number: u64) {
        let mixed = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        self.0 = mixed ^ mixed >> 31;
    }
}

#[derive(Debug, Default)]
pub(super) struct Registry {
    shards: [Shard; SHARDS],
}

/// A connection that stands in the registry, from where it is taken again unless it
/// is kept: its admission may still fail.
#[must_use = "it is taken out again"]
pub(super) struct Entry<'a> {
    registry: &'a Registry,
    id: Option<u64>,
}

impl Entry<'_> {
    pub(super) fn keep(mut self) {
        self.id = None;
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            drop(self.registry.remove(id));
        }
    }
}

impl Registry {
    pub(super) fn enter(&self, connection: &Arc<Connection>) -> Entry<'_> {
        let id = connection.id();
        self.with(id, |shard| shard.insert(id, Arc::clone(connection)));
        Entry {
            registry: self,
            id: Some(id),
        }
    }

    /// Gives it back, to be dropped outside of the lock: it may be the last, and
    /// closes the socket.
    pub(super) fn remove(&self, id: u64) -> Option<Arc<Connection>> {
        self.with(id, |shard| shard.remove(&id)).flatten()
    }

    /// All open connections at about this moment.
    pub(super) fn snapshot(&self) -> Vec<Arc<Connection>> {
        let mut all = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            all.extend(shard.values().cloned());
        }
        all
    }

    fn with<T>(&self, id: u64, act: impl FnOnce(&mut Open) -> T) -> Option<T> {
        let place = usize::try_from(id % SHARDS as u64).unwrap_or(0);
        let shard = self.shards.get(place)?;
        Some(act(&mut shard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn numbers_of_one_shard_are_spread() {
        let place = |id: u64| {
            let mut spread = Spread::default();
            spread.write_u64(id);
            spread.finish() & 1023
        };
        let places: HashSet<u64> = (0..1024).map(|k| place(k * SHARDS as u64 + 3)).collect();
        // As many as a random choice would fill, about 1 - 1/e, or more.
        assert!(places.len() > 600, "{}", places.len());
    }
}
