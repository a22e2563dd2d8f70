//! What each client is asked to do. A run panics with what went wrong.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::{Bench, Place, Transport};
use crate::{Ran, eventually, image, tools};

/// Longest time a client may take on a busy machine.
const CLIENT_MAX: Duration = Duration::from_secs(120);

/// A client of the matrix.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// Its name.
    pub name: &'static str,
    /// What it does here.
    pub shown: &'static str,
    /// (program, Debian package); the first is asked for its version.
    pub needed: &'static [(&'static str, &'static str)],
    /// Why it cannot use a transport, if it cannot.
    pub lacks: fn(Transport) -> Option<&'static str>,
    /// Runs it; the export holds the bench's image or anything else before.
    pub run: fn(&Bench, &Place),
}

const LIBNBD: (&str, &str) = ("nbdcopy", "libnbd-bin");

/// All of them.
pub const CLIENTS: &[Client] = &[
    Client {
        name: "nbdinfo",
        shown: "size, list, map",
        needed: &[("nbdinfo", "libnbd-bin")],
        lacks: all,
        run: nbdinfo,
    },
    Client {
        name: "nbdcopy",
        shown: "an ext4 image in and out over four connections",
        needed: &[LIBNBD],
        lacks: all,
        run: nbdcopy,
    },
    Client {
        name: "nbdsh",
        shown: "write, FUA, zero, trim, flush, block status, read back",
        needed: &[("nbdsh", "python3-libnbd")],
        lacks: all,
        run: nbdsh,
    },
    Client {
        name: "nbdfuse",
        shown: "the image copied into and out of a mounted file",
        needed: &[("nbdfuse", "libnbd-bin"), ("fusermount3", "fuse3")],
        lacks: nbdfuse_lacks,
        run: nbdfuse,
    },
    Client {
        name: "qemu-img",
        shown: "convert, compare, map",
        needed: &[("qemu-img", "qemu-utils")],
        lacks: all,
        run: qemu_img,
    },
    Client {
        name: "qemu-io",
        shown: "patterns at any alignment, zeroes, discard, flush",
        needed: &[("qemu-io", "qemu-utils")],
        lacks: all,
        run: qemu_io,
    },
    Client {
        name: "qemu-storage-daemon",
        shown: "exports our export again; the image through both",
        needed: &[("qemu-storage-daemon", "qemu-system-common"), LIBNBD],
        lacks: all,
        run: qemu_storage_daemon,
    },
    Client {
        name: "nbdkit nbd plugin",
        shown: "serves our export again; the image through both",
        needed: &[("nbdkit", "nbdkit"), LIBNBD],
        lacks: all,
        run: nbdkit,
    },
    Client {
        name: "fio",
        shown: "four jobs of random writes, crc32c verified",
        needed: &[("fio", "fio")],
        lacks: allows_no_certificates,
        run: fio,
    },
];

impl Client {
    /// What it says of its version; empty if it is not installed.
    pub fn version(&self) -> String {
        let Some(program) = tools::find(self.needed[0].0) else {
            return String::new();
        };
        let ran = tools::run(with(&program, &["--version"]), CLIENT_MAX);
        let line = ran.stdout.lines().next().unwrap_or_default();
        let is_version =
            |word: &&str| word.contains('.') && word.contains(|c: char| c.is_ascii_digit());
        let word = line.split([' ', '-']).find(is_version);
        word.unwrap_or(line).to_owned()
    }
}

fn all(_: Transport) -> Option<&'static str> {
    None
}

fn nbdfuse_lacks(transport: Transport) -> Option<&'static str> {
    let is_there = fs::metadata("/dev/fuse").is_ok();
    let without = (!is_there).then_some("no /dev/fuse here");
    without.or_else(|| allows_no_certificates(transport))
}

/// nbdfuse 1.14 and fio 3.33 take a URI and nothing else, and do not let it name local files; what
/// is left is a system-wide folder.
fn allows_no_certificates(transport: Transport) -> Option<&'static str> {
    transport
        .is_tls()
        .then_some("the client lets a URI name no certificates")
}

/// A command, with Debian's own programs before any others of the same name.
fn with<W: AsRef<OsStr>>(program: &Path, words: &[W]) -> Command {
    let mut command = Command::new(program);
    let path = std::env::var("PATH").unwrap_or_default();
    command
        .args(words)
        .env("PATH", format!("/usr/bin:/bin:{path}"));
    command
}

fn done<W: AsRef<OsStr>>(program: &str, words: &[W]) -> Ran {
    let path = tools::find(program).expect("it was looked for before");
    let ran = tools::run(with(&path, words), CLIENT_MAX);
    let said = format!("{} {}", ran.stderr.trim(), ran.stdout.trim());
    assert_eq!(ran.exit, 0, "{program}: exit {}: {said}", ran.exit);
    ran
}

/// A program beside the test; ended with the value.
struct Beside(Child);

impl Beside {
    fn start<W: AsRef<OsStr>>(program: &str, words: &[W]) -> Beside {
        let path = tools::find(program).expect("it was looked for before");
        let mut command = with(&path, words);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Beside(command.spawn().expect("it can be run"))
    }

