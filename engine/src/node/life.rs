//! Lives of volumes on a node: attach, create, delete, drain, and trying again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use engine_core::table::Table;
use engine_core::units::GRANULE;
use engine_core::verdict::Policy;
use engine_core::volume::{SUM_PAGES_MIN, Setup};

use super::{KEEPER_EVERY, Shared, ask_and_wait, failed, leave_and_wait, not_found, read_faults};
use crate::backend::{DiskKind, Opened};
use crate::control::{
    Backing, Cache, Done, Outcome, Reads, Refusal, RefusalKind, Request, SplitBrain, VolumeSpec,
    WritePolicy,
};
use crate::entry::{Entry, Place};
use crate::front_end::Service;
use crate::handover::{HandedClient, HandedVolume};
use crate::layer::faulty::Faults;
use crate::log::{Level, Line};
use crate::mailbox::{Leave, Message, NewVolume, Reply};
use crate::meta_io::{self, Attached, Replica, ReplicaError};
use crate::peers::{Peers, When};
use crate::words;

/// Client requests of one volume at once.
const REQUESTS_MAX: usize = 1024;
/// Writes of a primary accepted at once, and their payload: more than one of the largest pieces.
const PEER_REQUESTS_MAX: usize = 1024;
const PEER_BYTES_MAX: u64 = 40 << 20;
/// A volume that is created is waited for so long to be served.
const SERVICE_WAIT: Duration = Duration::from_secs(5);
/// Balanced reads: a disk with fewer reads outstanding beyond a peer's is not helped.
const READ_MARGIN: u32 = 4;

impl Shared {
    fn replica<'a>(&'a self, spec: &'a VolumeSpec) -> Replica<'a> {
        Replica {
            data_dir: &self.spec.data_dir,
            node: &self.spec.name,
            spec,
        }
    }

    /// Attaches the volume of this index, or finds out why it cannot be. Blocks. The answer brings
    /// one word when negotiation knows how it is served, and ends without one if it never does.
    pub(super) fn attach(&self, index: usize) -> Receiver<()> {
        let (spec, entry) = (&self.spec.volumes[index], &self.entries[index]);
        let (settled, is_settled) = sync_channel(1);
        let place = match self.replica(spec).attach() {
            Ok(attached) => self.hand_over(index, attached, settled),
            Err(ReplicaError::NotCreated) => Place::NotCreated,
            Err(error) => {
                let retries = error.is_in_use();
                Place::Offline {
                    code: words::code_of(&error),
                    text: words::offline(&error),
                    retries,
                }
            }
        };
        self.put(entry, place);
        if let (Place::Attached(_), Some(bells)) = (&*entry.place(), self.bells.get()) {
            let bells = bells.now();
            for (peer, _) in bells.iter().filter(|(peer, _)| self.is_peer(spec, peer)) {
                Peers::redial(&bells, peer, &spec.name, When::Soon);
            }
        }
        is_settled
    }

    /// Writes a volume's place down, says so once, and tells negotiation.
    fn put(&self, entry: &Entry, place: Place) {
        let mut current = entry.place();
        if let (Place::Offline { code, text, .. }, true) = (&place, *current != place) {
            self.say(
                Level::Error,
                code,
                &entry.name,
                &format!("is offline: {text}"),
            );
        }
        let name = &entry.name;
        let reason = match &place {
            Place::NotCreated => Some(format!("{name} is not created on {}", self.spec.name)),
            Place::Offline { text, .. } => Some(format!("{name} is offline: {text}")),
            Place::Busy => Some(format!("{name} is being created, attached or deleted")),
            Place::Attached(_) => None,
        };
        if let Some(reason) = reason {
            entry.change_view(|view| view.service = Service::Unavailable { reason });
        }
        *current = place;
    }

