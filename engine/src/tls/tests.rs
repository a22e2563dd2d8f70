use std::collections::VecDeque;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use engine_ring::{Arena, ArenaConfig, BufSlice, Class};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair,
};
use rustls::Connection;

use super::link::OtherNode;
use super::*;

/// An authority in a folder.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub(crate) fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// A certificate with these names, in force for `life` or over for so long.
    fn issue(&self, names: &[&str], life: Result<Duration, Duration>) -> (Certificate, KeyPair) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let now = SystemTime::now();
        params.not_before = (now - Duration::from_secs(1 << 20)).into();
        params.not_after = match life {
            Ok(left) => (now + left).into(),
            Err(over) => (now - over).into(),
        };
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// Writes a node's files into a folder of its own.
    pub(crate) fn files(&self, dir: &Path, names: &[&str]) -> LinkFiles {
        let (certificate, key) = self.issue(names, Ok(Duration::from_secs(3600)));
        write(dir, self, &certificate, &key)
    }
}

fn write(dir: &Path, ca: &Authority, certificate: &Certificate, key: &KeyPair) -> LinkFiles {
    fs::create_dir_all(dir).unwrap();
    let files = LinkFiles {
        cert: dir.join("node-cert.pem"),
        key: dir.join("node-key.pem"),
        ca: Some(dir.join("ca-cert.pem")),
        pins: Vec::new(),
    };
    fs::write(&files.cert, certificate.pem()).unwrap();
    fs::write(&files.key, key.serialize_pem()).unwrap();
    fs::set_permissions(&files.key, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(files.ca.as_ref().unwrap(), &ca.pem).unwrap();
    files
}

/// Carries bytes between two ends until neither has more. Errors: of the dialling end and of the
/// accepting end.
fn shake(near: &mut Connection, far: &mut Connection) -> [Option<rustls::Error>; 2] {
    let mut errors = [None, None];
    for _ in 0..10 {
        for (index, (from, to)) in [(0, 1), (1, 0)].into_iter().enumerate() {
            let ends = [&mut *near, &mut *far];
            let mut bytes = Vec::new();
            while ends[from].wants_write() {
                ends[from].write_tls(&mut bytes).unwrap();
            }
            let mut bytes = &bytes[..];
            while !bytes.is_empty() {
                ends[to].read_tls(&mut bytes).unwrap();
                if let Err(why) = ends[to].process_new_packets() {
                    errors[1 - index].get_or_insert(why);
                    break;
                }
            }
        }
    }
    errors
}

/// Alpha dials beta: in words, what each says of the other.
fn meet(alpha: &LinkTls, beta: &LinkTls) -> [Option<String>; 2] {
    let (mut near, mut far) = (alpha.dial("beta").unwrap(), beta.accept().unwrap());
    shake(&mut near, &mut far).map(|error| error.map(|error| words_of(&error)))
}

#[test]
fn nodes_of_one_authority_meet_and_know_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Authority::new();
    let load = |name: &str| LinkTls::load(name, &ca.files(&dir.path().join(name), &[name]));
    let (alpha, beta) = (load("alpha").unwrap(), load("beta").unwrap());
    let (mut near, mut far) = (alpha.dial("beta").unwrap(), beta.accept().unwrap());
    assert_eq!(shake(&mut near, &mut far), [None, None]);
    assert_eq!(
        near.protocol_version(),
        Some(rustls::ProtocolVersion::TLSv1_3)
    );
    assert!(beta.is_node(&far, "alpha").is_ok());
    let OtherNode { names, .. } = beta.is_node(&far, "gamma").unwrap_err();
    assert_eq!(names, ["alpha"]);
    assert!(beta.is_node(&far, "Alpha").is_err(), "letter by letter");
}

