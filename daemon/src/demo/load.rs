//! A client that keeps writing, and remembers what it was told.
//!
//! The load area is cut into slots. Each write fills a slot with contents made from slot and
//! version, so that a slot read later tells which write it holds, and whether it is whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nbd_proto::{CommandKind, NbdUri};

use super::client::{Ask, Broken, Connection};

/// Bytes of a slot.
const SLOT: u32 = 16 << 10;

/// Writes in flight.
const DEPTH: usize = 8;

/// Longest silence of the server under load.
pub(super) const SILENCE: Duration = Duration::from_secs(15);

/// What each slot may hold.
pub(super) struct Ledger {
    /// First byte of the load area.
    base: u64,
    slots: Vec<Slot>,
    random: u64,
}

#[derive(Clone, Default)]
struct Slot {
    /// Version of the newest acknowledged write; 0 is zeros.
    acknowledged: u32,
    /// Version of the newest write that was sent and may have happened.
    sent: u32,
    /// Version of the next write; never used twice.
    next: u32,
    is_busy: bool,
}

/// How a run of load went.
#[derive(Default)]
pub(super) struct Run {
    /// Writes acknowledged.
    pub(super) writes: u64,
    /// Error replies.
    pub(super) errors: u64,
    /// Longest time between a write and its answer.
    pub(super) slowest: Duration,
    /// Why the connection was lost, if it was.
    pub(super) lost: Option<String>,
}

/// What was found when all slots were read.
pub(super) struct Found {
    /// Slots that were ever written.
    pub(super) written: usize,
    /// What is wrong, one sentence for each slot.
    pub(super) wrong: Vec<String>,
}

impl Ledger {
    /// An area of zeros.
    pub(super) fn new(base: u64, bytes: u64) -> Ledger {
        let count = (bytes / u64::from(SLOT)) as usize;
        let fresh = Slot {
            next: 1,
            ..Slot::default()
        };
        Ledger {
            base,
            slots: vec![fresh; count],
            random: 0x5DEE_CE66,
        }
    }

    /// Writes to random slots until told to stop or the connection is lost.
    pub(super) fn write(&mut self, uri: &NbdUri, stop: &Arc<AtomicBool>) -> Run {
        let mut run = Run::default();
        if let Err(broken) = self.write_until(uri, stop, &mut run) {
            run.lost = Some(broken.in_full());
        }
        for slot in &mut self.slots {
            slot.is_busy = false;
        }
        run
    }

    fn write_until(
        &mut self,
        uri: &NbdUri,
        stop: &Arc<AtomicBool>,
        run: &mut Run,
    ) -> Result<(), Broken> {
        let mut connection = Connection::attach(uri, SILENCE)?;
        let mut open = std::collections::BTreeMap::new();
        loop {
            while open.len() < DEPTH && !stop.load(Ordering::Relaxed) {
                let (index, version) = self.pick();
                let offset = self.offset(index);
                let name = connection.send(&Ask::write(offset, contents(index, version)))?;
                open.insert(name, (index, version));
            }
            if open.is_empty() {
                return connection.detach();
            }
            let answer = connection.receive()?;
            let (index, version) = open.remove(&answer.request).ok_or(Broken::Unexpected)?;
            let slot = &mut self.slots[index];
            slot.is_busy = false;
            run.slowest = run.slowest.max(answer.took);
            match answer.result {
                Ok(()) => {
                    slot.acknowledged = version;
                    run.writes += 1;
                }
                Err(_) => run.errors += 1,
            }
        }
    }

    /// A slot without a write in flight, and its next version.
    fn pick(&mut self) -> (usize, u32) {
        loop {
            let index = (next_random(&mut self.random) % self.slots.len() as u64) as usize;
            let slot = &mut self.slots[index];
            if !slot.is_busy {
                slot.is_busy = true;
                slot.sent = slot.next;
                slot.next += 1;
                return (index, slot.sent);
            }
        }
    }

