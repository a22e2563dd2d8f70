//! The generator against a server in this process, and against real ones where installed.

use std::process::{Child, Command};

use nbd_proto::{NbdError, UriTls};

use super::toy::{Fault, Toy, make_certificates};
use super::*;
use crate::workload::{Place, Point, fill, parse_mix, parse_sizes};

/// Runs of [`short`] before a server is taken for dead.
const TRIES: u32 = 20;

fn plan(uri: &NbdUri, point: &str) -> Plan {
    let load = point.parse::<Point>().unwrap().into();
    Plan {
        uri: uri.clone(),
        load,
        rate: None,
        size: None,
        seed: 3,
        cpu: None,
        server: None,
        helpers: Vec::new(),
    }
}

fn briefly() -> Times {
    Times::new(Duration::from_millis(20), Duration::from_millis(150))
}

/// Measures until something was: a machine shared with others may stand still for longer than the
/// measured time, and that says nothing about the generator.
fn short(plan: &Plan) -> Result<Measured, LoadError> {
    for _ in 0..TRIES {
        let measured = measure(plan, briefly())?;
        if measured.requests > 0 {
            return Ok(measured);
        }
    }
    panic!("{TRIES} runs ended without one reply");
}

#[test]
fn a_run_through_which_the_server_stood_still_counts_nothing_and_is_made_again() {
    let pausing = || Toy::start(1 << 20, false, Fault::Pause(0, Duration::from_millis(600)));
    // One for each: a run ends only after the pause.
    let toys = [pausing(), pausing()];
    let [once, again] = toys.each_ref().map(|toy| plan(&toy.uri, "randread:4k:1"));
    assert_eq!(measure(&once, briefly()).unwrap().requests, 0);
    assert!(short(&again).unwrap().requests > 0);
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
        // Those in flight at the beginning are requests only, those at the end latencies only.
        assert!(measured.latency.len() <= measured.requests + in_flight);
        assert!(measured.latency.len() + in_flight >= measured.requests);
        let parts: u64 = measured.intervals.iter().map(|i| i.requests).sum();
        assert_eq!(parts, measured.requests);
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
            kind: "write",
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

#[test]
fn under_tls_what_was_written_is_read_back() {
    let toy = Toy::start_secure(4 << 20);
    for point in ["read:4k:64", "read:512:3:2", "read:1m:4"] {
        let verified = verify(&plan(&toy.uri, point)).unwrap();
        assert_eq!(verified.bytes, 4 << 20, "{point}");
    }
    let measured = short(&plan(&toy.uri, "randrw:4k:16:2")).unwrap();
    assert!(measured.requests > 0);
    let done = handshakes(&toy.uri, Duration::from_millis(100), None, None).unwrap();
    assert!(done.count > 0 && done.latency.len() == done.count);
}

#[test]
fn a_server_that_is_not_trusted_or_has_no_tls_gets_no_request() {
    let toy = Toy::start_secure(1 << 20);
    let trusting = |folder: Option<String>| NbdUri {
        tls: Some(UriTls {
            certificates: folder,
        }),
        ..toy.uri.clone()
    };
    let other = tempfile::tempdir().unwrap();
    make_certificates(other.path());
    let other = Some(other.path().display().to_string());
    let error = short(&plan(&trusting(other.clone()), "read:4k:1")).unwrap_err();
    assert!(matches!(error, LoadError::Handshake(_)), "{error}");
    let error = short(&plan(&trusting(None), "read:4k:1")).unwrap_err();
    assert!(matches!(error, LoadError::NoCertificates), "{error}");
    let nowhere = Some("/nonexistent".to_owned());
    let error = short(&plan(&trusting(nowhere), "read:4k:1")).unwrap_err();
    assert!(error.to_string().starts_with("/nonexistent/ca-cert.pem: "));
    assert_eq!(toy.requests(), 0);
    let plain = Toy::start(1 << 20, false, Fault::None);
    let certificates = toy.uri.tls.clone();
    let uri = NbdUri {
        tls: certificates,
        ..plain.uri.clone()
    };
    let error = short(&plan(&uri, "read:4k:1")).unwrap_err();
    assert!(matches!(error, LoadError::Negotiate(_)), "{error}");
    assert_eq!(plain.requests(), 0);
}

/// An open loop of `rate` on a toy that stands still for 300 ms in the middle.
fn through_a_stall(rate: Option<u64>, depth: u32) -> Measured {
    let toy = Toy::start(
        1 << 20,
        false,
        Fault::Pause(200, Duration::from_millis(300)),
    );
    let plan = Plan {
        rate,
        ..plan(&toy.uri, &format!("randread:4k:{depth}"))
    };
    measure(&plan, Times::new(Duration::ZERO, Duration::from_secs(1))).unwrap()
}

#[test]
fn a_stalled_server_shows_its_stall_in_the_percentiles_of_an_open_loop() {
    // 1000 each second for 1 s, of which 300 ms are a stall: 300 requests wait 0 to 300 ms.
    let measured = through_a_stall(Some(1000), 4);
    assert_eq!((measured.latency.len(), measured.unsent), (1000, 0));
    let ms = |quantile| measured.latency.value_at_quantile(quantile) as f64 / 1e6;
    assert!(ms(0.5) < 100.0, "{}", ms(0.5));
    assert!((150.0..400.0).contains(&ms(0.9)), "{}", ms(0.9));
    assert!((250.0..500.0).contains(&ms(0.99)), "{}", ms(0.99));
    // A closed loop sends nothing meanwhile, and sees one slow request.
    let closed = through_a_stall(None, 1);
    let p99 = closed.latency.value_at_quantile(0.99);
    assert!(p99 < 100_000_000, "{p99}");
    assert!(closed.latency.max() >= 290_000_000);
}

#[test]
fn an_open_loop_keeps_its_rate_and_counts_what_it_could_not_send() {
    let toy = Toy::start(1 << 20, false, Fault::None);
    let open = |rate, depth: u32| {
        let plan = Plan {
            rate: Some(rate),
            ..plan(&toy.uri, &format!("randread:4k:{depth}:2"))
        };
        measure(
            &plan,
            Times::new(Duration::ZERO, Duration::from_millis(500)),
        )
        .unwrap()
    };
    let kept = open(2000, 64);
    assert_eq!((kept.latency.len(), kept.unsent), (1000, 0));
    assert!((900..=1100).contains(&kept.requests), "{}", kept.requests);
    // More than anything on two cores serves: what was due counts, sent or not.
    let over = open(20_000_000, 8);
    assert_eq!(over.latency.len(), 10_000_000);
    assert!(over.unsent > 0 && over.latency.max() > 500_000_000);
}

#[test]
fn a_run_is_cut_into_pieces() {
    let toy = Toy::start(1 << 20, false, Fault::None);
    let times = Times {
        interval: Duration::from_millis(50),
        ..Times::new(Duration::ZERO, Duration::from_millis(220))
    };
    let measured = measure(&plan(&toy.uri, "randread:4k:4"), times).unwrap();
    assert_eq!(measured.intervals.len(), 5);
    for interval in &measured.intervals {
        assert!(interval.requests > 0 && interval.server_cpu.is_some());
    }
}

#[test]
fn a_mix_reaches_the_server_as_it_was_asked_for() {
    let toy = Toy::start(1 << 20, false, Fault::None);
    let simple = plan(&toy.uri, "randread:4k:8:2");
    let load = Load {
        kinds: parse_mix("read=70,write=30").unwrap(),
        sizes: parse_sizes("4k:80,64k:20").unwrap(),
        place: Place::Zipf(1.1),
        ..simple.load.clone()
    };
    let measured = short(&Plan {
        load,
        ..simple.clone()
    })
    .unwrap();
    let mean = measured.bytes as f64 / measured.requests as f64;
    assert!((8_000.0..25_000.0).contains(&mean), "{mean}");
    let load = Load {
        kinds: parse_mix("read=1,trim=1").unwrap(),
        ..simple.load.clone()
    };
    let error = short(&Plan { load, ..simple }).unwrap_err();
    assert_eq!(error.to_string(), "the server does not offer trim");
}

#[test]
fn contents_of_several_sizes_are_not_verified() {
    let toy = Toy::start(1 << 20, false, Fault::None);
    let mut plan = plan(&toy.uri, "read:4k:4");
    plan.load.sizes = parse_sizes("4k:1,8k:1").unwrap();
    assert!(matches!(verify(&plan), Err(LoadError::OneSize)));
    assert_eq!(toy.requests(), 0);
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
