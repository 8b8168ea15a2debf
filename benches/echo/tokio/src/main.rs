//! An echo server with a credential check, on tokio's default runtime (as many
//! threads as cores), or on one thread if `1` is given.
//!
//!     echo-tokio SOCKET [THREADS]

use std::env;
use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixSocket, UnixStream};

fn main() -> io::Result<()> {
    let path = env::args().nth(1).ok_or(io::ErrorKind::InvalidInput)?;
    let threads = env::args().nth(2).and_then(|text| text.parse().ok());
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = threads {
        builder.worker_threads(threads);
    }
    builder.enable_io().build()?.block_on(async {
        let socket = UnixSocket::new_stream()?;
        socket.bind(&path)?;
        // In a task of its own: what block_on runs is no part of the pool.
        tokio::spawn(accept(socket.listen(4096)?)).await?
    })
}

async fn accept(listener: UnixListener) -> io::Result<()> {
    // SAFETY: geteuid(2) always succeeds and touches nothing.
    let own = unsafe { libc::geteuid() };
    loop {
        let (stream, _) = listener.accept().await?;
        if stream.peer_cred()?.uid() == own {
            tokio::spawn(serve(stream));
        }
    }
}

/// A buffer of 4 KiB: as small as serves the sizes that are measured.
async fn serve(mut stream: UnixStream) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..length]).await?;
    }
}
