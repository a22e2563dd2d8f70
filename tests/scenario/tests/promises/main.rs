//! One test for each promise about faults, refusals and roles: section F of the laws, and
//! `docs/operations.md`.

mod checksums;
mod disks;
mod give_up;
mod growth;
mod identity;
mod marks;
mod replicas;
mod resync;
mod roles;
mod split_brain;
mod start;
mod takeover;
mod wires;
