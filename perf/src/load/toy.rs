//! A small NBD server inside the test process, which misbehaves on demand.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nbd_proto::{
    BlockSizes, Command, Cookie, ErrorChunk, ExportInfo, ExportName, Exports, Features, Item,
    ListEntry, NbdError, NbdUri, Negotiation, Parsed, Policy, Refusal, ReplyStyle, Step, Tls,
    Transmission, Transport, UriTls,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::PrivatePkcs8KeyDer;
use tempfile::TempDir;

/// What goes wrong, at the n-th request of the whole server, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// It is answered with EIO.
    Eio(u64),
    /// The connection is closed instead of an answer.
    Close(u64),
    /// It is answered with a cookie nobody sent.
    Cookie(u64),
    /// One bit of its data is turned.
    Flip(u64),
    /// The answer, and all that follow on its connection, come that much later.
    Pause(u64, Duration),
}

/// A running server; the threads end with their connections.
pub struct Toy {
    _directory: TempDir,
    /// Where it listens.
    pub uri: NbdUri,
    shared: Arc<Shared>,
}

struct Shared {
    disk: Mutex<Vec<u8>>,
    tls: Option<Arc<ServerConfig>>,
    read_only: bool,
    fault: Fault,
    requests: AtomicU64,
}

impl Toy {
    /// A server with a blank disk.
    pub fn start(size: usize, read_only: bool, fault: Fault) -> Toy {
        Toy::start_in(tempfile::tempdir().unwrap(), size, read_only, fault, None)
    }

    /// One whose clients need TLS and a certificate; the URI says where those lie.
    pub fn start_secure(size: usize) -> Toy {
        let directory = tempfile::tempdir().unwrap();
        let config = Some(make_certificates(directory.path()));
        let mut toy = Toy::start_in(directory, size, false, Fault::None, config);
        let certificates = Some(toy._directory.path().display().to_string());
        toy.uri.tls = Some(UriTls { certificates });
        toy
    }

    fn start_in(
        directory: TempDir,
        size: usize,
        read_only: bool,
        fault: Fault,
        tls: Option<Arc<ServerConfig>>,
    ) -> Toy {
        let socket = directory.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        let disk = Mutex::new(vec![0; size]);
        let shared = Arc::new(Shared {
            disk,
            tls,
            read_only,
            fault,
            requests: AtomicU64::new(0),
        });
        let server = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (server, stream) = (server.clone(), stream.unwrap());
                std::thread::spawn(move || server.serve(&stream));
            }
        });
        let socket = socket.to_str().unwrap().to_owned();
        let uri = NbdUri {
            transport: Transport::Unix { socket },
            export: ExportName::default(),
            tls: None,
        };
        Toy {
            _directory: directory,
            uri,
            shared,
        }
    }

    /// Requests it has seen.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// What lies on its disk.
    pub fn contents(&self) -> Vec<u8> {
        self.shared.disk.lock().unwrap().clone()
    }
}

/// What a connection is read from and written to.
trait Line: Read + Write {}
impl<T: Read + Write> Line for T {}

