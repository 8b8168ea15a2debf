//! A bounded queue between threads, first in first out, that can be closed.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    bound: usize,
}

struct State<T> {
    items: VecDeque<T>,
    /// Threads that stand ready to take one: what they take doesn't wait.
    ready: usize,
    is_closed: bool,
}

impl<T> Queue<T> {
    pub(super) fn new(bound: usize) -> Self {
        let state = State {
            items: VecDeque::new(),
            ready: 0,
            is_closed: false,
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            bound,
        }
    }

    /// Gives the item back if the queue is full or closed.
    pub(super) fn push(&self, item: T) -> Result<(), T> {
        let mut state = self.lock();
        if state.is_closed || state.items.len() >= self.bound.saturating_add(state.ready) {
            return Err(item);
        }
        state.items.push_back(item);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Waits for an item: `Some(None)` once the deadline passes without one, `None`
    /// once the queue is closed and empty.
    pub(super) fn pop(&self, deadline: Option<Instant>) -> Option<Option<T>> {
        let mut state = self.lock();
        loop {
            if let Some(item) = state.items.pop_front() {
                return Some(Some(item));
            }
            if state.is_closed {
                return None;
            }
            let left = deadline.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Some(None);
            }
            state.ready = state.ready.saturating_add(1);
            state = match left {
                None => self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(left) => {
                    let woken = self.changed.wait_timeout(state, left);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
            };
            state.ready = state.ready.saturating_sub(1);
        }
    }

    /// Looks at the oldest item.
    pub(super) fn peek<R>(&self, look: impl FnOnce(&T) -> R) -> Option<R> {
        self.lock().items.front().map(look)
    }

    /// Takes the oldest item if it is one of those.
    pub(super) fn take_if(&self, wanted: impl FnOnce(&T) -> bool) -> Option<T> {
        let mut state = self.lock();
        let is_wanted = state.items.front().is_some_and(wanted);
        if is_wanted {
            state.items.pop_front()
        } else {
            None
        }
    }

    /// Nothing more comes in; what is in still comes out.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_is_bounded_and_in_order() {
        let queue = Queue::new(2);
        assert_eq!(
            (queue.push(1), queue.push(2), queue.push(3)),
            (Ok(()), Ok(()), Err(3))
        );
        assert_eq!(queue.peek(|item| *item), Some(1));
        assert_eq!(queue.take_if(|item| *item == 2), None);
        assert_eq!(queue.take_if(|item| *item == 1), Some(1));
        assert_eq!(queue.pop(None), Some(Some(2)));
    }

    #[test]
    fn what_somebody_stands_ready_for_does_not_wait() {
        let queue = Queue::new(0);
        assert_eq!(queue.push(1), Err(1), "nobody is there");
        std::thread::scope(|scope| {
            let taken = scope.spawn(|| queue.pop(None));
            while queue.lock().ready == 0 {
                std::thread::yield_now();
            }
            assert_eq!(queue.push(2), Ok(()));
            assert_eq!(taken.join().unwrap(), Some(Some(2)));
        });
        assert_eq!(queue.push(3), Err(3));
    }

    #[test]
    fn a_closed_queue_gives_out_what_it_has() {
        let queue = Queue::new(2);
        queue.push(1).unwrap();
        queue.close();
        assert_eq!(queue.push(2), Err(2));
        assert_eq!(queue.pop(None), Some(Some(1)));
        assert_eq!(queue.pop(None), None);
    }

    #[test]
    fn waiting_ends_at_the_deadline() {
        let queue = Queue::<u8>::new(1);
        let deadline = Instant::now() + Duration::from_millis(20);
        assert_eq!(queue.pop(Some(deadline)), Some(None));
        assert!(Instant::now() >= deadline);
    }
}
