//! Laws of file operations.

use engine_ring::sys::block::try_dontcache;
use engine_ring::{Access, Errno, FallocateMode, Op, Wait};

use super::bed::{Bed, Kind};

pub fn what_was_written_is_read(bed: &mut Bed) {
    let file = bed.file(&[]);
    let bytes: Vec<u8> = (0..10_000u32).map(|i| (i % 251) as u8).collect();
    let buf = bed.buf_of(&bytes);
    let write = Op::WriteAt {
        file,
        buf: buf.slice(0, 10_000),
        at: 4096,
        durable: false,
    };
    assert_eq!(bed.run(write), Ok(10_000));
    assert_eq!(bed.read(file, 4096, 10_000), bytes);
    assert_eq!(bed.read(file, 0, 4096), vec![0; 4096], "the gap");
}

pub fn what_the_cache_forgets_is_read_as_it_was_written(bed: &mut Bed) {
    let real = tempfile::tempfile().unwrap();
    real.set_len(8192).unwrap();
    if let Err(why) = try_dontcache(&real) {
        return eprintln!("skipped: no RWF_DONTCACHE for temporary files here: {why}");
    }
    let file = bed.file_as(real, Access::DontCache).unwrap();
    for (durable, byte) in [(false, 1), (true, 2)] {
        let buf = bed.buf_of(&[byte; 4096]);
        let write = Op::WriteAt {
            file,
            buf: buf.slice(0, 4096),
            at: 4096,
            durable,
        };
        assert_eq!(bed.run(write), Ok(4096));
        assert_eq!(bed.read(file, 4096, 4096), [byte; 4096]);
    }
}

pub fn a_durable_write_is_a_write(bed: &mut Bed) {
    let file = bed.file(&[1; 4096]);
    let buf = bed.buf_of(&[2; 512]);
    let write = Op::WriteAt {
        file,
        buf: buf.slice(0, 512),
        at: 512,
        durable: true,
    };
    assert_eq!(bed.run(write), Ok(512));
    let bytes = bed.read(file, 0, 2048);
    assert!(bytes[..512].iter().all(|b| *b == 1) && bytes[512..1024].iter().all(|b| *b == 2));
    assert!(bytes[1024..].iter().all(|b| *b == 1));
}

pub fn a_read_at_the_end_is_short(bed: &mut Bed) {
    let file = bed.file(&[5; 1000]);
    assert_eq!(bed.read(file, 900, 4096), vec![5; 100]);
}

pub fn a_read_past_the_end_is_empty(bed: &mut Bed) {
    let file = bed.file(&[5; 1000]);
    assert_eq!(bed.read(file, 1000, 4096), []);
    assert_eq!(bed.read(file, 1 << 40, 4096), []);
}

pub fn a_flush_completes(bed: &mut Bed) {
    let file = bed.file(&[5; 1000]);
    assert_eq!(bed.run(Op::DataSync { file }), Ok(0));
}

/// A file system that cannot do it has nothing to conform to.
fn unless_unsupported(result: Result<u32, Errno>) -> bool {
    match result {
        Err(Errno::OPNOTSUPP) => false,
        result => {
            assert_eq!(result, Ok(0));
            true
        }
    }
}

pub fn a_punched_hole_reads_as_zeroes(bed: &mut Bed) {
    let file = bed.file(&[5; 16_384]);
    let punch = Op::Fallocate {
        file,
        mode: FallocateMode::PunchHole,
        at: 4096,
        len: 8192,
    };
    let result = bed.run(punch);
    if unless_unsupported(result) {
        let bytes = bed.read(file, 0, 32_768);
        assert_eq!(bytes.len(), 16_384, "the size stays");
        assert!(bytes[4096..12_288].iter().all(|b| *b == 0));
        assert_eq!(bytes.iter().filter(|b| **b == 5).count(), 8192);
    }
}

pub fn a_zeroed_range_reads_as_zeroes(bed: &mut Bed) {
    for (mode, size) in [
        (FallocateMode::ZeroRange, 8192),
        (FallocateMode::ZeroRangeKeepSize, 6000),
    ] {
        let file = bed.file(&[5; 6000]);
        let result = bed.run(Op::Fallocate {
            file,
            mode,
            at: 4096,
            len: 4096,
        });
        if unless_unsupported(result) {
            let bytes = bed.read(file, 0, 32_768);
            assert_eq!(bytes.len(), size, "{mode:?}");
            assert_eq!(bytes.iter().filter(|b| **b == 5).count(), 4096);
        }
    }
}

