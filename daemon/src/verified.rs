//! When the copies of each volume were compared last, and what was found: a small file beside the
//! metadata, so that it is known after a restart. It is a note for people and for the schedule;
//! no data depends on it.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use jiff::Timestamp;

use crate::api::body::LastVerify;

/// A longer file is none of ours.
const BYTES_MAX: u64 = 64 << 10;

/// What is known of the volumes of this node.
#[derive(Debug, Default)]
pub struct Verified {
    /// Where it is kept; `None`: only for the life of this process.
    dir: Option<PathBuf>,
    last: Mutex<HashMap<String, LastVerify>>,
}

impl Verified {
    /// What is noted under `data_dir` of these volumes. What cannot be read counts as never.
    pub fn load<'a>(data_dir: &Path, volumes: impl Iterator<Item = &'a str>) -> Verified {
        let dir = data_dir.join("volumes");
        let mut last = HashMap::new();
        for volume in volumes {
            match read(&path(&dir, volume)) {
                Ok(found) => drop(last.insert(volume.to_owned(), found)),
                Err(why) if why.kind() == io::ErrorKind::NotFound => {}
                Err(why) => tracing::warn!(
                    code = "W139",
                    volume,
                    "when the copies were compared last cannot be read: {why}"
                ),
            }
        }
        let (dir, last) = (Some(dir), Mutex::new(last));
        Verified { dir, last }
    }

    /// The last one of `volume`.
    pub fn of(&self, volume: &str) -> Option<LastVerify> {
        self.lock().get(volume).cloned()
    }

    /// A verify compared everything just now.
    pub fn note(&self, volume: &str, compared_bytes: u64, different_bytes: u64) {
        let found = LastVerify {
            ended_at: format!("{:.0}", Timestamp::now()),
            compared_bytes,
            different_bytes,
        };
        if let Some(dir) = &self.dir
            && let Err(why) = write(&path(dir, volume), &found)
        {
            tracing::warn!(
                code = "W139",
                volume,
                "that the copies were compared cannot be noted: {why}"
            );
        }
        self.lock().insert(volume.to_owned(), found);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, LastVerify>> {
        self.last
            .lock()
            .unwrap_or_else(|broken| broken.into_inner())
    }
}

fn path(dir: &Path, volume: &str) -> PathBuf {
    dir.join(format!("{volume}.verified"))
}

fn read(path: &Path) -> io::Result<LastVerify> {
    if fs::metadata(path)?.len() > BYTES_MAX {
        return Err(io::Error::other("it is too long"));
    }
    let found: LastVerify = serde_json::from_slice(&fs::read(path)?)?;
    match found.ended_at.parse::<Timestamp>() {
        Ok(_) => Ok(found),
        Err(why) => Err(io::Error::other(why)),
    }
}

/// The old text or the new: it takes its place whole.
fn write(path: &Path, found: &LastVerify) -> io::Result<()> {
    let fresh = path.with_extension("verified.new");
    let mut file = File::create(&fresh)?;
    file.write_all(&serde_json::to_vec(found)?)?;
    file.sync_all()?;
    fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_is_known_after_a_restart_and_nonsense_counts_as_never() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("volumes")).unwrap();
        let volumes = || ["pg", "vm"].into_iter();
        let first = Verified::load(dir.path(), volumes());
        assert_eq!(first.of("pg"), None);
        first.note("pg", 1 << 30, 4096);
        let again = Verified::load(dir.path(), volumes());
        assert_eq!(again.of("pg"), first.of("pg"));
        assert_eq!(again.of("pg").unwrap().different_bytes, 4096);
        fs::write(dir.path().join("volumes/vm.verified"), b"{}").unwrap();
        assert_eq!(Verified::load(dir.path(), volumes()).of("vm"), None);
    }
}
