//! The API itself: who gets in, what is refused, what the JSON looks like.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::Command;

use engine::control::{Request, State};
use pollux_daemon::api::body::{Changed, StatusReport};
use pollux_daemon::api::listen::ApiSocket;
use serde_json::{Value, json};

use crate::fake::{Place, Ran, Served, agree, vm_store};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(future)
}

/// Sends raw bytes and reads to the end: status line and body.
fn raw(mut stream: impl Read + Write, request: &str) -> (String, String) {
    // The server may hang up before it has read all.
    let _ = stream.write_all(request.as_bytes());
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    (
        head.lines().next().unwrap_or_default().to_owned(),
        body.to_owned(),
    )
}

fn tcp(served: &Served, request: &str) -> (String, String) {
    raw(TcpStream::connect(served.tcp).unwrap(), request)
}

fn unix(served: &Served, request: &str) -> (String, String) {
    raw(
        UnixStream::connect(served.daemon().socket).unwrap(),
        request,
    )
}

#[test]
fn the_status_is_the_documented_json() {
    let served = Served::new(vec![vm_store(State::Degraded)], agree);
    let (head, body) = unix(
        &served,
        "GET /api/v1/status HTTP/1.1\r\nHost: pollux\r\n\r\n",
    );
    assert_eq!(head, "HTTP/1.1 200 OK");
    let mut status: Value = serde_json::from_str(&body).unwrap();
    let generated_at: jiff::Timestamp = status["generated_at"]
        .take()
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let since: jiff::Timestamp = status["volumes"][0]["clients"][0]["since"]
        .take()
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(generated_at.as_second() - since.as_second(), 90);
    let expected = json!({
        "schema": "pollux.status/1",
        "generated_at": null,
        "node": "alpha",
        "io_backend": "POSIX threads (a test's choice)",
        "insecure": [],
        "volumes": [{
            "name": "vm-store",
            "size_bytes": 1_073_741_824,
            "role": "primary",
            "state": "degraded",
            "reason": { "code": "W104", "text": "beta lost its link 40 s ago" },
            "generation": { "branch": "00000000000000000000000000000abc", "term": 7 },
            "replicas": [
                {
                    "node": "alpha",
                    "disk_state": "up_to_date",
                    "link_state": "self",
                    "out_of_sync_bytes": 0,
                    "resync": null,
                    "paths": [],
                    "last_resync": null,
                },
                {
                    "node": "beta",
                    "disk_state": "inconsistent",
                    "link_state": "resync_source",
                    "out_of_sync_bytes": 1_048_576,
                    "resync": {
                        "done_ratio": 0.5,
                        "rate_bytes_per_second": 1_048_576,
                        "eta_seconds": 1,
                        "paused": false,
                        "state": "moving",
                        "reason": null,
                        "bytes": {
                            "done": 1_048_576,
                            "sent": 4096,
                            "zeroed": 0,
                            "equal": 1_044_480,
                        },
                    },
                    "paths": [
                        { "address": "10.0.0.2:8790", "up": true, "carries_data": true },
                    ],
                    "last_resync": null,
                },
            ],
            "quorum": null,
            "last_verify": null,
            "checksums": null,
            "clients": [
                {
                    "id": 17,
                    "export": "vm-store",
                    "address": "127.0.0.1:50000",
                    "since": null,
                    "tls": { "version": "TLS 1.3", "subject": "CN=hyper1" },
                    "io": {
                        "reads": 0, "read_bytes": 0, "writes": 0, "written_bytes": 0,
                        "flushes": 0, "errors": 0,
                    },
                },
            ],
            "notes": ["quorum is off"],
            "io": {
                "reads": 3, "read_bytes": 12_288, "writes": 0, "written_bytes": 0,
                "flushes": 0, "errors": 0, "reads_by_peers": 2, "reads_for_peers": 1,
            },
        }],
    });
    assert_eq!(status, expected);
}

