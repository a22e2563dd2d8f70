//! Connections between nodes: FIFO in each direction, delayed, cut, stalled, damaged, duplicated.
//!
//! A connection has two ends that learn of it, and of its loss, at different times. What was
//! under way when it died is lost from some point on. Messages that arrive before an end was told
//! of the connection wait until it was.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use engine_core::event::LinkId;
use engine_core::message::Message;

use crate::rng::Rng;

/// Payload on its way.
#[derive(Clone, Debug)]
pub struct Bytes {
    /// One per block.
    pub tags: Rc<Vec<u64>>,
    /// No bit was damaged.
    pub is_intact: bool,
}

/// What travels.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Arrives at.
    pub at: u64,
    /// Its head.
    pub message: Message,
    /// Its payload.
    pub payload: Option<Bytes>,
    /// The head is damaged: the receiver drops the connection.
    pub is_damaged: bool,
}

/// One side of a connection.
#[derive(Debug)]
pub struct End {
    /// Which node.
    pub node: usize,
    /// Which life of its process.
    pub life: u64,
    /// The process's name for the connection.
    pub link: LinkId,
    /// The core was told of it.
    pub is_up: bool,
    /// The core was told of its loss, or the process is dead.
    pub is_down: bool,
    /// On the way to this end.
    pub inbox: VecDeque<Frame>,
    last_arrival: u64,
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    /// Its ends.
    pub ends: [End; 2],
    /// Nothing sent from now on arrives.
    pub is_dead: bool,
}

impl Connection {
    /// Both ends know it is gone.
    pub fn is_over(&self) -> bool {
        self.ends.iter().all(|e| e.is_down)
    }
}

/// How the wire between a pair behaves now.
#[derive(Clone, Debug)]
pub struct Wire {
    /// Nothing passes.
    pub is_cut: bool,
    /// Nothing arrives before this time.
    pub stalled_until: u64,
    /// Latency is multiplied.
    pub slowness: u64,
    /// One payload in this many is damaged; 0 is none.
    pub damage_one_in: u64,
    /// One connection attempt in this many is doubled; 0 is none.
    pub double_one_in: u64,
}

/// All connections.
pub struct Net {
    connections: BTreeMap<u64, Connection>,
    wires: BTreeMap<(usize, usize), Wire>,
    by_link: BTreeMap<(usize, u64, u64), u64>,
    next: u64,
    rng: Rng,
}

fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

impl Net {
    /// A calm network of so many nodes.
    pub fn new(nodes: usize, rng: Rng) -> Net {
        let calm = Wire {
            is_cut: false,
            stalled_until: 0,
            slowness: 1,
            damage_one_in: 0,
            double_one_in: 0,
        };
        let wires = (0..nodes)
            .flat_map(|a| (a + 1..nodes).map(move |b| (a, b)))
            .map(|pair| (pair, calm.clone()))
            .collect();
        Net {
            connections: BTreeMap::new(),
            wires,
            by_link: BTreeMap::new(),
            next: 1,
            rng,
        }
    }

    /// The wire between two nodes.
    pub fn wire(&mut self, a: usize, b: usize) -> &mut Wire {
        self.wires
            .get_mut(&pair(a, b))
            .expect("every pair has a wire")
    }

    /// Nothing passes between these.
    pub fn is_cut(&self, a: usize, b: usize) -> bool {
        self.wires[&pair(a, b)].is_cut
    }

    /// Pairs of nodes.
    pub fn pairs(&self) -> Vec<(usize, usize)> {
        self.wires.keys().copied().collect()
    }

    /// A new connection; its number. Link numbers are unique within each process.
    pub fn connect(&mut self, a: (usize, u64), b: (usize, u64)) -> u64 {
        let id = self.next;
        self.next += 1;
        let end = |(node, life): (usize, u64)| End {
            node,
            life,
            link: LinkId(id),
            is_up: false,
            is_down: false,
            inbox: VecDeque::new(),
            last_arrival: 0,
        };
        self.by_link.insert((a.0, a.1, id), id);
        self.by_link.insert((b.0, b.1, id), id);
        self.connections.insert(
            id,
            Connection {
                ends: [end(a), end(b)],
                is_dead: false,
            },
        );
        id
    }

    /// The connection of this number, unless it is over and forgotten.
    pub fn connection(&mut self, id: u64) -> Option<&mut Connection> {
        self.connections.get_mut(&id)
    }

    /// As [`Net::connection`], to look at.
    pub fn peek(&self, id: u64) -> Option<&Connection> {
        self.connections.get(&id)
    }

