//! Sockets of the API: who may come in, how many at once, how long they may take.
//!
//! One request per connection: the command line asks once, scrapers come every few seconds.

use std::convert::Infallible;
use std::fs::{self, Permissions};
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::explain::{self, Failure};

/// Connections of one listener served at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;
/// Time for a client to send its request line and headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a whole exchange over TCP, where nothing waits for volumes.
const TCP_EXCHANGE_MAX: Duration = Duration::from_secs(30);
/// Pause after the kernel refused a connection, as when file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The API socket of one `data_dir`; its file goes when this is dropped, unless it is kept.
pub struct ApiSocket {
    listener: UnixListener,
    path: PathBuf,
    is_kept: Arc<AtomicBool>,
}

/// The socket for another process to go on with.
#[derive(Debug)]
pub struct ApiSocketCopy {
    /// The listening socket.
    pub socket: OwnedFd,
    is_kept: Arc<AtomicBool>,
}

impl ApiSocketCopy {
    /// The file stays, whoever it belongs to.
    pub fn keep_file(&self) {
        self.is_kept.store(true, Ordering::Release);
    }
}

impl ApiSocket {
    /// Opens the socket at `path`, mode 0600. A socket that nobody answers on is replaced.
    /// Errors: a daemon answers there, something else lies there, the kernel refuses.
    pub fn bind(path: &Path) -> Result<ApiSocket, Failure> {
        let shown = path.display().to_string();
        let refused = |source: io::Error| explain::cannot_listen("the API", &shown, &source);
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(explain::not_a_socket(path));
            }
            Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
                let in_use = io::Error::from(io::ErrorKind::AddrInUse);
                return Err(refused(in_use));
            }
            Ok(_) => fs::remove_file(path).map_err(refused)?,
            Err(source) if source.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(refused(source)),
        }
        let listener = UnixListener::bind(path).map_err(refused)?;
        // Until here the umask ruled; whoever slipped in is still asked for credentials.
        fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(refused)?;
        Ok(ApiSocket {
            listener,
            path: path.to_owned(),
            is_kept: Arc::default(),
        })
    }

    /// Goes on with a socket that another process opened at `path`, whose file is its until
    /// [`ApiSocket::own_file`]. Errors: it is none.
    pub fn adopt(socket: OwnedFd, path: &Path) -> Result<ApiSocket, Failure> {
        let shown = path.display().to_string();
        let refused = |source: io::Error| explain::cannot_listen("the API", &shown, &source);
        let listener = std::os::unix::net::UnixListener::from(socket);
        listener.set_nonblocking(true).map_err(refused)?;
        Ok(ApiSocket {
            listener: UnixListener::from_std(listener).map_err(refused)?,
            path: path.to_owned(),
            is_kept: Arc::new(AtomicBool::new(true)),
        })
    }

    /// From now on the file goes with this socket.
    pub fn own_file(&self) {
        self.is_kept.store(false, Ordering::Release);
    }

    /// The same socket, to be passed on. Errors: no descriptor is left.
    pub fn copy(&self) -> io::Result<ApiSocketCopy> {
        Ok(ApiSocketCopy {
            socket: self.listener.as_fd().try_clone_to_owned()?,
            is_kept: self.is_kept.clone(),
        })
    }

    /// Serves `router` to root and to `own_uid`, and a refusal to everyone else; never returns.
    pub async fn serve(self, router: Router, own_uid: u32) -> Infallible {
        let refusing = Router::new().fallback(|| async { explain::not_permitted(None) });
        let slots = Slots::new();
        loop {
            let slot = slots.wait().await;
            let Some((stream, _)) = accepted(self.listener.accept().await).await else {
                continue;
            };
            let may = stream
                .peer_cred()
                .is_ok_and(|peer| may_administer(peer.uid(), own_uid));
            let router = if may {
                router.clone()
            } else {
                refusing.clone()
            };
            tokio::spawn(async move {
                exchange(stream, router).await;
                drop(slot);
            });
        }
    }
}

impl Drop for ApiSocket {
    fn drop(&mut self) {
        if !self.is_kept.load(Ordering::Acquire) {
            // Already gone is as good.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Root and the daemon's own user administer it; nobody else.
pub(crate) fn may_administer(uid: u32, own_uid: u32) -> bool {
    uid == 0 || uid == own_uid
}

/// Serves `router` to everyone who reaches `listener`; never returns.
pub async fn serve_tcp(listener: TcpListener, router: Router) -> Infallible {
    let slots = Slots::new();
    loop {
        let slot = slots.wait().await;
        let Some((stream, _)) = accepted(listener.accept().await).await else {
            continue;
        };
        let router = router.clone();
        tokio::spawn(async move {
            // Cut off without a word: nobody waits for a stalled exchange.
            let _ = tokio::time::timeout(TCP_EXCHANGE_MAX, exchange(stream, router)).await;
            drop(slot);
        });
    }
}

struct Slots(Arc<Semaphore>);

impl Slots {
    fn new() -> Slots {
        Slots(Arc::new(Semaphore::new(CONNECTIONS_MAX)))
    }

    fn wait(&self) -> impl Future<Output = OwnedSemaphorePermit> + use<> {
        let slots = self.0.clone();
        async {
            slots
                .acquire_owned()
                .await
                .expect("the semaphore is never closed")
        }
    }
}

async fn accepted<T>(accepted: io::Result<T>) -> Option<T> {
    if let Err(source) = &accepted {
        tracing::warn!(
            code = "W151",
            "the API cannot accept a connection: {source}"
        );
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
    accepted.ok()
}

async fn exchange(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router) {
    let service = TowerToHyperService::new(router);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .keep_alive(false)
        .max_buf_size(64 << 10)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(broken) = connection.await {
        tracing::debug!("an API connection broke off: {broken}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_and_the_own_user_administer() {
        assert!(may_administer(0, 1000));
        assert!(may_administer(1000, 1000));
        assert!(!may_administer(1001, 1000));
        assert!(!may_administer(1000, 0));
    }
}
