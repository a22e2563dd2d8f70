//! Two networks between two nodes: one is enough, and clients do not notice which.

use std::fs;
use std::process::Command;
use std::time::Duration;

use conformance::{Daemon, Lab};
use scenario::disk::{attach, flush, read, write};
use scenario::{NODES, Pair, certify};
use serde_json::Value;

const MEBIBYTES: u64 = 16;
/// The timeouts of the lab, and a busy machine's share.
const SOON: Duration = Duration::from_secs(30);

/// Two namespaces with two cables between them; they go with this value.
struct Namespaces {
    tag: String,
}

impl Namespaces {
    /// `None`: not allowed here.
    fn new() -> Option<Namespaces> {
        let this = Namespaces {
            tag: format!("plx{}", std::process::id() % 100_000),
        };
        let made = (0..2).all(|node| ip(&format!("netns add {}", this.name(node))))
            && (0..2).all(|node| ip(&format!("-n {} link set lo up", this.name(node))))
            && (0..2).all(|net| this.cable(net));
        made.then_some(this)
    }

    fn name(&self, node: usize) -> String {
        format!("{}-{}", self.tag, NODES[node])
    }

    /// Lays the cable of one network.
    fn cable(&self, net: usize) -> bool {
        let (alpha, beta) = (self.name(0), self.name(1));
        ip(&format!(
            "link add net{net} netns {alpha} type veth peer name net{net} netns {beta}"
        )) && (0..2).all(|node| {
            let (name, address) = (self.name(node), host(net, node));
            ip(&format!("-n {name} address add {address}/24 dev net{net}"))
                && ip(&format!("-n {name} link set net{net} up"))
        })
    }

    /// Pulls the cable of one network, or plugs it in: nobody hears of either, packets are lost.
    fn plug(&self, net: usize, is_in: bool) {
        for node in 0..2 {
            let change = if is_in { "delete" } else { "add" };
            let (name, other) = (self.name(node), host(net, 1 - node));
            let rule = format!("-n {name} route {change} blackhole {other}/32");
            assert!(ip(&rule), "{rule}");
        }
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for node in 0..2 {
            ip(&format!("netns delete {}", self.name(node)));
        }
    }
}

fn host(net: usize, node: usize) -> String {
    format!("10.214.{net}.{}", 1 + node)
}

fn ip(words: &str) -> bool {
    let ran = Command::new("ip").args(words.split(' ')).output();
    ran.is_ok_and(|ran| ran.status.success())
}

/// A healthy pair with two volumes, under TLS, whose nodes have an address in each network.
fn healthy(namespaces: &Namespaces) -> Pair {
    let text = Pair::sealed_text(MEBIBYTES)
        + &Pair::volume_text(MEBIBYTES)
            .replace("[volume.v]", "[volume.w]")
            .replace("\"v.img\"", "\"w.img\"")
            .replace("\"v\"", "\"w\"");
    let lab = Lab::new(&NODES, &text);
    let mut config = fs::read_to_string(lab.config()).expect("the lab wrote it");
    for (index, node) in NODES.into_iter().enumerate() {
        certify(&lab, "authority", node);
        let one = format!("address = \"{}\"", lab.node(node).replication.address());
        let [first, second] = [0, 1].map(|net| host(net, index));
        let two = format!("address = [\"{first}:8790\", \"{second}:8790\"]");
        config = config.replace(&one, &two);
    }
    fs::write(lab.config(), config).expect("the lab's folder is writable");
    let daemons = [0, 1].map(|node| Some(serve(&lab, namespaces, node)));
    let pair = Pair { daemons, lab };
    for node in NODES {
        pair.lab.done(node, &["volume", "create", "w"]);
    }
    pair.found();
    pair.lab.done("alpha", &["promote", "w"]);
    pair.lab.until_healthy("alpha", "w", SOON);
    pair
}

fn serve(lab: &Lab, namespaces: &Namespaces, node: usize) -> Daemon {
    let plain = lab.command(NODES[node], &["serve"]);
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &namespaces.name(node)]);
    command.arg(plain.get_program()).args(plain.get_args());
    lab.serve_as(NODES[node], command)
}

/// Of each path to the other node: up, and carrying data.
fn paths(volume: &Value, node: &str) -> Vec<(bool, bool)> {
    let paths = scenario::replica(volume, node)["paths"].as_array();
    let paths = paths.expect("paths is an array").iter();
    let is = |path: &Value, key: &str| path[key].as_bool().expect("it is true or false");
    paths
        .map(|path| (is(path, "up"), is(path, "carries_data")))
        .collect()
}

fn until_paths(pair: &Pair, up: [bool; 2]) {
    for (node, other) in [("alpha", "beta"), ("beta", "alpha")] {
        pair.lab.until(node, "v", SOON, "its paths", |volume| {
            let found: Vec<bool> = paths(volume, other).iter().map(|path| path.0).collect();
            found == up
        });
    }
}

#[test]
fn a_pair_with_two_networks_lives_on_either_and_resyncs_after_both() {
    let Some(namespaces) = Namespaces::new() else {
        println!("skipped: needs root, network namespaces and iproute2");
        return;
    };
    let mut pair = healthy(&namespaces);
    until_paths(&pair, [true, true]);
    // The volumes share the networks.
    let used = |name: &str| {
        let volume = pair.lab.volume("alpha", name);
        let found = paths(&volume, "beta");
        found.iter().position(|path| path.1).expect("one is used")
    };
    assert_ne!(used("v"), used("w"));
    let mut client = attach(&pair.lab.node("alpha").unix_uri("v"));
    assert_eq!(write(&mut client, 0, &[1; 1 << 20]), Ok(()));
    for net in [0, 1] {
        namespaces.plug(net, false);
        let bytes = [2 + net as u8; 1 << 20];
        assert_eq!(write(&mut client, (1 + net as u64) << 20, &bytes), Ok(()));
        assert_eq!(flush(&mut client), Ok(()));
        until_paths(&pair, [net == 1, net == 0]);
        pair.until_healthy(0);
        pair.until_healthy(1);
        namespaces.plug(net, true);
        until_paths(&pair, [true, true]);
    }
    for net in [0, 1] {
        namespaces.plug(net, false);
    }
    assert_eq!(write(&mut client, 5 << 20, &[9; 1 << 20]), Ok(()));
    until_paths(&pair, [false, false]);
    pair.lab.until("alpha", "v", SOON, "degraded", |volume| {
        volume["state"] == "degraded"
    });
    for net in [0, 1] {
        namespaces.plug(net, true);
    }
    pair.until_healthy(0);
    assert_eq!(read(&mut client, 5 << 20, 1 << 20), Ok(vec![9; 1 << 20]));
    drop(client);
    pair.stop_and_compare(0, MEBIBYTES);
}
