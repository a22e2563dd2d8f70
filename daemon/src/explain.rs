//! The one place where errors become words for people: what happened, to which volume, node or
//! file, what still works, and what to do next. Findings in a configuration file carry their own
//! words, beside the lines they mark.
//!
//! Codes: `E0xx` configuration, `E1xx` daemon and command line, `E2xx` volumes (from the engine);
//! `W0xx` configuration, `W15x` and `I12x` daemon, other `W1xx` and `I1xx` engine.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::io;
use std::path::Path;
use std::time::Duration;

use engine::control::{Clients, Refusal, RefusalKind, Repair, Request};

use crate::api::body::{DiskState, LinkState, Problem, Replica, State, VolumeEntry};
use crate::config::edit::EditError;
use crate::config::units::{exact_size, show_bytes};
use crate::config::{Diagnostic, Loaded, Severity};
use crate::exit::Exit;

/// Why a command did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What the process returns.
    pub exit: Exit,
    /// Stable code, for example `E207`.
    pub code: Cow<'static, str>,
    /// What happened; the first line says it, further lines give details.
    pub text: String,
    /// What the operator can do.
    pub hint: Option<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = self.text.lines();
        let first = lines.next().unwrap_or_default();
        write!(f, "error[{}]: {first}", self.code)?;
        for line in lines {
            write!(f, "\n  {}", line.trim_start())?;
        }
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {}", hint.replace('\n', "\n      ")),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

impl Failure {
    fn new(exit: Exit, code: &'static str, text: impl Into<String>) -> Failure {
        Failure {
            exit,
            code: Cow::Borrowed(code),
            text: text.into(),
            hint: None,
        }
    }

    fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        let exit = match refusal.kind {
            RefusalKind::Failed => Exit::Failed,
            RefusalKind::NotFound => Exit::NotFound,
            RefusalKind::WouldLoseData => Exit::WouldLoseData,
            RefusalKind::TimedOut => Exit::TimedOut,
        };
        let code = Cow::Borrowed(refusal.code);
        Failure {
            exit,
            code,
            text: refusal.text,
            hint: refusal.hint,
        }
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Failure {
        Failure {
            exit: Exit::from_number(problem.exit_code),
            code: Cow::Owned(problem.code),
            text: problem.detail,
            hint: problem.hint,
        }
    }
}

/// The configuration file cannot be read at all.
pub fn config_unreadable(path: &Path, source: &io::Error) -> Failure {
    let text = format!(
        "the configuration {} cannot be read: {source}",
        path.display()
    );
    Failure::new(Exit::Config, "E012", text)
        .hint("name the file with --config FILE or POLLUX_CONFIG")
}

/// The configuration has errors; they are shown before this line.
pub fn config_invalid(loaded: &Loaded) -> Failure {
    let (errors, path) = (loaded.errors(), loaded.path.display());
    let text = format!("the configuration {path} has {}", counted(errors, "error"));
    Failure::new(Exit::Config, "E014", text).hint("correct the lines shown above")
}

/// The certificates that the configuration names cannot be used.
pub fn certificates_unusable(loaded: &Loaded, found: &Diagnostic) -> Failure {
    let (line, column) = found.position(&loaded.source);
    let text = format!("{}:{line}:{column}: {}", loaded.path.display(), found.text);
    Failure::new(Exit::Config, "E015", text)
        .hint("`pollux tls init DIR` makes an authority and certificates for a start")
}

/// Certificates were not made.
pub fn tls_init_failed(dir: &Path, source: &io::Error) -> Failure {
    let text = format!("no certificates were made in {}: {source}", dir.display());
    Failure::new(Exit::Failed, "E127", text)
}

/// An export that the volume does not have.
pub fn no_such_export(name: &str, volume: &str, nearest: Option<&str>, known: &[&str]) -> Failure {
    let text = format!("volume {volume} has no export {name}");
    Failure::new(Exit::NotFound, "E128", text).hint(match (nearest, known) {
        (Some(nearest), _) => format!("did you mean {nearest}?"),
        (None, []) => format!("add it: pollux export nbd add {volume} {name}"),
        (None, known) => format!("its exports: {}", known.join(", ")),
    })
}

