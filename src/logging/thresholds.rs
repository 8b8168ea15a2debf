//! Which lines are logged: the logger's own verbosity, that of single modules,
//! and the levels of sinks; and what follows from them for one call.
//!
//! A threshold is the severity's number plus one, 0 for none. A sink with a
//! level takes what is within that and within the module's verbosity, where the
//! module has one; another takes what is within the module's, or else within the
//! logger's.
//!
//! Invariant: a line is admitted here if, and only if, a sink takes it, as long
//! as nobody changes anything meanwhile: what no sink wants is not formatted,
//! takes no room in the queue, and has no number.

use super::line::NO_SCOPE;
use super::site::set_threshold;
use super::{Severity, Verbosity};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{PoisonError, RwLock};

/// See the module.
pub(super) struct Thresholds {
    /// The logger's own.
    base: AtomicU8,
    scopes: RwLock<Vec<(String, Verbosity)>>,
    has_scopes: AtomicBool,
    /// Each sink's, if it has one.
    levels: Vec<Option<u8>>,
    /// What the sinks' levels leave of any line.
    widest: u8,
    /// For lines of modules without a verbosity of their own.
    unscoped: AtomicU8,
    /// The macros ask our ceiling.
    installed: AtomicBool,
}

/// Which lines a sink takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gate {
    /// The logger's own threshold.
    pub(super) base: u8,
    /// The sink's, if it has one.
    pub(super) level: Option<u8>,
}

impl Gate {
    pub(super) const fn admits(self, severity: Severity, scope: u8) -> bool {
        let within_scope = scope == NO_SCOPE || (severity as u8) < scope;
        match self.level {
            Some(level) => (severity as u8) < level && within_scope,
            None if scope == NO_SCOPE => (severity as u8) < self.base,
            None => within_scope,
        }
    }
}

impl Thresholds {
    /// `levels` are the sinks'.
    pub(super) fn new(
        verbosity: Verbosity,
        scopes: Vec<(String, Verbosity)>,
        levels: Vec<Option<u8>>,
    ) -> Self {
        let all = Verbosity::ALL.threshold();
        let widest = levels.iter().map(|level| level.unwrap_or(all)).max();
        let thresholds = Self {
            base: AtomicU8::new(verbosity.threshold()),
            has_scopes: AtomicBool::new(!scopes.is_empty()),
            scopes: RwLock::new(scopes),
            levels,
            widest: widest.unwrap_or(0),
            unscoped: AtomicU8::new(0),
            installed: AtomicBool::new(false),
        };
        thresholds.changed();
        thresholds
    }

    /// The macros ask our threshold from now on.
    pub(super) fn set_installed(&self) {
        self.installed.store(true, Ordering::Relaxed);
        self.changed();
    }

    pub(super) fn set_verbosity(&self, verbosity: Verbosity) {
        self.base.store(verbosity.threshold(), Ordering::Relaxed);
        self.changed();
    }

    pub(super) fn set_scopes(&self, scopes: Vec<(String, Verbosity)>) {
        let has_scopes = !scopes.is_empty();
        *self.scopes.write().unwrap_or_else(PoisonError::into_inner) = scopes;
        self.has_scopes.store(has_scopes, Ordering::Relaxed);
        self.changed();
    }

    fn changed(&self) {
        let base = self.base();
        let levels = self.levels.iter().map(|level| level.unwrap_or(base));
        let unscoped = levels.max().unwrap_or(0);
        self.unscoped.store(unscoped, Ordering::Relaxed);
        if self.installed.load(Ordering::Relaxed) {
            set_threshold(Verbosity::from_threshold(self.ceiling()));
        }
    }

    /// Below this a line of some module is logged.
    fn ceiling(&self) -> u8 {
        let unscoped = self.unscoped.load(Ordering::Relaxed);
        unscoped.max(self.loudest_scope().min(self.widest))
    }

    /// The largest of the modules' thresholds.
    fn loudest_scope(&self) -> u8 {
        let scopes = self.scopes.read().unwrap_or_else(PoisonError::into_inner);
        let thresholds = scopes.iter().map(|(_, verbosity)| verbosity.threshold());
        thresholds.max().unwrap_or(0)
    }

