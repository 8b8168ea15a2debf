//! What is logged, where to, and how files are rolled.

use std::path::PathBuf;
use std::time::Duration;

use super::super::endpoint::{self, Endpoint};
use super::super::given::Wrong;
use super::super::reader::{Reader, Sourced};
use super::super::values;
use super::super::words::{LogFormat, LogOverflow, LogSink};
use crate::logging::Verbosity;

/// What is logged, where to, and how files are rolled.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// Which severities are logged.
    pub verbosity: Verbosity,
    /// Other bounds for modules and those below them.
    pub verbosity_for: Vec<(String, Verbosity)>,
    /// Where lines go; no sink twice.
    pub targets: Vec<LogTarget>,
    /// The log file.
    pub file: Option<PathBuf>,
    /// At how many bytes it is rolled.
    pub max_size: u64,
    /// At which age it is rolled.
    pub max_age: Option<Duration>,
    /// How many compressed files are kept.
    pub keep: u32,
    /// How many bytes of them.
    pub keep_bytes: Option<u64>,
    /// fdatasync(2) after each batch.
    pub sync: bool,
    /// The message queue: `/` and 1 to 254 bytes without another `/`.
    pub mq_name: String,
    /// The syslog server.
    pub remote: Option<Endpoint>,
    /// Form of the lines.
    pub format: LogFormat,
    /// How many lines may wait for the writer, 16 to 1048576.
    pub queue: u32,
    /// What happens to those beyond.
    pub overflow: LogOverflow,
    /// Lines a second that peers can cause at one place in the code.
    pub rate: Option<u32>,
}

/// One place where lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogTarget {
    /// Which.
    pub sink: LogSink,
    /// What goes there at most; `None`: all that is logged.
    pub verbosity: Option<Verbosity>,
}

const FILE_OPTIONS: &[&str] = &[
    "log_max_size",
    "log_max_age",
    "log_keep",
    "log_keep_bytes",
    "log_sync",
];

pub(super) fn read(reader: &mut Reader<'_>) -> Option<LogSettings> {
    let verbosity = reader.one("verbosity", verbosity)?;
    let verbosity_for = reader.many("verbosity_for", module_verbosity);
    let file = reader.maybe("log_file", |text| values::path(text).map(PathBuf::from));
    let file = file.map(|file| file.value);
    let mq_name = reader.one("mq_name", values::mq_name)?;
    let remote = reader
        .maybe("log_remote", endpoint::log_remote)
        .map(|remote| remote.value);
    let max_age = reader.timeout("log_max_age")?;
    let keep_bytes = reader.size("log_keep_bytes")?;
    let rate: u32 = reader.number("log_rate")?;
    let settings = LogSettings {
        verbosity,
        verbosity_for: verbosity_for.into_iter().map(|one| one.value).collect(),
        max_size: reader.size("log_max_size")?,
        max_age,
        keep: reader.number("log_keep")?,
        keep_bytes: (keep_bytes > 0).then_some(keep_bytes),
        sync: reader.yes_no("log_sync")?,
        mq_name,
        format: reader.one("log_format", LogFormat::parse)?,
        queue: reader.number("log_queue")?,
        overflow: reader.one("log_overflow", LogOverflow::parse)?,
        rate: (rate > 0).then_some(rate),
        targets: targets(reader, file.is_some(), remote.is_some()),
        file,
        remote,
    };
    check_use(reader, &settings);
    Some(settings)
}

/// `0` to `10`, a level's name, or `off`.
fn verbosity(text: &str) -> Result<Verbosity, Wrong> {
    let what = "a number from 0 to 10, a level's name, or off";
    // The number is canonical: `007` and `+7` are typing errors.
    let canonical = text.len() <= 8 && (text == "0" || !text.starts_with(['0', '+', '-']));
    let parsed = text.parse::<Verbosity>().ok().filter(|_| canonical);
    parsed.ok_or_else(|| Wrong::expected(what, text, 0))
}

/// `MODULE:LEVEL`.
fn module_verbosity(text: &str) -> Result<(String, Verbosity), Wrong> {
    let what = "MODULE:LEVEL such as secure_socket::listener:9";
    let Some((module, level)) = text.rsplit_once(':') else {
        return Err(Wrong::expected(what, text, 0));
    };
    let segment = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    if !module.split("::").all(segment) {
        return Err(Wrong::expected(what, text, 0));
    }
    let level = verbosity(level).map_err(|wrong| wrong.moved(module.len() + 1))?;
    Ok((module.to_owned(), level))
}

