//! Writing a salvage: under another name until all of it is durable.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use engine_core::units::Extent;
use rustix::fs::{FallocateFlags, fallocate};

use super::format::{DATA, END, HEAD, Head, RECORD, Record, ZEROS};
use crate::sums;

/// A salvage that is not committed yet. Dropped, it leaves nothing behind.
pub(super) struct Writer {
    file: File,
    part: PathBuf,
    path: PathBuf,
    records: u64,
    length: u64,
    is_done: bool,
}

impl Writer {
    /// Begins one of at most so many bytes of data. Errors: among others, there is no room for all
    /// of it.
    pub(super) fn create(folder: &Path, head: &Head, bytes: u64) -> io::Result<Writer> {
        fs::create_dir_all(folder)?;
        let seconds = head.created_ms / 1000;
        let name = format!("{}-{}-{seconds}", head.volume, head.node);
        let (path, part) = free_name(folder, &name);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&part)?;
        let head = head.encode();
        let head = head.ok_or_else(|| io::Error::other("a name is longer than 255 bytes"))?;
        let mut writer = Writer {
            file: file.try_clone()?,
            part,
            path,
            records: 0,
            length: 0,
            is_done: false,
        };
        // Zeros are left out later, so this asks for no less than is needed.
        let records = bytes.div_ceil(4096) * RECORD as u64;
        let most = HEAD as u64 + bytes + records + RECORD as u64;
        match fallocate(&file, FallocateFlags::KEEP_SIZE, 0, most) {
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {}
            Err(error) => return Err(error.into()),
        }
        file.write_all(&head)?;
        writer.file = file;
        Ok(writer)
    }

    /// Adds what lies there; `None` for zeros.
    pub(super) fn put(&mut self, extent: Extent, bytes: Option<&[u8]>) -> io::Result<()> {
        let length = extent.bytes();
        if bytes.is_some_and(|b| b.len() as u64 != length) {
            return Err(io::Error::other("a piece has another length"));
        }
        let record = Record {
            kind: if bytes.is_some() { DATA } else { ZEROS },
            offset: extent.offset(),
            length,
            checksum: bytes.map_or(0, sums::bytes),
        };
        self.records += 1;
        self.length += length;
        self.file.write_all(&record.encode())?;
        self.file.write_all(bytes.unwrap_or_default())
    }

    /// Ends it: from here on it is there, whatever fails.
    pub(super) fn commit(mut self) -> io::Result<PathBuf> {
        let end = Record {
            kind: END,
            offset: self.records,
            length: self.length,
            checksum: 0,
        };
        self.file.write_all(&end.encode())?;
        // What was set aside for zeros is given back.
        let written = self.file.metadata()?.len();
        self.file.set_len(written)?;
        self.file.sync_all()?;
        fs::rename(&self.part, &self.path)?;
        self.is_done = true;
        if let Some(folder) = self.path.parent() {
            File::open(folder)?.sync_all()?;
            if let Some(above) = folder.parent() {
                File::open(above)?.sync_all()?;
            }
        }
        Ok(self.path.clone())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.is_done {
            // Whoever looks for salvages passes over it all the same.
            let _ = fs::remove_file(&self.part);
        }
    }
}

/// A name that nothing has yet, and the one it has until it is whole.
fn free_name(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
    let mut number = 1;
    loop {
        let tail = match number {
            1 => String::new(),
            number => format!("-{number}"),
        };
        let path = folder.join(format!("{name}{tail}.salvage"));
        let part = folder.join(format!("{name}{tail}.part"));
        if !path.exists() && !part.exists() {
            return (path, part);
        }
        number += 1;
    }
}
