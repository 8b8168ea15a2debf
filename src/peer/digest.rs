//! SHA-256 of executables, bounded in size and time, and remembered.

use std::collections::{HashMap, VecDeque};
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::Unreadable;
use super::error::reason;

/// A file younger than this could change once more without a change of its times,
/// which the kernel takes from a coarse clock; its digest isn't remembered.
const SETTLED_SECONDS: i64 = 2;

/// What a digest is remembered by: were one of these to change, so might the file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Key {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Key {
    pub(super) fn of(file: &File) -> Result<Self, Unreadable> {
        let found: Metadata = file.metadata().map_err(|error| reason(&error))?;
        Ok(Self {
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    fn is_settled(&self) -> bool {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let now = i64::try_from(now.as_secs()).unwrap_or(0);
        now.saturating_sub(self.changed.0) > SETTLED_SECONDS
    }
}

/// Digests by file; the oldest goes when it is full.
#[derive(Debug)]
pub(super) struct Cache {
    digests: HashMap<Key, [u8; 32]>,
    order: VecDeque<Key>,
    bound: usize,
}

impl Cache {
    pub(super) fn new(bound: usize) -> Self {
        Self {
            digests: HashMap::new(),
            order: VecDeque::new(),
            bound,
        }
    }

    pub(super) fn get(&self, key: &Key) -> Option<[u8; 32]> {
        self.digests.get(key).copied()
    }

    pub(super) fn insert(&mut self, key: Key, digest: [u8; 32]) {
        if self.bound == 0 || !key.is_settled() || self.digests.insert(key, digest).is_some() {
            return;
        }
        self.order.push_back(key);
        if self.order.len() > self.bound {
            let oldest = self.order.pop_front();
            oldest.and_then(|oldest| self.digests.remove(&oldest));
        }
    }
}

/// Digests a file from its start, and makes sure that it stayed the same.
///
/// # Errors
///
/// `TooLarge` past `max_bytes`, `Busy` past the deadline, `Changed` if the file was
/// written meanwhile, `Unsupported` in a build without digests.
pub(super) fn digest(
    file: &File,
    key: &Key,
    max_bytes: u64,
    deadline: Instant,
) -> Result<[u8; 32], Unreadable> {
    if key.size() > max_bytes {
        return Err(Unreadable::TooLarge);
    }
    let digest = sum(file, key.size(), deadline)?;
    if Key::of(file)? == *key {
        Ok(digest)
    } else {
        Err(Unreadable::Changed)
    }
}

#[cfg(feature = "digest")]
fn sum(file: &File, size: u64, deadline: Instant) -> Result<[u8; 32], Unreadable> {
    use std::os::unix::fs::FileExt;

    use sha2::Digest;

    let mut hasher = sha2::Sha256::new();
    let mut buffer = vec![0_u8; 131_072];
    let mut at = 0;
    while at < size {
        if Instant::now() >= deadline {
            return Err(Unreadable::Busy);
        }
        let read = file
            .read_at(&mut buffer, at)
            .map_err(|error| reason(&error))?;
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else {
            return Err(Unreadable::Changed);
        };
        hasher.update(bytes);
        at = at.saturating_add(u64::try_from(read).map_err(|_| Unreadable::TooLarge)?);
    }
    // Longer than it said: the check of the times after this would see it as well.
    if at == size {
        Ok(hasher.finalize().into())
    } else {
        Err(Unreadable::Changed)
    }
}

#[cfg(not(feature = "digest"))]
fn sum(_file: &File, _size: u64, _deadline: Instant) -> Result<[u8; 32], Unreadable> {
    Err(Unreadable::Unsupported)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(inode: u64, changed: i64) -> Key {
        Key {
            device: 1,
            inode,
            size: 1,
            modified: (0, 0),
            changed: (changed, 0),
        }
    }

    #[test]
    fn the_oldest_digest_goes_first() {
        let mut cache = Cache::new(2);
        for inode in 1..=3 {
            cache.insert(key(inode, 0), [1; 32]);
        }
        assert_eq!(cache.get(&key(1, 0)), None);
        assert_eq!(cache.get(&key(2, 0)), Some([1; 32]));
        assert_eq!(cache.get(&key(3, 0)), Some([1; 32]));
        assert_eq!(cache.get(&key(3, 1)), None, "another time is another file");
    }

    #[test]
    fn a_young_file_is_not_remembered() {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let mut cache = Cache::new(2);
        cache.insert(key(1, i64::try_from(now).unwrap()), [1; 32]);
        assert_eq!(cache.get(&key(1, i64::try_from(now).unwrap())), None);
    }

    #[cfg(feature = "digest")]
    #[test]
    fn bounds_of_size_and_time_hold_at_their_edge() {
        let file = File::open("/bin/sh").unwrap();
        let key = Key::of(&file).unwrap();
        let later = Instant::now() + std::time::Duration::from_secs(60);
        assert!(digest(&file, &key, key.size(), later).is_ok());
        assert_eq!(
            digest(&file, &key, key.size() - 1, later),
            Err(Unreadable::TooLarge)
        );
        assert_eq!(
            digest(&file, &key, key.size(), Instant::now()),
            Err(Unreadable::Busy)
        );
    }
}
