//! Operators' words on their way to the cores, and the answers on their way back.

use std::time::{Duration, SystemTime};

use engine_core::action::{Answer, CommandError, Notice};
use engine_core::event::{self as core, Command, CommandId, DiskError, Event};
use engine_core::quorum::Quorum;
use engine_core::table::NodeKind;
use engine_core::units::{GRANULE, NodeIdx, NodeSet};
use engine_core::volume::RoleStatus;
use engine_core::vote::Vote;

use super::Reactor;
use super::volumes::{Asking, Leaving, Pending, Volume};
use crate::control::{Clients, Done, Outcome, Refusal, RefusalKind, Repair, Request};
use crate::front_end::DrainReason;
use crate::log::Level;
use crate::mailbox::Reply;
use crate::meta_io::Lengthening;
use crate::peers::When;
use crate::{status, words};

/// Longest time a promotion waits for news of peers before the core is asked.
const ASKING_MAX: Duration = Duration::from_secs(4);
/// A demotion elsewhere may be news that is still on its way: a primary there is a refusal only
/// after this time.
const ELSEWHERE_GRACE: Duration = Duration::from_millis(500);
const ELSEWHERE_PAUSE: Duration = Duration::from_millis(20);

impl Reactor {
    pub(super) fn request(&mut self, name: &str, request: Request, reply: Reply<Outcome>) {
        let Some(slot) = self.find(name) else {
            return reply(Err(refuse(
                "E205",
                format!("{name} is not attached on this node"),
            )));
        };
        let now = self.shell.now;
        let volume = self.volumes.get_mut(slot).expect("it was just found");
        if volume.leaving.is_some() {
            return reply(Err(refuse(
                "E215",
                format!("{name} is being demoted or stopped"),
            )));
        }
        if let Request::Disconnect { clients } = &request {
            return reply(self.disconnect(slot, clients));
        }
        if let Request::Nodes {
            replicas,
            witnesses,
        } = &request
        {
            // Whoever changes them, this is what the file says now.
            volume.spec.replicas.clone_from(replicas);
            volume.spec.votes.witnesses.clone_from(witnesses);
        }
        match volume.kind() {
            Some(NodeKind::Replica) => {}
            Some(NodeKind::Witness) => {
                return reply(Err(words::is_witness(volume.names(), &request)));
            }
            None => return reply(Err(words::is_gone(volume.names(), &request))),
        }
        let command = match volume.translate(&request) {
            Ok(command) => command,
            Err(refusal) => return reply(Err(refusal)),
        };
        match (command, &request) {
            (None, Request::MarkList) => reply(volume.marks()),
            (None, Request::Partings) => reply(Ok(Done::Partings(volume.partings(now)))),
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
            (Some(command), Request::Verify { .. }) => {
                let id = volume.command(command, Pending::Request(request, reply));
                self.start_verify(slot, id);
            }
            (Some(_), Request::Promote { .. } | Request::ServeAgain { .. }) => {
                self.ask_around(slot, request, reply);
            }
            (Some(command), Request::Resize { size_bytes }) => {
                if !volume.driver.store.grow(*size_bytes) {
                    return reply(Err(words::no_memory_to_grow(volume.names(), *size_bytes)));
                }
                volume.command(command, Pending::Request(request, reply));
            }
            (Some(command), _) => {
                volume.command(command, Pending::Request(request, reply));
            }
        }
    }

    fn disconnect(&mut self, slot: u32, clients: &Clients) -> Outcome {
        let gone = self.cut_off(slot, clients);
        let name = &self
            .volumes
            .get(slot)
            .expect("the caller found it")
            .spec
            .name;
        match &gone[..] {
            [] => Err(Refusal {
                kind: RefusalKind::NotFound,
                code: "E218",
                text: match clients {
                    Clients::Id(id) => format!("{name} has no client {id}"),
                    Clients::Address(address) => format!("{name} has no client at {address}"),
                    Clients::Export(export) => format!("{name} has no client of export {export}"),
                },
                hint: Some(format!("pollux status {name} --json")),
            }),
            gone => Ok(Done::Ok(format!("{name}: cut off {}", gone.join(", ")))),
        }
    }