    fn hand_over(&self, index: usize, attached: Attached, settled: SyncSender<()>) -> Place {
        let (spec, entry) = (&self.spec.volumes[index], &self.entries[index]);
        let Attached {
            store,
            meta,
            loaded,
        } = attached;
        let (has_volatile_cache, is_memory) = match &store {
            // A witness has no copy to lose.
            Opened::Memory(_) => (spec.backing.is_some(), spec.backing.is_some()),
            Opened::Disk(disk) => (disk.has_volatile_cache, false),
        };
        if let Opened::Disk(disk) = &store
            && disk.kind == DiskKind::File
            && !disk.is_direct
            && spec.cache == Cache::Direct
        {
            let text = "the backing's file system has no direct I/O";
            self.say(Level::Warn, "W113", &spec.name, text);
        }
        let size_bytes = match spec.backing {
            Some(_) => loaded.superblock.size_granules * GRANULE,
            // A witness has none, and keeps what its metadata was made with.
            None => spec.size_bytes,
        };
        entry.change_view(|view| view.size_bytes = size_bytes);
        if size_bytes != spec.size_bytes {
            let text = words::size_differs(&spec.name, spec.size_bytes, size_bytes);
            self.say(Level::Warn, "W116", &spec.name, &text);
        }
        // Whom it needs links to is asked before the reactor has it.
        let own = Table::stored(&loaded.attributes.attributes).ok().flatten();
        entry.set_nodes(own.unwrap_or_else(|| spec.table()));
        let setup = Setup {
            node: loaded.superblock.self_node,
            table: spec.table(),
            quorum: spec.votes.quorum,
            lease: spec.votes.lease,
            auto_promote: spec.votes.auto_promote,
            on_quorum_loss: spec.votes.on_quorum_loss,
            cluster: self.spec.cluster.clone(),
            volume: spec.name.clone(),
            config_digest: meta_io::config_digest(spec),
            config_digest_unnamed: meta_io::config_digest_unnamed(spec),
            policy: match spec.write_policy {
                WritePolicy::Durable => Policy::Durable,
                WritePolicy::Written => Policy::Written,
            },
            resync_rate: spec.resync_rate.unwrap_or(0),
            read_margin: (spec.reads == Reads::Balanced).then_some(READ_MARGIN),
            min_copies: spec.min_copies,
            discards_unchanged: spec.splitbrain == SplitBrain::DiscardUnchanged,
            member_timeout: self.spec.member_timeout,
            has_volatile_cache,
            is_memory,
            boot_id: meta_io::boot_id(),
            entropy: meta_io::random_u128(),
            requests_max: REQUESTS_MAX,
            peer_requests_max: PEER_REQUESTS_MAX,
            peer_bytes_max: PEER_BYTES_MAX,
            // A page lies in two extents at most, an extent in three or four pages.
            sum_pages: 2 * loaded.superblock.activity_log_slots as usize + SUM_PAGES_MIN,
        };
        let new = NewVolume {
            entry: Arc::clone(entry),
            setup,
            loaded,
            store,
            meta,
            spec: VolumeSpec {
                size_bytes,
                ..spec.clone()
            },
            declared_bytes: spec.size_bytes,
            faults: self.faults_of(&spec.name),
            settled,
        };
        let reactor = self.reactor_of(index);
        match self.mailboxes[reactor].send(Message::Attach(Box::new(new))) {
            Ok(()) => Place::Attached(reactor),
            Err(_) => {
                let text = "its reactor is too busy".to_owned();
                Place::Offline {
                    code: "E216",
                    text,
                    retries: true,
                }
            }
        }
    }

    fn faults_of(&self, volume: &str) -> Faults {
        let plan = self.faults.read().unwrap_or_else(PoisonError::into_inner);
        Faults::parse(&plan, volume).unwrap_or_else(|error| {
            self.say(Level::Warn, "W114", volume, &error.to_string());
            Faults::default()
        })
    }

