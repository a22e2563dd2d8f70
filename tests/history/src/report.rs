//! What the checker says.

use std::fmt;

/// The sentence of the invariants that was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Law {
    /// Each block is one register, linearizable.
    B1,
    /// A block is never a mixture of two writes.
    B2,
    /// No request takes effect after its session ended.
    B3,
    /// What was answered before an answered flush is durable.
    B4,
    /// An answered FUA write is durable.
    B5,
    /// After a loss of all volatile state a block holds its last durable value or a later one.
    B6,
    /// With one whole member left no acknowledged write is lost.
    B7,
    /// After trim or write-zeroes a block reads zeros.
    B8,
    /// No session continues over writes that may have been lost.
    B9,
    /// A value once read is not lost while B7 holds.
    R7,
}

impl fmt::Display for Law {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// One broken law.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which one.
    pub law: Law,
    /// Where; `None` if it concerns the volume.
    pub block: Option<u64>,
    /// When it showed, in the recorder's unit.
    pub time: u64,
    /// The story, with tags and times.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.block {
            Some(block) => write!(f, "law {}, block {block}: {}", self.law, self.text),
            None => write!(f, "law {}: {}", self.law, self.text),
        }
    }
}

/// How much was judged; a clean report over nothing proves nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests recorded.
    pub requests: u64,
    /// Blocks touched.
    pub blocks: u64,
    /// Block values judged.
    pub blocks_read: u64,
    /// Reads of zeros left unjudged because too many explanations were open.
    pub zeros_unnamed: u64,
    /// Answers that came after their session or the cluster had ended, and were ignored.
    pub late_answers: u64,
    /// Tags still remembered at the end.
    pub tags_held: u64,
}

/// The verdict over a history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// In the order in which they showed.
    pub violations: Vec<Violation>,
    /// What it is based on.
    pub counts: Counts,
}

impl Report {
    /// No law was broken.
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }
}
