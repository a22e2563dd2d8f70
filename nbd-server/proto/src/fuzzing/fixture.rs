//! Exports that every case of the negotiation needs, for tests and fuzz targets.

use crate::{
    BASE_ALLOCATION, BlockSizes, ExportInfo, ExportName, Exports, Features, ListEntry, Refusal,
};

/// Size of the fixture's exports, bytes.
pub const SIZE: u64 = 64 << 20;

/// `disk` (the default export), `read-only`, `plain` (no feature, blocks of 512 bytes),
/// `secondary` (refused by policy) and `leaving` (shutting down); `secret` (not without TLS) is not
/// listed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fixture;

impl Exports for Fixture {
    fn list(&self, visit: &mut dyn FnMut(ListEntry<'_>)) {
        for name in ["disk", "read-only", "plain", "secondary", "leaving"] {
            let description = if name == "disk" { "a disk" } else { "" };
            visit(ListEntry { name, description });
        }
    }

    fn default_export(&self) -> Option<ExportName> {
        ExportName::new("disk").ok()
    }

    fn lookup(&self, name: &ExportName) -> Result<ExportInfo, Refusal> {
        match name.as_str() {
            "disk" => Ok(disk()),
            "read-only" => Ok(ExportInfo {
                name: name.clone(),
                read_only: true,
                ..disk()
            }),
            "plain" => Ok(ExportInfo {
                name: name.clone(),
                description: String::new(),
                features: Features::default(),
                block_sizes: BlockSizes::new(512, 4096, 1 << 20).map_err(|_| Refusal::Unknown)?,
                contexts: Vec::new(),
                ..disk()
            }),
            "secondary" => Err(Refusal::Policy("secondary is secondary on beta".to_owned())),
            "leaving" => Err(Refusal::Shutdown("leaving is being deleted".to_owned())),
            "secret" => Err(Refusal::Tls("secret is for clients under TLS".to_owned())),
            _ => Err(Refusal::Unknown),
        }
    }
}

/// The export with everything.
pub fn disk() -> ExportInfo {
    ExportInfo {
        name: ExportName::new("disk").unwrap_or_default(),
        description: "a disk".to_owned(),
        size: SIZE,
        read_only: false,
        features: Features {
            flush: true,
            fua: true,
            trim: true,
            write_zeroes: true,
            fast_zero: true,
            cache: true,
            multi_conn: true,
            rotational: false,
        },
        block_sizes: BlockSizes::USUAL,
        contexts: vec![BASE_ALLOCATION.to_owned(), "x-pollux:replicated".to_owned()],
    }
}