/// The file does not hold what is to be changed.
pub fn cannot_edit(path: &Path, why: &EditError) -> Failure {
    let text = format!("{} is not changed: {why}", path.display());
    Failure::new(Exit::Failed, "E136", text).hint("change it by hand, then: pollux config apply")
}

/// What the file would be has errors.
pub fn edit_is_wrong(after: &Loaded) -> Failure {
    let mut text = format!("{} is not changed: it would have", after.path.display());
    let errors = after.diagnostics.iter();
    let errors = errors.filter(|found| found.severity == Severity::Error);
    for (index, found) in errors.enumerate() {
        let comma = if index == 0 { "" } else { ";" };
        let _ = write!(text, "{comma} {} {}", found.code, found.text);
        if !found.label.is_empty() {
            let _ = write!(text, " ({})", found.label);
        }
    }
    Failure::new(Exit::Config, "E137", text)
}

/// The file cannot be replaced.
pub fn cannot_write(path: &Path, source: &io::Error) -> Failure {
    let text = format!(
        "{} is not changed: it cannot be written: {source}",
        path.display()
    );
    Failure::new(Exit::Failed, "E138", text)
        .hint("the daemon writes it; change it by hand, then: pollux config apply")
}

/// A volume has grown, and its file still says the old size.
pub fn size_not_written(path: &Path, volume: &str, size_bytes: u64, source: &io::Error) -> Failure {
    let text = format!(
        "{volume} has {size_bytes} bytes now, but {} cannot be written: {source}",
        path.display()
    );
    let size = exact_size(size_bytes);
    Failure::new(Exit::Partial, "E140", text).hint(format!("write size = \"{size}\" there"))
}

/// The running node is no longer in its file.
pub fn node_left_the_file(path: &Path, node: &str) -> Failure {
    let text = format!(
        "{} has no node {node} any more; nothing is changed",
        path.display()
    );
    Failure::new(Exit::Config, "E139", text)
}

/// `--node` names nobody.
pub fn no_such_node(name: &str, nearest: Option<&str>, known: &[&str]) -> Failure {
    let text = format!("the configuration has no node {name}");
    Failure::new(Exit::Usage, "E101", text).hint(match nearest {
        Some(nearest) => format!("did you mean --node {nearest}?"),
        None => format!("its nodes: {}", known.join(", ")),
    })
}

/// Several nodes, and none is chosen.
pub fn node_not_chosen(hostname: &str, known: &[&str]) -> Failure {
    let all = known.join(", ");
    let text = format!("which node? the file names {all}, and this host is {hostname}");
    Failure::new(Exit::Usage, "E102", text).hint("name the node with --node NODE or POLLUX_NODE")
}

/// `data_dir` is not there.
pub fn data_dir_missing(path: &Path) -> Failure {
    let path = path.display();
    Failure::new(
        Exit::Failed,
        "E103",
        format!("data_dir {path} does not exist"),
    )
    .hint(format!("create it: mkdir -m 700 -p {path}"))
}

/// `data_dir` is something else than a directory, or cannot be used.
pub fn data_dir_unusable(path: &Path, source: &io::Error) -> Failure {
    let text = format!("data_dir {} cannot be used: {source}", path.display());
    Failure::new(Exit::Failed, "E104", text)
}

/// Another daemon runs on the same `data_dir`.
pub fn data_dir_in_use(path: &Path, owner: Option<u32>) -> Failure {
    let owner = owner.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
    let text = format!(
        "data_dir {} is in use by another pollux{owner}",
        path.display()
    );
    Failure::new(Exit::Failed, "E105", text)
        .hint("each daemon needs its own data_dir; `pollux status` shows the one that runs")
}

/// The process that runs does not let itself be taken over; it goes on.
pub fn takeover_refused(code: String, text: &str, hint: String) -> Failure {
    let text = format!("the process that runs is not taken over: {text}\nit goes on serving");
    Failure {
        code: Cow::Owned(code),
        hint: Some(hint).filter(|hint| !hint.is_empty()),
        ..Failure::new(Exit::Failed, "", text)
    }
}

