//! A client in transmission that tells everything a reply says: chunks, holes, texts, extents.
//!
//! It speaks through the client half of `nbd-proto`, also extended headers, for which the clients
//! of current distributions are too old. What must not depend on our own codec is in [`crate::raw`].

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nbd_proto::{
    Agreed, ClientNegotiation, ClientStep, CommandFlags, CommandKind, Cookie, ExtendedRequest,
    NbdError, ParsedReply, Replies, Reply, ReplyStyle, Request, StatusExtent, Wish,
};

/// Longest wait for a reply on a busy machine.
const REPLY_MAX: Duration = Duration::from_secs(60);

/// A whole reply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The error, the server's words, and the offset of an ERROR_OFFSET chunk.
    pub error: Option<(NbdError, String, Option<u64>)>,
    /// Content of a read put together, zeroes where a hole was told.
    pub data: Vec<u8>,
    /// Data chunks: offset, length.
    pub chunks: Vec<(u64, u64)>,
    /// Hole chunks: offset, length.
    pub holes: Vec<(u64, u64)>,
    /// Status chunks: id of the context, extents.
    pub status: Vec<(u32, Vec<StatusExtent>)>,
}

impl Told {
    /// The error on the wire, 0 without one.
    pub fn errno(&self) -> u32 {
        self.error.as_ref().map_or(0, |(error, ..)| error.to_wire())
    }

    /// Extents of a context as (length, flags). Panics: it was not told.
    pub fn extents(&self, context: u32) -> Vec<(u64, u64)> {
        let mut told = self.status.iter();
        let (_, extents) = told
            .find(|(id, _)| *id == context)
            .expect("the context is told");
        extents
            .iter()
            .map(|extent| (extent.length, extent.flags.0))
            .collect()
    }
}

/// One connection with one request at a time. Panics where a server breaks the protocol.
#[derive(Debug)]
pub struct Session {
    /// What was agreed.
    pub agreed: Box<Agreed>,
    stream: UnixStream,
    replies: Replies,
    cookie: u64,
}

impl Session {
    /// Connects over a Unix socket and negotiates. Panics: there is no agreement.
    pub fn open(socket: &Path, wish: Wish) -> Session {
        let mut stream = UnixStream::connect(socket).expect("the server listens");
        let patience = Some(REPLY_MAX);
        stream.set_read_timeout(patience).expect("a valid time");
        let mut negotiation = ClientNegotiation::new(wish);
        let (mut out, mut bytes) = (Vec::new(), [0; 4096]);
        let agreed = loop {
            let count = stream.read(&mut bytes).expect("the server answers");
            assert!(count > 0, "the server closed");
            let step = negotiation.feed(&bytes[..count], &mut out);
            stream.write_all(&out).expect("the server reads");
            out.clear();
            match step.expect("the export is granted") {
                ClientStep::NeedMore => {}
                ClientStep::StartTls { .. } => panic!("no wish here asks for TLS"),
                ClientStep::Ready { consumed, agreed } => {
                    assert_eq!(consumed, count, "nobody asked for more");
                    break agreed;
                }
            }
        };
        Session {
            agreed,
            stream,
            replies: Replies::new(),
            cookie: 0,
        }
    }

    /// Id of a selected context. Panics: it was not selected.
    pub fn context(&self, name: &str) -> u32 {
        let mut contexts = self.agreed.contexts.iter();
        let found = contexts.find(|context| context.name == name);
        found.expect("the context is selected").id
    }

    /// Sends a request with this payload and nothing else.
    pub fn send(
        &mut self,
        flags: CommandFlags,
        kind: CommandKind,
        offset: u64,
        length: u64,
        payload: &[u8],
    ) {
        self.cookie += 1;
        let cookie = Cookie(self.cookie);
        let mut bytes = match self.agreed.replies {
            ReplyStyle::Extended => ExtendedRequest {
                flags,
                kind,
                cookie,
                offset,
                length,
            }
            .encode()
            .to_vec(),
            _ => Request {
                flags,
                kind,
                cookie,
                offset,
                length: u32::try_from(length).expect("a compact length"),
            }
            .encode()
            .to_vec(),
        };
        bytes.extend_from_slice(payload);
        self.stream.write_all(&bytes).expect("the server reads");
    }

