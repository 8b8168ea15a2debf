//! What the daemon does on the supervisor's thread: answers signals, tells the
//! service manager, attests the walls, reloads.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Origin;
use super::links;
use super::records::{Records, metrics_rules};
use super::rooms;
use super::signals::{Request, Signals};
use crate::config::{self, Settings};
use crate::listener::{Notify, watchdog_timeout};
use crate::logging::Logger;
use crate::peer::{Checker, CheckerReach, Kernel};
use crate::sandbox::Mode;
use crate::server::{Handle, Overseer, Rules, Threads};
use crate::service::broker::Broker;

/// How often passed over refusals are told, while there are any.
const BETWEEN_SWEEPS: Duration = Duration::from_secs(1);

/// A configuration that was read again, with the rules for peers and for readers
/// of the metrics.
type Reread = (Box<Settings>, Rules, Option<Rules>);

/// What the warden works with.
pub(super) struct Means<'a> {
    pub(super) origin: Origin<'a>,
    pub(super) signals: Signals,
    pub(super) notify: Option<Notify>,
    pub(super) broker: Option<Arc<Broker>>,
    pub(super) logger: Logger,
    pub(super) kernel: Kernel,
    pub(super) checker: Option<Checker>,
    pub(super) records: Records,
    /// What the checker was started for.
    pub(super) reach: CheckerReach,
    /// How the server runs, until a restart.
    pub(super) threads: Threads,
}

pub(super) struct Warden<'a> {
    /// Those in force.
    settings: Settings,
    /// As they were at the start: of these is what takes a restart.
    start: Settings,
    means: Means<'a>,
    place: String,
    stops: u32,
    /// How often the service manager wants to hear from us, and when next.
    watchdog: Option<(Duration, Instant)>,
    sweep_at: Option<Instant>,
    /// How far the acceptors were when the watchdog was last told.
    turns: u64,
    /// What the service manager was last told of the state.
    status: String,
}

impl<'a> Warden<'a> {
    pub(super) fn new(settings: &Settings, means: Means<'a>, place: String) -> Self {
        // Twice as often as asked (sd_watchdog_enabled(3)).
        let watchdog = watchdog_timeout().map(|timeout| (timeout / 2, Instant::now()));
        let settings = settings.clone();
        Self {
            start: settings.clone(),
            settings,
            means,
            place,
            stops: 0,
            watchdog,
            sweep_at: None,
            turns: 0,
            status: String::new(),
        }
    }

    /// The server has ended: trail and metrics do. What is left answers signals still.
    pub(super) fn close(self, code: u8) -> Ending {
        let Means {
            signals, records, ..
        } = self.means;
        let mut ending = Ending {
            signals,
            stops: self.stops,
            left_threads: false,
        };
        ending.left_threads = !records.close(code, || ending.hurries());
        ending
    }

    fn answer(&mut self, request: Request, pid: u32, uid: u32, handle: &Handle) {
        match request {
            Request::Stop => {
                self.stops += 1;
                if self.stops > 1 {
                    crate::notice!(
                        "asked to stop again by pid {pid} uid {uid}: closing everything"
                    );
                    handle.stop_now();
                    return;
                }
                let grace = self.settings.limits.stop_timeout;
                crate::notice!(
                    "asked to stop by pid {pid} uid {uid}: {} connections may finish within {} s",
                    handle.state().admission.open,
                    grace.as_secs_f64()
                );
                handle.stop(grace);
            }
            Request::Reload if self.stops > 0 => {
                crate::notice!("asked to reload while stopping: not done");
            }
            Request::Reload => self.reload(handle),
            Request::Summary => {
                let Means {
                    records, logger, ..
                } = &self.means;
                for line in records.summary(&handle.state(), logger, handle) {
                    crate::notice!("{line}");
                }
            }
        }
    }

    /// HUP: logs are opened again; the configuration is put in force if it is
    /// good as a whole.
    fn reload(&mut self, handle: &Handle) {
        self.tell(Notify::reloading);
        self.means.logger.reopen();
        let before = handle.rules();
        match self.reread(before.as_deref()) {
            Ok((settings, rules, metrics)) => {
                if let Some(broker) = &self.means.broker {
                    broker.reload(settings.service.broker, settings.service.permits.clone());
                }
                // From the moment on that others are let in, lines name what they are let in by.
                let (mut same, records) = (false, &mut self.means.records);
                let limits = settings.limits.admission.clone();
                let closed = handle.reload_then(rules, limits, || {
                    same = records.in_force(&settings);
                });
                let logger = &self.means.logger;
                logger.set_verbosity(settings.logs.verbosity);
                logger.set_verbosity_for(settings.logs.verbosity_for.clone());
                logger.set_rate(settings.logs.rate);
                self.means.records.reloaded(closed, metrics, same);
                rooms::say_descriptors(&self.start, &settings);
                self.settings = *settings;
                crate::notice!(
                    "reloaded: {closed} connections are no longer admitted and were closed"
                );
            }
            Err(text) => {
                for line in text.lines() {
                    crate::error!("reload: {line}");
                }
                if self.is_out_of_reach() {
                    crate::error!(
                        "reload: behind the walls the file must stay in the directories where it \
                         and its links were at the start, or below; elsewhere it needs a restart"
                    );
                }
                crate::error!("the configuration was not reloaded; everything stays as it was");
                self.means.records.not_reloaded(&text);
            }
        }
        self.status = self.state(handle);
        self.tell(|notify| notify.ready(&self.status));
    }

