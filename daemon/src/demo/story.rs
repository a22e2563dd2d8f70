//! The steps, in order.

use std::fmt;
use std::fs;
use std::io::{Write, stdout};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nbd_proto::{CommandKind, NbdUri};
use tokio::runtime::Runtime;

use super::client::{Ask, Connection};
use super::image::{self, Image};
use super::load::{Ledger, Run, SILENCE};
use super::node::Node;
use super::place::{NODES, Place, VOLUME, tail};
use super::stop::Children;
use super::{Trouble, compare, transfer};
use crate::api::body::{State, VolumeEntry, ask};
use crate::explain::counted;

/// Bytes of the image.
const IMAGE: u64 = 256 << 20;

/// Bytes behind it, for the client that keeps writing.
const LOAD: u64 = 128 << 20;

const SIZE: u64 = IMAGE + LOAD;

/// How long each phase of load lasts.
const UNDER_LOAD: Duration = Duration::from_millis(1500);

/// Longest time a resync may take.
const RESYNC_MAX: Duration = Duration::from_secs(120);

/// Longest time a promotion waits for the other node.
const PROMOTE_WAIT: Duration = Duration::from_secs(10);

/// Index of each node in the story.
const ALPHA: usize = 0;
const BETA: usize = 1;

/// Tells the whole story. Errors: the first step that failed.
pub(super) fn tell(stay: bool) -> Result<(), Trouble> {
    let began = Instant::now();
    say(format_args!(
        "pollux demo — everything below runs in child processes of this one, on 127.0.0.1, in a \
         temporary folder"
    ));
    let children = Children::watch()?;
    let mut story = Story::prepare(children)?;
    let told = story.found().and_then(|()| story.steps());
    match &told {
        Ok(()) => {
            say(format_args!(
                "demo passed in {:.1} s.",
                began.elapsed().as_secs_f64()
            ));
            story.end(stay)?;
            let _ = fs::remove_dir_all(&story.place.folder);
        }
        Err(trouble) => {
            say(format_args!("FAILED\n   {trouble}"));
            for name in NODES {
                let log = story.place.log(name);
                say(format_args!(
                    "---- end of {} ----\n{}",
                    log.display(),
                    tail(&log, 25)
                ));
            }
            say(format_args!(
                "everything is kept in {}",
                story.place.folder.display()
            ));
        }
    }
    told
}

struct Story {
    place: Place,
    children: Children,
    runtime: Runtime,
    nodes: [Option<Node>; 2],
    image: Image,
    ledger: Option<Ledger>,
    steps: usize,
}

/// A client that writes in the background.
struct Writing {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(Ledger, Run)>,
}

