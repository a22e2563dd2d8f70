//! Two hellos: what this node says of itself, and what it makes of the other's.

use crate::action::{Action, Notice};
use crate::agree::{agree, follows_size};
use crate::generation::{Verdict, judge};
use crate::message::{Disk, Hello, Known, Message, PROTOCOL_MAX, PROTOCOL_MIN, Refusal};
use crate::record::Record;
use crate::session::{Plan, Session, SessionEvent};
use crate::units::{GRANULE, NodeIdx, NodeSet, Seq, Term};

use super::adopt::Adopting;
use super::peer::Gate;
use super::{Volume, planted};

impl Volume {
    /// Says hello once no record is on its way: the facts it states must stay facts.
    pub(super) fn settle_hello(&mut self, node: NodeIdx) {
        let peer = self.peers.get(node);
        let Session::Handshake(link) = peer.session else {
            return;
        };
        // Who votes is no fact of a session.
        let in_sync = self.in_sync();
        let keeps_set = |c: super::record::Change| self.has_votes() && c.record.in_sync == in_sync;
        let is_ready = (self.durable.change).is_none_or(|c| self.role.is_primary() && keeps_set(c))
            && self.adopting.is_none()
            && !self.is_resizing()
            && self.durable.is_settled()
            && self.role.is_settled();
        if !peer.hello_owed || !is_ready {
            return;
        }
        let hello = Box::new(self.my_hello(node));
        let message = Message::Hello(hello.clone());
        self.actions.push(Action::Send {
            link,
            message,
            payload: None,
        });
        let peer = self.peers.get_mut(node);
        (peer.hello_owed, peer.said) = (false, Some(hello));
        self.settle_judgement(node);
    }

    fn my_hello(&self, node: NodeIdx) -> Hello {
        let (sb, setup) = (&self.durable.sb, &self.setup);
        Hello {
            protocol_min: PROTOCOL_MIN,
            protocol_max: PROTOCOL_MAX,
            features_required: self.features_required(),
            features_offered: self.features_offered(),
            cluster: setup.cluster.clone(),
            volume: setup.volume.clone(),
            from: self.nodes.name(self.me),
            to: self.nodes.name(node),
            volume_id: if self.has_loose_founding() {
                0
            } else {
                sb.volume_id
            },
            slice: sb.slice,
            size_granules: self.size,
            granule_bytes: GRANULE as u32,
            config_digest: match self.nodes.table().version() {
                0 => setup.config_digest,
                _ => setup.config_digest_unnamed,
            },
            incarnation: sb.identity(),
            life: sb.life,
            knows: self.known(node),
            chain: sb.chain.clone(),
            record: self.record(),
            promised: sb.promised,
            leads: self.leads(),
            has_votes: self.has_votes(),
            disk: sb.disk,
            is_primary: self.role.is_serving(),
            is_whole: sb.whole,
            activity_log_slots: sb.activity_log_slots,
            credit_operations: setup.peer_requests_max as u32,
            credit_bytes: setup.peer_bytes_max,
        }
    }

    pub(super) fn hello(&mut self, node: NodeIdx, hello: Box<Hello>) {
        let peer = self.peers.get_mut(node);
        if !matches!(peer.session, Session::Handshake(_)) || peer.hello.is_some() {
            return self.breach(node);
        }
        peer.hello = Some(hello);
        self.settle_judgement(node);
    }

