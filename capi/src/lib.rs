//! The library for C programs: bind, accept with policy, log. `include/secure_socket.h`
//! is made of this file by cbindgen.
//!
//! Invariants: nothing unwinds into C: the body of each function that C calls runs inside
//! `guarded`, but for `ss_last_error`, which has a net of its own, and `ss_status_text`,
//! which has nothing that could panic; every pointer is checked for NULL; no reference
//! outlives a call.
//!
//! A crate of its own, so that the library stays free of exported symbols and of a
//! second place for `unsafe`, and no program in Rust builds a shared object. Not
//! here: anything that decides; that is the library's.

mod log;
mod pointers;
mod status;

use std::ffi::{c_char, c_int};
use std::os::fd::{AsFd, AsRawFd, IntoRawFd};
use std::time::Duration;

use secure_socket::ids::{Gid, Pid, Uid};
use secure_socket::policy::PolicyBuilder;
use secure_socket::server::Acceptor;
use secure_socket::{Connection, Listener, Policy};

use pointers::{bytes, copy_out, exclusive, hand_over, put, shared, take_back, text};
pub use status::ss_status;
use status::{Failure, guarded};

/// Who may connect: rules that admit and rules that refuse. Used by one thread at a
/// time.
#[allow(non_camel_case_types, reason = "its name in C")]
pub struct ss_policy {
    builder: PolicyBuilder,
}

/// A socket that listens. May be used by several threads at once.
#[allow(non_camel_case_types, reason = "its name in C")]
pub struct ss_listener {
    acceptor: Acceptor,
}

/// Who connected, as the kernel recorded it at connect(2).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types, reason = "its name in C")]
pub struct ss_peer {
    /// The number of the connection, from 1, as in the log.
    pub connection: u64,
    /// The process; 0 if it is not visible from this PID namespace.
    pub pid: i32,
    /// The effective user; 4294967295 if it has no mapping in this user namespace.
    pub uid: u32,
    /// The effective group, alike.
    pub gid: u32,
    /// The number of the rule that admitted it, from 1.
    pub rule: u32,
}

impl ss_peer {
    fn of(connection: &Connection) -> Self {
        let credentials = connection.credentials();
        Self {
            connection: connection.id(),
            pid: credentials.pid().map_or(0, Pid::as_raw),
            uid: credentials.uid().map_or(u32::MAX, Uid::as_raw),
            gid: credentials.gid().map_or(u32::MAX, Gid::as_raw),
            rule: connection.authorized().rule_number(),
        }
    }
}

/// What a status means, in English. The text is static, and never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn ss_status_text(status: c_int) -> *const c_char {
    const ALL: [ss_status; 10] = [
        ss_status::SsOk,
        ss_status::SsNullPointer,
        ss_status::SsNotUtf8,
        ss_status::SsValue,
        ss_status::SsRule,
        ss_status::SsBind,
        ss_status::SsTimeout,
        ss_status::SsSystem,
        ss_status::SsNoLog,
        ss_status::SsPanic,
    ];
    // Any number may come from C, so it is not taken for one of the enum.
    let known = ALL.into_iter().find(|one| *one as c_int == status);
    known
        .map_or(c"no status of this library", status::text)
        .as_ptr()
}

/// Copies what went wrong last in the calling thread to `buffer`, with its final NUL
/// and cut to `length` bytes. Gives how many bytes the whole takes without the NUL.
///
/// `buffer` may be NULL, to ask for the length alone.
///
/// # Safety
/// `buffer` is NULL, or valid for writes of `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ss_last_error(buffer: *mut c_char, length: usize) -> usize {
    let mut whole = 0;
    // Not `guarded`: a failure of its own must not be remembered over the one that is
    // asked for.
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let text = status::last();
        whole = text.len();
        // SAFETY: as the caller vouches.
        unsafe { copy_out(&text, buffer, length) };
    }));
    // Its destructor is somebody else's code, and may panic again.
    std::mem::forget(done);
    whole
}

/// Begins a policy without rules, which admits the user that runs this program and
/// nobody else. To be given back with ss_policy_free().
///
/// # Safety
/// `policy` is valid for a write of a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ss_policy_new(policy: *mut *mut ss_policy) -> ss_status {
    guarded(|| {
        let new = hand_over(ss_policy {
            builder: Policy::builder(),
        });
        // SAFETY: as the caller vouches.
        let done = unsafe { put(policy, new, "policy") };
        if done.is_err() {
            // SAFETY: it was made above, and nobody has seen it.
            drop(unsafe { take_back(new) });
        }
        done
    })
}

