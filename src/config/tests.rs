//! The table, the parsers and the settings held against each other.

use std::io;

use super::key::{Arity, DAEMON, Kind, Preset};
use super::*;
use crate::ids::{Gid, Uid};
use crate::listener::Address;

/// root 0, www-data 33, redis 106, shop 1000 in groups 1000 and 27; groups of the
/// same names, and wheel 27. `broken` can't be looked up.
struct TestAccounts;

fn uid(number: u32) -> Uid {
    Uid::from_raw(number).unwrap()
}

fn gid(number: u32) -> Gid {
    Gid::from_raw(number).unwrap()
}

impl Accounts for TestAccounts {
    fn user(&self, name: &str) -> io::Result<Option<(Uid, Gid)>> {
        match name {
            "root" => Ok(Some((uid(0), gid(0)))),
            "www-data" => Ok(Some((uid(33), gid(33)))),
            "redis" => Ok(Some((uid(106), gid(106)))),
            "shop" => Ok(Some((uid(1000), gid(1000)))),
            "broken" => Err(io::ErrorKind::TimedOut.into()),
            _ => Ok(None),
        }
    }

    fn user_of(&self, user: Uid) -> io::Result<Option<(String, Gid)>> {
        Ok(match user.as_raw() {
            0 => Some(("root".to_owned(), gid(0))),
            33 => Some(("www-data".to_owned(), gid(33))),
            106 => Some(("redis".to_owned(), gid(106))),
            1000 => Some(("shop".to_owned(), gid(1000))),
            _ => None,
        })
    }

    fn group(&self, name: &str) -> io::Result<Option<Gid>> {
        Ok(match name {
            "wheel" => Some(gid(27)),
            "broken" => return Err(io::ErrorKind::TimedOut.into()),
            _ => self.user(name)?.map(|(_, gid)| gid),
        })
    }

    fn groups_of(&self, name: &str, primary: Gid) -> io::Result<Vec<Gid>> {
        Ok(if name == "shop" {
            vec![primary, gid(27)]
        } else {
            vec![primary]
        })
    }
}

const ROOT: Surroundings<'static> = Surroundings {
    euid: Uid::ROOT,
    egid: Gid::ROOT,
    runtime_dir: None,
    accounts: &TestAccounts,
};

fn run(args: &[&str], surroundings: &Surroundings<'_>) -> Result<Command, Diagnostics> {
    parse(args.iter().map(OsString::from), surroundings)
}

#[track_caller]
fn settings(args: &[&str]) -> Box<Settings> {
    match run(args, &ROOT) {
        Ok(Command::Serve(settings)) => settings,
        Ok(other) => panic!("expected serve, found {other:?}"),
        Err(diagnostics) => panic!("{diagnostics}"),
    }
}

#[test]
fn nothing_given_is_a_configuration_and_every_option_is_read() {
    let settings = settings(&[]);
    let read: Vec<_> = settings.effective.iter().map(|one| one.key.name).collect();
    let known: Vec<_> = DAEMON.keys().map(|key| key.name).collect();
    assert_eq!(read, known);
    assert!(settings.remarks.is_empty(), "{}", settings.remarks);
}

#[test]
fn every_example_is_a_value() {
    for key in DAEMON.keys().filter(|key| key.name != "config") {
        let given = format!("{}={}", key.name, key.example);
        let fits = |extra: &[&str]| {
            let args: Vec<_> = [given.as_str()]
                .into_iter()
                .chain(extra.iter().copied())
                .collect();
            match run(&args, &ROOT) {
                Ok(_) => true,
                Err(errors) => errors.iter().all(|error| {
                    // Names that only exist on some machines.
                    error.text.contains(" is named ")
                        || error.text.contains(" needs ")
                        || error.weight != Weight::Error
                }),
            }
        };
        assert!(
            fits(&[]),
            "{given}: {:?}",
            run(&[&given], &ROOT).map(|_| ())
        );
    }
}

#[test]
fn bounds_are_inclusive_and_hold() {
    let texts = |min: u64, max: u64, unit: &str| {
        let text = |number: u64| format!("{number}{unit}");
        let below = min.checked_sub(1).map(text);
        (
            [text(min), text(max)],
            below.into_iter().chain([text(max + 1)]).collect::<Vec<_>>(),
        )
    };
    for key in DAEMON.keys() {
        let (good, bad) = match key.kind {
            Kind::Number { min, max } => texts(min, max, ""),
            Kind::Size { min, max } => texts(min, max, ""),
            Kind::Duration { min, max } => {
                let ms = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap();
                texts(ms(min), ms(max), "ms")
            }
            _ => continue,
        };
        let names = |text: &String| {
            let arg = format!("{}={text}", key.name);
            let errors = run(&[&arg], &ROOT).err().unwrap_or_default();
            errors.iter().any(|error| {
                error.weight == Weight::Error
                    && error.option.as_deref() == Some(key.name)
                    && error.text.contains("found")
            })
        };
        for text in good {
            assert!(!names(&text), "{}={text} is refused", key.name);
        }
        for text in bad {
            assert!(names(&text), "{}={text} is taken", key.name);
        }
    }
}

