//! What all blocks share: the era, its flushes, the crashes so far.

use crate::event::Crash;
use crate::stamp::Stamp;

/// An *era* ends when volatile state was lost on all of S ([`Crash::VolatileLost`]). The other
/// crashes end a *segment* only: nothing that counts is lost in them, so the register simply goes
/// on (laws B1, B7, R7), and what was durable before stays the floor for a later loss. Ending an
/// era there would forget that a write acknowledged before a `kill -9` and never flushed may
/// still be lost by a power cut after it.
#[derive(Debug)]
pub(crate) struct Context {
    /// A `VolatileLost` may come.
    pub may_lose: bool,
    /// Blocks forget what they can after every event, not only when they grew.
    pub is_eager: bool,
    pub segment: u64,
    pub era_start: Stamp,
    /// Latest *start* of a flush answered OK in this era. Every write answered before it is
    /// durable (B4): later flushes only add to what earlier ones made durable, so one number
    /// stands for all of them.
    pub flushed: Stamp,
    /// End of the last segment of this era that ended with durable acknowledgements.
    pub on_media: Stamp,
    /// `crashes[n]` ended segment `n`.
    pub crashes: Vec<(u64, Crash)>,
}

impl Context {
    pub fn new(may_lose: bool) -> Self {
        Self {
            may_lose,
            is_eager: false,
            segment: 0,
            era_start: Stamp::FIRST,
            flushed: Stamp::FIRST,
            on_media: Stamp::FIRST,
            crashes: Vec::new(),
        }
    }

    pub fn stamp(&self, time: u64) -> Stamp {
        Stamp::at(self.segment, time)
    }

    pub fn flush_done(&mut self, started: Stamp) {
        self.flushed = self.flushed.max(started);
    }

    /// Before the blocks hear of the crash.
    pub fn crash_begins(&mut self, crash: Crash) {
        if crash == Crash::AcksDurable {
            self.on_media = Stamp::end_of(self.segment);
        }
    }

    /// After the blocks heard of it.
    pub fn crash_ends(&mut self, time: u64, crash: Crash) {
        self.crashes.push((time, crash));
        self.segment += 1;
        if crash == Crash::VolatileLost {
            self.era_start = Stamp::start_of(self.segment);
            self.flushed = Stamp::FIRST;
            self.on_media = Stamp::FIRST;
        }
    }

    /// What stood before the era was followed by a flush or by durable acknowledgements.
    pub fn era_was_flushed(&self) -> bool {
        self.flushed > self.era_start || self.on_media > self.era_start
    }
}