pub fn allocation_extends_the_file(bed: &mut Bed) {
    let file = bed.file(&[5; 10]);
    let grow = Op::Fallocate {
        file,
        mode: FallocateMode::Allocate,
        at: 0,
        len: 100_000,
    };
    let result = bed.run(grow);
    if unless_unsupported(result) {
        let bytes = bed.read(file, 0, 131_072);
        assert_eq!((bytes.len(), bytes[9], bytes[10]), (100_000, 5, 0));
    }
}

pub fn many_operations_pass_through_a_small_ring(bed: &mut Bed) {
    const COUNT: u64 = 10_000;
    let file = bed.file(&[]);
    let mut buffers = Vec::new();
    for number in 0..1000u64 {
        buffers.push(bed.buf_of(&number.to_le_bytes()));
    }
    for token in 0..COUNT {
        let buf = buffers[(token % 1000) as usize].slice(0, 8);
        bed.push(
            token,
            Op::WriteAt {
                file,
                buf,
                at: token * 8,
                durable: false,
            },
        );
    }
    assert_eq!(bed.ring().in_flight(), COUNT as usize);
    let mut seen = vec![false; COUNT as usize];
    let deadline = bed.now() + 60_000_000_000;
    while bed.ring().in_flight() > 0 {
        assert!(bed.now() < deadline);
        bed.turn(Wait::Until(deadline));
        for completion in std::mem::take(&mut bed.done) {
            assert_eq!(completion.result, Ok(8));
            assert!(
                !std::mem::replace(&mut seen[completion.token as usize], true),
                "twice"
            );
        }
    }
    assert!(seen.iter().all(|seen| *seen));
    let bytes = bed.read(file, 0, COUNT as u32 * 8);
    for (number, stored) in bytes.chunks(8).enumerate() {
        assert_eq!(stored, (number as u64 % 1000).to_le_bytes());
    }
    for buf in buffers {
        assert_eq!(bed.arena.references(buf), 1);
    }
}

pub fn an_operation_on_a_closed_file_fails(bed: &mut Bed) {
    let file = bed.file(&[5; 1000]);
    assert_eq!(bed.run(Op::Close { file }), Ok(0));
    let buf = bed.buf(4096);
    let read = Op::ReadAt {
        file,
        buf: buf.slice(0, 100),
        at: 0,
    };
    assert_eq!(bed.run(read), Err(Errno::BADF));
    assert_eq!(bed.run(Op::Close { file }), Err(Errno::BADF));
    assert_eq!(bed.arena.references(buf), 1, "nothing was taken");
}

pub fn an_operation_on_a_stale_id_never_reaches_the_new_file(bed: &mut Bed) {
    let old = bed.file(&[1; 100]);
    assert_eq!(bed.run(Op::Close { file: old }), Ok(0));
    let new = bed.file(&[2; 100]);
    assert_ne!(old, new);
    let buf = bed.buf_of(&[3; 100]);
    let write = Op::WriteAt {
        file: old,
        buf: buf.slice(0, 100),
        at: 0,
        durable: false,
    };
    assert_eq!(bed.run(write), Err(Errno::BADF));
    assert_eq!(bed.read(new, 0, 100), vec![2; 100]);
}

pub fn a_read_of_a_socket_by_offset_fails(bed: &mut Bed) {
    let (left, right) = bed.pair();
    let buf = bed.buf(4096);
    if bed.kind == Kind::IoUring {
        // io_uring takes it for a receive, so give it an end of stream.
        assert_eq!(bed.run(Op::Close { file: right }), Ok(0));
        assert_eq!(
            bed.run(Op::ReadAt {
                file: left,
                buf: buf.slice(0, 10),
                at: 0
            }),
            Ok(0)
        );
    } else {
        let read = Op::ReadAt {
            file: left,
            buf: buf.slice(0, 10),
            at: 0,
        };
        assert_eq!(bed.run(read), Err(Errno(libc::ESPIPE)));
    }
    assert_eq!(bed.arena.references(buf), 1);
}
