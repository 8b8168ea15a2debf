//! Starts at the same moment, after a kill, and against a hostile user who
//! swaps, links and renames meanwhile.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod listener_support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use listener_support::*;
use secure_socket::ids::{Gid, Uid};
use secure_socket::listener::{BindError, Listener, Notice, Removal};

/// A server in a process of its own, which binds when it is told to.
struct Server {
    child: Reaped,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Server {
    fn new(path: &Path) -> Self {
        let mut command = helper("helper_server", None, path);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut server = Self {
            child: Reaped(child),
            input,
            output,
        };
        assert_eq!(server.answer(), "ready");
        server
    }

    fn go(&mut self) {
        self.input.write_all(b"g").unwrap();
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert_ne!(
                self.output.read_line(&mut line).unwrap(),
                0,
                "the server is gone"
            );
            if let Some((_, answer)) = line.split_once("ANSWER ") {
                return answer.trim_end().to_owned();
            }
        }
    }

    fn pid(&self) -> u32 {
        self.child.0.id()
    }

    fn stop(mut self) {
        drop(self.input);
        assert!(self.child.0.wait().unwrap().success());
    }
}

#[test]
fn helper_server() {
    let Some(path) = task() else { return };
    let mut byte = [0];
    println!("ANSWER ready");
    std::io::stdin().read_exact(&mut byte).unwrap();
    let bound = bind(&path).map(Listener::dangerously_unconfined);
    match &bound {
        Ok(_) => println!("ANSWER won"),
        Err(error) => println!("ANSWER {} {error}", error.exit_code()),
    }
    assert_eq!(std::io::stdin().read(&mut byte).unwrap(), 0);
    if let Ok(listener) = bound {
        assert!(matches!(listener.close(), Removal::Removed));
    }
}

#[test]
fn of_two_starts_at_the_same_moment_exactly_one_wins() {
    let temp = TempDir::new();
    for round in 0..200 {
        let directory = temp.join(&format!("d{}", round % 7));
        let path = directory.join("a.sock");
        match round % 4 {
            0 => drop(fs::remove_dir_all(&directory)),
            1 if directory.exists() => drop(UnixListener::bind(&path)),
            _ => {}
        }
        let mut servers = [Server::new(&path), Server::new(&path)];
        for server in &mut servers {
            server.go();
        }
        let answers = servers.each_mut().map(Server::answer);
        let [first, second] = &servers;
        let lost = |winner: &Server| {
            let lock = path.with_file_name("a.sock.lock");
            let pid = winner.pid();
            format!(
                "73 {}: another server holds this lock, pid {pid}",
                lock.display()
            )
        };
        let expected = [
            ["won".to_owned(), lost(first)],
            [lost(second), "won".to_owned()],
        ];
        assert!(expected.contains(&answers), "round {round}: {answers:?}");
        UnixStream::connect(&path).unwrap();
        servers.into_iter().for_each(Server::stop);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
    }
}

#[test]
fn a_start_after_a_kill_works_at_once() {
    let temp = TempDir::new();
    let path = temp.join("a.sock");
    for _ in 0..20 {
        let mut server = Server::new(&path);
        server.go();
        assert_eq!(server.answer(), "won");
        drop(server.child);
        assert!(path.exists());
        let listener = bind(&path).unwrap();
        assert!(matches!(listener.notices(), [Notice::ReplacedStale { .. }]));
        UnixStream::connect(&path).unwrap();
        drop(listener);
        assert_eq!(temp.listing(), [""; 0]);
    }
}

#[test]
fn a_kill_in_mid_bind_leaves_nothing_in_the_way() {
    let temp = TempDir::new();
    let path = temp.join("d/a.sock");
    for round in 0..100_u64 {
        let mut server = Server::new(&path);
        server.go();
        std::thread::sleep(Duration::from_micros(round * 10));
        drop(server.child);
        drop(bind(&path).unwrap().dangerously_unconfined());
        assert_eq!(
            fs::read_dir(temp.join("d")).unwrap().count(),
            0,
            "round {round}"
        );
        fs::remove_dir(temp.join("d")).unwrap();
        assert_eq!(temp.listing(), [""; 0], "round {round}");
    }
}

/// How long the hostile process goes on before it asks whether it should.
const HOSTILE_BATCH: u32 = 4;

