//! Links that are cut, silent, one-way or damaged: clients go on, and nothing wrong is applied.

use std::thread;
use std::time::{Duration, Instant};

use scenario::disk::{attach, flush, read, write};
use scenario::{Clients, Pair, Random, Wire};

const MEBIBYTES: u64 = 16;

/// Longest time a client may wait when the other node falls silent: the timeouts of the lab, and
/// a busy machine's share.
const PATIENCE: Duration = Duration::from_secs(12);

fn heals(wire: &Wire, mut pair: Pair) {
    wire.heal();
    pair.until_healthy(0);
    pair.stop_and_compare(0, MEBIBYTES);
}

#[test]
fn bytes_damaged_on_the_link_are_never_applied() {
    let (wire, pair) = Wire::healthy_pair(MEBIBYTES);
    let mut client = attach(&pair.uri(0));
    for index in 0..10 {
        wire.damage(1);
        let bytes = [index as u8 + 1; 1 << 19];
        assert_eq!(write(&mut client, index << 19, &bytes), Ok(()));
        assert_eq!(wire.damaged(), index + 1);
        pair.until_healthy(0);
    }
    assert_eq!(flush(&mut client), Ok(()));
    let log = pair.daemon(0).log() + &pair.daemon(1).log();
    assert!(log.contains("damaged"), "the cause is named");
    drop(client);
    heals(&wire, pair);
}

#[test]
fn a_silent_link_is_given_up_and_clients_go_on() {
    let (wire, pair) = Wire::healthy_pair(MEBIBYTES);
    let mut client = attach(&pair.uri(0));
    for silent in [&[0, 1][..], &[0], &[1]] {
        silent.iter().for_each(|sender| wire.silence(*sender));
        let began = Instant::now();
        assert_eq!(
            write(&mut client, 1 << 20, &[3; 70_000]),
            Ok(()),
            "{silent:?}"
        );
        assert_eq!(flush(&mut client), Ok(()));
        assert!(
            began.elapsed() < PATIENCE,
            "{silent:?}: {:?}",
            began.elapsed()
        );
        assert_eq!(read(&mut client, 1 << 20, 70_000), Ok(vec![3; 70_000]));
        pair.lab
            .until("alpha", "v", PATIENCE, "degraded", |volume| {
                volume["state"] == "degraded"
            });
        wire.heal();
        pair.until_healthy(0);
    }
    drop(client);
    heals(&wire, pair);
}

#[test]
fn no_client_notices_a_link_that_flaps_falls_silent_and_damages_bytes() {
    let (wire, pair) = Wire::healthy_pair(MEBIBYTES);
    trouble_goes_unnoticed(&wire, pair);
}

#[test]
fn no_client_notices_that_of_a_link_under_tls() {
    let lab = Pair::sealed_lab(MEBIBYTES);
    let (wire, pair) = Wire::healthy_pair_of(lab, &Pair::sealed_text(MEBIBYTES));
    trouble_goes_unnoticed(&wire, pair);
}

fn trouble_goes_unnoticed(wire: &Wire, mut pair: Pair) {
    let clients = Clients::start(2, MEBIBYTES << 20, 77);
    clients.point_at(&pair.uri(0));
    let mut random = Random::new(77);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(8) {
        match random.below(5) {
            0 => wire.silence(0),
            1 => wire.silence(1),
            2 => wire.damage(1),
            _ => wire.cut(),
        }
        thread::sleep(Duration::from_millis(random.below(400)));
        wire.heal();
        thread::sleep(Duration::from_millis(random.below(300)));
    }
    wire.damage(0);
    pair.until_healthy(0);
    let seen = clients.finish(&pair.uri(0));
    assert!(seen.report.is_clean(), "{:#?}", seen.report.violations);
    assert!(seen.complaints.is_empty(), "{:#?}", seen.complaints);
    assert!(
        seen.answers > 1_000,
        "the clients hardly ran: {}",
        seen.answers
    );
    pair.stop_and_compare(0, MEBIBYTES);
}
