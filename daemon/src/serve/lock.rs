//! One daemon per `data_dir`: a lock that the kernel gives back when the process ends.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::explain::{self, Failure};

/// Name of the lock file in `data_dir`. It stays behind; only its lock counts.
const LOCK_FILE: &str = "pollux.lock";

/// Held as long as this process uses the `data_dir`. Closed on exec, so no child holds it.
#[derive(Debug)]
pub(super) struct DataDirLock {
    file: File,
}

impl DataDirLock {
    /// Takes the lock of `data_dir` at once. Errors: it does not exist, is no directory, is in
    /// use, or cannot be written.
    pub(super) fn take(data_dir: &Path) -> Result<DataDirLock, Failure> {
        let unusable = |source: io::Error| explain::data_dir_unusable(data_dir, &source);
        match fs::metadata(data_dir) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Err(unusable(io::ErrorKind::NotADirectory.into())),
            Err(why) if why.kind() == io::ErrorKind::NotFound => {
                return Err(explain::data_dir_missing(data_dir));
            }
            Err(why) => return Err(unusable(why)),
        }
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600);
        let mut file = options.open(data_dir.join(LOCK_FILE)).map_err(unusable)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(explain::data_dir_in_use(data_dir, owner(&mut file)));
            }
            Err(why) => return Err(unusable(why.into())),
        }
        let mut lock = DataDirLock { file };
        lock.sign().map_err(unusable)?;
        Ok(lock)
    }

    /// Goes on with the lock another process took; held by whoever holds a copy of it.
    pub(super) fn adopt(file: File) -> DataDirLock {
        DataDirLock { file }
    }

    /// The same lock, to be passed on. Errors: no descriptor is left.
    pub(super) fn copy(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Writes this process's number into the file, for people.
    pub(super) fn sign(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        writeln!(self.file, "{}", std::process::id())
    }
}

/// The pid in a lock file held by another process, for the message only.
fn owner(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_dir_has_one_owner() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDirLock::take(dir.path()).unwrap();
        let second = DataDirLock::take(dir.path()).unwrap_err();
        let text = format!(
            "data_dir {} is in use by another pollux (pid {})",
            dir.path().display(),
            std::process::id()
        );
        assert_eq!((second.exit.number(), second.text), (1, text));
        drop(first);
        DataDirLock::take(dir.path()).unwrap();
    }

    #[test]
    fn a_missing_data_dir_is_named() {
        let missing = Path::new("/nonexistent/pollux");
        let failure = DataDirLock::take(missing).unwrap_err();
        assert_eq!(failure.exit.number(), 1);
        assert_eq!(failure.text, "data_dir /nonexistent/pollux does not exist");
        let file = DataDirLock::take(Path::new("/dev/null")).unwrap_err();
        assert!(file.text.contains("not a directory"), "{file}");
    }
}
