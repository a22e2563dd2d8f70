//! Ballots between nodes: datagrams that are lost, late or doubled.

use engine_core::event::Event;
use engine_core::units::NodeIdx;
use engine_core::vote::Ballot;
use engine_core::wire;

use super::{Happening, World};

impl World {
    /// A node says something about votes.
    pub fn say_ballot(&mut self, from: usize, to: NodeIdx, ballot: &Ballot) {
        let to = usize::from(to.0);
        if let Err(text) = through_the_wire(ballot) {
            return self.fail("O6", text);
        }
        self.count("ballots");
        let loss = self.plan.settings.ballot_loss_one_in;
        if self.net.is_cut(from, to) || (loss > 0 && self.rng.one_in(loss)) {
            return;
        }
        let copies = if loss > 0 && self.rng.one_in(loss) {
            2
        } else {
            1
        };
        for _ in 0..copies {
            let wire = self.net.wire(from, to);
            let (slowness, stalled) = (wire.slowness, wire.stalled_until);
            let delay = self.rng.between(10_000, 1_500_000) * slowness;
            let at = (self.now + delay).max(stalled);
            self.schedule_at(
                at,
                Happening::Ballot {
                    from,
                    to,
                    ballot: Box::new(ballot.clone()),
                },
            );
        }
    }

    pub(super) fn ballot_arrives(&mut self, from: usize, to: usize, ballot: Ballot) {
        if !self.net.is_cut(from, to) {
            let from = NodeIdx(from as u8);
            self.feed(to, Event::Vote { from, ballot });
        }
    }
}

/// Every ballot goes through its bytes.
fn through_the_wire(ballot: &Ballot) -> Result<(), String> {
    let control = wire::Control::Vote {
        volume: "vm-store".into(),
        ballot: ballot.clone(),
    };
    let mut bytes = Vec::new();
    wire::encode_control(&control, 1, &mut bytes);
    let (head, body) = bytes
        .split_first_chunk::<{ wire::HEADER_LEN }>()
        .ok_or("a ballot has no head")?;
    let head = wire::parse_header(head).map_err(|e| format!("head of {ballot:?}: {e}"))?;
    match wire::parse_control(&head, body) {
        Ok(Some(read)) if read == control => Ok(()),
        other => Err(format!("{ballot:?} came out of the wire as {other:?}")),
    }
}
