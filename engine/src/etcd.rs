//! The register in etcd (DESIGN D4, D8): questions of all volumes, asked by one thread.
//!
//! ```text
//!  reactor ─► Question (bounded) ─► thread `etcd`: Get | Txn{mod_revision == expected: Put, else Get}
//!  reactor ◄─ mailbox ◄──────────── Found
//! ```
//!
//! One key holds one volume's [`Holding`]; its `mod_revision` is the revision. A question goes to
//! one member after the other until one answers: a swap that a silent member did after all meets
//! the same swap again at another revision, and the volume sees what stands. What this does not
//! do: judge what stands there, or know what time it is.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use engine_core::register::{Access, Found, Holding};
use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, Identity, KeyValue, TlsOptions, Txn,
    TxnOp, TxnOpResponse,
};
use tokio::runtime::Builder;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::task::LocalSet;
use tokio::time::{timeout, timeout_at};

use crate::control::EtcdSpec;
use crate::control_store::{Ask, Question};
use crate::log::{Level, Line, Log};
use crate::mailbox::{Mailbox, Message};

/// Questions that wait at most; a volume asks one at a time, and gives it up within a lease.
const QUESTIONS_MAX: usize = 4096;
/// A connection that does not stand after so long is begun anew.
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// etcd counts as away once questions have failed for so long.
const AWAY_AFTER: Duration = Duration::from_secs(1);
/// What the last questions have before the thread ends: they give leases back.
const LAST_MAX: Duration = Duration::from_secs(1);

/// Starts the thread; it ends when nobody can ask any more. Errors: a file of the certificates
/// cannot be read, or no thread can be had.
pub(crate) fn start(
    spec: &EtcdSpec,
    cluster: &str,
    mailboxes: &[Mailbox],
    log: &Arc<dyn Log>,
) -> io::Result<Ask> {
    let options = options(spec)?;
    let (sender, questions) = channel(QUESTIONS_MAX);
    let endpoints = spec.endpoints.clone();
    let (mailboxes, log) = (mailboxes.to_vec(), Arc::clone(log));
    let prefix = format!("/pollux/{cluster}/");
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let serve = move || {
        let members = endpoints.into_iter().map(|endpoint| Member {
            endpoint,
            client: RefCell::default(),
        });
        let etcd = Rc::new(Etcd {
            members: members.collect(),
            first: Cell::new(0),
            options,
            prefix,
            mailboxes,
            log,
            failing: Cell::new(None),
            is_away: Cell::new(false),
            unreadable: RefCell::default(),
        });
        LocalSet::new().block_on(&runtime, etcd.serve(questions));
    };
    thread::Builder::new().name("etcd".into()).spawn(serve)?;
    Ok(Box::new(move |question| sender.try_send(question).is_ok()))
}

fn options(spec: &EtcdSpec) -> io::Result<ConnectOptions> {
    let options = ConnectOptions::new()
        .with_connect_timeout(CONNECT_MAX)
        .with_keep_alive(Duration::from_secs(2), Duration::from_secs(2))
        .with_require_leader(true);
    if spec.ca.is_none() && spec.identity.is_none() {
        return Ok(options);
    }
    let read = |path: &Path| {
        std::fs::read(path)
            .map_err(|why| io::Error::new(why.kind(), format!("{}: {why}", path.display())))
    };
    let mut tls = TlsOptions::new();
    if let Some(ca) = &spec.ca {
        tls = tls.ca_certificate(Certificate::from_pem(read(ca)?));
    }
    if let Some((cert, key)) = &spec.identity {
        tls = tls.identity(Identity::from_pem(read(cert)?, read(key)?));
    }
    Ok(options.with_tls(tls))
}

struct Member {
    endpoint: String,
    client: RefCell<Option<Client>>,
}

