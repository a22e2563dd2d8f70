//! The command line against a node that answers as told: words, exit codes, what is asked.

use std::time::Duration;

use engine::control::{Done, Outcome, Refusal, RefusalKind, Repair, Request, State, VerifyReport};
use serde_json::Value;

use crate::fake::{Place, Ran, Served, agree, vm_store};

fn refuse(kind: RefusalKind) -> Option<Outcome> {
    Some(Err(Refusal {
        kind,
        code: "E207",
        text: "beta may not become primary\nalpha was heard from 9 s ago".to_owned(),
        hint: Some("pollux promote vm-store --force".to_owned()),
    }))
}

fn served() -> Served {
    Served::new(vec![vm_store(State::Healthy)], agree)
}

#[test]
fn every_verb_asks_the_engine_for_what_it_says() {
    let beta = || "beta".to_owned();
    let wait = Duration::from_secs(10);
    for (args, expected) in [
        (
            "volume create vm-store",
            Request::Create {
                adopt: false,
                if_absent: false,
            },
        ),
        (
            "volume create vm-store --adopt --if-absent",
            Request::Create {
                adopt: true,
                if_absent: true,
            },
        ),
        (
            "volume delete vm-store --yes",
            Request::Delete { wipe: false },
        ),
        (
            "volume delete vm-store --wipe --yes",
            Request::Delete { wipe: true },
        ),
        ("promote vm-store", Request::Promote { force: false, wait }),
        (
            "promote vm-store --wait 1500ms",
            Request::Promote {
                force: false,
                wait: Duration::from_millis(1500),
            },
        ),
        (
            "promote vm-store --force --yes",
            Request::Promote { force: true, wait },
        ),
        ("demote vm-store", Request::Demote { disconnect: false }),
        (
            "demote vm-store --disconnect",
            Request::Demote { disconnect: true },
        ),
        ("peer connect beta", Request::PeerConnect { node: beta() }),
        (
            "peer disconnect beta --volume vm-store",
            Request::PeerDisconnect { node: beta() },
        ),
        (
            "resync start vm-store --from beta",
            Request::ResyncStart { from: beta() },
        ),
        ("resync pause vm-store", Request::ResyncPause),
        ("resync resume vm-store", Request::ResyncResume),
        (
            "resync set vm-store --rate 100MiB/s",
            Request::ResyncSetRate {
                bytes_per_second: Some(100 << 20),
            },
        ),
        (
            "resync set vm-store --rate max",
            Request::ResyncSetRate {
                bytes_per_second: None,
            },
        ),
        ("verify vm-store", Request::Verify { repair: Repair::No }),
        (
            "verify vm-store --repair",
            Request::Verify {
                repair: Repair::Majority,
            },
        ),
        (
            "verify vm-store --repair --from beta",
            Request::Verify {
                repair: Repair::From(beta()),
            },
        ),
    ] {
        let served = served();
        let ran = served.pollux(args);
        assert_eq!((ran.exit, ran.stderr.as_str()), (0, ""), "{args}: {ran:?}");
        assert_eq!(
            served.node.asked(),
            [("vm-store".to_owned(), expected)],
            "{args}"
        );
    }
}

#[test]
fn a_change_says_what_was_done_and_what_comes_next() {
    let ran = served().pollux("promote vm-store");
    let stdout = "vm-store: done\nnext: pollux status vm-store\n".to_owned();
    assert_eq!(
        ran,
        Ran {
            exit: 0,
            stdout,
            stderr: String::new()
        }
    );
}

#[test]
fn a_refusal_keeps_its_class_words_and_hint() {
    let expected = "error[E207]: beta may not become primary\n  \
                    alpha was heard from 9 s ago\nhint: pollux promote vm-store --force\n";
    for (exit, answer) in [
        (
            1,
            (|_, _| refuse(RefusalKind::Failed)) as crate::fake::Answer,
        ),
        (3, |_, _| refuse(RefusalKind::NotFound)),
        (4, |_, _| refuse(RefusalKind::WouldLoseData)),
        (7, |_, _| refuse(RefusalKind::TimedOut)),
    ] {
        let served = Served::new(vec![vm_store(State::Healthy)], answer);
        let ran = served.pollux("promote vm-store");
        let stderr = expected.to_owned();
        assert_eq!(
            ran,
            Ran {
                exit,
                stdout: String::new(),
                stderr
            }
        );
    }
}

