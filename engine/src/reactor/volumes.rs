//! Volumes of a reactor: arrival, operators' words, departure.
//!
//! ```text
//!  Attach ─► Running ─ demote --disconnect ─► clients drained ─► Command::Demote ─► Running
//!               └ Leave ─► clients drained ─► Command::Stop ─► links ended, files closed ─► gone
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use engine_core::event::{Command, CommandId, Event};
use engine_core::message::Refusal;
use engine_core::meta::Loaded;
use engine_core::quorum::Quorum;
use engine_core::time::Instant;
use engine_core::units::{NODES_MAX, NodeIdx, NodeSet};
use engine_core::volume::{MarkStatus, RoleStatus, Setup, Volume as Core};
use engine_ring::{Backend, FileId, Ring};

use crate::backend::{Disk, Opened, OpenedDisk, Store};
use crate::control::{Cache, Outcome, Request, VolumeSpec};
#[cfg(feature = "etcd")]
use crate::control_store::RegisterStore;
use crate::control_store::{ControlStore, LocalStore};
use crate::driver::Driver;
use crate::driver::verify::Checksums;
use crate::entry::Entry;
use crate::front_end::{ExtentKind, Intake, Service, VolumeView};
use crate::layer::faulty::Faults;
use crate::log::Level;
use crate::mailbox::{Message, NewVolume, PeerNews, Reply};
use crate::peers::{LinkSocket, When};
use crate::reactor::Reactor;
use crate::reactor::commands::refuse;
use crate::status;
use crate::words::{self, Names};

/// Who waits for an answer of the core.
pub(super) enum Pending {
    Request(Request, Reply<Outcome>),
    Leave(Reply<Outcome>),
    /// It was answered already; the end of a verify tells nobody.
    Nobody,
}

/// How far a volume is on its way out, or to the secondary role.
pub(super) enum Leaving {
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
pub(super) struct Asking {
    pub(super) request: Request,
    pub(super) reply: Reply<Outcome>,
    pub(super) waiting: NodeSet,
    pub(super) began: Instant,
    pub(super) until: Instant,
}

/// A volume whose files are in the ring's table already.
pub(super) struct Arrival {
    pub(super) setup: Setup,
    pub(super) loaded: Loaded,
    pub(super) store: Store,
    pub(super) meta: FileId,
    pub(super) spec: VolumeSpec,
    pub(super) declared_bytes: u64,
    pub(super) faults: Faults,
    pub(super) settled: SyncSender<()>,
    pub(super) notes: Vec<String>,
}

/// One volume of this reactor.
pub(super) struct Volume {
    pub(super) driver: Driver,
    pub(super) clients: usize,
    pub(super) entry: Arc<Entry>,
    /// Until negotiation knows how it is served: who waits for that.
    pub(super) settled: Option<SyncSender<()>>,
    pub(super) spec: VolumeSpec,
    /// What the configuration says; another size than it has is noted.
    pub(super) declared_bytes: u64,
    /// Index it was attached with; another one by the table in force means that it is attached anew.
    pub(super) me: NodeIdx,
    /// Name of this node.
    pub(super) own: String,
    /// Names of all its nodes, by index.
    pub(super) nodes: Vec<String>,
    /// Who serves, as negotiation was told.
    reigning: Option<NodeIdx>,
    pub(super) is_admitting: bool,
    pub(super) leaving: Option<Leaving>,
    /// Another process of this node goes on with it: nobody else needs to.
    pub(super) is_handed_over: bool,
    pub(super) pending: Vec<(CommandId, Pending)>,
    pub(super) next_command: u64,
    /// A promotion that first finds out who can be reached.
    pub(super) asking: Option<Asking>,
    /// When the latest promotion was asked for.
    pub(super) promoting_since: Instant,
    /// When each peer's last link ended, or the volume was attached.
    pub(super) unlinked_since: [Instant; NODES_MAX],
    /// Why one of the two nodes refused the other as a whole; until they are connected.
    pub(super) node_refusals: [Option<Refusal>; NODES_MAX],
    /// Failure of the latest verify.
    pub(super) verify_failure: Option<String>,
    /// Where the newest salvage lies.
    pub(super) salvage: String,
    /// Why the backing was last not made longer.
    pub(super) growth_failure: Option<String>,
    pub(super) notes: Vec<String>,
}

impl Volume {
    pub(super) fn publish_clients(&mut self) {
        self.entry.change_view(|view| view.clients = self.clients);
        let count = u32::try_from(self.clients).unwrap_or(u32::MAX);
        self.driver.local.push_back(Event::Clients(count));
    }

