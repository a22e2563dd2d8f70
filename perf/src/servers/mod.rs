//! Starting and ending servers to be measured, all in the same way.
//!
//! ```text
//!  Kind ─► Server::start ─┬─► pollux   one node or two
//!                         └─► peers    qemu-nbd, nbdkit, nbd-server, our baseline
//!                               └─► process: pinned, logged, ended with us
//! ```

pub mod fio;
mod kind;
pub mod machine;
mod peers;
mod pollux;
mod process;

use std::fs;
use std::io::{self, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::ValueEnum;
use nbd_proto::{ExportName, NbdUri, Transport as Address, UriTls};
use tempfile::TempDir;

use crate::{load, workload};
pub use kind::Kind;
use process::Process;
pub use process::clean_up_on_signals;

/// The export of servers that name theirs.
const EXPORT: &str = "bench";
/// Of the image's contents.
const SEED: u64 = 1;

/// What holds the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Backing {
    /// Memory.
    Memory,
    /// A file.
    File,
}

/// How the client reaches the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Transport {
    /// A Unix socket.
    Unix,
    /// TCP over loopback.
    Tcp,
}

/// What a bench is made for.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// What holds the data.
    pub backing: Backing,
    /// How servers are reached.
    pub transport: Transport,
    /// Under TLS, with certificates on both sides.
    pub tls: bool,
    /// Bytes of the disk.
    pub size: u64,
    /// Where files lie, for files.
    pub directory: &'a Path,
    /// Our server; what lies beside this program if `None`.
    pub pollux: Option<&'a Path>,
    /// Core of the servers.
    pub server_cpu: usize,
    /// Core of the client, and of second nodes.
    pub client_cpu: usize,
}

/// Where everything is, fixed for one run of the program.
pub struct Bench {
    /// What holds the data.
    pub backing: Backing,
    /// How servers are reached.
    pub transport: Transport,
    /// The folder of everybody's certificates, if servers are spoken to under TLS.
    pub tls: Option<PathBuf>,
    /// Bytes of the disk.
    pub size: u64,
    /// Core of the servers.
    pub server_cpu: usize,
    /// Core of the client, and of second nodes.
    pub client_cpu: usize,
    /// Our server.
    pub pollux: PathBuf,
    /// Sockets, logs, configuration.
    pub scratch: TempDir,
    /// What servers with files export, all of them.
    pub image: PathBuf,
    /// Removes the image's directory at the end.
    pub disk: TempDir,
}

impl Bench {
    /// Makes the directories. Errors: they cannot be made, or there is no such core.
    pub fn new(wanted: &Wanted<'_>) -> anyhow::Result<Bench> {
        if wanted.size == 0 || !wanted.size.is_multiple_of(4096) {
            bail!("the size of the disk must be a multiple of 4k");
        }
        let cores = engine_ring::sys::cpu::allowed().context("which cores there are")?;
        for cpu in [wanted.server_cpu, wanted.client_cpu] {
            if !cores.contains(&cpu) {
                bail!("core {cpu} is not one of {cores:?}; see --server-cpu and --client-cpu");
            }
        }
        let beside = || Some(std::env::current_exe().ok()?.parent()?.join("pollux"));
        let pollux = wanted.pollux.map(Path::to_path_buf).or_else(beside);
        let scratch = tempfile::Builder::new()
            .prefix("perf-")
            .tempdir_in("/dev/shm");
        let scratch = scratch.context("cannot make a directory in /dev/shm")?;
        let place: &Path = match wanted.backing {
            Backing::Memory => Path::new("/dev/shm"),
            Backing::File => wanted.directory,
        };
        let place = place
            .canonicalize()
            .with_context(|| format!("no {}", place.display()))?;
        let disk = tempfile::Builder::new()
            .prefix("perf-disk-")
            .tempdir_in(&place);
        let unusable = || format!("cannot make a directory in {}", place.display());
        let disk = disk.with_context(unusable)?;
        let pollux = pollux.unwrap_or_default();
        let tls = wanted.tls.then(|| scratch.path().join("tls"));
        if let Some(folder) = &tls {
            pollux::make_certificates(&pollux, folder)?;
        }
        Ok(Bench {
            backing: wanted.backing,
            transport: wanted.transport,
            tls,
            size: wanted.size,
            server_cpu: wanted.server_cpu,
            client_cpu: wanted.client_cpu,
            pollux,
            scratch,
            image: disk.path().join("image"),
            disk,
        })
    }