#[test]
fn an_engine_that_lets_go_of_a_request_is_exit_1() {
    let served = Served::new(vec![vm_store(State::Healthy)], |_, _| None);
    let ran = served.pollux("demote vm-store");
    assert_eq!(ran.exit, 1);
    assert!(
        ran.stderr
            .starts_with("error[E118]: volume vm-store: the engine ended"),
        "{ran:?}"
    );
}

#[test]
fn what_was_so_before_is_success() {
    let already = |_: &str, _: &Request| Some(Ok(Done::Already("vm-store is primary".to_owned())));
    let served = Served::new(vec![vm_store(State::Healthy)], already);
    assert_eq!(served.pollux("promote vm-store").exit, 0);
}

#[test]
fn destructive_verbs_need_yes_where_nobody_can_be_asked() {
    let served = served();
    for args in [
        "promote vm-store --force",
        "volume delete vm-store",
        "volume delete vm-store --wipe",
    ] {
        let ran = served.pollux(args);
        assert_eq!(ran.exit, 2, "{args}: {ran:?}");
        assert!(ran.stderr.starts_with("error[E120]: "), "{ran:?}");
    }
    assert_eq!(served.node.asked(), []);
}

/// Runs the command with a terminal as stdin, on which `typed` is entered.
fn with_terminal(served: &Served, args: &str, typed: &str) -> Ran {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap();
    let stdin = std::fs::File::open(name.to_str().unwrap()).unwrap();
    rustix::io::write(&terminal, typed.as_bytes()).unwrap();
    Ran::from(served.place.command(args).stdin(stdin).output().unwrap())
}

#[test]
fn on_a_terminal_the_name_of_the_volume_confirms() {
    let served = served();
    let ran = with_terminal(&served, "volume delete vm-store", "vm-stor\n");
    assert_eq!(ran.exit, 1, "{ran:?}");
    assert!(ran.stderr.contains("error[E121]: not confirmed"), "{ran:?}");
    assert_eq!(served.node.asked(), []);
    let ran = with_terminal(&served, "volume delete vm-store", "vm-store\n");
    assert_eq!(ran.exit, 0, "{ran:?}");
    assert!(
        ran.stderr
            .contains("its metadata is removed, its backing is kept."),
        "{ran:?}"
    );
    assert_eq!(served.node.asked().len(), 1);
}

#[test]
fn on_a_terminal_force_asks_only_where_data_could_be_lost() {
    fn cautious(_: &str, request: &Request) -> Option<Outcome> {
        match request {
            Request::Promote { force: false, .. } => refuse(RefusalKind::WouldLoseData),
            _ => Some(Ok(Done::Ok("vm-store is primary".to_owned()))),
        }
    }
    let forced = |served: &Served| -> Vec<bool> {
        let asked = served.node.asked().into_iter();
        asked
            .map(|(_, r)| matches!(r, Request::Promote { force: true, .. }))
            .collect()
    };
    let served = Served::new(vec![vm_store(State::Healthy)], cautious);
    let ran = with_terminal(&served, "promote vm-store --force", "no\n");
    assert_eq!((ran.exit, forced(&served)), (1, vec![false]), "{ran:?}");
    let ran = with_terminal(&served, "promote vm-store --force", "vm-store\n");
    assert_eq!(
        (ran.exit, forced(&served)),
        (0, vec![false, false, true]),
        "{ran:?}"
    );
    assert!(
        ran.stderr
            .contains("error[E207]: beta may not become primary"),
        "{ran:?}"
    );

    let served = self::served();
    let ran = with_terminal(&served, "promote vm-store --force", "");
    assert_eq!((ran.exit, forced(&served)), (0, vec![false]), "{ran:?}");
}

#[test]
fn wrong_words_are_exit_2() {
    let served = served();
    for args in [
        "promot vm-store",
        "promote",
        "promote vm-store --wait soon",
        "promote vm-store --wait 10",
        "resync set vm-store --rate 0B",
        "resync set vm-store",
        "status --nod alpha",
        "verify vm-store --wait --status",
        "--node gamma status",
    ] {
        let ran = served.pollux(args);
        assert_eq!(ran.exit, 2, "{args}: {ran:?}");
    }
    assert_eq!(served.node.asked(), []);
}

#[test]
fn unknown_volumes_and_peers_are_exit_3() {
    let served = served();
    for args in [
        "status vm-stor",
        "volume show x/../y",
        "promote vm-stor",
        "peer connect gamma",
        "peer connect alpha",
        "peer connect gamma --volume vm-store",
        "resync start vm-store --from gamma",
        "resync status nosuch",
        "verify nosuch --status",
    ] {
        let ran = served.pollux(args);
        assert_eq!(ran.exit, 3, "{args}: {ran:?}");
    }
    assert_eq!(served.node.asked(), []);
}

