//! Volumes of a reactor: arrival, operators' words, departure.
//!
//! ```text
//!  Attach ─► Running ─ demote --disconnect ─► clients drained ─► Command::Demote ─► Running
//!               └ Leave ─► clients drained ─► Command::Stop ─► links ended, files closed ─► gone
//! ```

use std::sync::Arc;
use std::time::Duration;

use engine_core::action::{Answer, CommandError};
use engine_core::event::{Command, CommandId, Event};
use engine_core::meta::Loaded;
use engine_core::time::Instant;
use engine_core::units::{NODES_MAX, NodeIdx, NodeSet};
use engine_core::volume::{RoleStatus, Setup, Volume as Core};
use engine_ring::{Backend, FileId, Op, Ring};

use crate::backend::{Disk, Opened, Store};
use crate::control::{Done, Outcome, Refusal, RefusalKind, Request, VolumeSpec};
use crate::control_store::LocalStore;
use crate::driver::Driver;
use crate::entry::Entry;
use crate::front_end::{DrainReason, Intake, Service};
use crate::layer::faulty::Faults;
use crate::log::Level;
use crate::mailbox::{Leave, Message, NewVolume, PeerNews, Reply};
use crate::peers::When;
use crate::reactor::Reactor;
use crate::status::{self, Rates};
use crate::token::{Kind, Token};
use crate::words::{self, Names};

/// Who waits for an answer of the core.
enum Pending {
    Request(Request, Reply<Outcome>),
    Leave(Reply<Outcome>),
    /// It was answered already; the end of a verify tells nobody.
    Nobody,
}

/// How far a volume is on its way out, or to the secondary role.
enum Leaving {
    /// Clients are being drained; then this command.
    Clients(Command, Pending),
    /// The core was told to stop.
    Stopping,
    /// Everything it has in the ring is ending; then the files are closed.
    Ending(Outcome, Reply<Outcome>),
    /// So many files are being closed.
    Closing(u32, Outcome, Reply<Outcome>),
}

/// A promotion on its way to the core. What is known of peers without a link may be old; each of
/// them is tried once more before the core is asked, so that it decides on fresh facts.
struct Asking {
    request: Request,
    reply: Reply<Outcome>,
    waiting: NodeSet,
    began: Instant,
    until: Instant,
}

/// A volume whose files are in the ring's table already.
pub(super) struct Arrival {
    pub(super) setup: Setup,
    pub(super) loaded: Loaded,
    pub(super) store: Store,
    pub(super) meta: FileId,
    pub(super) spec: VolumeSpec,
    pub(super) faults: Faults,
    pub(super) notes: Vec<String>,
}

/// One volume of this reactor.
pub(super) struct Volume {
    pub(super) driver: Driver,
    pub(super) clients: usize,
    entry: Arc<Entry>,
    spec: VolumeSpec,
    me: NodeIdx,
    is_admitting: bool,
    leaving: Option<Leaving>,
    pending: Vec<(CommandId, Pending)>,
    next_command: u64,
    /// A promotion that first finds out who can be reached.
    asking: Option<Asking>,
    /// When the latest promotion was asked for.
    promoting_since: Instant,
    /// When each peer's last link ended, or the volume was attached.
    unlinked_since: [Instant; NODES_MAX],
    /// Failure of the latest verify.
    verify_failure: Option<String>,
    rates: Rates,
    notes: Vec<String>,
}

impl Volume {
    pub(super) fn publish_clients(&self) {
        self.entry.change_view(|view| view.clients = self.clients);
    }

    /// When it must run again even if nothing happens.
    pub(super) fn next_moment(&self) -> Option<Instant> {
        let asking = self.asking.as_ref().map(|asking| asking.until);
        self.driver.next_moment().into_iter().chain(asking).min()
    }

    /// An attempt to reach this peer that began at this moment was in vain.
    fn found_out(&mut self, peer: NodeIdx, began: Instant) {
        if let Some(asking) = self.asking.as_mut().filter(|asking| asking.began <= began) {
            asking.waiting = asking.waiting.without(peer);
        }
    }

