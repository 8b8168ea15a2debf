//! A bounded ring of words, to which many threads append records and from
//! which one takes them, in order and without a lock.
//!
//! A record takes as many words as it needs, so that a line costs the copy of
//! its own bytes and no more. An append reserves words by one exchange of the
//! tail, fills them, and stores the header last; the reader stops at a header
//! that is not there yet.
//!
//! Invariants: every word outside of the records that wait is 0, as the reader
//! clears what it took before it gives the room back, so that nothing which
//! was once a text is ever taken for a header. Lines and words are counted
//! together in one word of 64 bits; both counts wrap. One thread at a time
//! takes: whoever owns the writer.
//!
//! Not here: what a record means, see `line`; who sleeps and wakes, see `queue`.

use crossbeam::utils::CachePadded;
use std::sync::atomic::{AtomicU64, Ordering};

/// Records after which the room that was taken is given back.
const GIVE_BACK_AFTER: usize = 64;

/// Bytes of a word.
const WORD: usize = 8;

/// Bytes of the smallest page of memory.
const PAGE: usize = 4096;

/// See the module.
pub(super) struct Ring {
    /// Their number is a power of two.
    words: Box<[AtomicU64]>,
    /// What was ever reserved, and what was ever taken.
    tail: CachePadded<AtomicU64>,
    head: CachePadded<AtomicU64>,
}

/// How much of the ring an append may fill.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    pub(super) records: u32,
    pub(super) words: u32,
}

/// How many records and words went by, each modulo 2 to the 32.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Position {
    pub(super) records: u32,
    words: u32,
}

impl Position {
    const fn from_raw(raw: u64) -> Self {
        let (records, words) = halves(raw);
        Self { records, words }
    }

    const fn raw(self) -> u64 {
        joined(self.records, self.words)
    }

    const fn after(self, words: u32) -> Self {
        Self {
            records: self.records.wrapping_add(1),
            words: self.words.wrapping_add(words),
        }
    }
}

/// The upper and the lower half of a word.
pub(super) const fn halves(word: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = word.to_be_bytes();
    (
        u32::from_be_bytes([a, b, c, d]),
        u32::from_be_bytes([e, f, g, h]),
    )
}

