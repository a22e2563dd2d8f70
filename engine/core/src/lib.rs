//! The replicated volume: a pure, deterministic state machine.
