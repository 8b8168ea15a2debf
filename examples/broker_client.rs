//! A client of the broker: one message and one request, each with its sender's
//! identity as the kernel reported it to the broker.
//!
//!     secure_socket service=broker socket_path=/run/jobs/jobs.sock &
//!     broker_client /run/jobs/jobs.sock

use std::error::Error;
use std::path::Path;
use std::thread;
use std::time::Duration;

use secure_socket::client::{Client, Event, ServerIdentity, WhenSlow};

const PATIENCE: Duration = Duration::from_secs(5);

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args()
        .nth(1)
        .ok_or("usage: broker_client SOCKET")?;
    // Nothing is sent before it is known who listens there: root, or this user.
    let connect = || Client::connect(Path::new(&path), &ServerIdentity::root_or_self(), PATIENCE);

    let mut subscriber = connect()?;
    subscriber.subscribe("orders.>", WhenSlow::Disconnect)?;
    let mut publisher = connect()?;
    publisher.publish_confirmed("orders.new", b"three apples")?;
    if let Some(Event::Message {
        subject,
        stamp,
        body,
        ..
    }) = subscriber.next(None)?
    {
        let (uid, body) = (stamp.uid, String::from_utf8_lossy(&body));
        println!(
            "{subject}: {body} from uid {}",
            uid.map_or(-1, |uid| i64::from(uid.as_raw()))
        );
    }

    let mut server = connect()?;
    server.serve("text.upper")?;
    let answers = thread::spawn(move || -> Result<(), secure_socket::client::ClientError> {
        if let Some(Event::Deliver { id, body, .. }) = server.next(None)? {
            server.reply(id, &body.to_ascii_uppercase())?;
        }
        Ok(())
    });
    let (stamp, answer) = publisher.request("text.upper", b"quietly")?;
    println!(
        "{} by pid {:?}",
        String::from_utf8_lossy(&answer),
        stamp.pid.map(|pid| pid.as_raw())
    );
    answers
        .join()
        .map_err(|_| "the server of requests panicked")??;
    Ok(())
}
