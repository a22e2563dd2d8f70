//! Log lines of what happened to a volume.

use std::time::Duration;

use engine_core::action::Notice;
use engine_core::message::Refusal as Why;
use engine_core::units::GRANULE;

use super::{Names, bytes_of, refusal};
use crate::control::Request;
use crate::log::Level;

/// Why two nodes do not talk.
pub(crate) fn why_refused(why: Why) -> &'static str {
    match why {
        Why::Protocol => "no common protocol version",
        Why::Feature => "one side needs a feature the other does not know",
        Why::Cluster => "it belongs to another cluster",
        Why::Volume => "it does not have this volume configured for this node",
        Why::VolumeId => "it holds another volume of the same name",
        Why::Size => "the sizes differ",
        Why::ConfigDigest => "the volume is configured differently there",
        Why::Diverged => "split brain: both took writes after they parted",
        Why::Unrelated => "split brain: the histories have nothing in common",
        Why::TwoPrimaries => "both are primary, or the primary is behind",
        Why::Operator => "an operator disconnected it",
        Why::Breach => "the link protocol was broken, or bytes were damaged",
        Why::Leaving => "it is stopping",
        Why::OlderData => {
            "it returned with older data than this node remembers; it will be resynced whole"
        }
        Why::Tls => "TLS of the two does not fit, or a certificate is not that of its node (W123)",
    }
}

/// What is not answered while etcd is away from who serves.
pub(crate) fn etcd_waits(fails: bool) -> &'static str {
    match fails {
        true => "I/O fails",
        false => "reads wait, and writes once a replica is lost,",
    }
}

