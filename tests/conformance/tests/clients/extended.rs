//! What no client of current distributions asks: extended headers, filters, several contexts,
//! sparse reads chunk by chunk. Compared with what nbdinfo and qemu-img say where they can.

use conformance::{Session, tools};
use nbd_proto::{
    CommandFlags as F, CommandKind as K, ExportName, ReplyStyle, TransmissionFlags as T, Wish,
};

use crate::stage::{MEBIBYTES, Stage, client_ok, map};

const SIZE: u64 = (MEBIBYTES as u64) << 20;
const MIB: u64 = 1 << 20;
const EINVAL: u32 = 22;

fn wish(export: &str) -> Wish {
    Wish::extended(ExportName::new(export).expect("a plain name"))
}

fn open(stage: &Stage, export: &str) -> Session {
    Session::open(&stage.lab.node("solo").nbd_socket(), wish(export))
}

fn structured(stage: &Stage, export: &str) -> Session {
    let wish = Wish::full(ExportName::new(export).expect("a plain name"));
    Session::open(&stage.lab.node("solo").nbd_socket(), wish)
}

/// A pattern without zero bytes.
fn pattern(seed: u64, length: usize) -> Vec<u8> {
    (0..length as u64)
        .map(|at| ((at / 512).wrapping_mul(31).wrapping_add(seed) % 255) as u8 + 1)
        .collect()
}

#[test]
fn extended_headers_reach_the_whole_disk_in_one_request() {
    let stage = Stage::new();
    for export in ["mem", "disk"] {
        let mut session = open(&stage, export);
        assert_eq!(session.agreed.replies, ReplyStyle::Extended);
        let flags = session.agreed.flags;
        assert!(flags.contains(T::SEND_DF.with(T::SEND_CACHE).with(T::BLOCK_STATUS_PAYLOAD)));
        let data = pattern(1, 3 * MIB as usize);
        assert_eq!(session.write(5 * MIB, &data).errno(), 0);
        assert_eq!(session.call(F::NONE, K::READ, 5 * MIB, 3 * MIB).data, data);
        let context = session.context("base:allocation");
        let told = session
            .call(F::NONE, K::BLOCK_STATUS, 0, SIZE)
            .extents(context);
        assert_eq!(
            told,
            [(5 * MIB, 3), (3 * MIB, 0), (SIZE - 8 * MIB, 3)],
            "{export}"
        );
        // The same as a client that asks in compact headers is told.
        if tools::have(&[("nbdinfo", "libnbd-bin")]) {
            let uri = stage.lab.node("solo").unix_uri(export);
            let mapped: Vec<(u64, u64)> = map(&uri).iter().map(|(_, l, k)| (*l, *k)).collect();
            assert_eq!(told, mapped);
        }
        assert_eq!(session.call(F::NONE, K::CACHE, 0, SIZE).errno(), 0);
        let zeroes = session.call(F::NONE, K::WRITE_ZEROES, 0, SIZE);
        assert_eq!(zeroes.errno(), 0);
        let told = session
            .call(F::NONE, K::BLOCK_STATUS, 0, SIZE)
            .extents(context);
        assert_eq!(told, [(SIZE, 3)]);
        session.write(0, &data);
        assert_eq!(session.call(F::FUA, K::TRIM, 0, SIZE).errno(), 0);
        let one = session.call(F::REQ_ONE, K::BLOCK_STATUS, 0, SIZE);
        assert_eq!(one.extents(context), [(SIZE, 3)]);
        let back = session.call(F::NONE, K::READ, 0, 3 * MIB);
        assert!(back.data.iter().all(|byte| *byte == 0));
    }
}

