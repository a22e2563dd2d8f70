//! A node is taken over again and again (`serve --takeover`) under clients that never notice.
//!
//! ```text
//!  a mirrored volume: clients whose history is judged     a single replica: fio that verifies,
//!                                                         one qemu-io session over all rounds
//!  a replica under TLS: clients that attach again, judged, too; qemu-io with reconnect-delay
//!  each round: a successor of the primary, or of the secondary; some do not come up:
//!              a port is in use, or it is killed before it is ready ─► the old process goes on
//! ```
//! At the end: no error, no lost connection but of TLS, no violation, and two copies that are equal.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::Duration;

use conformance::{Daemon, Lab, Trust, Tunnel, eventually, tools};
use rustix::process::{Pid, Signal, kill_process};

use crate::pair::{HEALTHY_MAX, NODES};
use crate::{Clients, Pair};

/// Longest time a takeover may take on a busy machine.
const TAKEOVER_MAX: Duration = Duration::from_secs(30);
/// What the programs of others are made of: (program, Debian package).
const FIO: (&str, &str) = ("fio", "fio");
const QEMU_IO: (&str, &str) = ("qemu-io", "qemu-utils");
/// Bytes that qemu-io writes and reads in each round, beyond what fio uses.
const QEMU_AT: u64 = 24 << 20;

/// What a run did.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Takeovers of the node that serves the clients.
    pub primaries: u32,
    /// Takeovers of the other.
    pub secondaries: u32,
    /// Successors that did not come up.
    pub broken: u32,
    /// Answers that clients received.
    pub answers: u64,
    /// Longest time between a request and its answer.
    pub slowest: Duration,
    /// Answers that clients under TLS received, and connections they lost.
    pub under_tls: (u64, u64),
    /// What the daemons said of the time they took.
    pub said: Vec<String>,
}

struct Run {
    pair: Pair,
    tally: Tally,
}