struct Etcd {
    members: Vec<Member>,
    /// Who is asked first: who answered last.
    first: Cell<usize>,
    options: ConnectOptions,
    prefix: String,
    /// Reactors, by index.
    mailboxes: Vec<Mailbox>,
    log: Arc<dyn Log>,
    /// When the first question began of those that failed since the last answer.
    failing: Cell<Option<Instant>>,
    is_away: Cell<bool>,
    /// Volumes whose value was said to be none of ours.
    unreadable: RefCell<BTreeSet<String>>,
}

impl Etcd {
    async fn serve(self: Rc<Etcd>, mut questions: Receiver<Question>) {
        while let Some(question) = questions.recv().await {
            let etcd = Rc::clone(&self);
            tokio::task::spawn_local(async move { etcd.answer(question).await });
        }
        // Nobody waits for the answers to the last ones.
        tokio::time::sleep(LAST_MAX).await;
    }

    async fn answer(&self, question: Question) {
        let Question {
            reactor,
            volume,
            number,
            access,
            lease,
        } = question;
        let found = Box::new(self.ask_members(&volume, access, lease).await);
        let message = Message::Register {
            volume,
            number,
            found,
        };
        // A full mailbox loses it, as a network would: the volume asks again.
        let _ = self.mailboxes[reactor].send(message);
    }

    /// A member has a quarter of the lease, all of them three: what was renewed before holds on
    /// until the answer, and the volume has not given the question up.
    async fn ask_members(&self, volume: &str, access: Access, lease: Duration) -> Found {
        let key = format!("{}{volume}", self.prefix);
        let began = Instant::now();
        let until = tokio::time::Instant::from_std(began) + lease * 3 / 4;
        let first = self.first.get();
        let mut why = "no time was left".to_owned();
        for turn in 0..self.members.len() {
            let at = (first + turn) % self.members.len();
            let attempt = timeout(lease / 4, self.ask_member(at, &key, access));
            match timeout_at(until, attempt).await {
                Ok(Ok(Ok(stands))) => {
                    self.first.set(at);
                    self.note_answer();
                    return self.understand(volume, stands);
                }
                Ok(Ok(Err(error))) => why = format!("{}: {error}", self.members[at].endpoint),
                Ok(Err(_)) => {
                    why = format!("{} is silent", self.members[at].endpoint);
                }
                Err(_) => break,
            }
            // The others do not wait for it again.
            self.first.set((at + 1) % self.members.len());
        }
        self.note_silence(began, &why);
        Found::Unknown
    }

    async fn client(&self, at: usize) -> Result<Client, etcd_client::Error> {
        let member = &self.members[at];
        if let Some(client) = &*member.client.borrow() {
            return Ok(client.clone());
        }
        let options = Some(self.options.clone());
        let client = Client::connect([&member.endpoint], options).await?;
        *member.client.borrow_mut() = Some(client.clone());
        Ok(client)
    }

    async fn ask_member(
        &self,
        at: usize,
        key: &str,
        access: Access,
    ) -> Result<Stands, etcd_client::Error> {
        let client = self.client(at).await?;
        match access {
            Access::Read => {
                let got = client.kv_client().get(key, None).await?;
                Ok(Stands::Value(got.kvs().first().cloned()))
            }
            Access::Swap { expected, next } => {
                let expected = i64::try_from(expected).unwrap_or(i64::MAX);
                let swap = Txn::new()
                    .when([Compare::mod_revision(key, CompareOp::Equal, expected)])
                    .and_then([TxnOp::put(key, next.encode(), None)])
                    .or_else([TxnOp::get(key, None)]);
                let done = client.kv_client().txn(swap).await?;
                if done.succeeded() {
                    let revision = done.header().map_or(0, |header| header.revision());
                    return Ok(Stands::Swapped(revision));
                }
                let got = done.op_responses().into_iter().find_map(|op| match op {
                    TxnOpResponse::Get(got) => Some(got),
                    _ => None,
                });
                let value = got.and_then(|got| got.kvs().first().cloned());
                Ok(Stands::Value(value))
            }
        }
    }

