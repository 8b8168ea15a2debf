//! Models of what several threads do at once. The code is that of `src/` itself
//! (`build.rs`); only its atomics and locks are the model checker's.
//!
//! `cargo test --release` here, or `audit/run models`.
#![cfg(test)]
#![allow(dead_code, reason = "the models use a part of it")]

mod broker;
mod ring;

// What the broker's code finds beside it in the crate.
use secure_socket::{frame, ids, peer};

mod service {
    pub(crate) use secure_socket::service::Waker;

    pub(crate) mod broker {
        include!(concat!(env!("OUT_DIR"), "/broker.rs"));

        pub(crate) use hub::{Broker, Stats};
        pub(crate) use limits::Limits;
        pub(crate) use member::Identity;
        pub(crate) use outbox::Sink;
        pub(crate) use permit::{Permit, Permits};
        pub(crate) use port::Port;
        pub(crate) use rights::Action;
    }
}

mod policy {
    pub(crate) use secure_socket::policy::Rule;
}

mod sys {
    pub(crate) mod peer {
        use std::sync::atomic::{AtomicU64, Ordering};

        /// Numbers that nobody has had: what they are is of no interest here.
        pub(crate) fn random<const N: usize>() -> std::io::Result<[u8; N]> {
            static NEXT: AtomicU64 = AtomicU64::new(1);
            let mut bytes = [0; N];
            for eight in bytes.as_chunks_mut().0 {
                *eight = NEXT.fetch_add(1, Ordering::Relaxed).to_ne_bytes();
            }
            Ok(bytes)
        }
    }

    pub(crate) mod time {
        use std::time::{Duration, Instant};

        pub(crate) fn after(now: Instant, span: Duration) -> Instant {
            now + span
        }
    }
}
