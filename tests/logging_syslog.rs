//! rsyslogd receives every line over UDP and TCP and takes it apart; when it is
//! gone for a while, lines wait, and what is lost is stated.
#![cfg(feature = "logging")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod logging_support;
#[path = "support/skip.rs"]
mod skipping;

use logging_support::{Front, TempDir, start};
use secure_socket::logging::{Builder, Logger, RemoteSpec, SinkSpec};
use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A server of its own, on ports of its own.
struct Rsyslogd {
    directory: TempDir,
    udp: u16,
    tcp: u16,
    process: Option<Child>,
}

const CONFIGURATION: &str = r#"
global(workDirectory="DIR" maxMessageSize="128k" parser.escapeControlCharactersOnReceive="off")
module(load="imudp")
module(load="imtcp")
module(load="imuxsock" SysSock.Use="off")
input(type="imudp" address="127.0.0.1" port="UDP" ruleset="all")
input(type="imtcp" address="127.0.0.1" port="TCP" ruleset="all")
input(type="imuxsock" Socket="DIR/log.sock" RateLimit.Interval="0" ruleset="local")
template(name="parts" type="string"
  string="%pri%|%timereported:::date-rfc3339%|%hostname%|%app-name%|%procid%|%msgid%|%structured-data%|%msg%\n")
template(name="few" type="string" string="%pri%|%programname%|%procid%|%msg%\n")
ruleset(name="all") { action(type="omfile" file="DIR/received" template="parts") }
ruleset(name="local") { action(type="omfile" file="DIR/local" template="few") }
"#;

impl Rsyslogd {
    fn start() -> Option<Self> {
        if !Path::new("/usr/sbin/rsyslogd").exists() {
            skipping::skip("rsyslogd");
            return None;
        }
        let udp = UdpSocket::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let tcp = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let mut server = Self {
            directory: TempDir::new("rsyslog"),
            udp,
            tcp,
            process: None,
        };
        server.run();
        Some(server)
    }