    /// Reads all slots and holds each to what was acknowledged. From then on a slot has to keep
    /// what was read. Errors: the connection was lost.
    pub(super) fn check(&mut self, connection: &mut Connection) -> Result<Found, Broken> {
        let offsets: Vec<u64> = (0..self.slots.len())
            .map(|index| self.offset(index))
            .collect();
        let asks = offsets
            .into_iter()
            .map(|at| Ask::plain(CommandKind::READ, at, SLOT));
        let mut found = Found {
            written: 0,
            wrong: Vec::new(),
        };
        connection.pipeline(DEPTH, asks, |ask, answer| {
            let index = ((ask.offset - self.base) / u64::from(SLOT)) as usize;
            match answer.result {
                Ok(()) => self.judge(index, &answer.data, &mut found),
                Err(error) => found
                    .wrong
                    .push(format!("slot {index} cannot be read: {error}")),
            }
        })?;
        Ok(found)
    }

    fn judge(&mut self, index: usize, data: &[u8], found: &mut Found) {
        let slot = &mut self.slots[index];
        found.written += usize::from(slot.acknowledged > 0);
        let may = slot.acknowledged..=slot.sent;
        match version(index, data) {
            Some(version) if may.contains(&version) => {
                slot.acknowledged = version;
                slot.sent = version;
            }
            Some(version) => {
                let [low, high] = [may.start(), may.end()];
                let text =
                    format!("slot {index} holds write {version}, not one of {low} to {high}");
                found.wrong.push(text);
            }
            None => found
                .wrong
                .push(format!("slot {index} holds no whole write")),
        }
    }

    fn offset(&self, index: usize) -> u64 {
        self.base + index as u64 * u64::from(SLOT)
    }
}

/// What write `version` puts into slot `index`; version 0 is zeros.
fn contents(index: usize, version: u32) -> Vec<u8> {
    let mut bytes = vec![0; SLOT as usize];
    if version == 0 {
        return bytes;
    }
    let mut state = (index as u64) << 32 | u64::from(version);
    bytes[..8].copy_from_slice(&state.to_le_bytes());
    for word in bytes[8..].chunks_exact_mut(8) {
        word.copy_from_slice(&next_random(&mut state).to_le_bytes());
    }
    bytes
}

/// Which write a slot holds, if it holds a whole one of its own.
fn version(index: usize, data: &[u8]) -> Option<u32> {
    let head = u64::from_le_bytes(*data.first_chunk()?);
    // The lower half is the version.
    let version = head as u32;
    (data == contents(index, version)).then_some(version)
}

/// SplitMix64.
fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut x = *state;
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_tells_which_write_it_holds() {
        for written in [0, 1, 77] {
            assert_eq!(version(5, &contents(5, written)), Some(written));
        }
        assert_eq!(version(6, &contents(5, 1)), None, "another slot's write");
        let mut torn = contents(5, 2);
        torn[4096..].copy_from_slice(&contents(5, 1)[4096..]);
        assert_eq!(version(5, &torn), None, "half of each");
    }

    #[test]
    fn an_acknowledged_write_may_not_be_missing() {
        let mut ledger = Ledger::new(0, 4 * u64::from(SLOT));
        ledger.slots[1] = Slot {
            acknowledged: 2,
            sent: 4,
            next: 5,
            is_busy: false,
        };
        let wrong = |ledger: &mut Ledger, version| {
            let mut found = Found {
                written: 0,
                wrong: Vec::new(),
            };
            ledger.judge(1, &contents(1, version), &mut found);
            found.wrong.len()
        };
        assert_eq!(wrong(&mut ledger, 1), 1, "older than acknowledged");
        assert_eq!(wrong(&mut ledger, 5), 1, "never sent");
        assert_eq!(
            wrong(&mut ledger, 3),
            0,
            "in flight when the connection broke"
        );
        assert_eq!(wrong(&mut ledger, 4), 1, "other than what was read");
    }
}
