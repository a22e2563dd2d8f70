//! NVMe commands as io_uring carries them past the block layer, byte by byte.
//!
//! ```text
//!  ReadAt / WriteAt ──────────► Read 02h / Write 01h      one command, at most `transfer_max` bytes
//!  DataSync ──────────────────► Flush 00h
//!  Fallocate(ZeroRange) ──────► Write Zeroes 08h ...      one after the other, `zeroes_max` each
//!  Fallocate(PunchHole) ──────► Write Zeroes ..., then Dataset Management 09h (deallocate)
//! ```
//! Source: NVM Express Base 2.0 and NVM Command Set 1.0; `struct nvme_uring_cmd` of
//! `linux/nvme_ioctl.h`. A deallocation alone is a hint that a controller may ignore; so what has
//! to read as zeroes is zeroed first, and deallocated only where that keeps it zero.
//!
//! Not here: rings, memory, retries.

use crate::op::Errno;

/// `_IOWR('N', 0x80, struct nvme_uring_cmd)`.
pub(crate) const URING_CMD_IO: u32 = 0xc048_4e80;

/// A namespace, and what its controller can do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Its identifier.
    pub id: u32,
    /// Bytes of a logical block: 1 << this.
    pub block_shift: u8,
    /// Bytes one read or write moves at most: a multiple of 4096.
    pub transfer_max: u32,
    /// Bytes one Write Zeroes covers at most; 0: there is no such command.
    pub zeroes_max: u64,
    /// Deallocated blocks read as zeroes, and there is a command to deallocate them.
    pub deallocates: bool,
}

/// One command of a submission queue: opcode, namespace, data, command dwords 10 to 12.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    opcode: u8,
    nsid: u32,
    addr: u64,
    len: u32,
    dwords: [u32; 3],
}

/// Dword 12 of a write: on stable storage before the completion.
const FUA: u32 = 1 << 30;
/// Dword 11 of Dataset Management.
const DEALLOCATE: u32 = 1 << 2;

impl Command {
    /// Reads `len` bytes from byte `at` to the address.
    pub(crate) fn read(of: Namespace, addr: u64, len: u32, at: u64) -> Command {
        Command::transfer(0x02, of, addr, len, at, 0)
    }

    /// Writes `len` bytes.
    pub(crate) fn write(of: Namespace, addr: u64, len: u32, at: u64, durable: bool) -> Command {
        Command::transfer(0x01, of, addr, len, at, if durable { FUA } else { 0 })
    }

    fn transfer(opcode: u8, of: Namespace, addr: u64, len: u32, at: u64, flags: u32) -> Command {
        let dwords = of.blocks(at, u64::from(len), flags);
        Command {
            opcode,
            nsid: of.id,
            addr,
            len,
            dwords,
        }
    }

    /// Everything that was written is on stable storage.
    pub(crate) fn flush(of: Namespace) -> Command {
        Command {
            opcode: 0x00,
            nsid: of.id,
            addr: 0,
            len: 0,
            dwords: [0; 3],
        }
    }

    /// Zeroes `len` bytes, at most `zeroes_max`.
    pub(crate) fn write_zeroes(of: Namespace, at: u64, len: u64) -> Command {
        Command {
            opcode: 0x08,
            nsid: of.id,
            addr: 0,
            len: 0,
            dwords: of.blocks(at, len, 0),
        }
    }

    /// Deallocates one [`range`], which lies at the address.
    pub(crate) fn deallocate(of: Namespace, addr: u64) -> Command {
        Command {
            opcode: 0x09,
            nsid: of.id,
            addr,
            len: size_of::<Range>() as u32,
            // So many ranges less one.
            dwords: [0, DEALLOCATE, 0],
        }
    }

    /// `struct nvme_uring_cmd`, 72 bytes of the 80 an SQE has, in this machine's byte order:
    ///
    /// `0: opcode 1 | 1: flags 1 | 4: nsid | 24: addr 8 | 36: data_len | 40: cdw10 to cdw15 | 64: timeout_ms`
    pub(crate) fn encode(&self) -> [u8; 80] {
        let mut bytes = [0; 80];
        bytes[0] = self.opcode;
        bytes[4..8].copy_from_slice(&self.nsid.to_ne_bytes());
        bytes[24..32].copy_from_slice(&self.addr.to_ne_bytes());
        bytes[36..40].copy_from_slice(&self.len.to_ne_bytes());
        for (dword, into) in self.dwords.iter().zip(bytes[40..].chunks_exact_mut(4)) {
            into.copy_from_slice(&dword.to_ne_bytes());
        }
        bytes
    }
}

