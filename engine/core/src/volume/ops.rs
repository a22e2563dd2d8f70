//! The operation table: a fixed slab. Everything that holds a range or waits for a disk is one
//! entry; a token names an entry and its generation, so that late answers are recognised.

use crate::activity_log::Held;
use crate::event::{LinkId, ReqId, SessionId, Token};
use crate::message::Zeroing;
use crate::time::Instant;
use crate::units::{BufId, ByteRange, Extent, NodeIdx, NodeSet, Seq, Term};

/// What a token was given out for; its top byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Purpose {
    /// Disk read, write or zero of an operation.
    Disk = 1,
    /// Job of an operation.
    Job = 2,
    /// Disk flush of our own round.
    Round = 3,
    /// Disk flush for a primary.
    MemberFlush = 4,
    /// Disk flush before resync pieces are confirmed.
    ResyncFlush = 5,
    /// Disk flush before stopping clean.
    StopFlush = 6,
    /// Superblock.
    Superblock = 7,
    /// Activity-log page.
    LogPage = 8,
    /// Bitmap page.
    BitmapPage = 9,
    /// Page of the attributes.
    AttributePage = 10,
    /// Page of a mark.
    MarkPage = 11,
    /// Disk flush after a crash, before the log of the earlier process closes.
    RecoveryFlush = 12,
    /// Piece of a salvage.
    Salvage = 13,
    /// Page of checksums, on its way into memory.
    SumsRead = 14,
    /// Page of checksums, on its way to disk.
    SumsPage = 15,
}

const PURPOSES: [Purpose; 15] = [
    Purpose::Disk,
    Purpose::Job,
    Purpose::Round,
    Purpose::MemberFlush,
    Purpose::ResyncFlush,
    Purpose::StopFlush,
    Purpose::Superblock,
    Purpose::LogPage,
    Purpose::BitmapPage,
    Purpose::AttributePage,
    Purpose::MarkPage,
    Purpose::RecoveryFlush,
    Purpose::Salvage,
    Purpose::SumsRead,
    Purpose::SumsPage,
];

/// `purpose: 8 | generation: 24 | index: 32`
pub(super) fn token(purpose: Purpose, generation: u32, index: u32) -> Token {
    Token((purpose as u64) << 56 | u64::from(generation & 0xFF_FFFF) << 32 | u64::from(index))
}

/// The parts of a token; `None` if it is not one of ours.
pub(super) fn parts(token: Token) -> Option<(Purpose, u32, u32)> {
    let purpose = PURPOSES.iter().find(|p| **p as u64 == token.0 >> 56)?;
    Some((*purpose, (token.0 >> 32) as u32 & 0xFF_FFFF, token.0 as u32))
}

/// What an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Free entry.
    Free,
    /// A client reads.
    Read { range: ByteRange, buf: BufId },
    /// A client writes.
    Write { range: ByteRange, buf: BufId },
    /// A client makes zeros. Pieces are made one after the other under one hold.
    Zero {
        range: ByteRange,
        zeroing: Zeroing,
        next: u64,
    },
    /// A client flushes.
    Flush,
    /// A primary writes here.
    MemberData { buf: BufId },
    /// A primary makes zeros here.
    MemberZero { zeroing: Zeroing },
    /// A sync target asks for data of ours.
    Serve { id: u64 },
    /// A primary without a disk reads here.
    ServeRead { id: u64 },
    /// A primary verifies: sums of what lies here.
    ServeSums { id: u64 },
    /// A primary verifies: strong hashes of what lies here.
    ServeHashes { id: u64, each: u32 },
    /// We pull as a sync target: hashes of ours first; an old source wants checksums.
    Pull { id: u64, is_old: bool },
    /// Data or zeros of a pull go to the disk under a hold.
    Store { id: u64, buf: Option<BufId> },
    /// We verify a piece.
    Compare { peer: NodeIdx, id: u64 },
    /// A piece is compared with its stored checksums, which may be taken from it.
    Scrub { is_sweep: bool, adopted: bool },
    /// A run that did not match is fetched from another member and written.
    Repair,
    /// A piece of this copy is read for the salvage of this number.
    Salvage { number: u32 },
}

/// How far an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Behind an overlapping one.
    Ordered,
    /// Its pages of checksums are not all in memory.
    Sums,
    /// A job on its bytes runs.
    Job,
    /// Its extents are not all in the log yet, or the log is full.
    Log,
    /// A read's bytes are there; waits for the lease.
    Lease,
    /// Warm; waits for credit, a record or the seq window.
    Dispatch,
    /// Legs are out.
    Out,
}

