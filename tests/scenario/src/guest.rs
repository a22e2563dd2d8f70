//! A Linux kernel as the client.

/// Placeholder.
pub fn run() {}
