//! Starting and ending the servers that are compared.
//!
//! Each is started through `perf launch`, which pins it and ends it with us. `nbd-server` goes to
//! the background by itself and is ended by the pid it writes down; on signals too.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nbd_proto::{ExportName, NbdUri, Transport as Address};
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

use super::{Backing, Bench, Transport};
use crate::{load, usage};

/// Longest a server may take until its socket answers, and until it has ended.
const START_MAX: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);

/// The export of servers that name theirs.
const EXPORT: &str = "bench";

/// A server in one of its modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Ours: a volume with one replica.
    Pollux,
    /// qemu-nbd with io_uring.
    QemuIoUring,
    /// qemu-nbd with Linux AIO.
    QemuNative,
    /// qemu-nbd with a thread pool.
    QemuThreads,
    /// nbdkit, file plugin.
    NbdkitFile,
    /// nbdkit, memory plugin.
    NbdkitMemory,
    /// The reference project's server.
    NbdServer,
}

impl Kind {
    /// All, ours first.
    pub const ALL: [Kind; 7] = [
        Kind::Pollux,
        Kind::QemuIoUring,
        Kind::QemuNative,
        Kind::QemuThreads,
        Kind::NbdkitFile,
        Kind::NbdkitMemory,
        Kind::NbdServer,
    ];

    /// Its word in tables and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Pollux => "pollux",
            Kind::QemuIoUring => "qemu-nbd-io_uring",
            Kind::QemuNative => "qemu-nbd-native",
            Kind::QemuThreads => "qemu-nbd-threads",
            Kind::NbdkitFile => "nbdkit-file",
            Kind::NbdkitMemory => "nbdkit-memory",
            Kind::NbdServer => "nbd-server",
        }
    }

    /// What it does with the data, for the reader of a table.
    pub fn describe(self, backing: Backing) -> &'static str {
        match (self, backing) {
            (Kind::Pollux, Backing::Memory) => "one replica in its own memory",
            (Kind::Pollux, Backing::File) => "one replica in a file, O_DIRECT",
            (Kind::QemuIoUring, _) => "O_DIRECT (`--cache=none --aio=io_uring`)",
            (Kind::QemuNative, _) => "O_DIRECT (`--cache=none --aio=native`)",
            (Kind::QemuThreads, _) => "O_DIRECT (`--cache=none --aio=threads`)",
            (Kind::NbdkitFile | Kind::NbdServer, Backing::File) => {
                "through the page cache: reads need no disk, writes are not yet on it"
            }
            (Kind::NbdkitFile | Kind::NbdServer, Backing::Memory) => "the file in /dev/shm",
            (Kind::NbdkitMemory, _) => "its own memory",
        }
    }

    /// The program behind it.
    pub fn program(self, bench: &Bench) -> PathBuf {
        match self {
            Kind::Pollux => bench.pollux.clone(),
            Kind::QemuIoUring | Kind::QemuNative | Kind::QemuThreads => "qemu-nbd".into(),
            Kind::NbdkitFile | Kind::NbdkitMemory => "nbdkit".into(),
            Kind::NbdServer => "nbd-server".into(),
        }
    }

    /// Its promise about the data is that of our server, so that ratios mean something.
    pub fn is_like_ours(self, backing: Backing) -> bool {
        let is_buffered = matches!(self, Kind::NbdkitFile | Kind::NbdServer);
        backing == Backing::Memory || !is_buffered
    }

    /// It exports a file that exists before.
    pub fn needs_image(self) -> bool {
        !matches!(self, Kind::Pollux | Kind::NbdkitMemory)
    }

    /// It has that kind of backing.
    pub fn fits(self, backing: Backing) -> bool {
        self != Kind::NbdkitMemory || backing == Backing::Memory
    }

    /// What it lacks to run here, if anything.
    pub fn missing(self, bench: &Bench) -> Option<String> {
        let program = self.program(bench);
        let found = match program.components().count() {
            1 => std::env::var_os("PATH").is_some_and(|path| {
                std::env::split_paths(&path).any(|p| p.join(&program).is_file())
            }),
            _ => program.is_file(),
        };
        (!found).then(|| program.display().to_string())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(word: &str) -> Result<Kind, String> {
        let names = || Kind::ALL.map(Kind::name).join(", ");
        let found = Kind::ALL.into_iter().find(|kind| kind.name() == word);
        found.ok_or_else(|| format!("`{word}` is not one of {}", names()))
    }
}

/// Servers in the background, and directories, that signals must not leave behind.
static LEFT_BEHIND: Mutex<(Vec<Pid>, Vec<PathBuf>)> = Mutex::new((Vec::new(), Vec::new()));

fn left_behind() -> std::sync::MutexGuard<'static, (Vec<Pid>, Vec<PathBuf>)> {
    LEFT_BEHIND.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on SIGINT and SIGTERM end background servers, remove the directories and the process.