#[test]
fn check_tells_degraded_from_critical() {
    for (state, exit) in [
        (State::Healthy, 0),
        (State::Degraded, 5),
        (State::NotCreated, 5),
        (State::Critical, 6),
        (State::Offline, 6),
    ] {
        let served = Served::new(vec![vm_store(state)], agree);
        assert_eq!(served.pollux("status --check").exit, exit, "{state:?}");
        assert_eq!(served.pollux("status").exit, 0, "{state:?}");
    }
    let both = vec![vm_store(State::Critical), vm_store(State::Degraded)];
    assert_eq!(
        Served::new(both, agree)
            .pollux("status --check --json")
            .exit,
        6
    );
}

#[test]
fn status_is_text_for_people_and_json_for_scripts() {
    let served = Served::new(vec![vm_store(State::Degraded)], agree);
    let text = served.pollux("status").stdout;
    assert!(
        text.contains("vm-store  DEGRADED  primary  1 GiB"),
        "{text}"
    );
    assert!(
        text.contains("vm-store: beta lost its link 40 s ago [W104]"),
        "{text}"
    );
    let text = served.pollux("status vm-store").stdout;
    assert!(
        text.contains("resync  alpha → beta  [###############...............] 50 %"),
        "{text}"
    );
    assert_eq!(served.pollux("").stdout, served.pollux("status").stdout);
    let json: Value = serde_json::from_str(&served.pollux("status --json").stdout).unwrap();
    assert_eq!(json["schema"], "pollux.status/1");
    let list: Value = serde_json::from_str(&served.pollux("volume list --json").stdout).unwrap();
    assert_eq!(list["volumes"], json["volumes"]);
    let resync = served.pollux("resync status").stdout;
    assert!(resync.starts_with("vm-store  alpha → beta  ["), "{resync}");
}

#[test]
fn who_waits_for_a_resync_is_told_when_the_time_is_over_and_by_lines_without_a_terminal() {
    let served = served();
    let ran = served.pollux("resync status vm-store --wait=1s --json");
    assert_eq!(ran.exit, 7, "{ran:?}");
    let objects: Vec<Value> = ran
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(objects.len() >= 2, "one object per second: {objects:?}");
    let resync = &objects[0]["volumes"][0]["replicas"][1]["resync"];
    assert_eq!(resync["state"], "moving");
    assert_eq!(resync["bytes"]["sent"], 4096);
    let ran = served.pollux("resync status vm-store --wait=1s");
    assert!(ran.stderr.contains("alpha → beta  50 %"), "{ran:?}");
}

#[test]
fn show_gives_uris_to_paste() {
    let served = served();
    let json: Value =
        serde_json::from_str(&served.pollux("volume show vm-store --json").stdout).unwrap();
    let socket = served.place.data_dir.join("nbd.sock");
    assert_eq!(
        json["declared"]["nbd"][0]["uris"],
        serde_json::json!([format!(
            "nbd+unix:///vm%20store?socket={}",
            socket.display()
        ),])
    );
    let text = served.pollux("volume show vm-store").stdout;
    assert!(text.contains("nbd+unix:///vm%20store?socket=/"), "{text}");
}

fn differing(_: &str, request: &Request) -> Option<Outcome> {
    matches!(request, Request::Verify { .. } | Request::VerifyStatus).then(|| {
        Ok(Done::Verify(VerifyReport {
            running: true,
            compared_bytes: 8192,
            total_bytes: 8192,
            different_bytes: 4096,
            different: vec![(4096, 4096)],
            ..Default::default()
        }))
    })
}

fn failing(_: &str, _: &Request) -> Option<Outcome> {
    let failure = Some("beta lost its link".to_owned());
    Some(Ok(Done::Verify(VerifyReport {
        failure,
        running: true,
        ..Default::default()
    })))
}

