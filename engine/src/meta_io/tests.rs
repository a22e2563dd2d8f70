use engine_core::action::META_BLOCK;

use super::*;
use crate::control::{Cache, Checksums, Completion, Polling, Quorum, Reads, Votes, WritePolicy};

const SIZE: u64 = 1 << 20;

fn spec(backing: Backing) -> VolumeSpec {
    VolumeSpec {
        name: "vm-store".into(),
        size_bytes: SIZE,
        backing: Some(backing),
        replicas: vec!["alpha".into(), "beta".into()],
        votes: Votes::default(),
        write_policy: WritePolicy::Written,
        allocation: Allocation::Thin,
        cache: Cache::Direct,
        completion: Completion::Interrupt,
        splitbrain: Default::default(),
        min_copies: 1,
        polling: Polling::Cpu,
        reads: Reads::Local,
        resync_rate: None,
        checksums: Checksums::Off,
        nbd: Vec::new(),
    }
}

fn replica<'a>(dir: &'a Path, spec: &'a VolumeSpec) -> Replica<'a> {
    Replica {
        data_dir: dir,
        node: "beta",
        spec,
    }
}

fn file_spec(dir: &Path) -> VolumeSpec {
    spec(Backing::Path(dir.join("data.img")))
}

#[test]
fn what_was_created_attaches_blank() {
    let dir = tempfile::tempdir().unwrap();
    let spec = file_spec(dir.path());
    let it = replica(dir.path(), &spec);
    assert!(matches!(it.attach(), Err(ReplicaError::NotCreated)));
    it.create(false).unwrap();
    let attached = it.attach().unwrap();
    assert_eq!(attached.loaded.superblock.self_node, NodeIdx(1));
    assert_eq!(attached.loaded.superblock.volume_id, 0);
    assert_eq!(attached.loaded.superblock.boot_id, boot_id());
}

#[test]
fn a_second_create_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let spec = file_spec(dir.path());
    let it = replica(dir.path(), &spec);
    it.create(false).unwrap();
    let before = fs::read(it.meta_path()).unwrap();
    assert!(matches!(it.create(false), Err(ReplicaError::Exists)));
    assert!(matches!(it.create(true), Err(ReplicaError::Exists)));
    assert_eq!(fs::read(it.meta_path()).unwrap(), before);
}

#[test]
fn an_existing_backing_needs_adopt_and_the_exact_size() {
    let dir = tempfile::tempdir().unwrap();
    let spec = file_spec(dir.path());
    let it = replica(dir.path(), &spec);
    let path = dir.path().join("data.img");
    fs::write(&path, vec![7; SIZE as usize + 4096]).unwrap();
    assert!(matches!(
        it.create(false),
        Err(ReplicaError::Store(StoreError::Exists(_)))
    ));
    assert!(matches!(
        it.create(true),
        Err(ReplicaError::Store(StoreError::Size { .. }))
    ));
    fs::write(&path, vec![7; SIZE as usize]).unwrap();
    it.create(true).unwrap();
    assert!(it.attach().is_ok());
    assert!(fs::read(&path).unwrap().iter().all(|b| *b == 7));
}

#[test]
fn adopting_what_does_not_exist_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let spec = file_spec(dir.path());
    let it = replica(dir.path(), &spec);
    assert!(matches!(
        it.create(true),
        Err(ReplicaError::Store(StoreError::Missing(_)))
    ));
}

#[test]
fn a_swapped_backing_is_not_taken_for_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let spec = file_spec(dir.path());
    let it = replica(dir.path(), &spec);
    it.create(false).unwrap();
    let path = dir.path().join("data.img");
    let copy = dir.path().join("copy.img");
    fs::copy(&path, &copy).unwrap();
    fs::rename(&copy, &path).unwrap();
    let refusal = it.attach().unwrap_err();
    let ReplicaError::Load { source, .. } = refusal else {
        panic!("{refusal}")
    };
    assert!(
        matches!(*source, meta::LoadError::Backing { .. }),
        "{source}"
    );
}

#[test]
fn a_replica_attaches_once_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let spec = file_spec(dir.path());
    let it = replica(dir.path(), &spec);
    it.create(false).unwrap();
    let held = it.attach().unwrap();
    assert!(it.attach().unwrap_err().is_in_use());
    drop(held);
    it.attach().unwrap();
}

