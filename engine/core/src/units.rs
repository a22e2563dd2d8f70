//! Addresses, sizes and sets. Conversions happen once, at the edge, by name.

/// Bytes that share one checksum and one bit of the finest bitmap. A power of two.
pub const GRANULE: u64 = 4096;
/// Bytes that one activity-log extent covers.
pub const AL_EXTENT: u64 = 4 << 20;
/// Granules in one activity-log extent.
pub const GRANULES_PER_AL_EXTENT: u64 = AL_EXTENT / GRANULE;
/// Most bytes of payload one request carries, and most bytes one piece of a trim covers.
pub const PIECE_MAX: u64 = 32 << 20;
/// Most replicas of one volume, and so most bits of a [`NodeSet`].
pub const NODES_MAX: usize = 8;

/// A non-empty run of granules: `start..end`, end exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Extent {
    /// First granule.
    pub start: u64,
    /// One past the last granule.
    pub end: u64,
}

impl Extent {
    /// `start..end`. Panics if empty: an empty run is a bug of the caller.
    pub fn new(start: u64, end: u64) -> Extent {
        assert!(start < end, "extent {start}..{end} is not empty");
        Extent { start, end }
    }

    /// Granules covered.
    pub fn granules(self) -> u64 {
        self.end - self.start
    }

    /// First byte.
    pub fn offset(self) -> u64 {
        self.start * GRANULE
    }

    /// Bytes covered.
    pub fn bytes(self) -> u64 {
        self.granules() * GRANULE
    }

    /// At least one granule in common.
    pub fn overlaps(self, other: Extent) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// The common part, if any.
    pub fn intersect(self, other: Extent) -> Option<Extent> {
        let (start, end) = (self.start.max(other.start), self.end.min(other.end));
        (start < end).then_some(Extent { start, end })
    }

    /// What lies before `other`, and what lies behind it.
    pub fn without(self, other: Extent) -> (Option<Extent>, Option<Extent>) {
        let run = |start, end| (start < end).then_some(Extent { start, end });
        let before = run(self.start, self.end.min(other.start));
        (before, run(self.start.max(other.end), self.end))
    }

    /// Every granule of `other` lies in this.
    pub fn contains(self, other: Extent) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// The activity-log extents touched: first, and one past the last.
    pub fn al_extents(self) -> (u64, u64) {
        (
            self.start / GRANULES_PER_AL_EXTENT,
            (self.end - 1) / GRANULES_PER_AL_EXTENT + 1,
        )
    }
}

/// A range of bytes as clients address it; may be unaligned, never empty once admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub len: u64,
}

impl ByteRange {
    /// The granules touched, rounded outwards. `None` if empty or past `u64`.
    pub fn cover(self) -> Option<Extent> {
        let end = self.offset.checked_add(self.len)?;
        (self.len > 0).then(|| Extent::new(self.offset / GRANULE, end.div_ceil(GRANULE)))
    }

    /// The granules that lie wholly inside, if any.
    pub fn inner(self) -> Option<Extent> {
        let end = self.offset.checked_add(self.len)? / GRANULE;
        let start = self.offset.div_ceil(GRANULE);
        (start < end).then_some(Extent { start, end })
    }

    /// Begins and ends on granule borders.
    pub fn is_aligned(self) -> bool {
        (self.offset | self.len).is_multiple_of(GRANULE)
    }
}

/// Index of a node in the volume's configured list of replicas; the same on every node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeIdx(pub u8);

/// A set of nodes of one volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct NodeSet(pub u8);

impl NodeSet {
    /// Nobody.
    pub const EMPTY: NodeSet = NodeSet(0);

    /// Just `node`.
    pub fn only(node: NodeIdx) -> NodeSet {
        NodeSet(1 << node.0)
    }

    /// The first `count` nodes.
    pub fn first(count: usize) -> NodeSet {
        assert!(count <= NODES_MAX, "{count} nodes are at most {NODES_MAX}");
        NodeSet(((1u16 << count) - 1) as u8)
    }