    /// The connection and the end that a process calls `link`.
    pub fn find(&self, node: usize, life: u64, link: LinkId) -> Option<(u64, usize)> {
        let id = *self.by_link.get(&(node, life, link.0))?;
        let connection = self.connections.get(&id)?;
        let end = connection
            .ends
            .iter()
            .position(|e| e.node == node && e.life == life)?;
        Some((id, end))
    }

    /// Connections between a pair that somebody still believes in.
    pub fn between(&self, a: usize, b: usize) -> Vec<u64> {
        let joins =
            |c: &Connection| pair(c.ends[0].node, c.ends[1].node) == pair(a, b) && !c.is_over();
        self.connections
            .iter()
            .filter(|(_, c)| joins(c))
            .map(|(id, _)| *id)
            .collect()
    }

    /// Connections of a node that are not over.
    pub fn of(&self, node: usize) -> Vec<u64> {
        let joins = |c: &Connection| c.ends.iter().any(|e| e.node == node) && !c.is_over();
        self.connections
            .iter()
            .filter(|(_, c)| joins(c))
            .map(|(id, _)| *id)
            .collect()
    }

    /// Puts a message on its way from `end`; when it arrives at the other, if it ever does.
    pub fn send(
        &mut self,
        now: u64,
        id: u64,
        end: usize,
        message: Message,
        tags: Option<Rc<Vec<u64>>>,
    ) -> Option<u64> {
        let connection = self.connections.get_mut(&id)?;
        let (a, b) = (connection.ends[0].node, connection.ends[1].node);
        if connection.is_dead || connection.ends[1 - end].is_down {
            return None;
        }
        let wire = &self.wires[&pair(a, b)];
        let delay = self.rng.between(5_000, 60_000) * wire.slowness;
        let damage = wire.damage_one_in > 0 && self.rng.one_in(wire.damage_one_in);
        let is_damaged = damage && (tags.is_none() || self.rng.one_in(4));
        let payload = tags.map(|mut tags| {
            let is_intact = !damage;
            if damage {
                let at = self.rng.below(tags.len() as u64) as usize;
                Rc::make_mut(&mut tags)[at] ^= 1 << 63;
            }
            Bytes { tags, is_intact }
        });
        let other = &mut connection.ends[1 - end];
        let at = (now + delay)
            .max(other.last_arrival + 1)
            .max(wire.stalled_until);
        other.last_arrival = at;
        other.inbox.push_back(Frame {
            at,
            message,
            payload,
            is_damaged,
        });
        Some(at)
    }

    /// What arrives at `end` now: the next message, in order.
    pub fn take(&mut self, now: u64, id: u64, end: usize) -> Option<Frame> {
        let side = &mut self.connections.get_mut(&id)?.ends[end];
        if !side.is_up || side.is_down || side.inbox.front().is_none_or(|f| f.at > now) {
            return None;
        }
        side.inbox.pop_front()
    }

    /// The connection dies; what is under way is lost, from a random message on.
    pub fn kill(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        connection.is_dead = true;
        for end in &mut connection.ends {
            let kept = self.rng.below(end.inbox.len() as u64 + 1) as usize;
            end.inbox.truncate(kept);
        }
    }

    /// An end was told that it is gone. True if both were.
    pub fn down(&mut self, id: u64, end: usize) -> bool {
        let Some(connection) = self.connections.get_mut(&id) else {
            return true;
        };
        connection.is_dead = true;
        connection.ends[end].is_down = true;
        connection.ends[end].inbox.clear();
        if !connection.is_over() {
            return false;
        }
        for end in &connection.ends {
            self.by_link.remove(&(end.node, end.life, end.link.0));
        }
        self.connections.remove(&id);
        true
    }

    /// Chance of this network.
    pub fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(round: u64) -> Message {
        Message::MapRequest { from: round }
    }

    #[test]
    fn messages_of_one_direction_arrive_in_order() {
        let mut net = Net::new(2, Rng::new(1));
        let id = net.connect((0, 1), (1, 1));
        net.connection(id).unwrap().ends[1].is_up = true;
        let times: Vec<u64> = (0..20)
            .map(|i| net.send(i * 100, id, 0, progress(i), None).unwrap())
            .collect();
        assert!(times.is_sorted());
        for i in 0..20 {
            assert_eq!(net.take(u64::MAX, id, 1).unwrap().message, progress(i));
        }
    }

    #[test]
    fn a_dead_connection_swallows_what_is_sent() {
        let mut net = Net::new(2, Rng::new(1));
        let id = net.connect((0, 1), (1, 1));
        net.kill(id);
        assert_eq!(net.send(0, id, 0, progress(0), None), None);
        assert!(!net.down(id, 0));
        assert!(net.down(id, 1));
        assert!(net.connection(id).is_none());
    }
}
