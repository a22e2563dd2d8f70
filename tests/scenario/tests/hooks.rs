//! A virtual address follows the primary between network namespaces, moved by the example hook.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use conformance::{Daemon, Lab};
use scenario::disk::{read, try_attach, write_fua};
use scenario::{Shape, TRIO, Trio};

const ADDRESS: &str = "10.213.77.100";
const URI: &str = "nbd://10.213.77.100:10809/v";
/// A failover, a hook, and a busy machine.
const MOVED_MAX: Duration = Duration::from_secs(20);

/// Three namespaces on one bridge; they go with this value.
struct Namespaces {
    tag: String,
}

impl Namespaces {
    /// `None`: not allowed here, or the address is in use.
    fn new() -> Option<Namespaces> {
        let this = Namespaces {
            tag: format!("plx{}", std::process::id() % 100_000),
        };
        let bridge = &this.tag;
        let made = ip(&format!("link add {bridge} type bridge"))
            && ip(&format!("address add 10.213.77.254/24 dev {bridge}"))
            && ip(&format!("link set {bridge} up"))
            && (0..3).all(|index| this.add(index));
        made.then_some(this)
    }

    fn add(&self, index: usize) -> bool {
        let (bridge, name, host) = (&self.tag, self.name(index), 1 + index);
        let outer = format!("{bridge}{index}");
        ip(&format!("netns add {name}"))
            && ip(&format!(
                "link add {outer} type veth peer name eth0 netns {name}"
            ))
            && ip(&format!("link set {outer} master {bridge} up"))
            && ip(&format!(
                "-n {name} address add 10.213.77.{host}/24 dev eth0"
            ))
            && ip(&format!("-n {name} link set eth0 up"))
            && ip(&format!("-n {name} link set lo up"))
    }

    fn name(&self, index: usize) -> String {
        format!("{}-{}", self.tag, TRIO[index])
    }

    /// Pulls a node's cable, or plugs it in.
    fn plug(&self, index: usize, state: &str) {
        let outer = format!("{}{index}", self.tag);
        assert!(ip(&format!("link set {outer} {state}")), "{outer} {state}");
    }

    fn holds_address(&self, index: usize) -> bool {
        let name = self.name(index);
        let shown = Command::new("ip").args(["-n", &name, "address"]).output();
        let shown = shown.expect("ip was there a moment ago").stdout;
        String::from_utf8_lossy(&shown).contains(ADDRESS)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for index in 0..3 {
            ip(&format!("netns delete {}", self.name(index)));
        }
        ip(&format!("link delete {}", self.tag));
    }
}

fn ip(words: &str) -> bool {
    let ran = Command::new("ip").args(words.split(' ')).output();
    ran.is_ok_and(|ran| ran.status.success())
}

/// Nodes in the namespaces, and the hook on both with data.
fn configure(lab: &Lab) {
    let hook = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/examples/virtual-ip"
    );
    let hook = PathBuf::from(hook).canonicalize();
    let hook = hook.expect("the example is part of the repository");
    let argv = format!("[\"{}\", \"{ADDRESS}/24\", \"eth0\"]", hook.display());
    let mut text = fs::read_to_string(lab.config()).expect("the lab wrote it");
    for (index, node) in TRIO.iter().enumerate() {
        let host = 1 + index;
        text = text.replace(
            &format!("address = \"{}\"", lab.node(node).replication.address()),
            &format!("address = \"10.213.77.{host}:8790\""),
        );
        let nbd = format!("nbd = \"{}\"", lab.node(node).nbd.address());
        let open = "nbd = \"0.0.0.0:10809\"\ninsecure = [\"nbd\", \"replication\"]";
        text = text.replace(&nbd, open);
    }
    let hooks = format!("[volume.v]\non_promote = {argv}\non_demote = {argv}\n");
    let text = text.replace("[volume.v]\n", &hooks);
    fs::write(lab.config(), text).expect("the lab's folder is writable");
}

fn serve(lab: &Lab, namespaces: &Namespaces, index: usize) -> Daemon {
    let plain = lab.command(TRIO[index], &["serve"]);
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &namespaces.name(index)]);
    command.arg(plain.get_program()).args(plain.get_args());
    lab.serve_as(TRIO[index], command)
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < MOVED_MAX, "never came true: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_virtual_address_follows_the_primary() {
    let has_arping = Command::new("arping").arg("-V").output().is_ok();
    let Some(namespaces) = Namespaces::new().filter(|_| has_arping) else {
        println!("skipped: needs root, network namespaces, iproute2 and iputils-arping");
        return;
    };
    let lab = Trio::lab(Shape::Witness, 16, "1s");
    configure(&lab);
    let mut trio = Trio::of(Shape::Witness, lab);
    trio.daemons = [0, 1, 2].map(|index| Some(serve(&trio.lab, &namespaces, index)));
    trio.found();
    until("alpha has the address", || namespaces.holds_address(0));
    let mut client = try_attach(URI).expect("the address leads to the primary");
    assert_eq!(write_fua(&mut client, 0, &[7; 4096]), Ok(()));
    // A machine is lost, with its address.
    namespaces.plug(0, "down");
    trio.kill(0);
    let began = Instant::now();
    until("beta has the address", || namespaces.holds_address(1));
    println!("the address moved after {:?}", began.elapsed());
    until("beta answers there", || try_attach(URI).is_ok());
    let mut client = try_attach(URI).expect("it did a moment ago");
    assert_eq!(read(&mut client, 0, 4096), Ok(vec![7; 4096]));
    // What the dead one still held is given back before it can disturb anybody.
    assert!(namespaces.holds_address(0), "nothing took it away");
    trio.daemons[0] = Some(serve(&trio.lab, &namespaces, 0));
    until("alpha gave it up", || !namespaces.holds_address(0));
    namespaces.plug(0, "up");
    trio.until_healthy(1);
    // In order: the address goes with the role.
    let daemon = trio.daemons[1].take().expect("beta runs");
    assert_eq!(daemon.stop(), 0);
    until("alpha has it again", || namespaces.holds_address(0));
    assert!(!namespaces.holds_address(1));
    assert_eq!(
        read(&mut try_attach(URI).expect("it serves"), 0, 4096),
        Ok(vec![7; 4096])
    );
}