#[test]
fn what_check_prints_reads_back_to_the_same_settings() {
    let lines: [&[&str]; 6] = [
        &[],
        &[
            "socket_path=/run/a b/c#d \"e\"",
            "authorised_peer_username=www-data",
            "verbosity=off",
        ],
        &[
            "service=relay",
            "upstream=unix:/run/a",
            "upstream=tcp:[::1]:80",
            "log_file=/var/log/a",
        ],
        &[
            "service=broker",
            "permit=publish a.> uid:33",
            "permit=serve b any",
            "trail_file=/var/t",
        ],
        &[
            "run_as_user=shop",
            "metrics_socket=@m",
            "deny=args:a\\, b c",
            "allow=uid:33,exe:/usr/bin/a",
            "limit=uid:33:connections=5",
            "mq_name=/q",
        ],
        &["penalty=12h"],
    ];
    for args in lines {
        let first = settings(args);
        let text = effective(&first);
        let second = parse_file("f", text.as_bytes(), &ROOT);
        let second = second.unwrap_or_else(|errors| panic!("{errors}\n{text}"));
        assert_eq!(digest_input(&first), digest_input(&second), "{text}");
    }
}

#[test]
fn the_documented_command_line_works() {
    let settings = settings(&[
        "socket_path=/tmp/sock_secure_socket",
        "mq_name=/secure_socket_MQ",
        "log_file=/home/secure_socket/log/secure_socket_logs",
        "domain=AF_UNIX",
        "protocol=SOCK_STREAM",
        "max_connections=200",
        "socket_permissions=0770",
        "authorised_peer_username=www-data",
    ]);
    assert!(settings.remarks.is_empty(), "{}", settings.remarks);
    assert_eq!(settings.socket.mode.bits(), 0o770);
    assert_eq!(settings.socket.group, Some(gid(33)));
    assert_eq!(settings.limits.admission.per_uid, Some(200));
    let sinks: Vec<_> = settings
        .logs
        .targets
        .iter()
        .map(|target| target.sink)
        .collect();
    assert_eq!(sinks, [LogSink::File, LogSink::Mq]);
    assert_eq!(settings.peers.policy.only_one_uid(), Some(uid(33)));
}

#[test]
fn an_original_parameter_file_is_read_with_notices() {
    let text = "SHELL_H=\"#! /bin/bash\"\nnewline=\"\\n\"\nRELEASE=Release\n\
                SOCKET_PATH=/tmp/sock_secure_socket\nMQ_NAME=/secure_socket_MQ\n\
                SOCKET_PERMISSIONS=\"0660\"\nAUTHORISED_PEER_NAME=\"www-data\"\nVERBOSITY=7\n";
    let settings = parse_file("parameters.conf", text.as_bytes(), &ROOT).unwrap();
    let notices = settings
        .remarks
        .iter()
        .filter(|one| one.weight == Weight::Notice);
    assert_eq!(notices.count(), 8);
    assert_eq!(settings.peers.policy.only_one_uid(), Some(uid(33)));
    assert_eq!(
        settings.socket.address.to_string(),
        "/tmp/sock_secure_socket"
    );
}

#[test]
fn the_default_path_depends_on_who_runs_it() {
    let path = |euid, runtime_dir: Option<&OsString>| {
        let surroundings = Surroundings {
            euid: uid(euid),
            runtime_dir,
            ..ROOT
        };
        let Ok(Command::Serve(settings)) = run(&[], &surroundings) else {
            panic!()
        };
        let Address::Unix(path) = settings.socket.address else {
            panic!()
        };
        path.to_string()
    };
    let dir = OsString::from("/run/user/1000");
    let odd = OsString::from("relative");
    assert_eq!(path(0, Some(&dir)), "/run/secure_socket/secure_socket.sock");
    assert_eq!(
        path(1000, Some(&dir)),
        "/run/user/1000/secure_socket/secure_socket.sock"
    );
    assert_eq!(
        path(1000, Some(&odd)),
        "/tmp/secure_socket-1000/secure_socket.sock"
    );
    assert_eq!(
        path(1000, None),
        "/tmp/secure_socket-1000/secure_socket.sock"
    );
}

#[test]
fn a_digest_tells_configurations_apart_and_nothing_else() {
    let digest = |args: &[&str]| digest_input(&settings(args));
    let one = digest(&["backlog=5", "allow=uid:33"]);
    assert_eq!(one, digest(&["allow=uid:33", "--backlog=5"]));
    assert_ne!(one, digest(&["allow=uid:34", "backlog=5"]));
    assert_ne!(one, digest(&["allow=uid:33", "backlog=6"]));
    assert_ne!(
        digest(&["allow=uid:1", "allow=uid:2"]),
        digest(&["allow=uid:2", "allow=uid:1"])
    );
}

