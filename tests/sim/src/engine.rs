//! The one place that knows the core's own interface.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::rc::Rc;

use engine_core::action::{Action, CommandError, META_BLOCK, MetaBlock};
use engine_core::bitmap::{Bitmap, grain_for};
use engine_core::checksums::{self, Table as Sums};
use engine_core::event::Event;
use engine_core::generation::Chain;
use engine_core::marks::MarkName;
use engine_core::message::{Disk, Life};
use engine_core::meta::{
    self, Backing, BackingKind, Checksums, Expect, Loaded, Params, Peek, SumRegion,
};
use engine_core::quorum::{Quorum, QuorumLoss};
use engine_core::record::Record;
use engine_core::session::Session;
use engine_core::table::Table;
use engine_core::time::Instant;
use engine_core::units::{Extent, GRANULE, GRANULES_PER_AL_EXTENT, NODES_MAX, NodeIdx, Term};
use engine_core::verdict::Policy;
use engine_core::volume::{ChecksumStatus, PeerStatus, RoleStatus, Setup, Status, Volume};

use crate::disk::BLOCKS_PER_GRANULE;
use crate::world::{LEASE, MEMBER_TIMEOUT};

#[cfg(feature = "planted")]
pub use engine_core::planted::Bug;

/// Without the feature `planted` there is no fault to plant.
#[cfg(not(feature = "planted"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {}

/// What one node's replica is.
#[derive(Clone, Debug)]
pub struct NodeSpec {
    /// Index.
    pub node: u8,
    /// Nodes with data.
    pub replicas: usize,
    /// Nodes that only vote, by its file.
    pub witnesses: usize,
    /// Who chooses records.
    pub quorum: Quorum,
    /// What becomes of requests while nobody can choose.
    pub on_quorum_loss: QuorumLoss,
    /// Size it is made with.
    pub granules: u64,
    /// Granules of its disk.
    pub disk_granules: u64,
    /// Slots of the activity log.
    pub log_slots: u32,
    /// Pages of checksums in memory; 0: none are stored.
    pub sum_pages: usize,
    /// Client requests at once.
    pub requests_max: usize,
    /// Durable instead of written.
    pub is_durable_policy: bool,
    /// Peers read for clients from this many outstanding reads on.
    pub read_margin: Option<u32>,
    /// In a split brain a copy in which nothing was written gives way by itself.
    pub discards_unchanged: bool,
    /// The disk forgets unflushed writes in a power cut.
    pub has_volatile_cache: bool,
    /// Boot of the machine.
    pub boot_id: u128,
    /// Life of the replica, for a format.
    pub incarnation: u128,
    /// Randomness for the process.
    pub entropy: u128,
}

impl NodeSpec {
    fn backing(&self) -> Backing {
        Backing {
            kind: BackingKind::File,
            identity: [7; 32],
            size: self.disk_granules * GRANULE,
        }
    }

    fn names(&self) -> Vec<String> {
        (0..self.replicas + self.witnesses)
            .map(|i| format!("node-{i}"))
            .collect()
    }

    fn expect(&self, size_granules: u64) -> Expect {
        Expect {
            volume: "vm-store".into(),
            slice: 0,
            node: format!("node-{}", self.node),
            self_node: NodeIdx(self.node),
            node_count: self.replicas as u8,
            nodes_digest: 11,
            size_granules,
            granule_bytes: GRANULE as u32,
            backing: self.backing(),
        }
    }
}

/// Writes a replica accepts from a primary at once.
pub const PEER_REQUESTS_MAX: usize = 64;

/// A fresh replica's metadata, block by block.
pub fn format(spec: &NodeSpec) -> impl Iterator<Item = (u64, Box<MetaBlock>)> + use<> {
    let params = Params {
        volume: "vm-store".into(),
        slice: 0,
        incarnation: spec.incarnation,
        self_node: NodeIdx(spec.node),
        node_count: spec.replicas as u8,
        nodes_digest: 11,
        size_granules: spec.granules,
        size_granules_max: 4 * spec.granules,
        grain: grain_for(spec.granules),
        activity_log_slots: spec.log_slots,
        boot_id: spec.boot_id,
        backing: spec.backing(),
        checksums: match spec.sum_pages {
            0 => Checksums::Off,
            // Adopted data is told from fresh: of that nothing is known.
            _ => Checksums::On {
                is_zeroed: spec.incarnation & 1 == 0,
            },
        },
    };
    meta::format(&params).expect("the parameters of a run are in range")
}

