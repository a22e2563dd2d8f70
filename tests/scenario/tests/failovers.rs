//! Short runs of kills under a majority; `scripts/soak` has the long ones.

use scenario::Shape;
use scenario::failovers::{Plan, run};

#[test]
fn with_a_witness_another_node_serves_by_itself_and_nothing_acknowledged_is_lost() {
    let tally = run(&Plan::of(Shape::Witness, 5, 20_261_121));
    println!("{tally:#?}");
    assert!(tally.answers > 500, "the clients hardly ran: {tally:?}");
}

#[test]
fn with_three_copies_another_node_serves_by_itself_and_nothing_acknowledged_is_lost() {
    let tally = run(&Plan::of(Shape::Three, 5, 7));
    println!("{tally:#?}");
    assert!(tally.answers > 500, "the clients hardly ran: {tally:?}");
}
