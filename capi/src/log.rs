//! The log of a C program: the library's logger, and lines with their place in C.

use std::collections::HashMap;
use std::ffi::c_int;
use std::sync::{Mutex, PoisonError};

use secure_socket::logging::{
    Builder, FileSpec, Guard, Severity, SinkSpec, Site, Verbosity, enabled, submit,
};

use crate::status::{Failure, ss_status};

/// How many places in C are remembered; lines of further ones name no place.
const PLACES_MAX: usize = 4096;

static GUARD: Mutex<Option<Guard>> = Mutex::new(None);

/// A call in C, and the site that was made for it.
type Sites = HashMap<(String, u32, u8), &'static Site>;

static SITES: Mutex<Option<Sites>> = Mutex::new(None);

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

pub(crate) fn line(number: c_int, place: (&str, u32, &str), text: &str) -> Result<(), Failure> {
    let severity = severity(number)?;
    if enabled(severity) {
        submit(site(severity, place), None, format_args!("{text}"));
    }
    Ok(())
}

fn severity(number: c_int) -> Result<Severity, Failure> {
    let known = u8::try_from(number).ok().and_then(Severity::from_number);
    known.ok_or_else(|| {
        let text = format!("severity: expected a number from 0 to 10, found {number}");
        Failure::new(ss_status::SsValue, text)
    })
}

/// The site of a call. Made once for each and kept for good: there are as many as the
/// program has calls, and no more than the bound.
fn site(severity: Severity, (file, line, function): (&str, u32, &str)) -> &'static Site {
    let mut sites = SITES.lock().unwrap_or_else(PoisonError::into_inner);
    let sites = sites.get_or_insert_with(HashMap::new);
    let is_full = sites.len() >= PLACES_MAX;
    let (file, line, function) = match sites.get(&(file.to_owned(), line, severity.number())) {
        Some(site) => return site,
        // One site without a place for each severity comes on top.
        None if is_full => ("elsewhere", 0, "elsewhere"),
        None => (file, line, function),
    };
    let key = (file.to_owned(), line, severity.number());
    sites.entry(key).or_insert_with(|| {
        let leak = |text: &str| -> &'static str { Box::leak(text.into()) };
        let site = Site::foreign(severity, leak(file), line, "c", leak(function));
        Box::leak(Box::new(site))
    })
}
