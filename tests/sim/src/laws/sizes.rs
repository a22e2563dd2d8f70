//! The size of the volume (laws B13, M2): what was answered stays, what a crash cut short is the old
//! size or the new one, and the backing is never shorter. In a mirror all of S has what was answered,
//! and whoever is promoted serves it.

use std::collections::BTreeSet;

use engine_core::action::CommandError;

use crate::engine::Found;
use crate::world::World;

/// What is known of the size, in granules.
#[derive(Debug)]
pub(super) struct Sizes {
    /// The newest that was answered, or that a process began with.
    known: u64,
    /// Sizes asked for and not answered: a crash may leave any of them. Of a volume with one replica
    /// until the next process has written a superblock of its own: what is left of a torn one may
    /// become whole by a torn second one in its place.
    asked: Vec<u64>,
    /// In a mirror: all it ever had or may have been about to have. A replica that was away has an
    /// older one.
    ever: BTreeSet<u64>,
}

impl Sizes {
    pub fn new(granules: u64) -> Sizes {
        Sizes {
            known: granules,
            asked: Vec::new(),
            ever: BTreeSet::from([granules]),
        }
    }
}

impl World {
    /// Granules that the volume has for sure.
    pub fn granules(&self) -> u64 {
        self.laws.sizes.known
    }

    /// Granules that clients of this node may ask for. Who was followed and does not know it yet
    /// tells them the size that it had: a growth in the reign after it is none of theirs.
    pub fn granules_told_by(&self, node: usize) -> u64 {
        let serves = self.nodes[node].engine.as_ref();
        match serves.filter(|_| self.was_followed(node)) {
            Some(engine) => engine.served_granules().min(self.granules()),
            None => self.granules(),
        }
    }

    /// Granules that it may have.
    pub fn granules_at_most(&self) -> u64 {
        let sizes = &self.laws.sizes;
        let most = sizes.asked.iter().fold(sizes.known, |a, b| a.max(*b));
        match self.is_alone() {
            true => most,
            false => sizes.ever.iter().fold(most, |a, b| a.max(*b)),
        }
    }

    /// Granules that a node's metadata says the volume has.
    pub fn granules_on(&self, node: usize) -> u64 {
        self.peek(node).map_or(0, |f| f.granules)
    }

    /// The core is about to be told to grow.
    pub fn growth_asked(&mut self, size: u64) {
        self.laws.sizes.asked.push(size);
        self.laws.sizes.ever.insert(size);
        let new = self.granules()..size;
        self.changes_by_growth(new, false);
    }

    /// It answered.
    pub fn growth_answered(&mut self, node: usize, size: u64, result: Result<(), &CommandError>) {
        match result {
            // Whether it was committed is seen at the next start.
            Err(CommandError::MetaFailed) => return self.count("growths unanswered"),
            Err(_) => self.count("growths refused"),
            Ok(()) => {
                self.count("growths");
                if self.is_alone() {
                    self.laws.sizes.known = size;
                } else {
                    self.has_grown(node, size);
                    self.law_all_of_s_has_grown(node, size);
                }
            }
        }
        let asked = &mut self.laws.sizes.asked;
        if let Some(at) = asked.iter().position(|s| *s == size) {
            asked.remove(at);
        }
        self.refresh(node);
        let found = self.granules_on(node);
        if result.is_ok() && found != size {
            let text = format!("node {node} says it grew to {size}, and a crash finds {found}");
            self.fail("B13", text);
        }
    }

    /// In a mirror: a node serves so much from now on.
    pub(super) fn has_grown(&mut self, node: usize, size: u64) {
        self.count("replicas grown");
        if self.primaries().contains(&node) {
            self.size_is_served(size);
        }
    }

    /// Clients of a mirror may use so much from now on.
    pub(super) fn size_is_served(&mut self, size: u64) {
        let known = self.laws.sizes.known;
        // Of two histories after a bold promotion either may be kept, with its size.
        if self.is_alone() || size <= known || self.operator.was_bold {
            return;
        }
        self.laws.sizes.known = size;
        self.changes_by_growth(known..size, true);
    }