impl Namespace {
    /// Dwords 10 to 12: first block, blocks less one, flags.
    fn blocks(self, at: u64, len: u64, flags: u32) -> [u32; 3] {
        let (first, count) = (at >> self.block_shift, len >> self.block_shift);
        assert!(
            self.is_aligned(at, len) && (1..=1 << 16).contains(&count),
            "{len} bytes at {at} are no run of 1 to 65536 blocks"
        );
        [
            first as u32,
            (first >> 32) as u32,
            (count - 1) as u32 | flags,
        ]
    }

    /// Whether this is a run of whole blocks.
    pub(crate) fn is_aligned(self, at: u64, len: u64) -> bool {
        (at | len) & ((1 << self.block_shift) - 1) == 0
    }

    /// Bytes of the largest Write Zeroes: its count of blocks has 16 bits.
    pub(crate) fn zeroes_max(self) -> u64 {
        let aligned = self.zeroes_max >> self.block_shift << self.block_shift;
        aligned.min(1 << (16 + self.block_shift))
    }

    /// Bytes one deallocation covers at most: its count of blocks has 32 bits.
    pub(crate) fn deallocate_max(self) -> u64 {
        u64::from(u32::MAX) << self.block_shift
    }
}

/// One range of a Dataset Management command, as it lies in memory.
#[derive(Debug)]
#[repr(C, align(16))]
pub(crate) struct Range(pub(crate) [u8; 16]);

/// `0: attributes 4 | 4: blocks 4 | 8: first block 8`, little-endian.
pub(crate) fn range(of: Namespace, at: u64, len: u64) -> Range {
    let mut bytes = [0; 16];
    let blocks = u32::try_from(len >> of.block_shift).expect("at most `deallocate_max` bytes");
    bytes[4..8].copy_from_slice(&blocks.to_le_bytes());
    bytes[8..].copy_from_slice(&(at >> of.block_shift).to_le_bytes());
    Range(bytes)
}

/// What a command's end says: negative is a kernel error, positive a status of the controller
/// (type in bits 8 to 10, code below).
pub(crate) fn outcome(result: i32) -> Result<(), Errno> {
    match result {
        0 => Ok(()),
        result if result < 0 => Err(Errno(-result)),
        status => Err(match status & 0x7ff {
            // Invalid Opcode.
            0x01 => Errno::OPNOTSUPP,
            // Invalid Field in Command.
            0x02 => Errno::INVAL,
            // Capacity Exceeded.
            0x81 => Errno::NOSPC,
            _ => Errno::IO,
        }),
    }
}

/// What Identify Namespace tells (CNS 00h, 4096 bytes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Logical blocks.
    pub blocks: u64,
    /// Bytes of a logical block: 1 << this.
    pub block_shift: u8,
    /// Bytes of metadata beside each logical block.
    pub metadata_bytes: u16,
    /// Deallocated blocks read as zeroes.
    pub zeroes_deallocated: bool,
}

