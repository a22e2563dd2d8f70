//! Split brain found: both sides tell what they changed, and nothing flows (law T9).
//!
//! ```text
//!  hellos: Diverged, Unrelated ─► Runs … ─► Parted ─► the link stays, for an operator's next word
//!                                              └─► give_up.rs, if this copy is given up
//! ```
//! What this does not do: decide. Nothing durable changes here.

use crate::bitmap::Bitmap;
use crate::generation::{Chain, Entry};
use crate::message::{Disk, Hello, Message, Parted, Refusal};
use crate::session::{Plan, Session, SessionEvent};
use crate::time::Instant;
use crate::units::{Extent, NodeIdx};

use super::Volume;
use super::exchange::RUNS_PER_TURN;
use super::peer::Gate;
use crate::action::Notice;

/// What the two told each other when they last met.
pub(super) struct Parting {
    why: Refusal,
    pub hello: Box<Hello>,
    /// What the other side may have changed.
    pub theirs: Bitmap,
    /// Its last word; what it told is complete then.
    pub told: Option<Parted>,
    said: bool,
    at: Instant,
    /// When this process first saw it.
    since: Instant,
}

/// A split brain as this node knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartingStatus {
    /// The other side.
    pub peer: NodeIdx,
    /// What the judgement was.
    pub why: Refusal,
    /// Names this state: an operator's word for it holds for no other.
    pub token: u64,
    /// Newest reign that both know to hold data; none where a promotion by force broke with it.
    pub ancestor: Option<Entry>,
    /// When the two last compared.
    pub at: Instant,
    /// When this process first saw it.
    pub since: Instant,
    /// This side.
    pub mine: SideStatus,
    /// The other side; `None` until it told all.
    pub theirs: Option<SideStatus>,
    /// Granules that both sides may have changed, where both know.
    pub overlap: Option<u64>,
    /// Granules that may differ, where both told all.
    pub differ: Option<u64>,
}

/// One side of a split brain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SideStatus {
    /// Reigns that the other side does not know, oldest first.
    pub reigns: Vec<Entry>,
    /// Granules it may have changed since the two were one: never too few. `None`: it does not know
    /// the other copy, and any may differ.
    pub changed: Option<u64>,
    /// It serves clients.
    pub is_primary: bool,
    /// State of its copy.
    pub disk: Disk,
    /// Clients attached.
    pub clients: u32,
    /// Milliseconds before `at` of the last write of a client, where its process saw one.
    pub last_write_ms: Option<u64>,
}

impl Volume {
    /// The histories do not fit: what may differ is told, and no more.
    pub(super) fn begin_parting(&mut self, node: NodeIdx, why: Refusal) {
        let (at, grain) = (self.now, self.durable.sb.grain);
        self.step(node, SessionEvent::Agreed(Plan::Parted(why)));
        let theirs = Bitmap::new(self.size, grain);
        let peer = self.peers.get_mut(node);
        let hello = peer.hello.clone().expect("both hellos were judged");
        let since = peer.parting.as_ref().map_or(at, |p| p.since);
        (peer.gate, peer.runs_from, peer.last_refusal) = (Gate::Open, Some(0), Some(why));
        (peer.disk, peer.is_primary) = (hello.disk, false);
        peer.parting = Some(Box::new(Parting {
            why,
            hello,
            theirs,
            told: None,
            said: false,
            at,
            since,
        }));
        self.ops.attention = true;
    }

    /// It may lack anything: it is not the copy that the bits speak of (laws S11, T8).
    pub(super) fn may_lack_all(&self, node: NodeIdx, hello: &Hello) -> bool {
        let sb = &self.durable.sb;
        let is_stranger = sb.known[usize::from(node.0)] != hello.incarnation;
        is_stranger || !self.known(node).continues(hello.life)
    }

    /// Says what this side may have changed, then its last word.
    pub(super) fn settle_parting(&mut self, node: NodeIdx) {
        for _ in 0..RUNS_PER_TURN {
            let Some(from) = self.peers.get(node).runs_from else {
                break;
            };
            let parting = self.peers.get(node).parting.as_ref();
            let lacks_all = parting.is_none_or(|p| self.may_lack_all(node, &p.hello));
            let (runs, next) = match lacks_all {
                true => (vec![Extent::new(0, self.size)], None),
                false => self.collect_runs(node, from),
            };
            let last = next.is_none();
            self.peers.get_mut(node).runs_from = next;
            self.say(node, Message::Runs { runs, last });
        }
        let word = self.last_word(node);
        let peer = self.peers.get_mut(node);
        let (is_said, Some(parting)) = (peer.runs_from.is_none(), &mut peer.parting) else {
            return;
        };
        let (was_said, why) = (parting.said, parting.why);
        parting.said |= is_said;
        let is_over = parting.said && parting.told.is_some();
        if is_said && !was_said {
            self.say(node, Message::Parted(word));
        }
        if is_over {
            self.step(node, SessionEvent::Exchanged { clean: false });
            let (peer, by_us) = (node, true);
            self.notice(Notice::PeerRefused { peer, why, by_us });
            self.parted(node);
        }
    }

    fn last_word(&self, node: NodeIdx) -> Parted {
        Parted {
            gives_up: self.gives_up_for(node),
            needs_vote: self.needs_vote_of(node),
            clients: self.clients,
            last_write_ms: self.since_last_write(),
        }
    }

