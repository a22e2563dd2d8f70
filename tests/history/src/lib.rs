//! Records what clients saw of a volume and judges it against the laws.
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
