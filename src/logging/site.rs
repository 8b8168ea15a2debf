//! The place of a call in the source, and the way of a record from there to
//! the `log` crate.
//!
//! A `Site` is a constant of the program: a record carries a pointer to it, so
//! severity, function and place travel without allocation. A logger of another
//! program finds severity, function and connection among the record's
//! key-values; ours finds the site itself through a thread-local, which it
//! believes only if file and line are the record's.

#[cfg(feature = "logging")]
use super::escape;
use super::{Severity, Verbosity};
use std::cell::Cell;
use std::fmt;
use std::sync::OnceLock;
#[cfg(feature = "logging")]
use std::sync::atomic::AtomicU32;
use std::sync::atomic::{AtomicU8, Ordering};

/// One call of a logging macro. Made by the macros only.
#[derive(Debug)]
pub struct Site {
    severity: Severity,
    file: &'static str,
    line: u32,
    module: &'static str,
    inner_function_path: fn() -> &'static str,
    function: OnceLock<&'static str>,
    #[cfg(feature = "logging")]
    place: OnceLock<Box<str>>,
    /// Its number in `NUMBERED`, and 0 before it has one.
    #[cfg(feature = "logging")]
    number: AtomicU32,
}

/// Call sites that can have a number.
#[cfg(feature = "logging")]
const NUMBERS: usize = 4096;

/// The call sites by number, from 1.
#[cfg(feature = "logging")]
static NUMBERED: [OnceLock<&'static Site>; NUMBERS] = [const { OnceLock::new() }; NUMBERS];

/// The call site of this number.
#[cfg(feature = "logging")]
#[inline]
pub(super) fn numbered(number: u32) -> Option<&'static Site> {
    let index = usize::try_from(number).ok()?.checked_sub(1)?;
    NUMBERED.get(index)?.get().copied()
}

impl Site {
    /// For the macros: `inner_function_path` names a function defined inside
    /// the calling one.
    #[doc(hidden)]
    pub const fn new(
        severity: Severity,
        file: &'static str,
        line: u32,
        module: &'static str,
        inner_function_path: fn() -> &'static str,
    ) -> Self {
        Self {
            severity,
            file,
            line,
            module,
            inner_function_path,
            function: OnceLock::new(),
            #[cfg(feature = "logging")]
            place: OnceLock::new(),
            #[cfg(feature = "logging")]
            number: AtomicU32::new(0),
        }
    }

    /// A call in another language, which brings its place along.
    #[doc(hidden)]
    pub fn foreign(
        severity: Severity,
        file: &'static str,
        line: u32,
        module: &'static str,
        function: &'static str,
    ) -> Self {
        let mut site = Self::new(severity, file, line, module, || "");
        site.function = OnceLock::from(function);
        site
    }

    /// The severity of its lines.
    pub const fn severity(&self) -> Severity {
        self.severity
    }

    /// The source file, as the compiler was given it.
    pub const fn file(&self) -> &'static str {
        self.file
    }

    /// The line in the file, from 1.
    pub const fn line(&self) -> u32 {
        self.line
    }

    /// The module's path, as `secure_socket::server`.
    pub const fn module(&self) -> &'static str {
        self.module
    }

    /// ` (FILE:LINE FUNCTION)`, put together at the first line, and escaped: a
    /// caller in another language may bring any text along.
    #[cfg(feature = "logging")]
    pub(super) fn place(&self) -> &str {
        self.place.get_or_init(|| {
            let (file, function) = (escape::escaped(self.file), self.function());
            let place = format!(" ({file}:{} {})", self.line, escape::escaped(function));
            place.into_boxed_str()
        })
    }

    /// Its number, given at the first line; `None` where a program has more
    /// call sites than there are numbers.
    #[cfg(feature = "logging")]
    #[inline]
    pub(super) fn number(&'static self) -> Option<u32> {
        match self.number.load(Ordering::Acquire) {
            0 => self.take_number(),
            number => Some(number).filter(|number| *number != u32::MAX),
        }
    }

    /// Without a lock, as this may be a signal handler's first line (see `message`
    /// for what such a call may be). Threads
    /// that do this at once take a number each, of which one is used.
    #[cfg(feature = "logging")]
    #[cold]
    fn take_number(&'static self) -> Option<u32> {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let room = |last: u32| usize::try_from(last).is_ok_and(|last| last < NUMBERS);
        let last = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| {
            room(last).then(|| last.saturating_add(1))
        });
        let number = last.map_or(u32::MAX, |last| last.saturating_add(1));
        if let Some(place) = last
            .ok()
            .and_then(|last| NUMBERED.get(usize::try_from(last).ok()?))
        {
            let _ = place.set(self);
        }
        let _ = self
            .number
            .compare_exchange(0, number, Ordering::AcqRel, Ordering::Acquire);
        match self.number.load(Ordering::Acquire) {
            u32::MAX => None,
            number => Some(number),
        }
    }

    /// The name of the function that makes the call, without its path. The
    /// compiler wrote it into the program; it is cut out at the first line.
    pub fn function(&self) -> &'static str {
        self.function
            .get_or_init(|| enclosing_function((self.inner_function_path)()))
    }
}