/// Puts an authority and a client's certificate into a folder; what the server shows stays in memory.
pub fn make_certificates(folder: &Path) -> Arc<ServerConfig> {
    let key = || KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, key()).unwrap();
    std::fs::write(folder.join("ca-cert.pem"), authority.pem()).unwrap();
    let issue = || {
        let key = key();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        (params.signed_by(&key, &authority).unwrap(), key)
    };
    let (certificate, client) = issue();
    std::fs::write(folder.join("client-cert.pem"), certificate.pem()).unwrap();
    std::fs::write(folder.join("client-key.pem"), client.serialize_pem()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(authority.as_ref().der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
    let (certificate, server) = issue();
    let key = PrivatePkcs8KeyDer::from(server.serialize_der()).into();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(vec![certificate.der().clone()], key);
    Arc::new(config.unwrap())
}

impl Exports for Shared {
    fn list(&self, _: &mut dyn FnMut(ListEntry<'_>)) {}

    fn default_export(&self) -> Option<ExportName> {
        ExportName::new("toy").ok()
    }

    fn lookup(&self, name: &ExportName) -> Result<ExportInfo, Refusal> {
        Ok(ExportInfo {
            name: name.clone(),
            description: String::new(),
            size: self.disk.lock().unwrap().len() as u64,
            read_only: self.read_only,
            features: Features::default(),
            block_sizes: BlockSizes::new(512, 4096, 1 << 20).unwrap(),
            contexts: Vec::new(),
        })
    }
}

impl Shared {
    /// A connection until it ends; nobody wants to know how.
    fn serve(&self, socket: &UnixStream) -> Option<()> {
        let tls = match self.tls {
            Some(_) => Tls::Required,
            None => Tls::Unsupported,
        };
        let mut negotiation = Negotiation::new(Policy {
            tls,
            ..Policy::default()
        });
        let mut stream: Box<dyn Line> = Box::new(socket.try_clone().ok()?);
        stream.write_all(&negotiation.greeting()).ok()?;
        let (mut buffer, mut out) = (vec![0; 64 << 10], Vec::new());
        let mut transmission = None;
        let mut write: Option<(Cookie, u64, Vec<u8>)> = None;
        loop {
            let count = stream.read(&mut buffer).ok().filter(|count| *count > 0)?;
            let mut rest = &buffer[..count];
            while transmission.is_none() {
                match negotiation.feed(rest, self, &mut out) {
                    Step::NeedMore => break,
                    Step::Continue { consumed } => rest = &rest[consumed..],
                    Step::EnterTransmission {
                        consumed,
                        negotiated,
                    } => {
                        rest = &rest[consumed..];
                        transmission = Some(Transmission::new(&negotiated));
                    }
                    Step::StartTls { consumed } => {
                        stream.write_all(&out).ok()?;
                        out.clear();
                        rest = &rest[consumed..];
                        let session = ServerConnection::new(self.tls.clone()?).ok()?;
                        let socket = socket.try_clone().ok()?;
                        stream = Box::new(StreamOwned::new(session, socket));
                        negotiation.secured();
                    }
                    Step::Close(_) => return None,
                }
            }
            while let Some(transmission) = &mut transmission {
                let Parsed { consumed, item } = transmission.next(rest).ok()?;
                let (taken, after) = rest.split_at(consumed);
                rest = after;
                match item {
                    Item::Request {
                        cookie,
                        command: Command::Write { offset, length, .. },
                        ..
                    } => {
                        write = Some((cookie, offset, Vec::with_capacity(length as usize)));
                    }
                    Item::Payload => {
                        let (cookie, offset, data) = write.as_mut()?;
                        data.extend_from_slice(taken);
                        if transmission.payload_left() == 0 {
                            let place = *offset as usize..*offset as usize + data.len();
                            self.disk.lock().unwrap()[place].copy_from_slice(data);
                            self.answer(*cookie, &[], &mut out)?;
                        }
                    }
                    Item::Request {
                        cookie,
                        command: Command::Read { offset, length, .. },
                        ..
                    } => {
                        let place = offset as usize..(offset + u64::from(length)) as usize;
                        let data = self.disk.lock().unwrap()[place].to_vec();
                        self.answer(cookie, &data, &mut out)?;
                    }
                    Item::More => break,
                    _ => return None,
                }
            }
            stream.write_all(&out).ok()?;
            out.clear();
        }
    }

    /// Appends the answer; `None` if the connection is to be closed.
    fn answer(&self, mut cookie: Cookie, data: &[u8], out: &mut Vec<u8>) -> Option<()> {
        let number = self.requests.fetch_add(1, Ordering::SeqCst);
        let (mut header, style) = ([0; ReplyStyle::ERROR_MAX], ReplyStyle::Simple);
        if self.fault == Fault::Close(number) {
            return None;
        }
        if let Fault::Pause(at, time) = self.fault
            && at == number
        {
            std::thread::sleep(time);
        }
        if self.fault == Fault::Eio(number) {
            let chunk = ErrorChunk {
                cookie,
                error: NbdError::Io,
                text: "",
                offset: None,
                done: true,
            };
            let length = style.encode_error(chunk, 0, &mut header);
            out.extend_from_slice(&header[..length]);
            return Some(());
        }
        if self.fault == Fault::Cookie(number) {
            cookie.0 ^= 1 << 63;
        }
        let length = style.encode_ok(cookie, 0, &mut header);
        out.extend_from_slice(&header[..length]);
        out.extend_from_slice(data);
        if self.fault == Fault::Flip(number) {
            *out.last_mut()? ^= 1;
        }
        Some(())
    }
}