/// What a volume was grown to counts, whatever it was made with.
fn size_on(spec: &NodeSpec, area: &[u8]) -> u64 {
    let (head, rest) = area.split_at_checked(META_BLOCK).unwrap_or_default();
    let slots = head.first_chunk().zip(rest.first_chunk());
    match slots.map(|(a, b)| meta::peek(a, b)) {
        Some(Peek::Ours(found)) => found.size_granules,
        _ => spec.granules,
    }
}

fn load(spec: &NodeSpec, area: &[u8]) -> Result<Loaded, String> {
    let expect = spec.expect(size_on(spec, area));
    let mut loaded = meta::load(area, &expect).map_err(|e| format!("{e}: {e:?}"))?;
    load_marks(&mut loaded, area);
    Ok(loaded)
}

fn load_marks(loaded: &mut Loaded, area: &[u8]) {
    let read = |block: u64, bytes: &mut [u8]| -> Result<(), Infallible> {
        let from = (block as usize * META_BLOCK).min(area.len());
        let there = bytes.len().min(area.len() - from);
        bytes[..there].copy_from_slice(&area[from..from + there]);
        bytes[there..].fill(0);
        Ok(())
    };
    let Ok(()) = meta::load_marks(loaded, read);
}

type Dirty = Rc<[(usize, Bitmap)]>;
type Marks = Rc<[(MarkName, bool, Bitmap)]>;
type Open = Rc<[(u64, u64)]>;

/// A block of the area, zeros behind its end.
pub fn block_of(area: &[u8], block: u64) -> Box<MetaBlock> {
    let at = (block as usize * META_BLOCK).min(area.len());
    let there = META_BLOCK.min(area.len() - at);
    let mut bytes = Box::new([0; META_BLOCK]);
    bytes[..there].copy_from_slice(&area[at..at + there]);
    bytes
}

/// What an attach would find on a metadata area.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Size of the volume.
    pub granules: u64,
    /// Newest record.
    pub record: Option<Record>,
    /// Newest record it voted for.
    pub voted: Option<Record>,
    /// Highest term it promised.
    pub promised: Term,
    /// History.
    pub chain: Chain,
    /// State of the copy.
    pub disk: Disk,
    /// Founded, and as which volume.
    pub volume_id: u128,
    /// Detached in order.
    pub is_clean: bool,
    /// Boot that wrote it.
    pub boot_id: u128,
    /// What others know this replica by.
    pub incarnation: u128,
    /// Its life, as formatted.
    pub format: u128,
    /// Newest run of its process.
    pub life: Life,
    /// Newest run of each other that it met.
    pub known_lives: [Life; NODES_MAX],
    /// How often its history was given up.
    pub given_up: u32,
    /// The branch it was given up for, while it waits for a record of that.
    pub follows: u128,
    /// Lives of the others it marked for; who comes with another lacks everything.
    pub known: [u128; NODES_MAX],
    /// Its table of nodes; `None`: what its file says.
    pub table: Option<Rc<Table>>,
    dirty: Dirty,
    marks: Marks,
    open: Open,
    sum_region: Option<SumRegion>,
}

impl Found {
    /// The checksum that `area` holds for a granule; `None` where none is known.
    pub fn stored_value(&self, area: &[u8], granule: u64, zeros: u64) -> Option<u64> {
        let region = self.sum_region?;
        let page = granule / checksums::VALUES_PER_PAGE as u64;
        let block = region.block(page);
        let (a, b) = (block_of(area, block), block_of(area, block + 1));
        let found = meta::judge_sums(&a, &b, block, region.incarnation());
        let of_zeros = checksums::value(zeros, granule, region.incarnation());
        let value = match found.values {
            Some(values) => values[(granule % checksums::VALUES_PER_PAGE as u64) as usize],
            None if found.is_lost => 0,
            None => {
                let is_zeroed = region.zeroed().is_some_and(|z| granule < z.end);
                if is_zeroed { of_zeros } else { 0 }
            }
        };
        (value != 0).then_some(value)
    }

    /// The checksum that a granule of these contents has here.
    pub fn value_of(&self, crc: u64, granule: u64) -> u64 {
        let life = self.sum_region.map_or(0, |r| r.incarnation());
        checksums::value(crc, granule, life)
    }

