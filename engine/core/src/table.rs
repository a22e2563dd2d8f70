//! The table of a volume's nodes: index ─► name, kind, and whether it comes or goes
//! (docs/design/0008-members.md).
//!
//! ```text
//!            every voter and all of S           a record            the record in force
//!            have it durably                    may name it         names it no more
//!  (free) ─► Coming ─────────────► Member ─► Leaving ─────────────────────────► Gone ─► (Coming)
//! ```
//!
//! Sets of nodes, terms and votes speak of indexes. Version 0 is what the file says, replicas first,
//! and is stored nowhere; each later version is a change of one entry.
//!
//! ```text
//!  bytes  0: version u32 | 4: zero, 4 | 8: term u64 | 16: entries, 8 × { kind u8, length u8, name }
//!  kind   0: never used | 1: replica | 2: witness;   + 16: coming | + 32: leaving | + 48: gone
//! ```

use crate::meta::Attributes;
use crate::units::{NODES_MAX, NodeIdx, NodeSet, Term};

/// Bytes of a node's name.
pub const NODE_NAME_MAX: usize = 255;
/// Bytes of a table at most.
pub const TABLE_BYTES_MAX: usize = ENTRIES_AT + NODES_MAX * (2 + NODE_NAME_MAX);
/// The attribute that holds it.
pub const TABLE_KEY: &str = "nodes";
/// Witnesses of a volume at most.
pub const WITNESSES_MAX: usize = 2;
/// Replicas of a volume at most.
pub const REPLICAS_MAX: usize = 5;

const ENTRIES_AT: usize = 16;

/// What a node does for the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NodeKind {
    /// Holds data, and votes.
    Replica,
    /// Votes.
    Witness,
}

/// How far an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// No record may name it yet.
    Coming,
    /// Part of the volume.
    Member,
    /// Its vote is being taken away.
    Leaving,
    /// No record names it any more; the index may be used again.
    Gone,
}

/// One index and whom it stands for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Name of the node, 1 to 255 bytes.
    pub name: String,
    /// What it does.
    pub kind: NodeKind,
    /// How far it is.
    pub stage: Stage,
}

impl Entry {
    /// It belongs to the volume, comes, or goes.
    pub fn is_live(&self) -> bool {
        self.stage != Stage::Gone
    }
}

/// The nodes of a volume by index.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Table {
    version: u32,
    /// Of the reign that made this version.
    term: Term,
    entries: [Option<Entry>; NODES_MAX],
}

/// Bytes that are no table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("these bytes are no table of nodes")]
pub struct NoTable;

impl Table {
    /// What a file says: nodes with data first, `replicas` of them, then witnesses. Panics on more
    /// than 8 names.
    pub fn of_file(names: &[String], replicas: usize) -> Table {
        assert!(names.len() <= NODES_MAX, "{} nodes", names.len());
        let entry = |(index, name): (usize, &String)| Entry {
            name: name.clone(),
            kind: match index < replicas {
                true => NodeKind::Replica,
                false => NodeKind::Witness,
            },
            stage: Stage::Member,
        };
        let mut entries: [Option<Entry>; NODES_MAX] = Default::default();
        for (place, found) in entries.iter_mut().zip(names.iter().enumerate().map(entry)) {
            *place = Some(found);
        }
        Table {
            version: 0,
            term: Term(0),
            entries,
        }
    }

    /// The one among these attributes; `None` where the volume goes by its files. Errors: what stands in
    /// its place is none.
    pub fn stored(attributes: &Attributes) -> Result<Option<Table>, NoTable> {
        let bytes = attributes.get(TABLE_KEY);
        bytes.map(|bytes| Table::decode(bytes)).transpose()
    }

    /// Changes since the volume was founded; 0: it is what the file says.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// A later version: more changes, or as many of a later reign.
    pub fn is_newer_than(&self, other: &Table) -> bool {
        (self.version, self.term) > (other.version, other.term)
    }

    /// Whom this index stands for, or stood for.
    pub fn entry(&self, node: NodeIdx) -> Option<&Entry> {
        self.entries.get(usize::from(node.0))?.as_ref()
    }

    /// Every index that was ever used, lowest first.
    pub fn entries(&self) -> impl Iterator<Item = (NodeIdx, &Entry)> {
        let all = self.entries.iter().zip(0u8..);
        all.filter_map(|(entry, index)| Some((NodeIdx(index), entry.as_ref()?)))
    }

    /// Index of a node that is not gone.
    pub fn index_of(&self, name: &str) -> Option<NodeIdx> {
        let mut live = self.entries().filter(|(_, entry)| entry.is_live());
        live.find(|(_, entry)| entry.name == name).map(|(i, _)| i)
    }

    /// Index of a node that is part of the volume, or else was.
    pub fn index_by_name(&self, name: &str) -> Option<NodeIdx> {
        let mut all = self.entries();
        let was = || all.find(|(_, e)| e.name == name).map(|(index, _)| index);
        self.index_of(name).or_else(was)
    }