/// Takes nodes over `rounds` times. Panics: a client saw an error, a law was violated, a process
/// did not end as it should, or the copies differ.
pub fn run(rounds: u32) -> Tally {
    const MEBIBYTES: u64 = 32;
    let solo = "[volume.solo]\nsize = \"32MiB\"\nbacking = \"solo.img\"\nreplicas = [\"alpha\"]\n\
                nbd = [{ name = \"solo\" }]\n\
                [volume.tls]\nsize = \"32MiB\"\nbacking = \"tls.img\"\nreplicas = [\"alpha\"]\n\
                nbd = [{ name = \"tls\" }]\n";
    let volumes = Pair::volume_text(MEBIBYTES) + solo;
    let lab = Lab::new(&NODES, &(Lab::tls_table("alpha") + &volumes));
    let folder = lab.path("tls");
    let words = folder.display().to_string();
    lab.done("alpha", &["tls", "init", &words]);
    let daemons = NODES.map(|node| Some(lab.serve(node)));
    let mut run = Run {
        pair: Pair { daemons, lab },
        tally: Tally::default(),
    };
    run.pair.found();
    run.pair.lab.done("alpha", &["volume", "create", "solo"]);
    run.pair.lab.until_serving("alpha", "solo", HEALTHY_MAX);
    run.pair.lab.done("alpha", &["volume", "create", "tls"]);
    run.pair.lab.until_serving("alpha", "tls", HEALTHY_MAX);
    let clients = Clients::start(3, MEBIBYTES << 20, 7);
    clients.point_at(&run.pair.uri(0));
    let uri = run.pair.lab.node("alpha").unix_uri("solo");
    let mut fio = Fio::start(&uri, &run.pair.lab.path(""));
    let mut qemu = Qemu::start(&["-f", "raw", &uri]);
    let alpha = run.pair.lab.node("alpha");
    let mut secure_qemu = Qemu::start(&[
        "--object",
        &format!("tls-creds-x509,id=t,endpoint=client,dir={words},verify-peer=yes"),
        "--image-opts",
        &format!(
            "driver=nbd,host=localhost,port={},export=tls,tls-creds=t,reconnect-delay=60",
            alpha.nbd.number
        ),
    ]);
    let tunnel = Tunnel::start(
        run.pair.lab.path("tunnel.sock"),
        alpha.nbd.address(),
        Trust::of(&folder),
    );
    let secure = Clients::start_reconnecting(2, QEMU_AT, 11);
    secure.point_at(&tunnel.uri("tls"));
    for round in 1..=rounds {
        thread::sleep(Duration::from_millis(200));
        for qemu in [&mut qemu, &mut secure_qemu] {
            qemu.each(|qemu| qemu.write(round));
        }
        let lost = secure.lost();
        match round % 6 {
            2 => run.take_over(1),
            3 => run.port_in_use(),
            5 => run.killed(),
            _ => run.take_over(0),
        }
        for qemu in [&mut qemu, &mut secure_qemu] {
            qemu.each(|qemu| qemu.read(round));
        }
        let answers = secure.answers();
        eventually(TAKEOVER_MAX, "clients under TLS go on", || {
            (secure.answers() > answers + 10).then_some(())
        });
        println!(
            "round {round}: {} connections under TLS lost",
            secure.lost() - lost
        );
        let violations = [clients.violations(), secure.violations()].concat();
        assert!(violations.is_empty(), "round {round}: {violations:#?}");
        fio.each(Fio::assert_running);
    }
    fio.into_iter().for_each(Fio::finish);
    for qemu in [qemu, secure_qemu].into_iter().flatten() {
        qemu.finish(rounds);
    }
    run.pair.until_healthy(0);
    let seen = clients.finish(&run.pair.uri(0));
    let secure = secure.finish(&run.pair.lab.node("alpha").uri("tls"));
    for seen in [&seen, &secure] {
        assert!(seen.complaints.is_empty(), "{:#?}", seen.complaints);
        let violations = &seen.report.violations;
        assert!(violations.is_empty(), "{violations:#?}");
    }
    assert!(
        secure.lost >= run.tally.primaries.into(),
        "a session under TLS moved to another process?"
    );
    run.tally.under_tls = (secure.answers, secure.lost);
    let logs = [0, 1].map(|index| run.pair.daemon(index).log());
    let said = logs.iter().flat_map(|log| log.lines());
    let said = said.filter(|line| line.contains("taken over from"));
    run.tally.said = said.map(str::to_owned).collect();
    run.pair.stop_and_compare(0, MEBIBYTES);
    Tally {
        answers: seen.answers,
        slowest: seen.slowest,
        ..run.tally
    }
}

/// A node's next process takes it over. Panics: one of them does not end or serve as it should.
pub(crate) fn take_over(pair: &mut Pair, index: usize) {
    let old = pair.daemons[index].take().expect("both nodes run");
    pair.daemons[index] = Some(pair.lab.take_over(old, TAKEOVER_MAX));
}

impl Run {
    fn successor(&self, index: usize, config: Option<&str>) -> Daemon {
        let lab = &self.pair.lab;
        let words = ["serve", "--takeover"];
        let command = match config {
            Some(config) => lab.command_with(&lab.path(config), NODES[index], &words),
            None => lab.command(NODES[index], &words),
        };
        lab.spawn(NODES[index], command)
    }

    fn take_over(&mut self, index: usize) {
        take_over(&mut self.pair, index);
        match index {
            0 => self.tally.primaries += 1,
            _ => self.tally.secondaries += 1,
        }
    }

    /// The new configuration asks for a port that another process has.
    fn port_in_use(&mut self) {
        let taken = TcpListener::bind("127.0.0.1:0").expect("there are free ports");
        let port = taken.local_addr().expect("it is bound").port();
        let text = fs::read_to_string(self.pair.lab.config()).expect("the lab has one");
        let api = format!("[node.alpha]\napi = \"127.0.0.1:{port}\"");
        let text = text.replace("[node.alpha]", &api);
        fs::write(self.pair.lab.path("taken.toml"), text).expect("the folder is writable");
        let mut new = self.successor(0, Some("taken.toml"));
        let status = eventually(TAKEOVER_MAX, "the new process gives up", || new.ended());
        assert_eq!(status.code(), Some(1));
        assert!(new.log().contains("E131") && new.log().contains("already in use"));
        self.goes_on();
    }

