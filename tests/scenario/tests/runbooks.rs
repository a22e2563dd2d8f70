//! The runbooks of `docs/operations.md`, typed as they stand there.
//!
//! ```text
//!  NODE$ COMMAND      # exits N      run on that node; 0 unless the comment says otherwise
//!    words                           the output contains them, in this order
//! ```
//! `pollux status` is asked again until it says what stands there. In place of systemd the test starts
//! the node's daemon, or the one that takes over from it.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use conformance::{Daemon, Lab, Ran};
use scenario::disk::{attach, read, write};
use scenario::{Shape, TRIO, Trio};

const MEBIBYTES: u64 = 16;
const DELTA: usize = 3;
/// The machines of all runbooks.
const NODES: [&str; 4] = ["alpha", "beta", "gamma", "delta"];
/// A lease, a resync, and a busy machine.
const STATE_MAX: Duration = Duration::from_secs(120);

/// A command of a runbook.
#[derive(Debug)]
struct Typed {
    node: usize,
    words: Vec<String>,
    exit: i32,
    expected: Vec<String>,
}

fn squeezed(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn typed(line: &str) -> Option<Typed> {
    let (node, rest) = line.split_once("$ ")?;
    let node = NODES.iter().position(|name| *name == node)?;
    let (command, comment) = rest.split_once('#').unwrap_or((rest, ""));
    let exit = comment
        .trim()
        .strip_prefix("exits ")
        .map_or(0, |n| n.parse().expect("an exit code is a number"));
    let words = command.split_whitespace();
    Some(Typed {
        node,
        words: words.map(str::to_owned).collect(),
        exit,
        expected: Vec::new(),
    })
}

/// What is typed in each runbook, by its heading.
fn runbooks() -> Vec<(String, Vec<Typed>)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operations.md");
    let text = fs::read_to_string(path).expect("the page is there");
    // The tests' volume has a shorter name.
    let text = text.replace("vm-store", "v");
    let begin = text.find("\n## Runbooks\n").expect("the page has runbooks") + 1;
    let end = text[begin + 1..].find("\n## ").expect("more follows");
    let mut books: Vec<(String, Vec<Typed>)> = Vec::new();
    let mut is_inside = false;
    for line in text[begin..begin + 1 + end].lines() {
        if let Some(name) = line.strip_prefix("### ") {
            books.push((name.to_owned(), Vec::new()));
        } else if line.starts_with("```") {
            is_inside = line == "```console";
        } else if is_inside {
            let (_, book) = books.last_mut().expect("commands stand below a heading");
            match typed(line) {
                Some(command) => book.push(command),
                None => {
                    let command = book.last_mut().expect("output follows a command");
                    command.expected.push(squeezed(line));
                }
            }
        }
    }
    books
}

/// The words are there, in this order.
fn says(output: &str, expected: &[String]) -> bool {
    let output = squeezed(output);
    let mut rest = &output[..];
    expected.iter().all(|words| match rest.find(&words[..]) {
        Some(at) => {
            rest = &rest[at + words.len()..];
            true
        }
        None => false,
    })
}

/// The machines, and the one that only some runbooks have. Daemons end before the lab's folder goes.
struct Machines {
    delta: Option<Daemon>,
    trio: Trio,
}

impl Machines {
    fn healthy(name: &str) -> Machines {
        let replicas: &[&str] = match name {
            "Replica added" => &["alpha", "beta"],
            "Replica removed" => &["alpha", "beta", "delta"],
            _ => {
                let trio = Trio::healthy(Shape::Witness, MEBIBYTES, "2s");
                return Machines { delta: None, trio };
            }
        };
        let lab = Lab::new(&NODES, &Shape::Witness.volume_text(MEBIBYTES));
        write_file(&lab, replicas);
        let mut machines = Machines {
            delta: None,
            trio: Trio::of(Shape::Witness, lab),
        };
        (0..3).for_each(|index| machines.trio.serve(index));
        if replicas.contains(&"delta") {
            machines.start(DELTA);
            machines.trio.lab.done("delta", &["volume", "create", "v"]);
            machines.trio.votes = 4;
        }
        machines.trio.found();
        machines
    }

    fn start(&mut self, node: usize) {
        match node {
            DELTA => self.delta = Some(self.trio.lab.serve("delta")),
            node => self.trio.serve(node),
        }
    }
}

/// The file of every node: these hold a replica, gamma votes.
fn write_file(lab: &Lab, replicas: &[&str]) {
    let volume = Shape::Witness.volume_text(MEBIBYTES);
    let volume = volume.replace("[\"alpha\", \"beta\"]", &format!("{replicas:?}"));
    let votes = "quorum = \"majority\"\nlease = \"2s\"\n";
    let text = lab.config_text("lab", &volume);
    let text = text.replace("quorum = \"off\"\n", votes);
    fs::write(lab.config(), text).expect("the lab's folder is writable");
}