    /// Is `node` in it?
    pub fn has(self, node: NodeIdx) -> bool {
        self.0 >> node.0 & 1 == 1
    }

    /// With `node`.
    #[must_use]
    pub fn with(self, node: NodeIdx) -> NodeSet {
        NodeSet(self.0 | 1 << node.0)
    }

    /// Without `node`.
    #[must_use]
    pub fn without(self, node: NodeIdx) -> NodeSet {
        NodeSet(self.0 & !(1 << node.0))
    }

    /// Members of both.
    #[must_use]
    pub fn and(self, other: NodeSet) -> NodeSet {
        NodeSet(self.0 & other.0)
    }

    /// Members of either.
    #[must_use]
    pub fn or(self, other: NodeSet) -> NodeSet {
        NodeSet(self.0 | other.0)
    }

    /// Members of this that are not in `other`.
    #[must_use]
    pub fn minus(self, other: NodeSet) -> NodeSet {
        NodeSet(self.0 & !other.0)
    }

    /// Every member of `other` is in this.
    pub fn contains(self, other: NodeSet) -> bool {
        self.0 & other.0 == other.0
    }

    /// Number of members.
    pub fn count(self) -> u32 {
        self.0.count_ones()
    }

    /// Nobody in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Members, lowest first.
    pub fn iter(self) -> impl Iterator<Item = NodeIdx> {
        (0..NODES_MAX as u8)
            .map(NodeIdx)
            .filter(move |n| self.has(*n))
    }
}

impl FromIterator<NodeIdx> for NodeSet {
    fn from_iter<I: IntoIterator<Item = NodeIdx>>(nodes: I) -> NodeSet {
        nodes.into_iter().fold(NodeSet::EMPTY, NodeSet::with)
    }
}

/// A write's place in the total order of one term; dense, starts at 1. 0 means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

/// Number of a reign: `counter << 8 | node index of its author`, so unique to its candidate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub u64);

impl Term {
    /// A term of `author` that is above `seen`, `jump` counters further than it must be.
    ///
    /// The jump is random: a node whose disks were put back to an older state has forgotten terms
    /// it gave to other reigns, and must not give one of them again (F21, law T9).
    pub fn above(seen: Term, author: NodeIdx, jump: u16) -> Term {
        Term(((seen.0 >> 8) + 1 + u64::from(jump)) << 8 | u64::from(author.0))
    }

    /// Who reigns in it.
    pub fn author(self) -> NodeIdx {
        NodeIdx(self.0 as u8)
    }
}

/// A buffer of the shell. The core moves the handle and never looks inside.
///
/// Convention: the buffer of a request that covers bytes `offset..offset+len` starts at the
/// granule border at or below `offset` and spans whole granules, so an unaligned payload lies
/// at its place in the first granule and the gaps are filled by [`crate::action::Job::Merge`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BufId(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unaligned_range_covers_more_than_it_contains() {
        let range = ByteRange {
            offset: 4095,
            len: 4098,
        };
        assert_eq!(range.cover(), Some(Extent::new(0, 3)));
        assert_eq!(range.inner(), Some(Extent::new(1, 2)));
        assert_eq!(
            ByteRange {
                offset: 1,
                len: 4096
            }
            .inner(),
            None
        );
        assert_eq!(
            ByteRange {
                offset: u64::MAX,
                len: 2
            }
            .cover(),
            None
        );
    }

    #[test]
    fn a_term_is_unique_to_its_author_and_grows() {
        let (a, b) = (NodeIdx(0), NodeIdx(1));
        let t1 = Term::above(Term(0), b, 0);
        let t2 = Term::above(t1, a, 0);
        assert!(t2 > t1);
        assert_eq!((t1.author(), t2.author()), (b, a));
        assert_ne!(Term::above(t1, a, 0), Term::above(t1, b, 0));
        assert_ne!(Term::above(t1, a, 1), Term::above(t1, a, u16::MAX));
    }
}
