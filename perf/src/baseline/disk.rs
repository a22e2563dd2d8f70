//! Where the data are: blocks in memory, or a file past the page cache.

use std::cell::RefCell;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use bytes::{Bytes, BytesMut};
use tokio_uring::buf::{BoundedBuf, Slice};
use tokio_uring::fs::File;

use super::replies::Replies;

/// Bytes of a block in memory, and what O_DIRECT wants buffers to begin at.
pub const BLOCK: usize = 4096;

/// Reads of so many bytes are sent from where they are.
const SHARED_MIN: usize = 16 << 10;

/// A disk.
pub enum Disk {
    /// Blocks that are shared with the replies that send them, and replaced when written.
    Memory(RefCell<Vec<Bytes>>),
    /// A file.
    File(File),
}

impl Disk {
    /// A blank one.
    pub fn memory(size: u64) -> Disk {
        let zeroes = Bytes::from_static(&[0; BLOCK]);
        // What does not fit into memory cannot be served from there.
        let blocks = usize::try_from(size.div_ceil(BLOCK as u64)).unwrap_or(usize::MAX);
        Disk::Memory(RefCell::new(vec![zeroes; blocks]))
    }

    /// A file that exists. Errors: it cannot be opened so.
    pub fn file(path: &Path) -> io::Result<Disk> {
        let mut options = OpenOptions::new();
        let flags = rustix::fs::OFlags::DIRECT.bits();
        options
            .read(true)
            .write(true)
            .custom_flags(flags.cast_signed());
        Ok(Disk::File(File::from_std(options.open(path)?)))
    }
}

/// Appends a range, which lies on the disk: small ones are copied, which is cheaper than to count
/// their users, others are shared.
pub fn read(blocks: &[Bytes], offset: u64, length: usize, replies: &mut Replies) {
    let (mut at, mut left) = (offset as usize, length);
    while left > 0 {
        let begin = at % BLOCK;
        let take = left.min(BLOCK - begin);
        let block = &blocks[at / BLOCK];
        match length < SHARED_MIN {
            true => replies.push_copy(&block[begin..begin + take]),
            false => replies.push_data(Bytes::slice(block, begin..begin + take)),
        }
        at += take;
        left -= take;
    }
}

/// Writes a range, which lies on the disk: in place, where no reply still holds the block.
pub fn write(blocks: &mut [Bytes], offset: u64, mut data: &[u8]) {
    let mut at = offset as usize;
    while !data.is_empty() {
        let begin = at % BLOCK;
        let take = data.len().min(BLOCK - begin);
        let (now, rest) = data.split_at(take);
        let block = &mut blocks[at / BLOCK];
        let own = std::mem::take(block).try_into_mut();
        let mut own = own.unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        own[begin..begin + take].copy_from_slice(now);
        *block = own.freeze();
        at += take;
        data = rest;
    }
}

/// Room for `length` bytes that begins where O_DIRECT wants it, and where that is.
pub fn aligned(length: usize) -> (Vec<u8>, usize) {
    let mut buffer: Vec<u8> = Vec::with_capacity(length + BLOCK);
    let begin = buffer.as_ptr().align_offset(BLOCK);
    buffer.resize(begin, 0);
    (buffer, begin)
}

/// Reads a range of a file. Errors: also if it ends early.
pub async fn read_file(file: &File, offset: u64, length: usize) -> io::Result<Bytes> {
    let (buffer, begin) = aligned(length);
    let (result, place) = file
        .read_at(buffer.slice(begin..begin + length), offset)
        .await;
    if result? != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let whole = Bytes::from(place.into_inner());
    Ok(Bytes::slice(&whole, begin..begin + length))
}

/// Writes a range of a file. Errors: also if not all of it was written.
pub async fn write_file(file: &File, offset: u64, data: Slice<Vec<u8>>) -> io::Result<()> {
    let length = data.bytes_init();
    let (result, _) = file.write_at(data, offset).submit().await;
    match result? == length {
        true => Ok(()),
        false => Err(io::ErrorKind::WriteZero.into()),
    }
}
