//! `serve` from start to drain. The test process runs itself anew as the daemon.

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, ChildStderr, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use engine::control::{Node, NodeSpec, Outcome, Request, State, VolumeStatus};
use engine::handover::{HandOverError, Inherited, Legacy};
use engine::log::Log;
use pollux_daemon::config::Loaded;
use pollux_daemon::node::{StartError, Started};
use rustix::process::{Pid, Signal, kill_process};

use crate::fake::{Fake, Place, agree, vm_store};

const CONFIG: &str = "POLLUX_TEST_CONFIG";
const STUCK: &str = "POLLUX_TEST_STUCK";

fn start(_: NodeSpec, _: Arc<dyn Log>, _: Inherited) -> Result<Started, StartError> {
    let fake = Fake::new(vec![vm_store(State::Healthy)], agree);
    let node: Arc<dyn Node> = match env::var_os(STUCK) {
        Some(_) => Arc::new(Stuck(fake.clone())),
        None => fake.clone(),
    };
    Ok(Started {
        node,
        volumes: fake,
    })
}

/// A node that never finishes its drain.
struct Stuck(Arc<Fake>);

impl Node for Stuck {
    fn request(&self, volume: &str, request: Request, reply: Box<dyn FnOnce(Outcome) + Send>) {
        self.0.request(volume, request, reply);
    }

    fn status(&self, volume: Option<&str>, reply: Box<dyn FnOnce(Vec<VolumeStatus>) + Send>) {
        self.0.status(volume, reply);
    }

    fn io_backend(&self) -> String {
        self.0.io_backend()
    }

    fn drain(&self, done: Box<dyn FnOnce() + Send>) {
        thread::spawn(move || {
            thread::sleep(Duration::from_secs(600));
            done();
        });
    }

    fn renew_tls(&self, _: engine::tls::LinkTls) {}

    fn meet(&self, _: &[(String, Vec<String>)]) -> Result<(), String> {
        Ok(())
    }

    fn hand_over(&self, done: Box<dyn FnOnce(Result<Legacy, HandOverError>) + Send>) {
        thread::spawn(move || {
            thread::sleep(Duration::from_secs(600));
            done(Err(HandOverError::Stopping));
        });
    }
}

/// Not a test of its own: what the tests below run as their daemon.
#[test]
fn daemon_process() {
    let Some(config) = env::var_os(CONFIG) else {
        return;
    };
    let loaded = Loaded::read(config.as_ref()).unwrap();
    let code = match pollux_daemon::serve::run(&loaded, &loaded.config.nodes[0], start, None) {
        Ok(exit) => exit,
        Err(failure) => {
            eprintln!("{failure}");
            failure.exit
        }
    };
    let _: ExitCode = code.into();
    std::process::exit(i32::from(code.number()));
}

struct Running {
    child: Child,
    log: BufReader<ChildStderr>,
}

impl Running {
    fn start(place: &Place, settings: &[(&str, &str)]) -> Running {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "serve::daemon_process", "--nocapture"]);
        command
            .env(CONFIG, &place.config)
            .envs(settings.iter().copied());
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let mut running = Running { child, log };
        running.wait_for("I120");
        running
    }

    /// Reads the log up to a line with `word`, and returns that line.
    fn wait_for(&mut self, word: &str) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(
                self.log.read_line(&mut line).unwrap(),
                0,
                "no line with {word}"
            );
            if line.contains(word) {
                return line;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn end(&mut self) -> i32 {
        self.child.wait().unwrap().code().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_signal_drains_and_ends_with_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let place = Place::new();
        let mut daemon = Running::start(&place, &[]);
        let ran = place.pollux("status");
        assert_eq!(ran.exit, 0, "{ran:?}");
        daemon.signal(signal);
        daemon.wait_for("I122");
        assert_eq!(daemon.end(), 0);
        assert!(!place.data_dir.join("pollux.sock").exists());
        assert_eq!(place.pollux("status").exit, 8);
    }
}

