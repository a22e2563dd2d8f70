//! When a node has another one read for its clients (laws R6, R7).

use engine_core::event::LinkId;
use engine_core::message::Disk;
use engine_core::units::Extent;

use crate::engine::Engine;
use crate::world::World;

impl World {
    /// Whoever is asked is in S, in a session, and no write to the range is under way to it.
    pub(super) fn law_reader_is_equal(&mut self, node: usize, link: LinkId, extent: Extent) {
        let peer = self.peer_of(node, link);
        if peer == node || self.is_dropped(node, link) {
            return;
        }
        let is_member = |engine: &Engine| {
            let record = engine.record();
            let is_in_s =
                record.is_some_and(|r| r.in_sync.iter().any(|n| usize::from(n.0) == peer));
            is_in_s && engine.is_in_sync_with(peer)
        };
        let Some(engine) = &self.nodes[node].engine else {
            return;
        };
        let (is_member, is_healthy) = (is_member(engine), engine.disk() == Disk::UpToDate);
        if !is_member {
            let text = format!("node {node} asks {peer}, which left S, to read {extent:?}");
            return self.fail("R6", text);
        }
        let sent = self.laws.sent.get(&(node, link.0));
        let other = sent.and_then(|s| s.writes.values().find(|e| e.overlaps(extent)).copied());
        if let Some(other) = other {
            let text = format!(
                "node {node} asks {peer} to read {extent:?} while it is sent a write of {other:?}"
            );
            return self.fail("R7", text);
        }
        if is_healthy {
            self.count("reads by peers of a healthy disk");
        }
    }
}
