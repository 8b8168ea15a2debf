//! Severity of a log line, 0 (fatal) to 10 (wire), and the verbosity that
//! admits it. Pure.

use std::fmt;
use std::str::FromStr;

/// How much a line matters: 0 matters most.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Severity {
    /// The program can't go on.
    Fatal = 0,
    /// Somebody must act at once.
    Alert = 1,
    /// A part of the service is gone.
    Critical = 2,
    /// An operation failed.
    Error = 3,
    /// Something is odd and may become an error.
    Warning = 4,
    /// Normal, but worth reading: denials, start and stop.
    Notice = 5,
    /// Normal work.
    Info = 6,
    /// Decisions and their grounds.
    Debug = 7,
    /// More of them.
    Verbose = 8,
    /// Every step.
    Trace = 9,
    /// Sizes and kinds of every frame, never contents.
    Wire = 10,
}

impl Severity {
    /// How many severities there are.
    pub const COUNT: usize = 11;

    /// All of them, the one that matters most first.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Fatal,
        Self::Alert,
        Self::Critical,
        Self::Error,
        Self::Warning,
        Self::Notice,
        Self::Info,
        Self::Debug,
        Self::Verbose,
        Self::Trace,
        Self::Wire,
    ];

    /// 0 to 10; `None` for a larger number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// 0 to 10.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// 0 to 10, to count by severity.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The name in lower case, as in an option or in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fatal => "fatal",
            Self::Alert => "alert",
            Self::Critical => "critical",
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Notice => "notice",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Verbose => "verbose",
            Self::Trace => "trace",
            Self::Wire => "wire",
        }
    }

    /// The name in capitals, padded to five columns, as in a line of text.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Fatal => "FATAL",
            Self::Alert => "ALERT",
            Self::Critical => "CRITICAL",
            Self::Error => "ERROR",
            Self::Warning => "WARNING",
            Self::Notice => "NOTICE",
            Self::Info => "INFO ",
            Self::Debug => "DEBUG",
            Self::Verbose => "VERBOSE",
            Self::Trace => "TRACE",
            Self::Wire => "WIRE ",
        }
    }

    /// The label between spaces.
    #[cfg(feature = "logging")]
    pub(super) const fn column(self) -> &'static str {
        match self {
            Self::Fatal => " FATAL ",
            Self::Alert => " ALERT ",
            Self::Critical => " CRITICAL ",
            Self::Error => " ERROR ",
            Self::Warning => " WARNING ",
            Self::Notice => " NOTICE ",
            Self::Info => " INFO  ",
            Self::Debug => " DEBUG ",
            Self::Verbose => " VERBOSE ",
            Self::Trace => " TRACE ",
            Self::Wire => " WIRE  ",
        }
    }

    /// syslog(3)'s severity, 1 (alert) to 7 (debug). Fatal is alert, not emerg:
    /// a stock rsyslogd prints emerg on every terminal.
    pub const fn syslog(self) -> u8 {
        match self {
            Self::Fatal | Self::Alert => 1,
            Self::Critical => 2,
            Self::Error => 3,
            Self::Warning => 4,
            Self::Notice => 5,
            Self::Info => 6,
            Self::Debug | Self::Verbose | Self::Trace | Self::Wire => 7,
        }
    }

    /// The nearest of the `log` crate's five levels, for loggers that know no more.
    pub const fn log_level(self) -> log::Level {
        match self {
            Self::Fatal | Self::Alert | Self::Critical | Self::Error => log::Level::Error,
            Self::Warning => log::Level::Warn,
            Self::Notice | Self::Info => log::Level::Info,
            Self::Debug | Self::Verbose => log::Level::Debug,
            Self::Trace | Self::Wire => log::Level::Trace,
        }
    }
}