    fn names(&self) -> Names<'_> {
        Names {
            volume: &self.spec.name,
            me: self.me,
            nodes: &self.spec.replicas,
        }
    }

    fn peer(&self, name: &str) -> Option<NodeIdx> {
        let index = self.spec.replicas.iter().position(|node| node == name)?;
        Some(NodeIdx(index as u8)).filter(|node| *node != self.me)
    }

    /// Feeds a command and remembers who waits for its answer.
    fn command(&mut self, command: Command, pending: Pending) -> CommandId {
        let id = CommandId(self.next_command);
        self.next_command += 1;
        self.pending.push((id, pending));
        self.driver.local.push_back(Event::Command { id, command });
        id
    }

    /// Tells negotiation what it may say.
    fn publish(&self) {
        let status = self.driver.core.status();
        let service = match status.role {
            _ if !self.is_admitting => Service::Unavailable {
                reason: format!("{} is being stopped", self.spec.name),
            },
            RoleStatus::Primary => Service::Primary,
            _ => {
                let primary = status.peers.iter().find(|peer| peer.is_primary);
                let primary = primary.map(|peer| self.names().of(peer.node).to_owned());
                Service::Secondary { primary }
            }
        };
        self.entry.change_view(|view| view.service = service);
    }
}

impl Reactor {
    /// One message from another thread.
    pub(super) fn take(&mut self, message: Message) {
        match message {
            Message::Attach(new) => self.attach(*new),
            Message::Client(volume, attachment) => {
                let Some(slot) = self.find(&volume) else {
                    return;
                };
                let volume = self.volumes.get_mut(slot).expect("it was just found");
                let serves = volume.driver.core.status().role == RoleStatus::Primary;
                if volume.is_admitting && serves {
                    self.seat(slot, attachment);
                }
            }
            Message::Link {
                volume,
                peer,
                socket,
                unread,
            } => {
                let Some(slot) = self.find(&volume) else {
                    return;
                };
                let register = |ring: &mut dyn Ring| ring.register(socket);
                if self
                    .links
                    .add(&mut self.shell, slot, peer, register, &unread)
                    .is_none()
                {
                    let text = "no buffers or no room for another link";
                    self.shell.say(Level::Warn, "W101", &volume, text);
                }
            }
            Message::Peer { node, news } => self.peer_news(&node, news),
            Message::Request {
                volume,
                request,
                reply,
            } => self.request(&volume, request, reply),
            Message::Status(volume, reply) => {
                let slot = self.find(&volume);
                reply(slot.map(|slot| self.status(slot)));
            }
            Message::Leave(volume, leave, reply) => self.leave(&volume, leave, reply),
            Message::Faults(volume, faults) => {
                if let Some(slot) = self.find(&volume) {
                    let volume = self.volumes.get_mut(slot).expect("it was just found");
                    volume.driver.set_faults(faults);
                }
            }
            Message::Exit => self.is_exiting = true,
        }
    }

    fn find(&self, name: &str) -> Option<u32> {
        self.volumes
            .iter()
            .find(|(_, volume)| volume.spec.name == name)
            .map(|(slot, _)| slot)
    }

    fn attach(&mut self, new: NewVolume) {
        let NewVolume {
            entry,
            setup,
            loaded,
            store,
            meta,
            spec,
            faults,
        } = new;
        let mut notes = Vec::new();
        let store = match store {
            Opened::Memory(memory) => Store::Memory(memory),
            Opened::Disk(disk) => {
                if !disk.is_direct {
                    notes.push(BUFFERED.to_owned());
                }
                let file = self.shell.ring.register(disk.fd);
                Store::Disk(Disk::new(file, disk.kind, spec.allocation))
            }
        };
        let meta = self.shell.ring.register(meta);
        let core = Arrival {
            setup,
            loaded,
            store,
            meta,
            spec,
            faults,
            notes,
        };
        self.install(entry, core);
    }

    /// Puts a volume to work whose files are in the ring's table.
    pub(super) fn install(&mut self, entry: Arc<Entry>, arrival: Arrival) {
        let Some(slot) = self.volumes.next_slot() else {
            return;
        };
        let Arrival {
            setup,
            loaded,
            store,
            meta,
            spec,
            faults,
            mut notes,
        } = arrival;
        if setup.names.len() > 1 {
            notes.push(QUORUM_OFF.to_owned());
        }
        if setup.is_memory {
            notes.push(MEMORY.to_owned());
        }
        if self.shell.ring.features().backend == Backend::Posix {
            notes.push(POSIX.to_owned());
        }
        let control_store = Box::new(LocalStore::new(loaded.superblock.record));
        let intake = Intake::new(spec.size_bytes, setup.requests_max);
        let me = setup.node;
        let core = Core::attach(setup, loaded);
        let driver = Driver::new(slot, core, store, meta, intake, faults, control_store);
        let volume = Volume {
            driver,
            clients: 0,
            entry,
            me,
            is_admitting: true,
            leaving: None,
            pending: Vec::new(),
            next_command: 1,
            asking: None,
            promoting_since: Instant(0),
            unlinked_since: [self.shell.now; NODES_MAX],
            verify_failure: None,
            rates: Rates::default(),
            notes,
            spec,
        };
        assert!(
            self.volumes.insert(volume).is_ok(),
            "the slot was free a moment ago"
        );
        self.set_polling();
    }

