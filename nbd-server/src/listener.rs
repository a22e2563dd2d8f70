//! Listening sockets, and clients until they have chosen an export.
//!
//! ```text
//!  bind ─► accept loop ─► Admission: rate, half-open clients, per address ─► handshake task
//!             │                                                  STARTTLS ─► │ ─┐ deadline
//!             └─ stop: listener closed, socket file removed      GO ─► Volumes::attach
//! ```
//!
//! A client counts as half-open until it is attached or gone. One that comes beyond the limit of its
//! address is closed at once; beyond that of all, the oldest of the largest crowd is. The rate
//! delays, it does not refuse.

mod admission;
mod adopt;
mod bind;
mod handshake;
mod stream;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};
use std::time::Duration;

use engine::front_end::ExportLabel;
use engine::log::{Level, Log};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;

use crate::Volumes;
use crate::config::{Limits, NbdConfig, NbdExport};
use crate::exports::Catalogue;
use crate::network::WrongNetwork;
use crate::tls::{NbdTls, WrongSubject};
use admission::{Admission, Complaints, Restrained};
pub use adopt::AdoptError;
use bind::SocketFile;
use stream::{Origin, Stream};

/// The NBD listeners of a node. Dropped, they close; clients already attached are not touched.
pub struct NbdServer {
    address: Option<SocketAddr>,
    socket: Option<PathBuf>,
    stopping: watch::Sender<bool>,
    loops: Mutex<Vec<JoinHandle<Listener>>>,
    shared: Arc<Shared>,
}

/// Listening sockets on which nobody accepts yet, or any more; clients wait.
#[derive(Debug, Default)]
pub struct Listeners {
    /// The TCP listener.
    pub tcp: Option<std::net::TcpListener>,
    /// The Unix socket; its file is removed with the server that listens on it.
    pub unix: Option<std::os::unix::net::UnixListener>,
    /// The file of a socket that was opened here.
    file: Option<SocketFile>,
}

/// Why no listener was started; none is open.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another process listens on the TCP address.
    #[error("nbd: {address} is in use by another process")]
    AddressInUse {
        /// As configured.
        address: String,
    },
    /// The TCP address cannot be used.
    #[error("nbd: {address} cannot be listened on")]
    Address {
        /// As configured.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another process answers on the Unix socket.
    #[error("nbd: {} is in use by another process", path.display())]
    SocketInUse {
        /// As configured.
        path: PathBuf,
    },
    /// The Unix socket cannot be made.
    #[error("nbd: {} cannot be listened on", path.display())]
    Socket {
        /// As configured.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A name that clients could not ask for.
    #[error("nbd: export name `{name}` cannot be used: {reason}")]
    ExportName {
        /// As configured.
        name: String,
        /// The rule it breaks.
        reason: String,
    },
    /// Two exports have this name.
    #[error("nbd: two exports are named `{name}`")]
    ExportTwice {
        /// As configured.
        name: String,
    },
    /// An entry of `allow` is no network.
    #[error("nbd: `allow` of export `{name}` is wrong")]
    Allow {
        /// Name of the export.
        name: String,
        /// Why.
        #[source]
        source: WrongNetwork,
    },
    /// An entry of `allow_subjects` is no rule.
    #[error("nbd: `allow_subjects` of export `{name}` is wrong")]
    Subject {
        /// Name of the export.
        name: String,
        /// Why.
        #[source]
        source: WrongSubject,
    },
}

/// What all handshakes of a server share.
struct Shared {
    /// Replaced as a whole; a client that negotiates sees the new one with its next option.
    catalogue: RwLock<Arc<Catalogue>>,
    volumes: Arc<dyn Volumes>,
    limits: Limits,
    tls: RwLock<Option<NbdTls>>,
    log: Arc<dyn Log>,
    complaints: Complaints,
    /// For clients that are attached.
    client_log: Arc<dyn Log>,
}

impl NbdServer {
    /// Opens the configured listeners and serves them on the current tokio runtime, which needs
    /// its network and time drivers.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(
        config: &NbdConfig,
        volumes: Arc<dyn Volumes>,
        log: Arc<dyn Log>,
    ) -> Result<NbdServer, StartError> {
        NbdServer::start_with(config, volumes, log, Listeners::default())
    }

    /// As [`NbdServer::start`], on sockets that are open already; what is not among them is
    /// opened. The caller made sure that they are those of `config`.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start_with(
        config: &NbdConfig,
        volumes: Arc<dyn Volumes>,
        log: Arc<dyn Log>,
        open: Listeners,
    ) -> Result<NbdServer, StartError> {
        let shared = Arc::new(Shared {
            catalogue: RwLock::new(Arc::new(Catalogue::new(config, volumes.clone())?)),
            volumes,
            limits: config.limits,
            tls: RwLock::new(config.tls.clone()),
            complaints: Complaints::default(),
            client_log: Arc::new(Restrained {
                log: log.clone(),
                complaints: Complaints::default(),
            }),
            log,
        });
        let mut open = open.complete(config)?;
        let tcp = config.address.as_deref().zip(open.tcp.take());
        let tcp = tcp.map(|(address, listener)| bind::tcp_in_runtime(listener, address));
        let tcp = tcp.transpose()?;
        let unix = config.socket.as_deref().zip(open.unix.take());
        let unix = unix.map(|(path, listener)| bind::unix_in_runtime(listener, path));
        let unix = unix.transpose()?;
        open.file.take().into_iter().for_each(SocketFile::keep);
        let address = tcp.as_ref().and_then(|listener| listener.local_addr().ok());
        let (stopping, stop) = watch::channel(false);
        let mut loops = Vec::new();
        if let Some(listener) = tcp {
            let accept = Accept::new(&shared, stop.clone());
            loops.push(tokio::spawn(accept.run(Listener::Tcp(listener))));
        }
        if let Some((listener, file)) = unix {
            let accept = Accept::new(&shared, stop);
            loops.push(tokio::spawn(accept.run(Listener::Unix { listener, file })));
        }
        Ok(NbdServer {
            address,
            socket: config.socket.clone(),
            stopping,
            loops: loops.into(),
            shared,
        })
    }

    /// Address of the TCP listener, with its real port.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Path of the Unix socket.
    pub fn socket(&self) -> Option<&Path> {
        self.socket.as_deref()
    }

    /// The exports now, in the order LIST names them.
    pub fn exports(&self) -> Vec<NbdExport> {
        self.shared.catalogue().exports()
    }

    /// The export of this name, to tell its clients from others; `None` if there is none.
    pub fn label(&self, name: &str) -> Option<ExportLabel> {
        self.shared.catalogue().label(name)
    }

    /// Serves other exports from now on. Attached clients are not touched, whatever happens to
    /// their export; a client of `renamed` (old name, new name) still counts as one of it where
    /// only one may attach. Errors: the first export that is wrong; then nothing changes.
    pub fn set_exports(
        &self,
        exports: &[NbdExport],
        renamed: Option<(&str, &str)>,
    ) -> Result<(), StartError> {
        let mut catalogue = write(&self.shared.catalogue);
        *catalogue = Arc::new(catalogue.with(exports, renamed)?);
        Ok(())
    }

    /// The certificates now, and where TLS is asked for.
    pub fn tls(&self) -> Option<NbdTls> {
        self.shared.tls()
    }

    /// Uses other certificates from now on, for clients that begin TLS later.
    pub fn set_tls(&self, tls: Option<NbdTls>) {
        *write(&self.shared.tls) = tls;
    }

    /// Closes the listeners and waits until they are closed. Clients that are still negotiating
    /// are told that the server shuts down; attached ones belong to the engine.
    pub async fn stop(&self) {
        self.stopping.send_replace(true);
        for accepting in self.loops.lock().await.drain(..) {
            // A loop ends by itself; were it cancelled, its listener is closed as well.
            let _ = accepting.await;
        }
    }
}

