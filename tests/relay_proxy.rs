//! Who the peer is, told by PROXY v2: to the library's own parser, to haproxy
//! and to nginx.
#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod relay_support;
mod support;

use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::thread;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};

use relay_support::{CLIENT, Upstream, client, relay_to};
use secure_socket::service::relay::proxy::{Endpoints, Header, ParseError, parse};
use support::{TempDir, as_user, copy_program, set_mode};

/// Reads one header as an upstream does; gives it with what followed.
fn introduced(listener: &UnixListener) -> (Header, Vec<u8>) {
    let (mut stream, _) = listener.accept().unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    stream.write_all(b"served").unwrap();
    match parse(&bytes) {
        Ok((header, length)) => (header, bytes[length..].to_vec()),
        Err(ParseError::Incomplete(needed)) => panic!("{needed} bytes wanted of {}", bytes.len()),
        Err(error) => panic!("{error}"),
    }
}

fn number(program: &str, arguments: &[&str]) -> u32 {
    let output = Command::new(program).args(arguments).output().unwrap();
    String::from_utf8_lossy(&output.stdout)
        .trim()
        .parse()
        .unwrap()
}

#[test]
fn the_upstream_is_told_what_the_kernel_vouched_for() {
    needs!(root, "socat");
    let dir = TempDir::new();
    let socket = dir.join("upstream");
    let listener = UnixListener::bind(&socket).unwrap();
    let (uid, gid) = (number("id", &["-u", CLIENT]), number("id", &["-g", CLIENT]));
    for threads in ["threads=multi", "threads=2"] {
        let relay = relay_to(&socket, &["proxy_protocol=v2", threads]);
        let connect = format!("UNIX-CONNECT:{}", relay.socket.display());
        let script = format!("printf question | socat -t 5 - {connect}");
        let asking = thread::spawn(move || client("sh", &["-c", &script]));
        let (header, rest) = introduced(&listener);
        assert_eq!(rest, b"question");
        assert_eq!(asking.join().unwrap(), "served");
        let Endpoints::Unix {
            source,
            destination,
            ..
        } = &header.endpoints
        else {
            panic!("{header:?}");
        };
        assert_eq!(source.as_bytes(), b"");
        assert_eq!(
            destination.as_bytes(),
            relay.socket.to_str().unwrap().as_bytes()
        );
        let vouched = &header.vouched;
        assert_eq!(vouched.uid.map(|id| id.as_raw()), Some(uid));
        assert_eq!(vouched.gid.map(|id| id.as_raw()), Some(gid));
        assert!(vouched.pid.is_some());
        assert_eq!(
            (vouched.groups.as_deref(), vouched.rule),
            (Some(&[][..]), Some(1))
        );
        drop(relay);
    }
}

/// What `/proc/PID/exe` shows is a name in the peer's mount namespace, which any user
/// may arrange (user_namespaces(7)): here one program runs under the name of another.
#[test]
fn the_upstream_is_told_the_path_of_the_rule_and_none_that_the_peer_chose() {
    needs!(root, "socat", "unshare", "setpriv");
    // Only root may write what a rule names, and what leads there.
    let dir = format!("/var/lib/secure_socket-told-{}", std::process::id());
    let dir = Path::new(&dir);
    fs::create_dir(dir).unwrap();
    let told = std::panic::catch_unwind(|| {
        let copies = ["report", "backup", "other"].map(|name| {
            let copy = dir.join(name);
            copy_program("/usr/bin/socat", &copy);
            copy
        });
        let [report, backup, other] = copies.each_ref().map(|path| path.display().to_string());
        let sockets = TempDir::new();
        let upstream = sockets.join("upstream");
        let listener = UnixListener::bind(&upstream).unwrap();
        let (uid, gid) = (number("id", &["-u", CLIENT]), number("id", &["-g", CLIENT]));
        let exe_told = |rule: &str| {
            let relay = relay_to(&upstream, &["proxy_protocol=v2", rule]);
            let script = format!(
                "mount --bind {report} {backup} && printf question | \
                 setpriv --reuid={uid} --regid={gid} --clear-groups \
                 {backup} -t 5 - UNIX-CONNECT:{}",
                relay.socket.display()
            );
            let mut asking = Command::new("unshare");
            asking.args(["--mount", "sh", "-c", &script]);
            let asking = thread::spawn(move || asking.output().unwrap());
            let (header, rest) = introduced(&listener);
            assert_eq!(rest, b"question");
            assert_eq!(asking.join().unwrap().stdout, b"served");
            let exe = header.vouched.exe;
            exe.map(|exe| String::from_utf8(exe).unwrap())
        };
        let named = exe_told(&format!("authorised_peer_exe={other},{report}"));
        assert_eq!(named, Some(report.clone()));
        // It was read for this rule, but no path of the policy leads to the file.
        assert_eq!(exe_told(&format!("deny=exe:{other}")), None);
    });
    fs::remove_dir_all(dir).unwrap();
    told.unwrap();
}

