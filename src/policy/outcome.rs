//! What the facts say about a rule, in three values (Kleene's logic), with what
//! is still to be asked for.

#![forbid(unsafe_code)]

use super::criterion::Truth;
use crate::peer::{FactKind, Needs, Unreadable};

/// What the facts say about a rule: now, and if every fact that nobody asked for
/// yet would turn out well (`best`) or badly (`worst`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Outcome {
    pub(super) now: Value,
    pub(super) best: Value,
    pub(super) worst: Value,
    /// The facts that are still to be asked for.
    pub(super) unasked: Needs,
    /// The first fact that could not be read.
    pub(super) unreadable: Option<(FactKind, Unreadable)>,
}

/// Kleene's three values, in the order in which "or" takes the largest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Value {
    False,
    Unknown,
    True,
}

impl Outcome {
    pub(super) const TRUE: Self = Self::certain(Value::True);
    pub(super) const FALSE: Self = Self::certain(Value::False);

    const fn certain(value: Value) -> Self {
        Self {
            now: value,
            best: value,
            worst: value,
            unasked: Needs::NONE,
            unreadable: None,
        }
    }

    pub(super) fn or(self, other: Self) -> Self {
        self.join(other, Value::max)
    }

    pub(super) fn and(self, other: Self) -> Self {
        self.join(other, Value::min)
    }

    fn join(self, other: Self, choose: fn(Value, Value) -> Value) -> Self {
        Self {
            now: choose(self.now, other.now),
            best: choose(self.best, other.best),
            worst: choose(self.worst, other.worst),
            unasked: self.unasked.and(other.unasked),
            unreadable: self.unreadable.or(other.unreadable),
        }
    }
}

impl From<Truth> for Outcome {
    fn from(truth: Truth) -> Self {
        match truth {
            Truth::True => Self::TRUE,
            Truth::False => Self::FALSE,
            Truth::Unreadable(kind, why) => Self {
                unreadable: Some((kind, why)),
                ..Self::certain(Value::Unknown)
            },
            Truth::Unasked(kind) => Self {
                now: Value::Unknown,
                best: Value::True,
                worst: Value::False,
                unasked: Needs::only(kind),
                unreadable: None,
            },
        }
    }
}
