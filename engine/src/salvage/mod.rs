//! What is kept of a copy that is given up in a split brain: one file, written once.
//!
//! ```text
//!  reactor ─► Order (one at a time per volume) ─► thread ─► VOL-NODE-SECONDS.part
//!      ▲                                            │ Commit: end record, fsync, rename, fsync
//!      └────────── Message::Salvaged ◄──────────────┘         of the folder ─► .salvage
//! ```
//! The format stands in `docs/format.md`, "Salvage". Not here: which blocks, and when the copy goes
//! (law S8); the core decides.

mod format;
mod read;
mod write;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use engine_core::event::{DiskError, DiskResult};
use engine_core::units::Extent;
use rustix::io::Errno;

pub use format::Head;
pub use read::{Found, Piece, Reader, SalvageError, list};
use write::Writer;

/// Folder of the salvages in a node's `data_dir`.
pub const FOLDER: &str = "salvage";

/// One step for the thread that writes salvages.
pub(crate) struct Order {
    pub(crate) volume: String,
    pub(crate) step: Step,
    /// Called once, but for `Drop`.
    pub(crate) reply: Box<dyn FnOnce(Stored) + Send>,
}

/// What it does.
pub(crate) enum Step {
    Begin {
        folder: PathBuf,
        head: Box<Head>,
        bytes: u64,
    },
    Put {
        extent: Extent,
        bytes: Option<Vec<u8>>,
    },
    Commit,
    Drop,
}

/// How a step ended.
pub(crate) struct Stored {
    pub(crate) result: DiskResult,
    /// After `Commit`: where it lies. After a failure: why.
    pub(crate) text: String,
}

/// Starts the thread; it ends when the last sender does.
pub(crate) fn start() -> io::Result<Sender<Order>> {
    let (sender, orders) = channel();
    let thread = thread::Builder::new().name("salvage".into());
    thread.spawn(move || run(&orders))?;
    Ok(sender)
}

fn run(orders: &Receiver<Order>) {
    let mut open: BTreeMap<String, Writer> = BTreeMap::new();
    while let Ok(order) = orders.recv() {
        let Order {
            volume,
            step,
            reply,
        } = order;
        let done = match step {
            Step::Begin {
                folder,
                head,
                bytes,
            } => Writer::create(&folder, &head, bytes).map(|writer| {
                open.insert(volume, writer);
                String::new()
            }),
            Step::Put { extent, bytes } => match open.get_mut(&volume) {
                Some(writer) => writer.put(extent, bytes.as_deref()).map(|()| String::new()),
                None => Err(io::Error::other("no salvage is being written")),
            },
            Step::Commit => match open.remove(&volume) {
                Some(writer) => writer.commit().map(|path| path.display().to_string()),
                None => Err(io::Error::other("no salvage is being written")),
            },
            Step::Drop => {
                open.remove(&volume);
                continue;
            }
        };
        reply(match done {
            Ok(text) => Stored {
                result: Ok(()),
                text,
            },
            Err(error) => Stored {
                result: Err(disk_error(&error)),
                text: error.to_string(),
            },
        });
    }
}

fn disk_error(error: &io::Error) -> DiskError {
    let full = [Errno::NOSPC, Errno::DQUOT, Errno::FBIG];
    match error.raw_os_error() {
        Some(code) if full.iter().any(|e| e.raw_os_error() == code) => DiskError::NoSpace,
        _ => DiskError::Io,
    }
}

#[cfg(test)]
mod tests;
