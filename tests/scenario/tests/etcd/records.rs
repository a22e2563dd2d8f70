//! What operators do to the values in etcd.

use std::fs;

use conformance::eventually;
use scenario::{Followers, TRIO, Trio, is_there, trio_by_etcd};

use super::{ALPHA, BETA, GAMMA, MEBIBYTES, SERVED_MAX};

const KEY: &str = "/pollux/lab/v";

fn refused(trio: &Trio, node: usize, code: &str) {
    let ran = trio
        .lab
        .pollux(TRIO[node], &["promote", "v", "--wait", "3s"]);
    assert_ne!(ran.exit, 0, "{}", ran.stdout);
    assert!(ran.stderr.contains(code), "{}", ran.stderr);
}

#[test]
fn an_etcd_that_was_put_back_elects_nobody_until_an_operator_chooses_a_copy() {
    if !is_there() {
        return;
    }
    let (etcd, mut trio) = trio_by_etcd(MEBIBYTES, "2s");
    (0..3).for_each(|index| trio.serve(index));
    trio.found();
    let old = etcd.value(KEY);
    // gamma leaves; what is in etcd then says that it is a member.
    trio.kill(GAMMA);
    let has_left = |volume: &serde_json::Value| volume["reason"]["code"] == "W104";
    trio.lab.until(
        TRIO[ALPHA],
        "v",
        SERVED_MAX,
        "goes on without gamma",
        has_left,
    );
    trio.kill(ALPHA);
    trio.kill(BETA);
    etcd.put(KEY, &old[..old.len() - 1]);
    trio.start(GAMMA);
    trio.start(BETA);
    refused(&trio, GAMMA, "E243");
    refused(&trio, BETA, "E243");
    for index in [BETA, GAMMA] {
        assert_eq!(trio.volume(index)["role"], "secondary");
    }
    trio.lab
        .done(TRIO[BETA], &["promote", "v", "--force", "--yes"]);
    trio.start(ALPHA);
    for other in [ALPHA, GAMMA] {
        let is_split = |volume: &serde_json::Value| volume["reason"]["code"] == "E206";
        let node = TRIO[other];
        trio.lab
            .until(node, "v", SERVED_MAX, "is of another branch", is_split);
        let keep = ["splitbrain", "resolve", "v", "--keep", TRIO[BETA], "--yes"];
        trio.lab.done(node, &keep);
    }
    trio.until_healthy(BETA);
    assert_eq!(trio.volume(BETA)["quorum"]["votes"]["of"], 1);
    assert_ne!(etcd.value(KEY), old);
    trio.stop_and_compare(BETA, MEBIBYTES);
}

#[test]
fn a_volume_of_voters_moves_to_etcd_with_what_it_holds() {
    if !is_there() {
        return;
    }
    let (_etcd, mut trio) = trio_by_etcd(MEBIBYTES, "2s");
    let by_etcd = trio.configs.clone();
    for (index, config) in by_etcd.iter().enumerate() {
        let text = fs::read_to_string(config).expect("the lab wrote it");
        let (text, _) = text.split_once("[etcd]").expect("it names etcd");
        let text = text.replace("control = \"etcd\"", "quorum = \"majority\"");
        trio.configs[index] = trio.lab.path(&format!("{}-voters.toml", TRIO[index]));
        fs::write(&trio.configs[index], text).expect("the lab's folder is writable");
    }
    trio.votes = 3;
    (0..3).for_each(|index| trio.serve(index));
    trio.found();
    let followers = Followers::start(1, MEBIBYTES << 20, 11, &trio.uris());
    let answers = || (followers.answers() > 200).then_some(());
    eventually(SERVED_MAX, "clients wrote", answers);
    (0..3).for_each(|index| trio.kill(index));
    (trio.configs, trio.votes) = (by_etcd, 1);
    (0..3).for_each(|index| trio.start(index));
    let primary = trio.until_primary(SERVED_MAX);
    trio.until_healthy(primary);
    let quorum = &trio.volume(primary)["quorum"];
    assert_eq!(
        (&quorum["mode"], &quorum["votes"]["of"]),
        (&"etcd".into(), &1.into())
    );
    let violations = followers.finish(&trio.uri(primary)).report.violations;
    assert!(violations.is_empty(), "{violations:#?}");
    trio.stop_and_compare(primary, MEBIBYTES);
}

#[test]
fn the_key_of_a_deleted_volume_is_in_the_way_of_a_new_one_until_it_is_deleted_too() {
    if !is_there() {
        return;
    }
    let (etcd, mut trio) = trio_by_etcd(MEBIBYTES, "2s");
    (0..3).for_each(|index| trio.serve(index));
    trio.found();
    trio.lab.done(TRIO[ALPHA], &["demote", "v"]);
    for node in TRIO {
        trio.lab
            .done(node, &["volume", "delete", "v", "--wipe", "--yes"]);
    }
    for node in TRIO {
        trio.lab.done(node, &["volume", "create", "v"]);
    }
    refused(&trio, ALPHA, "E242");
    // A value that Pollux did not write is said once, and nothing acts on it.
    etcd.put(KEY, b"mine");
    eventually(SERVED_MAX, "alpha says what it cannot read", || {
        trio.daemon(ALPHA).log().contains("W121").then_some(())
    });
    etcd.delete(KEY);
    eventually(SERVED_MAX, "alpha sees that the key is gone", || {
        let ran = trio.lab.pollux(TRIO[ALPHA], &["promote", "v"]);
        (ran.exit == 0).then_some(())
    });
    trio.until_healthy(ALPHA);
    assert_eq!(trio.daemon(ALPHA).log().matches("W121").count(), 1);
}
