//! The one gate every request passes before anything acts on it.

use super::{Command, ContextSet, ExtendedRequest, Request};
use crate::codes::{CommandFlags, CommandKind, TransmissionFlags};
use crate::{NbdError, Negotiated, ReplyStyle};

/// What one connection may ask of its export, laid out for one look per request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gate {
    size: u64,
    /// Minimum block size less one.
    misaligned: u64,
    /// Longest payload of READ and WRITE.
    payload_max: u32,
    read_only: bool,
    /// Requests come in extended headers.
    extended: bool,
    /// Ids of the selected contexts, in their order.
    contexts: Vec<u32>,
    /// Flags each command may carry, by its number; `None` if the command is not served.
    allowed: [Option<CommandFlags>; Gate::COMMANDS],
}

/// A request that gets an error reply. The connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refused {
    /// The error on the wire.
    pub error: NbdError,
    /// Words for people, for error chunks and logs.
    pub text: &'static str,
}

/// What clients may send that were told no maximum, bytes.
const PAYLOAD_USUAL: u32 = 1 << 25;

const fn refused(error: NbdError, text: &'static str) -> Refused {
    Refused { error, text }
}

impl Gate {
    /// Commands are numbered from 0 to 7; RESIZE and what follows is never served.
    const COMMANDS: usize = 8;

    /// The gate of a connection.
    pub fn new(negotiated: &Negotiated) -> Self {
        use CommandFlags as F;
        use TransmissionFlags as T;
        let Negotiated {
            export,
            flags,
            contexts,
            replies,
            ..
        } = negotiated;
        let has = |flag: TransmissionFlags| flags.contains(flag);
        // FUA, where it is known at all, is accepted on every command.
        let base = F::NONE.with_if(F::FUA, has(T::SEND_FUA));
        let mut allowed = [None; Gate::COMMANDS];
        let mut serve = |kind: CommandKind, served: bool, flags: CommandFlags| {
            allowed[kind.0 as usize] = served.then_some(base.with(flags));
        };
        serve(
            CommandKind::READ,
            true,
            F::NONE.with_if(F::DF, has(T::SEND_DF)),
        );
        let extended = *replies == ReplyStyle::Extended;
        serve(
            CommandKind::WRITE,
            true,
            F::NONE.with_if(F::PAYLOAD_LEN, extended),
        );
        // DISC is obeyed whatever its flags are.
        serve(CommandKind::DISC, true, F(u16::MAX));
        serve(CommandKind::FLUSH, has(T::SEND_FLUSH), F::NONE);
        serve(CommandKind::TRIM, has(T::SEND_TRIM), F::NONE);
        serve(CommandKind::CACHE, has(T::SEND_CACHE), F::NONE);
        serve(
            CommandKind::WRITE_ZEROES,
            has(T::SEND_WRITE_ZEROES),
            F::NO_HOLE.with_if(F::FAST_ZERO, has(T::SEND_FAST_ZERO)),
        );
        serve(
            CommandKind::BLOCK_STATUS,
            !contexts.is_empty(),
            F::REQ_ONE.with_if(F::PAYLOAD_LEN, has(T::BLOCK_STATUS_PAYLOAD)),
        );
        let contexts = contexts.iter().take(ContextSet::MAX);
        Gate {
            size: export.size,
            misaligned: u64::from(export.block_sizes.minimum()) - 1,
            payload_max: export.block_sizes.maximum(),
            read_only: export.read_only,
            extended,
            contexts: contexts.map(|context| context.id).collect(),
            allowed,
        }
    }

    /// Judges a request in a compact header: the command it is, or the error it gets.
    ///
    /// In this order: EPERM for what would change a read-only export; EINVAL for an unknown or
    /// unadvertised command, for a flag that is not this command's or was not advertised, for a
    /// READ or WRITE beyond the longest payload, for a place off the minimum block; beyond the end
    /// ENOSPC for WRITE and WRITE_ZEROES, EINVAL for the rest. FLUSH and DISC have no place: their
    /// offset and length are reserved and not looked at. Length zero is
    /// [`Command::Nothing`], only BLOCK_STATUS must have an extent to report and is EINVAL.
    #[inline]
    pub fn check(&self, request: &Request) -> Result<Command, Refused> {
        self.judge(&ExtendedRequest::from(*request))
    }

