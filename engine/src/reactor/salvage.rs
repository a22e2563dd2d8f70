//! Salvages of the volumes of one reactor, on their way to the thread that writes them.

use std::time::SystemTime;

use engine_core::event::{Event, Token};
use engine_core::time::Instant;
use engine_core::units::GRANULE;

use super::Reactor;
use super::volumes::Volume;
use crate::control::PartingReport;
use crate::driver::SalvageOrder;
use crate::log::Level;
use crate::salvage::{Head, Step, Stored};
use crate::{status, words};

impl Reactor {
    /// Gives the steps that cores asked for to the thread.
    pub(super) fn keep_salvages(&mut self, slot: u32) {
        let Some(volume) = self.volumes.get_mut(slot) else {
            return;
        };
        for (token, order) in std::mem::take(&mut volume.driver.salvages) {
            let step = match order {
                SalvageOrder::Step(step) => step,
                SalvageOrder::Begin { to, granules } => Step::Begin {
                    folder: self.parts.salvage_folder.clone(),
                    head: Box::new(volume.salvage_head(to)),
                    bytes: granules * GRANULE,
                },
            };
            (self.parts.salvage)(&volume.spec.name, token, step);
        }
    }

    /// A step ended.
    pub(super) fn salvaged(&mut self, name: &str, token: Token, stored: Stored) {
        let Some(slot) = self.find(name) else {
            return;
        };
        let Stored { result, text } = stored;
        match result {
            Ok(()) if text.is_empty() => {}
            Ok(()) => {
                let line = format!("blocks of this copy are kept in {text}");
                self.shell.say(Level::Info, "I166", name, &line);
            }
            Err(_) => {
                let line = format!("blocks of this copy cannot be kept: {text}");
                self.shell.say(Level::Warn, "W128", name, &line);
            }
        }
        let volume = self.volumes.get_mut(slot).expect("it was just found");
        if result.is_ok() && !text.is_empty() {
            volume.salvage = text;
        }
        let done = Event::SalvageDone { token, result };
        volume.driver.local.push_back(done);
    }
}

impl Volume {
    fn salvage_head(&self, kept: engine_core::units::NodeIdx) -> Head {
        let core = self.driver.core.status();
        let newest = core.chain.newest();
        Head {
            volume: self.spec.name.clone(),
            node: self.own.clone(),
            kept: self.names().of(kept).to_owned(),
            volume_id: core.volume_id,
            size_bytes: self.spec.size_bytes,
            created_ms: words::milliseconds(SystemTime::now()),
            branch: newest.map_or(0, |e| e.branch),
            term: newest.map_or(0, |e| e.term.0),
        }
    }

    /// What is known of split brains, by node.
    pub(super) fn partings(&self, now: Instant) -> Vec<PartingReport> {
        let core = &self.driver.core;
        let peers = core.status().peers;
        let known = peers.iter().filter_map(|peer| core.parting(peer.node));
        known
            .map(|parting| status::parting_report(core.table(), &parting, now))
            .collect()
    }
}
