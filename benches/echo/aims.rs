//! What the figures should be, as ratios in one run, and whether they are.

use super::contestants::{ACCEPTERS, OURS, PEERS};
use super::table::{Report, Series};

/// Within 5 % of the minimal C server, a thread for each connection.
pub fn round_trip(report: &mut Report, p50: &Series, p99: &Series, who: &str) {
    for (what, series) in [("p50", p50), ("p99", p99)] {
        let Some(ratio) = series.ratio("multi", "C thread") else {
            continue;
        };
        report.aim(
            &format!("64 B round trip {what}, {who}: at most 1.05 of the C server's"),
            &format!("{ratio:.2}"),
            ratio <= 1.05,
        );
    }
    ahead(
        report,
        p50,
        &format!("64 B round trip p50, {who}"),
        |ours, other| ours < other,
    );
}

/// Many busy connections: what the loops are for.
pub fn busy(report: &mut Report, rate: &Series) {
    let title = "50 busy clients, round trips a second";
    ahead(report, rate, title, |ours, other| ours > other);
}

/// At least 90 % of the fastest C server with the same check.
pub fn churn(report: &mut Report, series: &Series, clients: usize) {
    let limit = ACCEPTERS
        .into_iter()
        .filter_map(|name| Some((name, series.median(name)?)))
        .max_by(|one, other| one.1.total_cmp(&other.1));
    if let Some((limit, _)) = limit {
        let best = OURS
            .into_iter()
            .filter_map(|name| Some((series.ratio(name, limit)?, name)))
            .max_by(|one, other| one.0.total_cmp(&other.0));
        if let Some((ratio, name)) = best {
            report.aim(
                &format!(
                    "connections/s, {clients} clients: at least 0.90 of the fastest C server's"
                ),
                &format!("{ratio:.2} (threads={name}, {limit})"),
                ratio >= 0.9,
            );
        }
    }
    let title = format!("connections/s, {clients} clients");
    ahead(report, series, &title, |ours, other| ours > other);
}

/// Whether the best of ours is ahead of the best of the others.
fn ahead(report: &mut Report, series: &Series, title: &str, better: impl Fn(f64, f64) -> bool) {
    let best_of = |names: &[&'static str]| {
        let medians = names
            .iter()
            .filter_map(|name| Some((*name, series.median(name)?)));
        medians.reduce(|one, other| if better(other.1, one.1) { other } else { one })
    };
    let (Some(ours), Some(other)) = (best_of(&OURS), best_of(&PEERS)) else {
        return;
    };
    report.aim(
        &format!("{title}: ahead of all peers"),
        &format!(
            "threads={} {:.0}, {} {:.0}",
            ours.0, ours.1, other.0, other.1
        ),
        better(ours.1, other.1),
    );
}
