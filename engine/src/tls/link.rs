//! Who this node is to its peers, and how it makes sure who they are.
//!
//! A certificate that is pinned for a node is that node's, whoever signed it. Any other must be
//! signed by the authority and names the nodes that stand in it as DNS alternative names, letter by
//! letter; nothing else in it counts, and no node that has a pin is named so.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, DistinguishedName,
    Error, OtherError, RootCertStore, ServerConfig, ServerConnection, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::files::{TlsError, authorities, certificates, in_force, listed, private_key};

/// SHA-256 of a certificate (DER).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

/// A text that is no fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("as in \"sha256:\" and 64 hexadecimal digits")]
pub struct WrongFingerprint;

/// Where a node's certificates lie, PEM, and which of its peers are pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkFiles {
    /// The node's certificate, and those between it and the authority.
    pub cert: PathBuf,
    /// Its private key; closed to group and others.
    pub key: PathBuf,
    /// Authority of the peers' certificates; `None`: all of them are pinned.
    pub ca: Option<PathBuf>,
    /// Certificates of nodes by name, this one's too.
    pub pins: Vec<(String, Fingerprint)>,
}

/// A node's certificate in force with its key, and whom it trusts; cheap to clone.
#[derive(Clone)]
pub struct LinkTls(Arc<Inner>);

struct Inner {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    trust: Arc<Trust>,
    server: Arc<ServerConfig>,
    expires_at: i64,
}

/// Whose certificates are let in.
struct Trust {
    roots: Option<(Arc<RootCertStore>, Arc<dyn ClientCertVerifier>)>,
    pins: Vec<(String, Fingerprint)>,
    provider: Arc<CryptoProvider>,
}

/// A certificate that is in order, but not that of the node.
#[derive(Debug, thiserror::Error)]
#[error(
    "its certificate is not that of node {wanted}: it names {}",
    listed(names)
)]
pub(crate) struct OtherNode {
    pub(crate) wanted: String,
    pub(crate) names: Vec<String>,
}

impl Fingerprint {
    /// Of a certificate.
    pub fn of(der: &[u8]) -> Fingerprint {
        let suite = rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
        let suite = suite.tls13().expect("it is a suite of TLS 1.3");
        let hash = suite.common.hash_provider.hash(der);
        Fingerprint(hash.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = WrongFingerprint;

    /// `sha256:` and 64 digits, in any case, with or without colons between the bytes.
    fn from_str(text: &str) -> Result<Fingerprint, WrongFingerprint> {
        let digits = text.strip_prefix("sha256:").ok_or(WrongFingerprint)?;
        let digits: Vec<u8> = digits.bytes().filter(|byte| *byte != b':').collect();
        let mut bytes = [0; 32];
        if digits.len() != 64 {
            return Err(WrongFingerprint);
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            let digit = |at: usize| char::from(pair[at]).to_digit(16).ok_or(WrongFingerprint);
            *byte = (digit(0)? * 16 + digit(1)?) as u8;
        }
        Ok(Fingerprint(bytes))
    }
}

impl LinkTls {
    /// Reads and checks the files for this node. Errors: the first thing that is wrong with them;
    /// also a certificate that its peers would refuse.
    pub fn load(node: &str, files: &LinkFiles) -> Result<LinkTls, TlsError> {
        let chain = certificates(&files.cert)?;
        let expires = chain.iter().map(|der| in_force(&files.cert, der));
        let expires_at = expires.collect::<Result<Vec<_>, _>>()?.into_iter().min();
        let key = private_key(&files.key)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let roots = files.ca.as_ref().map(|path| {
            let roots = Arc::new(authorities(path)?);
            let verifier =
                WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
            let verifier = verifier.build().map_err(|why| TlsError::Unusable {
                path: path.clone(),
                reason: why.to_string(),
            })?;
            Ok((roots, verifier))
        });
        let trust = Arc::new(Trust {
            roots: roots.transpose()?,
            pins: files.pins.clone(),
            provider: provider.clone(),
        });
        trust.check_own(node, files, &chain)?;
        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|why| TlsError::unusable(&files.cert, &why))?
            .with_client_cert_verifier(Arc::new(Callers(trust.clone())));
        let server = builder.with_single_cert(chain.clone(), key.clone_key());
        let mut server = server.map_err(|why| match why {
            Error::InconsistentKeys(_) => TlsError::Mismatch {
                cert: files.cert.clone(),
                key: files.key.clone(),
            },
            why => TlsError::unusable(&files.key, &why),
        })?;
        server.send_tls13_tickets = 0;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(LinkTls(Arc::new(Inner {
            chain,
            key,
            trust,
            server: Arc::new(server),
            expires_at: expires_at.unwrap_or(0),
        })))
    }

    /// When the first certificate of the chain expires, in seconds since 1970.
    pub fn expires_at(&self) -> i64 {
        self.0.expires_at
    }

    /// What `fingerprint` of this node would be.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.0.chain[0])
    }

