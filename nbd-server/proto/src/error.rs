//! The error numbers NBD allows on the wire.

/// An error a request can be answered with. No other number is ever sent.
///
/// Source: NBD protocol, "Error values".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[repr(u32)]
pub enum NbdError {
    /// EPERM: the export is read-only.
    #[error("operation not permitted")]
    Permission = 1,
    /// EIO: the data could not be read or made durable.
    #[error("input/output error")]
    Io = 5,
    /// ENOMEM: no memory for the request.
    #[error("cannot allocate memory")]
    NoMemory = 12,
    /// EINVAL: the request is wrong.
    #[error("invalid argument")]
    Invalid = 22,
    /// ENOSPC: beyond the end, or the backing is full.
    #[error("no space left on device")]
    NoSpace = 28,
    /// EOVERFLOW: only for DF reads and effect lengths that are too long.
    #[error("value too large")]
    Overflow = 75,
    /// ENOTSUP: only for FAST_ZERO that would not be fast.
    #[error("operation not supported")]
    NotSupported = 95,
    /// ESHUTDOWN: the server is going away for good.
    #[error("server is shutting down")]
    Shutdown = 108,
}

impl NbdError {
    /// Every error there is.
    pub const ALL: [NbdError; 8] = [
        NbdError::Permission,
        NbdError::Io,
        NbdError::NoMemory,
        NbdError::Invalid,
        NbdError::NoSpace,
        NbdError::Overflow,
        NbdError::NotSupported,
        NbdError::Shutdown,
    ];

    /// The number on the wire.
    #[inline]
    pub const fn to_wire(self) -> u32 {
        self as u32
    }

    /// What a received number means; 0 is success. A number outside the list counts as EINVAL,
    /// which is what the protocol tells clients to assume.
    #[inline]
    pub fn from_wire(number: u32) -> Result<(), NbdError> {
        match number {
            0 => Ok(()),
            _ => Err(Self::ALL
                .into_iter()
                .find(|error| error.to_wire() == number)
                .unwrap_or(NbdError::Invalid)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_these_numbers() {
        assert_eq!(
            NbdError::ALL.map(NbdError::to_wire),
            [1, 5, 12, 22, 28, 75, 95, 108]
        );
    }

    #[test]
    fn an_unlisted_number_means_einval() {
        assert_eq!(NbdError::from_wire(0), Ok(()));
        assert_eq!(NbdError::from_wire(13), Err(NbdError::Invalid));
        for error in NbdError::ALL {
            assert_eq!(NbdError::from_wire(error.to_wire()), Err(error));
        }
    }
}
