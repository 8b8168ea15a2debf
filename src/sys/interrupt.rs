//! Interrupts threads of this process that block in a system call.
//!
//! A signal whose handler does nothing, installed without `SA_RESTART`, makes the
//! call return `EINTR` (signal(7)). It is SIGURG, which is ignored by default and
//! which nothing else sends here. A signal that comes just before the call is
//! lost, so the sender repeats until the thread has answered.

use std::io;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread::JoinHandle;

const SIGNAL: libc::c_int = libc::SIGURG;

extern "C" fn nothing(_signal: libc::c_int) {}

/// Prepares the process: installs the handler (sigaction(2)), the first time that
/// it is called, and lets the signal through in this thread and those it starts
/// (pthread_sigmask(3)). A sandbox may forbid the former: call it before.
///
/// # Errors
/// As sigaction(2); not for any valid state of the process.
pub fn prepare() -> io::Result<()> {
    static INSTALLED: AtomicBool = AtomicBool::new(false);
    if !INSTALLED.load(Ordering::Acquire) {
        install()?;
        INSTALLED.store(true, Ordering::Release);
    }
    let_through()
}

fn install() -> io::Result<()> {
    // SAFETY: a sigaction of zeroes is a valid one: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
    // SAFETY: `action` is valid for the call; the handler does nothing, so it is
    // safe at any point (signal-safety(7)).
    if unsafe { libc::sigaction(SIGNAL, &raw const action, ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn let_through() -> io::Result<()> {
    // SAFETY: a sigset of zeroes is valid storage for sigemptyset.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is valid and writable.
    unsafe { libc::sigemptyset(&raw mut set) };
    // SAFETY: `set` is initialised, SIGNAL is a valid signal number.
    unsafe { libc::sigaddset(&raw mut set, SIGNAL) };
    // SAFETY: `set` is initialised; no old mask is asked for.
    match unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, ptr::null_mut()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// A thread of this process, by the kernel's number (gettid(2)). Once it has ended
/// another may get its number, which is interrupted then; a system call that is
/// repeated, as all must be, takes no harm.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ThreadId(libc::pid_t);

impl ThreadId {
    /// The calling thread. Asks the kernel once for each thread.
    pub fn current() -> Self {
        thread_local! {
            // SAFETY: gettid(2) has no arguments and always succeeds.
            static OWN: ThreadId = ThreadId(unsafe { libc::gettid() });
        }
        OWN.with(|own| *own)
    }

    /// Makes a system call in which it blocks return `EINTR`.
    pub fn interrupt(self) {
        // SAFETY: getpid(2) has no arguments and always succeeds.
        let process = unsafe { libc::getpid() };
        // SAFETY: tgkill(2) takes three numbers. The signal has a handler by
        // `prepare`, or is ignored; for a thread that has ended it is an error.
        unsafe { libc::syscall(libc::SYS_tgkill, process, self.0, SIGNAL) };
    }
}

/// Which thread blocks, if one does.
#[derive(Debug, Default)]
pub struct Blocked(AtomicI32);

impl Blocked {
    /// It is this one. In one order with everything that is sequentially consistent.
    pub fn set(&self, thread: ThreadId) {
        self.0.store(thread.0, Ordering::SeqCst);
    }

    /// Nobody does.
    pub fn clear(&self) {
        self.0.store(0, Ordering::SeqCst);
    }

    /// Who does.
    pub fn get(&self) -> Option<ThreadId> {
        Some(self.0.load(Ordering::SeqCst))
            .filter(|id| *id != 0)
            .map(ThreadId)
    }
}

/// Ignores SIGXFSZ, so that a write beyond RLIMIT_FSIZE fails with EFBIG and is
/// handled like a full disk, instead of ending the process (setrlimit(2)).
///
/// # Errors
/// As sigaction(2); not for any valid state of the process.
pub fn survive_file_size_limit() -> io::Result<()> {
    // SAFETY: a sigaction of zeroes is a valid one: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = libc::SIG_IGN;
    // SAFETY: `action` is valid for the call.
    match unsafe { libc::sigaction(libc::SIGXFSZ, &raw const action, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A thread that can be interrupted as long as it runs. Not by pthread_kill(3): in musl
/// that is tkill(2), which no filter can hold to this process.
#[derive(Debug)]
pub struct Thread<T> {
    handle: JoinHandle<T>,
    runs: Arc<Blocked>,
}

impl<T: Send + 'static> Thread<T> {
    /// Starts it.
    ///
    /// # Errors
    /// As [`std::thread::Builder::spawn`].
    pub fn spawn(
        builder: std::thread::Builder,
        body: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<Self> {
        let runs = Arc::<Blocked>::default();
        let own = Arc::clone(&runs);
        let handle = builder.spawn(move || {
            own.set(ThreadId::current());
            let _ended = Ended(own);
            body()
        })?;
        Ok(Self { handle, runs })
    }

    /// Whether it has ended.
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }

    /// Makes a system call in which it blocks return `EINTR`.
    pub fn interrupt(&self) {
        if let Some(id) = self.runs.get() {
            id.interrupt();
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// What it panicked with.
    pub fn join(self) -> std::thread::Result<T> {
        self.handle.join()
    }
}

struct Ended(Arc<Blocked>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.clear();
    }
}
