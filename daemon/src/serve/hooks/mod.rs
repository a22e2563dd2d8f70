//! Programs that follow the role of a volume: `on_promote`, `on_demote`.
//!
//! ```text
//!  thread of one volume: look at its role ─ another than told? ─► run the program ─► look again
//! ```
//! A thread of its own for each volume with hooks, never a reactor: whatever a program does, the
//! volume goes on. They follow the state, not each change: after a start the role is told once, so
//! that what a killed process left behind is taken back, and a role that came and went while a
//! program ran is not told. Programs must bear being run again.

mod run;

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use engine::control::Node;
use engine::front_end::Service;
use nbd_server::Volumes;
use tracing::{error, info, warn};

use crate::config::{Config, Hooks, Node as NodeConfig};
use run::{Failed, Told};

/// Between two looks at a role.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Longest wait for the term of a volume; it is told as 0 then.
const TERM_MAX: Duration = Duration::from_secs(1);

const FOLLOW: u8 = 0;
const FINISH: u8 = 1;
const LEAVE: u8 = 2;

/// The threads of all volumes with hooks.
pub(super) struct Followed {
    wish: Arc<AtomicU8>,
    threads: Vec<JoinHandle<()>>,
}

/// What one thread knows.
struct Follower {
    volume: String,
    node: String,
    hooks: Hooks,
    volumes: Weak<dyn Volumes>,
    engine: Weak<dyn Node>,
    wish: Arc<AtomicU8>,
}

impl Followed {
    /// Starts following the volumes that `node` has a replica of.
    pub(super) fn start(
        config: &Config,
        node: &NodeConfig,
        volumes: &Arc<dyn Volumes>,
        engine: &Arc<dyn Node>,
    ) -> Followed {
        let wish = Arc::new(AtomicU8::new(FOLLOW));
        let mut threads = Vec::new();
        let held = config.volumes.iter().filter(|v| v.is_on(&node.name));
        for volume in held.filter(|volume| volume.hooks != Hooks::default()) {
            let follower = Follower {
                volume: volume.name.value.clone(),
                node: node.name.value.clone(),
                hooks: volume.hooks.clone(),
                volumes: Arc::downgrade(volumes),
                engine: Arc::downgrade(engine),
                wish: Arc::clone(&wish),
            };
            let thread = thread::Builder::new().name("hooks".into());
            match thread.spawn(move || follower.follow()) {
                Ok(thread) => threads.push(thread),
                Err(why) => {
                    let volume = &*volume.name.value;
                    error!(code = "W160", volume, "its hooks are not run: {why}");
                }
            }
        }
        Followed { wish, threads }
    }

    /// The node has drained: tells the last role, and returns when that is done. Blocks.
    pub(super) fn finish(mut self) {
        self.wish.store(FINISH, Ordering::Release);
        for thread in self.threads.drain(..) {
            // A panic was printed by its thread; nothing is left to do about it.
            let _ = thread.join();
        }
    }

    /// Another process goes on with the volumes: tells nothing more. Does not wait.
    pub(super) fn leave(self) {}
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.wish.store(LEAVE, Ordering::Release);
    }
}

impl Follower {
    fn follow(self) {
        let mut told = None;
        loop {
            // What is wished for first: a role that is looked at after that is the last one.
            let wish = self.wish.load(Ordering::Acquire);
            let Some(volumes) = self.volumes.upgrade() else {
                return;
            };
            let view = volumes.view(&self.volume);
            drop(volumes);
            let is_primary = view.is_some_and(|view| view.service == Service::Primary);
            match wish {
                LEAVE => return,
                _ if told != Some(is_primary) => {
                    self.tell(is_primary);
                    told = Some(is_primary);
                }
                FINISH => return,
                _ => thread::sleep(LOOK_EVERY),
            }
        }
    }

    fn tell(&self, is_primary: bool) {
        let (hook, argv, role) = match is_primary {
            true => ("on_promote", &self.hooks.on_promote, "primary"),
            false => ("on_demote", &self.hooks.on_demote, "secondary"),
        };
        let Some(program) = argv.first() else {
            return;
        };
        let volume = &*self.volume;
        let told = Told {
            volume,
            node: &self.node,
            role,
            term: self.term(),
        };
        match run::run(argv, &told, self.hooks.timeout) {
            Ok(took) => {
                let milliseconds = took.as_millis();
                info!(
                    code = "I160",
                    volume, "{hook}: {program} ended after {milliseconds} ms"
                );
            }
            Err(failed @ (Failed::Start(_) | Failed::Status(_) | Failed::Hung(_))) => {
                warn!(
                    code = "W160",
                    volume, "{hook}: {program} {failed}; the volume goes on"
                );
            }
        }
    }

    /// Term of the newest reign that this copy knows; 0 if nobody says.
    fn term(&self) -> u64 {
        let Some(engine) = self.engine.upgrade() else {
            return 0;
        };
        let (sender, receiver) = sync_channel(1);
        let reply = Box::new(move |found| {
            // It may have come too late.
            let _ = sender.try_send(found);
        });
        engine.status(Some(&self.volume), reply);
        drop(engine);
        let found: Vec<engine::control::VolumeStatus> =
            receiver.recv_timeout(TERM_MAX).unwrap_or_default();
        let generation = found.first().and_then(|volume| volume.generation);
        generation.map_or(0, |generation| generation.term)
    }
}

#[cfg(test)]
mod tests;