impl Story {
    /// Folder, image, two running nodes. Errors: any of it fails; nothing is left behind.
    fn prepare(children: Children) -> Result<Story, Trouble> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (place, nodes) = start_nodes(&children, &runtime)?;
        let scratch = place.folder.join("files");
        let image = image::make(&place.folder.join("input.img"), &scratch, IMAGE);
        let image = image.inspect_err(|_| drop(fs::remove_dir_all(&place.folder)))?;
        Ok(Story {
            place,
            children,
            runtime,
            nodes: nodes.map(Some),
            image,
            ledger: Some(Ledger::new(IMAGE, LOAD)),
            steps: 0,
        })
    }

    /// A founded volume that is healthy.
    fn found(&self) -> Result<(), Trouble> {
        for index in [ALPHA, BETA] {
            self.change(index, "create", &ask::Create::default())?;
        }
        self.promote(ALPHA)?;
        self.until_healthy()?;
        self.introduce()
    }

    fn introduce(&self) -> Result<(), Trouble> {
        let status = self.node(ALPHA)?.status(&self.runtime)?;
        say(format_args!("  io backend   {}", status.io_backend));
        say(format_args!(
            "  node alpha   primary        node beta   secondary"
        ));
        let uri = self.place.uri(ALPHA);
        say(format_args!(
            "  nbd          {uri}          try: nbdinfo {uri}"
        ));
        say(format_args!("  input        {}", self.image.words));
        for (usual, taken) in &self.place.moved {
            say(format_args!(
                "  note         port {usual} is in use, {taken} serves instead"
            ));
        }
        Ok(())
    }

    fn steps(&mut self) -> Result<(), Trouble> {
        self.write_image()?;
        let writing = self.cut_link()?;
        let writing = self.resync_under_load(writing)?;
        self.fail_over(writing)?;
        self.read_back()?;
        self.bring_back()?;
        self.compare_copies()
    }

    fn write_image(&mut self) -> Result<(), Trouble> {
        self.begin(&format!("write {} MiB through NBD, mirrored", IMAGE >> 20));
        let mut connection = self.attach(ALPHA)?;
        let figures = transfer::write(&self.image.file, IMAGE, &mut connection)?;
        connection.detach()?;
        done(&format!("{}, p99 {}", rate(&figures), time(figures.p99)));
        Ok(())
    }

    /// Leaves the load running.
    fn cut_link(&mut self) -> Result<Writing, Trouble> {
        self.begin("cut beta's link while a client writes");
        let writing = self.start_writing(ALPHA)?;
        thread::sleep(UNDER_LOAD);
        self.change(ALPHA, "peers/beta/disconnect", &ask::Nothing {})?;
        thread::sleep(UNDER_LOAD);
        if writing.thread.is_finished() {
            return Err(self.explain_loss(writing));
        }
        let volume = self.node(ALPHA)?.volume(&self.runtime)?;
        let behind = out_of_sync(&volume);
        if volume.state != State::Degraded || behind == 0 {
            return Err(Trouble::new(format!(
                "alpha says {} with {behind} bytes out of sync, though beta is cut off",
                volume.state.word()
            )));
        }
        let mebibytes = mebibytes(behind);
        done(&format!(
            "no client error, {mebibytes} recorded as out of sync"
        ));
        Ok(writing)
    }

    fn resync_under_load(&mut self, writing: Writing) -> Result<Writing, Trouble> {
        self.begin("give the link back, resync under load");
        let behind = out_of_sync(&self.node(ALPHA)?.volume(&self.runtime)?);
        let began = Instant::now();
        self.change(ALPHA, "peers/beta/connect", &ask::Nothing {})?;
        self.until_healthy()?;
        let took = began.elapsed();
        if writing.thread.is_finished() {
            return Err(self.explain_loss(writing));
        }
        done(&format!("{} in {}", mebibytes(behind), time(took)));
        Ok(writing)
    }

    fn fail_over(&mut self, writing: Writing) -> Result<(), Trouble> {
        self.begin("kill -9 alpha while the client writes, promote beta");
        let alpha = self.nodes[ALPHA]
            .take()
            .ok_or_else(|| Trouble::new("alpha is gone"))?;
        let began = Instant::now();
        alpha.kill()?;
        self.promote(BETA)?;
        let mut connection = self.attach(BETA)?;
        let first = connection.exchange(&Ask::plain(CommandKind::READ, 0, 4096))?;
        let took = began.elapsed();
        connection.detach()?;
        let (ledger, run) = joined(writing)?;
        self.ledger = Some(ledger);
        if run.errors > 0 || first.result.is_err() {
            return Err(Trouble::new(format!(
                "{} of I/O",
                counted(run.errors as usize, "error")
            )));
        }
        let writes = counted(run.writes as usize, "write");
        let slowest = time(run.slowest);
        done(&format!(
            "failover {}; {writes} before, slowest {slowest}",
            time(took)
        ));
        Ok(())
    }

    fn read_back(&mut self) -> Result<(), Trouble> {
        self.begin("read everything back from beta");
        let mut connection = self.attach(BETA)?;
        let figures = transfer::compare(&self.image.file, IMAGE, &mut connection)?;
        let written = self.check_ledger(&mut connection)?;
        connection.detach()?;
        done(&format!(
            "image equal, {}; 0 acknowledged writes of {} lost",
            rate(&figures),
            counted(written, "slot")
        ));
        Ok(())
    }

    /// Every acknowledged write is there; how many slots were ever written.
    fn check_ledger(&mut self, connection: &mut Connection) -> Result<usize, Trouble> {
        let ledger = self
            .ledger
            .as_mut()
            .ok_or_else(|| Trouble::new("the load still runs"))?;
        let found = ledger.check(connection)?;
        match found.wrong.first() {
            None => Ok(found.written),
            Some(first) => {
                let count = counted(found.wrong.len(), "slot");
                Err(Trouble::new(format!(
                    "{count} of the load are wrong: {first}"
                )))
            }
        }
    }

    fn bring_back(&mut self) -> Result<(), Trouble> {
        self.begin("start alpha again while the client writes on");
        let writing = self.start_writing(BETA)?;
        thread::sleep(UNDER_LOAD);
        let behind = out_of_sync(&self.node(BETA)?.volume(&self.runtime)?);
        let began = Instant::now();
        let alpha = Node::start(NODES[ALPHA], &self.place, &self.children, &self.runtime)?;
        self.nodes[ALPHA] = Some(alpha);
        self.until_healthy()?;
        let took = began.elapsed();
        let run = self.stop_writing(writing)?;
        done(&format!(
            "{} in {}, no client error in {}",
            mebibytes(behind),
            time(took),
            counted(run.writes as usize, "write")
        ));
        Ok(())
    }

    fn compare_copies(&mut self) -> Result<(), Trouble> {
        self.begin("compare the copies block by block");
        let mut connection = self.attach(BETA)?;
        self.check_ledger(&mut connection)?;
        connection.detach()?;
        self.change(BETA, "demote", &ask::Demote { disconnect: true })?;
        let paths = NODES.map(|name| self.place.backing(name));
        let found = compare::compare(&paths[ALPHA], &paths[BETA], SIZE)?;
        if let Some(first) = found.first {
            let count = found.different;
            let text = format!("{count} blocks of 4096 bytes differ, the first at byte {first}");
            return Err(Trouble::new(text));
        }
        let hash = &found.hash.to_hex()[..12];
        let checked = self.check_file_system()?;
        done(&format!("alpha = beta, blake3 {hash}…{checked}"));
        Ok(())
    }

    /// What e2fsck says of the copy on alpha, if it is installed and there is a file system.
    fn check_file_system(&self) -> Result<&'static str, Trouble> {
        let Some(e2fsck) = image::program("e2fsck").filter(|_| self.image.is_ext4) else {
            return Ok("");
        };
        let mut command = Command::new(e2fsck);
        command
            .args(["-f", "-n"])
            .arg(self.place.backing(NODES[ALPHA]))
            .stdin(Stdio::null());
        let output = command.output()?;
        match output.status.code() {
            Some(0) => Ok(", e2fsck clean"),
            _ => Err(Trouble::new(
                String::from_utf8_lossy(&output.stdout).into_owned(),
            )),
        }
    }

    /// Stops the nodes, at once or after a signal.
    fn end(&mut self, stay: bool) -> Result<(), Trouble> {
        if stay {
            self.promote(ALPHA)?;
            self.until_healthy()?;
            let (config, uri) = (self.place.config(), self.place.uri(ALPHA));
            let config = config.display();
            say(format_args!(
                "Both nodes run on until Ctrl-C. In another terminal:"
            ));
            say(format_args!("  nbdinfo {uri}"));
            say(format_args!("  nbdcopy {uri} copy.img"));
            say(format_args!(
                "  pollux status {VOLUME} --config {config} --node alpha"
            ));
            say(format_args!(
                "  pollux peer disconnect beta --config {config} --node alpha"
            ));
            self.children.wait_for_signal();
            say("");
        } else {
            say(format_args!(
                "Keep it running: pollux demo --stay    Real set-up: docs/operations.md"
            ));
        }
        for node in self.nodes.iter_mut().filter_map(Option::take) {
            node.stop()?;
        }
        Ok(())
    }

    fn start_writing(&mut self, index: usize) -> Result<Writing, Trouble> {
        let ledger = self
            .ledger
            .take()
            .ok_or_else(|| Trouble::new("the load still runs"))?;
        let (uri, stop) = (self.uri(index)?, Arc::new(AtomicBool::new(false)));
        let told = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut ledger = ledger;
            let run = ledger.write(&uri, &told);
            (ledger, run)
        });
        Ok(Writing { stop, thread })
    }

    /// Errors: the client met an error or lost its connection.
    fn stop_writing(&mut self, writing: Writing) -> Result<Run, Trouble> {
        writing.stop.store(true, Ordering::Relaxed);
        let (ledger, run) = joined(writing)?;
        self.ledger = Some(ledger);
        match (&run.lost, run.errors) {
            (None, 0) => Ok(run),
            (lost, errors) => Err(loss(lost.as_deref(), errors)),
        }
    }

    fn explain_loss(&mut self, writing: Writing) -> Trouble {
        match self.stop_writing(writing) {
            Ok(_) => Trouble::new("the client stopped writing"),
            Err(trouble) => trouble,
        }
    }

    fn attach(&self, index: usize) -> Result<Connection, Trouble> {
        Ok(Connection::attach(&self.uri(index)?, SILENCE)?)
    }

    fn uri(&self, index: usize) -> Result<NbdUri, Trouble> {
        let uri = self.place.uri(index).parse();
        uri.map_err(|wrong: nbd_proto::UriError| Trouble::new(wrong.to_string()))
    }

    fn node(&self, index: usize) -> Result<&Node, Trouble> {
        let gone = || Trouble::new(format!("{} does not run", NODES[index]));
        self.nodes[index].as_ref().ok_or_else(gone)
    }

    fn change(&self, index: usize, what: &str, ask: &impl serde::Serialize) -> Result<(), Trouble> {
        self.node(index)?.change(&self.runtime, what, ask).map(drop)
    }

    fn promote(&self, index: usize) -> Result<(), Trouble> {
        let ask = ask::Promote {
            force: false,
            wait_milliseconds: PROMOTE_WAIT.as_millis() as u64,
        };
        self.change(index, "promote", &ask)
    }

    /// Waits until both nodes say so: a primary may know of a new member before the member does,
    /// and a member that does not know of it is not promoted without force.
    fn until_healthy(&self) -> Result<(), Trouble> {
        let began = Instant::now();
        for index in [ALPHA, BETA] {
            loop {
                let volume = self.node(index)?.volume(&self.runtime)?;
                match volume.state {
                    State::Healthy => break,
                    State::Critical | State::Offline => return Err(stays(&volume)),
                    _ if began.elapsed() > RESYNC_MAX => return Err(stays(&volume)),
                    _ => thread::sleep(Duration::from_millis(20)),
                }
            }
        }
        Ok(())
    }

    fn begin(&mut self, what: &str) {
        self.steps += 1;
        let _ = write!(stdout(), "{:>2} {what:<54} ", self.steps);
        let _ = stdout().flush();
    }
}

