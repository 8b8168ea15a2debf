//! Answers each connection to a second socket with the metrics, in an HTTP/1.0
//! response, and closes it.
//!
//! One thread for a few readers at once, each with a deadline, so that one that
//! dawdles holds up nobody. When there are more, the user who has most of them gives
//! up the oldest. A peer is judged like any other, by a policy of its own; one that
//! is denied is closed unread.
//!
//! Not here: the way of one reader (`metrics_reader`), what is told (`metrics`).

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use super::Handle;
use super::metrics::Metrics;
use super::metrics_reader::{Progress, Reader};
use super::rules::Rules;
use crate::listener::{Listener, Sealed};

/// How many are read for at once.
const READERS: usize = 16;
/// How long answers that are on their way may take once it stops: they are in the
/// readers' buffers at once, unless one is larger than that.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long to wait after accept failed.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// The thread's work.
pub struct MetricsSocket {
    listener: Listener<Sealed>,
    rules: Mutex<Arc<Rules>>,
    metrics: Arc<Metrics>,
    handle: Handle,
    stopped: AtomicBool,
}

impl MetricsSocket {
    /// `rules` say who may ask; of them policy and inspector count. The listener
    /// was bound not to block.
    pub fn new(
        listener: Listener<Sealed>,
        rules: Rules,
        metrics: Arc<Metrics>,
        handle: Handle,
    ) -> Self {
        let rules = Mutex::new(Arc::new(rules));
        let stopped = AtomicBool::new(false);
        Self {
            listener,
            rules,
            metrics,
            handle,
            stopped,
        }
    }

    /// Answers until [`stop`](Self::stop). The body of a thread of
    /// [`Role::Metrics`](crate::sandbox::Role::Metrics).
    pub fn run(&self) {
        let mut readers = Vec::new();
        while !self.stopped.load(Ordering::SeqCst) {
            self.wait_and_accept(&mut readers);
            self.go_on(&mut readers);
        }
        let until = Instant::now() + LAST_WORDS;
        readers.retain(Reader::is_being_answered);
        while !readers.is_empty() && Instant::now() < until {
            if let Err(error) = wait(&readers, None, Some(until)) {
                crate::limited!(error, "metrics socket: poll: {error}");
                return;
            }
            self.go_on(&mut readers);
            readers.retain(Reader::is_being_answered);
        }
    }

    /// The rules in force.
    pub(crate) fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts other rules in force, for who comes from now on.
    pub fn set_rules(&self, rules: Rules) {
        *self.rules.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
    }

    /// Ends [`run`](Self::run), up to a second later where a reader has not yet taken the
    /// whole of its answer. Who has not asked by then gets none.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        if let Err(error) = self.listener.shut_down() {
            crate::debug!("shutdown of the metrics socket: {error}");
        }
    }

    /// The socket, to be removed at the end.
    pub fn into_listener(self) -> Listener<Sealed> {
        self.listener
    }

    fn wait_and_accept(&self, readers: &mut Vec<Reader>) {
        if let Err(error) = wait(readers, Some(self.listener.as_fd()), None) {
            self.after_failure("poll", &error);
        }
        self.accept(readers);
    }

    fn go_on(&self, readers: &mut Vec<Reader>) {
        let now = Instant::now();
        let render = |form| self.metrics.render(&self.handle, form);
        readers.retain_mut(|reader| reader.go_on(now, render) == Progress::Pending);
    }

    /// Takes who is there, at most as many as are read for at once.
    fn accept(&self, readers: &mut Vec<Reader>) {
        for _ in 0..READERS {
            match self.listener.accept() {
                Ok(accepted) => {
                    let rules = self.rules();
                    if readers.len() >= READERS {
                        give_one_up(readers);
                    }
                    readers.push(Reader::new(accepted, rules, Instant::now()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => return self.after_failure("accept", &error),
            }
        }
    }

    fn after_failure(&self, call: &str, error: &io::Error) {
        if self.stopped.load(Ordering::SeqCst) || error.kind() == io::ErrorKind::Interrupted {
            return;
        }
        crate::limited!(error, "metrics socket: {call}: {error}");
        std::thread::sleep(AFTER_FAILURE);
    }
}

impl std::fmt::Debug for MetricsSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MetricsSocket").finish_non_exhaustive()
    }
}

