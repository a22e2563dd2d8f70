//! Carries out what a core wants: the simulated shell. Simple on purpose; a fault here would be
//! taken for one of the core.

use engine_core::action::{Action, Job, PageRead, ReadInto};
use engine_core::agree::FEATURE_HASHES;
use engine_core::checksums::Scrubbed;
use engine_core::event::{DiskError, Event, JobOutcome, LinkId, Payload, SumsFound, Token};
use engine_core::message::Message;
use engine_core::meta;
use engine_core::units::{BufId, ByteRange, Extent, GRANULE};
use engine_core::wire::{self, Parsed};

use crate::buffers::Origin;
use crate::disk::{BLOCK, BLOCKS_PER_GRANULE, Granule, Work, blocks};
use crate::engine::block_of;
use crate::net::Frame;
use crate::rng::mix;
use crate::world::{Happening, Pending, World, brief};

/// The simulator's checksum of each granule.
pub fn sums(tags: &[u64]) -> Vec<u64> {
    let sum = |granule: &[u64]| mix(granule.iter().fold(7, sum_with));
    // Most of a large payload is zeros.
    let of_zeros = sum(&Granule::default());
    tags.chunks(BLOCKS_PER_GRANULE as usize)
        .map(|granule| match granule == Granule::default() {
            true => of_zeros,
            false => sum(granule),
        })
        .collect()
}

/// The simulator's strong hash of every `each` granules.
pub fn hashes(tags: &[u64], each: u32) -> Vec<u128> {
    let blocks = BLOCKS_PER_GRANULE as usize * each as usize;
    let hash = |tags: &[u64]| mix(tags.iter().fold(11, sum_with));
    // Both halves of one sum: what tells two of them apart are 64 bits.
    let widen = |low: u64| u128::from(mix(low ^ 13)) << 64 | u128::from(low);
    tags.chunks(blocks).map(|tags| widen(hash(tags))).collect()
}

fn sum_with(sum: u64, tag: &u64) -> u64 {
    (sum.rotate_left(5) ^ tag).wrapping_mul(0x517c_c1b7_2722_0a95)
}

/// Blocks of a range of bytes.
pub fn range_blocks(range: ByteRange) -> std::ops::Range<u64> {
    range.offset / BLOCK..(range.offset + range.len) / BLOCK
}

