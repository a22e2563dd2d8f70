//! Reads through another member: by a primary whose own disk failed or misread (law R6, F6) or is
//! busier (`balance.rs`), and the answers to such reads and to a verify's questions.

use crate::action::{Action, Job, Outcome, ReadInto};
use crate::event::{DiskResult, JobOutcome};
use crate::message::{Disk, Message, RESYNC_PIECE_GRANULES, Status};
use crate::session::Session;
use crate::units::{BufId, Extent, NodeIdx, PIECE_MAX};

use super::ops::{Kind, Phase, Purpose};
use super::{Volume, planted};

/// What a primary asks of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Serve {
    /// The bytes.
    Bytes,
    /// One checksum per granule.
    Sums,
    /// Strong hashes.
    Hashes {
        /// Granules per hash.
        each: u32,
    },
}

impl Volume {
    /// Asks a member of S for what this node cannot read; nobody left is an error (law B12).
    pub(super) fn read_remotely(&mut self, slot: u32) {
        let others = self.in_sync().without(self.me);
        let found = others.iter().find_map(|node| {
            let peer = self.peers.find(node)?;
            let Session::InSync(link) = peer.session else {
                return None;
            };
            let tried = self.ops.get(slot).failed.has(node);
            (peer.disk == Disk::UpToDate && !tried).then_some((node, link))
        });
        let Some((node, link)) = found else {
            self.answer(slot, Outcome::Io);
            return self.end(slot);
        };
        self.ask_to_read(slot, node, link);
    }

    pub(super) fn read_reply(
        &mut self,
        node: NodeIdx,
        id: u64,
        status: Status,
        buf: Option<BufId>,
    ) {
        let (generation, slot) = ((id >> 32) as u32, id as u32);
        let op = self
            .ops
            .find(generation, slot)
            .filter(|op| op.pending.has(node) && op.piece_buf.is_none());
        let to = match op.map(|op| op.kind) {
            Some(Kind::Read { buf, .. }) => buf,
            Some(Kind::Repair) => return self.repair_told(slot, node, status, buf),
            _ => return self.release(buf),
        };
        self.read_left(slot, node);
        match buf {
            Some(from) if status == Status::Ok => {
                let bytes = self.ops.get(slot).extent.bytes();
                let op = self.ops.get_mut(slot);
                (op.piece_buf, op.piece_buf_owned) = (Some(from), true);
                let token = self.ops.token(Purpose::Job, slot);
                self.actions.push(Action::Job {
                    token,
                    job: Job::Copy { from, to, bytes },
                });
            }
            _ => {
                self.release(buf);
                let op = self.ops.get_mut(slot);
                op.failed = op.failed.with(node);
                self.read_again(slot);
            }
        }
    }

    /// The bytes lie in the client's buffer, or the reply held fewer than were asked for.
    pub(super) fn remote_copied(&mut self, slot: u32, outcome: &JobOutcome) {
        let op = self.ops.get_mut(slot);
        let from = op.piece_buf.take();
        op.piece_buf_owned = false;
        let asked = op.pending;
        self.release(from);
        if matches!(outcome, JobOutcome::Failed(_)) {
            let op = self.ops.get_mut(slot);
            op.failed = op.failed.or(asked);
            return self.read_again(slot);
        }
        self.read_counts.by_peers += 1;
        self.answer_read(slot);
    }

    pub(super) fn remote_reads_lost(&mut self, node: NodeIdx) {
        for slot in self.ops.slots() {
            let op = self.ops.get_mut(slot);
            let waits = matches!(op.kind, Kind::Read { .. })
                && op.phase == Phase::Out
                && op.pending.has(node)
                && op.piece_buf.is_none();
            if waits {
                op.failed = op.failed.with(node);
                self.read_left(slot, node);
                self.read_again(slot);
            }
        }
    }