/// The inverse of `halves`.
pub(super) const fn joined(upper: u32, lower: u32) -> u64 {
    let ([a, b, c, d], [e, f, g, h]) = (upper.to_be_bytes(), lower.to_be_bytes());
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

impl Ring {
    /// At least so many words, at most 2 to the 31.
    pub(super) fn new(words: usize) -> Self {
        let words = words.clamp(2, 1 << 31).next_power_of_two();
        let words: Box<[AtomicU64]> = (0..words).map(|_| AtomicU64::new(0)).collect();
        // The kernel gives a page at its first use: now, not in a caller's line.
        for word in words.iter().step_by(PAGE / WORD) {
            word.store(0, Ordering::Relaxed);
        }
        Self {
            words,
            tail: CachePadded::new(AtomicU64::new(0)),
            head: CachePadded::new(AtomicU64::new(0)),
        }
    }

    /// All words.
    pub(super) fn capacity(&self) -> u32 {
        u32::try_from(self.words.len()).unwrap_or(u32::MAX)
    }

    /// What was reserved until now.
    pub(super) fn reserved(&self) -> Position {
        Position::from_raw(self.tail.load(Ordering::SeqCst))
    }

    /// What was taken until now.
    pub(super) fn taken(&self) -> Position {
        Position::from_raw(self.head.load(Ordering::Acquire))
    }

    /// Records and words that are reserved and not taken.
    pub(super) fn waiting(&self) -> (u32, u32) {
        // In this order: the head never passes the tail.
        let head = self.taken();
        let tail = self.reserved();
        (
            tail.records.wrapping_sub(head.records),
            tail.words.wrapping_sub(head.words),
        )
    }

    /// Whether all before this place was taken.
    pub(super) fn is_taken(&self, end: Position) -> bool {
        let ahead = end.records.wrapping_sub(self.taken().records);
        // No more than the ring holds can be ahead.
        ahead == 0 || ahead > self.capacity()
    }

    /// Whether nothing is reserved that was not taken.
    pub(super) fn is_empty(&self) -> bool {
        self.taken() == self.reserved()
    }

    /// Whether the next record is there, whole.
    pub(super) fn is_ready(&self) -> bool {
        let (next, _) = self.span(self.taken(), 1);
        next.first()
            .is_some_and(|header| header.load(Ordering::Acquire) != 0)
    }

    /// Appends a record, or says that its share has no room for it. The
    /// reservation is sequentially consistent.
    #[inline]
    pub(super) fn append(&self, share: Share, tag: u32, fields: &[u64], texts: &[&[u8]]) -> bool {
        let Some(words) = words_of(fields, texts) else {
            return false;
        };
        let Some(at) = self.reserve(share, words) else {
            return false;
        };
        self.put(at, words, tag, fields, texts);
        true
    }

    /// Fills the words of a record that were reserved.
    #[inline]
    pub(super) fn put(&self, at: Position, words: u32, tag: u32, fields: &[u64], texts: &[&[u8]]) {
        let (first, second) = self.span(at, words);
        if second.is_empty() {
            fill(first.iter(), tag, words, fields, texts);
        } else {
            fill(first.iter().chain(second), tag, words, fields, texts);
        }
    }

    /// Reserves words for a record, if its share has room for it.
    #[inline]
    pub(super) fn reserve(&self, share: Share, words: u32) -> Option<Position> {
        let mut raw = self.tail.load(Ordering::Relaxed);
        loop {
            let tail = Position::from_raw(raw);
            // Acquire: what was taken is cleared, in the eyes of this thread too.
            let head = self.taken();
            let records_waiting = tail.records.wrapping_sub(head.records);
            let words_waiting = tail.words.wrapping_sub(head.words);
            let fits = records_waiting < share.records
                && words_waiting
                    .checked_add(words)
                    .is_some_and(|after| after <= share.words);
            if !fits {
                // With a tail that is out of date the differences mean nothing.
                let now = self.tail.load(Ordering::Relaxed);
                if now == raw {
                    return None;
                }
                raw = now;
                continue;
            }
            match self.tail.compare_exchange_weak(
                raw,
                tail.after(words).raw(),
                Ordering::SeqCst,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Some(tail),
                Err(now) => raw = now,
            }
        }
    }

    /// The words of a record, which may go on at the start of the ring.
    #[inline]
    fn span(&self, at: Position, words: u32) -> (&[AtomicU64], &[AtomicU64]) {
        let start = usize::try_from(at.words).unwrap_or(0) & (self.words.len() - 1);
        let words = usize::try_from(words).unwrap_or(0);
        let (before, from) = self.words.split_at(start.min(self.words.len()));
        match from.get(..words) {
            Some(whole) => (whole, &[]),
            None => {
                let rest = words - from.len();
                (from, before.get(..rest).unwrap_or(before))
            }
        }
    }

    /// Takes up to `most` records: hands each over with its tag and its body,
    /// fields and texts as they were given, each text filled up to a word.
    /// Gives their number.
    pub(super) fn take(
        &self,
        most: usize,
        body: &mut Vec<u8>,
        mut each: impl FnMut(u32, &[u8]),
    ) -> usize {
        let mut at = self.taken();
        let mut taken = 0;
        while taken < most {
            let Some(header) = self.span(at, 1).0.first() else {
                break;
            };
            // Acquire: a header that is there says that the body is.
            let (tag, words) = halves(header.load(Ordering::Acquire));
            if words == 0 {
                break;
            }
            let bytes = usize::try_from(words - 1).unwrap_or(0) * WORD;
            if body.len() < bytes {
                body.resize(bytes, 0);
            }
            let out = body.get_mut(..bytes).unwrap_or_default();
            let (front, back) = self.span(at, words);
            if back.is_empty() {
                empty(front.iter(), out);
            } else {
                empty(front.iter().chain(back), out);
            }
            each(tag, out);
            at = at.after(words);
            taken += 1;
            if taken.is_multiple_of(GIVE_BACK_AFTER) {
                self.head.store(at.raw(), Ordering::Release);
            }
        }
        self.head.store(at.raw(), Ordering::Release);
        taken
    }
}

/// Words of a record, with its header.
#[inline]
pub(super) fn words_of(fields: &[u64], texts: &[&[u8]]) -> Option<u32> {
    let texts: usize = texts.iter().map(|text| text.len().div_ceil(WORD)).sum();
    u32::try_from(1 + fields.len() + texts).ok()
}

/// Stores fields and texts, and then the header.
#[inline]
fn fill<'a>(
    mut slots: impl Iterator<Item = &'a AtomicU64>,
    tag: u32,
    words: u32,
    fields: &[u64],
    texts: &[&[u8]],
) {
    let Some(header) = slots.next() else {
        return;
    };
    for (field, slot) in fields.iter().zip(slots.by_ref()) {
        slot.store(*field, Ordering::Relaxed);
    }
    for text in texts {
        let (whole, rest) = text.as_chunks::<WORD>();
        for (chunk, slot) in whole.iter().zip(slots.by_ref()) {
            slot.store(u64::from_le_bytes(*chunk), Ordering::Relaxed);
        }
        if !rest.is_empty()
            && let Some(slot) = slots.next()
        {
            slot.store(last_word(text, rest), Ordering::Relaxed);
        }
    }
    header.store(joined(tag, words), Ordering::Release);
}

/// The bytes of a text that fill no whole word, filled up with 0. They are taken
/// at once where the text has a word before them.
#[inline]
fn last_word(text: &[u8], rest: &[u8]) -> u64 {
    match text.last_chunk::<WORD>() {
        Some(last) => u64::from_le_bytes(*last) >> (8 * (WORD - rest.len())),
        None => rest
            .iter()
            .rev()
            .fold(0, |word, byte| word << 8 | u64::from(*byte)),
    }
}

