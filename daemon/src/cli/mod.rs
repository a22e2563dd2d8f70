//! The command line: verbs, the node they speak to, and what the process returns.

mod config;
mod confirm;
mod demote;
mod export;
mod mark;
mod output;
mod peer;
mod progress;
mod promote;
mod resync;
mod scrub;
mod serve;
mod splitbrain;
mod status;
mod text;
mod tls;
mod verify;
mod version;
mod volume;

use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use serde::Serialize;

use crate::api::body::Changed;
use crate::client::Daemon;
use crate::config::{DEFAULT_PATH, Loaded, Node, select_node, units};
use crate::exit::Exit;
use crate::explain::{self, Failure};

/// Mirrored block volumes over NBD.
#[derive(Debug, Parser)]
#[command(
    name = "pollux",
    version,
    disable_help_subcommand = true,
    max_term_width = 100
)]
#[command(after_help = "\
EXAMPLES
  pollux demo
  pollux serve --config lab.toml --node alpha
  pollux volume create vm-store
  pollux promote vm-store
  pollux status vm-store --json")]
pub struct Cli {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    verb: Option<Verb>,
}

/// Which cluster and node; stands before or after the verb.
#[derive(Clone, Debug, Args)]
struct Place {
    /// Configuration file [default: /etc/pollux/pollux.toml]
    #[arg(
        long = "config",
        id = "config_file",
        value_name = "FILE",
        env = "POLLUX_CONFIG"
    )]
    #[arg(global = true, hide_env_values = true)]
    config: Option<PathBuf>,
    /// Node of that file [default: the only one, or the one named as this host]
    #[arg(
        long = "node",
        id = "node_name",
        value_name = "NODE",
        env = "POLLUX_NODE"
    )]
    #[arg(global = true, hide_env_values = true)]
    node: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Demo(crate::demo::DemoArgs),
    Serve(serve::Serve),
    Status(status::Status),
    #[command(subcommand)]
    Volume(volume::Volume),
    Promote(promote::Promote),
    Demote(demote::Demote),
    #[command(subcommand)]
    Peer(peer::Peer),
    #[command(subcommand)]
    Resync(resync::Resync),
    #[command(subcommand, name = "splitbrain")]
    SplitBrain(splitbrain::SplitBrain),
    Verify(verify::Verify),
    #[command(subcommand)]
    Export(export::Export),
    #[command(subcommand)]
    Config(config::Config),
    #[command(subcommand)]
    Tls(tls::Tls),
    Version(version::Version),
}

/// Longest a change may take that waits for nothing but volumes and peers.
const CHANGE_MAX: Duration = Duration::from_secs(60);

/// A duration on the command line.
fn parse_duration(text: &str) -> Result<Duration, String> {
    units::duration(text).map_err(explain_unit)
}

/// A size on the command line.
fn parse_size(text: &str) -> Result<u64, String> {
    units::size(text).map_err(explain_unit)
}

/// A rate on the command line.
fn parse_rate(text: &str) -> Result<resync::Rate, String> {
    match units::rate(text) {
        Ok(Some(0)) => Err("0 would never end; `pollux resync pause` stops it".to_owned()),
        Ok(rate) => Ok(resync::Rate(rate)),
        Err(wrong) => Err(explain_unit(wrong)),
    }
}

fn explain_unit(wrong: units::UnitError) -> String {
    match wrong.hint {
        Some(hint) => format!("{}, {hint}", wrong.text),
        None => wrong.text,
    }
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            output::complain(&failure.to_string());
            failure.exit.into()
        }
    }
}

fn run(cli: Cli) -> Result<Exit, Failure> {
    let place = &cli.place;
    match cli.verb {
        None => start_here(place),
        Some(Verb::Demo(args)) => crate::demo::run(&args),
        Some(Verb::Serve(verb)) => verb.run(place),
        Some(Verb::Status(verb)) => verb.run(place),
        Some(Verb::Volume(verb)) => verb.run(place),
        Some(Verb::Promote(verb)) => verb.run(place),
        Some(Verb::Demote(verb)) => verb.run(place),
        Some(Verb::Peer(verb)) => verb.run(place),
        Some(Verb::Resync(verb)) => verb.run(place),
        Some(Verb::SplitBrain(verb)) => verb.run(place),
        Some(Verb::Verify(verb)) => verb.run(place),
        Some(Verb::Export(verb)) => verb.run(place),
        Some(Verb::Config(verb)) => verb.run(place),
        Some(Verb::Tls(verb)) => verb.run(),
        Some(Verb::Version(verb)) => verb.run(),
    }
}

const START_HERE: &str = "\
Pollux: mirrored block volumes over NBD. No daemon answers here yet.

  1. describe the cluster       one file, the same on every node: /etc/pollux/pollux.toml
  2. check it                   pollux config check
  3. run the daemon             pollux serve                 (on each node)
  4. make the replicas          pollux volume create VOL     (on each node that holds one)
  5. take it into use           pollux promote VOL           (on the node that serves clients)
  6. look at it                 pollux status

