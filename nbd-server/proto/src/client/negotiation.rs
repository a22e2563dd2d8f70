//! The client's side of the handshake, as a pure state machine.
//!
//! ```text
//! greeting ─► STARTTLS, if wished ─► the shell does TLS, then `secured` ─► as without:
//! greeting ─► EXTENDED_HEADERS ─► SET_META_CONTEXT ─► GO ──────────────► ready
//!              │ if wished      ▲   if wished         └ unsupported ─► EXPORT_NAME ─► ready
//!              └► STRUCTURED_REPLY, where the server has no extended headers
//! ```

use crate::codes::{ClientFlags, HandshakeFlags, OptionCode, OptionReplyKind, TransmissionFlags};
use crate::{
    BlockSizes, ClientAnswer, ExportName, ExportNameReply, Greeting, Info, InfoRequest, Malformed,
    MetaContext, MetaRequest, OptionHeader, OptionReplyHeader, ReplyStyle, SelectedContext, Wanted,
    WrongBlockSizes, WrongMagic,
};

/// Longest data of an option reply a client takes, bytes.
const REPLY_LENGTH_MAX: u32 = 64 << 10;

/// Most replies to one option before its acknowledgement.
const REPLIES_MAX: u32 = 10_000;

/// What a client would like to agree on. What the server does not have is left out of the
/// agreement; only the export itself must be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The export; empty for the default one.
    pub export: ExportName,
    /// Nothing but STARTTLS is said in the clear; a server without TLS is left.
    pub tls: bool,
    /// Reply in chunks.
    pub structured: bool,
    /// Ask and reply in extended headers; where the server has none, `structured` decides.
    pub extended: bool,
    /// Meta contexts to select; need `structured` or `extended`.
    pub contexts: Vec<String>,
    /// What GO asks to be told.
    pub wanted: Wanted,
}

impl Wish {
    /// An export with simple replies and its block sizes.
    pub fn simple(export: ExportName) -> Self {
        let wanted = Wanted {
            block_size: true,
            ..Wanted::default()
        };
        Wish {
            export,
            tls: false,
            structured: false,
            extended: false,
            contexts: Vec::new(),
            wanted,
        }
    }

    /// An export with structured replies, `base:allocation` and everything there is to know.
    pub fn full(export: ExportName) -> Self {
        Wish {
            export,
            tls: false,
            structured: true,
            extended: false,
            contexts: vec![crate::BASE_ALLOCATION.to_owned()],
            wanted: Wanted {
                name: true,
                description: true,
                block_size: true,
            },
        }
    }
}

impl Wish {
    /// As [`Wish::full`], in extended headers.
    pub fn extended(export: ExportName) -> Self {
        Wish {
            extended: true,
            ..Wish::full(export)
        }
    }
}

/// What client and server agreed on, as the client knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// Size of the export, bytes.
    pub size: u64,
    /// What it can do.
    pub flags: TransmissionFlags,
    /// How replies look.
    pub replies: ReplyStyle,
    /// Selected meta contexts with their ids.
    pub contexts: Vec<SelectedContext>,
    /// The canonical name, if told.
    pub name: Option<String>,
    /// The text for people, if told.
    pub description: Option<String>,
    /// The block sizes, if told.
    pub block_sizes: Option<BlockSizes>,
    /// GO was not supported: EXPORT_NAME chose the export.
    pub by_export_name: bool,
}

/// How a negotiation goes on. What was appended to `out` is sent first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientStep {
    /// All bytes are consumed; more are needed.
    NeedMore,
    /// Transmission begins with the bytes after the first `consumed`.
    Ready {
        /// How many of the bytes given are done with.
        consumed: usize,
        /// What was agreed.
        agreed: Box<Agreed>,
    },
    /// The server waits for the first bytes of TLS. When it is up, call
    /// [`ClientNegotiation::secured`]. Bytes given after the first `consumed` came in the clear:
    /// feed them, and the answer is an error.
    StartTls {
        /// How many of the bytes given are done with.
        consumed: usize,
    },
}

