//! Nodes that come and go: one change of the table at a time (docs/design/0008-members.md).
//!
//! ```text
//!  add:     Coming ─► told, durable there, at every voter and at all of S ─► Member ─► its vote (T11)
//!                                                  a replica: resync, S (S6) ◄┘
//!  remove:  Leaving ─► out of S ─► a record without its vote is in force ─► Gone
//! ```
//!
//! The primary changes the table, durably here first, and tells it until each node said that it has
//! it. What a reign began is in the table, so the next one goes on with it. A node hears ballots of
//! its own table and of the one before: they differ in an index that no record names.
//!
//! The next change waits until a majority has the one before, and nobody is promised anything who has
//! an older table than the voter: so whoever is elected has all changes but the newest, at least. A
//! primary that is cut off is one change ahead, and no more.

use std::sync::Arc;
use std::time::Duration;

use crate::action::{Answer, CommandError, Notice};
use crate::event::CommandId;
use crate::meta::Attributes;
use crate::quorum::is_majority;
use crate::table::{Entry, NodeKind, REPLICAS_MAX, Stage, TABLE_KEY, Table, WITNESSES_MAX};
use crate::time::Instant;
use crate::units::{NODES_MAX, NodeIdx, NodeSet};
use crate::vote::{Ballot, Vote};

use super::voters::RECENT;
use super::{Volume, attributes, planted};

/// Between two words of the table to a node that did not say that it has it.
const TELL_AGAIN: Duration = Duration::from_millis(200);
/// To one that is gone, or is not heard although it has it: it may never come back.
const TELL_SELDOM: Duration = Duration::from_secs(2);

/// The table in force here, and the one on its way to be.
pub(super) struct Nodes {
    /// Name of this node, as it was attached.
    own: String,
    table: Arc<Table>,
    /// Digest of the version before, as it was in force here.
    before: Option<u32>,
    members: NodeSet,
    replicas: NodeSet,
    /// Not durable yet, and the versions of attributes and superblock that carry it.
    pending: Option<(Table, (u64, u64))>,
    /// Who told it, or one as new, and hears that it is durable here.
    owed: NodeSet,
    /// Nodes that said they have the table in force.
    has_it: NodeSet,
    told_at: [Option<Instant>; NODES_MAX],
    /// What an operator wants, while it is not so.
    wanted: Option<Vec<(String, NodeKind)>>,
}

/// The table among these attributes; the metadata was checked when it was read.
pub(super) fn stored(attributes: &Attributes) -> Option<Table> {
    Table::stored(attributes).ok().flatten()
}

impl Nodes {
    pub fn new(table: Table, own: String) -> Nodes {
        Nodes {
            own,
            before: None,
            members: table.members(),
            replicas: table.replicas(),
            table: Arc::new(table),
            pending: None,
            owed: NodeSet::EMPTY,
            has_it: NodeSet::EMPTY,
            told_at: [None; NODES_MAX],
            wanted: None,
        }
    }

    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Nodes that records may name.
    #[inline]
    pub fn members(&self) -> NodeSet {
        self.members
    }

    /// Those of them with data.
    #[inline]
    pub fn replicas(&self) -> NodeSet {
        self.replicas
    }

    /// Name of a node of this table.
    pub fn name(&self, node: NodeIdx) -> String {
        let entry = self.table.entry(node);
        entry.map_or_else(String::new, |entry| entry.name.clone())
    }

    /// The newest there is here, durable or not.
    fn newest(&self) -> &Table {
        let pending = self.pending.as_ref();
        pending.map_or(&self.table, |(table, _)| table)
    }

    /// A change that was begun and is not done.
    fn open(&self) -> Option<NodeIdx> {
        let open = self.newest().at(&[Stage::Coming, Stage::Leaving]);
        open.iter().next()
    }
}

/// The first thing to be done, so that the table says what is wanted: who goes before who comes.
enum Step<'a> {
    Take(NodeIdx),
    Add(&'a str, NodeKind),
}

