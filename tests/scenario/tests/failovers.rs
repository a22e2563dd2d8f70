//! Short runs of kills under a majority; `scripts/soak` has the long ones.

use std::time::{Duration, Instant};
use std::{fs, thread};

use nbd_proto::CommandKind;
use pollux_daemon::demo::client::Ask;
use scenario::disk::{attach, read, write};
use scenario::failovers::{Plan, run};
use scenario::{Followers, Mesh, Shape, TRIO, Trio};

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

const LEASE: Duration = Duration::from_secs(1);
/// A failover, and a busy machine.
const SERVED_MAX: Duration = Duration::from_secs(15);

/// Waits until this server answered a write from now on; when it did.
fn until_writes(followers: &Followers, server: usize) -> Instant {
    let began = Instant::now();
    loop {
        if let Some(wrote) = followers.wrote(server).filter(|wrote| *wrote > began) {
            return wrote;
        }
        let node = TRIO[server];
        assert!(began.elapsed() < SERVED_MAX, "{node} serves no writes");
        thread::sleep(Duration::from_millis(2));
    }
}

/// The primary goes on, and no other node serves meanwhile.
fn stays(followers: &Followers, primary: usize, other: usize) {
    let began = Instant::now();
    while began.elapsed() < LEASE * 3 {
        until_writes(followers, primary);
    }
    let wrote = followers.wrote(other);
    assert!(
        wrote.is_none_or(|wrote| wrote < began),
        "{} served too",
        TRIO[other]
    );
}

/// The other node takes over from a primary that nobody hears, which answers nothing from then on.
fn moves(mesh: &Mesh, trio: &Trio, followers: &Followers, (from, to): (usize, usize)) {
    let taken = until_writes(followers, to);
    thread::sleep(LEASE);
    let wrote = followers.wrote(from);
    assert!(
        wrote.is_none_or(|wrote| wrote < taken),
        "{} served too",
        TRIO[from]
    );
    mesh.heal();
    trio.until_healthy(to);
    assert_eq!(trio.volume(from)["role"], "secondary");
}

#[test]
fn whatever_link_is_cut_one_node_serves_and_nothing_acknowledged_is_lost() {
    let (alpha, beta, gamma) = (0, 1, 2);
    let (mesh, mut trio) = Mesh::healthy(Shape::Witness, 32, "1s");
    let followers = Followers::start(2, 32 << 20, 5, &trio.uris());
    until_writes(&followers, alpha);
    for (a, b) in [(alpha, gamma), (beta, gamma), (alpha, beta)] {
        mesh.cut(a, b);
        stays(&followers, alpha, beta);
        mesh.heal();
        trio.until_healthy(alpha);
    }
    // The primary hears nobody. The witness first: with its vote it would have beta leave S, and then
    // nobody could know that it did not go on alone.
    mesh.cut(alpha, gamma);
    mesh.cut(alpha, beta);
    moves(&mesh, &trio, &followers, (alpha, beta));
    // Nobody hears the primary, which hears them all.
    mesh.silence(beta, alpha);
    mesh.silence(beta, gamma);
    moves(&mesh, &trio, &followers, (beta, alpha));
    // The other copy hears nobody: it disturbs nobody either.
    mesh.cut(beta, alpha);
    mesh.cut(beta, gamma);
    stays(&followers, alpha, beta);
    mesh.heal();
    trio.until_healthy(alpha);
    followers.finish(&trio.uri(alpha)).assert_clean();
    trio.stop_and_compare(alpha, 32);
}

#[test]
fn a_takeover_of_the_primarys_process_is_no_failover() {
    let mut trio = Trio::healthy(Shape::Witness, 16, "2s");
    let mut client = attach(&trio.uri(0));
    for round in 1..=3 {
        assert_eq!(write(&mut client, 0, &[round; 4096]), Ok(()));
        let old = trio.daemons[0].take().expect("alpha runs");
        let began = Instant::now();
        trio.daemons[0] = Some(trio.lab.take_over(old, Duration::from_secs(30)));
        let read = read(&mut client, 0, 4096);
        println!("round {round}: answered after {:?}", began.elapsed());
        assert_eq!(read, Ok(vec![round; 4096]), "the client stays attached");
        trio.until_healthy(0);
        assert_eq!(trio.volume(0)["role"], "primary");
    }
}

