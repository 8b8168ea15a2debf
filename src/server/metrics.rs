//! Counts what the server does, and renders it as metrics.
//!
//! Counting is a relaxed addition at each decision and each end; nothing is
//! counted on the path of bytes, whose totals are taken from the connections.
//! Counters only grow, from what one reader sees to what he sees next.
//!
//! Not here: the socket that the text is read from (`metrics_socket`).

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Handle;
use super::exposition::{Exposition, Form};
use super::journal::Observer;
use crate::admission::{Abuse, AbuseNoticed, PenaltyStarted, Refusal, RefusalReason, Subject};
use crate::peer::Facts;
use crate::policy::Denial;
use crate::service::{CloseReason, Connection};

/// The reasons of denials that have a counter of their own.
const DENIALS: [&str; 18] = [
    "no_rule",
    "deny_rule",
    "peer_gone",
    "checker_busy",
    "exe_changed",
    "unreadable_credentials",
    "unreadable_groups",
    "unreadable_label",
    "unreadable_pid",
    "unreadable_exe",
    "unreadable_sha256",
    "unreadable_name",
    "unreadable_args",
    "proof_timeout",
    "proof_wrong",
    "proof_foreign",
    "not_served",
    "other",
];

/// Something else that has metrics: the log, a service, the process.
pub trait Source: Send + Sync {
    /// Appends its families. Called by the thread that answers, for each answer.
    fn collect(&self, text: &mut Exposition);
}

/// The counters of one server. An [`Observer`].
pub struct Metrics {
    started: SystemTime,
    admitted: AtomicU64,
    denied: [AtomicU64; DENIALS.len()],
    refused: [AtomicU64; RefusalReason::CODES.len()],
    closed: [AtomicU64; CloseReason::ALL.len()],
    penalties: AtomicU64,
    abuse: [AtomicU64; Abuse::ALL.len()],
    received: AtomicU64,
    sent: AtomicU64,
    decisions: Histogram<8>,
    durations: Histogram<8>,
    /// Of received and sent, what was last told: a connection that closes is for
    /// a moment in neither sum.
    told: Mutex<(u64, u64)>,
    sources: Mutex<Vec<Box<dyn Source>>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All zero.
    pub fn new() -> Self {
        Self {
            started: SystemTime::now(),
            admitted: AtomicU64::new(0),
            denied: zeros(),
            refused: zeros(),
            closed: zeros(),
            penalties: AtomicU64::new(0),
            abuse: zeros(),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            decisions: Histogram::new([20, 50, 100, 500, 1_000, 10_000, 100_000, 1_000_000]),
            durations: Histogram::new([
                1_000,
                10_000,
                100_000,
                1_000_000,
                10_000_000,
                60_000_000,
                600_000_000,
                3_600_000_000,
            ]),
            told: Mutex::new((0, 0)),
            sources: Mutex::new(Vec::new()),
        }
    }

    /// Adds what else is to be told.
    pub fn add_source(&self, source: Box<dyn Source>) {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.push(source);
    }

    /// The whole text, about this moment.
    pub fn render(&self, handle: &Handle, form: Form) -> String {
        let mut text = Exposition::new(form);
        self.render_server(&mut text);
        self.render_connections(&mut text);
        self.render_state(&mut text, handle);
        for source in self
            .sources
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
        {
            source.collect(&mut text);
        }
        text.finish()
    }

    fn render_server(&self, text: &mut Exposition) {
        text.gauge(
            "secure_socket_build_info",
            "Always 1; the version is its label.",
        )
        .with("version", env!("CARGO_PKG_VERSION"), 1);
        let started = self.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        text.gauge(
            "secure_socket_start_time_seconds",
            "When the server started, since 1970.",
        )
        .value(started.as_secs_f64());
    }

