//! The broker over sockets, under each choice of threads: slow readers, memory,
//! frames in pieces, the end, and the proof of the process.
#![cfg(all(feature = "broker", feature = "client"))]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test"
)]

mod broker_support;
#[path = "support/skip.rs"]
mod skipping;

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use broker_support::{Running, loops, own_uid};
use secure_socket::client::{Client, ClientError, Event, ServerIdentity, WhenSlow};
use secure_socket::frame::{
    Decoder, ErrorCode, Frame, FrameLimit, Greeting, Pattern, Received, Side, Stamp, Subject,
};
use secure_socket::peer::{Checker, CheckerConfig, Inspector, Pins};
use secure_socket::policy::{Numeric, Policy, Rule};
use secure_socket::server::{Outcome, Rules, Threads};
use secure_socket::service::broker::{Action, Broker, BrokerService, Limits, Permit, Permits};

fn every_choice() -> [Threads; 3] {
    [Threads::Multi, loops(1), loops(2)]
}

fn client(broker: &Running) -> Client {
    Client::connect(
        &broker.path,
        &ServerIdentity::root_or_self(),
        Duration::from_secs(10),
    )
    .unwrap()
}

fn next(client: &mut Client) -> Event {
    client
        .next(Some(Instant::now() + Duration::from_secs(10)))
        .unwrap()
        .unwrap()
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn ninety_get_everything_though_ten_never_read() {
    const MESSAGES: u64 = 6_000;
    for threads in every_choice() {
        let limits = Limits {
            pending_bytes: 1 << 20,
            ..Limits::default()
        };
        let broker = Running::new(threads, limits, Permits::default());
        let mut quick: Vec<Client> = (0..90).map(|_| client(&broker)).collect();
        let mut slow: Vec<Client> = (0..10).map(|_| client(&broker)).collect();
        for (number, client) in slow.iter_mut().enumerate() {
            let when_slow = match number % 2 {
                0 => WhenSlow::DropOldest,
                _ => WhenSlow::Disconnect,
            };
            client.subscribe("news.>", when_slow).unwrap();
        }
        for client in &mut quick {
            client.subscribe("news.>", WhenSlow::Disconnect).unwrap();
        }
        let before = resident_kib();
        let mut publisher = client(&broker);
        // Bounded by what the quick ones have seen, so that they never are slow.
        let slowest = Arc::new(AtomicU64::new(0));
        let told = Arc::clone(&slowest);
        let reader = thread::spawn(move || {
            let mut seen = vec![0; quick.len()];
            while seen.iter().any(|count| *count < MESSAGES) {
                for (client, seen) in quick.iter_mut().zip(&mut seen) {
                    while let Some(event) = client.next(Some(Instant::now())).unwrap() {
                        let Event::Message { body, .. } = event else {
                            panic!("{event:?}")
                        };
                        let number = u64::from_be_bytes(body[..8].try_into().unwrap());
                        assert_eq!(number, *seen, "lost or out of order");
                        *seen += 1;
                    }
                }
                told.store(*seen.iter().min().unwrap(), Ordering::Relaxed);
            }
        });
        let mut body = [0; 256];
        for number in 0..MESSAGES {
            body[..8].copy_from_slice(&number.to_be_bytes());
            publisher.publish_later("news.today", &body).unwrap();
            while number > slowest.load(Ordering::Relaxed) + 300 {
                publisher.flush().unwrap();
                thread::sleep(Duration::from_micros(200));
            }
        }
        publisher.flush().unwrap();
        reader.join().unwrap();
        let grown = resident_kib().saturating_sub(before) / 1024;
        // Ten queues of 1 MiB at most, and what their readers hold; and whatever the other
        // tests of this process take meanwhile.
        assert!(grown < 128, "grown by {grown} MiB");
        for (number, client) in slow.iter_mut().enumerate() {
            let (mut seen, mut dropped, mut error) = (0, 0, None);
            while seen + dropped < MESSAGES && error.is_none() {
                match next(client) {
                    Event::Message { .. } => seen += 1,
                    Event::Gap { count, .. } => dropped += count,
                    Event::Error { code, text, .. } => error = Some((code, text)),
                    other => panic!("{other:?}"),
                }
            }
            if number % 2 == 0 {
                assert_eq!(error, None);
                assert_eq!(seen + dropped, MESSAGES, "lost in silence");
                assert!(dropped > 0);
            } else {
                let (code, text) = error.unwrap();
                assert_eq!(code, ErrorCode::Quota);
                assert!(text.contains("broker_pending"), "{text}");
                assert!(dropped > 0 && seen + dropped < MESSAGES);
            }
        }
    }
}

/// Bytes by hand.
struct Raw(UnixStream, Decoder);

impl Raw {
    fn connect(broker: &Running) -> Self {
        let stream = UnixStream::connect(&broker.path).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        Self(stream, Decoder::new(Side::Broker, FrameLimit::MAX))
    }

    fn greeted(broker: &Running) -> Self {
        let mut raw = Self::connect(broker);
        raw.0
            .write_all(
                &Greeting {
                    accepts: FrameLimit::DEFAULT,
                }
                .encode(),
            )
            .unwrap();
        raw
    }

    /// Everything until the end, as text without the greeting.
    fn read(&mut self, wanted: usize) -> Vec<String> {
        let mut found = Vec::new();
        while found.len() < wanted {
            match self.0.read(self.1.space()) {
                Ok(0) => break,
                Ok(count) => self.1.filled(count),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
                Err(error) => panic!("{error} after {found:?}"),
            }
            for item in self.1.frames() {
                match item.unwrap() {
                    Received::Frame(frame) => found.push(format!("{frame:?}")),
                    Received::Greeting(_) => (),
                    other => panic!("{other:?}"),
                }
            }
        }
        found
    }
}

fn bytes(frames: &[Frame<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    frames.iter().for_each(|frame| frame.encode(&mut out));
    out
}

#[test]
fn frames_may_be_cut_at_every_byte() {
    for threads in every_choice() {
        let broker = Running::new(threads, Limits::default(), Permits::default());
        let mut other = client(&broker);
        other.subscribe("a.b", WhenSlow::Disconnect).unwrap();
        let subject = Subject::new(b"a.b").unwrap();
        let mut all = Greeting {
            accepts: FrameLimit::DEFAULT,
        }
        .encode()
        .to_vec();
        all.extend(bytes(&[
            Frame::Publish {
                id: 1,
                subject,
                body: b"body",
            },
            Frame::Ping { id: 2, body: b"x" },
        ]));
        for cut in 1..all.len() {
            let mut raw = Raw::connect(&broker);
            raw.0.write_all(&all[..cut]).unwrap();
            if cut % 8 == 0 {
                thread::sleep(Duration::from_millis(1));
            }
            raw.0.write_all(&all[cut..]).unwrap();
            let got = raw.read(2);
            assert_eq!(
                got,
                ["Ok { id: 1 }", "Pong { id: 2, body: [120] }"],
                "cut at {cut}"
            );
            assert!(matches!(next(&mut other), Event::Message { body, .. } if body == b"body"));
        }
    }
}

#[test]
fn a_violation_is_answered_and_closes() {
    let broker = Running::default();
    let stamp = Stamp {
        connection: 1,
        sequence: 1,
        uid: None,
        gid: None,
        pid: None,
        flags: 0,
    };
    let subject = Subject::new(b"a").unwrap();
    let forged = [
        Frame::Message {
            id: 1,
            subject,
            stamp,
            body: b"",
        },
        Frame::Deliver {
            id: 1,
            subject,
            stamp,
            body: b"",
        },
        Frame::Answer {
            id: 1,
            stamp,
            body: b"",
        },
        Frame::Ok { id: 1 },
        Frame::Error {
            id: 1,
            code: ErrorCode::Gone,
            text: "",
        },
        Frame::Gap { id: 1, count: 1 },
        Frame::GoAway { millis: 1 },
        Frame::Challenge { nonce: [0; 16] },
        // Nobody asked for it.
        Frame::Proof { nonce: [0; 16] },
    ];
    for frame in forged {
        let mut raw = Raw::greeted(&broker);
        raw.0
            .write_all(&bytes(&[Frame::Ping { id: 7, body: &[] }, frame]))
            .unwrap();
        let got = raw.read(9);
        assert_eq!(got.len(), 2, "{got:?}");
        assert!(
            got[1].starts_with("Error { id: 0, code: Protocol"),
            "{got:?}"
        );
    }
    for junk in [
        &b"GET / HTTP/1.0\r\n\r\n"[..],
        &[0xff; 64],
        b"SSB1\0\x02\0\0\0\x10\0\0\0\0\0\0",
    ] {
        let mut raw = Raw::connect(&broker);
        raw.0.write_all(junk).unwrap();
        let got = raw.read(9);
        assert!(
            got[0].starts_with("Error { id: 0, code: Protocol"),
            "{got:?}"
        );
        assert_eq!(got.len(), 1);
    }
    broker.await_connections(0);
}

#[test]
fn a_frame_beyond_the_limit_is_refused_and_passed_over() {
    let broker = Running::default();
    let subject = Subject::new(b"a").unwrap();
    let mut raw = Raw::greeted(&broker);
    let most = (1 << 20) - 1;
    for (body, expect) in [
        (most, "Ok { id: 5 }"),
        (most + 1, "Error { id: 5, code: TooLarge"),
    ] {
        let frame = Frame::Publish {
            id: 5,
            subject,
            body: &vec![0; body],
        };
        raw.0.write_all(&bytes(&[frame])).unwrap();
        let got = raw.read(1);
        assert!(got[0].starts_with(expect), "{body}: {got:?}");
    }
    raw.0
        .write_all(&bytes(&[Frame::Ping { id: 6, body: &[] }]))
        .unwrap();
    assert_eq!(raw.read(1), ["Pong { id: 6, body: [] }"]);
}

#[test]
fn when_it_stops_open_requests_still_end() {
    for threads in every_choice() {
        let broker = Running::new(threads, Limits::default(), Permits::default());
        let (mut asker, mut server, mut idle) = (client(&broker), client(&broker), client(&broker));
        // One that has not even greeted must not hold anything up.
        let silent = UnixStream::connect(&broker.path).unwrap();
        server.serve("s").unwrap();
        let id = asker.ask("s", b"?").unwrap();
        let Event::Deliver { id: number, .. } = next(&mut server) else {
            panic!()
        };
        let begin = Instant::now();
        let stopping = thread::spawn(move || broker.stop(Duration::from_secs(20)));
        for (n, client) in [&mut asker, &mut server, &mut idle].into_iter().enumerate() {
            eprintln!("{threads:?} {n} {:?}", begin.elapsed());
            let event = next(client);
            let is_told = matches!(
                event,
                Event::GoAway {
                    millis: 15_000..=20_000
                }
            );
            assert!(is_told, "{event:?}");
        }
        assert!(matches!(idle.next(None), Err(ClientError::Closed)));
        let refused = asker.publish_confirmed("a", b"").unwrap_err();
        assert!(matches!(
            refused,
            ClientError::Refused {
                code: ErrorCode::Stopping,
                ..
            }
        ));
        server.reply(number, b"!").unwrap();
        assert!(
            matches!(next(&mut asker), Event::Answer { id: of, body, .. } if of == id && body == b"!")
        );
        for client in [&mut asker, &mut server] {
            assert!(matches!(client.next(None), Err(ClientError::Closed)));
        }
        assert_eq!(stopping.join().unwrap(), Outcome::Drained);
        assert!(
            begin.elapsed() < Duration::from_secs(10),
            "{:?}",
            begin.elapsed()
        );
        drop(silent);
    }
}

/// A broker that admits only processes that run `program`.
fn for_program(threads: Threads, program: &Path) -> Running {
    let names = Numeric {
        own_user: own_uid(),
    };
    let rule = Rule::parse(&format!("exe:{}", program.display()), &names).unwrap();
    let policy = Policy::new(vec![rule], Vec::new(), own_uid());
    proving(threads, policy, Permits::default())
}

/// A broker that admits whoever is of this user. Those who run `program` may publish `a`,
/// all may publish `all`, and nobody may what another user's process of this program might.
fn permitting(threads: Threads, program: &Path) -> Running {
    let names = Numeric {
        own_user: own_uid(),
    };
    let rule = |text: &str| Rule::parse(text, &names).unwrap();
    let permit = |action, pattern: &str, text: &str| {
        Permit::new(
            action,
            Pattern::new(pattern.as_bytes()).unwrap(),
            rule(text),
        )
    };
    let permits = Permits::new(vec![
        permit(
            Action::Publish,
            "a",
            &format!("uid:4294967294|exe:{}", program.display()),
        ),
        permit(Action::Publish, "all", "uid:self"),
        permit(
            Action::Publish,
            "others",
            &format!("uid:4294967294,exe:{}", own_program().display()),
        ),
    ]);
    let policy = Policy::new(vec![rule("uid:self")], Vec::new(), own_uid());
    let policy = policy.also_learning_for(permits.rules().cloned().collect());
    proving(threads, policy, permits)
}

fn own_program() -> PathBuf {
    std::env::current_exe().unwrap()
}

fn proving(threads: Threads, policy: Policy, permits: Permits) -> Running {
    let pins = Pins::open(&policy.exe_paths(), &policy.pids(), None).unwrap();
    let checker = Checker::start(CheckerConfig::default()).unwrap();
    let mut rules = Rules::new(policy);
    rules.inspector = Inspector::new(pins, Some(checker));
    let broker = Broker::new(Limits::default(), permits);
    let service = BrokerService::new(broker).with_proof(rules.inspector.clone());
    Running::with(threads, service, rules)
}

#[test]
fn a_program_proves_that_it_is_still_the_one_that_connected() {
    let program = std::env::current_exe().unwrap();
    if secure_socket::peer::check_path(&program).is_err() {
        return skipping::skip("a path that only root writes");
    }
    for threads in every_choice() {
        let broker = for_program(threads, &program);
        // The library's client answers the challenge by itself.
        let (mut one, mut two) = (client(&broker), client(&broker));
        two.subscribe("a", WhenSlow::Disconnect).unwrap();
        one.publish("a", b"x").unwrap();
        let Event::Message { stamp, .. } = next(&mut two) else {
            panic!()
        };
        assert_eq!(stamp.flags, Stamp::PIDFD_HELD | Stamp::EXE_CHECKED);

        // Nothing is served before the proof, and a wrong one closes.
        let subject = Subject::new(b"a").unwrap();
        for (frame, answer) in [
            (
                Frame::Publish {
                    id: 1,
                    subject,
                    body: b"early",
                },
                "Error { id: 0, code: Protocol",
            ),
            (Frame::Proof { nonce: [0; 16] }, ""),
        ] {
            let mut raw = Raw::greeted(&broker);
            raw.0.write_all(&bytes(&[frame])).unwrap();
            let got = raw.read(9);
            assert!(got[0].starts_with("Challenge"), "{got:?}");
            assert_eq!(got.len(), if answer.is_empty() { 1 } else { 2 }, "{got:?}");
            assert!(got.last().unwrap().starts_with(answer), "{got:?}");
        }
    }
}

#[test]
fn the_proof_of_another_process_is_refused() {
    let program = std::env::current_exe().unwrap();
    if secure_socket::peer::check_path(&program).is_err() {
        return;
    }
    let broker = for_program(Threads::Multi, &program);
    let mut raw = Raw::greeted(&broker);
    let mut head = [0; 48];
    raw.0.read_exact(&mut head).unwrap();
    // Right bytes, but a child sends them, through the descriptor that it kept.
    let nonce: [u8; 16] = head[32..].try_into().unwrap();
    let proof = bytes(&[Frame::Proof { nonce }]);
    let file: std::os::fd::OwnedFd = raw.0.try_clone().unwrap().into();
    let mut child = std::process::Command::new("cat")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::from(file))
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&proof).unwrap();
    child.wait().unwrap();
    assert_eq!(raw.0.read(&mut head).unwrap_or(0), 0, "it was served");
}