    fn set_polling(&mut self) {
        let polling = self.volumes.iter().map(|(_, volume)| volume.spec.polling);
        self.parts.sleep.set_polling(polling);
    }

    /// What the thread of a peer found out, for every volume it has a replica of.
    fn peer_news(&mut self, node: &str, news: PeerNews) {
        let now = self.shell.now;
        for slot in 0..self.volumes.slots() {
            let Some(volume) = self.volumes.get_mut(slot) else {
                continue;
            };
            let Some(peer) = volume.peer(node) else {
                continue;
            };
            if news == PeerNews::Gone {
                self.links.end_of_peer(&mut self.shell, slot, peer);
            }
            let since = volume.unlinked_since[usize::from(peer.0)];
            // The other side dials; it may still be on its way.
            let may_come = news == PeerNews::Unlinked && now.since(since) < UNLINKED_MIN;
            if !may_come && !self.links.has_peer(slot, peer) {
                let began = match news {
                    PeerNews::Unreachable { began } => began,
                    PeerNews::Gone | PeerNews::Unlinked => now,
                };
                volume.found_out(peer, began);
                self.links.events.push((slot, Event::Unreachable { peer }));
            }
        }
    }

    /// Links that ended: the thread of that peer dials again, if dialling is ours.
    pub(super) fn gone_links(&mut self) {
        while let Some(gone) = self.links.gone.pop() {
            let Some(volume) = self.volumes.get_mut(gone.volume) else {
                continue;
            };
            volume.unlinked_since[usize::from(gone.peer.0)] = self.shell.now;
            if gone.was_silent {
                // It answered nothing: the volume is not attached there.
                volume.found_out(gone.peer, gone.since);
                volume
                    .driver
                    .local
                    .push_back(Event::Unreachable { peer: gone.peer });
                self.is_pressed = true;
            }
            // A link that was replaced by a newer one is not missed.
            let is_missed = !self.links.has_peer(gone.volume, gone.peer);
            if volume.leaving.is_none() && is_missed {
                let is_awaited = volume
                    .asking
                    .as_ref()
                    .is_some_and(|a| a.waiting.has(gone.peer));
                let when = match gone.was_useful {
                    _ if is_awaited => When::Now,
                    true => When::Soon,
                    false => When::Later,
                };
                (self.parts.redial)(volume.names().of(gone.peer), &volume.spec.name, when);
            }
        }
    }

    fn request(&mut self, name: &str, request: Request, reply: Reply<Outcome>) {
        let Some(slot) = self.find(name) else {
            return reply(Err(refuse(
                "E205",
                format!("{name} is not attached on this node"),
            )));
        };
        let volume = self.volumes.get_mut(slot).expect("it was just found");
        if volume.leaving.is_some() {
            return reply(Err(refuse(
                "E215",
                format!("{name} is being demoted or stopped"),
            )));
        }
        let command = match volume.translate(&request) {
            Ok(command) => command,
            Err(refusal) => return reply(Err(refusal)),
        };
        match (command, &request) {
            (None, _) => reply(Ok(Done::Verify(volume.verify_report()))),
            (Some(command), Request::Demote { disconnect }) if volume.clients > 0 => {
                if !disconnect {
                    return reply(Err(self.clients_attached(slot, "demote")));
                }
                volume.is_admitting = false;
                volume.leaving = Some(Leaving::Clients(command, Pending::Request(request, reply)));
                volume.publish();
                self.drain_clients(slot, DrainReason::VolumeLeaves);
            }
            (Some(command), Request::Verify) => {
                let id = volume.command(command, Pending::Request(request, reply));
                self.start_verify(slot, id);
            }
            (Some(_), Request::Promote { .. }) => self.ask_around(slot, request, reply),
            (Some(command), _) => {
                volume.command(command, Pending::Request(request, reply));
            }
        }
    }