/// Adds a rule that admits, such as `user:www-data` or
/// `group:ops,exe:/usr/bin/deploy`. Any one of them admits.
///
/// # Safety
/// `policy` came from ss_policy_new() and no other thread uses it; `rule` ends in a NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ss_policy_allow(policy: *mut ss_policy, rule: *const c_char) -> ss_status {
    guarded(|| {
        // SAFETY: as the caller vouches.
        let (policy, rule) = unsafe { policy_and_rule(policy, rule) }?;
        add(policy, policy.builder.clone().allow(rule))
    })
}

/// Adds a rule that refuses. It wins over every rule that admits.
///
/// # Safety
/// As ss_policy_allow().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ss_policy_deny(policy: *mut ss_policy, rule: *const c_char) -> ss_status {
    guarded(|| {
        // SAFETY: as the caller vouches.
        let (policy, rule) = unsafe { policy_and_rule(policy, rule) }?;
        add(policy, policy.builder.clone().deny(rule))
    })
}

/// # Safety
/// As for ss_policy_allow().
unsafe fn policy_and_rule<'a>(
    policy: *mut ss_policy,
    rule: *const c_char,
) -> Result<(&'a mut ss_policy, &'a str), Failure> {
    // SAFETY: as the caller vouches.
    let policy = unsafe { exclusive(policy, "policy") }?;
    // SAFETY: as the caller vouches.
    let rule = unsafe { text(rule, "rule") }?;
    Ok((policy, rule))
}

/// Keeps the rule if it can be read, so that a wrong one is found where it is added.
fn add(policy: &mut ss_policy, with_it: PolicyBuilder) -> Result<(), Failure> {
    with_it.clone().build().map_err(|error| {
        let text = format!("column {}: {error}", error.column);
        Failure::new(ss_status::SsRule, text)
    })?;
    policy.builder = with_it;
    Ok(())
}

/// Gives a policy back. NULL is nothing. Listeners that were bound for it keep it.
///
/// # Safety
/// `policy` is NULL, or came from ss_policy_new() and is not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ss_policy_free(policy: *mut ss_policy) {
    let _ = guarded(|| {
        // SAFETY: as the caller vouches.
        drop(unsafe { take_back(policy) });
        Ok(())
    });
}

/// Binds a Unix-domain socket at an absolute path (or `@name`) and listens. Its
/// directory is made for it; mode and group follow from the policy: 0600 for the own
/// user alone, else 0660 with the group that the rules name.
///
/// Opens descriptors with O_CLOEXEC; starts threads only where a rule names an
/// executable or other facts below /proc. To be given back with ss_listener_free().
///
/// # Safety
/// `path` ends in a NUL; `policy` came from ss_policy_new(); `listener` is valid for a
/// write of a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ss_listener_bind(
    path: *const c_char,
    policy: *const ss_policy,
    listener: *mut *mut ss_listener,
) -> ss_status {
    guarded(|| {
        // Looked at first, so that nothing is bound for nobody.
        // SAFETY: as the caller vouches.
        unsafe { put(listener, std::ptr::null_mut(), "listener") }?;
        // SAFETY: as the caller vouches.
        let path = unsafe { text(path, "path") }?;
        // SAFETY: as the caller vouches.
        let policy = unsafe { shared(policy, "policy") }?;
        let acceptor = bind(path, policy)?;
        // SAFETY: as the caller vouches.
        unsafe { put(listener, hand_over(ss_listener { acceptor }), "listener") }
    })
}

fn bind(path: &str, policy: &ss_policy) -> Result<Acceptor, Failure> {
    let policy = policy.builder.clone().build();
    let policy = policy.map_err(|error| Failure::of(ss_status::SsRule, &error))?;
    let listener = Listener::builder(path)
        .and_then(|options| options.policy(policy).bind())
        .map_err(|error| Failure::of(ss_status::SsBind, &error))?;
    for notice in listener.notices() {
        if notice.is_warning() {
            secure_socket::warning!("{notice}");
        } else {
            secure_socket::info!("{notice}");
        }
    }
    Acceptor::new(listener.dangerously_unconfined())
        .map_err(|error| Failure::of(ss_status::SsBind, &error))
}

