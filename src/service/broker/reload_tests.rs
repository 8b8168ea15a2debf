//! Reloads that take rights away while they are being used.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{Action, Broker, Identity, Limits, Permit, Permits, Port, Sink};
use crate::frame::{Decoder, Frame, FrameLimit, Pattern, Received, Side, Subject};
use crate::ids::Uid;
use crate::peer::{Fact, Facts};
use crate::policy::{Numeric, Rule};

/// A socket that takes everything and keeps it.
#[derive(Default)]
struct Kept(Mutex<Vec<u8>>);

impl Sink for Kept {
    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut kept = self.0.lock().unwrap();
        slices
            .iter()
            .for_each(|slice| kept.extend_from_slice(slice));
        Ok(slices.iter().map(|slice| slice.len()).sum())
    }

    fn wake(&self) {}
}

impl Kept {
    /// What was said last of each id.
    fn last_words(&self) -> HashMap<u64, String> {
        let mut decoder = Decoder::new(Side::Broker, FrameLimit::MAX);
        decoder.greeted();
        let mut last = HashMap::new();
        for part in self.0.lock().unwrap().chunks(1000) {
            decoder.push(part);
            for received in decoder.frames() {
                if let Received::Frame(frame) = received.unwrap() {
                    last.insert(frame.id(), frame.kind().to_string());
                }
            }
        }
        last
    }
}

fn join(broker: &Arc<Broker>, connection: u64, sink: &Arc<Kept>) -> Port {
    let identity = Identity {
        connection,
        uid: None,
        gid: None,
        pid: None,
        flags: 0,
    };
    let sink = Arc::clone(sink) as Arc<dyn Sink>;
    let facts = Facts::of(Fact::Unasked);
    broker.join(identity, facts, sink, FrameLimit::MAX)
}

/// Permits that leave nobody anything but to publish.
fn publish_only() -> Permits {
    let names = Numeric {
        own_user: Uid::ROOT,
    };
    let any = Rule::parse("any", &names).unwrap();
    let everything = Pattern::new(b">").unwrap();
    Permits::new(vec![Permit::new(Action::Publish, everything, any)])
}

/// So many things stay open; then the oldest are closed.
const KEPT: u64 = 32;

/// Opens one thing after the other until there is a reload, and one more; says how many.
fn open_until_reload(port: &mut Port) -> u64 {
    let pattern = Pattern::new(b"a.*").unwrap();
    let mut id = 0_u64;
    loop {
        let last = port.broker.reloads.load(Ordering::Acquire) > 0;
        let mut batch = port.batch(Instant::now());
        if let Some(oldest) = id.checked_sub(KEPT) {
            batch.frame(&Frame::Unsubscribe { id: oldest });
            batch.frame(&Frame::Unserve { id: oldest + 1 });
        }
        batch.frame(&Frame::Subscribe {
            id,
            pattern,
            drop_oldest: false,
        });
        batch.frame(&Frame::Serve {
            id: id + 1,
            pattern,
        });
        id += 2;
        if last {
            return id;
        }
    }
}

#[test]
fn what_is_opened_during_a_reload_is_ended_by_it_or_refused() {
    // Many more than there are processors: some are always held up between two steps.
    const PEERS: u64 = 12;
    let limits = Limits::default();
    for round in 0..150 {
        let broker = Broker::new(limits, Permits::default());
        let sinks: Vec<Arc<Kept>> = (0..PEERS).map(|_| Arc::default()).collect();
        let mut ports: Vec<Port> = (1..)
            .zip(&sinks)
            .map(|(n, s)| join(&broker, n, s))
            .collect();
        let opened: Vec<u64> = std::thread::scope(|scope| {
            let open = |port| scope.spawn(|| open_until_reload(port));
            let threads: Vec<_> = ports.iter_mut().map(open).collect();
            std::thread::sleep(Duration::from_micros(500));
            broker.reload(limits, publish_only());
            threads.into_iter().map(|one| one.join().unwrap()).collect()
        });
        let route = broker.routes.find(Subject::new(b"a.b").unwrap());
        let routed = (route.targets.len(), route.responders.len());
        assert_eq!(routed, (0, 0), "round {round}: left in the routes");
        let stats = broker.stats();
        let open = (stats.subscriptions, stats.registrations);
        assert_eq!(open, (0, 0), "round {round}: left open");
        for ((port, kept), opened) in ports.iter_mut().zip(&sinks).zip(opened) {
            port.writable();
            let last = kept.last_words();
            for id in opened.saturating_sub(KEPT)..opened {
                assert_eq!(last[&id], "ERROR", "round {round}: the last word on {id}");
            }
        }
    }
}
