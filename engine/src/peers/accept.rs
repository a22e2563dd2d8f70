//! Accepting connections of peers and finding out what they are for.

use std::io::{self, ErrorKind};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use engine_core::message::{Hello, Message, Refusal};
use engine_core::wire::{
    Control, ControlHello, HEADER_LEN, Kind, Parsed, parse_body, parse_control,
};
use engine_ring::sys::clock::boottime_ns;

use super::bell::{Bell, Bells};
use super::control::common_version;
use super::wire::{Wire, is_tls};
use super::{Common, LinkSocket, stream};

/// Connections whose first frame is not here yet.
const HALF_OPEN_MAX: usize = 64;
/// Time for that first frame.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Pause after a failed accept: no descriptors left, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Starts the listener's thread.
pub(super) fn start(
    common: &Arc<Common>,
    (listener, path): (TcpListener, usize),
    bells: Bells,
) -> io::Result<JoinHandle<()>> {
    let common = Arc::clone(common);
    let half_open = Arc::new(AtomicUsize::new(0));
    let run = move || {
        loop {
            let accepted = listener.accept();
            if common.is_stopping() {
                return;
            }
            let Ok((stream, _)) = accepted else {
                thread::sleep(ACCEPT_PAUSE);
                continue;
            };
            if half_open.fetch_add(1, Ordering::AcqRel) >= HALF_OPEN_MAX {
                half_open.fetch_sub(1, Ordering::AcqRel);
                continue;
            }
            let guard = Guard(Arc::clone(&half_open));
            let (common, bells) = (Arc::clone(&common), bells.now());
            let greeted = thread::Builder::new()
                .name("handshake".into())
                .spawn(move || {
                    let _guard = guard;
                    greet(&common, (stream, path), &bells);
                });
            if greeted.is_err() {
                thread::sleep(ACCEPT_PAUSE);
            }
        }
    };
    thread::Builder::new().name("replication".into()).spawn(run)
}

/// Counts a half-open connection while it lives.
struct Guard(Arc<AtomicUsize>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Reads the first frame and hands the connection on.
fn greet(common: &Common, (stream, path): (TcpStream, usize), bells: &[(String, Bell)]) {
    let deadline = boottime_ns() + HANDSHAKE_MAX.as_nanos() as u64;
    let from = stream
        .peer_addr()
        .map_or_else(|_| "?".into(), |address| address.to_string());
    let tls = common.tls();
    let wire = stream::tune(&stream).and_then(|()| Wire::accepted(stream, tls.as_ref(), deadline));
    let read = wire.and_then(|mut wire| Ok((wire.first_frame(deadline)?, wire)));
    let ((header, bytes), wire) = match read {
        Ok(read) => read,
        // A probe connects and leaves without a word.
        Err(e)
            if matches!(
                e.kind(),
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset
            ) =>
        {
            return;
        }
        Err(e) if is_tls(&e) => return common.warn("W123", &format!("no TLS with {from}: {e}")),
        Err(e) => return common.warn("W109", &format!("{from} did not say who it is: {e}")),
    };
    let body = &bytes[HEADER_LEN..];
    let mute = || common.warn("W109", &format!("{from} did not begin with a greeting"));
    if Kind::from_number(header.kind).is_some_and(Kind::is_control) {
        match parse_control(&header, body) {
            Ok(Some(Control::Hello(hello))) => {
                if let Some(wire) = identified(common, wire, &from, &hello.from, bells) {
                    greet_node(common, (wire, path), &from, hello, bells);
                }
            }
            _ => mute(),
        }
        return;
    }
    match parse_body(&header, body) {
        Ok(Parsed::Message {
            message: Message::Hello(hello),
            ..
        }) => {
            if let Some(wire) = identified(common, wire, &from, &hello.from, bells) {
                greet_volume(common, (wire, path), (&from, bells), &hello, &bytes);
            }
        }
        Ok(_) => mute(),
        Err(e) => common.warn("W109", &format!("{from} does not speak our protocol: {e}")),
    }
}

/// The connection, if this node asks for no TLS, or the certificate is that of the node that it
/// says it is (law F20).
fn identified(
    common: &Common,
    wire: Wire,
    from: &str,
    node: &str,
    bells: &[(String, Bell)],
) -> Option<Wire> {
    let why = match (common.tls(), wire.session()) {
        (None, _) => return Some(wire),
        (Some(_), None) => "it comes without TLS, which this node asks for".to_owned(),
        (Some(tls), Some(session)) => match tls.is_node(session, node) {
            Ok(()) => return Some(wire),
            Err(other) => other.to_string(),
        },
    };
    common.warn("W123", &format!("node {node} at {from} is refused: {why}"));
    wire.part(&stream::refusal(Refusal::Tls));
    if bells.iter().any(|(name, _)| name == node) {
        common.router.refused(node, Refusal::Tls);
    }
    None
}

fn greet_node(
    common: &Common,
    (wire, path): (Wire, usize),
    from: &str,
    hello: ControlHello,
    bells: &[(String, Bell)],
) {
    let bell = bells.iter().find(|(name, _)| *name == hello.from);
    // The side that refuses says who it is: the other then names the cause in its own log.
    let refusal = match bell {
        _ if hello.cluster != common.cluster => {
            let text = format!("it belongs to cluster `{}`", hello.cluster);
            Some((text, Some(Refusal::Cluster)))
        }
        _ if hello.to != common.node => Some((format!("it looks for node `{}`", hello.to), None)),
        None => Some(("it is not configured here".to_owned(), None)),
        Some(_) if hello.from >= common.node => Some(("the smaller name dials".to_owned(), None)),
        Some(_) => {
            let version = common_version(common, &hello);
            version.err().map(|text| (text, Some(Refusal::Protocol)))
        }
    };
    match (bell, refusal) {
        (Some((_, bell)), None) => bell.accepted(path, wire, hello),
        (_, refusal) => {
            let (text, why) = refusal.unwrap_or_default();
            let text = format!("node {} at {from} is refused: {text}", hello.from);
            common.warn("W110", &text);
            super::control::say_hello(common, wire, &hello.from);
            if let (Some(_), Some(why)) = (bell, why) {
                common.router.refused(&hello.from, why);
            }
        }
    }
}

fn greet_volume(
    common: &Common,
    (wire, path): (Wire, usize),
    (from, bells): (&str, &[(String, Bell)]),
    hello: &Hello,
    bytes: &[u8],
) {
    let refusal = if hello.cluster != common.cluster {
        Some(Refusal::Cluster)
    } else if hello.to != common.node || !common.router.is_shared(&hello.volume, &hello.from) {
        Some(Refusal::Volume)
    } else {
        None
    };
    if let Some(why) = refusal {
        let Hello {
            volume,
            from: node,
            cluster,
            ..
        } = hello;
        let text = format!(
            "a link of volume {volume} from node {node} of cluster {cluster} at {from} is refused: \
             {why:?}"
        );
        common.warn("W110", &text);
        return wire.part(&stream::refusal(why));
    }
    // A volume that is not attached here just does not answer: the peer tries again.
    let (socket, session) = wire.into_parts();
    let unread = bytes.to_vec();
    let socket = LinkSocket {
        socket,
        session,
        unread,
        path: path as u8,
    };
    if let Some((_, bell)) = bells.iter().find(|(name, _)| *name == hello.from) {
        bell.paths.uses(&hello.volume, path);
    }
    common.router.link(&hello.volume, &hello.from, socket);
}
