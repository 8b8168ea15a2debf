//! Privilege separation: what is exposed runs without privileges, what has them does
//! one thing and takes no other request.
//!
//!     privilege_separation SECRET-FILE       (as root)
//!
//! The front reads guesses from its standard input, a line each, as `nobody`. It can't
//! open the secret; it may ask the helper whether a guess is right. The helper keeps
//! the right to read that file and nothing else, and serves that one process only: it
//! is held by a pidfd, so no other can take its place.

use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use secure_socket::ids::Gid;
use secure_socket::sandbox::Plan;
use secure_socket::{Connection, Listener, Policy, Server};

const NOBODY: u32 = 65_534;
/// The longest line that either side takes as a guess, in bytes, with its newline.
const LINE_MAX: u64 = 1024;
/// How much of what the front says is held at once.
const PIECE_MAX: u64 = 8192;
/// The front's last line. Its exit code can't be had: no rule of the sandbox allows
/// wait4(2).
const DONE: &str = "done\n";

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.as_slice() {
        [secret] => helper(secret),
        [word, path] if word == "front" => front(path),
        _ => Err("usage: privilege_separation SECRET-FILE".into()),
    }
}

/// The privileged side.
fn helper(secret: &str) -> Result<(), Box<dyn Error>> {
    let path = format!(
        "/run/privilege_separation.{}/helper.sock",
        std::process::id()
    );
    let mut front = Command::new(std::env::current_exe()?)
        .args(["front", path.as_str()])
        .uid(NOBODY)
        .gid(NOBODY)
        .stdout(Stdio::piped())
        .spawn()?;
    let policy = Policy::parse(&format!("uid:{NOBODY},pid:{}", front.id()))?;
    let listener = Listener::builder(&path)?
        .policy(policy)
        .socket_group(Gid::from_raw(NOBODY))
        .bind()?
        .enter(Plan::new().read(secret))?;
    let secret = secret.to_owned();
    let server = Server::new(listener, move |peer: &Connection| judge(peer, &secret))?;
    let server = server.spawn()?;
    let output = front.stdout.take().ok_or("the front has no output")?;
    let is_done = pass_on(output);
    server.stop(Duration::from_secs(1))?;
    if is_done? {
        Ok(())
    } else {
        Err("the front has failed".into())
    }
}

/// Prints what the front says until it closes its output. Gives whether it was done.
fn pass_on(output: impl Read) -> io::Result<bool> {
    let mut output = BufReader::new(output);
    loop {
        let mut piece = String::new();
        if output.by_ref().take(PIECE_MAX).read_line(&mut piece)? == 0 {
            return Ok(false);
        }
        if piece == DONE {
            return Ok(true);
        }
        io::stdout().write_all(piece.as_bytes())?;
    }
}

/// The one request: is this the secret? Nothing else of it ever leaves.
fn judge(mut front: &Connection, secret: &str) -> io::Result<()> {
    let mut guesses = BufReader::new(front);
    loop {
        let mut guess = Vec::new();
        guesses
            .by_ref()
            .take(LINE_MAX)
            .read_until(b'\n', &mut guess)?;
        // The end, or a line that is too long: the front sends none.
        let Some(guess) = guess.strip_suffix(b"\n") else {
            return Ok(());
        };
        let secret = std::fs::read(secret)?;
        let right = are_equal(guess, secret.trim_ascii_end());
        front.write_all(if right { b"right\n" } else { b"wrong\n" })?;
    }
}

/// In a time that doesn't tell where they differ.
fn are_equal(left: &[u8], right: &[u8]) -> bool {
    let differs = left.iter().zip(right).fold(0, |sum, (a, b)| sum | (a ^ b));
    left.len() == right.len() && std::hint::black_box(differs) == 0
}

/// The exposed side: it has no privileges to lose.
fn front(path: &str) -> Result<(), Box<dyn Error>> {
    let mut helper = connect(Path::new(path))?;
    let mut verdicts = BufReader::new(helper.try_clone()?);
    let mut guesses = io::stdin().lock();
    loop {
        let mut guess = String::new();
        let length = guesses.by_ref().take(LINE_MAX).read_line(&mut guess)?;
        if length == 0 {
            print!("{DONE}");
            return Ok(());
        }
        // The last line may lack its newline.
        let guess = guess.trim_end_matches('\n');
        if guess.len() as u64 >= LINE_MAX {
            return Err(format!("a guess has at most {} bytes", LINE_MAX - 1).into());
        }
        helper.write_all(format!("{guess}\n").as_bytes())?;
        let mut verdict = String::new();
        verdicts.read_line(&mut verdict)?;
        println!("uid {}: {guess:?} is {}", uid()?, verdict.trim_end());
    }
}

/// The helper binds while the front starts.
fn connect(path: &Path) -> io::Result<UnixStream> {
    for _ in 0..500 {
        if let Ok(stream) = UnixStream::connect(path) {
            return Ok(stream);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    UnixStream::connect(path)
}

/// Who this process is, by the kernel's word.
fn uid() -> io::Result<u32> {
    use std::os::unix::fs::MetadataExt;
    Ok(std::fs::metadata("/proc/self")?.uid())
}