fn first_step<'a>(table: &Table, wanted: &'a [(String, NodeKind)]) -> Option<Step<'a>> {
    let live = table.at(&[Stage::Coming, Stage::Member]);
    let is_wanted = |node: &NodeIdx| {
        let entry = table.entry(*node);
        entry.is_some_and(|e| wanted.contains(&(e.name.clone(), e.kind)))
    };
    if let Some(node) = live.iter().find(|node| !is_wanted(node)) {
        return Some(Step::Take(node));
    }
    let is_new = |(name, _): &&(String, NodeKind)| table.index_of(name).is_none();
    wanted
        .iter()
        .find(is_new)
        .map(|(name, kind)| Step::Add(name.as_str(), *kind))
}

impl Volume {
    /// Who belongs to the volume, by the table in force here.
    pub fn table(&self) -> &Table {
        self.nodes.table()
    }

    /// This node is no part of the volume any more, or has another index: it waits to be attached anew.
    pub fn is_misplaced(&self) -> bool {
        let entry = self.nodes.table.entry(self.me);
        let is_own = |e: &Entry| e.name == self.nodes.own && e.is_live();
        self.nodes.table.version() > 0 && !entry.is_some_and(is_own)
    }

    /// Both are replicas of the volume by the table in force.
    pub(super) fn exchanges_data_with(&self, node: NodeIdx) -> bool {
        self.is_replica() && self.replicas().has(node) && !self.is_misplaced()
    }

    /// It was taken out of S for good.
    pub(super) fn has_let_go(&self, node: NodeIdx) -> bool {
        self.reigns() && self.leaving().has(node) && !self.required().has(node)
    }

    /// An operator says which nodes the volume is to have. Answered once the first change was begun.
    pub(super) fn want_nodes(&mut self, id: CommandId, wanted: Vec<(String, NodeKind)>) {
        let result = self.may_want(&wanted).map(|is_new| {
            if !is_new {
                return Answer::Already;
            }
            self.nodes.wanted = Some(wanted);
            self.ops.attention = true;
            Answer::Ok
        });
        self.reply(id, result);
    }

    /// Whether these nodes can be the volume's; `false`: they are.
    fn may_want(&self, wanted: &[(String, NodeKind)]) -> Result<bool, CommandError> {
        if !self.role.is_primary() {
            let primary = self.reigning().filter(|node| *node != self.me);
            return Err(primary.map_or(CommandError::NotPrimary, CommandError::PrimaryElsewhere));
        }
        if self.durable.has_failed {
            return Err(CommandError::MetaFailed);
        }
        let table = self.nodes.newest();
        let Some(step) = first_step(table, wanted) else {
            return Ok(false);
        };
        let of = |kind: NodeKind| wanted.iter().filter(move |(_, k)| *k == kind);
        if !self.has_votes() || self.has_register() || !self.keeps_attributes() {
            let is_same = |(name, _): &(String, NodeKind)| {
                let index = table.index_of(name);
                index.is_some_and(|n| table.replicas().has(n))
            };
            let replicas = of(NodeKind::Replica);
            let stay = replicas.clone().count() == table.replicas().count() as usize
                && replicas.clone().all(is_same);
            return Err(match stay {
                true => CommandError::WitnessesStay,
                false => CommandError::ReplicasStay,
            });
        }
        if of(NodeKind::Witness).count() > WITNESSES_MAX {
            return Err(CommandError::TooManyWitnesses);
        }
        if of(NodeKind::Replica).count() > REPLICAS_MAX {
            return Err(CommandError::TooManyReplicas);
        }
        let own = (self.nodes.name(self.me), NodeKind::Replica);
        if !wanted.contains(&own) {
            return Err(CommandError::PrimaryLeaves);
        }
        let takes = |node: NodeIdx| matches!(step, Step::Take(taken) if taken == node);
        if let Some(open) = self.nodes.open().filter(|open| !takes(*open)) {
            return Err(CommandError::NodeChanging(open));
        }
        match step {
            Step::Take(node) if !self.may_spare_copy(node) => Err(CommandError::NeededCopy(node)),
            Step::Take(node) if self.would_freeze_without(node) => {
                Err(CommandError::NeededForMajority(node))
            }
            _ => Ok(true),
        }
    }