    /// Judges a request in an extended header as [`Gate::check`] does. A WRITE must carry
    /// PAYLOAD_LEN. The length of a BLOCK_STATUS that carries it is that of a payload: such a
    /// request is judged by [`Gate::check_filter`], here only what its header tells.
    #[inline]
    pub fn check_extended(&self, request: &ExtendedRequest) -> Result<Command, Refused> {
        let has_payload = request.flags.contains(CommandFlags::PAYLOAD_LEN);
        if request.kind == CommandKind::WRITE && !has_payload && !self.read_only {
            let text = "a write in an extended header says how long its payload is";
            return Err(refused(NbdError::Invalid, text));
        }
        self.judge(request)
    }

    /// Whether the payload of this request is a filter that [`Gate::check_filter`] judges.
    pub fn takes_filter(&self, request: &ExtendedRequest) -> bool {
        let ExtendedRequest { flags, length, .. } = *request;
        let allowed = self.allowed[CommandKind::BLOCK_STATUS.0 as usize];
        let is_allowed = allowed.is_some_and(|allowed| flags.without(allowed).is_empty());
        request.kind == CommandKind::BLOCK_STATUS
            && flags.contains(CommandFlags::PAYLOAD_LEN)
            && is_allowed
            && length <= self.filter_max()
            && length >= 12
            && length.is_multiple_of(4)
    }

    /// Longest payload of BLOCK_STATUS, bytes: every context once.
    pub fn filter_max(&self) -> u64 {
        8 + 4 * self.contexts.len() as u64
    }

    /// Judges a BLOCK_STATUS whose payload is `filter`, and which [`Gate::takes_filter`]:
    ///
    /// `0: effect length u64 | 8: n × context id u32`
    /// Source: NBD protocol, `NBD_CMD_BLOCK_STATUS`.
    ///
    /// Errors: as for every other request, and EINVAL for an id that was not selected or comes
    /// twice.
    pub fn check_filter(
        &self,
        request: &ExtendedRequest,
        filter: &[u8],
    ) -> Result<Command, Refused> {
        let Some((length, ids)) = filter.split_first_chunk::<8>() else {
            return Err(refused(NbdError::Invalid, "a filter begins with a length"));
        };
        let mut wanted = ContextSet::default();
        for id in ids.as_chunks::<4>().0 {
            let id = u32::from_be_bytes(*id);
            let place = self.contexts.iter().position(|known| *known == id);
            match place {
                Some(place) if !wanted.has(place) => wanted = wanted.with(place),
                Some(_) => {
                    return Err(refused(NbdError::Invalid, "a filter names a context twice"));
                }
                None => {
                    let text = "a filter names a context that was not selected";
                    return Err(refused(NbdError::Invalid, text));
                }
            }
        }
        let request = ExtendedRequest {
            flags: request.flags.without(CommandFlags::PAYLOAD_LEN),
            length: u64::from_be_bytes(*length),
            ..*request
        };
        match self.judge(&request)? {
            Command::BlockStatus {
                offset,
                length,
                one,
                ..
            } => Ok(Command::BlockStatus {
                offset,
                length,
                one,
                contexts: wanted,
            }),
            other => Ok(other),
        }
    }