/// As a process does that connects, forks, and runs the permitted program in the parent:
/// whoever looks sees that program, and the child speaks.
#[test]
fn a_permit_for_a_program_is_no_permit_for_who_holds_its_socket() {
    let program = std::env::current_exe().unwrap();
    if secure_socket::peer::check_path(&program).is_err() {
        return;
    }
    for threads in every_choice() {
        let broker = permitting(threads, &program);
        // The program itself proves what it is, and publishes.
        let mut honest = client(&broker);
        honest.publish_confirmed("a", b"x").unwrap();

        let mut held = Raw::connect(&broker);
        let greeting = Greeting {
            accepts: FrameLimit::DEFAULT,
        };
        let mut words = greeting.encode().to_vec();
        words.extend(bytes(&[Frame::Publish {
            id: 7,
            subject: Subject::new(b"a").unwrap(),
            body: b"forged",
        }]));
        let file: std::os::fd::OwnedFd = held.0.try_clone().unwrap().into();
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::from(file))
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&words).unwrap();
        child.wait().unwrap();
        let got = held.read(9);
        assert!(got[0].starts_with("Challenge"), "{got:?}");
        assert!(
            got[1].starts_with("Error { id: 0, code: Protocol"),
            "{got:?}"
        );
        assert_eq!(got.len(), 2, "{got:?}");
    }
}

