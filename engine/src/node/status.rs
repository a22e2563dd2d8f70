//! Gathering the status of volumes from their reactors without waiting for any of them.

use std::sync::{Arc, Mutex, PoisonError};

use super::Shared;
use crate::control::{Reason, State, VolumeSpec, VolumeStatus};
use crate::entry::Place;
use crate::mailbox::{Message, Reply};
use crate::peers::Bell;
use crate::status;

/// Answers that are still awaited; the last one to arrive calls `reply`.
struct Gathering {
    /// The paths to every other node.
    bells: Arc<Vec<(String, Bell)>>,
    found: Mutex<Vec<Option<VolumeStatus>>>,
    reply: Mutex<Option<Reply<Vec<VolumeStatus>>>>,
}

impl Gathering {
    fn set(&self, index: usize, mut status: VolumeStatus) {
        for replica in &mut status.replicas {
            if let Some((_, bell)) = self.bells.iter().find(|(name, _)| *name == replica.node) {
                replica.paths = bell.paths.status(&status.name);
            }
        }
        self.found.lock().unwrap_or_else(PoisonError::into_inner)[index] = Some(status);
    }
}

/// With the last one dropped, all answers are there or will never come.
impl Drop for Gathering {
    fn drop(&mut self) {
        let found = std::mem::take(&mut *self.found.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(reply) = self
            .reply
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            reply(found.into_iter().flatten().collect());
        }
    }
}

impl Shared {
    pub(super) fn status(
        &self,
        volume: Option<&str>,
        reply: Box<dyn FnOnce(Vec<VolumeStatus>) + Send>,
    ) {
        let is_asked = |spec: &&VolumeSpec| volume.is_none_or(|name| name == spec.name);
        let specs: Vec<_> = self.spec.volumes.iter().filter(is_asked).collect();
        // Until a reactor answers, what is known without it stands.
        let gathering = Arc::new(Gathering {
            bells: self
                .bells
                .get()
                .map(|bells| bells.now())
                .unwrap_or_default(),
            found: Mutex::new(vec![None; specs.len()]),
            reply: Mutex::new(Some(reply)),
        });
        let connected = Arc::new(super::lock(&self.connected).clone());
        for (index, spec) in specs.into_iter().enumerate() {
            let place = self.entry(&spec.name).map(|entry| entry.place().clone());
            gathering.set(index, self.detached(spec, place.as_ref()));
            if let Some(Place::Attached(reactor)) = place {
                let gathering = Arc::clone(&gathering);
                let answer = Box::new(move |found: Option<VolumeStatus>| {
                    found
                        .into_iter()
                        .for_each(|status| gathering.set(index, status));
                });
                // A full mailbox leaves what is known without the reactor.
                let (name, connected) = (spec.name.clone(), Arc::clone(&connected));
                let question = Message::Status(name, connected, answer);
                let _ = self.mailboxes[reactor].send(question);
            }
        }
    }

    fn detached(&self, spec: &VolumeSpec, place: Option<&Place>) -> VolumeStatus {
        let (state, code, text) = match place {
            Some(Place::NotCreated) => {
                let text = format!("pollux volume create {}", spec.name);
                (
                    State::NotCreated,
                    "E205",
                    format!("not created on this node: {text}"),
                )
            }
            Some(Place::Offline { code, text, .. }) => (State::Offline, *code, text.clone()),
            Some(Place::Busy) => (
                State::Offline,
                "E215",
                "being created, attached or deleted".into(),
            ),
            Some(Place::Attached(_)) => {
                (State::Offline, "E216", "its reactor does not answer".into())
            }
            None => (State::Offline, "E214", "not configured on this node".into()),
        };
        status::detached(spec, &self.spec.name, state, Some(Reason { code, text }))
    }
}
