//! Our server: one node, or a pair whose second node keeps its replica in memory.

use std::fmt::Write;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use nbd_proto::Transport as Address;

use super::kind::Kind;
use super::process::Process;
use super::{Backing, Bench, EXPORT, free_port};

/// One node: its name, its core, and where its replica is.
struct Node<'a> {
    name: &'static str,
    cpu: usize,
    backing: &'a str,
}

/// Starts the nodes with new metadata and makes the volume; the first node serves it.
pub fn start(kind: Kind, bench: &Bench, address: &Address) -> anyhow::Result<Vec<Process>> {
    let image = bench.image.display().to_string();
    let own = match (kind, bench.backing) {
        (Kind::PolluxLeg, _) | (_, Backing::Memory) => "memory",
        (_, Backing::File) => image.as_str(),
    };
    let mut nodes = vec![Node {
        name: "alpha",
        cpu: bench.server_cpu,
        backing: own,
    }];
    let mirrors = [Kind::PolluxMirror, Kind::PolluxMirrorTls, Kind::PolluxLeg];
    if mirrors.contains(&kind) {
        nodes.push(Node {
            name: "beta",
            cpu: bench.client_cpu,
            backing: "memory",
        });
    }
    if kind == Kind::PolluxMirrorTls {
        let mut command = Command::new(&bench.pollux);
        command.args(["tls", "init"]).arg(links(bench));
        run(command.args(["--for-node", "alpha", "--for-node", "beta"]))?;
    }
    let ports = nodes.iter().map(|_| free_port());
    let ports: Vec<u16> = ports.collect::<Result<_, _>>()?;
    let mut processes = Vec::new();
    for node in &nodes {
        let data = data_dir(bench, node.name);
        match fs::remove_dir_all(&data) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).context("old metadata cannot be removed");
            }
            _ => fs::create_dir(&data)?,
        }
        let text = configuration(kind, bench, address, &nodes, &ports, node.backing);
        fs::write(file(bench, node.name), text)?;
        let mut arguments = vec!["serve".to_owned()];
        arguments.extend(place(bench, node.name));
        let program = &bench.pollux;
        let mut process = Process::start(bench, node.name, node.cpu, program, &arguments)?;
        let api = data.join("pollux.sock");
        process.wait_until(|| Ok(UnixStream::connect(&api).map(|_| ())?))?;
        processes.push(process);
    }
    for node in &nodes {
        let adopts = node.backing != "memory";
        let create: &[&str] = match adopts {
            true => &["volume", "create", EXPORT, "--adopt"],
            false => &["volume", "create", EXPORT],
        };
        ask(bench, node.name, create)?;
    }
    if nodes.len() > 1 {
        ask(bench, "alpha", &["promote", EXPORT])?;
        processes[0].wait_until(|| check(bench))?;
    }
    Ok(processes)
}

/// Makes an authority, and certificates for servers on this machine and for the client. Errors: with
/// what was said.
pub fn make_certificates(pollux: &Path, folder: &Path) -> anyhow::Result<()> {
    let mut command = Command::new(pollux);
    run(command.args(["tls", "init"]).arg(folder))
}

/// The folder of the nodes' certificates.
fn links(bench: &Bench) -> PathBuf {
    bench.scratch.path().join("links")
}

/// Both nodes hold everything. Errors: what the status says.
pub fn check(bench: &Bench) -> anyhow::Result<()> {
    ask(bench, "alpha", &["status", "--check"])
}

fn data_dir(bench: &Bench, node: &str) -> PathBuf {
    bench.disk.path().join(node)
}

fn file(bench: &Bench, node: &str) -> PathBuf {
    bench.scratch.path().join(format!("{node}.toml"))
}

fn place(bench: &Bench, node: &str) -> [String; 4] {
    let file = file(bench, node).display().to_string();
    [
        "--config".to_owned(),
        file,
        "--node".to_owned(),
        node.to_owned(),
    ]
}

/// Runs a verb. Errors: with what it said.
fn ask(bench: &Bench, node: &str, verb: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new(&bench.pollux);
    run(command.args(verb).args(place(bench, node)))
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output();
    let output = output.with_context(|| command.get_program().display().to_string())?;
    if !output.status.success() {
        let words = [output.stdout, output.stderr].concat();
        let words = String::from_utf8_lossy(&words);
        bail!("{command:?}: {}", words.trim());
    }
    Ok(())
}

/// What one node reads: the same as the other's but for where the replica is.
fn configuration(
    kind: Kind,
    bench: &Bench,
    address: &Address,
    nodes: &[Node<'_>],
    ports: &[u16],
    backing: &str,
) -> String {
    let mut text = "[cluster]\nname = \"perf\"\n".to_owned();
    if nodes.len() > 1 {
        text += "quorum = \"off\"\n";
    }
    for (node, port) in nodes.iter().zip(ports) {
        let data = data_dir(bench, node.name);
        let _ = writeln!(
            text,
            "[node.{}]\ndata_dir = \"{}\"",
            node.name,
            data.display()
        );
        if nodes.len() > 1 {
            let _ = writeln!(text, "address = \"127.0.0.1:{port}\"");
        }
        if kind == Kind::PolluxMirrorTls {
            let folder = links(bench).join(node.name);
            let file = |name: &str| folder.join(name).display().to_string();
            let _ = writeln!(
                text,
                "tls = {{ cert = \"{}\", key = \"{}\", ca = \"{}\" }}",
                file("node-cert.pem"),
                file("node-key.pem"),
                file("ca-cert.pem"),
            );
        }
        let _ = match address {
            _ if node.name != "alpha" => Ok(()),
            Address::Unix { socket } => writeln!(text, "nbd_socket = \"{socket}\""),
            Address::Tcp { port, .. } => writeln!(text, "nbd = \"127.0.0.1:{port}\""),
        };
        if let Some(folder) = bench.tls.as_ref().filter(|_| kind.speaks_tls()) {
            let file = |name: &str| folder.join(name).display().to_string();
            let _ = writeln!(
                text,
                "nbd_tls = {{ cert = \"{}\", key = \"{}\", client_ca = \"{}\" }}",
                file("server-cert.pem"),
                file("server-key.pem"),
                file("ca-cert.pem"),
            );
        }
    }
    let names: Vec<String> = nodes
        .iter()
        .map(|node| format!("\"{}\"", node.name))
        .collect();
    let polling = match kind {
        Kind::PolluxLatency => "latency",
        _ => "balanced",
    };
    let _ = write!(
        text,
        "[volume.{EXPORT}]\nsize = \"{}KiB\"\nbacking = \"{backing}\"\nreplicas = [{}]\n\
         polling = \"{polling}\"\nnbd = [{{ name = \"{EXPORT}\" }}]\n",
        bench.size / 1024,
        names.join(", "),
    );
    text
}
