//! Three members of etcd as processes, and the gates through which nodes and members reach them.
//!
//! ```text
//!  alpha ──► gate alpha→m0 ──► m0 ◄── gate →m0 ──┐
//!        ──► gate alpha→m1 ──► m1 ◄── gate →m1 ──┼── m0, m1, m2: elect their own leader
//!        ──► gate alpha→m2 ──► m2 ◄── gate →m2 ──┘   and so on for every node
//! ```
//! A shut gate breaks its connections and takes no new ones. A paused member is one that the
//! others and all nodes lost, and that does not know it.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use conformance::{Lab, Port, binary, tools};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::gate::Gate;
use crate::{Shape, TRIO, Trio};

/// Time for three members to elect a leader on a busy machine.
const LEADER_MAX: Duration = Duration::from_secs(60);

/// etcd is installed, and the binary under test can ask it. If not, says so: the test skips.
pub fn is_there() -> bool {
    let packages = [("etcd", "etcd-server"), ("etcdctl", "etcd-client")];
    if !tools::have(&packages) {
        return false;
    }
    let lab = Lab::new(&TRIO, "");
    let text = by_etcd(
        &lab.config_text("lab", ""),
        "1s",
        &["http://127.0.0.1:1".to_owned()],
    );
    fs::write(lab.config(), text).expect("the lab's folder is writable");
    let checked = lab.pollux("alpha", &["config", "check"]);
    let is_able = !format!("{}{}", checked.stdout, checked.stderr).contains("E240");
    let name = binary().display();
    assert!(
        is_able,
        "{name} was built without etcd; POLLUX_BIN names another"
    );
    true
}

fn by_etcd(plain: &str, lease: &str, endpoints: &[String]) -> String {
    let control = format!("control = \"etcd\"\nlease = \"{lease}\"\n");
    let text = plain.replace("quorum = \"off\"\n", &control);
    format!("{text}[etcd]\nendpoints = {endpoints:?}\n")
}

/// Three nodes with a copy each, and the etcd that chooses their records; nothing of the nodes runs.
pub fn trio_by_etcd(mebibytes: u64, lease: &str) -> (Etcd, Trio) {
    let (lab, plain) = lab(mebibytes);
    let etcd = Etcd::start(lab.path("etcd"), None);
    let texts = [0, 1, 2].map(|index| by_etcd(&plain, lease, &etcd.endpoints(index)));
    (etcd, trio(lab, &texts))
}

/// As [`trio_by_etcd`], and etcd takes only who shows a certificate of the folder `etcd-tls`.
pub fn trio_by_etcd_tls(mebibytes: u64, lease: &str) -> (Etcd, Trio) {
    let (lab, plain) = lab(mebibytes);
    let folder = lab.path("etcd-tls");
    let name = folder.display().to_string();
    lab.done(TRIO[0], &["tls", "init", &name]);
    let etcd = Etcd::start(lab.path("etcd"), Some(folder));
    let files = format!(
        "ca = \"{name}/ca-cert.pem\"\ncert = \"{name}/client-cert.pem\"\n\
         key = \"{name}/client-key.pem\"\n"
    );
    let text = |index| by_etcd(&plain, lease, &etcd.endpoints(index)) + &files;
    let texts = [0, 1, 2].map(text);
    (etcd, trio(lab, &texts))
}

fn lab(mebibytes: u64) -> (Lab, String) {
    let volume = Shape::Three.volume_text(mebibytes);
    let lab = Lab::new(&TRIO, &volume);
    let plain = lab.config_text("lab", &volume);
    let plain = plain.replace("keepalive = \"250ms\"", "keepalive = \"500ms\"");
    (lab, plain)
}

/// With a file for each node.
fn trio(lab: Lab, texts: &[String; 3]) -> Trio {
    let mut trio = Trio::of(Shape::Three, lab);
    trio.votes = 1;
    // What verbs are run with; each daemon has its own gates.
    fs::write(trio.lab.config(), &texts[0]).expect("the lab's folder is writable");
    for (index, text) in texts.iter().enumerate() {
        let config = trio.lab.path(&format!("{}.toml", TRIO[index]));
        fs::write(&config, text).expect("the lab's folder is writable");
        trio.configs[index] = config;
    }
    trio
}

