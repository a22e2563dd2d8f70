//! A plan: what is done to the world and when. Drawn from a seed, stored as text, shrunk by
//! leaving steps out.
//!
//! ```text
//! seed 4711
//! set granules 4096
//! at 1500000 write 0 72 8 0
//! at 2000000 kill 1 30000000
//! ```

use std::fmt::Write as _;

/// What a run is made of, drawn from its seed and kept as numbers so that a text can hold it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Nodes with a replica.
    pub nodes: u64,
    /// Size of the volume.
    pub granules: u64,
    /// Hot spots that clients use.
    pub spots: u64,
    /// Granules of each hot spot.
    pub spot_granules: u64,
    /// Acknowledge once durable instead of once stored.
    pub is_durable_policy: u64,
    /// Bit *i*: the disk of node *i* forgets unflushed writes in a power cut.
    pub volatile_nodes: u64,
    /// Reads are balanced, with a margin of this less one; 0: they are local.
    pub read_margin: u64,
    /// Activity-log slots.
    pub log_slots: u64,
    /// Pages of checksums in memory; 0: none are stored.
    pub sum_pages: u64,
    /// Client requests the core takes at once.
    pub requests_max: u64,
    /// Sessions.
    pub sessions: u64,
    /// Actions of a batch are carried out in random order.
    pub is_shuffled: u64,
    /// A promotion while the other node may serve is part of the plan (law T9).
    pub is_bold: u64,
    /// Connections may be doubled: one attempt in this many.
    pub double_one_in: u64,
    /// Sample every so many events as if the process died there (law S1).
    pub sample_every: u64,
    /// A majority chooses records, and nodes promote themselves.
    pub has_votes: u64,
    /// Nodes that vote and hold no data.
    pub witnesses: u64,
    /// One ballot in this many is lost; 0 is none. As many come twice.
    pub ballot_loss_one_in: u64,
    /// Requests fail while there is no majority, instead of waiting for it.
    pub fails_without_quorum: u64,
    /// A register chooses records in the place of voters.
    pub has_register: u64,
    /// One question to the register in this many meets trouble; 0 is none.
    pub register_loss_one_in: u64,
    /// Nodes that may become witnesses.
    pub spares: u64,
    /// Nodes that may become replicas; then there are no witnesses.
    pub newcomers: u64,
}

/// Order and names of the settings in a text.
macro_rules! settings {
    ($($name:ident),* $(,)?) => {
        impl Settings {
            /// Name and value of each.
            pub fn list(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name)),*]
            }

            fn slot(&mut self, name: &str) -> Option<&mut u64> {
                match name {
                    $(stringify!($name) => Some(&mut self.$name),)*
                    _ => None,
                }
            }
        }
    };
}
settings!(
    nodes,
    granules,
    spots,
    spot_granules,
    is_durable_policy,
    volatile_nodes,
    read_margin,
    log_slots,
    sum_pages,
    requests_max,
    sessions,
    is_shuffled,
    is_bold,
    double_one_in,
    sample_every,
    has_votes,
    witnesses,
    ballot_loss_one_in,
    fails_without_quorum,
    has_register,
    register_loss_one_in,
    spares,
    newcomers,
);

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            nodes: 2,
            granules: 4096,
            spots: 4,
            spot_granules: 8,
            is_durable_policy: 0,
            volatile_nodes: 3,
            read_margin: 0,
            log_slots: 64,
            sum_pages: 0,
            requests_max: 32,
            sessions: 3,
            is_shuffled: 1,
            is_bold: 0,
            double_one_in: 0,
            sample_every: 40,
            has_votes: 0,
            witnesses: 0,
            ballot_loss_one_in: 0,
            fails_without_quorum: 0,
            has_register: 0,
            register_loss_one_in: 0,
            spares: 0,
            newcomers: 0,
        }
    }
}