    /// Sends a request without payload and takes its reply.
    pub fn call(
        &mut self,
        flags: CommandFlags,
        kind: CommandKind,
        offset: u64,
        length: u64,
    ) -> Told {
        self.send(flags, kind, offset, length, &[]);
        self.told(offset, length)
    }

    /// Writes, and takes the reply.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Told {
        let wide = self.agreed.replies == ReplyStyle::Extended;
        let flags = CommandFlags::NONE.with_if(CommandFlags::PAYLOAD_LEN, wide);
        self.send(flags, CommandKind::WRITE, offset, data.len() as u64, data);
        self.told(offset, 0)
    }

    /// Asks for the status in some contexts, in an extended header, and takes the reply.
    pub fn filtered_status(&mut self, offset: u64, length: u64, contexts: &[u32]) -> Told {
        let mut payload = length.to_be_bytes().to_vec();
        for id in contexts {
            payload.extend_from_slice(&id.to_be_bytes());
        }
        let (flags, kind) = (CommandFlags::PAYLOAD_LEN, CommandKind::BLOCK_STATUS);
        self.send(flags, kind, offset, payload.len() as u64, &payload);
        self.told(offset, length)
    }

    /// The reply to the request last sent, which was about `length` bytes at `offset`.
    pub fn told(&mut self, offset: u64, length: u64) -> Told {
        let (mut told, mut bytes, mut at) = (Told::default(), Vec::new(), 0);
        let mut is_over = false;
        loop {
            let ParsedReply { consumed, reply } = self
                .replies
                .next(&bytes[at..])
                .expect("a reply is well formed");
            let taken = at..at + consumed;
            at += consumed;
            match reply {
                Reply::More => {
                    if is_over && self.replies.data_left() == 0 {
                        assert_eq!(at, bytes.len(), "nothing follows the last chunk");
                        return told;
                    }
                    bytes.drain(..at);
                    at = 0;
                    let mut piece = vec![0; 1 << 20];
                    let count = self.stream.read(&mut piece).expect("the reply goes on");
                    assert!(count > 0, "the server closed");
                    bytes.extend_from_slice(&piece[..count]);
                    continue;
                }
                Reply::Data => {
                    told.data.extend_from_slice(&bytes[taken]);
                    continue;
                }
                _ => assert!(!is_over, "nothing follows the last chunk"),
            }
            if self.agreed.replies == ReplyStyle::Extended {
                assert_eq!(self.replies.echoed(), Some(offset), "the offset is echoed");
            }
            let cookie = Cookie(self.cookie);
            is_over = match reply {
                Reply::Simple { cookie: of, result } => {
                    assert_eq!((of, self.agreed.replies), (cookie, ReplyStyle::Simple));
                    told.error = result.err().map(|error| (error, String::new(), None));
                    true
                }
                Reply::OffsetData {
                    cookie: of,
                    offset: place,
                    length: len,
                    done,
                } => {
                    assert_eq!(of, cookie);
                    assert_eq!(
                        place,
                        offset + told.data.len() as u64,
                        "parts come in order"
                    );
                    told.chunks.push((place, len.into()));
                    done
                }
                Reply::OffsetHole {
                    cookie: of,
                    offset: place,
                    length: len,
                    done,
                } => {
                    assert_eq!(of, cookie);
                    assert_eq!(
                        place,
                        offset + told.data.len() as u64,
                        "parts come in order"
                    );
                    told.holes.push((place, len.into()));
                    told.data.resize(told.data.len() + len as usize, 0);
                    done
                }
                Reply::None { cookie: of } => {
                    assert_eq!(of, cookie);
                    true
                }
                Reply::Error {
                    cookie: of,
                    error,
                    text,
                    offset,
                    done,
                } => {
                    assert_eq!(of, cookie);
                    told.error = Some((error, text, offset));
                    done
                }
                Reply::BlockStatus {
                    cookie: of,
                    context,
                    extents,
                    done,
                } => {
                    assert_eq!(of, cookie);
                    let before: u64 = extents[..extents.len() - 1].iter().map(|e| e.length).sum();
                    assert!(
                        before < length,
                        "only the last extent reaches beyond the request"
                    );
                    told.status.push((context, extents));
                    done
                }
                Reply::Data | Reply::More => unreachable!("they were taken above"),
            };
        }
    }

    /// Whether the server ends the connection; what it says before is dropped.
    pub fn is_closed(mut self) -> bool {
        let mut bytes = [0; 4096];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
            }
        }
    }
}