/// Until a newcomer is there, a reader can go on, or it is time.
fn wait(
    readers: &[Reader],
    listener: Option<BorrowedFd<'_>>,
    until: Option<Instant>,
) -> io::Result<()> {
    // One of whom nothing is wanted is left out: its hang-up would end each wait at
    // once, for as long as the checker reads.
    let waiting = readers.iter().filter(|reader| !reader.events().is_empty());
    let each = |reader| PollFd::from_borrowed_fd(Reader::as_fd(reader), reader.events());
    let mut fds: Vec<PollFd<'_>> = waiting.map(each).collect();
    fds.extend(listener.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
    let looks = readers.iter().map(Reader::next_look);
    let next = looks.chain(until).min();
    let timeout = next.map(|next| crate::sys::time::until(next, Instant::now()));
    match rustix::event::poll(&mut fds, timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The oldest of the user who has most.
fn give_one_up(readers: &mut Vec<Reader>) {
    let held = |reader: &Reader| {
        let same = readers.iter().filter(|other| other.uid() == reader.uid());
        same.count()
    };
    let most = readers.iter().map(held).max();
    let place = readers.iter().position(|reader| Some(held(reader)) == most);
    if let Some(place) = place {
        let reader = readers.remove(place);
        crate::limited!(notice, "metrics: too many readers: {reader} gets no answer");
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Bench, listener, policy};
    use super::*;
    use crate::listener::Accepted;
    use crate::peer::{Checker, CheckerConfig, Inspector, Pins};
    use crate::server::{Exposition, Source};
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn one_who_left_while_the_checker_reads_ends_no_wait() {
        // Nobody runs its threads.
        let (checker, _threads) = Checker::new(CheckerConfig::default()).unwrap();
        let mut rules = Rules::new(policy("uid:self,name:somebody"));
        rules.inspector = Inspector::new(Pins::default(), Some(checker));
        let (near, far) = UnixStream::pair().unwrap();
        let accepted = Accepted {
            socket: near.into(),
            address: None,
        };
        let mut reader = Reader::new(accepted, Arc::new(rules), Instant::now());
        let progress = reader.go_on(Instant::now(), |_| String::new());
        assert_eq!(progress, Progress::Pending);
        drop(far);
        let begin = Instant::now();
        let readers = [reader];
        for _ in 0..5 {
            wait(&readers, None, None).unwrap();
        }
        // As long as five looks for the answer are apart.
        assert!(begin.elapsed() >= Duration::from_millis(50));
    }

    /// Says more than a socket holds.
    struct Verbose;

    const VERBOSE: usize = 1024 * 1024;

    impl Source for Verbose {
        fn collect(&self, text: &mut Exposition) {
            text.gauge("long", &"x".repeat(VERBOSE)).value(1.0);
        }
    }

    #[test]
    fn an_answer_that_has_begun_is_ended_at_a_stop() {
        let bench = Bench::new();
        let (listener, path, directory) = listener();
        rustix::io::ioctl_fionbio(&listener, true).unwrap();
        let metrics = Arc::new(Metrics::new());
        metrics.add_source(Box::new(Verbose));
        let (rules, handle) = (Rules::new(policy("uid:self")), Handle::new(&bench.shared));
        let socket = Arc::new(MetricsSocket::new(listener, rules, metrics, handle));
        let thread = std::thread::spawn({
            let socket = Arc::clone(&socket);
            move || socket.run()
        });
        let silent = UnixStream::connect(&path).unwrap();
        let mut client = UnixStream::connect(&path).unwrap();
        client.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = vec![0];
        client.read_exact(&mut answer).unwrap();
        socket.stop();
        client.read_to_end(&mut answer).unwrap();
        assert!(answer.len() > VERBOSE && answer.ends_with(b"# EOF\n"));
        // Nor does it wait for one who does not ask.
        thread.join().unwrap();
        drop(silent);
        std::fs::remove_dir_all(directory).unwrap();
    }
}