    /// What was answered all of S has, durably.
    fn law_all_of_s_has_grown(&mut self, node: usize, size: u64) {
        let record = self.nodes[node].engine.as_ref().and_then(|e| e.record());
        let Some(record) = record else { return };
        for member in self.all() {
            self.refresh(member);
            let is_member = record.in_sync.0 >> member & 1 == 1;
            let is_there = self.is_alive(member) && !self.nodes[member].is_rolled_back;
            let has = self.granules_on(member);
            if is_member && is_there && has < size {
                let text =
                    format!("{size} granules were answered, and node {member} of S has {has}");
                return self.fail("B13", text);
            }
        }
    }

    /// Whoever serves next serves what was answered before.
    pub(super) fn law_promotion_keeps_the_size(&mut self, node: usize) {
        let Some(engine) = &self.nodes[node].engine else {
            return;
        };
        let (serves, known) = (engine.served_granules(), self.laws.sizes.known);
        if self.is_alone() || serves >= known {
            // What it grew to before it led anybody is in use from here on: a mark that is made
            // later knows nothing of it.
            return self.size_is_served(serves);
        }
        // Who lost the last copy founds the volume anew.
        let is_lost = !self.clients.is_judging();
        if self.operator.was_bold || self.operator.forced(node) || is_lost {
            self.laws.sizes.known = serves;
            return;
        }
        let text = format!("node {node} is promoted with {serves} granules: {known} were answered");
        self.fail("B13", text);
    }

    /// A process begins with the size it found.
    pub(super) fn size_is_known(&mut self, node: usize) {
        if !self.is_alone() {
            return;
        }
        let found = self.granules_on(node);
        if !self.laws.sizes.asked.is_empty() {
            self.count(match found > self.granules() {
                true => "growths that a crash let through",
                false => "growths that a crash undid",
            });
        }
        self.laws.sizes.known = found;
    }

    /// It serves: what was asked of the one before will not come true any more.
    pub(super) fn size_is_settled(&mut self) {
        if self.is_alone() && !self.operator.is_growing() {
            self.laws.sizes.asked.clear();
        }
    }

    /// B13: a size is one that was asked for, never less than the one answered; and the new part
    /// counts as changed from the commit on (law K1).
    pub(super) fn law_size_is_old_or_new(
        &mut self,
        node: usize,
        before: Option<u64>,
        after: &Found,
    ) {
        let sizes = &self.laws.sizes;
        let is_fine = match self.is_alone() {
            true => after.granules == sizes.known || sizes.asked.contains(&after.granules),
            false => sizes.ever.contains(&after.granules),
        };
        // A witness has none.
        let disk = match self.is_witness(node) {
            true => after.granules,
            false => self.nodes[node].disk.granules(),
        };
        if !is_fine || after.granules > disk || before.is_some_and(|b| b > after.granules) {
            let text = format!(
                "node {node} has {} granules after {before:?}: {} were answered, {:?} asked for; \
                 its disk has {disk}",
                after.granules, sizes.known, sizes.asked
            );
            return self.fail("B13", text);
        }
        let before = before.filter(|b| *b < after.granules && self.is_alone());
        if let Some(before) = before {
            self.changes_by_growth(before..after.granules, true);
        }
    }

    /// Why a growth must be refused now: the core's answer is compared with it.
    pub fn is_rightly_refused(&self, node: usize, size: u64, why: &CommandError) -> bool {
        let (known, has) = (self.granules(), self.granules_on(node));
        let is_alone = self.is_alone();
        match why {
            CommandError::WouldShrink { size: now } => size < *now && *now >= known,
            CommandError::NothingToDo => size == has && size >= known,
            CommandError::NoRoomToGrow { max } => {
                size > *max && *max >= 4 * self.plan.settings.granules
            }
            CommandError::NotPrimary | CommandError::PrimaryElsewhere(_) => {
                !self.primaries().contains(&node)
            }
            CommandError::InProgress if is_alone => {
                self.operator.is_setting_marks() || !self.laws.sizes.asked.is_empty()
            }
            CommandError::InProgress => {
                self.operator.is_setting_marks() || self.laws.sizes.ever.len() > 1
            }
            CommandError::MetaFailed => self.nodes.iter().any(|n| n.meta.has_failed),
            _ => false,
        }
    }
}
