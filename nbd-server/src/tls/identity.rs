//! The server's certificate and key, read and checked before anybody relies on them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::tls::{TlsError, authorities, certificates, in_force, private_key};
use rustls::ServerConfig;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};

/// Where certificates lie, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate, and those between it and the authority.
    pub cert: PathBuf,
    /// Its private key; closed to group and others.
    pub key: PathBuf,
    /// Authorities whose clients are let in; `None` lets in clients without certificate.
    pub client_ca: Option<PathBuf>,
}

/// A certificate that is in force with its key; cheap to clone.
#[derive(Clone, Debug)]
pub struct TlsIdentity {
    config: Arc<ServerConfig>,
    expires_at: i64,
    asks_clients: bool,
}

impl TlsIdentity {
    /// Reads and checks the files. Errors: the first thing that is wrong with them.
    pub fn load(files: &TlsFiles) -> Result<TlsIdentity, TlsError> {
        let TlsFiles {
            cert,
            key,
            client_ca,
        } = files;
        let chain = certificates(cert)?;
        let expires_at = chain
            .iter()
            .map(|der| in_force(cert, der))
            .collect::<Result<Vec<_>, _>>()?;
        let private = private_key(key)?;
        let unusable = |path: &Path, reason: String| TlsError::Unusable {
            path: path.to_owned(),
            reason,
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|wrong| unusable(cert, wrong.to_string()))?;
        let builder = match client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let roots = authorities(path)?.into();
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider)
                    .build()
                    .map_err(|wrong| unusable(path, wrong.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder
            .with_single_cert(chain, private)
            .map_err(|wrong| match wrong {
                rustls::Error::InconsistentKeys(_) => TlsError::Mismatch {
                    cert: cert.clone(),
                    key: key.clone(),
                },
                wrong => unusable(key, wrong.to_string()),
            })?;
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(TlsIdentity {
            config: Arc::new(config),
            expires_at: expires_at.into_iter().min().unwrap_or(0),
            asks_clients: client_ca.is_some(),
        })
    }

    /// When the first certificate of the chain expires, in seconds since 1970.
    pub fn expires_at(&self) -> i64 {
        self.expires_at
    }

    /// Clients must show a certificate.
    pub fn asks_clients(&self) -> bool {
        self.asks_clients
    }

    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }
}
