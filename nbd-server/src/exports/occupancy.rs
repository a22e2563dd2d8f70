//! Who is attached to an export: one client or many, and who comes next.
//!
//! A client holds its seat from the moment it is promised the export until the engine has dropped
//! its connection, when nothing of its session runs any more.

use std::sync::{Arc, Mutex, PoisonError};

use engine::control::Attach;
use engine::front_end::ExportLabel;
use tokio::sync::watch;

/// The clients of one export.
#[derive(Debug, Default)]
pub(crate) struct Occupancy {
    holders: Mutex<Vec<Holder>>,
}

/// A client's place; given up when dropped.
#[derive(Debug, Default)]
pub(crate) struct Seat {
    _held: watch::Sender<()>,
}

/// A client that has a seat.
#[derive(Clone, Debug)]
pub(crate) struct Holder {
    address: String,
    held: watch::Receiver<()>,
}

impl Holder {
    fn is_here(&self) -> bool {
        // An error says that the sender is gone.
        self.held.has_changed().is_ok()
    }

    /// Returns once it has given up its seat.
    pub(crate) async fn gone(mut self) {
        while self.held.changed().await.is_ok() {}
    }
}

impl Occupancy {
    /// Whoever sits here, if only one may: a second client is refused by this address.
    pub(crate) fn taken_by(&self, attach: Attach) -> Option<String> {
        if attach != Attach::Exclusive {
            return None;
        }
        let holders = self.lock();
        let first = holders.iter().find(|holder| holder.is_here());
        first.map(|holder| holder.address.clone())
    }

    /// A seat, and those who must be gone before it is taken. `None` if one is not to be had.
    pub(crate) fn enter(&self, attach: Attach, address: &str) -> Option<(Seat, Vec<Holder>)> {
        let mut holders = self.lock();
        holders.retain(Holder::is_here);
        let before = match attach {
            Attach::Exclusive if !holders.is_empty() => return None,
            Attach::Takeover => holders.clone(),
            Attach::Exclusive | Attach::Shared => Vec::new(),
        };
        let (sender, held) = watch::channel(());
        holders.push(Holder {
            address: address.to_owned(),
            held,
        });
        Some((Seat { _held: sender }, before))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Holder>> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An export promised to a client.
pub(crate) struct Claim {
    /// The volume behind it.
    pub(crate) volume: String,
    /// Which export.
    pub(crate) label: ExportLabel,
    /// Held as long as the client is attached.
    pub(crate) seat: Arc<Seat>,
    before: Vec<Holder>,
}

impl Claim {
    pub(crate) fn new(volume: &str, label: ExportLabel, seat: Seat, before: Vec<Holder>) -> Claim {
        Claim {
            volume: volume.to_owned(),
            label,
            seat: Arc::new(seat),
            before,
        }
    }

    /// One of those who must be gone first, until there is none.
    pub(crate) fn predecessor(&mut self) -> Option<Holder> {
        self.before.retain(Holder::is_here);
        self.before.first().cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_export_seats_everybody() {
        let occupancy = Occupancy::default();
        let first = occupancy.enter(Attach::Shared, "a").unwrap();
        assert_eq!(occupancy.taken_by(Attach::Shared), None);
        let second = occupancy.enter(Attach::Shared, "b").unwrap();
        assert!(first.1.is_empty() && second.1.is_empty());
    }

    #[test]
    fn an_exclusive_export_seats_one_until_it_has_gone() {
        let occupancy = Occupancy::default();
        let (first, _) = occupancy.enter(Attach::Exclusive, "a").unwrap();
        assert_eq!(occupancy.taken_by(Attach::Exclusive), Some("a".to_owned()));
        assert!(occupancy.enter(Attach::Exclusive, "b").is_none());
        drop(first);
        assert_eq!(occupancy.taken_by(Attach::Exclusive), None);
        assert!(occupancy.enter(Attach::Exclusive, "b").is_some());
    }

    #[tokio::test]
    async fn a_takeover_waits_for_all_who_sat_before() {
        let occupancy = Occupancy::default();
        let (first, _) = occupancy.enter(Attach::Takeover, "a").unwrap();
        let (second, before) = occupancy.enter(Attach::Takeover, "b").unwrap();
        let mut claim = Claim::new("vm", ExportLabel::new("vm"), second, before);
        let gone = claim.predecessor().unwrap().gone();
        drop(first);
        gone.await;
        assert!(claim.predecessor().is_none());
    }
}
