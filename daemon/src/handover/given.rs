//! What one process leaves to the other.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use engine::front_end::{ClientInfo, ExportLabel};
use engine::handover::{HandedClient, HandedVolume};

use super::message::{Client, Lock, Message, PART_MAX, Role};

/// Longest state of one client, and of all, bytes. A state is what was agreed and what the client
/// had sent: some KiB, at most what one connection may hold.
const STATE_MAX: u64 = 192 << 20;
const STATES_MAX: u64 = 2 << 30;
/// Most clients, volumes and listeners.
const CLIENTS_MAX: usize = 1 << 18;
const VOLUMES_MAX: usize = 1 << 16;
const LISTENERS_MAX: usize = 16;

/// A listening socket.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) role: Role,
    /// As configured.
    pub(crate) address: String,
    pub(crate) socket: OwnedFd,
}

/// Everything a stopped node leaves behind; nothing, for one that starts anew.
#[derive(Debug, Default)]
pub(crate) struct Given {
    /// The daemon's lock on `data_dir`.
    pub(crate) daemon_lock: Option<File>,
    /// The engine's.
    pub(crate) engine_lock: Option<File>,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) volumes: Vec<HandedVolume>,
    pub(crate) clients: Vec<HandedClient>,
    /// Bytes of the state of the last client that are still to come, and of all so far.
    pub(crate) receiving: Receiving,
}

/// How far it has come.
#[derive(Debug, Default)]
pub(crate) struct Receiving {
    to_come: u64,
    states: u64,
}

impl Given {
    /// The socket for this purpose, if it listens where it is wanted.
    pub(crate) fn take(&mut self, role: Role, address: &str) -> Option<OwnedFd> {
        let is_it = |listener: &Listener| listener.role == role && listener.address == address;
        let index = self.listeners.iter().position(is_it)?;
        Some(self.listeners.swap_remove(index).socket)
    }

    /// Every message it takes, in order, with its descriptor.
    pub(super) fn each(
        &self,
        mut say: impl FnMut(Message, Option<&dyn AsFd>) -> io::Result<()>,
    ) -> io::Result<()> {
        let locks = [
            (Lock::Daemon, &self.daemon_lock),
            (Lock::Engine, &self.engine_lock),
        ];
        let mut descriptors = 0;
        for (which, lock) in locks {
            if let Some(lock) = lock {
                say(Message::Lock(which), Some(lock))?;
                descriptors += 1;
            }
        }
        for listener in &self.listeners {
            let (role, address) = (listener.role, listener.address.clone());
            say(Message::Listener { role, address }, Some(&listener.socket))?;
            descriptors += 1;
        }
        // A client of which too much would have to be said is closed.
        let mut states = 0;
        let mut fits = |client: &&HandedClient| {
            let length = client.state.len() as u64;
            let fits = length <= STATE_MAX && states + length <= STATES_MAX;
            states += if fits { length } else { 0 };
            fits
        };
        for client in self.clients.iter().filter(|client| fits(client)) {
            say(announced(client), Some(&client.socket))?;
            descriptors += 1;
            for part in client.state.chunks(PART_MAX) {
                say(Message::State(part.to_vec()), None)?;
            }
        }
        for HandedVolume { name, was_primary } in &self.volumes {
            let (name, was_primary) = (name.clone(), *was_primary);
            say(Message::Volume { name, was_primary }, None)?;
        }
        let volumes = self.volumes.len() as u32;
        say(
            Message::End {
                descriptors,
                volumes,
            },
            None,
        )
    }

    /// Adds what a message brings; true after the last. Errors: it does not belong here, or
    /// something is missing at the end.
    pub(super) fn add(&mut self, message: Message, fd: Option<OwnedFd>) -> io::Result<bool> {
        let wrong = |text: &str| Err(io::Error::other(text.to_owned()));
        if self.receiving.to_come > 0 && !matches!(message, Message::State(_)) {
            return wrong("a client's state is cut short");
        }
        match (message, fd) {
            (Message::Lock(Lock::Daemon), Some(fd)) => self.daemon_lock = Some(fd.into()),
            (Message::Lock(Lock::Engine), Some(fd)) => self.engine_lock = Some(fd.into()),
            (Message::Listener { role, address }, Some(socket))
                if self.listeners.len() < LISTENERS_MAX =>
            {
                self.listeners.push(Listener {
                    role,
                    address,
                    socket,
                });
            }
            (Message::Volume { name, was_primary }, None) if self.volumes.len() < VOLUMES_MAX => {
                self.volumes.push(HandedVolume { name, was_primary });
            }
            (Message::Client(client), Some(socket)) if self.clients.len() < CLIENTS_MAX => {
                let length = client.state_length;
                self.receiving.states = self.receiving.states.saturating_add(length);
                if length > STATE_MAX || self.receiving.states > STATES_MAX {
                    return wrong("a client's state is too long");
                }
                self.receiving.to_come = length;
                self.clients.push(handed(client, socket));
            }
            (Message::State(part), None) if part.len() as u64 <= self.receiving.to_come => {
                let Some(client) = self.clients.last_mut().filter(|_| !part.is_empty()) else {
                    return wrong("a state belongs to no client");
                };
                self.receiving.to_come -= part.len() as u64;
                client.state.extend(part);
            }
            (
                Message::End {
                    descriptors,
                    volumes,
                },
                None,
            ) => {
                let locks = [&self.daemon_lock, &self.engine_lock];
                let locks = locks.into_iter().flatten().count();
                let found = locks + self.listeners.len() + self.clients.len();
                let is_whole = descriptors as usize == found;
                return match is_whole && volumes as usize == self.volumes.len() {
                    true => Ok(true),
                    false => wrong("not everything that was sent has come"),
                };
            }
            _ => return wrong("a message came out of turn"),
        }
        Ok(false)
    }
}

