//! The log of a C program: the library's logger, and lines with their place in C.
//!
//! Invariant: a line takes no lock here, so that a child of fork(2) may log whatever
//! the threads of its parent were at.

use std::ffi::c_int;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};

use secure_socket::logging::escape::{self, Untrusted};
use secure_socket::logging::{
    Builder, FileSpec, Guard, Severity, SinkSpec, Site, Verbosity, enabled, submit,
};

use crate::pointers::Slot;
use crate::status::{Failure, ss_status};

/// How many places in C are remembered. Lines of further ones name no place, nor do those
/// of a call that finds no slot free near its own.
const PLACES_MAX: usize = 4096;
/// How far from its own slot a place may lie.
const STEPS_MAX: usize = 64;

static GUARD: Mutex<Option<Guard>> = Mutex::new(None);

static PLACES: [Slot<Place>; PLACES_MAX] = [const { Slot::new() }; PLACES_MAX];

/// For lines without a place, by severity.
static ELSEWHERE: [Site; Severity::COUNT] = [
    elsewhere(Severity::Fatal),
    elsewhere(Severity::Alert),
    elsewhere(Severity::Critical),
    elsewhere(Severity::Error),
    elsewhere(Severity::Warning),
    elsewhere(Severity::Notice),
    elsewhere(Severity::Info),
    elsewhere(Severity::Debug),
    elsewhere(Severity::Verbose),
    elsewhere(Severity::Trace),
    elsewhere(Severity::Wire),
];

const fn elsewhere(severity: Severity) -> Site {
    Site::new(severity, "elsewhere", 0, "c", || "elsewhere")
}

/// A call in C, as it hands itself in.
#[derive(PartialEq, Eq, Hash)]
pub(crate) struct Call<'a> {
    pub(crate) file: &'a [u8],
    pub(crate) line: u32,
    pub(crate) function: &'a [u8],
}

/// A call that has logged at a severity, and the site that was made for it.
struct Place {
    call: Call<'static>,
    site: Site,
}

pub(crate) fn start(file: Option<&str>, verbosity: c_int) -> Result<(), Failure> {
    let verbosity = Verbosity::up_to(severity(verbosity)?);
    let sink = match file {
        Some(path) => SinkSpec::File(FileSpec::new(path)),
        None => SinkSpec::Stderr,
    };
    let mut guard = GUARD.lock().unwrap_or_else(PoisonError::into_inner);
    let started = Builder::new().verbosity(verbosity).target(sink).start();
    *guard = Some(started.map_err(|error| Failure::of(ss_status::SsNoLog, &error))?);
    Ok(())
}

pub(crate) fn stop() -> Result<(), Failure> {
    let guard = GUARD.lock().unwrap_or_else(PoisonError::into_inner).take();
    let guard = guard.ok_or_else(|| Failure::new(ss_status::SsNoLog, "there is no log"))?;
    if guard.shutdown() {
        Ok(())
    } else {
        Err(Failure::new(ss_status::SsNoLog, "not all could be written"))
    }
}

/// Whether `line` has anything to do, or to tell.
pub(crate) fn is_enabled(number: c_int) -> bool {
    known(number).is_none_or(enabled)
}

pub(crate) fn line(number: c_int, call: &Call<'_>, message: &[u8]) -> Result<(), Failure> {
    let severity = severity(number)?;
    if enabled(severity)
        && let Some(site) = site(severity, call)
    {
        submit(site, None, format_args!("{}", Untrusted(message)));
    }
    Ok(())
}

fn known(number: c_int) -> Option<Severity> {
    u8::try_from(number).ok().and_then(Severity::from_number)
}

fn severity(number: c_int) -> Result<Severity, Failure> {
    known(number).ok_or_else(|| {
        let text = format!("severity: expected a number from 0 to 10, found {number}");
        Failure::new(ss_status::SsValue, text)
    })
}

/// The site of a call. Made once for each and kept for good: there are as many as the
/// program has calls, and no more than the bound.
fn site(severity: Severity, call: &Call<'_>) -> Option<&'static Site> {
    let is_this = |place: &Place| place.site.severity() == severity && place.call == *call;
    let mut hasher = DefaultHasher::new();
    (call, severity.number()).hash(&mut hasher);
    let begin = usize::try_from(hasher.finish() % PLACES_MAX as u64).unwrap_or(0);
    for step in 0..STEPS_MAX {
        let slot = PLACES.get((begin + step) % PLACES_MAX)?;
        let place = slot.get().or_else(|| slot.fill(remembered(severity, call)));
        if let Some(place) = place.filter(|place| is_this(place)) {
            return Some(&place.site);
        }
    }
    ELSEWHERE.get(severity.index())
}

/// Names that no compiler gives must not make a second line either.
fn remembered(severity: Severity, call: &Call<'_>) -> Box<Place> {
    let shown = |name: &[u8]| -> &'static str {
        let mut text = String::new();
        escape::line(&Untrusted(name).to_string(), &mut text);
        text.leak()
    };
    let (file, function) = (shown(call.file), shown(call.function));
    let call = Call {
        file: call.file.to_vec().leak(),
        line: call.line,
        function: call.function.to_vec().leak(),
    };
    let site = Site::foreign(severity, file, call.line, "c", function);
    Box::new(Place { call, site })
}
