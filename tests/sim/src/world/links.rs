//! Connections between nodes come and go; each end learns of it in its own time.

use engine_core::event::{Event, LinkId};

use super::{Happening, PEER_TIMEOUT_NS, World};
use crate::swarm::MS;

impl World {
    pub(super) fn link_up(&mut self, connection: u64, end: usize) {
        let Some(found) = self.net.connection(connection) else {
            return;
        };
        if found.ends[end].is_down || found.is_dead {
            return;
        }
        found.ends[end].is_up = true;
        self.nodes[found.ends[end].node].was_in_touch = true;
        let link = found.ends[end].link;
        let (node, peer) = (found.ends[end].node, found.ends[1 - end].node);
        let waiting = found.ends[end].inbox.len();
        let peer = engine_core::units::NodeIdx(peer as u8);
        self.feed(node, Event::LinkUp { peer, link });
        for _ in 0..waiting {
            self.schedule(1, Happening::Arrive { connection, end });
        }
    }

    pub(super) fn link_down(&mut self, connection: u64, end: usize) {
        let Some(found) = self.net.connection(connection) else {
            return;
        };
        if found.ends[end].is_down {
            return;
        }
        let side = &found.ends[end];
        let (node, link, was_up) = (side.node, side.link, side.is_up);
        self.net.down(connection, end);
        if was_up {
            self.lost_link(node, link);
        }
    }

    fn lost_link(&mut self, node: usize, link: LinkId) {
        self.count("link losses");
        self.feed(node, Event::LinkDown { link });
    }

    pub(super) fn arrive(&mut self, connection: u64, end: usize) {
        let now = self.now;
        let Some(frame) = self.net.take(now, connection, end) else {
            return;
        };
        let Some(found) = self.net.connection(connection) else {
            return;
        };
        let (node, link) = (found.ends[end].node, found.ends[end].link);
        if frame.is_damaged {
            // The head's checksum fails: this side drops the connection (F19).
            self.count("damaged heads");
            self.break_connection(connection, end);
            return;
        }
        self.deliver(node, link, frame);
    }

    /// One side closes: it learns at once, the other after what was sent before.
    pub fn break_connection(&mut self, connection: u64, end: usize) {
        let late = self.net.rng().between(1, 2_000_000);
        let own_max = *self.net.rng().pick(&[1, 200_000, 8_000_000]);
        let own = self.net.rng().between(1, own_max);
        let now = self.now;
        let Some(found) = self.net.connection(connection) else {
            return;
        };
        // What was received before may still reach the core: late words (law R10).
        found.is_dead = true;
        let last = found.ends[1 - end].inbox.back().map_or(now, |f| f.at);
        self.schedule(own, Happening::LinkDown { connection, end });
        self.schedule_at(
            last.max(now) + late,
            Happening::LinkDown {
                connection,
                end: 1 - end,
            },
        );
    }

    pub(super) fn connect_all(&mut self) {
        for (a, b) in self.net.pairs() {
            if self.is_witness(a) || self.is_witness(b) {
                continue;
            }
            let doubles = self.net.wire(a, b).double_one_in;
            let open = self.net.between(a, b).len();
            let runs = |n: usize| self.nodes[n].engine.is_some() && !self.nodes[n].is_stopping;
            if !runs(a) || !runs(b) || self.net.is_cut(a, b) {
                self.probe_in_vain(a, b);
                continue;
            }
            let again = open == 1 && doubles > 0 && self.net.rng().one_in(doubles * 8);
            if open == 0 || again {
                let ends = [(a, self.nodes[a].life), (b, self.nodes[b].life)];
                let connection = self.net.connect(ends[0], ends[1]);
                for end in 0..2 {
                    let delay = self.net.rng().between(10_000, 2_000_000);
                    self.schedule(delay, Happening::LinkUp { connection, end });
                }
            }
        }
        let delay = self.net.rng().between(5 * MS, 30 * MS);
        self.schedule(delay, Happening::Connect);
    }

    /// Whoever runs dials the other, and nobody answers.
    fn probe_in_vain(&mut self, a: usize, b: usize) {
        for (node, peer) in [(a, b), (b, a)] {
            let believes = self.net.between(a, b).iter().any(|id| {
                self.net
                    .peek(*id)
                    .is_some_and(|c| c.ends.iter().any(|e| e.node == node && !e.is_down))
            });
            if self.is_alive(node) && !believes {
                let peer = engine_core::units::NodeIdx(peer as u8);
                self.feed(node, Event::Unreachable { peer });
            }
        }
    }

    /// Nothing passes between these any more; each side notices in its own time.
    pub fn cut(&mut self, a: usize, b: usize) {
        self.net.wire(a, b).is_cut = true;
        self.count("cuts");
        for connection in self.net.between(a, b) {
            self.net.kill(connection);
            for end in 0..2 {
                let delay = self.net.rng().between(100_000, PEER_TIMEOUT_NS);
                self.schedule(delay, Happening::LinkDown { connection, end });
            }
        }
    }
}
