//! Marks: what changed since a point, on this copy.
//!
//! ```text
//!  write given out ─► bit in memory ─► page durable ─► its activity-log extent may close
//!  create: arm here ─► table to all of S ┬► durable on all of S ┐
//!                                        └► what was in progress at the arming has ended ─► answer
//!  joining: table and pages from the source ─► durable here ─► S may take us in
//! ```
//!
//! Here: what a mark is, and which of them a table makes of this copy's. `commands.rs` creates and
//! deletes, `pages.rs` writes their pages and tells targets what they say.
//!
//! A mark says too much where it cannot know, never too little. `docs/design/0005-marks.md` tells
//! why each step is enough.

use crate::bitmap::Bitmap;
use crate::event::CommandId;
use crate::marks::{MARKS_KEY, MARKS_MAX, MarkEntry, MarkName, decode_marks, encode_marks};
use crate::meta::{Attributes, Loaded, MarkRegion, PageWriter};
use crate::units::Extent;

use super::Volume;
use super::attributes::put;

mod commands;
mod pages;

/// Pages written at once.
const WRITES_MAX: usize = 8;

/// One mark of this copy.
struct Mark {
    entry: MarkEntry,
    /// Not looked at where all of it counts as changed.
    bits: Bitmap,
    /// Not in the table any more: kept until the table that says so, of this version, is durable.
    dying: Option<u64>,
}

/// Why a page is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    /// An activity-log extent wants to close.
    Log,
    /// Everything that was stale when the sweep began.
    Sweep,
    /// A source told it, and waits.
    Told,
}

/// Where a new table comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// A change under a session that knows the rest: what is new begins now.
    Change,
    /// A whole table, told to a member: a mark it does not know may be older.
    Table,
    /// A whole table, told to a sync target: pages follow.
    Joining,
}

/// All marks of this copy.
pub(super) struct Marks {
    /// Where pages lie; `None`: this metadata has no room for marks.
    pub region: Option<MarkRegion>,
    marks: Vec<Mark>,
    /// Where the pages of each slot go next, once it was used.
    writers: [Option<PageWriter>; MARKS_MAX],
    in_flight: Vec<(u8, usize, Why)>,
    wanted: Vec<(u8, usize)>,
    told: Vec<(u8, usize)>,
    /// A pass over all pages: the next slot and page.
    sweep: Option<(u8, usize)>,
    setting: Option<Setting>,
}

/// A create or delete under way.
struct Setting {
    command: CommandId,
    /// The mark that is not shown before it is durable on all of S.
    created: Option<u128>,
    /// Table and superblock that carry it.
    versions: (u64, u64),
    /// Operations in progress at the arming: entry and generation.
    before: Vec<(u32, u32)>,
    /// The turn in which the last of them ended: their answers leave before ours.
    ended: u64,
    /// Without a log what was stored before must be durable: by which round, once it is asked for.
    round: Option<Option<u64>>,
}

/// A mark as people and front ends see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkStatus {
    /// Its name.
    pub name: MarkName,
    /// Another for every creation.
    pub id: u128,
    /// Milliseconds since 1970.
    pub created_ms: u64,
    /// Granules that changed since, or count so.
    pub dirty_granules: u64,
    /// What changed is not known: all of it counts.
    pub is_whole: bool,
}

impl Mark {
    fn is_listed(&self) -> bool {
        self.dying.is_none()
    }
}

impl Marks {
    pub fn new(loaded: &mut Loaded) -> Marks {
        let mut writers: [Option<PageWriter>; MARKS_MAX] = Default::default();
        let mut marks = Vec::with_capacity(MARKS_MAX);
        for mark in std::mem::take(&mut loaded.marks) {
            writers[usize::from(mark.entry.slot)] = Some(mark.writer);
            marks.push(Mark {
                entry: mark.entry,
                bits: mark.bitmap,
                dying: None,
            });
        }
        Marks {
            region: loaded.mark_region,
            marks,
            writers,
            in_flight: Vec::with_capacity(WRITES_MAX),
            wanted: Vec::new(),
            told: Vec::new(),
            sweep: None,
            setting: None,
        }
    }

    /// The largest volume they have room for; `None`: there are none, and never will be.
    pub fn size_max(&self) -> Option<u64> {
        self.region.map(|region| region.size_granules_max())
    }

    /// The volume is about to grow: what is new counts as changed in every mark. Every page that
    /// differs from disk is written.
    pub fn grow(&mut self, old: u64, size_granules: u64, superblock_counter: u64) {
        let Some(region) = &mut self.region else {
            return;
        };
        region.grow(size_granules);
        for writer in self.writers.iter_mut().flatten() {
            region.grow_writer(writer, superblock_counter);
        }
        for mark in &mut self.marks {
            // A growth that was given up may have gone further.
            let size = size_granules.max(mark.bits.size_granules());
            mark.bits.grow(size);
            // A mark made since is as large as that one, and knows nothing of its space.
            mark.bits.set(Extent::new(old, size_granules));
        }
        self.sweep();
    }

