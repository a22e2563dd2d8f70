//! Disks that were put back to an older state than peers remember (law T8, F21).

use engine_core::units::NodeIdx;

use crate::world::World;

impl World {
    /// T8: only who was put back is found older than others remember; crashes never lead there.
    pub(super) fn law_only_old_images_are_renewed(&mut self, node: usize, peer: NodeIdx) {
        self.count("old disks found out");
        if self.nodes[node].put_back.is_none() {
            let text = format!(
                "node {node} was never put back to an older state, and {peer:?} seems to remember more"
            );
            self.fail("T8", text);
        }
    }

    /// T8: an old image is in sync with nobody, leads nothing and adds no vote, until it is another
    /// replica.
    pub(super) fn law_old_images_count_for_nothing(&mut self, node: usize) {
        let Some(engine) = self.nodes[node].engine.as_ref() else {
            return;
        };
        if !self.is_old_image(node) {
            return;
        }
        let is_trusted = self.all().any(|p| p != node && engine.is_in_sync_with(p));
        let leads = self.has_votes() && engine.is_primary();
        if is_trusted || leads {
            let text = format!(
                "node {node} was put back to an older state than its peers remember, and takes part \
                 as if it had all"
            );
            self.fail("T8", text);
        }
    }

    /// It was put back, and is still known by what it was then.
    pub(super) fn is_old_image(&self, node: usize) -> bool {
        let machine = &self.nodes[node];
        let old = machine.put_back.filter(|_| machine.is_rolled_back);
        let own = self.peek(node).map(|found| found.incarnation);
        old.is_some() && own == old
    }
}