    /// Both hellos are there: what do they mean together?
    fn settle_judgement(&mut self, node: NodeIdx) {
        let peer = self.peers.get(node);
        let (false, Some(mine), Some(theirs)) = (peer.hello_owed, &peer.said, &peer.hello) else {
            return;
        };
        let verdict = agree(self.me, mine, node, theirs);
        let has_parted = matches!(verdict, Err(why) if why.is_split_brain());
        if (verdict.is_ok() || has_parted) && !self.had_run(node, theirs.knows.life) {
            let theirs = theirs.clone();
            return self.found_older(node, &theirs, verdict.is_ok());
        }
        let plan = match verdict {
            Ok(plan) => plan,
            Err(why) if why.is_split_brain() => return self.begin_parting(node, why),
            Err(why) => {
                let size = theirs.size_granules;
                let is_other_size = why == Refusal::Size && mine.volume_id == theirs.volume_id;
                // Said now: once it has our size and ran again it counts as a later run.
                let is_older = is_other_size && self.is_put_back(node, theirs);
                let is_up_to_date = theirs.disk == Disk::UpToDate;
                if why == Refusal::Size && follows_size(mine, theirs) {
                    self.follow(node, size);
                }
                if is_older {
                    self.forget_copy(node);
                }
                let is_misled = is_older && is_up_to_date;
                return self.refuse(node, if is_misled { Refusal::OlderData } else { why });
            }
        };
        if !self.follows(theirs) {
            return self.refuse(node, Refusal::Diverged);
        }
        let newer = theirs.leads.map(|reign| reign.term);
        if self.has_votes() && self.role.is_serving() && newer > mine.leads.map(|r| r.term) {
            // Somebody was chosen since (law T6).
            return self.step_down();
        }
        if plan == Plan::Target {
            let (older, newer_elsewhere) = self.other_reigns(node, newer);
            if newer_elsewhere {
                return self.drop_link(node);
            }
            if !older.is_empty() {
                older.iter().for_each(|n| self.drop_link(n));
                return self.settle_judgement(node);
            }
        }
        let is_behind = judge(&mine.chain, &theirs.chain) == Verdict::Behind;
        let (record, chain) = (theirs.record, theirs.chain.clone());
        let (incarnation, is_primary, disk) = (theirs.incarnation, theirs.is_primary, theirs.disk);
        let is_older = self.is_put_back(node, theirs);
        let is_half_joined = plan == Plan::Equal && mine.disk.awaits_sync();
        let disk = match plan {
            // If it was not before: it hears that it is a member.
            Plan::Equal if disk.awaits_sync() => Disk::UpToDate,
            _ => disk,
        };
        let is_newer = match (record, self.record()) {
            (Some(theirs), Some(mine)) => theirs.is_newer_than(&mine),
            (theirs, _) => theirs.is_some(),
        };
        if is_older {
            self.forget_copy(node);
            if disk == Disk::UpToDate {
                return self.refuse(node, Refusal::OlderData);
            }
        }
        self.note_met(node);
        self.step(node, SessionEvent::Agreed(plan));
        let peer = self.peers.get_mut(node);
        (peer.is_primary, peer.disk, peer.vanished_in_sync) = (is_primary, disk, false);
        (peer.last_refusal, peer.gate, peer.parting) = (None, Gate::Open, None);
        (peer.seen, peer.durable, peer.flushed_here) = (Seq(0), Seq(0), false);
        let says_runs = matches!(plan, Plan::Equal | Plan::Target);
        peer.runs_from = Some(if says_runs { 0 } else { self.size });
        match plan {
            // We missed nothing; only the newest reign is not written down here yet.
            Plan::Equal if is_newer => {
                let sb = &mut self.durable.sb;
                if is_behind || is_half_joined {
                    sb.chain = chain;
                }
                if is_half_joined {
                    sb.disk = Disk::UpToDate;
                }
                sb.record = record;
                let version = self.durable.touch();
                let from = None;
                self.adopting = record.map(|record| Adopting {
                    version,
                    record,
                    from,
                });
                self.peers.get_mut(node).gate = Gate::Superblock(version);
            }
            Plan::Source => self.prepare_source(node, incarnation),
            Plan::Target => {
                self.distrust_others(node);
                let sb = &mut self.durable.sb;
                if sb.disk == Disk::UpToDate {
                    sb.disk = Disk::Outdated;
                }
                // What power took before, this resync brings.
                sb.whole = true;
                self.durable.touch();
            }
            Plan::Adopt => {
                let volume_id = self.durable.sb.volume_id;
                self.say(node, Message::Adopt { volume_id });
            }
            _ => {}
        }
        self.notice(Notice::PeerConnected(node));
        self.ops.attention = true;
    }

