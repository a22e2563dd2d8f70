//! Which servers there are, in which modes, and what they promise.

use std::path::PathBuf;
use std::str::FromStr;

use super::{Backing, Bench};
use crate::results::Role;

/// A server in one of its modes, or what stands in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Ours: a volume with one replica, polling as by default.
    Pollux,
    /// Ours, polling for latency.
    PolluxLatency,
    /// Ours in the clear, beside ours under TLS.
    PolluxPlain,
    /// Ours with a second replica, in the memory of another node.
    PolluxMirror,
    /// The same, with TLS between the nodes.
    PolluxMirrorTls,
    /// The same with the first replica in memory, too: what the way to the other node takes.
    PolluxLeg,
    /// This program's server on a stock io_uring runtime.
    TokioUring,
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
    /// No server: fio on the same file.
    Fio,
}

impl Kind {
    /// All, ours first.
    pub const ALL: [Kind; 14] = [
        Kind::Pollux,
        Kind::PolluxLatency,
        Kind::PolluxPlain,
        Kind::PolluxMirror,
        Kind::PolluxMirrorTls,
        Kind::PolluxLeg,
        Kind::TokioUring,
        Kind::QemuIoUring,
        Kind::QemuNative,
        Kind::QemuThreads,
        Kind::NbdkitFile,
        Kind::NbdkitMemory,
        Kind::NbdServer,
        Kind::Fio,
    ];

