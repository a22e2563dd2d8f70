//! libnbd under TLS while its node is taken over again and again: it attaches anew by itself and
//! repeats what had no reply (`libnbd_takeovers.py`), as every program on libnbd has to.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use conformance::tools;

use crate::tls::Bed;

/// Takeovers of the node.
const TAKEOVERS: u32 = 4;
/// Longest time one may take on a busy machine.
const TAKEOVER_MAX: Duration = Duration::from_secs(30);
/// Bytes of the export that each client has for itself.
const PART: u64 = 8 << 20;

/// One client with its part of the export.
struct Client {
    child: Child,
    told: ChildStdin,
    said: BufReader<ChildStdout>,
}

impl Client {
    fn start(uri: &str, index: u64) -> Client {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/libnbd_takeovers.py");
        let mut command = Command::new("/usr/bin/python3");
        command
            .args(["-B", script, uri])
            .args([(index * PART).to_string(), PART.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().expect("python3 can be run");
        let told = child.stdin.take().expect("it was piped");
        let said = BufReader::new(child.stdout.take().expect("it was piped"));
        Client { child, told, said }
    }

    /// Its next line; empty once it has ended.
    fn line(&mut self) -> String {
        let mut line = String::new();
        let read = self.said.read_line(&mut line);
        read.expect("the client's words are text");
        line.trim_end().to_owned()
    }

    /// Ends its load; what it says of it. Panics: a byte was wrong.
    fn finish(mut self) -> String {
        self.told.write_all(b"stop\n").expect("the client listens");
        let line = self.line();
        let status = self.child.wait().expect("a child can be waited for");
        assert!(status.success(), "the client's checks failed: {status}");
        line
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn libnbd_under_tls_attaches_again_after_every_takeover_and_finds_its_bytes() {
    if !tools::have_python_libnbd() {
        return;
    }
    let bed = Bed::on("disk.img");
    let uris = bed.uris("v", "tls");
    let mut clients: Vec<Client> = (0..)
        .zip(&uris)
        .map(|(index, uri)| Client::start(uri, index))
        .collect();
    let Bed { mut daemon, lab } = bed;
    for client in &mut clients {
        assert_eq!(client.line(), "attached 1");
    }
    for round in 1..=TAKEOVERS {
        thread::sleep(Duration::from_millis(500));
        let began = Instant::now();
        daemon = lab.take_over(daemon, TAKEOVER_MAX);
        // Not one session moves to the next process.
        for client in &mut clients {
            assert_eq!(client.line(), format!("attached {}", round + 1));
        }
        println!("takeover {round}: attached again in {:?}", began.elapsed());
    }
    thread::sleep(Duration::from_millis(500));
    for (client, uri) in clients.into_iter().zip(&uris) {
        let said = client.finish();
        assert!(said.starts_with("done: "), "{uri}: {said}");
        println!("{said}");
    }
    let log = std::fs::read_to_string(lab.path("solo.log")).expect("the daemon logs");
    let count = log.matches("I126").count();
    assert_eq!(count, TAKEOVERS as usize, "{log}");
    assert_eq!(daemon.stop(), 0);
}
