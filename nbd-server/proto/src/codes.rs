//! Numbers the protocol assigns: options, replies, infos, commands, chunks and their flags.
//!
//! Codes are open: an unknown number is kept as it came, so that it can be echoed and named.

macro_rules! codes {
    ($(#[$doc:meta])* $name:ident: $int:ty { $($(#[$item:meta])* $code:ident = $value:expr,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $int);

        impl $name {
            $($(#[$item])* pub const $code: $name = $name($value);)+
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match *self {
                    $($name::$code => f.write_str(stringify!($code)),)+
                    $name(other) => write!(f, concat!(stringify!($name), "({:#x})"), other),
                }
            }
        }
    };
}

macro_rules! flags {
    ($(#[$doc:meta])* $name:ident: $int:ty { $($(#[$item:meta])* $flag:ident = $bit:expr,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
        pub struct $name(pub $int);

        impl $name {
            $($(#[$item])* pub const $flag: $name = $name(1 << $bit);)+

            /// No flag at all.
            pub const NONE: $name = $name(0);

            /// Every flag of `other` is set here.
            #[inline]
            pub const fn contains(self, other: $name) -> bool {
                self.0 & other.0 == other.0
            }

            /// The flags of both.
            #[inline]
            #[must_use]
            pub const fn with(self, other: $name) -> $name {
                $name(self.0 | other.0)
            }

            /// The flags of both if `condition`, else these alone.
            #[inline]
            #[must_use]
            pub const fn with_if(self, other: $name, condition: bool) -> $name {
                if condition { self.with(other) } else { self }
            }

            /// The flags here that are not in `other`.
            #[inline]
            #[must_use]
            pub const fn without(self, other: $name) -> $name {
                $name(self.0 & !other.0)
            }

            /// No flag is set.
            #[inline]
            pub const fn is_empty(self) -> bool {
                self.0 == 0
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let mut set = f.debug_set();
                let mut left = *self;
                $(if left.contains($name::$flag) {
                    left = left.without($name::$flag);
                    set.entry(&format_args!(stringify!($flag)));
                })+
                if !left.is_empty() {
                    set.entry(&format_args!("{:#x}", left.0));
                }
                set.finish()
            }
        }
    };
}

flags! {
    /// What the server offers in its greeting.
    HandshakeFlags: u16 {
        /// Options are answered one by one; always set.
        FIXED_NEWSTYLE = 0,
        /// The 124 zero bytes after EXPORT_NAME may be left out.
        NO_ZEROES = 1,
    }
}

flags! {
    /// What the client answers to the greeting.
    ClientFlags: u32 {
        /// The client understands option replies.
        FIXED_NEWSTYLE = 0,
        /// The client does not want the 124 zero bytes after EXPORT_NAME.
        NO_ZEROES = 1,
    }
}

flags! {
    /// What an export can do, sent with its size.
    TransmissionFlags: u16 {
        /// Always set.
        HAS_FLAGS = 0,
        /// Writes, trims and zeroes fail with EPERM.
        READ_ONLY = 1,
        /// FLUSH is supported.
        SEND_FLUSH = 2,
        /// The FUA flag is supported, then on every command.
        SEND_FUA = 3,
        /// The medium rotates: a hint.
        ROTATIONAL = 4,
        /// TRIM is supported.
        SEND_TRIM = 5,
        /// WRITE_ZEROES and its NO_HOLE flag are supported.
        SEND_WRITE_ZEROES = 6,
        /// The DF flag is supported; needs structured replies.
        SEND_DF = 7,
        /// A flush on one connection covers the completed writes of all.
        CAN_MULTI_CONN = 8,
        /// The resize extension; never offered.
        SEND_RESIZE = 9,
        /// CACHE is supported.
        SEND_CACHE = 10,
        /// The FAST_ZERO flag is supported; needs SEND_WRITE_ZEROES.
        SEND_FAST_ZERO = 11,
        /// Block status may be filtered by a payload; needs extended headers.
        BLOCK_STATUS_PAYLOAD = 12,
    }
}

flags! {
    /// Flags of one request.
    CommandFlags: u16 {
        /// Reply only once the data of this command is durable.
        FUA = 0,
        /// WRITE_ZEROES must not deallocate.
        NO_HOLE = 1,
        /// READ must answer in one content chunk.
        DF = 2,
        /// BLOCK_STATUS must answer with one extent, inside the request.
        REQ_ONE = 3,
        /// WRITE_ZEROES must fail with ENOTSUP unless faster than a write.
        FAST_ZERO = 4,
        /// The length is that of a payload; extended headers only.
        PAYLOAD_LEN = 5,
    }
}

flags! {
    /// Flags of a structured reply chunk.
    ChunkFlags: u16 {
        /// The last chunk of this reply.
        DONE = 0,
    }
}

codes! {
    /// An option of the negotiation.
    OptionCode: u32 {
        /// Enter transmission; no reply header, no way to fail but closing.
        EXPORT_NAME = 1,
        /// End the session.
        ABORT = 2,
        /// Name the exports.
        LIST = 3,
        /// Withdrawn from the protocol.
        PEEK_EXPORT = 4,
        /// Continue in TLS.
        STARTTLS = 5,
        /// Describe an export.
        INFO = 6,
        /// Describe an export and enter transmission.
        GO = 7,
        /// Reply in chunks.
        STRUCTURED_REPLY = 8,
        /// Name the meta contexts of an export.
        LIST_META_CONTEXT = 9,
        /// Select meta contexts.
        SET_META_CONTEXT = 10,
        /// Use 64-bit headers.
        EXTENDED_HEADERS = 11,
    }
}

codes! {
    /// What kind of answer to an option this is. Errors have bit 31 set.
    OptionReplyKind: u32 {
        /// Done, no data.
        ACK = 1,
        /// One export of a list.
        SERVER = 2,
        /// One information about an export.
        INFO = 3,
        /// One meta context.
        META_CONTEXT = 4,
        /// The option is not known.
        ERR_UNSUP = 0x8000_0001,
        /// The option is known and forbidden.
        ERR_POLICY = 0x8000_0002,
        /// The option's data is wrong.
        ERR_INVALID = 0x8000_0003,
        /// The option is not available on this platform.
        ERR_PLATFORM = 0x8000_0004,
        /// TLS must come first.
        ERR_TLS_REQD = 0x8000_0005,
        /// There is no such export.
        ERR_UNKNOWN = 0x8000_0006,
        /// The server is shutting down.
        ERR_SHUTDOWN = 0x8000_0007,
        /// The client must ask for block sizes.
        ERR_BLOCK_SIZE_REQD = 0x8000_0008,
        /// The request is too large to process.
        ERR_TOO_BIG = 0x8000_0009,
        /// Extended headers must come first.
        ERR_EXT_HEADER_REQD = 0x8000_000a,
    }
}

impl OptionReplyKind {
    /// The option failed.
    pub const fn is_error(self) -> bool {
        self.0 & 0x8000_0000 != 0
    }
}

codes! {
    /// What an information about an export is about.
    InfoKind: u16 {
        /// Size and transmission flags.
        EXPORT = 0,
        /// Canonical name.
        NAME = 1,
        /// Text for people.
        DESCRIPTION = 2,
        /// Minimum, preferred and maximum sizes.
        BLOCK_SIZE = 3,
    }
}

codes! {
    /// A command of the transmission phase.
    CommandKind: u16 {
        /// Read data.
        READ = 0,
        /// Write the payload.
        WRITE = 1,
        /// End the session; no reply.
        DISC = 2,
        /// Make everything replied to durable.
        FLUSH = 3,
        /// The client no longer needs the contents.
        TRIM = 4,
        /// The client will soon read.
        CACHE = 5,
        /// Make it read as zeroes.
        WRITE_ZEROES = 6,
        /// Describe extents in the selected meta contexts.
        BLOCK_STATUS = 7,
        /// The resize extension; never accepted.
        RESIZE = 8,
    }
}

codes! {
    /// What a structured reply chunk carries. Errors have bit 15 set.
    ChunkKind: u16 {
        /// Nothing: the end of a reply.
        NONE = 0,
        /// Data.
        OFFSET_DATA = 1,
        /// A run of zeroes.
        OFFSET_HOLE = 2,
        /// Extents of a meta context.
        BLOCK_STATUS = 5,
        /// Extents of a meta context in 64 bits; extended headers only.
        BLOCK_STATUS_EXT = 6,
        /// An error.
        ERROR = 0x8001,
        /// An error at an offset.
        ERROR_OFFSET = 0x8002,
    }
}

impl ChunkKind {
    /// The chunk reports an error.
    pub const fn is_error(self) -> bool {
        self.0 & 0x8000 != 0
    }
}

/// The client's tag of a request, echoed in every reply to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Cookie(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_print_their_names_and_unknown_ones_their_number() {
        assert_eq!(format!("{:?}", OptionCode::GO), "GO");
        assert_eq!(format!("{:?}", OptionCode(77)), "OptionCode(0x4d)");
    }

    #[test]
    fn flags_print_what_is_set() {
        let flags = CommandFlags::FUA.with(CommandFlags(0x100));
        assert_eq!(format!("{flags:?}"), "{FUA, 0x100}");
    }

    #[test]
    fn errors_are_told_by_their_high_bit() {
        assert!(OptionReplyKind::ERR_TOO_BIG.is_error());
        assert!(!OptionReplyKind::META_CONTEXT.is_error());
        assert!(ChunkKind::ERROR_OFFSET.is_error());
        assert!(!ChunkKind::BLOCK_STATUS_EXT.is_error());
    }
}
