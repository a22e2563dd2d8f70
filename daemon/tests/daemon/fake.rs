//! A node whose answers are given, and the API over it in a temporary `data_dir`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use engine::control::{
    ClientStatus, ClientTls, DiskState, Done, Generation, IoCounters, LinkState, Node, Outcome,
    PathStatus, Reason, ReplicaStatus, Request, ResyncBytes, ResyncState, ResyncStatus, Role,
    State, VerifyReport, VolumeStatus,
};
use engine::front_end::{AttachError, Attachment, ExportLabel, VolumeView};
use engine::handover::{HandOverError, Legacy};
use nbd_server::Volumes;
use pollux_daemon::api::listen::{ApiSocket, serve_tcp};
use pollux_daemon::api::{self, Access, Facts, Shared};
use pollux_daemon::client::Daemon;
use pollux_daemon::config::Loaded;
use tempfile::TempDir;
use tokio::sync::oneshot;

/// What the node answers to a request; `None` lets go of it without an answer.
pub type Answer = fn(&str, &Request) -> Option<Outcome>;

/// A node that remembers what it was asked.
pub struct Fake {
    volumes: Vec<VolumeStatus>,
    answer: Answer,
    asked: Mutex<Vec<(String, Request)>>,
    verify_polls: Mutex<u32>,
}

impl Fake {
    pub fn new(volumes: Vec<VolumeStatus>, answer: Answer) -> Arc<Fake> {
        let (asked, verify_polls) = Default::default();
        Arc::new(Fake {
            volumes,
            answer,
            asked,
            verify_polls,
        })
    }

    pub fn asked(&self) -> Vec<(String, Request)> {
        self.asked.lock().unwrap().clone()
    }
}

impl Node for Fake {
    fn request(&self, volume: &str, request: Request, reply: Box<dyn FnOnce(Outcome) + Send>) {
        let mut outcome = (self.answer)(volume, &request);
        // A verify runs for two looks at it.
        if let (Request::VerifyStatus, Some(Ok(Done::Verify(report)))) = (&request, &mut outcome) {
            let mut polls = self.verify_polls.lock().unwrap();
            *polls += 1;
            report.running = *polls < 2;
        }
        self.asked
            .lock()
            .unwrap()
            .push((volume.to_owned(), request));
        thread::spawn(move || outcome.map(reply));
    }

    fn status(&self, volume: Option<&str>, reply: Box<dyn FnOnce(Vec<VolumeStatus>) + Send>) {
        let wanted = |status: &&VolumeStatus| volume.is_none_or(|name| name == status.name);
        let volumes = self.volumes.iter().filter(wanted).cloned().collect();
        thread::spawn(move || reply(volumes));
    }

    fn io_backend(&self) -> String {
        "POSIX threads (a test's choice)".to_owned()
    }

    fn drain(&self, done: Box<dyn FnOnce() + Send>) {
        thread::spawn(done);
    }

    fn renew_tls(&self, _: engine::tls::LinkTls) {}

    fn meet(&self, _: &[(String, Vec<String>)]) -> Result<(), String> {
        Ok(())
    }

    fn hand_over(&self, done: Box<dyn FnOnce(Result<Legacy, HandOverError>) + Send>) {
        thread::spawn(|| done(Err(HandOverError::Stopping)));
    }
}

impl Volumes for Fake {
    fn view(&self, _: &str) -> Option<VolumeView> {
        None
    }

    fn attach(&self, volume: &str, _: Attachment) -> Result<(), AttachError> {
        Err(AttachError::NotFound(volume.to_owned()))
    }

    fn cut_off(&self, _: &str, _: &ExportLabel) {}
}

/// Says yes to everything.
pub fn agree(volume: &str, request: &Request) -> Option<Outcome> {
    Some(Ok(match request {
        Request::Verify { .. } | Request::VerifyStatus => Done::Verify(VerifyReport {
            running: true,
            compared_bytes: 1 << 30,
            total_bytes: 1 << 30,
            ..VerifyReport::default()
        }),
        _ => Done::Ok(format!("{volume}: done")),
    }))
}

