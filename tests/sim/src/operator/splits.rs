//! After boldness one of the histories has to go: its copy is given up, or made anew.

use engine_core::event::Command;
use engine_core::units::NodeIdx;

use super::Purpose;
use crate::swarm::MS;
use crate::world::{Happening, Mend, World};

impl World {
    /// After boldness: one of the two has to go.
    pub(super) fn reconcile_split(&mut self) {
        let joined = self.is_healthy();
        if !self.operator.was_bold || joined || !self.operator.is_healing {
            self.operator.apart_since = self.now;
            self.operator.was_bold &= !joined;
            return;
        }
        if self.operator.rng.one_in(8) {
            // Whoever gave up on the other waits for a word.
            for (a, b) in self.net.pairs() {
                self.mend(Mend::Reconnect(a, b));
                self.mend(Mend::Reconnect(b, a));
            }
        }
        if self.now < self.operator.apart_since + 2_000 * MS {
            return;
        }
        self.operator.apart_since = self.now;
        let primaries = self.primaries();
        let alive = self.all().all(|n| self.is_alive(n));
        let cut = self
            .net
            .pairs()
            .iter()
            .any(|(a, b)| self.net.is_cut(*a, *b));
        if !alive || cut || primaries.is_empty() {
            return;
        }
        self.count("split brains resolved");
        let keep = *self.operator.rng.pick(&primaries);
        let gives_up = self.operator.rng.below(3) > 0;
        for node in self.everybody().filter(|n| *n != keep) {
            let keeper = self.nodes[keep].engine.as_ref();
            let has_joined = keeper.is_some_and(|e| {
                let has_it = e.is_in_sync_with(node) || e.is_source_of(node);
                self.has_votes() && !self.is_witness(node) && has_it
            });
            // Who was made anew has nothing to give up, and may be on its way back, or voted already.
            let branch = keeper.and_then(|e| e.record()).map(|r| r.branch);
            let is_back = self.found(node).is_ok_and(|f| {
                let follows = f.voted.is_some_and(|v| Some(v.branch) == branch);
                f.volume_id == 0 || (self.is_witness(node) && follows)
            });
            if has_joined || is_back || !self.may_lose_its_vote(node) {
                continue;
            }
            match gives_up && self.is_parted(node, keep) {
                true => self.give_up(node, keep),
                // Who gave up already waits for its resync.
                false if gives_up && !self.is_witness(node) && self.has_given_up(node) => {}
                false => self.replace(node),
            }
        }
    }

    /// Somebody who resolves a split brain may yet be killed on purpose.
    pub fn is_resolving(&self) -> bool {
        self.now <= self.operator.kills_until
    }

    fn is_parted(&self, node: usize, other: usize) -> bool {
        let engine = self.nodes[node].engine.as_ref();
        !self.is_witness(node) && engine.is_some_and(|e| e.parting_token(other).is_some())
    }

    fn has_given_up(&mut self, node: usize) -> bool {
        self.found(node).is_ok_and(|f| f.follows != 0)
    }

    /// Gives up the copy of `node` for that of `keep`, and may crash one of them meanwhile, or give
    /// the other word on the other side.
    fn give_up(&mut self, node: usize, keep: usize) {
        let engine = self.nodes[node].engine.as_ref();
        let Some(engine) = engine.filter(|e| !self.operator.is_giving_up(node) && e.is_steady())
        else {
            return;
        };
        if engine.is_primary() {
            self.close_all();
            return self.command(node, Command::Demote);
        }
        let seen = engine.parting_token(keep);
        let token = match self.operator.rng.below(8) {
            0 => None,
            1 => seen.map(|token| token ^ 1),
            _ => seen,
        };
        let is_stale = token.is_some() && token != seen;
        let to = NodeIdx(keep as u8);
        let purpose = Purpose::GiveUp { is_stale };
        self.ask_node(node, Command::GiveUp { to, token }, purpose);
        if self.operator.rng.one_in(8) && !self.nodes[keep].is_condemned {
            // Another operator decides the other way.
            let (to, token) = (NodeIdx(node as u8), None);
            let is_stale = false;
            self.ask_node(
                keep,
                Command::GiveUp { to, token },
                Purpose::GiveUp { is_stale },
            );
        }
        if self.operator.rng.one_in(3) {
            let victim = *self.operator.rng.pick(&[node, node, keep]);
            let (delay, down) = (
                self.operator.rng.between(1, 60 * MS),
                self.operator.rng.between(1, 200 * MS),
            );
            let life = self.nodes[victim].life;
            self.operator.kills_until = self.now + delay;
            self.schedule(
                delay,
                Happening::Kill {
                    node: victim,
                    life,
                    down,
                },
            );
        }
    }
}