impl From<log::Level> for Severity {
    fn from(level: log::Level) -> Self {
        match level {
            log::Level::Error => Self::Error,
            log::Level::Warn => Self::Warning,
            log::Level::Info => Self::Info,
            log::Level::Debug => Self::Debug,
            log::Level::Trace => Self::Trace,
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Which severities are logged: none, or all up to one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Verbosity(u8);

impl Verbosity {
    /// Nothing is logged.
    pub const OFF: Self = Self(0);
    /// Everything is logged.
    pub const ALL: Self = Self::up_to(Severity::Wire);

    /// Logs this severity and those that matter more.
    pub const fn up_to(severity: Severity) -> Self {
        Self(severity as u8 + 1)
    }

    /// The least severity that is still logged; `None` if nothing is.
    pub fn severity(self) -> Option<Severity> {
        self.0.checked_sub(1).and_then(Severity::from_number)
    }

    /// Whether a line of this severity is logged.
    pub const fn admits(self, severity: Severity) -> bool {
        (severity as u8) < self.0
    }

    /// The filter that lets the `log` crate pass what this admits, or a little more.
    pub fn log_filter(self) -> log::LevelFilter {
        match self.severity() {
            Some(severity) => severity.log_level().to_level_filter(),
            None => log::LevelFilter::Off,
        }
    }

    /// 0 for off, else the severity's number plus one.
    #[cfg(feature = "logging")]
    pub(crate) const fn threshold(self) -> u8 {
        self.0
    }

    /// The inverse of [`Verbosity::threshold`]; everything for a number too large.
    #[cfg(feature = "logging")]
    pub(crate) const fn from_threshold(threshold: u8) -> Self {
        if threshold > Self::ALL.0 {
            Self::ALL
        } else {
            Self(threshold)
        }
    }
}

impl Default for Verbosity {
    fn default() -> Self {
        Self::up_to(Severity::Info)
    }
}

impl From<Severity> for Verbosity {
    fn from(severity: Severity) -> Self {
        Self::up_to(severity)
    }
}

impl fmt::Display for Verbosity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.severity() {
            Some(severity) => write!(f, "{}", severity.number()),
            None => f.write_str("off"),
        }
    }
}

/// The text was none of 0 to 10, a severity's name, or `off`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotAVerbosity;

impl fmt::Display for NotAVerbosity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected a number from 0 to 10, a severity's name, or off")
    }
}

impl std::error::Error for NotAVerbosity {}

impl FromStr for Verbosity {
    type Err = NotAVerbosity;

    fn from_str(text: &str) -> Result<Self, NotAVerbosity> {
        if text.eq_ignore_ascii_case("off") {
            return Ok(Self::OFF);
        }
        let plain_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let severity = if plain_number {
            text.parse().ok().and_then(Severity::from_number)
        } else {
            Severity::ALL
                .into_iter()
                .find(|severity| severity.name().eq_ignore_ascii_case(text))
        };
        severity.map(Self::up_to).ok_or(NotAVerbosity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_go_both_ways() {
        for severity in Severity::ALL {
            assert_eq!(Severity::from_number(severity.number()), Some(severity));
            assert_eq!(severity.name().parse(), Ok(Verbosity::up_to(severity)));
            assert_eq!(
                Verbosity::up_to(severity).to_string().parse::<Verbosity>(),
                Ok(severity.into())
            );
            assert_eq!(severity.label().trim_end(), severity.name().to_uppercase());
            assert!(severity.label().len() >= 5);
            #[cfg(feature = "logging")]
            assert_eq!(severity.column(), format!(" {} ", severity.label()));
        }
        assert_eq!(Severity::from_number(11), None);
    }

    #[test]
    fn a_verbosity_is_0_to_10_a_name_or_off() {
        assert_eq!("off".parse(), Ok(Verbosity::OFF));
        assert_eq!("10".parse(), Ok(Verbosity::ALL));
        for wrong in ["", "11", "-1", "+1", " 1", "256", "infos", "6.0"] {
            assert_eq!(wrong.parse::<Verbosity>(), Err(NotAVerbosity), "{wrong:?}");
        }
    }

    #[test]
    fn a_verbosity_admits_what_matters_at_least_as_much() {
        assert!(!Verbosity::OFF.admits(Severity::Fatal));
        assert!(Verbosity::default().admits(Severity::Info));
        assert!(!Verbosity::default().admits(Severity::Debug));
        assert!(Verbosity::ALL.admits(Severity::Wire));
    }

    #[test]
    fn other_crates_levels_are_3_4_6_7_9() {
        let numbers: Vec<u8> = log::Level::iter()
            .map(|l| Severity::from(l).number())
            .collect();
        assert_eq!(numbers, [3, 4, 6, 7, 9]);
        for level in log::Level::iter() {
            assert_eq!(Severity::from(level).log_level(), level);
        }
    }
}