/// Other servers end with it.
pub fn clean_up_on_signals(directories: &[&Path]) -> anyhow::Result<()> {
    left_behind().1 = directories.iter().map(|path| path.to_path_buf()).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let _entered = runtime.enter();
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    drop(_entered);
    std::thread::spawn(move || {
        let number = runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => 2,
                _ = terminate.recv() => 15,
            }
        });
        let (servers, directories) = &*left_behind();
        for pid in servers {
            let _ = kill_process(*pid, Signal::TERM);
        }
        for directory in directories {
            let _ = fs::remove_dir_all(directory);
        }
        std::process::exit(128 + number);
    });
    Ok(())
}

/// A running server; ended when dropped.
pub struct Server {
    uri: NbdUri,
    process: Process,
    is_blank: bool,
}

impl Server {
    /// Starts it, on the image where it needs one, and waits until it lets a client in. Errors: why it does not, with its last
    /// words.
    pub fn start(kind: Kind, bench: &Bench) -> anyhow::Result<Server> {
        let address = address(bench)?;
        let export = if matches!(kind, Kind::Pollux | Kind::NbdServer) {
            EXPORT
        } else {
            ""
        };
        let export = ExportName::new(export).context("the name of the export")?;
        let uri = NbdUri {
            transport: address.clone(),
            export,
        };
        let (mut process, is_blank) = match kind {
            Kind::Pollux => start_pollux(bench, &address)?,
            Kind::NbdServer => (start_nbd_server(bench, &address)?, false),
            _ => {
                let command = peer_command(kind, bench, &address);
                let process = Process::child(spawn(bench, &kind.program(bench), &command)?);
                (process, kind == Kind::NbdkitMemory)
            }
        };
        process.wait_until(bench, || {
            load::size_of(&uri).map(|_| ()).map_err(Into::into)
        })?;
        Ok(Server {
            uri,
            process,
            is_blank,
        })
    }

    /// Where it listens.
    pub fn uri(&self) -> &NbdUri {
        &self.uri
    }

    /// Root of its process tree.
    pub fn pid(&self) -> u32 {
        self.process.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Nothing was written to its disk yet.
    pub fn is_blank(&self) -> bool {
        self.is_blank
    }
}

/// A process that ends with this value.
struct Process {
    pid: Pid,
    /// Absent if it went to the background.
    child: Option<Child>,
}

impl Process {
    fn child(child: Child) -> Process {
        Process {
            pid: Pid::from_child(&child),
            child: Some(child),
        }
    }

    fn background(pid: Pid) -> Process {
        left_behind().0.push(pid);
        Process { pid, child: None }
    }

    fn has_ended(&mut self) -> bool {
        match &mut self.child {
            Some(child) => !matches!(child.try_wait(), Ok(None)),
            // Whoever inherited it may be slow to collect it.
            None => usage::has_ended(self.pid.as_raw_nonzero().get().unsigned_abs()),
        }
    }

    /// Asks until it is so. Errors: the process ended, or the last answer after a while.
    fn wait_until(
        &mut self,
        bench: &Bench,
        ask: impl Fn() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let begun = Instant::now();
        while let Err(why) = ask() {
            if self.has_ended() {
                bail!("it ended: {}", last_words(bench));
            }
            if begun.elapsed() > START_MAX {
                let words = last_words(bench);
                return Err(
                    why.context(format!("no answer in {} s ({words})", START_MAX.as_secs()))
                );
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.has_ended() {
            let _ = kill_process(self.pid, Signal::TERM);
        }
        let begun = Instant::now();
        while !self.has_ended() {
            if begun.elapsed() > START_MAX {
                let _ = kill_process(self.pid, Signal::KILL);
            }
            std::thread::sleep(PAUSE);
        }
        left_behind().0.retain(|other| *other != self.pid);
    }
}

/// Where the next server shall listen.
fn address(bench: &Bench) -> anyhow::Result<Address> {
    if bench.transport == Transport::Tcp {
        return Ok(Address::Tcp {
            host: "127.0.0.1".to_owned(),
            port: free_port()?,
        });
    }
    let socket = bench.scratch.path().join("s");
    match fs::remove_file(&socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).context("an old socket cannot be removed")
        }
        _ => Ok(Address::Unix {
            socket: socket.display().to_string(),
        }),
    }
}

/// A port nobody listens on; the kernel gives it to nobody else for a while.
fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no free port")?;
    Ok(listener.local_addr()?.port())
}

fn peer_command(kind: Kind, bench: &Bench, address: &Address) -> Vec<String> {
    let image = bench.image.display().to_string();
    let text = |words: &[&str]| {
        words
            .iter()
            .map(|word| (*word).to_owned())
            .collect::<Vec<_>>()
    };
    let aio = match kind {
        Kind::QemuIoUring => Some("io_uring"),
        Kind::QemuNative => Some("native"),
        Kind::QemuThreads => Some("threads"),
        _ => None,
    };
    let Some(aio) = aio else {
        let mut command = match address {
            Address::Unix { socket } => text(&["-f", "-U", socket]),
            Address::Tcp { port, .. } => text(&["-f", "-i", "127.0.0.1", "-p", &port.to_string()]),
        };
        command.extend(match kind {
            Kind::NbdkitMemory => text(&["memory", &bench.size.to_string()]),
            _ => text(&["file", &image]),
        });
        return command;
    };
    let mut command = text(&["-t", "-e", "16", "-f", "raw", "--cache=none"]);
    command.push(format!("--aio={aio}"));
    command.extend(match address {
        Address::Unix { socket } => text(&["-k", socket]),
        Address::Tcp { port, .. } => text(&["-b", "127.0.0.1", "-p", &port.to_string()]),
    });
    command.push(image);
    command
}

