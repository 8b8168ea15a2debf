//! The addresses behind the configured upstreams, and which of them were up.
//!
//! Invariants: the order of the configuration is kept; one that failed is
//! passed over for [`DOWN_FOR`], unless all others fail too; at most
//! [`ADDRESSES_MAX`] addresses are kept for one name.
//!
//! Not here: connecting.

use std::fmt;
use std::io;
use std::net::ToSocketAddrs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::net::SocketAddrUnix;

use super::RelayError;
use super::connect::Address;
use super::upstream::{Kind, Upstream};

/// How long a failure is remembered.
pub const DOWN_FOR: Duration = Duration::from_secs(3);

/// Addresses of one name that are tried.
pub const ADDRESSES_MAX: usize = 16;

/// Least time between two look-ups.
const LOOK_UP_EVERY: Duration = Duration::from_secs(1);

/// One address, with what is remembered of it.
pub(super) struct Target {
    pub(super) address: Address,
    name: String,
    /// Milliseconds since the start of the relay; 0 for one that is up.
    down_until: AtomicU64,
    /// How often it failed since it was up.
    failures: AtomicU64,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// All of them.
pub(super) struct Targets {
    upstreams: Vec<Upstream>,
    current: Mutex<Arc<[Arc<Target>]>>,
    start: Instant,
    look_up: Option<SyncSender<()>>,
    requests: Mutex<Option<Receiver<()>>>,
}

impl Targets {
    /// Looks up all names.
    pub(super) fn resolve(upstreams: Vec<Upstream>) -> Result<Self, RelayError> {
        let current = Mutex::new(look_up(&upstreams)?.into());
        let named = upstreams.iter().any(Upstream::needs_lookup);
        let (sender, receiver) = sync_channel(1);
        Ok(Self {
            upstreams,
            current,
            start: Instant::now(),
            look_up: named.then_some(sender),
            requests: Mutex::new(named.then_some(receiver)),
        })
    }

    /// In the order in which to try them: those that are up first.
    pub(super) fn in_order(&self, now: Instant) -> Vec<Arc<Target>> {
        let now = self.millis(now);
        let is_up = |target: &&Arc<Target>| target.down_until.load(Ordering::Relaxed) <= now;
        let all = Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner));
        let up = all.iter().filter(is_up);
        let down = all.iter().filter(|target| !is_up(target));
        up.chain(down).cloned().collect()
    }

    /// Remembers a failure. True if the target was up before.
    pub(super) fn failed(&self, target: &Target, now: Instant) -> bool {
        let until = now
            .checked_add(DOWN_FOR)
            .map_or(1, |until| self.millis(until).max(1));
        target.down_until.store(until, Ordering::Relaxed);
        target.failures.fetch_add(1, Ordering::Relaxed) == 0
    }

    /// Remembers a success. If the target had been down: how often it had failed.
    pub(super) fn succeeded(&self, target: &Target) -> Option<u64> {
        // First a load, so that connections that all succeed share the cache line.
        if target.failures.load(Ordering::Relaxed) == 0 {
            return None;
        }
        target.down_until.store(0, Ordering::Relaxed);
        Some(target.failures.swap(0, Ordering::Relaxed)).filter(|failures| *failures > 0)
    }

    /// Asks for names to be looked up again, if somebody does that.
    pub(super) fn look_up_again(&self) {
        if let Some(sender) = &self.look_up {
            // Full: it has been asked for already.
            let _ = sender.try_send(());
        }
    }

    /// What the resolver's thread does, if there are names. Once.
    pub(super) fn resolver(self: &Arc<Self>) -> Option<impl FnOnce() + Send + use<>> {
        let requests = self
            .requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()?;
        let targets = Arc::downgrade(self);
        Some(move || {
            while requests.recv().is_ok() {
                let Some(targets) = targets.upgrade() else {
                    return;
                };
                targets.refresh();
                drop(targets);
                std::thread::sleep(LOOK_UP_EVERY);
            }
        })
    }

    /// Keeps what is known where a name can't be looked up now.
    fn refresh(&self) {
        let Ok(mut fresh) = look_up(&self.upstreams) else {
            return;
        };
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        for target in &mut fresh {
            if let Some(known) = current.iter().find(|known| known.address == target.address) {
                *target = Arc::clone(known);
            }
        }
        *current = fresh.into();
    }

    fn millis(&self, at: Instant) -> u64 {
        let millis = at.saturating_duration_since(self.start).as_millis();
        u64::try_from(millis).unwrap_or(u64::MAX)
    }
}