    /// There is no mark to keep.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// A write is given out.
    #[inline]
    pub fn set(&mut self, extent: Extent) {
        for mark in &mut self.marks {
            if !mark.entry.is_whole {
                mark.bits.set(extent);
            }
        }
    }

    fn of_slot(&self, slot: u8) -> Option<&Mark> {
        self.marks.iter().find(|m| m.entry.slot == slot)
    }

    fn is_stale(&self, slot: u8, page: usize) -> bool {
        self.of_slot(slot)
            .is_some_and(|m| !m.entry.is_whole && m.bits.page_is_dirty(page))
    }

    fn is_in_flight(&self, slot: u8, page: usize) -> bool {
        self.in_flight
            .iter()
            .any(|(s, p, _)| (*s, *p) == (slot, page))
    }

    /// Are the bits of this extent on disk? Wants up to `room` pages written if not.
    pub fn is_durable(&mut self, extent: Extent, room: &mut usize) -> bool {
        let mut is_durable = true;
        for index in 0..self.marks.len() {
            let mark = &self.marks[index];
            if mark.entry.is_whole {
                continue;
            }
            let slot = mark.entry.slot;
            let is_fresh = mark.bits.is_fresh(extent);
            for page in mark.bits.pages_of(extent) {
                let is_under_way = self.is_in_flight(slot, page);
                is_durable &= !is_fresh && !is_under_way;
                let is_wanted = is_fresh && !is_under_way && self.is_stale(slot, page);
                if is_wanted && *room > 0 && !self.wanted.contains(&(slot, page)) {
                    self.wanted.push((slot, page));
                    *room -= 1;
                }
            }
        }
        is_durable
    }

    /// Begins to write every page that differs from disk.
    pub fn sweep(&mut self) {
        if !self.marks.is_empty() {
            self.sweep = Some((0, 0));
        }
    }

    /// What differed from disk when the last sweep began is durable.
    pub fn is_swept(&self) -> bool {
        self.sweep.is_none() && self.in_flight.iter().all(|(.., why)| *why != Why::Sweep)
    }

    /// What a source told is durable.
    pub fn has_stored_told(&self) -> bool {
        self.told.is_empty() && self.in_flight.iter().all(|(.., why)| *why != Why::Told)
    }

    /// Whoever told pages is gone.
    pub fn forget_told(&mut self) {
        self.told.clear();
    }

    /// The next page to write now, and why.
    fn next_page(&mut self) -> Option<(u8, usize, Why)> {
        if let Some(at) = self
            .told
            .iter()
            .position(|(s, p)| !self.is_in_flight(*s, *p))
        {
            let (slot, page) = self.told.swap_remove(at);
            // Also where a write since wrote it already: the source waits for this one's end.
            if self.is_stale(slot, page) {
                return Some((slot, page, Why::Told));
            }
            return self.next_page();
        }
        while let Some((slot, page)) = self.wanted.pop() {
            if self.is_stale(slot, page) && !self.is_in_flight(slot, page) {
                return Some((slot, page, Why::Log));
            }
        }
        while let Some((slot, from)) = self.sweep {
            let mark = self.of_slot(slot).filter(|m| !m.entry.is_whole);
            match mark.and_then(|m| m.bits.next_dirty_page(from)) {
                // A write of it is under way: what was said since goes with the next one.
                Some(page) if self.is_in_flight(slot, page) => {
                    self.sweep = Some((slot, page));
                    return None;
                }
                Some(page) => {
                    self.sweep = Some((slot, page + 1));
                    return Some((slot, page, Why::Sweep));
                }
                None if usize::from(slot) + 1 < MARKS_MAX => self.sweep = Some((slot + 1, 0)),
                None => self.sweep = None,
            }
        }
        None
    }

    /// The table as it stands, for the attribute.
    fn table(&self) -> Vec<u8> {
        let listed = self.marks.iter().filter(|m| m.is_listed());
        let entries: Vec<MarkEntry> = listed.map(|m| m.entry).collect();
        encode_marks(&entries)
    }

    fn is_shown(&self, mark: &Mark) -> bool {
        let created = self.setting.as_ref().and_then(|s| s.created);
        mark.is_listed() && created != Some(mark.entry.id)
    }

    fn find(&self, name: MarkName) -> Option<&Mark> {
        self.marks
            .iter()
            .find(|m| m.entry.name == name && m.is_listed())
    }

    fn arm(&mut self, entry: MarkEntry) {
        let Some(region) = self.region else { return };
        self.marks.retain(|m| m.entry.slot != entry.slot);
        let (bits, fresh) = region.fresh(entry.slot);
        self.writers[usize::from(entry.slot)].get_or_insert(fresh);
        let dying = None;
        self.marks.push(Mark { entry, bits, dying });
    }