/// Where the hostile process works, and what it covets.
struct Scene {
    temp: TempDir,
    arena: PathBuf,
    precious: Vec<String>,
}

impl Scene {
    fn new(mode: u32, owner: Option<u32>) -> Self {
        let temp = TempDir::new();
        let arena = temp.directory("arena", mode, owner);
        let victim = temp.directory("victim", 0o755, None);
        fs::write(victim.join("secret"), "precious").unwrap();
        set_mode(&victim.join("secret"), 0o600);
        // Looks like a lock file of ours, and lies where root's files lie.
        fs::write(victim.join("lock"), "1\n").unwrap();
        set_mode(&victim.join("lock"), 0o600);
        fs::create_dir(victim.join("directory")).unwrap();
        stale(&victim.join("stale"));
        let theirs = temp.directory("theirs", 0o755, Some(HOSTILE));
        fs::write(theirs.join("file"), "theirs").unwrap();
        std::os::unix::fs::chown(theirs.join("file"), Some(HOSTILE), Some(HOSTILE)).unwrap();
        let mut scene = Self {
            temp,
            arena,
            precious: Vec::new(),
        };
        scene.precious = scene.look();
        scene
    }

    /// Everything that must not change.
    fn look(&self) -> Vec<String> {
        let mut found = listing(&self.temp.join("victim"));
        // He may put more beside it, through a link of his.
        let theirs = self.temp.join("theirs");
        found.push(format!(
            "{:?} {}",
            rights(&theirs.join("file")),
            theirs.join("robbed").exists()
        ));
        for name in ["victim/secret", "victim/lock", "theirs/file"] {
            found.push(fs::read_to_string(self.temp.join(name)).unwrap());
        }
        found
    }

    /// Binds a thousand times at `tail` while the hostile `user` is at work.
    fn run(&self, tail: &str, user: u32) {
        let path = self.arena.join(tail);
        let mut command = helper("helper_hostile", Some(user), &self.arena);
        command
            .env("LISTENER_TEST_TAIL", tail)
            .stdout(Stdio::null());
        let hostile = Reaped(command.spawn().unwrap());
        let service = Uid::from_raw(SERVICE).unwrap();
        let options = unix(&path)
            .mode("0660".parse().unwrap())
            .run_as(service, Gid::from_raw(SERVICE).unwrap())
            .socket_group(Gid::from_raw(33))
            .others_authorised(true);
        let mut outcomes = BTreeMap::<String, u32>::new();
        let begin = Instant::now();
        let mut served = 0;
        for start in 0.. {
            // A refusal is so much faster than the hostile user that many of
            // them meet the same obstacle.
            if start >= 1000 && (served >= 100 || begin.elapsed() > Duration::from_secs(5)) {
                break;
            }
            let outcome = match Listener::bind(&options) {
                Ok(listener) => self.check(&path, listener, user),
                Err(error) => {
                    std::thread::sleep(Duration::from_micros(200));
                    refusal(&error)
                }
            };
            served += u32::from(outcome == "served");
            *outcomes.entry(outcome).or_default() += 1;
        }
        assert_eq!(self.look(), self.precious);
        assert!(
            outcomes.keys().any(|outcome| outcome == "served"),
            "{outcomes:?}"
        );
        println!("{tail} uid {user}: {outcomes:?} in {:?}", begin.elapsed());
        drop(hostile);
    }

    /// The socket at the path is ours, if the hostile user can't replace it.
    fn check(
        &self,
        path: &Path,
        listener: Listener<secure_socket::listener::Bound>,
        user: u32,
    ) -> String {
        let stat = fs::symlink_metadata(path);
        if user == HOSTILE {
            let stat = stat.unwrap();
            assert!(stat.file_type().is_socket());
            assert_eq!(
                (stat.mode() & 0o7777, stat.uid(), stat.gid()),
                (0o660, SERVICE, 33)
            );
            let listener = listener.dangerously_unconfined();
            let _client = UnixStream::connect(path).unwrap();
            drop(listener.accept().unwrap());
            assert!(matches!(listener.close(), Removal::Removed));
            if path.parent() != Some(&*self.arena) {
                // So that the next start has to make it again.
                fs::remove_dir(path.parent().unwrap()).unwrap();
            }
        } else {
            drop(listener);
        }
        "served".to_owned()
    }
}

