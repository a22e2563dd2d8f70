//! One client from its first byte to its volume's reactor.
//!
//! ```text
//!  greeting ─► options ⇄ answers ─┬─ GO ──────────────────────────► claim ─► attach
//!                  ▲              └─ STARTTLS ─► handshake, certificate ─┐     └ takeover: the one
//!                  └─────────────────────────────────────────────────────┘       before ends first
//! ```

use std::io;
use std::sync::Arc;
use std::time::Duration;

use engine::control::ClientTls;
use engine::front_end::{Attachment, ClientInfo, Connection, Ctx};
use engine::log::Level;
use nbd_proto::{CloseReason, Negotiated, Negotiation, Policy, Step, Tls};
use rustls::ServerConnection;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::Shared;
use super::stream::{Origin, Stream, Wire};
use crate::connection::{NbdConnection, TlsConnection, Who};
use crate::exports::{Claim, ClientExports};
use crate::tls::{NbdTls, Subject};

/// Bytes read at a time. With the longest option this is all a negotiating client can occupy.
const READ: usize = 2048;
/// Longest option, bytes: a name and a query of full length fit. A client holds no more than
/// 16 KiB, the next power of two.
const OPTION_MAX: u32 = 12 << 10;
/// Most options: a client that lists and asks about each of a hundred exports stays below.
const OPTIONS_MAX: u32 = 1000;
/// What half-open clients are told while the server stops.
const STOPPING: &str = "the server is shutting down";
/// How often a client that is to be replaced is told to go: it may itself be on its way in.
const REPLACE_EVERY: Duration = Duration::from_millis(100);
/// Longest time until it has gone; more than the engine allows it.
const REPLACE_MAX: Duration = Duration::from_secs(15);

/// How a handshake ended without transmission.
enum Ended {
    /// The client left, in good order or not.
    Left,
    /// It took too long.
    Late,
    /// It broke the protocol.
    Closed(CloseReason),
    /// TLS did not come up.
    Tls(io::Error),
    /// Another client was faster to take an export that has room for one.
    Taken,
}

/// A client that has chosen.
struct Chosen {
    negotiated: Box<Negotiated>,
    claim: Claim,
    /// Bytes that came after its last option.
    early: Vec<u8>,
    wire: Wire,
    tls: Option<Box<ClientTls>>,
}

/// Negotiates and attaches. The stream is closed if that fails.
pub(super) async fn run(
    stream: Stream,
    origin: Origin,
    shared: &Arc<Shared>,
    stopping: watch::Receiver<bool>,
) {
    stream.prepare(&origin, shared.limits.stalled_max);
    let talk = negotiate(stream, &origin, shared, stopping);
    let ended = match tokio::time::timeout(shared.limits.handshake_max, talk).await {
        Ok(Ok(chosen)) => return attach(chosen, &origin, shared).await,
        Ok(Err(ended)) => ended,
        Err(_) => Ended::Late,
    };
    let why = match ended {
        Ended::Left | Ended::Closed(CloseReason::Aborted) => return,
        Ended::Closed(reason) => reason.to_string(),
        Ended::Tls(error) => format!("TLS did not come up: {error}"),
        Ended::Taken => "another client was faster".to_owned(),
        Ended::Late => "it did not choose an export in time".to_owned(),
    };
    let text = format!("client {} is closed: {why}", origin.address);
    shared.complain(Level::Info, &text);
}

/// What this listener does with TLS.
fn policy_of(tls: Option<&NbdTls>, origin: &Origin) -> Tls {
    match tls {
        None => Tls::Unsupported,
        Some(tls) if origin.ip.is_some() && tls.tcp_required => Tls::Required,
        Some(tls) if origin.ip.is_none() && tls.unix_required => Tls::Required,
        Some(_) => Tls::Offered,
    }
}

