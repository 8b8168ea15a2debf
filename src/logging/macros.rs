//! One macro for each severity, `fatal!` to `wire!`.
//!
//! `info!("text {x}")`, or `info!(conn = number; "text {x}")`, where the number
//! (u64) is that of the connection. A call below the verbosity costs one load
//! and one branch, and evaluates none of its arguments.

/// For the macros below.
#[doc(hidden)]
#[macro_export]
macro_rules! __log_line {
    ($severity:ident, $conn:expr, $($message:tt)+) => {
        if $crate::logging::enabled($crate::logging::Severity::$severity) {
            fn here() {}
            static SITE: $crate::logging::Site = $crate::__log_site!($severity, here);
            $crate::logging::submit(&SITE, $conn, ::core::format_args!($($message)+));
        }
    };
}

/// For the macros here.
#[doc(hidden)]
#[macro_export]
macro_rules! __log_site {
    ($severity:ident, $here:ident) => {
        $crate::logging::Site::new(
            $crate::logging::Severity::$severity,
            ::core::file!(),
            ::core::line!(),
            ::core::module_path!(),
            || ::core::any::type_name_of_val(&$here),
        )
    };
}

/// For `limited!`.
#[doc(hidden)]
#[macro_export]
macro_rules! __log_limited {
    ($severity:ident, $conn:expr, $($message:tt)+) => {
        if $crate::logging::enabled($crate::logging::Severity::$severity) {
            fn here() {}
            static LIMIT: $crate::logging::RateLimited =
                $crate::logging::RateLimited::new($crate::__log_site!($severity, here));
            if LIMIT.admits() {
                $crate::logging::submit(LIMIT.site(), $conn, ::core::format_args!($($message)+));
            }
        }
    };
}

/// Logs a line that a peer can cause: at most
/// [`LINES_PER_SECOND`](crate::logging::LINES_PER_SECOND) a second from this
/// place, then a summary. `limited!(notice, "text {x}")`, or
/// `limited!(notice, conn = number; "text {x}")`; the severity is one of
/// `critical` to `wire`.
#[macro_export]
macro_rules! limited {
    ($severity:ident, conn = $conn:expr; $($message:tt)+) => {
        $crate::limited!(@$severity, ::core::option::Option::Some($conn), $($message)+)
    };
    (@critical, $($rest:tt)+) => { $crate::__log_limited!(Critical, $($rest)+) };
    (@error, $($rest:tt)+) => { $crate::__log_limited!(Error, $($rest)+) };
    (@warning, $($rest:tt)+) => { $crate::__log_limited!(Warning, $($rest)+) };
    (@notice, $($rest:tt)+) => { $crate::__log_limited!(Notice, $($rest)+) };
    (@info, $($rest:tt)+) => { $crate::__log_limited!(Info, $($rest)+) };
    (@debug, $($rest:tt)+) => { $crate::__log_limited!(Debug, $($rest)+) };
    (@verbose, $($rest:tt)+) => { $crate::__log_limited!(Verbose, $($rest)+) };
    (@trace, $($rest:tt)+) => { $crate::__log_limited!(Trace, $($rest)+) };
    (@wire, $($rest:tt)+) => { $crate::__log_limited!(Wire, $($rest)+) };
    ($severity:ident, $($message:tt)+) => {
        $crate::limited!(@$severity, ::core::option::Option::None, $($message)+)
    };
}

/// Logs at severity 0. The program can't go on. Returns when the line is written; one that can't be, or
/// not in five seconds, is said on stderr as well.
#[macro_export]
macro_rules! fatal {
    (conn = $conn:expr; $($message:tt)+) => {
        $crate::__log_line!(Fatal, ::core::option::Option::Some($conn), $($message)+)
    };
    ($($message:tt)+) => {
        $crate::__log_line!(Fatal, ::core::option::Option::None, $($message)+)
    };
}

/// Logs at severity 1. Somebody must act at once. Returns when the line is written; one that can't be, or
/// not in five seconds, is said on stderr as well.
#[macro_export]
macro_rules! alert {
    (conn = $conn:expr; $($message:tt)+) => {
        $crate::__log_line!(Alert, ::core::option::Option::Some($conn), $($message)+)
    };
    ($($message:tt)+) => {
        $crate::__log_line!(Alert, ::core::option::Option::None, $($message)+)
    };
}