/// `vm-store`, primary on alpha, beta behind it by one resync.
pub fn vm_store(state: State) -> VolumeStatus {
    let reason = (state != State::Healthy).then(|| Reason {
        code: "W104",
        text: "beta lost its link 40 s ago".to_owned(),
    });
    VolumeStatus {
        name: "vm-store".to_owned(),
        size_bytes: 1 << 30,
        role: Role::Primary,
        state,
        reason,
        generation: Some(Generation {
            branch: 0xabc,
            term: 7,
        }),
        replicas: vec![
            ReplicaStatus {
                node: "alpha".to_owned(),
                disk_state: DiskState::UpToDate,
                link_state: LinkState::SelfNode,
                out_of_sync_bytes: 0,
                resync: None,
                paths: Vec::new(),
                last_resync: None,
            },
            ReplicaStatus {
                node: "beta".to_owned(),
                disk_state: DiskState::Inconsistent,
                link_state: LinkState::ResyncSource,
                out_of_sync_bytes: 1 << 20,
                resync: Some(ResyncStatus {
                    done_ratio: 0.5,
                    rate_bytes_per_second: 1 << 20,
                    eta_seconds: Some(1),
                    paused: false,
                    state: ResyncState::Moving,
                    reason: None,
                    bytes: ResyncBytes {
                        done: 1 << 20,
                        sent: 4096,
                        zeroed: 0,
                        equal: (1 << 20) - 4096,
                    },
                }),
                paths: vec![PathStatus {
                    address: "10.0.0.2:8790".to_owned(),
                    is_up: true,
                    carries_data: true,
                }],
                last_resync: None,
            },
        ],
        quorum: None,
        checksums: None,
        clients: vec![ClientStatus {
            export: "vm-store".to_owned(),
            address: "127.0.0.1:50000".to_owned(),
            age_seconds: 90,
            id: 17,
            tls: Some(ClientTls {
                version: "TLS 1.3",
                subject: Some("CN=hyper1".to_owned()),
            }),
            io: IoCounters::default(),
        }],
        notes: vec!["quorum is off".to_owned()],
        io: IoCounters {
            reads: 3,
            read_bytes: 12_288,
            reads_by_peers: 2,
            reads_for_peers: 1,
            ..IoCounters::default()
        },
    }
}

/// The configuration of the tests, and the directory it and the state live in.
pub struct Place {
    pub dir: TempDir,
    pub config: PathBuf,
    pub data_dir: PathBuf,
}

impl Place {
    pub fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        // Others may look into it, as into /var/lib: what is closed to them is closed itself.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let data_dir = dir.path().join("alpha");
        fs::create_dir(&data_dir).unwrap();
        let config = dir.path().join("pollux.toml");
        let text = format!(
            "[cluster]\nname = \"lab\"\nquorum = \"off\"\n\
             [node.alpha]\ndata_dir = \"{0}/alpha\"\naddress = \"127.0.0.1:8790\"\n\
             nbd_socket = \"nbd.sock\"\n\
             [node.beta]\ndata_dir = \"{0}/beta\"\naddress = \"127.0.0.1:8890\"\n\
             nbd = \"127.0.0.1:10909\"\n\
             [volume.vm-store]\nsize = \"1GiB\"\nbacking = \"vm-store.img\"\n\
             replicas = [\"alpha\", \"beta\"]\nnbd = [{{ name = \"vm store\" }}]\n",
            dir.path().display()
        );
        fs::write(&config, text).unwrap();
        Place {
            dir,
            config,
            data_dir,
        }
    }

    pub fn loaded(&self) -> Loaded {
        let loaded = Loaded::read(&self.config).unwrap();
        assert_eq!(loaded.errors(), 0, "{}", loaded.render(false));
        loaded
    }

    pub fn facts(&self) -> Facts {
        let loaded = self.loaded();
        Facts::of(&loaded.config, &loaded.config.nodes[0])
    }

    /// The binary on this configuration as node alpha, without terminal.
    pub fn command(&self, args: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pollux"));
        command.args(args.split_whitespace());
        command
            .env_clear()
            .env("POLLUX_CONFIG", &self.config)
            .env("POLLUX_NODE", "alpha");
        command.env("TZ", "UTC").stdin(Stdio::null());
        command
    }

    pub fn pollux(&self, args: &str) -> Ran {
        Ran::from(self.command(args).output().unwrap())
    }
}

/// A finished command.
#[derive(Debug, PartialEq, Eq)]
pub struct Ran {
    pub exit: i32,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Ran {
        Ran {
            exit: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// The API of a node, served from another thread until dropped.
pub struct Served {
    pub place: Place,
    pub node: Arc<Fake>,
    pub tcp: std::net::SocketAddr,
    pub shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    pub fn new(volumes: Vec<VolumeStatus>, answer: Answer) -> Served {
        let place = Place::new();
        let node = Fake::new(volumes, answer);
        let shared = Shared::new(node.clone(), place.facts());
        let socket = place.data_dir.join("pollux.sock");
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = std::sync::mpsc::channel();
        let thread = thread::spawn({
            let shared = shared.clone();
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(async {
                    let listener = ApiSocket::bind(&socket).unwrap();
                    let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                    tell.send(tcp.local_addr().unwrap()).unwrap();
                    let all = api::router(shared.clone(), Access::All);
                    let reading = api::router(shared, Access::ReadOnly(socket));
                    let own_uid = rustix::process::geteuid().as_raw();
                    tokio::select! {
                        _ = listener.serve(all, own_uid) => {}
                        _ = serve_tcp(tcp, reading) => {}
                        _ = stopped => {}
                    }
                });
            }
        });
        let tcp = told.recv().unwrap();
        Served {
            place,
            node,
            tcp,
            shared,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    pub fn daemon(&self) -> Daemon {
        Daemon {
            socket: self.place.data_dir.join("pollux.sock"),
            node: "alpha".to_owned(),
            config: self.place.config.clone(),
        }
    }

    pub fn pollux(&self, args: &str) -> Ran {
        self.place.pollux(args)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}
