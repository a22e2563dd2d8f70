//! Processes start, pause and die; power fails; disks are exchanged; faults end.

use engine_core::event::Event;

use super::{Happening, Mend, PEER_TIMEOUT_NS, World};
use crate::disk::{Disk, Image};
use crate::engine::{Engine, recover};
use crate::swarm::MS;

impl World {
    /// The process does nothing for a while; peers give up on it if that is long.
    pub fn pause(&mut self, node: usize, span: u64) {
        if !self.is_alive(node) {
            return;
        }
        self.count("pauses");
        let until = self.now + span;
        self.nodes[node].paused_until = until;
        self.schedule(span, Happening::Resume { node });
        if span < PEER_TIMEOUT_NS {
            return;
        }
        for connection in self.net.of(node) {
            let Some(found) = self.net.connection(connection) else {
                continue;
            };
            let other = usize::from(found.ends[0].node == node);
            let delay = self.net.rng().between(PEER_TIMEOUT_NS / 2, PEER_TIMEOUT_NS);
            self.schedule(
                delay,
                Happening::LinkDown {
                    connection,
                    end: other,
                },
            );
            let delay = delay + self.net.rng().between(1, PEER_TIMEOUT_NS);
            self.schedule(
                delay,
                Happening::LinkDown {
                    connection,
                    end: 1 - other,
                },
            );
        }
    }

    pub(super) fn resume(&mut self, node: usize) {
        if self.nodes[node].paused_until > self.now {
            return;
        }
        self.nodes[node].paused_until = 0;
        self.has_woken(node);
        let backlog = std::mem::take(&mut self.nodes[node].backlog);
        for event in backlog {
            self.feed(node, event);
        }
        self.feed(node, Event::Tick);
    }

    /// Everything that is under way at the process's end ends with it.
    pub fn end_process(&mut self, node: usize, is_abrupt: bool) {
        let machine = &mut self.nodes[node];
        machine.engine = None;
        machine.life += 1;
        machine.buffers.clear();
        machine.sums = None;
        machine.pending.clear();
        machine.stalled.clear();
        machine.backlog.clear();
        machine.paused_until = 0;
        machine.wake_at = u64::MAX;
        machine.is_stopping = false;
        for connection in self.net.of(node) {
            self.net.kill(connection);
            let Some(found) = self.net.connection(connection) else {
                continue;
            };
            let own = usize::from(found.ends[1].node == node);
            let last = found.ends[1 - own].inbox.back().map_or(self.now, |f| f.at);
            let bound = if is_abrupt { PEER_TIMEOUT_NS } else { 2 * MS };
            let delay = self.net.rng().between(1, bound);
            self.net.down(connection, own);
            let at = last.max(self.now) + delay;
            self.schedule_at(
                at,
                Happening::LinkDown {
                    connection,
                    end: 1 - own,
                },
            );
        }
    }

    /// kill -9.
    pub fn kill(&mut self, node: usize, down: Option<u64>) {
        if self.nodes[node].engine.is_none() {
            return;
        }
        self.count("kills");
        self.say(|| format!("n{node} killed"));
        let before = self.found(node).ok();
        self.process_ends(node);
        self.end_process(node, false);
        self.nodes[node].disk.kill();
        if self.nodes[node].meta.crash() {
            self.count("metadata writes torn by a crash");
        }
        self.nodes[node].restart_at = down.map(|d| self.now + d);
        self.undo_damage_nobody_could_find(node);
        self.check_crashed(node);
        self.law_metadata_never_goes_back(node, before);
    }

    /// Power cut; also of a node whose process is down.
    pub fn cut_power(&mut self, node: usize, down: u64) {
        self.cut_power_with(node, down, Disk::cut_power);
    }

    pub(super) fn cut_power_exactly(&mut self, node: usize, keep: u64, lands: bool, down: u64) {
        let outcome = |disk: &mut Disk| match lands {
            true => disk.cut_power_in_flight(keep),
            false => disk.cut_power_exactly(keep),
        };
        self.cut_power_with(node, down, outcome);
    }

    fn cut_power_with(&mut self, node: usize, down: u64, outcome: impl FnOnce(&mut Disk)) {
        self.count("power cuts");
        self.say(|| format!("n{node} loses power"));
        let before = self.found(node).ok();
        if self.nodes[node].engine.is_some() {
            self.process_ends(node);
            self.end_process(node, true);
        }
        let machine = &mut self.nodes[node];
        outcome(&mut machine.disk);
        let is_torn = machine.meta.crash();
        machine.boot_id = machine.rng.next_u128();
        let had_lost = machine.lost_power;
        machine.lost_power |= machine.disk.has_volatile_cache();
        // What was taken out of service stays so when power is back.
        machine.restart_at = (!machine.is_gone).then(|| self.now + down);
        if is_torn {
            self.count("metadata writes torn by a crash");
        }
        self.power_lost(node, had_lost);
        self.undo_damage_nobody_could_find(node);
        self.check_crashed(node);
        self.law_metadata_never_goes_back(node, before);
    }

