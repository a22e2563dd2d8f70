//! TLS for clients that have none: a Unix socket whose every connection goes on under TLS.
//!
//! ```text
//!  plain client ─ Unix socket ─► Tunnel ─ STARTTLS, TLS over TCP ─► the server
//! ```
//! The server's end of a session becomes the client's. The tunnel stands between option haggling and
//! nothing else: it does not read what passes.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustls::client::Resumption;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

/// Bytes that pass at a time.
const PIECE: usize = 64 << 10;

/// Whom a client under TLS trusts, and what it shows: a folder made by `pollux tls init`.
#[derive(Clone, Debug)]
pub struct Trust(Arc<ClientConfig>);

impl Trust {
    /// Panics: the folder does not hold what it should.
    pub fn of(folder: &Path) -> Trust {
        let certificates = |name: &str| -> Vec<CertificateDer<'static>> {
            let file = CertificateDer::pem_file_iter(folder.join(name));
            let all = file.and_then(Iterator::collect);
            all.expect("the folder holds certificates")
        };
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates("ca-cert.pem"));
        let key = PrivateKeyDer::from_pem_file(folder.join("client-key.pem"));
        let key = key.expect("the folder holds a client's key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_root_certificates(roots)
            .with_client_auth_cert(certificates("client-cert.pem"), key)
            .expect("certificate and key are a pair");
        config.resumption = Resumption::disabled();
        Trust(Arc::new(config))
    }

    /// A session with a server called localhost that has not begun.
    pub(crate) fn session(&self) -> io::Result<ClientConnection> {
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        ClientConnection::new(self.0.clone(), name).map_err(io::Error::other)
    }
}

/// A way to a server under TLS, for clients that cannot go it themselves. It accepts until the test
/// ends.
#[derive(Debug)]
pub struct Tunnel {
    socket: PathBuf,
}

impl Tunnel {
    /// Listens at `socket`. Panics: it cannot.
    pub fn start(socket: PathBuf, server: String, trust: Trust) -> Tunnel {
        let listener = UnixListener::bind(&socket).expect("the socket's folder is writable");
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (server, trust) = (server.clone(), trust.clone());
                // Whatever goes wrong, both ends close.
                thread::spawn(move || relay(client, &server, &trust));
            }
        });
        Tunnel { socket }
    }

    /// The URI of an export behind it.
    pub fn uri(&self, export: &str) -> String {
        format!("nbd+unix:///{export}?socket={}", self.socket.display())
    }
}

fn relay(mut client: UnixStream, server: &str, trust: &Trust) -> io::Result<()> {
    let mut server = TcpStream::connect(server)?;
    server.set_nodelay(true)?;
    let mut greeting = [0; 18];
    server.read_exact(&mut greeting)?;
    server.write_all(b"\0\0\0\x03IHAVEOPT\0\0\0\x05\0\0\0\0")?;
    let mut reply = [0; 20];
    server.read_exact(&mut reply)?;
    if reply[12..] != [0, 0, 0, 1, 0, 0, 0, 0] {
        return Err(io::Error::other("no TLS"));
    }
    let mut session = trust.session()?;
    session.set_buffer_limit(None);
    while session.is_handshaking() {
        session.complete_io(&mut server)?;
    }
    // The client's flags were sent for it.
    client.write_all(&greeting)?;
    client.read_exact(&mut [0; 4])?;
    let session = Arc::new(Mutex::new(session));
    let (from_client, to_server) = (client.try_clone()?, server.try_clone()?);
    let sealing = session.clone();
    let upwards = thread::spawn(move || {
        let ended = seal(&from_client, &to_server, &sealing);
        let _ = to_server.shutdown(Shutdown::Both);
        ended
    });
    let ended = open(&server, &client, &session);
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
    let _ = upwards.join();
    ended
}

type Session = Mutex<ClientConnection>;

/// From the client to the server. Nothing is sent while the session is held.
fn seal(mut client: &UnixStream, mut server: &TcpStream, session: &Session) -> io::Result<()> {
    let mut plain = vec![0; PIECE];
    let mut sealed = Vec::new();
    loop {
        let count = client.read(&mut plain)?;
        if count == 0 {
            return Ok(());
        }
        let mut session = session.lock().unwrap_or_else(PoisonError::into_inner);
        session.writer().write_all(&plain[..count])?;
        while session.wants_write() {
            session.write_tls(&mut sealed)?;
        }
        drop(session);
        server.write_all(&sealed)?;
        sealed.clear();
    }
}

/// From the server to the client.
fn open(mut server: &TcpStream, mut client: &UnixStream, session: &Session) -> io::Result<()> {
    let mut sealed = vec![0; PIECE];
    let mut plain = vec![0; PIECE];
    loop {
        let count = server.read(&mut sealed)?;
        let mut rest = &sealed[..count];
        if rest.is_empty() {
            return Ok(());
        }
        while !rest.is_empty() {
            let mut opened = Vec::new();
            let mut session = session.lock().unwrap_or_else(PoisonError::into_inner);
            session.read_tls(&mut rest)?;
            session.process_new_packets().map_err(io::Error::other)?;
            let ended = loop {
                match session.reader().read(&mut plain) {
                    Ok(0) => break true,
                    Ok(count) => opened.extend_from_slice(&plain[..count]),
                    Err(why) if why.kind() == ErrorKind::WouldBlock => break false,
                    Err(why) => return Err(why),
                }
            };
            drop(session);
            client.write_all(&opened)?;
            if ended {
                return Ok(());
            }
        }
    }
}
