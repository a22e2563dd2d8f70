//! Programs nobody changed for us, against `pollux serve`: over TCP and over a Unix socket, on a
//! volume in memory and on one in a file.

mod exports;
mod extended;
mod fio;
mod libnbd;
mod matrix;
mod nbdcopy;
mod nbdinfo;
mod qemu;
mod resize;
mod stage;
mod takeover;
mod tls;
