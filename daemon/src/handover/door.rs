//! The old process's side: where a successor knocks, and what is said to it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use tokio::sync::mpsc;

use super::channel::{self, Channel};
use super::given::Given;
use super::message::{Message, Refused, VERSIONS};
use super::{READY_MAX, SOCKET};
use crate::api::listen::may_administer;
use crate::explain::{self, Failure};

/// Longest time for a question, from connecting to the last byte.
const QUESTION_MAX: Duration = Duration::from_secs(5);
/// Pause after a failed accept: no descriptors left, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where successors knock. Its file goes when this is dropped, unless it was handed over.
pub(crate) struct Door {
    path: PathBuf,
    listener: Arc<OwnedFd>,
    offers: mpsc::Receiver<Offer>,
    is_kept: bool,
}

/// A successor that may have everything, if nothing speaks against it here.
pub(crate) struct Offer {
    channel: Channel,
    pub(crate) terms: Terms,
}

/// Who asks, and for what.
pub(crate) struct Terms {
    /// Its process number.
    pub(crate) pid: u32,
    /// Its release.
    pub(crate) release: String,
    /// What lives in memory may be lost.
    pub(crate) force: bool,
    version: u16,
    /// Nobody else may ask meanwhile.
    _busy: Busy,
}

/// There is one takeover at a time.
struct Busy(Arc<AtomicBool>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Door {
    /// Opens the door of `data_dir`, whose lock is held, for `cluster` and `node`; or goes on with
    /// one that another process opened. Errors: there can be none here.
    pub(crate) fn open(
        data_dir: &Path,
        open: Option<OwnedFd>,
        cluster: &str,
        node: &str,
    ) -> io::Result<Door> {
        let path = data_dir.join(SOCKET);
        let listener = match open {
            Some(listener) => listener,
            None => channel::open(&path)?,
        };
        let listener = Arc::new(listener);
        let (sender, offers) = mpsc::channel(1);
        let porter = Porter {
            listener: listener.clone(),
            cluster: cluster.to_owned(),
            node: node.to_owned(),
            offers: sender,
            is_busy: Arc::default(),
        };
        // It lives as long as the process.
        thread::Builder::new()
            .name("handover".into())
            .spawn(move || porter.run())?;
        Ok(Door {
            path,
            listener,
            offers,
            is_kept: false,
        })
    }

    /// The next successor.
    pub(crate) async fn knock(&mut self) -> Option<Offer> {
        self.offers.recv().await
    }

    /// A copy of the listening socket, and its path. Errors: no descriptor is left.
    pub(crate) fn socket(&self) -> io::Result<(OwnedFd, String)> {
        let copy = self.listener.as_fd().try_clone_to_owned()?;
        Ok((copy, self.path.display().to_string()))
    }

    /// The socket is another process's now.
    pub(crate) fn keep(&mut self) {
        self.is_kept = true;
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if !self.is_kept {
            // Already gone is as good.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Who listens to questions.
struct Porter {
    listener: Arc<OwnedFd>,
    cluster: String,
    node: String,
    offers: mpsc::Sender<Offer>,
    is_busy: Arc<AtomicBool>,
}

impl Porter {
    fn run(self) {
        loop {
            match Channel::accept(&*self.listener) {
                Ok(channel) => self.greet(channel),
                Err(error) => {
                    tracing::warn!(code = "W153", "takeovers cannot be accepted: {error}");
                    thread::sleep(ACCEPT_PAUSE);
                }
            }
            if self.offers.is_closed() {
                return;
            }
        }
    }

    fn greet(&self, channel: Channel) {
        match self.judge(&channel) {
            Ok(Some(terms)) => {
                // Without a door the process ends; whoever knocks sees that.
                let _ = self.offers.blocking_send(Offer { channel, terms });
            }
            Ok(None) => {}
            Err(failure) => refuse(&channel, &failure),
        }
    }

    /// `None`: it left, or asked nothing that can be answered.
    fn judge(&self, channel: &Channel) -> Result<Option<Terms>, Failure> {
        let own_uid = rustix::process::geteuid().as_raw();
        let Ok((uid, pid)) = channel.peer() else {
            return Ok(None);
        };
        if !may_administer(uid, own_uid) {
            return Err(explain::not_permitted(None));
        }
        let heard = channel
            .set_timeout(QUESTION_MAX)
            .and_then(|()| channel.hear());
        let Ok(Some((Message::Ask(ask), _))) = heard else {
            return Ok(None);
        };
        let version = ask.to.min(VERSIONS.1);
        if version < ask.from.max(VERSIONS.0) {
            return Err(explain::takeover_version((ask.from, ask.to), VERSIONS));
        }
        if (&ask.cluster, &ask.node) != (&self.cluster, &self.node) {
            return Err(explain::takeover_of_another(&self.cluster, &self.node));
        }
        if self.is_busy.swap(true, Ordering::AcqRel) {
            return Err(explain::takeover_under_way());
        }
        Ok(Some(Terms {
            pid,
            version,
            release: ask.release,
            force: ask.force,
            _busy: Busy(self.is_busy.clone()),
        }))
    }
}

fn refuse(channel: &Channel, failure: &Failure) {
    let refused = Refused {
        code: failure.code.clone().into_owned(),
        text: failure.text.clone(),
        hint: failure.hint.clone().unwrap_or_default(),
    };
    // Who does not listen needs no answer.
    let _ = channel.say(&Message::Refused(refused), None);
}

impl Offer {
    /// Nothing has changed here; the successor ends.
    pub(crate) fn refuse(self, failure: &Failure) {
        refuse(&self.channel, failure);
    }

    /// It shall have everything. Errors: it is gone already.
    pub(crate) fn accept(&mut self) -> io::Result<()> {
        let version = self.terms.version;
        let pid = std::process::id();
        self.channel
            .say(&Message::Accepted { version, pid }, None)?;
        self.channel.version = version;
        Ok(())
    }

    /// Gives everything away, and waits until the successor can go on. `Ok`: it does, and nothing
    /// may be touched here any more. Blocks. Errors: why everything stays here.
    pub(crate) fn give(&self, given: &Given) -> Result<(), String> {
        let channel = &self.channel;
        let given = channel
            .set_timeout(READY_MAX)
            .and_then(|()| given.send(channel))
            .and_then(|()| channel.hear());
        let why = match given {
            Ok(Some((Message::Ready, _))) => match channel.say(&Message::Go, None) {
                Ok(()) => return Ok(()),
                Err(error) => error.to_string(),
            },
            Ok(Some((Message::Abort(why), _))) => why,
            Ok(Some(_)) => "it said something out of turn".to_owned(),
            Ok(None) => "it ended".to_owned(),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                format!("it was not ready within {} s", READY_MAX.as_secs())
            }
            Err(error) => error.to_string(),
        };
        // Before anything is touched here: whoever hears nothing but the end takes over.
        let _ = channel.say(&Message::Abort(why.clone()), None);
        Err(why)
    }
}