#[test]
fn verify_waits_for_the_end_and_tells_differences_apart() {
    let equal = served();
    let ran = equal.pollux("verify vm-store --wait");
    assert_eq!(ran.exit, 0, "{ran:?}");
    assert_eq!(ran.stdout, "1 GiB of vm-store compared, no differences\n");
    let requests: Vec<Request> = equal
        .node
        .asked()
        .into_iter()
        .map(|(_, asked)| asked)
        .collect();
    assert_eq!(
        requests,
        [
            Request::Verify { repair: Repair::No },
            Request::VerifyStatus,
            Request::VerifyStatus
        ]
    );

    let served = Served::new(vec![vm_store(State::Healthy)], differing);
    let ran = served.pollux("verify vm-store --wait --json");
    assert_eq!(ran.exit, 5, "{ran:?}");
    // One object per second while it runs, and one at the end.
    let last = ran.stdout.lines().last().unwrap();
    let json: Value = serde_json::from_str(last).unwrap();
    assert_eq!(json["schema"], "pollux.verify/1");
    assert_eq!(json["running"], false);
    assert_eq!(json["different"][0]["offset_bytes"], 4096);

    let served = Served::new(vec![vm_store(State::Healthy)], failing);
    let ran = served.pollux("verify vm-store --wait");
    assert_eq!(ran.exit, 1, "{ran:?}");
    assert!(
        ran.stderr
            .contains("\nerror[E122]: verify of volume vm-store ended"),
        "{ran:?}"
    );
}

#[test]
fn some_of_several_volumes_failed_is_exit_10() {
    fn half(volume: &str, _: &Request) -> Option<Outcome> {
        match volume {
            "vm-store" => Some(Ok(Done::Ok("vm-store: done".to_owned()))),
            _ => refuse(RefusalKind::Failed),
        }
    }
    let mut other = vm_store(State::Healthy);
    other.name = "mail".to_owned();
    // The API knows only vm-store: mail is refused there, as by a daemon with another file.
    let served = Served::new(vec![vm_store(State::Healthy), other], half);
    let ran = served.pollux("peer disconnect beta");
    assert_eq!(ran.exit, 10, "{ran:?}");
    assert_eq!(ran.stdout, "vm-store: done\n");
    assert!(
        ran.stderr
            .contains("1 volume failed\n  [E110] node alpha has no volume mail")
    );
}

#[test]
fn without_a_daemon_every_client_verb_is_exit_8_with_the_way_out() {
    let place = Place::new();
    for args in [
        "status",
        "promote vm-store",
        "volume create vm-store",
        "verify vm-store --wait",
    ] {
        let ran = place.pollux(args);
        assert_eq!(ran.exit, 8, "{args}: {ran:?}");
        assert!(
            ran.stderr
                .starts_with("error[E115]: no daemon answers for node alpha"),
            "{ran:?}"
        );
        let hint = format!(
            "hint: start it: pollux serve --config {}",
            place.config.display()
        );
        assert!(ran.stderr.contains(&hint), "{ran:?}");
    }
    let ran = place.pollux("");
    assert_eq!(ran.exit, 0);
    assert!(ran.stdout.starts_with("Pollux: "), "{ran:?}");
}

#[test]
fn an_invalid_file_is_exit_9_unless_the_daemon_runs() {
    let place = Place::new();
    let text = std::fs::read_to_string(&place.config).unwrap();
    std::fs::write(&place.config, text.replace("1GiB", "1Gib")).unwrap();
    for args in ["status", "serve", "config check"] {
        let ran = place.pollux(args);
        assert_eq!(ran.exit, 9, "{args}: {ran:?}");
    }
    assert_eq!(place.pollux("status --config /nonexistent").exit, 9);

    let served = served();
    let text = std::fs::read_to_string(&served.place.config).unwrap();
    std::fs::write(&served.place.config, text.replace("1GiB", "1Gib")).unwrap();
    let ran = served.pollux("promote vm-store");
    assert_eq!(ran.exit, 0, "{ran:?}");
    assert!(ran.stderr.starts_with("warning: "), "{ran:?}");
}

#[test]
fn several_nodes_and_no_choice_is_exit_2() {
    let place = Place::new();
    let mut command = place.command("status");
    let ran = Ran::from(command.env_remove("POLLUX_NODE").output().unwrap());
    assert_eq!(ran.exit, 2, "{ran:?}");
    assert!(
        ran.stderr.starts_with("error[E102]: which node?"),
        "{ran:?}"
    );
}

#[test]
fn a_reader_that_went_away_is_no_fault() {
    let served = served();
    let mut command = served.place.command("status --json");
    let mut child = command
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn help_and_version_are_exit_0() {
    let place = Place::new();
    for args in [
        "--help",
        "volume create --help",
        "--version",
        "version",
        "version --json",
    ] {
        let ran = place.pollux(args);
        assert_eq!((ran.exit, ran.stderr.as_str()), (0, ""), "{args}");
    }
}
