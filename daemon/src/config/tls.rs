//! `[node.X.nbd_tls]` and what exports ask of certificates: read from the file, and the files it
//! names looked at.

use std::path::{Path, PathBuf};

use nbd_server::{SubjectRule, TlsError, TlsFiles, TlsIdentity};

use super::section::{Findings, Section};
use super::{At, Diagnostic, NbdTls, Node};

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
    fn span_of(&self, error: &TlsError) -> std::ops::Range<usize> {
        let named: [Option<&At<PathBuf>>; 3] =
            [Some(&self.cert), Some(&self.key), self.client_ca.as_ref()];
        let path = error.path();
        let found = named.into_iter().flatten().find(|at| at.value == path);
        found.map_or(self.span.clone(), |at| at.span.clone())
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
