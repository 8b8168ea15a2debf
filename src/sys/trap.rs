//! Names the system call that a seccomp filter trapped, then lets the process
//! die of SIGSYS (sigaction(2), `SYS_SECCOMP`; signal-safety(7)).
//!
//! The handler allocates nothing and calls only write, getpid, gettid, tgkill
//! and prctl(PR_GET_NAME), which every filter allows. A thread that blocks all
//! signals, as the C library does while one starts or ends, dies without it.

use std::ffi::{c_int, c_void};
use std::io;
use std::sync::OnceLock;

/// Numbers and names of all calls.
type Table = &'static [(u32, &'static str)];

static CALLS: OnceLock<Table> = OnceLock::new();

/// `siginfo_t` of a SIGSYS, which the libc crate has no fields for.
#[repr(C)]
struct Trapped {
    signal: c_int,
    errno: c_int,
    code: c_int,
    padding: c_int,
    address: *const c_void,
    call: c_int,
    architecture: u32,
}

/// Installs the handler, for one delivery: what follows it dies of the default.
pub(crate) fn install(calls: Table) -> io::Result<()> {
    // A second value would be the same table.
    let _ = CALLS.set(calls);
    // SAFETY: all bytes zero are a valid sigaction: no handler, no flags, an
    // empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handle as *const () as libc::sighandler_t;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESETHAND | libc::SA_ONSTACK;
    // SAFETY: the action is initialised, the old one is not asked for, and the
    // handler is async-signal-safe.
    let result = unsafe { libc::sigaction(libc::SIGSYS, &action, std::ptr::null_mut()) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

extern "C" fn handle(_signal: c_int, info: *const Trapped, context: *const libc::ucontext_t) {
    // SAFETY: with SA_SIGINFO the kernel passes a siginfo_t that lives until the
    // handler returns; for SIGSYS its fields are those of Trapped.
    let trapped = unsafe { &*info };
    // SAFETY: the third argument is a ucontext_t that lives as long.
    let context = unsafe { &*context };
    let mut line = Line::new();
    line.text("seccomp: thread ");
    line.thread_name();
    line.text(" called ");
    let number = trapped.call.unsigned_abs();
    let known = CALLS
        .get()
        .and_then(|calls| calls.iter().find(|(n, _)| *n == number));
    line.text(known.map_or("system call", |(_, name)| name));
    line.text(" (");
    line.decimal(u64::from(number));
    line.text(") with");
    for argument in arguments(context) {
        line.text(" ");
        line.hexadecimal(argument);
    }
    line.text(", which its role must not: the process dies\n");
    line.write();
    die();
}

/// Where the calling convention has the six arguments (syscall(2)).
#[cfg(target_arch = "x86_64")]
fn arguments(context: &libc::ucontext_t) -> [u64; 6] {
    use libc::{REG_R8, REG_R9, REG_R10, REG_RDI, REG_RDX, REG_RSI};
    [REG_RDI, REG_RSI, REG_RDX, REG_R10, REG_R8, REG_R9].map(|register| {
        usize::try_from(register)
            .ok()
            .and_then(|index| context.uc_mcontext.gregs.get(index))
            .map_or(0, |value| value.cast_unsigned())
    })
}

/// Where the calling convention has the six arguments (syscall(2)).
#[cfg(target_arch = "aarch64")]
fn arguments(context: &libc::ucontext_t) -> [u64; 6] {
    let registers = context.uc_mcontext.regs;
    [
        registers[0],
        registers[1],
        registers[2],
        registers[3],
        registers[4],
        registers[5],
    ]
}

/// Sends SIGSYS again: it is blocked until the handler returns, and then meets
/// the default action.
fn die() {
    // SAFETY: getpid takes no arguments and can't fail.
    let process = unsafe { libc::getpid() };
    // SAFETY: the same.
    let thread = unsafe { libc::gettid() };
    // SAFETY: three integers; the target is the calling thread.
    unsafe { libc::syscall(libc::SYS_tgkill, process, thread, libc::SIGSYS) };
}

/// A line that is put together on the stack; what doesn't fit is left out.
struct Line {
    bytes: [u8; 320],
    length: usize,
}

impl Line {
    const fn new() -> Self {
        Self {
            bytes: [0; 320],
            length: 0,
        }
    }

    fn byte(&mut self, byte: u8) {
        if let Some(free) = self.bytes.get_mut(self.length) {
            *free = byte;
            self.length += 1;
        }
    }

    fn text(&mut self, text: &str) {
        for byte in text.bytes() {
            self.byte(byte);
        }
    }

    fn digits(&mut self, mut value: u64, base: u64) {
        let mut digits = [0u8; 20];
        let mut count = 0;
        for digit in &mut digits {
            *digit = b"0123456789abcdef"
                .get(usize::try_from(value % base).unwrap_or(0))
                .copied()
                .unwrap_or(b'?');
            count += 1;
            value /= base;
            if value == 0 {
                break;
            }
        }
        for digit in digits.iter().take(count).rev() {
            self.byte(*digit);
        }
    }

    fn decimal(&mut self, value: u64) {
        self.digits(value, 10);
    }

    fn hexadecimal(&mut self, value: u64) {
        self.text("0x");
        self.digits(value, 16);
    }

    /// The name is ours, but may have been cut in mid-character: ASCII passes.
    fn thread_name(&mut self) {
        let mut name = [0u8; 16];
        // SAFETY: PR_GET_NAME writes at most 16 bytes, terminator included.
        unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
        for byte in name.into_iter().take_while(|byte| *byte != 0) {
            self.byte(if byte.is_ascii_graphic() { byte } else { b'?' });
        }
    }

    fn write(&self) {
        // SAFETY: length bytes of the array are initialised; descriptor 2 needs
        // not be open for the call to be sound.
        unsafe { libc::write(libc::STDERR_FILENO, self.bytes.as_ptr().cast(), self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_without_allocation() {
        let mut line = Line::new();
        line.decimal(0);
        line.text(" ");
        line.decimal(u64::MAX);
        line.text(" ");
        line.hexadecimal(0xdead_beef);
        assert_eq!(
            &line.bytes[..line.length],
            b"0 18446744073709551615 0xdeadbeef"
        );
    }

    #[test]
    fn a_line_that_is_full_takes_no_more() {
        let mut line = Line::new();
        for _ in 0..400 {
            line.text("x");
        }
        assert_eq!(line.length, line.bytes.len());
    }
}