/// Three members, nine gates of nodes to them, and one of each to the others.
pub struct Etcd {
    folder: PathBuf,
    clients: [Port; 3],
    peers: [Port; 3],
    /// Where its certificates are, and its clients'.
    certificates: Option<PathBuf>,
    members: [Option<Child>; 3],
    /// By which they know each other, in hexadecimal.
    ids: [String; 3],
    /// By node and member.
    gates: Vec<Vec<Gate>>,
    /// By the member that is reached.
    peer_gates: Vec<Gate>,
}

impl Etcd {
    /// Starts three members and waits until they have a leader.
    fn start(folder: PathBuf, certificates: Option<PathBuf>) -> Etcd {
        fs::create_dir(&folder).expect("the lab's folder is writable");
        let ports = || [Port::claim(), Port::claim(), Port::claim()];
        let (clients, peers) = (ports(), ports());
        let gate = |client: &Port| Gate::to(client.address(), false);
        let gates = (0..3).map(|_| clients.iter().map(gate).collect());
        let peer_gates = peers.iter().map(|peer| Gate::to(peer.address(), true));
        let mut etcd = Etcd {
            gates: gates.collect(),
            peer_gates: peer_gates.collect(),
            folder,
            certificates,
            peers,
            members: [const { None }; 3],
            ids: Default::default(),
            clients,
        };
        (0..3).for_each(|member| etcd.serve(member));
        etcd.leader();
        etcd.ids = [0, 1, 2].map(|member| etcd.id(member));
        etcd
    }

    fn endpoints(&self, node: usize) -> Vec<String> {
        let url = |gate: &Gate| format!("{}://{}", self.scheme(), gate.address());
        self.gates[node].iter().map(url).collect()
    }

