//! Steps of the plan that are not a client's: faults and commands.

use engine_core::event::{Command, Repair};
use engine_core::units::NodeIdx;

use super::Purpose;
use crate::disk::Trick;
use crate::laws::mark_name;
use crate::plan::Step;
use crate::swarm::MS;
use crate::world::{DiskImage, Doom, Fate, Happening, Mend, World};

impl World {
    /// Carries out a step that is not a client's.
    pub fn trouble(&mut self, step: Step) {
        let count = self.nodes.len();
        let node_of = |n: u64| (n as usize) % count;
        match step {
            Step::Kill { node, down } => self.kill(node_of(node), Some(down)),
            Step::KillAtEvent { node, events, down } => {
                self.doom(node_of(node), events, None, Fate::Kill, down);
            }
            Step::CutPowerAtEvent {
                node,
                events,
                keep,
                down,
            } => {
                self.doom(node_of(node), events, None, Fate::CutPower(keep), down);
            }
            Step::KillInEvent {
                node,
                events,
                actions,
                down,
            } => {
                self.doom(node_of(node), events, Some(actions), Fate::Kill, down);
            }
            Step::CutPowerInEvent {
                node,
                events,
                actions,
                keep,
                down,
            } => {
                let fate = Fate::CutPowerInFlight(keep);
                self.doom(node_of(node), events, Some(actions), fate, down);
            }
            Step::CutWireAtEvent {
                node,
                events,
                peer,
                span,
            } => {
                let fate = Fate::CutWire(node_of(peer));
                self.doom(node_of(node), events, None, fate, span);
            }
            Step::KillInMetaWrite { node, writes, down } => {
                self.nodes[node_of(node)].meta_doom = Some((writes, down));
            }
            Step::CutPower { node, down } => self.cut_power(node_of(node), down),
            Step::CutAllPower { down } => {
                for node in self.everybody() {
                    let extra = self.rng.below(100 * MS);
                    self.cut_power(node, down + extra);
                }
            }
            Step::CutWire { .. }
            | Step::StallWire { .. }
            | Step::SlowWire { .. }
            | Step::DamageWire { .. }
                if self.is_alone() => {}
            Step::CutWire { a, b, span } => {
                let (a, b) = (node_of(a), node_of(b));
                self.cut(a, b);
                self.schedule(span, Happening::Mend(Mend::Wire(a, b)));
            }
            Step::Isolate { node, span } => {
                let node = node_of(node);
                for other in self.everybody().filter(|n| *n != node) {
                    self.cut(node, other);
                    self.schedule(span, Happening::Mend(Mend::Wire(node, other)));
                }
            }
            Step::RegisterAway { span } => self.register.away_until = self.now + span,
            Step::RegisterCut { node, span } => {
                self.register.cut_until[node_of(node)] = self.now + span;
            }
            Step::StallWire { a, b, span } => {
                let until = self.now + span;
                self.net.wire(node_of(a), node_of(b)).stalled_until = until;
            }
            Step::SlowWire { a, b, factor, span } => {
                let (a, b) = (node_of(a), node_of(b));
                self.net.wire(a, b).slowness = factor;
                self.schedule(span, Happening::Mend(Mend::Calm(a, b)));
            }
            Step::DamageWire { a, b, one_in, span } => {
                let (a, b) = (node_of(a), node_of(b));
                self.net.wire(a, b).damage_one_in = one_in;
                self.schedule(span, Happening::Mend(Mend::Calm(a, b)));
            }
            Step::Pause { node, span } => self.pause(node_of(node), span),
            _ => self.more_trouble(step),
        }
    }

    /// So many events of this process from now on.
    fn doom(&mut self, node: usize, events: u64, actions: Option<u64>, fate: Fate, span: u64) {
        let event = self.nodes[node].events + events;
        self.nodes[node].doom = Some(Doom {
            event,
            actions,
            fate,
            span,
        });
    }

