//! NBD wire codec and negotiation, without I/O.