#[test]
fn a_sparse_read_tells_holes_and_carries_data_only() {
    let stage = Stage::new();
    for export in ["mem", "disk"] {
        let data = pattern(2, MIB as usize);
        let mut session = open(&stage, export);
        session.write(2 * MIB, &data);
        session.write(8 * MIB, &data);
        // A file is looked at once, beside the first read; from then on its holes are known.
        let mut told = session.call(F::NONE, K::READ, 0, 12 * MIB);
        for _ in 0..200 {
            if !told.holes.is_empty() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
            told = session.call(F::NONE, K::READ, 0, 12 * MIB);
        }
        assert_eq!(told.chunks, [(2 * MIB, MIB), (8 * MIB, MIB)], "{export}");
        let holes = [(0, 2 * MIB), (3 * MIB, 5 * MIB), (9 * MIB, 3 * MIB)];
        assert_eq!(told.holes, holes, "{export}");
        let whole = session.call(F::DF, K::READ, 0, 12 * MIB);
        assert_eq!(whole.chunks, [(0, 12 * MIB)], "DF is one chunk");
        assert!(whole.data == told.data);
        // Structured replies tell the same; what is written is seen by the next read.
        let mut compact = structured(&stage, export);
        assert_eq!(compact.call(F::NONE, K::READ, 0, 12 * MIB).holes, holes);
        compact.write(5 * MIB, b"here");
        let after = session.call(F::NONE, K::READ, 0, 12 * MIB);
        assert_eq!(&after.data[5 * MIB as usize..][..4], b"here");
        assert!(
            after
                .holes
                .iter()
                .all(|(at, len)| !(*at..at + len).contains(&(5 * MIB)))
        );
        // Small reads are never split.
        let small = session.call(F::NONE, K::READ, 0, 4096);
        assert_eq!(small.chunks, [(0, 4096)]);
        if tools::have(&[("nbdcopy", "libnbd-bin"), ("qemu-img", "qemu-utils")]) {
            let out = stage.lab.path("out.img");
            let uri = stage.lab.node("solo").unix_uri(export);
            client_ok("nbdcopy", &[&uri, crate::stage::word(&out)]);
            let copied = std::fs::read(&out).expect("nbdcopy made it");
            assert!(copied[..after.data.len()] == after.data[..], "{export}");
            client_ok(
                "qemu-img",
                &[
                    "compare",
                    "-f",
                    "raw",
                    "-F",
                    "raw",
                    &uri,
                    crate::stage::word(&out),
                ],
            );
        }
    }
}

#[test]
fn a_filter_chooses_contexts_and_a_wrong_one_is_refused() {
    let stage = Stage::new();
    let mut session = open(&stage, "mem");
    let base = session.context("base:allocation");
    let told = session.filtered_status(0, SIZE, &[base]);
    assert_eq!(told.extents(base), [(SIZE, 3)]);
    for ids in [&[][..], &[base, base], &[base + 77], &[base, base + 77]] {
        let told = session.filtered_status(0, SIZE, ids);
        assert_eq!(told.errno(), EINVAL, "{ids:?}");
    }
    assert_eq!(
        session.filtered_status(0, SIZE + 1, &[base]).errno(),
        EINVAL
    );
    assert_eq!(
        session.filtered_status(0, u64::MAX, &[base]).errno(),
        EINVAL
    );
    // The stream is where it should be.
    assert_eq!(session.call(F::NONE, K::FLUSH, 0, 0).errno(), 0);
}

