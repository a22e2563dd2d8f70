//! Clients that make it hard to take a node over (`serve --takeover`).

use std::thread;
use std::time::{Duration, Instant};

use conformance::eventually;
use conformance::raw::{self, Raw, Style, cmd, opt};

use crate::crowd::{Crowd, judge, through};
use crate::stage::{Stage, Witness};

/// Longest time until the old process has ended: 2 s for a client that does not read, the rest for a
/// busy machine. Without a limit of its own a drain would take 10 s.
const TAKEOVER_MAX: Duration = Duration::from_secs(9);

/// The stage after its node was taken over, and how long the old process took to end.
fn taken_over(stage: Stage) -> (Stage, Duration) {
    let Stage { daemon, lab } = stage;
    let began = Instant::now();
    let daemon = lab.take_over(daemon, TAKEOVER_MAX);
    (Stage { daemon, lab }, began.elapsed())
}

#[test]
fn a_client_that_does_not_read_holds_a_takeover_up_for_two_seconds() {
    let stage = Stage::new("", "disk.img");
    let witness = Witness::start(&stage);
    witness.goes_on(10);
    let mut deaf = stage.connect();
    deaf.set_receive_buffer(4096);
    deaf.go("v", Style::Simple);
    for cookie in 0..16 {
        deaf.send(&raw::request(0, cmd::READ, cookie, 0, 1 << 20))
            .expect("it is taken");
    }
    // The half of a write, and the half of a handshake.
    let mut slow = stage.attach(Style::Extended);
    let write = raw::extended_write(7, 4096, &[0x5a; 8192]);
    slow.send(&write[..5000]).expect("it is taken");
    let mut half_open = stage.connect();
    half_open.hello(3);
    let (stage, took) = taken_over(stage);
    println!("taken over from under a deaf client in {took:?}");
    witness.goes_on(10);
    slow.send(&write[5000..]).expect("it is taken");
    let reply = slow.reply(0).expect("the write is answered");
    assert_eq!((reply.cookie, reply.error), (7, 0));
    slow.send(&raw::extended_request(0, cmd::READ, 8, 4096, 8192))
        .expect("it is taken");
    assert_eq!(slow.reply(0).expect("it is served").error, 0);
    // What the kernel holds for it may take long to trickle; the server has let it go.
    assert_eq!(stage.clients(), 2, "the witness and the slow one are left");
    drop(deaf);
    assert!(half_open.ask(opt::LIST, &[]).map_or(true, |replies| {
        replies
            .last()
            .is_some_and(|(kind, _)| *kind == raw::rep::ERR_SHUTDOWN)
    }));
    drop(slow);
    eventually(Duration::from_secs(15), "the others are gone", || {
        (stage.clients() == 1).then_some(())
    });
    // Before the daemon goes.
    drop(witness);
}

#[test]
fn clients_may_go_at_any_byte_while_their_node_is_taken_over() {
    let stage = Stage::new("", "disk.img");
    let witness = Witness::start(&stage);
    let crowd = Crowd::gather(&stage.address(), 2);
    let leaving = thread::spawn(move || crowd.leave(Duration::from_millis(1500)));
    let (stage, took) = taken_over(stage);
    println!("taken over from under a crowd that leaves in {took:?}");
    let gone = leaving.join().expect("clients can go");
    witness.goes_on(10);
    judge(through(&stage.address()), &gone);
    eventually(Duration::from_secs(15), "the crowd is gone", || {
        (stage.clients() == 1).then_some(())
    });
    drop(witness);
}

#[test]
fn whoever_attaches_while_a_node_is_taken_over_gets_in_or_is_told() {
    let stage = Stage::new("", "disk.img");
    let address = stage.address();
    let over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let done = over.clone();
    let knocking = thread::spawn(move || {
        let (mut served, mut turned_away) = (0, 0);
        while !done.load(std::sync::atomic::Ordering::Relaxed) {
            // The port never closes: its listener moves.
            let mut client = Raw::tcp(&address).expect("somebody always listens");
            match client.try_go("v", Style::Structured) {
                Ok(()) => served += 1,
                Err(_) => turned_away += 1,
            }
        }
        (served, turned_away)
    });
    let (stage, _) = taken_over(stage);
    let (stage, _) = taken_over(stage);
    over.store(true, std::sync::atomic::Ordering::Relaxed);
    let (served, turned_away) = knocking.join().expect("nobody was refused by the kernel");
    println!("{served} attached, {turned_away} were turned away");
    assert!(
        served > 10 && turned_away < served,
        "{served} and {turned_away}"
    );
    drop(stage);
}
