//! Certificates and keys in files, read and checked before anybody relies on them.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

/// Longest file that is read, bytes: a chain or a list of authorities is far smaller.
const FILE_BYTES_MAX: u64 = 1 << 20;

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
    /// It is in force, but not this node's.
    #[error("the certificate {} is not that of node {node}: it names {}", path.display(), listed(names))]
    OtherNode {
        /// Which.
        path: PathBuf,
        /// The node that was to use it.
        node: String,
        /// Whom it names.
        names: Vec<String>,
    },
    /// It is not the one that is pinned for this node.
    #[error("the certificate {} is not the one that `fingerprint` of {node} pins: it is {found}", path.display())]
    OtherFingerprint {
        /// Which.
        path: PathBuf,
        /// The node that was to use it.
        node: String,
        /// Its own fingerprint.
        found: String,
    },
    /// It was not signed by the authority that peers are held against.
    #[error("the certificate {} is not of the authority in {}", path.display(), ca.display())]
    OtherAuthority {
        /// Which.
        path: PathBuf,
        /// The authority.
        ca: PathBuf,
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
            | TlsError::OtherNode { path, .. }
            | TlsError::OtherFingerprint { path, .. }
            | TlsError::OtherAuthority { path, .. }
            | TlsError::Unusable { path, .. } => path,
        }
    }
}

/// `a, b`, or that there is nobody.
pub(super) fn listed(names: &[String]) -> String {
    match names {
        [] => "nobody".to_owned(),
        names => names.join(", "),
    }
}

impl TlsError {
    pub(super) fn unusable(path: &Path, why: &rustls::Error) -> TlsError {
        TlsError::Unusable {
            path: path.to_owned(),
            reason: why.to_string(),
        }
    }
}

/// The authorities in a file, all of them in force.
pub fn authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for der in certificates(path)? {
        in_force(path, &der)?;
        roots
            .add(der)
            .map_err(|why| TlsError::unusable(path, &why))?;
    }
    Ok(roots)
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

/// The certificates in a file, at least one.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = read(path, |_| Ok(()))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(TlsError::NoCertificate(path.to_owned())),
    }
}

/// The private key in a file that is closed to others.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let bytes = read(path, |mode| match mode & 0o077 {
        0 => Ok(()),
        _ => Err(TlsError::KeyIsOpen {
            path: path.to_owned(),
            mode,
        }),
    })?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| TlsError::NoKey(path.to_owned()))
}

/// When the certificate expires, in seconds since 1970. Errors: it has, or it is not in force yet;
/// `path` is where it was read.
pub fn in_force(path: &Path, der: &CertificateDer<'_>) -> Result<i64, TlsError> {
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