    /// Tries every peer without a link once more, then promotes.
    fn ask_around(&mut self, slot: u32, request: Request, reply: Reply<Outcome>) {
        let volume = self.volumes.get_mut(slot).expect("the caller found it");
        let Request::Promote { wait, .. } = request else {
            unreachable!("only promotions ask around");
        };
        if volume.asking.is_some() {
            let refusal = words::refusal(volume.names(), &request, &CommandError::InProgress);
            return reply(Err(refusal));
        }
        let all = NodeSet::first(volume.spec.replicas.len()).without(volume.me);
        let links = &self.links;
        // A link on which the peer said nothing yet may end for a volume that is not there.
        let waiting = all.iter().filter(|peer| !links.has_heard(slot, *peer));
        let waiting = waiting.fold(NodeSet::EMPTY, NodeSet::with);
        for peer in waiting.iter().filter(|peer| !links.has_peer(slot, *peer)) {
            let peer = volume.names().of(peer);
            (self.parts.redial)(peer, &volume.spec.name, When::Now);
        }
        let began = self.shell.now;
        let until = began.after(wait.min(ASKING_MAX));
        volume.promoting_since = began;
        volume.asking = Some(Asking {
            request,
            reply,
            waiting,
            began,
            until,
        });
    }

    /// A verify takes long: it is answered with its figures so far, once it runs.
    fn start_verify(&mut self, slot: u32, id: CommandId) {
        let volume = self.volumes.get_mut(slot).expect("the caller found it");
        volume.verify_failure = None;
        volume.driver.run(&mut self.shell, &mut self.links);
        self.answer(slot);
        let volume = self.volumes.get_mut(slot).expect("the caller found it");
        let report = volume.verify_report();
        let Some((_, pending)) = volume.pending.iter_mut().find(|(found, _)| *found == id) else {
            return;
        };
        if let Pending::Request(_, reply) = std::mem::replace(pending, Pending::Nobody) {
            reply(Ok(Done::Verify(report)));
        }
    }

    fn clients_attached(&self, slot: u32, verb: &str) -> Refusal {
        let volume = self.volumes.get(slot).expect("the caller found it");
        let ours = self
            .clients
            .iter()
            .filter(|(_, client)| client.volume == slot);
        let names: Vec<_> = ours.map(|(_, client)| client.address()).collect();
        let name = &volume.spec.name;
        Refusal {
            kind: RefusalKind::Failed,
            code: "E211",
            text: format!(
                "cannot {verb} {name}: clients are attached: {}",
                names.join(", ")
            ),
            hint: Some(match verb {
                "demote" => {
                    format!("detach them, or cut them off: pollux demote {name} --disconnect")
                }
                _ => "detach them first".to_owned(),
            }),
        }
    }

    fn leave(&mut self, name: &str, leave: Leave, reply: Reply<Outcome>) {
        let Some(slot) = self.find(name) else {
            return reply(Ok(Done::Already(format!("{name} is not attached"))));
        };
        let volume = self.volumes.get_mut(slot).expect("it was just found");
        let is_primary = volume.driver.core.status().role != RoleStatus::Secondary;
        let is_alone = volume.spec.replicas.len() == 1;
        if leave == Leave::Delete {
            if volume.clients > 0 {
                return reply(Err(self.clients_attached(slot, "delete")));
            }
            if is_primary && !is_alone {
                let text = format!("cannot delete {name}: it is primary here");
                let hint = Some(format!("pollux demote {name}"));
                return reply(Err(Refusal {
                    kind: RefusalKind::Failed,
                    code: "E211",
                    text,
                    hint,
                }));
            }
        }
        if matches!(
            volume.leaving,
            Some(Leaving::Stopping | Leaving::Ending(..) | Leaving::Closing(..))
        ) {
            return reply(Err(refuse("E215", format!("{name} is being stopped"))));
        }
        if let Some(Leaving::Clients(_, pending)) = volume.leaving.take() {
            answer(
                pending,
                Err(refuse("E219", format!("{name} is being stopped"))),
            );
        }
        volume.is_admitting = false;
        volume.publish();
        volume.leaving = Some(Leaving::Clients(Command::Stop, Pending::Leave(reply)));
        let why = match leave {
            Leave::NodeStops => DrainReason::NodeStops,
            Leave::Delete => DrainReason::VolumeLeaves,
        };
        self.drain_clients(slot, why);
    }

    /// Answers of the cores, log lines, and departures that can take their next step.
    pub(super) fn settle_volumes(&mut self) {
        for slot in 0..self.volumes.slots() {
            if self.volumes.get(slot).is_none() {
                continue;
            }
            self.answer(slot);
            self.settle(slot);
        }
    }