impl fmt::Debug for NbdServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NbdServer")
            .field("address", &self.address)
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}

impl Drop for NbdServer {
    fn drop(&mut self) {
        self.stopping.send_replace(true);
    }
}

/// One listening socket.
enum Listener {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        /// Removed with the listener.
        file: SocketFile,
    },
}

impl Listener {
    async fn accept(&self) -> io::Result<(Stream, Origin)> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                Ok((Stream::Tcp(stream), Origin::tcp(address)))
            }
            Listener::Unix { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                let pid = stream
                    .peer_cred()
                    .ok()
                    .and_then(|credentials| credentials.pid());
                Ok((Stream::Unix(stream), Origin::unix(pid)))
            }
        }
    }
}

/// One accept loop.
struct Accept {
    shared: Arc<Shared>,
    admission: Admission,
    stopping: watch::Receiver<bool>,
}

impl Accept {
    fn new(shared: &Arc<Shared>, stopping: watch::Receiver<bool>) -> Accept {
        let admission = Admission::new(&shared.limits);
        Accept {
            shared: shared.clone(),
            admission,
            stopping,
        }
    }

    /// Gives the listener back once the server stops.
    async fn run(mut self, listener: Listener) -> Listener {
        let mut stopping = self.stopping.clone();
        tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => {}
            () = self.accept(&listener) => {}
        }
        listener
    }

    async fn accept(&mut self, listener: &Listener) {
        loop {
            self.admission.wait().await;
            match listener.accept().await {
                Ok((stream, origin)) => self.admit(stream, origin),
                Err(error) if is_of_the_client(&error) => {}
                Err(error) => {
                    self.shared
                        .complain(Level::Error, &format!("cannot accept: {error}"));
                    // Descriptors or memory are short: they come back only with time.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn admit(&mut self, stream: Stream, origin: Origin) {
        let Some(mut permit) = self.admission.enter(origin.ip) else {
            let text = format!(
                "client {} is turned away: too many negotiations from there",
                origin.address
            );
            return self.shared.complain(Level::Warn, &text);
        };
        let (shared, stopping) = (self.shared.clone(), self.stopping.clone());
        tokio::spawn(async move {
            let address = origin.address.clone();
            tokio::select! {
                () = handshake::run(stream, origin, &shared, stopping) => {}
                () = permit.taken() => {
                    let text = format!("client {address} is closed: others want to negotiate");
                    shared.complain(Level::Warn, &text);
                }
            }
        });
    }
}

/// The client went away between its request and our accept.
fn is_of_the_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}

fn read<T: Clone>(lock: &RwLock<T>) -> T {
    lock.read().unwrap_or_else(PoisonError::into_inner).clone()
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn catalogue(&self) -> Arc<Catalogue> {
        read(&self.catalogue)
    }

    fn tls(&self) -> Option<NbdTls> {
        read(&self.tls)
    }

    /// One line, unless there was one just now: strangers cannot fill the log.
    fn complain(&self, level: Level, text: &str) {
        self.complaints.line(&*self.log, level, text);
    }
}