#[test]
fn commands_are_told_apart() {
    let command = |args: &[&str]| match run(args, &ROOT).unwrap() {
        Command::Serve(_) => "serve".to_owned(),
        Command::Check(_) => "check".to_owned(),
        Command::Explain(..) => "explain".to_owned(),
        Command::Help(key) => format!("help {}", key.map_or("", |key| key.name)),
        Command::Version => "version".to_owned(),
    };
    assert_eq!(command(&["serve", "port=1"]), "serve");
    assert_eq!(command(&["--port=1"]), "serve");
    assert_eq!(command(&["check"]), "check");
    assert_eq!(command(&["explain", "peer=uid:33"]), "explain");
    assert_eq!(command(&["help"]), "help ");
    assert_eq!(command(&["help", "port"]), "help port");
    assert_eq!(command(&["--help", "port"]), "help port");
    assert_eq!(command(&["-h"]), "help ");
    assert_eq!(command(&["-V"]), "version");
    assert_eq!(command(&["version"]), "version");
}

#[test]
fn lists_are_lists() {
    for key in DAEMON.keys().filter(|key| key.arity == Arity::List) {
        assert!(
            !matches!(key.preset, Preset::Value(text) if text.is_empty()),
            "{}",
            key.name
        );
    }
    let settings = settings(&[
        "authorised_peer_uid=33, 1000",
        "authorised_peer_cli_args=a\\, b",
    ]);
    let rule = settings.peers.policy.allow_rules()[0].to_string();
    assert_eq!(rule, "uid:33|uid:1000,args:a\\, b");
}

#[test]
fn the_example_of_the_manual_page_is_a_configuration() {
    let page = manual::file_page();
    let (_, example) = page.rsplit_once(".RS\n").unwrap();
    let (example, _) = example.split_once(".RE\n").unwrap();
    let text = example.replace("\\-", "-");
    assert!(text.lines().count() > 5, "{text}");
    let settings = parse_file("secure_socket.conf", text.as_bytes(), &ROOT);
    assert!(settings.is_ok(), "{}", settings.unwrap_err());
}

#[test]
fn what_a_limit_names_is_learnt_and_pinned() {
    use crate::peer::{FactKind, Needs};
    let read = settings(&[
        "allow=uid:33",
        "limit=uid:33,exe:/usr/bin/app:connections=150",
        "limit=pid:7:rate=5/1s",
    ]);
    let policy = &read.peers.policy;
    assert!(policy.needs().has_any(Needs::only(FactKind::Exe)));
    assert!(policy.needs().has_any(Needs::only(FactKind::Process)));
    assert!(policy.needs_ptrace_capability());
    assert_eq!(policy.exe_paths(), ["/usr/bin/app".into()].into());
    assert_eq!(policy.pids().len(), 1);
    assert_eq!(policy.allow_rules().len(), 1, "it admits nobody");
}

#[test]
fn what_takes_a_restart_stays_and_the_rest_is_read_beside_it() {
    let start = settings(&["service=relay", "upstream=unix:/a", "run_as_user=shop"]);
    let read = settings(&["service=broker", "allow=uid:self", "broker_pending=2M"]);
    let kept = keep_fixed(read, &start, &ROOT).unwrap();
    assert_eq!(kept.service.service, Service::Relay);
    assert_eq!(kept.service.upstreams, start.service.upstreams);
    assert_eq!(kept.limits.timeouts.first_byte, None, "as for a relay");
    assert_eq!(kept.service.broker.pending_bytes, 2 << 20);
    assert_eq!(kept.peers.policy.only_one_uid(), Some(uid(1000)), "self");
    assert!(needs_restart(&start, &kept).is_empty());
    // As if the file had said so.
    let same = settings(&[
        "service=relay",
        "upstream=unix:/a",
        "run_as_user=shop",
        "allow=uid:self",
        "broker_pending=2M",
    ]);
    assert_eq!(digest_input(&kept), digest_input(&same));
}

#[test]
fn what_follows_from_live_options_and_takes_a_restart_stays_too() {
    let start = settings(&["allow=uid:0", "metrics_socket=/run/a/m"]);
    let read = settings(&[
        "allow=uid:33",
        "metrics_socket=/run/a/m",
        "metrics_allow=any",
    ]);
    assert_eq!(
        needs_restart(&start, &read),
        ["socket_permissions", "socket_group", "metrics_permissions"]
    );
    let kept = keep_fixed(read, &start, &ROOT).unwrap();
    assert!(needs_restart(&start, &kept).is_empty());
    assert_eq!(kept.socket.mode, start.socket.mode);
    assert_eq!(kept.socket.group, start.socket.group);
    let metrics = [&kept, &start].map(|one| one.metrics.as_ref().unwrap());
    assert_eq!(metrics[0].mode, metrics[1].mode);
    assert_eq!(metrics[0].policy.only_one_uid(), None);
    let peers = &kept.peers.policy;
    assert_eq!(peers.only_one_uid(), Some(uid(33)));
}
