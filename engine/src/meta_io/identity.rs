//! Numbers that tell one thing from another: random ones, that of a boot, digests of what is
//! configured.

use std::fs;

use crate::control::{Quorum, VolumeSpec, Votes};
use crate::sums;

/// Random bits from the system.
pub(crate) fn random_u128() -> u128 {
    let mut bytes = [0; 16];
    let filled = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty());
    assert_eq!(
        filled,
        Ok(16),
        "getrandom never fails for 16 bytes once the system is up"
    );
    u128::from_le_bytes(bytes)
}

/// Identity of this boot of the machine; 0 where the system tells none, which is never whole.
pub(crate) fn boot_id() -> u128 {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    u128::from_str_radix(&text.trim().replace('-', ""), 16).unwrap_or(0)
}

/// Digest of the configured nodes in order.
pub(super) fn nodes_digest(names: &[String]) -> u64 {
    sums::bytes(names.join("\n").as_bytes())
}

/// Digest of what all replicas must agree on (law F25). Not the size: each replica says the one it
/// has, which may have grown past its file's.
pub(crate) fn config_digest(spec: &VolumeSpec) -> u64 {
    let mut text = format!(
        "{}\n{:?}\n{}\n{}",
        spec.name,
        spec.write_policy,
        spec.min_copies,
        spec.replicas.join("\n")
    );
    let Votes {
        witnesses, lease, ..
    } = &spec.votes;
    match spec.votes.quorum {
        Quorum::Off => {}
        Quorum::Majority => {
            text.push_str(&format!("\nmajority {lease:?} {}", witnesses.join("\n")));
        }
        Quorum::Register => text.push_str(&format!("\nregister {lease:?}")),
    }
    sums::bytes(text.as_bytes())
}

/// As [`config_digest`], but for its nodes: who they are, a table of the volume's own says by then.
pub(crate) fn config_digest_unnamed(spec: &VolumeSpec) -> u64 {
    let mut unnamed = spec.clone();
    unnamed.replicas = Vec::new();
    unnamed.votes.witnesses = vec!["of its own table".to_owned()];
    config_digest(&unnamed)
}
