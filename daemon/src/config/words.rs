//! Words of the file for settings that have a few values. What is read and what is told come from
//! the same table.

use engine::control::{
    Allocation, Attach, Cache, Checksums, Completion, Polling, QuorumLoss, Reads, SplitBrain,
    WritePolicy,
};

/// A setting of a few values, each with its word in the file, in the API and in the command line.
pub(crate) trait Words: Copy + 'static {
    /// All values with their words, as they are listed for people.
    const WORDS: &'static [(&'static str, Self)];

    /// Its word.
    fn word(self) -> &'static str;
}

macro_rules! words {
    ($kind:ident: $($value:ident = $word:literal),+) => {
        impl Words for $kind {
            const WORDS: &'static [(&'static str, Self)] = &[$(($word, $kind::$value)),+];

            fn word(self) -> &'static str {
                match self {
                    $($kind::$value => $word,)+
                }
            }
        }
    };
}

words!(WritePolicy: Written = "written", Durable = "durable");
words!(Allocation: Thin = "thin", Full = "full");
words!(Cache: Direct = "direct", Buffered = "buffered", DontCache = "dontcache");
words!(Completion: Interrupt = "interrupt", Poll = "poll", PollIfPossible = "poll_if_possible");
words!(Polling: Balanced = "balanced", Latency = "latency", Cpu = "cpu");
words!(SplitBrain: Manual = "manual", DiscardUnchanged = "discard-zero-changes");
words!(Reads: Local = "local", Balanced = "balanced");
words!(QuorumLoss: Freeze = "freeze", Fail = "fail");
words!(Checksums: Off = "off", On = "on");
words!(Attach: Shared = "shared", Exclusive = "exclusive", Takeover = "takeover");
