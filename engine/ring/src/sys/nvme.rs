//! What an NVMe namespace tells of itself, asked through its generic character device.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use crate::nvme::Identity;

/// `_IO('N', 0x40)`.
const NVME_IOCTL_ID: libc::Ioctl = 0x4e40;
/// `_IOWR('N', 0x41, struct nvme_passthru_cmd)`.
const NVME_IOCTL_ADMIN_CMD: libc::Ioctl = 0xc048_4e41;
const IDENTIFY: u8 = 0x06;

/// `struct nvme_passthru_cmd` of `linux/nvme_ioctl.h`.
#[repr(C)]
#[derive(Default)]
struct Passthrough {
    opcode: u8,
    flags: u8,
    reserved: u16,
    nsid: u32,
    cdw2: u32,
    cdw3: u32,
    metadata: u64,
    addr: u64,
    metadata_len: u32,
    data_len: u32,
    cdw10_to_15: [u32; 6],
    timeout_ms: u32,
    result: u32,
}

const _: () = assert!(size_of::<Passthrough>() == 72);

#[repr(align(4096))]
struct Page([u8; 4096]);

/// The identifier of the namespace. Errors: `ENOTTY` when the file leads to none.
pub fn namespace_id(device: impl AsFd) -> io::Result<u32> {
    // SAFETY: no memory is involved.
    let id = unsafe { libc::ioctl(device.as_fd().as_raw_fd(), NVME_IOCTL_ID) };
    u32::try_from(id).map_err(|_| io::Error::last_os_error())
}

/// Identify Namespace. Blocks. Errors: refused by the system or by the controller.
pub fn identify(device: impl AsFd, namespace: u32) -> io::Result<Identity> {
    let mut page = Box::new(Page([0; 4096]));
    let mut command = Passthrough {
        opcode: IDENTIFY,
        nsid: namespace,
        addr: page.0.as_mut_ptr() as u64,
        data_len: page.0.len() as u32,
        ..Passthrough::default()
    };
    let raw = device.as_fd().as_raw_fd();
    // SAFETY: the command and the page it names are ours alone and live through the call; the
    // kernel writes at most `data_len` bytes to the page.
    match unsafe { libc::ioctl(raw, NVME_IOCTL_ADMIN_CMD, &raw mut command) } {
        0 => Ok(Identity::parse(&page.0)),
        status if status > 0 => Err(io::Error::other(format!(
            "the controller refused Identify with status {status:#x}"
        ))),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_file_is_no_namespace() {
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        assert!(namespace_id(&file).is_err());
        assert!(identify(&file, 1).is_err());
    }
}
