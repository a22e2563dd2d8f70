//! Every client we know, over every transport: what works, as a table.
//!
//! ```text
//!  Bench: a daemon, an image ─► Place per transport ─► Client::run ─► Cell ─► table
//! ```

mod clients;
mod place;
mod table;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub use place::{Place, Transport};
pub use table::{Row, print, put_into};

use crate::{Daemon, Lab, image, tools};
pub use clients::{CLIENTS, Client};

/// Size of the volume, MiB.
const MEBIBYTES: u32 = 48;

/// What one client came to over one transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// It did all that was asked of it, in this time.
    Works(Duration),
    /// What it did instead.
    Fails(String),
    /// It is not installed; the Debian package that has it.
    Missing(&'static str),
    /// The client or the server does not have this transport; why.
    Absent(String),
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cell::Works(_) => f.write_str("works"),
            Cell::Fails(_) => f.write_str("**fails**"),
            Cell::Missing(package) => write!(f, "not installed ({package})"),
            Cell::Absent(why) => f.write_str(why),
        }
    }
}

/// A running node named solo with the export `v`, and a disk image to copy.
pub struct Bench {
    /// Ends before the lab's folder goes.
    _daemon: Daemon,
    /// Its folder.
    pub lab: Lab,
    /// An ext4 file system, as large as the volume.
    pub image: PathBuf,
    /// Its SHA-256.
    pub sum: String,
    /// Certificates of the client, if the server has TLS.
    certificates: Option<PathBuf>,
}

impl Bench {
    /// Starts it. `None` if mke2fs is missing. Panics: the daemon does not start.
    pub fn start() -> Option<Bench> {
        let volume = format!(
            "[volume.v]\nsize = \"{MEBIBYTES}MiB\"\nbacking = \"v.img\"\n\
             replicas = [\"solo\"]\nnbd = [{{ name = \"v\" }}]\n"
        );
        let lab = Lab::new(&["solo"], &volume);
        let folder = lab.path("image");
        std::fs::create_dir(&folder).expect("the lab's folder is writable");
        let image = image::ext4(&folder, MEBIBYTES)?;
        let sum = image::sha256(&image);
        let certificates = lab.path("tls");
        let words = ["tls", "init", &certificates.display().to_string()];
        let certificates = (lab.pollux("solo", &words).exit == 0).then_some(certificates);
        if certificates.is_some() {
            lab.write_config("lab", &(Lab::tls_table("solo") + &volume));
        }
        let daemon = lab.serve("solo");
        lab.done("solo", &["volume", "create", "v"]);
        lab.until_serving("solo", "v", Duration::from_secs(10));
        Some(Bench {
            _daemon: daemon,
            lab,
            image,
            sum,
            certificates,
        })
    }

    /// The export over a transport. `None` if the server does not have it.
    pub fn place(&self, transport: Transport) -> Option<Place> {
        let node = self.lab.node("solo");
        let certificates = match transport.is_tls() {
            true => Some(self.certificates.clone()?),
            false => None,
        };
        Some(Place {
            transport,
            port: node.nbd.number,
            socket: node.nbd_socket(),
            export: "v".to_owned(),
            size_bytes: u64::from(MEBIBYTES) << 20,
            certificates,
        })
    }

    /// Runs one client over one transport. What it panics with is what failed.
    pub fn cell(&self, client: &Client, transport: Transport) -> Cell {
        let is_missing = |(program, _): &&(&str, &str)| tools::find(program).is_none();
        if let Some((_, package)) = client.needed.iter().find(is_missing) {
            return Cell::Missing(package);
        }
        if let Some(why) = (client.lacks)(transport) {
            return Cell::Absent(why.to_owned());
        }
        let Some(place) = self.place(transport) else {
            return Cell::Absent("server without TLS".to_owned());
        };
        let began = Instant::now();
        match catch_unwind(AssertUnwindSafe(|| (client.run)(self, &place))) {
            Ok(()) => Cell::Works(began.elapsed()),
            Err(why) => {
                let text = why.downcast_ref::<String>().cloned();
                let text = text.or_else(|| why.downcast_ref::<&str>().map(|s| (*s).to_owned()));
                Cell::Fails(text.unwrap_or_else(|| "it failed without a word".to_owned()))
            }
        }
    }

    /// The whole table, one row per client.
    pub fn rows(&self) -> Vec<Row> {
        let row = |client: &Client| Row {
            client: client.name,
            version: client.version(),
            shown: client.shown,
            cells: Transport::ALL
                .map(|transport| self.cell(client, transport))
                .into(),
        };
        CLIENTS.iter().map(row).collect()
    }
}