#[test]
fn changes_reach_the_engine_as_asked() {
    let served = Served::new(vec![vm_store(State::Healthy)], agree);
    let body = r#"{"force":true,"wait_milliseconds":1500}"#;
    let request = format!(
        "POST /api/v1/volumes/vm-store/promote HTTP/1.1\r\nHost: p\r\nContent-Length: {}\r\n\r\n\
         {body}",
        body.len()
    );
    let (head, body) = unix(&served, &request);
    assert_eq!(head, "HTTP/1.1 200 OK");
    let changed: Changed = serde_json::from_str(&body).unwrap();
    assert_eq!(
        changed,
        Changed {
            changed: true,
            text: "vm-store: done".to_owned()
        }
    );
    let wait = std::time::Duration::from_millis(1500);
    let expected = (
        "vm-store".to_owned(),
        Request::Promote { force: true, wait },
    );
    assert_eq!(served.node.asked(), [expected]);
}

#[test]
fn tcp_reads_and_never_changes() {
    let served = Served::new(vec![vm_store(State::Healthy)], agree);
    let (head, body) = tcp(&served, "GET /api/v1/status HTTP/1.1\r\nHost: p\r\n\r\n");
    assert_eq!(head, "HTTP/1.1 200 OK");
    serde_json::from_str::<StatusReport>(&body).unwrap();
    for path in [
        "/api/v1/volumes/vm-store/promote",
        "/api/v1/volumes/vm-store/delete",
    ] {
        let request = format!("POST {path} HTTP/1.1\r\nHost: p\r\nContent-Length: 0\r\n\r\n");
        let (head, body) = tcp(&served, &request);
        assert_eq!(head, "HTTP/1.1 403 Forbidden");
        let problem: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            (&problem["code"], &problem["exit_code"]),
            (&json!("E124"), &json!(8))
        );
    }
    let (head, _) = tcp(
        &served,
        "GET /api/v1/volumes/vm-store HTTP/1.1\r\nHost: p\r\n\r\n",
    );
    assert_eq!(head, "HTTP/1.1 404 Not Found");
    assert_eq!(served.node.asked(), []);
}

#[test]
fn metrics_are_openmetrics() {
    let served = Served::new(vec![vm_store(State::Degraded)], agree);
    let (head, body) = tcp(&served, "GET /metrics HTTP/1.1\r\nHost: p\r\n\r\n");
    assert_eq!(head, "HTTP/1.1 200 OK");
    for line in [
        "# TYPE pollux_volume_state gauge",
        "pollux_volume_state{volume=\"vm-store\",state=\"degraded\"} 1.0",
        "pollux_volume_state{volume=\"vm-store\",state=\"healthy\"} 0.0",
        "pollux_volume_size_bytes{volume=\"vm-store\"} 1073741824.0",
        "pollux_replica_out_of_sync_bytes{volume=\"vm-store\",node=\"beta\"} 1048576.0",
        "pollux_replica_disk_state{volume=\"vm-store\",node=\"alpha\",state=\"up_to_date\"} 1.0",
        "pollux_resync_done_ratio{volume=\"vm-store\",node=\"beta\"} 0.5",
        "pollux_volume_reads_total{volume=\"vm-store\"} 3",
        "pollux_volume_reads_by_peers_total{volume=\"vm-store\"} 2",
        "pollux_volume_reads_for_peers_total{volume=\"vm-store\"} 1",
    ] {
        assert!(body.lines().any(|found| found == line), "{line}\n{body}");
    }
    assert!(body.ends_with("# EOF\n"));
}

#[test]
fn a_refusal_is_a_problem_with_code_hint_and_exit() {
    let served = Served::new(vec![vm_store(State::Healthy)], agree);
    let request = "POST /api/v1/volumes/vm-stor/demote HTTP/1.1\r\nHost: p\r\n\
                   Content-Length: 0\r\n\r\n";
    let (head, body) = unix(&served, request);
    assert_eq!(head, "HTTP/1.1 404 Not Found");
    let expected = json!({
        "title": "Not Found", "status": 404, "code": "E110", "class": "not_found",
        "exit_code": 3, "detail": "node alpha has no volume vm-stor",
        "hint": "did you mean vm-store?",
    });
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), expected);
    assert_eq!(served.node.asked(), []);
}

