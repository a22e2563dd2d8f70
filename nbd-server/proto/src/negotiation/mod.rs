//! The server's side of the handshake, as a pure state machine.
//!
//! ```text
//!  received bytes ─► feed ─┬─► bytes to send (appended to `out`)
//!   Exports (answers) ─────┘   Step: NeedMore | Continue | StartTls | EnterTransmission | Close
//! ```
//!
//! It keeps at most one unfinished option, answers at most one option per call so that `out` stays
//! small whatever a client pipelines, and never leaves the stream out of step. It decides when TLS
//! begins and what must not survive that ([`Negotiation::secured`]); the shell does TLS. It knows
//! no time: the shell ends connections that take too long.

mod answers;
mod contexts;
mod exports;
mod policy;
#[cfg(test)]
mod tests;

pub use exports::{BASE_ALLOCATION, ExportInfo, Exports, Features, Refusal};
pub use policy::{Policy, Tls};

use crate::codes::{ClientFlags, OptionCode, OptionReplyKind, TransmissionFlags};
use crate::{ClientAnswer, Greeting, OptionHeader, OptionReply, ReplyStyle, WrongMagic};
use contexts::Selection;

/// The negotiation of one connection.
#[derive(Clone, Debug)]
pub struct Negotiation {
    policy: Policy,
    phase: Phase,
    /// Bytes of the message `phase` waits for.
    partial: Vec<u8>,
    client: ClientFlags,
    replies: ReplyStyle,
    selection: Option<Selection>,
    options: u32,
    shutdown: Option<String>,
    /// TLS is up.
    is_secure: bool,
}

/// Which message comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    ClientFlags,
    Header,
    Data(OptionHeader),
    /// STARTTLS was acknowledged: no byte counts until TLS is up.
    Handshake,
    Ended,
}

/// What one call of [`Negotiation::feed`] came to. What was appended to `out` is sent in any case,
/// before the connection is closed or anything else is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// All bytes are consumed; more are needed.
    NeedMore,
    /// One option has been answered. Feed the bytes after the first `consumed` again, best after
    /// `out` has been sent.
    Continue {
        /// How many of the bytes given are done with.
        consumed: usize,
    },
    /// STARTTLS was answered: once `out` is sent, TLS begins. Bytes given after the first
    /// `consumed` came in the clear: feed them, and the answer is to close. When TLS is up, call
    /// [`Negotiation::secured`].
    StartTls {
        /// How many of the bytes given are done with.
        consumed: usize,
    },
    /// The transmission phase begins with the bytes after the first `consumed`.
    EnterTransmission {
        /// How many of the bytes given are done with.
        consumed: usize,
        /// What was agreed.
        negotiated: Box<Negotiated>,
    },
    /// The connection ends after `out` has been sent.
    Close(CloseReason),
}

/// What client and server agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// The export, as looked up when the client chose it.
    pub export: ExportInfo,
    /// The transmission flags the client was told.
    pub flags: TransmissionFlags,
    /// How replies look.
    pub replies: ReplyStyle,
    /// The meta contexts BLOCK_STATUS reports, in the order offered; empty makes it EINVAL.
    pub contexts: Vec<SelectedContext>,
    /// The client left out the 124 zero bytes.
    pub no_zeroes: bool,
}

/// A meta context the client selected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectedContext {
    /// Id in status chunks.
    pub id: u32,
    /// `namespace:leaf`.
    pub name: String,
}

/// Why a negotiation ended without transmission.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// The client said ABORT: an orderly end.
    #[error("the client ended the negotiation")]
    Aborted,
    /// The client answered the greeting with flags that were not offered.
    #[error("the client sent flags {0:?}, which were not offered")]
    ClientFlags(ClientFlags),
    /// An option does not begin with its magic.
    #[error("an option began with {0:#x}")]
    OptionMagic(u64),
    /// An option is longer than the policy allows.
    #[error("option {option:?} of {length} bytes is too long")]
    OptionTooLong {
        /// Which option.
        option: OptionCode,
        /// Its length, bytes.
        length: u32,
    },
    /// The client sent more options than the policy allows.
    #[error("the client sent more than {0} options")]
    TooManyOptions(u32),
    /// A client that does not understand option replies sent an option that needs one.
    #[error("option {0:?} from a client without fixed newstyle")]
    NotFixedNewstyle(OptionCode),
    /// EXPORT_NAME could not be served and knows no error reply.
    #[error("EXPORT_NAME cannot be served: {0}")]
    ExportName(String),
    /// Something came in the clear where TLS was to begin. It could have been put there by anybody
    /// on the way (CVE-2021-3716 and its like).
    #[error("the client sent bytes behind STARTTLS without TLS")]
    PlaintextBehindStartTls,
    /// The negotiation had ended before.
    #[error("the negotiation had ended")]
    Ended,
}

/// What a whole message led to.
enum Done {
    Next(Phase),
    Answered,
    StartTls,
    Enter(Box<Negotiated>),
    Close(CloseReason),
}

/// An error reply in the making.
type OptionError = (OptionReplyKind, String);

impl Negotiation {
    /// A negotiation that has received nothing; the shell sends [`Negotiation::greeting`] first.
    pub fn new(policy: Policy) -> Self {
        Negotiation {
            policy,
            phase: Phase::ClientFlags,
            partial: Vec::new(),
            client: ClientFlags::NONE,
            replies: ReplyStyle::Simple,
            selection: None,
            options: 0,
            shutdown: None,
            is_secure: false,
        }
    }