/// Copies the body out and clears the whole record.
#[inline]
fn empty<'a>(mut slots: impl Iterator<Item = &'a AtomicU64>, out: &mut [u8]) {
    if let Some(header) = slots.next() {
        header.store(0, Ordering::Relaxed);
    }
    let (chunks, _) = out.as_chunks_mut::<WORD>();
    for (chunk, slot) in chunks.iter_mut().zip(slots) {
        *chunk = slot.load(Ordering::Relaxed).to_le_bytes();
        slot.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    fn share(ring: &Ring, records: u32) -> Share {
        let words = ring.capacity();
        Share { records, words }
    }

    fn take_all(ring: &Ring) -> Vec<(u32, Vec<u8>)> {
        let mut records = Vec::new();
        ring.take(usize::MAX, &mut Vec::new(), |tag, body| {
            records.push((tag, body.to_vec()));
        });
        records
    }

    #[test]
    fn records_come_back_in_order_filled_up_to_words() {
        let ring = Ring::new(64);
        let all = share(&ring, 9);
        assert!(ring.append(all, 0, &[], &[]));
        assert!(ring.append(all, u32::MAX, &[u64::MAX], &[b"abc", b"", b"12345678"]));
        assert_eq!(ring.waiting(), (2, 5));
        let body = [&[0xff; 8][..], b"abc\0\0\0\0\0", b"12345678"].concat();
        assert_eq!(take_all(&ring), [(0, vec![]), (u32::MAX, body)]);
        assert!(ring.is_empty());
        assert_eq!(take_all(&ring), []);
    }

    #[test]
    fn a_share_bounds_records_and_words() {
        let ring = Ring::new(16);
        let few = share(&ring, 3);
        for expected in [true, true, true, false] {
            assert_eq!(ring.append(few, 7, &[], &[]), expected);
        }
        take_all(&ring);
        let words = Share {
            records: 99,
            words: 10,
        };
        assert!(ring.append(words, 7, &[0; 8], &[]));
        assert!(!ring.append(words, 7, &[0], &[]));
        assert!(ring.append(words, 7, &[], &[]));
        assert!(!ring.append(words, 7, &[], &[]));
        assert!(ring.append(share(&ring, 99), 7, &[0; 5], &[]));
        assert!(!ring.append(share(&ring, 99), 7, &[], &[]));
        assert_eq!(take_all(&ring).len(), 3);
    }

    #[test]
    fn a_text_is_never_taken_for_a_header() {
        // Every word of the texts looks like a header of one word.
        let ring = Ring::new(16);
        let lure = [joined(5, 1).to_le_bytes(), joined(5, 1).to_le_bytes()].concat();
        for round in 0..200 {
            assert!(ring.append(share(&ring, 9), round, &[joined(5, 1)], &[&lure]));
            let taken = take_all(&ring);
            assert_eq!(taken.len(), 1, "round {round}");
            assert_eq!(taken[0].0, round);
        }
    }

    /// Threads append records of any length; each comes out once, whole, in
    /// order for each thread, while both counts wrap.
    #[test]
    fn many_threads_lose_and_tear_nothing() {
        const RECORDS: u64 = if cfg!(miri) { 40 } else { 20_000 };
        let ring = Ring::new(128);
        let near_the_end = Position {
            records: u32::MAX - 100,
            words: u32::MAX - 63,
        };
        ring.head.store(near_the_end.raw(), Ordering::Relaxed);
        ring.tail.store(near_the_end.raw(), Ordering::Relaxed);
        let ended = AtomicBool::new(false);
        let mut next = [0; 3];
        std::thread::scope(|scope| {
            let (ring, ended) = (&ring, &ended);
            let threads: Vec<_> = (0..3_u32)
                .map(|thread| {
                    scope.spawn(move || {
                        for number in 0..RECORDS {
                            let length = usize::try_from(number % 70).unwrap();
                            let text = vec![u8::try_from(number % 251).unwrap(); length];
                            while !ring.append(share(ring, 40), thread, &[number], &[&text]) {
                                std::thread::yield_now();
                            }
                        }
                    })
                })
                .collect();
            let reader = scope.spawn(move || {
                let mut next = [0; 3];
                let mut body = Vec::new();
                loop {
                    let last = ended.load(Ordering::SeqCst);
                    let taken = ring.take(50, &mut body, |thread, body| {
                        let next = &mut next[usize::try_from(thread).unwrap()];
                        assert_eq!(body[..8], u64::to_le_bytes(*next));
                        let length = usize::try_from(*next % 70).unwrap();
                        assert_eq!(body.len(), 8 + length.next_multiple_of(8));
                        let byte = u8::try_from(*next % 251).unwrap();
                        assert!(body[8..8 + length].iter().all(|b| *b == byte));
                        assert!(body[8 + length..].iter().all(|b| *b == 0));
                        *next += 1;
                    });
                    if taken == 0 {
                        if last {
                            return next;
                        }
                        std::thread::yield_now();
                    }
                }
            });
            for thread in threads {
                thread.join().unwrap();
            }
            ended.store(true, Ordering::SeqCst);
            next = reader.join().unwrap();
        });
        assert_eq!(next, [RECORDS; 3]);
        assert!(
            ring.words
                .iter()
                .all(|word| word.load(Ordering::Relaxed) == 0)
        );
    }
}