/// A takeover broke off; the process that ran goes on.
pub fn takeover_failed(why: &str) -> Failure {
    let text = format!("the takeover failed: {why}\nthe process that runs goes on serving");
    Failure::new(Exit::Failed, "E131", text)
}

/// Two releases have no version of the handover in common.
pub fn takeover_version(theirs: (u16, u16), ours: (u16, u16)) -> Failure {
    let show = |(from, to): (u16, u16)| match from == to {
        true => format!("version {from}"),
        false => format!("versions {from} to {to}"),
    };
    let text = format!(
        "it speaks {} of the handover, the new process {}",
        show(ours),
        show(theirs)
    );
    Failure::new(Exit::Failed, "E130", text).hint("stop it and start anew; clients reconnect")
}

/// The successor was started for another node.
pub fn takeover_of_another(cluster: &str, node: &str) -> Failure {
    let text = format!("it runs node {node} of cluster {cluster}");
    Failure::new(Exit::Failed, "E132", text).hint("name the same node and configuration")
}

/// Another successor was faster.
pub fn takeover_under_way() -> Failure {
    Failure::new(Exit::Failed, "E133", "another takeover is under way")
}

/// The old process cannot give away what it has; it ends, and the new one starts by itself.
pub fn cannot_hand_over(why: &str) -> Failure {
    Failure::new(Exit::Failed, "E135", format!("handing over failed: {why}"))
}

/// Volumes that a takeover would empty.
pub fn takeover_loses_memory(volumes: &[&str]) -> Failure {
    let names = volumes.join(", ");
    let text = match volumes {
        [_] => format!("{names} is in use and lives only in its memory"),
        _ => format!("{names} are in use and live only in its memory"),
    };
    Failure::new(Exit::Failed, "E134", text)
        .hint("stop using it, or add --force: its content is lost and its clients are cut off")
}

/// A listener could not be opened.
pub fn cannot_listen(what: &str, address: &str, source: &io::Error) -> Failure {
    let text = match source.kind() {
        io::ErrorKind::AddrInUse => format!("{what} address {address} is already in use"),
        _ => format!("{what} cannot listen on {address}: {source}"),
    };
    Failure::new(Exit::Failed, "E106", text)
}

/// Where the API socket should be lies something else.
pub fn not_a_socket(path: &Path) -> Failure {
    let text = format!(
        "{} is in the way of the API socket: it is no socket",
        path.display()
    );
    Failure::new(Exit::Failed, "E107", text).hint("move it elsewhere")
}

/// The engine did not start.
pub fn engine_did_not_start(code: &'static str, text: &str, hint: Option<String>) -> Failure {
    Failure {
        hint,
        ..Failure::new(Exit::Failed, code, text)
    }
}

/// The operating system refused something the daemon cannot do without.
pub fn cannot_run(what: &str, source: &io::Error) -> Failure {
    Failure::new(Exit::Failed, "E108", format!("{what}: {source}"))
}

/// Volumes did not drain in time.
pub fn drain_timed_out(after: Duration) -> Failure {
    let text = format!(
        "volumes were not drained within {} s; this stop counts as a crash",
        after.as_secs()
    );
    Failure::new(Exit::Failed, "E109", text)
        .hint("nothing acknowledged is lost; the next start reconciles")
}

/// The API knows no such volume.
pub fn no_such_volume(name: &str, node: &str, nearest: Option<&str>, known: &[&str]) -> Failure {
    let text = format!("node {node} has no volume {name}");
    Failure::new(Exit::NotFound, "E110", text).hint(match (nearest, known) {
        (Some(nearest), _) => format!("did you mean {nearest}?"),
        (None, []) => "the configuration gives this node no volume".to_owned(),
        (None, known) => format!("its volumes: {}", known.join(", ")),
    })
}

