//! Who chooses records (DESIGN D4): one trait, the store of a cluster without quorum, and that of a
//! volume whose records a register outside of the nodes chooses.

#[cfg(feature = "etcd")]
use std::sync::{Arc, OnceLock};
#[cfg(feature = "etcd")]
use std::time::Duration;

use engine_core::record::{Choice, Record};
use engine_core::register::{Access, Found};

/// Chooses the record that stands.
pub(crate) trait ControlStore {
    /// Asks that `record` be chosen.
    fn propose(&mut self, record: &Record) -> Choice;

    /// Asks the register. The answer comes to the volume's reactor, or is this one.
    fn access(&mut self, number: u64, access: Access) -> Option<Found>;
}

/// A question to the register.
#[cfg(feature = "etcd")]
#[derive(Debug)]
pub(crate) struct Question {
    /// Where the answer goes.
    pub(crate) reactor: usize,
    pub(crate) volume: String,
    /// Number by which the volume knows it.
    pub(crate) number: u64,
    pub(crate) access: Access,
    /// Lease of the volume: what the answer is for is over after it.
    pub(crate) lease: Duration,
}

/// Takes a question, unless too many wait. Never waits itself.
#[cfg(feature = "etcd")]
pub(crate) type Ask = Box<dyn Fn(Question) -> bool + Send + Sync>;

/// A register that is asked by a thread of its own.
#[cfg(feature = "etcd")]
pub(crate) struct RegisterStore {
    pub(crate) ask: Arc<OnceLock<Ask>>,
    pub(crate) reactor: usize,
    pub(crate) volume: String,
    pub(crate) lease: Duration,
}

#[cfg(feature = "etcd")]
impl ControlStore for RegisterStore {
    /// Its records are chosen by swaps.
    fn propose(&mut self, _record: &Record) -> Choice {
        Choice::Unknown
    }

    fn access(&mut self, number: u64, access: Access) -> Option<Found> {
        let question = Question {
            reactor: self.reactor,
            volume: self.volume.clone(),
            number,
            access,
            lease: self.lease,
        };
        match self.ask.get().map(|ask| ask(question)) {
            Some(true) => None,
            Some(false) | None => Some(Found::Unknown),
        }
    }
}

/// `quorum = "off"`: each node's own durable record stands in place of a majority.
#[derive(Debug, Default)]
pub(crate) struct LocalStore {
    chosen: Option<Record>,
}

impl LocalStore {
    /// A store in which `chosen` stands already.
    pub(crate) fn new(chosen: Option<Record>) -> LocalStore {
        LocalStore { chosen }
    }
}

impl ControlStore for LocalStore {
    fn propose(&mut self, record: &Record) -> Choice {
        match &self.chosen {
            Some(standing) if standing != record && !record.is_newer_than(standing) => {
                Choice::Conflict(*standing)
            }
            _ => {
                self.chosen = Some(*record);
                Choice::Chosen
            }
        }
    }

    /// There is no register.
    fn access(&mut self, _number: u64, _access: Access) -> Option<Found> {
        Some(Found::Unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine_core::units::{NodeIdx, NodeSet, Term};

    fn record(term: u64, step: u32) -> Record {
        let node = NodeIdx(0);
        let in_sync = NodeSet::only(node);
        Record {
            term: Term(term << 8),
            step,
            primary: node,
            in_sync,
            branch: 1,
            voters: NodeSet::EMPTY,
            is_released: false,
        }
    }

    #[test]
    fn only_a_newer_record_replaces_the_one_that_stands() {
        let mut store = LocalStore::new(Some(record(1, 0)));
        assert_eq!(store.propose(&record(1, 1)), Choice::Chosen);
        assert_eq!(store.propose(&record(1, 0)), Choice::Conflict(record(1, 1)));
        assert_eq!(store.propose(&record(2, 0)), Choice::Chosen);
        assert_eq!(store.propose(&record(2, 0)), Choice::Chosen);
    }
}