    /// Nodes of this kind that are not gone, lowest index first.
    pub fn live(&self, kind: NodeKind) -> impl Iterator<Item = (NodeIdx, &Entry)> {
        let is_it = move |entry: &Entry| entry.is_live() && entry.kind == kind;
        self.entries().filter(move |(_, entry)| is_it(entry))
    }

    /// Names by index, for people; empty where nobody ever was.
    pub fn names(&self) -> Vec<String> {
        let last = self.entries.iter().rposition(Option::is_some);
        let used = &self.entries[..last.map_or(0, |last| last + 1)];
        let name = |entry: &Option<Entry>| entry.as_ref().map_or("", |e| &e.name).to_owned();
        used.iter().map(name).collect()
    }

    /// Nodes at one of these stages.
    pub fn at(&self, stages: &[Stage]) -> NodeSet {
        let found = self.entries().filter(|(_, e)| stages.contains(&e.stage));
        found.map(|(index, _)| index).collect()
    }

    /// Nodes that records may name.
    pub fn members(&self) -> NodeSet {
        self.at(&[Stage::Member, Stage::Leaving])
    }

    /// Those of them that hold data.
    pub fn replicas(&self) -> NodeSet {
        self.members().and(self.accounted())
    }

    /// Replicas that are not gone: whoever holds data keeps account of what they lack.
    pub fn accounted(&self) -> NodeSet {
        self.live(NodeKind::Replica)
            .map(|(index, _)| index)
            .collect()
    }

    /// The next version: `node` is at this stage. Panics if the index was never used.
    #[must_use]
    pub fn with_stage(&self, term: Term, node: NodeIdx, stage: Stage) -> Table {
        let mut next = self.next(term);
        let entry = next.entries[usize::from(node.0)].as_mut();
        entry.expect("a stage follows another").stage = stage;
        next
    }

    /// The next version: this node comes. `None` if no index is free.
    pub fn with_newcomer(&self, term: Term, name: &str, kind: NodeKind) -> Option<Table> {
        let gone = |named: bool| {
            let mut entries = self.entries();
            let is_it = |e: &Entry| !e.is_live() && (!named || e.name == name);
            entries.find(|(_, e)| is_it(e)).map(|(index, _)| index)
        };
        let unused = || {
            let at = self.entries.iter().position(Option::is_none)?;
            Some(NodeIdx(at as u8)).filter(|node| *node != crate::register::REGISTER)
        };
        let node = gone(true).or_else(unused).or_else(|| gone(false))?;
        let mut next = self.next(term);
        next.entries[usize::from(node.0)] = Some(Entry {
            name: name.to_owned(),
            kind,
            stage: Stage::Coming,
        });
        Some(next)
    }

    fn next(&self, term: Term) -> Table {
        Table {
            version: self.version + 1,
            term,
            entries: self.entries.clone(),
        }
    }

    /// 24 bits that tell this table from others; of nodes that ask a register, from those that vote.
    pub fn digest(&self, has_register: bool) -> u32 {
        let mut digest = crc32fast::Hasher::new();
        match self.version {
            // As versions that know of no table make it of their files.
            0 => self.entries().for_each(|(_, entry)| {
                digest.update(entry.name.as_bytes());
                digest.update(&[0]);
            }),
            _ => digest.update(&self.encode()),
        }
        if has_register {
            // No node is called so: who votes means nothing to who asks a register.
            digest.update(b"\0register");
        }
        digest.finalize() & 0xFF_FFFF
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.version.to_le_bytes().to_vec();
        bytes.extend([0; 4]);
        bytes.extend(self.term.0.to_le_bytes());
        for entry in &self.entries {
            let Some(Entry { name, kind, stage }) = entry else {
                bytes.extend([0, 0]);
                continue;
            };
            let kind = match kind {
                NodeKind::Replica => 1,
                NodeKind::Witness => 2,
            };
            let stage = match stage {
                Stage::Member => 0,
                Stage::Coming => 16,
                Stage::Leaving => 32,
                Stage::Gone => 48,
            };
            bytes.extend([kind + stage, name.len() as u8]);
            bytes.extend(name.as_bytes());
        }
        bytes
    }

    /// Reads [`Table::encode`]. Errors: these bytes are none, or of version 0, which is never
    /// stored or said.
    pub fn decode(bytes: &[u8]) -> Result<Table, NoTable> {
        let (head, mut rest) = bytes.split_first_chunk::<ENTRIES_AT>().ok_or(NoTable)?;
        let version = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        let term = head[8..]
            .iter()
            .rev()
            .fold(0, |t, b| t << 8 | u64::from(*b));
        if version == 0 || version == u32::MAX || head[4..8] != [0; 4] {
            return Err(NoTable);
        }
        let mut entries: [Option<Entry>; NODES_MAX] = Default::default();
        for place in &mut entries {
            let ([kind, len], tail) = rest.split_first_chunk::<2>().ok_or(NoTable)?;
            let (name, tail) = tail.split_at_checked(usize::from(*len)).ok_or(NoTable)?;
            rest = tail;
            *place = entry_of(*kind, name)?;
        }
        let table = Table {
            version,
            term: Term(term),
            entries,
        };
        let live: Vec<&str> = table
            .entries()
            .filter(|(_, e)| e.is_live())
            .map(|(_, e)| e.name.as_str())
            .collect();
        let is_twice = |name: &&str| live.iter().filter(|n| n == &name).count() > 1;
        match rest.is_empty() && !live.iter().any(is_twice) {
            true => Ok(table),
            false => Err(NoTable),
        }
    }
}