    /// Enough copies in sync are left without this one, and replicas to keep two.
    fn may_spare_copy(&self, node: NodeIdx) -> bool {
        let replicas = self.replicas();
        !replicas.has(node)
            || (replicas.without(node).count() > 1 && self.are_copies_enough(self.in_sync(), node))
    }

    fn are_copies_enough(&self, in_sync: NodeSet, node: NodeIdx) -> bool {
        let left = in_sync.without(node).count();
        !in_sync.has(node) || left >= self.setup.min_copies.max(1)
    }

    /// Who of these members an operator takes away now; the last ones that are needed stay (law R4).
    pub(super) fn may_leave_copies(&self, in_sync: NodeSet) -> NodeSet {
        let mut left = in_sync;
        for node in self.leaving().without(self.me).iter() {
            if left.has(node) && self.are_copies_enough(left, node) {
                left = left.without(node);
            }
        }
        in_sync.minus(left)
    }

    /// Those at hand are no majority of the voters, or would be none of who is left without this one.
    fn would_freeze_without(&self, node: NodeIdx) -> bool {
        let Some(record) = self.record().filter(|r| r.voters.has(node)) else {
            return false;
        };
        let here = self.votes_at_hand();
        !is_majority(record.voters, here) || !is_majority(record.voters.without(node), here)
    }

    /// Nodes that an operator takes away.
    pub(super) fn leaving(&self) -> NodeSet {
        self.nodes.table.at(&[Stage::Leaving])
    }

    /// What becomes of tables in this turn.
    pub(super) fn settle_nodes(&mut self) {
        if let Some((_, (attributes, superblock))) = self.nodes.pending
            && self.attributes.is_durable(attributes)
            && self.durable.is_durable(superblock)
        {
            self.table_in_force();
        }
        let is_quiet = self.nodes.table.version() == 0 && self.nodes.wanted.is_none();
        if is_quiet || !self.reigns() || !self.has_votes() {
            return;
        }
        if self.role.is_primary() && self.nodes.pending.is_none() {
            self.change_nodes();
        }
        self.tell_nodes();
    }

    /// The next change, if what it waits for is so.
    fn change_nodes(&mut self) {
        let Some(record) = self.record() else { return };
        let change = self.durable.change.map_or(record, |c| c.record);
        let named = record.voters.or(change.voters);
        let holders = self.nodes.has_it.with(self.me);
        // Without a lease somebody else may be elected, and go on from the table that all had.
        if !is_majority(record.voters, holders) || !self.holds_lease() {
            return;
        }
        let table = Arc::clone(&self.nodes.table);
        let next = |stage, node| Some(table.with_stage(record.term, node, stage));
        let wanted = self.nodes.wanted.take();
        let step = wanted.as_deref().and_then(|w| first_step(&table, w));
        let next = match (self.nodes.open(), &step) {
            // It came, and is not to be there any more: no record names it.
            (Some(node), Some(Step::Take(taken)))
                if node == *taken && !table.members().has(node) =>
            {
                next(Stage::Gone, node)
            }
            (Some(node), _) if table.members().has(node) => {
                let is_named = named.or(self.required()).has(node);
                match !is_named || planted!(self, GoneBeforeItsVote) {
                    true => next(Stage::Gone, node),
                    false => None,
                }
            }
            (Some(node), _) => {
                let holders = named.or(self.required()).with(node).without(self.me);
                let is_known = self.nodes.has_it.contains(holders);
                match is_known || planted!(self, NamedBeforeTold) {
                    true => next(Stage::Member, node),
                    false => None,
                }
            }
            (None, Some(Step::Take(node))) => {
                let may_go = self.may_spare_copy(*node) && !self.would_freeze_without(*node);
                match may_go && *node != self.me {
                    true => next(Stage::Leaving, *node),
                    false => None,
                }
            }
            (None, Some(Step::Add(name, kind))) => table.with_newcomer(record.term, name, *kind),
            (None, None) => None,
        };
        let is_done = step.is_none();
        self.nodes.wanted = wanted.filter(|_| !is_done);
        if let Some(next) = next {
            self.take_table(next);
        }
    }