    /// The new process dies once everything was accepted, and before it is ready.
    fn killed(&mut self) {
        let before = self.asked();
        let new = self.successor(0, None);
        eventually(TAKEOVER_MAX, "the old process accepts", || {
            (self.asked() > before).then_some(())
        });
        new.pause();
        thread::sleep(Duration::from_millis(100));
        let old = self.pair.daemons[0].as_mut().expect("it runs");
        if old.ended().is_some() {
            // It was faster.
            new.resume();
            self.pair.daemons[0] = Some(new);
            self.tally.primaries += 1;
            return;
        }
        new.kill();
        self.goes_on();
    }

    fn asked(&self) -> usize {
        self.pair.daemon(0).log().matches("I127").count()
    }

    fn goes_on(&mut self) {
        self.tally.broken += 1;
        self.pair.until_healthy(0);
        let old = self.pair.daemons[0].as_mut().expect("it runs");
        assert_eq!(old.ended(), None);
    }
}

/// fio, until the end of the run.
struct Fio(Child);

impl Fio {
    /// `None`, with a line that says what to install, if there is none.
    fn start(uri: &str, folder: &Path) -> Option<Fio> {
        if !tools::have(&[FIO]) {
            return None;
        }
        let mut command = Command::new("fio");
        // It leaves a file about what it verified.
        command.current_dir(folder);
        command.args([
            "--name=restarts",
            "--ioengine=nbd",
            "--rw=randrw",
            "--bs=4k",
        ]);
        command.args([
            "--iodepth=8",
            "--size=16m",
            "--time_based",
            "--runtime=3600",
        ]);
        command.args(["--verify=crc32c", "--verify_backlog=64", "--verify_fatal=1"]);
        command.arg(format!("--uri={uri}"));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Some(Fio(command.spawn().expect("fio can be run")))
    }

    fn assert_running(&mut self) {
        let ended = self.0.try_wait().expect("a child can be waited for");
        assert!(ended.is_none(), "fio ended: {ended:?}");
    }

    /// Ends it as an operator would; it verifies and reports.
    fn finish(self) {
        let pid = Pid::from_child(&self.0);
        kill_process(pid, Signal::INT).expect("it runs");
        let output = self.0.wait_with_output();
        let output = output.expect("a child can be waited for");
        let said = String::from_utf8_lossy(&output.stdout);
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("err= 0"), "{said}\n{complaints}");
    }
}

/// One qemu-io session over all rounds.
struct Qemu {
    child: Child,
    words: ChildStdin,
}

impl Qemu {
    /// `None`, with a line that says what to install, if there is none.
    fn start(words: &[&str]) -> Option<Qemu> {
        if !tools::have(&[QEMU_IO]) {
            return None;
        }
        let mut command = Command::new("qemu-io");
        command.args(words);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("qemu-io can be run");
        let words = child.stdin.take().expect("it was piped");
        Some(Qemu { child, words })
    }

    fn write(&mut self, round: u32) {
        let pattern = round % 255 + 1;
        writeln!(self.words, "write -P {pattern} {QEMU_AT} 1m").expect("qemu-io runs");
    }

    fn read(&mut self, round: u32) {
        let pattern = round % 255 + 1;
        writeln!(self.words, "read -P {pattern} {QEMU_AT} 1m").expect("qemu-io runs");
    }

    fn finish(self, rounds: u32) {
        drop(self.words);
        let output = self
            .child
            .wait_with_output()
            .expect("a child can be waited for");
        let said = String::from_utf8_lossy(&output.stdout);
        for verb in ["wrote", "read"] {
            let count = said.matches(&format!("{verb} 1048576/1048576")).count();
            assert_eq!(count as u32, rounds, "{verb}: {said}");
        }
        assert!(!said.contains("failed"), "{said}");
    }
}

/// Does something with a program that is there.
trait Each<T> {
    fn each(&mut self, work: impl FnOnce(&mut T));
}

impl<T> Each<T> for Option<T> {
    fn each(&mut self, work: impl FnOnce(&mut T)) {
        if let Some(there) = self {
            work(there);
        }
    }
}