    fn render_connections(&self, text: &mut Exposition) {
        text.counter(
            "secure_socket_connections_admitted",
            "Connections that were admitted.",
        )
        .value(get(&self.admitted));
        let mut family = text.counter(
            "secure_socket_connections_denied",
            "Connections that the policy denied, or that could not be served, by reason.",
        );
        for (code, count) in DENIALS.iter().zip(&self.denied) {
            family.with("reason", code, get(count));
        }
        let mut family = text.counter(
            "secure_socket_connections_refused",
            "Connections that a limit refused, by reason.",
        );
        for (code, count) in RefusalReason::CODES.iter().zip(&self.refused) {
            family.with("reason", code, get(count));
        }
        let mut family = text.counter(
            "secure_socket_connections_closed",
            "Connections that had been admitted and are over, by reason.",
        );
        for (reason, count) in CloseReason::ALL.iter().zip(&self.closed) {
            family.with("reason", reason.code(), get(count));
        }
        text.counter("secure_socket_penalties", "Penalties that began.")
            .value(get(&self.penalties));
        let mut family = text.counter("secure_socket_abuse_signs", "Signs of abuse, by kind.");
        for (abuse, count) in Abuse::ALL.iter().zip(&self.abuse) {
            family.with("kind", abuse.code(), get(count));
        }
        self.decisions.render(
            text,
            "secure_socket_decision_seconds",
            "From accept to the admission of a peer.",
        );
        self.durations.render(
            text,
            "secure_socket_connection_seconds",
            "From accept to the end of a connection.",
        );
    }

    fn render_state(&self, text: &mut Exposition, handle: &Handle) {
        let state = handle.state();
        let (received, sent) = self.traffic(handle);
        text.counter("secure_socket_received_bytes", "Bytes from peers.")
            .value(received);
        text.counter("secure_socket_sent_bytes", "Bytes to peers.")
            .value(sent);
        text.counter(
            "secure_socket_connections_accepted",
            "Connections that were accepted.",
        )
        .value(state.accepted);
        text.gauge(
            "secure_socket_connections_open",
            "Connections that are open.",
        )
        .value(state.admission.open);
        text.gauge("secure_socket_connections_max", "How many may be open.")
            .value(state.admission.max_connections);
        text.gauge(
            "secure_socket_backlog_waiting",
            "1 if newcomers wait in the backlog.",
        )
        .value(u8::from(state.waiting));
        text.gauge("secure_socket_threads", "Threads that serve connections.")
            .value(state.threads);
        text.gauge(
            "secure_socket_threads_idle",
            "Those of them that wait for newcomers.",
        )
        .value(state.idle);
        text.gauge(
            "secure_socket_accounts",
            "Users, hosts and exceptions that are counted.",
        )
        .value(state.admission.accounts);
        text.gauge(
            "secure_socket_under_penalty",
            "Users, hosts and processes under a penalty.",
        )
        .value(state.admission.under_penalty);
    }

    /// Bytes from and to peers, of connections that are over and that are open.
    pub fn traffic(&self, handle: &Handle) -> (u64, u64) {
        let closed = (get(&self.received), get(&self.sent));
        let connections = handle.connections();
        let now = connections.iter().fold(closed, |sum, connection| {
            let (received, sent) = connection.traffic();
            (sum.0.saturating_add(received), sum.1.saturating_add(sent))
        });
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        *told = (told.0.max(now.0), told.1.max(now.1));
        *told
    }

    fn deny(&self, code: &str) {
        let place = DENIALS.iter().position(|known| *known == code);
        let place = place.unwrap_or(DENIALS.len().saturating_sub(1));
        add(self.denied.get(place), 1);
    }
}

impl fmt::Display for Metrics {
    /// For the summary of the state.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = |counters: &[AtomicU64]| counters.iter().map(get).sum::<u64>();
        write!(
            f,
            "admitted={} denied={} refused={} closed={} penalties={} abuse_signs={}",
            get(&self.admitted),
            total(&self.denied),
            total(&self.refused),
            total(&self.closed),
            get(&self.penalties),
            total(&self.abuse),
        )
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Metrics({self})")
    }
}