    /// The granule is marked as lacking at `peer`. Who has no bitmap lacks everything: an attach
    /// begins one so.
    pub fn is_dirty(&self, peer: usize, granule: u64) -> bool {
        let at = Extent::new(granule, granule + 1);
        let mut bitmaps = self.dirty.iter();
        let bits = bitmaps.find(|(p, _)| *p == peer);
        bits.is_none_or(|(_, bits)| bits.any(at))
    }

    /// The granule lies in an open activity-log extent.
    pub fn is_open(&self, granule: u64) -> bool {
        let extent = granule / GRANULES_PER_AL_EXTENT;
        self.open
            .iter()
            .any(|(start, count)| (*start..start + count).contains(&extent))
    }

    /// The granule counts as changed since this mark, or will after the recovery; `None`: no such
    /// mark.
    pub fn mark_has(&self, name: MarkName, granule: u64) -> Option<bool> {
        let at = Extent::new(granule, granule + 1);
        let (_, is_whole, bits) = self.marks.iter().find(|(n, ..)| *n == name)?;
        Some(*is_whole || bits.any(at) || self.is_open(granule))
    }

    /// An extent of the activity log is open.
    pub fn has_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Nothing is marked and nothing is open.
    pub fn is_settled(&self) -> bool {
        self.open.is_empty() && self.dirty.iter().all(|(_, bits)| bits.is_empty())
    }
}

impl Found {
    fn of(loaded: &Loaded) -> Found {
        Found::with(
            loaded,
            table_of(loaded),
            dirty_of(loaded),
            marks_of(loaded),
            open_of(loaded),
        )
    }

    fn with(
        loaded: &Loaded,
        table: Option<Rc<Table>>,
        dirty: Dirty,
        marks: Marks,
        open: Open,
    ) -> Found {
        let superblock = &loaded.superblock;
        Found {
            granules: superblock.size_granules,
            record: superblock.record,
            voted: superblock.voted,
            promised: superblock.promised,
            chain: superblock.chain.clone(),
            disk: superblock.disk,
            volume_id: superblock.volume_id,
            is_clean: superblock.clean,
            boot_id: superblock.boot_id,
            incarnation: superblock.identity(),
            format: superblock.incarnation,
            life: superblock.life,
            known_lives: superblock.known_lives,
            given_up: superblock.given_up,
            follows: superblock.follows,
            known: superblock.known,
            table,
            dirty,
            marks,
            open,
            sum_region: loaded.sum_region,
        }
    }
}

fn table_of(loaded: &Loaded) -> Option<Rc<Table>> {
    let found = Table::stored(&loaded.attributes.attributes);
    found.ok().flatten().map(Rc::new)
}

fn dirty_of(loaded: &Loaded) -> Dirty {
    let bitmaps = loaded.bitmaps.iter();
    bitmaps
        .map(|b| (usize::from(b.peer.0), b.bitmap.clone()))
        .collect()
}

fn marks_of(loaded: &Loaded) -> Marks {
    let marks = loaded.marks.iter();
    marks
        .map(|m| (m.entry.name, m.entry.is_whole, m.bitmap.clone()))
        .collect()
}

fn open_of(loaded: &Loaded) -> Open {
    let slots = loaded.activity_log.iter().flatten();
    slots
        .filter(|slot| slot.count > 0)
        .map(|slot| (u64::from(slot.start), u64::from(slot.count)))
        .collect()
}

/// Reads a metadata area as an attach would.
pub fn recover(spec: &NodeSpec, area: &[u8]) -> Result<Found, String> {
    load(spec, area).map(|loaded| Found::of(&loaded))
}

/// What was read of an area, so that the next look need not read all of it.
pub struct Reading {
    loaded: Loaded,
    found: Found,
}

/// As [`recover`], of an area that `last` was read from and of which these blocks changed since.
pub fn recover_again(
    spec: &NodeSpec,
    area: &[u8],
    changed: &BTreeSet<u64>,
    last: &mut Option<Reading>,
) -> Result<Found, String> {
    let Some(mut reading) = last.take() else {
        let loaded = load(spec, area)?;
        let found = Found::of(&loaded);
        *last = Some(Reading {
            loaded,
            found: found.clone(),
        });
        return Ok(found);
    };
    let loaded = &mut reading.loaded;
    let expect = spec.expect(size_on(spec, area));
    let reread = meta::reload(loaded, area, &expect, changed).map_err(|e| format!("{e}: {e:?}"))?;
    if reread.marks {
        load_marks(loaded, area);
    }
    let before = &reading.found;
    let dirty = match reread.bitmaps {
        true => dirty_of(loaded),
        false => Rc::clone(&before.dirty),
    };
    let marks = match reread.marks {
        true => marks_of(loaded),
        false => Rc::clone(&before.marks),
    };
    let open = match reread.log {
        true => open_of(loaded),
        false => Rc::clone(&before.open),
    };
    let table = match reread.marks {
        true => table_of(loaded),
        false => before.table.clone(),
    };
    let found = Found::with(loaded, table, dirty, marks, open);
    reading.found = found.clone();
    *last = Some(reading);
    Ok(found)
}

