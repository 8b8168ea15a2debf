//! The broker beside others that pass messages between processes of one machine:
//! redis, nats-server, mosquitto, dbus-daemon, dbus-broker, and a minimal one in C
//! as the limit.
//!
//!     cargo bench --bench broker [-- ROUNDS [SECONDS [PART]]]
//!
//! Each row is measured ROUNDS times (5), for SECONDS (0.3) each, all systems in turn
//! in every round, each begun anew; PART measures only rows and systems whose name
//! contains it (`1:100`, `request`; several with commas). A whole run writes
//! `benches/broker/RESULTS.md`.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a benchmark"
)]

mod report;
mod shapes;
mod systems;

use std::path::PathBuf;
use std::time::Duration;

use report::{Cell, Row, Table};
use shapes::Shape;
use systems::{System, installed};

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    let number = |place: usize, default: f64| {
        let given = arguments.get(place).and_then(|text| text.parse().ok());
        given.unwrap_or(default)
    };
    let rounds = number(0, 5.0).max(1.0) as usize;
    let span = Duration::from_secs_f64(number(1, 0.3));
    let parts: Vec<&str> = arguments
        .get(2)
        .map_or(Vec::new(), |p| p.split(',').collect());
    let shapes: Vec<Shape> = Shape::all()
        .into_iter()
        .filter(|shape| report::is_wanted(&shape.to_string(), &parts, &report::SHAPE_WORDS))
        .collect();
    let mut systems = installed();
    systems.retain(|system| report::is_wanted(system.name(), &parts, &report::SYSTEM_WORDS));
    let mut table = Table::new(&systems, rounds, span);
    for shape in shapes {
        let mut cells: Vec<Cell> = systems.iter().map(|_| Cell::default()).collect();
        for round in 0..rounds {
            for turn in 0..systems.len() {
                // Another one begins in each round.
                let number = (turn + round) % systems.len();
                cells[number].add(measure(systems[number].as_ref(), shape, span));
            }
        }
        let row = Row { shape, cells };
        print!("{}", table.text(&row));
        table.rows.push(row);
    }
    if parts.is_empty() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/broker/RESULTS.md");
        std::fs::write(path, table.markdown()).unwrap();
        println!("written to {path}");
    }
}

fn measure(system: &dyn System, shape: Shape, span: Duration) -> shapes::Figures {
    let scratch = Scratch::new();
    let server = system.start(&scratch.0);
    shape.measure(system, &server, span)
}

/// A directory that goes with the measurement.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let path = PathBuf::from(format!("/tmp/ssb-bench-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
