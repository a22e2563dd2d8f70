//! Safe wrappers of system calls that the standard library lacks.

pub mod block;
pub mod clock;
pub mod cpu;
pub mod nvme;
