//! Answers each connection to a second socket with the metrics, in an HTTP/1.0
//! response, and closes it.
//!
//! One thread, one peer at a time, each with a deadline. The peer is judged like
//! any other, by a policy of its own; one that is denied is closed unread. Of the
//! request no more is looked at than its first line and whether it asks for the
//! older text format.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::Handle;
use super::exposition::Form;
use super::metrics::Metrics;
use super::rules::Rules;
use crate::listener::{Accepted, Listener, Sealed};
use crate::peer::{Facts, Peer};
use crate::policy::Denial;

/// How long one peer may take, for request and answer together.
const PATIENCE: Duration = Duration::from_secs(2);
/// The largest request that is read.
const MOST_REQUEST: usize = 8 * 1024;
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
    /// `rules` say who may ask; of them policy and inspector count.
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
        while !self.stopped.load(Ordering::SeqCst) {
            match self.listener.accept() {
                Ok(accepted) => self.attend(&accepted),
                Err(error) => self.after_failed_accept(&error),
            }
        }
    }

    /// Puts other rules in force, for who comes from now on.
    pub fn set_rules(&self, rules: Rules) {
        *self.rules.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
    }

    /// Ends [`run`](Self::run), after the answer that it is at.
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

    fn after_failed_accept(&self, error: &io::Error) {
        if self.stopped.load(Ordering::SeqCst) || error.kind() == io::ErrorKind::Interrupted {
            return;
        }
        crate::limited!(error, "metrics socket: accept: {error}");
        std::thread::sleep(AFTER_FAILURE);
    }

    fn attend(&self, accepted: &Accepted) {
        let rules = Arc::clone(&self.rules.lock().unwrap_or_else(PoisonError::into_inner));
        if let Err((facts, denial)) = judge(&rules, accepted) {
            crate::limited!(notice, "metrics: peer denied {facts} {denial}");
            return;
        }
        let until = Instant::now() + PATIENCE;
        if let Err(error) = self.answer(&accepted.socket, until) {
            crate::limited!(info, "metrics: a peer got no answer: {error}");
        }
    }

    fn answer(&self, socket: &OwnedFd, until: Instant) -> io::Result<()> {
        let request = read_request(socket.as_fd(), until)?;
        let response = match understand(&request) {
            Ok(form) => {
                let text = self.metrics.render(&self.handle, form);
                head("200 OK", form.content_type(), text.len()) + &text
            }
            Err(status) => head(status, "text/plain; charset=utf-8", 0),
        };
        send_all(socket.as_fd(), response.as_bytes(), until)?;
        rustix::net::shutdown(socket, rustix::net::Shutdown::Write)?;
        // A close with data unread would reset the connection, and the peer might
        // lose the end of the answer.
        let _ = read_rest(socket.as_fd(), until);
        Ok(())
    }
}

impl std::fmt::Debug for MetricsSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MetricsSocket").finish_non_exhaustive()
    }
}

fn judge(rules: &Rules, accepted: &Accepted) -> Result<(), (Box<Facts>, Box<Denial>)> {
    let needs = rules.policy.needs();
    let peer = match accepted.address {
        Some(address) => Peer::from_address(address),
        None => Peer::from_socket(accepted.socket.as_fd(), needs, rules.pidfd_source),
    };
    let mut facts = peer.facts().clone();
    loop {
        let asks = rules.policy.asks(&facts);
        if asks.is_empty() {
            break;
        }
        rules.inspector.learn(&peer, &mut facts, asks);
    }
    match rules.policy.check(&facts) {
        Ok(_) => Ok(()),
        Err(denial) => Err((Box::new(facts), Box::new(denial))),
    }
}

