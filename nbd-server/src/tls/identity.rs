//! The server's certificate and key, read and checked before anybody relies on them.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

/// Longest file that is read, bytes: a chain or a list of authorities is far smaller.
const FILE_BYTES_MAX: u64 = 1 << 20;

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

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{} cannot be read", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The key is open to others.
    #[error(
        "the key {} is open to others (mode {mode:04o}); close it: chmod 600 {}",
        path.display(),
        path.display()
    )]
    KeyIsOpen {
        /// Which.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A file holds no certificate.
    #[error("{} holds no PEM certificate", .0.display())]
    NoCertificate(PathBuf),
    /// A file holds no private key.
    #[error("{} holds no PEM private key (PKCS#8, PKCS#1 or SEC1, not encrypted)", .0.display())]
    NoKey(PathBuf),
    /// What lies there is no certificate.
    #[error("{} holds something that is no X.509 certificate", .0.display())]
    NotX509(PathBuf),
    /// Its time is over.
    #[error("the certificate {} expired on {at}", path.display())]
    Expired {
        /// Which.
        path: PathBuf,
        /// When, for people.
        at: String,
    },
    /// Its time has not come.
    #[error("the certificate {} is not in force before {at}", path.display())]
    NotYet {
        /// Which.
        path: PathBuf,
        /// When, for people.
        at: String,
    },
    /// Certificate and key are not a pair.
    #[error("the key {} does not belong to the certificate {}", key.display(), cert.display())]
    Mismatch {
        /// The certificate.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// The library cannot use them.
    #[error("{} cannot be used: {reason}", path.display())]
    Unusable {
        /// Which.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
}

impl TlsError {
    /// The file it is about; of a pair that does not match, the key.
    pub fn path(&self) -> &Path {
        match self {
            TlsError::Read { path, .. }
            | TlsError::KeyIsOpen { path, .. }
            | TlsError::NoCertificate(path)
            | TlsError::NoKey(path)
            | TlsError::NotX509(path)
            | TlsError::Expired { path, .. }
            | TlsError::NotYet { path, .. }
            | TlsError::Mismatch { key: path, .. }
            | TlsError::Unusable { path, .. } => path,
        }
    }
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
                let mut roots = RootCertStore::empty();
                for der in certificates(path)? {
                    in_force(path, &der)?;
                    roots
                        .add(der)
                        .map_err(|wrong| unusable(path, wrong.to_string()))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
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

fn read(path: &Path, check: impl FnOnce(u32) -> Result<(), TlsError>) -> Result<Vec<u8>, TlsError> {
    let failed = |source: io::Error| TlsError::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let found = file.metadata().map_err(failed)?;
    if !found.is_file() {
        return Err(failed(io::Error::other("it is not a regular file")));
    }
    if found.len() > FILE_BYTES_MAX {
        return Err(failed(io::ErrorKind::FileTooLarge.into()));
    }
    check(found.mode() & 0o7777)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    Ok(bytes)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = read(path, |_| Ok(()))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(TlsError::NoCertificate(path.to_owned())),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let bytes = read(path, |mode| match mode & 0o077 {
        0 => Ok(()),
        _ => Err(TlsError::KeyIsOpen {
            path: path.to_owned(),
            mode,
        }),
    })?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| TlsError::NoKey(path.to_owned()))
}

/// When the certificate expires. Errors: it has, or it is not in force yet.
fn in_force(path: &Path, der: &CertificateDer<'_>) -> Result<i64, TlsError> {
    let (_, certificate) =
        X509Certificate::from_der(der).map_err(|_| TlsError::NotX509(path.to_owned()))?;
    let (validity, now) = (certificate.validity(), ASN1Time::now());
    let path = path.to_owned();
    if now > validity.not_after {
        let at = validity.not_after.to_string();
        return Err(TlsError::Expired { path, at });
    }
    if now < validity.not_before {
        let at = validity.not_before.to_string();
        return Err(TlsError::NotYet { path, at });
    }
    Ok(validity.not_after.timestamp())
}
