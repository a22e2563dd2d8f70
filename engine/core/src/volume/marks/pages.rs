//! Pages of marks: told to a joining target, written here, and united with what a source tells.

use crate::marks::MARKS_MAX;
use crate::message::{MarkPage, Message};
use crate::meta::encode_mark_page;
use crate::session::Session;
use crate::units::{NodeIdx, Term};

use super::super::ops::{Purpose, token};
use super::super::{Volume, planted};
use super::WRITES_MAX;

/// Pages sent to a target before it says that they are durable.
const PAGES_OUT: u64 = 16;

/// `slot: 3 | page: 29` as index of a token.
fn page_index(slot: u8, page: usize) -> u32 {
    u32::from(slot) << 29 | page as u32
}

impl Volume {
    /// A target's session begins: it is told what the volume's marks say.
    pub(in crate::volume) fn begin_mark_pages(&mut self, node: NodeIdx) {
        let pages = (!planted!(self, MarksNotTold)).then_some((0, 0));
        self.peers.get_mut(node).mark_pages = pages;
    }

    /// Everything a joining target must know was sent, and is durable there.
    pub(in crate::volume) fn knows_marks(&self, node: NodeIdx) -> bool {
        let peer = self.peers.get(node);
        peer.mark_pages.is_none() && peer.told.is_settled()
    }

    pub(in crate::volume) fn settle_mark_pages(&mut self, node: NodeIdx) {
        let term = self.record().map_or(Term(0), |r| r.term);
        while let Some((slot, from)) = self.peers.get(node).mark_pages {
            let peer = self.peers.get(node);
            if !matches!(peer.session, Session::Source(_)) || !self.knows_attributes(node) {
                self.peers.get_mut(node).mark_pages = None;
                return;
            }
            if peer.told.sent - peer.told.acked >= PAGES_OUT {
                return;
            }
            let mark = self.marks.of_slot(slot);
            let mark = mark.filter(|m| m.is_listed() && !m.entry.is_whole);
            let found = mark.and_then(|m| Some((m, m.bits.next_page(from)?)));
            let Some((mark, page)) = found else {
                let next = (usize::from(slot) + 1 < MARKS_MAX).then_some((slot + 1, 0));
                self.peers.get_mut(node).mark_pages = next;
                continue;
            };
            let words = mark.bits.page_words(page);
            let len = words
                .iter()
                .rposition(|w| *w != 0)
                .map_or(0, |last| last + 1);
            let words = words[..len].to_vec();
            let (mark, grain) = (mark.entry.id, mark.bits.grain() as u32);
            let peer = self.peers.get_mut(node);
            peer.mark_pages = Some((slot, page + 1));
            let number = peer.told.number(self.now);
            let told = MarkPage {
                number,
                term,
                mark,
                page: page as u32,
                grain,
                words,
            };
            self.say(node, Message::MarkPage(told));
        }
    }

    /// A source tells bits of a mark.
    pub(in crate::volume) fn mark_page_told(&mut self, node: NodeIdx, told: &MarkPage) {
        if !self.hears(node, told.number, told.term) {
            return;
        }
        self.ops.attention = true;
        let marks = &mut self.marks.marks;
        let found = marks.iter_mut().find(|m| m.entry.id == told.mark);
        // Deleted meanwhile, or all of it counts anyway.
        let Some(mark) = found.filter(|m| !m.entry.is_whole) else {
            return;
        };
        let (slot, page) = (mark.entry.slot, told.page as usize);
        let is_same_grain = u64::from(told.grain) == mark.bits.grain();
        if !is_same_grain || !mark.bits.unite_page(page, &told.words) {
            return self.breach(node);
        }
        if !self.marks.told.contains(&(slot, page)) {
            self.marks.told.push((slot, page));
        }
    }

    pub(in crate::volume) fn write_mark_pages(&mut self) {
        while self.marks.in_flight.len() < WRITES_MAX {
            let Some((slot, page, why)) = self.marks.next_page() else {
                return;
            };
            let marks = &mut self.marks;
            let mark = marks.marks.iter_mut().find(|m| m.entry.slot == slot);
            let writer = marks.writers[usize::from(slot)].as_mut();
            let (Some(mark), Some(writer)) = (mark, writer) else {
                continue;
            };
            marks.in_flight.push((slot, page, why));
            let (block, counter) = writer.next_block(page);
            let words = mark.bits.page_words(page);
            let incarnation = self.durable.sb.incarnation;
            let bytes = encode_mark_page(incarnation, mark.entry.id, words, block, counter);
            mark.bits.mark_page_clean(page);
            let token = token(Purpose::MarkPage, 0, page_index(slot, page));
            self.write_metadata(token, block, bytes);
        }
    }

    pub(in crate::volume) fn mark_page_done(&mut self, index: u32) {
        let (slot, page) = ((index >> 29) as u8, (index & 0x1FFF_FFFF) as usize);
        self.marks
            .in_flight
            .retain(|(s, p, _)| (*s, *p) != (slot, page));
    }
}