    /// Data sessions with others than `leader`: those of an earlier term than its, and whether one is
    /// of a later term.
    ///
    /// Where a majority chose somebody else, this node may hear of that one before it hears that its
    /// primary reigns no more: what the primary has in flight here is marked before this node says
    /// where the two may differ (law S9).
    fn other_reigns(&self, leader: NodeIdx, term: Option<Term>) -> (NodeSet, bool) {
        let takes_part =
            |n: &NodeIdx| self.has_votes() && *n != leader && self.peers.get(*n).session.is_fed();
        let leads = |n: NodeIdx| {
            let hello = self.peers.get(n).hello.as_ref()?;
            hello.leads.map(|reign| reign.term)
        };
        let others: NodeSet = self.peers.nodes().filter(takes_part).collect();
        let newer = others.iter().any(|n| leads(n) > term);
        (others.iter().filter(|n| leads(*n) < term).collect(), newer)
    }

    /// A copy that was given up for one branch takes nothing of another.
    fn follows(&self, theirs: &Hello) -> bool {
        let sb = &self.durable.sb;
        let is_other = |branch: u128| sb.follows != 0 && sb.follows != branch;
        sb.record.is_some() || !theirs.record.is_some_and(|r| is_other(r.branch))
    }

    pub(super) fn known(&self, node: NodeIdx) -> Known {
        let (sb, at) = (&self.durable.sb, usize::from(node.0));
        Known {
            incarnation: if sb.joined.has(node) { sb.known[at] } else { 0 },
            life: sb.known_lives[at],
        }
    }

    /// Its copy is of an earlier run than one it had with us, or of another one in its place.
    fn is_put_back(&self, node: NodeIdx, theirs: &Hello) -> bool {
        let (known, is_blank) = (self.known(node), theirs.disk == Disk::Blank);
        // A record told of this replica; the run that we met was of the one before it.
        let is_told = self.durable.sb.known[usize::from(node.0)] == theirs.incarnation;
        let is_next = is_told && !known.life.is_of_same_replica(theirs.life);
        // It knows of records that we slept over: the memory that is old is ours.
        let own = self.record();
        let is_newer = |r: Record| own.is_none_or(|own| r.is_newer_than(&own));
        let knows_more = self.has_votes() && theirs.record.is_some_and(is_newer);
        let is_later = is_next || knows_more || known.continues(theirs.life);
        !is_blank && !theirs.is_primary && !is_later
    }

    /// The peer was put back to a state older than one it had with us: whatever bits say, it
    /// lacks everything (F21, law T8). Its life is remembered only once its own hello says that
    /// it is not whole: the word that refuses it may be lost with the link.
    fn forget_copy(&mut self, node: NodeIdx) {
        let sb = &mut self.durable.sb;
        sb.joined = sb.joined.without(node);
        if std::mem::take(&mut sb.known[usize::from(node.0)]) != 0 {
            self.durable.touch();
        }
    }

    /// Law S11: a replica we never synced lacks everything, durably, before anything is cleared.
    fn prepare_source(&mut self, node: NodeIdx, incarnation: u128) {
        let known = &mut self.durable.sb.known[usize::from(node.0)];
        if *known == incarnation {
            return;
        }
        // Whoever was made anew has no vote until it says so again.
        self.votes.unmeet(node);
        if planted!(self, BlankNotAllDirty) {
            self.durable.sb.known[usize::from(node.0)] = incarnation;
            return;
        }
        let peer = self.peers.get_mut(node);
        peer.dirty.set_all();
        peer.gate = Gate::AllDirty;
        self.pages.wants_all = true;
    }
}
