//! Attributes of the volume: `SetAttr` is durable on all of S before it completes, part of
//! joining S and of promotion (DESIGN D2).
//!
//! ```text
//!  change of the table ─► pages ─► directory ─► durable here
//!        └► SetAttr{number} to every peer that takes data ─► SetAttrAck{number}: durable there
//! ```
//!
//! A reigning node tells its whole table when a session begins that carries data; a candidate
//! tells it before its record. A member that was told something confirms neither the record of a
//! promotion nor that of its joining before it is durable here.

use crate::agree::{FEATURE_ATTRIBUTES, FEATURE_GROWTH, FEATURE_HASHES};
use crate::message::{Message, Refusal, SetAttr, Status};
use crate::meta::{
    self, Attributes, LoadedAttributes, PageWriter, TablePage, encode_attributes, encode_directory,
    encode_table_pages,
};
use crate::session::Session;
use crate::table::Table;
use crate::time::Instant;
use crate::units::{NodeIdx, Term};

use super::Volume;
use super::marks::Source;
use super::ops::{Purpose, token};

/// The table as it should be, and how much of it is on disk.
pub(super) struct Store {
    pub table: Attributes,
    version: u64,
    durable: u64,
    /// Version in the directory on disk.
    on_disk: u64,
    writing: Option<Writing>,
    writer: PageWriter,
}

/// A table on its way to disk.
struct Writing {
    version: u64,
    /// Pages that are not durable yet; then the directory goes.
    pages: usize,
    bytes: usize,
    counters: Vec<u64>,
}

/// What one session heard and said of attributes and pages of marks.
#[derive(Default)]
pub(super) struct Told {
    /// Number of the newest message to the peer, and of the newest that is durable there.
    pub sent: u64,
    pub acked: u64,
    /// When the oldest unconfirmed one was sent.
    pub since: Option<Instant>,
    /// Number of the newest message of the peer, and of the newest we confirmed.
    heard: u64,
    confirmed: u64,
    /// Versions of table and superblock that carry what was heard.
    needs: (u64, u64),
    /// A whole table, until its last part is there.
    partial: Option<Attributes>,
}

impl Told {
    /// All that was said is durable there.
    pub fn is_settled(&self) -> bool {
        self.sent == self.acked
    }

    /// The next number for a message to the peer.
    pub fn number(&mut self, now: Instant) -> u64 {
        self.sent += 1;
        self.since.get_or_insert(now);
        self.sent
    }
}

impl Store {
    pub fn new(loaded: LoadedAttributes) -> Store {
        Store {
            table: loaded.attributes,
            version: 0,
            durable: 0,
            on_disk: loaded.version,
            writing: None,
            writer: loaded.writer,
        }
    }

    /// The table on disk is that in memory.
    pub fn is_settled(&self) -> bool {
        self.durable == self.version
    }

    /// Everything up to `version` is on disk.
    pub fn is_durable(&self, version: u64) -> bool {
        self.durable >= version
    }

    /// The version that carries everything changed so far.
    pub fn newest_version(&self) -> u64 {
        self.version
    }
}

/// Sets `key`; an empty value removes it.
pub(super) fn put(table: &mut Attributes, key: &str, value: Vec<u8>) {
    if value.is_empty() {
        table.remove(key);
    } else {
        table.insert(key.to_owned(), value);
    }
}

impl Volume {
    /// Attributes can be kept here: the metadata has room for what they speak of.
    pub(super) fn keeps_attributes(&self) -> bool {
        self.marks.region.is_some()
    }

    /// Feature bits that the other side of a session must know.
    pub(super) fn features_required(&self) -> u64 {
        match self.attributes.table.is_empty() {
            true => 0,
            false => FEATURE_ATTRIBUTES,
        }
    }

    /// Feature bits this node offers.
    pub(super) fn features_offered(&self) -> u64 {
        match self.keeps_attributes() {
            true => FEATURE_ATTRIBUTES | FEATURE_GROWTH | FEATURE_HASHES,
            false => FEATURE_HASHES,
        }
    }

    /// The peer of this session keeps attributes.
    pub(super) fn knows_attributes(&self, node: NodeIdx) -> bool {
        let hello = self.peers.get(node).hello.as_ref();
        hello.is_some_and(|h| h.features_offered & FEATURE_ATTRIBUTES != 0)
    }

