//! One node, one replica: what a client of a volume sees, on every kind of store.

mod common;

use std::path::Path;

use common::nodes::*;
use common::{FAILED, NO_SPACE, OK, pattern};
use engine::control::{Allocation, Backing, Cache, Done, Node, RefusalKind, Request, Role, State};

const MIB: u64 = 1 << 20;

fn backings(dir: &Path) -> Vec<Backing> {
    vec![Backing::Memory, Backing::Path(dir.join("data.img"))]
}

#[test]
fn what_is_written_is_read_on_every_store() {
    for (backing, cache) in [
        (0, Cache::Direct),
        (1, Cache::Direct),
        (1, Cache::Buffered),
        (1, Cache::DontCache),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let backing = backings(dir.path()).remove(backing);
        let mut volume = volume("v", 64 * MIB, backing, &["alpha"]);
        volume.cache = cache;
        let spec = node("alpha", dir.path(), vec![volume]);
        let alpha = launch("alpha", spec);
        create(&alpha, "v");
        until("primary", || status(&alpha, "v").role == Role::Primary);
        let mut client = attach(&alpha, "v");
        assert_eq!(client.read(0, 4096), (OK, vec![0; 4096]));
        let mut expected = vec![0; 8 << 20];
        for (seed, offset, len) in [
            (1, 0, 4096),
            (2, 4096, 65536),
            (3, 100_000, 300_000),
            (4, 12_345, 77),
            (5, 4095, 2),
            (6, 1 << 20, 4 << 20),
        ] {
            let bytes = pattern(seed, len);
            assert_eq!(client.write(offset, &bytes), OK);
            expected[offset as usize..offset as usize + len].copy_from_slice(&bytes);
        }
        assert_eq!(client.write_fua(500, b"forced"), OK);
        expected[500..506].copy_from_slice(b"forced");
        assert_eq!(client.flush(), OK);
        assert_eq!(client.zero(20_000, 100_000), OK);
        expected[20_000..120_000].fill(0);
        assert_eq!(client.trim(2 << 20, 1 << 20), OK);
        expected[2 << 20..3 << 20].fill(0);
        let (read, bytes) = client.read(0, 8 << 20);
        assert!(read == OK && bytes == expected);
        assert_eq!(
            client.read(12_000, 500),
            (OK, expected[12_000..12_500].to_vec())
        );
        assert_eq!(client.read(64 * MIB - 4096, 8192).0, FAILED);
        let extents = client.extents(0, 64 * MIB);
        assert_eq!(extents.iter().map(|(len, _)| len).sum::<u64>(), 64 * MIB);
        assert!(extents.last().unwrap().1, "the end was never written");
        drop(client);
        until("no clients", || status(&alpha, "v").clients.is_empty());
        drain(&alpha);
    }
}

#[test]
fn data_and_role_of_a_file_survive_a_restart_and_memory_begins_blank() {
    let dir = tempfile::tempdir().unwrap();
    let file = Backing::Path(dir.path().join("data.img"));
    let volumes = vec![
        volume("file", 8 * MIB, file, &["alpha"]),
        volume("memory", 8 * MIB, Backing::Memory, &["alpha"]),
    ];
    let spec = node("alpha", dir.path(), volumes);
    let bytes = pattern(9, 100_000);
    for round in 0..3 {
        let alpha = launch("alpha", spec.clone());
        for (name, is_kept) in [("file", true), ("memory", false)] {
            if round == 0 {
                assert_eq!(status(&alpha, name).state, State::NotCreated);
                create(&alpha, name);
            }
            until("primary", || status(&alpha, name).role == Role::Primary);
            assert_eq!(status(&alpha, name).state, State::Healthy);
            let mut client = attach(&alpha, name);
            if round > 0 {
                let expected = if is_kept {
                    bytes.clone()
                } else {
                    vec![0; bytes.len()]
                };
                assert!(
                    client.read(777, bytes.len() as u64) == (OK, expected),
                    "{name} {round}"
                );
            }
            assert_eq!(client.write(777, &bytes), OK);
        }
        // The first end is a drain, the second one a crash.
        if round == 0 {
            drain(&alpha);
        }
    }
}

