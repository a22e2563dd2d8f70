//! Links under TLS, and nodes that do not agree on it.

use super::*;
use crate::tls::tests::Authority;

/// Alpha and beta with these certificates.
fn pair(alpha: Option<LinkTls>, beta: Option<LinkTls>) -> [Stand; 2] {
    let with = |tls| move |common: &mut Common| common.tls = RwLock::new(tls);
    pair_of(with(alpha), with(beta))
}

/// Certificates of one authority.
struct Folder(Authority, tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(Authority::new(), tempfile::tempdir().unwrap())
    }

    fn of(&self, node: &str) -> Option<LinkTls> {
        let files = self.0.files(&self.1.path().join(node), &[node]);
        Some(LinkTls::load(node, &files).unwrap())
    }
}

#[test]
fn under_tls_both_kinds_of_connections_come_up_and_ballots_arrive() {
    let folder = Folder::new();
    let [alpha, beta] = pair(folder.of("alpha"), folder.of("beta"));
    until("both know each other", || {
        alpha.ear.heard().connected == 1 && beta.ear.heard().connected == 1
    });
    until("the data connection is under TLS", || {
        let heard = alpha.ear.heard();
        heard.sockets.iter().any(|socket| socket.session.is_some())
    });
    for number in 0..100 {
        Peers::say(&alpha.peers.bells().now(), "beta", "v", ballot(number));
        Peers::say(&beta.peers.bells().now(), "alpha", "v", ballot(number));
    }
    until("ballots arrive", || {
        [&alpha, &beta]
            .iter()
            .all(|s| s.ear.heard().votes.len() == 100)
    });
    // Longer than the timeout: pings pass as well.
    std::thread::sleep(Duration::from_millis(900));
    assert_eq!(alpha.ear.heard().gone + beta.ear.heard().gone, 0);
}

fn refused(stand: &Stand, peer: &str) -> bool {
    let refused = &stand.ear.heard().refused;
    refused.contains(&(peer.to_owned(), Refusal::Tls))
}

#[test]
fn a_node_without_tls_and_one_with_it_refuse_each_other_with_the_cause() {
    let folder = Folder::new();
    let [alpha, beta] = pair(folder.of("alpha"), None);
    alpha.until_said("W123", "it has no TLS for replication");
    beta.until_said(
        "W123",
        "it uses TLS, and this node has no certificates for replication",
    );
    until("the volumes hear of it", || refused(&alpha, "beta"));
    assert_eq!(alpha.ear.heard().connected + beta.ear.heard().connected, 0);

    let [alpha, beta] = pair(None, folder.of("beta"));
    beta.until_said("W123", "it comes without TLS, which this node asks for");
    alpha.until_said(
        "W101",
        "it refuses this node: TLS of the two does not fit, or a certificate is not that of its \
         node (W123)",
    );
    until("the volumes hear of it", || {
        refused(&alpha, "beta") && refused(&beta, "alpha")
    });
    assert_eq!(alpha.ear.heard().connected + beta.ear.heard().connected, 0);
}

#[test]
fn a_certificate_of_another_authority_or_node_is_refused_on_both_sides() {
    let (ours, theirs) = (Folder::new(), Folder::new());
    let [alpha, beta] = pair(ours.of("alpha"), theirs.of("beta"));
    alpha.until_said(
        "W123",
        "its certificate is of an authority that is not known here",
    );
    beta.until_said("W123", "it does not know the authority of our certificate");
    until("the volumes hear of it", || refused(&alpha, "beta"));

    // Gamma's, where beta is expected.
    let [alpha, beta] = pair(ours.of("alpha"), ours.of("gamma"));
    alpha.until_said(
        "W123",
        "its certificate is not that of node beta: it names gamma",
    );
    beta.until_said(
        "W123",
        "it says that our certificate is not that of the node it dials",
    );
    assert_eq!(alpha.ear.heard().connected + beta.ear.heard().connected, 0);
}

#[test]
fn who_greets_with_a_name_that_is_not_in_its_certificate_is_refused() {
    let folder = Folder::new();
    let own = folder.of("beta");
    let (beta, address) = accepting(|common| common.tls = RwLock::new(own));
    let gamma = folder.of("gamma").unwrap();
    let deadline = engine_ring::sys::clock::boottime_ns() + 10_000_000_000;
    let control = Control::Hello(ControlHello {
        protocol_min: PROTOCOL_MIN,
        protocol_max: PROTOCOL_MAX,
        cluster: "test".into(),
        from: "alpha".into(),
        to: "beta".into(),
        process: 1,
        keepalive_ms: 100,
    });
    let mut greeting = Vec::new();
    encode_control(&control, 1, &mut greeting);
    for bytes in [greeting, frame(&hello("test", "v", "alpha", "beta"))] {
        let stream = TcpStream::connect(address).unwrap();
        let mut wire = wire::Wire::dialled(stream, Some(&gamma), "beta", deadline).unwrap();
        wire.write_all(&bytes).unwrap();
        let (header, bytes) = wire.first_frame(deadline).unwrap();
        let Ok(Parsed::Message { message, .. }) = parse_body(&header, &bytes[HEADER_LEN..]) else {
            panic!("a refusal is a message");
        };
        assert_eq!(message, Message::Refuse(Refusal::Tls));
    }
    beta.until_said(
        "W123",
        "its certificate is not that of node alpha: it names gamma",
    );
    assert!(refused(&beta, "alpha"));
    assert!(beta.ear.heard().links.is_empty());
    assert_eq!(beta.ear.heard().connected, 0);
}

#[test]
fn new_connections_use_the_certificates_that_were_set_last() {
    let (ours, theirs) = (Folder::new(), Folder::new());
    let [alpha, beta] = pair(ours.of("alpha"), theirs.of("beta"));
    alpha.until_said(
        "W123",
        "its certificate is of an authority that is not known here",
    );
    beta.peers.set_tls(ours.of("beta").unwrap());
    until("they meet", || alpha.ear.heard().connected == 1);
    assert!(
        beta.log
            .0
            .lock()
            .unwrap()
            .iter()
            .any(|line| line.starts_with("I164"))
    );
}
