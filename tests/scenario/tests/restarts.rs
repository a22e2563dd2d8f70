//! A short run of takeovers; `cargo run --release -p scenario -- restarts` is the long one.

#[test]
fn clients_see_no_error_when_their_node_is_taken_over() {
    let tally = scenario::restarts::run(6);
    println!("{tally:#?}");
    assert_eq!(tally.primaries + tally.secondaries + tally.broken, 6);
    assert!(tally.broken >= 1, "{tally:?}");
    assert!(tally.answers > 1_000, "the clients hardly ran: {tally:?}");
}
