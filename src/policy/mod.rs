//! Decides who may enter, from facts alone.
//!
//! A [`Policy`] is a list of allow rules and one of deny rules. Within a rule all
//! criteria must hold; any allow rule admits; a deny rule that matches wins over
//! all of them. Evaluation knows three values: a criterion on a fact that could
//! not be read is unknown; a deny rule that is unknown denies, an allow rule that
//! is unknown does not admit.
//!
//! Invariants: [`Authorized`] is made by [`Policy::check`] and nowhere else; root
//! is not exempt; a policy without a rule admits the server's own user only; the
//! text of a rule parses again to the same rule.
//!
//! Not here: reading facts (`peer`), counting connections (`admission`), and what
//! is said to a peer that is denied, which is nothing.

#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

mod authorized;
mod builder;
mod check;
mod criterion;
mod denial;
mod describe;
mod explain;
mod names;
mod outcome;
mod parse;
mod reach;
mod rule;
mod server;
mod text;

pub use crate::peer::{Facts, Needs};
pub use authorized::Authorized;
pub use builder::PolicyBuilder;
pub use check::Policy;
pub use criterion::{Cidr, Criterion, CriterionError, KEYWORDS};
pub use denial::{Denial, DenialReason, RuleKind, RuleRef};
pub use describe::{DescriptionError, describe};
#[cfg(feature = "names")]
pub use names::SystemNames;
pub use names::{Names, Numeric};
pub use reach::Warning;
pub use rule::{MAX_ALTERNATIVES, MAX_CLAUSES, MAX_RULE_BYTES, Rule, RuleBuilder, RuleError};
pub use server::{ServerError, verify_server};
pub use text::{escape, split_list};