    /// Hands the core's answers to who waits for them, and writes its notices down.
    fn answer(&mut self, slot: u32) {
        let Some(volume) = self.volumes.get_mut(slot) else {
            return;
        };
        if volume.driver.answers.is_empty() && volume.driver.notices.is_empty() {
            return;
        }
        let now = self.shell.now;
        for notice in std::mem::take(&mut volume.driver.notices) {
            let (level, code, text) = words::notice(volume.names(), &notice);
            self.shell.say(level, code, &volume.spec.name, &text);
        }
        volume.publish();
        for (id, result) in std::mem::take(&mut volume.driver.answers) {
            let Some(index) = volume.pending.iter().position(|(found, _)| *found == id) else {
                continue;
            };
            match (volume.pending.swap_remove(index).1, result) {
                (Pending::Request(request, reply), Err(CommandError::PrimaryElsewhere(_)))
                    if now.since(volume.promoting_since) < ELSEWHERE_GRACE =>
                {
                    // Never found out: it is asked again at `until`.
                    let (waiting, began) = (NodeSet::only(volume.me), volume.promoting_since);
                    let until = now.after(ELSEWHERE_PAUSE);
                    volume.asking = Some(Asking {
                        request,
                        reply,
                        waiting,
                        began,
                        until,
                    });
                }
                (Pending::Request(request, reply), result) => {
                    if matches!(request, Request::Demote { .. }) {
                        volume.is_admitting = true;
                        volume.publish();
                    }
                    reply(volume.outcome(&request, result));
                }
                (Pending::Leave(reply), result) => {
                    let name = &volume.spec.name;
                    let outcome = match result {
                        Ok(_) => Ok(Done::Ok(format!("{name} is stopped"))),
                        // What cannot be finished is left as a crash would leave it.
                        Err(error) => {
                            let text = format!("{name} is not stopped cleanly: {error:?}");
                            self.shell.say(Level::Warn, "W103", name, &text);
                            Err(refuse("E209", text))
                        }
                    };
                    volume.leaving = Some(Leaving::Ending(outcome, reply));
                    self.links.end_after_sending(&mut self.shell, slot);
                }
                (Pending::Nobody, result) => {
                    volume.verify_failure = result
                        .err()
                        .map(|error| words::refusal(volume.names(), &Request::Verify, &error).text);
                }
            }
        }
    }

    fn settle(&mut self, slot: u32) {
        let Some(volume) = self.volumes.get_mut(slot) else {
            return;
        };
        let now = self.shell.now;
        if let Some(asking) = &mut volume.asking {
            let heard = asking
                .waiting
                .iter()
                .filter(|peer| self.links.has_heard(slot, *peer));
            asking.waiting = heard.fold(asking.waiting, NodeSet::without);
        }
        if let Some(asking) = volume
            .asking
            .take_if(|a| a.waiting.is_empty() || a.until <= now)
        {
            let Asking {
                request,
                reply,
                began,
                ..
            } = asking;
            if let Request::Promote { force, wait } = request {
                let wait = wait.saturating_sub(now.since(began));
                let command = Command::Promote { force, wait };
                volume.command(command, Pending::Request(request, reply));
                self.is_pressed = true;
            }
        }
        match volume.leaving.take() {
            None => {}
            Some(Leaving::Clients(command, pending)) if volume.clients == 0 => {
                let is_stop = command == Command::Stop;
                volume.command(command, pending);
                volume.leaving = is_stop.then_some(Leaving::Stopping);
                self.is_pressed = true;
            }
            Some(Leaving::Ending(outcome, reply)) => {
                volume.driver.forget_delayed(&mut self.shell);
                let is_idle = volume.driver.in_ring == 0 && !self.links.has_volume(slot);
                if !is_idle || volume.driver.is_due(self.shell.now) {
                    volume.leaving = Some(Leaving::Ending(outcome, reply));
                    return;
                }
                let mut files = vec![volume.driver.meta];
                if let Store::Disk(disk) = &volume.driver.store {
                    files.push(disk.file);
                }
                volume.leaving = Some(Leaving::Closing(files.len() as u32, outcome, reply));
                files
                    .into_iter()
                    .for_each(|file| self.close_file(slot, file));
            }
            other => volume.leaving = other,
        }
    }

    fn close_file(&mut self, slot: u32, file: FileId) {
        let token = Token::new(Kind::File, slot, 0).0;
        self.shell
            .ring
            .push(&mut self.shell.arena, token, Op::Close { file });
    }

