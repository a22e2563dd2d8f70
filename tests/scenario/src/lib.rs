//! Real processes killed, cut off and fed with bad disks, under clients that remember.
//!
//! ```text
//!  kills ─┬─ Pair      two daemons of one lab: start, kill -9, promote
//!         └─ Clients   threads that write tagged blocks ─► history::Checker
//!  failovers ─┬─ Trio       three daemons that choose the primary by majority
//!              ├─ Etcd       three members of etcd that choose in the place of votes
//!              ├─ Mesh       their links: cut, or silenced one way
//!              └─ Followers  clients that find the primary by themselves
//!  hand_overs ─ the same three, and a role that moves by command
//!  Wire ──── the link between them: cut, silenced, damaged
//!  restarts ─ a node taken over by its next process, and nobody notices
//!  guest ─── a Linux kernel in QEMU as the client (guest.py)
//!  tests/ ── one test for each promise of faults and refusals
//! ```
//! Whatever is judged here is seen from outside: through NBD, the command line and files at rest.

#![forbid(unsafe_code)]

mod clients;
pub mod disk;
mod etcd;
pub mod failovers;
mod followers;
mod gate;
pub mod guest;
pub mod hand_overs;
pub mod kills;
mod mesh;
mod pair;
mod random;
pub mod restarts;
mod tagged;
mod trio;
mod wire;

pub use clients::{Clients, Recorder};
pub use etcd::{Etcd, is_there, trio_by_etcd, trio_by_etcd_tls};
pub use followers::Followers;
pub use mesh::Mesh;
pub use pair::{HEALTHY_MAX, NODES, Pair, certify, replica};
pub use random::Random;
pub use trio::{Shape, TRIO, Trio};
pub use wire::Wire;
