//! A server behind its walls, until its standard input ends.

use std::io::Read;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use secure_socket::admission::Limits;
use secure_socket::ids::Uid;
use secure_socket::listener::{Address, Listener, Options, SocketPath};
use secure_socket::peer::{Checker, CheckerConfig, Inspector, Pins};
use secure_socket::policy::{Numeric, Policy, Rule};
use secure_socket::sandbox::{
    self, Access, Capability, Mode, PathGrant, Plan, PrivilegedThread, Role, SeccompAction,
};
use secure_socket::server::{Outcome, Rules, Server, Threads};
use secure_socket::service::Echo;

/// `walls` is `trap`, `kill` or `off`.
pub(crate) fn serve(socket: &Path, threads: &str, walls: &str, allowed: &[&str]) {
    let own_user = Uid::from_raw(rustix::process::geteuid().as_raw()).expect("a uid");
    let names = Numeric { own_user };
    let allowed: Vec<Rule> = allowed
        .iter()
        .map(|text| Rule::parse(text, &names).expect("a rule"))
        .collect();
    let by_process = !allowed.is_empty();
    let policy = Policy::new(allowed, Vec::new(), own_user);

    let threads = match threads {
        "multi" => Threads::Multi,
        count => Threads::Loops(count.parse::<NonZeroUsize>().expect("a number")),
    };
    let address = Address::Unix(SocketPath::parse(socket.as_os_str()).expect("a path"));
    let options = Options::new(address);
    let listener = Listener::bind(&options).expect("bound");

    // Read once, and hidden afterwards.
    let _ = secure_socket::peer::id_maps();
    let mut privileged = Vec::new();
    let mut rules = Rules::new(policy);
    if by_process {
        let (checker, checking) = Checker::new(CheckerConfig::default()).expect("checker");
        let pins = Pins::open(&rules.policy.exe_paths(), &rules.policy.pids(), None);
        rules.inspector = Inspector::new(pins.expect("pins"), Some(checker));
        privileged.extend(checking.into_iter().map(|thread| PrivilegedThread {
            name: thread.name,
            role: Role::ProcessChecker,
            capabilities: vec![Capability::SysPtrace],
            outside_landlock: true,
            body: Box::new(move || thread.run()),
        }));
    }
    let plan = Plan {
        mode: if walls == "off" {
            Mode::Off
        } else {
            Mode::Enforce
        },
        seccomp: if walls == "kill" {
            SeccompAction::Kill
        } else {
            SeccompAction::Trap
        },
        paths: vec![PathGrant {
            path: socket.parent().expect("a directory").to_owned(),
            access: Access::Remove,
            roles: vec![],
        }],
        privileged,
        ..Plan::default()
    };
    let sealed = sandbox::enter(plan).expect("sealed");
    let inner = sealed.clone();
    let server = Server::with_protocol(listener.seal(&sealed), Arc::new(Echo), rules)
        .threads(threads)
        .limits(Limits {
            max_connections: 64,
            ..Limits::default()
        })
        .on_thread_start(Box::new(move || {
            inner
                .enter_role(Role::EchoWorker)
                .map_err(std::io::Error::other)
        }))
        .build()
        .expect("server");
    let handle = server.handle();
    let end = std::thread::spawn(move || {
        let _ = std::io::stdin().read(&mut [0]);
        handle.stop(Duration::from_secs(5));
    });
    println!("ready");
    assert_eq!(server.run().expect("served"), Outcome::Drained);
    end.join().expect("stopped");
    sealed.attest().expect("walls stand");
}