    /// The accepting end of a connection.
    pub(crate) fn accept(&self) -> Result<rustls::Connection, Error> {
        ServerConnection::new(self.0.server.clone()).map(Into::into)
    }

    /// The dialling end of a connection to `node`: nobody else is talked to.
    pub(crate) fn dial(&self, node: &str) -> Result<rustls::Connection, Error> {
        let Inner {
            chain, key, trust, ..
        } = &*self.0;
        let verifier = Arc::new(Called {
            trust: trust.clone(),
            node: node.to_owned(),
        });
        let mut config = ClientConfig::builder_with_provider(trust.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_auth_cert(chain.clone(), key.clone_key())?;
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        // Not sent, not compared: the verifier knows whom it wants.
        let name = ServerName::try_from("node").expect("it is a DNS name");
        ClientConnection::new(Arc::new(config), name).map(Into::into)
    }

    /// Whether the peer of a finished handshake is `node`. Errors: whom it showed to be.
    pub(crate) fn is_node(
        &self,
        session: &rustls::Connection,
        node: &str,
    ) -> Result<(), OtherNode> {
        let names = session
            .peer_certificates()
            .and_then(<[_]>::first)
            .map(|der| self.0.trust.names_of(der))
            .unwrap_or_default();
        expect(names, node)
    }
}

impl PartialEq for LinkTls {
    /// The same load of files.
    fn eq(&self, other: &LinkTls) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for LinkTls {}

impl fmt::Debug for LinkTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LinkTls({})", self.fingerprint())
    }
}

fn expect(names: Vec<String>, node: &str) -> Result<(), OtherNode> {
    match names.iter().any(|name| name == node) {
        true => Ok(()),
        false => Err(OtherNode {
            wanted: node.to_owned(),
            names,
        }),
    }
}

/// DNS alternative names of a certificate.
fn dns_names(der: &[u8]) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else {
        return Vec::new();
    };
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.iter().flat_map(|names| &names.value.general_names);
    let dns = names.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    });
    dns.collect()
}

impl Trust {
    fn algorithms(&self) -> &WebPkiSupportedAlgorithms {
        &self.provider.signature_verification_algorithms
    }

    fn pin(&self, node: &str) -> Option<Fingerprint> {
        let mut pins = self.pins.iter();
        pins.find(|(name, _)| name == node).map(|(_, pin)| *pin)
    }

    /// Nodes for which this very certificate is pinned.
    fn pinned(&self, der: &[u8]) -> Vec<String> {
        let found = Fingerprint::of(der);
        let pins = self.pins.iter().filter(|(_, pin)| *pin == found);
        pins.map(|(name, _)| name.clone()).collect()
    }

    /// Nodes that a certificate names, once it is known to be good.
    fn names_of(&self, der: &[u8]) -> Vec<String> {
        let pinned = self.pinned(der);
        if !pinned.is_empty() {
            return pinned;
        }
        let mut names = dns_names(der);
        names.retain(|name| self.pin(name).is_none());
        names
    }

