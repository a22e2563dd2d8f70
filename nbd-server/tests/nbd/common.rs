//! What the tests of this crate share: a server on a runtime of its own, and a raw client.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use engine::control::NbdExportSpec;
use engine::log::Silent;
use nbd_proto::{
    ClientAnswer, ClientFlags, ExportName, InfoRequest, OptionCode, OptionHeader,
    OptionReplyHeader, OptionReplyKind,
};
use nbd_server::{Limits, Listeners, NbdConfig, NbdExport, NbdServer, StartError, Volumes};
use tokio::sync::oneshot;

/// A server on its own thread; dropped, it stops.
pub struct Server {
    pub nbd: Arc<NbdServer>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts it.
    pub fn start(config: NbdConfig, volumes: Arc<dyn Volumes>) -> Result<Server, StartError> {
        Server::start_with(config, volumes, Listeners::default())
    }

    /// Starts it on sockets that are open.
    pub fn start_with(
        config: NbdConfig,
        volumes: Arc<dyn Volumes>,
        open: Listeners,
    ) -> Result<Server, StartError> {
        let (started, result) = mpsc::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(async {
                let nbd = NbdServer::start_with(&config, volumes, Arc::new(Silent), open);
                let nbd = nbd.map(Arc::new);
                let server = nbd.as_ref().ok().cloned();
                started.send(nbd).unwrap();
                if let Some(server) = server {
                    let _ = stopped.await;
                    server.stop().await;
                    // Half-open clients hear of it.
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            });
        });
        let nbd = result.recv().unwrap()?;
        Ok(Server {
            nbd,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Begins to stop; returns at once.
    pub fn stop(&mut self) {
        drop(self.stop.take());
    }

    /// Connects over TCP.
    pub fn connect(&self) -> Client<TcpStream> {
        let stream = TcpStream::connect(self.nbd.address().unwrap()).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        Client(stream)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        self.thread.take().unwrap().join().unwrap();
    }
}

/// A configuration with one listener on a free port and these exports, each of the volume of the
/// same name.
pub fn config(exports: &[&str]) -> NbdConfig {
    NbdConfig {
        node: "beta".to_owned(),
        address: Some("127.0.0.1:0".to_owned()),
        socket: None,
        socket_mode: 0o660,
        exports: exports.iter().map(|name| export(name, &[])).collect(),
        elsewhere: Vec::new(),
        tls: None,
        limits: Limits::default(),
    }
}

/// An export of the volume of the same name.
pub fn export(name: &str, allow: &[&str]) -> NbdExport {
    NbdExport {
        volume: name.to_owned(),
        spec: NbdExportSpec {
            name: name.to_owned(),
            description: format!("the disk {name}"),
            allow: allow.iter().map(|network| (*network).to_owned()).collect(),
            ..NbdExportSpec::default()
        },
    }
}

/// A configuration with a Unix socket only.
pub fn socket_config(path: PathBuf) -> NbdConfig {
    NbdConfig {
        address: None,
        socket: Some(path),
        ..config(&["vm"])
    }
}

/// Connects to a Unix socket.
pub fn connect_unix(path: &std::path::Path) -> Client<UnixStream> {
    let stream = UnixStream::connect(path).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    Client(stream)
}

/// A client that speaks byte by byte.
pub struct Client<S>(pub S);

impl<S: Read + Write> Client<S> {
    /// Reads the greeting and answers it.
    pub fn greet(&mut self) {
        assert_eq!(self.read(18)[..16], *b"NBDMAGICIHAVEOPT");
        let flags = ClientFlags::FIXED_NEWSTYLE.with(ClientFlags::NO_ZEROES);
        self.0.write_all(&ClientAnswer { flags }.encode()).unwrap();
    }

    /// Sends an option.
    pub fn option(&mut self, option: OptionCode, data: &[u8]) {
        let mut bytes = Vec::new();
        OptionHeader::encode_with(option, data, &mut bytes);
        self.0.write_all(&bytes).unwrap();
    }

    /// Sends INFO or GO.
    pub fn info(&mut self, option: OptionCode, export: &str) {
        let mut data = Vec::new();
        let name = ExportName::new(export).unwrap();
        InfoRequest {
            name,
            wanted: Default::default(),
        }
        .encode(&mut data);
        self.option(option, &data);
    }

    /// One reply to an option: its kind and its data as text.
    pub fn reply(&mut self) -> (OptionReplyKind, String) {
        let header = OptionReplyHeader::parse(&self.read(20)).unwrap().unwrap().0;
        let data = self.read(header.length as usize);
        (header.kind, String::from_utf8_lossy(&data).into_owned())
    }

    /// Exactly so many bytes.
    pub fn read(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// The server closed the connection, after `rest`.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.0.read_to_end(&mut bytes) {
            Ok(_) => {}
            // Closed with bytes of ours unread.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Err(error) => panic!("the server did not close: {error}"),
        }
        bytes
    }
}
