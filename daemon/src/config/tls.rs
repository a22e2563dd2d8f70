//! `[tls]`, `[node.X.tls]`, `[node.X.nbd_tls]` and what exports ask of certificates: read from the
//! file, and the files it names looked at.

use std::ops::Range;
use std::path::{Path, PathBuf};

use engine::tls::{Fingerprint, LinkFiles, LinkTls};
use nbd_server::{SubjectRule, TlsError, TlsFiles, TlsIdentity};

use super::section::{Findings, Section};
use super::{At, Config, Diagnostic, LinkTable, NbdTls, Node};

/// `[tls]`, or that of a node.
pub(super) fn link_table(mut section: Section<'_>, out: &mut Findings) -> LinkTable {
    let own = |text: At<&str>| At::new(PathBuf::from(text.value), text.span);
    let table = LinkTable {
        title: section.title.clone(),
        span: section.span.clone(),
        cert: section.text("cert", out).map(own),
        key: section.text("key", out).map(own),
        ca: section.text("ca", out).map(own),
    };
    section.finish(&[], out);
    table
}

/// `fingerprint` of a node.
pub(super) fn fingerprint(
    section: &mut Section<'_>,
    out: &mut Findings,
) -> Option<At<Fingerprint>> {
    let text = section.text("fingerprint", out)?;
    match text.value.parse() {
        Ok(pin) => Some(At::new(pin, text.span)),
        Err(wrong) => {
            let says = format!("`fingerprint` of {} is none", section.title);
            out.push(Diagnostic::error("E005", text.span, says).label(wrong.to_string()));
            None
        }
    }
}

/// What all nodes share is each one's, but for what its own table says; then whether it is whole.
pub(super) fn share_links(shared: Option<&LinkTable>, nodes: &mut [Node], out: &mut Findings) {
    for node in nodes.iter_mut() {
        node.link_tls = match (node.link_tls.take(), shared) {
            (Some(own), Some(shared)) => Some(LinkTable {
                cert: own.cert.or_else(|| shared.cert.clone()),
                key: own.key.or_else(|| shared.key.clone()),
                ca: own.ca.or_else(|| shared.ca.clone()),
                ..own
            }),
            (own, shared) => own.or_else(|| shared.cloned()),
        };
    }
    let linked: Vec<&Node> = nodes.iter().filter(|n| n.address.is_some()).collect();
    let mut said: Vec<(Range<usize>, &str)> = Vec::new();
    for node in &linked {
        let Some(table) = &node.link_tls else {
            continue;
        };
        let bare = |other: &&&Node| other.fingerprint.is_none() && other.name != node.name;
        let lacking = [
            (
                "cert",
                table.cert.is_none(),
                "of each node, as `pollux tls init DIR --for-node` makes it",
            ),
            ("key", table.key.is_none(), "of that certificate"),
            (
                "ca",
                table.ca.is_none() && linked.iter().any(|other| bare(&other)),
                "it names the authority of the nodes' certificates; or pin each of them by \
                 `fingerprint` of its node",
            ),
        ];
        for (key, lacks, hint) in lacking {
            let place = (table.span.clone(), key);
            if lacks && !said.contains(&place) {
                let text = format!("`{key}` is missing in {}", table.title);
                let found = Diagnostic::error("E004", table.span.clone(), text);
                out.push(found.label("in this table").hint(hint));
                said.push(place);
            }
        }
    }
    mixed(&linked, out);
}

/// A node with certificates and one without do not talk.
fn mixed(linked: &[&Node], out: &mut Findings) {
    let sealed = linked.iter().find(|node| node.link_tls.is_some());
    let open = linked.iter().find(|node| node.link_tls.is_none());
    if let (Some(sealed), Some(open)) = (sealed, open) {
        let (sealed, open) = (&sealed.name, &open.name);
        let says = format!(
            "node {} uses TLS for replication, and node {} does not",
            sealed.value, open.value
        );
        let found = Diagnostic::error("E013", open.span.clone(), says);
        let hint = "certificates in [tls] are those of all nodes";
        out.push(found.label("they would refuse each other").hint(hint));
    }
    if sealed.is_none() {
        for (node, pin) in linked
            .iter()
            .filter_map(|n| Some((n, n.fingerprint.as_ref()?)))
        {
            let says = format!("`fingerprint` of node {} has no effect", node.name.value);
            let found = Diagnostic::error("E013", pin.span.clone(), says);
            out.push(found.label("no node has certificates: [tls] is missing"));
        }
    }
}