    /// Whether it is good: pinned and in force, or what `by_authority` says.
    fn check(
        &self,
        der: &CertificateDer<'_>,
        now: UnixTime,
        by_authority: impl FnOnce(&RootCertStore, &dyn ClientCertVerifier) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if !self.pinned(der).is_empty() {
            return pinned_in_force(der, now);
        }
        match &self.roots {
            Some((roots, verifier)) => by_authority(roots, &**verifier).map_err(|why| match why {
                // Another authority of the same name.
                Error::InvalidCertificate(CertificateError::BadSignature) => {
                    CertificateError::UnknownIssuer.into()
                }
                why => why,
            }),
            None => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    /// What the peers will see is what they will ask for.
    fn check_own(
        &self,
        node: &str,
        files: &LinkFiles,
        chain: &[CertificateDer<'static>],
    ) -> Result<(), TlsError> {
        let (path, own) = (files.cert.clone(), &chain[0]);
        let node = node.to_owned();
        match (self.pin(&node), &self.roots, &files.ca) {
            (Some(pin), _, _) => match Fingerprint::of(own) {
                found if found == pin => Ok(()),
                found => Err(TlsError::OtherFingerprint {
                    path,
                    node,
                    found: found.to_string(),
                }),
            },
            (None, Some(_), Some(ca)) => {
                let now = UnixTime::now();
                let verified = self.check(own, now, |_, verifier| {
                    verifier.verify_client_cert(own, &chain[1..], now).map(drop)
                });
                match verified {
                    Ok(()) => {}
                    Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
                        let ca = ca.clone();
                        return Err(TlsError::OtherAuthority { path, ca });
                    }
                    Err(why) => return Err(TlsError::unusable(&path, &why)),
                }
                expect(self.names_of(own), &node)
                    .map_err(|OtherNode { names, .. }| TlsError::OtherNode { path, node, names })
            }
            // Its peers pin it in files of their own.
            (None, _, _) => Ok(()),
        }
    }
}

/// A pinned certificate has nobody else to say how long it holds.
fn pinned_in_force(der: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let (_, certificate) =
        X509Certificate::from_der(der).map_err(|_| CertificateError::BadEncoding)?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let validity = certificate.validity();
    if now > validity.not_after.timestamp() {
        return Err(CertificateError::Expired.into());
    }
    if now < validity.not_before.timestamp() {
        return Err(CertificateError::NotValidYet.into());
    }
    Ok(())
}

fn only_tls13() -> Error {
    Error::General("only TLS 1.3 is spoken".to_owned())
}

/// Checks certificates of nodes that dial; which of them it is, its greeting tells.
struct Callers(Arc<Trust>);

/// Checks the certificate of the node that is dialled.
struct Called {
    trust: Arc<Trust>,
    node: String,
}

impl ClientCertVerifier for Callers {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        der: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let by_authority = |_: &RootCertStore, verifier: &dyn ClientCertVerifier| {
            verifier.verify_client_cert(der, between, now).map(drop)
        };
        self.0.check(der, now, by_authority)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, self.0.algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.algorithms().supported_schemes()
    }
}

impl ServerCertVerifier for Called {
    fn verify_server_cert(
        &self,
        der: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Called { trust, node } = self;
        let by_authority = |roots: &RootCertStore, _: &dyn ClientCertVerifier| {
            let parsed = ParsedCertificate::try_from(der)?;
            let algorithms = trust.algorithms().all;
            verify_server_cert_signed_by_trust_anchor(&parsed, roots, between, now, algorithms)
        };
        trust.check(der, now, by_authority)?;
        expect(trust.names_of(der), node)
            .map_err(|other| CertificateError::Other(OtherError(Arc::new(other))))?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, self.trust.algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trust.algorithms().supported_schemes()
    }
}

impl fmt::Debug for Callers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Callers")
    }
}

impl fmt::Debug for Called {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Called({})", self.node)
    }
}
