use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use engine::control::{Outcome, Request, VolumeStatus};
use engine::front_end::{AttachError, Attachment, ExportLabel, VolumeView};
use engine::handover::{HandOverError, Legacy};

use super::*;

/// A volume whose role the test sets.
struct Fake(Mutex<bool>);

impl Volumes for Fake {
    fn view(&self, volume: &str) -> Option<VolumeView> {
        let service = match *self.0.lock().unwrap() {
            true => Service::Primary,
            false => Service::Secondary { primary: None },
        };
        Some(VolumeView {
            name: volume.to_owned(),
            size_bytes: 4096,
            service,
            trims: true,
            clients: 0,
            contexts: Vec::new(),
        })
    }
    fn attach(&self, _: &str, _: Attachment) -> Result<(), AttachError> {
        Ok(())
    }
    fn cut_off(&self, _: &str, _: &ExportLabel) {}
}

impl Node for Fake {
    fn request(&self, _: &str, _: Request, _: Box<dyn FnOnce(Outcome) + Send>) {}
    fn status(&self, _: Option<&str>, reply: Box<dyn FnOnce(Vec<VolumeStatus>) + Send>) {
        reply(Vec::new());
    }
    fn io_backend(&self) -> String {
        String::new()
    }
    fn drain(&self, _: Box<dyn FnOnce() + Send>) {}
    fn renew_tls(&self, _: engine::tls::LinkTls) {}

    fn meet(&self, _: &[(String, Vec<String>)]) -> Result<(), String> {
        Ok(())
    }
    fn hand_over(&self, _: Box<dyn FnOnce(Result<Legacy, HandOverError>) + Send>) {}
}

fn shell(script: &str) -> Vec<String> {
    ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
}

/// Hooks that write down what they are told.
fn noting(file: &Path) -> Hooks {
    let note = format!(
        "echo $0 $POLLUX_VOLUME $POLLUX_NODE $POLLUX_ROLE $POLLUX_TERM >> {}",
        file.display()
    );
    Hooks {
        on_promote: shell(&note),
        on_demote: shell(&note),
        timeout: Duration::from_secs(5),
    }
}

fn followed(fake: &Arc<Fake>, hooks: Hooks) -> Followed {
    let wish = Arc::new(AtomicU8::new(FOLLOW));
    let (volumes, engine): (Arc<dyn Volumes>, Arc<dyn Node>) = (fake.clone(), fake.clone());
    let follower = Follower {
        volume: "v".to_owned(),
        node: "alpha".to_owned(),
        hooks,
        volumes: Arc::downgrade(&volumes),
        engine: Arc::downgrade(&engine),
        wish: Arc::clone(&wish),
    };
    Followed {
        wish,
        threads: vec![thread::spawn(move || follower.follow())],
    }
}

fn until_noted(file: &Path, expected: &[&str]) {
    let began = Instant::now();
    loop {
        let text = fs::read_to_string(file).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        if lines == expected {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "{lines:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

const UP: &str = "/bin/sh v alpha primary 0";
const DOWN: &str = "/bin/sh v alpha secondary 0";

#[test]
fn programs_are_told_the_role_at_the_start_at_each_change_and_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("notes");
    let fake = Arc::new(Fake(Mutex::new(false)));
    let followed = followed(&fake, noting(&file));
    until_noted(&file, &[DOWN]);
    *fake.0.lock().unwrap() = true;
    until_noted(&file, &[DOWN, UP]);
    *fake.0.lock().unwrap() = false;
    followed.finish();
    until_noted(&file, &[DOWN, UP, DOWN]);
}

#[test]
fn who_is_taken_over_tells_nothing_more() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("notes");
    let fake = Arc::new(Fake(Mutex::new(true)));
    let mut followed = followed(&fake, noting(&file));
    until_noted(&file, &[UP]);
    let threads = std::mem::take(&mut followed.threads);
    followed.leave();
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    *fake.0.lock().unwrap() = false;
    until_noted(&file, &[UP]);
}

#[test]
fn a_program_that_fails_is_told_with_its_status() {
    let told = Told {
        volume: "v",
        node: "alpha",
        role: "primary",
        term: 7,
    };
    let limit = Duration::from_secs(5);
    let failed = run::run(&shell("exit 3"), &told, limit).unwrap_err();
    assert_eq!(failed.to_string(), "failed: exit status: 3");
    let missing = run::run(&["/nowhere/vip".to_owned()], &told, limit).unwrap_err();
    assert!(
        missing.to_string().starts_with("cannot be run: "),
        "{missing}"
    );
    run::run(
        &shell("test $POLLUX_TERM = 7; yes | head -c 9999999"),
        &told,
        limit,
    )
    .unwrap();
}

#[test]
fn a_program_that_hangs_is_killed_with_all_it_started() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("late");
    let told = Told {
        volume: "v",
        node: "alpha",
        role: "primary",
        term: 7,
    };
    let script = format!("(sleep 1; echo late > {}) & sleep 60", file.display());
    let began = Instant::now();
    let failed = run::run(&shell(&script), &told, Duration::from_millis(200)).unwrap_err();
    assert!(matches!(failed, Failed::Hung(_)), "{failed}");
    assert!(began.elapsed() < Duration::from_secs(1));
    thread::sleep(Duration::from_millis(1500));
    assert!(!file.exists(), "what it started goes on");
}