fn announced(client: &HandedClient) -> Message {
    Message::Client(Client {
        volume: client.volume.clone(),
        export: client.client.export.name(),
        address: client.client.address.clone(),
        age_ms: client.age.as_millis() as u64,
        state_length: client.state.len() as u64,
    })
}

fn handed(client: Client, socket: OwnedFd) -> HandedClient {
    HandedClient {
        volume: client.volume,
        client: ClientInfo {
            export: ExportLabel::new(&client.export),
            address: client.address,
            // A session under TLS is not given.
            tls: None,
        },
        age: Duration::from_millis(client.age_ms),
        socket,
        state: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> File {
        File::open("/dev/null").unwrap()
    }

    fn sample() -> Given {
        Given {
            daemon_lock: Some(file()),
            engine_lock: Some(file()),
            listeners: vec![Listener {
                role: Role::Nbd,
                address: "127.0.0.1:10809".into(),
                socket: file().into(),
            }],
            volumes: vec![HandedVolume {
                name: "vm".into(),
                was_primary: true,
            }],
            clients: vec![HandedClient {
                volume: "vm".into(),
                client: ClientInfo {
                    export: ExportLabel::new("disk"),
                    address: "unix:7".into(),
                    tls: None,
                },
                age: Duration::from_secs(3),
                socket: file().into(),
                state: (0..200_000).map(|n| n as u8).collect(),
            }],
            ..Given::default()
        }
    }

    fn messages() -> Vec<Message> {
        let mut all = Vec::new();
        let sent = sample().each(|message, _| {
            all.push(message);
            Ok(())
        });
        sent.unwrap();
        all
    }

    /// All messages but some, with descriptors where they belong.
    fn receive(messages: &[Message]) -> io::Result<(Given, bool)> {
        let mut given = Given::default();
        let mut is_over = false;
        for message in messages {
            let fd = message.has_descriptor().then(|| file().into());
            is_over = given.add(message.clone(), fd)?;
        }
        Ok((given, is_over))
    }

    #[test]
    fn what_is_given_arrives() {
        let (mut given, is_over) = receive(&messages()).unwrap();
        assert!(is_over);
        let (sent, client) = (sample(), given.clients.pop().unwrap());
        assert_eq!(given.volumes, sent.volumes);
        assert!(client.state == sent.clients[0].state);
        let who =
            |client: &HandedClient| (client.client.export.name(), client.client.address.clone());
        assert_eq!(who(&client), who(&sent.clients[0]));
        assert_eq!(client.age, sent.clients[0].age);
        assert!(given.daemon_lock.is_some() && given.engine_lock.is_some());
        assert!(given.take(Role::Nbd, "127.0.0.1:1").is_none());
        assert!(given.take(Role::NbdSocket, "127.0.0.1:10809").is_none());
        assert!(given.take(Role::Nbd, "127.0.0.1:10809").is_some());
        assert!(given.take(Role::Nbd, "127.0.0.1:10809").is_none());
    }

    #[test]
    fn whatever_is_left_out_or_comes_twice_is_noticed() {
        let all = messages();
        for index in 0..all.len() {
            let mut fewer = all.clone();
            fewer.remove(index);
            let is_whole = receive(&fewer).is_ok_and(|(_, is_over)| is_over);
            assert!(!is_whole, "without {:?}", all[index]);
        }
        for index in 0..all.len() - 1 {
            let mut more = all.clone();
            more.insert(index, all[index].clone());
            let is_lock = matches!(all[index], Message::Lock(_));
            assert!(is_lock || receive(&more).is_err(), "twice {:?}", all[index]);
        }
    }

    #[test]
    fn states_beyond_the_bound_are_refused_before_they_come() {
        let Message::Client(client) = announced(&sample().clients[0]) else {
            panic!("it is a client")
        };
        let huge = Client {
            state_length: u64::MAX,
            ..client
        };
        assert!(receive(&[Message::Client(huge)]).is_err());
        assert!(receive(&[Message::State(vec![1])]).is_err());
        assert!(receive(&[Message::Go]).is_err());
    }
}