impl Identity {
    /// `0: NSZE 8 | 26: FLBAS 1 | 33: DLFEAT 1 | 128: 16 or 64 LBA formats of 4`; a format is
    /// `0: MS 2 | 2: LBADS 1 | 3: RP`. The format's index is bits 0 to 3, and 5 and 6, of FLBAS.
    pub fn parse(bytes: &[u8; 4096]) -> Identity {
        let blocks = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
        let chosen = usize::from(bytes[26] & 0xf | bytes[26] >> 1 & 0x30);
        let format = &bytes[128 + 4 * chosen..][..4];
        Identity {
            blocks,
            block_shift: format[2],
            metadata_bytes: u16::from_le_bytes([format[0], format[1]]),
            zeroes_deallocated: bytes[33] & 7 == 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF: Namespace = Namespace {
        id: 1,
        block_shift: 9,
        transfer_max: 128 << 10,
        zeroes_max: u64::MAX,
        deallocates: true,
    };

    /// The bytes of a command that are not zero, by their place.
    fn set(command: Command) -> Vec<(usize, u8)> {
        let bytes = command.encode();
        (0..80).zip(bytes).filter(|(_, byte)| *byte != 0).collect()
    }

    #[test]
    fn a_read_is_these_bytes() {
        let read = Command::read(OF, 0x1122_3344_5566_7000, 4096, 0x1_2345_6789 << 9);
        let expected = [
            (0, 0x02),
            (4, 1),
            (25, 0x70),
            (26, 0x66),
            (27, 0x55),
            (28, 0x44),
            (29, 0x33),
            (30, 0x22),
            (31, 0x11),
            (37, 0x10),
            (40, 0x89),
            (41, 0x67),
            (42, 0x45),
            (43, 0x23),
            (44, 0x01),
            (48, 7),
        ];
        assert_eq!(set(read), expected);
    }

    #[test]
    fn a_durable_write_sets_force_unit_access() {
        let of = Namespace {
            id: 0x0201,
            block_shift: 12,
            ..OF
        };
        let plain = Command::write(of, 0x1000, 8192, 4096, false);
        let expected = [
            (0, 0x01),
            (4, 0x01),
            (5, 0x02),
            (25, 0x10),
            (37, 0x20),
            (40, 1),
            (48, 1),
        ];
        assert_eq!(set(plain), expected);
        let durable = Command::write(of, 0x1000, 8192, 4096, true);
        assert_eq!(set(durable)[7], (51, 0x40));
    }

    #[test]
    fn a_flush_names_its_namespace_only() {
        assert_eq!(set(Command::flush(OF)), [(4, 1)]);
    }

    #[test]
    fn zeroes_count_blocks_from_nought() {
        let zeroes = Command::write_zeroes(OF, 1 << 20, 32 << 20);
        let expected = [(0, 0x08), (4, 1), (41, 0x08), (48, 0xff), (49, 0xff)];
        assert_eq!(set(zeroes), expected);
        assert_eq!(OF.zeroes_max(), 32 << 20);
        let small = Namespace {
            zeroes_max: 100_000,
            ..OF
        };
        assert_eq!(small.zeroes_max(), 99_840);
    }

    #[test]
    fn a_deallocation_is_one_range() {
        let command = Command::deallocate(OF, 0x2000);
        assert_eq!(
            set(command),
            [(0, 0x09), (4, 1), (25, 0x20), (36, 16), (44, 4)]
        );
        let expected = *b"\0\0\0\0\x08\0\0\0\x02\0\0\0\0\0\0\0";
        assert_eq!(range(OF, 1024, 4096).0, expected);
    }

    #[test]
    fn a_status_becomes_the_error_that_tells_what_to_do() {
        assert_eq!(outcome(0), Ok(()));
        assert_eq!(outcome(-libc::EIO), Err(Errno::IO));
        // The bit that says "do not retry" is none of the status.
        assert_eq!(outcome(0x4001), Err(Errno::OPNOTSUPP));
        assert_eq!(outcome(0x02), Err(Errno::INVAL));
        assert_eq!(outcome(0x81), Err(Errno::NOSPC));
        // Unrecovered read error: type 2.
        assert_eq!(outcome(0x281), Err(Errno::IO));
    }

    #[test]
    fn an_identity_tells_blocks_and_what_deallocated_ones_read_as() {
        let mut bytes = [0; 4096];
        bytes[..8].copy_from_slice(&0x2_0000u64.to_le_bytes());
        bytes[26] = 0x01;
        bytes[33] = 0x09;
        bytes[132..136].copy_from_slice(&[8, 0, 12, 0]);
        let found = Identity::parse(&bytes);
        let expected = Identity {
            blocks: 0x2_0000,
            block_shift: 12,
            metadata_bytes: 8,
            zeroes_deallocated: true,
        };
        assert_eq!(found, expected);
        // Index 17: bits 5 and 6 of FLBAS are its upper half.
        bytes[26] = 0x21;
        assert_eq!(Identity::parse(&bytes).block_shift, 0);
    }

    #[test]
    #[should_panic(expected = "no run")]
    fn half_a_block_is_a_bug() {
        Command::read(OF, 0, 256, 0);
    }
}