    /// Tries what waits for a lock, and looks for new faults, until the node ends.
    pub(super) fn keep(&self) {
        let mut plan = self
            .faults
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        while !self.is_over.load(Ordering::Acquire) {
            thread::park_timeout(KEEPER_EVERY);
            for (index, entry) in self.entries.iter().enumerate() {
                let retries = matches!(*entry.place(), Place::Offline { retries: true, .. });
                if retries && !self.is_draining.load(Ordering::Acquire) {
                    self.attach(index);
                }
            }
            self.move_volumes();
            self.meet_members();
            let now = read_faults();
            if now != plan {
                plan.clone_from(&now);
                self.plant(now);
            }
        }
    }

    /// Talks to nodes that a volume's own table names by now, and the file has an address of.
    fn meet_members(&self) {
        // Each is asked: there may be several.
        let has_other = |entry: &&Arc<Entry>| entry.take_other_nodes();
        let news = self.entries.iter().filter(has_other).count() > 0;
        let peers = self.peers.get().and_then(Weak::upgrade);
        let (Some(peers), true) = (peers, news) else {
            return;
        };
        if let Err(why) = super::lock(&peers).add(&self.needed_peers()) {
            let text = format!("a node that is new cannot be talked to: {why}");
            self.log.line(Line {
                level: Level::Warn,
                code: "W101",
                volume: None,
                text: &text,
            });
        }
    }

    /// Attaches volumes anew in which this node has another index now. Blocks.
    fn move_volumes(&self) {
        for (index, entry) in self.entries.iter().enumerate() {
            let is_free = !self.is_draining.load(Ordering::Acquire);
            if !is_free || !entry.take_moved() {
                continue;
            }
            let reactor = match self.claim(index) {
                Ok(Place::Attached(reactor)) => reactor,
                Ok(other) => {
                    *entry.place() = other;
                    continue;
                }
                Err(_) => {
                    entry.note_moved();
                    continue;
                }
            };
            let left = leave_and_wait(&self.mailboxes[reactor], &entry.name, Leave::Delete);
            match left {
                Ok(_) => drop(self.attach(index)),
                Err(_) => {
                    // Tried again at the next look.
                    *entry.place() = Place::Attached(reactor);
                    entry.note_moved();
                }
            }
        }
    }

    /// Puts a plan of faults in force on all volumes.
    pub(super) fn plant(&self, plan: String) {
        *self.faults.write().unwrap_or_else(PoisonError::into_inner) = plan;
        for entry in &self.entries {
            let name = &entry.name;
            self.broadcast(|| Message::Faults(name.clone(), self.faults_of(name)));
        }
    }

    /// An operator's request.
    pub(super) fn request(
        this: &Arc<Shared>,
        volume: &str,
        request: Request,
        reply: Reply<Outcome>,
    ) {
        let Some(index) = this.entries.iter().position(|entry| entry.name == volume) else {
            return reply(Err(not_found(volume)));
        };
        if this.is_draining.load(Ordering::Acquire) {
            return reply(Err(failed(
                "E219",
                format!("{} is stopping", this.spec.name),
                None,
            )));
        }
        match request {
            Request::Create { adopt, if_absent } => {
                this.off_thread(reply, move |this| this.create(index, adopt, if_absent));
            }
            Request::Delete { wipe } => {
                this.off_thread(reply, move |this| this.delete(index, wipe));
            }
            Request::Resize { size_bytes } => {
                this.off_thread(reply, move |this| this.resize(index, size_bytes));
            }
            request => {
                let place = this.entries[index].place().clone();
                let Place::Attached(reactor) = place else {
                    return reply(Err(this.not_attached(volume, &place)));
                };
                let message = Message::Request {
                    volume: volume.to_owned(),
                    request,
                    reply,
                };
                if let Err(Message::Request { reply, .. }) = this.mailboxes[reactor].send(message) {
                    reply(Err(failed(
                        "E216",
                        format!("{volume}: the node is too busy"),
                        None,
                    )));
                }
            }
        }
    }

