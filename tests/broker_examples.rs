//! The example clients in other languages, with each other and with the library's.
#![cfg(all(feature = "broker", feature = "client"))]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod broker_support;
#[path = "support/skip.rs"]
mod skipping;

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use broker_support::{Running, Scratch};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/broker")
}

fn has(program: &str) -> bool {
    let found = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok();
    if !found {
        skipping::skip(program);
    }
    found
}

struct Run(Child, BufReader<std::process::ChildStdout>);

fn start(client: &[&str], broker: &Running, arguments: [&str; 3]) -> Run {
    let mut child = Command::new(client[0])
        .args(&client[1..])
        .arg(&broker.path)
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    Run(child, output)
}

impl Run {
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn finish(mut self) -> String {
        let mut rest = String::new();
        self.1.read_to_string(&mut rest).unwrap();
        assert!(self.0.wait().unwrap().success(), "{rest}");
        rest.trim_end().to_owned()
    }
}

#[test]
fn clients_of_all_languages_understand_each_other() {
    if !has("python3") || !has("cc") {
        return;
    }
    let scratch = Scratch::new();
    let program = scratch.path().join("client");
    let compiled = Command::new("cc")
        .args(["-Wall", "-Wextra", "-Werror", "-O1", "-o"])
        .arg(&program)
        .arg(examples().join("client.c"))
        .status();
    assert!(compiled.unwrap().success());
    let script = examples().join("client.py");
    let python = ["python3", script.to_str().unwrap()];
    let c = [program.to_str().unwrap()];
    let clients: [&[&str]; 2] = [&python, &c];

    let broker = Running::default();
    for one in clients {
        for other in clients {
            let mut subscriber = start(one, &broker, ["subscribe", "news.*", "1"]);
            assert_eq!(subscriber.line(), "ready");
            start(other, &broker, ["publish", "news.today", "hello"]).finish();
            let seen = subscriber.finish();
            assert!(seen.ends_with("hello"), "{seen}");
            if one == python {
                assert!(seen.starts_with("news.today uid="), "{seen}");
            }
            let mut server = start(one, &broker, ["serve", "echo.>", "1"]);
            assert_eq!(server.line(), "ready");
            let answer = start(other, &broker, ["request", "echo.a.b", "what"]).finish();
            assert_eq!(answer.to_lowercase(), "what");
            server.finish();
        }
    }
}

#[test]
fn an_example_is_short() {
    for name in ["client.py", "client.c"] {
        let text = std::fs::read_to_string(examples().join(name)).unwrap();
        assert!(text.lines().count() < 100, "{name}");
    }
}