/// A peer that no volume has.
pub fn no_such_peer(peer: &str, volume: Option<&str>) -> Failure {
    let of = volume.map_or("any volume of this node".into(), |name| {
        format!("volume {name}")
    });
    Failure::new(Exit::NotFound, "E111", format!("{peer} is no peer of {of}"))
        .hint("`pollux status` lists the replicas")
}

/// The API got a request it cannot read.
pub fn bad_request(text: impl Into<String>) -> Failure {
    Failure::new(Exit::Usage, "E112", text)
}

/// No such address in the API.
pub fn no_such_route(path: &str) -> Failure {
    let text = format!("the API has no {path}, or not with this method");
    Failure::new(Exit::NotFound, "E113", text)
}

/// The API was reached by a user who may not use it.
pub fn not_permitted(socket: Option<&Path>) -> Failure {
    let at = socket
        .map(|path| format!(" at {}", path.display()))
        .unwrap_or_default();
    let text = format!("the daemon{at} does not let this user in");
    Failure::new(Exit::Unreachable, "E114", text).hint("run as root or as the daemon's own user")
}

/// No daemon answers.
pub fn daemon_unreachable(socket: &Path, node: &str, config: &Path, why: &str) -> Failure {
    let text = format!(
        "no daemon answers for node {node} at {}: {why}",
        socket.display()
    );
    let config = config.display();
    Failure::new(Exit::Unreachable, "E115", text).hint(format!(
        "start it: pollux serve --config {config} --node {node}"
    ))
}

/// The daemon answered with something else than its own API.
pub fn odd_answer(why: &str) -> Failure {
    let text = format!("the daemon's answer cannot be understood: {why}");
    Failure::new(Exit::Unreachable, "E116", text)
        .hint("`pollux version` must show the same version on both sides")
}

/// The daemon took the request and did not answer in time.
pub fn no_answer_in_time(limit: Duration) -> Failure {
    let text = format!("the daemon did not answer within {} s", limit.as_secs());
    Failure::new(Exit::TimedOut, "E117", text)
        .hint("the request may still be carried out; `pollux status` shows it")
}

/// The engine let go of a request without an answer: it is going down.
pub fn engine_gone(volume: &str) -> Failure {
    let text = format!("volume {volume}: the engine ended before it answered");
    Failure::new(Exit::Failed, "E118", text)
}

/// The daemon stops and takes no more changes.
pub fn draining() -> Failure {
    Failure::new(
        Exit::Failed,
        "E119",
        "the daemon is stopping and takes no more changes",
    )
}

/// A destructive verb without terminal and without `--yes`.
pub fn needs_yes(what: &str) -> Failure {
    Failure::new(
        Exit::Usage,
        "E120",
        format!("{what} needs --yes where nobody can be asked"),
    )
}

/// The name typed was not the volume's.
pub fn not_confirmed(volume: &str) -> Failure {
    let text = format!("not confirmed: nothing was done to volume {volume}");
    Failure::new(Exit::Failed, "E121", text)
}

/// A verify ended before it had compared everything.
pub fn verify_ended_early(volume: &str, why: &str) -> Failure {
    let text = format!("verify of volume {volume} ended early: {why}");
    Failure::new(Exit::Failed, "E122", text)
        .hint(format!("start it again: pollux verify {volume} --wait"))
}

/// A split brain is resolved on the node that gives up its copy.
pub fn kept_side(volume: &str, keep: &str) -> Failure {
    let text =
        format!("{keep} keeps its copy of {volume}; the node that gives up its copy does so");
    Failure::new(Exit::Failed, "E259", text).hint(format!(
        "on the other node: pollux splitbrain resolve {volume} --keep {keep}"
    ))
}

/// Nothing to resolve with that node.
pub fn no_split_brain(volume: &str, node: &str) -> Failure {
    let text = format!("{volume} is in no split brain with {node} that this node knows of");
    Failure::new(Exit::Failed, "E218", text).hint(format!("pollux status {volume}"))
}