/// A running core.
pub struct Engine {
    volume: Volume,
    sum_region: Option<SumRegion>,
    sum_pages: usize,
    /// What it says of itself, asked for at most once per event.
    status: OnceCell<Status>,
}

impl Engine {
    /// Attaches to what the metadata says.
    pub fn attach(spec: &NodeSpec, area: &[u8], bug: Option<Bug>) -> Result<Engine, String> {
        let loaded = load(spec, area)?;
        #[cfg(not(feature = "planted"))]
        let _ = bug;
        let setup = Setup {
            node: NodeIdx(spec.node),
            table: Table::of_file(&spec.names(), spec.replicas),
            quorum: spec.quorum,
            lease: LEASE,
            auto_promote: true,
            on_quorum_loss: spec.on_quorum_loss,
            cluster: "office".into(),
            volume: "vm-store".into(),
            config_digest: 5,
            config_digest_unnamed: 9,
            policy: if spec.is_durable_policy {
                Policy::Durable
            } else {
                Policy::Written
            },
            read_margin: spec.read_margin,
            min_copies: 1,
            discards_unchanged: spec.discards_unchanged,
            resync_rate: 0,
            member_timeout: MEMBER_TIMEOUT,
            has_volatile_cache: spec.has_volatile_cache,
            is_memory: false,
            boot_id: spec.boot_id,
            entropy: spec.entropy,
            requests_max: spec.requests_max,
            peer_requests_max: PEER_REQUESTS_MAX,
            peer_bytes_max: 64 << 20,
            sum_pages: spec.sum_pages,
            #[cfg(feature = "planted")]
            bug,
        };
        Ok(Engine {
            sum_region: loaded.sum_region,
            sum_pages: spec.sum_pages,
            volume: Volume::attach(setup, loaded),
            status: OnceCell::new(),
        })
    }

    /// Room for the checksums of this process, if some are stored.
    pub fn sums_table(&self) -> Option<Sums> {
        let region = self.sum_region?;
        let zeros = crate::shell::sums(&[0; BLOCKS_PER_GRANULE as usize])[0];
        let (life, zeroed) = (region.incarnation(), region.zeroed());
        Some(Sums::new(self.sum_pages, life, zeros, zeroed))
    }

    /// The life that every page of checksums carries.
    pub fn sums_life(&self) -> u128 {
        self.sum_region.map_or(0, |r| r.incarnation())
    }

    /// Stored checksums, as it says.
    pub fn checksums(&self) -> Option<ChecksumStatus> {
        self.status().checksums
    }

    fn status(&self) -> &Status {
        self.status.get_or_init(|| self.volume.status())
    }

    /// One event.
    pub fn handle(&mut self, now: Instant, event: Event, out: &mut Vec<Action>) {
        self.status.take();
        self.volume.handle(now, event, out);
    }