fn entry_of(kind: u8, name: &[u8]) -> Result<Option<Entry>, NoTable> {
    let stage = match kind >> 4 {
        0 if kind == 0 && name.is_empty() => return Ok(None),
        0 => Stage::Member,
        1 => Stage::Coming,
        2 => Stage::Leaving,
        3 => Stage::Gone,
        _ => return Err(NoTable),
    };
    let kind = match kind & 15 {
        1 => NodeKind::Replica,
        2 => NodeKind::Witness,
        _ => return Err(NoTable),
    };
    let name = str::from_utf8(name).map_err(|_| NoTable)?;
    match name.is_empty() {
        true => Err(NoTable),
        false => Ok(Some(Entry {
            name: name.to_owned(),
            kind,
            stage,
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(replicas: usize, witnesses: usize) -> Table {
        let names: Vec<String> = (0..replicas + witnesses).map(|i| format!("n{i}")).collect();
        Table::of_file(&names, replicas)
    }

    #[test]
    fn a_table_survives_its_bytes() {
        let came = file(2, 1)
            .with_newcomer(Term(9), "late", NodeKind::Witness)
            .unwrap();
        let gone = came.with_stage(Term(10), NodeIdx(2), Stage::Gone);
        for table in [came, gone] {
            assert_eq!(Table::decode(&table.encode()), Ok(table));
        }
    }

    #[test]
    fn what_is_no_table_is_refused() {
        let good = file(2, 1)
            .with_newcomer(Term(9), "n3", NodeKind::Witness)
            .unwrap()
            .encode();
        for len in 0..good.len() {
            assert_eq!(Table::decode(&good[..len]), Err(NoTable), "{len} bytes");
        }
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            Table::decode(&bytes)
        };
        assert_eq!(with(0, 0), Err(NoTable), "version 0 is never stored");
        assert_eq!(with(4, 1), Err(NoTable));
        assert_eq!(with(16, 3), Err(NoTable), "no such kind");
        assert_eq!(with(16, 65), Err(NoTable), "no such stage");
        assert_eq!(with(18, 0xFF), Err(NoTable), "not UTF-8");
        assert_eq!(with(19, b'1'), Err(NoTable), "one name, two indexes");
        let longer = [&good[..], &[0]].concat();
        assert_eq!(Table::decode(&longer), Err(NoTable));
    }

    #[test]
    fn an_index_is_kept_for_its_name_and_else_taken_last() {
        let table = file(2, 2).with_stage(Term(5), NodeIdx(2), Stage::Gone);
        let again = table
            .with_newcomer(Term(5), "n2", NodeKind::Witness)
            .unwrap();
        assert_eq!(again.index_of("n2"), Some(NodeIdx(2)));
        let other = table
            .with_newcomer(Term(5), "n9", NodeKind::Witness)
            .unwrap();
        assert_eq!(other.index_of("n9"), Some(NodeIdx(4)));
        assert_eq!(other.index_of("n2"), None);
        let full = file(5, 2).with_stage(Term(5), NodeIdx(6), Stage::Gone);
        let taken = full
            .with_newcomer(Term(5), "n9", NodeKind::Witness)
            .unwrap();
        assert_eq!(
            taken.index_of("n9"),
            Some(NodeIdx(6)),
            "the register's is never taken"
        );
        assert_eq!(
            file(5, 2).with_newcomer(Term(5), "n9", NodeKind::Witness),
            None
        );
    }

    #[test]
    fn a_later_reign_s_change_is_newer_than_as_many_of_an_earlier_one() {
        let table = file(2, 1);
        let early = table
            .with_newcomer(Term(5), "a", NodeKind::Witness)
            .unwrap();
        let late = table
            .with_newcomer(Term(6), "b", NodeKind::Witness)
            .unwrap();
        assert!(late.is_newer_than(&early) && early.is_newer_than(&table));
        let next = early.with_stage(Term(5), NodeIdx(3), Stage::Member);
        assert!(next.is_newer_than(&late));
    }

    #[test]
    fn only_members_are_named_by_records() {
        let table = file(2, 1)
            .with_newcomer(Term(5), "late", NodeKind::Witness)
            .unwrap();
        assert_eq!(table.members(), NodeSet::first(3));
        let member = table.with_stage(Term(5), NodeIdx(3), Stage::Member);
        assert_eq!(member.members(), NodeSet::first(4));
        let leaving = member.with_stage(Term(5), NodeIdx(2), Stage::Leaving);
        assert_eq!(leaving.members(), NodeSet::first(4));
        let gone = leaving.with_stage(Term(5), NodeIdx(2), Stage::Gone);
        assert_eq!(gone.members(), NodeSet::first(4).without(NodeIdx(2)));
        assert_eq!(gone.replicas(), NodeSet::first(2));
    }
}
