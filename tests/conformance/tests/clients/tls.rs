//! Clients under TLS: libnbd's programs, qemu and nbdkit, with certificates that `pollux tls init`
//! made.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use conformance::{Daemon, Lab, Ran, tools};

use crate::stage::{CLIENT_MAX, client, client_ok, word};

const NBDINFO: (&str, &str) = ("nbdinfo", "libnbd-bin");
const NBDCOPY: (&str, &str) = ("nbdcopy", "libnbd-bin");
const QEMU_IMG: (&str, &str) = ("qemu-img", "qemu-utils");
const QEMU_IO: (&str, &str) = ("qemu-io", "qemu-utils");
const NBDKIT: (&str, &str) = ("nbdkit", "nbdkit");

/// A node that serves nobody without TLS, and the folders of its authority's clients.
pub struct Bed {
    /// Ends before the lab's folder goes.
    pub daemon: Daemon,
    pub lab: Lab,
}

impl Bed {
    fn new() -> Bed {
        Bed::on("memory")
    }

    /// With a volume and export `v` in memory or in a file.
    pub fn on(backing: &str) -> Bed {
        let text = format!(
            "{}require = true\n\
             [volume.v]\nsize = \"48MiB\"\nbacking = \"{backing}\"\nreplicas = [\"solo\"]\n\
             nbd = [{{ name = \"v\" }}, {{ name = \"one\", allow_subjects = [\"CN=hyper1\"] }}]\n",
            Lab::tls_table("solo")
        );
        let lab = Lab::new(&["solo"], &text);
        for (folder, name) in [("tls", "hyper1"), ("tls", "hyper2"), ("other", "hyper1")] {
            let folder = lab.path(folder);
            lab.done("solo", &["tls", "init", word(&folder), "--client", name]);
        }
        let daemon = lab.serve("solo");
        lab.done("solo", &["volume", "create", "v"]);
        lab.until_serving("solo", "v", Duration::from_secs(10));
        Bed { daemon, lab }
    }

    /// The folder of certificates of hyper1, or of another.
    fn folder(&self, name: &str) -> PathBuf {
        self.lab.path(name)
    }

    /// What libnbd calls the export over TCP and over the Unix socket.
    pub fn uris(&self, export: &str, folder: &str) -> [String; 2] {
        let node = self.lab.node("solo");
        let folder = self.folder(folder);
        let folder = word(&folder);
        let tcp = node.uri(export).replace("nbd://", "nbds://");
        let unix = node.unix_uri(export).replace("nbd+unix://", "nbds+unix://");
        [
            format!("{tcp}?tls-certificates={folder}"),
            format!("{unix}&tls-certificates={folder}"),
        ]
    }

    /// What qemu's programs take: the credentials and the image.
    fn qemu(&self, export: &str, folder: &str) -> Vec<String> {
        let dir = self.folder(folder);
        let node = self.lab.node("solo");
        let port = node
            .uri("")
            .rsplit(':')
            .next()
            .map(|port| port.replace('/', ""));
        let port = port.expect("URIs of a lab have ports");
        vec![
            "--object".to_owned(),
            format!(
                "tls-creds-x509,id=t,endpoint=client,dir={},verify-peer=yes",
                word(&dir)
            ),
            "--image-opts".to_owned(),
            format!("driver=nbd,host=localhost,port={port},export={export},tls-creds=t"),
        ]
    }

    /// nbdinfo of an export, which must fail.
    fn refused(&self, uri: &str) -> Ran {
        let ran = client("nbdinfo", &[uri]);
        assert_ne!(ran.exit, 0, "{ran:?}");
        ran
    }
}

fn qemu_ok(program: &str, verb: &[&str], rest: &[String], commands: &[&str]) {
    let path = tools::find(program).unwrap_or_else(|| program.into());
    let mut command = Command::new(path);
    command
        .args(verb)
        .args(&rest[..3])
        .args(commands)
        .args(&rest[3..]);
    tools::run(command, CLIENT_MAX).ok();
}

#[test]
fn libnbd_copies_over_four_connections_under_tls() {
    if !tools::have(&[NBDINFO, NBDCOPY]) {
        return;
    }
    let bed = Bed::new();
    let folder = tempfile::tempdir_in(bed.lab.path("")).expect("the lab's folder is writable");
    let Some(image) = conformance::image::ext4(folder.path(), 48) else {
        return;
    };
    let sum = conformance::image::sha256(&image);
    for uri in bed.uris("v", "tls") {
        client_ok("nbdcopy", &["--flush", word(&image), &uri]);
        let out = folder.path().join("out.img");
        client_ok("nbdcopy", &[&uri, word(&out)]);
        assert_eq!(conformance::image::sha256(&out), sum, "{uri}");
        let info = client_ok("nbdinfo", &[&uri]);
        assert!(
            info.stdout.contains("newstyle-fixed with TLS"),
            "{}",
            info.stdout
        );
    }
    assert_eq!(bed.daemon.stop(), 0);
}

