//! One connection between two processes of a node: packets, each with at most one descriptor.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    accept_with, bind, connect, listen, recvmsg, sendmsg, socket_with,
};

use super::message::{Message, PACKET_MAX};

/// Connections the kernel keeps between two accepts.
const BACKLOG: i32 = 8;

/// A connected socket.
#[derive(Debug)]
pub(super) struct Channel {
    socket: OwnedFd,
    /// Version of what is said; agreed by then, 1 before.
    pub(super) version: u16,
}

/// A message and the descriptor that came with it.
pub(super) type Received = (Message, Option<OwnedFd>);

fn socket() -> io::Result<OwnedFd> {
    let kind = SocketType::SEQPACKET;
    Ok(socket_with(
        AddressFamily::UNIX,
        kind,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// Listens at `path`, mode 0600; a socket that was left behind there is replaced. Errors: the
/// path is too long, or something else lies there.
pub(super) fn open(path: &Path) -> io::Result<OwnedFd> {
    let (listener, address) = (socket()?, SocketAddrUnix::new(path)?);
    match std::fs::symlink_metadata(path) {
        // The lock on `data_dir` is held: nobody listens there now.
        Ok(found) if std::os::unix::fs::FileTypeExt::is_socket(&found.file_type()) => {
            std::fs::remove_file(path)?;
        }
        Ok(_) => return Err(io::ErrorKind::AlreadyExists.into()),
        Err(_) => {}
    }
    bind(&listener, &address)?;
    // Until here the umask ruled; whoever slipped in is still asked for credentials.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    listen(&listener, BACKLOG)?;
    Ok(listener)
}

impl Channel {
    /// Connects to whoever listens at `path`; `None` if nobody does.
    pub(super) fn connect(path: &Path) -> io::Result<Option<Channel>> {
        use io::ErrorKind::{ConnectionRefused, NotFound};
        let socket = socket()?;
        match connect(&socket, &SocketAddrUnix::new(path)?).map_err(io::Error::from) {
            Ok(()) => Ok(Some(Channel { socket, version: 1 })),
            Err(error) if matches!(error.kind(), ConnectionRefused | NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Waits for a connection.
    pub(super) fn accept(listener: impl AsFd) -> io::Result<Channel> {
        let socket = accept_with(listener, SocketFlags::CLOEXEC)?;
        Ok(Channel { socket, version: 1 })
    }

    /// Uid and pid of the other side.
    pub(super) fn peer(&self) -> io::Result<(u32, u32)> {
        let found = socket_peercred(&self.socket)?;
        Ok((
            found.uid.as_raw(),
            found.pid.as_raw_nonzero().get().unsigned_abs(),
        ))
    }

    /// Longest a call may wait from now on.
    pub(super) fn set_timeout(&self, limit: Duration) -> io::Result<()> {
        for side in [Timeout::Recv, Timeout::Send] {
            set_socket_timeout(&self.socket, side, Some(limit))?;
        }
        Ok(())
    }

    /// Says something, and passes a copy of the descriptor that belongs to it.
    pub(super) fn say(&self, message: &Message, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        assert!(
            message.has_descriptor() == fd.is_some(),
            "a descriptor goes with {message:?} where one belongs to it"
        );
        let packet = message.encode(self.version);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut extra = SendAncillaryBuffer::new(&mut space);
        let fds: &[BorrowedFd<'_>] = fd.as_slice();
        if !fds.is_empty() {
            extra.push(SendAncillaryMessage::ScmRights(fds));
        }
        let parts = [IoSlice::new(&packet)];
        loop {
            match sendmsg(&self.socket, &parts, &mut extra, SendFlags::NOSIGNAL) {
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits for the next message; `None` if the other side is gone. Errors: it came too late, is
    /// none, or its descriptor is missing or one too many.
    pub(super) fn hear(&self) -> io::Result<Option<Received>> {
        let mut packet = vec![0; PACKET_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut extra = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut packet)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let got = loop {
            match recvmsg(&self.socket, &mut parts, &mut extra, flags) {
                Ok(got) => break got,
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return Err(io::ErrorKind::TimedOut.into()),
                Err(rustix::io::Errno::CONNRESET) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        };
        let mut fds: Vec<OwnedFd> = Vec::new();
        for message in extra.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        if got.bytes == 0 {
            return Ok(None);
        }
        if got.flags.contains(ReturnFlags::CTRUNC) {
            return Err(io::Error::other(
                "a descriptor could not be received: too many are open",
            ));
        }
        let is_whole = !got.flags.contains(ReturnFlags::TRUNC);
        let message = Message::parse(&packet[..got.bytes], self.version);
        let message = message.map_err(io::Error::other)?;
        if !is_whole || fds.len() != usize::from(message.has_descriptor()) {
            return Err(io::Error::other(
                "a message came without what belongs to it",
            ));
        }
        Ok(Some((message, fds.pop())))
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::Lock;
    use super::*;

    #[test]
    fn messages_and_descriptors_arrive_as_they_were_sent() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("handover.sock");
        assert!(Channel::connect(&path).unwrap().is_none());
        let listener = open(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let one = Channel::connect(&path).unwrap().unwrap();
        let other = Channel::accept(&listener).unwrap();
        assert_eq!(other.peer().unwrap().1, std::process::id());
        let file = std::fs::File::open("/dev/null").unwrap();
        one.say(&Message::Lock(Lock::Engine), Some(file.as_fd()))
            .unwrap();
        one.say(&Message::State(vec![7; 60_000]), None).unwrap();
        let (lock, fd) = other.hear().unwrap().unwrap();
        assert_eq!(lock, Message::Lock(Lock::Engine));
        assert!(fd.is_some());
        let (state, fd) = other.hear().unwrap().unwrap();
        assert!(state == Message::State(vec![7; 60_000]) && fd.is_none());
        other.set_timeout(Duration::from_millis(10)).unwrap();
        assert_eq!(other.hear().unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(one);
        assert!(other.hear().unwrap().is_none());
        drop(listener);
        assert!(Channel::connect(&path).unwrap().is_none());
        open(&path).unwrap();
    }

    #[test]
    fn a_packet_without_its_descriptor_or_with_one_too_many_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("handover.sock");
        let listener = open(&path).unwrap();
        let one = Channel::connect(&path).unwrap().unwrap();
        let other = Channel::accept(&listener).unwrap();
        let send = |message: &Message, fds: &[BorrowedFd<'_>]| {
            let packet = message.encode(1);
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
            let mut extra = SendAncillaryBuffer::new(&mut space);
            extra.push(SendAncillaryMessage::ScmRights(fds));
            let parts = [IoSlice::new(&packet)];
            sendmsg(&one.socket, &parts, &mut extra, SendFlags::NOSIGNAL).unwrap();
        };
        let file = std::fs::File::open("/dev/null").unwrap();
        send(&Message::Ready, &[file.as_fd()]);
        assert!(other.hear().is_err());
        send(&Message::Lock(Lock::Daemon), &[]);
        assert!(other.hear().is_err());
        send(&Message::Lock(Lock::Daemon), &[file.as_fd(), file.as_fd()]);
        assert!(other.hear().is_err());
        send(&Message::Go, &[]);
        assert!(other.hear().is_ok());
    }
}