/// Declares [`Step`] with its name in texts and its numbers.
macro_rules! steps {
    ($($(#[$doc:meta])* $variant:ident $word:literal ($($field:ident),*);)*) => {
        /// One thing done to the world. Blocks are numbered within the volume, times are
        /// nanoseconds.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs)] // the fields are named as what they hold
        pub enum Step {
            $($(#[$doc])* $variant { $($field: u64),* },)*
        }

        impl Step {
            /// Its name and numbers.
            pub fn words(&self) -> (&'static str, Vec<u64>) {
                match *self {
                    $(Step::$variant { $($field),* } => ($word, vec![$($field),*]),)*
                }
            }

            fn from_words(word: &str, numbers: &[u64]) -> Option<Step> {
                let mut numbers = numbers.iter().copied();
                let step = match word {
                    $($word => Step::$variant { $($field: numbers.next()?),* },)*
                    _ => return None,
                };
                numbers.next().is_none().then_some(step)
            }
        }
    };
}
steps! {
    /// A client reads.
    Read "read" (slot, first, count);
    /// A client writes.
    Write "write" (slot, first, count, fua);
    /// A client makes zeros; `how`: 0 trim, 1 may trim, 2 allocate.
    Zero "zero" (slot, first, count, how, fua);
    /// A client flushes.
    Flush "flush" (slot);
    /// A client gives up a request.
    Abort "abort" (slot);
    /// A client leaves with requests in flight.
    Close "close" (slot);
    /// A client asks past the end.
    Beyond "beyond" (slot);
    /// kill -9, started again later.
    Kill "kill" (node, down);
    /// kill -9 right after the node handled so many events, in the middle of the actions.
    KillAtEvent "kill_at_event" (node, events, down);
    /// kill -9 while the so many-th metadata write from now is under way.
    KillInMetaWrite "kill_in_meta_write" (node, writes, down);
    /// Power cut at that event; bit *i* of `keep`: the *i*-th block not durable is kept.
    CutPowerAtEvent "cut_power_at_event" (node, events, keep, down);
    /// kill -9 in that event, after so many of its actions.
    KillInEvent "kill_in_event" (node, events, actions, down);
    /// Power cut in that event, after so many of its actions; bit *i* of `keep`: the *i*-th block
    /// that is on its way or not durable is kept.
    CutPowerInEvent "cut_power_in_event" (node, events, actions, keep, down);
    /// Nothing passes between a node and a peer for a while, from that event of the node on.
    CutWireAtEvent "cut_wire_at_event" (node, events, peer, span);
    /// Power cut of one node.
    CutPower "cut_power" (node, down);
    /// Power cut of all nodes.
    CutAllPower "cut_all_power" (down);
    /// Nothing passes between two nodes for a while.
    CutWire "cut_wire" (a, b, span);
    /// Nothing passes between a node and all others for a while.
    Isolate "isolate" (node, span);
    /// Nobody reaches the register for a while.
    RegisterAway "register_away" (span);
    /// One node does not reach it for a while.
    RegisterCut "register_cut" (node, span);
    /// Everything between two nodes is late.
    StallWire "stall_wire" (a, b, span);
    /// Everything between two nodes is slow.
    SlowWire "slow_wire" (a, b, factor, span);
    /// Bytes are damaged between two nodes: one message in so many.
    DamageWire "damage_wire" (a, b, one_in, span);
    /// The process does nothing for a while (SIGSTOP).
    Pause "pause" (node, span);
    /// Every write of the data disk fails from now on.
    WriteErrors "write_errors" (node);
    /// The next flush fails, later ones "succeed".
    FlushError "flush_error" (node);
    /// Reads fail for a while.
    ReadErrors "read_errors" (node, span);
    /// The disk is full for a while.
    Full "full" (node, span);
    /// Nothing completes on the data disk for a while.
    Hang "hang" (node, span);
    /// The data disk is slower.
    Slow "slow" (node, factor, span);
    /// Metadata cannot be written from now on.
    MetaErrors "meta_errors" (node);
    /// Metadata writes do not complete for a while.
    MetaHang "meta_hang" (node, span);
    /// Plain promote where law T9 has to say no.
    PromoteNaively "promote_naively" (node);
    /// Plain promote of a node that is cut off from a live primary.
    PromoteBoldly "promote_boldly" (node);
    /// Hand the primary role over.
    Switch "switch" ();
    /// By votes: a node takes the role over from who has it.
    TakeOver "take_over" (node);
    /// Drop a peer and keep it down for a while.
    Disconnect "disconnect" (node, peer, span);
    /// Pause resync for a while.
    PauseResync "pause_resync" (node, span);
    /// Compare the copies.
    Verify "verify" ();
    /// Format a secondary anew.
    Replace "replace" (node);
    /// Keep an image of a node's disks.
    KeepImage "keep_image" (node);
    /// Put that image back (a rollback, a clone, an old disk).
    BringBack "bring_back" (node);
    /// That image, once it is back, is started so often without meeting anybody.
    Lonely "lonely" (node, times);
    /// Limit resync to bytes per second.
    ResyncRate "resync_rate" (node, rate);
    /// Begin to keep what changed, as one of a few marks.
    MarkCreate "mark_create" (name);
    /// Keep it no more.
    MarkDelete "mark_delete" (name);
    /// SIGTERM, started again later.
    Stop "stop" (node, down);
    /// This node is to be a witness.
    AddWitness "add_witness" (node);
    /// It is not to be one any more.
    RemoveWitness "remove_witness" (node);
    /// This node is to be a replica.
    AddReplica "add_replica" (node);
    /// It is not to be one any more.
    RemoveReplica "remove_replica" (node);
    /// Bits flip in one of the granules that clients use.
    Rot "rot" (node, hot);
    /// The next write of the data disk ends well and never lands.
    LoseWrite "lose_write" (node);
    /// The next write of the data disk lands so many granules further on.
    Misdirect "misdirect" (node, by);
    /// This node's copy is compared with its checksums, at so many bytes per second.
    Scrub "scrub" (node, rate);
    /// The volume is to have so many granules; `held` 1: a longer backing held something there.
    Grow "grow" (size, held);
}

impl Step {
    /// The same done to other nodes, of so many.
    pub fn retargeted(self, mut draw: impl FnMut() -> u64, nodes: u64) -> Step {
        let (word, mut numbers) = self.words();
        let is_on_node = matches!(
            self,
            Step::Kill { .. }
                | Step::KillAtEvent { .. }
                | Step::KillInMetaWrite { .. }
                | Step::CutPowerAtEvent { .. }
                | Step::CutPower { .. }
                | Step::Pause { .. }
                | Step::WriteErrors { .. }
                | Step::FlushError { .. }
                | Step::ReadErrors { .. }
                | Step::Full { .. }
                | Step::Hang { .. }
                | Step::Slow { .. }
                | Step::MetaErrors { .. }
                | Step::MetaHang { .. }
                | Step::PauseResync { .. }
                | Step::Replace { .. }
                | Step::ResyncRate { .. }
                | Step::Stop { .. }
        );
        let is_between = matches!(
            self,
            Step::CutWire { .. }
                | Step::StallWire { .. }
                | Step::SlowWire { .. }
                | Step::DamageWire { .. }
                | Step::Disconnect { .. }
        );
        if is_on_node || is_between {
            numbers[0] = draw();
        }
        if is_between {
            numbers[1] = (numbers[0] + 1 + draw() % (nodes - 1)) % nodes;
        }
        Step::from_words(word, &numbers).expect("only nodes were exchanged")
    }
}

/// A run, wholly described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Decides latencies, orders and outcomes.
    pub seed: u64,
    /// The world.
    pub settings: Settings,
    /// When and what, in order of time.
    pub steps: Vec<(u64, Step)>,
}

impl Plan {
    /// As text, to keep and replay.
    pub fn to_text(&self) -> String {
        let mut text = format!("seed {}\n", self.seed);
        for (name, value) in self.settings.list() {
            let _ = writeln!(text, "set {name} {value}");
        }
        for (at, step) in &self.steps {
            let (word, numbers) = step.words();
            let _ = write!(text, "at {at} {word}");
            numbers.iter().for_each(|n| {
                let _ = write!(text, " {n}");
            });
            text.push('\n');
        }
        text
    }

    /// Reads a text; the error names the line.
    pub fn parse(text: &str) -> Result<Plan, String> {
        let mut plan = Plan {
            seed: 0,
            settings: Settings::default(),
            steps: Vec::new(),
        };
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or("").trim();
            if !line.is_empty() {
                plan.line(line)
                    .ok_or_else(|| format!("line {}: {line}", index + 1))?;
            }
        }
        plan.steps.sort_by_key(|(at, _)| *at);
        Ok(plan)
    }

    fn line(&mut self, line: &str) -> Option<()> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["seed", seed] => self.seed = seed.parse().ok()?,
            ["set", name, value] => *self.settings.slot(name)? = value.parse().ok()?,
            ["at", at, word, ref numbers @ ..] => {
                let numbers: Vec<u64> = numbers
                    .iter()
                    .map(|n| n.parse().ok())
                    .collect::<Option<_>>()?;
                self.steps
                    .push((at.parse().ok()?, Step::from_words(word, &numbers)?));
            }
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_survives_its_text() {
        let plan = Plan {
            seed: 99,
            settings: Settings {
                granules: 77,
                ..Settings::default()
            },
            steps: vec![
                (
                    5,
                    Step::Write {
                        slot: 1,
                        first: 2,
                        count: 3,
                        fua: 0,
                    },
                ),
                (6, Step::Switch {}),
                (
                    7,
                    Step::Kill {
                        node: 1,
                        down: 1000,
                    },
                ),
            ],
        };
        assert_eq!(Plan::parse(&plan.to_text()), Ok(plan));
    }

    #[test]
    fn a_line_that_says_nothing_is_named() {
        assert_eq!(
            Plan::parse("seed 1\nat 5 dance 3"),
            Err("line 2: at 5 dance 3".into())
        );
        assert_eq!(
            Plan::parse("at 5 kill 3"),
            Err("line 1: at 5 kill 3".into())
        );
    }
}
