//! The exports of a node, as one client may see them now.

mod occupancy;

use std::net::IpAddr;
use std::sync::Arc;

use engine::control::Attach;
use engine::front_end::{ExportLabel, Service, VolumeView};
use nbd_proto::{
    BlockSizes, ExportInfo, ExportName, Exports, Features, ListEntry, NbdUri, Refusal,
};

use crate::Volumes;
use crate::config::{Elsewhere, NbdConfig, NbdExport};
use crate::contexts;
use crate::listener::StartError;
use crate::network::Network;
use crate::tls::{Subject, SubjectRule};
use occupancy::Occupancy;
pub(crate) use occupancy::{Claim, Seat};

/// All exports, checked.
pub(crate) struct Catalogue {
    node: String,
    entries: Vec<Entry>,
    elsewhere: Vec<Elsewhere>,
    volumes: Arc<dyn Volumes>,
}

struct Entry {
    name: ExportName,
    export: NbdExport,
    allow: Vec<Network>,
    subjects: Vec<SubjectRule>,
    /// This and the occupancy outlive the entry: exports change under their clients.
    label: ExportLabel,
    occupancy: Arc<Occupancy>,
}

/// The exports as one client sees them.
pub(crate) struct ClientExports<'a> {
    pub(crate) catalogue: &'a Catalogue,
    /// Address of a TCP client; the permissions of the socket decide for others.
    pub(crate) address: Option<IpAddr>,
    /// Whom its certificate names, once TLS is up; nobody if it showed none.
    pub(crate) subject: Option<&'a Subject>,
}

impl Catalogue {
    /// Checks names, networks and subjects. Errors: the first that is wrong.
    pub(crate) fn new(
        config: &NbdConfig,
        volumes: Arc<dyn Volumes>,
    ) -> Result<Catalogue, StartError> {
        Ok(Catalogue {
            node: config.node.clone(),
            entries: entries(&config.exports)?,
            elsewhere: config.elsewhere.clone(),
            volumes,
        })
    }

    /// The same with other exports. Clients keep their seats at exports that stay, and at the one
    /// that is `renamed`, from its old name to the new. Errors: the first that is wrong.
    pub(crate) fn with(
        &self,
        exports: &[NbdExport],
        renamed: Option<(&str, &str)>,
    ) -> Result<Catalogue, StartError> {
        let mut entries = entries(exports)?;
        for entry in &mut entries {
            let name = entry.name.as_str();
            let before = match renamed {
                Some((old, new)) if new == name => old,
                _ => name,
            };
            let same = |old: &&Entry| {
                old.name.as_str() == before && old.export.volume == entry.export.volume
            };
            if let Some(old) = self.entries.iter().find(same) {
                entry.occupancy = old.occupancy.clone();
                entry.label = old.label.clone();
                entry.label.rename(name);
            }
        }
        Ok(Catalogue {
            node: self.node.clone(),
            entries,
            elsewhere: self.elsewhere.clone(),
            volumes: self.volumes.clone(),
        })
    }

    /// The exports, in their order.
    pub(crate) fn exports(&self) -> Vec<NbdExport> {
        let exports = self.entries.iter();
        exports.map(|entry| entry.export.clone()).collect()
    }

    /// The export of this name, for its clients.
    pub(crate) fn label(&self, name: &str) -> Option<ExportLabel> {
        let mut entries = self.entries.iter();
        let entry = entries.find(|entry| entry.name.as_str() == name)?;
        Some(entry.label.clone())
    }

    /// Promises an export to a client. `None` if it is not there any more, or taken.
    pub(crate) fn claim(&self, name: &ExportName, address: &str) -> Option<Claim> {
        let entry = self.entries.iter().find(|entry| entry.name == *name)?;
        let NbdExport { volume, spec } = &entry.export;
        let (seat, before) = entry.occupancy.enter(spec.attach, address)?;
        Some(Claim::new(volume, entry.label.clone(), seat, before))
    }

    fn info(&self, entry: &Entry) -> Result<ExportInfo, Refusal> {
        let NbdExport { volume, spec } = &entry.export;
        let Some(view) = self.volumes.view(volume) else {
            return Err(Refusal::Policy(format!(
                "{volume} is not attached on {}",
                self.node
            )));
        };
        match &view.service {
            Service::Primary => {}
            Service::Secondary { primary } => {
                return Err(Refusal::Policy(self.elsewhere(entry, primary.as_deref())));
            }
            Service::Unavailable { reason } => return Err(Refusal::Policy(reason.clone())),
        }
        Ok(ExportInfo {
            name: entry.name.clone(),
            description: spec.description.clone(),
            size: view.size_bytes,
            read_only: spec.read_only,
            features: features(&view, spec.attach),
            block_sizes: BlockSizes::USUAL,
            contexts: view.contexts.iter().flat_map(contexts::names).collect(),
        })
    }

