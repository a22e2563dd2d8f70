//! Carries out what a core wants: the simulated shell. Simple on purpose; a fault here would be
//! taken for one of the core.
//!
//! ```text
//!  actions ─► here: in what order, and how many ─► act, one by one
//!              ├ disk.rs       data disk; ends of metadata writes
//!              ├ checksums.rs  what content sums to, and what is compared with it
//!              ├ jobs.rs       merges, copies, hashes, scrubs
//!              └ messages.rs   out on a link, in from one
//! ```

mod checksums;
mod disk;
mod jobs;
mod messages;

use engine_core::action::Action;
use engine_core::meta;
use engine_core::units::{ByteRange, Extent};

pub use checksums::{hashes, sums};

use crate::disk::{BLOCK, Work, blocks};
use crate::world::{Happening, Pending, World, brief};

/// How much of a batch of actions happens.
#[derive(Clone, Copy, Debug)]
pub enum Share {
    /// All of it.
    All,
    /// So many, in the order in which they happen.
    First(u64),
    /// As many as chance wants.
    Any,
}

/// Blocks of a range of bytes.
pub fn range_blocks(range: ByteRange) -> std::ops::Range<u64> {
    range.offset / BLOCK..(range.offset + range.len) / BLOCK
}

/// Blocks of an extent, for laws.
pub fn extent_blocks(extent: Extent) -> std::ops::Range<u64> {
    blocks(extent)
}

fn takes_time(action: &Action) -> bool {
    !matches!(
        action,
        Action::Complete { .. } | Action::SessionQuiet { .. } | Action::Release { .. }
    )
}

impl World {
    /// Carries out a batch, or what happens of it before the process dies.
    pub fn carry_out(&mut self, node: usize, actions: Vec<Action>, share: Share) {
        if actions.is_empty() && matches!(share, Share::All) {
            return;
        }
        let (mut first, last): (Vec<Action>, Vec<Action>) =
            actions.into_iter().partition(takes_time);
        if self.plan.settings.is_shuffled == 1 {
            self.shuffle(&mut first);
        }
        first.extend(last);
        match share {
            Share::All => {}
            Share::First(count) => first.truncate(count as usize),
            Share::Any => first.truncate(self.rng.below(first.len() as u64 + 1) as usize),
        }
        for action in first {
            if self.failure.is_some() {
                return;
            }
            self.say(|| format!("n{node} -> {}", brief(&action)));
            self.act(node, action);
        }
    }

    /// Actions of a batch are unordered, except sends: those keep their order.
    fn shuffle(&mut self, actions: &mut Vec<Action>) {
        if actions.len() < 2 {
            return;
        }
        let is_send = |a: &Action| matches!(a, Action::Send { .. } | Action::Drop { .. });
        let mut order: Vec<usize> = (0..actions.len()).collect();
        self.rng.shuffle(&mut order);
        let mut sends = (0..actions.len())
            .filter(|i| is_send(&actions[*i]))
            .collect::<Vec<_>>();
        sends.reverse();
        for slot in &mut order {
            if is_send(&actions[*slot]) {
                *slot = sends.pop().expect("as many sends as places for them");
            }
        }
        let mut taken: Vec<Option<Action>> = actions.drain(..).map(Some).collect();
        actions.extend(order.into_iter().filter_map(|i| taken[i].take()));
    }

    fn act(&mut self, node: usize, action: Action) {
        match action {
            Action::Complete {
                session,
                req,
                outcome,
            } => {
                self.completed(node, session, req, outcome);
            }
            Action::SessionQuiet { session } => self.quiet(node, session),
            Action::DiskRead {
                token,
                extent,
                into,
            } => self.disk_read(node, token, extent, into),
            Action::DiskWrite {
                token,
                extent,
                buf,
                durable,
            } => {
                self.disk_write(node, token, extent, buf, durable);
            }
            Action::DiskZero {
                token,
                extent,
                durable,
                ..
            } => {
                if !self.is_inside(node, extent) {
                    return;
                }
                self.law_before_write(node, extent, None);
                let work = Work::Zero { extent, durable };
                self.begin_disk(node, work, Pending::Zero(token, extent));
            }
            Action::DiskFlush { token } => {
                let io = self.nodes[node].disk.flush();
                self.nodes[node].pending.insert(io, Pending::Plain(token));
                self.count("flushes");
                self.finish_later(node, io, 100_000, 1_500_000);
            }
            Action::SumsRead(read) => {
                let life = self.nodes[node].life;
                let delay = self.nodes[node].rng.between(20_000, 250_000);
                self.count("pages of checksums read");
                self.schedule(delay, Happening::SumsRead { node, life, read });
            }
            Action::SumsWrite {
                token,
                slot,
                block,
                counter,
            } => {
                self.count("pages of checksums written");
                let life = self.nodes[node]
                    .engine
                    .as_ref()
                    .map_or(0, |e| e.sums_life());
                let Some(table) = &self.nodes[node].sums else {
                    return self.fail("D2", "checksums are written, none are stored");
                };
                let bytes = meta::encode_sums_page(life, table.values(slot), block, counter);
                self.act(
                    node,
                    Action::MetaWrite {
                        token,
                        block,
                        bytes,
                    },
                );
            }
            Action::MetaWrite {
                token,
                block,
                bytes,
            } => {
                if self.nodes[node].meta.is_writing(block) {
                    self.fail(
                        "M2",
                        format!("node {node}: two writes to metadata block {block}"),
                    );
                }
                let life = self.nodes[node].life;
                let io = self.nodes[node].meta.begin(block, bytes);
                let delay = self.nodes[node].rng.between(30_000, 400_000);
                self.count("metadata writes");
                self.doom_in_meta_write(node, delay);
                self.schedule(
                    delay,
                    Happening::MetaIo {
                        node,
                        life,
                        io,
                        token,
                    },
                );
            }
            Action::Job { token, job } => self.job(node, token, job),
            Action::Send {
                link,
                message,
                payload,
            } => self.send(node, link, message, payload),
            Action::Drop { link } => {
                let life = self.nodes[node].life;
                if let Some((connection, end)) = self.net.find(node, life, link) {
                    self.count("dropped links");
                    self.dropping(node, link);
                    self.break_connection(connection, end);
                }
            }
            Action::Release { buf } => {
                if let Err(breach) = self.nodes[node].buffers.release(buf) {
                    self.fail("O2", breach);
                }
            }
            Action::Salvage { token, step } => self.salvage(node, token, step),
            Action::Vote { to, ballot } => self.say_ballot(node, to, &ballot),
            Action::Register { number, access } => self.ask_register(node, number, access),
            Action::ProposeRecord(record) => {
                self.proposed(node, record);
                let life = self.nodes[node].life;
                let delay = self.nodes[node].rng.between(1_000, 300_000);
                self.schedule(delay, Happening::Chosen { node, life });
            }
            Action::GrowBacking { from, size } => self.grow_backing(node, from, size),
            Action::Answer { id, result } => self.answered(node, id, &result),
            Action::Notice(notice) => self.noticed(node, &notice),
        }
    }
}
