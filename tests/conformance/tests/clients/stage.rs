//! A daemon with one volume of each kind, and the programs run against it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use conformance::{Daemon, Lab, Ran, tools};
use serde_json::Value;

/// Size of each volume, MiB.
pub const MEBIBYTES: u32 = 48;

/// Longest time a client may take on a busy machine.
pub const CLIENT_MAX: Duration = Duration::from_secs(90);

/// A running node named solo, with the volumes `mem` and `disk`, created, and the read-only
/// export `disk-ro`.
pub struct Stage {
    /// Ends before the lab's folder goes.
    pub daemon: Daemon,
    pub lab: Lab,
}

/// An export, and whether its volume keeps what it is given on disk.
#[derive(Clone, Debug)]
pub struct Place {
    pub uri: String,
    pub volume: &'static str,
}

impl Stage {
    pub fn new() -> Stage {
        let volumes = format!(
            "[volume.mem]\nsize = \"{MEBIBYTES}MiB\"\nbacking = \"memory\"\n\
             replicas = [\"solo\"]\nnbd = [{{ name = \"mem\" }}]\n\
             [volume.disk]\nsize = \"{MEBIBYTES}MiB\"\nbacking = \"disk.img\"\n\
             replicas = [\"solo\"]\nnbd = [{{ name = \"disk\", description = \"on a disk\" }}, \
             {{ name = \"disk-ro\", read_only = true }}]\n"
        );
        let lab = Lab::new(&["solo"], &volumes);
        let daemon = lab.serve("solo");
        for volume in ["mem", "disk"] {
            lab.done("solo", &["volume", "create", volume]);
            lab.until_serving("solo", volume, Duration::from_secs(10));
        }
        Stage { daemon, lab }
    }

    /// Both volumes over both transports.
    pub fn places(&self) -> Vec<Place> {
        let node = self.lab.node("solo");
        let of = |volume| {
            let uris = [node.uri(volume), node.unix_uri(volume)];
            uris.map(|uri| Place { uri, volume })
        };
        ["mem", "disk"].into_iter().flat_map(of).collect()
    }
}

/// Runs a client to its end.
pub fn client(program: &str, words: &[&str]) -> Ran {
    let path = tools::find(program).unwrap_or_else(|| program.into());
    let mut command = Command::new(path);
    command.args(words);
    tools::run(command, CLIENT_MAX)
}

/// Runs a client that must succeed.
#[track_caller]
pub fn client_ok(program: &str, words: &[&str]) -> Ran {
    let ran = client(program, words);
    assert_eq!(
        ran.exit, 0,
        "{program} {words:?}\n{}\n{}",
        ran.stdout, ran.stderr
    );
    ran
}

/// What `nbdinfo --map --json` says: (offset, length, type).
pub fn map(uri: &str) -> Vec<(u64, u64, u64)> {
    let ran = client_ok("nbdinfo", &["--json", "--map", uri]);
    let extents: Value = serde_json::from_str(&ran.stdout).expect("nbdinfo prints JSON");
    let number = |extent: &Value, key: &str| extent[key].as_u64().expect("a number");
    let extents = extents.as_array().expect("an array of extents");
    extents
        .iter()
        .map(|extent| {
            (
                number(extent, "offset"),
                number(extent, "length"),
                number(extent, "type"),
            )
        })
        .collect()
}

/// Bytes of a map that are data.
pub fn data_bytes(map: &[(u64, u64, u64)]) -> u64 {
    map.iter()
        .filter(|(.., kind)| *kind == 0)
        .map(|(_, length, _)| length)
        .sum()
}

/// A path as a word of a command line.
pub fn word(path: &Path) -> &str {
    path.to_str().expect("labs lie in folders with plain names")
}
