//! Nodes whose TLS does not fit: refused on both sides with the cause, and nothing changes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use conformance::{Lab, eventually};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use scenario::disk::{attach, write};
use scenario::{NODES, Pair, Wire, certify, replica};
use serde_json::Value;

const MEBIBYTES: u64 = 16;
const SOON: Duration = Duration::from_secs(20);

fn until_said(pair: &Pair, index: usize, words: &str) {
    eventually(SOON, words, || {
        pair.daemon(index).log().contains(words).then_some(())
    });
}

/// A lab, after `change`, whose nodes run; both replicas are created.
fn created(lab: Lab, change: impl FnOnce(&Lab)) -> Pair {
    change(&lab);
    let pair = Pair::running_in(lab);
    for node in NODES {
        pair.lab.done(node, &["volume", "create", "v"]);
    }
    pair
}

/// The volume cannot be founded, each side says why, and both stay blank.
fn stay_strangers(pair: &Pair, alpha_says: &str, beta_says: &str) {
    until_said(pair, 0, alpha_says);
    until_said(pair, 1, beta_says);
    let refused = pair.promote(0, "2s");
    assert_eq!(refused.exit, 4, "{refused:?}");
    for index in [0, 1] {
        let volume = pair.volume(index);
        assert_eq!(volume["generation"], Value::Null, "{volume:#}");
        assert_ne!(volume["state"], "healthy");
    }
    let volume = pair.volume(0);
    let reason = volume["reason"]["text"].as_str().unwrap_or_default();
    assert!(reason.contains("W123"), "{reason}");
    assert_eq!(replica(&volume, "beta")["disk_state"], "unknown");
}

#[test]
fn a_node_of_another_authority_is_refused() {
    let pair = created(Pair::sealed_lab(MEBIBYTES), |lab| {
        certify(lab, "another", "beta");
    });
    stay_strangers(
        &pair,
        "its certificate is of an authority that is not known here",
        "it does not know the authority of our certificate",
    );
}

/// Takes `[tls]` out of the file that one node starts with.
fn without_tls(lab: Lab, node: &str) -> Pair {
    let plain = lab.path("plain.toml");
    let text = lab.config_text("lab", &Pair::volume_text(MEBIBYTES));
    fs::write(&plain, text).expect("the lab's folder is writable");
    let daemons = NODES.map(|name| {
        let command = match name == node {
            true => lab.command_with(&plain, name, &["serve"]),
            false => lab.command(name, &["serve"]),
        };
        let daemon = lab.serve_as(name, command);
        lab.done(name, &["volume", "create", "v"]);
        Some(daemon)
    });
    Pair { daemons, lab }
}

#[test]
fn a_node_that_dials_without_tls_is_refused() {
    let pair = without_tls(Pair::sealed_lab(MEBIBYTES), "alpha");
    stay_strangers(
        &pair,
        "it refuses this node: TLS of the two does not fit",
        "it comes without TLS, which this node asks for",
    );
}

#[test]
fn a_node_that_answers_without_tls_is_refused() {
    let pair = without_tls(Pair::sealed_lab(MEBIBYTES), "beta");
    stay_strangers(
        &pair,
        "it has no TLS for replication",
        "it uses TLS, and this node has no certificates for replication",
    );
}

#[test]
fn a_node_with_the_certificate_of_another_does_not_start() {
    let lab = Pair::sealed_lab(MEBIBYTES);
    certify(&lab, "authority", "beta");
    let (from, to) = (lab.node("beta").file("tls"), lab.node("alpha").file("tls"));
    for name in ["node-cert.pem", "node-key.pem"] {
        fs::rename(from.join(name), to.join(name)).expect("both were made");
    }
    for words in [&["config", "check"][..], &["serve"]] {
        let refused = lab.pollux("alpha", words);
        assert_eq!(refused.exit, 9, "{refused:?}");
        let said = refused.stdout + &refused.stderr;
        assert!(said.contains("E015"), "{said}");
        let words = said.split_whitespace().filter(|word| *word != "│");
        let words: Vec<&str> = words.collect();
        assert!(words.join(" ").contains("it names beta"), "{said}");
    }
}