Another file or node: --config FILE, --node NODE, or POLLUX_CONFIG, POLLUX_NODE.
Every verb explains itself: pollux VERB --help
";

/// No verb: the status if a daemon answers, else where to begin.
fn start_here(place: &Place) -> Result<Exit, Failure> {
    let answered = place.answering_daemon().is_some();
    match answered {
        true => status::Status::default().run(place),
        false => {
            output::say(START_HERE);
            Ok(Exit::Done)
        }
    }
}

impl Place {
    /// The file that was named, or the default one.
    fn config_path(&self) -> PathBuf {
        let named = self
            .config
            .clone()
            .filter(|path| !path.as_os_str().is_empty());
        named.unwrap_or_else(|| PathBuf::from(DEFAULT_PATH))
    }

    /// Reads the file; its findings are the caller's matter. Errors: it cannot be read.
    fn load(&self) -> Result<Loaded, Failure> {
        let path = self.config_path();
        Loaded::read(&path).map_err(|source| explain::config_unreadable(&path, &source))
    }

    /// The node that was named, or that follows from file and host. Errors: exit 2.
    fn node<'l>(&self, loaded: &'l Loaded) -> Result<&'l Node, Failure> {
        let host = rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned();
        let named = self.node.as_deref().filter(|name| !name.is_empty());
        select_node(&loaded.config, named, &host)
    }

    /// Adds what is wrong with the certificates of the node that this is, if the file tells which.
    fn look_at_certificates(&self, loaded: &mut Loaded) {
        let Ok(node) = self.node(loaded) else {
            return;
        };
        let found = [
            node.nbd_identity().map(drop),
            loaded.config.link_identity(node).map(drop),
        ];
        for found in found.into_iter().filter_map(Result::err) {
            loaded.add(*found);
        }
    }

    /// The file without errors, or its errors on stderr and exit 9.
    fn load_valid(&self) -> Result<Loaded, Failure> {
        let loaded = self.load()?;
        match loaded.errors() {
            0 => Ok(loaded),
            _ => Err(invalid(&loaded)),
        }
    }

    /// The node's daemon. A file with errors is enough as long as the daemon runs: it is not the
    /// one that the daemon runs on, and a slip in it must not stop a failover.
    fn daemon(&self) -> Result<Daemon, Failure> {
        let loaded = self.load()?;
        let errors = loaded.errors();
        let node = match self.node(&loaded) {
            Ok(node) => node,
            Err(_) if errors > 0 => return Err(invalid(&loaded)),
            Err(failure) => return Err(failure),
        };
        let daemon = daemon_of(&loaded, node);
        if errors > 0 {
            if !answers(&daemon) {
                return Err(invalid(&loaded));
            }
            let path = loaded.path.display();
            let count = explain::counted(errors, "error");
            output::complain(&format!(
                "warning: {path} has {count}; see `pollux config check`"
            ));
        }
        Ok(daemon)
    }

    fn answering_daemon(&self) -> Option<Daemon> {
        let loaded = self.load().ok()?;
        let daemon = daemon_of(&loaded, self.node(&loaded).ok()?);
        answers(&daemon).then_some(daemon)
    }
}

fn daemon_of(loaded: &Loaded, node: &Node) -> Daemon {
    Daemon {
        socket: node.api_socket(),
        node: node.name.value.clone(),
        config: loaded.path.clone(),
    }
}

fn answers(daemon: &Daemon) -> bool {
    std::os::unix::net::UnixStream::connect(&daemon.socket).is_ok()
}

fn invalid(loaded: &Loaded) -> Failure {
    output::complain(loaded.render(output::stderr_color()).trim_end());
    explain::config_invalid(loaded)
}

/// Runs one exchange with a daemon to its end.
fn block_on<T>(exchange: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| explain::cannot_run("the client did not start", &source))?
        .block_on(exchange)
}

/// Has the daemon change something of a volume, at `rest` below its address, within `limit`; says
/// what it did, and which verb shows it.
fn change(
    daemon: &Daemon,
    (volume, rest): (&str, &str),
    ask: &impl Serialize,
    limit: Option<Duration>,
    next: &str,
) -> Result<Exit, Failure> {
    let path = volume_path(volume, rest);
    let done = block_on(daemon.post(&path, ask, limit))?;
    say_next(&done, next);
    Ok(Exit::Done)
}

fn say_next(done: &Changed, next: &str) {
    output::say(&format!("{}\nnext: pollux {next}\n", done.text));
}

/// Address of a volume in the API, with `rest` below it.
fn volume_path(volume: &str, rest: &str) -> String {
    let name = crate::api::percent_encode(volume);
    match rest {
        "" => format!("/api/v1/volumes/{name}"),
        rest => format!("/api/v1/volumes/{name}/{rest}"),
    }
}

#[cfg(test)]
mod tests;
