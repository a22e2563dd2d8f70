//! The ways to one node: which of them are up, and which volume's data goes over which.
//!
//! A path is an address that the accepting node listens on; both sides count them in the order of
//! the file. The node is there as long as one is up.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Router;
use crate::control::PathStatus;

/// The paths to one peer, known to all of its threads.
pub(crate) struct Paths {
    peer: String,
    state: Mutex<State>,
}

struct State {
    paths: Vec<Path>,
    /// The path of each volume's latest data connection.
    used: BTreeMap<String, usize>,
}

struct Path {
    address: String,
    is_up: bool,
    /// When the latest attempt to reach the node by it began, if that failed.
    failed: Option<u64>,
}

impl State {
    fn up(&self) -> usize {
        self.paths.iter().filter(|path| path.is_up).count()
    }
}

impl Paths {
    pub(super) fn new(peer: &str, addresses: &[String]) -> Paths {
        let path = |address: &String| Path {
            address: address.clone(),
            is_up: false,
            failed: None,
        };
        Paths {
            peer: peer.to_owned(),
            state: Mutex::new(State {
                paths: addresses.iter().map(path).collect(),
                used: BTreeMap::new(),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where this path leads.
    pub(super) fn address(&self, path: usize) -> String {
        self.state().paths[path].address.clone()
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.state().paths.len()
    }

    /// Both sides have greeted. True: the peer was not there before. `router` is told under the
    /// lock, so that it hears of coming and going in their order.
    pub(super) fn came_up(&self, router: &dyn Router, path: usize) -> bool {
        let mut state = self.state();
        let is_first = state.up() == 0;
        let found = &mut state.paths[path];
        (found.is_up, found.failed) = (true, None);
        if is_first {
            router.connected(&self.peer);
        }
        is_first
    }

    /// Its connection broke: everything that went over it is broken. How many paths are left.
    pub(super) fn went_down(&self, router: &dyn Router, path: usize) -> usize {
        let mut state = self.state();
        state.paths[path].is_up = false;
        state.used.retain(|_, used| *used != path);
        let left = state.up();
        match left {
            0 => router.gone(&self.peer),
            _ => router.path_gone(&self.peer, path as u8),
        }
        left
    }

    /// An attempt by this path that began then has failed. With the last one left, the node cannot
    /// be reached. How many are up.
    pub(super) fn failed(&self, router: &dyn Router, path: usize, began: u64) -> usize {
        let mut state = self.state();
        state.paths[path].failed = Some(began);
        let earliest = state.paths.iter().map(|path| path.failed).min().flatten();
        if let (0, Some(began)) = (state.up(), earliest) {
            router.unreachable(&self.peer, began);
        }
        state.up()
    }

    /// Something answers there, though nobody has greeted.
    pub(super) fn answers(&self, path: usize) {
        self.state().paths[path].failed = None;
    }

    /// A path that is up.
    pub(super) fn any(&self) -> Option<usize> {
        self.state().paths.iter().position(|path| path.is_up)
    }

    /// The path for a new data connection of `volume`: of those that are up and not among `tried`
    /// the one that the fewest other volumes use.
    pub(super) fn choose(&self, volume: &str, tried: &[usize]) -> Option<usize> {
        let state = self.state();
        let others = |path: usize| {
            let used = state.used.iter();
            used.filter(|(name, used)| *name != volume && **used == path)
                .count()
        };
        let paths = (0..state.paths.len()).filter(|path| state.paths[*path].is_up);
        paths
            .filter(|path| !tried.contains(path))
            .min_by_key(|path| others(*path))
    }

    /// The data connection of `volume` goes over this one now.
    pub(super) fn uses(&self, volume: &str, path: usize) {
        self.state().used.insert(volume.to_owned(), path);
    }

    /// As people see them, for a volume.
    pub(crate) fn status(&self, volume: &str) -> Vec<PathStatus> {
        let state = self.state();
        let used = state.used.get(volume);
        let paths = state.paths.iter().enumerate();
        let status = paths.map(|(index, path)| PathStatus {
            address: path.address.clone(),
            is_up: path.is_up,
            carries_data: used == Some(&index),
        });
        status.collect()
    }
}