    /// When a tick is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.volume.next_deadline()
    }

    /// Whether the volume may grow to so many granules now.
    pub fn may_grow(&self, size: u64) -> Result<(), CommandError> {
        self.volume.may_grow(size)
    }

    /// Granules that clients may use, if it serves.
    pub fn served_granules(&self) -> u64 {
        self.volume.served_granules()
    }

    /// Who belongs to the volume, as it knows.
    pub fn table(&self) -> &Table {
        self.volume.table()
    }

    /// A node comes or goes.
    pub fn is_changing_nodes(&self) -> bool {
        self.volume.is_changing_nodes()
    }

    /// Its metadata could not be written.
    pub fn has_meta_failed(&self) -> bool {
        self.status().has_meta_failed
    }

    /// Serves clients.
    pub fn is_primary(&self) -> bool {
        matches!(self.status().role, RoleStatus::Primary)
    }

    /// Neither serves nor is on its way to serve or to stop.
    pub fn is_secondary(&self) -> bool {
        matches!(
            self.status().role,
            RoleStatus::Secondary | RoleStatus::Stopped
        )
    }

    /// Nobody else can have been chosen.
    pub fn holds_lease(&self) -> bool {
        self.status().votes.is_some_and(|votes| votes.holds_lease)
    }

    /// Until when it counts on that.
    pub fn lease_until(&self) -> u64 {
        self.volume.lease_until().0
    }

    /// State of the copy.
    pub fn disk(&self) -> Disk {
        self.status().disk
    }

    /// History of the data.
    pub fn chain(&self) -> Chain {
        self.status().chain.clone()
    }

    /// The record it acts by.
    pub fn record(&self) -> Option<Record> {
        self.status().record
    }

    /// The granule is marked as lacking at `peer`.
    pub fn is_dirty(&self, peer: usize, granule: u64) -> bool {
        let at = Extent::new(granule, granule + 1);
        let dirty = self.volume.dirty(NodeIdx(peer as u8));
        dirty.is_none_or(|bits| bits.any(at))
    }

    /// An operator has to say whose data is kept there, after a verify.
    pub fn is_held(&self, peer: usize) -> bool {
        let is_it = |p: &&PeerStatus| usize::from(p.node.0) == peer;
        self.status()
            .peers
            .iter()
            .find(is_it)
            .is_some_and(|p| p.is_held)
    }

    /// Those of some granules, lowest first, that are marked as lacking at `peer`.
    pub fn dirty_among(&self, peer: usize, granules: &[u64]) -> Vec<u64> {
        let Some(dirty) = self.volume.dirty(NodeIdx(peer as u8)) else {
            return granules.to_vec();
        };
        let is_dirty = |g: &u64| dirty.any(Extent::new(*g, *g + 1));
        match dirty.is_empty() {
            true => Vec::new(),
            false => granules.iter().copied().filter(is_dirty).collect(),
        }
    }

    /// Nothing is marked for this peer.
    pub fn is_clean_for(&self, peer: usize) -> bool {
        let dirty = self.volume.dirty(NodeIdx(peer as u8));
        dirty.is_some_and(|bits| bits.is_empty())
    }

    /// The granule lies in an open activity-log extent.
    pub fn is_open(&self, granule: u64) -> bool {
        self.volume
            .open_extents()
            .iter()
            .any(|open| (open.start..open.end).contains(&granule))
    }

    /// The granule counts as changed since this mark; `None`: no such mark.
    pub fn mark_has(&self, name: MarkName, granule: u64) -> Option<bool> {
        self.volume.mark_has(name, granule)
    }

    /// Names the split brain with this node; `None` without one.
    pub fn parting_token(&self, peer: usize) -> Option<u64> {
        self.volume.parting(NodeIdx(peer as u8)).map(|p| p.token)
    }

    /// Serves, or does nothing: no role is changing.
    pub fn is_steady(&self) -> bool {
        matches!(
            self.status().role,
            RoleStatus::Primary | RoleStatus::Secondary
        )
    }

    fn session(&self, peer: usize) -> Option<Session> {
        let peers = &self.status().peers;
        peers
            .iter()
            .find(|p| usize::from(p.node.0) == peer)
            .map(|p| p.session)
    }

    /// Every write goes to this peer, and every confirmation counts.
    pub fn is_in_sync_with(&self, peer: usize) -> bool {
        matches!(self.session(peer), Some(Session::InSync(_)))
    }

    /// That peer did not say that its copy failed.
    pub fn takes_copy_for_good(&self, peer: usize) -> bool {
        let is_it = |p: &&PeerStatus| usize::from(p.node.0) == peer;
        let found = self.status().peers.iter().find(is_it);
        found.is_some_and(|p| p.disk != Some(Disk::Failed))
    }

    /// That node's copy is brought up to date by this one.
    pub fn is_source_of(&self, peer: usize) -> bool {
        let is_it = |p: &&PeerStatus| usize::from(p.node.0) == peer;
        let found = self.status().peers.iter().find(is_it);
        found.is_some_and(|p| matches!(p.session, Session::Source(_)))
    }

    /// A copy is brought up to date, here or at a peer.
    pub fn is_resyncing(&self) -> bool {
        let status = self.status();
        status.peers.iter().any(|p| p.session.is_resync())
    }

    /// It can be talked to.
    pub fn is_connected(&self, peer: usize) -> bool {
        let session = self.session(peer);
        matches!(
            session,
            Some(
                Session::InSync(_) | Session::Source(_) | Session::Target(_) | Session::Waiting(_)
            )
        )
    }

    /// One line for people.
    pub fn describe(&self) -> String {
        format!("{:?}", self.status())
    }
}