fn takes_time(action: &Action) -> bool {
    !matches!(
        action,
        Action::Complete { .. } | Action::SessionQuiet { .. } | Action::Release { .. }
    )
}

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

    /// The plan may want the process to die while this metadata write is under way.
    fn doom_in_meta_write(&mut self, node: usize, delay: u64) {
        let Some((writes, down)) = self.nodes[node].meta_doom else {
            return;
        };
        self.nodes[node].meta_doom = (writes > 1).then_some((writes - 1, down));
        if writes == 1 {
            let life = self.nodes[node].life;
            let at = self.rng.below(delay);
            self.schedule(at, Happening::Kill { node, life, down });
        }
    }

    /// Begins a data-disk operation and schedules its end.
    fn begin_disk(&mut self, node: usize, work: Work, pending: Pending) {
        let io = match work {
            Work::Read { extent, .. } => self.nodes[node].disk.read(extent),
            other => self.nodes[node].disk.begin(other),
        };
        self.nodes[node].pending.insert(io, pending);
        self.finish_later(node, io, 20_000, 250_000);
    }

    fn finish_later(&mut self, node: usize, io: u64, low: u64, high: u64) {
        let machine = &mut self.nodes[node];
        let rare = if machine.rng.one_in(24) { 12 } else { 1 };
        let delay = machine.rng.between(low, high) * rare * machine.disk.faults.slowness;
        let life = machine.life;
        self.schedule(delay, Happening::DiskIo { node, life, io });
    }

    fn is_inside(&mut self, node: usize, extent: Extent) -> bool {
        let mut end = self.granules_on(node);
        if extent.end > end {
            // It may have grown in this turn.
            end = self.found(node).map_or(end, |f| f.granules);
        }
        let inside = extent.end <= end;
        if !inside {
            self.fail(
                "S7",
                format!("node {node}: {extent:?} lies past the end of the volume, {end}"),
            );
        }
        inside
    }

    fn disk_read(&mut self, node: usize, token: Token, extent: Extent, into: ReadInto) {
        if !self.is_inside(node, extent) {
            return;
        }
        let pending = match into {
            ReadInto::Alloc => Pending::ReadAlloc(token, extent),
            ReadInto::Buf(buf) => {
                if let Err(breach) = self.nodes[node].buffers.begin_write(buf) {
                    return self.fail("O2", breach);
                }
                Pending::Read(token, buf, extent)
            }
        };
        self.begin_disk(
            node,
            Work::Read {
                extent,
                before: Vec::new(),
            },
            pending,
        );
    }

    fn disk_write(&mut self, node: usize, token: Token, extent: Extent, buf: BufId, durable: bool) {
        if !self.is_inside(node, extent) {
            return;
        }
        let tags = match self.nodes[node].buffers.begin_read(buf) {
            Ok(tags) => tags,
            Err(breach) => return self.fail("O2", breach),
        };
        if tags.len() as u64 != extent.granules() * BLOCKS_PER_GRANULE {
            return self.fail("B11", format!("{buf:?} does not cover exactly {extent:?}"));
        }
        self.law_before_write(node, extent, Some(buf));
        self.begin_disk(
            node,
            Work::Write {
                extent,
                tags,
                durable,
            },
            Pending::Write(token, buf, extent),
        );
    }

    fn job(&mut self, node: usize, token: Token, job: Job) {
        if let Job::Copy { from, to, bytes } = job {
            return self.copy(node, token, from, to, bytes);
        }
        if let Job::Covers { buf, extent } = job {
            return self.covers(node, token, buf, extent);
        }
        let (extent, pending) = match job {
            Job::Merge { buf, range } => {
                if let Err(breach) = self.nodes[node].buffers.begin_write(buf) {
                    return self.fail("O2", breach);
                }
                self.count("merges");
                (range.cover(), Pending::Merge(token, buf, range))
            }
            Job::MergeZeros { range } => (range.cover(), Pending::MergeZeros(token, range)),
            Job::Sums { extent } => (Some(extent), Pending::Sums(token, extent)),
            Job::Hashes { extent, each } => (Some(extent), Pending::Hashes(token, extent, each)),
            Job::Scrub { extent } => (Some(extent), Pending::Scrub(token, extent)),
            Job::Copy { .. } | Job::Covers { .. } => unreachable!("they touch no disk"),
        };
        let Some(extent) = extent.filter(|e| e.bytes() <= 64 << 20) else {
            return self.fail(
                "O3",
                format!("node {node}: a job on an impossible range: {job:?}"),
            );
        };
        if self.is_inside(node, extent) {
            self.begin_disk(
                node,
                Work::Read {
                    extent,
                    before: Vec::new(),
                },
                pending,
            );
        }
    }

    fn copy(&mut self, node: usize, token: Token, from: BufId, to: BufId, bytes: u64) {
        let buffers = &mut self.nodes[node].buffers;
        let source = match buffers.begin_read(from).and_then(|tags| {
            buffers.begin_write(to)?;
            Ok(tags)
        }) {
            Ok(tags) => tags,
            Err(breach) => return self.fail("O2", breach),
        };
        let count = (bytes / BLOCK) as usize;
        if count > source.len() {
            return self.fail(
                "O3",
                format!("{bytes} bytes are copied from a smaller {from:?}"),
            );
        }
        let life = self.nodes[node].life;
        let delay = self.nodes[node].rng.between(1_000, 50_000);
        self.schedule(
            delay,
            Happening::Copied {
                node,
                life,
                token,
                from,
                to,
                count,
            },
        );
    }

    /// A copy ended: tells the core.
    pub fn copied(&mut self, node: usize, token: Token, from: BufId, to: BufId, count: usize) {
        let buffers = &mut self.nodes[node].buffers;
        let tags = buffers.peek(from).to_vec();
        buffers.end_read(from);
        buffers.end_write(to, |content| {
            let count = count.min(content.len());
            content[..count].copy_from_slice(&tags[..count]);
        });
        self.feed(
            node,
            Event::JobDone {
                token,
                outcome: JobOutcome::Done,
            },
        );
    }

    fn covers(&mut self, node: usize, token: Token, buf: BufId, extent: Extent) {
        let have = match self.nodes[node].buffers.held(buf) {
            Ok(buffer) => buffer.tags.len() as u64,
            Err(breach) => return self.fail("O2", breach),
        };
        let is_covered = have >= extent.granules() * BLOCKS_PER_GRANULE;
        let (life, delay) = (self.nodes[node].life, 1_000);
        let covered = Happening::Covered {
            node,
            life,
            token,
            is_covered,
        };
        self.schedule(delay, covered);
    }

    /// A look at the length of a payload ended: tells the core.
    pub fn covered(&mut self, node: usize, token: Token, is_covered: bool) {
        let outcome = match is_covered {
            true => JobOutcome::Done,
            false => JobOutcome::Failed(DiskError::Io),
        };
        self.feed(node, Event::JobDone { token, outcome });
    }

    /// A page of checksums was read: tells the core.
    pub fn sums_read(&mut self, node: usize, read: PageRead) {
        let machine = &mut self.nodes[node];
        let life = machine.engine.as_ref().map_or(0, |e| e.sums_life());
        let area = machine.meta.area();
        let (a, b) = (block_of(area, read.block), block_of(area, read.block + 1));
        let found = meta::judge_sums(&a, &b, read.block, life);
        if let Some(table) = &mut machine.sums {
            let (values, is_lost) = (found.values.as_ref(), found.is_lost);
            table.load(read.slot, read.page, values, is_lost, read.forget);
        }
        let found = SumsFound {
            counter: found.counter,
            is_second: found.is_second,
            is_lost: found.is_lost,
        };
        let token = read.token;
        self.feed(node, Event::SumsRead { token, found });
    }

    /// What was read, compared with the checksums.
    fn check(&mut self, node: usize, pending: &Pending, tags: &[u64]) -> Result<(), DiskError> {
        let per = BLOCKS_PER_GRANULE as usize;
        let part = |range: ByteRange, is_last: bool| {
            let cover = range.cover().expect("a merge covers something");
            let (from, is_needed) = match is_last {
                true => (
                    cover.end - 1,
                    !(range.offset + range.len).is_multiple_of(GRANULE),
                ),
                false => (cover.start, !range.offset.is_multiple_of(GRANULE)),
            };
            let at = (from - cover.start) as usize * per;
            is_needed.then(|| (Extent::new(from, from + 1), &tags[at..at + per]))
        };
        let whole = |extent| [Some((extent, tags)), None];
        let parts = match *pending {
            Pending::Read(_, _, extent)
            | Pending::ReadAlloc(_, extent)
            | Pending::Hashes(_, extent, _)
            | Pending::Sums(_, extent) => whole(extent),
            Pending::Merge(_, _, range) | Pending::MergeZeros(_, range) => {
                [part(range, false), part(range, true)]
            }
            _ => [None, None],
        };
        for (extent, tags) in parts.into_iter().flatten() {
            let Some(table) = &self.nodes[node].sums else {
                return Ok(());
            };
            if let Err(bad) = table.check(extent, &sums(tags)) {
                self.note_mismatch(node, bad);
                return Err(DiskError::Checksum(bad));
            }
        }
        Ok(())
    }

    /// What was written has these checksums from now on; of what failed in part nobody knows.
    fn keep_sums(&mut self, node: usize, pending: &Pending, written: &[u64], is_ok: bool) {
        let Some(table) = &mut self.nodes[node].sums else {
            return;
        };
        match *pending {
            Pending::Write(_, _, extent) | Pending::Zero(_, extent) if !is_ok => {
                table.forget(extent);
            }
            Pending::Write(_, _, extent) => table.set(extent, &sums(written)),
            Pending::Zero(_, extent) => table.set_zeros(extent),
            _ => {}
        }
    }

    /// A data-disk operation ended: tells the core.
    pub fn disk_ended(&mut self, node: usize, io: u64) {
        let fails_flush = self.nodes[node].disk.faults.flush_error_once;
        let has_trick = self.nodes[node].disk.trick.is_some();
        let (result, tags) = self.nodes[node].disk.finish(io);
        self.nodes[node].has_failed_flush |=
            fails_flush && !self.nodes[node].disk.faults.flush_error_once;
        let pending = self.nodes[node]
            .pending
            .remove(&io)
            .expect("somebody waits for it");
        if let Pending::Write(_, buf, _) = pending {
            let written = self.nodes[node].buffers.peek(buf).to_vec();
            self.keep_sums(node, &pending, &written, result.is_ok());
        } else {
            self.keep_sums(node, &pending, &[], result.is_ok());
        }
        // A write that failed may have left anything: of what it covers nothing is known.
        if (has_trick && self.nodes[node].disk.trick.is_none()) || result.is_err() {
            self.undo_damage_nobody_could_find(node);
        }
        let result = result.and_then(|()| self.check(node, &pending, &tags));
        let scrubbed = match (pending, &mut self.nodes[node].sums) {
            (Pending::Scrub(_, extent), Some(table)) if result.is_ok() => {
                table.scrub(extent, &sums(&tags))
            }
            _ => Scrubbed::default(),
        };
        if let Some(bad) = scrubbed.bad {
            self.note_mismatch(node, bad);
        }
        let buffers = &mut self.nodes[node].buffers;
        let done = |token, buf, is_zero| Event::DiskDone {
            token,
            result,
            buf,
            is_zero,
        };
        let failed = |token, error: DiskError| Event::JobDone {
            token,
            outcome: JobOutcome::Failed(error),
        };
        let event = match (pending, result) {
            (Pending::Plain(token) | Pending::Zero(token, _), _) => done(token, None, false),
            (Pending::Scrub(token, _), Ok(())) => Event::JobDone {
                token,
                outcome: JobOutcome::Scrubbed(scrubbed),
            },
            (Pending::Write(token, buf, _), _) => {
                buffers.end_read(buf);
                done(token, None, false)
            }
            (Pending::Read(token, buf, _), Ok(())) => {
                buffers.end_write(buf, |content| *content = tags);
                done(token, None, false)
            }
            (Pending::Read(token, buf, _), Err(_)) => {
                buffers.end_write(buf, |_| {});
                done(token, None, false)
            }
            (Pending::ReadAlloc(token, _), Ok(()) | Err(DiskError::Checksum(_))) => {
                let is_zero = tags.iter().all(|t| *t == 0);
                let buf = buffers.add(tags, Origin::Alloc);
                done(token, Some(buf), is_zero)
            }
            (Pending::ReadAlloc(token, _), Err(_)) => done(token, None, false),
            (Pending::Merge(token, buf, _), Err(error)) => {
                buffers.end_write(buf, |_| {});
                failed(token, error)
            }
            (
                Pending::MergeZeros(token, _)
                | Pending::Sums(token, _)
                | Pending::Hashes(token, ..)
                | Pending::Scrub(token, _),
                Err(error),
            ) => failed(token, error),
            (Pending::Merge(token, buf, range), Ok(())) => {
                buffers.end_write(buf, |content| fill_gaps(content, &tags, range));
                Event::JobDone {
                    token,
                    outcome: JobOutcome::Done,
                }
            }
            (Pending::MergeZeros(token, range), Ok(())) => {
                let buf = buffers.add(with_hole(tags, range), Origin::Job);
                Event::JobDone {
                    token,
                    outcome: JobOutcome::Buffer(buf),
                }
            }
            (Pending::Hashes(token, _, each), Ok(())) => Event::JobDone {
                token,
                outcome: JobOutcome::Hashes(hashes(&tags, each)),
            },
            (Pending::Sums(token, _), Ok(())) => Event::JobDone {
                token,
                outcome: JobOutcome::Sums(sums(&tags)),
            },
        };
        self.note_disk(node);
        self.feed(node, event);
    }

    /// A metadata write ended: tells the core.
    pub fn meta_ended(&mut self, node: usize, io: u64, token: Token) {
        let is_durable = self.nodes[node].meta.finish(io);
        let result = if is_durable {
            Ok(())
        } else {
            Err(DiskError::Io)
        };
        self.feed(node, Event::MetaDone { token, result });
    }

    fn send(&mut self, node: usize, link: LinkId, message: Message, payload: Option<BufId>) {
        let tags = match payload.map(|buf| self.nodes[node].buffers.begin_read(buf)) {
            None => None,
            Some(Ok(tags)) => Some(tags),
            Some(Err(breach)) => return self.fail("O2", breach),
        };
        let life = self.nodes[node].life;
        if let Some(buf) = payload {
            let delay = self.nodes[node].rng.between(1_000, 60_000);
            self.schedule(delay, Happening::Sent { node, life, buf });
        }
        let Some((connection, end)) = self.net.find(node, life, link) else {
            return;
        };
        if let Err(text) = through_the_wire(&message, tags.as_ref().map(|t| &t[..])) {
            return self.fail("O6", text);
        }
        self.sending(node, link, &message, tags.as_ref().map(|t| &t[..]));
        let now = self.now;
        if let Some(at) = self.net.send(now, connection, end, message, tags) {
            self.schedule_at(
                at,
                Happening::Arrive {
                    connection,
                    end: 1 - end,
                },
            );
        }
    }

    /// Nobody is told of what came with the newest version: they talk as an earlier one does.
    fn has_old_peers(&self) -> bool {
        self.plan.seed % 8 == 5
    }

    /// A message reached its node.
    pub fn deliver(&mut self, node: usize, link: LinkId, mut frame: Frame) {
        if let Message::Hello(hello) = &mut frame.message
            && self.has_old_peers()
        {
            hello.features_offered &= !FEATURE_HASHES;
        }
        let is_resync = matches!(frame.message, Message::ResyncData { .. });
        let payload = frame.payload.map(|bytes| {
            let is_intact = bytes.is_intact;
            let origin = Origin::Payload {
                is_intact,
                is_resync,
            };
            Payload {
                buf: self.nodes[node].buffers.add(bytes.tags, origin),
                is_intact,
            }
        });
        if payload.is_some_and(|p| !p.is_intact) {
            self.count("damaged payloads");
        }
        self.arriving(node, link, &frame.message);
        self.feed(
            node,
            Event::Peer {
                link,
                message: frame.message,
                payload,
            },
        );
    }
}

