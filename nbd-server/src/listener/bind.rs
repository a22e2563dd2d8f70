//! Making the listening sockets.

use std::fs;
use std::io;
use std::net::ToSocketAddrs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use super::StartError;

/// Connections the kernel keeps for us between two accepts.
const BACKLOG: i32 = 1024;

/// Listens on the first address that `host:port` means and that can be had.
pub(super) fn tcp(address: &str) -> Result<std::net::TcpListener, StartError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => StartError::AddressInUse {
            address: address.to_owned(),
        },
        _ => StartError::Address {
            address: address.to_owned(),
            source,
        },
    };
    let mut error = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for socket in address.to_socket_addrs().map_err(failed)? {
        match std::net::TcpListener::bind(socket) {
            Ok(listener) => return Ok(listener),
            Err(found) => error = found,
        }
    }
    Err(failed(error))
}

/// Listens on a Unix socket. One that was left behind, on which nobody answers, is replaced.
pub(super) fn unix(
    path: &Path,
    mode: u32,
) -> Result<(std::os::unix::net::UnixListener, SocketFile), StartError> {
    let failed = |source: io::Error| StartError::Socket {
        path: path.to_owned(),
        source,
    };
    let socket = match open(path, mode) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if is_answered(path).map_err(failed)? {
                return Err(StartError::SocketInUse {
                    path: path.to_owned(),
                });
            }
            fs::remove_file(path).map_err(failed)?;
            open(path, mode).map_err(failed)?
        }
        opened => opened.map_err(failed)?,
    };
    let file = SocketFile::new(path).map_err(failed)?;
    Ok((socket.into(), file))
}

/// Gives the TCP listener at `address` to the runtime.
pub(super) fn tcp_in_runtime(
    listener: std::net::TcpListener,
    address: &str,
) -> Result<TcpListener, StartError> {
    let adopted = listener
        .set_nonblocking(true)
        .and_then(|()| TcpListener::from_std(listener));
    adopted.map_err(|source| StartError::Address {
        address: address.to_owned(),
        source,
    })
}

/// Gives the Unix socket at `path`, whoever opened it, to the runtime.
pub(super) fn unix_in_runtime(
    listener: std::os::unix::net::UnixListener,
    path: &Path,
) -> Result<(UnixListener, SocketFile), StartError> {
    let adopted = listener.set_nonblocking(true).and_then(|()| {
        let file = SocketFile::new(path)?;
        Ok((UnixListener::from_std(listener)?, file))
    });
    adopted.map_err(|source| StartError::Socket {
        path: path.to_owned(),
        source,
    })
}

fn open(path: &Path, mode: u32) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    // The file is made with the permissions of the socket, less the umask: never wider than asked
    // for, not even for a moment.
    rustix::fs::fchmod(&socket, Mode::from_raw_mode(mode))?;
    socket.bind(&SockAddr::unix(path)?)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Somebody answers there. Errors: it is not a socket, or it cannot be told.
fn is_answered(path: &Path) -> io::Result<bool> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "there is a file that is no socket",
        ));
    }
    match UnixStream::connect(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(false),
        Err(error) => Err(error),
    }
}

/// The file of a Unix socket; removed when dropped, if it is still the one we made.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<SocketFile> {
        Ok(SocketFile {
            path: path.to_owned(),
            identity: identity(path)?,
        })
    }

    /// The file stays.
    pub(super) fn keep(mut self) {
        self.path.clear();
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            // It may be gone by now; nothing depends on it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}
