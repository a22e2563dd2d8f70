//! Small worlds: a crash at every event, and every subset of what was not durable.

use sim::small::{crash_everywhere, crash_in_recovery};

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
