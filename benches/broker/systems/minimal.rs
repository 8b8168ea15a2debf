//! The limit: `broker.c`, one thread that passes on what it reads, without subjects,
//! stamps, rights or bounds.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::{Duplex, Pair, Server, Stream, System, first_line, send};

pub struct Minimal;

fn built() -> Option<&'static PathBuf> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    let build = || {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/broker/broker.c");
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("minimal_broker");
        let done = Command::new("cc")
            .args(["-O2", "-Wall", "-Werror", "-o"])
            .args([&target, &source])
            .status();
        done.is_ok_and(|status| status.success()).then_some(target)
    };
    BUILT.get_or_init(build).as_ref()
}

fn connect(server: &Server, role: u8) -> Stream {
    let mut stream = server.connect();
    send(&mut stream, &[role]);
    // It says that it has understood.
    super::read_exactly(&mut stream, 1);
    stream
}

/// As long as ours arrive: header, subject, stamp.
fn message(size: usize) -> Vec<u8> {
    let rest = 16 + 11 + 32 + size - 4;
    [&(rest as u32).to_le_bytes()[..], &vec![b'x'; rest]].concat()
}

impl System for Minimal {
    fn name(&self) -> &'static str {
        "minimal C"
    }

    fn version(&self) -> Option<String> {
        built()?;
        first_line("cc", "--version").map(|compiler| format!("broker.c, {compiler}"))
    }

    fn start(&self, folder: &Path) -> Server {
        let path = folder.join("s");
        let mut command = Command::new(built().unwrap());
        Server::start(command.arg(&path), path, 0)
    }

    fn connect(&self, server: &Server) -> Stream {
        connect(server, b'P')
    }

    fn subscriber(&self, server: &Server) -> Stream {
        connect(server, b'S')
    }

    fn publisher(&self, server: &Server) -> Stream {
        connect(server, b'P')
    }

    fn publish(&self, size: usize) -> Vec<u8> {
        message(size)
    }

    fn pair(&self, server: &Server, size: usize) -> Pair {
        let responder = connect(server, b'R');
        Pair {
            asker: Duplex::one(connect(server, b'A')),
            request: message(size),
            responder: Duplex::one(responder),
            answer: |_, size| message(size),
        }
    }
}