    /// Where the client should go, in words that can be pasted.
    fn elsewhere(&self, entry: &Entry, primary: Option<&str>) -> String {
        let here = format!("{} is secondary on {}", entry.export.volume, self.node);
        let Some(primary) = primary else {
            return format!("{here}; no primary is known");
        };
        match self.elsewhere.iter().find(|there| there.node == primary) {
            Some(there) => {
                let uri = NbdUri {
                    export: entry.name.clone(),
                    ..there.uri.clone()
                };
                format!("{here}; primary: {primary}, {uri}")
            }
            None => format!("{here}; primary: {primary}"),
        }
    }
}

/// Checks exports as [`crate::NbdServer::set_exports`] does. Errors: the first that is wrong.
pub fn check_exports(exports: &[NbdExport]) -> Result<(), StartError> {
    entries(exports).map(drop)
}

/// Checks every export. Errors: the first that is wrong.
fn entries(exports: &[NbdExport]) -> Result<Vec<Entry>, StartError> {
    let mut entries: Vec<Entry> = Vec::with_capacity(exports.len());
    for export in exports {
        let name = &export.spec.name;
        let wrong = |reason: String| StartError::ExportName {
            name: name.clone(),
            reason,
        };
        let parsed = ExportName::new(name).map_err(|malformed| wrong(malformed.to_string()))?;
        if parsed.is_default() {
            return Err(wrong("it is empty".to_owned()));
        }
        if entries.iter().any(|entry| entry.name == parsed) {
            return Err(StartError::ExportTwice { name: name.clone() });
        }
        let network = |text: &String| {
            text.parse().map_err(|source| StartError::Allow {
                name: name.clone(),
                source,
            })
        };
        let allow = export
            .spec
            .allow
            .iter()
            .map(network)
            .collect::<Result<_, _>>()?;
        let rule = |text: &String| {
            text.parse().map_err(|source| StartError::Subject {
                name: name.clone(),
                source,
            })
        };
        let subjects = export.spec.allow_subjects.iter().map(rule);
        entries.push(Entry {
            name: parsed,
            export: export.clone(),
            allow,
            subjects: subjects.collect::<Result<_, _>>()?,
            label: ExportLabel::new(name),
            occupancy: Arc::default(),
        });
    }
    Ok(entries)
}

/// What a volume can do, whatever its backing.
fn features(view: &VolumeView, attach: Attach) -> Features {
    Features {
        flush: true,
        fua: true,
        trim: view.trims,
        write_zeroes: true,
        // Fast where blocks can be released; elsewhere zeroes may have to be written.
        fast_zero: view.trims,
        // A hint: there is no cache between the client and the disk that it could fill.
        cache: true,
        // All connections of a volume share one core, so one flush covers them.
        multi_conn: attach == Attach::Shared,
        rotational: false,
    }
}

impl Exports for ClientExports<'_> {
    fn list(&self, visit: &mut dyn FnMut(ListEntry<'_>)) {
        for entry in &self.catalogue.entries {
            // Who may not know of it by its certificate, or before showing one, does not.
            if self.certified(entry).is_ok() {
                visit(ListEntry {
                    name: entry.name.as_str(),
                    description: &entry.export.spec.description,
                });
            }
        }
    }

    /// The one that is said to be, else the only one.
    fn default_export(&self) -> Option<ExportName> {
        let entries = &self.catalogue.entries;
        let default = match &entries[..] {
            [only] => Some(only),
            _ => entries.iter().find(|entry| entry.export.spec.is_default),
        };
        default.map(|entry| entry.name.clone())
    }

    fn lookup(&self, name: &ExportName) -> Result<ExportInfo, Refusal> {
        let entry = self
            .catalogue
            .entries
            .iter()
            .find(|entry| entry.name == *name);
        let entry = entry.ok_or(Refusal::Unknown)?;
        if let Some(address) = self.address
            && !entry.allow.is_empty()
            && !entry.allow.iter().any(|network| network.contains(address))
        {
            let address = address.to_canonical();
            return Err(Refusal::Policy(format!(
                "{address} may not attach to {}",
                entry.name
            )));
        }
        self.certified(entry)?;
        let info = self.catalogue.info(entry)?;
        match entry.occupancy.taken_by(entry.export.spec.attach) {
            Some(client) => Err(Refusal::Policy(format!(
                "{name} takes one client, and {client} is attached"
            ))),
            None => Ok(info),
        }
    }
}

impl ClientExports<'_> {
    /// The client shows what the export asks for.
    fn certified(&self, entry: &Entry) -> Result<(), Refusal> {
        let Entry { name, subjects, .. } = entry;
        let Some(subject) = self.subject else {
            return match entry.export.spec.needs_tls || !subjects.is_empty() {
                true => Err(Refusal::Tls(format!("{name} is only to be had over TLS"))),
                false => Ok(()),
            };
        };
        if subjects.is_empty() || subjects.iter().any(|rule| rule.admits(subject)) {
            return Ok(());
        }
        let who = match subject.to_string() {
            none if none.is_empty() => "a client without certificate".to_owned(),
            who => who,
        };
        Err(Refusal::Policy(format!("{who} may not attach to {name}")))
    }
}
