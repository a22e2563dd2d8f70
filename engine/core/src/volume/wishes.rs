//! What operators wish of a resync: paused, so fast, begun after a verify.

use crate::action::{Answer, CommandError};
use crate::event::CommandId;
use crate::message::Message;
use crate::session::Session;
use crate::units::{NodeIdx, NodeSet};

use super::Volume;
use super::peer::Peer;

impl Volume {
    /// An operator of either node wants it to wait, or an operator has to say whose data is kept.
    pub(super) fn is_resync_paused(&self, node: NodeIdx) -> bool {
        let is_paused = self.resync_paused || self.peers.get(node).wish.paused;
        is_paused || self.durable.sb.held.has(node)
    }

    /// Pause and rate hold wherever they are asked: the target obeys its own and its source's.
    pub(super) fn resync_pause(&mut self, id: CommandId, paused: bool) {
        let was = std::mem::replace(&mut self.resync_paused, paused);
        self.tell_wishes();
        self.reply(
            id,
            Ok(if was == paused {
                Answer::Already
            } else {
                Answer::Ok
            }),
        );
    }

    pub(super) fn set_resync_rate(&mut self, id: CommandId, rate: u64) {
        self.resync_rate = rate;
        self.tell_wishes();
        self.reply(id, Ok(Answer::Ok));
    }

    fn tell_wishes(&mut self) {
        for node in self.peers.nodes() {
            if self.peers.get(node).session.is_resync() {
                self.say_wish(node);
            }
        }
        self.ops.attention = true;
    }

    /// A session of a resync begins: the other side knows only the usual wishes.
    pub(super) fn tell_wish(&mut self, node: NodeIdx) {
        let is_resync = self.peers.get(node).session.is_resync();
        if is_resync && (self.resync_paused || self.resync_rate != 0) {
            self.say_wish(node);
        }
    }

    fn say_wish(&mut self, node: NodeIdx) {
        let (paused, rate) = (self.resync_paused, self.resync_rate);
        self.say(node, Message::ResyncPause { paused, rate });
    }

    /// An operator decided whose data is kept after a verify.
    pub(super) fn resync_start(&mut self, id: CommandId, from: NodeIdx) {
        if from != self.me {
            return self.reply(id, Err(CommandError::NotPrimary));
        }
        let held = self.durable.sb.held;
        if held.is_empty() {
            return self.reply(id, Err(CommandError::NothingToDo));
        }
        self.durable.sb.held = NodeSet::EMPTY;
        self.durable.touch();
        for node in held.iter() {
            let is_source = |p: &Peer| matches!(p.session, Session::Source(_));
            if self.peers.find(node).is_some_and(is_source) {
                self.offer_resync(node);
            }
        }
        self.ops.attention = true;
        self.reply(id, Ok(Answer::Ok));
    }
}