#[test]
fn every_error_has_its_number_and_words() {
    const ENOSPC: u32 = 28;
    const EPERM: u32 = 1;
    const ENOTSUP: u32 = 95;
    let stage = Stage::new();
    let mut session = open(&stage, "disk");
    let dead_flag = F(1 << 14);
    let expected = [
        (F::NONE, K::READ, SIZE, 1, EINVAL),
        (F::NONE, K::READ, 0, u64::MAX, EINVAL),
        (F::NONE, K::READ, u64::MAX, 2, EINVAL),
        (F::NONE, K::TRIM, 1, SIZE, EINVAL),
        (F::NONE, K::CACHE, 1, SIZE, EINVAL),
        (F::NONE, K::BLOCK_STATUS, 1, SIZE, EINVAL),
        (F::NONE, K::BLOCK_STATUS, 0, 0, EINVAL),
        (F::NONE, K::WRITE_ZEROES, 1, SIZE, ENOSPC),
        (F::NONE, K::WRITE_ZEROES, u64::MAX, u64::MAX, ENOSPC),
        (
            F::NO_HOLE.with(F::FAST_ZERO),
            K::WRITE_ZEROES,
            0,
            MIB,
            ENOTSUP,
        ),
        (F::NONE, K::WRITE, 0, 4096, EINVAL),
        (F::DF, K::TRIM, 0, 4096, EINVAL),
        (F::REQ_ONE, K::READ, 0, 4096, EINVAL),
        (dead_flag, K::CACHE, 0, 4096, EINVAL),
        (dead_flag, K::FLUSH, 0, 0, EINVAL),
        (F::NONE, K::RESIZE, 0, 4096, EINVAL),
        (F::NONE, K(99), 0, 4096, EINVAL),
    ];
    for (flags, kind, offset, length, errno) in expected {
        let told = session.call(flags, kind, offset, length);
        assert_eq!(told.errno(), errno, "{kind:?} {flags:?} {offset} {length}");
        let (_, text, _) = told.error.expect("it failed");
        assert!(!text.is_empty(), "{kind:?} {flags:?}");
    }
    for kind in [K::READ, K::TRIM, K::CACHE, K::WRITE_ZEROES, K::FLUSH, K(99)] {
        session.send(F::PAYLOAD_LEN, kind, 0, 5, b"12345");
        assert_eq!(session.told(0, 5).errno(), EINVAL, "{kind:?} with payload");
    }
    for kind in [K::READ, K::TRIM, K::CACHE, K::WRITE_ZEROES] {
        assert_eq!(
            session.call(F::NONE, kind, 0, 0).errno(),
            0,
            "{kind:?} of nothing"
        );
    }
    assert_eq!(session.write(SIZE - 1, b"two").errno(), ENOSPC);
    assert_eq!(session.write(0, &vec![7; 32 << 20]).errno(), 0);
    session.send(F::PAYLOAD_LEN, K::WRITE, 0, (32 << 20) + 1, &[]);
    assert!(
        session.is_closed(),
        "a payload above the maximum is not waited for"
    );

    let mut read_only = open(&stage, "disk-ro");
    for (flags, kind) in [
        (F::NONE, K::TRIM),
        (F::NONE, K::WRITE_ZEROES),
        (F::NONE, K::WRITE),
    ] {
        assert_eq!(read_only.call(flags, kind, 0, 4096).errno(), EPERM);
    }
    assert_eq!(read_only.write(0, b"no").errno(), EPERM);
    assert_eq!(read_only.call(F::NONE, K::READ, 0, 1).errno(), 0);
}

#[test]
fn cache_is_offered_to_clients_that_know_it() {
    if !tools::have(&[("nbdinfo", "libnbd-bin")]) {
        return;
    }
    let stage = Stage::new();
    let node = stage.lab.node("solo");
    for export in ["mem", "disk", "disk-ro"] {
        client_ok("nbdinfo", &["--can", "cache", &node.unix_uri(export)]);
    }
}

#[test]
fn a_mirrored_volume_tells_what_its_peer_lacks() {
    let volumes = "[volume.pair]\nsize = \"48MiB\"\nbacking = \"memory\"\n\
         replicas = [\"one\", \"two\"]\nnbd = [{ name = \"pair\" }]\n";
    let lab = conformance::Lab::new(&["one", "two"], volumes);
    let one = lab.serve("one");
    let two = lab.serve("two");
    for node in ["one", "two"] {
        lab.done(node, &["volume", "create", "pair"]);
    }
    let patience = std::time::Duration::from_secs(20);
    lab.done("one", &["promote", "pair"]);
    lab.until_serving("one", "pair", patience);
    let mut wish = wish("pair");
    wish.contexts = vec!["x-pollux:replicated".to_owned()];
    let mut session = Session::open(&lab.node("one").nbd_socket(), wish);
    let context = session.context("x-pollux:replicated");
    let mut status = || {
        session
            .call(F::NONE, K::BLOCK_STATUS, 0, SIZE)
            .extents(context)
    };
    conformance::eventually(patience, "the peer has everything", || {
        (status() == [(SIZE, 0)]).then_some(())
    });
    two.kill();
    let data = pattern(3, MIB as usize);
    assert_eq!(session.write(4 * MIB, &data).errno(), 0);
    let mut status = || {
        session
            .call(F::NONE, K::BLOCK_STATUS, 0, SIZE)
            .extents(context)
    };
    conformance::eventually(patience, "the peer lacks what was written", || {
        (status() == [(4 * MIB, 0), (MIB, 1), (SIZE - 5 * MIB, 0)]).then_some(())
    });
    assert_eq!(one.stop(), 0);
}
