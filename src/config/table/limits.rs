//! How many, how fast and for how long.

use std::time::Duration;

use super::super::key::{Key, Kind, Preset};
use super::{number, time, time_between};

pub(crate) static KEYS: &[Key] = &[
    Key::new("max_connections", number(1, 65_535), Preset::Value("200"))
        .live()
        .help("How many connections are open at once; it also bounds the worker pool, for which vm.max_map_count must have room.")
        .example("1000"),
    Key::new("threads", Kind::Text("multi, single, or a number from 1 to 1024"), Preset::Value("multi"))
        .help("`multi`: a bounded pool, one connection per worker; `single`: one thread accepts and serves all connections as they become ready; a number: so many such threads share them.")
        .example("single"),
    Key::new("overload", Kind::Word(&["wait", "refuse"]), Preset::Value("wait"))
        .help("At `max_connections`: `wait` leaves newcomers in the kernel's backlog, `refuse` accepts and closes them, counted and logged.")
        .example("refuse"),
    Key::new("first_byte_timeout", time(), Preset::Follows("`10s`; `0` for `relay`"))
        .live()
        .help("Counted from admission, until the first byte in either direction, for the broker until the greeting is whole; from a peer that has to prove itself, `proof_timeout` instead. 0 is none, here and below.")
        .example("3s"),
    Key::new("idle_timeout", time(), Preset::Value("0"))
        .live()
        .help("Close a connection on which nothing moved for so long.")
        .example("5m"),
    Key::new("connect_timeout", time(), Preset::Value("5s"))
        .live()
        .help("How long a connect to one upstream may take.")
        .example("500ms"),
    Key::new("write_timeout", time(), Preset::Value("10s"))
        .live()
        .help("Close a connection whose peer does not read for so long.")
        .example("30s"),
    Key::new("half_close_timeout", time(), Preset::Value("60s"))
        .live()
        .help("How long the other direction may go on after one has ended.")
        .example("10s"),
    Key::new("max_lifetime", time(), Preset::Value("0"))
        .live()
        .help("Close a connection of this age, whatever it does.")
        .example("8h"),
    Key::new("stop_timeout", time(), Preset::Value("10s"))
        .live()
        .help("How long a graceful stop waits for open connections. After it, what was logged is written, however slow a sink is; one that takes nothing for 5 s is given up, a disk that hangs after 10 s, and what they have not taken by then is lost and counted. A second TERM or INT leaves them 1 s, a disk that hangs 2 s.")
        .example("30s"),
    Key::new("max_connections_per_uid", number(1, 65_535), Preset::Follows("all of `max_connections` where the rules can admit only one uid, else half"))
        .live()
        .help("How many connections one user has open at once. One that waits for the check of its process counts as well.")
        .example("20"),
    Key::new("connection_rate_per_uid", Kind::Text("COUNT/TIME such as 50/1s, or 0"), Preset::Value("0"))
        .live()
        .help("A token bucket for each uid: so many new connections in such a time. 0: no such limit.")
        .example("50/1s"),
    Key::new("limit", Kind::Text("RULE:connections=N,rate=N/TIME"), Preset::Nothing)
        .live()
        .repeated()
        .help("Other limits for peers that meet the criteria of a rule, e.g. a busy service account: `RULE:connections=N,rate=N/TIME`, one of the two or both. The first that matches holds. What such rules ask for is learnt of everyone who is admitted. A process or an executable that one names must be there, as for `allow`: at the start or a reload without it all is refused.")
        .example("user:shop:connections=150,rate=500/1s"),
    Key::new("denials_before_penalty", number(0, 1_000_000), Preset::Value("5"))
        .live()
        .help("After so many offences within `penalty`, that uid (or process, where a rule tells the processes of that uid apart) is refused unread until it passes. 0: no penalties.")
        .example("20"),
    Key::new("penalty", time_between(0, Duration::from_secs(24 * 3600)), Preset::Value("60s"))
        .live()
        .help("How long a first penalty lasts; it doubles on repetition. 0: no penalties.")
        .example("10s"),
    Key::new("penalty_max", time_between(0, Duration::from_secs(30 * 24 * 3600)), Preset::Value("1h"))
        .live()
        .help("Where that doubling ends.")
        .example("10m"),
    Key::new("penalty_for", Kind::Word(OFFENCES), Preset::Value("denial,protocol"))
        .live()
        .list()
        .help("What counts as an offence: denials; floods of connections; slow senders and slow readers; protocol errors; those that connect and vanish. Whatever is not in the list is still counted and logged.")
        .example("denial,flood,slow_sender,slow_reader,protocol"),
    Key::new("penalty_rate", Kind::Text("COUNT/TIME such as 20000/1s, or 0"), Preset::Value("0"))
        .live()
        .help("How many connections of those under a penalty are turned away in such a time, `100/1s` or more. Who comes faster waits in the kernel's backlog, and leaves the processors to those who are connected. For sockets whose clients keep their connections: while such a flood lasts, newcomers wait behind all who are in the backlog and in connect(2), those who don't wait in connect get `EAGAIN`, and with the internet domains a newcomer who finds the backlog full tries again after a second. 0: as many as come.")
        .example("20000/1s"),
    Key::new("peers_remembered", number(16, 1_048_576), Preset::Value("8192"))
        .live()
        .help("How many users and processes without open connections are remembered, for their rates, denials and penalties.")
        .example("65536"),
];

/// The words of `penalty_for`: denials, and the codes of `admission::Abuse`.
pub(crate) const OFFENCES: &[&str] = &[
    "denial",
    "flood",
    "slow_sender",
    "slow_reader",
    "protocol",
    "vanished",
];
