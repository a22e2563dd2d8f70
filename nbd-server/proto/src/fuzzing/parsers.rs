//! Laws of single messages: what parses, encodes back to the same.

use super::fixture::{Fixture, SIZE};
use crate::{
    Command, CommandKind, ExportName, Exports, Gate, InfoRequest, MetaRequest, NbdUri, Negotiated,
    OptionHeader, ReplyStyle, Request, SelectedContext,
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
            for name in ["disk", "read-only", "plain"] {
                for replies in [ReplyStyle::Simple, ReplyStyle::Structured] {
                    judge(name, replies, &request);
                }
            }
        }
    }
}

fn judge(name: &str, replies: ReplyStyle, request: &Request) {
    let Some(export) = ExportName::new(name)
        .ok()
        .and_then(|name| Fixture.lookup(&name).ok())
    else {
        return;
    };
    let read_only = export.read_only;
    let contexts = match replies {
        ReplyStyle::Simple => Vec::new(),
        ReplyStyle::Structured => export
            .contexts
            .first()
            .map(|name| SelectedContext {
                id: 1,
                name: name.clone(),
            })
            .into_iter()
            .collect(),
    };
    let flags = export.flags(replies);
    let gate = Gate::new(&Negotiated {
        export,
        flags,
        replies,
        contexts,
        no_zeroes: true,
    });
    if let Ok(command) = gate.check(request) {
        inside(&command, request);
        let changes = [
            CommandKind::WRITE,
            CommandKind::TRIM,
            CommandKind::WRITE_ZEROES,
        ];
        assert!(!(read_only && changes.contains(&request.kind)));
    }
}

/// The extent of an accepted command is that of its request, not empty and inside the export.
pub(super) fn inside(command: &Command, request: &Request) {
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
        Command::Trim { offset, length, .. }
        | Command::Cache { offset, length }
        | Command::WriteZeroes { offset, length, .. }
        | Command::BlockStatus { offset, length, .. } => (offset, length),
    };
    assert_eq!(
        (offset, length),
        (request.offset, u64::from(request.length))
    );
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