#[test]
fn who_is_not_the_node_that_is_dialled_is_refused_on_both_sides() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, other) = (Authority::new(), Authority::new());
    let load = |ca: &Authority, name: &str, dir_name: &str| {
        LinkTls::load(name, &ca.files(&dir.path().join(dir_name), &[name])).unwrap()
    };
    let alpha = load(&ca, "alpha", "alpha");
    let said = |words: &str| Some(words.to_owned());
    assert_eq!(
        meet(&alpha, &load(&ca, "gamma", "gamma")),
        [
            said("its certificate is not that of node beta: it names gamma"),
            said("it says that our certificate is not that of the node it dials"),
        ]
    );
    assert_eq!(
        meet(&alpha, &load(&other, "beta", "other")),
        [
            said("its certificate is of an authority that is not known here"),
            said("it does not know the authority of our certificate"),
        ]
    );
    // Beta knows alpha's authority, but alpha's certificate is of another.
    let mut mixed = other.files(&dir.path().join("mixed"), &["alpha"]);
    mixed.ca = Some(dir.path().join("alpha/ca-cert.pem"));
    mixed.pins = vec![("alpha".to_owned(), own_pin(&mixed))];
    let stranger = LinkTls::load("alpha", &mixed).unwrap();
    assert_eq!(
        meet(&stranger, &load(&ca, "beta", "beta")),
        [
            said("it does not know the authority of our certificate"),
            said("its certificate is of an authority that is not known here"),
        ]
    );
}

fn own_pin(files: &LinkFiles) -> Fingerprint {
    Fingerprint::of(&certificates(&files.cert).unwrap()[0])
}

#[test]
fn a_pinned_certificate_is_its_nodes_and_no_other_is() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, other) = (Authority::new(), Authority::new());
    // Of any authority, with any name.
    let mut beta = other.files(&dir.path().join("beta"), &["whatever"]);
    let mut alpha = ca.files(&dir.path().join("alpha"), &["alpha"]);
    let pins = vec![
        ("alpha".to_owned(), own_pin(&alpha)),
        ("beta".to_owned(), own_pin(&beta)),
    ];
    (alpha.pins, beta.pins) = (pins.clone(), pins.clone());
    (alpha.ca, beta.ca) = (None, None);
    let load = |name: &str, files: &LinkFiles| LinkTls::load(name, files).unwrap();
    assert_eq!(
        meet(&load("alpha", &alpha), &load("beta", &beta)),
        [None, None]
    );
    // The authority's own beta is not the one that is pinned.
    let mut named = ca.files(&dir.path().join("named"), &["beta"]);
    named.pins = vec![pins[0].clone()];
    alpha.ca = named.ca.clone();
    let [near, _] = meet(&load("alpha", &alpha), &load("beta", &named));
    assert_eq!(
        near.unwrap(),
        "its certificate is not that of node beta: it names nobody"
    );
    assert!(matches!(
        LinkTls::load("beta", &LinkFiles { pins, ..named }),
        Err(TlsError::OtherFingerprint { .. })
    ));
}

#[test]
fn a_certificate_that_peers_would_refuse_is_refused_at_home() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, other) = (Authority::new(), Authority::new());
    let files = ca.files(&dir.path().join("alpha"), &["alpha", "alpha.example"]);
    assert!(LinkTls::load("alpha", &files).is_ok());
    let error = |node: &str, files: &LinkFiles| LinkTls::load(node, files).unwrap_err().to_string();
    assert!(
        error("beta", &files).ends_with("is not that of node beta: it names alpha, alpha.example")
    );
    let foreign = other.files(&dir.path().join("foreign"), &["alpha"]);
    let mixed = LinkFiles {
        ca: foreign.ca,
        ..files.clone()
    };
    assert!(error("alpha", &mixed).contains("is not of the authority in"));
    let (certificate, key) = ca.issue(&["alpha"], Err(Duration::from_secs(60)));
    let expired = write(&dir.path().join("expired"), &ca, &certificate, &key);
    assert!(error("alpha", &expired).contains("expired on"));
    let swapped = LinkFiles {
        key: foreign.key,
        ..files.clone()
    };
    assert!(matches!(
        LinkTls::load("alpha", &swapped),
        Err(TlsError::Mismatch { .. })
    ));
    fs::set_permissions(&files.key, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(error("alpha", &files).contains("is open to others"));
}