    fn off_thread(
        self: &Arc<Shared>,
        reply: Reply<Outcome>,
        work: impl FnOnce(&Shared) -> Outcome + Send + 'static,
    ) {
        let this = Arc::clone(self);
        let reply = Arc::new(std::sync::Mutex::new(Some(reply)));
        let take = |reply: &std::sync::Mutex<Option<Reply<Outcome>>>| {
            reply.lock().unwrap_or_else(PoisonError::into_inner).take()
        };
        let shared = Arc::clone(&reply);
        let run = move || {
            let outcome = work(&this);
            if let Some(reply) = take(&shared) {
                reply(outcome);
            }
        };
        if let Err(e) = thread::Builder::new().name("volume".into()).spawn(run) {
            let text = format!("a thread cannot be started: {e}");
            if let Some(reply) = take(&reply) {
                reply(Err(failed("E216", text, None)));
            }
        }
    }

    fn not_attached(&self, volume: &str, place: &Place) -> Refusal {
        match place {
            Place::NotCreated => failed(
                "E205",
                format!("{volume} is not created on {}", self.spec.name),
                Some(format!("pollux volume create {volume}")),
            ),
            Place::Offline { code, text, .. } => {
                failed(code, format!("{volume} is offline: {text}"), None)
            }
            _ => failed(
                "E215",
                format!("{volume} is being created, attached or deleted"),
                None,
            ),
        }
    }

    /// Takes the volume out of others' hands while it is being worked on.
    fn claim(&self, index: usize) -> Result<Place, Refusal> {
        let entry = &self.entries[index];
        let mut place = entry.place();
        if *place == Place::Busy {
            return Err(self.not_attached(&entry.name, &place));
        }
        Ok(std::mem::replace(&mut *place, Place::Busy))
    }

    fn create(&self, index: usize, adopt: bool, if_absent: bool) -> Outcome {
        let (spec, entry) = (&self.spec.volumes[index], &self.entries[index]);
        let name = &spec.name;
        let before = self.claim(index)?;
        if let Place::Attached(_) = before {
            *entry.place() = before;
            return self.exists(name, if_absent);
        }
        match self.replica(spec).create(adopt) {
            Ok(()) => {
                // Whoever comes after the answer is served, or told who would. It is created all
                // the same if that takes long.
                let _ = self.attach(index).recv_timeout(SERVICE_WAIT);
                self.say(Level::Info, "I104", name, "is created");
                Ok(Done::Ok(format!("{name} is created on {}", self.spec.name)))
            }
            Err(error) => {
                self.put(entry, before);
                if matches!(error, ReplicaError::Exists) {
                    return self.exists(name, if_absent);
                }
                Err(self.create_refused(spec, &error))
            }
        }
    }

    fn exists(&self, name: &str, if_absent: bool) -> Outcome {
        let text = format!("{name} exists on {}", self.spec.name);
        if if_absent {
            Ok(Done::Already(text))
        } else {
            Err(failed("E222", text, None))
        }
    }

    fn create_refused(&self, spec: &VolumeSpec, error: &ReplicaError) -> Refusal {
        use crate::backend::StoreError;
        let name = &spec.name;
        let hint = match error {
            ReplicaError::Store(StoreError::Exists(_) | StoreError::Signature { .. }) => Some(
                format!("keep its content: pollux volume create {name} --adopt"),
            ),
            ReplicaError::Store(StoreError::Missing(_)) => Some(format!(
                "begin with an empty one: pollux volume create {name}"
            )),
            _ => None,
        };
        let text = format!(
            "cannot create {name} on {}: {}",
            self.spec.name,
            words::offline(error)
        );
        Refusal {
            kind: RefusalKind::Failed,
            code: words::code_of(error),
            text,
            hint,
        }
    }

