//! The generator against a server in this process, and against real ones where installed.

use std::process::{Child, Command};

use nbd_proto::NbdError;

use super::toy::{Fault, Toy};
use super::*;
use crate::workload::fill;

fn plan(uri: &NbdUri, point: &str) -> Plan {
    let point = point.parse().unwrap();
    Plan {
        uri: uri.clone(),
        point,
        size: None,
        seed: 3,
        cpu: None,
        server: None,
    }
}

fn short(plan: &Plan) -> Result<Measured, LoadError> {
    measure(plan, Duration::from_millis(20), Duration::from_millis(150))
}

#[test]
fn every_request_the_server_saw_is_counted_or_was_outside_the_measured_time() {
    let toy = Toy::start(1 << 20, false, Fault::None);
    for point in [
        "randread:4k:16",
        "randwrite:4k:16",
        "randrw:512:3:4",
        "read:64k:2",
        "write:1m:1",
    ] {
        let before = toy.requests();
        let measured = short(&plan(&toy.uri, point)).unwrap();
        let seen = toy.requests() - before;
        assert!(
            measured.requests > 0 && measured.requests <= seen,
            "{point}: {measured:?}"
        );
        let block = u64::from(point.parse::<Point>().unwrap().block);
        assert_eq!(measured.bytes, measured.requests * block);
        let point: Point = point.parse().unwrap();
        let in_flight = u64::from(point.depth * point.connections);
        assert!(measured.latency.len() <= measured.requests);
        assert!(measured.latency.len() + in_flight >= measured.requests);
        assert!(measured.elapsed >= Duration::from_millis(150));
    }
}

#[test]
fn the_listener_behind_a_unix_socket_is_accounted_for() {
    let toy = Toy::start(1 << 20, false, Fault::None);
    let measured = short(&plan(&toy.uri, "randread:4k:8")).unwrap();
    // The toy lives in this process, which is client and server at once.
    assert!(measured.usage.server.unwrap() > Duration::ZERO);
    assert!(measured.client_cpu > Duration::ZERO);
}

#[test]
fn latencies_are_between_the_fastest_turn_and_the_whole_run() {
    let toy = Toy::start(1 << 20, false, Fault::None);
    let begun = std::time::Instant::now();
    let measured = short(&plan(&toy.uri, "randread:4k:4")).unwrap();
    let whole = begun.elapsed().as_nanos() as u64;
    assert!(
        measured.latency.min() > 500,
        "{} ns",
        measured.latency.min()
    );
    assert!(measured.latency.max() < whole);
    let mean_ns = measured.elapsed.as_nanos() as f64 * 4.0 / measured.requests as f64;
    // Little's law, generously: a closed loop of four has four in flight on average.
    let ratio = measured.latency.mean() / mean_ns;
    assert!((0.2..1.1).contains(&ratio), "{ratio}");
}

#[test]
fn what_was_written_is_what_lies_there_and_is_read_back() {
    let toy = Toy::start(1 << 20, false, Fault::None);
    for point in ["read:4k:16", "read:512:7:3", "read:192k:3", "read:1m:2"] {
        let verified = verify(&plan(&toy.uri, point)).unwrap();
        let block = point.parse::<Point>().unwrap().block as usize;
        assert_eq!(verified.blocks, ((1 << 20) / block) as u64);
        assert_eq!(verified.bytes, verified.blocks * block as u64);
        let mut expected = vec![0; block];
        for (number, found) in toy.contents().chunks_exact(block).enumerate() {
            fill(&mut expected, (number * block) as u64, 3);
            assert_eq!(found, expected, "block {number} of {point}");
        }
    }
}

#[test]
fn preconditioning_leaves_no_block_blank() {
    let toy = Toy::start(1 << 20, false, Fault::None);
    let plan = Plan {
        size: Some(512 << 10),
        ..plan(&toy.uri, "write:64k:4")
    };
    assert_eq!(precondition(&plan).unwrap(), 512 << 10);
    let contents = toy.contents();
    assert!(
        contents[..512 << 10]
            .chunks(64)
            .all(|chunk| chunk.iter().any(|byte| *byte != 0))
    );
    assert!(contents[512 << 10..].iter().all(|byte| *byte == 0));
}

#[test]
fn an_error_reply_ends_the_run_with_the_request_it_answered() {
    let toy = Toy::start(1 << 20, false, Fault::Eio(40));
    let error = short(&plan(&toy.uri, "randwrite:4k:8")).unwrap_err();
    assert!(matches!(
        error,
        LoadError::Refused {
            is_write: true,
            length: 4096,
            error: NbdError::Io,
            ..
        }
    ));
    let text = error.to_string();
    assert!(text.starts_with("a write of 4096 bytes at "), "{text}");
    assert!(
        text.ends_with(" was answered with: input/output error"),
        "{text}"
    );
}