#[test]
fn a_primary_that_slept_past_its_lease_answers_neither_reads_nor_writes() {
    let trio = Trio::healthy(Shape::Witness, 16, "1s");
    let mut old = attach(&trio.uri(0));
    assert_eq!(write(&mut old, 0, &[1; 4096]), Ok(()));
    trio.daemon(0).pause();
    let is_primary = |volume: &serde_json::Value| volume["role"] == "primary";
    trio.lab
        .until("beta", "v", SERVED_MAX, "takes over", is_primary);
    let mut new = attach(&trio.uri(1));
    assert_eq!(read(&mut new, 0, 4096), Ok(vec![1; 4096]));
    assert_eq!(write(&mut new, 0, &[2; 4096]), Ok(()));
    // They wait in the socket of the one that sleeps.
    let kind = CommandKind::READ;
    old.send(&Ask::plain(kind, 0, 4096))
        .expect("the kernel takes it");
    old.send(&Ask::write(0, vec![3; 4096]))
        .expect("the kernel takes it");
    trio.daemon(0).resume();
    assert!(old.receive().is_err(), "nothing is answered any more");
    trio.until_healthy(1);
    assert_eq!(read(&mut new, 0, 4096), Ok(vec![2; 4096]));
    assert_eq!(trio.volume(0)["role"], "secondary");
    assert!(
        trio.daemon(0).log().contains("W117"),
        "it says that it was superseded"
    );
}

#[test]
fn without_auto_promote_an_operator_decides_and_a_plain_promote_waits_for_the_lease() {
    let lab = Trio::lab(Shape::Witness, 16, "1s");
    let text = fs::read_to_string(lab.config()).expect("the lab wrote it");
    let text = text.replace("[volume.v]\n", "[volume.v]\nauto_promote = false\n");
    fs::write(lab.config(), text).expect("the lab's folder is writable");
    let mut trio = Trio::of(Shape::Witness, lab);
    (0..3).for_each(|index| trio.serve(index));
    trio.found();
    trio.kill(0);
    thread::sleep(LEASE * 3);
    assert_eq!(trio.volume(1)["role"], "secondary");
    trio.lab.done("beta", &["promote", "v"]);
    // A planned move: the role is laid down here, and taken there.
    trio.start(0);
    trio.until_healthy(1);
    trio.lab.done("beta", &["demote", "v", "--disconnect"]);
    let began = Instant::now();
    trio.lab.done("alpha", &["promote", "v"]);
    println!("moved in {:?}", began.elapsed());
    assert!(
        began.elapsed() < LEASE,
        "nobody waits for a lease that was given back"
    );
    trio.until_healthy(0);
    // The dead cannot be asked: promotion waits until their lease has run out.
    trio.kill(0);
    trio.lab.done("beta", &["promote", "v", "--wait", "10s"]);
    let refused = trio.lab.pollux("gamma", &["promote", "v"]);
    assert_eq!(refused.exit, 1, "a witness serves nobody: {refused:?}");
    trio.kill(2);
    trio.kill(1);
    trio.start(1);
    let alone = trio.lab.pollux("beta", &["promote", "v", "--wait", "2s"]);
    assert_eq!(alone.exit, 4, "{alone:?}");
    assert!(alone.stderr.contains("alpha, gamma"), "{alone:?}");
    let check = trio.lab.pollux("beta", &["status", "--check"]);
    assert_eq!(check.exit, 6, "{check:?}");
}

#[test]
fn with_on_quorum_loss_fail_clients_get_errors_while_there_is_no_majority_and_service_goes_on() {
    let lab = Trio::lab(Shape::Witness, 16, "1s");
    let text = fs::read_to_string(lab.config()).expect("the lab wrote it");
    // Else the two that come back may choose beta before alpha has dialled them again.
    let keys = "[volume.v]\nauto_promote = false\non_quorum_loss = \"fail\"\n";
    let text = text.replace("[volume.v]\n", keys);
    fs::write(lab.config(), text).expect("the lab's folder is writable");
    let mut trio = Trio::of(Shape::Witness, lab);
    (0..3).for_each(|index| trio.serve(index));
    trio.found();
    let mut client = attach(&trio.uri(0));
    assert_eq!(write(&mut client, 0, &[1; 4096]), Ok(()));
    // The witness first: with its vote beta would leave S, and a write end under the lease that is left.
    trio.kill(2);
    trio.kill(1);
    let began = Instant::now();
    let waited = write(&mut client, 0, &[2; 4096]).expect_err("no majority is there");
    println!("answered with {waited} after {:?}", began.elapsed());
    assert!(began.elapsed() < SERVED_MAX, "it was not to wait");
    for _ in 0..3 {
        let began = Instant::now();
        assert!(write(&mut client, 4096, &[3; 4096]).is_err());
        assert!(read(&mut client, 0, 4096).is_err());
        assert!(began.elapsed() < LEASE, "and nothing waits from then on");
    }
    let reason = trio.volume(0)["reason"].to_string();
    assert!(
        reason.contains("W118") && reason.contains("I/O fails"),
        "{reason}"
    );
    trio.start(1);
    trio.start(2);
    trio.until_healthy(0);
    assert_eq!(write(&mut client, 0, &[4; 4096]), Ok(()));
    assert_eq!(read(&mut client, 0, 4096), Ok(vec![4; 4096]));
    assert_eq!(
        read(&mut client, 4096, 4096),
        Ok(vec![0; 4096]),
        "what was refused never happened"
    );
    let log = trio.daemon(0).log();
    assert!(log.contains("W131") && log.contains("I169"), "{log}");
    drop(client);
    trio.stop_and_compare(0, 16);
}