/// The kind of a refusal; every one is welcome but a system call's failure.
fn refusal(error: &BindError) -> String {
    let name = format!("{error:?}");
    if name.starts_with("System") {
        return text(error);
    }
    name.split([' ', '{']).next().unwrap().to_owned()
}

#[test]
fn a_hostile_user_in_a_sticky_directory_gains_nothing() {
    if needs_root() {
        Scene::new(0o1777, None).run("a.sock", HOSTILE);
    }
}

#[test]
fn a_hostile_user_beside_a_missing_directory_gains_nothing() {
    if needs_root() {
        Scene::new(0o1777, None).run("sub/a.sock", HOSTILE);
    }
}

#[test]
fn the_server_s_own_user_gains_nothing_from_a_privileged_start() {
    if needs_root() {
        Scene::new(0o755, Some(SERVICE)).run("a.sock", SERVICE);
        Scene::new(0o755, Some(SERVICE)).run("sub/a.sock", SERVICE);
    }
}

#[test]
fn helper_hostile() {
    let Some(arena) = task() else { return };
    let tail = std::env::var("LISTENER_TEST_TAIL").unwrap();
    let temp = arena.parent().unwrap();
    let first = tail.split('/').next().unwrap();
    let names = [
        arena.join(&tail),
        arena.join(format!("{tail}.lock")),
        arena.join(first),
        arena.join(format!(".{first}.new")),
        arena.join("sub/.a.sock.new"),
    ];
    let targets = [
        temp.join("victim/secret"),
        temp.join("victim/lock"),
        temp.join("victim/directory"),
        temp.join("victim/stale"),
        temp.join("victim"),
        temp.join("theirs/file"),
        temp.join("theirs"),
    ];
    let mut state = u64::from(std::process::id()) | 1;
    let mut random = move |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 20).unwrap() % bound
    };
    let parent = rustix::process::getppid();
    while rustix::process::getppid() == parent {
        for _ in 0..HOSTILE_BATCH {
            let seen = fs::read_dir(&arena).ok().and_then(|mut entries| {
                entries.find_map(|entry| Some(entry.ok()?.path()).filter(|_| random(2) == 0))
            });
            let name = match seen {
                Some(path) if random(3) == 0 => path,
                _ => names[random(names.len())].clone(),
            };
            let target = &targets[random(targets.len())];
            meddle(&name, target, &arena, random(9));
        }
        // What is his stays his: in a sticky directory only root could take it.
        let name = &names[random(names.len())];
        if fs::symlink_metadata(name).is_err() {
            meddle(name, &targets[random(targets.len())], &arena, random(5));
            let inode =
                |path: &Path| fs::symlink_metadata(path).map(|stat| (stat.ino(), stat.uid()));
            if let Ok((made, HOSTILE)) = inode(name) {
                std::thread::sleep(Duration::from_micros(200));
                if inode(name).ok() != Some((made, HOSTILE)) {
                    fs::write(
                        temp.join("theirs/robbed"),
                        name.as_os_str().as_encoded_bytes(),
                    )
                    .unwrap();
                }
            }
        }
        // What lies about too long only makes every start fail.
        for name in &names {
            let _ = fs::remove_file(name);
            let _ = fs::remove_dir_all(name);
        }
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// One attempt, which mostly fails.
fn meddle(name: &Path, target: &Path, arena: &Path, kind: usize) {
    match kind {
        0 => drop(symlink(target, name)),
        1 => drop(fs::hard_link(target, name)),
        2 => drop(fs::create_dir(name)),
        3 => drop(fs::File::create_new(name).and_then(|mut file| file.write_all(b"1\n"))),
        4 => drop(UnixListener::bind(name)),
        5 => drop(fs::rename(name, arena.join("taken"))),
        6 => drop(fs::rename(arena.join("taken"), name)),
        7 => {
            let flags = rustix::fs::RenameFlags::EXCHANGE;
            let here = rustix::fs::CWD;
            let _ = symlink(target, arena.join("bait"));
            let _ = rustix::fs::renameat_with(here, arena.join("bait"), here, name, flags);
        }
        _ => {
            let _ = fs::remove_file(name);
            let _ = fs::remove_dir(name);
        }
    }
}
