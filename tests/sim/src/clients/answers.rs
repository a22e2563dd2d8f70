//! The core answers: what came is compared with what was asked, and the history judges.

use std::rc::Rc;

use engine_core::action::Outcome;
use engine_core::event::{ReqId, SessionId};
use history::{Crash, Outcome as Answered, Seen, Session as Known};

use super::{Kind, POISON, Request};
use crate::disk::{BLOCKS_PER_GRANULE, ROTTEN};
use crate::world::{LEASE, World};

impl World {
    /// The core answered a request.
    pub fn completed(&mut self, node: usize, session: SessionId, req: ReqId, outcome: Outcome) {
        let all = self
            .clients
            .slots
            .iter_mut()
            .flatten()
            .chain(&mut self.clients.closing);
        let request = all
            .filter(|s| s.id == session && s.node == node)
            .find_map(|s| s.requests.remove(&req.0));
        let Some(request) = request else {
            return self.fail(
                "D2",
                format!("{req:?} of {session:?} is answered, nobody asked"),
            );
        };
        let (tags, is_filling) = match request.buf {
            None => (Rc::default(), false),
            Some(buf) => match self.nodes[node].buffers.end_request(buf) {
                Ok(content) => content,
                Err(breach) => return self.fail("O2", breach),
            },
        };
        let is_ok = outcome == Outcome::Ok;
        if is_ok && is_filling {
            return self.fail(
                "O2",
                format!("{req:?} is answered while its buffer is filled"),
            );
        }
        let refused = matches!(
            outcome,
            Outcome::Busy | Outcome::Aborted | Outcome::OutOfRange | Outcome::NotPrimary
        );
        if refused && request.is_dispatched {
            let text = format!("{req:?} was dispatched and is answered {outcome:?}");
            return self.fail("B12", text);
        }
        self.count(match outcome {
            Outcome::Ok => "answers: ok",
            Outcome::Busy => "answers: busy",
            Outcome::Aborted => "answers: aborted",
            Outcome::OutOfRange => "answers: out of range",
            Outcome::NotPrimary => "answers: not primary",
            Outcome::Io => "answers: io error",
            Outcome::NoSpace => "answers: no space",
            Outcome::Stopping => "answers: stopping",
            Outcome::Superseded => "answers: superseded",
        });
        self.law_only_disks_fail_requests(node, &request, outcome);
        let end = self.granules_on(node) * BLOCKS_PER_GRANULE;
        if is_ok && request.blocks.end > end {
            let text = format!("{:?} past the end, {end}, is answered OK", request.blocks);
            return self.fail("B13", text);
        }
        if request.kind == Kind::Beyond {
            return;
        }
        if outcome == Outcome::OutOfRange && request.is_inside {
            return self.fail(
                "B13",
                format!("{req:?} lies inside and is answered OutOfRange"),
            );
        }
        if is_ok {
            if self.has_votes() && request.kind == Kind::Read {
                self.law_nobody_else_reigns(node);
            }
            if self.has_votes() && self.now - request.since > LEASE.as_nanos() as u64 {
                self.count("answers after a wait longer than a lease");
            }
            self.clients.answered += 1;
            self.answered_ok(node, &request, &tags);
        }
        self.clients.has_refused_for_space |= outcome == Outcome::NoSpace;
        self.record_answer(&request, is_ok, &tags);
    }

    fn answered_ok(&mut self, node: usize, request: &Request, tags: &[u64]) {
        match request.kind {
            Kind::Read => {
                let base = request.blocks.start / BLOCKS_PER_GRANULE * BLOCKS_PER_GRANULE;
                for block in request.blocks.clone() {
                    let tag = tags[(block - base) as usize];
                    if tag == POISON {
                        self.fail("B1", format!("block {block} was read and never filled"));
                        return;
                    }
                    if tag >= ROTTEN {
                        let text =
                            format!("node {node} answers a read of block {block} with {tag:x}");
                        self.fail("B12", text);
                        return;
                    }
                    self.law_read(node, block, tag);
                }
            }
            Kind::Write | Kind::Zero => {
                let blocks = match request.kind {
                    Kind::Write => request.blocks.clone().collect(),
                    _ => self.hot_blocks(&request.blocks),
                };
                self.law_write_answered(node, request, &blocks);
                self.change_answered(&blocks);
                for block in blocks {
                    let newest = self.clients.acked.entry(block).or_default();
                    *newest = (*newest).max(request.number);
                }
            }
            Kind::Flush => self.law_flush_answered(node, &request.must_be_durable),
            Kind::Beyond => {}
        }
    }

