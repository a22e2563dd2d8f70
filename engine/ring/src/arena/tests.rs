use super::*;

const MIB: usize = 1 << 20;

fn arena(bytes: usize) -> Arena {
    Arena::new(&ArenaConfig {
        reactor: 3,
        bytes,
        guaranteed: [0; Class::COUNT],
    })
    .unwrap()
}

/// A small generator: the same sequence every run.
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn sizes_are_rounded_up_to_powers_of_two() {
    let mut arena = arena(256 * MIB);
    for (asked, given) in [
        (0, 4096),
        (1, 4096),
        (4096, 4096),
        (4097, 8192),
        (MIB + 1, 2 * MIB),
    ] {
        let buf = arena.alloc(Class::Client, asked).unwrap();
        assert_eq!(arena.capacity(buf), given);
        assert_eq!(
            arena.bytes(buf).as_ptr() as usize % given,
            0,
            "aligned to its size"
        );
    }
    assert!(arena.alloc(Class::Client, BUFFER_MAX).is_some());
    assert!(arena.alloc(Class::Client, BUFFER_MAX + 1).is_none());
}

#[test]
fn the_last_freed_is_the_first_given() {
    let mut arena = arena(8 * MIB);
    let buffers: Vec<_> = (0..10)
        .map(|_| arena.alloc(Class::Client, 4096).unwrap())
        .collect();
    let addresses: Vec<_> = buffers.iter().map(|b| arena.bytes(*b).as_ptr()).collect();
    for buf in &buffers {
        arena.release(*buf);
    }
    for address in addresses.iter().rev() {
        let buf = arena.alloc(Class::Client, 4096).unwrap();
        assert_eq!(arena.bytes(buf).as_ptr(), *address);
    }
}

#[test]
fn everything_freed_merges_to_the_largest_pieces() {
    let size = if cfg!(miri) { 2 * MIB } else { 128 * MIB };
    let mut arena = arena(size);
    let mut all = Vec::new();
    while let Some(buf) = arena.alloc(Class::Net, 4096) {
        all.push(buf);
    }
    assert_eq!(all.len(), size / 4096);
    for buf in all {
        arena.release(buf);
    }
    assert_eq!(arena.used(Class::Net), 0);
    for _ in 0..size / BUFFER_MAX.min(size) {
        assert!(arena.alloc(Class::Net, BUFFER_MAX.min(size)).is_some());
    }
}

#[test]
fn buffers_never_overlap_and_keep_their_bytes() {
    let mut arena = arena(32 * MIB);
    let mut held: Vec<(BufId, u8, usize)> = Vec::new();
    let mut seed = 7;
    for turn in 0..if cfg!(miri) { 200 } else { 20_000 } {
        let roll = random(&mut seed);
        if roll.is_multiple_of(3) && !held.is_empty() {
            let (buf, mark, _) = held.swap_remove(roll as usize / 3 % held.len());
            let bytes = arena.bytes(buf);
            assert_eq!((bytes[0], bytes[bytes.len() - 1]), (mark, mark));
            arena.release(buf);
        } else if let Some(buf) = arena.alloc(Class::Client, 1 << (12 + roll / 3 % 9)) {
            let mark = turn as u8;
            let bytes = arena.bytes_mut(buf);
            let len = bytes.len();
            (bytes[0], bytes[len - 1]) = (mark, mark);
            held.push((buf, mark, len));
        }
    }
    let sum: usize = held.iter().map(|(_, _, len)| len).sum();
    assert_eq!(arena.used(Class::Client), sum);
    held.sort_by_key(|(buf, ..)| arena.bytes(*buf).as_ptr());
    for pair in held.windows(2) {
        let end = arena.bytes(pair[0].0).as_ptr_range().end;
        assert!(end <= arena.bytes(pair[1].0).as_ptr());
    }
}

#[test]
fn a_guaranteed_share_is_there_when_the_rest_is_gone() {
    let mut guaranteed = [0; Class::COUNT];
    guaranteed[Class::Meta as usize] = MIB;
    let mut arena = Arena::new(&ArenaConfig {
        reactor: 0,
        bytes: 4 * MIB,
        guaranteed,
    })
    .unwrap();
    while arena.alloc(Class::Client, 4096).is_some() {}
    assert_eq!(arena.used(Class::Client), 3 * MIB);
    assert_eq!(arena.available(Class::Client), 0);
    assert_eq!(arena.available(Class::Meta), MIB);
    for _ in 0..256 {
        arena.alloc(Class::Meta, 4096).unwrap();
    }
    assert!(arena.alloc(Class::Meta, 4096).is_none());
}

#[test]
fn shares_larger_than_the_arena_are_refused() {
    let config = ArenaConfig {
        reactor: 0,
        bytes: MIB,
        guaranteed: [MIB; Class::COUNT],
    };
    assert_eq!(
        Arena::new(&config).unwrap_err().kind(),
        io::ErrorKind::InvalidInput
    );
}

