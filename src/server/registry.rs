//! The connections that are open, for those who act on all of them: a forced
//! stop, a reload that judges them again, a summary of the state.
//!
//! Sharded, so that workers that open and close at the same time rarely meet.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::service::Connection;

const SHARDS: usize = 16;

type Shard = Mutex<HashMap<u64, Arc<Connection>>>;

#[derive(Debug, Default)]
pub(super) struct Registry {
    shards: [Shard; SHARDS],
}

impl Registry {
    pub(super) fn insert(&self, connection: &Arc<Connection>) {
        self.with(connection.id(), |shard| {
            shard.insert(connection.id(), Arc::clone(connection))
        });
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

    fn with<T>(
        &self,
        id: u64,
        act: impl FnOnce(&mut HashMap<u64, Arc<Connection>>) -> T,
    ) -> Option<T> {
        let place = usize::try_from(id % SHARDS as u64).unwrap_or(0);
        let shard = self.shards.get(place)?;
        Some(act(&mut shard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)))
    }
}
