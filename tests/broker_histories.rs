//! Randomised histories of connects, subscriptions, messages, requests, kills and
//! slow readers, checked by a model that knows nothing of how the broker works.
//!
//! Connections are made by real processes under several users, which hand their
//! descriptors to the test; so the kernel sees those processes, and the test steers
//! all ends from one thread. What the broker confirms (OK, ERROR) is the order in
//! which the model learns of it.
//!
//! `BROKER_HISTORIES=N` changes how many are played.
#![cfg(all(feature = "broker", feature = "client"))]
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test"
)]

mod broker_support;
#[path = "broker_histories/end.rs"]
mod end;
#[path = "broker_histories/helper.rs"]
mod helper;
#[path = "broker_histories/model.rs"]
mod model;
#[path = "broker_histories/play.rs"]
mod play;
#[path = "support/skip.rs"]
mod skipping;

use secure_socket::server::Threads;
use secure_socket::service::broker::{Limits, Permits};

use broker_support::{Running, loops};
use helper::Helper;

/// Users that make the connections, each with a group of another number.
const USERS: [(u32, u32); 5] = [(0, 0), (33, 34), (1001, 2001), (1002, 2002), (65_533, 77)];

fn histories() -> u64 {
    let given = std::env::var("BROKER_HISTORIES").ok();
    given.and_then(|text| text.parse().ok()).unwrap_or(1000)
}

/// Only to be run by the test itself, as another process: connects, and hands the
/// descriptor over.
#[test]
fn helper() {
    helper::serve_if_asked();
}

#[test]
fn each_history_is_one_that_the_model_allows() {
    if !rustix::process::geteuid().is_root() {
        return skipping::skip("root");
    }
    let mut tally = play::Tally::default();
    for (part, threads) in [Threads::Multi, loops(1), loops(2)].into_iter().enumerate() {
        // Small bounds, so that they are reached.
        let limits = Limits {
            pending_bytes: 40_000,
            pending_bytes_per_uid: 1 << 20,
            subscriptions: 6,
            requests: 5,
            ..Limits::default()
        };
        let broker = Running::new(threads, limits, Permits::new(play::permits()));
        let mut helpers: Vec<Helper> = USERS
            .iter()
            .map(|(uid, gid)| Helper::start(&broker.path, *uid, *gid))
            .collect();
        for number in 0..histories().div_ceil(3) {
            let seed = number * 3 + part as u64;
            play::history(seed, &broker, &mut helpers, limits, &mut tally);
        }
    }
    println!("{tally:?}");
    tally.assert_that_everything_happened();
}