    /// Of clients; members trust each other.
    fn scheme(&self) -> &'static str {
        match self.certificates {
            Some(_) => "https",
            None => "http",
        }
    }

    /// Starts a member that is down.
    pub fn serve(&mut self, member: usize) {
        let http = |address: String| format!("http://{address}");
        let name = |index: usize| format!("m{index}");
        let cluster: Vec<String> = (0..3)
            .map(|index| format!("{}={}", name(index), http(self.peer_gates[index].address())))
            .collect();
        let log = self.folder.join(format!("{}.log", name(member)));
        let log = File::options().create(true).append(true).open(log);
        let log = log.expect("the lab's folder is writable");
        let client = format!("{}://{}", self.scheme(), self.clients[member].address());
        let peer = http(self.peers[member].address());
        let advertised = http(self.peer_gates[member].address());
        let mut command = Command::new("etcd");
        command
            .args(["--name", &name(member), "--data-dir"])
            .arg(self.folder.join(name(member)))
            .args([
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
            ])
            .args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &advertised,
            ])
            .args([
                "--initial-cluster",
                &cluster.join(","),
                "--initial-cluster-state",
                "new",
            ])
            .args(["--heartbeat-interval", "100", "--election-timeout", "1000"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("there are descriptors left"))
            .stderr(log);
        if let Some(folder) = &self.certificates {
            command.arg("--client-cert-auth");
            for (flag, file) in [
                ("--trusted-ca-file", "ca-cert.pem"),
                ("--cert-file", "server-cert.pem"),
                ("--key-file", "server-key.pem"),
            ] {
                command.arg(flag).arg(folder.join(file));
            }
        }
        self.members[member] = Some(command.spawn().expect("etcd is installed"));
    }

    /// The member that leads, once there is one. Panics: there is none in time.
    pub fn leader(&self) -> usize {
        let began = Instant::now();
        loop {
            if let Some(leader) = (0..3).find(|member| self.leads(*member)) {
                return leader;
            }
            assert!(began.elapsed() < LEADER_MAX, "etcd has no leader");
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn leads(&self, member: usize) -> bool {
        self.status(member)
            .is_some_and(|status| status["header"]["member_id"] == status["leader"])
    }

    /// What a member says of itself, if it runs and answers.
    fn status(&self, member: usize) -> Option<Value> {
        self.members[member].as_ref()?;
        let mut command = self.etcdctl(member);
        command.args(["endpoint", "status", "--write-out=json"]);
        let ran = tools::run(command, Duration::from_secs(10));
        let mut status = serde_json::from_str::<Value>(&ran.stdout).ok()?;
        let status = status.get_mut(0)?["Status"].take();
        status["leader"].is_number().then_some(status)
    }

    fn etcdctl(&self, member: usize) -> Command {
        let mut command = Command::new("etcdctl");
        let client = self.clients[member].address();
        command
            .env("ETCDCTL_API", "3")
            .args(["--command-timeout=1s", "--endpoints"])
            .arg(format!("{}://{client}", self.scheme()));
        if let Some(folder) = &self.certificates {
            for (flag, file) in [
                ("--cacert", "ca-cert.pem"),
                ("--cert", "client-cert.pem"),
                ("--key", "client-key.pem"),
            ] {
                command.arg(flag).arg(folder.join(file));
            }
        }
        command
    }

    /// What stands at a key, with the line's end that etcdctl adds. Panics: nothing does.
    pub fn value(&self, key: &str) -> Vec<u8> {
        let mut command = self.etcdctl(self.leader());
        command.args(["get", key, "--print-value-only"]);
        let ran = command.output().expect("etcdctl is installed");
        assert!(ran.stdout.len() > 1, "nothing stands at {key}");
        ran.stdout
    }

    /// Puts this there.
    pub fn put(&self, key: &str, value: &[u8]) {
        let file = self.folder.join("value");
        fs::write(&file, value).expect("the lab's folder is writable");
        let mut command = self.etcdctl(self.leader());
        let value = File::open(file).expect("it was just written");
        let ran = command.args(["put", key]).stdin(value).output();
        let ran = ran.expect("etcdctl is installed");
        assert!(ran.status.success(), "{ran:?}");
    }

    /// `etcdctl del`.
    pub fn delete(&self, key: &str) {
        let mut command = self.etcdctl(self.leader());
        command.args(["del", key]);
        let ran = tools::run(command, Duration::from_secs(10));
        assert_eq!(ran.stdout.trim(), "1", "{ran:?}");
    }

    fn id(&self, member: usize) -> String {
        let began = Instant::now();
        loop {
            let status = self.status(member);
            let id = status.and_then(|status| status["header"]["member_id"].as_u64());
            if let Some(id) = id {
                return format!("{id:x}");
            }
            assert!(began.elapsed() < LEADER_MAX, "a member of etcd is silent");
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Kills a member that runs.
    pub fn kill(&mut self, member: usize) {
        let mut child = self.members[member].take().expect("the member runs");
        child.kill().expect("it is a child of this process");
        child.wait().expect("it is a child of this process");
    }

    /// The member stops where it is (SIGSTOP).
    pub fn pause(&self, member: usize) {
        self.signal(member, Signal::STOP);
    }

    /// It goes on.
    pub fn resume(&self, member: usize) {
        self.signal(member, Signal::CONT);
    }

    fn signal(&self, member: usize, signal: Signal) {
        let child = self.members[member].as_ref().expect("the member runs");
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.expect("it is a process");
        kill_process(pid, signal).expect("it is a child of this process");
    }

    /// A node does not reach any member.
    pub fn cut(&self, node: usize) {
        (0..3).for_each(|member| self.shut(node, member));
    }

    /// A node does not reach this member.
    pub fn shut(&self, node: usize, member: usize) {
        self.gates[node][member].shut();
    }

    /// Two members do not reach each other.
    pub fn part(&self, a: usize, b: usize) {
        self.peer_gates[a].bar(&self.ids[b]);
        self.peer_gates[b].bar(&self.ids[a]);
    }

    /// Every node and member reaches every member again.
    pub fn heal(&self) {
        self.gates.iter().flatten().for_each(Gate::open);
        self.peer_gates.iter().for_each(Gate::open);
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for child in self.members.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
