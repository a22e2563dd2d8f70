//! Random small histories of a register that keeps the laws, and of one that does not.

pub mod random;

use history::{Crash, History, Op, OpId, Outcome, Seen, Session};

use random::Random;

/// What a generated history is like.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub steps: u64,
    pub blocks: u64,
    /// One write in this many writes zeros; 0: none does.
    pub zeros: u64,
    /// One step in this many is a crash; 0: none is.
    pub crashes: u64,
    pub may_lose: bool,
    /// One read in this many returns a value it should not, one crash in as many keeps too
    /// little; 0: never.
    pub lies: u64,
}

struct Running {
    id: OpId,
    session: Session,
    op: Op,
    started: usize,
    applied: bool,
    failed: bool,
    found: Vec<Seen>,
}

struct Version {
    value: Seen,
    id: Option<OpId>,
    /// The block held it when the era began; what stands before it are its rivals.
    is_first: bool,
}

struct Cluster {
    plan: Plan,
    random: Random,
    history: History,
    time: u64,
    running: Vec<Running>,
    /// Per block, what a loss could bring back; the last one is what it holds.
    blocks: Vec<Vec<Version>>,
    /// All values ever written to each block.
    written: Vec<Vec<Seen>>,
    /// Acknowledged writes with the step of their answer.
    answered: Vec<(OpId, usize)>,
    step: usize,
    next_tag: u64,
    next_session: u64,
}

/// One history, complete with whatever was still running.
pub fn generate(seed: u64, plan: Plan) -> History {
    let mut cluster = Cluster {
        plan,
        random: Random::new(seed),
        history: History::default(),
        time: 0,
        running: Vec::new(),
        blocks: (0..plan.blocks)
            .map(|_| {
                vec![Version {
                    value: Seen::Zero,
                    id: None,
                    is_first: true,
                }]
            })
            .collect(),
        written: (0..plan.blocks).map(|_| vec![Seen::Zero]).collect(),
        answered: Vec::new(),
        step: 0,
        next_tag: 1,
        next_session: 1,
    };
    for _ in 0..plan.steps {
        cluster.step += 1;
        cluster.time += cluster.random.below(3);
        cluster.act();
    }
    cluster.history
}

impl Cluster {
    fn act(&mut self) {
        if self.plan.crashes > 0 && self.random.one_in(self.plan.crashes) {
            return self.crash();
        }
        match self.random.below(10) {
            0..=3 => self.invoke(),
            4 => self.apply(),
            5..=8 => self.complete(),
            _ if self.random.one_in(4) => self.close(),
            _ => self.apply(),
        }
    }

    fn invoke(&mut self) {
        let first = self.random.below(self.plan.blocks);
        let count = 1 + self.random.below(self.plan.blocks - first);
        let fua = self.random.one_in(6);
        let op = match self.random.below(10) {
            0..=3 if self.plan.zeros > 0 && self.random.one_in(self.plan.zeros) => {
                Op::Zero { first, count, fua }
            }
            0..=3 => {
                let tags = (0..count).map(|at| self.next_tag + at).collect();
                self.next_tag += count;
                Op::Write { first, tags, fua }
            }
            4..=8 => Op::Read { first, count },
            _ => Op::Flush,
        };
        let session = Session(self.next_session + self.random.below(3));
        let id = self.history.invoke(self.time, session, op.clone());
        self.running.push(Running {
            id,
            session,
            op,
            started: self.step,
            applied: false,
            failed: false,
            found: Vec::new(),
        });
    }

    fn apply(&mut self) {
        let waiting: Vec<usize> = (0..self.running.len())
            .filter(|&at| !self.running[at].applied)
            .collect();
        if !waiting.is_empty() {
            let at = waiting[self.random.below(waiting.len() as u64) as usize];
            self.apply_one(at);
        }
    }

