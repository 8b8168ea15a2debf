//! Who is admitted: the allow rule of the original's names, further rules, and
//! how processes are checked.

use std::time::Duration;

use super::super::key::{Key, Kind, Preset};
use super::{G, K, LONGEST, number, size, time_between};

const AUTO: Kind = Kind::Word(&["auto", "yes", "no"]);

const RULE: Kind = Kind::Text("a rule such as uid:33,exe:/usr/sbin/nginx");

pub(crate) static KEYS: &[Key] = &[
    Key::new("authorised_peer_username", Kind::Text("user names"), Preset::Nothing)
        .live()
        .list()
        .old(&["AUTHORISED_PEER_NAME", "AUTHORIZED_PEER_NAME"])
        .help("Admit these users. All `authorised_peer_*` options together are one allow rule: a peer must match one entry of every option that is given.")
        .example("www-data"),
    Key::new("authorised_peer_uid", number(0, 4_294_967_294), Preset::Nothing)
        .live()
        .list()
        .help("Admit these uids.")
        .example("33,1000"),
    Key::new("authorised_peer_groupname", Kind::Text("group names"), Preset::Nothing)
        .live()
        .list()
        .help("Admit members of these groups, primary or supplementary.")
        .example("shop"),
    Key::new("authorised_peer_gid", number(0, 4_294_967_294), Preset::Nothing)
        .live()
        .list()
        .help("Admit members of the groups with these gids.")
        .example("33"),
    Key::new("authorised_peer_pid", number(1, 2_147_483_647), Preset::Nothing)
        .live()
        .list()
        .help("Admit these processes, held by pidfd, so that a recycled pid does not match.")
        .example("812"),
    Key::new("authorised_peer_process_name", Kind::Text("process names"), Preset::Nothing)
        .live()
        .list()
        .help("Admit processes of these names (`comm`, 15 bytes). Any process can take any name: add a criterion that can't be forged.")
        .example("nginx"),
    Key::new("authorised_peer_cli_args", Kind::Text("command lines, arguments joined by spaces"), Preset::Nothing)
        .live()
        .list()
        .help("Admit processes with these whole command lines, arguments joined by spaces; a comma in one is written `\\,`. Any process can show any command line.")
        .example("nginx: worker process"),
    Key::new("authorised_peer_exe", Kind::Text("absolute paths"), Preset::Nothing)
        .live()
        .list()
        .help("Admit processes that run these executables, compared by device and inode. Each path and its parents must be writable by root only.")
        .example("/usr/sbin/nginx"),
    Key::new("authorised_peer_exe_sha256", Kind::Text("SHA-256 digests, 64 hexadecimal digits each"), Preset::Nothing)
        .live()
        .list()
        .help("Admit processes whose executable has one of these digests.")
        .example("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    Key::new("authorised_peer_label", Kind::Text("LSM labels"), Preset::Nothing)
        .live()
        .list()
        .help("Admit peers with these labels of the Linux security module (SELinux, AppArmor, Smack).")
        .example("system_u:system_r:httpd_t:s0"),
    Key::new("allow", RULE, Preset::Nothing)
        .live()
        .repeated()
        .help("A further rule that admits. A peer must meet all criteria of one rule; any one rule admits. No rule at all: only the server's own user.")
        .example("uid:33,exe:/usr/sbin/nginx"),
    Key::new("deny", RULE, Preset::Nothing)
        .live()
        .repeated()
        .help("A rule that refuses. It wins over every rule that admits.")
        .example("user:guest"),
    Key::new("process_proof", AUTO, Preset::Value("auto"))
        .help("Closes the gap between connect and check for rules, and permits of the broker, that name an executable: the server sends 16 random bytes and serves only after they came back from the same, still matching process; `auto` is yes for `broker`, and no for `echo` and `relay`, whose protocols have no room for it.")
        .example("yes"),
    Key::new("proof_timeout", time_between(100, Duration::from_secs(3600)), Preset::Value("5s"))
        .live()
        .help("How long the peer may take to send the proof back.")
        .example("2s"),
    Key::new("session_ends_with_peer", AUTO, Preset::Value("auto"))
        .live()
        .help("Close the connection when the authorised process exits, though a child may still hold it. If nobody does, what the process sent before is dealt with first, within `half_close_timeout`. `auto`: yes where the matching rule names a process.")
        .example("yes"),
    Key::new("process_check_interval", time_between(10, LONGEST), Preset::Value("1s"))
        .live()
        .help("How often an open connection's process is looked at again for an `execve` of another program, where the matching rule names an executable.")
        .example("250ms"),
    Key::new("process_check_parallel", number(1, 64), Preset::Value("2"))
        .help("How many executables are looked at and hashed at once.")
        .example("4"),
    Key::new("process_check_queue", number(0, 65_535), Preset::Value("64"))
        .help("How many peers may wait for such a check.")
        .example("256"),
    Key::new("process_check_overload", Kind::Word(&["wait", "deny"]), Preset::Value("wait"))
        .help("With that queue full: `wait` holds further peers back, `deny` refuses them.")
        .example("deny"),
    Key::new("process_check_timeout", time_between(10, Duration::from_secs(3600)), Preset::Value("10s"))
        .help("A check that takes longer denies the peer.")
        .example("2s"),
    Key::new("process_hash_max_size", size(4 * K, 16 * G), Preset::Value("512M"))
        .help("Executables larger than this are not hashed, and match no digest.")
        .example("64M"),
    Key::new("process_hash_cache", number(0, 65_536), Preset::Value("256"))
        .help("How many digests are remembered, by device, inode, size, mtime and ctime.")
        .example("1024"),
];