    /// What stands there, in the core's words. Nothing acts on a value that is none of ours.
    fn understand(&self, volume: &str, stands: Stands) -> Found {
        let revision = |raw: i64| u64::try_from(raw).unwrap_or(0);
        match stands {
            // Without a revision nothing is known of it.
            Stands::Swapped(raw) if raw <= 0 => Found::Unknown,
            Stands::Swapped(raw) => Found::Swapped {
                revision: revision(raw),
            },
            Stands::Value(None) => Found::Stands {
                revision: 0,
                holding: None,
            },
            Stands::Value(Some(value)) => match Holding::parse(value.value()) {
                Ok(holding) => {
                    self.unreadable.borrow_mut().remove(volume);
                    Found::Stands {
                        revision: revision(value.mod_revision()),
                        holding: Some(holding),
                    }
                }
                Err(why) => {
                    if self.unreadable.borrow_mut().insert(volume.to_owned()) {
                        let text = format!("{}{volume} in etcd is not read: {why}", self.prefix);
                        self.say(Level::Warn, "W121", Some(volume), &text);
                    }
                    Found::Unknown
                }
            },
        }
    }

    fn note_answer(&self) {
        let since = self.failing.take();
        if self.is_away.replace(false) {
            let away = since.map_or(Duration::ZERO, |since| since.elapsed());
            let text = format!("etcd answers again, after {} s", away.as_secs());
            self.say(Level::Info, "I162", None, &text);
        }
    }

    fn note_silence(&self, began: Instant, why: &str) {
        let since = self.failing.get().unwrap_or(began);
        self.failing.set(Some(since));
        if since.elapsed() >= AWAY_AFTER && !self.is_away.replace(true) {
            let text = format!(
                "etcd does not answer: {why}; writes go on where no member is lost, reads until the \
                 lease has run out"
            );
            self.say(Level::Warn, "W120", None, &text);
        }
    }

    fn say(&self, level: Level, code: &'static str, volume: Option<&str>, text: &str) {
        self.log.line(Line {
            level,
            code,
            volume,
            text,
        });
    }
}

/// What a member answered.
enum Stands {
    /// The swap happened, at this revision.
    Swapped(i64),
    /// This is there.
    Value(Option<KeyValue>),
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Codes(Mutex<Vec<&'static str>>);

    impl Log for Codes {
        fn line(&self, line: Line<'_>) {
            self.0.lock().expect("no test panics in it").push(line.code);
        }
    }

    fn asks(members: Vec<Member>, times: usize) -> (Vec<Found>, Vec<&'static str>) {
        let codes = Arc::<Codes>::default();
        let etcd = Etcd {
            members,
            first: Cell::new(0),
            options: ConnectOptions::new(),
            prefix: "/pollux/lab/".into(),
            mailboxes: Vec::new(),
            log: Arc::<Codes>::clone(&codes) as Arc<dyn Log>,
            failing: Cell::new(None),
            is_away: Cell::new(false),
            unreadable: RefCell::default(),
        };
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("this machine has sockets and clocks");
        let lease = Duration::from_secs(1);
        let ask = |_| runtime.block_on(etcd.ask_members("v", Access::Read, lease));
        let found = (0..times).map(ask).collect();
        let codes = std::mem::take(&mut *codes.0.lock().expect("no test panics in it"));
        (found, codes)
    }

    #[test]
    fn an_etcd_whose_members_say_nothing_is_given_up_and_told_once() {
        let bind = |_| TcpListener::bind("127.0.0.1:0").expect("loopback is there");
        let silent: Vec<TcpListener> = (0..3).map(bind).collect();
        let member = |listener: &TcpListener| Member {
            endpoint: format!("http://{}", listener.local_addr().expect("it is bound")),
            client: RefCell::default(),
        };
        let (found, codes) = asks(silent.iter().map(member).collect(), 4);
        assert_eq!(found, [Found::Unknown; 4]);
        assert_eq!(codes, ["W120"]);
    }
}