    /// The table was changed in memory; answers the versions of table and superblock that carry it.
    pub(super) fn attributes_changed(&mut self) -> (u64, u64) {
        self.attributes.version += 1;
        self.ops.attention = true;
        let sb = &mut self.durable.sb;
        if sb.features_incompatible & meta::FEATURE_ATTRIBUTES == 0 {
            sb.features_incompatible |= meta::FEATURE_ATTRIBUTES;
            self.durable.touch();
        }
        (self.attributes.version, self.durable.newest_version())
    }

    /// Changes one attribute here and at every peer that takes data.
    pub(super) fn set_attribute(&mut self, key: &str, value: &[u8]) -> (u64, u64) {
        put(&mut self.attributes.table, key, value.to_vec());
        let versions = self.attributes_changed();
        let term = self.record().map_or(Term(0), |r| r.term);
        for node in self.peers.nodes() {
            let is_told = self.peers.get(node).session.data_link().is_some();
            if is_told && self.knows_attributes(node) {
                self.say_attribute(node, term, (false, true), key, value.to_vec());
            }
        }
        versions
    }

    /// A session that carries data began: who reigns tells its table, and a source its marks.
    pub(super) fn tell_attributes(&mut self, node: NodeIdx) {
        let is_source = matches!(self.peers.get(node).session, Session::Source(_));
        let is_member = matches!(self.peers.get(node).session, Session::InSync(_));
        if is_source || (is_member && self.reigns() && self.role.is_serving()) {
            let term = self.record().map_or(Term(0), |r| r.term);
            self.tell_table(node, term);
        }
        if is_source {
            self.begin_mark_pages(node);
        }
    }

    /// Says the whole table, as the one that counts.
    pub(super) fn tell_table(&mut self, node: NodeIdx, term: Term) {
        if !self.knows_attributes(node) {
            // They were set after its hello: it may not join without them.
            if !self.attributes.table.is_empty() {
                self.refuse(node, Refusal::Feature);
            }
            return;
        }
        let table: Vec<(String, Vec<u8>)> = self
            .attributes
            .table
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        if table.is_empty() {
            return self.say_attribute(node, term, (true, true), "", Vec::new());
        }
        let count = table.len();
        for (index, (key, value)) in table.into_iter().enumerate() {
            let place = (index == 0, index + 1 == count);
            self.say_attribute(node, term, place, &key, value);
        }
    }

    fn say_attribute(
        &mut self,
        node: NodeIdx,
        term: Term,
        (is_first, is_last): (bool, bool),
        key: &str,
        value: Vec<u8>,
    ) {
        let number = self.peers.get_mut(node).told.number(self.now);
        let key = key.to_owned();
        let set = SetAttr {
            number,
            term,
            is_first,
            is_last,
            key,
            value,
        };
        self.say(node, Message::SetAttr(set));
    }

    /// Who reigns, or is about to, says an attribute.
    pub(super) fn attribute_told(&mut self, node: NodeIdx, set: SetAttr) {
        if !self.hears(node, set.number, set.term) {
            return;
        }
        let partial = self.peers.get_mut(node).told.partial.take();
        let (mut table, is_change) = match (set.is_first, partial) {
            (true, _) => (Attributes::new(), false),
            (false, Some(table)) => (table, false),
            (false, None) if set.is_last => (self.attributes.table.clone(), true),
            (false, None) => return self.breach(node),
        };
        put(&mut table, &set.key, set.value);
        let is_bad_table = Table::stored(&table).is_err();
        if encode_attributes(&table).is_none() || !self.can_have_size(&table) || is_bad_table {
            return self.breach(node);
        }
        if !set.is_last {
            self.peers.get_mut(node).told.partial = Some(table);
            return;
        }
        let source = match (is_change, self.peers.get(node).session) {
            (true, _) => Source::Change,
            (false, Session::Target(_)) => Source::Joining,
            (false, _) => Source::Table,
        };
        let Some(mut table) = self.adopt_marks(table, source) else {
            return self.breach(node);
        };
        self.keep_newer_nodes(&mut table);
        if table != self.attributes.table {
            self.attributes.table = table;
            let versions = self.attributes_changed();
            self.table_adopted(versions);
        }
        let needs = (self.attributes.version, self.durable.newest_version());
        self.peers.get_mut(node).told.needs = needs;
        self.ops.attention = true;
    }