#[test]
fn bodies_that_do_not_fit_are_refused_and_change_nothing() {
    let served = Served::new(vec![vm_store(State::Healthy)], agree);
    let long = format!("{{\"from\":\"{}\"}}", "x".repeat(100_000));
    for (path, body) in [
        ("delete", "{\"wype\":true}"),
        ("delete", "{"),
        ("delete", "[]"),
        ("promote", "{\"wait_milliseconds\":-1}"),
        ("resync/start", ""),
        ("resync/rate", "{\"bytes_per_second\":0}"),
        ("resync/start", &long),
    ] {
        let request = format!(
            "POST /api/v1/volumes/vm-store/{path} HTTP/1.1\r\nHost: p\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let (head, answer) = unix(&served, &request);
        assert_eq!(head, "HTTP/1.1 400 Bad Request", "{path} {answer}");
        let problem: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(problem["exit_code"], 2, "{path}");
    }
    assert_eq!(served.node.asked(), []);
}

#[test]
fn garbage_costs_its_sender_the_connection_and_nobody_else() {
    let served = Served::new(vec![vm_store(State::Healthy)], agree);
    let endless = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(1 << 20));
    for garbage in ["\x00\x01\x02\r\n\r\n", "NBDMAGICIHAVEOPT", &endless] {
        let stream = UnixStream::connect(served.daemon().socket).unwrap();
        stream
            .set_read_timeout(Some(std::time::Duration::from_millis(300)))
            .unwrap();
        let (head, _) = raw(stream, garbage);
        assert!(!head.contains("200"), "{head}");
    }
    let report: StatusReport = block_on(served.daemon().get("/api/v1/status")).unwrap();
    assert_eq!(report.node, "alpha");
}

#[test]
fn a_stopping_daemon_shows_status_and_takes_no_changes() {
    let served = Served::new(vec![vm_store(State::Healthy)], agree);
    served.shared.start_draining();
    let ran = served.pollux("promote vm-store");
    assert_eq!(ran.exit, 1);
    assert!(ran.stderr.starts_with("error[E119]"), "{ran:?}");
    assert_eq!(served.pollux("status").exit, 0);
    assert_eq!(served.node.asked(), []);
}

#[test]
fn the_socket_is_for_the_owner_alone() {
    let served = Served::new(Vec::new(), agree);
    let mode = fs::metadata(served.daemon().socket)
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_stranger_is_refused_by_mode_and_by_credentials() {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root || Command::new("setpriv").arg("--version").output().is_err() {
        println!("skipped: needs root and setpriv (util-linux)");
        return;
    }
    let served = Served::new(vec![vm_store(State::Healthy)], agree);
    let program = served.place.dir.path().join("pollux");
    fs::copy(env!("CARGO_BIN_EXE_pollux"), &program).unwrap();
    let as_nobody = || {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&program);
        command
            .args(["--node=alpha", "status", "--config"])
            .arg(&served.place.config);
        Ran::from(
            command
                .env_clear()
                .env("PATH", "/usr/bin:/bin")
                .output()
                .unwrap(),
        )
    };
    for mode in [0o600, 0o666] {
        fs::set_permissions(served.daemon().socket, fs::Permissions::from_mode(mode)).unwrap();
        let ran = as_nobody();
        assert_eq!(ran.exit, 8, "{ran:?}");
        assert!(ran.stderr.starts_with("error[E114]: the daemon"), "{ran:?}");
    }
    assert_eq!(served.pollux("status").exit, 0);
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let place = Place::new();
    let path = place.data_dir.join("pollux.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    block_on(async {
        let first = ApiSocket::bind(&path).unwrap();
        let second = ApiSocket::bind(&path).err().unwrap();
        assert_eq!(second.exit.number(), 1);
        assert!(second.text.ends_with("is already in use"), "{second}");
        drop(first);
        assert!(!path.exists());
        fs::write(&path, "a file").unwrap();
        assert_eq!(ApiSocket::bind(&path).err().unwrap().code, "E107");
        assert!(path.exists());
    });
}
