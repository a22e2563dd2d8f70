use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::time::Instant;

use engine_core::generation::Chain;
use engine_core::message::{Disk, Hello, Life, Message, PROTOCOL_MAX, PROTOCOL_MIN};
use engine_core::units::Term;
use engine_core::vote::Vote;
use engine_core::wire::{
    Control, ControlHello, HEADER_LEN, Parsed, encode, encode_control, parse_body, parse_control,
    parse_header,
};

use super::*;
use crate::log::Silent;

mod paths;
mod sealed;
mod versions;

/// What the threads told the node.
#[derive(Default)]
struct Heard {
    links: Vec<(String, String, usize)>,
    unreachable: usize,
    gone: usize,
    unlinked: usize,
    path_gone: Vec<u8>,
    refused: Vec<(String, Refusal)>,
    connected: usize,
    votes: Vec<(String, String, Ballot)>,
    sockets: Vec<LinkSocket>,
}

#[derive(Default)]
struct Ear(Mutex<Heard>);

impl Ear {
    fn heard(&self) -> std::sync::MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Router for Ear {
    fn link(&self, volume: &str, peer: &str, socket: LinkSocket) -> bool {
        let mut heard = self.heard();
        let unread = socket.unread.len();
        heard.links.push((volume.into(), peer.into(), unread));
        heard.sockets.push(socket);
        true
    }
    fn unreachable(&self, _: &str, _: u64) {
        self.heard().unreachable += 1;
    }
    fn refused(&self, peer: &str, why: Refusal) {
        self.heard().refused.push((peer.into(), why));
    }
    fn connected(&self, _: &str) {
        self.heard().connected += 1;
    }
    fn vote(&self, volume: &str, peer: &str, ballot: Ballot) {
        let vote = (volume.into(), peer.into(), ballot);
        self.heard().votes.push(vote);
    }
    fn gone(&self, _: &str) {
        self.heard().gone += 1;
    }
    fn path_gone(&self, _: &str, path: u8) {
        self.heard().path_gone.push(path);
    }
    fn unlinked(&self, _: &str) {
        self.heard().unlinked += 1;
    }
    fn shared(&self, _: &str) -> Vec<String> {
        vec!["v".into()]
    }
    fn is_shared(&self, volume: &str, peer: &str) -> bool {
        volume == "v" && ["alpha", "beta"].contains(&peer)
    }
}

fn common(node: &str, ear: &Arc<Ear>) -> Common {
    Common {
        cluster: "test".into(),
        node: node.into(),
        process: 1,
        protocol: PROTOCOL_MIN..=PROTOCOL_MAX,
        keepalive: Duration::from_millis(50),
        peer_timeout: Duration::from_millis(400),
        router: Arc::clone(ear) as Arc<dyn Router>,
        log: Arc::new(Silent),
        tls: RwLock::default(),
        is_stopping: AtomicBool::new(false),
    }
}

/// Keeps what was said.
#[derive(Default)]
struct Lines(Mutex<Vec<String>>);

impl Log for Lines {
    fn line(&self, line: Line<'_>) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The harness shows it where a test fails.
        println!("{} {}", line.code, line.text);
        lines.push(format!("{} {}", line.code, line.text));
    }
}

impl Lines {
    fn has(&self, code: &str, text: &str) -> bool {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lines = lines.iter();
        lines.any(|line| line.starts_with(code) && line.ends_with(text))
    }
}

/// A node and all that is heard from it.
struct Stand {
    ear: Arc<Ear>,
    log: Arc<Lines>,
    peers: Peers,
}

impl Stand {
    /// A node as usual but for what `change` does to it.
    fn start(
        node: &str,
        change: impl FnOnce(&mut Common),
        listeners: Vec<TcpListener>,
        peers: &[(String, Vec<String>)],
    ) -> Stand {
        let (ear, log) = (Arc::<Ear>::default(), Arc::<Lines>::default());
        let mut common = common(node, &ear);
        common.log = log.clone();
        change(&mut common);
        let peers = Peers::start(common, listeners, peers).unwrap();
        Stand { ear, log, peers }
    }

