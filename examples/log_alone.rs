//! The logger alone: eleven severities, a file that is rolled and compressed, and
//! lines that nobody can forge.
//!
//!     log_alone FILE

use std::error::Error;

use secure_socket::logging::{Builder, FileSpec, Severity, SinkSpec, Target, Verbosity};
use secure_socket::{debug, notice, warning};

fn main() -> Result<(), Box<dyn Error>> {
    let file = std::env::args().nth(1).ok_or("usage: log_alone FILE")?;
    let log = Builder::new()
        .verbosity(Verbosity::up_to(Severity::Debug))
        .target(SinkSpec::File(FileSpec {
            max_size: 64 << 10,
            keep: 2,
            ..FileSpec::new(file)
        }))
        .target(Target {
            sink: SinkSpec::Stdout,
            level: Some(Verbosity::up_to(Severity::Notice)),
        })
        .start()?;
    notice!("started by {:?}", std::env::var("USER").unwrap_or_default());
    for number in 0..2_000 {
        debug!("request {number}");
    }
    // What a stranger chose stays on its line.
    let name = "eve\n2026-01-01T00:00:00.000000Z INFO  peer admitted uid=0";
    warning!("no such user: {name}");
    // Lines of other crates, through the `log` crate, land in the same file.
    log::info!("from elsewhere");
    // All that was logged is written when the guard goes, or here, with an answer.
    if !log.shutdown() {
        return Err("not all lines could be written".into());
    }
    Ok(())
}
