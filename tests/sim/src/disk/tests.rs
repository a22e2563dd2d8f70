//! Laws of a disk that crashes.

use engine_core::event::DiskError;

use super::*;

fn written(disk: &mut Disk, granule: u64, tag: u64, durable: bool) {
    let extent = Extent::new(granule, granule + 1);
    let io = disk.begin(Work::Write {
        extent,
        tags: vec![tag; 8].into(),
        durable,
    });
    assert_eq!(disk.finish(io).0, Ok(()));
}

#[test]
fn a_power_cut_keeps_what_was_flushed() {
    for seed in 0..50 {
        let mut disk = Disk::new(8, true, Rng::new(seed));
        written(&mut disk, 0, 1, false);
        let flush = disk.flush();
        written(&mut disk, 0, 2, false);
        assert_eq!(disk.finish(flush).0, Ok(()));
        assert_eq!(disk.durable_block(0), 1);
        disk.cut_power();
        let after = disk.live().granule(0);
        assert!(after.iter().all(|t| [1, 2].contains(t)), "{after:?}");
    }
}

#[test]
fn a_durable_write_is_durable_when_it_completes() {
    let mut disk = Disk::new(8, true, Rng::new(1));
    written(&mut disk, 3, 7, false);
    written(&mut disk, 3, 8, true);
    disk.cut_power();
    assert_eq!(disk.live().granule(3), [8; 8]);
}

#[test]
fn a_kill_keeps_completed_writes() {
    let mut disk = Disk::new(8, true, Rng::new(1));
    written(&mut disk, 1, 5, false);
    disk.kill();
    assert_eq!(disk.live().granule(1), [5; 8]);
}

#[test]
fn a_failed_flush_may_lose_pages_and_the_next_one_succeeds() {
    let lost = (0..50).filter(|seed| {
        let mut disk = Disk::new(8, true, Rng::new(*seed));
        written(&mut disk, 0, 1, false);
        disk.faults.flush_error_once = true;
        let first = disk.flush();
        assert_eq!(disk.finish(first).0, Err(DiskError::Io));
        let second = disk.flush();
        assert_eq!(disk.finish(second).0, Ok(()));
        disk.live().block(0) == 0
    });
    assert!(lost.count() > 5);
}

#[test]
fn a_read_that_meets_a_write_sees_old_or_new_blocks() {
    let mut disk = Disk::new(8, false, Rng::new(3));
    written(&mut disk, 0, 1, false);
    let extent = Extent::new(0, 1);
    let write = disk.begin(Work::Write {
        extent,
        tags: vec![2; 8].into(),
        durable: false,
    });
    let read = disk.read(extent);
    let (_, tags) = disk.finish(read);
    assert!(tags.iter().all(|t| [1, 2].contains(t)));
    assert!(tags.contains(&1) && tags.contains(&2), "{tags:?}");
    assert_eq!(disk.finish(write).0, Ok(()));
}
