//! The rows of the table of options, one file for each group.
//!
//! The order in a file is the order in `help`.

pub(super) mod ctl;
pub(super) mod limits;
pub(super) mod logs;
pub(super) mod peers;
pub(super) mod records;
pub(super) mod service;
pub(super) mod socket;
pub(super) mod walls;

use std::time::Duration;

use super::key::Kind;

const K: u64 = 1024;
const M: u64 = 1024 * K;
const G: u64 = 1024 * M;
const T: u64 = 1024 * G;

/// The longest time that an option takes.
pub(crate) const LONGEST: Duration = Duration::from_secs(10_000 * 3600);

const fn number(min: u64, max: u64) -> Kind {
    Kind::Number { min, max }
}

const fn size(min: u64, max: u64) -> Kind {
    Kind::Size { min, max }
}

/// A time where 0 stands for none.
const fn time() -> Kind {
    Kind::Duration {
        min: Duration::ZERO,
        max: LONGEST,
    }
}

const fn time_between(min_ms: u64, max: Duration) -> Kind {
    Kind::Duration {
        min: Duration::from_millis(min_ms),
        max,
    }
}