    fn apply_one(&mut self, at: usize) {
        let running = &mut self.running[at];
        running.applied = true;
        let (first, count) = running.op.extent();
        for block in first..first + count {
            let value = match &running.op {
                Op::Write { tags, .. } => Seen::Tag(tags[(block - first) as usize]),
                Op::Zero { .. } => Seen::Zero,
                Op::Read { .. } => {
                    let held = self.blocks[block as usize]
                        .last()
                        .map_or(Seen::Zero, |v| v.value);
                    let lie = self.plan.lies > 0 && self.random.one_in(self.plan.lies);
                    let other = |seen: &&Seen| **seen != held;
                    let others: Vec<&Seen> =
                        self.written[block as usize].iter().filter(other).collect();
                    running.found.push(match others.len() as u64 {
                        _ if !lie => held,
                        0 => Seen::Tag(u64::MAX),
                        n => *others[self.random.below(n) as usize],
                    });
                    continue;
                }
                Op::Flush => continue,
            };
            self.blocks[block as usize].push(Version {
                value,
                id: Some(running.id),
                is_first: false,
            });
            self.written[block as usize].push(value);
        }
    }

    fn complete(&mut self) {
        let open: Vec<usize> = (0..self.running.len())
            .filter(|&at| !self.running[at].failed)
            .collect();
        if open.is_empty() {
            return;
        }
        let at = open[self.random.below(open.len() as u64) as usize];
        if self.random.one_in(8) {
            self.running[at].failed = true;
            self.history
                .complete(self.time, self.running[at].id, Outcome::Failed);
            if !matches!(self.running[at].op, Op::Write { .. } | Op::Zero { .. }) {
                self.running.remove(at);
            }
            return;
        }
        if !self.running[at].applied {
            self.apply_one(at);
        }
        let done = self.running.remove(at);
        match &done.op {
            Op::Read { .. } => {
                return self
                    .history
                    .complete(self.time, done.id, Outcome::Read(done.found));
            }
            Op::Write { fua, .. } | Op::Zero { fua, .. } => {
                self.answered.push((done.id, self.step));
                if *fua {
                    self.make_durable(&[done.id]);
                }
            }
            Op::Flush => {
                let before = |(id, step): &(OpId, usize)| (*step < done.started).then_some(*id);
                let ids: Vec<OpId> = self.answered.iter().filter_map(before).collect();
                self.make_durable(&ids);
                self.make_first_durable();
            }
        }
        self.history.complete(self.time, done.id, Outcome::Done);
    }

    /// Nothing older than these can come back.
    fn make_durable(&mut self, ids: &[OpId]) {
        for versions in &mut self.blocks {
            let last = versions
                .iter()
                .rposition(|v| v.id.is_some_and(|id| ids.contains(&id)));
            versions.drain(..last.unwrap_or(0));
        }
    }

    /// A flush in a new era covers what the era began with, if that was acknowledged once.
    fn make_first_durable(&mut self) {
        for versions in &mut self.blocks {
            let answered = |v: &Version| match v.id {
                Some(id) => self.answered.iter().any(|(one, _)| *one == id),
                None => true,
            };
            let first = versions.iter().position(|v| v.is_first && answered(v));
            versions.drain(..first.unwrap_or(0));
        }
    }

    fn close(&mut self) {
        let session = Session(self.next_session);
        self.next_session += 1;
        self.history.close(self.time, session);
        self.running.retain(|running| running.session != session);
    }

    fn crash(&mut self) {
        let crash = match self.random.below(4) {
            0 => Crash::MemberWhole,
            1 => Crash::AcksDurable,
            _ if self.plan.may_lose => Crash::VolatileLost,
            _ => Crash::MemberWhole,
        };
        let lie = self.plan.lies > 0 && self.random.one_in(self.plan.lies);
        if crash == Crash::VolatileLost || lie {
            for versions in &mut self.blocks {
                // The value the block comes back with moves to the end; the others stay possible.
                let at = self.random.below(versions.len() as u64) as usize;
                let survivor = versions.remove(at);
                versions.push(survivor);
                if crash == Crash::VolatileLost {
                    let last = versions.len() - 1;
                    for (at, version) in versions.iter_mut().enumerate() {
                        version.is_first = at == last;
                    }
                }
            }
        }
        if crash == Crash::AcksDurable {
            for versions in &mut self.blocks {
                versions.drain(..versions.len() - 1);
            }
        }
        self.running.clear();
        self.next_session += 3;
        self.history.crash(self.time, crash);
    }
}