/// One operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operation {
    pub generation: u32,
    pub kind: Kind,
    pub phase: Phase,
    pub session: SessionId,
    pub req: ReqId,
    /// The range held.
    pub extent: Extent,
    /// The piece under way.
    pub piece: Extent,
    /// Buffer of the piece, if it writes bytes; `owned` if we must release it.
    pub piece_buf: Option<BufId>,
    pub piece_buf_owned: bool,
    pub fua: bool,
    /// The client has its answer; legs may still be out.
    pub answered: bool,
    /// It has it before its legs decided anything: the majority was lost, and nobody waits. All of S
    /// must confirm it still, or S change, before anything takes it for equal everywhere.
    pub is_given_up: bool,
    pub aborted: bool,
    pub held: Held,
    /// Granules whose pages of checksums it holds in memory.
    pub pinned: Option<Extent>,
    /// How often bytes around it did not match and were repaired for it; of a repair, how many before
    /// it failed.
    pub attempts: u8,
    /// A repair: the request that waits for its bytes, under whose hold it runs.
    pub waiter: Option<u32>,
    /// A repair that holds its range while it asks.
    pub held_range: bool,
    pub seq: Seq,
    /// Term a primary stamped it with.
    pub term: Term,
    /// Nodes whose answer is still awaited, confirmed, failed.
    pub pending: NodeSet,
    pub confirmed: NodeSet,
    pub failed: NodeSet,
    /// A required member said its disk is full (and not worse).
    pub no_space: bool,
    /// Connection of a member operation, or of a remote read.
    pub link: LinkId,
    pub since: Instant,
    /// When it was admitted.
    pub arrived: Instant,
    next_free: u32,
}

const NONE: u32 = u32::MAX;

/// The table, and the window of seqs in flight.
pub(super) struct Ops {
    entries: Vec<Operation>,
    free: u32,
    clients: usize,
    clients_max: usize,
    /// Ring: which entry carries a seq, while it is in flight and after until stable.
    window: Vec<Flight>,
    /// Something besides plain requests happened or waits; `settle` looks around.
    pub attention: bool,
}

/// One seq of the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Flight {
    seq: Seq,
    entry: u32,
    confirmed: bool,
}

impl Ops {
    pub fn new(slots: usize, clients_max: usize, window: usize) -> Ops {
        let free = |index: usize| Operation {
            generation: 0,
            kind: Kind::Free,
            phase: Phase::Ordered,
            session: SessionId(0),
            req: ReqId(0),
            extent: Extent { start: 0, end: 1 },
            piece: Extent { start: 0, end: 1 },
            piece_buf: None,
            piece_buf_owned: false,
            fua: false,
            answered: false,
            is_given_up: false,
            aborted: false,
            held: Held::NONE,
            pinned: None,
            attempts: 0,
            waiter: None,
            held_range: false,
            seq: Seq(0),
            term: Term(0),
            pending: NodeSet::EMPTY,
            confirmed: NodeSet::EMPTY,
            failed: NodeSet::EMPTY,
            no_space: false,
            link: LinkId(0),
            since: Instant(0),
            arrived: Instant(0),
            next_free: if index + 1 == slots {
                NONE
            } else {
                index as u32 + 1
            },
        };
        Ops {
            entries: (0..slots).map(free).collect(),
            free: 0,
            clients: 0,
            clients_max,
            window: vec![
                Flight {
                    seq: Seq(0),
                    entry: NONE,
                    confirmed: false
                };
                window.next_power_of_two()
            ],
            attention: true,
        }
    }

    #[inline]
    pub fn client_room(&self) -> usize {
        self.clients_max - self.clients
    }

    /// A fresh entry, or `None` if the table is full.
    pub fn take(&mut self, kind: Kind, extent: Extent, now: Instant) -> Option<u32> {
        let slot = self.free;
        if slot == NONE {
            return None;
        }
        let entry = &mut self.entries[slot as usize];
        self.free = entry.next_free;
        entry.kind = kind;
        entry.phase = Phase::Ordered;
        entry.session = SessionId(0);
        entry.extent = extent;
        entry.piece = extent;
        entry.piece_buf = None;
        entry.piece_buf_owned = false;
        entry.fua = false;
        entry.answered = false;
        entry.is_given_up = false;
        entry.aborted = false;
        entry.held = Held::NONE;
        entry.pinned = None;
        entry.attempts = 0;
        entry.waiter = None;
        entry.held_range = false;
        entry.seq = Seq(0);
        entry.pending = NodeSet::EMPTY;
        entry.confirmed = NodeSet::EMPTY;
        entry.failed = NodeSet::EMPTY;
        entry.no_space = false;
        (entry.since, entry.arrived) = (now, now);
        Some(slot)
    }