    fn until_said(&self, code: &str, text: &str) {
        let what = format!("{code} {text}");
        until(&what, || self.log.has(code, text));
    }
}

/// Alpha and beta, of which alpha dials.
fn pair_of(alpha: impl FnOnce(&mut Common), beta: impl FnOnce(&mut Common)) -> [Stand; 2] {
    let (beta, address) = accepting(beta);
    let peers = [("beta".to_owned(), vec![address.to_string()])];
    [Stand::start("alpha", alpha, Vec::new(), &peers), beta]
}

fn accepting(change: impl FnOnce(&mut Common)) -> (Stand, SocketAddr) {
    let listener = listen("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let peers = [("alpha".to_owned(), vec!["127.0.0.1:1".to_owned()])];
    (
        Stand::start("beta", change, vec![listener], &peers),
        address,
    )
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A node that accepts, and where.
fn beta(ear: &Arc<Ear>) -> (Peers, SocketAddr) {
    let listener = listen("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // Nobody listens at port 1: probes of alpha fail.
    let peers = [("alpha".to_owned(), vec!["127.0.0.1:1".to_owned()])];
    (
        Peers::start(common("beta", ear), vec![listener], &peers).unwrap(),
        address,
    )
}

fn hello(cluster: &str, volume: &str, from: &str, to: &str) -> Message {
    Message::Hello(Box::new(Hello {
        protocol_min: PROTOCOL_MIN,
        protocol_max: PROTOCOL_MAX,
        features_required: 0,
        features_offered: 0,
        cluster: cluster.into(),
        volume: volume.into(),
        from: from.into(),
        to: to.into(),
        volume_id: 0,
        slice: 0,
        size_granules: 1,
        granule_bytes: 4096,
        config_digest: 0,
        incarnation: 1,
        life: Life::default(),
        knows: Default::default(),
        chain: Chain::default(),
        record: None,
        promised: Term(0),
        leads: None,
        disk: Disk::Blank,
        is_primary: false,
        has_votes: false,
        is_whole: true,
        activity_log_slots: 1,
        credit_operations: 1,
        credit_bytes: 1,
    }))
}

fn frame(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(message, 1, &[], 0, &mut bytes);
    bytes
}

fn read_frame(stream: &mut TcpStream) -> Option<(Vec<u8>, Vec<u8>)> {
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let mut head = vec![0; HEADER_LEN];
    stream.read_exact(&mut head).ok()?;
    let header = parse_header(head.first_chunk().unwrap()).unwrap();
    let mut body = vec![0; header.body_len as usize];
    stream.read_exact(&mut body).ok()?;
    Some((head, body))
}

#[test]
fn a_greeting_that_fits_becomes_a_link_with_its_bytes() {
    let ear = Arc::<Ear>::default();
    let (_peers, address) = beta(&ear);
    let bytes = frame(&hello("test", "v", "alpha", "beta"));
    let mut stream = TcpStream::connect(address).unwrap();
    // One byte at a time: nothing is lost between the frame and the link.
    bytes
        .iter()
        .for_each(|byte| stream.write_all(&[*byte]).unwrap());
    until("the link", || !ear.heard().links.is_empty());
    assert_eq!(
        ear.heard().links,
        [("v".to_owned(), "alpha".to_owned(), bytes.len())]
    );
}

#[test]
fn a_greeting_that_does_not_fit_is_refused_with_the_cause() {
    let ear = Arc::<Ear>::default();
    let (_peers, address) = beta(&ear);
    for (greeting, cause) in [
        (hello("other", "v", "alpha", "beta"), Refusal::Cluster),
        (hello("test", "w", "alpha", "beta"), Refusal::Volume),
        (hello("test", "v", "alpha", "gamma"), Refusal::Volume),
        (hello("test", "v", "delta", "beta"), Refusal::Volume),
    ] {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(&frame(&greeting)).unwrap();
        let (head, body) = read_frame(&mut stream).expect("a refusal");
        let header = parse_header(head.first_chunk().unwrap()).unwrap();
        let Ok(Parsed::Message { message, .. }) = parse_body(&header, &body) else {
            panic!("a refusal is a message");
        };
        assert_eq!(message, Message::Refuse(cause));
        assert!(read_frame(&mut stream).is_none(), "and then the end");
    }
    assert!(ear.heard().links.is_empty());
}

#[test]
fn nonsense_and_oversized_first_frames_only_cost_their_connection() {
    let ear = Arc::<Ear>::default();
    let (_peers, address) = beta(&ear);
    let mut oversized = frame(&hello("test", "v", "alpha", "beta"));
    oversized[12..16].copy_from_slice(&(200u32 << 10).to_le_bytes());
    for bytes in [
        b"GET / HTTP/1.1\r\n\r\n12345678901234567890".to_vec(),
        oversized,
    ] {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(&bytes).unwrap();
        assert!(read_frame(&mut stream).is_none());
    }
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .write_all(&frame(&hello("test", "v", "alpha", "beta")))
        .unwrap();
    until("a good one after them", || ear.heard().links.len() == 1);
}

#[test]
fn too_many_half_open_connections_are_closed_and_leave_room_when_they_go() {
    let ear = Arc::<Ear>::default();
    let (_peers, address) = beta(&ear);
    let idle: Vec<_> = (0..80)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    let is_closed = |stream: &TcpStream| {
        stream
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        matches!((&mut &*stream).read(&mut [0; 1]), Ok(0))
    };
    until("some are closed", || {
        idle.iter().filter(|stream| is_closed(stream)).count() >= 16
    });
    drop(idle);
    until("a new one is served", || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream
            .write_all(&frame(&hello("test", "v", "alpha", "beta")))
            .unwrap();
        std::thread::sleep(Duration::from_millis(20));
        !ear.heard().links.is_empty()
    });
}

#[test]
fn the_smaller_name_dials_and_both_sides_know_when_the_other_is_lost() {
    let (near, far) = (Arc::<Ear>::default(), Arc::<Ear>::default());
    let (mut there, address) = beta(&far);
    let peers = [("beta".to_owned(), vec![address.to_string()])];
    let mut here = Peers::start(common("alpha", &near), Vec::new(), &peers).unwrap();
    until("a data connection is dialled", || {
        near.heard().links.len() == 1
    });
    assert_eq!(
        near.heard().links[0],
        ("v".to_owned(), "beta".to_owned(), 0)
    );
    until("volumes without a link hear of it", || {
        near.heard().unlinked > 0 && far.heard().unlinked > 0
    });
    // Beta ends: alpha hears it at once, and fails to dial from then on.
    there.stop();
    until("alpha lost beta", || near.heard().gone == 1);
    until("beta is unreachable", || near.heard().unreachable > 1);
    here.stop();
}

fn ballot(number: u64) -> Ballot {
    let term = Term(0x101);
    Ballot {
        volume_id: 7,
        incarnation: 9,
        nodes: 0,
        life: Life::default(),
        knows: Life::default(),
        vote: Vote::Lease {
            term,
            number,
            length: Duration::from_secs(2),
        },
    }
}

#[test]
fn ballots_reach_the_other_node_in_order_and_are_lost_without_a_connection() {
    let (near, far) = (Arc::<Ear>::default(), Arc::<Ear>::default());
    let (mut there, address) = beta(&far);
    let peers = [("beta".to_owned(), vec![address.to_string()])];
    let mut here = Peers::start(common("alpha", &near), Vec::new(), &peers).unwrap();
    until("both know each other", || {
        near.heard().connected == 1 && far.heard().connected == 1
    });
    for number in 0..100 {
        Peers::say(&here.bells().now(), "beta", "v", ballot(number));
    }
    Peers::say(&there.bells().now(), "alpha", "v", ballot(7));
    until("they arrive", || {
        far.heard().votes.len() == 100 && near.heard().votes.len() == 1
    });
    for (number, vote) in (0..).zip(&far.heard().votes) {
        assert_eq!(*vote, ("v".into(), "alpha".into(), ballot(number)));
    }
    there.stop();
    until("alpha lost beta", || near.heard().gone == 1);
    // More than the queue holds; the thread forgets them.
    for number in 0..5000 {
        Peers::say(&here.bells().now(), "beta", "v", ballot(number));
    }
    Peers::say(&here.bells().now(), "nobody", "v", ballot(0));
    here.stop();
    assert_eq!(far.heard().votes.len(), 100);
}

#[test]
fn nodes_of_two_clusters_are_told_of_it_on_both_sides() {
    let (near, far) = (Arc::<Ear>::default(), Arc::<Ear>::default());
    let (_there, address) = beta(&far);
    let peers = [("beta".to_owned(), vec![address.to_string()])];
    let mut other = common("alpha", &near);
    other.cluster = "other".into();
    let _here = Peers::start(other, Vec::new(), &peers).unwrap();
    until("the dialling side knows", || {
        near.heard()
            .refused
            .contains(&("beta".to_owned(), Refusal::Cluster))
    });
    until("the accepting side knows", || {
        far.heard()
            .refused
            .contains(&("alpha".to_owned(), Refusal::Cluster))
    });
}

/// Answers a greeting as the node that is greeted would.
fn greet_back(stream: &mut TcpStream) {
    let greeting = read_frame(stream).unwrap();
    answer(stream, greeting);
}

/// Answers this greeting.
fn answer(stream: &mut TcpStream, (head, body): (Vec<u8>, Vec<u8>)) {
    let header = parse_header(head.first_chunk().unwrap()).unwrap();
    let Ok(Some(Control::Hello(greeting))) = parse_control(&header, &body) else {
        panic!("a control connection begins with a greeting");
    };
    let (from, to) = (greeting.to.clone(), greeting.from.clone());
    let answer = Control::Hello(ControlHello {
        from,
        to,
        ..greeting
    });
    let mut bytes = Vec::new();
    encode_control(&answer, 1, &mut bytes);
    stream.write_all(&bytes).unwrap();
}

#[test]
fn who_greets_and_hangs_up_is_tried_again_with_pauses() {
    // As a node does in whose file this one is not.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // A data connection says nothing here.
            std::thread::spawn(move || {
                read_frame(&mut stream).map(|frame| answer(&mut stream, frame))
            });
        }
    });
    let peers = [("beta".to_owned(), vec![address])];
    let ear = Arc::<Ear>::default();
    let _alpha = Peers::start(common("alpha", &ear), Vec::new(), &peers).unwrap();
    until("it is tried again", || ear.heard().connected >= 2);
    std::thread::sleep(Duration::from_secs(1));
    let attempts = ear.heard().connected;
    assert!(attempts < 40, "{attempts} attempts in a second");
}

#[test]
fn a_peer_that_falls_silent_is_given_up_within_the_timeout() {
    let ear = Arc::<Ear>::default();
    // Not a node of ours: it greets, and never answers a ping.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peers = [(
        "beta".to_owned(),
        vec![listener.local_addr().unwrap().to_string()],
    )];
    let _peers = Peers::start(common("alpha", &ear), Vec::new(), &peers).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    greet_back(&mut stream);
    let began = Instant::now();
    until("it is given up", || ear.heard().gone == 1);
    let after = began.elapsed();
    assert!(
        after > Duration::from_millis(300) && after < Duration::from_secs(3),
        "{after:?}"
    );
}
