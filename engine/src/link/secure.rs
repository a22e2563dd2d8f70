//! TLS between a link's socket and its frames.

use engine_ring::{Arena, BufId, BufSlice};
use rustls::Connection;

use super::net_buffer;
use super::send::Sender;
use crate::tls::{Opened, Opener, Sealer};

/// Sealed bytes received at a time: several of the longest records.
const RX_BYTES: usize = 128 << 10;

/// What stands between a link and its socket.
pub(super) struct Secure {
    session: Box<Connection>,
    sealer: Sealer,
    opener: Opener,
    rx: BufId,
}

impl Secure {
    /// A session whose handshake is done; `None` without a buffer.
    pub(super) fn new(session: Box<Connection>, arena: &mut Arena) -> Option<Secure> {
        Some(Secure {
            session,
            sealer: Sealer::default(),
            opener: Opener::default(),
            rx: net_buffer(arena, RX_BYTES)?,
        })
    }

    /// Where the socket's bytes go.
    pub(super) fn place(&self) -> BufSlice {
        self.rx.slice(0, RX_BYTES as u32)
    }

    /// The socket brought so many.
    pub(super) fn received(&mut self, count: u32) {
        self.opener.received(count);
    }

    /// Opens as much as is here, at most what fits into `into`.
    pub(super) fn open(&mut self, into: BufSlice, arena: &mut Arena) -> Opened {
        self.opener
            .open(&mut self.session, Some(self.rx), into, arena)
    }

    /// Nothing is sealed that was not sent.
    pub(super) fn is_idle(&self) -> bool {
        !self.sealer.is_flying() && !self.sealer.is_waiting()
    }

    /// Something is on its way.
    pub(super) fn is_sending(&self) -> bool {
        self.sealer.is_flying()
    }

    /// Seals what waits in `sender`; what the socket is to send now. Errors: there is no buffer,
    /// and nothing on its way whose end would free one.
    pub(super) fn seal(
        &mut self,
        sender: &mut Sender,
        arena: &mut Arena,
    ) -> Result<Option<BufSlice>, NoBuffer> {
        let sealed = self.sealer.seal(&mut self.session, sender.pieces(), arena);
        sender.were_taken(arena);
        match self.sealer.fly() {
            None if sealed.is_starved && !self.sealer.is_flying() => Err(NoBuffer),
            slice => Ok(slice),
        }
    }

    /// The send ended after `count` bytes: what is to be sent next, at once.
    pub(super) fn sent(&mut self, count: u32, arena: &mut Arena) -> Option<BufSlice> {
        self.sealer.landed(count, arena)
    }

    pub(super) fn free(mut self, arena: &mut Arena) {
        self.sealer.free(arena);
        arena.release(self.rx);
    }
}

/// Sealing must be tried again.
pub(super) struct NoBuffer;
