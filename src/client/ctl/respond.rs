//! Answers requests with a command: the request is its stdin, its stdout the
//! answer.
//!
//! Bounded in number and time: what comes beyond the number waits its turn, up to
//! [`WAITING_MAX`] requests here and the rest with the broker, and a command that
//! takes longer is killed. A command that fails, takes too long, or says more than the
//! broker accepts, answers nothing: the requester gets `timeout` from the broker. What
//! it left in its process group is killed, whether or not it has ended itself.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, waitid,
};

use super::super::{Client, ClientError, Event};
use crate::frame::Stamp;

/// How many requests wait here for a command. With so many nothing more is read, so
/// that what others ask can't fill this process: the broker bounds what it keeps.
const WAITING_MAX: usize = 256;

/// A command that answers requests.
#[derive(Clone, Debug)]
pub struct Responder {
    /// Program and arguments; without a program nothing is answered.
    pub command: Vec<OsString>,
    /// How many run at once, at least 1.
    pub parallel: usize,
    /// How long one may run.
    pub timeout: Duration,
    /// How many bytes one may say; never more than the broker accepts.
    pub max_answer_bytes: usize,
    /// End after so many requests; for ever without.
    pub count: Option<u64>,
}

/// One request to answer.
struct Job {
    id: u64,
    subject: String,
    stamp: Stamp,
    body: Vec<u8>,
}

/// What became of a job: its id, and the answer or why there is none.
type Answer = (u64, io::Result<Vec<u8>>);

/// Serves `pattern` until the connection ends, or `count` requests are done.
///
/// # Errors
///
/// As [`Client::serve`] and [`Client::next`]; [`ClientError::Socket`] where no
/// thread can be started.
pub fn respond(
    client: &mut Client,
    pattern: &str,
    responder: &Responder,
) -> Result<(), ClientError> {
    client.serve(pattern)?;
    let mut responder = responder.clone();
    responder.max_answer_bytes = responder.max_answer_bytes.min(client.longest_reply());
    let responder = &responder;
    let bell = Arc::new(
        eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).map_err(io::Error::from)?,
    );
    let (sender, receiver) = channel();
    let mut crew = Crew {
        responder,
        bell,
        sender,
        receiver,
        running: 0,
        waiting: VecDeque::new(),
    };
    let mut done = 0;
    while responder.count.is_none_or(|count| done < count) {
        while crew.has_room()
            && let Some(event) = client.next(Some(Instant::now()))?
        {
            match event {
                Event::Deliver {
                    id,
                    subject,
                    stamp,
                    body,
                } => {
                    crew.waiting.push_back(Job {
                        id,
                        subject,
                        stamp,
                        body,
                    });
                }
                Event::Error { id: 0, code, text } => {
                    return Err(ClientError::Refused { code, text });
                }
                _ => (),
            }
        }
        crew.start()?;
        done += crew.answer(client)?;
        if responder.count.is_none_or(|count| done < count) {
            crew.wait(client)?;
        }
    }
    Ok(())
}

struct Crew<'r> {
    responder: &'r Responder,
    bell: Arc<OwnedFd>,
    sender: Sender<Answer>,
    receiver: Receiver<Answer>,
    running: usize,
    waiting: VecDeque<Job>,
}

