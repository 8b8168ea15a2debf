//! Lines that a peer can cause: so many a second for each call site, then one
//! summary of how many more there were.
//!
//! The summary comes with the site's next line after the second is over, or,
//! where our logger is installed, from its writer thread, whichever is first.

use super::{Site, submit};
#[cfg(any(test, feature = "logging"))]
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, TryLockError};
use std::thread;
use std::time::Instant;

/// How many lines a second one call site may log, unless the logger says
/// otherwise: see [`Builder::rate`](super::Builder::rate).
pub const LINES_PER_SECOND: u32 = 10;

/// Milliseconds for which a site's count holds.
const WINDOW_MS: u64 = 1000;

/// How often a site tries to get into the list: whoever holds it is done soon.
const LIST_TRIES: usize = 32;

/// The count of one call site. Made by `limited!`.
#[derive(Debug)]
pub struct RateLimited {
    site: Site,
    /// Start of the current second, in milliseconds since the first use.
    window_ms: AtomicU64,
    lines: AtomicU64,
    suppressed: AtomicU64,
    listed: AtomicBool,
}

/// The bound in force, for all sites of the program.
static RATE: AtomicU64 = AtomicU64::new(LINES_PER_SECOND as u64);

/// Puts a bound in force; `None` for none.
#[cfg(feature = "logging")]
pub(super) fn set_rate(lines_per_second: Option<u32>) {
    RATE.store(
        lines_per_second.map_or(u64::MAX, u64::from),
        Ordering::Relaxed,
    );
}

/// The sites that have suppressed lines since their last summary.
static SUPPRESSING: Mutex<Vec<&'static RateLimited>> = Mutex::new(Vec::new());

impl RateLimited {
    /// For the macro.
    #[doc(hidden)]
    pub const fn new(site: Site) -> Self {
        Self {
            site,
            window_ms: AtomicU64::new(0),
            lines: AtomicU64::new(0),
            suppressed: AtomicU64::new(0),
            listed: AtomicBool::new(false),
        }
    }

    /// The call site.
    pub const fn site(&'static self) -> &'static Site {
        &self.site
    }

    /// Whether the site may log one more line now. Logs the summary of the
    /// seconds before, if there is one.
    #[doc(hidden)]
    pub fn admits(&'static self) -> bool {
        let now_ms = now_ms();
        self.summarise_at(now_ms);
        if self.lines.fetch_add(1, Ordering::Relaxed) < RATE.load(Ordering::Relaxed) {
            return true;
        }
        self.suppressed.fetch_add(1, Ordering::Relaxed);
        if !self.listed.swap(true, Ordering::Relaxed) && !self.list() {
            // The next line that is suppressed tries again.
            self.listed.store(false, Ordering::Relaxed);
        }
        false
    }

    /// Puts the site among those with a summary to give. In a forked process the
    /// lock may be held by a thread that is not there: it isn't waited for.
    fn list(&'static self) -> bool {
        for _ in 0..LIST_TRIES {
            match SUPPRESSING.try_lock() {
                Ok(mut sites) => sites.push(self),
                Err(TryLockError::Poisoned(sites)) => sites.into_inner().push(self),
                Err(TryLockError::WouldBlock) => {
                    thread::yield_now();
                    continue;
                }
            }
            return true;
        }
        false
    }

    /// Starts a new second if the last is over, and says what it suppressed.
    fn summarise_at(&'static self, now_ms: u64) -> bool {
        let window_ms = self.window_ms.load(Ordering::Relaxed);
        if now_ms.saturating_sub(window_ms) < WINDOW_MS && window_ms != 0 {
            return false;
        }
        // One of the threads that see the end of a second starts the next.
        let mine = self.window_ms.compare_exchange(
            window_ms,
            now_ms,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        if mine.is_err() {
            return false;
        }
        self.lines.store(0, Ordering::Relaxed);
        let suppressed = self.suppressed.swap(0, Ordering::Relaxed);
        if suppressed > 0 {
            submit(
                &self.site,
                None,
                format_args!("{suppressed} more lines like this suppressed"),
            );
        }
        true
    }
}

/// Says what the sites whose second is over have suppressed. Gives whether any
/// site still has something to say later.
#[cfg(feature = "logging")]
pub(super) fn summarise_suppressed() -> bool {
    summarise_until(now_ms())
}

/// Says what all sites have suppressed, though their second may not be over: for
/// the end of the logger.
#[cfg(feature = "logging")]
pub(super) fn summarise_all() {
    summarise_until(now_ms().saturating_add(WINDOW_MS));
}

#[cfg(feature = "logging")]
fn summarise_until(now_ms: u64) -> bool {
    let mut over = Vec::new();
    let more = {
        let mut sites = SUPPRESSING.lock().unwrap_or_else(PoisonError::into_inner);
        sites.retain(|site| {
            let waits = now_ms.saturating_sub(site.window_ms.load(Ordering::Relaxed)) < WINDOW_MS;
            if !waits {
                site.listed.store(false, Ordering::Relaxed);
                over.push(*site);
            }
            waits
        });
        !sites.is_empty()
    };
    // Logged without the lock: the logger may call `limited!` itself.
    for site in over {
        site.summarise_at(now_ms);
    }
    more
}

/// Whether any site has a summary to give.
#[cfg(any(test, feature = "logging"))]
pub(super) fn suppressing() -> bool {
    SUPPRESSING
        .try_lock()
        .map_or(true, |sites| !sites.is_empty())
}

/// Milliseconds since the first use, from 1.
fn now_ms() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let elapsed = START.get_or_init(Instant::now).elapsed();
    u64::try_from(elapsed.as_millis())
        .unwrap_or(u64::MAX)
        .saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::*;

    #[test]
    fn a_site_logs_so_many_lines_a_second() {
        static LIMIT: RateLimited = RateLimited::new(Site::new(
            Severity::Notice,
            file!(),
            line!(),
            module_path!(),
            || "",
        ));
        let admitted = (0..100).filter(|_| LIMIT.admits()).count();
        assert_eq!(admitted, 10);
        assert!(suppressing());
        assert_eq!(LIMIT.suppressed.load(Ordering::Relaxed), 90);
        assert!(!LIMIT.summarise_at(LIMIT.window_ms.load(Ordering::Relaxed) + WINDOW_MS - 1));
        assert!(LIMIT.summarise_at(LIMIT.window_ms.load(Ordering::Relaxed) + WINDOW_MS));
        assert_eq!(LIMIT.suppressed.load(Ordering::Relaxed), 0);
    }

    /// As in a process that was forked while another thread was at the list.
    #[test]
    fn a_list_that_stays_locked_keeps_nobody() {
        static LIMIT: RateLimited = RateLimited::new(Site::new(
            Severity::Notice,
            file!(),
            line!(),
            module_path!(),
            || "",
        ));
        let held = SUPPRESSING.lock().unwrap_or_else(PoisonError::into_inner);
        let (done, wait) = std::sync::mpsc::channel();
        let caller = thread::spawn(move || {
            let admitted = (0..11).filter(|_| LIMIT.admits()).count();
            done.send(admitted).unwrap();
        });
        let admitted = wait.recv_timeout(std::time::Duration::from_secs(20));
        drop(held);
        caller.join().unwrap();
        assert_eq!(admitted, Ok(10));
        assert!(!LIMIT.listed.load(Ordering::Relaxed));
        LIMIT.window_ms.store(now_ms(), Ordering::Relaxed);
        assert!(!LIMIT.admits());
        assert!(LIMIT.listed.load(Ordering::Relaxed));
    }
}