#[test]
fn a_server_that_hangs_up_ends_the_run() {
    let toy = Toy::start(1 << 20, false, Fault::Close(40));
    let error = short(&plan(&toy.uri, "randread:4k:8")).unwrap_err();
    let is_end = matches!(error, LoadError::Closed(_) | LoadError::Broken { .. });
    assert!(is_end, "{error}");
}

#[test]
fn a_reply_nobody_waits_for_ends_the_run() {
    let toy = Toy::start(1 << 20, false, Fault::Cookie(10));
    let error = short(&plan(&toy.uri, "randread:4k:8")).unwrap_err();
    assert!(
        matches!(error, LoadError::Cookie(cookie) if cookie >> 63 == 1),
        "{error}"
    );
}

#[test]
fn one_turned_bit_is_found() {
    // Writes come first: 256 of them.
    let toy = Toy::start(1 << 20, false, Fault::Flip(256 + 77));
    let error = verify(&plan(&toy.uri, "read:4k:16")).unwrap_err();
    let LoadError::Differs {
        at,
        expected,
        found,
    } = error
    else {
        panic!("{error}")
    };
    assert_eq!((at % 4096, expected ^ found), (4095, 1));
}

#[test]
fn what_the_export_does_not_allow_is_refused_before_anything_is_sent() {
    let toy = Toy::start(64 << 10, true, Fault::None);
    let refused = |point, size| {
        short(&Plan {
            size,
            ..plan(&toy.uri, point)
        })
        .unwrap_err()
    };
    assert!(matches!(
        refused("randwrite:4k:1", None),
        LoadError::ReadOnly
    ));
    assert!(matches!(
        refused("read:100:1", None),
        LoadError::BlockSize { minimum: 512, .. }
    ));
    assert!(matches!(
        refused("read:2m:1", None),
        LoadError::BlockSize {
            maximum: 0x10_0000,
            ..
        } | LoadError::NoBlocks { .. }
    ));
    assert!(matches!(
        refused("read:128k:1", None),
        LoadError::NoBlocks { .. }
    ));
    let small = refused("read:4k:1", Some(1 << 20));
    assert!(matches!(
        small,
        LoadError::TooSmall {
            exported: 0x1_0000,
            asked: 0x10_0000
        }
    ));
    assert_eq!(toy.requests(), 0);
}

#[test]
fn nobody_there_is_told_with_the_address() {
    let uri: NbdUri = "nbd+unix:///?socket=/nonexistent/s".parse().unwrap();
    let error = short(&plan(&uri, "read:4k:1")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot connect to nbd+unix:///?socket=/nonexistent/s"
    );
}

/// A real server, killed at the end of the test.
struct Real(Child);

impl Drop for Real {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts `command`, which makes a socket at `socket`. `None`, and a line, if not installed.
fn real(command: &mut Command, socket: &std::path::Path) -> Option<Real> {
    let Ok(child) = command.spawn() else {
        eprintln!(
            "skipped: {} is not installed",
            command.get_program().display()
        );
        return None;
    };
    let real = Real(child);
    for _ in 0..200 {
        if std::os::unix::net::UnixStream::connect(socket).is_ok() {
            return Some(real);
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    panic!(
        "{} made no socket in five seconds",
        command.get_program().display()
    );
}

fn prove(uri: &NbdUri, server: u32) {
    let verified = verify(&Plan {
        size: Some(8 << 20),
        ..plan(uri, "read:4k:64")
    })
    .unwrap();
    assert_eq!(verified.blocks, 2048);
    let verified = verify(&Plan {
        size: Some(8 << 20),
        ..plan(uri, "read:1m:4")
    })
    .unwrap();
    assert_eq!(verified.blocks, 8);
    let measured = short(&Plan {
        server: Some(server),
        ..plan(uri, "randrw:4k:16")
    })
    .unwrap();
    assert!(measured.requests > 0 && measured.usage.server.unwrap() > Duration::ZERO);
}

#[test]
fn nbdkit_gives_back_what_was_written() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    let mut command = Command::new("nbdkit");
    command
        .args(["-f", "-U"])
        .arg(&socket)
        .args(["memory", "64M"]);
    let Some(server) = real(&mut command, &socket) else {
        return;
    };
    let uri = format!("nbd+unix:///?socket={}", socket.display());
    prove(&uri.parse().unwrap(), server.0.id());
}

#[test]
fn qemu_nbd_gives_back_what_was_written() {
    let directory = tempfile::tempdir().unwrap();
    let (socket, image) = (directory.path().join("s"), directory.path().join("image"));
    std::fs::File::create(&image)
        .unwrap()
        .set_len(64 << 20)
        .unwrap();
    let mut command = Command::new("qemu-nbd");
    command
        .args(["-t", "-e", "8", "-f", "raw", "-k"])
        .arg(&socket)
        .arg(&image);
    let Some(server) = real(&mut command, &socket) else {
        return;
    };
    let uri = format!("nbd+unix:///?socket={}", socket.display());
    prove(&uri.parse().unwrap(), server.0.id());
}
