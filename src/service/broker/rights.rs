//! What one connection may do, as the `permit` rules say.

use crate::frame::{Pattern, Subject};

/// What a `permit` rule is about.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// PUBLISH to a subject.
    Publish,
    /// SUBSCRIBE to a pattern.
    Subscribe,
    /// REQUEST to a subject.
    Request,
    /// SERVE a pattern.
    Serve,
}

impl Action {
    /// Reads the name as `permit` spells it.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "publish" => Some(Self::Publish),
            "subscribe" => Some(Self::Subscribe),
            "request" => Some(Self::Request),
            "serve" => Some(Self::Serve),
            _ => None,
        }
    }

    /// The name as `permit` spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
            Self::Request => "request",
            Self::Serve => "serve",
        }
    }
}

/// The permits that apply to one connection.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rights(Option<Vec<(Action, Box<str>)>>);

impl Rights {
    /// Of every peer, where no `permit` is given.
    pub fn everything() -> Self {
        Self(None)
    }

    /// Exactly these.
    pub fn only<'a>(permits: impl IntoIterator<Item = (Action, Pattern<'a>)>) -> Self {
        let owned = |(action, pattern): (Action, Pattern<'a>)| (action, pattern.as_str().into());
        Self(Some(permits.into_iter().map(owned).collect()))
    }

    /// Whether `action` on this one subject is permitted.
    pub fn allow_subject(&self, action: Action, subject: Subject<'_>) -> bool {
        self.allow_pattern(action, subject.into())
    }

    /// Whether one permit covers everything that `pattern` selects. Two permits
    /// that cover it only together don't: each would have to be asked for on its
    /// own.
    pub fn allow_pattern(&self, action: Action, pattern: Pattern<'_>) -> bool {
        let Some(permits) = &self.0 else {
            return true;
        };
        permits.iter().any(|(permitted, of)| {
            *permitted == action
                && Pattern::new(of.as_bytes()).is_some_and(|permit| permit.covers(pattern))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern<'_> {
        Pattern::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn what_none_permits_is_denied() {
        let rights = Rights::only([(Action::Subscribe, pattern("orders.>"))]);
        for (action, text, allowed) in [
            (Action::Subscribe, "orders.>", true),
            (Action::Subscribe, "orders.new", true),
            (Action::Subscribe, "orders.*.x", true),
            (Action::Subscribe, "orders", false),
            (Action::Subscribe, ">", false),
            (Action::Subscribe, "*.new", false),
            (Action::Publish, "orders.new", false),
        ] {
            assert_eq!(
                rights.allow_pattern(action, pattern(text)),
                allowed,
                "{text}"
            );
            assert!(Rights::everything().allow_pattern(action, pattern(text)));
            assert!(!Rights::only([]).allow_pattern(action, pattern(text)));
        }
    }
}
