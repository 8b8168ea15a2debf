//! Everything at once: publishers, quick and slow subscribers, requesters, responders
//! that die, on many threads, under each choice of threads. What each end has seen is
//! checked afterwards, and against what the others have seen.
//!
//! `BROKER_CONCURRENT=N` changes how many messages each publisher sends.
#![cfg(all(feature = "broker", feature = "client"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test"
)]

mod broker_support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use broker_support::{Running, loops, own_uid};
use secure_socket::client::{Client, Event, ServerIdentity, WhenSlow};
use secure_socket::frame::ErrorCode;
use secure_socket::server::Threads;
use secure_socket::service::broker::{Limits, Permits};

const PUBLISHERS: u64 = 4;
const REQUESTS: u64 = 1500;

fn messages() -> u64 {
    let given = std::env::var("BROKER_CONCURRENT").ok();
    given.and_then(|text| text.parse().ok()).unwrap_or(3000)
}

fn client(broker: &Running) -> Client {
    let patience = Duration::from_secs(60);
    Client::connect(&broker.path, &ServerIdentity::root_or_self(), patience).unwrap()
}

fn next(client: &mut Client) -> Event {
    let deadline = Instant::now() + Duration::from_secs(60);
    client.next(Some(deadline)).unwrap().expect("nothing comes")
}

/// Random numbers (xorshift64*), the same for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }
}

fn body(publisher: u64, number: u64, filling: u64) -> Vec<u8> {
    let mut bytes = publisher.to_be_bytes().to_vec();
    bytes.extend(number.to_be_bytes());
    bytes.resize(16 + filling as usize, number as u8);
    bytes
}

fn read(body: &[u8]) -> (u64, u64) {
    let number = |at: usize| u64::from_be_bytes(body[at..at + 8].try_into().unwrap());
    assert!(
        body[16..].iter().all(|byte| *byte == number(8) as u8),
        "mixed up"
    );
    (number(0), number(8))
}

/// Small messages mostly, some that are shared, some beyond a socket's buffer.
fn publish(mut client: Client, publisher: u64) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut dice = Dice(publisher + 77);
        for number in 0..messages() {
            let filling = match dice.below(200) {
                0 => 300_000,
                1..=4 => 9_000 + dice.below(9_000),
                5..=40 => dice.below(5_000),
                _ => dice.below(100),
            };
            let subject = match dice.below(3) {
                0 => String::from("all.news"),
                1 => format!("own.{publisher}"),
                _ => format!("own.{publisher}.deep"),
            };
            client
                .publish_later(&subject, &body(publisher, number, filling))
                .unwrap();
            match dice.below(50) {
                0 => client.sync().unwrap(),
                1..=9 => client.flush().unwrap(),
                _ => (),
            }
        }
        client.sync().unwrap();
    })
}

/// What one subscriber saw: place in the one order by publisher and number.
#[derive(Default)]
struct Seen {
    places: BTreeMap<(u64, u64), u64>,
    dropped: u64,
}

/// Subscribes to everything, in two patterns that don't overlap, and reads until it has
/// seen, or been told that it has missed, all that is published.
fn subscribe(mut client: Client, when_slow: WhenSlow, pause: u64) -> JoinHandle<Seen> {
    let all = client.subscribe("all.*", when_slow).unwrap();
    let own = client.subscribe("own.>", when_slow).unwrap();
    thread::spawn(move || {
        let mut dice = Dice(pause + 5);
        let mut seen = Seen::default();
        let mut last_place = 0;
        let mut last = BTreeMap::new();
        while (seen.places.len() as u64 + seen.dropped) < PUBLISHERS * messages() {
            if pause > 0 && dice.below(100) == 0 {
                thread::sleep(Duration::from_micros(dice.below(pause)));
            }
            match next(&mut client) {
                Event::Message {
                    id,
                    subject,
                    stamp,
                    body,
                } => {
                    assert_eq!(
                        id,
                        if subject.starts_with("all.") {
                            all
                        } else {
                            own
                        }
                    );
                    assert!(stamp.sequence > last_place, "the order goes back");
                    last_place = stamp.sequence;
                    let (publisher, number) = read(&body);
                    let before = last.insert(publisher, number);
                    assert!(before < Some(number), "{publisher}: {before:?}, {number}");
                    seen.places.insert((publisher, number), stamp.sequence);
                }
                Event::Gap { count, .. } => seen.dropped += count,
                other => panic!("{other:?}"),
            }
        }
        seen
    })
}

