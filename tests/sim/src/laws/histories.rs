//! What the copies say of their past (laws T5, T9, M2).

use std::rc::Rc;

use engine_core::generation::{Verdict, judge};
use engine_core::message::Disk;
use engine_core::record::Record;
use engine_core::units::NodeIdx;

use crate::engine::Found;
use crate::world::World;

impl World {
    /// M2: a torn metadata write leaves the old state, never an older one.
    pub fn law_metadata_never_goes_back(&mut self, node: usize, before: Option<Rc<Found>>) {
        let (Some(before), Ok(after)) = (before, self.found(node)) else {
            return;
        };
        let position = |f: &Found| f.record.map(|r| (r.term, r.step));
        let older = position(&after) < position(&before)
            || (before.volume_id != 0 && after.volume_id == 0)
            || after.chain.entries().len() < before.chain.entries().len();
        // Who was just found to be an old image forgets its history in the write that was cut.
        let is_old = self.nodes[node].is_rolled_back;
        if older && before.given_up == after.given_up && !is_old {
            let text = format!(
                "node {node} crashed, and its metadata went back from {:?} to {:?}",
                before.record, after.record
            );
            self.fail("M2", text);
        }
    }

    /// T9: a node that lacks acknowledged writes of another never compares as equal or ahead.
    pub(super) fn law_histories_tell(&mut self, _node: usize) {
        if self.has_votes() {
            return self.law_members_hold_all();
        }
        for a in self.all() {
            for b in self.all().filter(|b| *b != a) {
                let missing = self.laws.holds[a]
                    .difference(&self.laws.holds[b])
                    .next()
                    .cloned();
                let (Some(missing), Some(fa), Some(fb)) = (missing, self.peek(a), self.peek(b))
                else {
                    continue;
                };
                // A chain cannot tell that a disk was rolled back; its lives do, and no law lets
                // it join without a whole resync (S6) or overwrite another (below).
                let excused = fb.disk != Disk::UpToDate
                    || self.nodes[b].is_rolled_back
                    || self.laws.must_leave[b]
                    || self.nodes[b].lost_power
                    || self.nodes[b].is_condemned
                    || fa.disk == Disk::Failed;
                let verdict = judge(&fb.chain, &fa.chain);
                if !excused && matches!(verdict, Verdict::Equal | Verdict::Ahead) {
                    let text = format!(
                        "node {b} lacks acknowledged writes of node {a} ({missing:?}) and compares \
                         as {verdict:?}: {:?} / {:?}",
                        fb.chain, fa.chain
                    );
                    return self.fail("T9", text);
                }
            }
        }
    }

    /// T9: a replica that holds acknowledged writes another lacks is never its sync target.
    pub(super) fn law_nothing_is_overwritten(&mut self, source: usize, target: usize) {
        let is_member = |r: Record| r.in_sync.has(NodeIdx(target as u8));
        let is_whole = !self.nodes[target].lost_power && !self.nodes[target].is_rolled_back;
        if self.nodes[source].lost_power
            && !(is_whole && self.newest_record().is_some_and(is_member))
        {
            // The last whole member of S lost it in a power cut (law B6).
            return;
        }
        let lost = self.laws.holds[target]
            .difference(&self.laws.holds[source])
            .next()
            .cloned();
        if let Some(segment) = lost {
            let text = format!(
                "node {target} is overwritten by node {source}, and holds acknowledged writes \
                 {segment:?} that node {source} lacks"
            );
            self.fail("T9", text);
        }
    }

    /// T9, T5: an unforced promotion needs an up-to-date member of S; without votes also that its
    /// process saw the primary vanish, for nobody else could tell it of a newer reign.
    pub(super) fn law_promotion_was_allowed(&mut self, node: usize) {
        let forced = self.operator.forced(node);
        let naive = self.operator.was_naive(node);
        let isolated = self.operator.began_isolated(node)
            && !self.nodes[node].was_in_touch
            && !self.has_votes();
        if (naive || isolated) && !forced {
            self.fail(
                "T9",
                format!("node {node} was promoted and could not know it may"),
            );
        }
        let Some(found) = self.peek(node) else { return };
        if !forced && found.disk != Disk::UpToDate {
            let state = found.disk;
            self.fail(
                "T5",
                format!("node {node} was promoted and its copy is {state:?}"),
            );
        }
    }
}
