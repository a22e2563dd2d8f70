//! Two nodes in one process: founding, mirroring, losing the link, resync, equal copies.

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::nodes::*;
use common::{OK, pattern};
use engine::control::{
    Backing, DiskState, Done, LinkState, NodeSpec, Reads, RefusalKind, Repair, Request, Role,
    State, VolumeSpec,
};
use engine::front_end::Service;
use engine::node::NodeHandle;

const MIB: u64 = 1 << 20;
const SIZE: u64 = 32 * MIB;

struct Pair {
    specs: [NodeSpec; 2],
    alpha: Option<Arc<NodeHandle>>,
    beta: Option<Arc<NodeHandle>>,
    cable: Cable,
    _dirs: [tempfile::TempDir; 2],
}

fn specs(dir: &Path, memory: bool) -> VolumeSpec {
    let backing = if memory {
        Backing::Memory
    } else {
        Backing::Path(dir.join("data.img"))
    };
    volume("v", SIZE, backing, &["alpha", "beta"])
}

impl Pair {
    /// Alpha dials beta through a cable; beta probes alpha.
    fn new(memory: bool) -> Pair {
        Pair::reading(memory, Reads::Local)
    }

    fn reading(memory: bool, reads: Reads) -> Pair {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let cable = Cable::new();
        let volumes = |index: usize| {
            let spec = specs(dirs[index].path(), memory);
            vec![VolumeSpec { reads, ..spec }]
        };
        let mut alpha = node("alpha", dirs[0].path(), volumes(0));
        let mut beta = node("beta", dirs[1].path(), volumes(1));
        let probe = Cable::new();
        let through = cable.address.to_string();
        let back = probe.address.to_string();
        drop(probe);
        beta.addresses = vec!["127.0.0.1:0".into()];
        alpha.addresses = vec!["127.0.0.1:0".into()];
        let peers = vec![
            ("alpha".to_owned(), vec![back]),
            ("beta".to_owned(), vec![through]),
        ];
        (alpha.peers, beta.peers) = (peers.clone(), peers);
        let specs = [alpha, beta];
        let mut pair = Pair {
            specs,
            alpha: None,
            beta: None,
            cable,
            _dirs: dirs,
        };
        pair.start_beta();
        pair.start_alpha();
        pair
    }

    fn start_alpha(&mut self) {
        self.alpha = Some(launch("alpha", self.specs[0].clone()));
    }

    fn start_beta(&mut self) {
        let beta = launch("beta", self.specs[1].clone());
        *self.cable.target.lock().unwrap() = beta.replication_address();
        self.beta = Some(beta);
    }

    fn alpha(&self) -> &NodeHandle {
        self.alpha.as_ref().unwrap()
    }

    fn beta(&self) -> &NodeHandle {
        self.beta.as_ref().unwrap()
    }

    fn created(memory: bool) -> Pair {
        Pair::new(memory).found()
    }

    fn found(self) -> Pair {
        let pair = self;
        create(pair.alpha(), "v");
        create(pair.beta(), "v");
        assert_eq!(
            promote(pair.alpha(), "v"),
            Ok(Done::Ok("v is primary on alpha".into())),
            "founding needs both blank replicas"
        );
        pair.until_healthy();
        pair
    }

    fn until_healthy(&self) {
        until("both healthy", || {
            [self.alpha(), self.beta()]
                .iter()
                .all(|n| status(n, "v").state == State::Healthy)
        });
    }

    /// What beta holds, read by making it primary.
    fn read_on_beta(&self, offset: u64, len: u64) -> Vec<u8> {
        ask(self.alpha(), "v", Request::Demote { disconnect: true }).unwrap();
        promote(self.beta(), "v").unwrap();
        let (read, bytes) = attach(self.beta(), "v").read(offset, len);
        assert_eq!(read, OK);
        bytes
    }
}

