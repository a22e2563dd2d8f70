//! What the negotiation asks the server about its exports.

use crate::codes::TransmissionFlags;
use crate::{BlockSizes, ExportName, ListEntry, ReplyStyle};

/// Name of the context that tells holes and zeroes.
pub const BASE_ALLOCATION: &str = "base:allocation";

/// The exports a server has. Answers are snapshots; nothing here blocks.
pub trait Exports {
    /// Calls `visit` for every export that LIST may name, in a stable order.
    fn list(&self, visit: &mut dyn FnMut(ListEntry<'_>));

    /// The export meant by the empty name, if there is one.
    fn default_export(&self) -> Option<ExportName>;

    /// The export of this name, never empty, as a client would get it now.
    fn lookup(&self, name: &ExportName) -> Result<ExportInfo, Refusal>;
}

/// Why an export cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No export has this name.
    Unknown,
    /// It exists, but not for this client now; the text says why and where else to go.
    Policy(String),
    /// It is going away; the text says why.
    Shutdown(String),
    /// It is only to be had over TLS; counts as `Policy` where there is none, or it is up.
    Tls(String),
}

/// What a client learns about an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportInfo {
    /// Canonical name.
    pub name: ExportName,
    /// Text for people; empty if there is none.
    pub description: String,
    /// Size, bytes. A multiple of the minimum block size.
    pub size: u64,
    /// Writes, trims and zeroes fail.
    pub read_only: bool,
    /// What the export can do.
    pub features: Features,
    /// Sizes announced to a client that asks, and enforced.
    pub block_sizes: BlockSizes,
    /// Meta contexts on offer, `namespace:leaf`, each once. Ids are positions, counted from 1.
    pub contexts: Vec<String>,
}

/// Abilities of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Features {
    /// FLUSH is served.
    pub flush: bool,
    /// FUA is honoured.
    pub fua: bool,
    /// TRIM is served.
    pub trim: bool,
    /// WRITE_ZEROES is served, with and without NO_HOLE.
    pub write_zeroes: bool,
    /// FAST_ZERO is judged truthfully; counts only with `write_zeroes`.
    pub fast_zero: bool,
    /// CACHE is served.
    pub cache: bool,
    /// A flush on one connection covers the completed writes of all.
    pub multi_conn: bool,
    /// The medium rotates.
    pub rotational: bool,
}

impl ExportInfo {
    /// The transmission flags of a connection that negotiated `replies` and no meta context. What
    /// changes data is not offered on a read-only export.
    pub fn flags(&self, replies: ReplyStyle) -> TransmissionFlags {
        use TransmissionFlags as F;
        let has = self.features;
        let writable = !self.read_only;
        let zeroes = has.write_zeroes && writable;
        F::HAS_FLAGS
            .with_if(F::READ_ONLY, self.read_only)
            .with_if(F::SEND_FLUSH, has.flush)
            .with_if(F::SEND_FUA, has.fua)
            .with_if(F::ROTATIONAL, has.rotational)
            .with_if(F::SEND_TRIM, has.trim && writable)
            .with_if(F::SEND_WRITE_ZEROES, zeroes)
            .with_if(F::SEND_DF, replies.is_chunked())
            .with_if(F::CAN_MULTI_CONN, has.multi_conn)
            .with_if(F::SEND_CACHE, has.cache)
            .with_if(F::SEND_FAST_ZERO, has.fast_zero && zeroes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn everything() -> ExportInfo {
        ExportInfo {
            name: ExportName::new("disk").unwrap(),
            description: String::new(),
            size: 4096,
            read_only: false,
            features: Features {
                flush: true,
                fua: true,
                trim: true,
                write_zeroes: true,
                fast_zero: true,
                cache: true,
                multi_conn: true,
                rotational: true,
            },
            block_sizes: BlockSizes::USUAL,
            contexts: Vec::new(),
        }
    }

    #[test]
    fn flags_follow_the_features() {
        assert_eq!(everything().flags(ReplyStyle::Simple).0, 0x0d7d);
        assert_eq!(everything().flags(ReplyStyle::Structured).0, 0x0dfd);
        let plain = ExportInfo {
            features: Features::default(),
            ..everything()
        };
        assert_eq!(plain.flags(ReplyStyle::Simple).0, 1);
    }

    #[test]
    fn a_read_only_export_offers_nothing_that_writes() {
        let export = ExportInfo {
            read_only: true,
            ..everything()
        };
        assert_eq!(export.flags(ReplyStyle::Simple).0, 0x051f);
    }

    #[test]
    fn fast_zero_is_not_offered_without_write_zeroes() {
        let mut export = everything();
        export.features.write_zeroes = false;
        assert!(
            !export
                .flags(ReplyStyle::Simple)
                .contains(TransmissionFlags::SEND_FAST_ZERO)
        );
    }
}