    /// A fresh entry for a client's request.
    pub fn take_client(
        &mut self,
        kind: Kind,
        extent: Extent,
        session: SessionId,
        req: ReqId,
        now: Instant,
    ) -> Option<u32> {
        if self.clients == self.clients_max {
            return None;
        }
        let slot = self.take(kind, extent, now)?;
        self.clients += 1;
        let entry = &mut self.entries[slot as usize];
        (entry.session, entry.req) = (session, req);
        Some(slot)
    }

    /// Ends an entry; its generation moves on, so that late answers miss it.
    pub fn free(&mut self, slot: u32) {
        let entry = &mut self.entries[slot as usize];
        assert!(entry.kind != Kind::Free, "entry {slot} is in use");
        if entry.is_client() {
            self.clients -= 1;
        }
        entry.kind = Kind::Free;
        entry.generation = (entry.generation + 1) & 0xFF_FFFF;
        entry.next_free = self.free;
        self.free = slot;
    }

    #[inline]
    pub fn get(&self, slot: u32) -> &Operation {
        &self.entries[slot as usize]
    }

    #[inline]
    pub fn get_mut(&mut self, slot: u32) -> &mut Operation {
        &mut self.entries[slot as usize]
    }

    /// The entry a token of this generation names, if it still is.
    #[inline]
    pub fn find(&self, generation: u32, slot: u32) -> Option<&Operation> {
        let entry = self.entries.get(slot as usize)?;
        (entry.generation == generation && entry.kind != Kind::Free).then_some(entry)
    }

    pub fn token(&self, purpose: Purpose, slot: u32) -> Token {
        token(purpose, self.entries[slot as usize].generation, slot)
    }

    /// All entries in use, lowest first.
    pub fn each(&self) -> impl Iterator<Item = (u32, &Operation)> {
        let used = |(_, e): &(usize, &Operation)| e.kind != Kind::Free;
        self.entries
            .iter()
            .enumerate()
            .filter(used)
            .map(|(i, e)| (i as u32, e))
    }

    /// Slots of the table: for loops that change entries while they go.
    pub fn slots(&self) -> std::ops::Range<u32> {
        0..self.entries.len() as u32
    }

    /// Most seqs between the newest and the oldest that is not stable.
    pub fn window_len(&self) -> usize {
        self.window.len()
    }

    /// A seq may be given out now without running over one that is not stable yet.
    pub fn has_window(&self, next: Seq, stable: Seq) -> bool {
        next.0 - stable.0 < self.window.len() as u64
    }

    pub fn fly(&mut self, seq: Seq, entry: u32) {
        let at = seq.0 as usize & (self.window.len() - 1);
        self.window[at] = Flight {
            seq,
            entry,
            confirmed: false,
        };
    }

    /// The entry that carries `seq`, if it is in flight.
    pub fn by_seq(&self, seq: Seq) -> Option<u32> {
        let flight = self.window[seq.0 as usize & (self.window.len() - 1)];
        (flight.seq == seq && flight.entry != NONE).then_some(flight.entry)
    }

    /// All of S confirmed `seq` (or it is over).
    pub fn confirm(&mut self, seq: Seq) {
        let at = seq.0 as usize & (self.window.len() - 1);
        if self.window[at].seq == seq {
            self.window[at].confirmed = true;
        }
    }

    /// The entry of `seq` ends.
    pub fn land(&mut self, seq: Seq) {
        let at = seq.0 as usize & (self.window.len() - 1);
        if self.window[at].seq == seq {
            self.window[at].entry = NONE;
            self.window[at].confirmed = true;
        }
    }

    /// All of S confirmed `seq`, or it is over, and the window still remembers it.
    pub fn is_confirmed(&self, seq: Seq) -> bool {
        let flight = &self.window[seq.0 as usize & (self.window.len() - 1)];
        flight.seq == seq && flight.confirmed
    }
}

impl Operation {
    /// A request of a client.
    #[inline]
    pub fn is_client(&self) -> bool {
        matches!(
            self.kind,
            Kind::Read { .. } | Kind::Write { .. } | Kind::Zero { .. } | Kind::Flush
        )
    }

    /// Its legs have decided nothing yet.
    #[inline]
    pub fn is_undecided(&self) -> bool {
        !self.answered || self.is_given_up
    }

    /// Changes data on behalf of a client.
    #[inline]
    pub fn is_mutation(&self) -> bool {
        matches!(self.kind, Kind::Write { .. } | Kind::Zero { .. })
    }
}