    fn delete(&self, index: usize, wipe: bool) -> Outcome {
        let (spec, entry) = (&self.spec.volumes[index], &self.entries[index]);
        let name = &spec.name;
        let before = self.claim(index)?;
        if let Place::Attached(reactor) = before {
            let left = leave_and_wait(&self.mailboxes[reactor], name, Leave::Delete);
            if let Err(refusal) = left
                // A volume that could not stop cleanly has left all the same.
                && refusal.code != "E209"
            {
                *entry.place() = before;
                return Err(refusal);
            }
        }
        let text = match (&spec.backing, wipe) {
            (Some(Backing::Path(path)), false) => format!("; {} is kept", path.display()),
            _ => String::new(),
        };
        match self.replica(spec).delete(wipe) {
            Ok(()) => {
                self.put(entry, Place::NotCreated);
                self.say(Level::Info, "I104", name, "is deleted");
                Ok(Done::Ok(format!(
                    "{name} is deleted on {}{text}",
                    self.spec.name
                )))
            }
            Err(error) => {
                self.attach(index);
                let text = format!("cannot delete {name}: {}", words::offline(&error));
                Err(failed(words::code_of(&error), text, None))
            }
        }
    }

    /// First the backing, then the volume: a crash in between leaves a backing that is longer than
    /// it need be.
    fn resize(&self, index: usize, size_bytes: u64) -> Outcome {
        let (spec, entry) = (&self.spec.volumes[index], &self.entries[index]);
        let name = &spec.name;
        let place = entry.place().clone();
        let Place::Attached(reactor) = place else {
            return Err(self.not_attached(name, &place));
        };
        let mailbox = &self.mailboxes[reactor];
        let may = |reply| Message::MayGrow(name.clone(), size_bytes, reply);
        let Some(order) = ask_and_wait(mailbox, name, may)? else {
            return Ok(Done::Already(words::has_size(name, size_bytes)));
        };
        meta_io::lengthen(spec, &order).map_err(|error| {
            let text = format!("cannot resize {name}: {}", words::offline(&error));
            failed(words::code_of(&error), text, None)
        })?;
        let resize = |reply| Message::Request {
            volume: name.clone(),
            request: Request::Resize { size_bytes },
            reply,
        };
        ask_and_wait(mailbox, name, resize)
    }

    /// What every volume leaves behind, after all have left.
    pub(super) fn legacy(&self) -> (Vec<HandedVolume>, Vec<HandedClient>) {
        let mut clients = Vec::new();
        let volumes = self.entries.iter().map(|entry| {
            let legacy = entry.take_legacy();
            clients.extend(legacy.clients);
            HandedVolume {
                name: entry.name.clone(),
                was_primary: legacy.was_primary,
            }
        });
        (volumes.collect(), clients)
    }

    /// Stops every volume cleanly; `done` after the last (law O4).
    pub(super) fn drain(this: &Arc<Shared>, leave: Leave, done: Box<dyn FnOnce() + Send>) {
        this.is_draining.store(true, Ordering::Release);
        let attached: Vec<_> = this
            .entries
            .iter()
            .filter_map(|entry| match *entry.place() {
                Place::Attached(reactor) => Some((reactor, Arc::clone(entry))),
                _ => None,
            })
            .collect();
        // One more than there are volumes: the last step is ours.
        let left = Arc::new(AtomicUsize::new(attached.len() + 1));
        let done = Arc::new(std::sync::Mutex::new(Some(done)));
        let step = move || {
            if left.fetch_sub(1, Ordering::AcqRel) == 1 {
                let done = done.lock().unwrap_or_else(PoisonError::into_inner).take();
                done.into_iter().for_each(|done| done());
            }
        };
        for (reactor, entry) in attached {
            let (step, name) = (step.clone(), entry.name.clone());
            let stopped = Box::new(move |_outcome| {
                *entry.place() = Place::Offline {
                    code: "E219",
                    text: "the node is stopping".into(),
                    retries: false,
                };
                step();
            });
            let message = Message::Leave(name, leave, stopped);
            if let Err(Message::Leave(_, _, stopped)) = this.mailboxes[reactor].send(message) {
                stopped(Err(failed("E216", "the node is too busy".into(), None)));
            }
        }
        step();
    }
}