    fn more_trouble(&mut self, step: Step) {
        let count = self.nodes.len();
        let node_of = |n: u64| (n as usize) % count;
        match step {
            Step::WriteErrors { node } if self.is_spared(node_of(node)) => {
                self.nodes[node_of(node)].disk.faults.write_error = true;
            }
            Step::FlushError { node } if self.is_spared(node_of(node)) => {
                self.nodes[node_of(node)].disk.faults.flush_error_once = true;
            }
            Step::MetaErrors { node } if self.may_lose_metadata(node_of(node)) => {
                self.nodes[node_of(node)].meta.has_failed = true;
            }
            Step::Full { node, span } if self.may_be_full(node_of(node)) => {
                self.nodes[node_of(node)].disk.faults.is_full = true;
                self.schedule(span, Happening::Mend(Mend::Room(node_of(node))));
            }
            Step::ReadErrors { node, span } => {
                self.nodes[node_of(node)].disk.faults.read_error = true;
                self.schedule(span, Happening::Mend(Mend::Reads(node_of(node))));
            }
            Step::Hang { node, span } => {
                self.count("hangs");
                self.nodes[node_of(node)].disk.faults.is_hung = true;
                self.schedule(span, Happening::Mend(Mend::Hang(node_of(node))));
            }
            Step::MetaHang { node, span } => {
                self.nodes[node_of(node)].meta.is_hung = true;
                self.schedule(span, Happening::Mend(Mend::MetaHang(node_of(node))));
            }
            Step::Slow { node, factor, span } => {
                self.nodes[node_of(node)].disk.faults.slowness = factor.max(1);
                self.schedule(span, Happening::Mend(Mend::Speed(node_of(node))));
            }
            Step::PromoteNaively { node } => self.promote_naively(node_of(node)),
            Step::PromoteBoldly { node } => self.promote_boldly(node_of(node)),
            Step::Switch {} => self.switch(),
            Step::TakeOver { node } => self.take_over(node_of(node)),
            Step::Disconnect { node, peer, span } => {
                let (node, peer) = (node_of(node), node_of(peer));
                if node != peer {
                    self.count("disconnects");
                    self.command(node, Command::Disconnect(NodeIdx(peer as u8)));
                    self.schedule(span, Happening::Mend(Mend::Reconnect(node, peer)));
                }
            }
            Step::PauseResync { node, span } => {
                self.command(node_of(node), Command::ResyncPause);
                self.schedule(span, Happening::Mend(Mend::Resync(node_of(node))));
            }
            Step::ResyncRate { node, rate } => {
                self.command(node_of(node), Command::ResyncRate(rate));
            }
            Step::Verify {} => {
                if let Some(node) = self.primaries().first() {
                    self.ask_node(*node, Command::Verify(Repair::No), Purpose::Verify);
                }
            }
            Step::KeepImage { node } => {
                let machine = &mut self.nodes[node_of(node)];
                let (data, meta) = (machine.disk.snapshot(), machine.meta.area().to_vec());
                let life = machine.life;
                machine.image = Some(DiskImage { life, data, meta });
            }
            Step::Lonely { node, times } => self.nodes[node_of(node)].lonely = times,
            Step::BringBack { node } if self.nodes[node_of(node)].image.is_some() => {
                self.nodes[node_of(node)].brings_back = true;
                self.more_trouble(Step::Replace { node });
            }
            Step::Replace { node } if self.is_witness(node_of(node)) => {
                let node = node_of(node);
                if self.may_lose_its_vote(node) {
                    self.replace(node);
                }
            }
            Step::Replace { node } => {
                let node = node_of(node);
                let serves = self.primaries().contains(&node);
                let others = !self.primaries().is_empty();
                if !serves && others && self.is_spared(node) && self.may_lose_its_vote(node) {
                    // Taken away now, made anew once S knows.
                    self.kill(node, None);
                    self.nodes[node].is_gone = true;
                }
            }
            Step::MarkCreate { name } => {
                if let [node] = self.primaries()[..] {
                    let purpose = Purpose::MarkCreate(name, self.mark_asked(name));
                    let (name, created_ms) = (mark_name(name), self.now / MS);
                    self.ask_node(node, Command::MarkCreate { name, created_ms }, purpose);
                }
            }
            Step::MarkDelete { name } => {
                if let [node] = self.primaries()[..] {
                    self.mark_ends(name);
                    let name = mark_name(name);
                    self.ask_node(node, Command::MarkDelete { name }, Purpose::MarkDelete);
                }
            }
            Step::Rot { node, hot } => {
                let hot = self.hot()[hot as usize % self.hot().len()];
                self.damage(node_of(node), |disk| disk.flip_bits(hot));
            }
            Step::LoseWrite { node } => {
                self.damage(node_of(node), |disk| disk.trick = Some(Trick::Lost));
            }
            Step::Misdirect { node, by } => {
                self.damage(node_of(node), |d| d.trick = Some(Trick::Misdirected(by)));
            }
            Step::Scrub { node, rate } => self.command(node_of(node), Command::Scrub { rate }),
            Step::Stop { node, down } => self.stop(node_of(node), down),
            Step::Grow { size, held } => self.grow(size, held == 1),
            Step::AddWitness { node } => self.want_witness(node_of(node), true),
            Step::RemoveWitness { node } => self.want_witness(node_of(node), false),
            Step::AddReplica { node } => self.want_replica(node_of(node), true),
            Step::RemoveReplica { node } => self.want_replica(node_of(node), false),
            _ => {}
        }
    }

    fn may_lose_metadata(&mut self, node: usize) -> bool {
        self.is_alone() || (self.is_spared(node) && self.may_lose_its_vote(node))
    }

    /// The last copy goes on when it is full. What a refused write left of itself can be read and
    /// is not durable, so with acknowledgements that are durable that is not among the faults.
    fn may_be_full(&mut self, node: usize) -> bool {
        let goes_on = self.is_alone() && self.plan.settings.is_durable_policy == 0;
        goes_on || self.is_spared(node)
    }

    /// The last stop of a run.
    pub fn stop_for_good(&mut self, node: usize) {
        self.stop(node, u64::MAX / 4);
    }

    fn stop(&mut self, node: usize, down: u64) {
        if !self.is_alive(node) || self.operator.is_asked(&[Purpose::Stop]) {
            return;
        }
        if self.primaries().contains(&node) {
            self.close_all();
        }
        self.nodes[node].stop_for = down;
        self.ask_node(node, Command::Stop, Purpose::Stop);
    }
}