fn target(text: &str) -> Result<LogTarget, Wrong> {
    let (sink, level) = match text.split_once(':') {
        Some((sink, level)) => (sink, Some(level)),
        None => (text, None),
    };
    let at = sink.len() + 1;
    let sink = LogSink::parse(sink)?;
    let level = level.map(|level| verbosity(level).map_err(|wrong| wrong.moved(at)));
    Ok(LogTarget {
        sink,
        verbosity: level.transpose()?,
    })
}

fn targets(reader: &mut Reader<'_>, has_file: bool, has_remote: bool) -> Vec<LogTarget> {
    let given = reader.many("log_target", target);
    for (at, second) in given.iter().enumerate() {
        if given
            .iter()
            .take(at)
            .any(|first| first.value.sink == second.value.sink)
        {
            let text = format!("{} is named twice", second.value.sink.word());
            reader
                .diagnostics
                .error(second.origin.place(), "log_target", text);
        }
    }
    if reader.is_given("log_target") {
        check_targets(reader, &given, has_file, has_remote);
        return given.into_iter().map(|one| one.value).collect();
    }
    let mut sinks = vec![if has_file {
        LogSink::File
    } else {
        LogSink::Stdout
    }];
    let mut why = vec![if has_file {
        "log_file is given"
    } else {
        "log_file is not given"
    }];
    if reader.is_given("mq_name") {
        sinks.push(LogSink::Mq);
        why.push("mq_name is given");
    }
    if has_remote {
        sinks.push(LogSink::Remote);
        why.push("log_remote is given");
    }
    let words: Vec<_> = sinks.iter().map(|sink| sink.word()).collect();
    reader.follows("log_target", words.join(","), &why.join(", "));
    sinks
        .into_iter()
        .map(|sink| LogTarget {
            sink,
            verbosity: None,
        })
        .collect()
}

/// Targets that lack the option that says where they are.
fn check_targets(
    reader: &mut Reader<'_>,
    given: &[Sourced<LogTarget>],
    has_file: bool,
    has_remote: bool,
) {
    for target in given {
        let text = match target.value.sink {
            LogSink::File if !has_file && !reader.is_given("log_file") => "file needs log_file",
            LogSink::Remote if !has_remote && !reader.is_given("log_remote") => {
                "remote needs log_remote"
            }
            _ => continue,
        };
        reader
            .diagnostics
            .error(target.origin.place(), "log_target", text);
    }
}

/// Options about sinks that are not used.
fn check_use(reader: &mut Reader<'_>, settings: &LogSettings) {
    let uses = |sink| settings.targets.iter().any(|target| target.sink == sink);
    let why = |word: &str| format!("log_target has no {word}");
    if !uses(LogSink::File) {
        let why = why("file");
        FILE_OPTIONS.iter().for_each(|name| reader.idle(name, &why));
        if settings.file.is_some() {
            reader.idle("log_file", &why);
        }
    }
    if !uses(LogSink::Mq) {
        reader.idle("mq_name", &why("mq"));
    }
    if !uses(LogSink::Remote) && settings.remote.is_some() {
        reader.idle("log_remote", &why("remote"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logging::Severity;

    #[test]
    fn levels_are_numbers_names_or_off() {
        assert_eq!(verbosity("0"), Ok(Verbosity::up_to(Severity::Fatal)));
        assert_eq!(verbosity("10"), Ok(Verbosity::ALL));
        assert_eq!(verbosity("off"), Ok(Verbosity::OFF));
        assert_eq!(verbosity("debug"), Ok(Verbosity::up_to(Severity::Debug)));
        for text in ["11", "-1", "+7", "07", "", "loud", "256"] {
            assert!(verbosity(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn modules_are_paths() {
        let nine = Verbosity::up_to(Severity::Trace);
        let module = "secure_socket::listener".to_owned();
        assert_eq!(
            module_verbosity("secure_socket::listener:9"),
            Ok((module, nine))
        );
        for text in ["a", ":9", "a::9", "a b:9", "a:b:9", "a:99"] {
            assert!(module_verbosity(text).is_err(), "{text:?}");
        }
    }
}
