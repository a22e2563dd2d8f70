//! The sockets of a node that its control plane listens on: opened, or taken from another process.

use std::net::{TcpListener, ToSocketAddrs};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use nbd_server::{Listeners, NbdConfig};

use crate::api::listen::ApiSocket;
use crate::config::Node as NodeConfig;
use crate::explain::{self, Failure};
use crate::handover::{Given, Listener, Role};

/// All of them; nobody accepts yet.
pub(super) struct Sockets {
    pub(super) api_socket: ApiSocket,
    pub(super) api: Option<TcpListener>,
    pub(super) nbd: Listeners,
}

impl Sockets {
    /// Those of `node`, from `given` where they listen at the same places, so that a port in use
    /// is found before any volume is touched. Errors: the first that cannot be had.
    pub(super) fn open(
        node: &NodeConfig,
        nbd: &NbdConfig,
        given: &mut Given,
    ) -> Result<Sockets, Failure> {
        let path = node.api_socket();
        let api_socket = match given.take(Role::ApiSocket, &path.display().to_string()) {
            Some(socket) => ApiSocket::adopt(socket, &path)?,
            None => ApiSocket::bind(&path)?,
        };
        let api = node.api.as_ref().map(|address| {
            let address = address.to_string();
            match given.take(Role::Api, &address) {
                Some(socket) => Ok(TcpListener::from(socket)),
                None => bind_tcp(&address),
            }
        });
        let api = api.transpose()?;
        let mut open = Listeners::default();
        let path = nbd.socket.as_ref().map(|path| path.display().to_string());
        let at = |address: &Option<String>, role, given: &mut Given| {
            address.as_ref().and_then(|at| given.take(role, at))
        };
        open.tcp = at(&nbd.address, Role::Nbd, given).map(TcpListener::from);
        open.unix = at(&path, Role::NbdSocket, given).map(Into::into);
        let nbd = open.complete(nbd);
        let nbd = nbd.map_err(|why| explain::nbd_did_not_start(&why))?;
        Ok(Sockets {
            api_socket,
            api,
            nbd,
        })
    }
}

/// Closes the NBD sockets that were given and that the configuration does not name any more, and
/// removes their files: nobody would answer there.
pub(super) fn remove_unused(given: &mut Given) {
    let is_one = |listener: &mut Listener| listener.role == Role::NbdSocket;
    for listener in given.listeners.extract_if(.., is_one) {
        let path = Path::new(&listener.address);
        let found = std::fs::symlink_metadata(path);
        if found.is_ok_and(|found| found.file_type().is_socket())
            && let Err(why) = std::fs::remove_file(path)
        {
            tracing::warn!(code = "W156", "{} is not removed: {why}", path.display());
        }
    }
}

/// Puts the NBD server's sockets with those that are given away.
pub(super) fn give_nbd(config: &NbdConfig, open: Listeners, to: &mut Vec<Listener>) {
    let mut tcp = open.tcp;
    if let (Some(address), Some(socket)) = (&config.address, tcp.take()) {
        to.push(Listener {
            role: Role::Nbd,
            address: address.clone(),
            socket: socket.into(),
        });
    }
    let mut unix = open.unix;
    if let (Some(path), Some(socket)) = (&config.socket, unix.take()) {
        to.push(Listener {
            role: Role::NbdSocket,
            address: path.display().to_string(),
            socket: socket.into(),
        });
    }
}

/// Copies of the API's sockets, to be given away. Errors: no descriptor is left.
pub(super) fn copies(
    api_socket: &ApiSocket,
    path: &Path,
    api: Option<(&TcpListener, String)>,
) -> std::io::Result<(Vec<Listener>, crate::api::listen::ApiSocketCopy)> {
    let copy = api_socket.copy()?;
    let mut listeners = vec![Listener {
        role: Role::ApiSocket,
        address: path.display().to_string(),
        socket: copy.socket.try_clone()?,
    }];
    if let Some((listener, address)) = api {
        listeners.push(Listener {
            role: Role::Api,
            address,
            socket: listener.as_fd().try_clone_to_owned()?,
        });
    }
    Ok((listeners, copy))
}

fn bind_tcp(address: &str) -> Result<TcpListener, Failure> {
    let refused = |source: std::io::Error| explain::cannot_listen("the API", address, &source);
    let addresses: Vec<_> = address.to_socket_addrs().map_err(refused)?.collect();
    TcpListener::bind(&addresses[..]).map_err(refused)
}
