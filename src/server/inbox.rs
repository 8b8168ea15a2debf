//! How other threads reach a loop.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::event::EventfdFlags;

use super::slots::Token;

/// Tokens to wake, and an eventfd to be heard.
#[derive(Debug)]
pub(super) struct Inbox {
    /// For the loop to watch.
    pub(super) eventfd: OwnedFd,
    tokens: Mutex<Vec<Token>>,
    rung: AtomicBool,
}

impl Inbox {
    /// # Errors
    /// When no descriptor is free.
    pub(super) fn new() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let eventfd = rustix::event::eventfd(0, flags)?;
        Ok(Self {
            eventfd,
            tokens: Mutex::new(Vec::new()),
            rung: AtomicBool::new(false),
        })
    }

    /// Makes the loop look up, whatever it waits for.
    pub(super) fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            let _ = rustix::io::write(&self.eventfd, &1_u64.to_ne_bytes());
        }
    }

    pub(super) fn post(&self, token: Token) {
        self.tokens
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(token);
        self.ring();
    }

    pub(super) fn take(&self, tokens: &mut Vec<Token>) {
        let mut count = [0_u8; 8];
        let _ = rustix::io::read(&self.eventfd, &mut count);
        // With what was done before a ring that this one answers: a store alone would
        // let the looks that follow be made before it.
        self.rung.swap(false, Ordering::AcqRel);
        tokens.append(&mut self.tokens.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
