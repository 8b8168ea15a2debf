//! Programs that embed the library, as their authors would write them.

use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use secure_socket::sandbox::{self, Plan};
use secure_socket::server::{Handle, Outcome};
use secure_socket::{Connection, Listener, Policy, Server};

type Done = Result<(), Box<dyn Error>>;

/// Runs one of them.
pub(crate) fn main(name: &str, rule: &str, dir: &Path) {
    std::fs::create_dir(dir.join("data")).unwrap();
    log::set_logger(&Plain).unwrap();
    log::set_max_level(log::LevelFilter::Info);
    let done = match name {
        "confined" => confined(rule, dir),
        "threads" => with_threads(rule, dir),
        "logger" => confined(rule, dir),
        "several" => several(rule, dir),
        _ => panic!("no such program"),
    };
    done.unwrap();
}

/// A program's own logger, on stderr.
struct Plain;

impl log::Log for Plain {
    fn enabled(&self, _metadata: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let conn = record.key_values().get("conn".into());
        let conn = conn.map_or(String::new(), |number| format!(" conn={number}"));
        let (level, target, text) = (record.level(), record.target(), record.args());
        eprintln!("OWN {level} {target}{conn}: {text}");
    }

    fn flush(&self) {}
}

/// Answers one line, and does what it is asked to try.
fn answer(mut peer: &Connection, dir: &Path) -> io::Result<()> {
    let mut line = String::new();
    BufReader::new(peer).read_line(&mut line)?;
    let line = line.trim_end();
    let answer = match line.split_once(' ') {
        None if line == "status" => {
            std::fs::read_to_string("/proc/thread-self/status").or_else(|_| read_own_status())?
        }
        None if line == "panic" => panic!("on purpose"),
        None if line == "note" => {
            let lock = std::fs::File::create(dir.join("data/lock"))?;
            rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)?;
            let mut notes = std::fs::File::create(dir.join("data/notes.tmp"))?;
            notes.write_all(b"a note\nand more")?;
            notes.sync_data()?;
            notes.set_len(7)?;
            notes.sync_all()?;
            std::fs::rename(dir.join("data/notes.tmp"), dir.join("data/notes"))?;
            std::fs::remove_file(dir.join("data/lock"))?;
            String::from("noted")
        }
        Some(("open", path)) => match std::fs::read(path) {
            Ok(_) => String::from("opened"),
            Err(error) => format!("{:?}", error.kind()),
        },
        _ => line.to_owned(),
    };
    peer.write_all(answer.as_bytes())?;
    peer.write_all(b"\n")
}

fn read_own_status() -> io::Result<String> {
    let tid = rustix::thread::gettid().as_raw_nonzero();
    std::fs::read_to_string(format!("/proc/self/task/{tid}/status"))
}

/// Stops a server when standard input ends.
fn stop_at_end_of_input(handle: Handle) {
    println!("ready");
    std::thread::spawn(move || {
        let _ = io::stdin().read(&mut [0]);
        handle.stop(Duration::from_secs(5));
    });
}

fn confined(rule: &str, dir: &Path) -> Done {
    let plan = Plan::new().read("/proc/self").manage(dir.join("data"));
    let listener = Listener::builder(dir.join("run/a"))?
        .policy(Policy::parse(rule)?)
        .bind()?
        .enter(plan)?;
    let dir = dir.to_owned();
    let server = Server::new(listener, move |peer: &Connection| answer(peer, &dir))?;
    stop_at_end_of_input(server.handle());
    assert_eq!(server.run()?, Outcome::Drained);
    Ok(())
}

fn with_threads(rule: &str, dir: &Path) -> Done {
    let goes_on = Arc::new(AtomicBool::new(true));
    let others: Vec<_> = (0..3)
        .map(|_| {
            let goes_on = Arc::clone(&goes_on);
            std::thread::spawn(move || {
                while goes_on.load(Ordering::Relaxed) {
                    std::fs::read("/etc/passwd").unwrap();
                    std::thread::sleep(Duration::from_millis(1));
                }
            })
        })
        .collect();
    let listener = Listener::builder(dir.join("run/a"))?
        .policy(Policy::parse(rule)?)
        .bind()?
        .enter_threads(Plan::new().read("/proc/self"))?;
    let walls = listener.walls().unwrap().clone();
    assert!(!walls.report().is_whole(), "{}", walls.report());
    let dir = dir.to_owned();
    let server = Server::new(listener, move |peer: &Connection| answer(peer, &dir))?.spawn()?;
    println!("ready");
    let _ = io::stdin().read(&mut [0]);
    // All that serve stand behind their walls; this thread and the others do not.
    assert!(!walls.attest()?.threads.is_empty());
    std::fs::read("/etc/passwd")?;
    goes_on.store(false, Ordering::Relaxed);
    for other in others {
        other.join().unwrap();
    }
    eprintln!("the others opened files");
    assert!(std::process::Command::new("true").status()?.success());
    eprintln!("the others ran a program");
    assert_eq!(server.stop(Duration::from_secs(5))?, Outcome::Drained);
    assert!(walls.attest()?.threads.is_empty());
    Ok(())
}

fn several(rule: &str, dir: &Path) -> Done {
    let bind = |name: &str| -> Result<_, Box<dyn Error>> {
        let path = dir.join("run").join(name);
        Ok(Listener::builder(path)?
            .policy(Policy::parse(rule)?)
            .bind()?)
    };
    let (a, b) = (bind("a")?, bind("b")?);
    let mut plan = Plan::new();
    a.join(&mut plan)?;
    b.join(&mut plan)?;
    let walls = sandbox::enter(plan)?;
    let dir = dir.to_owned();
    let a = Server::new(a.seal(&walls), move |peer: &Connection| answer(peer, &dir))?.spawn()?;
    let stops = a.handle();
    let b = Server::new(b.seal(&walls), move |mut peer: &Connection| {
        let mut line = String::new();
        BufReader::new(peer).read_line(&mut line)?;
        let line = line.trim_end();
        if line == "stop" {
            stops.stop(Duration::from_secs(5));
        }
        let back: String = line.chars().rev().collect();
        peer.write_all(format!("{back}\n").as_bytes())
    })?;
    stop_at_end_of_input(b.handle());
    assert_eq!(b.run()?, Outcome::Drained);
    assert_eq!(a.join()?, Outcome::Drained);
    Ok(())
}