    /// The node's replica is made anew: blank metadata, and whatever lies on the new disk.
    pub fn format(&mut self, node: usize) {
        self.nodes[node].formats += 1;
        let blocks = crate::engine::format(&self.spec(node));
        let machine = &mut self.nodes[node];
        machine.meta.format(blocks);
        machine.disk.exchange(Image::default());
        machine.lost_power = false;
        machine.is_condemned = false;
        machine.is_rolled_back = false;
        machine.put_back = None;
        self.formatted(node);
    }

    /// The image is from an earlier run of the process than the one that last wrote a record
    /// down: peers remember that run. By votes all of them do, for each may elect with it. An
    /// image of the same run could be told from the present only by stored checksums.
    pub fn image_is_older(&mut self, node: usize) -> bool {
        let spec = self.spec(node);
        let machine = &self.nodes[node];
        let has_votes = self.has_votes();
        let Some(image) = machine
            .image
            .as_ref()
            .filter(|i| has_votes || i.life < machine.record_life)
        else {
            return false;
        };
        let image = recover(&spec, &image.meta).ok();
        let Some((image, now)) = image.zip(self.found(node).ok()) else {
            return false;
        };
        let remembers = |w: &mut World, other: usize| {
            let found = w.found(other);
            other == node || found.is_ok_and(|f| f.known_lives[node].count > image.life.count)
        };
        (image.volume_id, image.format) == (now.volume_id, now.format)
            && (!has_votes || self.everybody().all(|other| remembers(self, other)))
    }

    /// The image kept earlier is put back, data and metadata.
    pub fn bring_back(&mut self, node: usize) {
        let machine = &mut self.nodes[node];
        let Some(image) = machine.image.take() else {
            return;
        };
        machine.disk.exchange(image.data);
        machine.meta.exchange(image.meta);
        machine.is_rolled_back = true;
        machine.is_condemned = false;
        self.count("old disks brought back");
        self.formatted(node);
        self.nodes[node].put_back = self.found(node).ok().map(|f| f.incarnation);
    }

    /// An image that was put back may be started several times before it meets anybody.
    fn stay_lonely(&mut self, node: usize) {
        let machine = &mut self.nodes[node];
        if !machine.is_rolled_back || machine.lonely == 0 {
            return;
        }
        machine.lonely -= 1;
        let (up, down) = (
            machine.rng.between(MS, 6 * MS),
            machine.rng.between(MS, 4 * MS),
        );
        let life = machine.life;
        self.count("lonely starts of old disks");
        for other in self.everybody().filter(|n| *n != node) {
            self.cut(node, other);
            self.schedule(up + down, Happening::Mend(Mend::Wire(node, other)));
        }
        self.schedule(up, Happening::Kill { node, life, down });
    }

    /// The process starts.
    pub fn start(&mut self, node: usize) {
        let spec = self.spec(node);
        let engine = match Engine::attach(&spec, self.nodes[node].meta.area(), self.bug) {
            Ok(engine) => engine,
            Err(why) => {
                self.fail("M3", format!("node {node} cannot attach: {why}"));
                return;
            }
        };
        self.say(|| format!("n{node} starts"));
        let machine = &mut self.nodes[node];
        machine.sums = engine.sums_table();
        machine.disk.forget_met();
        machine.engine = Some(engine);
        machine.life += 1;
        machine.events = 0;
        machine.was_in_touch = false;
        machine.has_failed_flush = false;
        machine.restart_at = None;
        self.process_begins(node);
        self.stay_lonely(node);
        self.feed(node, Event::Start);
    }

    /// Ends a fault.
    pub fn mend(&mut self, mend: Mend) {
        match mend {
            Mend::Wire(a, b) => self.net.wire(a, b).is_cut = false,
            Mend::Calm(a, b) => {
                let wire = self.net.wire(a, b);
                wire.slowness = 1;
                wire.damage_one_in = 0;
            }
            Mend::Reads(node) => self.nodes[node].disk.faults.read_error = false,
            Mend::Room(node) => self.nodes[node].disk.faults.is_full = false,
            Mend::Speed(node) => self.nodes[node].disk.faults.slowness = 1,
            Mend::Hang(node) => {
                self.nodes[node].disk.faults.is_hung = false;
                self.unstall(node);
            }
            Mend::MetaHang(node) => {
                self.nodes[node].meta.is_hung = false;
                self.unstall(node);
            }
            Mend::Reconnect(node, peer) => {
                let peer = engine_core::units::NodeIdx(peer as u8);
                self.command(node, engine_core::event::Command::Connect(peer));
            }
            Mend::Resync(node) => {
                self.command(node, engine_core::event::Command::ResyncResume);
            }
        }
    }

    fn unstall(&mut self, node: usize) {
        for what in std::mem::take(&mut self.nodes[node].stalled) {
            let delay = self.nodes[node].rng.between(1, 100_000);
            self.schedule(delay, what);
        }
    }
}
