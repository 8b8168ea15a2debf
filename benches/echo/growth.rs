//! Cost as it grows: with the connections that are open, with the rules, and
//! with the users.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};

use super::Effort;
use super::contestants::start;
use super::idle;
use super::load;
use super::table::{Report, Series};

const CONNECTIONS: [usize; 5] = [1, 10, 100, 1_000, 10_000];
const RULES: [(usize, &str); 3] = [(1, "1 rule"), (10, "10 rules"), (1_000, "1,000 rules")];
const USERS: [(usize, &str); 3] = [(1, "1 user"), (10, "10 users"), (1_000, "1,000 users")];
/// The first uid of users that nobody is.
const FIRST_UID: u32 = 1_000_000;

/// What grows, and the options for so many of them.
type Kind<'k> = (&'k str, &'k dyn Fn(usize) -> Vec<String>);

pub fn measure(dir: &Path, effort: Effort, report: &mut Report) {
    report.heading("Cost as it grows");
    connections(dir, effort, report);
    rules(dir, effort, report);
    users(dir, effort, report);
}

/// One busy client while so many connections lie idle.
fn connections(dir: &Path, effort: Effort, report: &mut Report) {
    let names = ["C epoll", "multi", "2", "tokio"];
    let mut rows = CONNECTIONS.map(|_| [(); 2].map(|()| Series::new(&names)));
    // One after the other: together they would need more descriptors than there are.
    for name in names.into_iter().filter(|name| super::is_wanted(name)) {
        let Some(one) = start(name, dir, &idle::options(name)) else {
            continue;
        };
        let mut open: Vec<UnixStream> = Vec::new();
        for (count, series) in CONNECTIONS.into_iter().zip(&mut rows) {
            while open.len() < count {
                open.push(load::used_connection(&one.socket));
            }
            for _ in 0..effort.rounds {
                let [_, p50, _] = load::round_trips(&one.socket, 1, effort.span / 2);
                series[0].push(name, p50);
                let rate = load::connections(&one.socket, 1, effort.span / 2);
                series[1].push(name, rate);
                one.trim_log();
            }
        }
    }
    for (count, [p50, _]) in CONNECTIONS.iter().zip(&rows) {
        report.row(&format!("beside {count} idle: 64 B p50, us"), p50);
    }
    for (count, [_, rate]) in CONNECTIONS.iter().zip(&rows) {
        report.row(&format!("beside {count} idle: connections/s"), rate);
    }
}

/// So many rules, of which the last one matches; and one rule with so many uids.
fn rules(dir: &Path, effort: Effort, report: &mut Report) {
    let names = RULES.map(|(_, name)| name);
    let own = rustix::process::geteuid().as_raw();
    let strangers = |count: usize| (0..count as u32 - 1).map(|number| FIRST_UID + number);
    let each = |count| {
        let rules = strangers(count).chain([own]);
        rules.map(|uid| format!("allow=uid:{uid}")).collect()
    };
    let list = |count| {
        let uids: Vec<_> = strangers(count).chain([own]).collect();
        let uids: Vec<_> = uids.iter().map(ToString::to_string).collect();
        vec![format!("authorised_peer_uid={}", uids.join(","))]
    };
    let kinds: [Kind<'_>; 2] = [
        ("so many rules", &each),
        ("so many uids in one rule", &list),
    ];
    for (kind, options) in kinds {
        let all: Vec<_> = RULES
            .iter()
            .filter_map(|(count, name)| Some((*name, start("multi", dir, &options(*count))?)))
            .collect();
        let mut series = Series::new(&names);
        for _ in 0..effort.rounds {
            for (name, one) in &all {
                series.push(name, load::connections(&one.socket, 1, effort.span));
                one.trim_log();
            }
        }
        report.row(&format!("{kind}: connections/s"), &series);
    }
}

/// The users of one server, who come in turn.
fn users(dir: &Path, effort: Effort, report: &mut Report) {
    if !rustix::process::geteuid().is_root() {
        report.prose("Users: SKIPPED, only root can connect as others.");
        return;
    }
    let options = ["allow=any".to_owned(), "socket_permissions=0666".to_owned()];
    let Some(server) = start("multi", dir, &options) else {
        return;
    };
    // Nobody else could cross the directory: the socket is named by a descriptor.
    let held = rustix::fs::open(&server.socket, OFlags::PATH, Mode::empty()).unwrap();
    let path = format!("/proc/self/fd/{}", held.as_raw_fd());
    let mut series = Series::new(&USERS.map(|(_, name)| name));
    for _ in 0..effort.rounds {
        for (count, name) in USERS {
            series.push(name, as_users(&path, count as u32, effort.span));
            server.trim_log();
        }
    }
    report.row("so many users in turn: connections/s", &series);
}

fn as_users(path: &str, count: u32, span: Duration) -> f64 {
    let path = path.to_owned();
    let client = move || {
        let begin = Instant::now();
        let mut made = 0_u32;
        while begin.elapsed() < span {
            become_user(FIRST_UID + made % count);
            let mut stream = UnixStream::connect(&path).unwrap();
            become_user(0);
            stream.write_all(b"x").unwrap();
            stream.read_exact(&mut [0]).unwrap();
            made += 1;
        }
        f64::from(made) / begin.elapsed().as_secs_f64()
    };
    std::thread::spawn(client).join().unwrap()
}

/// Of this thread alone.
fn become_user(uid: u32) {
    let (uid, root) = (
        rustix::thread::Uid::from_raw(uid),
        rustix::thread::Uid::ROOT,
    );
    rustix::thread::set_thread_res_uid(root, uid, root).unwrap();
}
