//! What other threads may know of a volume without asking its reactor.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use engine_core::table::Table;

use crate::front_end::VolumeView;
use crate::handover::HandedClient;

/// Where a volume is in its life on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Declared, never created here.
    NotCreated,
    /// Cannot attach; code and sentence.
    Offline {
        /// Stable code.
        code: &'static str,
        /// Why.
        text: String,
        /// Worth trying again by itself.
        retries: bool,
    },
    /// Being created, attached or deleted right now.
    Busy,
    /// On the reactor of this index.
    Attached(usize),
}

/// One configured volume of this node.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    place: Mutex<Place>,
    view: RwLock<VolumeView>,
    legacy: Mutex<Legacy>,
    nodes: RwLock<Option<Arc<Table>>>,
    /// There is another table than the node last looked at.
    has_other_nodes: AtomicBool,
    /// This node has another index than it was attached with.
    has_moved: AtomicBool,
}

/// What a volume that left leaves to the process that takes over.
#[derive(Debug, Default)]
pub(crate) struct Legacy {
    /// It served clients, or was about to.
    pub(crate) was_primary: bool,
    /// Its clients.
    pub(crate) clients: Vec<HandedClient>,
}

impl Entry {
    pub(crate) fn new(view: VolumeView) -> Entry {
        let name = view.name.clone();
        Entry {
            name,
            place: Mutex::new(Place::Busy),
            view: RwLock::new(view),
            legacy: Mutex::default(),
            nodes: RwLock::default(),
            has_other_nodes: AtomicBool::new(false),
            has_moved: AtomicBool::new(false),
        }
    }

    /// What negotiation may say of it.
    pub(crate) fn view(&self) -> VolumeView {
        self.view
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn change_view(&self, change: impl FnOnce(&mut VolumeView)) {
        change(&mut self.view.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// The volume's table of nodes, while it is attached.
    pub(crate) fn nodes(&self) -> Option<Arc<Table>> {
        self.nodes
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn set_nodes(&self, table: Table) {
        let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
        *nodes = Some(Arc::new(table));
        self.has_other_nodes.store(true, Ordering::Release);
    }

    /// Whether there is another table since this was last asked.
    pub(crate) fn take_other_nodes(&self) -> bool {
        self.has_other_nodes.swap(false, Ordering::AcqRel)
    }

    /// It is to be attached anew, under its new index.
    pub(crate) fn note_moved(&self) {
        self.has_moved.store(true, Ordering::Release);
    }

    /// Whether it is to be attached anew; asked once.
    pub(crate) fn take_moved(&self) -> bool {
        self.has_moved.swap(false, Ordering::AcqRel)
    }

    /// A volume begins to leave, in this role.
    pub(crate) fn note_role(&self, was_primary: bool) {
        self.legacy().was_primary = was_primary;
    }

    /// A client stays open for the process that takes over.
    pub(crate) fn bequeath(&self, client: HandedClient) {
        self.legacy().clients.push(client);
    }

    /// What there is for the process that takes over; nothing is left here.
    pub(crate) fn take_legacy(&self) -> Legacy {
        std::mem::take(&mut *self.legacy())
    }

    fn legacy(&self) -> MutexGuard<'_, Legacy> {
        self.legacy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its place, locked: changes of place are made by whoever holds this.
    pub(crate) fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