/// Does what systemd would.
fn systemctl(machines: &mut Machines, verb: &str, node: usize) {
    let trio = &mut machines.trio;
    match verb {
        "start" => machines.start(node),
        "reload" => {
            let command = trio.lab.command(TRIO[node], &["serve", "--takeover"]);
            let next = trio.lab.serve_as(TRIO[node], command);
            let mut last = trio.daemons[node].replace(next).expect("it runs");
            let began = Instant::now();
            let status = loop {
                if let Some(status) = last.ended() {
                    break status;
                }
                assert!(began.elapsed() < STATE_MAX, "the old process stays");
                thread::sleep(Duration::from_millis(20));
            };
            assert!(status.success(), "the old process ended with {status}");
        }
        other => panic!("systemctl {other} is not known here"),
    }
}

fn carry_out(machines: &mut Machines, command: &Typed) {
    let words: Vec<&str> = command.words.iter().map(String::as_str).collect();
    let (trio, node) = (&machines.trio, NODES[command.node]);
    match words[..] {
        ["systemctl", verb, "pollux"] => systemctl(machines, verb, command.node),
        ["pollux", "status", ref rest @ ..] => {
            let words: Vec<&str> = ["status"].iter().chain(rest).copied().collect();
            let began = Instant::now();
            loop {
                let ran = trio.lab.pollux(node, &words);
                if ran.exit == command.exit && says(&ran.stdout, &command.expected) {
                    break;
                }
                let waited = began.elapsed();
                assert!(waited < STATE_MAX, "{command:?} after {waited:?}: {ran:?}");
                thread::sleep(Duration::from_millis(100));
            }
        }
        ["pollux", ref words @ ..] => {
            let ran: Ran = trio.lab.pollux(node, words);
            let said = format!("{}\n{}", ran.stdout, ran.stderr);
            assert_eq!(ran.exit, command.exit, "{command:?}: {said}");
            assert!(says(&said, &command.expected), "{command:?}: {said}");
        }
        _ => panic!("{words:?} is no command of a runbook"),
    }
}

/// Brings about what a runbook is for; who is primary at its end.
fn prepare(trio: &mut Trio, name: &str) -> usize {
    let lose = |trio: &mut Trio, nodes: &[usize]| nodes.iter().for_each(|n| trio.kill(*n));
    match name {
        "Node lost" => lose(trio, &[0]),
        "Node replaced" => {
            lose(trio, &[0]);
            assert_eq!(trio.until_primary(STATE_MAX), 1);
            let folder = &trio.lab.node(TRIO[0]).data_dir;
            fs::remove_dir_all(folder).expect("nobody uses it");
            fs::create_dir(folder).expect("its parent is there");
        }
        "Quorum lost" | "Quorum lost for good" => lose(trio, &[0, 2]),
        "Split brain" => {
            lose(trio, &[1]);
            let mut client = attach(&trio.uri(0));
            assert_eq!(write(&mut client, 3 << 20, &[9; 4096]), Ok(()));
            drop(client);
            lose(trio, &[0, 2]);
            trio.start(1);
            let force = ["promote", "v", "--force", "--yes"];
            trio.lab.done("beta", &force);
            trio.serve(0);
            trio.serve(2);
        }
        "Replica added" => {
            write_file(&trio.lab, &["alpha", "beta", "delta"]);
            return 0;
        }
        "Replica removed" => {
            write_file(&trio.lab, &["alpha", "delta"]);
            return 0;
        }
        "Planned move" => {}
        "Upgrade" => return 0,
        other => panic!("the test does not know how to bring about {other:?}"),
    }
    1
}

fn follow(name: &str) {
    let (_, book) = runbooks()
        .into_iter()
        .find(|(found, _)| found == name)
        .unwrap_or_else(|| panic!("docs/operations.md has no runbook {name:?}"));
    assert!(book.len() > 1, "{name:?} has no commands");
    let mut machines = Machines::healthy(name);
    let mut client = attach(&machines.trio.uri(0));
    assert_eq!(write(&mut client, 1 << 20, &[7; 4096]), Ok(()));
    drop(client);
    let primary = prepare(&mut machines.trio, name);
    for command in &book {
        println!("{}$ {}", NODES[command.node], command.words.join(" "));
        carry_out(&mut machines, command);
    }
    let mut client = attach(&machines.trio.uri(primary));
    assert_eq!(read(&mut client, 1 << 20, 4096), Ok(vec![7; 4096]));
    assert_eq!(write(&mut client, 2 << 20, &[8; 4096]), Ok(()));
}

/// Each runbook by its own test; a runbook without one is found by the last.
macro_rules! runbooks {
    ($($test:ident $name:literal;)*) => {
        $(#[test]
        fn $test() {
            follow($name);
        })*

        #[test]
        fn every_runbook_is_followed_by_a_test() {
            let names: Vec<String> = runbooks().into_iter().map(|(name, _)| name).collect();
            assert_eq!(names, [$($name),*]);
        }
    };
}

runbooks! {
    a_lost_node_comes_back "Node lost";
    a_replaced_node_is_made_anew "Node replaced";
    a_lost_quorum_is_regained "Quorum lost";
    a_quorum_lost_for_good_is_forced "Quorum lost for good";
    a_split_brain_is_resolved "Split brain";
    a_replica_is_added "Replica added";
    a_replica_is_removed "Replica removed";
    a_planned_move_hands_over "Planned move";
    an_upgrade_keeps_the_role "Upgrade";
}
