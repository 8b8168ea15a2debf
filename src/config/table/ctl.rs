//! The options of `secure_socketctl`.

use std::time::Duration;

use super::super::key::{Key, Kind, Preset};
use super::{K, M, number, size, time, time_between};

const SOCKET_PATH: &str = "that of the daemon: `secure_socket/secure_socket.sock` under `/run` for root, else under `$XDG_RUNTIME_DIR`, else `/tmp/secure_socket-UID/secure_socket.sock`";

pub(crate) static SERVER: &[Key] = &[
    Key::new("socket_path", Kind::Text("an absolute path, or @name"), Preset::Follows(SOCKET_PATH))
        .help("The socket to connect to.")
        .example("/run/shop/shop.sock"),
    Key::new("protocol", Kind::Word(&["SOCK_STREAM", "SOCK_SEQPACKET"]), Preset::Value("SOCK_STREAM"))
        .help("Its type.")
        .example("SOCK_STREAM"),
    Key::new("server", Kind::Text("a rule such as user:shop or uid:0,exe:/usr/sbin/secure_socket"), Preset::Value("uid:0|uid:self"))
        .help("Whom the server must be. Nothing is sent to one that does not match: root or the own user if nothing is given.")
        .example("user:shop"),
    Key::new("process_proof", Kind::YesNo, Preset::Value("no"))
        .help("Send back the 16 bytes by which a server with `process_proof=yes` makes sure that this is still the process that connected. With the broker that happens anyway.")
        .example("yes"),
    Key::new("connect_timeout", time(), Preset::Value("5s"))
        .help("How long connecting may take. 0 is without end.")
        .example("1s"),
];

pub(crate) static MESSAGES: &[Key] = &[
    Key::new("framing", Kind::Word(&["lines", "length"]), Preset::Value("lines"))
        .help("How messages are told apart on stdin and stdout: `lines`, or `length`: 4 bytes big-endian, then the message.")
        .example("length"),
    Key::new("json", Kind::YesNo, Preset::Value("no"))
        .help("One JSON object for each message, with its subject and the sender's stamp. `--json` is the same as `json=yes`.")
        .example("yes"),
    Key::new("count", number(0, 4_294_967_295), Preset::Value("0"))
        .help("End after so many messages. 0: never.")
        .example("1"),
    Key::new("drop_oldest", Kind::YesNo, Preset::Value("no"))
        .help("As a slow subscriber, lose the oldest messages instead of the connection.")
        .example("yes"),
    Key::new("confirm", Kind::YesNo, Preset::Value("yes"))
        .help("Ask the broker to confirm each message that is published, and fail if it does not.")
        .example("no"),
    Key::new("request_timeout", time(), Preset::Value("30s"))
        .help("How long to wait for the answer to a request. 0 is without end.")
        .example("5s"),
    Key::new("max_frame_size", size(K, 256 * M), Preset::Value("1M"))
        .help("The largest message that is sent or accepted.")
        .example("256K"),
];

pub(crate) static ANSWERS: &[Key] = &[
    Key::new("respond_parallel", number(1, 1024), Preset::Value("4"))
        .help("How many commands run at once.")
        .example("1"),
    Key::new(
        "respond_timeout",
        time_between(1, Duration::from_secs(24 * 3600)),
        Preset::Value("30s"),
    )
    .help("A command that runs longer is killed with its process group, and its request ends without an answer.")
    .example("5s"),
];

pub(crate) static RECORDS: &[Key] = &[
    Key::new("mq_name", Kind::Text("/name"), Preset::Value("/secure_socket_MQ"))
        .help("The POSIX message queue that `mqcat` follows.")
        .example("/secure_socket_MQ"),
    Key::new("head", Kind::Text("SEQUENCE:SHA256"), Preset::Nothing)
        .repeated()
        .help("A line of the trail that must be there, by number and digest, as the log named it. Without one, a trail whose end was cut off, or that was written anew, still verifies. One that starts after the last head that is given is refused, as nothing vouches for it.")
        .example("812:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
];
