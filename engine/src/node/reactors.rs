//! Starting reactor threads: ring, arena, CPU, sleep policy.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};

use engine_core::event::{DiskError, Token};
use engine_core::vote::Ballot;
use engine_ring::sys::cpu;
use engine_ring::{
    Arena, ArenaConfig, Backend, Chosen, Class, Pages, RingConfig, Waker, open_ring,
};

use super::StartError;
use crate::control::{NodeSpec, Polling, VolumeSpec};
#[cfg(feature = "etcd")]
use crate::control_store::Ask;
use crate::log::{Level, Line, Log};
use crate::mailbox::{MESSAGES_MAX, Mailbox, Message};
use crate::meta_io::{self, Lengthening, ReplicaError};
use crate::peers::{Bells, Peers, When};
use crate::reactor::{Parts, Reactor, SleepPolicy, Turns};
use crate::salvage::{self, Order, Step};
use crate::shell::Shell;
use crate::words;

/// Bytes of buffers of one reactor, and what each class is promised of them.
const ARENA_BYTES: usize = 256 << 20;
const GUARANTEED: [(Class, usize); Class::COUNT] = [
    (Class::Client, 64 << 20),
    (Class::PeerIn, 64 << 20),
    (Class::Resync, 32 << 20),
    (Class::Meta, 8 << 20),
    (Class::Net, 32 << 20),
];
/// Reactors are pinned where at least this many CPUs are allowed; on fewer, the system's own
/// choice is better than sharing one with whoever else was pinned there.
const CPUS_TO_PIN: usize = 4;

/// A running reactor.
pub(super) struct ReactorHandle {
    pub(super) mailbox: Mailbox,
    pub(super) turns: Arc<Turns>,
    /// What serves I/O, and why.
    pub(super) words: String,
    thread: JoinHandle<()>,
}

impl ReactorHandle {
    pub(super) fn into_thread(self) -> JoinHandle<()> {
        self.thread
    }
}

/// Starts all reactors of a node.
pub(super) fn start(
    spec: &NodeSpec,
    log: &Arc<dyn Log>,
    bells: &Arc<OnceLock<Bells>>,
    #[cfg(feature = "etcd")] ask: &Arc<OnceLock<Ask>>,
) -> Result<Vec<ReactorHandle>, StartError> {
    let count = spec.reactors.max(1);
    let cpus = cpu::allowed().unwrap_or_default();
    let may_spin = cpus.len() >= count;
    let sessions = Arc::new(AtomicU64::new(1));
    let process = meta_io::random_u128() as u32 & 0xff_ffff;
    let salvages = salvage::start().map_err(StartError::Thread)?;
    let mut handles = Vec::with_capacity(count);
    for index in 0..count {
        let (redialled, said) = (Arc::clone(bells), Arc::clone(bells));
        let (sender, inbox) = sync_channel(MESSAGES_MAX);
        let own = Arc::<OnceLock<Mailbox>>::default();
        let answers = Arc::clone(&own);
        let (salvages, its_box) = (salvages.clone(), Arc::clone(&own));
        let parts = Parts {
            node: spec.name.clone(),
            inbox,
            sleep: SleepPolicy::new(Polling::Balanced, may_spin),
            sessions: Arc::clone(&sessions),
            process,
            turns: Arc::default(),
            redial: Box::new(move |peer: &str, volume: &str, when: When| {
                if let Some(bells) = redialled.get() {
                    Peers::redial(&bells.now(), peer, volume, when);
                }
            }),
            #[cfg(feature = "etcd")]
            ask: Arc::clone(ask),
            #[cfg(feature = "etcd")]
            index,
            say: Box::new(move |peer: &str, volume: &str, ballot: Ballot| {
                if let Some(bells) = said.get() {
                    Peers::say(&bells.now(), peer, volume, ballot);
                }
            }),
            salvage_folder: spec.data_dir.join(salvage::FOLDER),
            salvage: Box::new(move |volume: &str, token: Token, step: Step| {
                let (volume, its_box) = (volume.to_owned(), Arc::clone(&its_box));
                let name = volume.clone();
                let answer = move |stored| {
                    let message = Message::Salvaged {
                        volume: name,
                        token,
                        stored,
                    };
                    if let Some(mailbox) = its_box.get() {
                        mailbox.send_patiently(message);
                    }
                };
                let reply = Box::new(answer);
                // The thread ends with the last reactor.
                let _ = salvages.send(Order {
                    volume,
                    step,
                    reply,
                });
            }),
            lengthen: Box::new(move |spec, order| lengthen(&answers, spec, order)),
        };
        let pin = (may_spin && cpus.len() >= CPUS_TO_PIN).then(|| cpus[index]);
        let handle = spawn(index, parts, sender, pin, log)?;
        // It is set once, here.
        let _ = own.set(handle.mailbox.clone());
        handles.push(handle);
    }
    Ok(handles)
}

