//! The addresses behind the configured upstreams, and which of them were up.
//!
//! Invariants: the order of the configuration is kept; one that failed is
//! passed over for [`DOWN_FOR`], unless all others fail too; at most
//! [`ADDRESSES_MAX`] addresses are kept for one name. A name that can't be looked
//! up again keeps the addresses that it had.
//!
//! Not here: connecting, and the walls around the thread that looks names up.

use std::error::Error;
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
    /// Whether a failure is a reason to look its name up again.
    named: bool,
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

/// What one upstream leads to.
type Found = Vec<Arc<Target>>;

/// All of them.
pub(super) struct Targets {
    upstreams: Vec<Upstream>,
    /// The targets of each upstream, in the order of the configuration.
    current: Mutex<Arc<[Found]>>,
    start: Instant,
    look_up: Option<SyncSender<()>>,
    requests: Mutex<Option<Receiver<()>>>,
}

impl Targets {
    /// Looks up all names.
    pub(super) fn resolve(upstreams: Vec<Upstream>) -> Result<Self, RelayError> {
        let current: Result<Arc<[Found]>, _> = upstreams.iter().map(look_up).collect();
        let current = Mutex::new(current?);
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
        let all = self.all();
        let up = all.iter().flatten().filter(is_up);
        let down = all.iter().flatten().filter(|target| !is_up(target));
        up.chain(down).cloned().collect()
    }

    /// Remembers a failure, and asks for its name to be looked up again. True if
    /// the target was up before.
    pub(super) fn failed(&self, target: &Target, now: Instant) -> bool {
        let until = now
            .checked_add(DOWN_FOR)
            .map_or(1, |until| self.millis(until).max(1));
        target.down_until.store(until, Ordering::Relaxed);
        if target.named {
            self.look_up_again();
        }
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
    fn look_up_again(&self) {
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
        let mut lost = vec![false; self.upstreams.len()];
        Some(move || {
            while requests.recv().is_ok() {
                let Some(targets) = targets.upgrade() else {
                    return;
                };
                targets.refresh(&mut lost);
                drop(targets);
                std::thread::sleep(LOOK_UP_EVERY);
            }
        })
    }

    /// Looks every name up again. Connections that stand are not touched. `lost`
    /// says for each upstream whether its last look-up failed, which is said once.
    fn refresh(&self, lost: &mut [bool]) {
        let known = self.all();
        let mut fresh = known.to_vec();
        for ((upstream, place), lost) in self.upstreams.iter().zip(&mut fresh).zip(lost) {
            if !upstream.needs_lookup() {
                continue;
            }
            match look_up(upstream) {
                Ok(mut found) => {
                    *lost = false;
                    keep_health(&mut found, place);
                    if !is_same(&found, place) {
                        crate::notice!("upstream {upstream} now leads to {}", addresses(&found));
                        *place = found;
                    }
                }
                Err(error) => {
                    if !std::mem::replace(lost, true) {
                        let why = error.source().map_or_else(String::new, ToString::to_string);
                        crate::warning!("{error}: {why}; its addresses stay as they were");
                    }
                }
            }
        }
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = fresh.into();
    }

    fn all(&self) -> Arc<[Found]> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn millis(&self, at: Instant) -> u64 {
        let millis = at.saturating_duration_since(self.start).as_millis();
        u64::try_from(millis).unwrap_or(u64::MAX)
    }
}

/// What is known of an address stays known.
fn keep_health(found: &mut Found, known: &Found) {
    for target in found {
        let same = known.iter().find(|known| known.address == target.address);
        if let Some(same) = same {
            *target = Arc::clone(same);
        }
    }
}

/// In any order: name servers turn the list round with each answer.
fn is_same(found: &Found, known: &Found) -> bool {
    let is_known = |one| known.iter().any(|other| Arc::ptr_eq(one, other));
    found.len() == known.len() && found.iter().all(is_known)
}

fn addresses(found: &Found) -> String {
    let all: Vec<String> = found
        .iter()
        .filter_map(|target| match &target.address {
            Address::Inet(address) => Some(address.to_string()),
            Address::Unix(_) => None,
        })
        .collect();
    all.join(", ")
}

fn look_up(upstream: &Upstream) -> Result<Found, RelayError> {
    let lookup = |source| RelayError::Lookup {
        upstream: upstream.clone(),
        source,
    };
    let invalid = |error: rustix::io::Errno| lookup(error.into());
    let one = |address| Ok(vec![target(address, upstream.to_string(), false)]);
    match upstream.kind() {
        Kind::Path(path) => one(Address::Unix(
            SocketAddrUnix::new(path.as_str()).map_err(invalid)?,
        )),
        Kind::Abstract(name) => one(Address::Unix(
            SocketAddrUnix::new_abstract_name(name.as_bytes()).map_err(invalid)?,
        )),
        Kind::Address(address) => one(Address::Inet(*address)),
        Kind::Host(host, port) => {
            let found = (host.as_str(), *port).to_socket_addrs().map_err(lookup)?;
            let mut known: Vec<_> = found.take(ADDRESSES_MAX).collect();
            known.dedup();
            if known.is_empty() {
                return Err(lookup(io::ErrorKind::NotFound.into()));
            }
            let named = |address| {
                let name = format!("{upstream} ({address})");
                target(Address::Inet(address), name, true)
            };
            Ok(known.into_iter().map(named).collect())
        }
    }
}

fn target(address: Address, name: String, named: bool) -> Arc<Target> {
    Arc::new(Target {
        address,
        name,
        named,
        down_until: AtomicU64::new(0),
        failures: AtomicU64::new(0),
    })
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
    fn names_are_looked_up_and_again_after_a_failure() {
        let list = ["tcp:localhost:9", "unix:/a"].map(|text| text.parse().unwrap());
        let targets = Arc::new(Targets::resolve(list.to_vec()).unwrap());
        let now = Instant::now();
        let before = targets.in_order(now);
        assert!(before.len() >= 2 && before[0].named);
        let body = targets.resolver().unwrap();
        assert!(targets.resolver().is_none(), "only one thread may");
        assert!(targets.failed(&before[0], now));
        // What is known of the addresses outlives a look-up that finds them again.
        targets.refresh(&mut [false; 2]);
        assert_eq!(targets.succeeded(&before[0]), Some(1));
        let after = targets.in_order(now);
        assert!(before.iter().zip(&after).all(|(a, b)| Arc::ptr_eq(a, b)));
        drop(targets);
        body();
    }

    #[test]
    fn an_address_that_a_name_left_is_not_tried_again() {
        let list = ["tcp:localhost:9", "unix:/a"].map(|text| text.parse().unwrap());
        let targets = Targets::resolve(list.to_vec()).unwrap();
        let moved = target(
            Address::Inet("192.0.2.1:9".parse().unwrap()),
            "x".into(),
            true,
        );
        let rest = targets.all()[1].clone();
        *targets.current.lock().unwrap() = [vec![moved], rest].into();
        targets.refresh(&mut [false; 2]);
        let now = targets.in_order(Instant::now());
        assert!(now.iter().all(|target| target.to_string() != "x"));
        assert_eq!(now.last().unwrap().to_string(), "unix:/a");
    }

    #[test]
    fn without_names_nobody_looks_any_up() {
        assert!(Arc::new(targets()).resolver().is_none());
    }
}
