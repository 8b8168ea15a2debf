//! A key-value store that one group may use. Each value remembers who wrote it, by
//! the kernel's word.
//!
//!     kv_store SOCKET GROUP
//!
//! A line a request: `get KEY`, `set KEY VALUE`, `del KEY`. Answers are `= VALUE (uid
//! N)`, `ok`, `none`, or `error WHY`.

use std::collections::HashMap;
use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::{Mutex, PoisonError};

use secure_socket::ids::Uid;
use secure_socket::sandbox::Plan;
use secure_socket::{Connection, Listener, Policy, Server, Service};

/// A client can't make it hold more than KEYS_MAX times LINE_MAX bytes.
const KEYS_MAX: usize = 10_000;
const LINE_MAX: u64 = 4096;

#[derive(Default)]
struct Store {
    values: Mutex<HashMap<String, (String, Option<Uid>)>>,
}

impl Service for Store {
    fn serve(&self, mut client: &Connection) -> io::Result<()> {
        let writer = client.credentials().uid();
        let mut requests = BufReader::new(client);
        loop {
            let mut line = String::new();
            if requests.by_ref().take(LINE_MAX).read_line(&mut line)? == 0 {
                return Ok(());
            }
            if !line.ends_with('\n') {
                return writeln!(client, "error the line is longer than {LINE_MAX} bytes");
            }
            let answer = self.answer(line.trim_end(), writer);
            client.write_all(format!("{answer}\n").as_bytes())?;
        }
    }
}

impl Store {
    fn answer(&self, request: &str, writer: Option<Uid>) -> String {
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        let mut words = request.splitn(3, ' ');
        match (words.next(), words.next(), words.next()) {
            (Some("get"), Some(key), None) => match values.get(key) {
                Some((value, Some(uid))) => format!("= {value} (uid {uid})"),
                Some((value, None)) => format!("= {value}"),
                None => String::from("none"),
            },
            (Some("set"), Some(key), Some(_))
                if values.len() >= KEYS_MAX && !values.contains_key(key) =>
            {
                String::from("error the store is full")
            }
            (Some("set"), Some(key), Some(value)) => {
                values.insert(key.to_owned(), (value.to_owned(), writer));
                String::from("ok")
            }
            (Some("del"), Some(key), None) => match values.remove(key) {
                Some(_) => String::from("ok"),
                None => String::from("none"),
            },
            _ => String::from("error expected get KEY, set KEY VALUE or del KEY"),
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [path, group] = words.as_slice() else {
        return Err("usage: kv_store SOCKET GROUP".into());
    };
    let policy = Policy::parse(&format!("group:{group}"))?;
    let listener = Listener::builder(path)?.policy(policy).bind()?;
    let listener = listener.enter(Plan::new())?;
    Server::new(listener, Store::default())?.run()?;
    Ok(())
}
