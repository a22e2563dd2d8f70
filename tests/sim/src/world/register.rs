//! The register of the plan: linearizable, and reached over a network that loses questions and
//! answers, delays both, and lets a question arrive after its asker gave it up.

use engine_core::record::Record;
use engine_core::register::{Access, Found, Holding};

use super::{Happening, LEASE, World};
use crate::swarm::MS;

/// What one key holds.
#[derive(Debug)]
pub struct Register {
    revision: u64,
    holding: Option<Holding>,
    /// Nobody reaches it before this time.
    pub away_until: u64,
    /// A node does not reach it before this time.
    pub cut_until: Vec<u64>,
    /// Nothing is lost on the way any more, whatever the plan says.
    is_mended: bool,
}

impl Register {
    /// It holds nothing, and so many nodes ask it.
    pub fn new(nodes: usize) -> Register {
        Register {
            revision: 0,
            holding: None,
            away_until: 0,
            cut_until: vec![0; nodes],
            is_mended: false,
        }
    }

    /// The record it holds.
    pub fn record(&self) -> Option<Record> {
        self.holding.map(|h| h.record)
    }

    fn stands(&self) -> Found {
        Found::Stands {
            revision: if self.holding.is_some() {
                self.revision
            } else {
                0
            },
            holding: self.holding,
        }
    }
}

impl World {
    fn reaches_register(&self, node: usize) -> bool {
        let register = &self.register;
        self.now >= register.away_until && self.now >= register.cut_until[node]
    }

    /// A core asks. Its shell gives a question up after a while and says so, most of the time.
    pub fn ask_register(&mut self, node: usize, number: u64, access: Access) {
        let life = self.nodes[node].life;
        if let Access::Swap { next, .. } = access
            && Holding::parse(&next.encode()) != Ok(next)
        {
            return self.fail("O6", format!("{next:?} is not read as it was written"));
        }
        self.count("questions to the register");
        let (lease, patience) = (LEASE.as_nanos() as u64, self.rng.between(20 * MS, 250 * MS));
        let one_in = match self.register.is_mended {
            true => 0,
            false => self.plan.settings.register_loss_one_in,
        };
        let mut meets_trouble = || one_in > 0 && self.rng.one_in(one_in);
        let (is_request_late, is_answer_late) = (meets_trouble(), meets_trouble());
        let is_answer_lost = meets_trouble();
        let slow = if self.rng.one_in(16) { 40 } else { 1 };
        let delay = match is_request_late {
            true => self.rng.between(MS, 2 * lease),
            false => self.rng.between(20_000, 1_000_000) * slow,
        };
        let answer = match is_answer_late {
            true => self.rng.between(MS, lease),
            false => self.rng.between(20_000, 1_000_000) * slow,
        };
        if self.reaches_register(node) {
            let answer = (!is_answer_lost).then_some(answer);
            let acts = Happening::RegisterActs {
                node,
                life,
                number,
                access,
                answer,
            };
            self.schedule(delay, acts);
        }
        if !self.rng.one_in(8) {
            let found = Found::Unknown;
            let gives_up = Happening::RegisterAnswers {
                node,
                life,
                number,
                found,
            };
            // Where answers come late, shells wait for them.
            let patience = if one_in > 0 {
                patience + lease / 2
            } else {
                patience
            };
            self.schedule(patience, gives_up);
        }
    }

    /// A question arrives.
    pub(super) fn register_acts(
        &mut self,
        (node, life, number): (usize, u64, u64),
        access: Access,
        answer: Option<u64>,
    ) {
        if self.now < self.register.away_until {
            return;
        }
        let found = match access {
            Access::Swap { expected, next } if self.stands_at(expected) => {
                let before = self.register.holding.replace(next);
                self.register.revision += 1;
                self.count("swaps");
                self.note_register(before, &next);
                let revision = self.register.revision;
                Found::Swapped { revision }
            }
            Access::Swap { .. } => {
                self.count("swaps that came too late");
                self.register.stands()
            }
            Access::Read => self.register.stands(),
        };
        match answer.filter(|_| self.reaches_register(node)) {
            Some(delay) => self.schedule(
                delay,
                Happening::RegisterAnswers {
                    node,
                    life,
                    number,
                    found,
                },
            ),
            None => self.count("answers of the register lost"),
        }
    }

    fn stands_at(&self, expected: u64) -> bool {
        matches!(self.register.stands(), Found::Stands { revision, .. } if revision == expected)
    }

    /// The operator deletes what it holds: everybody was made anew.
    pub fn wipe_register(&mut self) {
        self.register.holding = None;
    }

    /// Everybody reaches it again, and nothing is lost on the way.
    pub fn mend_register(&mut self) {
        self.register.is_mended = true;
        self.register.away_until = 0;
        self.register.cut_until.fill(0);
    }
}
