//! One process of a node takes over from another, and no client notices.
//!
//! ```text
//!   old                                             new (`serve --takeover`)
//!    │ ◄──────────────── Ask ──────────────────────── │ configuration is valid
//!    │ ───────────── Accepted | Refused ────────────► │
//!    │ stops accepting, quiesces, stops volumes       │
//!    │ ── locks, listeners, volumes, clients, End ──► │ starts its engine, attaches, promotes
//!    │ ◄──────────────── Ready ─────────────────────── │
//!    │ ───────────────── Go ────────────────────────► │ reads from clients, accepts
//!    exit 0
//! ```
//! Until `Go` the old process can have everything back: descriptors are copies, and nobody has
//! touched a client's stream since it was quiesced. See `docs/design/0002-handover.md`.
//!
//! Not here: what is done to the engine and the servers on both sides; that is `serve`'s.

mod channel;
mod door;
mod given;
mod message;

pub(crate) use door::{Door, Offer};
pub(crate) use given::{Given, Listener};
pub(crate) use message::Role;

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::explain::{self, Failure};
use channel::Channel;
use message::{Ask, Message, Refused, VERSIONS};

/// Name of the socket in `data_dir`.
pub(crate) const SOCKET: &str = "handover.sock";
/// Longest time for an answer that needs no work.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Longest time from `Accepted` to the first thing given: the old process quiesces and stops its
/// volumes within 10 s, or ends.
const GIVE_MAX: Duration = Duration::from_secs(20);
/// Longest time from the last thing given to `Ready`.
pub(crate) const READY_MAX: Duration = Duration::from_secs(30);

/// How the question was answered.
pub(crate) enum Answer {
    /// No process runs there, or it ended while it was asked.
    Nobody,
    /// Everything it had.
    Given(Box<Given>, Predecessor),
}

/// The process this one takes over from.
#[derive(Debug)]
pub(crate) struct Predecessor {
    channel: Channel,
    /// Its process number.
    pub(crate) pid: u32,
}

/// Asks the process that runs on `data_dir` for everything it has. Blocks. Errors: it refuses, or
/// what it says cannot be understood; it goes on serving.
pub(crate) fn ask(
    data_dir: &Path,
    cluster: &str,
    node: &str,
    force: bool,
) -> Result<Answer, Failure> {
    let path = data_dir.join(SOCKET);
    let broken = |source: io::Error| explain::takeover_failed(&source.to_string());
    let Some(mut channel) = Channel::connect(&path).map_err(broken)? else {
        return Ok(Answer::Nobody);
    };
    channel.set_timeout(ANSWER_MAX).map_err(broken)?;
    let ask = Ask {
        from: VERSIONS.0,
        to: VERSIONS.1,
        force,
        cluster: cluster.to_owned(),
        node: node.to_owned(),
        release: env!("CARGO_PKG_VERSION").to_owned(),
    };
    match channel.say(&Message::Ask(ask), None) {
        // It ended between two of our calls.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Answer::Nobody),
        said => said.map_err(broken)?,
    }
    let pid = match channel.hear().map_err(broken)? {
        None => return Ok(Answer::Nobody),
        Some((Message::Refused(Refused { code, text, hint }), _)) => {
            return Err(explain::takeover_refused(code, &text, hint));
        }
        Some((Message::Accepted { version, pid }, _))
            if (VERSIONS.0..=VERSIONS.1).contains(&version) =>
        {
            channel.version = version;
            pid
        }
        Some(_) => return Err(explain::takeover_failed("it answers something else")),
    };
    channel.set_timeout(GIVE_MAX).map_err(broken)?;
    match Given::receive(&channel).map_err(broken)? {
        Some(given) => Ok(Answer::Given(Box::new(given), Predecessor { channel, pid })),
        None => Ok(Answer::Nobody),
    }
}

impl Predecessor {
    /// Says that everything is ready here; true once the other process is out, or has ended by
    /// itself. Blocks. Errors: it went on, and why.
    pub(crate) fn commit(&self) -> Result<(), String> {
        self.channel
            .set_timeout(ANSWER_MAX)
            .and_then(|()| self.channel.say(&Message::Ready, None))
            .or_else(|error| match error.kind() {
                // Whether it gave up or ended shows in what it said last.
                io::ErrorKind::BrokenPipe => Ok(()),
                _ => Err(error.to_string()),
            })?;
        match self.channel.hear() {
            // Whoever gives up says so first: it has died, and so nobody else holds the clients.
            Ok(None | Some((Message::Go, _))) => Ok(()),
            Ok(Some((Message::Abort(why), _))) => Err(why),
            Ok(Some(_)) => Err("it answers something else".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Gives everything back. Nothing may be held here any more.
    pub(crate) fn abort(&self, why: &str) {
        // Were it gone, nobody would need it.
        let _ = self.channel.say(&Message::Abort(why.to_owned()), None);
    }
}

impl Given {
    fn receive(channel: &Channel) -> io::Result<Option<Given>> {
        let mut given = Given::default();
        loop {
            match channel.hear()? {
                None => return Ok(None),
                Some((Message::Abort(why), _)) => return Err(io::Error::other(why)),
                Some((message, fd)) => {
                    if given.add(message, fd)? {
                        return Ok(Some(given));
                    }
                }
            }
        }
    }

    /// Sends all of it; the descriptors here stay open. Blocks.
    fn send(&self, channel: &Channel) -> io::Result<()> {
        self.each(|message, fd| channel.say(&message, fd.map(|fd| fd.as_fd())))
    }
}