    /// Writes every byte of the image, down to the disk.
    pub fn write_image(&self) -> io::Result<()> {
        let mut image = fs::File::create(&self.image)?;
        let mut piece = vec![0; 1 << 20];
        let mut offset = 0;
        while offset < self.size {
            let length = (self.size - offset).min(piece.len() as u64);
            // At most the length of the piece.
            let piece = &mut piece[..length as usize];
            workload::fill(piece, offset, SEED);
            image.write_all(piece)?;
            offset += length;
        }
        image.sync_all()
    }

    /// Takes the image out of the page cache, where a server left it that goes through there.
    pub fn forget_image(&self) -> io::Result<()> {
        let image = fs::OpenOptions::new().write(true).open(&self.image)?;
        image.sync_all()?;
        let all = None;
        Ok(rustix::fs::fadvise(
            &image,
            0,
            all,
            rustix::fs::Advice::DontNeed,
        )?)
    }
}

/// A running server; ended when dropped.
pub struct Server {
    uri: NbdUri,
    /// The server, and then who helps it.
    processes: Vec<Process>,
    is_blank: bool,
}

impl Server {
    /// Starts it, on the image where it needs one, and waits until it lets a client in. Errors:
    /// why it does not, with its last words.
    pub fn start(kind: Kind, bench: &Bench) -> anyhow::Result<Server> {
        let address = address(bench)?;
        let names_its_own = kind.is_ours() || matches!(kind, Kind::NbdServer);
        let export = if names_its_own { EXPORT } else { "" };
        let export = ExportName::new(export).context("the name of the export")?;
        let uri = NbdUri {
            transport: address.clone(),
            export,
            tls: tls(kind, bench),
        };
        let mut processes = match kind.is_ours() {
            true => pollux::start(kind, bench, &address)?,
            false => vec![peers::start(kind, bench, &address)?],
        };
        processes[0].wait_until(|| load::size_of(&uri).map(|_| ()).map_err(Into::into))?;
        let is_blank = !kind.needs_image(bench.backing);
        Ok(Server {
            uri,
            processes,
            is_blank,
        })
    }

    /// Where it listens.
    pub fn uri(&self) -> &NbdUri {
        &self.uri
    }

    /// Root of its process tree.
    pub fn pid(&self) -> u32 {
        self.processes[0].pid()
    }

    /// Processes that belong to the measurement and are not the server: other nodes.
    pub fn helpers(&self) -> Vec<u32> {
        self.processes[1..].iter().map(Process::pid).collect()
    }

    /// Everything it promises still holds: a mirror has both its replicas. Errors: what it lacks.
    pub fn check(&self, kind: Kind, bench: &Bench) -> anyhow::Result<()> {
        match kind {
            Kind::PolluxMirror | Kind::PolluxMirrorTls | Kind::PolluxLeg => pollux::check(bench),
            _ => Ok(()),
        }
    }

    /// Nothing was written to its disk yet.
    pub fn is_blank(&self) -> bool {
        self.is_blank
    }
}

/// What its clients are told of TLS.
fn tls(kind: Kind, bench: &Bench) -> Option<UriTls> {
    let folder = bench.tls.as_ref().filter(|_| kind.speaks_tls())?;
    let certificates = Some(folder.display().to_string());
    Some(UriTls { certificates })
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