/// The log line of a notice.
pub(crate) fn notice(names: Names<'_>, notice: &Notice) -> (Level, &'static str, String) {
    match notice {
        Notice::Promoted { term } => (Level::Info, "I101", format!("is primary, term {}", term.0)),
        Notice::Demoted => (Level::Info, "I101", "is secondary".into()),
        Notice::HandingOver { to } => {
            let to = names.of(*to);
            let text = format!("hands over to {to}, which was told to promote; clients are to go");
            (Level::Info, "I168", text)
        }
        Notice::KeptRole { to } => {
            let text = format!(
                "is primary still: requests of clients did not end in time, or {} was lost",
                names.of(*to)
            );
            (Level::Warn, "W130", text)
        }
        Notice::MemberLate { peer, pause } => {
            let text = format!(
                "{} took longer than member_timeout to answer: it leaves, and is let in again after {:.0?}",
                names.of(*peer),
                pause
            );
            (Level::Warn, "W142", text)
        }
        Notice::OtherNodes { peer } => {
            let text = format!(
                "the votes of {} do not count: its file lists other replicas or witnesses of this volume, \
                 or in another order",
                names.of(*peer)
            );
            (Level::Warn, "W148", text)
        }
        Notice::Nodes => {
            let text = format!("has another table of nodes: {}", names.nodes.join(", "));
            (Level::Info, "I171", text)
        }
        Notice::MetaHangs => {
            let text =
                "lays its role down: writes of its metadata do not end; another member may serve";
            (Level::Warn, "W147", text.into())
        }
        Notice::QuorumLost { fails } if names.is_by_etcd() => {
            let io = etcd_waits(*fails);
            let text = format!("etcd does not answer, and the lease ran out; {io} until it does");
            (Level::Warn, "W131", text)
        }
        Notice::QuorumLost { fails } => {
            let io = if *fails { "fail" } else { "wait" };
            let text = format!("no majority of its voters answers; requests {io} until one does");
            (Level::Warn, "W131", text)
        }
        Notice::QuorumBack => {
            let who = match names.is_by_etcd() {
                true => "etcd",
                false => "a majority of its voters",
            };
            let text = format!("{who} answers again; I/O goes on");
            (Level::Info, "I169", text)
        }
        Notice::NotElected { error } => {
            let promote = Request::Promote {
                force: false,
                wait: Duration::ZERO,
            };
            let why = refusal(names, &promote, error).text;
            let text = format!("nobody serves it: {}", why.replace("\n  ", "; "));
            (Level::Warn, "W149", text)
        }
        Notice::SteppedDown { term } => {
            let who = match names.is_by_etcd() {
                true => "etcd may name",
                false => "a majority of its voters may have chosen",
            };
            let text = format!(
                "is secondary: {who} another node after term {}; its clients are cut off without an \
                 answer",
                term.0
            );
            (Level::Warn, "W117", text)
        }
        Notice::Founded { branch } => (
            Level::Info,
            "I102",
            format!("is founded, branch {branch:032x}"),
        ),
        Notice::InSync { record } => {
            let text = format!(
                "in sync: {} (term {}, step {})",
                names.list(record.in_sync),
                record.term.0,
                record.step
            );
            (Level::Info, "I103", text)
        }
        Notice::PeerConnected(node) => (
            Level::Info,
            "W101",
            format!("{} is connected", names.of(*node)),
        ),
        Notice::PeerLost(node) => (Level::Warn, "W101", format!("{} is lost", names.of(*node))),
        Notice::PeerRefused { peer, why, by_us } => {
            let (peer, why) = (names.of(*peer), why_refused(*why));
            let text = if *by_us {
                format!("{peer} is refused: {why}")
            } else {
                format!("{peer} refuses this node: {why}")
            };
            (Level::Warn, "W110", text)
        }
        Notice::FoundOlder { peer } => {
            let text = format!(
                "this copy was put back to an older state than {} remembers: it counts as a new one",
                names.of(*peer)
            );
            (Level::Warn, "W146", text)
        }
        Notice::GaveUp { to, is_by_policy } => {
            let (me, to) = (names.own, names.of(*to));
            let (code, why) = match is_by_policy {
                true => ("W129", "nothing was written here, and splitbrain allows it"),
                false => ("W127", "by an operator"),
            };
            let text = format!("split brain: the copy on {me} is given up for {to}: {why}");
            (Level::Warn, code, text)
        }
        Notice::ResyncBegan {
            peer,
            is_target,
            dirty,
        } => {
            let (peer, bytes) = (names.of(*peer), dirty * GRANULE);
            let way = if *is_target { "from" } else { "to" };
            (
                Level::Info,
                "W102",
                format!("resync {way} {peer}: {bytes} bytes"),
            )
        }
        Notice::Grown { size } => (Level::Info, "I170", format!("has {} bytes", size * GRANULE)),
        Notice::CannotGrow { size, max } => (
            Level::Warn,
            "W136",
            format!(
                "has grown to {} bytes elsewhere; the metadata here has room for {}: make this \
                 replica anew",
                size * GRANULE,
                max * GRANULE
            ),
        ),
        Notice::ResyncDone { peer, figures } => {
            let (peer, moved) = (names.of(*peer), figures.moved * GRANULE);
            let mut text = format!("resync with {peer} is done: {moved} bytes");
            // A target does not know what was sent to it and what was found equal.
            if figures.sent + figures.zeroed > 0 {
                text.push_str(&format!(
                    ", {} of them sent, {} zeros, {} equal",
                    figures.sent * GRANULE,
                    figures.zeroed * GRANULE,
                    figures.equal() * GRANULE
                ));
            }
            (Level::Info, "W102", text)
        }
        Notice::DiskFailed => (
            Level::Error,
            "W103",
            "the disk failed and takes part no more".into(),
        ),
        Notice::MetaFailed => {
            let text = "metadata cannot be written; nothing more is acknowledged".into();
            (Level::Error, "W103", text)
        }
        Notice::DiskFull => (Level::Error, "W106", "the last copy is full".into()),
        Notice::ReadError { extent } => (
            Level::Warn,
            "W111",
            format!("{} cannot be read here", bytes_of(*extent)),
        ),
        Notice::ChecksumError { extent } => {
            let text = format!("{} do not match their checksums", bytes_of(*extent));
            (Level::Warn, "W143", text)
        }
        Notice::NotRepaired { extent } => {
            let text = format!(
                "{} do not match their checksums, and no other copy can be asked now",
                bytes_of(*extent)
            );
            (Level::Error, "W144", text)
        }
        Notice::ChecksumsLost { extent } => {
            let text = format!(
                "the checksums of {} are lost: reads of them go unchecked until a scrub",
                bytes_of(*extent)
            );
            (Level::Warn, "W145", text)
        }
        Notice::Repaired { extent, from } => {
            let text = format!("{} repaired from {}", bytes_of(*extent), names.of(*from));
            (Level::Info, "I174", text)
        }
        Notice::ScrubDone { errors } => {
            let text = format!("scrub done: {} bytes did not match", errors * GRANULE);
            (Level::Info, "I175", text)
        }
        Notice::Difference { peer, extent } => {
            let text = format!("{} differs: {}", names.of(*peer), bytes_of(*extent));
            (Level::Warn, "W112", text)
        }
    }
}
