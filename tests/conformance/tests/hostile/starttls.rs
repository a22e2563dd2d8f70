//! What comes in the clear around STARTTLS: it never counts as what came under TLS.

use std::time::Duration;

use conformance::Lab;
use conformance::raw::{self, Raw, cmd, opt, rep};

use crate::stage::{MEBIBYTES, Stage, Witness};

const SOON: Duration = Duration::from_secs(5);

/// A stage whose server has TLS, required of nobody.
pub fn with_tls() -> Stage {
    let volume = format!(
        "[volume.v]\nsize = \"{MEBIBYTES}MiB\"\nbacking = \"memory\"\n\
         replicas = [\"solo\"]\nnbd = [{{ name = \"v\" }}]\n"
    );
    let lab = Lab::new(&["solo"], &(Lab::tls_table("solo") + &volume));
    let folder = lab.path("tls").display().to_string();
    lab.done("solo", &["tls", "init", &folder]);
    let daemon = lab.serve("solo");
    lab.done("solo", &["volume", "create", "v"]);
    lab.until_serving("solo", "v", Duration::from_secs(10));
    Stage { daemon, lab }
}

#[test]
fn plaintext_behind_starttls_is_never_obeyed() {
    let stage = with_tls();
    let witness = Witness::start(&stage);
    let before = stage.vitals();
    let start = raw::option(opt::STARTTLS, &[]);
    let injected: [Vec<u8>; 6] = [
        raw::option(opt::LIST, &[]),
        raw::option(opt::GO, &raw::info("v", &[])),
        raw::option(opt::EXPORT_NAME, b"v"),
        raw::option(opt::ABORT, &[]),
        raw::option(opt::STARTTLS, &[]),
        [
            raw::option(opt::GO, &raw::info("v", &[])),
            raw::request(0, cmd::WRITE_ZEROES, 1, 0, 4096),
        ]
        .concat(),
    ];
    for words in &injected {
        // In one piece, and with time between: the answer to STARTTLS alone comes back, if any.
        for is_slow in [false, true] {
            let mut client = greeted(&stage);
            if is_slow {
                client.send(&start).expect("it is taken");
                acknowledged(&mut client);
                // It may be closed before all of this was taken.
                let _ = client.send(words);
            } else {
                client
                    .send(&[start.clone(), words.clone()].concat())
                    .expect("it is taken");
            }
            let heard = client.all_until_closed(SOON).expect("the connection ends");
            let rest = if is_slow {
                &heard[..]
            } else {
                after_starttls(&heard)
            };
            // A TLS alert may follow; a reply of NBD may not.
            for magic in [
                &0x0003_e889_0455_65a9u64.to_be_bytes()[..],
                &[0x67, 0x44, 0x66, 0x98],
            ] {
                let is_there = rest.windows(magic.len()).any(|part| part == magic);
                assert!(!is_there, "{words:x?} was answered: {rest:x?}");
            }
        }
    }
    witness.goes_on(10);
    stage.until_clients(1, &before);
}

#[test]
fn a_tls_handshake_that_stops_or_is_noise_ends_in_time() {
    let stage = with_tls();
    let witness = Witness::start(&stage);
    let before = stage.vitals();
    // The beginning of a ClientHello that announces the longest record, noise, records of no length.
    let words: [Vec<u8>; 5] = [
        vec![],
        b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03".to_vec(),
        vec![0xff; 20_000],
        b"\x16\x03\x03\x00\x00".repeat(4000),
        [&b"\x16\x03\x01\xff\xff"[..], &[1; 70_000]].concat(),
    ];
    let mut clients: Vec<Raw> = words
        .iter()
        .map(|words| {
            let mut client = greeted(&stage);
            client
                .send(&raw::option(opt::STARTTLS, &[]))
                .expect("it is taken");
            acknowledged(&mut client);
            // It may be closed before all of this was taken.
            let _ = client.send(words);
            client
        })
        .collect();
    for (client, words) in clients.iter_mut().zip(&words) {
        let start = &words[..words.len().min(8)];
        assert!(
            client.is_closed_within(Duration::from_secs(16)),
            "{start:x?}"
        );
    }
    witness.goes_on(10);
    stage.until_clients(1, &before);
}

fn greeted(stage: &Stage) -> Raw {
    let mut client = stage.connect();
    client.hello(3);
    client
}

fn acknowledged(client: &mut Raw) {
    let replies = client
        .option_replies(opt::STARTTLS)
        .expect("STARTTLS is answered");
    assert_eq!(replies, [(rep::ACK, Vec::new())]);
}

/// What follows the acknowledgement of STARTTLS; all of it if there is none.
fn after_starttls(heard: &[u8]) -> &[u8] {
    let mut acknowledgement = 0x0003_e889_0455_65a9u64.to_be_bytes().to_vec();
    acknowledgement.extend(opt::STARTTLS.to_be_bytes());
    acknowledgement.extend(rep::ACK.to_be_bytes());
    acknowledgement.extend(0u32.to_be_bytes());
    heard.strip_prefix(&acknowledgement[..]).unwrap_or(heard)
}