#[test]
fn a_second_create_and_a_wrong_name_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let volumes = vec![volume("v", MIB, Backing::Memory, &["alpha"])];
    let alpha = launch("alpha", node("alpha", dir.path(), volumes));
    let refusal = promote(&alpha, "v").unwrap_err();
    assert_eq!((refusal.kind, refusal.code), (RefusalKind::Failed, "E205"));
    create(&alpha, "v");
    let again = |if_absent| {
        ask(
            &alpha,
            "v",
            Request::Create {
                adopt: false,
                if_absent,
            },
        )
    };
    assert_eq!(again(false).unwrap_err().kind, RefusalKind::Failed);
    assert!(matches!(again(true), Ok(Done::Already(_))));
    let refusal = ask(&alpha, "x", Request::ResyncPause).unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::NotFound);
}

#[test]
fn delete_needs_no_clients_and_keeps_the_backing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data.img");
    let volumes = vec![volume("v", MIB, Backing::Path(path.clone()), &["alpha"])];
    let alpha = launch("alpha", node("alpha", dir.path(), volumes));
    create(&alpha, "v");
    until("primary", || status(&alpha, "v").role == Role::Primary);
    let mut client = attach(&alpha, "v");
    assert_eq!(client.write(0, b"kept"), OK);
    let refusal = ask(&alpha, "v", Request::Delete { wipe: false }).unwrap_err();
    assert!(refusal.text.contains("unix:1"), "{}", refusal.text);
    drop(client);
    until("no clients", || status(&alpha, "v").clients.is_empty());
    ask(&alpha, "v", Request::Delete { wipe: false }).unwrap();
    assert_eq!(status(&alpha, "v").state, State::NotCreated);
    assert_eq!(&std::fs::read(&path).unwrap()[..4], b"kept");
    ask(
        &alpha,
        "v",
        Request::Create {
            adopt: true,
            if_absent: false,
        },
    )
    .unwrap();
    until("primary", || status(&alpha, "v").role == Role::Primary);
    assert_eq!(attach(&alpha, "v").read(0, 4), (OK, b"kept".to_vec()));
}

#[test]
fn a_volume_is_served_as_soon_as_it_is_created() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data.img");
    let volumes = vec![volume("v", MIB, Backing::Path(path), &["alpha"])];
    let alpha = launch("alpha", node("alpha", dir.path(), volumes));
    for _ in 0..20 {
        create(&alpha, "v");
        assert_eq!(status(&alpha, "v").role, Role::Primary);
        ask(&alpha, "v", Request::Delete { wipe: true }).unwrap();
    }
}

#[test]
fn full_allocation_keeps_its_blocks_on_trim() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data.img");
    let mut spec = volume("v", 4 * MIB, Backing::Path(path.clone()), &["alpha"]);
    spec.allocation = Allocation::Full;
    let alpha = launch("alpha", node("alpha", dir.path(), vec![spec]));
    create(&alpha, "v");
    until("primary", || status(&alpha, "v").role == Role::Primary);
    let mut client = attach(&alpha, "v");
    assert_eq!(client.write(0, &pattern(1, 65536)), OK);
    assert_eq!(client.trim(0, 4 * MIB), OK);
    assert_eq!(client.read(0, 65536), (OK, vec![0; 65536]));
    assert!(std::fs::metadata(&path).unwrap().blocks() * 512 >= 4 * MIB);
}

#[test]
fn demote_of_a_volume_with_clients_needs_disconnect() {
    let dir = tempfile::tempdir().unwrap();
    let volumes = vec![volume("v", MIB, Backing::Memory, &["alpha"])];
    let alpha = launch("alpha", node("alpha", dir.path(), volumes));
    create(&alpha, "v");
    until("primary", || status(&alpha, "v").role == Role::Primary);
    let mut client = attach(&alpha, "v");
    assert_eq!(client.write(0, b"x"), OK);
    let refusal = ask(&alpha, "v", Request::Demote { disconnect: false }).unwrap_err();
    assert!(refusal.text.contains("unix:1") && refusal.hint.unwrap().contains("--disconnect"));
    ask(&alpha, "v", Request::Demote { disconnect: true }).unwrap();
    assert_eq!(client.receive(), None);
    assert_eq!(status(&alpha, "v").role, Role::Secondary);
}

