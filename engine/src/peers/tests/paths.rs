//! Several paths to a node: it is there as long as one is up, and they share the load.

use std::collections::BTreeSet;

use super::*;

/// Alpha with two volumes for beta, who listens on two addresses.
fn two_paths() -> (Stand, Stand, [SocketAddr; 2]) {
    let listeners = [0, 1].map(|_| listen("127.0.0.1:0").unwrap());
    let addresses = [0, 1].map(|path: usize| listeners[path].local_addr().unwrap());
    let peers = [("alpha".to_owned(), vec!["127.0.0.1:1".to_owned()])];
    let beta = Stand::start("beta", |_| {}, listeners.into(), &peers);
    let theirs = addresses.iter().map(SocketAddr::to_string).collect();
    let peers = [("beta".to_owned(), theirs)];
    let alpha = Stand::start("alpha", |_| {}, Vec::new(), &peers);
    (alpha, beta, addresses)
}

fn up(stand: &Stand, peer: &str) -> usize {
    let bells = stand.peers.bells().now();
    let (_, bell) = bells.iter().find(|(name, _)| name == peer).unwrap();
    let status = bell.paths.status("v");
    status.iter().filter(|path| path.is_up).count()
}

fn paths_of(stand: &Stand) -> BTreeSet<u8> {
    let heard = stand.ear.heard();
    heard.sockets.iter().map(|socket| socket.path).collect()
}

#[test]
fn all_paths_come_up_and_the_node_once() {
    let (alpha, beta, _) = two_paths();
    until("both paths are up on both sides", || {
        up(&alpha, "beta") == 2 && up(&beta, "alpha") == 2
    });
    assert_eq!(alpha.ear.heard().connected, 1);
    assert_eq!(beta.ear.heard().connected, 1);
    // Longer than the timeout: pings pass on each.
    std::thread::sleep(Duration::from_millis(900));
    assert_eq!((up(&alpha, "beta"), up(&beta, "alpha")), (2, 2));
}

#[test]
fn data_connections_of_several_volumes_share_the_paths() {
    let (alpha, _beta, addresses) = two_paths();
    until("both paths are up", || up(&alpha, "beta") == 2);
    for volume in ["v", "w", "x", "y"] {
        Peers::redial(&alpha.peers.bells().now(), "beta", volume, When::Now);
    }
    until("all are dialled", || alpha.ear.heard().links.len() >= 4);
    assert_eq!(paths_of(&alpha), BTreeSet::from([0, 1]));
    let bells = alpha.peers.bells().now();
    let status = bells[0].1.paths.status("w");
    assert_eq!(status.iter().filter(|path| path.carries_data).count(), 1);
    assert_eq!(status[1].address, addresses[1].to_string());
}

#[test]
fn a_path_that_is_lost_takes_its_own_links_and_not_the_node() {
    let (ear, log) = (Arc::<Ear>::default(), Arc::<Lines>::default());
    let (beta, address) = accepting(|_| {});
    // The other path: it greets as beta does, and never answers a ping.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let theirs = vec![
        silent.local_addr().unwrap().to_string(),
        address.to_string(),
    ];
    let mut common = common("alpha", &ear);
    common.log = log.clone();
    let alpha = Peers::start(common, Vec::new(), &[("beta".to_owned(), theirs)]).unwrap();
    let (mut stream, _) = silent.accept().unwrap();
    greet_back(&mut stream);
    until("the node is connected", || ear.heard().connected == 1);
    until("the silent path is given up", || {
        ear.heard().path_gone.contains(&0)
    });
    let lost = |ear: &Ear| {
        let heard = ear.heard();
        (heard.gone, heard.unreachable)
    };
    assert_eq!(lost(&ear), (0, 0));
    assert!(log.has("W126", "1 of 2 paths are up"));
    // What is dialled now takes the one that is left, also a ballot.
    let before = ear.heard().links.len();
    Peers::redial(&alpha.bells().now(), "beta", "w", When::Now);
    until("the data connection is made anew", || {
        ear.heard().links.len() > before
    });
    assert_eq!(ear.heard().sockets.last().unwrap().path, 1);
    Peers::say(&alpha.bells().now(), "beta", "v", ballot(1));
    until("it arrives", || beta.ear.heard().votes.len() == 1);
    drop(silent);
    drop(beta);
    until("with the last path the node is gone", || {
        let (gone, unreachable) = lost(&ear);
        gone == 1 && unreachable > 0
    });
}
