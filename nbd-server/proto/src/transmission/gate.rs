//! The one gate every request passes before anything acts on it.

use super::{Command, Request};
use crate::codes::{CommandFlags, CommandKind, TransmissionFlags};
use crate::{NbdError, Negotiated};

/// What one connection may ask of its export, laid out for one look per request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gate {
    size: u64,
    /// Minimum block size less one.
    misaligned: u64,
    /// Longest payload of READ and WRITE.
    payload_max: u32,
    read_only: bool,
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
        serve(CommandKind::WRITE, true, F::NONE);
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
        serve(CommandKind::BLOCK_STATUS, !contexts.is_empty(), F::REQ_ONE);
        Gate {
            size: export.size,
            misaligned: u64::from(export.block_sizes.minimum()) - 1,
            payload_max: export.block_sizes.maximum(),
            read_only: export.read_only,
            allowed,
        }
    }

    /// Judges a request: the command it is, or the error it gets.
    ///
    /// In this order: EPERM for what would change a read-only export; EINVAL for an unknown or
    /// unadvertised command, for a flag that is not this command's or was not advertised, for a
    /// READ or WRITE beyond the longest payload, for a place off the minimum block; beyond the end
    /// ENOSPC for WRITE and WRITE_ZEROES, EINVAL for the rest. FLUSH and DISC have no place: their
    /// offset and length are reserved and not looked at. Length zero is
    /// [`Command::Nothing`], only BLOCK_STATUS must have an extent to report and is EINVAL.
    #[inline]
    pub fn check(&self, request: &Request) -> Result<Command, Refused> {
        let Request {
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
            _ => {}
        }
        let moves_data = matches!(kind, CommandKind::READ | CommandKind::WRITE);
        if moves_data && length > self.payload_max {
            return Err(refused(
                NbdError::Invalid,
                "the payload is longer than the maximum",
            ));
        }
        if (offset | u64::from(length)) & self.misaligned != 0 {
            return Err(refused(
                NbdError::Invalid,
                "the request is off the minimum block size",
            ));
        }
        if offset > self.size || u64::from(length) > self.size - offset {
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
        let extent = u64::from(length);
        match kind {
            CommandKind::READ => Ok(Command::Read {
                offset,
                length,
                in_one: flags.contains(CommandFlags::DF),
            }),
            CommandKind::WRITE => Ok(Command::Write {
                offset,
                length,
                fua,
            }),
            CommandKind::TRIM => Ok(Command::Trim {
                offset,
                length: extent,
                fua,
            }),
            CommandKind::CACHE => Ok(Command::Cache {
                offset,
                length: extent,
            }),
            CommandKind::WRITE_ZEROES => Ok(Command::WriteZeroes {
                offset,
                length: extent,
                fua,
                no_hole: flags.contains(CommandFlags::NO_HOLE),
                fast: flags.contains(CommandFlags::FAST_ZERO),
            }),
            CommandKind::BLOCK_STATUS => Ok(Command::BlockStatus {
                offset,
                length: extent,
                one: flags.contains(CommandFlags::REQ_ONE),
            }),
            _ => Err(self.unserved(kind)),
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
