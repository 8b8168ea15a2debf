//! The broker's wire format: bytes in, frames out, and back.
//!
//! One code for the broker, the library's client and the fuzz targets. Nothing
//! here reads a socket, a clock or a file: the caller brings bytes.
//!
//! Invariants:
//! - A length is checked before memory is taken for it, and memory grows with
//!   what has arrived, never with what a header promises.
//! - A [`Frame`] can't hold a wrong value: kind, flags, subject and body have
//!   been checked when it exists.
//! - A frame that fits the decoder's buffer costs no allocation; a [`Frame`]
//!   borrows from that buffer.
//! - Whatever the bytes, and however they are cut, the frames are the same.
//!
//! Not here: who may send what ([`crate::policy`]), where it goes
//! ([`crate::service`]), sockets. The format itself is written down in
//! [`protocol`], with test vectors in `tests/vectors/`.
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

mod code;
mod decode;
mod encode;
mod greeting;
mod header;
mod pattern;
pub mod protocol;
mod stamp;
mod typed;

pub use code::ErrorCode;
pub use decode::{Decoder, Received};
pub use encode::Head;
pub use greeting::{GREETING_BYTES, Greeting};
pub use header::{FrameError, FrameLimit, HEADER_BYTES, Header, Kind, Side};
pub use pattern::{MAX_SUBJECT_BYTES, MAX_TOKENS, Pattern, Subject};
pub use stamp::{STAMP_BYTES, Stamp};
pub use typed::{Frame, PROOF_BYTES};