    fn record_answer(&mut self, request: &Request, is_ok: bool, tags: &[u64]) {
        let time = self.clients.tick();
        let Some(history) = &mut self.clients.history else {
            return;
        };
        let base = request.blocks.start / BLOCKS_PER_GRANULE * BLOCKS_PER_GRANULE;
        for id in &request.known_as {
            let outcome = match request.kind {
                _ if !is_ok => Answered::Failed,
                Kind::Read => Answered::Read(
                    request
                        .blocks
                        .clone()
                        .map(|block| match tags[(block - base) as usize] {
                            0 => Seen::Zero,
                            tag => Seen::Tag(tag),
                        })
                        .collect(),
                ),
                _ => Answered::Done,
            };
            history
                .complete(time, *id, outcome)
                .expect("the request is open");
        }
        self.judge_history();
    }

    fn judge_history(&mut self) {
        let found = self
            .clients
            .history
            .as_ref()
            .and_then(|h| h.violations().first());
        if let Some(violation) = found {
            let (law, text) = (violation.law.to_string(), violation.to_string());
            self.fail(&law, text);
        }
    }

    /// Nothing of this session runs any more.
    pub fn quiet(&mut self, node: usize, id: SessionId) {
        let at = self
            .clients
            .closing
            .iter()
            .position(|s| s.id == id && s.node == node);
        let Some(at) = at else {
            return self.fail("B3", format!("{id:?} is quiet, nobody closed it"));
        };
        let session = self.clients.closing.remove(at);
        for request in session.requests.values() {
            let Some(buf) = request.buf else { continue };
            if self.is_writing_from(node, buf) {
                return self.fail(
                    "B3",
                    format!("{id:?} is quiet while {buf:?} is being written"),
                );
            }
            if let Err(breach) = self.nodes[node].buffers.end_request(buf) {
                return self.fail("O2", breach);
            }
        }
        let time = self.clients.tick();
        if let Some(history) = &mut self.clients.history {
            history
                .close(time, Known(id.0))
                .expect("the session is open");
        }
        self.judge_history();
    }

    /// The process that served these sessions is dead.
    pub fn sessions_end(&mut self, node: usize) {
        for slot in &mut self.clients.slots {
            if slot.as_ref().is_some_and(|s| s.node == node) {
                *slot = None;
            }
        }
        self.clients.closing.retain(|s| s.node != node);
    }

    /// A node was promoted: what the crash before it, if any, could have taken is known now.
    pub fn judge_crash(&mut self) {
        let Some(members) = self.clients.crashed_with.take() else {
            return;
        };
        let is_whole = members.iter().any(|n| {
            let machine = &self.nodes[*n];
            !machine.lost_power && !machine.is_gone && !machine.is_condemned
        });
        let crash = match (is_whole, self.plan.settings.is_durable_policy) {
            (true, _) => Crash::MemberWhole,
            (false, 1) => Crash::AcksDurable,
            _ => Crash::VolatileLost,
        };
        if crash == Crash::VolatileLost {
            self.count("losses of all volatile state");
            self.clients.acked.clear();
            self.all().for_each(|n| self.laws.forget_holdings(n));
        }
        let time = self.clients.tick();
        // What a full disk took of a failed write may have been read, and is durable by nothing (B6).
        let is_partly_lost = crash == Crash::AcksDurable && self.clients.has_refused_for_space;
        let loss = is_partly_lost.then_some(Crash::VolatileLost);
        if let Some(history) = &mut self.clients.history {
            for crash in [crash].into_iter().chain(loss) {
                history.crash(time, crash).expect("a crash can be recorded");
            }
        }
        self.clients.has_refused_for_space &= crash == Crash::MemberWhole;
        self.judge_history();
    }

    /// Closes the books.
    pub fn finish_history(&mut self) {
        let Some(history) = self.clients.history.take() else {
            return;
        };
        let report = history.finish();
        if let Some(violation) = report.violations.first() {
            let (law, text) = (violation.law.to_string(), violation.to_string());
            self.fail(&law, text);
        }
    }
}
