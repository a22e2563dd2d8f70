use super::*;

fn extent(first: u64, count: u64) -> Extent {
    Extent::new(
        first * GRANULES_PER_AL_EXTENT,
        (first + count) * GRANULES_PER_AL_EXTENT,
    )
}

fn empty(slots: usize) -> ActivityLog {
    ActivityLog::new(&vec![Run::default(); slots])
}

fn write_pages(log: &mut ActivityLog) -> usize {
    let mut pages = 0;
    while let Some(page) = log.next_page() {
        log.written(page);
        pages += 1;
    }
    pages
}

#[test]
fn an_opening_counts_only_once_its_page_is_durable() {
    let mut log = empty(64);
    let held = log.acquire(extent(5, 1)).unwrap();
    assert!(!log.is_durable(&held));
    let page = log.next_page().unwrap();
    let late = log.acquire(extent(6, 1)).unwrap();
    assert_eq!(log.next_page(), None, "one write of a page at a time");
    log.written(page);
    assert!(log.is_durable(&held));
    assert!(
        !log.is_durable(&late),
        "queued while the page was in flight"
    );
    assert_eq!(
        write_pages(&mut log),
        1,
        "one write carries all that queued"
    );
    assert!(log.is_durable(&late));
}

#[test]
fn a_slot_closes_only_idle_durable_and_marked() {
    let mut log = empty(64);
    let held = log.acquire(extent(5, 1)).unwrap();
    write_pages(&mut log);
    assert_eq!(log.close(9, NEVER, |_| true), 0, "held");
    log.release(&held, 3);
    assert_eq!(log.close(9, 3, |_| true), 0, "not durable yet");
    assert_eq!(log.close(9, 4, |_| false), 0, "its bits are not durable");
    assert_eq!(log.close(9, 4, |_| true), 1);
    assert!(log.is_empty());
    assert!(!log.is_settled(), "the disk still says open");
    log.want_all();
    write_pages(&mut log);
    assert!(log.is_settled());
}

#[test]
fn a_long_run_takes_one_slot_and_serves_what_lies_inside() {
    let mut log = empty(64);
    let held = log.acquire(extent(10, 1_000_000)).unwrap();
    assert_eq!(
        log.open().collect::<Vec<_>>(),
        [Run {
            start: 10,
            count: 1_000_000
        }]
    );
    let inside = log.acquire(extent(500, 2)).unwrap();
    assert_eq!(log.open().count(), 1);
    log.release(&held, 0);
    write_pages(&mut log);
    assert_eq!(log.close(9, 1, |_| true), 0, "still held from inside");
    log.release(&inside, 0);
    assert_eq!(log.close(9, 1, |_| true), 1);
}

#[test]
fn a_full_log_gives_nothing_rather_than_a_part() {
    let mut log = empty(64);
    let held: Vec<Held> = (0..60)
        .map(|e| log.acquire(extent(e * 2, 1)).unwrap())
        .collect();
    assert_eq!(log.acquire(extent(1000, 5)), Err(Full));
    assert_eq!(log.open().count(), 60);
    assert!(log.acquire(extent(1000, 4)).is_ok());
    assert_eq!(log.acquire(extent(2000, 1)), Err(Full));
    assert!(
        log.acquire(extent(2, 1)).is_ok(),
        "what is open needs no room"
    );
    write_pages(&mut log);
    held.iter().for_each(|h| log.release(h, 0));
    // Extent 2 is held twice: one of its holders is still there.
    assert_eq!(log.close(100, 1, |_| true), 59);
}

#[test]
fn recovered_runs_stay_open_until_they_may_close() {
    let mut found = vec![Run::default(); 64];
    found[3] = Run { start: 7, count: 1 };
    found[9] = Run {
        start: 100,
        count: 50,
    };
    let mut log = ActivityLog::new(&found);
    assert_eq!(log.open().count(), 2);
    let held = log.acquire(extent(7, 1)).unwrap();
    assert!(log.is_durable(&held), "it is open on disk");
    assert_eq!(
        log.close(9, 1, |_| true),
        1,
        "the run closes, the held one stays"
    );
    log.release(&held, 1);
    assert_eq!(log.close(9, 2, |_| true), 1);
}

#[test]
fn the_last_run_is_clipped_to_the_volume() {
    let run = Run { start: 1, count: 2 };
    assert_eq!(granules_of(run, 1030), Some(Extent::new(1024, 1030)));
    assert_eq!(granules_of(run, 1024), None);
}