    /// Its word in tables and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Pollux => "pollux",
            Kind::PolluxLatency => "pollux-latency",
            Kind::PolluxPlain => "pollux-plain",
            Kind::PolluxMirror => "pollux-mirror",
            Kind::PolluxMirrorTls => "pollux-mirror-tls",
            Kind::PolluxLeg => "pollux-leg",
            Kind::TokioUring => "tokio-uring",
            Kind::QemuIoUring => "qemu-nbd-io_uring",
            Kind::QemuNative => "qemu-nbd-native",
            Kind::QemuThreads => "qemu-nbd-threads",
            Kind::NbdkitFile => "nbdkit-file",
            Kind::NbdkitMemory => "nbdkit-memory",
            Kind::NbdServer => "nbd-server",
            Kind::Fio => "fio",
        }
    }

    /// What it does with the data, for the reader of a table.
    pub fn describe(self, backing: Backing) -> &'static str {
        match (self, backing) {
            (Kind::Pollux, Backing::Memory) => "one replica in its own memory",
            (Kind::Pollux, Backing::File) => "one replica in the file, O_DIRECT",
            (Kind::PolluxLatency, Backing::Memory) => {
                "one replica in its own memory, `polling = \"latency\"`"
            }
            (Kind::PolluxLatency, Backing::File) => {
                "one replica in the file, O_DIRECT, `polling = \"latency\"`"
            }
            (Kind::PolluxPlain, Backing::Memory) => "one replica in its own memory, without TLS",
            (Kind::PolluxPlain, Backing::File) => "one replica in the file, O_DIRECT, without TLS",
            (Kind::PolluxMirror, Backing::Memory) => {
                "two replicas in memory, the second on another node over TCP"
            }
            (Kind::PolluxMirror, Backing::File) => {
                "one replica in the file, O_DIRECT, one in memory on another node over TCP"
            }
            (Kind::PolluxMirrorTls, Backing::Memory) => {
                "two replicas in memory, the second on another node over TLS"
            }
            (Kind::PolluxMirrorTls, Backing::File) => {
                "one replica in the file, O_DIRECT, one in memory on another node over TLS"
            }
            (Kind::PolluxLeg, _) => "two replicas in memory, the second on another node over TCP",
            (Kind::TokioUring, Backing::Memory) => "its own memory",
            (Kind::TokioUring, Backing::File) => "the file, O_DIRECT",
            (Kind::QemuIoUring, _) => "O_DIRECT (`--cache=none --aio=io_uring`)",
            (Kind::QemuNative, _) => "O_DIRECT (`--cache=none --aio=native`)",
            (Kind::QemuThreads, _) => "O_DIRECT (`--cache=none --aio=threads`)",
            (Kind::NbdkitFile | Kind::NbdServer, Backing::File) => {
                "buffered, through the page cache: reads need no disk, writes are not yet on it"
            }
            (Kind::NbdkitFile | Kind::NbdServer, Backing::Memory) => "the file in /dev/shm",
            (Kind::NbdkitMemory, _) => "its own memory",
            (Kind::Fio, _) => "the file, O_DIRECT (`--ioengine=io_uring`), without a server",
        }
    }

    /// The program behind it.
    pub fn program(self, bench: &Bench) -> PathBuf {
        match self {
            Kind::Pollux
            | Kind::PolluxLatency
            | Kind::PolluxPlain
            | Kind::PolluxMirror
            | Kind::PolluxMirrorTls
            | Kind::PolluxLeg => bench.pollux.clone(),
            Kind::TokioUring => std::env::current_exe().unwrap_or_default(),
            Kind::QemuIoUring | Kind::QemuNative | Kind::QemuThreads => "qemu-nbd".into(),
            Kind::NbdkitFile | Kind::NbdkitMemory => "nbdkit".into(),
            Kind::NbdServer => "nbd-server".into(),
            Kind::Fio => "fio".into(),
        }
    }

    /// What its figures are for.
    pub fn role(self, backing: Backing) -> Role {
        match (self, backing) {
            (Kind::Pollux, _) => Role::Ours,
            (
                Kind::PolluxLatency
                | Kind::PolluxPlain
                | Kind::PolluxMirror
                | Kind::PolluxMirrorTls
                | Kind::PolluxLeg,
                _,
            ) => Role::OursToo,
            (Kind::TokioUring, _) => Role::Baseline,
            (Kind::Fio, _) => Role::Ceiling,
            (Kind::NbdkitFile | Kind::NbdServer, Backing::File) => Role::Buffered,
            _ => Role::Peer,
        }
    }

    /// It is ours, and told how to wait.
    pub fn is_ours(self) -> bool {
        matches!(
            self,
            Kind::Pollux
                | Kind::PolluxLatency
                | Kind::PolluxPlain
                | Kind::PolluxMirror
                | Kind::PolluxMirrorTls
                | Kind::PolluxLeg
        )
    }

    /// It uses the image, and does so past the page cache.
    pub fn is_direct(self, backing: Backing) -> bool {
        let is_buffered = self.role(backing) == Role::Buffered;
        backing == Backing::File && !is_buffered && self != Kind::PolluxLeg
    }

    /// It uses the image.
    pub fn needs_image(self, backing: Backing) -> bool {
        match self {
            Kind::PolluxLeg | Kind::NbdkitMemory => false,
            Kind::Pollux
            | Kind::PolluxLatency
            | Kind::PolluxPlain
            | Kind::PolluxMirror
            | Kind::PolluxMirrorTls
            | Kind::TokioUring => backing == Backing::File,
            _ => true,
        }
    }

    /// It takes part if nobody is named.
    pub fn is_usual(self, backing: Backing, tls: bool) -> bool {
        let is_special = match self {
            Kind::PolluxMirror | Kind::PolluxMirrorTls | Kind::PolluxLeg => true,
            Kind::PolluxPlain => !tls,
            _ => false,
        };
        self.fits(backing)
            && !is_special
            && (self.speaks_tls() || self == Kind::PolluxPlain || !tls)
    }

    /// It is started with TLS where that is asked for.
    pub fn speaks_tls(self) -> bool {
        match self {
            Kind::PolluxPlain | Kind::TokioUring | Kind::NbdServer | Kind::Fio => false,
            Kind::Pollux
            | Kind::PolluxLatency
            | Kind::PolluxMirror
            | Kind::PolluxMirrorTls
            | Kind::PolluxLeg
            | Kind::QemuIoUring
            | Kind::QemuNative
            | Kind::QemuThreads
            | Kind::NbdkitFile
            | Kind::NbdkitMemory => true,
        }
    }

    /// It has that kind of backing.
    pub fn fits(self, backing: Backing) -> bool {
        match self {
            Kind::NbdkitMemory => backing == Backing::Memory,
            Kind::Fio => backing == Backing::File,
            _ => true,
        }
    }

    /// What it lacks to run here, if anything.
    pub fn missing(self, bench: &Bench) -> Option<String> {
        if self == Kind::TokioUring && !cfg!(feature = "tokio-uring") {
            return Some("this program was built without the feature `tokio-uring`".to_owned());
        }
        let program = self.program(bench);
        let found = match program.components().count() {
            1 => std::env::var_os("PATH").is_some_and(|path| {
                std::env::split_paths(&path).any(|p| p.join(&program).is_file())
            }),
            _ => program.is_file(),
        };
        (!found).then(|| format!("{} is not installed", program.display()))
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