/// `a::b::<impl X>::call::{{closure}}::here` is inside `call`.
fn enclosing_function(inner: &'static str) -> &'static str {
    inner
        .rsplit("::")
        .skip(1)
        .find(|part| !part.starts_with("{{"))
        .unwrap_or(inner)
}

/// No logger of ours is installed: the `log` crate's own level decides.
const FOLLOW_LOG_CRATE: u8 = u8::MAX;

/// A severity below this is logged.
static THRESHOLD: AtomicU8 = AtomicU8::new(FOLLOW_LOG_CRATE);

/// Whether a call of this severity is to be logged: one relaxed load and a
/// branch where our logger is installed and the answer is no; where another
/// is, the `log` crate's own level is asked as well.
#[inline(always)]
pub fn enabled(severity: Severity) -> bool {
    let threshold = THRESHOLD.load(Ordering::Relaxed);
    (severity as u8) < threshold
        && (threshold != FOLLOW_LOG_CRATE || severity.log_level() <= log::max_level())
}

/// Puts a bound in force for every call of the program.
#[cfg(feature = "logging")]
pub(super) fn set_threshold(verbosity: Verbosity) {
    THRESHOLD.store(verbosity.threshold(), Ordering::Relaxed);
    log::set_max_level(verbosity.log_filter());
}

/// The verbosity in force for the macros: that of our logger where one is
/// installed, else that of the `log` crate.
pub fn verbosity() -> Verbosity {
    let threshold = THRESHOLD.load(Ordering::Relaxed);
    if threshold == FOLLOW_LOG_CRATE {
        return match log::max_level() {
            log::LevelFilter::Off => Verbosity::OFF,
            log::LevelFilter::Error => Verbosity::up_to(Severity::Error),
            log::LevelFilter::Warn => Verbosity::up_to(Severity::Warning),
            log::LevelFilter::Info => Verbosity::up_to(Severity::Info),
            log::LevelFilter::Debug => Verbosity::up_to(Severity::Verbose),
            log::LevelFilter::Trace => Verbosity::ALL,
        };
    }
    Severity::from_number(threshold.wrapping_sub(1)).map_or(Verbosity::OFF, Verbosity::up_to)
}

/// What the thread's current call adds to its record.
#[derive(Clone, Copy)]
pub(super) struct Context {
    pub(super) site: &'static Site,
    pub(super) conn: Option<u64>,
}

thread_local! {
    static CONTEXT: Cell<Option<Context>> = const { Cell::new(None) };
}

/// The context of this record, if one of our macros made it.
#[cfg(feature = "logging")]
pub(super) fn context_of(record: &log::Record<'_>) -> Option<Context> {
    let context = CONTEXT.try_with(Cell::get).ok().flatten()?;
    let same_line = record.line() == Some(context.site.line);
    let same_file = record
        .file_static()
        .is_some_and(|file| std::ptr::eq(file, context.site.file));
    (same_line && same_file).then_some(context)
}

/// For the macros: hands one line to the `log` crate.
#[doc(hidden)]
#[inline(never)]
pub fn submit(site: &'static Site, conn: Option<u64>, message: fmt::Arguments<'_>) {
    let context = Context { site, conn };
    // A call inside an argument's Display, or a signal handler's, is in the
    // middle of another: the outer context comes back after it.
    let outer = CONTEXT
        .try_with(|current| current.replace(Some(context)))
        .ok()
        .flatten();
    log::logger().log(
        &log::Record::builder()
            .level(site.severity.log_level())
            .target(site.module)
            .args(message)
            .module_path_static(Some(site.module))
            .file_static(Some(site.file))
            .line(Some(site.line))
            .key_values(&context)
            .build(),
    );
    let _ = CONTEXT.try_with(|current| current.set(outer));
}

impl log::kv::Source for Context {
    fn visit<'kvs>(
        &'kvs self,
        visitor: &mut dyn log::kv::VisitSource<'kvs>,
    ) -> Result<(), log::kv::Error> {
        visitor.visit_pair("severity".into(), self.site.severity.number().into())?;
        visitor.visit_pair("function".into(), self.site.function().into())?;
        match self.conn {
            Some(conn) => visitor.visit_pair("conn".into(), conn.into()),
            None => Ok(()),
        }
    }

    fn count(&self) -> usize {
        2 + usize::from(self.conn.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_enclosing_function_is_the_last_named_one() {
        assert_eq!(enclosing_function("a::b::call::here"), "call");
        assert_eq!(
            enclosing_function("a::call::{{closure}}::{{closure}}::here"),
            "call"
        );
        assert_eq!(enclosing_function("<a::B as a::C>::call::here"), "call");
        assert_eq!(enclosing_function("here"), "here");
    }

    #[test]
    fn a_site_knows_its_function() {
        fn here() {}
        static SITE: Site = Site::new(Severity::Info, file!(), line!(), module_path!(), || {
            std::any::type_name_of_val(&here)
        });
        assert_eq!(SITE.function(), "a_site_knows_its_function");
    }
}
