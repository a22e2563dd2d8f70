//! Clients that mean harm, or have bugs, against `pollux serve`: by raw sockets.
//!
//! Each test runs a daemon of its own with a [`stage::Witness`] beside the attack: a client that
//! behaves, whose reads and writes must go on and stay right.

mod closing;
mod crowd;
mod crowds;
mod fields;
mod slow;
mod stage;
mod starttls;
mod takeover;
mod unknown;