#[test]
fn what_is_written_on_the_primary_is_read_on_the_promoted_secondary() {
    for memory in [true, false] {
        let pair = Pair::created(memory);
        let mut client = attach(pair.alpha(), "v");
        let mut expected = vec![0; 8 << 20];
        for (seed, offset, len) in [(1, 0, 4096), (2, 70_001, 200_000), (3, 1 << 20, 4 << 20)] {
            let bytes = pattern(seed, len);
            assert_eq!(client.write(offset, &bytes), OK);
            expected[offset as usize..offset as usize + len].copy_from_slice(&bytes);
        }
        assert_eq!(client.zero(2 << 20, 123_456), OK);
        expected[2 << 20..(2 << 20) + 123_456].fill(0);
        assert_eq!(client.flush(), OK);
        drop(client);
        assert!(
            pair.read_on_beta(0, 8 << 20) == expected,
            "memory: {memory}"
        );
    }
}

#[test]
fn a_cut_link_degrades_and_a_mended_one_resyncs_what_changed() {
    for memory in [true, false] {
        let pair = Pair::created(memory);
        let mut client = attach(pair.alpha(), "v");
        assert_eq!(client.write(0, &pattern(1, 1 << 20)), OK);
        pair.cable.cut();
        let bytes = pattern(2, 3 << 20);
        assert_eq!(client.write(MIB, &bytes), OK, "the survivor goes on");
        let now = status(pair.alpha(), "v");
        assert_eq!(
            (now.state, now.reason.unwrap().code),
            (State::Degraded, "W104")
        );
        until("what beta lacks is counted", || {
            status(pair.alpha(), "v").replicas[1].out_of_sync_bytes >= 3 * MIB
        });
        pair.cable.mend();
        pair.until_healthy();
        assert_eq!(status(pair.alpha(), "v").replicas[1].out_of_sync_bytes, 0);
        drop(client);
        let mut expected = pattern(1, 1 << 20);
        expected.extend_from_slice(&bytes);
        assert!(
            pair.read_on_beta(0, 4 * MIB) == expected,
            "memory: {memory}"
        );
    }
}

#[test]
fn a_secondary_that_crashed_comes_back_and_resyncs() {
    let mut pair = Pair::created(false);
    let mut client = attach(pair.alpha(), "v");
    assert_eq!(client.write(0, &pattern(1, 1 << 20)), OK);
    pair.beta = None;
    let bytes = pattern(5, 1 << 20);
    assert_eq!(client.write(512 << 10, &bytes), OK);
    pair.start_beta();
    pair.until_healthy();
    drop(client);
    assert!(pair.read_on_beta(512 << 10, 1 << 20) == bytes);
}

#[test]
fn a_primary_elsewhere_is_named_and_a_planned_switch_works_both_ways() {
    let pair = Pair::created(true);
    let refusal = promote(pair.beta(), "v").unwrap_err();
    assert_eq!((refusal.kind, refusal.code), (RefusalKind::Failed, "E210"));
    assert!(refusal.text.contains("alpha"), "{}", refusal.text);
    for (from, to) in [(pair.alpha(), pair.beta()), (pair.beta(), pair.alpha())] {
        ask(from, "v", Request::Demote { disconnect: false }).unwrap();
        promote(to, "v").unwrap();
        assert_eq!(status(to, "v").role, Role::Primary);
        assert_eq!(status(from, "v").role, Role::Secondary);
        pair.until_healthy();
    }
}

#[test]
fn a_mirrored_volume_is_secondary_as_soon_as_it_is_created() {
    let pair = Pair::new(false);
    for _ in 0..10 {
        create(pair.alpha(), "v");
        let view = pair.alpha().view("v").unwrap();
        assert_eq!(view.service, Service::Secondary { primary: None });
        ask(pair.alpha(), "v", Request::Delete { wipe: true }).unwrap();
    }
}