/// Asks `REQUESTS` times, up to eight at once; each must end once.
fn ask(mut client: Client, over: Arc<AtomicBool>) -> JoinHandle<[u64; 3]> {
    thread::spawn(move || {
        let mut open = BTreeMap::new();
        let mut ends = [0; 3];
        let mut asked = 0;
        while asked < REQUESTS || !open.is_empty() {
            if open.len() < 8 && asked < REQUESTS {
                let id = client.ask("work.now", &asked.to_be_bytes()).unwrap();
                assert!(open.insert(id, asked).is_none());
                asked += 1;
                continue;
            }
            let (id, end) = match next(&mut client) {
                Event::Answer { id, body, .. } => {
                    assert_eq!(body, open[&id].to_be_bytes(), "the answer to another");
                    (id, 0)
                }
                Event::Error { id, code, .. } => match code {
                    ErrorCode::Gone => (id, 1),
                    ErrorCode::NoResponder => (id, 2),
                    other => panic!("{other}"),
                },
                other => panic!("{other:?}"),
            };
            assert!(open.remove(&id).is_some(), "it ended twice");
            ends[end] += 1;
        }
        over.store(true, Ordering::Release);
        ends
    })
}

/// Answers; leaves now and then with requests open, and comes back.
fn respond(broker: &Running, seed: u64, over: &Arc<AtomicBool>) -> JoinHandle<()> {
    let (path, over) = (broker.path.clone(), Arc::clone(over));
    thread::spawn(move || {
        let mut dice = Dice(seed);
        while !over.load(Ordering::Acquire) {
            let patience = Duration::from_secs(60);
            let mut client =
                Client::connect(&path, &ServerIdentity::root_or_self(), patience).unwrap();
            client.serve("work.*").unwrap();
            let mut ids = BTreeSet::new();
            for _ in 0..dice.below(400) {
                let deadline = Instant::now() + Duration::from_millis(20);
                match client.next(Some(deadline)).unwrap() {
                    Some(Event::Deliver {
                        id, body, stamp, ..
                    }) => {
                        assert_eq!(stamp.uid, Some(own_uid()));
                        assert!(ids.insert(id), "a number comes again");
                        client.reply(id, &body).unwrap();
                    }
                    None if over.load(Ordering::Acquire) => return,
                    None => (),
                    Some(other) => panic!("{other:?}"),
                }
            }
        }
    })
}

#[test]
fn what_everybody_sees_at_once_fits_together() {
    for threads in [Threads::Multi, loops(1), loops(2)] {
        let limits = Limits {
            pending_bytes: 1 << 30,
            pending_bytes_per_uid: 1 << 31,
            ..Limits::default()
        };
        let broker = Running::new(threads, limits, Permits::default());
        let tight = Limits {
            pending_bytes: 400_000,
            ..limits
        };
        let subscribers: Vec<_> = [0, 50, 2000]
            .into_iter()
            .map(|pause| subscribe(client(&broker), WhenSlow::Disconnect, pause))
            .collect();
        // Bounds hold for those that join from now on.
        broker.broker.reload(tight, Permits::default());
        let droppers: Vec<_> = [500, 4000]
            .into_iter()
            .map(|pause| subscribe(client(&broker), WhenSlow::DropOldest, pause))
            .collect();
        let over = Arc::new(AtomicBool::new(false));
        let responders: Vec<_> = (1..4).map(|seed| respond(&broker, seed, &over)).collect();
        let asking: Vec<_> = (0..2)
            .map(|_| ask(client(&broker), Arc::clone(&over)))
            .collect();
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|number| publish(client(&broker), number))
            .collect();
        publishers.into_iter().for_each(|one| one.join().unwrap());
        let all = PUBLISHERS * messages();
        let mut places: BTreeMap<(u64, u64), u64> = BTreeMap::new();
        for (number, subscriber) in subscribers.into_iter().chain(droppers).enumerate() {
            let seen = subscriber.join().unwrap();
            let dropping = number >= 3;
            assert!(dropping || seen.dropped == 0);
            assert_eq!(
                seen.places.len() as u64 + seen.dropped,
                all,
                "lost in silence"
            );
            for (message, place) in seen.places {
                let known = *places.entry(message).or_insert(place);
                assert_eq!(known, place, "two places in the one order");
            }
        }
        let distinct: BTreeSet<_> = places.values().collect();
        assert_eq!(distinct.len(), places.len(), "one place for two messages");
        let mut ends = [0; 3];
        for one in asking {
            let of = one.join().unwrap();
            ends.iter_mut().zip(of).for_each(|(sum, one)| *sum += one);
        }
        assert_eq!(ends.iter().sum::<u64>(), 2 * REQUESTS);
        println!("{threads:?}: answered, gone, nobody: {ends:?}");
        responders.into_iter().for_each(|one| one.join().unwrap());
        broker.await_connections(0);
        assert_eq!(broker.broker.stats().pending_bytes, 0);
        assert_eq!(broker.broker.stats().requests, 0);
    }
}