#[test]
fn a_second_signal_ends_at_once() {
    let place = Place::new();
    let mut daemon = Running::start(&place, &[(STUCK, "1")]);
    daemon.signal(Signal::TERM);
    daemon.wait_for("I121");
    let began = Instant::now();
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.end(), 1);
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn the_service_manager_is_told_when_it_is_ready_and_when_it_stops() {
    let place = Place::new();
    let path = place.dir.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    let mut daemon = Running::start(&place, &[("NOTIFY_SOCKET", path.to_str().unwrap())]);
    let mut heard = [0; 64];
    let count = manager.recv(&mut heard).unwrap();
    assert_eq!(&heard[..count], b"READY=1\nSTATUS=running");
    daemon.signal(Signal::TERM);
    let count = manager.recv(&mut heard).unwrap();
    assert_eq!(&heard[..count], b"STOPPING=1\nSTATUS=draining");
    assert_eq!(daemon.end(), 0);
}

#[test]
fn a_second_daemon_on_one_data_dir_is_refused() {
    let place = Place::new();
    let daemon = Running::start(&place, &[]);
    let ran = place.pollux("serve");
    assert_eq!(ran.exit, 1);
    let expected = format!(
        "error[E105]: data_dir {} is in use by another pollux (pid {})",
        place.data_dir.display(),
        daemon.child.id()
    );
    assert!(ran.stderr.contains(&expected), "{ran:?}");
    assert_eq!(place.pollux("status").exit, 0);
}

#[test]
fn a_killed_daemon_leaves_nothing_in_the_way() {
    let place = Place::new();
    let mut first = Running::start(&place, &[]);
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    assert!(place.data_dir.join("pollux.sock").exists());
    let _second = Running::start(&place, &[]);
    assert_eq!(place.pollux("status").exit, 0);
}

#[test]
fn a_missing_data_dir_is_exit_1_and_is_not_made() {
    let place = Place::new();
    fs::remove_dir_all(&place.data_dir).unwrap();
    let ran = place.pollux("serve");
    assert_eq!(ran.exit, 1);
    let expected = format!(
        "error[E103]: data_dir {} does not exist\n",
        place.data_dir.display()
    );
    assert!(ran.stderr.contains(&expected), "{ran:?}");
    assert!(!place.data_dir.exists());
}

#[test]
fn an_api_port_in_use_is_exit_1_before_anything_starts() {
    let place = Place::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let text = fs::read_to_string(&place.config).unwrap();
    let api = format!("api = \"127.0.0.1:{port}\"\naddress = \"127.0.0.1:8790\"");
    fs::write(
        &place.config,
        text.replace("address = \"127.0.0.1:8790\"", &api),
    )
    .unwrap();
    let ran = place.pollux("serve");
    assert_eq!(ran.exit, 1);
    let expected = format!("error[E106]: the API address 127.0.0.1:{port} is already in use\n");
    assert!(ran.stderr.contains(&expected), "{ran:?}");
    assert!(!place.data_dir.join("pollux.sock").exists());
}

#[test]
fn an_nbd_address_in_use_is_exit_1_before_the_engine_starts() {
    let place = Place::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nbd = format!("nbd = \"{}\"\nnbd_socket", taken.local_addr().unwrap());
    let text = fs::read_to_string(&place.config).unwrap();
    fs::write(&place.config, text.replacen("nbd_socket", &nbd, 1)).unwrap();
    let ran = place.pollux("serve");
    assert_eq!(ran.exit, 1);
    assert!(
        ran.stderr.contains("error[E125]: nbd: 127.0.0.1:"),
        "{ran:?}"
    );
    assert!(ran.stderr.contains("in use"), "{ran:?}");
    assert!(!place.data_dir.join("nbd.sock").exists());
    assert!(!place.data_dir.join("pollux.sock").exists());
}
