//! A pair whose links are under TLS does all that a pair does, and takes over new certificates.

use std::fs;
use std::time::Duration;

use conformance::eventually;
use scenario::disk::{attach, flush, read, write};
use scenario::{NODES, Pair, Wire, certify};

const MEBIBYTES: u64 = 16;
const SOON: Duration = Duration::from_secs(15);

fn until_said(pair: &Pair, index: usize, words: &str) {
    eventually(SOON, words, || {
        pair.daemon(index).log().contains(words).then_some(())
    });
}

#[test]
fn a_pair_under_tls_mirrors_promotes_and_resyncs_after_a_cut() {
    let lab = Pair::sealed_lab(MEBIBYTES);
    let (wire, mut pair) = Wire::healthy_pair_of(lab, &Pair::sealed_text(MEBIBYTES));
    let mut client = attach(&pair.uri(0));
    for index in 0..4 {
        let bytes = vec![index as u8 + 1; 1 << 20];
        assert_eq!(write(&mut client, index << 20, &bytes), Ok(()));
    }
    assert_eq!(write(&mut client, 5000, &[9; 3000]), Ok(()));
    for sender in [0, 1] {
        wire.silence(sender);
    }
    assert_eq!(write(&mut client, 4 << 20, &[7; 1 << 20]), Ok(()));
    assert_eq!(flush(&mut client), Ok(()));
    pair.lab.until("alpha", "v", SOON, "degraded", |volume| {
        volume["state"] == "degraded"
    });
    wire.heal();
    pair.until_healthy(0);
    drop(client);
    pair.lab.done("alpha", &["demote", "v", "--disconnect"]);
    pair.lab.done("beta", &["promote", "v"]);
    pair.until_healthy(1);
    let mut client = attach(&pair.uri(1));
    assert_eq!(read(&mut client, 4 << 20, 1 << 20), Ok(vec![7; 1 << 20]));
    assert_eq!(read(&mut client, 5000, 3000), Ok(vec![9; 3000]));
    assert_eq!(write(&mut client, 9 << 20, &[8; 70_000]), Ok(()));
    drop(client);
    pair.stop_and_compare(1, MEBIBYTES);
}

/// Writes a pattern to a pair, and says in how many chunks on the wire it was found.
fn seen_on_the_wire(wire: &Wire, mut pair: Pair) -> u64 {
    let mut client = attach(&pair.uri(0));
    wire.watch_for(&[b'S'; 64]);
    let before = wire.carried();
    assert_eq!(write(&mut client, 0, &[b'S'; 1 << 20]), Ok(()));
    assert!(wire.carried() - before > 1 << 20, "it went over the wire");
    let seen = wire.seen();
    drop(client);
    pair.stop_and_compare(0, MEBIBYTES);
    seen
}

#[test]
fn what_passes_over_a_link_under_tls_is_not_the_clients_bytes() {
    let (wire, pair) = Wire::healthy_pair(MEBIBYTES);
    assert!(seen_on_the_wire(&wire, pair) > 0, "in the clear it is");
    let lab = Pair::sealed_lab(MEBIBYTES);
    let (wire, pair) = Wire::healthy_pair_of(lab, &Pair::sealed_text(MEBIBYTES));
    assert_eq!(seen_on_the_wire(&wire, pair), 0);
}

#[test]
fn new_certificates_are_taken_over_while_the_pair_runs() {
    let lab = Pair::sealed_lab(MEBIBYTES);
    let (wire, mut pair) = Wire::healthy_pair_of(lab, &Pair::sealed_text(MEBIBYTES));
    let mut client = attach(&pair.uri(0));
    let configs = ["alpha", "beta"].map(|node| pair.lab.path(&format!("{node}-wired.toml")));
    let apply = |pair: &Pair, index: usize| {
        let node = NODES[index];
        let command = pair
            .lab
            .command_with(&configs[index], node, &["config", "apply"]);
        conformance::tools::run(command, SOON)
    };
    for index in [0, 1] {
        certify(&pair.lab, "next", NODES[index]);
        let applied = apply(&pair, index);
        assert_eq!(applied.exit, 0, "{applied:?}");
        until_said(&pair, index, "new links use the certificate sha256:");
    }
    // The link that stands is not touched; the next one uses them.
    assert_eq!(pair.volume(0)["state"], "healthy");
    wire.cut();
    assert_eq!(write(&mut client, 1 << 20, &[5; 1 << 20]), Ok(()));
    wire.heal();
    pair.until_healthy(0);
    // One that cannot be used changes nothing.
    fs::write(pair.lab.node("alpha").file("tls/node-cert.pem"), "junk").expect("it is ours");
    let refused = apply(&pair, 0);
    assert_eq!(refused.exit, 9, "{refused:?}");
    assert!(
        refused.stderr.contains("holds no PEM certificate"),
        "{refused:?}"
    );
    wire.cut();
    wire.heal();
    pair.until_healthy(0);
    drop(client);
    pair.stop_and_compare(0, MEBIBYTES);
}