    fn since_last_write(&self) -> Option<u64> {
        let ago = self.now.since(self.last_write?);
        u64::try_from(ago.as_millis()).ok()
    }

    pub(super) fn parted_told(&mut self, node: NodeIdx, word: Parted) {
        let peer = self.peers.get_mut(node);
        let is_parting = matches!(peer.session, Session::Exchange(_, Plan::Parted(_)));
        match &mut peer.parting {
            Some(parting) if is_parting && peer.runs_received && parting.told.is_none() => {
                parting.told = Some(word);
            }
            _ => return self.breach(node),
        }
        if word.gives_up {
            // Its vote ends with its history; a ballot of it says so, or that it kept both.
            self.votes.doubt(node);
        }
    }

    /// What may differ, as both told: the only blocks that giving up this copy may overwrite.
    pub(super) fn may_differ(&self, node: NodeIdx) -> Option<Bitmap> {
        let peer = self.peers.get(node);
        let parting = peer.parting.as_ref().filter(|p| p.told.is_some())?;
        let mut all = parting.theirs.clone();
        if self.may_lack_all(node, &parting.hello) {
            all.set_all();
        }
        runs(&peer.dirty).for_each(|run| {
            all.set(run);
        });
        Some(all)
    }

    /// Names what is known of a split brain: histories, and what this side changed. The other side
    /// may go on writing.
    pub(super) fn parting_token(&self, node: NodeIdx) -> u64 {
        let peer = self.peers.get(node);
        let theirs = peer.parting.as_ref().map(|p| &p.hello.chain);
        let chains = std::iter::once(&self.durable.sb.chain).chain(theirs);
        let words = chains.flat_map(|chain| {
            let entries = chain.entries().iter();
            entries.flat_map(|e| [e.branch as u64, (e.branch >> 64) as u64, e.word()])
        });
        let more = [peer.dirty.count_granules(), u64::from(node.0)];
        // FNV-1a over words.
        words.chain(more).fold(0xcbf2_9ce4_8422_2325, |sum, word| {
            (sum ^ word)
                .wrapping_mul(0x0000_0100_0000_01b3)
                .rotate_left(29)
        })
    }

    /// What is known of the split brain with this node; `None` where there is none.
    pub fn parting(&self, node: NodeIdx) -> Option<PartingStatus> {
        let peer = self.peers.find(node)?;
        let parting = peer.parting.as_ref()?;
        let (mine, theirs) = (&self.durable.sb.chain, &parting.hello.chain);
        let lacks_all = self.may_lack_all(node, &parting.hello);
        let whole = self.size;
        let known = |granules: u64| (granules < whole).then_some(granules);
        let changed = known(peer.dirty.count_granules()).filter(|_| !lacks_all);
        let told = parting.told;
        let their_changes = told.and_then(|_| known(parting.theirs.count_granules()));
        let overlap = changed.and(their_changes);
        Some(PartingStatus {
            peer: node,
            why: parting.why,
            token: self.parting_token(node),
            ancestor: ancestor(mine, theirs),
            at: parting.at,
            since: parting.since,
            mine: SideStatus {
                reigns: beyond(mine, theirs),
                changed,
                is_primary: self.role.is_serving(),
                disk: self.disk(),
                clients: self.clients,
                last_write_ms: self.since_last_write(),
            },
            theirs: told.map(|told| SideStatus {
                reigns: beyond(theirs, mine),
                changed: their_changes,
                is_primary: parting.hello.is_primary,
                disk: parting.hello.disk,
                clients: told.clients,
                last_write_ms: told.last_write_ms,
            }),
            overlap: overlap.map(|_| common(&peer.dirty, &parting.theirs)),
            differ: self.may_differ(node).map(|all| all.count_granules()),
        })
    }
}

fn runs(bits: &Bitmap) -> impl Iterator<Item = Extent> {
    let mut from = 0;
    std::iter::from_fn(move || {
        let run = bits.next_run(from, u64::MAX - from)?;
        from = run.end;
        Some(run)
    })
}

/// Granules that are set in both.
fn common(a: &Bitmap, b: &Bitmap) -> u64 {
    let (mut of_a, mut of_b) = (runs(a).peekable(), runs(b).peekable());
    let mut granules = 0;
    while let (Some(x), Some(y)) = (of_a.peek(), of_b.peek()) {
        granules += x.end.min(y.end).saturating_sub(x.start.max(y.start));
        match x.end <= y.end {
            true => of_a.next(),
            false => of_b.next(),
        };
    }
    granules
}

fn knows(chain: &Chain, entry: &Entry) -> bool {
    let is_it = |e: &Entry| (e.branch, e.term) == (entry.branch, entry.term);
    chain.entries().iter().any(is_it)
}

/// The newest reign that both chains hold and that may have written.
fn ancestor(mine: &Chain, theirs: &Chain) -> Option<Entry> {
    let shared = |e: &&Entry| !e.is_empty && knows(theirs, e);
    mine.entries().iter().rev().find(shared).copied()
}

/// Reigns of one chain that the other does not hold.
fn beyond(chain: &Chain, other: &Chain) -> Vec<Entry> {
    let alone = |e: &&Entry| !e.is_empty && !knows(other, e);
    chain.entries().iter().filter(alone).copied().collect()
}