    /// When it must run again even if nothing happens.
    pub(super) fn next_moment(&self) -> Option<Instant> {
        let asking = self.asking.as_ref().map(|asking| asking.until);
        self.driver.next_moment().into_iter().chain(asking).min()
    }

    /// An attempt to reach this peer that began at this moment was in vain.
    pub(super) fn found_out(&mut self, peer: NodeIdx, began: Instant) {
        if let Some(asking) = self.asking.as_mut().filter(|asking| asking.began <= began) {
            asking.waiting = asking.waiting.without(peer);
        }
    }

    pub(super) fn names(&self) -> Names<'_> {
        Names {
            volume: &self.spec.name,
            own: &self.own,
            nodes: &self.nodes,
            quorum: self.spec.votes.quorum,
        }
    }

    /// Feeds a command and remembers who waits for its answer.
    pub(super) fn command(&mut self, command: Command, pending: Pending) -> CommandId {
        let id = CommandId(self.next_command);
        self.next_command += 1;
        self.pending.push((id, pending));
        self.driver.local.push_back(Event::Command { id, command });
        id
    }

    /// Tells negotiation what it may say. A lone replica promotes itself soon; until then whoever
    /// made it waits. A mirrored one waits for an operator.
    pub(super) fn publish(&mut self) {
        self.reigning = self.driver.core.reigning();
        let status = self.driver.core.status();
        let service = match status.role {
            _ if !self.is_admitting => Service::Unavailable {
                reason: format!("{} is being stopped", self.spec.name),
            },
            RoleStatus::Primary => Service::Primary,
            _ => {
                let mut peers = status.peers.iter();
                let primary = peers.find(|peer| peer.is_primary).map(|peer| peer.node);
                let primary = self.reigning.or(primary);
                let primary = primary.filter(|node| *node != self.me);
                let primary = primary.map(|node| self.names().of(node).to_owned());
                Service::Secondary { primary }
            }
        };
        let is_primary = service == Service::Primary;
        let mut contexts = VolumeView::usual_contexts(self.table().replicas().count() as usize);
        if is_primary {
            let marks = self.driver.core.marks();
            let name = |mark: &MarkStatus| Arc::from(mark.name.as_str());
            contexts.extend(marks.iter().map(|mark| ExtentKind::Mark(name(mark))));
        }
        self.entry.change_view(|view| {
            view.service = service;
            view.contexts = contexts;
            view.size_bytes = self.spec.size_bytes;
        });
        if (is_primary || !self.is_alone())
            && let Some(settled) = self.settled.take()
        {
            // There is room for this one word; maybe nobody listens.
            let _ = settled.try_send(());
        }
    }

    /// Somebody else serves than negotiation was told. Whom a lease ran out for may still be right.
    pub(super) fn notes_reign(&mut self) {
        let reigning = self.driver.core.reigning();
        if reigning.is_some() && reigning != self.reigning {
            self.publish();
        }
    }

