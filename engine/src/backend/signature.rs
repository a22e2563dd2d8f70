//! Whose data lies on a disk: magic bytes of what people keep on disks.

/// Bytes from the start of a disk that [`find`] looks at.
pub(crate) const LOOK_BYTES: usize = 70 << 10;

/// (offset, magic, name). The first match names the disk's content.
const MAGICS: &[(usize, &[u8], &str)] = &[
    (0x438, b"\x53\xef", "an ext2, ext3 or ext4 file system"),
    (0, b"XFSB", "an XFS file system"),
    (0x10040, b"_BHRfS_M", "a btrfs file system"),
    (0x218, b"LVM2 001", "an LVM physical volume"),
    (0x18, b"LVM2 001", "an LVM physical volume"),
    (0, b"LUKS\xba\xbe", "a LUKS encrypted disk"),
    (4086, b"SWAPSPACE2", "swap space"),
    (4086, b"SWAP-SPACE", "swap space"),
    (512, b"EFI PART", "a GPT partition table"),
    (4096, b"EFI PART", "a GPT partition table"),
    (3, b"NTFS    ", "an NTFS file system"),
    (0, b"hsqs", "a squashfs file system"),
    (0, b"QFI\xfb", "a qcow2 image"),
    (32769, b"CD001", "an ISO 9660 image"),
    // Last: nearly everything bootable ends its first sector with this.
    (510, b"\x55\xaa", "an MBR partition table or boot sector"),
];

/// What the first [`LOOK_BYTES`] of a disk say it holds; fewer bytes are fine.
pub(crate) fn find(head: &[u8]) -> Option<&'static str> {
    let is_here = |(at, magic, _): &&(usize, &[u8], &str)| {
        head.get(*at..).is_some_and(|rest| rest.starts_with(magic))
    };
    MAGICS.iter().find(is_here).map(|(_, _, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_magic_lies_inside_what_is_looked_at() {
        for (at, magic, name) in MAGICS {
            assert!(at + magic.len() <= LOOK_BYTES, "{name}");
            let mut head = vec![0; LOOK_BYTES];
            head[*at..at + magic.len()].copy_from_slice(magic);
            assert_eq!(find(&head), Some(*name));
        }
    }

    #[test]
    fn zeros_and_short_heads_hold_nothing() {
        assert_eq!(find(&[0; LOOK_BYTES]), None);
        assert_eq!(find(&[]), None);
        assert_eq!(find(&[0x55]), None);
    }
}