/// Prints a line. A reader that went away, as `head` does, ends no demo.
fn say(text: impl fmt::Display) {
    let _ = writeln!(stdout(), "{text}");
}

/// The volume is not healthy, in words.
fn stays(volume: &VolumeEntry) -> Trouble {
    let why = volume.reason.as_ref().map_or("", |reason| &reason.text);
    Trouble::new(format!("the volume stays {}: {why}", volume.state.word()))
}

fn done(figures: &str) {
    say(format_args!("ok   {figures}"));
}

/// Two nodes that answer. A port may be taken between choice and start: then once more, with
/// others.
fn start_nodes(children: &Children, runtime: &Runtime) -> Result<(Place, [Node; 2]), Trouble> {
    let mut attempts = 0;
    loop {
        let place = Place::make(SIZE, attempts == 0)?;
        children.set_folder(place.folder.clone());
        let started = NODES.map(|name| Node::start(name, &place, children, runtime));
        let trouble = match started {
            [Ok(alpha), Ok(beta)] => return Ok((place, [alpha, beta])),
            [Err(trouble), _] | [_, Err(trouble)] => trouble,
        };
        attempts += 1;
        let is_port = NODES
            .iter()
            .any(|name| tail(&place.log(name), 5).contains("in use"));
        if attempts == 3 || !is_port {
            let logs = NODES.map(|name| tail(&place.log(name), 5)).join("\n");
            let _ = fs::remove_dir_all(&place.folder);
            return Err(Trouble::new(format!("{trouble}\n{logs}")));
        }
        let _ = fs::remove_dir_all(&place.folder);
    }
}

fn joined(writing: Writing) -> Result<(Ledger, Run), Trouble> {
    writing
        .thread
        .join()
        .map_err(|_| Trouble::new("the writing client panicked"))
}

fn loss(lost: Option<&str>, errors: u64) -> Trouble {
    match lost {
        Some(why) => Trouble::new(format!("the writing client: {why}")),
        None => Trouble::new(format!("{} of I/O", counted(errors as usize, "error"))),
    }
}

/// Bytes that other replicas lack.
fn out_of_sync(volume: &VolumeEntry) -> u64 {
    volume
        .replicas
        .iter()
        .map(|replica| replica.out_of_sync_bytes)
        .sum()
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn rate(figures: &transfer::Figures) -> String {
    let seconds = figures.took.as_secs_f64().max(1e-6);
    format!(
        "{:.0} MiB/s",
        figures.bytes as f64 / seconds / f64::from(1 << 20)
    )
}

fn time(took: Duration) -> String {
    match took.as_millis() {
        0..10 => format!("{:.1} ms", took.as_secs_f64() * 1e3),
        10..1000 => format!("{} ms", took.as_millis()),
        _ => format!("{:.1} s", took.as_secs_f64()),
    }
}