    #[inline]
    fn judge(&self, request: &ExtendedRequest) -> Result<Command, Refused> {
        let ExtendedRequest {
            flags,
            kind,
            offset,
            length,
            ..
        } = *request;
        let changes = matches!(
            kind,
            CommandKind::WRITE | CommandKind::TRIM | CommandKind::WRITE_ZEROES
        );
        if changes && self.read_only {
            return Err(refused(NbdError::Permission, "the export is read-only"));
        }
        let Some(Some(allowed)) = self.allowed.get(kind.0 as usize) else {
            return Err(self.unserved(kind));
        };
        if !flags.without(*allowed).is_empty() {
            return Err(refused(
                NbdError::Invalid,
                "a flag is not allowed on this command",
            ));
        }
        let fua = flags.contains(CommandFlags::FUA);
        match kind {
            CommandKind::FLUSH => return Ok(Command::Flush),
            CommandKind::DISC => return Ok(Command::Disconnect),
            CommandKind::BLOCK_STATUS if flags.contains(CommandFlags::PAYLOAD_LEN) => {
                let text = "the payload of a block status is no filter";
                return Err(refused(NbdError::Invalid, text));
            }
            _ => {}
        }
        let moves_data = matches!(kind, CommandKind::READ | CommandKind::WRITE);
        if moves_data && length > u64::from(self.payload_max) {
            return Err(refused(
                NbdError::Invalid,
                "the payload is longer than the maximum",
            ));
        }
        if (offset | length) & self.misaligned != 0 {
            return Err(refused(
                NbdError::Invalid,
                "the request is off the minimum block size",
            ));
        }
        if offset > self.size || length > self.size - offset {
            return Err(beyond_the_end(kind));
        }
        if length == 0 {
            return match kind {
                CommandKind::BLOCK_STATUS => {
                    Err(refused(NbdError::Invalid, "block status of nothing"))
                }
                _ => Ok(Command::Nothing),
            };
        }
        match kind {
            // Not longer than the longest payload, which has 32 bits.
            CommandKind::READ => Ok(Command::Read {
                offset,
                length: length as u32,
                in_one: flags.contains(CommandFlags::DF),
            }),
            CommandKind::WRITE => Ok(Command::Write {
                offset,
                length: length as u32,
                fua,
            }),
            CommandKind::TRIM => Ok(Command::Trim {
                offset,
                length,
                fua,
            }),
            CommandKind::CACHE => Ok(Command::Cache { offset, length }),
            CommandKind::WRITE_ZEROES => Ok(Command::WriteZeroes {
                offset,
                length,
                fua,
                no_hole: flags.contains(CommandFlags::NO_HOLE),
                fast: flags.contains(CommandFlags::FAST_ZERO),
            }),
            CommandKind::BLOCK_STATUS => Ok(Command::BlockStatus {
                offset,
                length,
                one: flags.contains(CommandFlags::REQ_ONE),
                contexts: ContextSet::first(self.contexts.len()),
            }),
            _ => Err(self.unserved(kind)),
        }
    }

    /// Requests come in extended headers.
    pub fn is_extended(&self) -> bool {
        self.extended
    }

    /// Longest payload that is dropped after a refusal, bytes. A longer one ends the connection.
    pub fn drain_max(&self) -> u64 {
        if self.extended {
            u64::from(self.payload_max.max(PAYLOAD_USUAL))
        } else {
            u64::from(super::DRAIN_MAX)
        }
    }

    /// Bytes the export has.
    pub fn size(&self) -> u64 {
        self.size
    }

    #[cold]
    fn unserved(&self, kind: CommandKind) -> Refused {
        match kind {
            CommandKind::BLOCK_STATUS => {
                refused(NbdError::Invalid, "no meta context has been selected")
            }
            CommandKind(known) if (known as usize) < Gate::COMMANDS => {
                refused(NbdError::Invalid, "the export does not offer this command")
            }
            _ => refused(NbdError::Invalid, "unknown command"),
        }
    }
}

#[cold]
fn beyond_the_end(kind: CommandKind) -> Refused {
    let error = match kind {
        CommandKind::WRITE | CommandKind::WRITE_ZEROES => NbdError::NoSpace,
        _ => NbdError::Invalid,
    };
    refused(error, "the request reaches beyond the end of the export")
}
