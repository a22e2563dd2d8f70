//! The size of the volume (laws B13, M2): what was answered stays, what a crash cut short is the old
//! size or the new one, and the backing is never shorter.

use engine_core::action::CommandError;

use crate::engine::Found;
use crate::world::World;

/// What is known of the size, in granules.
#[derive(Debug)]
pub(super) struct Sizes {
    /// The newest that was answered, or that a process began with.
    known: u64,
    /// Sizes asked for and not answered: a crash may leave any of them. Until the next process has
    /// written a superblock of its own: what is left of a torn one may become whole by a torn
    /// second one in its place.
    asked: Vec<u64>,
}

impl Sizes {
    pub fn new(granules: u64) -> Sizes {
        Sizes {
            known: granules,
            asked: Vec::new(),
        }
    }
}

impl World {
    /// Granules that the volume has for sure.
    pub fn granules(&self) -> u64 {
        self.laws.sizes.known
    }

    /// Granules that it may have.
    pub fn granules_at_most(&self) -> u64 {
        let sizes = &self.laws.sizes;
        sizes.asked.iter().fold(sizes.known, |a, b| a.max(*b))
    }

    /// Granules that a node's metadata says the volume has.
    pub fn granules_on(&self, node: usize) -> u64 {
        self.peek(node).map_or(0, |f| f.granules)
    }

    /// The core is about to be told to grow.
    pub fn growth_asked(&mut self, size: u64) {
        self.laws.sizes.asked.push(size);
        let new = self.granules()..size;
        self.changes_by_growth(new, false);
    }

    /// It answered.
    pub fn growth_answered(&mut self, node: usize, size: u64, result: Result<(), &CommandError>) {
        let sizes = &mut self.laws.sizes;
        match result {
            // Whether it was committed is seen at the next start.
            Err(CommandError::MetaFailed) => return self.count("growths unanswered"),
            Err(_) => self.count("growths refused"),
            Ok(()) => {
                sizes.known = size;
                self.count("growths");
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

    /// A process begins with the size it found.
    pub(super) fn size_is_known(&mut self, node: usize) {
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
        if !self.operator.is_growing() {
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
        let is_fine = after.granules == sizes.known || sizes.asked.contains(&after.granules);
        let disk = self.nodes[node].disk.granules();
        if !is_fine || after.granules > disk || before.is_some_and(|b| b > after.granules) {
            let text = format!(
                "node {node} has {} granules after {before:?}: {} were answered, {:?} asked for; \
                 its disk has {disk}",
                after.granules, sizes.known, sizes.asked
            );
            return self.fail("B13", text);
        }
        if let Some(before) = before.filter(|b| *b < after.granules) {
            self.changes_by_growth(before..after.granules, true);
        }
    }

    /// Why a growth must be refused now: the core's answer is compared with it.
    pub fn is_rightly_refused(&self, size: u64, why: &CommandError) -> bool {
        let known = self.granules();
        match why {
            CommandError::GrowsAlone => !self.is_alone(),
            CommandError::WouldShrink { size: now } => size < known && *now == known,
            CommandError::NothingToDo => size == known,
            CommandError::NoRoomToGrow { max } => {
                size > *max && *max >= 4 * self.plan.settings.granules
            }
            CommandError::NotPrimary => self.primaries().is_empty(),
            CommandError::InProgress => {
                self.operator.is_setting_marks() || !self.laws.sizes.asked.is_empty()
            }
            CommandError::MetaFailed => self.nodes.iter().any(|n| n.meta.has_failed),
            _ => false,
        }
    }
}