/// Makes a backing longer off the reactor, and tells it.
fn lengthen(own: &Arc<OnceLock<Mailbox>>, spec: VolumeSpec, order: Lengthening) {
    let (own, refused) = (Arc::clone(own), Arc::clone(own));
    let name = spec.name.clone();
    let work = move || {
        let error = |e: ReplicaError| (words::disk_error(&e), words::offline(&e));
        let result = meta_io::lengthen(&spec, &order).map_err(error);
        if let Some(own) = own.get() {
            own.send_patiently(Message::BackingGrown(spec.name, order.size, result));
        }
    };
    let spawned = thread::Builder::new().name("grow".into()).spawn(work);
    if let (Err(e), Some(own)) = (spawned, refused.get()) {
        let why = (DiskError::Io, format!("a thread cannot be started: {e}"));
        // Full: the core asks again with the next growth.
        let _ = own.send(Message::BackingGrown(name, order.size, Err(why)));
    }
}

fn spawn(
    index: usize,
    parts: Parts,
    sender: SyncSender<Message>,
    pin: Option<usize>,
    log: &Arc<dyn Log>,
) -> Result<ReactorHandle, StartError> {
    let (ready, is_ready) = sync_channel::<Result<(Waker, String), String>>(1);
    let turns = Arc::clone(&parts.turns);
    let (log, last_words) = (Arc::clone(log), Arc::clone(log));
    let run = move || match set_up(index, pin, log) {
        Ok((shell, words)) => {
            // The starter waits for it below.
            let _ = ready.send(Ok((shell.ring.waker(), words)));
            let reactor = AssertUnwindSafe(|| Reactor::new(shell, parts).run());
            if catch_unwind(reactor).is_err() {
                // Only a bug of ours ends here. Volumes must not look alive without their
                // reactor: a peer takes over from a crash, not from silence.
                let text = "a reactor failed; the process ends";
                let line = Line {
                    level: Level::Error,
                    code: "E299",
                    volume: None,
                    text,
                };
                last_words.line(line);
                std::process::abort();
            }
        }
        Err(why) => drop(ready.send(Err(why))),
    };
    let thread = thread::Builder::new()
        .name(format!("reactor-{index}"))
        .spawn(run);
    let thread = thread.map_err(StartError::Thread)?;
    let (waker, words) = first_words(&is_ready).map_err(StartError::Reactor)?;
    Ok(ReactorHandle {
        mailbox: Mailbox::new(sender, waker),
        turns,
        words,
        thread,
    })
}

fn first_words<T>(ready: &Receiver<Result<T, String>>) -> Result<T, String> {
    ready
        .recv()
        .unwrap_or_else(|_| Err("the reactor ended at once".into()))
}

fn set_up(index: usize, pin: Option<usize>, log: Arc<dyn Log>) -> Result<(Shell, String), String> {
    if let Some(cpu) = pin
        && let Err(e) = cpu::pin(cpu)
    {
        let text = format!("reactor {index} is not pinned to CPU {cpu}: {e}");
        log.line(Line {
            level: Level::Warn,
            code: "W107",
            volume: None,
            text: &text,
        });
    }
    let mut guaranteed = [0; Class::COUNT];
    GUARANTEED
        .iter()
        .for_each(|(class, bytes)| guaranteed[*class as usize] = *bytes);
    let config = ArenaConfig {
        reactor: index as u16,
        bytes: ARENA_BYTES,
        guaranteed,
    };
    let arena = Arena::new(&config).map_err(|e| format!("buffers of {ARENA_BYTES} bytes: {e}"))?;
    let (ring, chosen) = open_ring(&RingConfig::default(), &arena).map_err(|e| format!("{e}"))?;
    let mut words = backend_words(&chosen);
    if chosen.backend == Backend::IoUring && !ring.features().fixed_buffers {
        words.push_str(", buffers not registered (RLIMIT_MEMLOCK)");
    }
    if arena.pages() == Pages::Small {
        words.push_str(", buffers in small pages");
    }
    let shell = Shell::new(ring, arena, log);
    Ok((shell.ok_or("the arena is too small")?, words))
}

/// For the start line and `status`: which back end, and why where it is not the usual one.
fn backend_words(chosen: &Chosen) -> String {
    match chosen.backend {
        Backend::IoUring => {
            let kernel = rustix::system::uname();
            let release = kernel.release().to_string_lossy().into_owned();
            let version: Vec<&str> = release.splitn(3, ['.', '-']).take(2).collect();
            format!("io_uring (kernel {})", version.join("."))
        }
        _ => format!("POSIX threads: {}", chosen.why),
    }
}
