use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use nbd_proto::NbdUri;

use super::disk::{BLOCK, read, write};
use super::replies::Replies;
use super::*;
use crate::load::{self, Plan};
use crate::workload::Point;

/// A server in a thread of its own, which ends with the test's process.
fn start(directory: &Path, file: Option<PathBuf>) -> NbdUri {
    let socket = directory.join("s");
    let baseline = Baseline {
        size: 8 << 20,
        file,
        socket: Some(socket.clone()),
        port: None,
    };
    std::thread::spawn(move || run(&baseline).unwrap());
    let uri: NbdUri = format!("nbd+unix:///?socket={}", socket.display())
        .parse()
        .unwrap();
    for _ in 0..200 {
        if load::size_of(&uri).is_ok() {
            return uri;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("no answer in two seconds");
}

fn prove(uri: &NbdUri) {
    for point in ["read:4k:64:2", "read:1m:4", "read:512:16"] {
        let plan = Plan {
            uri: uri.clone(),
            load: point.parse::<Point>().unwrap().into(),
            rate: None,
            size: Some(1 << 20),
            seed: 7,
            cpu: None,
            server: None,
            helpers: Vec::new(),
        };
        let verified = load::verify(&plan).unwrap();
        assert_eq!(verified.bytes, 1 << 20, "{point}");
    }
}

#[test]
fn memory_gives_back_what_was_written() {
    let directory = tempfile::tempdir().unwrap();
    prove(&start(directory.path(), None));
}

#[test]
fn a_file_gives_back_what_was_written() {
    // Not in /tmp, which may be a tmpfs without O_DIRECT.
    let directory = tempfile::tempdir_in(".").unwrap();
    let image = directory.path().join("image");
    std::fs::File::create(&image)
        .unwrap()
        .set_len(8 << 20)
        .unwrap();
    prove(&start(directory.path(), Some(image)));
}

/// What a read of these bytes would send.
fn sent(blocks: &[Bytes], offset: usize, length: usize) -> Vec<u8> {
    let mut replies = Replies::default();
    read(blocks, offset as u64, length, &mut replies);
    replies.take().concat()
}

#[test]
fn parts_of_blocks_are_read_and_written() {
    let mut blocks = vec![Bytes::from_static(&[0; BLOCK]); 8];
    let data: Vec<u8> = (0..BLOCK as u32 * 5).map(|n| n as u8 | 1).collect();
    write(&mut blocks, 100, &data);
    let whole = sent(&blocks, 0, 8 * BLOCK);
    assert!(whole[..100].iter().all(|byte| *byte == 0));
    assert_eq!(&whole[100..100 + data.len()], data);
    assert!(whole[100 + data.len()..].iter().all(|byte| *byte == 0));
    // Copied and shared reads say the same.
    for (offset, length) in [
        (100, 512),
        (4000, 300),
        (50, 5000),
        (0, 20_000),
        (4095, 20_002),
    ] {
        assert_eq!(
            sent(&blocks, offset, length),
            whole[offset..offset + length],
            "{offset}"
        );
    }
}

#[test]
fn a_reply_on_its_way_keeps_what_was_read() {
    let mut blocks = vec![Bytes::from(vec![1; BLOCK]); 4];
    let mut replies = Replies::default();
    read(&blocks, 0, 4 * BLOCK, &mut replies);
    write(&mut blocks, 0, &[2; 4 * BLOCK]);
    assert!(replies.take().concat().iter().all(|byte| *byte == 1));
    assert!(sent(&blocks, 0, 4 * BLOCK).iter().all(|byte| *byte == 2));
}

#[test]
fn headers_share_a_segment_until_data_come_between() {
    let mut replies = Replies::default();
    replies.push(1, 0);
    replies.push(2, 22);
    replies.push_data(Bytes::from_static(b"data"));
    replies.push(3, 0);
    let all = replies.take();
    let lengths: Vec<usize> = all.iter().map(Bytes::len).collect();
    assert_eq!(lengths, [32, 4, 16]);
    assert_eq!(all[0][..4], [0x67, 0x44, 0x66, 0x98]);
    assert_eq!(
        all[0][16..],
        *b"\x67\x44\x66\x98\0\0\0\x16\0\0\0\0\0\0\0\x02"
    );
    assert!(replies.take().is_empty());
}