impl Observer for Metrics {
    fn admitted(&self, connection: &Connection) -> io::Result<()> {
        add(Some(&self.admitted), 1);
        self.decisions.count(connection.opened().elapsed());
        Ok(())
    }

    fn denied(&self, _id: u64, _facts: &Facts, denial: &Denial) {
        self.deny(denial.reason.code());
    }

    fn refused(&self, _id: u64, _subject: &Subject, refusal: &Refusal) {
        add(self.refused.get(refusal.reason.index()), 1);
    }

    fn penalty(&self, _subject: &Subject, _penalty: &PenaltyStarted) {
        add(Some(&self.penalties), 1);
    }

    fn abused(&self, _subject: &Subject, abuse: Abuse, _noticed: &AbuseNoticed) {
        add(self.abuse.get(abuse.index()), 1);
    }

    fn closed(&self, connection: &Connection, reason: CloseReason, lasted: Duration) {
        let (received, sent) = connection.traffic();
        add(Some(&self.received), received);
        add(Some(&self.sent), sent);
        add(self.closed.get(reason.index()), 1);
        self.durations.count(lasted);
    }

    fn not_served(&self, _id: u64, _facts: &Facts, _why: &io::Error) {
        self.deny("not_served");
    }
}

/// How many durations were at most so long. Bounds are in microseconds.
#[derive(Debug)]
struct Histogram<const N: usize> {
    bounds: [u64; N],
    counts: [AtomicU64; N],
    beyond: AtomicU64,
    sum_micros: AtomicU64,
}

impl<const N: usize> Histogram<N> {
    fn new(bounds: [u64; N]) -> Self {
        Self {
            bounds,
            counts: zeros(),
            beyond: AtomicU64::new(0),
            sum_micros: AtomicU64::new(0),
        }
    }

    fn count(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let place = self.bounds.iter().position(|bound| micros <= *bound);
        add(
            place
                .and_then(|place| self.counts.get(place))
                .or(Some(&self.beyond)),
            1,
        );
        add(Some(&self.sum_micros), micros);
    }

    fn render(&self, text: &mut Exposition, name: &str, help: &str) {
        let mut below = 0_u64;
        let buckets = self.bounds.iter().zip(&self.counts).map(|(bound, count)| {
            below = below.saturating_add(get(count));
            (Duration::from_micros(*bound).as_secs_f64(), below)
        });
        let buckets: Vec<_> = buckets.collect();
        let all = below.saturating_add(get(&self.beyond));
        let sum = Duration::from_micros(get(&self.sum_micros)).as_secs_f64();
        text.histogram(name, help, &buckets, all, sum);
    }
}

fn zeros<const N: usize>() -> [AtomicU64; N] {
    std::array::from_fn(|_| AtomicU64::new(0))
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn add(counter: Option<&AtomicU64>, number: u64) {
    if let Some(counter) = counter {
        counter.fetch_add(number, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let histogram = Histogram::new([10, 100]);
        for micros in [0, 10, 11, 100, 101] {
            histogram.count(Duration::from_micros(micros));
        }
        let mut text = Exposition::new(Form::OpenMetrics);
        histogram.render(&mut text, "x_seconds", "X.");
        let text = text.finish();
        assert!(text.contains("le=\"1e-5\"} 2\n"), "{text}");
        assert!(text.contains("le=\"0.0001\"} 4\n"), "{text}");
        assert!(text.contains("le=\"+Inf\"} 5\n"), "{text}");
        assert!(text.contains("x_seconds_sum 0.000222\n"), "{text}");
    }

    #[test]
    fn a_reason_without_a_counter_is_counted_as_other() {
        let metrics = Metrics::new();
        metrics.deny("no_rule");
        metrics.deny("from the future");
        assert_eq!(get(&metrics.denied[0]), 1);
        assert_eq!(get(&metrics.denied[DENIALS.len() - 1]), 1);
    }
}
