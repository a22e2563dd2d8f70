//! Lines of the engine, written from a thread of their own: a full pipe behind stderr must not stop
//! a reactor.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::{io, thread};

use engine::log::{Level, Line, Log};

/// Lines that wait at most; further ones are counted and dropped.
const LINES_MAX: usize = 1024;

/// Hands lines to the writing thread, which ends when this is dropped.
pub(super) struct QueuedLog {
    lines: SyncSender<Owned>,
    lost: Arc<AtomicU64>,
}

struct Owned {
    level: Level,
    code: &'static str,
    volume: Option<String>,
    text: String,
}

impl QueuedLog {
    /// Starts the thread. Errors: the system gives none.
    pub(super) fn start() -> io::Result<QueuedLog> {
        let (lines, waiting) = sync_channel(LINES_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let log = QueuedLog {
            lines,
            lost: lost.clone(),
        };
        thread::Builder::new()
            .name("log".into())
            .spawn(move || write_all(&waiting, &lost))?;
        Ok(log)
    }
}

impl Log for QueuedLog {
    fn line(&self, line: Line<'_>) {
        let Line {
            level,
            code,
            volume,
            text,
        } = line;
        let owned = Owned {
            level,
            code,
            volume: volume.map(str::to_owned),
            text: text.to_owned(),
        };
        if self.lines.try_send(owned).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn write_all(waiting: &Receiver<Owned>, lost: &AtomicU64) {
    while let Ok(Owned {
        level,
        code,
        volume,
        text,
    }) = waiting.recv()
    {
        let volume = volume.as_deref();
        match level {
            Level::Info => tracing::info!(code, volume, "{text}"),
            Level::Warn => tracing::warn!(code, volume, "{text}"),
            Level::Error => tracing::error!(code, volume, "{text}"),
        }
        match lost.swap(0, Ordering::Relaxed) {
            0 => {}
            count => tracing::warn!(
                code = "W152",
                "{count} lines were lost: the log is too slow"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_nobody_reads_never_stops_its_writer() {
        let (lines, _waiting) = sync_channel(LINES_MAX);
        let log = QueuedLog {
            lines,
            lost: Arc::default(),
        };
        for _ in 0..LINES_MAX + 7 {
            log.line(Line {
                level: Level::Info,
                code: "W104",
                volume: None,
                text: "x",
            });
        }
        assert_eq!(log.lost.load(Ordering::Relaxed), 7);
    }
}