fn log(bench: &Bench) -> PathBuf {
    bench.scratch.path().join("log")
}

/// The last line a server wrote before it failed.
fn last_words(bench: &Bench) -> String {
    let bytes = fs::read(log(bench)).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().rev().find(|line| !line.trim().is_empty());
    line.unwrap_or("it wrote nothing").trim().to_owned()
}

/// Starts a program through `perf launch`; what it writes goes to the log.
fn spawn(bench: &Bench, program: &Path, arguments: &[String]) -> anyhow::Result<Child> {
    let log = fs::File::create(log(bench)).context("cannot write the servers' log")?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["launch", "--cpu", &bench.server_cpu.to_string()]);
    command.args(["--parent", &std::process::id().to_string(), "--"]);
    command.arg(program).args(arguments);
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    command
        .spawn()
        .with_context(|| format!("cannot run {}", program.display()))
}

/// nbd-server, which writes its pid down and goes to the background.
fn start_nbd_server(bench: &Bench, address: &Address) -> anyhow::Result<Process> {
    let (configuration, pid_file) = (
        bench.scratch.path().join("nbd.conf"),
        bench.scratch.path().join("nbd.pid"),
    );
    let listen = match address {
        // It always listens on TCP, too.
        Address::Unix { socket } => {
            format!("  unixsock = {socket}\n  port = {}\n", free_port()?)
        }
        Address::Tcp { port, .. } => format!("  port = {port}\n"),
    };
    let image = bench.image.display();
    let text = format!(
        "[generic]\n  listenaddr = 127.0.0.1\n  allowlist = true\n{listen}\
         [{EXPORT}]\n  exportname = {image}\n"
    );
    fs::write(&configuration, text)?;
    let _ = fs::remove_file(&pid_file);
    let path = |path: &Path| path.display().to_string();
    let arguments = [
        "-C".to_owned(),
        path(&configuration),
        "-p".to_owned(),
        path(&pid_file),
    ];
    let mut child = spawn(bench, Path::new("nbd-server"), &arguments)?;
    let status = child.wait()?;
    let begun = Instant::now();
    loop {
        let text = fs::read_to_string(&pid_file).unwrap_or_default();
        if let Some(pid) = text.trim().parse().ok().and_then(Pid::from_raw) {
            return Ok(Process::background(pid));
        }
        if !status.success() || begun.elapsed() > START_MAX {
            bail!("it wrote no pid: {}", last_words(bench));
        }
        std::thread::sleep(PAUSE);
    }
}

/// Our server with one volume, made on the first start. Gives also whether its disk is blank.
fn start_pollux(bench: &Bench, address: &Address) -> anyhow::Result<(Process, bool)> {
    let data = bench.disk.path().join("pollux");
    let is_new = !data.exists();
    if is_new {
        fs::create_dir(&data)?;
    }
    let listen = match address {
        Address::Unix { socket } => format!("nbd_socket = \"{socket}\""),
        Address::Tcp { port, .. } => format!("nbd = \"127.0.0.1:{port}\""),
    };
    let backing = match bench.backing {
        Backing::Memory => "memory",
        Backing::File => "bench.img",
    };
    let text = format!(
        "[cluster]\nname = \"perf\"\n[node.bench]\ndata_dir = \"{}\"\n{listen}\n\
         [volume.{EXPORT}]\nsize = \"{}KiB\"\nbacking = \"{backing}\"\n\
         replicas = [\"bench\"]\nnbd = [{{ name = \"{EXPORT}\" }}]\n",
        data.display(),
        bench.size / 1024,
    );
    let file = bench.scratch.path().join("pollux.toml");
    fs::write(&file, text)?;
    let place = ["--config".to_owned(), file.display().to_string()];
    let serve = [&["serve".to_owned()][..], &place].concat();
    let child = spawn(bench, &bench.pollux, &serve)?;
    let mut process = Process::child(child);
    let api = data.join("pollux.sock");
    process.wait_until(bench, || Ok(UnixStream::connect(&api).map(|_| ())?))?;
    let mut create = Command::new(&bench.pollux);
    create
        .args(["volume", "create", EXPORT, "--if-absent"])
        .args(&place);
    let created = create
        .output()
        .with_context(|| format!("{}", bench.pollux.display()))?;
    if !created.status.success() {
        let words = String::from_utf8_lossy(&created.stderr);
        bail!("the volume was not created: {}", words.trim());
    }
    Ok((process, is_new || bench.backing == Backing::Memory))
}
