//! Planned moves of the primary role by one command; `scenario hand-overs` has the long runs.

use std::thread;
use std::time::{Duration, Instant};

use scenario::disk::attach;
use scenario::hand_overs::{Plan, run};
use scenario::{Shape, Trio};

fn plan(shape: Shape, seed: u64) -> Plan {
    Plan {
        shape,
        rounds: 6,
        seed,
        mebibytes: 32,
        clients: 2,
    }
}

#[test]
fn one_command_moves_the_role_under_clients_that_see_no_error() {
    for (shape, seed) in [(Shape::Witness, 3), (Shape::Three, 4)] {
        let tally = run(&plan(shape, seed));
        println!("{shape:?}: {}", tally.text());
        assert!(tally.answers > 500, "the clients hardly ran: {tally:?}");
        // The goal is a second; a lease would be two, and this machine may be busy.
        let typical = tally.stalls[tally.stalls.len() / 2];
        assert!(typical < Duration::from_secs(2), "{}", tally.text());
    }
}

#[test]
fn who_cannot_follow_is_refused_and_an_attached_client_is_not_cut_off_for_it() {
    let trio = Trio::healthy(Shape::Three, 32, "1s");
    let mut client = attach(&trio.uri(0));
    let witness = Trio::healthy(Shape::Witness, 16, "1s");
    let refused = witness.lab.pollux("gamma", &["promote", "v"]);
    assert_eq!(refused.exit, 1, "{refused:?}");
    // Its link is down: it may lack what is written from now on.
    trio.lab
        .done("alpha", &["peer", "disconnect", "gamma", "--volume", "v"]);
    let began = Instant::now();
    let refused = trio.lab.pollux("gamma", &["promote", "v", "--wait", "2s"]);
    assert_ne!(refused.exit, 0, "{refused:?}");
    assert!(refused.stderr.contains("alpha"), "{refused:?}");
    println!("refused after {:?}: {}", began.elapsed(), refused.stderr);
    scenario::disk::write(&mut client, 0, &[7; 4096]).expect("alpha serves on");
    assert_eq!(trio.volume(0)["role"], "primary");
    thread::sleep(Duration::from_millis(100));
    assert_eq!(trio.volume(0)["clients"].as_array().map(Vec::len), Some(1));
}
