//! `perf baseline`: an NBD server on the stock `tokio-uring` runtime, as a yardstick.
//!
//! ```text
//!  reader task ─► requests ─┬─► memory: answered at once          ─► replies ─► writer: one writev
//!                           └─► file: a task each, O_DIRECT, aligned ─┘          of all there is
//! ```
//! It shows what the runtime gives if it is used as well as it can be without code of its own below
//! it: one large receive, all replies of a turn in one vectored send, no copy of data that are
//! read. It knows simple replies, READ, WRITE with FUA, FLUSH, and nothing else, and trusts its
//! client. Not a server to be used.

mod disk;
mod replies;
mod session;
mod stream;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::rc::Rc;

use anyhow::{Context, bail};
use clap::Args;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::workload::parse_size;
use disk::Disk;
use stream::Stream;

/// Entries of the ring's queues.
const ENTRIES: u32 = 1024;

/// Serve NBD on the stock tokio-uring runtime, as a yardstick
#[derive(Clone, Debug, Args)]
pub struct Baseline {
    /// Bytes of the disk
    #[arg(long, value_parser = parse_size)]
    size: u64,
    /// The disk, opened with O_DIRECT [default: memory]
    #[arg(long)]
    file: Option<PathBuf>,
    /// Unix socket to listen on
    #[arg(long, required_unless_present = "port")]
    socket: Option<PathBuf>,
    /// TCP port of 127.0.0.1 to listen on
    #[arg(long, conflicts_with = "socket")]
    port: Option<u16>,
}

/// An accepted socket on its way to the runtime.
enum Accepted {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// Accepts in a thread of its own: the runtime's listener for Unix sockets asks for SO_REUSEPORT,
/// which newer kernels refuse for them. Sessions never touch that thread.
fn accept(baseline: &Baseline) -> io::Result<UnboundedReceiver<Accepted>> {
    let (sender, receiver) = unbounded_channel();
    if let Some(socket) = &baseline.socket {
        let listener = UnixListener::bind(socket)?;
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if sender.send(Accepted::Unix(stream)).is_err() {
                    return;
                }
            }
        });
    } else {
        let listener = TcpListener::bind(("127.0.0.1", baseline.port.unwrap_or(0)))?;
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let is_set = stream.set_nodelay(true);
                if is_set.is_ok() && sender.send(Accepted::Tcp(stream)).is_err() {
                    return;
                }
            }
        });
    }
    Ok(receiver)
}

/// Serves until the process is ended.
pub fn run(baseline: &Baseline) -> anyhow::Result<()> {
    let mut ring = tokio_uring::uring_builder();
    ring.setup_cqsize(ENTRIES * 4)
        .setup_coop_taskrun()
        .setup_single_issuer();
    let mut builder = tokio_uring::builder();
    builder
        .entries(ENTRIES)
        .uring_builder(&ring)
        .start(serve(baseline))
}

async fn serve(baseline: &Baseline) -> anyhow::Result<()> {
    let disk = match &baseline.file {
        Some(file) => {
            let unusable = || format!("cannot open {}", file.display());
            Disk::file(file).with_context(unusable)?
        }
        None => Disk::memory(baseline.size),
    };
    let disk = Rc::new(disk);
    let mut accepted = accept(baseline).context("cannot listen")?;
    while let Some(socket) = accepted.recv().await {
        let stream = match socket {
            Accepted::Unix(stream) => Stream::unix(stream),
            Accepted::Tcp(stream) => Stream::tcp(stream),
        };
        let (disk, size) = (disk.clone(), baseline.size);
        // A session ends by an error at the latest when its client is gone.
        tokio_uring::spawn(async move { session::serve(stream, disk, size).await.unwrap_or(()) });
    }
    bail!("nothing can be accepted any more")
}