/// Talks until an export is chosen.
async fn negotiate(
    stream: Stream,
    origin: &Origin,
    shared: &Shared,
    mut stopping: watch::Receiver<bool>,
) -> Result<Chosen, Ended> {
    let settings = shared.tls();
    let mut negotiation = Negotiation::new(Policy {
        option_length_max: OPTION_MAX,
        options_max: OPTIONS_MAX,
        tls: policy_of(settings.as_ref(), origin),
        ..Policy::default()
    });
    let mut wire = Wire::Plain(stream);
    wire.write_all(&negotiation.greeting()).await?;
    let (mut tls, mut subject) = (None, None);
    let mut bytes = vec![0; READ];
    let mut out = Vec::new();
    let mut is_stopping = false;
    loop {
        let count = tokio::select! {
            biased;
            _ = stopping.wait_for(|stop| *stop), if !is_stopping => {
                negotiation.shut_down(STOPPING);
                is_stopping = true;
                continue;
            }
            count = wire.read(&mut bytes) => count?,
        };
        if count == 0 {
            return Err(Ended::Left);
        }
        let mut at = 0;
        loop {
            let catalogue = shared.catalogue();
            let exports = ClientExports {
                catalogue: &catalogue,
                address: origin.ip,
                subject: subject.as_ref(),
            };
            let step = negotiation.feed(&bytes[at..count], &exports, &mut out);
            if let Step::EnterTransmission {
                consumed,
                negotiated,
            } = step
            {
                // Before the client hears of it, and before anybody else can.
                let claim = catalogue
                    .claim(&negotiated.export.name, &origin.address)
                    .ok_or(Ended::Taken)?;
                send(&mut wire, &out).await?;
                return Ok(Chosen {
                    negotiated,
                    claim,
                    early: bytes[at + consumed..count].to_vec(),
                    wire,
                    tls,
                });
            }
            send(&mut wire, &out).await?;
            // An answer with many exports is not kept for the rest of the negotiation.
            out = Vec::new();
            match step {
                Step::NeedMore => break,
                Step::Continue { consumed } => at += consumed,
                Step::StartTls { consumed } if at + consumed < count => at += consumed,
                Step::StartTls { .. } => {
                    let (under_tls, named, told) = secure(wire, settings.as_ref()).await?;
                    (wire, subject, tls) = (under_tls, Some(named), Some(told));
                    negotiation.secured();
                    break;
                }
                Step::Close(reason) => {
                    // The last answer should be read: say that nothing follows.
                    wire.shutdown().await?;
                    return Err(Ended::Closed(reason));
                }
                Step::EnterTransmission { .. } => unreachable!("it was handled above"),
            }
        }
    }
}

async fn send(wire: &mut Wire, out: &[u8]) -> io::Result<()> {
    wire.write_all(out).await?;
    wire.flush().await
}

/// Brings TLS up. Whom the client's certificate names, which is nobody without one, and what is told
/// of its TLS.
async fn secure(
    wire: Wire,
    tls: Option<&NbdTls>,
) -> Result<(Wire, Subject, Box<ClientTls>), Ended> {
    let (Wire::Plain(stream), Some(tls)) = (wire, tls) else {
        unreachable!("TLS begins once, where it is offered");
    };
    let acceptor = TlsAcceptor::from(tls.identity.config());
    let stream = acceptor.accept(stream).await.map_err(Ended::Tls)?;
    let session = stream.get_ref().1;
    let version = match session.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLS 1.2",
        _ => "TLS 1.3",
    };
    let subject = session.peer_certificates().and_then(|chain| chain.first());
    let subject = subject.map(|der| Subject::of_certificate(der));
    let told = Box::new(ClientTls {
        version,
        subject: subject.as_ref().map(Subject::to_string),
    });
    let wire = Wire::Tls(Box::new(stream));
    Ok((wire, subject.unwrap_or_default(), told))
}

impl From<io::Error> for Ended {
    fn from(_: io::Error) -> Ended {
        Ended::Left
    }
}

/// Moves the client to its volume's reactor.
async fn attach(chosen: Chosen, origin: &Origin, shared: &Arc<Shared>) {
    let Chosen {
        negotiated,
        mut claim,
        early,
        wire,
        tls,
    } = chosen;
    let export = negotiated.export.name.as_str().to_owned();
    let address = origin.address.clone();
    let refused = |level, why: &str| {
        let text = format!("client {address} of export `{export}` is closed: {why}");
        shared.complain(level, &text);
    };
    let (volume, label) = (claim.volume.clone(), claim.label.clone());
    let replaced = async {
        while let Some(before) = claim.predecessor() {
            shared.volumes.cut_off(&volume, &label);
            // Not gone yet: it is told again.
            let _ = tokio::time::timeout(REPLACE_EVERY, before.gone()).await;
        }
    };
    if tokio::time::timeout(REPLACE_MAX, replaced).await.is_err() {
        return refused(Level::Warn, "the client before it does not go");
    }
    let (socket, session) = match wire.into_parts() {
        Ok(parts) => parts,
        Err(error) => return refused(Level::Error, &error.to_string()),
    };
    let who = Who {
        volume: volume.clone(),
        export: label.clone(),
        address: address.clone(),
        log: shared.client_log.clone(),
        _seat: claim.seat,
    };
    let client = ClientInfo {
        export: label,
        address: address.clone(),
        tls,
    };
    let limits = shared.limits;
    let make = move |ctx: &mut Ctx<'_>| open(&negotiated, early, session, who, limits, ctx);
    let attachment = Attachment {
        socket,
        client,
        make: Box::new(make),
    };
    if let Err(error) = shared.volumes.attach(&volume, attachment) {
        refused(Level::Warn, &error.to_string());
    }
}

/// The connection on its reactor.
fn open(
    negotiated: &Negotiated,
    early: Vec<u8>,
    session: Option<Box<ServerConnection>>,
    who: Who,
    limits: crate::config::Limits,
    ctx: &mut Ctx<'_>,
) -> Box<dyn Connection> {
    match session {
        None => Box::new(NbdConnection::open(
            negotiated,
            early.into(),
            who,
            limits,
            ctx,
        )),
        Some(session) => Box::new(TlsConnection::open(
            negotiated,
            early.into(),
            session,
            who,
            limits,
            ctx,
        )),
    }
}