/// Every message goes through its bytes, so that what cannot be said is found here.
fn through_the_wire(message: &Message, tags: Option<&[u64]>) -> Result<(), String> {
    let sums = tags.map(sums).unwrap_or_default();
    let payload_len = (sums.len() as u64 * GRANULE) as u32;
    let mut bytes = Vec::new();
    wire::encode(message, 1, &sums, payload_len, &mut bytes);
    let (head, body) = bytes
        .split_first_chunk::<{ wire::HEADER_LEN }>()
        .ok_or_else(|| format!("{message:?} has no head"))?;
    let head = wire::parse_header(head).map_err(|e| format!("head of {message:?}: {e}"))?;
    match wire::parse_body(&head, body) {
        Ok(Parsed::Message {
            message: read,
            sums: read_sums,
        }) if read == *message && read_sums.iter().eq(sums.iter().copied()) => Ok(()),
        other => Err(format!("{message:?} came out of the wire as {other:?}")),
    }
}

/// `content` covers the range rounded out to granules: what lies outside comes from the disk.
fn fill_gaps(content: &mut [u64], disk: &[u64], range: ByteRange) {
    let base = range.offset / GRANULE * BLOCKS_PER_GRANULE;
    let inside = range_blocks(range);
    for (i, tag) in content.iter_mut().enumerate() {
        if !inside.contains(&(base + i as u64)) {
            *tag = disk[i];
        }
    }
}

fn with_hole(mut granule: Vec<u64>, range: ByteRange) -> Vec<u64> {
    let base = range.offset / GRANULE * BLOCKS_PER_GRANULE;
    for block in range_blocks(range) {
        granule[(block - base) as usize] = 0;
    }
    granule
}

/// Blocks of an extent, for laws.
pub fn extent_blocks(extent: Extent) -> std::ops::Range<u64> {
    blocks(extent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_come_from_the_disk_and_the_rest_from_the_client() {
        let mut content: Vec<u64> = (100..116).collect();
        let disk: Vec<u64> = (0..16).collect();
        fill_gaps(
            &mut content,
            &disk,
            ByteRange {
                offset: 4096 + 1024,
                len: 4096,
            },
        );
        assert_eq!(
            content,
            [
                0, 1, 102, 103, 104, 105, 106, 107, 108, 109, 10, 11, 12, 13, 14, 15
            ]
        );
    }

    #[test]
    fn a_hole_is_zeros_and_the_rest_stays() {
        let granule = with_hole(
            (1..9).collect(),
            ByteRange {
                offset: 8192 + 512,
                len: 1024,
            },
        );
        assert_eq!(granule, [1, 0, 0, 4, 5, 6, 7, 8]);
    }
}