/// Logs at severity 2. A part of the service is gone.
#[macro_export]
macro_rules! critical {
    (conn = $conn:expr; $($message:tt)+) => {
        $crate::__log_line!(Critical, ::core::option::Option::Some($conn), $($message)+)
    };
    ($($message:tt)+) => {
        $crate::__log_line!(Critical, ::core::option::Option::None, $($message)+)
    };
}

/// Logs at severity 3. An operation failed.
#[macro_export]
macro_rules! error {
    (conn = $conn:expr; $($message:tt)+) => {
        $crate::__log_line!(Error, ::core::option::Option::Some($conn), $($message)+)
    };
    ($($message:tt)+) => {
        $crate::__log_line!(Error, ::core::option::Option::None, $($message)+)
    };
}

/// Logs at severity 4. Something is odd and may become an error.
#[macro_export]
macro_rules! warning {
    (conn = $conn:expr; $($message:tt)+) => {
        $crate::__log_line!(Warning, ::core::option::Option::Some($conn), $($message)+)
    };
    ($($message:tt)+) => {
        $crate::__log_line!(Warning, ::core::option::Option::None, $($message)+)
    };
}

/// Logs at severity 5. Normal, but worth reading.
#[macro_export]
macro_rules! notice {
    (conn = $conn:expr; $($message:tt)+) => {
        $crate::__log_line!(Notice, ::core::option::Option::Some($conn), $($message)+)
    };
    ($($message:tt)+) => {
        $crate::__log_line!(Notice, ::core::option::Option::None, $($message)+)
    };
}

/// Logs at severity 6. Normal work.
#[macro_export]
macro_rules! info {
    (conn = $conn:expr; $($message:tt)+) => {
        $crate::__log_line!(Info, ::core::option::Option::Some($conn), $($message)+)
    };
    ($($message:tt)+) => {
        $crate::__log_line!(Info, ::core::option::Option::None, $($message)+)
    };
}

/// Logs at severity 7. Decisions and their grounds.
#[macro_export]
macro_rules! debug {
    (conn = $conn:expr; $($message:tt)+) => {
        $crate::__log_line!(Debug, ::core::option::Option::Some($conn), $($message)+)
    };
    ($($message:tt)+) => {
        $crate::__log_line!(Debug, ::core::option::Option::None, $($message)+)
    };
}

/// Logs at severity 8. More of them.
#[macro_export]
macro_rules! verbose {
    (conn = $conn:expr; $($message:tt)+) => {
        $crate::__log_line!(Verbose, ::core::option::Option::Some($conn), $($message)+)
    };
    ($($message:tt)+) => {
        $crate::__log_line!(Verbose, ::core::option::Option::None, $($message)+)
    };
}

/// Logs at severity 9. Every step.
#[macro_export]
macro_rules! trace {
    (conn = $conn:expr; $($message:tt)+) => {
        $crate::__log_line!(Trace, ::core::option::Option::Some($conn), $($message)+)
    };
    ($($message:tt)+) => {
        $crate::__log_line!(Trace, ::core::option::Option::None, $($message)+)
    };
}

/// Logs at severity 10. Sizes and kinds of frames, never contents.
#[macro_export]
macro_rules! wire {
    (conn = $conn:expr; $($message:tt)+) => {
        $crate::__log_line!(Wire, ::core::option::Option::Some($conn), $($message)+)
    };
    ($($message:tt)+) => {
        $crate::__log_line!(Wire, ::core::option::Option::None, $($message)+)
    };
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_call_form_compiles_and_a_disabled_one_evaluates_nothing() {
        let (x, conn) = (5, 17_u64);
        fatal!("x {x}");
        alert!("x {}", x);
        critical!(conn = conn; "x {x}");
        error!(conn = conn; "x {}", x,);
        warning!("plain");
        notice!("a {b}", b = 3);
        info!(conn = 3; "y");
        debug!("{}", unreachable_argument());
        verbose!("{}", unreachable_argument());
        trace!("{}", unreachable_argument());
        wire!("{}", unreachable_argument());
        limited!(notice, "z {x}");
        limited!(error, conn = conn; "z {}", x);
    }

    /// No logger is installed in this test, so the `log` crate's level is off.
    fn unreachable_argument() -> u8 {
        if log::max_level() == log::LevelFilter::Off {
            0
        } else {
            panic!("evaluated")
        }
    }
}
