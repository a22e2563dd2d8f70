//! The metadata file of a replica: what lies there; written, opened and locked, read.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use engine_core::action::{META_BLOCK, MetaBlock};
use engine_core::meta::{self, FORMAT_COMMIT_BLOCKS, Peek};

use super::{Replica, ReplicaError};
use crate::backend::file;

impl Replica<'_> {
    /// What lies where the metadata should.
    pub(super) fn peek(&self) -> Result<Peek, ReplicaError> {
        let path = self.meta_path();
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Peek::Nothing),
            Err(e) => return Err(meta_error("cannot open", &path)(e)),
        };
        let mut blocks = [[0; META_BLOCK]; 2];
        for (index, block) in blocks.iter_mut().enumerate() {
            let read = file.read_exact_at(block, (index * META_BLOCK) as u64);
            match read {
                // Shorter than two blocks: a create that hardly began.
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(Peek::Nothing),
                other => other.map_err(meta_error("cannot read", &path))?,
            }
        }
        match meta::peek(&blocks[0], &blocks[1]) {
            Peek::Foreign => Err(ReplicaError::Foreign(path.display().to_string())),
            found => Ok(found),
        }
    }
}

pub(super) fn meta_error(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> ReplicaError {
    move |source| ReplicaError::Meta {
        doing,
        path: path.display().to_string(),
        source,
    }
}

/// Writes a metadata area, its commit blocks last: preallocated but for the marks at its end,
/// which are a hole until they are used.
pub(super) fn write_area(
    path: &Path,
    layout: &meta::Layout,
    content: impl Iterator<Item = (u64, Box<MetaBlock>)>,
) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    match rustix::fs::fallocate(
        &file,
        rustix::fs::FallocateFlags::empty(),
        0,
        layout.bytes(),
    ) {
        Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => file.set_len(layout.total_bytes())?,
        Err(e) => return Err(e.into()),
    }
    // The superblocks stand at 0 and 1, twice in `content`: first zeros, at last themselves.
    let mut commit = Vec::new();
    for (seen, (block, bytes)) in (0..).zip(content) {
        if block < FORMAT_COMMIT_BLOCKS && seen >= FORMAT_COMMIT_BLOCKS {
            commit.push((block, bytes));
        } else {
            file.write_all_at(&bytes[..], block * META_BLOCK as u64)?;
        }
    }
    file.sync_all()?;
    for (block, bytes) in commit {
        file.write_all_at(&bytes[..], block * META_BLOCK as u64)?;
    }
    file.sync_all()?;
    file::sync_parent(path)
}

/// Opens and locks the metadata file and reads all of it but the marks; these are read from the
/// second file, which is not opened for direct I/O.
pub(super) fn open_area(path: &Path) -> Result<(OwnedFd, AreaParts, File), ReplicaError> {
    let file = OpenOptions::new().read(true).write(true).open(path);
    let file = file.map_err(meta_error("cannot open", path))?;
    file::lock(&file, path)?;
    let plain = File::open(path).map_err(meta_error("cannot open", path))?;
    let parts = read_area(&plain).map_err(meta_error("cannot read", path))?;
    file::try_direct(file.as_fd());
    Ok((file.into(), parts, plain))
}

/// Blocks of a metadata area, and which they are.
type AreaParts = (Vec<Range<u64>>, Vec<u8>);

/// What `meta::load_parts` looks at, or all there is.
fn read_area(file: &File) -> io::Result<AreaParts> {
    let mut heads = [[0; META_BLOCK]; 2];
    for (block, head) in heads.iter_mut().enumerate() {
        read_padded(file, block as u64, head)?;
    }
    let end = file.metadata()?.len() / META_BLOCK as u64;
    let all = || std::iter::once(0..end).collect();
    let mut ranges = meta::read_ranges(&heads[0], &heads[1]).unwrap_or_else(all);
    for range in &mut ranges {
        *range = range.start.min(end)..range.end.min(end);
    }
    let blocks: u64 = ranges.iter().map(|r| r.end - r.start).sum();
    let len = blocks.saturating_mul(META_BLOCK as u64);
    let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    let mut rest = &mut bytes[..];
    for range in &ranges {
        let len = (range.end - range.start) as usize * META_BLOCK;
        let (part, others) = rest.split_at_mut(len);
        file.read_exact_at(part, range.start * META_BLOCK as u64)?;
        rest = others;
    }
    Ok((ranges, bytes))
}

/// Reads from a block on, with zeros where the file ends.
pub(super) fn read_padded(file: &File, block: u64, buffer: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], block * META_BLOCK as u64 + done as u64) {
            Ok(0) => {
                buffer[done..].fill(0);
                return Ok(());
            }
            Ok(count) => done += count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