    /// The server's first words.
    pub fn greeting(&self) -> [u8; Greeting::LEN] {
        Greeting {
            flags: self.policy.handshake_flags(),
        }
        .encode()
    }

    /// From now on every option but ABORT is answered ERR_SHUTDOWN with `text`.
    pub fn shut_down(&mut self, text: &str) {
        self.shutdown = Some(text.to_owned());
    }

    /// TLS is up: the client speaks under its protection from here on. Nothing that was agreed
    /// without it counts any more; the flags that answered the greeting stay.
    ///
    /// # Panics
    /// If STARTTLS was not just answered ([`Step::StartTls`]).
    pub fn secured(&mut self) {
        assert_eq!(
            self.phase,
            Phase::Handshake,
            "TLS begins once, after STARTTLS was answered"
        );
        self.phase = Phase::Header;
        self.is_secure = true;
        self.replies = ReplyStyle::Simple;
        self.selection = None;
    }

    /// Takes received bytes, appends answers to `out`, and says how it goes on. Any division of a
    /// stream into calls comes to the same.
    pub fn feed(&mut self, bytes: &[u8], exports: &dyn Exports, out: &mut Vec<u8>) -> Step {
        let mut consumed = 0;
        loop {
            let need = match self.phase {
                Phase::ClientFlags => ClientAnswer::LEN,
                Phase::Header => OptionHeader::LEN,
                Phase::Data(header) => header.length as usize,
                Phase::Handshake if bytes.len() == consumed => return Step::NeedMore,
                Phase::Handshake => {
                    self.phase = Phase::Ended;
                    return Step::Close(CloseReason::PlaintextBehindStartTls);
                }
                Phase::Ended => return Step::Close(CloseReason::Ended),
            };
            let take = (need - self.partial.len()).min(bytes.len() - consumed);
            self.partial
                .extend_from_slice(&bytes[consumed..consumed + take]);
            consumed += take;
            if self.partial.len() < need {
                return Step::NeedMore;
            }
            let message = std::mem::take(&mut self.partial);
            let done = match self.phase {
                Phase::ClientFlags => self.client_flags(&message),
                Phase::Header => self.header(&message),
                Phase::Data(header) => self.answer(header.option, &message, exports, out),
                Phase::Handshake | Phase::Ended => Done::Close(CloseReason::Ended),
            };
            self.partial = message;
            self.partial.clear();
            match done {
                Done::Next(phase) => self.phase = phase,
                Done::Answered => {
                    self.phase = Phase::Header;
                    return Step::Continue { consumed };
                }
                Done::StartTls => {
                    self.phase = Phase::Handshake;
                    return Step::StartTls { consumed };
                }
                Done::Enter(negotiated) => {
                    self.phase = Phase::Ended;
                    return Step::EnterTransmission {
                        consumed,
                        negotiated,
                    };
                }
                Done::Close(reason) => {
                    self.phase = Phase::Ended;
                    return Step::Close(reason);
                }
            }
        }
    }

    fn client_flags(&mut self, message: &[u8]) -> Done {
        let Some((answer, _)) = ClientAnswer::parse(message) else {
            return Done::Next(Phase::ClientFlags);
        };
        let offered = ClientFlags(u32::from(self.policy.handshake_flags().0));
        if !answer.flags.without(offered).is_empty() {
            return Done::Close(CloseReason::ClientFlags(answer.flags));
        }
        self.client = answer.flags;
        Done::Next(Phase::Header)
    }

    fn header(&mut self, message: &[u8]) -> Done {
        let header = match OptionHeader::parse(message) {
            Ok(Some((header, _))) => header,
            Ok(None) => return Done::Next(Phase::Header),
            Err(WrongMagic(found)) => return Done::Close(CloseReason::OptionMagic(found)),
        };
        let OptionHeader { option, length } = header;
        if length > self.policy.option_length_max {
            return Done::Close(CloseReason::OptionTooLong { option, length });
        }
        if self.options >= self.policy.options_max {
            return Done::Close(CloseReason::TooManyOptions(self.policy.options_max));
        }
        self.options += 1;
        Done::Next(Phase::Data(header))
    }

    /// Every option is here. What is not written is unknown.
    fn answer(
        &mut self,
        option: OptionCode,
        data: &[u8],
        exports: &dyn Exports,
        out: &mut Vec<u8>,
    ) -> Done {
        let reply = OptionReply { option };
        if option == OptionCode::EXPORT_NAME {
            return self.export_name(data, exports, out);
        }
        if !self.client.contains(ClientFlags::FIXED_NEWSTYLE) {
            return Done::Close(CloseReason::NotFixedNewstyle(option));
        }
        if option == OptionCode::ABORT {
            reply.ack(out);
            return Done::Close(CloseReason::Aborted);
        }
        if option == OptionCode::STARTTLS {
            return match self.start_tls(data) {
                Ok(()) => {
                    reply.ack(out);
                    Done::StartTls
                }
                Err((kind, text)) => {
                    reply.error(kind, &text, out);
                    Done::Answered
                }
            };
        }
        match self.option(option, data, exports, out) {
            Ok(Some(negotiated)) => {
                reply.ack(out);
                Done::Enter(Box::new(negotiated))
            }
            Ok(None) => {
                reply.ack(out);
                Done::Answered
            }
            Err((kind, text)) => {
                reply.error(kind, &text, out);
                Done::Answered
            }
        }
    }
}
