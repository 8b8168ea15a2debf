//! Each kind of abuse is recognised, told once with who does it, and penalised where
//! that is asked for.
#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use support::{Daemon, is_turned_away};

/// Gives `signs` signs of one kind, with its options, and looks for the one line.
#[track_caller]
fn check(kind: &str, signs: u32, options: &[&str], mut give: impl FnMut(&Daemon)) {
    if !support::is_root() {
        return support::skip("root");
    }
    let own = std::env::current_exe().unwrap();
    if secure_socket::peer::check_path(&own).is_err() {
        return support::skip("a path that only root writes");
    }
    // A rule on executables is what lets the server read whose program it is.
    let rule = format!("allow=uid:0,exe:{}", own.display());
    let (offence, bound) = (
        format!("penalty_for={kind}"),
        format!("denials_before_penalty={}", signs + 1),
    );
    let mut all = vec![
        rule.as_str(),
        &offence,
        &bound,
        "log_rate=0",
        "max_connections=400",
    ];
    all.extend(options);
    let mut daemon = Daemon::start(&all);
    for _ in 0..signs {
        give(&daemon);
    }
    let named = format!("pattern={kind} exe={}", own.display());
    daemon.wait_for_log(&named);
    let log = daemon.log();
    assert!(!log.contains("penalty for"), "not yet: {log}");
    let line = log.lines().find(|line| line.contains(&named)).unwrap();
    let who = format!("uid=0 gid=0 pid={} ", std::process::id());
    assert!(line.contains(&who), "{line}");
    give(&daemon);
    daemon.wait_for_log(&format!("penalty for uid=0 pid={}", std::process::id()));
    assert!(is_turned_away(&daemon.connect()), "under the penalty");
    let count = daemon.log().matches("pattern=").count();
    assert_eq!(count, 1, "told once:\n{}", daemon.log());
    assert_eq!(daemon.stop().code(), Some(0));
}

/// Waits for the end of a connection, whatever comes before it.
fn until_closed(mut stream: &UnixStream) {
    let mut room = [0; 4096];
    while stream.read(&mut room).is_ok_and(|count| count > 0) {}
}

#[test]
fn who_connects_and_vanishes() {
    check("vanished", 100, &[], |daemon| {
        let stream = daemon.connect();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        until_closed(&stream);
    });
}

#[test]
fn who_holds_connections_and_sends_nothing() {
    let options = ["first_byte_timeout=50ms"];
    check("slow_sender", 20, &options, |daemon| {
        until_closed(&daemon.connect());
    });
}

#[test]
fn who_says_nothing_to_the_broker() {
    let options = [
        "service=broker",
        "process_proof=no",
        "first_byte_timeout=50ms",
    ];
    let mut number = 0;
    // Of its greeting all but the last byte, or none.
    check("slow_sender", 20, &options, |daemon| {
        let mut stream = daemon.connect();
        number += 1;
        stream
            .write_all(&b"SSB1\0\x01\0\0\0\x10\0\0\0\0\0"[..number % 16])
            .unwrap();
        until_closed(&stream);
    });
}

#[test]
fn who_does_not_take_what_it_is_sent() {
    let options = ["write_timeout=50ms"];
    check("slow_reader", 5, &options, |daemon| {
        let mut stream = daemon.connect();
        let bytes = vec![7; 64 * 1024];
        while stream.write_all(&bytes).is_ok() {}
    });
}

#[test]
fn who_breaks_the_protocol() {
    let options = ["service=broker", "process_proof=no"];
    check("protocol", 5, &options, |daemon| {
        let mut stream = daemon.connect();
        stream.write_all(&[0xff; 64]).unwrap();
        until_closed(&stream);
    });
}

#[test]
fn who_floods() {
    let options = ["connection_rate_per_uid=1/1h"];
    let mut first = true;
    check("flood", 100, &options, |daemon| {
        // The first is served.
        if std::mem::take(&mut first) {
            until_closed(&{
                let stream = daemon.connect();
                stream.shutdown(std::net::Shutdown::Write).unwrap();
                stream
            });
        }
        assert!(is_turned_away(&daemon.connect()));
    });
}
