//! What the tests of this crate share.

use engine_ring::{Arena, ArenaConfig, Ring, RingConfig, open_ring};

/// A real ring with a small arena.
pub(crate) fn ring() -> (Box<dyn Ring>, Arena) {
    let arena = Arena::new(&ArenaConfig::with_bytes(0, 16 << 20)).expect("memory for a test");
    let config = RingConfig {
        depth: 64,
        files: 64,
        ..RingConfig::default()
    };
    let (ring, _) = open_ring(&config, &arena).expect("a ring for a test");
    (ring, arena)
}
