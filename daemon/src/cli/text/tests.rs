use jiff::tz::TimeZone;

use super::status::details_in;
use super::*;
use crate::api::body::{
    Client, ClientTls, Declared, DeclaredExport, DiskState, Generation, Io, Lease, LinkState,
    Quorum, Reason, Replica, Resync, ResyncState, Role, STATUS_SCHEMA, State, StatusReport,
    VOLUME_SCHEMA, VerifyReport, VolumeEntry, VolumeIo, VolumeReport, VoteCount,
};

fn replica(node: &str, disk_state: DiskState, link_state: LinkState) -> Replica {
    let node = node.to_owned();
    Replica {
        node,
        disk_state,
        link_state,
        out_of_sync_bytes: 0,
        resync: None,
        paths: Vec::new(),
        last_resync: None,
    }
}

fn resyncing() -> StatusReport {
    let mut beta = replica("beta", DiskState::Inconsistent, LinkState::ResyncSource);
    beta.out_of_sync_bytes = 19_542_101_196;
    beta.resync = Some(Resync {
        done_ratio: 0.4149,
        rate_bytes_per_second: 429_916_160,
        eta_seconds: Some(45),
        paused: false,
        state: ResyncState::Moving,
        reason: None,
        bytes: Default::default(),
    });
    let volume = VolumeEntry {
        name: "vm-store".into(),
        size_bytes: 100 << 30,
        role: Role::Primary,
        state: State::Degraded,
        reason: Some(Reason {
            code: "W104".into(),
            text: "beta lost its link 2 min 14 s ago (connection reset)\nand is resyncing".into(),
        }),
        generation: Some(Generation {
            branch: "0123456789abcdef".repeat(2),
            term: 3,
        }),
        replicas: vec![
            replica("alpha", DiskState::UpToDate, LinkState::SelfNode),
            beta,
        ],
        quorum: None,
        last_verify: None,
        checksums: None,
        clients: vec![Client {
            export: "vm-store".into(),
            address: "10.0.0.40:51000".into(),
            since: "2026-11-20T14:02:46Z".into(),
            id: 17,
            tls: Some(ClientTls {
                version: "TLS 1.3".into(),
                subject: Some("CN=hyper1".into()),
            }),
            io: Io::default(),
        }],
        notes: vec!["quorum is off: the operator decides who is primary".into()],
        io: VolumeIo {
            clients: Io {
                reads: 1_200,
                read_bytes: 38 << 20,
                writes: 1,
                flushes: 1,
                ..Io::default()
            },
            ..VolumeIo::default()
        },
    };
    StatusReport {
        schema: STATUS_SCHEMA.into(),
        generated_at: "2026-11-20T14:04:46.250Z".into(),
        node: "alpha".into(),
        io_backend: "io_uring (kernel 6.18)".into(),
        insecure: vec!["nbd".into()],
        volumes: vec![volume],
    }
}

