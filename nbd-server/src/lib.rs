//! NBD listener and connections over the engine.
