//! Changes of S (laws S6, R8, T4, T6): who joins is equal, who is not whole leaves.

use std::collections::BTreeSet;

use engine_core::event::LinkId;
use engine_core::record::Record;
use engine_core::units::{NodeIdx, Term};

use crate::world::World;

impl World {
    pub(super) fn law_record_changes(
        &mut self,
        node: usize,
        before: Option<Record>,
        after: Option<Record>,
    ) {
        if before == after {
            return;
        }
        let Some(after) = after else { return };
        self.laws.seen[node] = Some(after);
        if before.is_none() && self.nodes[node].is_rolled_back {
            // An old image holds it: nobody joined or left by that.
            return;
        }
        self.nodes[node].record_life = self.nodes[node].life;
        let joined = |n: usize| {
            let id = NodeIdx(n as u8);
            after.in_sync.has(id) && before.is_none_or(|b| !b.in_sync.has(id))
        };
        let left = |n: usize| {
            let id = NodeIdx(n as u8);
            !after.in_sync.has(id) && before.is_some_and(|b| b.in_sync.has(id))
        };
        let primary = usize::from(after.primary.0);
        for n in self.all() {
            if left(n) {
                self.count("departures from S");
                self.situation_left();
                self.laws.must_leave[n] = false;
            }
            // It may write the new record down before the primary does.
            let own = self.laws.seen[primary];
            if own.is_some_and(|r| r.is_newer_than(&after)) {
                continue;
            }
            let is_first = n == node && own.is_none_or(|r| after.is_newer_than(&r));
            let in_it = after.in_sync.has(NodeIdx(n as u8));
            let adds = is_first && own.is_none_or(|r| !r.in_sync.has(NodeIdx(n as u8)));
            // What a third node's own record said before tells nothing of this one.
            let is_told = n == node || node == primary;
            if n != primary && ((is_told && joined(n)) || (in_it && adds)) {
                self.count("joins");
                self.situation_joined();
                if n as u64 >= self.plan.settings.nodes {
                    self.count("joins of a newcomer");
                }
                let is_down = self.nodes[n].engine.is_none();
                let voted = self.laws.voted_at_loss[n];
                let was_under_way = is_down || voted.is_some_and(|v| !after.is_newer_than(&v));
                let lost = self.nodes[n].lost_power && was_under_way;
                if lost || self.is_old_image(n) {
                    // It lost power, or was put back, while its record was being chosen.
                    self.laws.must_leave[n] = true;
                    continue;
                }
                self.is_as_whole_as(primary, n, &after);
            }
        }
    }

    /// It has what the members have from here on.
    fn is_as_whole_as(&mut self, primary: usize, joining: usize, record: &Record) {
        // Put back while its joining was being chosen, it is not who the record means.
        let engine = self.nodes[primary].engine.as_ref();
        let in_touch = engine.is_some_and(|e| e.is_connected(joining));
        self.nodes[joining].is_rolled_back &= !in_touch;
        self.law_joins_when_equal(primary, joining);
        self.settle_loss(primary, joining);
        let gained = self.laws.holds[self.member_like(primary, joining, record)].clone();
        self.laws.holds[joining].extend(gained);
        self.nodes[joining].lost_power = false;
        self.laws.must_leave[joining] = false;
    }

    /// Whose data a joining node has now: the primary's, or another member's where its disk failed.
    fn member_like(&self, primary: usize, joining: usize, record: &Record) -> usize {
        let is_member = |n: &usize| *n != joining && record.in_sync.has(NodeIdx(*n as u8));
        match is_member(&primary) {
            true => primary,
            false => self.all().find(is_member).unwrap_or(primary),
        }
    }

    /// What no member is whole for is lost (law B6): it joins and is equal to the primary.
    fn settle_loss(&mut self, primary: usize, joining: usize) {
        if self.laws.must_leave[primary] && self.nodes[joining].lost_power {
            self.count("resyncs from a copy that is not whole");
            self.all().for_each(|n| self.laws.forget_holdings(n));
            self.laws.must_leave[primary] = false;
        }
    }

    /// S6: who joins S has everything durable, but for writes on their way to it.
    fn law_joins_when_equal(&mut self, primary: usize, joining: usize) {
        // If the member vanished meanwhile, the record comes too late and S shrinks again.
        let engine = self.nodes[primary].engine.as_ref();
        let in_touch = engine.is_some_and(|e| e.is_connected(joining));
        // A third node may hear of the record only when that reign is over: power is back after a cut
        // of all, or the primary stepped down. What its last writes left behind then is in the logs.
        let serves = engine.is_some_and(|e| e.is_primary());
        let excused = self.is_excused(primary) || self.is_excused(joining);
        if self.has_no_history(primary, joining) || !in_touch || excused {
            return;
        }
        let lacks = |(block, wanted): &(&u64, &u64)| {
            self.clients.is_judging() && !self.holds_at_least(joining, **block, **wanted, false)
        };
        if let Some((block, wanted)) = self.clients.acked.iter().find(lacks) {
            let text = format!(
                "node {joining} joined S, and lacks write {wanted} of block {block}, which was \
                 answered before"
            );
            return self.fail("S6", text);
        }
        let granules: BTreeSet<u64> = self.nodes[primary]
            .disk
            .live()
            .granules()
            .chain(self.nodes[joining].disk.live().granules())
            .collect();
        let hole = granules
            .into_iter()
            .find(|g| !self.is_proven(primary, joining, *g, serves));
        if let Some(granule) = hole {
            let text = format!(
                "node {joining} joined S, and granule {granule} is not durable and equal there: \
                 {:x?} / {:x?}",
                self.nodes[primary].disk.live().granule(granule),
                self.nodes[joining].disk.live().granule(granule),
            );
            self.fail("S6", text);
        }
    }

