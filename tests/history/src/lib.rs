//! Records what clients saw of a volume and judges it against laws B1–B9 and R7.
//!
//! The simulator and the scenario tests share it; clients in other languages write the text form
//! ([`History::parse`]) and run `history check FILE`.
//!
//! ```text
//!  client ──invoke──►┐                      ┌─ Block 0 ─ clusters, hypotheses ─┐
//!  client ──complete►├─► Checker ─ per block┼─ Block 1 ─        …             ─┼─► Violation{law,
//!  tester ──close───►│   sessions, flushes, └─ Block n ─        …             ─┘    block, story}
//!  tester ──crash───►┘   eras
//!
//!  event      the words of a history          block     one block: names reads, finds conflicts
//!  recording  a history kept whole            cluster   a write with its reads, as an interval
//!  text       … as lines                      settle    what is forgotten, survives, is left
//!  checker    one event at a time             story     which law, told with times and tags
//!  exhaustive the same laws by plain search   report    the verdict and what it rests on
//! ```
//!
//! # How it judges
//! Every write carries a unique tag in every block, so a read names its write. A write with its
//! reads is an interval (`cluster`); two that must each precede the other cannot both have been
//! true. Zeros carry no tag: every consistent way to name them is kept until one is left or none
//! (`cluster::Hypothesis`). Requests without an OK may have happened, until their session ended
//! (B3). A crash that lost volatile state ends an *era*: the next one starts with the values such
//! a loss may leave (`settle`), and the first read decides among them.
//!
//! Two points where the laws leave room, and how they are read here:
//! - What survived a loss is not durable by that alone: until a flush answered OK in the new era
//!   (or a later durable write), a second loss may bring back any value the first one could have.
//!   The flush covers it only if it was once acknowledged (B4 speaks of answered writes).
//! - Crashes that lose nothing do not end an era, only sessions. What was acknowledged before a
//!   `kill -9` and never flushed may still fall to a power cut after it.
//!
//! # What the recorder owes
//! - `invoke` before the first byte is sent, `complete` after the answer is in, in order of time
//!   (clients on several threads share the checker behind a mutex and read the clock inside).
//!   Intervals may be longer than the truth, never shorter.
//! - `close` when it is *known* that nothing of the session can take effect any more. A client
//!   that hung up knows nothing: its requests stay pending.
//! - `crash` when the cluster is down, after the answers still in sockets were drained and before
//!   anything restarts. All sessions are over then. A failover that sessions survive is no crash
//!   here: B1 simply holds throughout.
//! - Fresh volumes: blocks read zeros before the first write.
//!
//! # What it does not do
//! It does not see disks, so R8, S1, T1–T6, D1 and M3 are the simulator's. It knows no weaker
//! acknowledgements than *written* (R9), and no promotion by force (T10): start a new history. It
//! judges blocks alone, so torn requests are legal, and cuts over several volumes (D6) are not
//! its matter. A block is judged until its first violation. It may leave single reads of zeros
//! unjudged when more than 128 explanations are open, and says so in [`Counts`].
//!
//! # Cost
//! A block forgets what can no longer be read. Without possible loss it holds the requests in
//! flight and a few values; with it, all values since its last durable write. An event costs a
//! scan of what may still be read, and O(log n) amortized for forgetting.
//!
//! ```
//! use history::{Checker, Crash, Law, Op, Outcome, Seen, Session};
//!
//! let mut checker = Checker::new();
//! let write = checker.invoke(10, Session(1), Op::Write { first: 7, tags: vec![23], fua: true })?;
//! checker.complete(20, write, Outcome::Done)?;
//! checker.crash(30, Crash::VolatileLost)?;
//! let read = checker.invoke(40, Session(2), Op::Read { first: 7, count: 1 })?;
//! checker.complete(50, read, Outcome::Read(vec![Seen::Zero]))?;
//!
//! let report = checker.finish();
//! assert_eq!(report.violations[0].law, Law::B5);
//! println!("{}", report.violations[0]);
//! # Ok::<(), history::RecordError>(())
//! ```
#![forbid(unsafe_code)]

mod block;
mod checker;
mod cluster;
mod context;
mod event;
pub mod exhaustive;
mod recording;
mod report;
mod settle;
mod stamp;
mod story;
mod text;

pub use checker::Checker;
pub use event::{Crash, Event, Op, OpId, Outcome, REQUEST_BLOCKS_MAX, RecordError, Seen, Session};
pub use recording::History;
pub use report::{Counts, Law, Report, Violation};
pub use text::ParseError;
