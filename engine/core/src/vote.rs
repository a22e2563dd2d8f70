//! What nodes say to each other about votes.
//!
//! Ballots travel on the control connection of two nodes, never behind data (DESIGN D13). They may
//! be lost, come late or twice: whoever asks repeats itself, and every answer names its question.

use std::sync::Arc;
use std::time::Duration;

use crate::message::Life;
use crate::quorum::CopyState;
use crate::record::Record;
use crate::table::Table;
use crate::units::{NodeIdx, Term};

/// One message about votes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ballot {
    /// Identity of the volume; 0 from a node that has none yet.
    pub volume_id: u128,
    /// The life of the speaker's replica: new when it was formatted anew.
    pub incarnation: u128,
    /// Digest of the speaker's table of nodes, 24 bits: sets of nodes mean the same to both.
    pub nodes: u32,
    /// The run of the speaker's process; 0 from a version that does not say it.
    pub life: Life,
    /// The run of the listener's process that the speaker met last; 0 for none.
    pub knows: Life,
    /// What it says.
    pub vote: Vote,
}

/// Why a voter does not promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// It promised, durably; of a trial: it would.
    Promised,
    /// It serves, or granted a lease to who does (law T7).
    Busy,
    /// It promised as much to another candidate.
    Later,
    /// It has no vote: it is blank, or was formatted anew and not admitted again (law T8).
    NoVote,
}

/// What a ballot says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vote {
    /// A candidate: promise me this term. A trial changes nothing: it finds out whether asking
    /// would disturb who reigns.
    Ask {
        /// Its term.
        term: Term,
        /// Only asked.
        is_trial: bool,
    },
    /// A voter's answer.
    Answer {
        /// The term asked for.
        term: Term,
        /// As asked.
        is_trial: bool,
        /// Yes, or why not.
        said: Said,
        /// Highest term it promised.
        promised: Term,
        /// Newest record it voted for.
        record: Option<Record>,
        /// Its copy.
        copy: CopyState,
    },
    /// Who reigns, or is about to: vote for this record.
    Store {
        /// The record.
        record: Record,
        /// Life of the blank replica that gets its vote with it; 0: it has one.
        admits: u128,
    },
    /// It is durable here, or never will be.
    Stored {
        /// Term of the record.
        term: Term,
        /// Its step.
        step: u32,
        /// Durable.
        is_stored: bool,
        /// Highest term promised here.
        promised: Term,
    },
    /// Who reigns: promise nobody else anything for a while (law T7).
    Lease {
        /// Its term.
        term: Term,
        /// Number of the request, dense within its process.
        number: u64,
        /// For how long it will count on it: the voter's own configuration may say less.
        length: Duration,
    },
    /// A voter's answer.
    Granted {
        /// The term asked for.
        term: Term,
        /// Number of the request.
        number: u64,
        /// It holds.
        is_granted: bool,
        /// Highest term promised here.
        promised: Term,
    },
    /// Who reigned does not any more: what was granted to it ends now.
    Release {
        /// Its term.
        term: Term,
        /// Who shall reign next; others let it go first. `None`: whoever is chosen.
        to: Option<NodeIdx>,
    },
    /// To who reigns: hand the role over to the speaker.
    HandOver {
        /// The reign that shall end.
        term: Term,
    },
    /// The table of nodes that is durable at the speaker. Whoever has an older one takes it over;
    /// heard whatever the listener's own table is.
    Table {
        /// The table, of version 1 or later.
        table: Arc<Table>,
        /// It answers one that was told: nobody answers it.
        is_answer: bool,
    },
}