    /// A create or delete is under way.
    pub fn is_setting(&self) -> bool {
        self.setting.is_some()
    }
}

impl Volume {
    /// The marks, as the primary answers for them. Elsewhere: as they stand here.
    pub fn marks(&self) -> Vec<MarkStatus> {
        let shown = self.marks.marks.iter().filter(|m| self.marks.is_shown(m));
        let mut marks: Vec<MarkStatus> = shown
            .map(|mark| MarkStatus {
                name: mark.entry.name,
                id: mark.entry.id,
                created_ms: mark.entry.created_ms,
                dirty_granules: match mark.entry.is_whole {
                    true => self.size,
                    // More, while the volume grows.
                    false => mark.bits.count_granules().min(self.size),
                },
                is_whole: mark.entry.is_whole,
            })
            .collect();
        marks.sort_by_key(|m| (m.created_ms, m.name));
        marks
    }

    /// The run of a mark that begins at granule `within.start`, cut at `within.end`: whether all
    /// of it changed since, or counts so. `None` if there is no such mark, or it is not served here.
    pub fn mark_run(&self, name: MarkName, within: Extent) -> Option<super::Run> {
        let mark = self.marks.find(name).filter(|m| self.marks.is_shown(m))?;
        if !self.role.is_serving() {
            return None;
        }
        if mark.entry.is_whole {
            let (end, is_set) = (within.end, true);
            return Some(super::Run { end, is_set });
        }
        let nearest = |from: u64| {
            let max = within.end.saturating_sub(from).max(1);
            mark.bits.next_run(from, max)
        };
        Some(super::extents::run_at(within, nearest))
    }

    /// Attach: extents that were open may have changed since their page was written.
    pub(super) fn recover_marks(&mut self, extents: &[Extent]) {
        extents.iter().for_each(|extent| self.marks.set(*extent));
        self.marks.sweep();
    }

    /// A log is kept: other replicas need it, or marks do, or checksums.
    #[inline]
    pub(super) fn keeps_log(&self) -> bool {
        self.is_mirrored() || !self.marks.is_empty() || self.has_checksums()
    }

    /// Takes the marks a table lists; answers it as it holds here. `None`: it lists no marks of a
    /// kind we know, or speaks of more room than there is.
    pub(super) fn adopt_marks(
        &mut self,
        mut table: Attributes,
        source: Source,
    ) -> Option<Attributes> {
        let entries = decode_marks(table.get(MARKS_KEY).map_or(&[][..], |v| v))?;
        let next_version = self.attributes.newest_version() + 1;
        for mark in &mut self.marks.marks {
            if !entries.iter().any(|e| e.id == mark.entry.id) && mark.dying.is_none() {
                mark.dying = Some(next_version);
            }
        }
        for entry in entries {
            let known = self.marks.marks.iter_mut().find(|m| m.entry.id == entry.id);
            let keeps = |m: &Mark| m.entry.slot == entry.slot;
            match known.filter(|m| keeps(m)) {
                // The source knows better than we do what we lack.
                Some(mark) if source == Source::Joining && mark.entry.is_whole => {
                    self.marks.arm(entry);
                }
                Some(mark) => {
                    mark.entry.is_whole |= entry.is_whole;
                    mark.dying = None;
                }
                None => {
                    self.marks.marks.retain(|m| m.entry.id != entry.id);
                    let is_whole = entry.is_whole || source == Source::Table;
                    self.marks.arm(MarkEntry { is_whole, ..entry });
                }
            }
        }
        put(&mut table, MARKS_KEY, self.marks.table());
        Some(table)
    }

    /// The table on disk lists no mark that died before: nothing is kept for it any more.
    pub(super) fn marks_table_durable(&mut self) {
        let attributes = &self.attributes;
        self.marks.marks.retain(|m| {
            m.dying
                .is_none_or(|version| !attributes.is_durable(version))
        });
    }

    /// Content may go back to what it was: no mark knows what changed.
    pub(super) fn distrust_marks(&mut self) {
        if self.marks.is_empty() {
            return;
        }
        for mark in &mut self.marks.marks {
            mark.entry.is_whole = true;
        }
        put(&mut self.attributes.table, MARKS_KEY, self.marks.table());
        self.attributes_changed();
    }
    /// All bits of this mark, for checkers: granules of `extent` that count as changed.
    #[cfg(feature = "inspect")]
    pub fn mark_has(&self, name: MarkName, granule: u64) -> Option<bool> {
        let mark = self.marks.find(name).filter(|m| self.marks.is_shown(m))?;
        let at = Extent::new(granule, granule + 1);
        Some(mark.entry.is_whole || mark.bits.any(at))
    }
}
