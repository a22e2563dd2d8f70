//! TLS of a load: whom to trust, and the session between a connection and its socket.
//!
//! ```text
//!  requests being sent ─► rustls ─► one buffer of sealed bytes ─► one send
//!  plaintext of replies ◄─ rustls ◄─ one receive of 256 KiB
//! ```
//! Sessions are never resumed: each handshake is a whole one.

use std::io::{self, BufRead, IoSlice, Write};
use std::path::Path;
use std::sync::Arc;

use engine_ring::{Arena, BufId, BufSlice, Class, SEGMENTS_MAX, Seg};
use nbd_proto::{NbdUri, Transport};
use rustls::client::Resumption;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use super::LoadError;
use super::connection::skip;

/// Sealed bytes of one send.
pub const SEALED: u32 = 256 << 10;

/// What a client needs for a handshake.
#[derive(Clone, Debug)]
pub struct Credentials {
    config: Arc<ClientConfig>,
    server: ServerName<'static>,
}

impl Credentials {
    /// What a URI asks for; `None` if it does not ask for TLS. Errors: no folder is named, what
    /// lies there cannot be used, or the host cannot be in a certificate.
    pub fn of(uri: &NbdUri) -> Result<Option<Credentials>, LoadError> {
        let Some(tls) = &uri.tls else {
            return Ok(None);
        };
        let folder = tls.certificates.as_ref().ok_or(LoadError::NoCertificates)?;
        let config = config(Path::new(folder)).map_err(|why| LoadError::Certificates {
            folder: folder.clone(),
            why,
        })?;
        let host = match &uri.transport {
            Transport::Tcp { host, .. } => host.clone(),
            Transport::Unix { .. } => "localhost".to_owned(),
        };
        let server = ServerName::try_from(host.clone());
        let server = server.map_err(|_| LoadError::ServerName(host))?;
        Ok(Some(Credentials {
            config: Arc::new(config),
            server,
        }))
    }

    /// A session that has not begun.
    pub fn session(&self) -> Result<Box<ClientConnection>, LoadError> {
        let session = ClientConnection::new(self.config.clone(), self.server.clone());
        Ok(Box::new(session.map_err(LoadError::Tls)?))
    }
}

/// Trusts `ca-cert.pem`, and shows `client-cert.pem` if there is one. Errors: in words.
fn config(folder: &Path) -> Result<ClientConfig, String> {
    let certificates = |name: &str| {
        let file = CertificateDer::pem_file_iter(folder.join(name));
        let all = file.and_then(Iterator::collect::<Result<Vec<_>, _>>);
        all.map_err(|why| format!("{name}: {why}"))
    };
    let mut roots = RootCertStore::empty();
    for authority in certificates("ca-cert.pem")? {
        let added = roots.add(authority);
        added.map_err(|why| format!("ca-cert.pem: {why}"))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|why| why.to_string())?;
    let builder = builder.with_root_certificates(roots);
    let mut config = if folder.join("client-cert.pem").exists() {
        let key = PrivateKeyDer::from_pem_file(folder.join("client-key.pem"));
        let key = key.map_err(|why| format!("client-key.pem: {why}"))?;
        let shown = builder.with_client_auth_cert(certificates("client-cert.pem")?, key);
        shown.map_err(|why| format!("client-cert.pem: {why}"))?
    } else {
        builder.with_no_client_auth()
    };
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// The session of a connection in the transmission phase.
pub struct Seal {
    session: Box<ClientConnection>,
    sealed: BufId,
    /// Of the sealed bytes, those that are still to be sent.
    at: u32,
    filled: u32,
}

impl Seal {
    /// A session whose handshake is over. `None` if the arena is too small.
    pub fn new(session: Box<ClientConnection>, arena: &mut Arena) -> Option<Seal> {
        Some(Seal {
            session,
            sealed: arena.alloc(Class::Net, SEALED as usize)?,
            at: 0,
            filled: 0,
        })
    }

    /// Something is to be sent that no request asked for: the answer to a change of keys.
    pub fn has_words(&self) -> bool {
        self.session.wants_write()
    }

    /// `count` sealed bytes are gone.
    pub fn sent(&mut self, count: u32) {
        self.at += count;
    }

    /// The sealed bytes to be sent next: the rest of the last ones, or as much as fits of `plain`,
    /// which loses that. `None` if there is nothing.
    pub fn seal(
        &mut self,
        plain: &mut Vec<Seg>,
        arena: &mut Arena,
    ) -> Result<Option<BufSlice>, LoadError> {
        if self.at == self.filled {
            (self.at, self.filled) = (0, self.fill(plain, arena)?);
        }
        let left = self.filled - self.at;
        Ok((left > 0).then(|| self.sealed.slice(self.at, left)))
    }

    fn fill(&mut self, plain: &mut Vec<Seg>, arena: &mut Arena) -> Result<u32, LoadError> {
        let mut filled = 0;
        while filled < SEALED {
            if self.session.wants_write() {
                let mut room = arena.slice_mut(self.sealed.slice(filled, SEALED - filled));
                let written = self.session.write_tls(&mut room);
                // At most the length of the room.
                filled += written.map_err(LoadError::Sealing)? as u32;
            } else if plain.is_empty() {
                break;
            } else {
                let mut pieces = [IoSlice::new(&[]); SEGMENTS_MAX];
                let count = plain.len().min(SEGMENTS_MAX);
                for (piece, segment) in pieces.iter_mut().zip(&*plain) {
                    if let Seg::Arena(slice) = segment {
                        *piece = IoSlice::new(arena.slice(*slice));
                    }
                }
                let taken = self.session.writer().write_vectored(&pieces[..count]);
                // At most the bytes of a send.
                skip(plain, taken.map_err(LoadError::Sealing)? as u32);
            }
        }
        Ok(filled)
    }

    /// Hands what is in `sealed` to `take`, in the clear.
    pub fn open(
        &mut self,
        mut sealed: &[u8],
        mut take: impl FnMut(&[u8]) -> Result<(), LoadError>,
    ) -> Result<(), LoadError> {
        while !sealed.is_empty() {
            self.session
                .read_tls(&mut sealed)
                .map_err(LoadError::Sealing)?;
            self.session.process_new_packets().map_err(LoadError::Tls)?;
            let mut reader = self.session.reader();
            loop {
                match reader.fill_buf() {
                    // The server said that it closes.
                    Ok([]) => return Err(LoadError::TlsClosed),
                    Ok(plain) => {
                        let count = plain.len();
                        take(plain)?;
                        reader.consume(count);
                    }
                    Err(why) if why.kind() == io::ErrorKind::WouldBlock => break,
                    Err(why) => return Err(LoadError::Sealing(why)),
                }
            }
        }
        Ok(())
    }
}
