//! Why the daemon could not start, with the exit code of sysexits.h.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

use crate::exit;
use crate::listener::BindError;
use crate::logging::LoggingError;
use crate::sandbox::SandboxError;
use crate::server::ServerError;
use crate::text::chain;

/// A refusal to start, or an end in failure.
#[derive(Debug)]
pub(super) struct Fault {
    code: u8,
    text: String,
}

impl Fault {
    /// With a cause, whose own causes are told as well.
    pub(super) fn new(code: u8, what: &str, cause: &dyn Error) -> Self {
        Self {
            code,
            text: format!("{what}: {}", chain(cause)),
        }
    }

    pub(super) fn plain(code: u8, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }

    /// The code to exit with.
    pub(super) fn code(&self) -> u8 {
        self.code
    }

    /// Says it on stderr, and gives the code to exit with.
    pub(super) fn report(&self) -> ExitCode {
        eprintln!("secure_socket: {}", self.text);
        ExitCode::from(self.code)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

pub(super) fn of_bind(error: BindError) -> Fault {
    Fault {
        code: error.exit_code(),
        text: chain(&error),
    }
}

pub(super) fn of_sandbox(error: SandboxError) -> Fault {
    Fault {
        code: exit::NO_PERMISSION,
        text: format!("can't enter the sandbox: {}", chain(&error)),
    }
}

pub(super) fn of_logging(error: LoggingError) -> Fault {
    Fault {
        code: exit::CANNOT_CREATE,
        text: chain(&error),
    }
}

pub(super) fn of_server(error: ServerError) -> Fault {
    let code = match &error {
        ServerError::System(_) | ServerError::Thread(_) | ServerError::Listener(_) => exit::SYSTEM,
        ServerError::Role(_) | ServerError::NotReady(_) => exit::NO_PERMISSION,
        _ => exit::INTERNAL,
    };
    Fault {
        code,
        text: chain(&error),
    }
}