#[test]
fn a_buffer_lives_until_its_last_reference() {
    let mut arena = arena(2 * MIB);
    let buf = arena.alloc(Class::Client, 4096).unwrap();
    arena.retain(buf);
    arena.release(buf);
    assert_eq!(arena.references(buf), 1);
    arena.release(buf);
    assert_eq!(arena.used(Class::Client), 0);
}

#[test]
#[should_panic(expected = "is stale")]
fn a_stale_id_stops_the_process() {
    let mut arena = arena(2 * MIB);
    let buf = arena.alloc(Class::Client, 4096).unwrap();
    arena.release(buf);
    let again = arena.alloc(Class::Client, 4096).unwrap();
    assert_eq!(again.slot(), buf.slot(), "same memory, another generation");
    arena.bytes(buf);
}

#[test]
#[should_panic(expected = "is not of arena")]
fn a_foreign_id_stops_the_process() {
    let mut other = Arena::new(&ArenaConfig {
        reactor: 4,
        bytes: MIB,
        guaranteed: [0; Class::COUNT],
    })
    .unwrap();
    let buf = other.alloc(Class::Client, 4096).unwrap();
    arena(2 * MIB).bytes(buf);
}

#[test]
fn a_pinned_buffer_outlives_its_owner() {
    let mut arena = arena(2 * MIB);
    let buf = arena.alloc(Class::Client, 4096).unwrap();
    arena.pin(buf.slice(0, 4096), Access::Fill);
    arena.release(buf);
    assert!(arena.in_ring(buf));
    assert_eq!(arena.used(Class::Client), 4096);
    arena.unpin(buf, Access::Fill);
    assert_eq!(arena.used(Class::Client), 0);
}

#[test]
#[should_panic(expected = "is being filled")]
fn bytes_the_kernel_writes_cannot_be_read() {
    let mut arena = arena(2 * MIB);
    let buf = arena.alloc(Class::Client, 4096).unwrap();
    arena.pin(buf.slice(100, 200), Access::Fill);
    arena.bytes(buf);
}

#[test]
#[should_panic(expected = "is being sent")]
fn bytes_the_kernel_reads_cannot_be_changed() {
    let mut arena = arena(2 * MIB);
    let buf = arena.alloc(Class::Client, 4096).unwrap();
    arena.pin(buf.slice(100, 200), Access::Drain);
    assert_eq!(
        arena.bytes(buf).len(),
        4096,
        "reading beside the kernel is fine"
    );
    arena.bytes_mut(buf);
}

#[test]
fn bytes_beside_an_operation_stay_accessible() {
    let mut arena = arena(2 * MIB);
    let buf = arena.alloc(Class::Net, 4096).unwrap();
    arena.pin(buf.slice(1000, 96), Access::Fill);
    arena.slice_mut(buf.slice(0, 1000)).fill(1);
    assert_eq!(arena.slice(buf.slice(1096, 3000)).len(), 3000);
}

#[test]
#[should_panic(expected = "passes its buffer's end")]
fn a_slice_past_the_end_stops_the_process() {
    let mut arena = arena(2 * MIB);
    let buf = arena.alloc(Class::Net, 4096).unwrap();
    arena.slice(buf.slice(4000, 97));
}

#[test]
fn checksums_live_until_the_bytes_change() {
    let mut arena = arena(2 * MIB);
    let buf = arena.alloc(Class::Client, 8192).unwrap();
    assert_eq!(arena.sums(buf), None);
    arena.set_sums(buf, &[11, 22]);
    assert_eq!(arena.sums(buf), Some(&[11, 22][..]));
    arena.bytes_mut(buf)[0] = 1;
    assert_eq!(arena.sums(buf), None, "changed bytes");
    arena.fill_sums(buf, 8192, |granule| u64::from(granule[0]));
    assert_eq!(arena.sums(buf).map(|s| s[0]), Some(1));
    arena.pin(buf.slice(0, 1), Access::Fill);
    assert_eq!(arena.sums(buf), None, "the kernel writes");
    arena.unpin(buf, Access::Fill);
    arena.set_sums(buf, &[5, 6]);
    arena.release(buf);
    let buf = arena.alloc(Class::Client, 8192).unwrap();
    assert_eq!(arena.sums(buf), None, "allocated anew");
}

#[test]
fn a_copy_moves_bytes_between_buffers() {
    let mut arena = arena(2 * MIB);
    let from = arena.alloc(Class::Client, 4096).unwrap();
    let to = arena.alloc(Class::Resync, 4096).unwrap();
    arena.bytes_mut(from).fill(9);
    arena.bytes_mut(to).fill(0);
    arena.copy(from.slice(10, 20), to.slice(30, 20));
    assert_eq!(
        arena.bytes(to)[29..51].iter().filter(|b| **b == 9).count(),
        20
    );
}