    /// Waits until it made `path`.
    fn until(&mut self, path: &Path) {
        eventually(Duration::from_secs(20), "it serves", || {
            let ended = self.0.try_wait().expect("a child can be waited for");
            assert!(ended.is_none(), "it ended at once: {ended:?}");
            path.exists().then_some(())
        });
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn word(path: &Path) -> String {
    path.display().to_string()
}

/// A path that no other run used.
fn fresh(bench: &Bench, name: &str, place: &Place) -> PathBuf {
    bench.lab.path(&format!("{name}-{:?}", place.transport))
}

/// The export is emptied, so that what a client left there is not taken for another's work.
fn empty(bench: &Bench) {
    let plain = bench.place(Transport::Unix).expect("it is always there");
    let mut client = crate::raw::Raw::unix(&plain.socket).expect("the listener accepts");
    client.go(&plain.export, crate::raw::Style::Simple);
    let zeroes = crate::raw::cmd::WRITE_ZEROES;
    let request = crate::raw::request(0, zeroes, 1, 0, plain.size_bytes as u32);
    client.send(&request).expect("it is taken");
    assert_eq!(client.reply(0).expect("it is answered").error, 0);
}

/// The export holds the bench's image, as another client and transport sees it.
fn holds_the_image(bench: &Bench, place: &Place) {
    let plain = bench.place(Transport::Unix).expect("it is always there");
    let out = fresh(bench, "seen.img", place);
    done("nbdcopy", &[plain.uri(), word(&out)]);
    assert_eq!(
        image::sha256(&out),
        bench.sum,
        "the export differs from the image"
    );
    fs::remove_file(out).expect("nobody uses it");
}

fn nbdinfo(_: &Bench, place: &Place) {
    let ran = done("nbdinfo", &["--json", &place.uri()]);
    let told: Value = serde_json::from_str(&ran.stdout).expect("nbdinfo prints JSON");
    assert_eq!(told["exports"][0]["export-size"], place.size_bytes);
    assert_eq!(told["TLS"], place.transport.is_tls());
    let ran = done("nbdinfo", &["--list", &place.uri()]);
    assert!(ran.stdout.contains("export=\"v\""), "{}", ran.stdout);
    let ran = done("nbdinfo", &["--map", "--totals", "--json", &place.uri()]);
    let told: Value = serde_json::from_str(&ran.stdout).expect("nbdinfo prints JSON");
    let sizes = told.as_array().expect("an array").iter();
    let sum: u64 = sizes
        .map(|total| total["size"].as_u64().expect("a number"))
        .sum();
    assert_eq!(sum, place.size_bytes);
}

fn nbdcopy(bench: &Bench, place: &Place) {
    empty(bench);
    let uri = place.uri();
    done(
        "nbdcopy",
        &["--connections=4", "--flush", &word(&bench.image), &uri],
    );
    let out = fresh(bench, "out.img", place);
    done("nbdcopy", &["--connections=4", &uri, &word(&out)]);
    assert_eq!(image::sha256(&out), bench.sum, "another image came out");
    fs::remove_file(out).expect("nobody uses it");
}

fn nbdsh(_: &Bench, place: &Place) {
    let connect = format!(
        "h.set_uri_allow_local_file(True); h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION); \
         h.connect_uri('{}')",
        place.uri()
    );
    let script = "\
h.pwrite(b'p' * 5000, 12345)
h.pwrite(b'q' * 512, 65536, nbd.CMD_FLAG_FUA)
assert h.pread(5000, 12345) == b'p' * 5000
h.zero(4096, 65536); h.trim(65536, 131072); h.flush()
assert h.pread(512, 65536) == bytes(512)
found = []
h.block_status(1 << 20, 0, lambda *answer: found.append(answer) and 0)
assert found and sum(found[0][2][::2]) > 0
assert h.can_multi_conn() and h.can_fua() and h.can_df()
h.shutdown()";
    done("nbdsh", &["-c", &connect, "-c", script]);
}

fn nbdfuse(bench: &Bench, place: &Place) {
    empty(bench);
    let folder = fresh(bench, "fuse", place);
    fs::create_dir(&folder).expect("the lab's folder is writable");
    let disk = folder.join("disk");
    let mut mounted = Beside::start("nbdfuse", &[word(&disk), place.uri()]);
    mounted.until(&disk);
    let (from, to) = (
        format!("if={}", bench.image.display()),
        format!("of={}", disk.display()),
    );
    done(
        "dd",
        &[&from, &to, "bs=1M", "conv=notrunc,fsync", "status=none"],
    );
    let sum = image::sha256(&disk);
    done("fusermount3", &["-u", &word(&folder)]);
    drop(mounted);
    assert_eq!(sum, bench.sum, "the mounted file differs from the image");
    holds_the_image(bench, place);
}

fn qemu_img(bench: &Bench, place: &Place) {
    empty(bench);
    let (image, options) = (word(&bench.image), place.qemu_options());
    let objects = place.qemu_objects();
    let img = |verb: &str, words: &[&str]| {
        let mut all = vec![verb.to_owned()];
        all.extend(objects.clone());
        all.extend(words.iter().map(|word| (*word).to_owned()));
        done("qemu-img", &all)
    };
    img(
        "convert",
        &["-n", "-f", "raw", "--target-image-opts", &image, &options],
    );
    let source = format!("driver=raw,file.driver=file,file.filename={image}");
    img("compare", &["--image-opts", &source, &options]);
    let ran = img("map", &["--output=json", "--image-opts", &options]);
    let extents: Value = serde_json::from_str(&ran.stdout).expect("qemu-img prints JSON");
    let extents = extents.as_array().expect("an array");
    let is_data = |extent: &&Value| extent["data"] == true;
    let data = extents.iter().filter(is_data).count();
    assert!(
        data > 0 && data < extents.len(),
        "{data} of {} extents are data",
        extents.len()
    );
    holds_the_image(bench, place);
}

fn qemu_io(bench: &Bench, place: &Place) {
    empty(bench);
    let mut words = place.qemu_objects();
    words.extend(["--image-opts".into(), place.qemu_options()]);
    let commands = [
        "write -P 0x5a 4096 65536",
        "write -f -P 0xa5 12345 777",
        "read -P 0x5a 13122 4096",
        "read -P 0xa5 12345 777",
        "write -z -u 8192 4096",
        "read -P 0 8192 4096",
        "discard 65536 4096",
        "aio_write -P 0x11 1M 2M",
        "aio_write -P 0x22 4M 2M",
        "aio_flush",
        "read -P 0x11 1M 2M",
        "read -P 0x22 4M 2M",
        "flush",
    ];
    words.extend(
        commands
            .iter()
            .flat_map(|command| ["-c".to_owned(), (*command).to_owned()]),
    );
    let ran = done("qemu-io", &words);
    for wrong in ["Pattern verification failed", "failed:"] {
        assert!(!ran.stdout.contains(wrong), "{}", ran.stdout);
    }
}

/// The image goes in through a server that is a client of ours, and is seen from another side.
fn through(bench: &Bench, place: &Place, uri: &str) {
    done("nbdcopy", &["--flush", &word(&bench.image), uri]);
    let out = fresh(bench, "through.img", place);
    done("nbdcopy", &[uri, &word(&out)]);
    assert_eq!(image::sha256(&out), bench.sum, "another image came out");
    fs::remove_file(out).expect("nobody uses it");
    holds_the_image(bench, place);
}

fn qemu_storage_daemon(bench: &Bench, place: &Place) {
    empty(bench);
    let socket = fresh(bench, "qsd", place);
    let mut words = place.qemu_objects();
    words.extend([
        "--blockdev".into(),
        format!("{},node-name=pollux", place.qemu_options()),
        "--nbd-server".into(),
        format!("addr.type=unix,addr.path={}", socket.display()),
        "--export".into(),
        "type=nbd,id=again,node-name=pollux,name=again,writable=on".into(),
    ]);
    let mut server = Beside::start("qemu-storage-daemon", &words);
    server.until(&socket);
    through(
        bench,
        place,
        &format!("nbd+unix:///again?socket={}", socket.display()),
    );
}

fn nbdkit(bench: &Bench, place: &Place) {
    empty(bench);
    let socket = fresh(bench, "nbdkit", place);
    let mut words = vec![
        "-f".to_owned(),
        "-U".to_owned(),
        word(&socket),
        "nbd".to_owned(),
    ];
    match &place.certificates {
        None => words.push(format!("uri={}", place.uri())),
        Some(folder) => {
            match place.transport {
                Transport::UnixTls => words.push(format!("socket={}", place.socket.display())),
                _ => words.extend(["hostname=127.0.0.1".into(), format!("port={}", place.port)]),
            }
            words.push(format!("export={}", place.export));
            words.push("tls=require".to_owned());
            words.push(format!("tls-certificates={}", folder.display()));
        }
    }
    let mut server = Beside::start("nbdkit", &words);
    server.until(&socket);
    through(
        bench,
        place,
        &format!("nbd+unix:///?socket={}", socket.display()),
    );
}

fn fio(_: &Bench, place: &Place) {
    let uri = format!("--uri={}", place.uri());
    let ran = done(
        "fio",
        &[
            "--name=v",
            "--ioengine=nbd",
            &uri,
            "--rw=randwrite",
            "--bsrange=512-64k",
            "--blockalign=512",
            "--iodepth=16",
            "--numjobs=4",
            "--size=8M",
            "--offset_increment=8M",
            "--fsync=64",
            "--verify=crc32c",
            "--do_verify=1",
            "--verify_fatal=1",
            "--verify_state_save=0",
            "--output-format=json",
        ],
    );
    let start = ran.stdout.find('{').expect("fio prints JSON");
    let report: Value = serde_json::from_str(&ran.stdout[start..]).expect("fio prints JSON");
    for job in report["jobs"].as_array().expect("an array of jobs") {
        assert_eq!(job["error"], 0);
        assert_eq!(job["read"]["io_bytes"], 8 << 20, "everything was read back");
    }
}