#[test]
fn qemu_converts_and_reads_back_under_tls() {
    if !tools::have(&[QEMU_IMG, QEMU_IO]) {
        return;
    }
    let bed = Bed::new();
    let image = bed.qemu("v", "tls");
    let commands = [
        "-c",
        "write -P 0x11 0 64k",
        "-c",
        "write -P 0x22 5000 70001",
        "-c",
        "flush",
        "-c",
        "read -P 0x22 5000 70001",
        "-c",
        "write -P 0x78 8M 32M",
        "-c",
        "read -P 0x78 8M 32M",
        "-c",
        "discard 8M 1M",
        "-c",
        "read -P 0 8M 1M",
    ];
    qemu_ok("qemu-io", &[], &image, &commands);
    qemu_ok("qemu-img", &["info"], &image, &[]);
    qemu_ok("qemu-img", &["map"], &image, &[]);
}

#[test]
fn nbdkit_forwards_under_tls() {
    if !tools::have(&[NBDKIT, NBDINFO, NBDCOPY]) {
        return;
    }
    let bed = Bed::new();
    let dir = bed.folder("tls");
    let socket = bed.lab.node("solo").file("nbd.sock");
    let out = bed.lab.path("out.img");
    let [uri, _] = bed.uris("v", "tls");
    client_ok(
        "nbdcopy",
        &[
            "--",
            "[",
            "nbdkit",
            "data",
            "0x5a*100000",
            "size=48M",
            "]",
            &uri,
        ],
    );
    client_ok(
        "nbdkit",
        &[
            "-U",
            "-",
            "nbd",
            &format!("socket={}", word(&socket)),
            "export=v",
            "tls=require",
            &format!("tls-certificates={}", word(&dir)),
            // Over a Unix socket there is no name to compare with the certificate.
            "tls-verify=false",
            "--run",
            &format!("nbdcopy \"$uri\" {}", word(&out)),
        ],
    );
    let bytes = std::fs::read(out).expect("nbdkit's client made it");
    assert!(bytes[..100_000].iter().all(|byte| *byte == 0x5a));
    assert_eq!(bytes[100_000..].iter().max(), Some(&0));
}

#[test]
fn a_client_in_the_clear_is_told_to_use_tls() {
    if !tools::have(&[NBDINFO, QEMU_IMG]) {
        return;
    }
    let bed = Bed::new();
    let uri = bed.lab.node("solo").uri("v");
    bed.refused(&uri);
    let ran = client("qemu-img", &["info", &uri]);
    assert_ne!(ran.exit, 0);
    assert!(ran.stderr.contains("TLS"), "{ran:?}");
}

#[test]
fn a_certificate_of_another_authority_opens_nothing() {
    if !tools::have(&[NBDINFO]) {
        return;
    }
    let bed = Bed::new();
    // It does not trust the server either; told not to care, it is the server that refuses.
    for uri in bed.uris("v", "other") {
        bed.refused(&uri);
        bed.refused(&format!("{uri}&tls-verify-peer=false"));
    }
    let status = bed.lab.volume("solo", "v");
    assert_eq!(status["clients"].as_array().map(Vec::len), Some(0));
    let log = std::fs::read_to_string(bed.lab.path("solo.log")).expect("the daemon logs");
    assert!(log.contains("TLS did not come up"), "{log}");
}

#[test]
fn a_certificate_opens_the_exports_that_name_it() {
    if !tools::have(&[NBDINFO]) {
        return;
    }
    let bed = Bed::new();
    for uri in bed.uris("one", "tls") {
        client_ok("nbdinfo", &["--size", &uri]);
    }
    for uri in bed.uris("one", "tls/hyper2") {
        // libnbd does not repeat the server's words, which are tested beside the server.
        let ran = bed.refused(&uri);
        assert!(ran.stderr.contains("not supported"), "{ran:?}");
    }
    // The list says of "one" to hyper1 only.
    for (folder, count) in [("tls", 2), ("tls/hyper2", 1)] {
        let [uri, _] = bed.uris("", folder);
        let ran = client_ok("nbdinfo", &["--list", "--json", &uri]);
        let found = ran.stdout.matches("\"export-name\"").count();
        assert_eq!(found, count, "{ran:?}");
    }
}
