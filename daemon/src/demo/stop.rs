//! Ctrl-C: the children end first, then the folder goes, then the demo.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

/// Exit code of a process that ended for SIGINT. Source: the shells' 128 + signal.
const INTERRUPTED: i32 = 130;

/// What a signal has to clean up.
#[derive(Default)]
struct Mess {
    pids: Vec<u32>,
    folder: Option<PathBuf>,
    /// Who waits for the signal instead.
    waiting: Option<Sender<()>>,
}

/// The running children and their folder, shared with the thread that waits for signals.
#[derive(Clone, Default)]
pub(super) struct Children(Arc<Mutex<Mess>>);

impl Children {
    /// Takes over SIGINT and SIGTERM. Errors: signals cannot be taken.
    pub(super) fn watch() -> io::Result<Children> {
        let children = Children::default();
        let shared = children.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (mut interrupt, mut terminate) = {
            let _entered = runtime.enter();
            (
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
            )
        };
        thread::spawn(move || {
            runtime.block_on(async {
                loop {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                    }
                    shared.signalled();
                }
            });
        });
        Ok(children)
    }

    /// The folder to remove at a signal.
    pub(super) fn set_folder(&self, folder: PathBuf) {
        self.mess().folder = Some(folder);
    }

    /// Starts a child that a signal will end.
    pub(super) fn start(&self, command: &mut Command) -> io::Result<Child> {
        // Under the lock: a signal finds the child in the list, or none is started any more.
        let mut mess = self.mess();
        let child = command.spawn()?;
        mess.pids.push(child.id());
        Ok(child)
    }

    /// A child that was waited for.
    pub(super) fn forget(&self, child: &Child) {
        self.mess().pids.retain(|pid| *pid != child.id());
    }

    /// Waits for the next signal; a second one ends the process at once.
    pub(super) fn wait_for_signal(&self) {
        let (sender, receiver): (Sender<()>, Receiver<()>) = channel();
        self.mess().waiting = Some(sender);
        // The sender lives in the shared state: it can only answer.
        let _ = receiver.recv();
    }

    fn signalled(&self) {
        let mut mess = self.mess();
        if let Some(waiting) = mess.waiting.take() {
            let _ = waiting.send(());
            return;
        }
        for pid in &mess.pids {
            let pid = i32::try_from(*pid).ok().and_then(Pid::from_raw);
            let _ = pid.map(|pid| kill_process(pid, Signal::KILL));
        }
        if let Some(folder) = &mess.folder {
            let _ = fs::remove_dir_all(folder);
        }
        eprintln!("\ninterrupted: all children are ended");
        std::process::exit(INTERRUPTED);
    }

    fn mess(&self) -> MutexGuard<'_, Mess> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
