//! Where the socket is, and who may reach its file.

use super::super::key::{Key, Kind, Preset};
use super::number;

pub(crate) static KEYS: &[Key] = &[
    Key::new("config", Kind::Text("path of a file"), Preset::Nothing)
        .help("A file of `option=value` lines with `#` comments and optional quotes. The command line wins over the file. It must be a regular file of at most 1M, owned by root or by who runs the program, and not writable by others. Only on the command line.")
        .example("/etc/secure_socket/secure_socket.conf"),
    Key::new("domain", Kind::Word(&["AF_UNIX", "AF_LOCAL", "AF_INET", "AF_INET6"]), Preset::Value("AF_UNIX"))
        .help("The address family. `AF_LOCAL` is another name for `AF_UNIX`.")
        .example("AF_UNIX"),
    Key::new("protocol", Kind::Word(&["SOCK_STREAM", "SOCK_SEQPACKET"]), Preset::Value("SOCK_STREAM"))
        .help("The socket type. `SOCK_SEQPACKET` only with `AF_UNIX`.")
        .example("SOCK_STREAM"),
    Key::new("socket_path", Kind::Text("an absolute path, or @name"), Preset::Follows("`secure_socket/secure_socket.sock` under `/run` for root, else under `$XDG_RUNTIME_DIR`, else `/tmp/secure_socket-UID/secure_socket.sock`"))
        .help("Path of the socket, absolute, or `@name` for Linux's abstract namespace, which has no owner and no mode. Its directory is made for it alone.")
        .example("/run/shop/shop.sock"),
    Key::new("socket_permissions", Kind::Text("an octal mode from 0000 to 0777"), Preset::Follows("`0600`; `0660` where a group or another user is authorised"))
        .help("Mode of the socket, exact whatever the umask. Bits for others draw a warning: then the policy alone keeps strangers out.")
        .example("0660"),
    Key::new("socket_group", Kind::Text("a group's name or gid"), Preset::Follows("the authorised group, else the primary group of the one authorised user"))
        .help("The group that owns the socket and may cross its directory.")
        .example("www-data"),
    Key::new("address", Kind::Text("an IP address"), Preset::Follows("`127.0.0.1`; `::1` for `AF_INET6`"))
        .help("Address to listen on, for the internet domains. One that is not loopback needs `expose=yes`.")
        .example("127.0.0.1"),
    Key::new("port", number(1, 65_535), Preset::Value("6666"))
        .help("Port to listen on, for the internet domains.")
        .example("6666"),
    Key::new("expose", Kind::YesNo, Preset::Value("no"))
        .help("Whether `address` may be one that other machines can reach; TCP peers have no credentials, only an address.")
        .example("yes"),
    Key::new("backlog", number(1, 65_535), Preset::Value("128"))
        .help("How many connections the kernel keeps waiting to be accepted, listen(2). The kernel caps it at `net.core.somaxconn`.")
        .example("512"),
];
