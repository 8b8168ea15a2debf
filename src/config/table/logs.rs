//! What is logged, where to, and how files are rolled.

use super::super::key::{Key, Kind, Preset};
use super::{K, T, number, size, time};

pub(crate) static KEYS: &[Key] = &[
    Key::new("verbosity", Kind::Text("a number from 0 to 10, a level's name, or off"), Preset::Value("6"))
        .live()
        .help("0 fatal, 1 alert, 2 critical, 3 error, 4 warning, 5 notice, 6 info, 7 debug, 8 verbose, 9 trace, 10 wire; or `off`.")
        .example("7"),
    Key::new("verbosity_for", Kind::Text("MODULE:LEVEL"), Preset::Nothing)
        .live()
        .repeated()
        .help("Another level for one module and those below it.")
        .example("secure_socket::listener:9"),
    Key::new("log_target", Kind::Text("stdout, stderr, file, mq, remote, each with :LEVEL if wanted"), Preset::Follows("`stdout`; `file` if `log_file` is given; plus `mq` if `mq_name` and `remote` if `log_remote` is given"))
        .list()
        .help("Where lines go; each may have a level of its own.")
        .example("stdout:4,file:8"),
    Key::new("log_file", Kind::Text("absolute path"), Preset::Nothing)
        .help("The log file, 0600, locked, opened without following links. It is rolled in its directory, which `run_as_user` must be able to write: else it grows, and a warning says so.")
        .example("/var/log/secure_socket/secure_socket.log"),
    Key::new("log_max_size", size(4 * K, T), Preset::Value("10M"))
        .help("At this size the file is renamed and compressed.")
        .example("100M"),
    Key::new("log_max_age", time(), Preset::Value("0"))
        .help("At this age the file is rolled as well. 0: never for its age.")
        .example("24h"),
    Key::new("log_keep", number(0, 10_000), Preset::Value("7"))
        .help("How many compressed files are kept. Where the clock was set back, names of rolled files count on from the newest, so that their order is that of rolling.")
        .example("30"),
    Key::new("log_keep_bytes", size(0, 1024 * T), Preset::Value("0"))
        .help("How many bytes of compressed files are kept at most. 0: no such bound.")
        .example("1G"),
    Key::new("log_sync", Kind::YesNo, Preset::Value("no"))
        .help("fdatasync(2) after each batch of lines.")
        .example("yes"),
    Key::new("mq_name", Kind::Text("/name"), Preset::Value("/secure_socket_MQ"))
        .help("POSIX message queue for lines; giving it adds `mq` to the default of `log_target`.")
        .example("/secure_socket_MQ"),
    Key::new("log_remote", Kind::Text("udp:host:port, tcp:host:port or unix:/path"), Preset::Nothing)
        .help("Where `remote` sends to, as RFC 5424.")
        .example("tcp:127.0.0.1:514"),
    Key::new("log_format", Kind::Word(&["text", "json", "rfc5424"]), Preset::Value("text"))
        .help("Form of the lines.")
        .example("json"),
    Key::new("log_queue", number(16, 1_048_576), Preset::Value("8192"))
        .help("How many lines may wait for the writer. Memory for them, 256 to 512 bytes each, is taken at the start; of lines that are longer than 200 bytes fewer fit.")
        .example("65536"),
    Key::new("log_overflow", Kind::Word(&["drop", "block"]), Preset::Value("drop"))
        .help("With that queue full: `drop` counts and reports what it dropped, `block` waits.")
        .example("block"),
    Key::new("log_rate", number(0, 1_000_000), Preset::Value("10"))
        .live()
        .help("How many lines a second one place in the code may write about what peers cause; the rest are counted and summed up. 0: no such limit.")
        .example("100"),
];
