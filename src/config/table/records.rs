//! The trail of decisions, and metrics.

use super::super::key::{Key, Kind, Preset};
use super::{K, T, number, size};

const RULE: Kind = Kind::Text("a rule such as user:prometheus");

pub(crate) static KEYS: &[Key] = &[
    Key::new("trail_file", Kind::Text("absolute path"), Preset::Nothing)
        .help("The tamper-evident trail: one JSON line for each decision, each with the SHA-256 of the line before. A decision that can't be recorded is a denial.")
        .example("/var/lib/secure_socket/trail.jsonl"),
    Key::new("trail_sync", Kind::Word(&["no", "batch", "each"]), Preset::Value("batch"))
        .help("When the trail is synced to the disk: `no`, after each `batch`, or after `each` line, before the decision takes effect.")
        .example("each"),
    Key::new("trail_max_size", size(64 * K, T), Preset::Value("64M"))
        .help("At this size the trail is rolled like a log; the chain goes on in the new file.")
        .example("256M"),
    Key::new("trail_keep", number(0, 100_000), Preset::Value("0"))
        .help("How many rolled files of the trail are kept, in the order of rolling, whatever the clock says. 0: all.")
        .example("52"),
    Key::new("metrics_socket", Kind::Text("an absolute path, or @name"), Preset::Nothing)
        .help("A second, equally protected socket that answers each connection with OpenMetrics text in an HTTP/1.0 response and closes; a request that prefers `text/plain`, as `curl -H 'Accept: text/plain'` for `promtool check metrics`, gets Prometheus' older text format.")
        .example("/run/secure_socket/metrics.sock"),
    Key::new("metrics_allow", RULE, Preset::Nothing)
        .live()
        .repeated()
        .help("Who may read the metrics. None given: only the server's own user.")
        .example("user:prometheus"),
    Key::new("metrics_deny", RULE, Preset::Nothing)
        .live()
        .repeated()
        .help("Who may not, whatever `metrics_allow` says.")
        .example("gid:100"),
    Key::new("metrics_permissions", Kind::Text("an octal mode from 0000 to 0777"), Preset::Follows("`0600`; `0660` where a group or another user is admitted"))
        .help("Mode of the metrics socket.")
        .example("0660"),
    Key::new("metrics_group", Kind::Text("a group's name or gid"), Preset::Follows("the admitted group, else the primary group of the one admitted user"))
        .help("The group that owns the metrics socket.")
        .example("prometheus"),
];
