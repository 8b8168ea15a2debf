//! Echo in a few lines: whoever runs it is served, and nobody else, behind all walls.
//!
//!     echo [SOCKET]
//!
//! Without SOCKET it is `echo/echo.sock` under `$XDG_RUNTIME_DIR`, else under `/run`.

use secure_socket::{Connection, Listener, Policy, Server, sandbox::Plan};
use std::{error::Error, io};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::var("XDG_RUNTIME_DIR");
    let folder = folder.unwrap_or_else(|_| String::from("/run"));
    let path = std::env::args().nth(1);
    let path = path.unwrap_or_else(|| format!("{folder}/echo/echo.sock"));
    let policy = Policy::parse("uid:self")?;
    let listener = Listener::builder(path)?
        .policy(policy)
        .bind()?
        .enter(Plan::new())?;
    let echo = |mut to: &Connection| io::copy(&mut { to }, &mut to).map(drop);
    Server::new(listener, echo)?.run()?;
    Ok(())
}
