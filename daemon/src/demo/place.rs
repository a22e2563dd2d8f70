//! Where the demo happens: a temporary folder, free ports, one configuration file.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

/// The nodes, in the order of the file.
pub(super) const NODES: [&str; 2] = ["alpha", "beta"];

/// The volume, and the name of its export.
pub(super) const VOLUME: &str = "demo";

/// The ports the documentation uses: replication, NBD, API of each node.
const USUAL: [[u16; 3]; 2] = [[8790, 10809, 8792], [8890, 10909, 8892]];

/// Folder, ports and configuration.
pub(super) struct Place {
    pub(super) folder: PathBuf,
    pub(super) nbd_ports: [u16; 2],
    /// Ports that were in use and those taken instead.
    pub(super) moved: Vec<(u16, u16)>,
}

impl Place {
    /// Makes the folder and writes the configuration for a volume of `size` bytes. Takes the
    /// usual ports where they are free, if `is_first`.
    pub(super) fn make(size: u64, is_first: bool) -> io::Result<Place> {
        let folder = new_folder()?;
        let (mut ports, mut moved, mut held) = (USUAL, Vec::new(), Vec::new());
        for port in ports.iter_mut().flatten() {
            let usual = if is_first { *port } else { 0 };
            let listener = TcpListener::bind(("127.0.0.1", usual));
            let listener = listener.or_else(|_| TcpListener::bind("127.0.0.1:0"))?;
            let taken = listener.local_addr()?.port();
            if taken != *port {
                moved.push((*port, taken));
                *port = taken;
            }
            // Held until all are chosen, so that no two are the same.
            held.push(listener);
        }
        let place = Place {
            nbd_ports: [ports[0][1], ports[1][1]],
            folder,
            moved,
        };
        for name in NODES {
            fs::create_dir(place.data_dir(name))?;
        }
        fs::write(place.config(), place.config_text(size, &ports))?;
        Ok(place)
    }

    fn config_text(&self, size: u64, ports: &[[u16; 3]; 2]) -> String {
        let mut text = String::from("[cluster]\nname = \"demo\"\nquorum = \"off\"\n");
        for (name, [replication, nbd, api]) in NODES.iter().zip(ports) {
            text.push_str(&format!(
                "\n[node.{name}]\ndata_dir = \"{}\"\naddress = \"127.0.0.1:{replication}\"\n\
                 nbd = \"127.0.0.1:{nbd}\"\napi = \"127.0.0.1:{api}\"\n",
                self.data_dir(name).display()
            ));
        }
        text.push_str(&format!(
            "\n[volume.{VOLUME}]\nsize = \"{}MiB\"\nbacking = \"{VOLUME}.img\"\n\
             replicas = [\"alpha\", \"beta\"]\nwrite_policy = \"written\"\n\
             nbd = [{{ name = \"{VOLUME}\" }}]\n",
            size >> 20
        ));
        text
    }

    pub(super) fn config(&self) -> PathBuf {
        self.folder.join("pollux.toml")
    }

    pub(super) fn data_dir(&self, node: &str) -> PathBuf {
        self.folder.join(node)
    }

    pub(super) fn log(&self, node: &str) -> PathBuf {
        self.folder.join(format!("{node}.log"))
    }

    pub(super) fn backing(&self, node: &str) -> PathBuf {
        self.data_dir(node).join(format!("{VOLUME}.img"))
    }

    /// URI of the volume on a node.
    pub(super) fn uri(&self, index: usize) -> String {
        format!("nbd://127.0.0.1:{}/{VOLUME}", self.nbd_ports[index])
    }
}

/// A new folder that only this user may enter.
fn new_folder() -> io::Result<PathBuf> {
    use std::os::unix::fs::DirBuilderExt;
    let base = std::env::temp_dir();
    for attempt in 0..1000 {
        let folder: PathBuf = base.join(format!("pollux-demo-{}-{attempt}", std::process::id()));
        match fs::DirBuilder::new().mode(0o700).create(&folder) {
            Err(why) if why.kind() == io::ErrorKind::AlreadyExists => {}
            Err(why) => return Err(why),
            Ok(()) => return Ok(folder),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Last lines of a log.
pub(super) fn tail(log: &Path, lines: usize) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
