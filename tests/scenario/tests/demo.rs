//! `pollux demo`, as a new user runs it.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use conformance::{binary, eventually, tools};

/// Longest time the demo may take on a busy machine.
const DEMO_MAX: Duration = Duration::from_secs(120);

fn demo(folder: &Path) -> Command {
    let mut command = Command::new(binary());
    command.arg("demo").env("TMPDIR", folder);
    command
}

#[test]
fn the_demo_passes_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let ran = tools::run(demo(folder.path()), DEMO_MAX);
    assert_eq!(ran.exit, 0, "{}\n{}", ran.stdout, ran.stderr);
    let oks = ran
        .stdout
        .lines()
        .filter(|line| line.contains(" ok   "))
        .count();
    assert_eq!(oks, 7, "{}", ran.stdout);
    assert!(ran.stdout.contains("demo passed in"), "{}", ran.stdout);
    assert!(
        ran.stdout.contains("alpha = beta, blake3"),
        "{}",
        ran.stdout
    );
    assert_eq!(fs::read_dir(folder.path()).expect("it is there").count(), 0);
}

/// A demo in its first steps, and the daemons it started.
fn under_way(folder: &Path) -> (Child, Vec<String>) {
    let mut child = demo(folder)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary can be run");
    let mut said = BufReader::new(child.stdout.take().expect("it was piped"));
    let mut line = String::new();
    while !line.starts_with(" 1 ") && !line.contains("nbd  ") {
        line.clear();
        assert_ne!(
            said.read_line(&mut line).expect("it says text"),
            0,
            "the demo ended"
        );
    }
    // What it says from now on shall not stop it.
    std::thread::spawn(move || said.read_to_end(&mut Vec::new()));
    let path = format!("/proc/{0}/task/{0}/children", child.id());
    let children = fs::read_to_string(path).expect("Linux tells the children of a thread");
    let children: Vec<String> = children.split_whitespace().map(str::to_owned).collect();
    assert_eq!(children.len(), 2, "{children:?}");
    (child, children)
}

fn until_gone(pids: &[String]) {
    eventually(Duration::from_secs(10), "no daemon is left", || {
        let is_gone = |pid: &String| !Path::new("/proc").join(pid).exists();
        pids.iter().all(is_gone).then_some(())
    });
}

#[test]
fn a_killed_demo_takes_its_nodes_with_it() {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let (mut demo, nodes) = under_way(folder.path());
    demo.kill().expect("it runs");
    demo.wait().expect("a child can be waited for");
    until_gone(&nodes);
}

#[test]
fn an_interrupted_demo_removes_its_folder() {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let (mut demo, nodes) = under_way(folder.path());
    let mut interrupt = Command::new("kill");
    interrupt.args(["-INT", &demo.id().to_string()]);
    tools::run(interrupt, Duration::from_secs(5)).ok();
    let status = demo.wait().expect("a child can be waited for");
    assert_eq!(status.code(), Some(130));
    until_gone(&nodes);
    assert_eq!(fs::read_dir(folder.path()).expect("it is there").count(), 0);
}
