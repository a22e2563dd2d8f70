//! Faults of a whole node: `serve` ends with the cause and touches nothing.

use std::fs;
use std::net::TcpListener;

use conformance::Lab;
use scenario::Pair;

const SINGLE: &str = "[volume.v]\nsize = \"16MiB\"\nbacking = \"v.img\"\n\
                      replicas = [\"solo\"]\nnbd = [{ name = \"v\" }]\n";

#[test]
fn a_port_in_use_ends_serve_with_its_name() {
    let lab = Lab::new(&["solo"], SINGLE);
    let node = lab.node("solo");
    for (port, what) in [(&node.nbd, "nbd"), (&node.replication, "replication")] {
        let _taken = TcpListener::bind(port.address()).expect("the lab claimed it");
        let ran = lab.pollux("solo", &["serve"]);
        assert_eq!(ran.exit, 1, "{ran:?}");
        let error = ran
            .stderr
            .lines()
            .find(|line| line.starts_with("error"))
            .unwrap_or_default();
        assert!(
            error.contains(&port.address()) && error.contains(what),
            "{}",
            ran.stderr
        );
        assert!(ran.stderr.contains("in use"), "{}", ran.stderr);
    }
    assert!(!node.file("v.img").exists() && !node.metadata("v").exists());
}

#[test]
fn a_data_dir_has_one_daemon() {
    let lab = Lab::new(&["solo"], SINGLE);
    let _daemon = lab.serve("solo");
    let ran = lab.pollux("solo", &["serve"]);
    assert_eq!(ran.exit, 1, "{ran:?}");
    assert!(
        ran.stderr.contains("is in use by another pollux"),
        "{}",
        ran.stderr
    );
    lab.status("solo");
}

#[test]
fn a_data_dir_that_is_missing_is_named_and_not_made() {
    let lab = Lab::new(&["solo"], SINGLE);
    fs::remove_dir_all(lab.node("solo").file("")).expect("it was made by the lab");
    let ran = lab.pollux("solo", &["serve"]);
    assert_eq!(ran.exit, 1, "{ran:?}");
    assert!(ran.stderr.contains("does not exist"), "{}", ran.stderr);
    assert!(!lab.node("solo").file("").exists());
}

#[test]
fn a_configuration_with_errors_is_exit_9() {
    let lab = Lab::new(&["solo"], &SINGLE.replace("size", "seize"));
    for verb in [&["serve"][..], &["config", "check"]] {
        let ran = lab.pollux("solo", verb);
        assert_eq!(ran.exit, 9, "{ran:?}");
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert!(
            said.contains("lab.toml") && said.contains("did you mean `size`?"),
            "{said}"
        );
    }
    // Two replicas and nothing said about quorum: no silent "off".
    let pair = Lab::new(&scenario::NODES, &Pair::volume_text(16));
    let text = pair.config_text("lab", &Pair::volume_text(16));
    for (with, code) in [
        ("", 9),
        ("quorum = \"majority\"\n", 0),
        ("quorum = \"off\"\n", 0),
    ] {
        let text = text.replace("quorum = \"off\"\n", with);
        fs::write(pair.config(), text).expect("the lab's folder is writable");
        assert_eq!(
            pair.pollux("alpha", &["config", "check"]).exit,
            code,
            "{with}"
        );
    }
}

#[test]
fn no_daemon_is_exit_8() {
    let lab = Lab::new(&["solo"], SINGLE);
    for words in [&["status"][..], &["promote", "v"], &["volume", "list"]] {
        let ran = lab.pollux("solo", words);
        assert_eq!(ran.exit, 8, "{words:?}: {ran:?}");
    }
}

#[test]
fn a_socket_that_a_killed_daemon_left_is_replaced() {
    let lab = Lab::new(&["solo"], SINGLE);
    let daemon = lab.serve("solo");
    lab.done("solo", &["volume", "create", "v"]);
    daemon.kill();
    let node = lab.node("solo");
    assert!(node.nbd_socket().exists() && node.file("pollux.sock").exists());
    let daemon = lab.serve("solo");
    lab.until_serving("solo", "v", scenario::HEALTHY_MAX);
    scenario::disk::attach(&node.unix_uri("v"));
    assert_eq!(daemon.stop(), 0);
    assert!(!node.nbd_socket().exists() && !node.file("pollux.sock").exists());
}
