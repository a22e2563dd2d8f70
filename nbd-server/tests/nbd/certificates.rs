//! Authorities and certificates for tests, made anew each time.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nbd_server::{TlsFiles, TlsIdentity};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

/// An authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
pub struct Pair {
    pub pem: String,
    pub der: CertificateDer<'static>,
    pub key: KeyPair,
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        Authority(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for this common name, which is also its DNS name.
    pub fn issue(&self, name: &str) -> Pair {
        self.issue_with(name, |_| {})
    }

    /// One whose time is over.
    pub fn issue_expired(&self, name: &str) -> Pair {
        self.issue_with(name, |params| {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        })
    }

    /// One whose time has not come.
    pub fn issue_for_later(&self, name: &str) -> Pair {
        self.issue_with(name, |params| params.not_before = date_time_ymd(3000, 1, 1))
    }

    fn issue_with(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Pair {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Pair {
            pem: certificate.pem(),
            der: certificate.der().clone(),
            key,
        }
    }
}

/// A file that only its owner reads.
pub fn write_secret(path: &Path, text: &str) {
    let mut options = fs::OpenOptions::new();
    let file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path);
    std::io::Write::write_all(&mut file.unwrap(), text.as_bytes()).unwrap();
}

/// A server's certificate and its clients' authority as files.
pub fn write_server(dir: &Path, pair: &Pair, clients: Option<&Authority>) -> TlsFiles {
    let file = |name: &str| -> PathBuf { dir.join(name) };
    fs::write(file("server-cert.pem"), &pair.pem).unwrap();
    write_secret(&file("server-key.pem"), &pair.key.serialize_pem());
    if let Some(authority) = clients {
        fs::write(file("ca-cert.pem"), authority.pem()).unwrap();
    }
    TlsFiles {
        cert: file("server-cert.pem"),
        key: file("server-key.pem"),
        client_ca: clients.map(|_| file("ca-cert.pem")),
    }
}

/// The identity of a server named `server` whose clients the same authority certifies.
pub fn identity(authority: &Authority) -> TlsIdentity {
    let dir = tempfile::tempdir().unwrap();
    let files = write_server(dir.path(), &authority.issue("server"), Some(authority));
    TlsIdentity::load(&files).unwrap()
}

/// A client that trusts `authority` and shows `pair`.
pub fn client(
    authority: &Authority,
    pair: Option<&Pair>,
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let der: CertificateDer<'static> = authority.0.as_ref().der().clone();
    roots.add(der).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    Arc::new(match pair {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let key = PrivatePkcs8KeyDer::from(pair.key.serialize_der());
            let chain = vec![pair.der.clone()];
            builder
                .with_client_auth_cert(chain, PrivateKeyDer::Pkcs8(key))
                .unwrap()
        }
    })
}