#[test]
fn an_interrupted_create_counts_as_never_begun() {
    let dir = tempfile::tempdir().unwrap();
    let spec = spec(Backing::Memory);
    let it = replica(dir.path(), &spec);
    fs::create_dir_all(dir.path().join("volumes")).unwrap();
    for len in [0, 100, 4 * META_BLOCK] {
        fs::write(it.meta_path(), vec![0; len]).unwrap();
        assert!(matches!(it.attach(), Err(ReplicaError::NotCreated)));
    }
    it.create(false).unwrap();
    it.attach().unwrap();
}

#[test]
fn foreign_metadata_is_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let spec = spec(Backing::Memory);
    let it = replica(dir.path(), &spec);
    fs::create_dir_all(dir.path().join("volumes")).unwrap();
    fs::write(it.meta_path(), vec![0x41; 3 * META_BLOCK]).unwrap();
    assert!(matches!(it.create(false), Err(ReplicaError::Foreign(_))));
    assert!(matches!(it.attach(), Err(ReplicaError::Foreign(_))));
    assert!(fs::read(it.meta_path()).unwrap().iter().all(|b| *b == 0x41));
}

#[test]
fn a_memory_replica_has_a_new_life_at_every_attach() {
    let dir = tempfile::tempdir().unwrap();
    let spec = spec(Backing::Memory);
    let it = replica(dir.path(), &spec);
    it.create(false).unwrap();
    let first = it.attach().unwrap().loaded.superblock.incarnation;
    let second = it.attach().unwrap().loaded.superblock.incarnation;
    assert_ne!(first, second);
}

#[test]
fn delete_keeps_the_data_unless_told_to_wipe() {
    let dir = tempfile::tempdir().unwrap();
    let spec = file_spec(dir.path());
    let it = replica(dir.path(), &spec);
    it.create(false).unwrap();
    it.delete(false).unwrap();
    assert!(dir.path().join("data.img").exists() && !it.meta_path().exists());
    assert!(matches!(it.delete(false), Err(ReplicaError::NotCreated)));
    it.create(true).unwrap();
    it.delete(true).unwrap();
    assert!(!dir.path().join("data.img").exists());
}

#[test]
fn the_digest_covers_what_replicas_must_agree_on_and_nothing_local() {
    let base = spec(Backing::Memory);
    let mut other = base.clone();
    other.backing = Some(Backing::Path("/x".into()));
    other.polling = Polling::Latency;
    other.reads = Reads::Balanced;
    assert_eq!(config_digest(&base), config_digest(&other));
    other.min_copies = 2;
    assert_ne!(config_digest(&base), config_digest(&other));
}

#[test]
fn a_witness_has_metadata_only_and_keeps_it() {
    let dir = tempfile::tempdir().unwrap();
    let spec = VolumeSpec {
        backing: None,
        replicas: vec!["alpha".into(), "gamma".into()],
        votes: Votes {
            quorum: Quorum::Majority,
            witnesses: vec!["beta".into()],
            ..Votes::default()
        },
        ..file_spec(dir.path())
    };
    let it = replica(dir.path(), &spec);
    assert!(matches!(it.attach(), Err(ReplicaError::NotCreated)));
    assert!(matches!(it.create(true), Err(ReplicaError::NoBacking)));
    it.create(false).unwrap();
    assert!(matches!(it.create(false), Err(ReplicaError::Exists)));
    let life = |attached: Attached| {
        assert_eq!(attached.loaded.superblock.self_node, NodeIdx(2));
        assert!(attached.loaded.bitmaps.is_empty());
        attached.loaded.superblock.incarnation
    };
    let first = life(it.attach().unwrap());
    assert_eq!(
        life(it.attach().unwrap()),
        first,
        "a restart is no new life"
    );
    it.delete(true).unwrap();
    assert!(matches!(it.attach(), Err(ReplicaError::NotCreated)));
}

#[test]
fn what_a_majority_needs_is_part_of_the_digest_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let off = file_spec(dir.path());
    let with = |change: fn(&mut Votes)| {
        let mut spec = off.clone();
        change(&mut spec.votes);
        config_digest(&spec)
    };
    let all = [
        config_digest(&off),
        with(|v| v.quorum = Quorum::Majority),
        with(|v| (v.quorum, v.lease) = (Quorum::Majority, v.lease * 2)),
        with(|v| (v.quorum, v.witnesses) = (Quorum::Majority, vec!["gamma".into()])),
    ];
    for (index, one) in all.iter().enumerate() {
        assert!(!all[..index].contains(one), "{index}");
    }
    let unused = with(|v| v.lease *= 2);
    assert_eq!(unused, all[0], "a lease means nothing without votes");
    let by_hand = with(|v| (v.quorum, v.auto_promote) = (Quorum::Majority, false));
    assert_eq!(by_hand, all[1], "each node decides about itself");
}
