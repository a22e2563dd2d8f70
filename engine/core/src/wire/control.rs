//! The control connection of a node pair: who is there, and is it still (DESIGN D13).
//!
//! ```text
//!  ControlHello  0: process id u64 | 8: keepalive in ms u32 | 12: protocol min u16, max u16
//!               16: lengths of cluster, from, to, 3 × u8 | 19: zero, 5 bytes
//!               lists: those three strings in UTF-8
//!  Ping, Pong    0: n u64
//! ```
//!
//! Votes of volumes: `vote.rs`.

use crate::vote::{Ballot, Vote};
use crate::wire::bytes::{Body, Writer};
use crate::wire::error::{BadField, WireError};
use crate::wire::frame::{Header, check, write_frame};
use crate::wire::kind::Kind;
use crate::wire::vote;

/// First message on a control connection, from both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlHello {
    /// Lowest protocol version spoken.
    pub protocol_min: u16,
    /// Highest protocol version spoken.
    pub protocol_max: u16,
    /// Cluster name, at most 255 bytes.
    pub cluster: String,
    /// Name of the node that speaks, at most 255 bytes.
    pub from: String,
    /// Name of the node it believes to speak to, at most 255 bytes.
    pub to: String,
    /// Random, new with every start of the process: a restart is seen even when it was quick.
    pub process: u64,
    /// The speaker sends a ping this often, in milliseconds.
    pub keepalive_ms: u32,
}

/// One message between two nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// Who I am.
    Hello(ControlHello),
    /// Are you there?
    Ping {
        /// Given back in the answer.
        n: u64,
    },
    /// Yes.
    Pong {
        /// From the ping.
        n: u64,
    },
    /// About the votes of a volume.
    Vote {
        /// Name of the volume, at most 255 bytes.
        volume: String,
        /// What is said.
        ballot: Ballot,
    },
}

/// Appends the frame of `control` to `out`. `number` is the connection's next, from
/// [`super::Numbers::take`]. Panics on a name over 255 bytes.
pub fn encode_control(control: &Control, number: u64, out: &mut Vec<u8>) {
    let kind = match control {
        Control::Hello(_) => Kind::ControlHello,
        Control::Ping { .. } => Kind::Ping,
        Control::Pong { .. } => Kind::Pong,
        // One that does not know it goes by its own table, and is not counted.
        Control::Vote { ballot, .. } if matches!(ballot.vote, Vote::Table { .. }) => Kind::Table,
        Control::Vote { .. } => Kind::Vote,
    };
    write_frame(kind, number, 0, out, |writer| match control {
        Control::Hello(hello) => put_hello(hello, writer),
        Control::Ping { n } | Control::Pong { n } => writer.u64(*n),
        Control::Vote { volume, ballot } => vote::put(volume, ballot, writer),
    });
}

/// Reads a message of a control connection; `None` for one of the future that may be missed
/// (its payload, if any, is to be skipped too). Errors as for [`super::parse_body`].
pub fn parse_control(header: &Header, body: &[u8]) -> Result<Option<Control>, WireError> {
    let Some(kind) = check(header, body)? else {
        return Ok(None);
    };
    if !kind.is_control() {
        return Err(WireError::WrongConnection { kind });
    }
    if header.payload_len != 0 {
        let found = header.payload_len;
        return Err(WireError::Payload { kind, found });
    }
    let mut body = Body::new(kind, header, body);
    Ok(Some(match kind {
        Kind::Ping => Control::Ping {
            n: body.fields.u64()?,
        },
        Kind::Pong => Control::Pong {
            n: body.fields.u64()?,
        },
        Kind::Vote | Kind::Table => {
            let (volume, ballot) = vote::take(&mut body)?;
            if matches!(ballot.vote, Vote::Table { .. }) != (kind == Kind::Table) {
                return Err(body.fields.bad(BadField::Vote));
            }
            Control::Vote { volume, ballot }
        }
        _ => Control::Hello(take_hello(&mut body)?),
    }))
}

fn put_hello(hello: &ControlHello, w: &mut Writer) {
    w.u64(hello.process);
    w.u32(hello.keepalive_ms);
    w.u16(hello.protocol_min);
    w.u16(hello.protocol_max);
    let names = [&hello.cluster, &hello.from, &hello.to];
    names.iter().for_each(|name| w.text_len(name));
    w.zeros::<5>();
    w.lists();
    names.iter().for_each(|name| w.bytes(name.as_bytes()));
}

fn take_hello(body: &mut Body) -> Result<ControlHello, WireError> {
    let Body { fields, lists } = body;
    let (process, keepalive_ms) = (fields.u64()?, fields.u32()?);
    let (protocol_min, protocol_max) = (fields.u16()?, fields.u16()?);
    let lengths = [fields.u8()?, fields.u8()?, fields.u8()?];
    fields.skip::<5>()?;
    Ok(ControlHello {
        protocol_min,
        protocol_max,
        cluster: lists.text(lengths[0])?,
        from: lists.text(lengths[1])?,
        to: lists.text(lengths[2])?,
        process,
        keepalive_ms,
    })
}