#[test]
fn who_holds_no_permit_for_what_it_runs_proves_nothing() {
    let other = Path::new("/bin/cat").canonicalize().unwrap();
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let broker = permitting(Threads::Multi, &other);
    let mut raw = Raw::greeted(&broker);
    let publish = |id, subject: &'static [u8]| Frame::Publish {
        id,
        subject: Subject::new(subject).unwrap(),
        body: b"x",
    };
    let asked = bytes(&[publish(1, b"all"), publish(2, b"a")]);
    raw.0.write_all(&asked).unwrap();
    let got = raw.read(2);
    assert!(got[0].starts_with("Ok { id: 1"), "{got:?}");
    assert!(got[1].starts_with("Error { id: 2, code: Denied"), "{got:?}");

    // A reload names its program: it was read, but not proved by this connection.
    let names = Numeric {
        own_user: own_uid(),
    };
    let rule = format!("exe:{}", own_program().display());
    let rule = Rule::parse(&rule, &names).unwrap();
    let permit = Permit::new(Action::Publish, Pattern::new(b"a").unwrap(), rule);
    broker
        .broker
        .reload(Limits::default(), Permits::new(vec![permit]));
    raw.0.write_all(&bytes(&[publish(3, b"a")])).unwrap();
    let got = raw.read(1);
    assert!(got[0].starts_with("Error { id: 3, code: Denied"), "{got:?}");
}