#[test]
fn a_copy_past_the_cache_copies_and_forgets_checksums() {
    let mut arena = arena(64 * MIB);
    let from = arena.alloc(Class::Net, 8192).unwrap();
    let to = arena.alloc(Class::Client, 8192).unwrap();
    let bytes: Vec<u8> = (0..8192).map(|i| (i % 253) as u8).collect();
    arena.bytes_mut(from).copy_from_slice(&bytes);
    for (at, len) in [(28, 4096), (28, 8164), (0, 1)] {
        arena.bytes_mut(to).fill(0xEE);
        arena.set_sums(to, &[1, 2]);
        arena.copy_past_cache(from.slice(at, len), to.slice(0, len));
        let len = len as usize;
        assert_eq!(
            arena.bytes(to)[..len],
            bytes[at as usize..at as usize + len]
        );
        assert!(arena.bytes(to)[len..].iter().all(|byte| *byte == 0xEE));
        assert_eq!(arena.sums(to), None);
    }
}

#[test]
fn a_view_is_used_like_a_buffer_and_keeps_its_own_alive() {
    let mut arena = arena(2 * MIB);
    let buf = arena.alloc(Class::Net, 64 << 10).unwrap();
    let bytes: Vec<u8> = (0..64 << 10).map(|i| (i % 251) as u8).collect();
    arena.bytes_mut(buf).copy_from_slice(&bytes);
    let view = arena.view(buf.slice(28, 8192)).unwrap();
    assert_eq!(arena.capacity(view), 8192);
    assert_eq!(arena.bytes(view), &bytes[28..28 + 8192]);
    assert_eq!(
        arena.slice(view.slice(4096, 100)),
        &bytes[4124..][..100],
        "parts of it are addressed from its own start"
    );
    arena.release(buf);
    assert_eq!(arena.bytes(view)[0], bytes[28]);
    arena.release(view);
    assert_eq!(arena.used(Class::Net), 0);
}

#[test]
fn views_of_neighbours_keep_checksums_apart() {
    let mut arena = arena(2 * MIB);
    let buf = arena.alloc(Class::Net, 64 << 10).unwrap();
    let views: Vec<_> = (0..4)
        .map(|i| arena.view(buf.slice(28 + i * (8192 + 28), 8192)).unwrap())
        .collect();
    for (i, view) in views.iter().enumerate() {
        arena.set_sums(*view, &[i as u64, 10 + i as u64]);
    }
    for (i, view) in views.iter().enumerate() {
        let expected = [i as u64, 10 + i as u64];
        assert_eq!(arena.sums(*view), Some(&expected[..]));
    }
    arena.slice_mut(views[1].slice(0, 1))[0] = 1;
    assert_eq!(arena.sums(views[1]), None, "changed bytes");
    assert!(arena.sums(views[2]).is_some());
}

#[test]
fn a_pinned_view_fences_off_its_part_of_the_buffer() {
    let mut arena = arena(2 * MIB);
    let buf = arena.alloc(Class::Net, 16 << 10).unwrap();
    let view = arena.view(buf.slice(100, 4096)).unwrap();
    arena.pin(view.slice(0, 4096), Access::Drain);
    assert!(arena.in_ring(buf) && arena.in_ring(view));
    arena.slice_mut(buf.slice(0, 100)).fill(1);
    arena.slice_mut(buf.slice(4196, 100)).fill(1);
    arena.release(view);
    arena.unpin(view, Access::Drain);
    assert!(!arena.in_ring(buf));
    assert_eq!(arena.references(buf), 1);
}

#[test]
#[should_panic(expected = "is being filled")]
fn a_view_of_what_the_kernel_writes_cannot_be_read() {
    let mut arena = arena(2 * MIB);
    let buf = arena.alloc(Class::Net, 16 << 10).unwrap();
    let view = arena.view(buf.slice(100, 4096)).unwrap();
    arena.pin(buf.slice(4000, 8192), Access::Fill);
    arena.bytes(view);
}

#[test]
#[should_panic(expected = "is stale")]
fn a_stale_view_stops_the_process() {
    let mut arena = arena(2 * MIB);
    let buf = arena.alloc(Class::Net, 16 << 10).unwrap();
    let view = arena.view(buf.slice(100, 4096)).unwrap();
    arena.release(view);
    let again = arena.view(buf.slice(100, 4096)).unwrap();
    assert_eq!(
        again.slot(),
        view.slot(),
        "the same slot, another generation"
    );
    arena.bytes(view);
}

#[test]
fn there_are_only_so_many_views() {
    let mut arena = arena(2 * MIB);
    let buf = arena.alloc(Class::Net, 16 << 10).unwrap();
    let mut views = Vec::new();
    while let Some(view) = arena.view(buf.slice(0, 4096)) {
        views.push(view);
    }
    assert_eq!(views.len(), VIEWS_MAX);
    arena.release(views.pop().unwrap());
    assert!(arena.view(buf.slice(0, 4096)).is_some());
}