    /// A primary asks for bytes, or for their checksums.
    pub(super) fn serve_for(&mut self, node: NodeIdx, id: u64, extent: Extent, what: Serve) {
        let session = self.peers.get(node).session;
        let Some(link) = session.link() else { return };
        let (kind, most) = match what {
            // A piece of a request that does not begin with a granule covers one more.
            Serve::Bytes => (
                Kind::ServeRead { id },
                PIECE_MAX / crate::units::GRANULE + 1,
            ),
            Serve::Sums => (Kind::ServeSums { id }, RESYNC_PIECE_GRANULES),
            Serve::Hashes { each } => (Kind::ServeHashes { id, each }, RESYNC_PIECE_GRANULES),
        };
        if extent.end > self.size || extent.granules() > most {
            return self.breach(node);
        }
        let is_member = matches!(session, Session::InSync(_))
            && self.disk() == Disk::UpToDate
            // Of a primary a member asks what its own disk lost (F10).
            && (!self.role.is_serving() || what == Serve::Bytes)
            || planted!(self, ReadsFromWhoLeft);
        let slot = match is_member && self.is_disk_usable() {
            true => self.take_internal(kind, extent, link),
            false => None,
        };
        let status = Status::Refused;
        match (slot, what) {
            (Some(slot), _) => self.order(slot, false),
            (None, Serve::Bytes) => self.say(node, Message::ReadReply { id, status }),
            (None, Serve::Sums) => {
                let sums = vec![];
                self.say(node, Message::SumReply { id, status, sums });
            }
            (None, Serve::Hashes { .. }) => {
                let hashes = vec![];
                self.say(node, Message::HashReply { id, status, hashes });
            }
        }
    }

    /// Reads what a peer, or a salvage, is to have.
    pub(super) fn start_serving_read(&mut self, slot: u32) {
        let token = self.ops.token(Purpose::Disk, slot);
        let extent = self.ops.get(slot).extent;
        self.ops.get_mut(slot).phase = Phase::Out;
        self.actions.push(Action::DiskRead {
            token,
            extent,
            into: ReadInto::Alloc,
        });
    }

    pub(super) fn serve_read_done(
        &mut self,
        slot: u32,
        id: u64,
        result: DiskResult,
        buf: Option<BufId>,
    ) {
        let link = self.ops.get(slot).link;
        if self.peers.by_link(link).is_some() {
            let status = result.map_or_else(Status::from, |()| Status::Ok);
            let payload = buf.filter(|_| result.is_ok());
            self.read_counts.for_peers += u64::from(result.is_ok());
            let message = Message::ReadReply { id, status };
            self.actions.push(Action::Send {
                link,
                message,
                payload,
            });
        }
        self.release(buf);
        self.end(slot);
    }

    /// Sums of what lies here: for a verify, or before a pull.
    pub(super) fn start_sums(&mut self, slot: u32) {
        let token = self.ops.token(Purpose::Job, slot);
        let extent = self.ops.get(slot).extent;
        self.ops.get_mut(slot).phase = Phase::Job;
        self.actions.push(Action::Job {
            token,
            job: Job::Sums { extent },
        });
    }

    /// Strong hashes of what lies here, one per `each` granules.
    pub(super) fn start_hashes(&mut self, slot: u32, each: u32) {
        let token = self.ops.token(Purpose::Job, slot);
        let extent = self.ops.get(slot).extent;
        self.ops.get_mut(slot).phase = Phase::Job;
        self.actions.push(Action::Job {
            token,
            job: Job::Hashes { extent, each },
        });
    }

    pub(super) fn hashes_served(&mut self, slot: u32, id: u64, outcome: JobOutcome) {
        let link = self.ops.get(slot).link;
        if let Some(node) = self.peers.by_link(link) {
            let (status, hashes) = match outcome {
                JobOutcome::Hashes(hashes) => (Status::Ok, hashes),
                _ => (Status::Io, Vec::new()),
            };
            self.say(node, Message::HashReply { id, status, hashes });
        }
        self.end(slot);
    }

    pub(super) fn sums_served(&mut self, slot: u32, id: u64, outcome: JobOutcome) {
        let link = self.ops.get(slot).link;
        if self.peers.by_link(link).is_some() {
            let (status, sums) = match outcome {
                JobOutcome::Sums(sums) => (Status::Ok, sums),
                _ => (Status::Io, Vec::new()),
            };
            let message = Message::SumReply { id, status, sums };
            self.actions.push(Action::Send {
                link,
                message,
                payload: None,
            });
        }
        self.end(slot);
    }
}