    /// Writes a newer table down; it is in force once it is durable.
    fn take_table(&mut self, table: Table) {
        let bytes = table.encode();
        attributes::put(&mut self.attributes.table, TABLE_KEY, bytes);
        let versions = self.attributes_changed();
        self.account_for(&table);
        self.nodes.pending = Some((table, versions));
    }

    /// An attribute table was adopted from a peer: its table of nodes counts if it is newer.
    pub(super) fn table_adopted(&mut self, versions: (u64, u64)) {
        let newest = stored(&self.attributes.table);
        if let Some(table) = newest.filter(|t| t.is_newer_than(self.nodes.newest())) {
            self.account_for(&table);
            self.nodes.pending = Some((table, versions));
        }
    }

    /// Of two tables of attributes, the newer table of nodes.
    pub(super) fn keep_newer_nodes(&self, told: &mut Attributes) {
        let own = self.nodes.newest();
        let is_older = stored(told).is_none_or(|t| !t.is_newer_than(own));
        if is_older && own.version() > 0 {
            attributes::put(told, TABLE_KEY, own.encode());
        }
    }

    fn table_in_force(&mut self) {
        let Some((table, _)) = self.nodes.pending.take() else {
            return;
        };
        let old = Arc::clone(&self.nodes.table);
        for node in (0..NODES_MAX as u8).map(NodeIdx) {
            let name = |table: &Table| table.entry(node).map(|e| e.name.clone());
            let is_out = !table.members().has(node);
            if is_out || name(&old) != name(&table) {
                self.votes.forget(node);
            }
        }
        let owed = self.nodes.owed;
        self.nodes = Nodes {
            before: Some(self.votes.nodes),
            wanted: self.nodes.wanted.take(),
            ..Nodes::new(table, std::mem::take(&mut self.nodes.own))
        };
        self.votes.nodes = self.nodes.table.digest(self.has_register());
        self.votes.strangers = NodeSet::EMPTY;
        self.notice(Notice::Nodes);
        for node in self.peers.nodes() {
            if !self.exchanges_data_with(node) {
                self.drop_link(node);
            }
        }
        for node in owed.iter() {
            self.say_table(node, true);
        }
        self.ops.attention = true;
    }

    /// Who reigns says the table to all that did not say that they have it.
    fn tell_nodes(&mut self) {
        if self.nodes.table.version() == 0 {
            return;
        }
        let all: NodeSet = self.nodes.table.entries().map(|(node, _)| node).collect();
        let gone = self.nodes.table.at(&[Stage::Gone]);
        // Whoever was formatted anew since goes by its file again, and hears nobody.
        let is_silent = |node: &NodeIdx| self.votes.met(*node, self.now, RECENT).is_none();
        let silent = all.minus(gone).iter().filter(is_silent).collect();
        let told = all.minus(self.nodes.has_it).or(silent).without(self.me);
        for node in told.iter() {
            let pause = match gone.has(node) || self.nodes.has_it.has(node) {
                true => TELL_SELDOM,
                false => TELL_AGAIN,
            };
            let told = self.nodes.told_at[usize::from(node.0)];
            if told.is_none_or(|at| self.now.since(at) >= pause) {
                self.say_table(node, false);
            }
        }
    }