#[test]
fn a_data_dir_serves_one_node_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let spec = node("alpha", dir.path(), Vec::new());
    let alpha = launch("alpha", spec.clone());
    assert!(engine::node::start(spec, std::sync::Arc::new(Printed("again"))).is_err());
    assert!(!alpha.io_backend().is_empty());
}

#[test]
fn the_last_copy_answers_errors_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data.img");
    let volumes = vec![volume("v", MIB, Backing::Path(path), &["alpha"])];
    let alpha = launch("alpha", node("alpha", dir.path(), volumes));
    create(&alpha, "v");
    until("primary", || status(&alpha, "v").role == Role::Primary);
    let mut client = attach(&alpha, "v");
    alpha.plant_faults("v: write=enospc#1").unwrap();
    assert_eq!(client.write(0, &pattern(1, 4096)), NO_SPACE);
    assert_eq!(client.write(0, &pattern(1, 4096)), OK, "the replica stays");
    alpha.plant_faults("v: write=short").unwrap();
    assert_eq!(
        client.write(0, &pattern(2, 65536)),
        OK,
        "short transfers are carried on"
    );
    assert!(client.read(0, 65536) == (OK, pattern(2, 65536)));
    alpha.plant_faults("v: write=delay:50").unwrap();
    assert_eq!(client.write(0, &pattern(3, 4096)), OK);
    alpha.plant_faults("v: write=eio@64K..128K").unwrap();
    assert_eq!(client.write(0, &pattern(3, 4096)), OK);
    assert_eq!(client.write(65536, &pattern(3, 4096)), FAILED);
    alpha.plant_faults("").unwrap();
    assert_eq!(
        client.write(0, &pattern(3, 4096)),
        FAILED,
        "failed is final (law F5)"
    );
    assert_eq!(status(&alpha, "v").state, State::Critical);
    assert!(alpha.plant_faults("v: nonsense").is_err());
}

#[test]
fn a_file_system_in_memory_serves_too() {
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else {
        println!("skipped: no /dev/shm here");
        return;
    };
    let path = dir.path().join("data.img");
    let volumes = vec![volume("v", 8 * MIB, Backing::Path(path), &["alpha"])];
    let alpha = launch("alpha", node("alpha", dir.path(), volumes));
    create(&alpha, "v");
    until("primary", || status(&alpha, "v").role == Role::Primary);
    let mut client = attach(&alpha, "v");
    assert_eq!(client.write(5000, &pattern(1, 300_000)), OK);
    assert_eq!(client.trim(65536, 65536), OK);
    assert_eq!(client.flush(), OK);
    let mut expected = pattern(1, 300_000);
    expected[65536 - 5000..131_072 - 5000].fill(0);
    assert!(client.read(5000, 300_000) == (OK, expected));
}

#[test]
fn a_request_of_one_volume_costs_the_reactor_of_another_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let volumes = ["v", "w"].map(|name| volume(name, 8 * MIB, Backing::Memory, &["alpha"]));
    let mut spec = node("alpha", dir.path(), volumes.into());
    spec.reactors = 2;
    let alpha = launch("alpha", spec);
    for name in ["v", "w"] {
        create(&alpha, name);
        until("primary", || status(&alpha, name).role == Role::Primary);
    }
    for (name, own, other) in [("v", 0, 1), ("w", 1, 0)] {
        let mut client = attach(&alpha, name);
        assert_eq!(client.write(0, &[1; 4096]), OK);
        let before = alpha.turns_of_reactors();
        for _ in 0..500 {
            assert_eq!(client.read(0, 4096).0, OK);
        }
        let after = alpha.turns_of_reactors();
        assert!(after[own] - before[own] >= 500, "{before:?} {after:?}");
        // What is left are timers of its own.
        assert!(after[other] - before[other] < 50, "{before:?} {after:?}");
    }
    drain(&alpha);
}
