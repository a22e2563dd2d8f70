//! The binary with its real engine: one node, one volume, through a restart.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::fake::Ran;

fn pollux(config: &Path, args: &str) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pollux"));
    command
        .arg("--config")
        .arg(config)
        .args(args.split(' '))
        .env_clear();
    Ran::from(command.stdin(Stdio::null()).output().unwrap())
}

/// A daemon that has said that it runs.
struct Daemon(Child);

impl Daemon {
    fn start(config: &Path) -> Daemon {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pollux"));
        command
            .arg("serve")
            .arg("--config")
            .arg(config)
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        while !said.contains("I120") {
            let count = log.read_line(&mut said).unwrap();
            assert_ne!(count, 0, "the daemon did not start:\n{said}");
        }
        // Whoever hangs up makes the daemon's log a broken pipe; so it is read to its end.
        std::thread::spawn(move || log.lines().count());
        Daemon(child)
    }

    fn stop(mut self) -> Option<i32> {
        kill_process(Pid::from_child(&self.0), Signal::TERM).unwrap();
        self.0.wait().unwrap().code()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn status(config: &Path) -> (String, String) {
    let ran = pollux(config, "status vm-store --json");
    assert_eq!(ran.exit, 0, "{ran:?}");
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    let word = |key: &str| report["volumes"][0][key].as_str().unwrap().to_owned();
    (word("state"), word("role"))
}

/// Waits until the volume is healthy and primary, as it becomes by itself.
fn wait_until_primary(config: &Path) {
    let began = Instant::now();
    while status(config) != ("healthy".into(), "primary".into()) {
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "{:?}",
            status(config)
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_volume_is_made_kept_through_a_restart_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("pollux.toml");
    let text = format!(
        "[cluster]\nname = \"lab\"\n[node.alpha]\ndata_dir = \"{}\"\nreactors = 1\n\
         nbd_socket = \"nbd.sock\"\n[volume.vm-store]\nsize = \"1MiB\"\n\
         backing = \"vm-store.img\"\nnbd = [{{ name = \"vm-store\" }}]\n",
        dir.path().display()
    );
    fs::write(&config, text).unwrap();

    let daemon = Daemon::start(&config);
    assert_eq!(status(&config), ("not_created".into(), "secondary".into()));
    assert_eq!(pollux(&config, "status --check").exit, 5);
    assert_eq!(pollux(&config, "volume create vm-store").exit, 0);
    assert_eq!(pollux(&config, "volume create vm-store").exit, 1);
    assert_eq!(
        pollux(&config, "volume create vm-store --if-absent").exit,
        0
    );
    wait_until_primary(&config);
    assert_eq!(
        fs::metadata(dir.path().join("vm-store.img")).unwrap().len(),
        1 << 20
    );
    assert_eq!(daemon.stop(), Some(0));

    let daemon = Daemon::start(&config);
    wait_until_primary(&config);
    assert_eq!(pollux(&config, "promote vm-store").exit, 0);
    let deleted = pollux(&config, "volume delete vm-store --wipe --yes");
    assert_eq!(deleted.exit, 0, "{deleted:?}");
    assert!(!dir.path().join("vm-store.img").exists());
    assert_eq!(status(&config).0, "not_created");
    assert_eq!(daemon.stop(), Some(0));
}
