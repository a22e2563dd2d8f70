//! Laws of single messages: what parses, encodes back to the same.

use std::sync::OnceLock;

use super::fixture::{Fixture, SIZE};
use crate::{
    Command, CommandFlags, CommandKind, ExportName, Exports, ExtendedRequest, Gate, InfoRequest,
    MetaRequest, NbdUri, Negotiated, OptionHeader, ReplyStyle, Request, SelectedContext,
    TransmissionFlags,
};

/// An option header is refused by its magic or encodes back to its bytes.
pub fn option_request(bytes: &[u8]) {
    match OptionHeader::parse(bytes) {
        Ok(Some((header, used))) => assert_eq!(header.encode(), bytes[..used]),
        Ok(None) => assert!(bytes.len() < OptionHeader::LEN),
        Err(_) => assert!(!bytes.starts_with(b"IHAVEOPT")),
    }
}

/// An INFO request means the same after being encoded again, whatever was ignored in it.
pub fn info_request(bytes: &[u8]) {
    if let Ok(request) = InfoRequest::parse(bytes) {
        let mut again = Vec::new();
        request.encode(&mut again);
        assert!(again.len() <= bytes.len());
        assert_eq!(InfoRequest::parse(&again), Ok(request));
    }
}

/// A meta context request has as many queries as it says, and they fit into it.
pub fn meta_request(bytes: &[u8]) {
    if let Ok(request) = MetaRequest::parse(bytes) {
        assert_eq!(
            request.queries.iter().count(),
            request.queries.count() as usize
        );
        let name = request.name.as_str();
        let strings: usize = request.queries.iter().map(|query| 4 + query.len()).sum();
        assert_eq!(4 + name.len() + 4 + strings, bytes.len());
        let queries: Option<Vec<&str>> = request
            .queries
            .iter()
            .map(|query| std::str::from_utf8(query).ok())
            .collect();
        if let Some(queries) = queries {
            let mut again = Vec::new();
            MetaRequest::encode(&request.name, &queries, &mut again);
            assert_eq!(again, bytes);
        }
    }
}

/// A request encodes back to its bytes, and what a gate lets pass is inside the export.
pub fn request(bytes: &[u8]) {
    match Request::parse(bytes) {
        Ok(None) => assert!(bytes.len() < Request::LEN),
        Err(_) => assert!(!bytes.starts_with(b"\x25\x60\x95\x13")),
        Ok(Some((request, used))) => {
            assert_eq!(request.encode(), bytes[..used]);
            let [simple, structured, _] = gates();
            for (gate, read_only) in simple.iter().chain(structured) {
                if let Ok(command) = gate.check(&request) {
                    lawful(&command, &request.into(), *read_only);
                }
            }
        }
    }
}

/// As [`request`], in extended headers; what follows the header is the filter of a BLOCK_STATUS.
pub fn extended_request(bytes: &[u8]) {
    match ExtendedRequest::parse(bytes) {
        Ok(None) => assert!(bytes.len() < ExtendedRequest::LEN),
        Err(_) => assert!(!bytes.starts_with(b"\x21\xe4\x1c\x71")),
        Ok(Some((request, used))) => {
            assert_eq!(request.encode(), bytes[..used]);
            let [.., extended] = gates();
            for (gate, read_only) in extended {
                judge(gate, *read_only, &request, &bytes[used..]);
            }
        }
    }
}

const EXPORTS: [&str; 3] = ["disk", "read-only", "plain"];

/// The gates of all exports in each style, made once: making one costs more than a hundred checks.
fn gates() -> &'static [Vec<(Gate, bool)>; 3] {
    static GATES: OnceLock<[Vec<(Gate, bool)>; 3]> = OnceLock::new();
    GATES.get_or_init(|| {
        let styles = [
            ReplyStyle::Simple,
            ReplyStyle::Structured,
            ReplyStyle::Extended,
        ];
        styles.map(|style| {
            let gates = EXPORTS.iter().filter_map(|name| gate(name, style));
            gates.collect()
        })
    })
}

/// The gate of a connection that selected all contexts there are, and whether its export is
/// read-only.
fn gate(name: &str, replies: ReplyStyle) -> Option<(Gate, bool)> {
    let export = Fixture.lookup(&ExportName::new(name).ok()?).ok()?;
    let read_only = export.read_only;
    let contexts: Vec<SelectedContext> = (1..)
        .zip(&export.contexts)
        .filter(|_| replies.is_chunked())
        .map(|(id, name)| SelectedContext {
            id,
            name: name.clone(),
        })
        .collect();
    let filters = replies == ReplyStyle::Extended && !contexts.is_empty();
    let flags = export
        .flags(replies)
        .with_if(TransmissionFlags::BLOCK_STATUS_PAYLOAD, filters);
    let gate = Gate::new(&Negotiated {
        export,
        flags,
        replies,
        contexts,
        no_zeroes: true,
    });
    Some((gate, read_only))
}

fn judge(gate: &Gate, read_only: bool, request: &ExtendedRequest, rest: &[u8]) {
    if gate.takes_filter(request) {
        assert_eq!(request.kind, CommandKind::BLOCK_STATUS);
        assert!(request.length <= gate.filter_max());
        let Some(filter) = rest.get(..request.length as usize) else {
            return;
        };
        if let Ok(command) = gate.check_filter(request, filter) {
            let Command::BlockStatus { contexts, .. } = command else {
                panic!("a filter belongs to a block status, not to {command:?}");
            };
            assert_eq!(contexts.count(), (filter.len() - 8) / 4);
            let effect = ExtendedRequest {
                length: u64::from_be_bytes(filter[..8].try_into().unwrap_or_default()),
                ..*request
            };
            lawful(&command, &effect, read_only);
        }
    } else if let Ok(command) = gate.check_extended(request) {
        let has_payload = request.flags.contains(CommandFlags::PAYLOAD_LEN);
        let is_write = request.kind == CommandKind::WRITE;
        assert!(request.kind == CommandKind::DISC || has_payload == is_write);
        lawful(&command, request, read_only);
    }
}

/// The extent of an accepted command is that of its request, not empty and inside the export.
fn lawful(command: &Command, request: &ExtendedRequest, read_only: bool) {
    let changes = [
        CommandKind::WRITE,
        CommandKind::TRIM,
        CommandKind::WRITE_ZEROES,
    ];
    assert!(!(read_only && changes.contains(&request.kind)));
    let (offset, length) = match *command {
        Command::Flush | Command::Disconnect => return,
        Command::Nothing => {
            assert_eq!(request.length, 0);
            return;
        }
        Command::Read { offset, length, .. } | Command::Write { offset, length, .. } => {
            assert!(length <= 32 << 20);
            (offset, u64::from(length))
        }
        Command::BlockStatus { contexts, .. } if contexts.count() == 0 => {
            panic!("a block status names a context");
        }
        Command::Trim { offset, length, .. }
        | Command::Cache { offset, length }
        | Command::WriteZeroes { offset, length, .. }
        | Command::BlockStatus { offset, length, .. } => (offset, length),
    };
    assert_eq!((offset, length), (request.offset, request.length));
    assert!(length > 0 && offset < SIZE && length <= SIZE - offset);
}

/// A URI prints as one that means the same.
pub fn uri(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(uri) = text.parse::<NbdUri>() {
        let again = uri.to_string();
        assert_eq!(again.parse(), Ok(uri), "{text} printed as {again}");
    }
}