/// A salvage, or the folder of them, cannot be read.
pub fn no_salvage(path: &Path, why: &dyn std::error::Error) -> Failure {
    let text = format!("{} cannot be used: {}", path.display(), with_causes(why));
    Failure::new(Exit::Failed, "E258", text).hint("pollux splitbrain salvage list")
}

/// The image for a salvage cannot be written.
pub fn no_image(path: &Path, source: &io::Error) -> Failure {
    let text = format!("{} cannot be written: {source}", path.display());
    Failure::new(Exit::Failed, "E258", text)
        .hint("it must be new; with --onto it must exist: pollux splitbrain salvage extract --help")
}

/// Both nodes took writes after they lost each other.
fn is_split_brain(volume: &VolumeEntry) -> bool {
    let says = |reason: &crate::api::body::Reason| {
        reason.code == "E206" && reason.text.contains("split brain")
    };
    volume.reason.as_ref().is_some_and(says)
}

/// The node that says so holds no replica of it any more.
pub fn is_gone(volume: &VolumeEntry) -> bool {
    let code = volume.reason.as_ref().map(|reason| reason.code.as_str());
    volume.state == State::Offline && code == Some("W138")
}

/// What an operator does next about a volume as `node` sees it; `None` when nothing is to be done.
pub fn next_step(volume: &VolumeEntry, node: &str) -> Option<String> {
    let name = &volume.name;
    let standalone = |replica: &&Replica| replica.link_state == LinkState::Standalone;
    if is_split_brain(volume) {
        return Some(format!("pollux splitbrain show {name}"));
    }
    if let Some(replica) = volume.replicas.iter().find(|r| r.resync.is_some()) {
        let paused = replica.resync.as_ref().is_some_and(|resync| resync.paused);
        return Some(match paused {
            true => format!("pollux resync resume {name}"),
            false => format!("none needed.  Faster: pollux resync set {name} --rate max"),
        });
    }
    if let Some(quorum) = volume
        .quorum
        .as_ref()
        .filter(|quorum| volume.state == State::Critical && quorum.votes.have < quorum.votes.need)
    {
        let (need, of) = (quorum.votes.need, quorum.votes.of);
        let missing = quorum.missing.join(" or ");
        return Some(format!(
            "start {missing}: it goes on with {need} of {of} voters"
        ));
    }
    let is_witness =
        |replica: &Replica| replica.node == node && replica.disk_state == DiskState::Diskless;
    match volume.state {
        State::NotCreated => Some(format!("pollux volume create {name}")),
        State::Offline if is_gone(volume) => Some(format!("pollux volume delete {name}")),
        State::Offline => Some(format!(
            "remove the cause, then restart the daemon on {node}"
        )),
        State::Healthy => None,
        State::Degraded | State::Critical => match volume.replicas.iter().find(standalone) {
            Some(peer) => Some(format!("pollux peer connect {} --volume {name}", peer.node)),
            None if volume.replicas.iter().any(is_witness) => None,
            // It is being counted in.
            None if volume.reason.as_ref().is_some_and(|r| r.code == "W119") => None,
            None if volume.generation.is_none() => Some(format!("pollux promote {name}")),
            None => None,
        },
    }
}

/// `1 error`, `2 errors`.
pub fn counted(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

/// Several failures as one: their texts, and the exit they share.
pub fn several(failures: &[Failure], all_failed: bool) -> Failure {
    let mut text = counted(failures.len(), "volume");
    text.push_str(" failed");
    for failure in failures {
        let _ = write!(
            text,
            "\n[{}] {}",
            failure.code,
            failure.text.replace('\n', " ")
        );
    }
    let shared = failures.first().map_or(Exit::Failed, |first| first.exit);
    let same = failures.iter().all(|failure| failure.exit == shared);
    let exit = match (all_failed, same) {
        (false, _) => Exit::Partial,
        (true, true) => shared,
        (true, false) => Exit::Failed,
    };
    let hint = failures.iter().find_map(|failure| failure.hint.clone());
    Failure {
        exit,
        code: Cow::Borrowed("E123"),
        text,
        hint,
    }
}

/// The TCP listener takes no changes.
pub fn read_only(socket: &Path) -> Failure {
    Failure::new(Exit::Unreachable, "E124", "this address is read-only")
        .hint(format!("changes go over the socket {}", socket.display()))
}

/// A second signal ended the drain.
pub fn drain_cut_short() -> Failure {
    Failure::new(
        Exit::Failed,
        "E109",
        "ended by a second signal; this stop counts as a crash",
    )
    .hint("nothing acknowledged is lost; the next start reconciles")
}

/// The NBD server did not start.
pub fn nbd_did_not_start(why: &nbd_server::StartError) -> Failure {
    Failure::new(Exit::Failed, "E125", with_causes(why))
}

/// An error and what caused it, outermost first.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        let _ = write!(text, ": {source}");
        cause = source.source();
    }
    text
}