    /// May this peer tell us what belongs to the volume, now and under this term?
    pub(super) fn hears(&mut self, node: NodeIdx, number: u64, term: Term) -> bool {
        let session = self.peers.get(node).session;
        let told = &mut self.peers.get_mut(node).told;
        if !session.is_fed() || number != told.heard + 1 {
            self.breach(node);
            return false;
        }
        told.heard = number;
        let own = self.record().map_or(Term(0), |r| r.term);
        let is_stale = term < own || (term < self.durable.sb.promised && term != own);
        let is_over = is_stale && !matches!(session, Session::Target(_));
        if is_over || self.role.is_serving() || !self.keeps_attributes() {
            // A reign that is over, or two candidates at once (law T6).
            let status = Status::Refused;
            self.say(node, Message::SetAttrAck { number, status });
            return false;
        }
        true
    }

    /// The peer has it durably, or will not take it.
    pub(super) fn attribute_acked(&mut self, node: NodeIdx, number: u64, status: Status) {
        let now = self.now;
        let told = &mut self.peers.get_mut(node).told;
        if number > told.sent || number < told.acked {
            return self.breach(node);
        }
        if status != Status::Ok {
            return self.drop_link(node);
        }
        told.acked = number;
        told.since = (!told.is_settled()).then_some(now);
        self.ops.attention = true;
    }

    /// All that this peer told us is durable here.
    pub(super) fn has_stored_told(&self, node: NodeIdx) -> bool {
        let told = &self.peers.get(node).told;
        let (table, superblock) = told.needs;
        told.partial.is_none()
            && !self.owes_size()
            && self.attributes.is_durable(table)
            && self.durable.is_durable(superblock)
            && self.marks.has_stored_told()
    }

    /// Confirms what became durable.
    pub(super) fn settle_told(&mut self, node: NodeIdx) {
        let told = &self.peers.get(node).told;
        if told.heard == told.confirmed || !self.has_stored_told(node) {
            return;
        }
        let told = &mut self.peers.get_mut(node).told;
        told.confirmed = told.heard;
        let (number, status) = (told.heard, Status::Ok);
        self.say(node, Message::SetAttrAck { number, status });
    }

    /// Writes the table if it is not what is on disk.
    pub(super) fn write_attributes(&mut self) {
        let store = &mut self.attributes;
        if store.writing.is_some() || store.is_settled() || self.durable.has_failed {
            return;
        }
        let table = encode_attributes(&store.table).expect("no table grows past its region");
        let incarnation = self.durable.sb.incarnation;
        let (pages, counters) = encode_table_pages(incarnation, &table, &mut store.writer);
        store.writing = Some(Writing {
            version: store.version,
            pages: pages.len(),
            bytes: table.len(),
            counters,
        });
        if pages.is_empty() {
            return self.write_directory();
        }
        for TablePage { page, block, bytes } in pages {
            let token = token(Purpose::AttributePage, 0, page as u32);
            self.write_metadata(token, block, bytes);
        }
    }

    fn write_directory(&mut self) {
        let store = &mut self.attributes;
        let Some(writing) = &store.writing else {
            return;
        };
        store.on_disk += 1;
        let (block, counter) = store.writer.next_block(0);
        let bytes = encode_directory(
            self.durable.sb.incarnation,
            store.on_disk,
            writing.bytes,
            &writing.counters,
            block,
            counter,
        );
        let token = token(Purpose::AttributePage, 0, 0);
        self.write_metadata(token, block, bytes);
    }

    pub(super) fn attribute_page_done(&mut self, page: u32) {
        let store = &mut self.attributes;
        let Some(writing) = &mut store.writing else {
            return;
        };
        if page > 0 {
            writing.pages -= 1;
            if writing.pages == 0 {
                self.write_directory();
            }
            return;
        }
        store.durable = writing.version;
        store.writing = None;
        self.marks_table_durable();
    }
}