#[test]
fn details_show_state_reason_and_next_step() {
    let expected = "\
\u{20}volume  vm-store            100 GiB
  state  DEGRADED            1 of 2 copies current
    why  beta lost its link 2 min 14 s ago (connection reset)
         and is resyncing [W104]
 action  none needed.  Faster: pollux resync set vm-store --rate max
   role  primary on alpha
history  branch 0123456789abcdef0123456789abcdef, term 3
   note  quorum is off: the operator decides who is primary

         NODE     DATA          LINK           BEHIND
         alpha *  up_to_date    -              -
         beta     inconsistent  resync_source  18.2 GiB

 resync  alpha → beta  [############..................] 41 %   18.2 GiB left, 410 MiB/s, 45 s to go (14:05:31)
 client  10.0.0.40:51000  export vm-store  since 2026-11-20 14:02:46 (2 min 0 s)  TLS 1.3 CN=hyper1
     io  1200 reads (38 MiB)   1 write (0 B)   1 flush   0 errors
";
    assert_eq!(details_in(&resyncing(), &TimeZone::UTC), expected);
}

/// As a witness sees a volume whose two copies are down.
fn without_quorum() -> StatusReport {
    let mut report = resyncing();
    report.node = "gamma".into();
    let volume = &mut report.volumes[0];
    (volume.role, volume.state) = (Role::Secondary, State::Critical);
    volume.reason = Some(Reason {
        code: "W118".into(),
        text: "no quorum: 1 of 3 voters are there, 2 are needed; not heard: alpha, beta".into(),
    });
    (volume.generation, volume.notes) = (None, Vec::new());
    volume.clients.clear();
    volume.replicas = vec![
        replica("alpha", DiskState::Unknown, LinkState::Connecting),
        replica("beta", DiskState::Unknown, LinkState::Connecting),
        replica("gamma", DiskState::Diskless, LinkState::SelfNode),
    ];
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    volume.quorum = Some(Quorum {
        mode: "majority".into(),
        votes: VoteCount {
            have: 1,
            need: 2,
            of: 3,
        },
        missing: names(&["alpha", "beta"]),
        lease: Lease::Lost,
        primary: None,
        voters: names(&["alpha", "beta", "gamma"]),
        witnesses: names(&["gamma"]),
    });
    report
}

#[test]
fn a_volume_without_quorum_says_whom_to_start_and_a_witness_is_no_copy() {
    let text = details_in(&without_quorum(), &TimeZone::UTC);
    let expected = "\
\u{20}volume  vm-store            100 GiB
  state  CRITICAL            no I/O is possible
    why  no quorum: 1 of 3 voters are there, 2 are needed; not heard: alpha, beta [W118]
 action  start alpha or beta: it goes on with 2 of 3 voters
   role  witness on gamma
 quorum  1 of 3 votes, 2 needed; not heard: alpha, beta; no lease is held

         NODE     DATA      LINK        BEHIND
         alpha    unknown   connecting  -
         beta     unknown   connecting  -
         gamma *  diskless  -           -
";
    assert!(text.starts_with(expected), "{text}");
    let table = table(&without_quorum());
    assert!(table.contains("  0 of 2  "), "{table}");
    let mut met = without_quorum();
    let volume = &mut met.volumes[0];
    (volume.state, volume.reason) = (State::Healthy, None);
    let quorum = volume.quorum.as_mut().expect("it has one");
    (quorum.votes.have, quorum.missing) = (3, Vec::new());
    (quorum.lease, quorum.primary) = (Lease::Held, Some("alpha".into()));
    let text = details_in(&met, &TimeZone::UTC);
    assert!(
        text.contains("healthy             this node votes and holds no copy\n"),
        "{text}"
    );
    assert!(
        text.contains(" quorum  3 of 3 votes, 2 needed; lease held by alpha\n"),
        "{text}"
    );
}

#[test]
fn the_overview_explains_what_is_not_healthy() {
    let expected = "\
node alpha: io_uring (kernel 6.18)
note: nbd listens beyond loopback without TLS

VOLUME    STATE     ROLE     SIZE     COPIES  BEHIND    CLIENTS
vm-store  DEGRADED  primary  100 GiB  1 of 2  18.2 GiB  1

vm-store: beta lost its link 2 min 14 s ago (connection reset)
and is resyncing [W104]
  next: none needed.  Faster: pollux resync set vm-store --rate max
";
    assert_eq!(overview(&resyncing()), expected);
}

#[test]
fn progress_never_says_100_before_the_end_and_unknown_times_are_not_shown() {
    assert_eq!(bar(1.0), "[#############################.] 99 %");
    assert_eq!(bar(-1.0), "[..............................] 0 %");
    assert!(bar(f64::NAN).ends_with(" %"));
    let mut report = resyncing();
    let resync = report.volumes[0].replicas[1].resync.as_mut().unwrap();
    resync.rate_bytes_per_second = 0;
    assert!(details_in(&report, &TimeZone::UTC).contains("18.2 GiB left, estimating\n"));
    let resync = report.volumes[0].replicas[1].resync.as_mut().unwrap();
    (resync.rate_bytes_per_second, resync.eta_seconds) = (1 << 20, Some(u64::MAX));
    assert!(details_in(&report, &TimeZone::UTC).contains(" h to go\n"));
    let resync = report.volumes[0].replicas[1].resync.as_mut().unwrap();
    resync.state = ResyncState::Stalled;
    resync.reason = Some("nothing moved".into());
    assert!(details_in(&report, &TimeZone::UTC).contains("left, stalled: nothing moved\n"));
    let resync = report.volumes[0].replicas[1].resync.as_mut().unwrap();
    resync.state = ResyncState::Paused;
    resync.reason = Some("by an operator".into());
    assert!(details_in(&report, &TimeZone::UTC).contains("left, paused by an operator\n"));
}

#[test]
fn a_verify_says_what_differs_and_what_to_do() {
    let mut report = VerifyReport {
        schema: crate::api::body::VERIFY_SCHEMA.into(),
        volume: "vm-store".into(),
        running: false,
        compared_bytes: 1 << 30,
        total_bytes: 1 << 30,
        different_bytes: 0,
        different: Vec::new(),
        rate_bytes_per_second: None,
        repairing: false,
        last: None,
        failure: None,
    };
    assert_eq!(
        verify(&report),
        "1 GiB of vm-store compared, no differences\n"
    );
    report.different_bytes = 8192;
    report.different = vec![crate::api::body::DifferentRange {
        offset_bytes: 4096,
        length_bytes: 8192,
    }];
    assert_eq!(
        verify(&report),
        "1 GiB of vm-store compared, 8 KiB differ\n  differs at 4096, 8192 bytes\n\
         next: pollux resync start vm-store --from NODE\n"
    );
}

fn exporting() -> VolumeReport {
    let export = |name: &str| DeclaredExport {
        name: name.into(),
        read_only: name == "nightly",
        description: String::new(),
        allow: Vec::new(),
        allow_subjects: Vec::new(),
        needs_tls: false,
        attach: "shared".into(),
        default: false,
        uris: vec![format!("nbd://alpha/{name}")],
    };
    let mut subjects = export("vm-store");
    subjects.allow_subjects = vec!["CN=hyper1".into()];
    VolumeReport {
        schema: VOLUME_SCHEMA.into(),
        node: "alpha".into(),
        declared: Declared {
            backing: "memory".into(),
            replicas: vec!["alpha".into()],
            write_policy: "written".into(),
            allocation: "thin".into(),
            cache: "direct".into(),
            completion: "interrupt".into(),
            polling: "balanced".into(),
            reads: "local".into(),
            splitbrain: "manual".into(),
            checksums: "off".into(),
            min_copies: 1,
            resync_rate_bytes_per_second: None,
            nbd: vec![subjects, export("nightly")],
        },
        status: resyncing().volumes.pop(),
    }
}

#[test]
fn exports_are_listed_with_how_many_use_them() {
    let expected = "\
VOLUME    EXPORT    CLIENTS  ACCESS                    URI
vm-store  vm-store  1        read-write tls CN=hyper1  nbd://alpha/vm-store
vm-store  nightly   0        read-only                 nbd://alpha/nightly
";
    assert_eq!(exports(&[exporting()]), expected);
}

#[test]
fn clients_of_exports_are_told_apart() {
    let now = "2026-11-20T15:04:56Z".parse().unwrap();
    let expected = "\
volume vm-store on alpha
export vm-store  read-write tls CN=hyper1
       nbd://alpha/vm-store
export nightly  read-only
       nbd://alpha/nightly

CLIENT  ADDRESS          EXPORT    AGE        READ     WRITTEN  TLS
17      10.0.0.40:51000  vm-store  1 h 2 min  0 (0 B)  0 (0 B)  TLS 1.3 CN=hyper1
";
    assert_eq!(export_clients("vm-store", &exporting(), now), expected);
}