fn look_up(upstreams: &[Upstream]) -> Result<Vec<Arc<Target>>, RelayError> {
    let mut targets = Vec::new();
    for upstream in upstreams {
        let lookup = |source| RelayError::Lookup {
            upstream: upstream.clone(),
            source,
        };
        let mut push = |address, name: String| {
            let (down_until, failures) = (AtomicU64::new(0), AtomicU64::new(0));
            targets.push(Arc::new(Target {
                address,
                name,
                down_until,
                failures,
            }));
        };
        let invalid = |error: rustix::io::Errno| lookup(error.into());
        match upstream.kind() {
            Kind::Path(path) => {
                let address = SocketAddrUnix::new(path.as_str()).map_err(invalid)?;
                push(Address::Unix(address), upstream.to_string());
            }
            Kind::Abstract(name) => {
                let address =
                    SocketAddrUnix::new_abstract_name(name.as_bytes()).map_err(invalid)?;
                push(Address::Unix(address), upstream.to_string());
            }
            Kind::Address(address) => push(Address::Inet(*address), upstream.to_string()),
            Kind::Host(host, port) => {
                let found = (host.as_str(), *port).to_socket_addrs().map_err(lookup)?;
                let mut known: Vec<_> = found.collect();
                known.dedup();
                if known.is_empty() {
                    return Err(lookup(io::ErrorKind::NotFound.into()));
                }
                for address in known.into_iter().take(ADDRESSES_MAX) {
                    push(Address::Inet(address), format!("{upstream} ({address})"));
                }
            }
        }
    }
    Ok(targets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets() -> Targets {
        let list = ["unix:/a", "unix:@b", "tcp:127.0.0.1:1"];
        Targets::resolve(list.map(|text| text.parse().unwrap()).to_vec()).unwrap()
    }

    #[track_caller]
    fn check(targets: &Targets, now: Instant, expected: [&str; 3]) {
        let names: Vec<String> = targets
            .in_order(now)
            .iter()
            .map(|target| target.to_string())
            .collect();
        assert_eq!(names, expected);
    }

    #[test]
    fn one_that_failed_comes_last_until_the_time_is_over() {
        let targets = targets();
        let now = Instant::now();
        check(&targets, now, ["unix:/a", "unix:@b", "tcp:127.0.0.1:1"]);
        let first = targets.in_order(now).remove(0);
        targets.failed(&first, now);
        check(&targets, now, ["unix:@b", "tcp:127.0.0.1:1", "unix:/a"]);
        let before = DOWN_FOR - Duration::from_millis(5);
        check(
            &targets,
            now + before,
            ["unix:@b", "tcp:127.0.0.1:1", "unix:/a"],
        );
        check(
            &targets,
            now + DOWN_FOR,
            ["unix:/a", "unix:@b", "tcp:127.0.0.1:1"],
        );
    }

    #[test]
    fn a_success_is_told_apart_from_a_recovery() {
        let targets = targets();
        let first = targets.in_order(Instant::now()).remove(0);
        assert_eq!(targets.succeeded(&first), None);
        assert!(targets.failed(&first, Instant::now()));
        assert!(!targets.failed(&first, Instant::now()));
        assert_eq!(targets.succeeded(&first), Some(2));
        assert_eq!(targets.succeeded(&first), None);
    }

    #[test]
    fn names_are_looked_up_and_again_when_asked() {
        let upstream = "tcp:localhost:9".parse().unwrap();
        let targets = Arc::new(Targets::resolve(vec![upstream]).unwrap());
        assert!(!targets.in_order(Instant::now()).is_empty());
        let body = targets.resolver().unwrap();
        assert!(targets.resolver().is_none(), "only one thread may");
        targets.look_up_again();
        targets.look_up_again();
        drop(targets);
        body();
    }

    #[test]
    fn without_names_nobody_looks_any_up() {
        assert!(Arc::new(targets()).resolver().is_none());
    }
}
