//! What a volume tells of its blocks beside their contents. Read-only: what front ends ask for
//! when they describe extents.

use crate::message::Disk;
use crate::units::Extent;

use super::Volume;

/// A run of granules of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// One past its last granule.
    pub end: u64,
    /// What was asked for holds for all of it.
    pub is_set: bool,
}

impl Volume {
    /// The run that begins at granule `within.start`, cut at `within.end`: whether at least one
    /// configured peer is known to lack all of it. A write in flight is no lack: it becomes one
    /// when its leg is lost.
    pub fn lacking_run(&self, within: Extent) -> Run {
        let next = |peer: &super::peer::Peer, from: u64| {
            let max = within.end.saturating_sub(from).max(1);
            peer.dirty.next_run(from, max)
        };
        let nearest = |from| {
            let runs = self.peers.iter().filter_map(|peer| next(peer, from));
            runs.min_by_key(|run| run.start)
        };
        run_at(within, nearest)
    }

    /// Whether this node's own disk holds what a client reads now: it serves clients, and its copy
    /// is current.
    pub fn reads_own_disk(&self) -> bool {
        self.role.is_admitting() && self.is_disk_usable() && self.disk() == Disk::UpToDate
    }

    /// Granules that are being written or zeroed inside `within`, one call of `visit` for each
    /// range: some may already be answered and not yet lie on this node's disk.
    pub fn each_being_written(&self, within: Extent, visit: impl FnMut(Extent)) {
        self.overlap.each_exclusive(within, visit);
    }
}

/// The run at the start of `within`, out of what `nearest` says: the first set run at or after a
/// granule.
pub(super) fn run_at(within: Extent, nearest: impl Fn(u64) -> Option<Extent>) -> Run {
    let Extent { start, end: limit } = within;
    let (mut end, mut is_set) = (start, false);
    while end < limit {
        match nearest(end).filter(|run| run.start < limit) {
            Some(run) if run.start <= end => (end, is_set) = (run.end.min(limit), true),
            _ if is_set => break,
            Some(run) => {
                return Run {
                    end: run.start,
                    is_set,
                };
            }
            None => return Run { end: limit, is_set },
        }
    }
    Run { end, is_set }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bitmap::Bitmap;

    fn map(size: u64, runs: &[(u64, u64)]) -> Bitmap {
        let mut map = Bitmap::new(size, 1);
        runs.iter().for_each(|(start, end)| {
            map.set(Extent::new(*start, *end));
        });
        map
    }

    fn runs(maps: &[Bitmap], from: u64, end: u64) -> Vec<(u64, bool)> {
        let (mut at, mut found) = (from, Vec::new());
        while at < end {
            let nearest = |from| {
                let runs = maps
                    .iter()
                    .filter_map(|map: &Bitmap| map.next_run(from, 1000));
                runs.min_by_key(|run| run.start)
            };
            let run = run_at(Extent::new(at, end), nearest);
            assert!(run.end > at);
            found.push((run.end, run.is_set));
            at = run.end;
        }
        found
    }

    #[test]
    fn what_any_peer_lacks_is_one_run() {
        let maps = [
            map(1000, &[(10, 20), (500, 501)]),
            map(1000, &[(15, 40), (40, 41)]),
        ];
        let all = [
            (10, false),
            (41, true),
            (500, false),
            (501, true),
            (1000, false),
        ];
        assert_eq!(runs(&maps, 0, 1000), all);
        assert_eq!(runs(&maps, 12, 30), [(30, true)]);
        assert_eq!(runs(&maps, 41, 450), [(450, false)]);
    }

    #[test]
    fn without_peers_nothing_is_lacking() {
        assert_eq!(runs(&[], 3, 9), [(9, false)]);
    }
}