/// What is asked for, or the status to answer with. No request at all asks for
/// the metrics.
fn understand(request: &[u8]) -> Result<Form, &'static str> {
    if request.is_empty() {
        return Ok(Form::OpenMetrics);
    }
    let text = std::str::from_utf8(request).map_err(|_| "400 Bad Request")?;
    let mut lines = text.lines();
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (method, path) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    if method != "GET" {
        return Err("405 Method Not Allowed");
    }
    if !matches!(path.split('?').next(), Some("/" | "/metrics")) {
        return Err("404 Not Found");
    }
    let accept = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("accept"))
        .map(|(_, value)| value)
        .unwrap_or_default();
    let older = accept.contains("text/plain") && !accept.contains("openmetrics");
    Ok(if older {
        Form::Prometheus
    } else {
        Form::OpenMetrics
    })
}

fn head(status: &str, content_type: &str, length: usize) -> String {
    format!(
        "HTTP/1.0 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n"
    )
}

/// Up to the empty line, or the end.
fn read_request(socket: BorrowedFd<'_>, until: Instant) -> io::Result<Vec<u8>> {
    let mut request = Vec::new();
    let mut part = [0; 2_048];
    loop {
        let count = receive(socket, &mut part, until)?;
        request.extend_from_slice(part.get(..count).unwrap_or_default());
        let is_whole = request.windows(4).any(|end| end == b"\r\n\r\n")
            || request.windows(2).any(|end| end == b"\n\n");
        if count == 0 || is_whole {
            return Ok(request);
        }
        if request.len() > MOST_REQUEST {
            return Err(io::Error::other("the request is longer than 8 KiB"));
        }
    }
}

fn read_rest(socket: BorrowedFd<'_>, until: Instant) -> io::Result<()> {
    let mut part = [0; 2_048];
    for _ in 0..64 {
        if receive(socket, &mut part, until)? == 0 {
            break;
        }
    }
    Ok(())
}

fn receive(socket: BorrowedFd<'_>, part: &mut [u8], until: Instant) -> io::Result<usize> {
    loop {
        match rustix::net::recv(socket, &mut *part, RecvFlags::DONTWAIT) {
            Ok((count, _)) => return Ok(count),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait(socket, PollFlags::IN, until)?,
            Err(error) => return Err(error.into()),
        }
    }
}

fn send_all(socket: BorrowedFd<'_>, mut rest: &[u8], until: Instant) -> io::Result<()> {
    while !rest.is_empty() {
        match rustix::net::send(socket, rest, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(count) => rest = rest.get(count..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait(socket, PollFlags::OUT, until)?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The deadline is absolute: a byte now and then does not extend it.
fn wait(socket: BorrowedFd<'_>, events: PollFlags, until: Instant) -> io::Result<()> {
    let now = Instant::now();
    if now >= until {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let timeout = crate::sys::time::until(until, now);
    match rustix::event::poll(
        &mut [PollFd::from_borrowed_fd(socket, events)],
        Some(&timeout),
    ) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_understood_or_refused() {
        let get = "GET /metrics HTTP/1.0\r\n\r\n";
        assert_eq!(understand(get.as_bytes()), Ok(Form::OpenMetrics));
        assert_eq!(understand(b""), Ok(Form::OpenMetrics));
        assert_eq!(
            understand(b"GET / HTTP/1.1\r\naccept: */*\r\n\r\n"),
            Ok(Form::OpenMetrics)
        );
        let older = b"GET /?x HTTP/1.1\r\nAccept: text/plain;version=0.0.4\r\n\r\n";
        assert_eq!(understand(older), Ok(Form::Prometheus));
        let both = b"GET / HTTP/1.1\r\nAccept: application/openmetrics-text,text/plain\r\n\r\n";
        assert_eq!(understand(both), Ok(Form::OpenMetrics));
        assert_eq!(
            understand(b"POST / HTTP/1.1\r\n\r\n"),
            Err("405 Method Not Allowed")
        );
        assert_eq!(
            understand(b"GET /etc/passwd HTTP/1.1\r\n\r\n"),
            Err("404 Not Found")
        );
        assert_eq!(understand(b"\xff\xfe\r\n\r\n"), Err("400 Bad Request"));
    }
}
