//! The client's side: a server is judged as a peer is, by user and executable.

#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod identity_support;

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use identity_support::*;
use secure_socket::policy::{Numeric, Policy, Rule, ServerError, verify_server};

#[test]
fn helper() {
    run_script();
}

fn policy(rule: &str) -> Policy {
    let own_user = own_user();
    Policy::new(
        vec![Rule::parse(rule, &Numeric { own_user }).unwrap()],
        vec![],
        own_user,
    )
}

#[test]
fn only_the_expected_server_is_trusted() {
    let Some(lab) = Lab::new("server") else {
        return;
    };
    let (trusted, other) = (lab.program("trusted"), lab.program("other"));
    let sockets = lab.path("sockets");
    std::fs::create_dir(&sockets).unwrap();
    set_mode(&sockets, 0o777);
    let path = sockets.join("socket");
    let script = format!("listen {}", path.display());
    let mut server = command(&trusted, &WEB, &script).spawn().unwrap();
    let mut stream = None;
    until("the server listens", || {
        stream = UnixStream::connect(&path).ok();
        stream.is_some()
    });
    let stream = stream.unwrap();
    let check = |rule: &str, expected: &str| {
        let said = match verify_server(stream.as_fd(), &policy(rule)) {
            Ok(_) => String::from("trusted"),
            Err(ServerError::Denied { denial, .. }) => denial.reason.code().to_owned(),
            Err(error) => error.to_string(),
        };
        assert_eq!(said, expected, "{rule}");
    };
    check("uid:33", "trusted");
    check("uid:0|uid:self", "no_rule");
    check(&format!("uid:33,exe:{}", trusted.display()), "trusted");
    check(&format!("uid:33,exe:{}", other.display()), "no_rule");
    check(&format!("uid:33,sha256:{}", "0".repeat(64)), "no_rule");
    server.kill().unwrap();
    server.wait().unwrap();
    check(&format!("uid:33,exe:{}", trusted.display()), "peer_gone");
}
