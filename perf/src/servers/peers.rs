//! How other servers, and our baseline, are started.

use std::fs;
use std::path::Path;

use anyhow::Context;
use nbd_proto::Transport as Address;

use super::process::Process;
use super::{Backing, Bench, EXPORT, Kind, free_port};

/// Starts one of them on the servers' core.
pub fn start(kind: Kind, bench: &Bench, address: &Address) -> anyhow::Result<Process> {
    if kind == Kind::NbdServer {
        return nbd_server(bench, address);
    }
    let command = match kind {
        Kind::QemuIoUring => qemu_nbd("io_uring", bench, address),
        Kind::QemuNative => qemu_nbd("native", bench, address),
        Kind::QemuThreads => qemu_nbd("threads", bench, address),
        Kind::TokioUring => baseline(bench, address),
        _ => nbdkit(kind, bench, address),
    };
    let (name, program) = (kind.name(), kind.program(bench));
    Process::start(bench, name, bench.server_cpu, &program, &command)
}

fn text(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn qemu_nbd(aio: &str, bench: &Bench, address: &Address) -> Vec<String> {
    let mut command = text(&["-t", "-e", "16", "-f", "raw", "--cache=none"]);
    command.push(format!("--aio={aio}"));
    command.extend(match address {
        Address::Unix { socket } => text(&["-k", socket]),
        Address::Tcp { port, .. } => text(&["-b", "127.0.0.1", "-p", &port.to_string()]),
    });
    if let Some(folder) = &bench.tls {
        let folder = folder.display();
        command.push("--object".to_owned());
        command.push(format!(
            "tls-creds-x509,id=t,endpoint=server,dir={folder},verify-peer=yes"
        ));
        command.extend(text(&["--tls-creds", "t"]));
    }
    command.push(bench.image.display().to_string());
    command
}

fn nbdkit(kind: Kind, bench: &Bench, address: &Address) -> Vec<String> {
    let mut command = match address {
        Address::Unix { socket } => text(&["-f", "-U", socket]),
        Address::Tcp { port, .. } => text(&["-f", "-i", "127.0.0.1", "-p", &port.to_string()]),
    };
    if let Some(folder) = &bench.tls {
        command.extend(text(&["--tls=require", "--tls-verify-peer"]));
        command.push(format!("--tls-certificates={}", folder.display()));
    }
    command.extend(match kind {
        Kind::NbdkitMemory => text(&["memory", &bench.size.to_string()]),
        _ => text(&["file", &bench.image.display().to_string()]),
    });
    command
}

/// This program's own server on a stock runtime.
fn baseline(bench: &Bench, address: &Address) -> Vec<String> {
    let mut command = text(&["baseline", "--size", &bench.size.to_string()]);
    command.extend(match address {
        Address::Unix { socket } => text(&["--socket", socket]),
        Address::Tcp { port, .. } => text(&["--port", &port.to_string()]),
    });
    if bench.backing == Backing::File {
        command.extend(["--file".to_owned(), bench.image.display().to_string()]);
    }
    command
}

/// nbd-server, which writes its pid down and goes to the background.
fn nbd_server(bench: &Bench, address: &Address) -> anyhow::Result<Process> {
    let (configuration, pid_file) = (
        bench.scratch.path().join("nbd.conf"),
        bench.scratch.path().join("nbd.pid"),
    );
    let listen = match address {
        // It always listens on TCP, too.
        Address::Unix { socket } => {
            format!("  unixsock = {socket}\n  port = {}\n", free_port()?)
        }
        Address::Tcp { port, .. } => format!("  port = {port}\n"),
    };
    let image = bench.image.display();
    let text = format!(
        "[generic]\n  listenaddr = 127.0.0.1\n  allowlist = true\n{listen}\
         [{EXPORT}]\n  exportname = {image}\n"
    );
    fs::write(&configuration, text).context("cannot write its configuration")?;
    let _ = fs::remove_file(&pid_file);
    let path = |path: &Path| path.display().to_string();
    let arguments = [
        "-C".to_owned(),
        path(&configuration),
        "-p".to_owned(),
        path(&pid_file),
    ];
    let (cpu, program) = (bench.server_cpu, Path::new("nbd-server"));
    let process = Process::start(bench, "nbd-server", cpu, program, &arguments)?;
    process.into_background(&pid_file)
}