    /// It has grown: who attaches from now on is told so.
    pub(super) fn has_grown(&mut self, size_bytes: u64) {
        self.spec.size_bytes = size_bytes;
        self.driver.intake.size_bytes = size_bytes;
        self.publish();
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
                peer: name,
                socket,
            } => {
                let Some(slot) = self.find(&volume) else {
                    return;
                };
                let found = self.volumes.get(slot).expect("it was just found");
                // By the table in force now: whoever is no part of it gets no answer.
                let Some(peer) = found.peer(&name) else {
                    return;
                };
                let LinkSocket {
                    socket,
                    session,
                    unread,
                    path,
                } = socket;
                let register = |ring: &mut dyn Ring| ring.register(socket);
                let peer = (peer, name.as_str(), path);
                if self
                    .links
                    .add(&mut self.shell, slot, peer, register, (session, &unread))
                    .is_none()
                {
                    let text = "no buffers or no room for another link";
                    self.shell.say(Level::Warn, "W101", &volume, text);
                }
            }
            Message::Vote {
                volume,
                from,
                ballot,
            } => {
                let ballot = *ballot;
                self.hear(&volume, Event::Vote { from, ballot });
            }
            #[cfg(feature = "etcd")]
            Message::Register {
                volume,
                number,
                found,
            } => {
                let found = *found;
                self.hear(&volume, Event::Register { number, found });
            }
            Message::Peer { node, news } => self.peer_news(&node, news),
            Message::Request {
                volume,
                request,
                reply,
            } => self.request(&volume, request, reply),
            Message::MayGrow(name, size_bytes, reply) => {
                let slot = self.find(&name);
                let volume = slot.and_then(|slot| self.volumes.get(slot));
                reply(match volume.filter(|volume| volume.leaving.is_none()) {
                    Some(volume) => volume.may_grow(size_bytes),
                    None => Err(refuse(
                        "E215",
                        format!("{name} is being demoted or stopped"),
                    )),
                });
            }
            Message::BackingGrown(name, size_bytes, result) => {
                self.backing_grown(&name, size_bytes, result);
            }
            Message::Status(volume, connected, reply) => {
                let slot = self.find(&volume);
                reply(slot.map(|slot| self.status(slot, &connected)));
            }
            Message::Leave(volume, leave, reply) => self.leave(&volume, leave, reply),
            Message::Salvaged {
                volume,
                token,
                stored,
            } => self.salvaged(&volume, token, stored),
            Message::Faults(volume, faults) => {
                if let Some(slot) = self.find(&volume) {
                    let volume = self.volumes.get_mut(slot).expect("it was just found");
                    volume.driver.set_faults(faults);
                }
            }
            Message::Exit => self.is_exiting = true,
        }
    }

    /// News for the core of a volume. What is said to one that has stopped is lost: its files are being
    /// closed.
    fn hear(&mut self, name: &str, event: Event) {
        let Some(slot) = self.find(name) else { return };
        let volume = self.volumes.get_mut(slot).expect("it was just found");
        let has_stopped = matches!(
            volume.leaving,
            Some(Leaving::Ending(..) | Leaving::Closing(..))
        );
        if !has_stopped {
            volume.driver.local.push_back(event);
        }
    }

    pub(super) fn find(&self, name: &str) -> Option<u32> {
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
            declared_bytes,
            faults,
            settled,
        } = new;
        let mut notes = Vec::new();
        let store = match store {
            Opened::Memory(memory) => Store::Memory(memory),
            Opened::Disk(disk) => {
                let disk = self.register_disk(disk, &spec, &mut notes);
                Store::Disk(disk)
            }
        };
        let meta = self.shell.ring.register(meta);
        let core = Arrival {
            setup,
            loaded,
            store,
            meta,
            spec,
            declared_bytes,
            faults,
            settled,
            notes,
        };
        self.install(entry, core);
    }

    /// Puts an opened disk into the ring's table, as it was opened to be used.
    fn register_disk(
        &mut self,
        disk: OpenedDisk,
        spec: &VolumeSpec,
        notes: &mut Vec<String>,
    ) -> Disk {
        notes.extend(disk.notes);
        let shell = &mut self.shell;
        let spare = disk.fd.try_clone();
        let registered = shell.ring.register_as(disk.fd, disk.access, &shell.arena);
        let file = registered.unwrap_or_else(|refused| {
            // It was possible when the disk was opened. A namespace has no other way: its reads
            // fail, and so does this copy.
            let text = format!("its disk operations go the plain way: {refused}");
            shell.say(Level::Warn, "W115", &spec.name, &text);
            notes.push(text);
            let plain = spare.expect("a descriptor can be had for a moment");
            shell.ring.register(plain)
        });
        Disk::new(file, disk.kind, spec.allocation, spec.size_bytes).guarded_by(disk.guard)
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
            declared_bytes,
            faults,
            settled,
            mut notes,
        } = arrival;
        let quorum = setup.quorum;
        if setup.is_memory {
            notes.push(MEMORY.to_owned());
        }
        if self.shell.ring.features().backend == Backend::Posix {
            notes.push(POSIX.to_owned());
        }
        let control_store: Box<dyn ControlStore> = match setup.quorum {
            #[cfg(feature = "etcd")]
            Quorum::Register => Box::new(RegisterStore {
                ask: Arc::clone(&self.parts.ask),
                reactor: self.parts.index,
                volume: spec.name.clone(),
                lease: setup.lease,
            }),
            _ => Box::new(LocalStore::new(loaded.superblock.record)),
        };
        let (me, requests_max) = (setup.node, setup.requests_max);
        let checksums = loaded
            .sum_region
            .map(|region| Checksums::new(&region, setup.sum_pages));
        let core = Core::attach(setup, loaded);
        let is_alone = core.table().replicas().count() == 1;
        if !is_alone && quorum == Quorum::Off {
            notes.push(QUORUM_OFF.to_owned());
        }
        let is_for_device =
            is_alone && spec.cache == Cache::Direct && matches!(store, Store::Disk(_));
        let intake = Intake::new(spec.size_bytes, requests_max, is_for_device);
        let nodes = core.table().names();
        let driver = Driver::new(
            slot,
            core,
            store,
            meta,
            intake,
            faults,
            control_store,
            checksums,
        );
        let mut volume = Volume {
            driver,
            clients: 0,
            entry,
            settled: Some(settled),
            me,
            own: self.parts.node.clone(),
            nodes,
            reigning: None,
            is_admitting: true,
            leaving: None,
            is_handed_over: false,
            pending: Vec::new(),
            next_command: 1,
            asking: None,
            promoting_since: Instant(0),
            unlinked_since: [self.shell.now; NODES_MAX],
            node_refusals: [None; NODES_MAX],
            verify_failure: None,
            salvage: String::new(),
            growth_failure: None,
            notes,
            declared_bytes,
            spec,
        };
        volume.publish();
        assert!(
            self.volumes.insert(volume).is_ok(),
            "the slot was free a moment ago"
        );
        self.set_polling();
    }

    pub(super) fn set_polling(&mut self) {
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
            match news {
                PeerNews::Gone => self.links.end_of_peer(&mut self.shell, slot, peer, None),
                PeerNews::PathGone(path) => {
                    self.links
                        .end_of_peer(&mut self.shell, slot, peer, Some(path));
                }
                _ => {}
            }
            let refusal = &mut volume.node_refusals[usize::from(peer.0)];
            let began = match news {
                PeerNews::Unreachable { began } => began,
                PeerNews::Gone | PeerNews::Unlinked => {
                    *refusal = None;
                    now
                }
                PeerNews::Refused(why) => {
                    *refusal = Some(why);
                    continue;
                }
                PeerNews::PathGone(_) => continue,
            };
            let since = volume.unlinked_since[usize::from(peer.0)];
            // The other side dials; it may still be on its way.
            let may_come = news == PeerNews::Unlinked && now.since(since) < UNLINKED_MIN;
            if !may_come && !self.links.has_peer(slot, peer) {
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
            let name = volume.names().of(gone.peer);
            // Nor is one to a node that is no part of the volume any more.
            let is_wanted = volume.peer(name) == Some(gone.peer);
            if volume.leaving.is_none() && is_missed && is_wanted {
                let is_awaited = volume
                    .asking
                    .as_ref()
                    .is_some_and(|a| a.waiting.has(gone.peer));
                let when = match gone.was_useful {
                    _ if is_awaited => When::Now,
                    true => When::Soon,
                    false => When::Later,
                };
                (self.parts.redial)(name, &volume.spec.name, when);
            }
        }
    }

    pub(super) fn status(
        &mut self,
        slot: u32,
        connected: &BTreeSet<String>,
    ) -> crate::control::VolumeStatus {
        let now = self.shell.now;
        let ours = self
            .clients
            .iter()
            .filter(|(_, client)| client.volume == slot);
        let clients = ours.map(|(_, client)| client.status(now)).collect();
        let volume = self.volumes.get_mut(slot).expect("the caller found it");
        let mut core = volume.driver.core.status();
        for peer in &mut core.peers {
            let node_refusal = volume.node_refusals[usize::from(peer.node.0)];
            peer.last_refusal = node_refusal.or(peer.last_refusal);
        }
        let at = (volume.me, connected);
        let table = volume.driver.core.table();
        let mut status = status::attached(&volume.spec, at, (&core, table));
        status.clients = clients;
        status.io = volume.driver.intake.counters;
        status.io.reads_by_peers = core.reads.by_peers;
        status.io.reads_for_peers = core.reads.for_peers;
        status.notes.clone_from(&volume.notes);
        if let Some(note) = words::nodes_differ(&volume.spec, &volume.driver.core) {
            status.notes.push(note);
        }
        let (declared, has) = (volume.declared_bytes, volume.spec.size_bytes);
        if declared != has {
            status
                .notes
                .push(words::size_differs(&volume.spec.name, declared, has));
        }
        status
    }
}

/// A peer that dials us has this long after a link ended, or the volume was attached.
const UNLINKED_MIN: Duration = Duration::from_secs(3);

const QUORUM_OFF: &str = "quorum is off: nodes that lose each other can both be promoted by hand; \
                          they then stop as split brain when they meet again";
const MEMORY: &str =
    "the backing is memory: it is lost with the process and never counts as durable";
const POSIX: &str = "I/O goes through POSIX calls and threads: io_uring is not to be had here";