/// Gives a node a certificate of its authority that holds for so long.
fn certify_for(lab: &Lab, node: &str, life: Duration) {
    let folder = lab.path("authority");
    let text = |name: &str| fs::read_to_string(folder.join(name)).expect("it was made");
    let key = KeyPair::from_pem(&text("ca-key.pem")).expect("it is a key");
    let issuer = Issuer::from_ca_cert_pem(&text("ca-cert.pem"), key).expect("it is an authority");
    let mut params = CertificateParams::new(vec![node.to_owned()]).expect("it is a name");
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.not_before = (SystemTime::now() - Duration::from_secs(60)).into();
    params.not_after = (SystemTime::now() + life).into();
    let key = KeyPair::generate().expect("keys can be made");
    let certificate = params.signed_by(&key, &issuer).expect("it is signed");
    let own = lab.node(node).file("tls");
    fs::write(own.join("node-cert.pem"), certificate.pem()).expect("the folder is ours");
    fs::write(own.join("node-key.pem"), key.serialize_pem()).expect("the folder is ours");
    let closed = fs::Permissions::from_mode(0o600);
    fs::set_permissions(own.join("node-key.pem"), closed).expect("the file is ours");
}

#[test]
fn a_certificate_that_has_expired_makes_no_new_link() {
    let lab = Pair::sealed_lab(MEBIBYTES);
    let life = Duration::from_secs(25);
    certify_for(&lab, "beta", life);
    let expires = SystemTime::now() + life;
    let (wire, mut pair) = Wire::healthy_pair_of(lab, &Pair::sealed_text(MEBIBYTES));
    let left = expires.duration_since(SystemTime::now());
    std::thread::sleep(left.unwrap_or_default() + Duration::from_secs(2));
    // A link that stands is not ended by it.
    let mut client = attach(&pair.uri(0));
    assert_eq!(write(&mut client, 0, &[1; 1 << 20]), Ok(()));
    assert_eq!(pair.volume(0)["state"], "healthy");
    wire.cut();
    wire.heal();
    until_said(&pair, 0, "its certificate has expired");
    until_said(
        &pair,
        1,
        "it says that our certificate has expired, or is not in force yet",
    );
    assert_eq!(write(&mut client, 1 << 20, &[2; 1 << 20]), Ok(()));
    assert_eq!(pair.volume(0)["state"], "degraded");
    certify(&pair.lab, "authority", "beta");
    let config = pair.lab.path("beta-wired.toml");
    let apply = pair.lab.command_with(&config, "beta", &["config", "apply"]);
    assert_eq!(conformance::tools::run(apply, SOON).exit, 0);
    pair.until_healthy(0);
    drop(client);
    pair.stop_and_compare(0, MEBIBYTES);
}

#[test]
fn another_node_at_the_address_of_a_peer_is_refused() {
    let nodes = ["alpha", "beta", "gamma"];
    let of_beta = Pair::sealed_text(MEBIBYTES);
    let of_gamma = of_beta.replace("\"beta\"]", "\"gamma\"]");
    let lab = Lab::new(&nodes, &of_gamma);
    nodes
        .iter()
        .for_each(|node| certify(&lab, "authority", node));
    // Where alpha believes beta to be, gamma is.
    let wrong = lab.path("wrong.toml");
    let address = |node: &str| format!("\"{}\"", lab.node(node).replication.address());
    let swapped = lab
        .config_text("lab", &of_beta)
        .replace(&address("beta"), "\"?\"")
        .replace(&address("gamma"), &address("beta"))
        .replace("\"?\"", &address("gamma"));
    fs::write(&wrong, swapped).expect("the lab's folder is writable");
    let gamma = lab.serve("gamma");
    let alpha = lab.serve_as("alpha", lab.command_with(&wrong, "alpha", &["serve"]));
    for node in ["alpha", "gamma"] {
        lab.done(node, &["volume", "create", "v"]);
    }
    for (daemon, words) in [
        (
            &alpha,
            "its certificate is not that of node beta: it names gamma",
        ),
        (
            &gamma,
            "it says that our certificate is not that of the node it dials",
        ),
    ] {
        eventually(SOON, words, || daemon.log().contains(words).then_some(()));
    }
    let volume = lab.volume("alpha", "v");
    assert_eq!(volume["generation"], Value::Null, "{volume:#}");
}
