//! Deterministic simulator of replicated volumes.