#[test]
fn a_lone_replica_is_not_founded_without_the_other_unless_forced() {
    let mut pair = Pair::new(true);
    create(pair.alpha(), "v");
    pair.beta = None;
    let wait = Duration::from_secs(5);
    let refusal = ask(pair.alpha(), "v", Request::Promote { force: false, wait }).unwrap_err();
    assert_eq!(
        (refusal.kind, refusal.code),
        (RefusalKind::WouldLoseData, "E213")
    );
    ask(pair.alpha(), "v", Request::Promote { force: true, wait }).unwrap();
    assert_eq!(attach(pair.alpha(), "v").write(0, b"alone"), OK);
    pair.start_beta();
    create(pair.beta(), "v");
    pair.until_healthy();
    assert_eq!(pair.read_on_beta(0, 5), b"alone");
}

#[test]
fn two_volumes_founded_apart_are_critical_on_both_sides_and_say_why() {
    let pair = Pair::new(false);
    pair.cable.cut();
    let wait = Duration::ZERO;
    for node in [pair.alpha(), pair.beta()] {
        create(node, "v");
        ask(node, "v", Request::Promote { force: true, wait }).unwrap();
        ask(node, "v", Request::Demote { disconnect: false }).unwrap();
    }
    pair.cable.mend();
    until("critical, with the cause", || {
        [pair.alpha(), pair.beta()].iter().all(|node| {
            let status = status(node, "v");
            let reason = status.reason.map(|reason| reason.text);
            status.state == State::Critical && reason.is_some_and(|r| r.contains("another volume"))
        })
    });
}

#[test]
fn nodes_of_two_clusters_say_so_in_the_status_of_both() {
    let mut pair = Pair::new(true);
    pair.beta = None;
    pair.specs[1].cluster = "other".into();
    pair.start_beta();
    create(pair.alpha(), "v");
    create(pair.beta(), "v");
    until("degraded, with the cause", || {
        [pair.alpha(), pair.beta()].iter().all(|node| {
            let status = status(node, "v");
            let reason = status.reason.map(|reason| reason.text);
            status.state == State::Degraded && reason.is_some_and(|r| r.contains("another cluster"))
        })
    });
}

#[test]
fn an_operator_can_disconnect_and_connect_a_peer() {
    let pair = Pair::created(true);
    let beta = || "beta".to_owned();
    ask(pair.alpha(), "v", Request::PeerDisconnect { node: beta() }).unwrap();
    until("standalone", || {
        status(pair.alpha(), "v").replicas[1].link_state == LinkState::Standalone
    });
    assert_eq!(attach(pair.alpha(), "v").write(0, &pattern(3, 65536)), OK);
    ask(pair.alpha(), "v", Request::PeerConnect { node: beta() }).unwrap();
    pair.until_healthy();
    assert!(pair.read_on_beta(0, 65536) == pattern(3, 65536));
}

#[test]
fn a_verify_of_equal_copies_finds_nothing() {
    let pair = Pair::created(false);
    assert_eq!(attach(pair.alpha(), "v").write(0, &pattern(3, 1 << 20)), OK);
    let verify = Request::Verify { repair: Repair::No };
    let first = ask(pair.alpha(), "v", verify).unwrap();
    assert!(matches!(first, Done::Verify(_)));
    until("compared", || {
        let Ok(Done::Verify(report)) = ask(pair.alpha(), "v", Request::VerifyStatus) else {
            panic!("figures are always there");
        };
        assert_eq!((report.different_bytes, report.failure), (0, None));
        !report.running && report.compared_bytes == SIZE
    });
}

#[test]
fn the_node_whose_data_is_kept_is_the_one_that_is_asked() {
    let pair = Pair::created(true);
    let start = |from: &str| Request::ResyncStart { from: from.into() };
    // Nothing was found different: it understood who is meant, and has nothing to do.
    let own = ask(pair.alpha(), "v", start("alpha")).unwrap_err();
    assert_eq!((own.kind, own.code), (RefusalKind::Failed, "E218"));
    let other = ask(pair.alpha(), "v", start("beta")).unwrap_err();
    assert_eq!((other.kind, other.code), (RefusalKind::Failed, "E217"));
    assert_eq!(
        other.hint.as_deref(),
        Some("on beta: pollux resync start v --from beta")
    );
    let stranger = ask(pair.alpha(), "v", start("gamma")).unwrap_err();
    assert_eq!(stranger.kind, RefusalKind::NotFound);
}

