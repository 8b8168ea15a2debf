//! What an admitted peer gets: echo, relay or broker.

use std::time::Duration;

use super::super::key::{Key, Kind, Preset};
use super::{G, K, M, number, size, time_between};

pub(crate) static KEYS: &[Key] = &[
    Key::new("service", Kind::Word(&["echo", "relay", "broker"]), Preset::Value("echo"))
        .help("`echo` returns the bytes; `relay` joins the peer to `upstream`; `broker` passes messages and requests between peers.")
        .example("relay"),
    Key::new("upstream", Kind::Text("unix:/path or tcp:host:port"), Preset::Nothing)
        .repeated()
        .help("Where the relay connects to: `unix:/path`, `unix:@name`, `tcp:host:port`, `tcp:[::1]:port`. Given more than once: the first that is available, in this order. A host name is looked up at the start, and again after a failure.")
        .example("unix:/run/redis/redis.sock"),
    Key::new("upstream_identity", Kind::Word(&["own", "peer"]), Preset::Value("own"))
        .help("As whom the relay connects to its upstream: `own`, as itself; `peer`, with the peer's uid, gid and groups, so that the upstream's own peer authentication sees the real user. `peer` needs a unix upstream, CAP_SETUID and CAP_SETGID.")
        .example("peer"),
    Key::new("proxy_protocol", Kind::Word(&["off", "v2"]), Preset::Value("off"))
        .help("Whether the relay tells the upstream first who the peer is: `v2`, in a PROXY v2 header with its credentials; `off`, not at all.")
        .example("v2"),
    Key::new("relay_descriptors", number(0, 253), Preset::Value("0"))
        .help("How many descriptors the relay forwards with one message, over unix upstreams (Wayland, D-Bus). 0: none, and one that sends some is cut off.")
        .example("28"),
    Key::new("max_frame_size", size(K, 256 * M), Preset::Value("1M"))
        .help("Broker: the largest subject and body together.")
        .example("256K"),
    Key::new("broker_pending", size(4 * K, 16 * G), Preset::Value("8M"))
        .live()
        .help("Broker: bytes queued for one connection. Past it the subscriber is closed, or loses its oldest messages where it asked for that.")
        .example("32M"),
    Key::new("broker_pending_per_uid", size(4 * K, 64 * G), Preset::Value("16M"))
        .live()
        .help("Broker: bytes queued for all connections of one uid.")
        .example("64M"),
    Key::new("broker_subscriptions", number(1, 1_000_000), Preset::Value("256"))
        .live()
        .help("Broker: subscriptions and registrations of one connection.")
        .example("1000"),
    Key::new("broker_requests", number(1, 1_000_000), Preset::Value("1024"))
        .live()
        .help("Broker: requests of one connection that wait for their answer.")
        .example("100"),
    Key::new("request_timeout", time_between(1, Duration::from_secs(24 * 3600)), Preset::Value("30s"))
        .live()
        .help("Broker: a request that is not answered by then ends in an error.")
        .example("5s"),
    Key::new("permit", Kind::Text("publish|subscribe|request|serve PATTERN RULE"), Preset::Nothing)
        .live()
        .repeated()
        .help("Broker: who may do what with which subjects, as `publish|subscribe|request|serve PATTERN RULE`. None given: every admitted peer may do everything. One or more: what none permits is denied.")
        .example("publish orders.> user:shop"),
];