    fn say_table(&mut self, to: NodeIdx, is_answer: bool) {
        self.nodes.told_at[usize::from(to.0)] = Some(self.now);
        let table = Arc::clone(&self.nodes.table);
        self.say_vote(to, Vote::Table { table, is_answer });
    }

    /// Somebody says which table is durable there.
    pub(super) fn table_told(
        &mut self,
        from: NodeIdx,
        volume_id: u128,
        table: &Arc<Table>,
        is_answer: bool,
    ) {
        let own = self.durable.sb.volume_id;
        let is_blank = own == 0 || self.has_loose_founding();
        let is_ours = own == volume_id || is_blank;
        // A blank one has no word in it, but that it has it.
        let is_newcomer = volume_id == 0 && **table == *self.nodes.newest();
        let counts = volume_id != 0 && is_ours || is_newcomer;
        if !counts || self.has_register() || !self.keeps_attributes() {
            return;
        }
        self.ops.attention = true;
        let newest = self.nodes.newest();
        if table.is_newer_than(newest) {
            self.nodes.owed = match is_answer {
                true => NodeSet::EMPTY,
                false => NodeSet::only(from),
            };
            return self.take_table(Table::clone(table));
        }
        if **table != *newest {
            return self.tell_behind(from);
        }
        if self.nodes.pending.is_some() {
            self.nodes.owed = self.nodes.owed.with(from);
            return;
        }
        self.nodes.has_it = self.nodes.has_it.with(from);
        if !is_answer {
            self.say_table(from, true);
        }
    }

    /// Somebody goes by another table than this one: it hears ours, now and then.
    fn tell_behind(&mut self, node: NodeIdx) {
        let told = self.nodes.told_at[usize::from(node.0)];
        let is_due = told.is_none_or(|at| self.now.since(at) >= TELL_AGAIN);
        if self.nodes.table.version() > 0 && is_due {
            self.say_table(node, false);
        }
    }

    /// Whoever may go by an older table does not hear what is asked of it.
    pub(super) fn tell_strangers(&mut self) {
        for node in self.others().minus(self.nodes.has_it).iter() {
            self.tell_behind(node);
        }
    }

    /// Sets of nodes in this ballot mean what they mean here.
    pub(super) fn has_same_table(&mut self, from: NodeIdx, ballot: &Ballot) -> bool {
        if ballot.nodes == self.votes.nodes {
            self.votes.strangers = self.votes.strangers.without(from);
            self.nodes.has_it = self.nodes.has_it.with(from);
            return self.others().has(from) && !self.is_misplaced();
        }
        self.nodes.has_it = self.nodes.has_it.without(from);
        let is_ours = ballot.volume_id == self.durable.sb.volume_id;
        if is_ours || self.reigns() {
            self.tell_behind(from);
        }
        if self.nodes.before == Some(ballot.nodes) {
            let stands = matches!(ballot.vote, Vote::Ask { .. });
            return !stands && self.others().has(from) && !self.is_misplaced();
        }
        // Its file lists other nodes: its sets mean something else.
        let is_said = self.votes.strangers.has(from) || !self.others().has(from);
        if !is_said && self.nodes.table.version() == 0 && self.nodes.pending.is_none() {
            self.votes.strangers = self.votes.strangers.with(from);
            self.notice(Notice::OtherNodes { peer: from });
        }
        false
    }

    /// A node comes or goes, or is about to.
    pub fn is_changing_nodes(&self) -> bool {
        self.nodes.wanted.is_some() || self.nodes.open().is_some()
    }

    /// Voters, members of S and who comes, as far as they did not say that they have the table.
    pub fn lacking_table(&self) -> NodeSet {
        if self.nodes.table.version() == 0 || !self.role.is_primary() {
            return NodeSet::EMPTY;
        }
        let voters = self.record().map_or(NodeSet::EMPTY, |r| r.voters);
        let coming = self.nodes.table.at(&[Stage::Coming]);
        let holders = voters.or(self.required()).or(coming);
        holders.without(self.me).minus(self.nodes.has_it)
    }
}