    fn run(&mut self) {
        let directory = self.directory.path().to_str().unwrap();
        let configuration = CONFIGURATION
            .replace("DIR", directory)
            .replace("\"UDP\"", &format!("\"{}\"", self.udp))
            .replace("\"TCP\"", &format!("\"{}\"", self.tcp));
        fs::write(self.directory.join("conf"), configuration).unwrap();
        let child = Command::new("/usr/sbin/rsyslogd")
            .arg("-n")
            .arg("-f")
            .arg(self.directory.join("conf"))
            .arg("-i")
            .arg(self.directory.join("pid"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.process = Some(child);
        let begun = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", self.tcp)).is_err() {
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "rsyslogd does not start"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
        let _ = fs::remove_file(self.directory.join("pid"));
    }

    fn received(&self, file: &str) -> Vec<String> {
        let text = fs::read(self.directory.join(file)).unwrap_or_default();
        String::from_utf8(text)
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect()
    }

    /// What has come when a line with this part has, or after a while.
    fn wait_for(&self, file: &str, part: &str) -> Vec<String> {
        let begun = Instant::now();
        loop {
            let lines = self.received(file);
            if lines.iter().any(|line| line.contains(part)) {
                return lines;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "{part} has not come: {:?}",
                lines.last()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Rsyslogd {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.kill();
        }
    }
}

fn logger(remote: RemoteSpec) -> Logger {
    Builder::new()
        .app_name("ss test")
        .target(SinkSpec::Remote(remote))
        .build()
        .unwrap()
}

#[test]
fn every_line_arrives_and_is_taken_apart() {
    let Some(server) = Rsyslogd::start() else {
        return;
    };
    for (name, remote) in [
        ("udp", RemoteSpec::Udp(format!("localhost:{}", server.udp))),
        ("tcp", RemoteSpec::Tcp(format!("127.0.0.1:{}", server.tcp))),
    ] {
        let logger = logger(remote);
        let guard = start(&logger);
        let front = Front::of(&logger);
        for number in 0..1000 {
            front.info(&format!("{name} {number}."));
            if name == "udp" && number % 20 == 0 {
                // A datagram socket's buffer is small.
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        front.say(log::Level::Error, &format!("{name} a\nb<1>\x1b[31m."));
        assert!(guard.shutdown());
        let lines = server.wait_for("received", &format!("|{name} a"));
        let ours: Vec<_> = lines
            .iter()
            .filter(|l| l.contains(&format!("|{name} ")))
            .collect();
        assert_eq!(ours.len(), 1001, "{:?}", lines.last());
        for (number, line) in ours.iter().take(1000).enumerate() {
            let parts: Vec<&str> = line.splitn(8, '|').collect();
            assert_eq!(parts[0], "30");
            assert_eq!(parts[3], "sstest");
            assert_eq!(parts[4], std::process::id().to_string());
            assert!(parts[6].starts_with(&format!("[meta sequenceId=\"{}\"]", number + 1)));
            assert_eq!(parts[7], format!("{name} {number}."));
        }
        let last = ours[1000].splitn(8, '|').collect::<Vec<_>>();
        assert_eq!(
            (last[0], last[7]),
            ("27", &*format!("{name} a\\nb<1>\\x1b[31m."))
        );
    }
}

#[test]
fn lines_wait_while_a_tcp_server_is_gone_and_the_loss_is_stated() {
    let Some(mut server) = Rsyslogd::start() else {
        return;
    };
    let logger = logger(RemoteSpec::Tcp(format!("127.0.0.1:{}", server.tcp)));
    let guard = start(&logger);
    let front = Front::of(&logger);
    for number in 0..100 {
        front.info(&format!("before {number}."));
    }
    server.wait_for("received", "before 99.");
    server.kill();
    std::thread::sleep(Duration::from_millis(50));
    // More than the bound of what waits.
    let padding = "x".repeat(200);
    let sent = 10_000_u64;
    for number in 0..sent {
        front.info(&format!("during {padding} {number}."));
        if number % 500 == 0 {
            assert!(logger.flush(Duration::from_secs(5)));
        }
    }
    server.run();
    let lines = server.wait_for("received", ": lost ");
    front.info("after.");
    assert!(guard.shutdown());
    server.wait_for("received", "after.");
    let count = |part: &str| lines.iter().filter(|l| l.contains(part)).count() as u64;
    let lost: u64 = lines
        .iter()
        .filter_map(|line| {
            line.split_once(": lost ")?
                .1
                .split(' ')
                .next()?
                .parse::<u64>()
                .ok()
        })
        .sum();
    eprintln!(
        "{} arrived of {sent}, {lost} stated as lost",
        count("during ")
    );
    assert_eq!(count("before "), 100);
    assert_eq!(count("during ") + lost, sent);
}

#[test]
fn udp_lines_wait_while_the_server_is_gone() {
    let Some(mut server) = Rsyslogd::start() else {
        return;
    };
    let logger = logger(RemoteSpec::Udp(format!("127.0.0.1:{}", server.udp)));
    let guard = start(&logger);
    let front = Front::of(&logger);
    front.info("before.");
    server.wait_for("received", "before.");
    server.kill();
    for number in 0..100 {
        front.info(&format!("during {number}."));
    }
    assert!(logger.flush(Duration::from_secs(5)));
    server.run();
    let lines = server.wait_for("received", "during 99.");
    assert_eq!(
        lines.iter().filter(|line| line.contains("during ")).count(),
        100
    );
    drop(guard);
}

#[test]
fn a_local_socket_gets_what_syslog_writes() {
    let Some(server) = Rsyslogd::start() else {
        return;
    };
    let logger = logger(RemoteSpec::Unix(server.directory.join("log.sock")));
    let guard = start(&logger);
    let front = Front::of(&logger);
    for number in 0..200 {
        front.info(&format!("local {number}."));
    }
    assert!(guard.shutdown());
    let lines = server.wait_for("local", "local 199.");
    assert_eq!(lines.len(), 200);
    assert_eq!(
        lines[0],
        format!("30|sstest|{}| local 0.", std::process::id())
    );
}
