//! The aims, held against a table: which were met, and by how much the others were missed.

use std::fmt::Write;

/// Who stands for the daemon: each of its choices of `threads=` has lines of its own.
const OURS: [&str; 3] = ["ss multi", "ss threads=2", "ss single"];
/// The least that a relay can be, by copying and by splice.
const LIMITS: [&str; 2] = ["C relay", "C relay splice"];
const PEERS: [&str; 3] = ["haproxy splice", "nginx stream", "socat"];

struct Aim {
    /// The figure's title.
    title: &'static str,
    /// Whether more is better.
    rate: bool,
    /// Of the best of the limits: at most so much of a time, at least of a rate.
    of_limit: f64,
}

const AIMS: [Aim; 9] = [
    aim("64 B x1, p50 us", false, 1.1),
    aim("bulk x1, MiB/s", true, 1.0),
    aim("bulk x4, MiB/s", true, 1.0),
    aim("connections x1, a second", true, 0.9),
    aim("connections x8, a second", true, 0.9),
    aim("redis-benchmark P 1 x1, GET/s", true, 0.9),
    aim("redis-benchmark P 1 x50, GET/s", true, 0.9),
    aim("redis-benchmark P 16 x1, GET/s", true, 0.9),
    aim("redis-benchmark P 16 x50, GET/s", true, 0.9),
];

const fn aim(title: &'static str, rate: bool, of_limit: f64) -> Aim {
    Aim {
        title,
        rate,
        of_limit,
    }
}

/// A page from the medians, which `median` knows by title and contestant.
pub fn page(median: impl Fn(&str, &str) -> Option<f64>) -> String {
    let mut text = String::from(
        "\n## Aims\n\nEach figure against the better of the two minimal C relays, with what is asked for, \
         and against the best of the peers, of which it is to be ahead.\n\n\
         | figure | ours | found | of the C relay | of the best peer | |\n|---|---|---|---|---|---|\n",
    );
    for aim in &AIMS {
        let best = |names: &[&str]| {
            let found = names.iter().filter_map(|name| median(aim.title, name));
            found.reduce(if aim.rate { f64::max } else { f64::min })
        };
        let (limit, peer) = (best(&LIMITS), best(&PEERS));
        for ours in OURS {
            if let Some(found) = median(aim.title, ours) {
                let _ = writeln!(text, "{}", line(aim, ours, found, limit, peer));
            }
        }
    }
    for (ours, most) in [("ss multi", 12.0), ("ss threads=2", 2.0)] {
        if let Some(found) = median("1000 idle, KiB each", ours) {
            let verdict = verdict(found <= most);
            let _ = writeln!(
                text,
                "| 1000 idle, KiB each | {ours} | {found:.1} (at most {most:.0}) | | | {verdict} |"
            );
        }
    }
    text
}

fn line(aim: &Aim, ours: &str, found: f64, limit: Option<f64>, peer: Option<f64>) -> String {
    let reaches = |ratio: f64, asked: f64| match aim.rate {
        true => ratio >= asked,
        false => ratio <= asked,
    };
    let of_limit = limit.map(|limit| found / limit);
    let of_peer = peer.map(|peer| found / peer);
    let met = of_limit.is_some_and(|ratio| reaches(ratio, aim.of_limit))
        && of_peer.is_some_and(|ratio| reaches(ratio, 1.0));
    let word = if aim.rate { "at least" } else { "at most" };
    let shown = |ratio: Option<f64>| ratio.map_or_else(|| "-".to_owned(), |r| format!("{r:.2}"));
    format!(
        "| {} | {ours} | {found:.0} | {} ({word} {}) | {} | {} |",
        aim.title,
        shown(of_limit),
        aim.of_limit,
        shown(of_peer),
        verdict(met)
    )
}

fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "**missed**" }
}
