use super::*;

/// The rule itself, without any index: a holder is granted once no earlier conflicting one is left.
#[derive(Default)]
struct Model(Vec<(u32, Extent, bool)>);

impl Model {
    fn granted(&self, slot: u32) -> bool {
        let at = self
            .0
            .iter()
            .position(|h| h.0 == slot)
            .expect("holder is in the model");
        let (_, extent, exclusive) = self.0[at];
        !self.0[..at]
            .iter()
            .any(|(_, e, x)| (*x || exclusive) && e.overlaps(extent))
    }
}

#[test]
fn overlapping_holds_are_granted_in_arrival_order() {
    let mut state = 7u64;
    let mut random = move |n: u64| {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 33) % n
    };
    let slots = 48u32;
    let mut overlap = Overlap::new(slots as usize);
    let mut model = Model::default();
    let mut waits = 0;
    for _ in 0..50_000 {
        let slot = random(u64::from(slots)) as u32;
        if let Some(at) = model.0.iter().position(|h| h.0 == slot) {
            let before: Vec<u32> = model
                .0
                .iter()
                .map(|h| h.0)
                .filter(|s| model.granted(*s))
                .collect();
            model.0.remove(at);
            let mut granted = Vec::new();
            overlap.remove(slot, &mut granted);
            for (other, ..) in &model.0 {
                let newly = model.granted(*other) && !before.contains(other);
                assert_eq!(granted.contains(other), newly, "slot {other} after {slot}");
            }
            waits += granted.len();
        } else {
            let len = if random(5) == 0 {
                1 + random(300)
            } else {
                1 + random(40)
            };
            let start = random(400);
            let exclusive = random(2) == 0;
            let extent = Extent::new(start, start + len);
            model.0.push((slot, extent, exclusive));
            assert_eq!(overlap.insert(slot, extent, exclusive), model.granted(slot));
        }
    }
    assert!(waits > 1000, "the run made holders wait: {waits}");
}

#[test]
fn reads_share_and_writes_exclude() {
    let mut overlap = Overlap::new(4);
    let extent = Extent::new(31, 33);
    assert!(overlap.insert(0, extent, false));
    assert!(overlap.insert(1, extent, false));
    assert!(!overlap.insert(2, extent, true));
    assert!(
        !overlap.insert(3, extent, false),
        "a read behind a waiting write waits too"
    );
    let mut granted = Vec::new();
    overlap.remove(0, &mut granted);
    assert!(granted.is_empty());
    overlap.remove(1, &mut granted);
    assert_eq!(granted, [2]);
    granted.clear();
    overlap.remove(2, &mut granted);
    assert_eq!(granted, [3]);
    assert!(overlap.is_granted(3));
}
