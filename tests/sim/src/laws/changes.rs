//! Marks of changed blocks (laws K1 to K3). What a client was told is changed must be found, at
//! every member of S, now and after a crash; what nobody touched must not, while nothing failed.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use engine_core::bitmap::BITS_PER_PAGE;
use engine_core::marks::MarkName;
use engine_core::message::Disk;
use engine_core::units::NodeIdx;

use crate::disk::BLOCKS_PER_GRANULE;
use crate::world::World;

/// What is known of a mark.
#[derive(Clone, Debug, Default)]
struct Known {
    /// Which asking made it.
    asked: u64,
    /// Its creation was answered.
    is_made: bool,
    /// Hot granules of writes that were answered since.
    must: BTreeSet<u64>,
    /// Hot granules of writes that were asked and not answered before it was asked, or since.
    may: BTreeSet<u64>,
    /// A process or a link was lost since: it may say more.
    is_vague: bool,
}

/// Marks by the number of their name.
#[derive(Debug, Default)]
pub(super) struct Changes {
    marks: BTreeMap<u64, Known>,
    askings: u64,
}

impl Changes {
    fn made(&self) -> impl Iterator<Item = (MarkName, &Known)> {
        let made = self.marks.iter().filter(|(_, known)| known.is_made);
        made.map(|(number, known)| (mark_name(*number), known))
    }
}

/// Name of a mark by its number in a plan.
pub fn mark_name(number: u64) -> MarkName {
    let name = format!("m{number}").parse();
    name.expect("a letter and digits are a name")
}

fn granules(blocks: &[u64]) -> impl Iterator<Item = u64> + '_ {
    blocks.iter().map(|block| block / BLOCKS_PER_GRANULE)
}

impl World {
    /// A mark is about to be asked for: answers how often one was.
    pub fn mark_asked(&mut self, name: u64) -> u64 {
        self.laws.changes.askings += 1;
        let asked = self.laws.changes.askings;
        if self.laws.changes.marks.contains_key(&name) {
            return asked;
        }
        let waiting: Vec<_> = self
            .clients
            .waiting()
            .map(|(_, r)| r.blocks.clone())
            .collect();
        let mut known = Known {
            asked,
            ..Known::default()
        };
        for blocks in waiting {
            known.may.extend(granules(&self.hot_blocks(&blocks)));
        }
        self.laws.changes.marks.insert(name, known);
        asked
    }

    /// The core answered.
    pub fn mark_created(&mut self, name: u64, asked: u64, is_ok: bool) {
        self.count(match is_ok {
            true => "marks created",
            false => "marks refused",
        });
        let known = self.laws.changes.marks.get_mut(&name);
        match known.filter(|k| k.asked == asked) {
            Some(known) if is_ok => known.is_made = true,
            // It may or may not be there.
            Some(_) => self.mark_ends(name),
            None => {}
        }
    }

    /// Nothing more is promised of it.
    pub fn mark_ends(&mut self, name: u64) {
        self.laws.changes.marks.remove(&name);
    }

    /// A client asks for a change.
    pub fn change_asked(&mut self, blocks: &[u64]) {
        for known in self.laws.changes.marks.values_mut() {
            known.may.extend(granules(blocks));
        }
    }

    /// A client was told of a change.
    pub fn change_answered(&mut self, blocks: &[u64]) {
        self.change_committed(&granules(blocks).collect());
    }

    /// The volume may be larger by these granules, or is from now on: all of them changed.
    pub(super) fn changes_by_growth(&mut self, new: Range<u64>, is_committed: bool) {
        let hot = self.hot();
        let is_new = |g: &u64| new.contains(g);
        let mut changed: BTreeSet<u64> = hot.iter().copied().filter(is_new).collect();
        for known in self.laws.changes.marks.values_mut() {
            known.may.extend(&changed);
        }
        if is_committed && !new.is_empty() {
            let pages = new.start.div_ceil(BITS_PER_PAGE)..new.end.div_ceil(BITS_PER_PAGE);
            let borders = pages.map(|page| page * BITS_PER_PAGE);
            changed.extend(
                borders
                    .flat_map(|b| [b.saturating_sub(1), b])
                    .filter(is_new),
            );
            changed.extend([new.start, new.end - 1]);
            self.change_committed(&changed);
        }
    }

    fn change_committed(&mut self, granules: &BTreeSet<u64>) {
        let made = self.laws.changes.marks.values_mut().filter(|k| k.is_made);
        for known in made {
            known.must.extend(granules);
        }
    }

    /// A process ended, a link, or a time apart.
    pub fn marks_get_vague(&mut self) {
        for known in self.laws.changes.marks.values_mut() {
            known.is_vague = true;
        }
    }

    /// Nobody will be answered any more by the process that ended.
    pub fn marks_asked_in_vain(&mut self) {
        self.laws.changes.marks.retain(|_, k| k.is_made);
    }

    /// K1: at every member of S a mark says at least what was answered since it was made. K2: and
    /// nothing that nobody asked for, while nothing failed. K3: K1 as a crash would find it.
    pub fn law_marks_say_enough(&mut self) {
        if !self.clients.is_judging() || self.operator.was_forced || self.operator.was_bold {
            self.laws.changes.marks.clear();
        }
        let Some(record) = self.newest_record() else {
            return;
        };
        let in_sync = record.in_sync.iter().map(|n| usize::from(n.0));
        let members: Vec<usize> = in_sync
            .filter(|n| !self.nodes[*n].is_condemned && !self.nodes[*n].is_rolled_back)
            .filter(|n| !self.nodes[*n].is_gone)
            .collect();
        let knows = |n: &usize| {
            self.peek(*n).is_some_and(|f| {
                let itself = NodeIdx(*n as u8);
                f.disk == Disk::UpToDate && f.record.is_some_and(|r| r.in_sync.has(itself))
            })
        };
        let members: Vec<usize> = members.into_iter().filter(knows).collect();
        let hot = self.hot();
        let mut broken = None;
        for node in members {
            for (name, known) in self.laws.changes.made() {
                let engine = self.nodes[node].engine.as_ref();
                let now = |g: u64| engine.map(|e| e.mark_has(name, g));
                let later = |g: u64| self.peek(node).map(|f| f.mark_has(name, g));
                for granule in known.must.iter().copied() {
                    match (now(granule), later(granule)) {
                        (Some(None), _) => broken = Some(("K1", node, name, granule, "lost")),
                        (Some(Some(false)), _) => {
                            broken = Some(("K1", node, name, granule, "silent about"));
                        }
                        (_, Some(None)) => {
                            broken = Some(("K3", node, name, granule, "after a crash lost, as"));
                        }
                        (_, Some(Some(false))) => {
                            broken =
                                Some(("K3", node, name, granule, "after a crash silent about"));
                        }
                        _ => {}
                    }
                }
                if known.is_vague {
                    continue;
                }
                for granule in hot.iter().filter(|g| !known.may.contains(g)) {
                    if now(*granule) == Some(Some(true)) {
                        broken = Some(("K2", node, name, *granule, "wrong about"));
                    }
                }
            }
        }
        let checked = self.laws.changes.made().any(|(_, k)| !k.must.is_empty());
        if checked {
            self.count("marks compared");
        }
        if let Some((law, node, name, granule, what)) = broken {
            let text = format!("mark {name} of node {node} is {what} granule {granule}");
            self.fail(law, text);
        }
    }
}
