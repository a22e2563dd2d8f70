//! A short run of kills; `cargo run --release -p scenario -- kills` is the long one.

use scenario::kills::{Plan, run};

#[test]
fn no_acknowledged_write_is_lost_when_nodes_are_killed() {
    let tally = run(&Plan::of(8, 20_261_121));
    println!("{tally:#?}");
    assert_eq!(tally.primaries + tally.secondaries + tally.both, 8);
    assert!(tally.answers > 1_000, "the clients hardly ran: {tally:?}");
}

#[test]
#[ignore = "takes several minutes; run it by hand"]
fn no_acknowledged_write_is_lost_in_two_hundred_kills() {
    run(&Plan {
        is_verbose: true,
        ..Plan::of(200, 1)
    });
}
