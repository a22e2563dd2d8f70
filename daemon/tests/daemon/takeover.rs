//! `pollux serve --takeover` with its real engine: what is taken over, refused, and given back.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketType, connect, recv, send, socket,
};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::fake::Ran;

struct Place {
    dir: TempDir,
    config: PathBuf,
}

impl Place {
    fn new(backing: &str) -> Place {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("pollux.toml");
        let text = format!(
            "[cluster]\nname = \"lab\"\n[node.alpha]\ndata_dir = \"{}\"\nreactors = 1\n\
             nbd_socket = \"nbd.sock\"\n[volume.vm]\nsize = \"1MiB\"\nbacking = \"{backing}\"\n\
             nbd = [{{ name = \"vm\" }}]\n",
            dir.path().display()
        );
        fs::write(&config, text).unwrap();
        Place { dir, config }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pollux"));
        command.arg("--config").arg(&self.config).args(words);
        command.stdin(Stdio::null());
        command
    }

    fn pollux(&self, words: &[&str]) -> Ran {
        Ran::from(self.command(words).output().unwrap())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Creates the volume and waits until it serves.
    fn create(&self) {
        assert_eq!(self.pollux(&["volume", "create", "vm"]).exit, 0);
        let began = Instant::now();
        while !self.pollux(&["status"]).stdout.contains("primary") {
            assert!(began.elapsed() < Duration::from_secs(20));
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

struct Daemon {
    child: Child,
    log: BufReader<ChildStderr>,
}

impl Daemon {
    /// Starts one and waits until its log has `word`.
    fn start(mut command: Command, word: &str) -> Daemon {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let mut daemon = Daemon { child, log };
        daemon.wait_for(word);
        daemon
    }

    fn wait_for(&mut self, word: &str) -> String {
        let mut said = String::new();
        loop {
            let before = said.len();
            let count = self.log.read_line(&mut said).unwrap();
            assert_ne!(count, 0, "no line with {word}:\n{said}");
            if said[before..].contains(word) {
                return said.split_off(before);
            }
        }
    }

    fn exit(&mut self) -> i32 {
        self.child.wait().unwrap().code().unwrap()
    }

    fn stop(&mut self) -> i32 {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        self.exit()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_takeover_of_nobody_is_a_start() {
    let place = Place::new("vm.img");
    let mut daemon = Daemon::start(place.command(&["serve", "--takeover"]), "I120");
    assert_eq!(place.pollux(&["status"]).exit, 0);
    assert_eq!(daemon.stop(), 0);
    assert!(!place.file("handover.sock").exists());
}

#[test]
fn the_new_process_has_sockets_lock_and_role_and_tells_the_service_manager() {
    let place = Place::new("vm.img");
    let mut old = Daemon::start(place.command(&["serve"]), "I120");
    place.create();
    let path = place.file("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    // It connects before anybody could accept, and is served by whoever comes.
    let sockets = ["nbd.sock", "pollux.sock"].map(|name| fs::metadata(place.file(name)).unwrap());
    let mut command = place.command(&["serve", "--takeover"]);
    command.env("NOTIFY_SOCKET", &path);
    let mut new = Daemon::start(command, "I126");
    assert_eq!(old.exit(), 0);
    let mut heard = [0; 64];
    let mut next = || {
        let count = manager.recv(&mut heard).unwrap();
        String::from_utf8_lossy(&heard[..count]).into_owned()
    };
    assert_eq!(next(), format!("MAINPID={}", new.child.id()));
    assert_eq!(next(), "READY=1\nSTATUS=running");
    for (name, before) in ["nbd.sock", "pollux.sock"].iter().zip(sockets) {
        use std::os::unix::fs::MetadataExt;
        let now = fs::metadata(place.file(name)).unwrap();
        assert_eq!(now.ino(), before.ino(), "{name} is the same socket");
    }
    let owner = fs::read_to_string(place.file("pollux.lock")).unwrap();
    assert_eq!(owner.trim(), new.child.id().to_string());
    assert!(place.pollux(&["status"]).stdout.contains("primary"));
    let second = place.pollux(&["serve"]);
    assert_eq!(second.exit, 1);
    assert!(second.stderr.contains("E105"), "{second:?}");
    assert_eq!(new.stop(), 0);
    for name in ["nbd.sock", "pollux.sock", "handover.sock"] {
        assert!(
            !place.file(name).exists(),
            "{name} goes with the last process"
        );
    }
}

#[test]
fn a_socket_that_the_new_file_does_not_name_goes_with_a_takeover() {
    let place = Place::new("vm.img");
    let mut old = Daemon::start(place.command(&["serve"]), "I120");
    place.create();
    let text = fs::read_to_string(&place.config).unwrap();
    fs::write(&place.config, text.replace("nbd.sock", "other.sock")).unwrap();
    let mut new = Daemon::start(place.command(&["serve", "--takeover"]), "I126");
    assert_eq!(old.exit(), 0);
    assert!(!place.file("nbd.sock").exists(), "nobody answers there");
    assert!(UnixStream::connect(place.file("other.sock")).is_ok());
    assert_eq!(new.stop(), 0);
}

#[test]
fn what_lives_in_memory_is_not_taken_over_unless_forced() {
    let place = Place::new("memory");
    let mut old = Daemon::start(place.command(&["serve"]), "I120");
    place.create();
    let refused = place.pollux(&["serve", "--takeover"]);
    assert_eq!(refused.exit, 1);
    let expected = "error[E134]: the process that runs is not taken over: vm is in use and lives \
                    only in its memory\n  it goes on serving\nhint: stop using it, or add --force";
    assert!(refused.stderr.contains(expected), "{refused:?}");
    assert!(place.pollux(&["status"]).stdout.contains("primary"));
    let words = ["serve", "--takeover", "--force"];
    let mut new = Daemon::start(place.command(&words), "I126");
    assert_eq!((old.exit(), new.stop()), (0, 0));
}

#[test]
fn another_node_and_another_cluster_are_refused() {
    let place = Place::new("vm.img");
    let _old = Daemon::start(place.command(&["serve"]), "I120");
    let text = fs::read_to_string(&place.config).unwrap();
    for (from, to) in [("[node.alpha]", "[node.beta]"), ("\"lab\"", "\"other\"")] {
        fs::write(&place.config, text.replace(from, to)).unwrap();
        let refused = place.pollux(&["serve", "--takeover"]);
        assert_eq!(refused.exit, 1);
        let expected = "error[E132]: the process that runs is not taken over: it runs node alpha \
                        of cluster lab\n";
        assert!(refused.stderr.contains(expected), "{refused:?}");
    }
    fs::write(&place.config, text).unwrap();
    assert_eq!(place.pollux(&["status"]).exit, 0);
}

/// Says these packets, and gives the answer to the last.
fn say(path: &Path, packets: &[Vec<u8>]) -> Vec<u8> {
    let socket = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
    connect(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
    for packet in packets {
        send(&socket, packet, SendFlags::NOSIGNAL).unwrap();
    }
    let mut answer = vec![0; 4096];
    let count = recv(&socket, &mut answer, RecvFlags::empty()).map_or(0, |(count, _)| count);
    answer.truncate(count);
    answer
}

fn packet(kind: u16, body: &[u8]) -> Vec<u8> {
    let mut packet = b"PXHO\0\x07".to_vec();
    packet.extend(kind.to_be_bytes());
    packet.extend((body.len() as u32).to_be_bytes());
    packet.extend(crc32fast::hash(body).to_be_bytes());
    packet.extend(body);
    packet
}

#[test]
fn nonsense_and_unknown_versions_change_nothing() {
    let place = Place::new("vm.img");
    let mut old = Daemon::start(place.command(&["serve"]), "I120");
    let path = place.file("handover.sock");
    while !path.exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    for nonsense in [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0; 60_000],
        packet(11, b""),
    ] {
        assert_eq!(say(&path, &[nonsense]), b"");
    }
    let future = packet(1, b"\0\x07\0\x09\0\0\x03lab\0\x05alpha\0\x019and more");
    let answer = String::from_utf8_lossy(&say(&path, &[future])).into_owned();
    let expected = "it speaks version 1 of the handover, the new process versions 7 to 9";
    assert!(
        answer.contains("E130") && answer.contains(expected),
        "{answer}"
    );
    // One that asks, is accepted, and then vanishes: everything comes back.
    place.create();
    let ask = packet(1, b"\0\x01\0\x01\0\0\x03lab\0\x05alpha\0\x019");
    let accepted = say(&path, &[ask]);
    assert_eq!(accepted[6..8], [0, 3]);
    old.wait_for("W154");
    old.wait_for("I120");
    assert!(place.pollux(&["status"]).stdout.contains("primary"));
    assert!(UnixStream::connect(place.file("nbd.sock")).is_ok());
    assert_eq!(old.stop(), 0);
}
