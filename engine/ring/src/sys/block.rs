//! Block devices and O_DIRECT limits.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use rustix::fs::{AtFlags, StatxFlags, statx};

const BLKGETSIZE64: libc::Ioctl = 0x8008_1272;
const BLKDISCARD: libc::Ioctl = 0x1277;
const BLKZEROOUT: libc::Ioctl = 0x127f;

/// Bytes of a block device. Errors: `ENOTTY` when it is none.
pub fn size_bytes(device: impl AsFd) -> io::Result<u64> {
    let mut size = 0u64;
    // SAFETY: BLKGETSIZE64 writes one u64 to the address given, which is a live local.
    check(unsafe { libc::ioctl(device.as_fd().as_raw_fd(), BLKGETSIZE64, &raw mut size) })?;
    Ok(size)
}

/// Bytes of the logical sector of a block device. Errors: `ENOTTY` when it is none.
pub fn logical_sector_bytes(device: impl AsFd) -> io::Result<u32> {
    Ok(rustix::fs::ioctl_blksszget(device.as_fd())?)
}

/// Discards a range of a block device: contents become undefined. Blocks; use it in
/// [`crate::Op::Blocking`]. Errors: `EOPNOTSUPP` where the device cannot.
pub fn discard(device: impl AsFd, start: u64, len: u64) -> io::Result<()> {
    range_ioctl(device, BLKDISCARD, start, len)
}

/// Zeroes a range of a block device, by the device itself where it can. Blocks; use it in
/// [`crate::Op::Blocking`].
pub fn zero_out(device: impl AsFd, start: u64, len: u64) -> io::Result<()> {
    range_ioctl(device, BLKZEROOUT, start, len)
}

fn range_ioctl(device: impl AsFd, request: libc::Ioctl, start: u64, len: u64) -> io::Result<()> {
    let range = [start, len];
    // SAFETY: both requests read two u64 from the address given, which is a live local.
    check(unsafe { libc::ioctl(device.as_fd().as_raw_fd(), request, range.as_ptr()) })
}

fn check(done: libc::c_int) -> io::Result<()> {
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Whether reads and writes of this file may say that the page cache is to keep nothing of them
/// (`RWF_DONTCACHE`), found out by a read of its first block. Errors: `EOPNOTSUPP` or `EINVAL`
/// where kernel or file system does not have it.
pub fn try_dontcache(file: impl AsFd) -> io::Result<()> {
    let mut block = [0u8; 4096];
    let piece = libc::iovec {
        iov_base: block.as_mut_ptr().cast(),
        iov_len: block.len(),
    };
    let raw = file.as_fd().as_raw_fd();
    // SAFETY: one vector of a live local that nobody else uses.
    let read = unsafe { libc::preadv2(raw, &raw const piece, 1, 0, libc::RWF_DONTCACHE) };
    check(if read < 0 { -1 } else { 0 })
}

/// What O_DIRECT asks of a file's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectLimits {
    /// Alignment of memory addresses, bytes.
    pub memory_align: u32,
    /// Alignment of offsets and lengths, bytes.
    pub offset_align: u32,
}

/// The limits the kernel reports (statx), `None` when it reports none (before 6.1, or a file
/// system that does not say) or the file cannot do direct I/O at all.
pub fn direct_limits(file: impl AsFd) -> io::Result<Option<DirectLimits>> {
    let found = statx(
        file.as_fd(),
        "",
        AtFlags::EMPTY_PATH,
        StatxFlags::from_bits_retain(0x2000),
    )?;
    let limits = DirectLimits {
        memory_align: found.stx_dio_mem_align,
        offset_align: found.stx_dio_offset_align,
    };
    let known = limits.memory_align > 0 && limits.offset_align > 0;
    Ok(known.then_some(limits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn a_plain_file_is_no_block_device() {
        let file = File::open("/proc/self/exe").unwrap();
        assert!(size_bytes(&file).is_err());
        assert!(logical_sector_bytes(&file).is_err());
        assert!(discard(&file, 0, 4096).is_err());
        assert!(zero_out(&file, 0, 4096).is_err());
    }

    #[test]
    fn direct_limits_are_powers_of_two() {
        let file = File::open("/proc/self/exe").unwrap();
        if let Some(limits) = direct_limits(&file).unwrap() {
            assert!(limits.memory_align.is_power_of_two() && limits.offset_align.is_power_of_two());
        }
    }
}