    /// Tries every peer without a link once more, then promotes.
    fn ask_around(&mut self, slot: u32, request: Request, reply: Reply<Outcome>) {
        let volume = self.volumes.get_mut(slot).expect("the caller found it");
        let (Request::Promote { wait, .. } | Request::ServeAgain { wait }) = request else {
            unreachable!("only promotions ask around");
        };
        if volume.asking.is_some() {
            let refusal = words::refusal(volume.names(), &request, &CommandError::InProgress);
            return reply(Err(refusal));
        }
        let is_founded = volume.driver.core.status().volume_id != 0;
        let all = match volume.spec.votes.quorum {
            // The core asks the voters.
            Quorum::Majority | Quorum::Register if is_founded => NodeSet::EMPTY,
            _ => volume.table().replicas().without(volume.me),
        };
        let links = &self.links;
        // A link on which the peer said nothing yet may end for a volume that is not there.
        let waiting = all.iter().filter(|peer| !links.has_heard(slot, *peer));
        let waiting = waiting.collect::<NodeSet>();
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

    pub(super) fn clients_attached(&self, slot: u32, verb: &str) -> Refusal {
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

    /// Answers of the cores, log lines, and departures that can take their next step.
    pub(super) fn settle_volumes(&mut self) {
        for slot in 0..self.volumes.slots() {
            if self.volumes.get(slot).is_none() {
                continue;
            }
            self.say_ballots(slot);
            self.keep_salvages(slot);
            self.order_growth(slot);
            self.answer(slot);
            self.go_on_asking(slot);
            self.settle(slot);
        }
    }

    fn say_ballots(&mut self, slot: u32) {
        let Some(volume) = self.volumes.get_mut(slot) else {
            return;
        };
        let Volume { driver, nodes, .. } = volume;
        let has_spoken = !driver.ballots.is_empty();
        for (to, ballot) in driver.ballots.drain(..) {
            // Voters that do not hear that the lease is free keep it for this node's next process.
            let is_release = matches!(ballot.vote, Vote::Release { .. });
            if is_release && volume.is_handed_over {
                continue;
            }
            let Some(to) = nodes.get(usize::from(to.0)) else {
                continue;
            };
            (self.parts.say)(to, &volume.spec.name, ballot);
        }
        // Whoever hears who reigns answers.
        if has_spoken {
            volume.notes_reign();
        }
    }

    /// The core wants a longer backing: that blocks, so it is made off the reactor.
    fn order_growth(&mut self, slot: u32) {
        let Some(volume) = self.volumes.get_mut(slot) else {
            return;
        };
        if let Some((from, size)) = volume.driver.growth.take() {
            let order = Lengthening {
                backing: volume.driver.core.backing(),
                size: size * GRANULE,
                zeros_from: Some(from * GRANULE),
            };
            (self.parts.lengthen)(volume.spec.clone(), order);
        }
    }

    /// The backing is longer, or could not be made so.
    pub(super) fn backing_grown(
        &mut self,
        name: &str,
        size_bytes: u64,
        result: Result<u64, (DiskError, String)>,
    ) {
        let slot = self.find(name);
        let Some(volume) = slot.and_then(|slot| self.volumes.get_mut(slot)) else {
            return;
        };
        let room = |bytes| match volume.driver.store.grow(size_bytes) {
            true => Ok(bytes),
            false => Err((
                DiskError::NoSpace,
                "there is no memory where it lies".into(),
            )),
        };
        let result = result.and_then(room).map_err(|(error, why)| {
            // It is tried again and again: one line says it.
            if volume.growth_failure.as_ref() != Some(&why) {
                let text = words::cannot_lengthen(size_bytes, &why);
                self.shell.say(Level::Warn, "W135", name, &text);
                volume.growth_failure = Some(why);
            }
            error
        });
        if result.is_ok() {
            volume.growth_failure = None;
        }
        let size = size_bytes / GRANULE;
        let local = &mut volume.driver.local;
        local.push_back(Event::BackingGrown { size, result });
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
        let (mut is_superseded, mut is_leaving) = (false, false);
        let mut other_nodes: Option<NodeSet> = None;
        for notice in std::mem::take(&mut volume.driver.notices) {
            is_superseded |= matches!(notice, Notice::SteppedDown { .. });
            is_leaving |= matches!(notice, Notice::HandingOver { .. });
            if let Notice::Grown { size } = notice {
                volume.has_grown(size * GRANULE);
            }
            if notice == Notice::Nodes {
                let other = volume.has_other_nodes(now);
                other_nodes = Some(other.or(other_nodes.unwrap_or(NodeSet::EMPTY)));
            }
            let (level, code, text) = words::notice(volume.names(), &notice);
            self.shell.say(level, code, &volume.spec.name, &text);
        }
        volume.publish();
        if let Some(other) = other_nodes {
            self.follow_table(slot, other);
        }
        if is_superseded {
            self.drain_clients(slot, DrainReason::Superseded);
        } else if is_leaving {
            // Nothing waits for them: the core answers what it took before it lets go.
            self.drain_clients(slot, DrainReason::NodeStops);
        }
        let Some(volume) = self.volumes.get_mut(slot) else {
            return;
        };
        for (id, result) in std::mem::take(&mut volume.driver.answers) {
            let Some(index) = volume.pending.iter().position(|(found, _)| *found == id) else {
                continue;
            };
            match (volume.pending.swap_remove(index).1, result) {
                (
                    Pending::Request(
                        request @ (Request::Promote { .. } | Request::ServeAgain { .. }),
                        reply,
                    ),
                    Err(CommandError::PrimaryElsewhere(_)),
                ) if now.since(volume.promoting_since) < ELSEWHERE_GRACE => {
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
                    if let (Request::Resize { size_bytes }, Ok(_)) = (&request, &result) {
                        // Its file is changed next; those of other nodes are not.
                        volume.declared_bytes = *size_bytes;
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
                    let verify = Request::Verify { repair: Repair::No };
                    volume.verify_failure = result
                        .err()
                        .map(|error| words::refusal(volume.names(), &verify, &error).text);
                }
            }
        }
    }

    /// A promotion that waits for news goes on once there is some, or its time is over.
    fn go_on_asking(&mut self, slot: u32) {
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
            let left = |wait: Duration| wait.saturating_sub(now.since(began));
            let command = match request {
                Request::Promote { force, wait } => volume.promotion(force, left(wait)),
                Request::ServeAgain { wait } => Command::Promote {
                    force: false,
                    wait: left(wait),
                },
                _ => unreachable!("only promotions ask around"),
            };
            volume.command(command, Pending::Request(request, reply));
            self.is_pressed = true;
        }
    }
}

impl Volume {
    /// An operator's promotion.
    fn promotion(&self, force: bool, wait: Duration) -> Command {
        match self.spec.votes.quorum {
            Quorum::Majority | Quorum::Register if !force => Command::TakeOver { wait },
            _ => Command::Promote { force, wait },
        }
    }

    /// What the core is told; `None` for a question it is not asked.
    fn translate(&self, request: &Request) -> Result<Option<Command>, Refusal> {
        let known = |node: Option<NodeIdx>| {
            let error = CommandError::NoSuchPeer;
            node.ok_or_else(|| words::refusal(self.names(), request, &error))
        };
        let peer = |name: &str| known(self.peer(name));
        Ok(Some(match request {
            Request::Promote { force, wait } => self.promotion(*force, *wait),
            Request::ServeAgain { wait } => Command::Promote {
                force: false,
                wait: *wait,
            },
            Request::Demote { .. } => Command::Demote,
            Request::PeerConnect { node } => Command::Connect(peer(node)?),
            Request::PeerDisconnect { node } => Command::Disconnect(peer(node)?),
            Request::ResyncStart { from } => Command::ResyncStart {
                from: known(self.node(from))?,
            },
            Request::ResyncPause => Command::ResyncPause,
            Request::ResyncResume => Command::ResyncResume,
            Request::ResyncSetRate { bytes_per_second } => {
                Command::ResyncRate(bytes_per_second.unwrap_or(0))
            }
            Request::Verify { repair } => Command::Verify(match repair {
                Repair::No => core::Repair::No,
                Repair::Majority => core::Repair::Majority,
                Repair::From(node) => core::Repair::From(known(self.node(node))?),
            }),
            Request::Scrub { bytes_per_second } => Command::Scrub {
                rate: bytes_per_second.unwrap_or(0),
            },
            Request::MarkCreate { name, .. } => Command::MarkCreate {
                name: *name,
                created_ms: words::milliseconds(SystemTime::now()),
            },
            Request::MarkDelete { name } => Command::MarkDelete { name: *name },
            Request::Resize { size_bytes } => Command::Grow {
                size: size_bytes / GRANULE,
                backing_bytes: *size_bytes,
            },
            Request::Nodes {
                replicas,
                witnesses,
            } => {
                let of = |names: &[String], kind: NodeKind| -> Vec<(String, NodeKind)> {
                    names.iter().map(|name| (name.clone(), kind)).collect()
                };
                let mut nodes = of(replicas, NodeKind::Replica);
                nodes.extend(of(witnesses, NodeKind::Witness));
                Command::Nodes(nodes)
            }
            Request::GiveUp { keep, token } => Command::GiveUp {
                to: peer(keep)?,
                token: *token,
            },
            Request::VerifyStatus | Request::MarkList | Request::Partings => return Ok(None),
            Request::Disconnect { .. } => unreachable!("the core has no part in it"),
            Request::Create { .. } | Request::Delete { .. } => {
                return Err(refuse("E215", format!("{} is attached", self.spec.name)));
            }
        }))
    }

    fn outcome(&self, request: &Request, result: Result<Answer, CommandError>) -> Outcome {
        let text = words::success(self.names(), request);
        match result {
            Ok(Answer::Ok) if matches!(request, Request::GiveUp { .. }) => {
                Ok(Done::Ok(format!("{text}; salvage: {}", self.salvage)))
            }
            Ok(Answer::Ok) => Ok(Done::Ok(text)),
            Ok(Answer::Already) => Ok(Done::Already(format!("{text} already"))),
            Ok(Answer::Verify(_)) => Ok(Done::Verify(self.verify_report())),
            Err(CommandError::MarkExists)
                if matches!(
                    request,
                    Request::MarkCreate {
                        if_absent: true,
                        ..
                    }
                ) =>
            {
                Ok(Done::Already(format!("{text} already")))
            }
            Err(error) => Err(words::refusal(self.names(), request, &error)),
        }
    }

    /// It may have so many bytes: what its backing is, or `None` if it has them.
    pub(super) fn may_grow(&self, size_bytes: u64) -> Result<Option<Lengthening>, Refusal> {
        let core = &self.driver.core;
        match core.may_grow(size_bytes / GRANULE) {
            Ok(()) => Ok(Some(Lengthening {
                backing: core.backing(),
                size: size_bytes,
                zeros_from: core.grows_by_zeros().then_some(core.granules() * GRANULE),
            })),
            Err(CommandError::NothingToDo) => Ok(None),
            Err(error) => {
                let request = Request::Resize { size_bytes };
                Err(words::refusal(self.names(), &request, &error))
            }
        }
    }

    /// The marks, if they are served here.
    fn marks(&self) -> Outcome {
        let core = self.driver.core.status();
        if core.role != RoleStatus::Primary {
            let primary = core.peers.iter().find(|peer| peer.is_primary);
            let error = primary.map_or(CommandError::NotPrimary, |peer| {
                CommandError::PrimaryElsewhere(peer.node)
            });
            return Err(words::refusal(self.names(), &Request::MarkList, &error));
        }
        let marks = self.driver.core.marks();
        Ok(Done::Marks(marks.iter().map(status::mark_report).collect()))
    }

    fn verify_report(&self) -> crate::control::VerifyReport {
        let core = self.driver.core.status();
        status::verify_report(&core, self.spec.size_bytes, self.verify_failure.clone())
    }
}

pub(super) fn refuse(code: &'static str, text: String) -> Refusal {
    Refusal {
        kind: RefusalKind::Failed,
        code,
        text,
        hint: None,
    }
}

pub(super) fn answer(pending: Pending, outcome: Outcome) {
    match pending {
        Pending::Request(_, reply) | Pending::Leave(reply) => reply(outcome),
        Pending::Nobody => {}
    }
}
