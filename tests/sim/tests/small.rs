//! Small worlds: a crash at every event, and every subset of what was not durable.

use sim::small::{crash_everywhere, crash_in_recovery, crash_while_growing, majority_worlds};

fn quiet() {
    std::panic::set_hook(Box::new(|_| {}));
}

#[test]
fn a_crash_at_any_event_breaks_no_law() {
    quiet();
    let tried = crash_everywhere(1, 4, None);
    println!("{} runs, {} events", tried.runs, tried.events);
    let failures: Vec<_> = tried
        .failures
        .iter()
        .map(|(plan, report)| (&report.failure, plan.to_text()))
        .collect();
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(tried.runs > 500, "only {} crashes were tried", tried.runs);
}

#[test]
fn a_crash_in_recovery_breaks_no_law() {
    quiet();
    let tried = crash_in_recovery(1, 12, None);
    println!("{} runs, {} events", tried.runs, tried.events);
    let failures: Vec<_> = tried
        .failures
        .iter()
        .map(|(plan, report)| (&report.failure, plan.to_text()))
        .collect();
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn a_crash_at_any_point_of_a_growth_breaks_no_law() {
    quiet();
    let (mut runs, mut through, mut undone) = (0, 0, 0);
    for seed in 1..5 {
        let tried = crash_while_growing(seed, 2, None);
        let failures: Vec<_> = tried
            .failures
            .iter()
            .map(|(plan, report)| (&report.failure, plan.to_text()))
            .collect();
        assert!(failures.is_empty(), "{failures:#?}");
        runs += tried.runs;
        through += tried.count("growths that a crash let through");
        undone += tried.count("growths that a crash undid");
    }
    println!("{runs} runs, {through} let through, {undone} undone");
    assert!(runs > 300, "only {runs} crashes were tried");
    assert!(through > 0 && undone > 0, "{through}, {undone}");
}

#[test]
fn one_fault_at_any_point_of_a_small_world_with_votes_breaks_no_law() {
    quiet();
    let worlds = majority_worlds(1, None);
    println!("{}", worlds.summary());
    let failures: Vec<_> = worlds
        .tried
        .failures
        .iter()
        .map(|(plan, report)| (&report.failure, plan.to_text()))
        .collect();
    assert!(failures.is_empty(), "{failures:#?}");
    assert_eq!(worlds.not_all_subsets, 0, "some subsets were left out");
    assert!(worlds.points > 300, "only {} points", worlds.points);
    assert!(worlds.open_blocks >= 4, "power cuts lost hardly anything");
    // Somebody else served meanwhile, and what was lost was lost of a member of S.
    for met in [
        "primaries lost",
        "resyncs done",
        "departures from S",
        "joins",
    ] {
        assert!(
            worlds.tried.count(met) > 300,
            "{met}: {:?}",
            worlds.tried.coverage
        );
    }
}