fn curl(socket: &Path) -> String {
    client(
        "curl",
        &[
            "-sSf",
            "--unix-socket",
            socket.to_str().unwrap(),
            "http://x/",
        ],
    )
}

#[test]
fn haproxy_accepts_the_header() {
    needs!(root, "haproxy", "curl");
    let dir = TempDir::new();
    let socket = dir.join("haproxy.sock");
    let config = format!(
        "defaults\n mode http\n timeout client 5s\n timeout server 5s\n timeout connect 5s\n\
         frontend f\n bind unix@{} mode 777 accept-proxy\n \
         http-request return status 200 content-type text/plain \
         lf-string \"uid %[fc_pp_tlv(0xE0),hex]\"\n",
        socket.display()
    );
    // Older ones can't show a value of the header, but check all of it.
    let plain = config.replace(
        "lf-string \"uid %[fc_pp_tlv(0xE0),hex]\"",
        "string accepted",
    );
    let file = dir.join("haproxy.cfg");
    fs::write(&file, &config).unwrap();
    let check = || {
        Command::new("haproxy")
            .arg("-q")
            .arg("-c")
            .arg("-f")
            .arg(&file)
            .output()
    };
    let shows = check().unwrap().status.success();
    if !shows {
        fs::write(&file, plain).unwrap();
    }
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(&file);
    let _haproxy = Upstream::start(&mut command, || UnixStream::connect(&socket).is_ok());
    let relay = relay_to(&socket, &["proxy_protocol=v2"]);
    let expected = match shows {
        true => format!("uid {:08X}", number("id", &["-u", CLIENT])),
        false => "accepted".to_owned(),
    };
    assert_eq!(curl(&relay.socket), expected);
    // Without the header the same haproxy refuses: it did read it.
    let relay = relay_to(&socket, &[]);
    let mut refused = as_user(CLIENT, CLIENT, "curl");
    refused
        .args(["-sSf", "--unix-socket"])
        .arg(&relay.socket)
        .arg("http://x/");
    assert!(!refused.output().unwrap().status.success());
}

#[test]
fn nginx_accepts_the_header() {
    needs!(root, "nginx", "curl");
    let dir = TempDir::new();
    set_mode(dir.path(), 0o777);
    let socket = dir.join("nginx.sock");
    let config = format!(
        "daemon off; user root; worker_processes 1; pid {0}/pid; error_log {0}/error;\n\
         events {{ worker_connections 50; }}\n\
         http {{ access_log off; client_header_buffer_size 4k; client_body_temp_path {0}/b; proxy_temp_path {0}/p;\n\
         fastcgi_temp_path {0}/f; uwsgi_temp_path {0}/u; scgi_temp_path {0}/s;\n\
         server {{ listen unix:{1} proxy_protocol; return 200 \"accepted\"; }} }}\n",
        dir.path().display(),
        socket.display()
    );
    fs::write(dir.join("nginx.conf"), config).unwrap();
    let mut command = Command::new("nginx");
    command
        .arg("-p")
        .arg(dir.path())
        .arg("-c")
        .arg(dir.join("nginx.conf"));
    let _nginx = Upstream::start(&mut command, || UnixStream::connect(&socket).is_ok());
    let relay = relay_to(&socket, &["proxy_protocol=v2"]);
    assert_eq!(curl(&relay.socket), "accepted");
}

/// Any peer can bind a path that fills `sun_path` to the last byte before it connects;
/// the kernel then tells an address that is longer than the structure.
#[test]
fn the_longest_name_of_a_peer_is_told_whole() {
    let dir = TempDir::new();
    let socket = dir.join("upstream");
    let listener = UnixListener::bind(&socket).unwrap();
    let options = ["proxy_protocol=v2", "allow=uid:self"];
    let relay = relay_to(&socket, &options);
    for length in [107, 108] {
        let mut own = format!("{}/", dir.path().display());
        own.push_str(&"x".repeat(length - own.len()));
        let client = socket_at(&own);
        let server = SocketAddrUnix::new(&relay.socket).unwrap();
        rustix::net::connect(&client, &server).unwrap();
        let mut client = UnixStream::from(client);
        client.write_all(b"question").unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let (header, rest) = introduced(&listener);
        assert_eq!(rest, b"question");
        let Endpoints::Unix { source, .. } = &header.endpoints else {
            panic!("{header:?}");
        };
        assert_eq!(source.as_bytes(), own.as_bytes());
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "served");
    }
}

fn socket_at(path: &str) -> OwnedFd {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
    rustix::net::bind(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
    socket
}
