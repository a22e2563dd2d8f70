//! Names of ring operations: who gets the completion.
//!
//! `kind:4 | slot:32 | tag:28`. A slot is given anew only after its last completion, so no
//! generation is needed here; the ring itself tells late completions apart.

/// The number pushed with an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token(pub(crate) u64);

/// Bits of a tag.
pub(crate) const TAG_BITS: u32 = 28;
const SLOT_BITS: u32 = 32;

/// Tag of the engine's own shutdown of a client that does not finish.
pub(crate) const SHUTDOWN_TAG: u32 = (1 << TAG_BITS) - 1;

/// Who gets a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A client's connection: slot of the seat.
    Connection,
    /// The reactor's own business with a connection (closing its socket).
    Seat,
    /// An operation of a volume: slot of the operation's context.
    Volume,
    /// A link to a peer: slot of the link.
    Link,
    /// The closing of a file of a volume that leaves: slot of the volume.
    File,
}

impl Token {
    pub(crate) fn new(kind: Kind, slot: u32, tag: u32) -> Token {
        assert!(
            tag >> TAG_BITS == 0,
            "tag {tag} has at most {TAG_BITS} bits"
        );
        let head = (kind as u64) << (SLOT_BITS + TAG_BITS);
        Token(head | u64::from(slot) << TAG_BITS | u64::from(tag))
    }

    pub(crate) fn connection(slot: u16, tag: u32) -> Token {
        Token::new(Kind::Connection, u32::from(slot), tag)
    }

    pub(crate) fn kind(self) -> Kind {
        match self.0 >> (SLOT_BITS + TAG_BITS) {
            0 => Kind::Connection,
            1 => Kind::Seat,
            2 => Kind::Volume,
            3 => Kind::Link,
            4 => Kind::File,
            other => unreachable!("no token has kind {other}"),
        }
    }

    pub(crate) fn slot(self) -> u32 {
        (self.0 >> TAG_BITS) as u32
    }

    pub(crate) fn tag(self) -> u32 {
        self.0 as u32 & ((1 << TAG_BITS) - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_gives_back_what_it_was_made_of() {
        let token = Token::new(Kind::Link, u32::MAX, (1 << TAG_BITS) - 1);
        assert_eq!(
            (token.kind(), token.slot(), token.tag()),
            (Kind::Link, u32::MAX, 0x0fff_ffff)
        );
        let token = Token::connection(7, 9);
        assert_eq!(
            (token.kind(), token.slot(), token.tag()),
            (Kind::Connection, 7, 9)
        );
    }
}