/// Why a client cannot go on. Send what is in `out`, then close.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// This is no NBD server, or one of the dead oldstyle.
    #[error("the server's greeting is not newstyle NBD")]
    Greeting(#[source] WrongMagic),
    /// An option reply does not begin with its magic.
    #[error("an option reply is out of step")]
    ReplyMagic(#[source] WrongMagic),
    /// A reply to an option that was not sent.
    #[error("the server answered {found:?} when {expected:?} was asked")]
    WrongOption {
        /// What was sent.
        expected: OptionCode,
        /// What was answered.
        found: OptionCode,
    },
    /// The server refused the export.
    #[error("the server refused with {kind:?}: {text}")]
    Refused {
        /// The error.
        kind: OptionReplyKind,
        /// The server's words, may be empty.
        text: String,
    },
    /// The data of a reply is wrong.
    #[error("the server's reply to {option:?} is malformed")]
    Malformed {
        /// What was asked.
        option: OptionCode,
        /// What is wrong.
        #[source]
        cause: Malformed,
    },
    /// The server announced sizes the protocol forbids.
    #[error("the server announced forbidden block sizes")]
    BlockSizes(#[source] WrongBlockSizes),
    /// A reply this option cannot have.
    #[error("the server answered {option:?} with {kind:?}")]
    UnexpectedReply {
        /// What was asked.
        option: OptionCode,
        /// What came.
        kind: OptionReplyKind,
    },
    /// GO was acknowledged without size and flags.
    #[error("the server acknowledged GO without telling size and flags")]
    NoExportInfo,
    /// More or longer replies than any sane server sends.
    #[error("the server's replies to {0:?} have no end")]
    TooMuch(OptionCode),
    /// TLS was wished and the server is of a kind that cannot begin it.
    #[error("the server is too old for STARTTLS")]
    NoTls,
    /// Something came in the clear where TLS was to begin.
    #[error("the server sent bytes behind STARTTLS without TLS")]
    Plaintext,
    /// The negotiation had ended before.
    #[error("the negotiation had ended")]
    Ended,
}

/// The client's side of one negotiation. Feed it what the server sends, from the first byte.
#[derive(Clone, Debug)]
pub struct ClientNegotiation {
    wish: Wish,
    phase: Phase,
    partial: Vec<u8>,
    no_zeroes: bool,
    replies_left: u32,
    agreed: Agreed,
    export_known: bool,
}

/// What the client waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Greeting,
    /// The header of a reply to this option.
    Header(OptionCode),
    Data(OptionReplyHeader),
    /// STARTTLS was acknowledged: no byte counts until TLS is up.
    Handshake,
    ExportName,
    Ended,
}

impl ClientNegotiation {
    /// A negotiation that has received nothing. The server speaks first.
    pub fn new(wish: Wish) -> Self {
        ClientNegotiation {
            wish,
            phase: Phase::Greeting,
            partial: Vec::new(),
            no_zeroes: false,
            replies_left: REPLIES_MAX,
            agreed: Agreed {
                size: 0,
                flags: TransmissionFlags::NONE,
                replies: ReplyStyle::Simple,
                contexts: Vec::new(),
                name: None,
                description: None,
                block_sizes: None,
                by_export_name: false,
            },
            export_known: false,
        }
    }

    /// Takes received bytes, appends what is to be sent to `out`, and says how it goes on. Errors:
    /// [`ClientError`]; `out` then holds an ABORT if the server would understand one.
    pub fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<ClientStep, ClientError> {
        let mut consumed = 0;
        loop {
            let need = match self.phase {
                Phase::Greeting => Greeting::LEN,
                Phase::Header(_) => OptionReplyHeader::LEN,
                Phase::Data(header) => header.length as usize,
                Phase::ExportName => ExportNameReply::len(self.no_zeroes),
                Phase::Handshake if bytes.len() == consumed => {
                    return Ok(ClientStep::StartTls { consumed });
                }
                Phase::Handshake => {
                    self.phase = Phase::Ended;
                    return Err(ClientError::Plaintext);
                }
                Phase::Ended => return Err(ClientError::Ended),
            };
            let take = (need - self.partial.len()).min(bytes.len() - consumed);
            self.partial
                .extend_from_slice(&bytes[consumed..consumed + take]);
            consumed += take;
            if self.partial.len() < need {
                return Ok(ClientStep::NeedMore);
            }
            let message = std::mem::take(&mut self.partial);
            match self.message(&message, out) {
                Ok(None) => self.phase = Phase::Ended,
                Ok(Some(phase)) => self.phase = phase,
                Err(error) => {
                    self.phase = Phase::Ended;
                    if matches!(error, ClientError::Refused { .. }) {
                        OptionHeader::encode_with(OptionCode::ABORT, &[], out);
                    }
                    return Err(error);
                }
            }
            if self.phase == Phase::Handshake {
                return Ok(ClientStep::StartTls { consumed });
            }
            if self.phase == Phase::Ended {
                let agreed = Box::new(self.agreed.clone());
                return Ok(ClientStep::Ready { consumed, agreed });
            }
        }
    }

    /// A whole message; the next phase, or `None` if transmission begins.
    fn message(&mut self, message: &[u8], out: &mut Vec<u8>) -> Result<Option<Phase>, ClientError> {
        match self.phase {
            Phase::Greeting => {
                let Some((greeting, _)) =
                    Greeting::parse(message).map_err(ClientError::Greeting)?
                else {
                    return Ok(Some(Phase::Greeting));
                };
                self.begin(greeting.flags, out).map(Some)
            }
            Phase::Header(expected) => {
                let Some((header, _)) =
                    OptionReplyHeader::parse(message).map_err(ClientError::ReplyMagic)?
                else {
                    return Ok(Some(Phase::Header(expected)));
                };
                self.reply_header(expected, header).map(Some)
            }
            Phase::Data(header) => self.reply(header, message, out),
            Phase::ExportName => {
                let Some((reply, _)) = ExportNameReply::parse(message, self.no_zeroes) else {
                    return Ok(Some(Phase::ExportName));
                };
                self.agreed.size = reply.size;
                self.agreed.flags = reply.flags;
                Ok(None)
            }
            Phase::Handshake | Phase::Ended => Err(ClientError::Ended),
        }
    }

    /// TLS is up: appends the first option to be sent under it.
    ///
    /// # Panics
    /// If STARTTLS was not just acknowledged ([`ClientStep::StartTls`]).
    pub fn secured(&mut self, out: &mut Vec<u8>) {
        assert_eq!(
            self.phase,
            Phase::Handshake,
            "TLS begins once, after STARTTLS was acknowledged"
        );
        self.phase = self.begin_replies(out);
    }

    fn begin(&mut self, offered: HandshakeFlags, out: &mut Vec<u8>) -> Result<Phase, ClientError> {
        let fixed = offered.contains(HandshakeFlags::FIXED_NEWSTYLE);
        self.no_zeroes = offered.contains(HandshakeFlags::NO_ZEROES);
        let flags = ClientFlags::NONE
            .with_if(ClientFlags::FIXED_NEWSTYLE, fixed)
            .with_if(ClientFlags::NO_ZEROES, self.no_zeroes);
        out.extend_from_slice(&ClientAnswer { flags }.encode());
        match (fixed, self.wish.tls) {
            (false, true) => Err(ClientError::NoTls),
            (false, false) => Ok(self.export_name(out)),
            (true, true) => Ok(self.ask(OptionCode::STARTTLS, &[], out)),
            (true, false) => Ok(self.begin_replies(out)),
        }
    }

    fn begin_replies(&mut self, out: &mut Vec<u8>) -> Phase {
        match self.wish.extended {
            true => self.ask(OptionCode::EXTENDED_HEADERS, &[], out),
            false => self.begin_structured(out),
        }
    }

    fn begin_structured(&mut self, out: &mut Vec<u8>) -> Phase {
        match self.wish.structured {
            true => self.ask(OptionCode::STRUCTURED_REPLY, &[], out),
            false => self.go(out),
        }
    }

    fn reply_header(
        &mut self,
        expected: OptionCode,
        header: OptionReplyHeader,
    ) -> Result<Phase, ClientError> {
        if header.option != expected {
            return Err(ClientError::WrongOption {
                expected,
                found: header.option,
            });
        }
        if header.length > REPLY_LENGTH_MAX || self.replies_left == 0 {
            return Err(ClientError::TooMuch(expected));
        }
        self.replies_left -= 1;
        Ok(Phase::Data(header))
    }

    /// A whole option reply.
    fn reply(
        &mut self,
        header: OptionReplyHeader,
        data: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Phase>, ClientError> {
        use OptionReplyKind as K;
        let OptionReplyHeader { option, kind, .. } = header;
        let malformed = |cause| ClientError::Malformed { option, cause };
        match (option, kind) {
            (OptionCode::STARTTLS, K::ACK) => Ok(Some(Phase::Handshake)),
            (OptionCode::EXTENDED_HEADERS, error) if error.is_error() => {
                Ok(Some(self.begin_structured(out)))
            }
            (OptionCode::EXTENDED_HEADERS | OptionCode::STRUCTURED_REPLY, K::ACK) => {
                self.agreed.replies = match option {
                    OptionCode::EXTENDED_HEADERS => ReplyStyle::Extended,
                    _ => ReplyStyle::Structured,
                };
                if self.wish.contexts.is_empty() {
                    return Ok(Some(self.go(out)));
                }
                let queries: Vec<&str> = self.wish.contexts.iter().map(String::as_str).collect();
                let mut request = Vec::new();
                MetaRequest::encode(&self.wish.export, &queries, &mut request);
                Ok(Some(self.ask(OptionCode::SET_META_CONTEXT, &request, out)))
            }
            (OptionCode::SET_META_CONTEXT, K::META_CONTEXT) => {
                let MetaContext { id, name } = MetaContext::parse(data).map_err(malformed)?;
                self.agreed.contexts.push(SelectedContext {
                    id,
                    name: name.to_owned(),
                });
                Ok(Some(Phase::Header(option)))
            }
            (OptionCode::SET_META_CONTEXT, K::ACK) => Ok(Some(self.go(out))),
            (OptionCode::GO, K::INFO) => {
                self.info(Info::parse(data).map_err(malformed)?)?;
                Ok(Some(Phase::Header(option)))
            }
            (OptionCode::GO, K::ACK) if self.export_known => Ok(None),
            (OptionCode::GO, K::ACK) => Err(ClientError::NoExportInfo),
            (OptionCode::GO, K::ERR_UNSUP) if self.agreed.replies != ReplyStyle::Extended => {
                Ok(Some(self.export_name(out)))
            }
            (OptionCode::STRUCTURED_REPLY, error) if error.is_error() => Ok(Some(self.go(out))),
            (OptionCode::SET_META_CONTEXT, error) if error.is_error() => {
                self.agreed.contexts.clear();
                Ok(Some(self.go(out)))
            }
            (OptionCode::STARTTLS | OptionCode::GO, error) if error.is_error() => {
                let text = String::from_utf8_lossy(data).into_owned();
                Err(ClientError::Refused { kind: error, text })
            }
            (option, kind) => Err(ClientError::UnexpectedReply { option, kind }),
        }
    }

    fn info(&mut self, info: Info<'_>) -> Result<(), ClientError> {
        match info {
            Info::Export { size, flags } => {
                self.agreed.size = size;
                self.agreed.flags = flags;
                self.export_known = true;
            }
            Info::Name(name) => self.agreed.name = Some(name.to_owned()),
            Info::Description(text) => self.agreed.description = Some(text.to_owned()),
            Info::BlockSize {
                minimum,
                preferred,
                maximum,
            } => {
                let sizes = BlockSizes::new(minimum, preferred, maximum);
                self.agreed.block_sizes = Some(sizes.map_err(ClientError::BlockSizes)?);
            }
            Info::Other(_) => {}
        }
        Ok(())
    }

    fn go(&mut self, out: &mut Vec<u8>) -> Phase {
        let mut data = Vec::new();
        InfoRequest {
            name: self.wish.export.clone(),
            wanted: self.wish.wanted,
        }
        .encode(&mut data);
        self.ask(OptionCode::GO, &data, out)
    }

    fn export_name(&mut self, out: &mut Vec<u8>) -> Phase {
        self.agreed.by_export_name = true;
        OptionHeader::encode_with(
            OptionCode::EXPORT_NAME,
            self.wish.export.as_str().as_bytes(),
            out,
        );
        Phase::ExportName
    }

    fn ask(&mut self, option: OptionCode, data: &[u8], out: &mut Vec<u8>) -> Phase {
        OptionHeader::encode_with(option, data, out);
        self.replies_left = REPLIES_MAX;
        Phase::Header(option)
    }
}