/// The table of a node.
pub(super) fn nbd_tls(
    node: &At<String>,
    data_dir: &Path,
    mut section: Section<'_>,
    out: &mut Findings,
) -> NbdTls {
    section.title = format!("[node.{}.nbd_tls]", node.value);
    let own = |text: At<&str>| At::new(data_dir.join(text.value), text.span);
    let cert = section.needed("cert", out).map(own);
    let key = section.needed("key", out).map(own);
    let client_ca = section.text("client_ca", out).map(own);
    let clients = [("certified", true), ("anyone", false)];
    let clients = section.word("clients", &clients, &[], out);
    let asks_clients = clients.as_ref().is_none_or(|clients| clients.value);
    if asks_clients && section.value("client_ca").is_none() {
        let text = format!("`client_ca` is missing in {}", section.title);
        let hint = "it names the authority of the clients' certificates; clients = \"anyone\" \
                    lets in clients without one";
        let found = Diagnostic::error("E004", section.span.clone(), text);
        out.push(found.label("in this table").hint(hint));
    }
    if let (false, Some(ca)) = (asks_clients, &client_ca) {
        let text = format!("`client_ca` of {} has no effect", section.title);
        let found = Diagnostic::error("E013", ca.span.clone(), text);
        out.push(found.label("clients = \"anyone\" asks for no certificate"));
    }
    let is_required = section.flag("require", out).unwrap_or(false);
    let span = section.span.clone();
    section.finish(&[], out);
    NbdTls {
        span,
        // What is missing was said; the rest goes on as if it were there.
        cert: cert.unwrap_or(At::new(PathBuf::new(), 0..0)),
        key: key.unwrap_or(At::new(PathBuf::new(), 0..0)),
        client_ca,
        is_required,
    }
}

/// `allow_subjects` of an export: those that can be understood.
pub(super) fn subjects(section: &mut Section<'_>, out: &mut Findings) -> At<Vec<String>> {
    let Some(texts) = section.texts("allow_subjects", out) else {
        return At::new(Vec::new(), 0..0);
    };
    let mut subjects = Vec::new();
    for text in texts.value {
        match text.value.parse::<SubjectRule>() {
            Ok(_) => subjects.push(text.value.to_owned()),
            Err(wrong) => {
                let says = format!("`allow_subjects` cannot hold \"{}\"", text.value);
                let found = Diagnostic::error("E005", text.span, says);
                out.push(found.label(wrong.to_string()));
            }
        }
    }
    At::new(subjects, texts.span)
}

impl NbdTls {
    /// The files as the NBD server takes them.
    pub fn files(&self) -> TlsFiles {
        TlsFiles {
            cert: self.cert.value.clone(),
            key: self.key.value.clone(),
            client_ca: self.client_ca.as_ref().map(|path| path.value.clone()),
        }
    }

    /// The key of the table that names the file an error is about.
    fn span_of(&self, error: &TlsError) -> Range<usize> {
        let named: [Option<&At<PathBuf>>; 3] =
            [Some(&self.cert), Some(&self.key), self.client_ca.as_ref()];
        let path = error.path();
        let found = named.into_iter().flatten().find(|at| at.value == path);
        found.map_or(self.span.clone(), |at| at.span.clone())
    }
}

impl Config {
    /// Reads and checks the certificates that `node` uses for replication; `None` if it uses none.
    /// Errors: a finding at the key whose file is wrong. For the machine of the node only.
    pub fn link_identity(&self, node: &Node) -> Result<Option<LinkTls>, Box<Diagnostic>> {
        let (Some(table), Some(_)) = (&node.link_tls, &node.address) else {
            return Ok(None);
        };
        let path = |at: &Option<At<PathBuf>>| {
            let path = at.as_ref().map(|at| at.value.clone());
            path.map(|path| node.data_dir.join(path))
        };
        let pins = self.nodes.iter().filter_map(|other| {
            let pin = other.fingerprint.as_ref()?.value;
            Some((other.name.value.clone(), pin))
        });
        let files = LinkFiles {
            cert: path(&table.cert).unwrap_or_default(),
            key: path(&table.key).unwrap_or_default(),
            ca: path(&table.ca),
            pins: pins.collect(),
        };
        LinkTls::load(&node.name, &files)
            .map(Some)
            .map_err(|error| {
                let named = [(&files.cert, &table.cert), (&files.key, &table.key)];
                let mut named = named.into_iter().map(|(path, at)| (Some(path), at));
                let found = named.find(|(path, _)| *path == Some(&error.path().to_owned()));
                let at = found.map_or(&table.ca, |(_, at)| at);
                let span = at.as_ref().map_or(table.span.clone(), |at| at.span.clone());
                let text = crate::explain::with_causes(&error);
                let found = Diagnostic::error("E015", span, text);
                Box::new(found.label(format!("node {} cannot use it", node.name.value)))
            })
    }
}

impl Node {
    /// Reads and checks the certificates that this node's table names; `None` without a table.
    /// Errors: a finding at the key whose file is wrong. For the machine of the node only.
    pub fn nbd_identity(&self) -> Result<Option<TlsIdentity>, Box<Diagnostic>> {
        let Some(tls) = &self.nbd_tls else {
            return Ok(None);
        };
        TlsIdentity::load(&tls.files()).map(Some).map_err(|error| {
            let text = crate::explain::with_causes(&error);
            let found = Diagnostic::error("E015", tls.span_of(&error), text);
            Box::new(found.label(format!("node {} cannot use it", self.name.value)))
        })
    }

    /// Clients of the TCP listener must use TLS: always beyond loopback, unless it is insecure.
    pub fn nbd_tcp_needs_tls(&self) -> bool {
        let is_open = self.insecure.contains(&super::Listener::Nbd);
        let is_near = self.nbd.as_ref().is_none_or(|nbd| nbd.is_loopback());
        self.nbd_tls
            .as_ref()
            .is_some_and(|tls| tls.is_required || !(is_near || is_open))
    }

    /// Clients of the Unix socket must use TLS.
    pub fn nbd_socket_needs_tls(&self) -> bool {
        self.nbd_tls.as_ref().is_some_and(|tls| tls.is_required)
    }
}
