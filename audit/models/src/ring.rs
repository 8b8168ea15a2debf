//! The log's ring, `src/logging/ring.rs`: loom tries every interleaving of a few threads,
//! and every value that the memory model lets a load see.

use std::ops::Deref;

use loom::sync::Arc;
use loom::thread;

mod code {
    include!(concat!(env!("OUT_DIR"), "/ring.rs"));
}

use code::{Ring, Share};

/// Padding has no meaning to a model.
pub(crate) struct CachePadded<T>(T);

impl<T> CachePadded<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(value)
    }
}

impl<T> Deref for CachePadded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// A record of two words: a header and a field that its tag vouches for.
const WORDS: u32 = 2;

fn field(tag: u32) -> u64 {
    u64::from(tag) * 0x0101_0101_0101
}

fn append(ring: &Ring, share: Share, tag: u32) -> bool {
    ring.append(share, tag, &[field(tag)], &[])
}

/// Takes what is there; checks that each record is whole.
fn take(ring: &Ring, seen: &mut Vec<u32>) {
    ring.take(usize::MAX, &mut Vec::new(), |tag, body| {
        assert_eq!(body, field(tag).to_le_bytes(), "record {tag} is torn");
        seen.push(tag);
    });
}

/// As many threads as there are lists append those tags, while this one takes.
fn check(words: usize, records: u32, lists: &'static [&'static [u32]]) {
    let mut model = loom::model::Builder::new();
    // More switches than that find no more in threads so short, and take hours.
    model.preemption_bound = Some(3);
    model.check(move || {
        let ring = Arc::new(Ring::new(words));
        let share = Share {
            records,
            words: ring.capacity(),
        };
        let threads: Vec<_> = lists
            .iter()
            .map(|tags| {
                let ring = Arc::clone(&ring);
                thread::spawn(move || {
                    let taken = |tag: &&u32| append(&ring, share, **tag);
                    tags.iter().filter(taken).copied().collect::<Vec<_>>()
                })
            })
            .collect();
        let mut seen = Vec::new();
        take(&ring, &mut seen);
        let appended: Vec<Vec<u32>> = threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect();
        take(&ring, &mut seen);
        assert!(ring.is_empty(), "whatever was appended is there");
        for tags in &appended {
            let own: Vec<u32> = seen
                .iter()
                .filter(|tag| tags.contains(tag))
                .copied()
                .collect();
            assert_eq!(own, *tags, "in order, once");
        }
        assert_eq!(seen.len(), appended.iter().map(Vec::len).sum::<usize>());
        // With room for all of them at once nothing may be refused.
        let all: usize = lists.iter().map(|tags| tags.len()).sum();
        if all * WORDS as usize <= words && all <= records as usize {
            assert_eq!(seen.len(), all, "refused though there was room");
        }
    });
}

#[test]
fn two_threads_and_a_reader_lose_and_tear_nothing() {
    check(8, 8, &[&[1, 2], &[11]]);
}

#[test]
fn a_ring_that_wraps_hands_no_stale_word_over() {
    // Room for two records: the third goes where the first was, or is refused.
    check(4, 8, &[&[1, 2], &[11]]);
}

#[test]
fn a_bound_on_records_holds() {
    check(8, 1, &[&[1], &[11]]);
}
