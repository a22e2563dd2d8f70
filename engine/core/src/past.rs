//! What a replica remembers of its own runs: [`Past`], by which it finds out that its metadata was
//! put back to an older state (law T8, F21).
//!
//! ```text
//!  runs of the process   1  2  3 │ 4  5  6        image of 3 put back, then started twice: 4' 5'
//!  peer remembers                      6          6 is none of 1 2 3 4' 5': it knows more than we
//! ```
//!
//! A peer makes the run that it meets durable before anything depends on the meeting, and says it
//! in every hello and ballot. Ids are drawn at random, so that an image that was started again, ever
//! so often, has other runs than those it lost. Each run is durable here before its first word:
//! whatever an honest peer remembers is found here, no matter which side crashed in between.

use crate::message::Life;
use crate::units::{NODES_MAX, NodeIdx};

/// Runs whose ids are kept.
pub const RUNS_KEPT: usize = 32;

/// The newest runs of this replica's process, and when each peer was met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// Runs up to this one are not judged: they were of another identity, or of a build that kept
    /// no runs.
    pub floor: u64,
    /// Ids by `count % RUNS_KEPT`; 0 where there is none.
    pub ids: [u64; RUNS_KEPT],
    /// By node: this replica's newest run that met it and found that it remembers nothing else.
    pub met: [Life; NODES_MAX],
}

impl Past {
    /// A run begins; `last` is the one before it. Where that is not the newest kept, another build
    /// ran meanwhile.
    pub fn begin(&mut self, last: Life, run: Life) {
        if self.id_of(last.count) != Some(last.id) {
            *self = Past::from(last.count);
        }
        self.put(run);
    }

    /// Nothing up to `floor` is judged.
    fn from(floor: u64) -> Past {
        Past {
            floor,
            ..Past::default()
        }
    }

    /// From `run` on this replica is another one, and what came before is not judged.
    pub fn renew(&mut self, run: Life) {
        *self = Past::from(run.count.saturating_sub(1));
        self.put(run);
    }

    fn put(&mut self, run: Life) {
        self.ids[(run.count % RUNS_KEPT as u64) as usize] = run.id;
    }

    fn id_of(&self, count: u64) -> Option<u64> {
        self.ids.get((count % RUNS_KEPT as u64) as usize).copied()
    }

    /// The run that `node` remembers is one of ours: the present one is `now`, or it came before it.
    /// One of another replica, that had this place before, says nothing about this one.
    ///
    /// A run too old to be kept is judged by the newest one that met this node: who remembers an
    /// older one lost its own memory, which is for it to find out.
    pub fn knows(&self, node: NodeIdx, remembered: Life, now: Life) -> bool {
        let met = self.met[usize::from(node.0)];
        let count = remembered.count;
        let is_other = remembered.id == 0 || !remembered.is_of_same_replica(now);
        if is_other || count <= self.floor || remembered == met {
            true
        } else if count > now.count {
            false
        } else if count + RUNS_KEPT as u64 > now.count {
            self.id_of(count) == Some(remembered.id)
        } else {
            count < met.count
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: NodeIdx = NodeIdx(1);

    /// A process that is started again and again.
    #[derive(Clone, Default)]
    struct Replica {
        past: Past,
        life: Life,
    }

    impl Replica {
        fn start(&mut self, id: u64) -> Life {
            let run = Life {
                count: self.life.count + 1,
                id,
            };
            self.past.begin(self.life, run);
            self.life = run;
            run
        }

        fn knows(&self, remembered: Life) -> bool {
            self.past.knows(PEER, remembered, self.life)
        }

        fn meets(&mut self) -> Life {
            self.past.met[1] = self.life;
            self.life
        }
    }

    #[test]
    fn whatever_run_an_honest_peer_met_is_known() {
        let mut replica = Replica::default();
        let mut last = Life::default();
        for id in 1..100 {
            assert!(replica.knows(last));
            let run = replica.start(id);
            assert!(replica.knows(last) && replica.knows(run));
            // It made the meeting durable, and this side may not have.
            if id % 7 == 0 {
                last = run;
            }
        }
    }

    #[test]
    fn an_old_image_started_ever_so_often_knows_less_than_its_peer() {
        let mut replica = Replica::default();
        replica.start(1);
        replica.meets();
        let mut image = replica.clone();
        let lost = replica.start(2);
        for id in 1000..1200 {
            image.start(id);
            assert!(!image.knows(lost), "after {} starts", id - 999);
        }
    }

    #[test]
    fn a_peer_that_was_away_for_long_is_still_known() {
        let mut replica = Replica::default();
        replica.start(1);
        let met = replica.meets();
        (2..300).for_each(|id| {
            replica.start(id);
        });
        assert!(replica.knows(met));
    }

    #[test]
    fn runs_of_a_replica_that_had_this_place_before_are_not_judged() {
        let mut replica = Replica::default();
        replica.start(Life::of(1, 1, 7).id);
        assert!(replica.knows(Life::of(2, 40, 8)));
        assert!(!replica.knows(Life::of(1, 40, 8)));
    }

    #[test]
    fn a_renewed_replica_is_judged_by_what_was_since() {
        let mut replica = Replica::default();
        (1..7).for_each(|id| {
            replica.start(id);
        });
        let run = Life { count: 9, id: 77 };
        replica.past.renew(run);
        replica.life = run;
        assert!(replica.knows(Life { count: 8, id: 5 }) && replica.knows(run));
        assert!(!replica.knows(Life { count: 10, id: 5 }));
    }

    #[test]
    fn runs_of_a_build_that_kept_none_are_not_judged() {
        let mut replica = Replica {
            life: Life { count: 40, id: 4 },
            ..Replica::default()
        };
        replica.start(5);
        assert!(replica.knows(Life { count: 40, id: 4 }));
        assert!(replica.knows(Life { count: 12, id: 9 }));
        assert!(!replica.knows(Life { count: 42, id: 9 }));
    }
}