impl Crew<'_> {
    fn has_room(&self) -> bool {
        self.waiting.len() < WAITING_MAX
    }

    fn start(&mut self) -> io::Result<()> {
        while self.running < self.responder.parallel.max(1) {
            let Some(job) = self.waiting.pop_front() else {
                break;
            };
            let (responder, sender) = (self.responder.clone(), self.sender.clone());
            let bell = Arc::clone(&self.bell);
            thread::Builder::new().spawn(move || {
                let answer = run(&responder, &job);
                let _ = sender.send((job.id, answer));
                let _ = rustix::io::write(&*bell, &1_u64.to_ne_bytes());
            })?;
            self.running += 1;
        }
        Ok(())
    }

    /// Passes on what is done; returns how many that were.
    fn answer(&mut self, client: &mut Client) -> Result<u64, ClientError> {
        let mut done = 0;
        while let Ok((id, answer)) = self.receiver.try_recv() {
            self.running -= 1;
            done += 1;
            match answer {
                Ok(body) => client.reply(id, &body)?,
                Err(error) => {
                    let _ = writeln!(io::stderr(), "the command answers nothing: {error}");
                }
            }
        }
        self.start()?;
        Ok(done)
    }

    fn wait(&self, client: &Client) -> Result<(), ClientError> {
        let mut fds = vec![PollFd::new(&*self.bell, PollFlags::IN)];
        // Without room a command is running, and rings.
        if self.has_room() {
            fds.push(PollFd::from_borrowed_fd(client.as_fd(), PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => (),
            Err(error) => return Err(io::Error::from(error).into()),
        }
        let _ = rustix::io::read(&*self.bell, &mut [0; 8]);
        Ok(())
    }
}

fn run(responder: &Responder, job: &Job) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + responder.timeout;
    let (program, arguments) = responder
        .command
        .split_first()
        .ok_or_else(|| io::Error::from(ErrorKind::NotFound))?;
    let text = |id: Option<String>| id.unwrap_or_default();
    let child = Command::new(program)
        .args(arguments)
        .env("SECURE_SOCKET_SUBJECT", &job.subject)
        .env("SECURE_SOCKET_CONNECTION", job.stamp.connection.to_string())
        .env("SECURE_SOCKET_SEQUENCE", job.stamp.sequence.to_string())
        .env(
            "SECURE_SOCKET_UID",
            text(job.stamp.uid.map(|id| id.to_string())),
        )
        .env(
            "SECURE_SOCKET_GID",
            text(job.stamp.gid.map(|id| id.to_string())),
        )
        .env(
            "SECURE_SOCKET_PID",
            text(job.stamp.pid.map(|id| id.to_string())),
        )
        .env("SECURE_SOCKET_FLAGS", job.stamp.flags.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let mut running = Running {
        child,
        is_reaped: false,
    };
    let answer = running.exchange(&job.body, responder.max_answer_bytes, deadline)?;
    running.finish(deadline)?;
    Ok(answer)
}

/// A command and its process group; dropping it before the command was reaped kills
/// both.
struct Running {
    child: Child,
    /// From then on its number may be another's.
    is_reaped: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.is_reaped {
            self.kill_group();
            let _ = self.reap();
        }
    }
}

impl Running {
    /// Only before the command was reaped: until then its number is its own, also
    /// when it has ended.
    fn kill_group(&self) {
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
    }

    fn reap(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait()?;
        self.is_reaped = true;
        Ok(status)
    }

    /// Writes the request and reads the answer, whichever is ready.
    fn exchange(&mut self, body: &[u8], most: usize, deadline: Instant) -> io::Result<Vec<u8>> {
        let mut stdin = self.child.stdin.take();
        let mut stdout = self.child.stdout.take().ok_or(ErrorKind::BrokenPipe)?;
        if let Some(stdin) = &stdin {
            rustix::io::ioctl_fionbio(stdin, true)?;
        }
        rustix::io::ioctl_fionbio(&stdout, true)?;
        let mut left = body;
        let mut answer = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            if let Some(pipe) = &mut stdin {
                // A command need not read its input.
                match pipe.write(left) {
                    Ok(count) => left = left.get(count..).unwrap_or_default(),
                    Err(error) if is_later(&error) => (),
                    Err(_) => left = &[],
                }
                if left.is_empty() {
                    stdin = None;
                }
            }
            match stdout.read(&mut buffer) {
                Ok(0) => return Ok(answer),
                Ok(count) => answer.extend_from_slice(buffer.get(..count).unwrap_or_default()),
                Err(error) if is_later(&error) => {
                    let mut fds = vec![PollFd::new(&stdout, PollFlags::IN)];
                    fds.extend(stdin.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::OUT)));
                    wait_until(&mut fds, deadline)?;
                }
                Err(error) => return Err(error),
            }
            if answer.len() > most {
                return Err(io::Error::new(ErrorKind::InvalidData, "it says too much"));
            }
        }
    }

    fn finish(&mut self, deadline: Instant) -> io::Result<()> {
        let pidfd = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty())?;
        wait_until(
            &mut [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)],
            deadline,
        )?;
        let peek = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let ended = waitid(WaitId::PidFd(pidfd.as_fd()), peek)?;
        if ended.and_then(|status| status.exit_status()) != Some(0) {
            self.kill_group();
        }
        let status = self.reap()?;
        if status.success() {
            Ok(())
        } else {
            Err(io::Error::other(status.to_string()))
        }
    }
}

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

fn wait_until(fds: &mut [PollFd<'_>], deadline: Instant) -> io::Result<()> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(|_| ErrorKind::InvalidInput)?;
        match poll(fds, Some(&timeout)) {
            Ok(0) => return Err(io::Error::new(ErrorKind::TimedOut, "it takes too long")),
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