/// What was asked for, in the words of the command line; for the log.
pub fn asked(request: &Request) -> String {
    let flag = |is_set: &bool, word: &str| {
        if *is_set {
            format!(" {word}")
        } else {
            String::new()
        }
    };
    match request {
        Request::Create { adopt, if_absent } => {
            format!(
                "volume create{}{}",
                flag(adopt, "--adopt"),
                flag(if_absent, "--if-absent")
            )
        }
        Request::Nodes { .. } => "config apply".to_owned(),
        Request::Delete { wipe } => format!("volume delete{}", flag(wipe, "--wipe")),
        Request::Promote { force, .. } => format!("promote{}", flag(force, "--force")),
        Request::ServeAgain { .. } => "promote".to_owned(),
        Request::Demote { disconnect } => format!("demote{}", flag(disconnect, "--disconnect")),
        Request::PeerConnect { node } => format!("peer connect {node}"),
        Request::PeerDisconnect { node } => format!("peer disconnect {node}"),
        Request::ResyncStart { from } => format!("resync start --from {from}"),
        Request::MarkCreate { name, if_absent } => {
            format!(
                "volume mark create {name}{}",
                flag(if_absent, "--if-absent")
            )
        }
        Request::MarkDelete { name } => format!("volume mark delete {name}"),
        Request::Resize { size_bytes } => format!("volume resize {}", exact_size(*size_bytes)),
        Request::Scrub { bytes_per_second } => match bytes_per_second {
            Some(rate) => format!("volume scrub --rate {}/s", show_bytes(*rate)),
            None => "volume scrub".to_owned(),
        },
        Request::MarkList => "volume mark list".to_owned(),
        Request::Partings => "splitbrain show".to_owned(),
        Request::GiveUp { keep, .. } => format!("splitbrain resolve --keep {keep}"),
        Request::ResyncPause => "resync pause".to_owned(),
        Request::ResyncResume => "resync resume".to_owned(),
        Request::ResyncSetRate {
            bytes_per_second: Some(rate),
        } => {
            format!("resync set --rate {}/s", show_bytes(*rate))
        }
        Request::ResyncSetRate {
            bytes_per_second: None,
        } => "resync set --rate max".to_owned(),
        Request::Verify { repair } => match repair {
            Repair::No => "verify".to_owned(),
            Repair::Majority => "verify --repair".to_owned(),
            Repair::From(node) => format!("verify --repair --from {node}"),
        },
        Request::VerifyStatus => "verify --status".to_owned(),
        Request::Disconnect { clients } => match clients {
            Clients::Id(id) => format!("export nbd disconnect {id}"),
            Clients::Address(address) => format!("export nbd disconnect {address}"),
            Clients::Export(export) => format!("disconnect clients of export {export}"),
        },
    }
}

/// `volume scrub --status` of a volume without stored checksums.
pub fn no_checksums(volume: &str) -> Failure {
    Failure::new(
        Exit::Failed,
        "E280",
        format!("cannot scrub {volume}: it has no stored checksums on this node"),
    )
}

/// A step of `pollux demo` did not hold.
pub fn demo_failed(why: &str) -> Failure {
    Failure::new(Exit::Failed, "E150", format!("the demo failed: {why}"))
}
