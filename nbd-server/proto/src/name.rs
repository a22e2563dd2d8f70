//! Names of exports.

use crate::Malformed;
use crate::bytes::text;

/// The name of an export: UTF-8, no NUL, at most 4096 bytes. Empty means the default export.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ExportName(String);

impl ExportName {
    /// A name as received. Errors: too long, NUL, not UTF-8.
    pub fn from_wire(bytes: &[u8]) -> Result<Self, Malformed> {
        text(bytes).map(|name| ExportName(name.to_owned()))
    }

    /// A name from configuration or a URI. Errors: too long, NUL.
    pub fn new(name: &str) -> Result<Self, Malformed> {
        Self::from_wire(name.as_bytes())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// This is the empty name, which asks for the default export.
    pub fn is_default(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Display for ExportName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