#[test]
fn a_drained_pair_starts_again_as_equals() {
    let mut pair = Pair::created(false);
    assert_eq!(attach(pair.alpha(), "v").write(0, &pattern(3, 1 << 20)), OK);
    drain(pair.alpha());
    drain(pair.beta());
    (pair.alpha, pair.beta) = (None, None);
    pair.start_beta();
    pair.start_alpha();
    pair.until_healthy();
    assert_eq!(status(pair.alpha(), "v").role, Role::Secondary);
    promote(pair.beta(), "v").unwrap();
    let (read, bytes) = attach(pair.beta(), "v").read(0, 1 << 20);
    assert!(read == OK && bytes == pattern(3, 1 << 20));
}

#[test]
fn a_primary_whose_disk_fails_serves_through_its_peer() {
    let pair = Pair::created(false);
    let mut client = attach(pair.alpha(), "v");
    assert_eq!(client.write(0, &pattern(1, 1 << 20)), OK);
    assert_eq!(client.flush(), OK);
    pair.alpha().plant_faults("v: write=eio").unwrap();
    let bytes = pattern(2, 1 << 20);
    assert_eq!(client.write(MIB, &bytes), OK, "beta has it");
    until("alpha's disk is failed", || {
        status(pair.alpha(), "v").replicas[0].disk_state == DiskState::Failed
    });
    let now = status(pair.alpha(), "v");
    assert_eq!((now.role, now.state), (Role::Primary, State::Degraded));
    assert!(
        client.read(MIB, 1 << 20) == (OK, bytes.clone()),
        "read through beta"
    );
    assert!(client.read(0, 1 << 20) == (OK, pattern(1, 1 << 20)));
    drop(client);
    assert!(pair.read_on_beta(MIB, 1 << 20) == bytes);
}

/// Reads 64 blocks at a time, each twice, and compares them with what was written.
fn read_deep(client: &mut common::Client, bytes: &[u8]) {
    for offset in 0..2u64 {
        let mut asked = std::collections::HashMap::new();
        for index in 0..64u64 {
            let at = index * 8192 + offset * 512;
            asked.insert(client.send(common::Ask::Read, at, 6000, &[]), at as usize);
        }
        for _ in 0..64 {
            let (id, status, found) = client.receive().expect("every read is answered");
            let at = asked[&id];
            assert_eq!(status, OK);
            assert!(found == bytes[at..at + 6000], "block at {at}");
        }
    }
}

/// Reads that beta answered for clients of alpha, as both count them.
fn helped(pair: &Pair) -> u64 {
    let (asked, served) = (status(pair.alpha(), "v").io, status(pair.beta(), "v").io);
    assert_eq!((asked.reads_for_peers, served.reads_by_peers), (0, 0));
    assert!(served.reads_for_peers >= asked.reads_by_peers);
    asked.reads_by_peers
}

#[test]
fn a_slow_disk_is_helped_by_a_peer_if_told_so() {
    for (reads, memory) in [
        (Reads::Balanced, false),
        (Reads::Local, false),
        (Reads::Balanced, true),
    ] {
        let pair = Pair::reading(memory, reads).found();
        let mut client = attach(pair.alpha(), "v");
        let bytes = pattern(1, 1 << 20);
        assert_eq!(client.write(0, &bytes), OK);
        pair.alpha().plant_faults("v: read=delay:200").unwrap();
        let began = std::time::Instant::now();
        for _ in 0..2 {
            read_deep(&mut client, &bytes);
        }
        println!("{reads:?}, memory {memory}: {:?}", began.elapsed());
        let expected = if reads == Reads::Balanced && !memory {
            50..=256
        } else {
            0..=0
        };
        let helped = helped(&pair);
        assert!(
            expected.contains(&helped),
            "{reads:?}, memory {memory}: {helped}"
        );
    }
}

