//! Messages between nodes: out on a link, each through its bytes, and in from one.

use engine_core::agree::FEATURE_HASHES;
use engine_core::event::{Event, LinkId, Payload};
use engine_core::message::Message;
use engine_core::units::{BufId, GRANULE};
use engine_core::wire::{self, Parsed};

use super::sums;
use crate::buffers::Origin;
use crate::net::Frame;
use crate::world::{Happening, World};

impl World {
    pub(super) fn send(
        &mut self,
        node: usize,
        link: LinkId,
        message: Message,
        payload: Option<BufId>,
    ) {
        let tags = match payload.map(|buf| self.nodes[node].buffers.begin_read(buf)) {
            None => None,
            Some(Ok(tags)) => Some(tags),
            Some(Err(breach)) => return self.fail("O2", breach),
        };
        let life = self.nodes[node].life;
        if let Some(buf) = payload {
            let delay = self.nodes[node].rng.between(1_000, 60_000);
            self.schedule(delay, Happening::Sent { node, life, buf });
        }
        let Some((connection, end)) = self.net.find(node, life, link) else {
            return;
        };
        if let Err(text) = through_the_wire(&message, tags.as_ref().map(|t| &t[..])) {
            return self.fail("O6", text);
        }
        self.sending(node, link, &message, tags.as_ref().map(|t| &t[..]));
        let now = self.now;
        if let Some(at) = self.net.send(now, connection, end, message, tags) {
            self.schedule_at(
                at,
                Happening::Arrive {
                    connection,
                    end: 1 - end,
                },
            );
        }
    }

    /// Nobody is told of what came with the newest version: they talk as an earlier one does.
    fn has_old_peers(&self) -> bool {
        self.plan.seed % 8 == 5
    }

    /// A message reached its node.
    pub fn deliver(&mut self, node: usize, link: LinkId, mut frame: Frame) {
        if let Message::Hello(hello) = &mut frame.message
            && self.has_old_peers()
        {
            hello.features_offered &= !FEATURE_HASHES;
        }
        let is_resync = matches!(frame.message, Message::ResyncData { .. });
        let payload = frame.payload.map(|bytes| {
            let is_intact = bytes.is_intact;
            let origin = Origin::Payload {
                is_intact,
                is_resync,
            };
            Payload {
                buf: self.nodes[node].buffers.add(bytes.tags, origin),
                is_intact,
            }
        });
        if payload.is_some_and(|p| !p.is_intact) {
            self.count("damaged payloads");
        }
        self.arriving(node, link, &frame.message);
        self.feed(
            node,
            Event::Peer {
                link,
                message: frame.message,
                payload,
            },
        );
    }
}

/// Every message goes through its bytes, so that what cannot be said is found here.
fn through_the_wire(message: &Message, tags: Option<&[u64]>) -> Result<(), String> {
    let sums = tags.map(sums).unwrap_or_default();
    let payload_len = (sums.len() as u64 * GRANULE) as u32;
    let mut bytes = Vec::new();
    wire::encode(message, 1, &sums, payload_len, &mut bytes);
    let (head, body) = bytes
        .split_first_chunk::<{ wire::HEADER_LEN }>()
        .ok_or_else(|| format!("{message:?} has no head"))?;
    let head = wire::parse_header(head).map_err(|e| format!("head of {message:?}: {e}"))?;
    match wire::parse_body(&head, body) {
        Ok(Parsed::Message {
            message: read,
            sums: read_sums,
        }) if read == *message && read_sums.iter().eq(sums.iter().copied()) => Ok(()),
        other => Err(format!("{message:?} came out of the wire as {other:?}")),
    }
}
