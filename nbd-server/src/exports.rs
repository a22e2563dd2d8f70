//! The exports of a node, as one client may see them now.

use std::net::IpAddr;
use std::sync::Arc;

use engine::front_end::{Service, VolumeView};
use nbd_proto::{
    BlockSizes, ExportInfo, ExportName, Exports, Features, ListEntry, NbdUri, Refusal,
};

use crate::Volumes;
use crate::config::{NbdConfig, NbdExport};
use crate::contexts;
use crate::listener::StartError;
use crate::network::Network;

/// All exports, checked.
pub(crate) struct Catalogue {
    node: String,
    entries: Vec<Entry>,
    uris: Vec<(String, NbdUri)>,
    volumes: Arc<dyn Volumes>,
}

struct Entry {
    name: ExportName,
    export: NbdExport,
    allow: Vec<Network>,
}

/// The exports as one client sees them.
pub(crate) struct ClientExports<'a> {
    pub(crate) catalogue: &'a Catalogue,
    /// Address of a TCP client; the permissions of the socket decide for others.
    pub(crate) address: Option<IpAddr>,
}

impl Catalogue {
    /// Checks names and networks. Errors: the first that is wrong.
    pub(crate) fn new(
        config: &NbdConfig,
        volumes: Arc<dyn Volumes>,
    ) -> Result<Catalogue, StartError> {
        let mut entries: Vec<Entry> = Vec::with_capacity(config.exports.len());
        for export in &config.exports {
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
            entries.push(Entry {
                name: parsed,
                export: export.clone(),
                allow,
            });
        }
        let (node, uris) = (config.node.clone(), config.uris.clone());
        Ok(Catalogue {
            node,
            entries,
            uris,
            volumes,
        })
    }

    /// The volume behind an export.
    pub(crate) fn volume(&self, name: &ExportName) -> Option<&str> {
        let entry = self.entries.iter().find(|entry| entry.name == *name)?;
        Some(&entry.export.volume)
    }

    pub(crate) fn volumes(&self) -> &dyn Volumes {
        &*self.volumes
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
            features: features(&view),
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
        match self.uris.iter().find(|(node, _)| node == primary) {
            Some((_, uri)) => {
                let uri = NbdUri {
                    export: entry.name.clone(),
                    ..uri.clone()
                };
                format!("{here}; primary: {primary}, {uri}")
            }
            None => format!("{here}; primary: {primary}"),
        }
    }
}

/// What a volume can do, whatever its backing.
fn features(view: &VolumeView) -> Features {
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
        multi_conn: true,
        rotational: false,
    }
}

impl Exports for ClientExports<'_> {
    fn list(&self, visit: &mut dyn FnMut(ListEntry<'_>)) {
        for Entry { name, export, .. } in &self.catalogue.entries {
            visit(ListEntry {
                name: name.as_str(),
                description: &export.spec.description,
            });
        }
    }

    /// The only export, if there is exactly one.
    fn default_export(&self) -> Option<ExportName> {
        match &self.catalogue.entries[..] {
            [only] => Some(only.name.clone()),
            _ => None,
        }
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
        self.catalogue.info(entry)
    }
}
