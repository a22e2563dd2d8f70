use std::fs;
use std::path::Path;

use engine_core::units::Extent;

use super::write::Writer;
use super::*;

fn head() -> Head {
    Head {
        volume: "vm-store".into(),
        node: "beta".into(),
        kept: "alpha".into(),
        volume_id: 0xaabb,
        size_bytes: 1 << 20,
        created_ms: 1_700_000_000_123,
        branch: 0xcc,
        term: 0x201,
    }
}

/// Granule 2 holds sevens, 5 and 6 zeros.
fn written(folder: &Path) -> PathBuf {
    let mut writer = Writer::create(folder, &head(), 3 * 4096).unwrap();
    writer.put(Extent::new(2, 3), Some(&[7; 4096])).unwrap();
    writer.put(Extent::new(5, 7), None).unwrap();
    writer.commit().unwrap()
}

fn pieces(path: &Path) -> Result<Vec<Piece>, SalvageError> {
    let mut reader = Reader::open(path)?;
    std::iter::from_fn(|| reader.next_piece().transpose()).collect()
}

#[test]
fn what_was_put_in_is_read_again() {
    let place = tempfile::tempdir().unwrap();
    let path = written(place.path());
    assert_eq!(Reader::open(&path).unwrap().head, head());
    let expected = [
        Piece {
            offset: 8192,
            length: 4096,
            bytes: Some(vec![7; 4096]),
        },
        Piece {
            offset: 5 * 4096,
            length: 8192,
            bytes: None,
        },
    ];
    assert_eq!(pieces(&path).unwrap(), expected);
    assert_eq!(path, place.path().join("vm-store-beta-1700000000.salvage"));
    // Another one of the same second gets another name.
    assert_ne!(written(place.path()), path);
    assert_eq!(list(place.path()).unwrap().len(), 2);
}

#[test]
fn what_was_not_committed_leaves_nothing_behind() {
    let place = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(place.path(), &head(), 4096).unwrap();
    writer.put(Extent::new(2, 3), Some(&[7; 4096])).unwrap();
    drop(writer);
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
}

#[test]
fn a_salvage_cut_short_or_with_a_changed_byte_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let path = written(place.path());
    let whole = fs::read(&path).unwrap();
    let torn = place.path().join("torn");
    for length in [0, 8, 4095, 4096, 4100, 4128, 6000, whole.len() - 1] {
        fs::write(&torn, &whole[..length]).unwrap();
        assert!(pieces(&torn).is_err(), "{length} bytes of it");
    }
    for at in [
        0,
        8,
        16,
        81,
        3000,
        4096,
        4104,
        4120,
        4130,
        8200,
        whole.len() - 20,
    ] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&torn, &bytes).unwrap();
        assert!(pieces(&torn).is_err(), "byte {at} was changed");
    }
}

#[test]
fn the_head_is_these_bytes() {
    let bytes = head().encode().unwrap();
    let expected = b"POLLUXSV\x01\0\0\0";
    assert_eq!(&bytes[..12], expected);
    assert_eq!(bytes[16..18], [0xbb, 0xaa]);
    assert_eq!(bytes[32..40], (1u64 << 20).to_le_bytes());
    assert_eq!(bytes[40..48], 1_700_000_000_123u64.to_le_bytes());
    assert_eq!(bytes[48], 0xcc);
    assert_eq!(bytes[64..66], [1, 2]);
    assert_eq!(bytes[72..76], [8, 4, 5, 0]);
    assert_eq!(&bytes[80..97], b"vm-storebetaalpha");
    assert!(bytes[97..].iter().all(|byte| *byte == 0));
}

#[test]
fn no_room_for_all_of_it_is_said_before_anything_is_written() {
    let place = tempfile::tempdir().unwrap();
    let refused = Writer::create(place.path(), &head(), 1 << 60);
    assert_eq!(
        refused.err().map(|e| disk_error(&e)),
        Some(DiskError::NoSpace)
    );
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
}