#[test]
fn a_fingerprint_is_written_as_it_is_read() {
    let pin = Fingerprint::of(b"");
    let text = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(pin.to_string(), text);
    assert_eq!(text.parse(), Ok(pin));
    let digits = text.strip_prefix("sha256:").unwrap().to_uppercase();
    let pairs: Vec<&str> = (0..32).map(|at| &digits[at * 2..at * 2 + 2]).collect();
    assert_eq!(format!("sha256:{}", pairs.join(":")).parse(), Ok(pin));
    for bad in [
        "",
        "sha256:",
        &text[7..],
        &text[..70],
        &text.replace('e', "x"),
    ] {
        assert_eq!(bad.parse::<Fingerprint>(), Err(WrongFingerprint), "{bad}");
    }
}

/// Two ends of a finished handshake.
fn ends() -> (Connection, Connection) {
    let dir = tempfile::tempdir().unwrap();
    let ca = Authority::new();
    let load = |name: &str| LinkTls::load(name, &ca.files(&dir.path().join(name), &[name]));
    let mut near = load("alpha").unwrap().dial("beta").unwrap();
    let mut far = load("beta").unwrap().accept().unwrap();
    assert_eq!(shake(&mut near, &mut far), [None, None]);
    (near, far)
}

#[test]
fn bytes_come_out_as_they_went_in_however_the_stream_is_cut() {
    let (mut near, mut far) = ends();
    let mut arena = Arena::new(&ArenaConfig::with_bytes(0, 16 << 20)).unwrap();
    let (mut sealer, mut opener) = (Sealer::default(), Opener::default());
    let rx = arena.alloc(Class::Net, 128 << 10).unwrap();
    let into = arena.alloc(Class::Net, 128 << 10).unwrap();
    let mut sent = Vec::new();
    let mut plain = VecDeque::new();
    for (index, len) in [1, 32, 4096, 70_000, 16_384, 5, 130_000, 33]
        .into_iter()
        .enumerate()
    {
        let buf = arena.alloc(Class::Net, len).unwrap();
        let slice = buf.slice(0, len as u32);
        let bytes = (0..len).map(|at| (at * 7 + index) as u8);
        let bytes: Vec<u8> = bytes.collect();
        arena.slice_mut(slice).copy_from_slice(&bytes);
        sent.extend(bytes);
        plain.push_back(slice);
    }
    let mut came: Vec<u8> = Vec::new();
    let mut step = 1;
    let mut rest: Option<BufSlice> = None;
    while came.len() < sent.len() {
        sealer.seal(&mut near, &mut plain, &mut arena);
        rest = rest.or_else(|| sealer.fly());
        let flying = rest.expect("what is not here yet is on its way");
        // A socket takes some of it, and brings it to the other end.
        step = step * 3 % 40_009 + 1;
        let count = flying.len.min(step);
        arena.copy(
            BufSlice {
                len: count,
                ..flying
            },
            rx.slice(0, count),
        );
        rest = sealer.landed(count, &mut arena);
        opener.received(count);
        loop {
            let wanted = into.slice(0, 1 + step * 2 % 100_000);
            match opener.open(&mut far, Some(rx), wanted, &mut arena) {
                Opened::Bytes(count) => came.extend(arena.slice(into.slice(0, count))),
                Opened::Nothing => break,
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(came == sent);
    assert!(plain.is_empty() && !sealer.is_flying() && !sealer.is_waiting());
}

#[test]
fn a_damaged_record_is_never_opened() {
    let (mut near, mut far) = ends();
    let mut arena = Arena::new(&ArenaConfig::with_bytes(0, 16 << 20)).unwrap();
    let (mut sealer, mut opener) = (Sealer::default(), Opener::default());
    let buf = arena.alloc(Class::Net, 4096).unwrap();
    let mut plain = VecDeque::from([buf.slice(0, 4096)]);
    sealer.seal(&mut near, &mut plain, &mut arena);
    let flying = sealer.fly().unwrap();
    let rx = arena.alloc(Class::Net, 128 << 10).unwrap();
    arena.copy(flying, rx.slice(0, flying.len));
    arena.slice_mut(rx.slice(2000, 1))[0] ^= 1;
    opener.received(flying.len);
    let into = arena.alloc(Class::Net, 4096).unwrap().slice(0, 4096);
    let opened = opener.open(&mut far, Some(rx), into, &mut arena);
    assert!(matches!(opened, Opened::Broken(_)), "{opened:?}");
}