/// Waits for the next peer that the policy admits, at most `timeout_ms` milliseconds
/// (-1: as long as it takes, 0: not at all). Those that are denied meanwhile are closed
/// unread and logged. SS_TIMEOUT when nobody came.
///
/// `fd` gets a blocking descriptor with O_CLOEXEC, which the caller closes. `peer` may
/// be NULL.
///
/// Nothing ends the descriptor when the process exits that a rule by pid, executable,
/// digest, name or arguments admitted: a child may hold it and be served on. Who minds
/// gets a pidfd by getsockopt(2), SO_PEERPIDFD, and polls it.
///
/// # Safety
/// `listener` came from ss_listener_bind(); `fd` is valid for a write; `peer` is NULL or
/// valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ss_listener_accept(
    listener: *const ss_listener,
    timeout_ms: c_int,
    peer: *mut ss_peer,
    fd: *mut c_int,
) -> ss_status {
    guarded(|| {
        // SAFETY: as the caller vouches.
        unsafe { put(fd, -1, "fd") }?;
        // SAFETY: as the caller vouches.
        let listener = unsafe { shared(listener, "listener") }?;
        let timeout = match u64::try_from(timeout_ms) {
            Ok(milliseconds) => Some(Duration::from_millis(milliseconds)),
            Err(_) if timeout_ms == -1 => None,
            Err(_) => {
                let text = format!("timeout_ms: expected -1 or more, found {timeout_ms}");
                return Err(Failure::new(ss_status::SsValue, text));
            }
        };
        let system = |error: std::io::Error| Failure::of(ss_status::SsSystem, &error);
        let connection = listener.acceptor.accept(timeout).map_err(system)?;
        let Some(connection) = connection else {
            return Err(Failure::new(ss_status::SsTimeout, "nobody came in time"));
        };
        let socket = connection.as_fd().try_clone_to_owned().map_err(system)?;
        if !peer.is_null() {
            // SAFETY: it is not NULL, and the caller vouches for the rest.
            unsafe { put(peer, ss_peer::of(&connection), "peer") }?;
        }
        // SAFETY: as the caller vouches.
        unsafe { put(fd, socket.into_raw_fd(), "fd") }
    })
}

/// The descriptor to wait on together with others (poll(2), readable); -1 for NULL. It
/// belongs to the listener.
///
/// # Safety
/// `listener` is NULL, or came from ss_listener_bind().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ss_listener_fd(listener: *const ss_listener) -> c_int {
    let mut fd = -1;
    let _ = guarded(|| {
        // SAFETY: as the caller vouches.
        let listener = unsafe { shared(listener, "listener") }?;
        fd = listener.acceptor.as_fd().as_raw_fd();
        Ok(())
    });
    fd
}

/// Stops listening, unlinks the socket if it still is the one that was bound, and gives
/// the listener back. NULL is nothing. Connections that were accepted stay open.
///
/// # Safety
/// `listener` is NULL, or came from ss_listener_bind() and is not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ss_listener_free(listener: *mut ss_listener) {
    let _ = guarded(|| {
        // SAFETY: as the caller vouches.
        drop(unsafe { take_back(listener) });
        Ok(())
    });
}

/// Starts the log, to a file (created 0600, rolled at 10 MiB and compressed) or, for
/// NULL, to stderr. Severities up to `verbosity`, 0 to 10, are written. Once for a
/// process. Its threads inherit the caller's signal mask.
///
/// # Safety
/// `file` is NULL, or ends in a NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ss_log_start(file: *const c_char, verbosity: c_int) -> ss_status {
    guarded(|| {
        let file = if file.is_null() {
            None
        } else {
            // SAFETY: it is not NULL, and the caller vouches for the rest.
            Some(unsafe { text(file, "file") }?)
        };
        log::start(file, verbosity)
    })
}

/// Whether ss_log() has anything to do at this severity: 1 or 0. For a number that is no
/// severity 1 as well, so that ss_log() tells. It costs a load and a branch; SS_LOG()
/// asks before it evaluates its text.
#[unsafe(no_mangle)]
pub extern "C" fn ss_log_enabled(severity: c_int) -> c_int {
    let mut is_enabled = true;
    let _ = guarded(|| {
        is_enabled = log::is_enabled(severity);
        Ok(())
    });
    c_int::from(is_enabled)
}

/// Logs one line. Newlines and control characters in it are escaped, and bytes that are
/// not UTF-8 written as \xNN, in `file` and `function` as well. It never waits for a
/// disk, except at severities 0 and 1. Without a log it does nothing.
///
/// # Safety
/// `file`, `function` and `message` end in a NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ss_log(
    severity: c_int,
    file: *const c_char,
    line: u32,
    function: *const c_char,
    message: *const c_char,
) -> ss_status {
    guarded(|| {
        // SAFETY: as the caller vouches.
        let file = unsafe { bytes(file, "file") }?;
        // SAFETY: as the caller vouches.
        let function = unsafe { bytes(function, "function") }?;
        // SAFETY: as the caller vouches.
        let message = unsafe { bytes(message, "message") }?;
        let call = log::Call {
            file,
            line,
            function,
        };
        log::line(severity, &call, message)
    })
}

/// Writes what was logged and ends the log's threads. What is logged later goes to
/// stderr. SS_NO_LOG if there is no log, or not all could be written.
#[unsafe(no_mangle)]
pub extern "C" fn ss_log_stop() -> ss_status {
    guarded(log::stop)
}