    fn is_out_of_reach(&self) -> bool {
        let has_walls = self.settings.walls.sandbox != Mode::Off;
        let file = self.settings.file.as_deref().map(Path::new);
        has_walls && file.is_some_and(links::is_out_of_reach)
    }

    /// What the rules `before` pin stays pinned: a process that they hold is still
    /// the same. Whether there is a proof stays as well: sockets were bound for it.
    fn reread(&self, before: Option<&Rules>) -> Result<Reread, String> {
        let args = self.means.origin.args.iter().cloned();
        let surroundings = &self.means.origin.surroundings;
        let read = config::reload(args, surroundings).map_err(|wrong| wrong.to_string())?;
        rooms::say_unchangeable(&self.start, &read);
        let settings = config::keep_fixed(read, &self.start, surroundings)
            .map_err(|wrong| wrong.to_string())?;
        let means = &self.means;
        means.reach.covers(rooms::reach(&settings))?;
        rooms::meet(means.kernel, &settings).map_err(|fault| fault.to_string())?;
        rooms::fit_pool(&settings, means.threads).map_err(|fault| fault.to_string())?;
        let checker = means.checker.clone();
        let pins = before.map(|rules| rules.inspector.pins());
        let mut rules = rooms::rules(&settings, &means.kernel, checker, pins)
            .map_err(|fault| fault.to_string())?;
        rules.process_proof = before.map_or(rules.process_proof, |rules| rules.process_proof);
        let checker = means.checker.clone();
        let before = means.records.metrics_rules();
        let pins = before.as_deref().map(|rules| rules.inspector.pins());
        let metrics = metrics_rules(&settings, &means.kernel, checker, pins)
            .map_err(|fault| fault.to_string())?;
        Ok((settings, rules, metrics))
    }

    /// Only while acceptors do what they are for: one that newcomers wait for, and
    /// that has room for them, must have moved since the last time.
    fn tell_watchdog(&mut self, handle: &Handle) {
        let pulse = handle.pulse();
        let moved = pulse.turns != std::mem::replace(&mut self.turns, pulse.turns);
        if moved || !pulse.must_move {
            self.tell(Notify::watchdog);
        } else {
            crate::error!("newcomers wait and nobody accepts them: the watchdog is not told");
        }
        let status = self.state(handle);
        if status != self.status {
            self.tell(|notify| notify.status(&status));
            self.status = status;
        }
    }

    /// The state in a few words, for whoever asks the service manager.
    fn state(&self, handle: &Handle) -> String {
        let admission = handle.state().admission;
        format!(
            "{} on {}: {} of {} connections open, {} under a penalty",
            self.settings.service.service.word(),
            self.place,
            admission.open,
            admission.max_connections,
            admission.under_penalty
        )
    }

    fn tell(&self, what: impl FnOnce(&Notify) -> io::Result<()>) {
        if let Some(Err(error)) = self.means.notify.as_ref().map(what) {
            crate::warning!("can't notify the service manager: {error}");
        }
    }
}

/// The last moments, in which records and logs are closed.
pub(super) struct Ending {
    signals: Signals,
    stops: u32,
    left_threads: bool,
}

impl Ending {
    /// Whether nothing is to be waited for any more: a second TERM or INT came.
    pub(super) fn hurries(&mut self) -> bool {
        while let Some((request, pid, uid)) = self.signals.next() {
            if request == Request::Stop {
                self.stops += 1;
                crate::notice!("asked to stop by pid {pid} uid {uid}: not waiting any more");
            }
        }
        self.has_hurried()
    }

    /// Whether anything was hurried so far.
    pub(super) const fn has_hurried(&self) -> bool {
        self.stops > 1
    }

    /// Whether a thread of the trail or the metrics was not waited for to its end.
    pub(super) const fn left_threads(&self) -> bool {
        self.left_threads
    }
}

impl Overseer for Warden<'_> {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.means.signals.as_fd())
    }

    fn next_call(&self) -> Option<Instant> {
        let watchdog = self.watchdog.map(|(_, next)| next);
        watchdog.into_iter().chain(self.sweep_at).min()
    }

    fn call(&mut self, handle: &Handle, now: Instant) {
        while let Some((request, pid, uid)) = self.means.signals.next() {
            self.answer(request, pid, uid, handle);
        }
        if let Some((every, next)) = &mut self.watchdog
            && *next <= now
        {
            *next = now + *every;
            self.tell_watchdog(handle);
        }
        if self.sweep_at.is_some_and(|at| at <= now) {
            handle.sweep(false);
            self.sweep_at = None;
        }
        if self.sweep_at.is_none() && handle.needs_sweep() {
            self.sweep_at = Some(now + BETWEEN_SWEEPS);
        }
    }

    fn before_accept(&mut self, handle: &Handle) -> io::Result<()> {
        crate::notice!(
            "ready: {} on {}",
            self.settings.service.service.word(),
            self.place
        );
        self.status = self.state(handle);
        self.tell(|notify| notify.ready(&self.status));
        Ok(())
    }

    fn draining(&mut self, handle: &Handle) {
        let status = format!("stopping: {}", self.state(handle));
        self.tell(|notify| notify.stopping(&status));
        handle.sweep(true);
    }
}
