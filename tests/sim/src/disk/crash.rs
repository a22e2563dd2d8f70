//! What a kill, a power cut or a failed flush leaves: drawn, or chosen exactly.

use super::Disk;

impl Disk {
    /// The process was killed: writes under way land wholly, in part or not.
    pub fn kill(&mut self) {
        let order: Vec<u64> = self.in_flight.keys().copied().collect();
        for io in order {
            let Some(work) = self.in_flight.remove(&io) else {
                continue;
            };
            match self.rng.below(3) {
                0 => {}
                1 => self.land(&work),
                _ => self.land_partly(&work),
            }
        }
        self.faults.is_hung = false;
    }

    /// The power failed: as [`Disk::kill`], then every block that was not durable holds any of
    /// its versions.
    pub fn cut_power(&mut self) {
        self.kill();
        self.lose_at_will();
    }

    /// As [`Disk::cut_power`] with the outcome chosen: what is in flight is lost, and bit *i* of
    /// `keep` says whether the *i*-th block that was not durable keeps its newest version.
    pub fn cut_power_exactly(&mut self, keep: u64) {
        self.in_flight.clear();
        self.faults.is_hung = false;
        for (i, (block, versions)) in std::mem::take(&mut self.unsynced).into_iter().enumerate() {
            let keeps = i < 64 && keep >> i & 1 == 1;
            let chosen = if keeps {
                versions.last()
            } else {
                versions.first()
            };
            self.replace(block, chosen.map_or(0, |v| v.tag));
        }
    }

    /// What a power cut now may leave in either of two versions: blocks that writes on their way
    /// would change, then blocks whose newest version is not durable; with the tag that is kept
    /// and the one that is left if it is not, where there is one.
    pub fn open_blocks(&self) -> impl Iterator<Item = (u64, u64, Option<u64>)> + '_ {
        let lands = self.in_flight.values().flat_map(|work| {
            let (changes, _) = self.changes(work);
            changes
                .into_iter()
                .filter(|(block, tag)| self.live.block(*block) != *tag)
                .map(|(block, tag)| (block, tag, None))
        });
        let cached = self.unsynced.iter().map(|(block, versions)| {
            let (first, last) = (versions[0], versions[versions.len() - 1]);
            (*block, last.tag, Some(first.tag))
        });
        lands.chain(cached.filter(|(_, last, first)| Some(*last) != *first))
    }

    /// As [`Disk::cut_power`] with the outcome chosen: bit *i* of `keep` says whether the *i*-th of
    /// the open blocks is kept.
    pub fn cut_power_in_flight(&mut self, keep: u64) {
        let open: Vec<_> = self.open_blocks().collect();
        let keeps = |i: usize| i < 64 && keep >> i & 1 == 1;
        // What the cache loses goes first: what lands is newer than all of it.
        let cached = open
            .iter()
            .enumerate()
            .filter(|(_, (.., old))| old.is_some());
        for (_, (block, _, old)) in cached.filter(|(i, _)| !keeps(*i)) {
            self.replace(*block, old.unwrap_or_default());
        }
        let lands = open
            .iter()
            .enumerate()
            .filter(|(_, (.., old))| old.is_none());
        for (_, (block, tag, _)) in lands.filter(|(i, _)| keeps(*i)) {
            self.replace(*block, *tag);
        }
        self.in_flight.clear();
        self.unsynced.clear();
        self.faults.is_hung = false;
    }

    /// A failed flush: the cache forgets pages at will, and calls the rest clean.
    pub(super) fn lose_at_will(&mut self) {
        for (block, versions) in std::mem::take(&mut self.unsynced) {
            let chosen = versions[self.rng.below(versions.len() as u64) as usize].tag;
            self.replace(block, chosen);
        }
    }
}