#[test]
fn a_read_that_a_peer_does_not_answer_comes_from_the_own_disk() {
    let pair = Pair::reading(false, Reads::Balanced).found();
    let mut client = attach(pair.alpha(), "v");
    let bytes = pattern(1, 1 << 20);
    assert_eq!(client.write(0, &bytes), OK);
    pair.alpha().plant_faults("v: read=delay:20").unwrap();
    pair.beta().plant_faults("v: read=hang").unwrap();
    read_deep(&mut client, &bytes);
    // And where the link breaks under them.
    pair.beta().plant_faults("v: read=delay:300").unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(30));
            pair.cable.cut();
        });
        read_deep(&mut client, &bytes);
    });
    assert_eq!(client.write(0, &bytes), OK, "alpha goes on alone");
    read_deep(&mut client, &bytes);
}

#[test]
fn a_secondary_whose_flush_fails_leaves_the_set_and_no_client_notices() {
    let pair = Pair::created(false);
    let mut client = attach(pair.alpha(), "v");
    pair.beta().plant_faults("v: flush=eio#1").unwrap();
    assert_eq!(client.write(0, &pattern(1, 65536)), OK);
    assert_eq!(client.flush(), OK);
    until("beta left", || {
        status(pair.alpha(), "v").state == State::Degraded
    });
    assert_eq!(
        status(pair.beta(), "v").replicas[1].disk_state,
        DiskState::Failed
    );
    assert_eq!(client.write(65536, &pattern(2, 65536)), OK);
    assert_eq!(client.flush(), OK);
}

#[test]
fn a_secondary_whose_disk_hangs_is_given_up_and_clients_go_on() {
    let pair = Pair::created(false);
    let mut client = attach(pair.alpha(), "v");
    pair.beta().plant_faults("v: write=hang").unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let began = std::time::Instant::now();
    assert_eq!(client.write(0, &pattern(1, 4096)), OK);
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "member_timeout is 2 s"
    );
    assert_eq!(status(pair.alpha(), "v").state, State::Degraded);
    drop(client);
    drain(pair.alpha());
}

#[test]
fn load_goes_on_while_the_link_flaps_and_the_copies_end_equal() {
    for memory in [false, true] {
        let pair = Pair::created(memory);
        let mut client = attach(pair.alpha(), "v");
        let mut model = vec![0; SIZE as usize];
        let is_over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut pause = 37;
                while !is_over.load(std::sync::atomic::Ordering::SeqCst) {
                    pair.cable.cut();
                    std::thread::sleep(Duration::from_millis(pause % 150));
                    pair.cable.mend();
                    std::thread::sleep(Duration::from_millis(200 + pause % 400));
                    pause = (pause * 31 + 7) % 10_007;
                }
            });
            let began = std::time::Instant::now();
            let mut seed = 1u64;
            while began.elapsed() < Duration::from_secs(3) {
                // Sixteen at a time, some of them over the same bytes.
                let mut asked = Vec::new();
                for index in 0..16u64 {
                    seed = seed
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(index | 1);
                    let len = 1 + (seed >> 33) % 60_000;
                    let offset = (seed >> 20) % (SIZE - len);
                    let bytes = pattern(seed, len as usize);
                    client.send(common::Ask::Write, offset, len, &bytes);
                    asked.push((offset, bytes));
                }
                for (offset, bytes) in asked {
                    let (_, status, _) = client.receive().expect("the survivor goes on");
                    assert_eq!(status, OK);
                    model[offset as usize..][..bytes.len()].copy_from_slice(&bytes);
                }
            }
            is_over.store(true, std::sync::atomic::Ordering::SeqCst);
        });
        pair.cable.mend();
        pair.until_healthy();
        assert!(
            client.read(0, SIZE) == (OK, model.clone()),
            "alpha, memory: {memory}"
        );
        drop(client);
        assert!(
            pair.read_on_beta(0, SIZE) == model,
            "beta, memory: {memory}"
        );
    }
}