    pub(super) fn base(&self) -> u8 {
        self.base.load(Ordering::Relaxed)
    }

    /// Below this a line that was dropped may have been for a sink of this level.
    /// Exact but for a sink without one where modules have a verbosity: of a line
    /// that was dropped, the module is not known.
    pub(super) fn of_dropped(&self, level: Option<u8>) -> u8 {
        level.unwrap_or_else(|| self.base().max(self.loudest_scope()))
    }

    /// The threshold of the module that this target is in, or `NO_SCOPE`.
    #[inline]
    pub(super) fn scope_of(&self, target: &str) -> u8 {
        if self.has_scopes.load(Ordering::Relaxed) {
            self.find_scope(target)
        } else {
            NO_SCOPE
        }
    }

    fn find_scope(&self, target: &str) -> u8 {
        let Ok(scopes) = self.scopes.try_read() else {
            return NO_SCOPE;
        };
        let within = |module: &str| {
            target
                .strip_prefix(module)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        let longest = scopes
            .iter()
            .filter(|(module, _)| within(module))
            .max_by_key(|s| s.0.len());
        longest.map_or(NO_SCOPE, |(_, verbosity)| verbosity.threshold())
    }

    /// What is logged of a scope.
    #[inline]
    pub(super) fn within(&self, scope: u8) -> Verbosity {
        Verbosity::from_threshold(match scope {
            NO_SCOPE => self.unscoped.load(Ordering::Relaxed),
            threshold => threshold.min(self.widest),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every combination of what the logger, modules and sinks may say.
    #[test]
    fn a_line_is_admitted_if_and_only_if_a_sink_takes_it() {
        let choices: Vec<Option<u8>> = [None]
            .into_iter()
            .chain([0, 1, 5, 7, 11].map(Some))
            .collect();
        for base in [0, 5, 7, 11] {
            for levels in choices.iter().flat_map(|one| {
                let pairs = choices.iter().map(|other| vec![*one, *other]);
                pairs.chain([vec![*one]])
            }) {
                check(base, &levels);
            }
        }
    }

    #[track_caller]
    fn check(base: u8, levels: &[Option<u8>]) {
        let scope = |threshold| {
            (
                format!("m{threshold}"),
                Verbosity::from_threshold(threshold),
            )
        };
        let scopes = vec![scope(0), scope(4), scope(9)];
        let verbosity = Verbosity::from_threshold(base);
        let thresholds = Thresholds::new(verbosity, scopes, levels.to_vec());
        let mut loudest = 0;
        for target in ["m0", "m4::x", "m9", "m", "m99"] {
            let scope = thresholds.scope_of(target);
            for severity in Severity::ALL {
                let mut gates = levels.iter().map(|&level| Gate { base, level });
                let taken = gates.any(|gate| gate.admits(severity, scope));
                let admitted = thresholds.within(scope).admits(severity);
                assert_eq!(admitted, taken, "{base} {levels:?} {target} {severity}");
                if taken {
                    loudest = loudest.max(severity.number() + 1);
                }
            }
        }
        assert_eq!(thresholds.ceiling(), loudest, "{base} {levels:?}");
    }

    #[test]
    fn the_longest_module_that_fits_decides() {
        let scopes = ["a", "a::b"].map(|module| (module.to_owned(), Verbosity::OFF));
        let thresholds = Thresholds::new(Verbosity::ALL, scopes.to_vec(), vec![None]);
        thresholds.set_scopes(vec![
            ("a".into(), Verbosity::from_threshold(2)),
            ("a::b".into(), Verbosity::from_threshold(3)),
        ]);
        for (target, scope) in [
            ("a", 2),
            ("a::c", 2),
            ("a::b", 3),
            ("a::b::c", 3),
            ("a::bc", 2),
            ("ab", NO_SCOPE),
            ("", NO_SCOPE),
        ] {
            assert_eq!(thresholds.scope_of(target), scope, "{target}");
        }
    }
}