    /// A file of a volume that leaves is closed; with the last one it is gone, its locks with it.
    pub(super) fn file_closed(&mut self, slot: u32) {
        let Some(volume) = self.volumes.get_mut(slot) else {
            return;
        };
        match volume.leaving.take() {
            Some(Leaving::Closing(1, outcome, reply)) => {
                self.volumes.remove(slot);
                self.set_polling();
                reply(outcome);
            }
            Some(Leaving::Closing(left, outcome, reply)) => {
                volume.leaving = Some(Leaving::Closing(left - 1, outcome, reply));
            }
            other => volume.leaving = other,
        }
    }

    pub(super) fn status(&mut self, slot: u32) -> crate::control::VolumeStatus {
        let now = self.shell.now;
        let ours = self
            .clients
            .iter()
            .filter(|(_, client)| client.volume == slot);
        let clients = ours.map(|(_, client)| client.status(now)).collect();
        let volume = self.volumes.get_mut(slot).expect("the caller found it");
        let core = volume.driver.core.status();
        let mut status = status::attached(&volume.spec, volume.me, &core, &mut volume.rates, now);
        status.clients = clients;
        status.io = volume.driver.intake.counters;
        status.notes.clone_from(&volume.notes);
        status
    }
}

/// Longest time a promotion waits for news of peers before the core is asked.
const ASKING_MAX: Duration = Duration::from_secs(4);
/// A peer that dials us has this long after a link ended, or the volume was attached.
const UNLINKED_MIN: Duration = Duration::from_secs(3);

/// A demotion elsewhere may be news that is still on its way: a primary there is a refusal only
/// after this time.
const ELSEWHERE_GRACE: Duration = Duration::from_millis(500);
const ELSEWHERE_PAUSE: Duration = Duration::from_millis(20);

const QUORUM_OFF: &str = "quorum is off: nodes that lose each other can both be promoted by hand; \
                          they then stop as split brain when they meet again";
const MEMORY: &str =
    "the backing is memory: it is lost with the process and never counts as durable";
const BUFFERED: &str =
    "the backing's file system has no direct I/O: data goes through the page cache";
const POSIX: &str = "I/O goes through POSIX calls and threads: io_uring is not to be had here";

impl Volume {
    /// What the core is told; `None` for a question it is not asked.
    fn translate(&self, request: &Request) -> Result<Option<Command>, Refusal> {
        let peer = |name: &str| {
            let error = CommandError::NoSuchPeer;
            self.peer(name)
                .ok_or_else(|| words::refusal(self.names(), request, &error))
        };
        Ok(Some(match request {
            Request::Promote { force, wait } => Command::Promote {
                force: *force,
                wait: *wait,
            },
            Request::Demote { .. } => Command::Demote,
            Request::PeerConnect { node } => Command::Connect(peer(node)?),
            Request::PeerDisconnect { node } => Command::Disconnect(peer(node)?),
            Request::ResyncStart { from } => Command::ResyncStart { from: peer(from)? },
            Request::ResyncPause => Command::ResyncPause,
            Request::ResyncResume => Command::ResyncResume,
            Request::ResyncSetRate { bytes_per_second } => {
                Command::ResyncRate(bytes_per_second.unwrap_or(0))
            }
            Request::Verify => Command::Verify,
            Request::VerifyStatus => return Ok(None),
            Request::Create { .. } | Request::Delete { .. } => {
                return Err(refuse("E215", format!("{} is attached", self.spec.name)));
            }
        }))
    }

    fn outcome(&self, request: &Request, result: Result<Answer, CommandError>) -> Outcome {
        let text = words::success(self.names(), request);
        match result {
            Ok(Answer::Ok) => Ok(Done::Ok(text)),
            Ok(Answer::Already) => Ok(Done::Already(format!("{text} already"))),
            Ok(Answer::Verify(_)) => Ok(Done::Verify(self.verify_report())),
            Err(error) => Err(words::refusal(self.names(), request, &error)),
        }
    }

    fn verify_report(&self) -> crate::control::VerifyReport {
        let core = self.driver.core.status();
        status::verify_report(&core, self.spec.size_bytes, self.verify_failure.clone())
    }
}

fn refuse(code: &'static str, text: String) -> Refusal {
    Refusal {
        kind: RefusalKind::Failed,
        code,
        text,
        hint: None,
    }
}

fn answer(pending: Pending, outcome: Outcome) {
    match pending {
        Pending::Request(_, reply) | Pending::Leave(reply) => reply(outcome),
        Pending::Nobody => {}
    }
}
