//! Numbers of small enumerations.

use crate::message::{Disk, Refusal, Status, Zeroing};
use crate::vote::Said;
use crate::wire::bytes::Reader;
use crate::wire::error::{BadField, WireError};

/// An enumeration with a number per value.
pub(super) trait Code: Copy + PartialEq + Sized + 'static {
    /// Every value at the place of its number.
    const ALL: &'static [Self];

    fn code(self) -> u8 {
        let place = Self::ALL.iter().position(|value| *value == self);
        place.expect("every value stands in its table: a test encodes them all") as u8
    }

    fn take(reader: &mut Reader) -> Result<Self, WireError> {
        let code = reader.u8()?;
        let value = Self::ALL.get(usize::from(code)).copied();
        value.ok_or_else(|| reader.bad(BadField::Code))
    }
}

impl Code for Disk {
    const ALL: &'static [Disk] = &[
        Disk::Blank,
        Disk::Inconsistent,
        Disk::Outdated,
        Disk::UpToDate,
        Disk::Failed,
    ];
}

impl Code for Status {
    const ALL: &'static [Status] = &[Status::Ok, Status::Io, Status::NoSpace, Status::Refused];
}

impl Code for Zeroing {
    const ALL: &'static [Zeroing] = &[Zeroing::Trim, Zeroing::MayTrim, Zeroing::Allocate];
}

impl Code for Said {
    const ALL: &'static [Said] = &[Said::Promised, Said::Busy, Said::Later, Said::NoVote];
}

impl Code for Refusal {
    const ALL: &'static [Refusal] = &[
        Refusal::Protocol,
        Refusal::Feature,
        Refusal::Cluster,
        Refusal::Volume,
        Refusal::VolumeId,
        Refusal::Size,
        Refusal::ConfigDigest,
        Refusal::Diverged,
        Refusal::Unrelated,
        Refusal::TwoPrimaries,
        Refusal::Operator,
        Refusal::Breach,
        Refusal::Leaving,
        Refusal::OlderData,
        Refusal::Tls,
    ];
}