    /// Some writes were sent to a member, and it confirmed them not.
    pub fn are_writes_under_way(&self) -> bool {
        let is_live = |(node, link): &(usize, u64)| !self.is_dropped(*node, LinkId(*link));
        let mut sent = self.laws.sent.iter();
        sent.any(|(at, sent)| !sent.writes.is_empty() && is_live(at))
    }

    /// R8: with no request in flight the members of S are equal.
    pub(super) fn law_members_are_equal_at_rest(&mut self) {
        if self.clients.outstanding() > 0 || self.are_writes_under_way() {
            return;
        }
        let Some(record) = self.newest_record() else {
            return;
        };
        let primary = usize::from(record.primary.0);
        for (a, b) in self.net.pairs() {
            let quiet = |n: usize| {
                self.is_alive(n)
                    && self.nodes[n].disk.writing().next().is_none()
                    && record.in_sync.has(NodeIdx(n as u8))
                    && !self.is_excused(n)
            };
            let serves = self.nodes[primary]
                .engine
                .as_ref()
                .is_some_and(|e| e.is_primary());
            if self.differences(a, b).is_empty() || !serves || !quiet(a) || !quiet(b) {
                continue;
            }
            let joined = self.nodes[primary].engine.as_ref().is_some_and(|e| {
                let agrees = |n: usize| n == primary || e.is_in_sync_with(n);
                e.record() == Some(record) && agrees(a) && agrees(b)
            });
            if joined {
                let granule = *self.differences(a, b).iter().next().expect("there is one");
                let text = format!(
                    "nodes {a} and {b} are in S, nothing is in flight, and granule {granule} \
                     differs: {:x?} / {:x?}",
                    self.nodes[a].disk.live().granule(granule),
                    self.nodes[b].disk.live().granule(granule),
                );
                return self.fail("R8", text);
            }
        }
    }

    /// A record named this node, and it never heard of that: it is resynced without leaving S first.
    pub(super) fn resynced_where_it_was(&mut self, node: usize, source: usize) {
        let record = self.nodes[node].engine.as_ref().and_then(|e| e.record());
        let record = record.filter(|r| usize::from(r.primary.0) == source);
        if let Some(record) = record.filter(|_| self.laws.must_leave[node]) {
            self.is_as_whole_as(source, node, &record);
        }
    }

    /// T4: a member that is no longer whole confirms nothing before it left S.
    pub(super) fn law_not_whole_leaves(&mut self, node: usize) {
        if !self.laws.must_leave[node] {
            return;
        }
        let Some(engine) = &self.nodes[node].engine else {
            return;
        };
        let joined = self.all().any(|p| p != node && engine.is_in_sync_with(p));
        let in_sync = self
            .newest_record()
            .is_some_and(|r| r.in_sync.has(NodeIdx(node as u8)));
        if joined && in_sync {
            let text =
                format!("node {node} lost power while in S, and is in sync as if it had not");
            self.fail("T4", text);
        }
    }

    /// T4, at the end: who lost power while in S left it since, so that whoever is in S is whole.
    pub fn law_nobody_is_owed_to_leave(&mut self) {
        if let Some(node) = self.all().find(|n| self.laws.must_leave[*n]) {
            let text = format!("node {node} lost power while in S, and never left it");
            self.fail("T4", text);
        }
    }

    /// T6: without an operator's boldness there is one primary.
    pub(super) fn law_one_primary(&mut self) {
        // By votes another may serve before the last one knows: it answers nobody then.
        if self.primaries().len() > 1 && !self.operator.was_bold && !self.has_votes() {
            self.fail("T6", "two nodes serve clients");
        }
    }

    /// T6: a session of a term below the one that was promised is over, and nothing comes on it.
    pub(super) fn law_promise_ends_sessions(&mut self, node: usize, link: LinkId, term: Term) {
        let promised = self.peek(node).map(|found| found.promised);
        let is_below = promised.is_some_and(|promised| term < promised);
        if is_below && self.has_votes() && !self.is_dropped(node, link) {
            let text = format!("node {node} promised {promised:?}, and is sent data of {term:?}");
            self.fail("T6", text);
        }
    }
}
