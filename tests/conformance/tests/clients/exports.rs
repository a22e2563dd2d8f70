//! Exports that change under clients: the verbs, the file they edit, and what others notice.

use std::fs;
use std::time::Duration;

use conformance::raw::{Raw, Style};
use conformance::{Daemon, Lab, Ran, eventually};
use serde_json::Value;

use crate::stage::{Stage, client, client_ok};

struct Bed {
    daemon: Daemon,
    lab: Lab,
}

impl Bed {
    fn new() -> Bed {
        let Stage { daemon, lab } = Stage::new();
        Bed { daemon, lab }
    }

    fn pollux(&self, line: &str) -> Ran {
        let words: Vec<&str> = line.split_whitespace().collect();
        self.lab.pollux("solo", &words)
    }

    fn done(&self, line: &str) -> String {
        self.pollux(line).ok().stdout
    }

    fn file(&self) -> String {
        fs::read_to_string(self.lab.config()).expect("it is there")
    }

    fn write(&self, from: &str, to: &str) {
        let text = self.file();
        assert!(text.contains(from), "{from}");
        fs::write(self.lab.config(), text.replacen(from, to, 1)).expect("it can be written");
    }

    fn attach(&self, export: &str) -> Raw {
        let mut client = Raw::unix(&self.lab.node("solo").nbd_socket()).expect("it listens");
        client.go(export, Style::Simple);
        client
    }

    fn clients(&self) -> Vec<Value> {
        let entry = self.lab.volume("solo", "mem");
        entry["clients"].as_array().expect("an array").clone()
    }

    fn serves(&self, export: &str) -> bool {
        let uri = self.lab.node("solo").unix_uri(export);
        client("nbdinfo", &["--size", &uri]).exit == 0
    }
}

/// A request is still answered.
fn answers(client: &mut Raw) {
    let read = conformance::raw::request(0, 0, 7, 0, 512);
    client.send(&read).expect("it is taken");
    assert_eq!(client.reply(512).expect("it is answered").error, 0);
}

#[test]
fn an_export_comes_and_goes_without_anybody_else_noticing() {
    if !conformance::tools::have(&[("nbdinfo", "libnbd-bin")]) {
        return;
    }
    let bed = Bed::new();
    bed.write("[volume.mem]", "# in memory\n[volume.mem]");
    let mut other = bed.attach("mem");
    let said = bed.done("export nbd add mem copy --read-only --description nightly");
    assert!(said.starts_with("mem: export copy is served\n"), "{said}");
    let kept = "{ name = \"copy\", read_only = true, description = \"nightly\" }";
    let file = bed.file();
    assert!(
        file.contains(kept) && file.contains("# in memory"),
        "{file}"
    );
    assert!(bed.serves("copy"));
    let listed = client_ok("nbdinfo", &["--list", &bed.lab.node("solo").uri("")]);
    assert!(listed.stdout.contains("export=\"copy\""), "{listed:?}");

    let mut reader = bed.attach("copy");
    bed.done("export nbd rename mem copy nightly");
    assert!(bed.serves("nightly") && !bed.serves("copy"));
    answers(&mut reader);
    let shown = bed.done("export nbd show mem");
    assert!(shown.contains("export nightly  read-only"), "{shown}");

    let said = bed.done("export nbd remove mem nightly");
    assert!(said.contains("clients that are attached stay"), "{said}");
    assert!(!bed.serves("nightly"));
    answers(&mut reader);
    answers(&mut other);
    assert_eq!(bed.daemon.stop(), 0);
}

#[test]
fn clients_are_cut_off_by_number_address_and_export() {
    let bed = Bed::new();
    bed.done("export nbd add mem second");
    let mut one = bed.attach("mem");
    let mut two = bed.attach("second");
    let found = bed.clients();
    let of = |export: &str| {
        let mut found = found.iter();
        found
            .find(|client| client["export"] == export)
            .expect("it is attached")
    };
    let id = of("mem")["id"].as_u64().expect("a number");
    bed.done(&format!("export nbd disconnect mem {id}"));
    assert!(one.reply(0).is_err(), "the connection ended");
    answers(&mut two);
    let refused = bed.pollux(&format!("export nbd disconnect mem {id}"));
    assert_eq!(refused.exit, 3);
    assert!(refused.stderr.contains("error[E218]"), "{refused:?}");
    let said = bed.done("export nbd remove mem second --disconnect");
    assert!(said.contains("cut off unix:"), "{said}");
    assert!(two.reply(0).is_err(), "the connection ended");
    eventually(Duration::from_secs(5), "nobody is left", || {
        bed.clients().is_empty().then_some(())
    });
}

#[test]
fn clients_stay_those_of_their_export_whatever_it_is_called() {
    let bed = Bed::new();
    bed.done("export nbd add mem copy");
    let mut before = bed.attach("copy");
    bed.done("export nbd rename mem copy moved");
    let shown = bed.clients();
    assert_eq!(shown[0]["export"], "moved", "{shown:?}");
    // Another export takes the old name: its clients are not those of the first.
    bed.done("export nbd add mem copy --attach takeover");
    let mut other = bed.attach("copy");
    answers(&mut before);
    bed.done("export nbd remove mem moved --disconnect");
    assert!(before.reply(0).is_err(), "the connection ended");
    answers(&mut other);
}

#[test]
fn what_cannot_be_changed_changes_nothing() {
    let bed = Bed::new();
    let before = bed.file();
    for (line, exit, words) in [
        (
            "export nbd add none x",
            3,
            "error[E110]: node solo has no volume none",
        ),
        (
            "export nbd remove mem mmem",
            3,
            "error[E128]: volume mem has no export mmem",
        ),
        ("export nbd rename mem x y", 3, "hint: its exports: mem"),
        (
            "export nbd add mem disk",
            9,
            "two exports of one node are named \"disk\"",
        ),
        (
            "export nbd add mem x --allow 10.0.0.1/24",
            9,
            "did you mean `10.0.0.0/24`?",
        ),
        (
            "export nbd add mem x --attach both",
            9,
            "`attach` of [volume.mem] nbd",
        ),
        (
            "export nbd add mem x --allow-subject CN=a",
            9,
            "asks for TLS, but node solo has none",
        ),
        (
            "export nbd disconnect mem 10.0.0.1:1",
            3,
            "mem has no client at 10.0.0.1:1",
        ),
    ] {
        let ran = bed.pollux(line);
        assert_eq!(ran.exit, exit, "{line}: {ran:?}");
        assert!(ran.stderr.contains(words), "{line}: {ran:?}");
    }
    assert_eq!(bed.file(), before);
    // A file that somebody broke meanwhile is neither edited nor taken over.
    bed.write("size", "sizee");
    for line in ["export nbd add mem x", "config apply"] {
        let ran = bed.pollux(line);
        assert_eq!(ran.exit, 9, "{line}: {ran:?}");
        assert!(ran.stderr.contains("error[E014]"), "{line}: {ran:?}");
    }
    answers(&mut bed.attach("mem"));
}

#[test]
fn the_file_is_taken_over_by_apply_and_by_sighup() {
    let bed = Bed::new();
    let mut other = bed.attach("mem");
    bed.write(
        "{ name = \"disk-ro\"",
        "{ name = \"new\", read_only = true }, { name = \"disk-ro\"",
    );
    assert!(bed.done("config apply").contains("4 exports in force"));
    answers(&mut bed.attach("new"));
    bed.write("{ name = \"new\"", "{ name = \"newer\"");
    bed.daemon.reload();
    eventually(Duration::from_secs(5), "the export is there", || {
        bed.done("export nbd list").contains("newer").then_some(())
    });
    // What cannot change while running is named, and the rest holds.
    bed.write("[volume.mem]\n", "[volume.mem]\npolling = \"cpu\"\n");
    bed.write("{ name = \"newer\"", "{ name = \"newest\"");
    let ran = bed.pollux("config apply");
    assert_eq!(ran.exit, 10, "{ran:?}");
    assert!(
        ran.stdout.contains("needs a restart: [volume.mem]"),
        "{ran:?}"
    );
    answers(&mut bed.attach("newest"));
    answers(&mut other);
}

#[test]
fn an_exclusive_export_takes_one_client_and_a_takeover_the_newest() {
    if !conformance::tools::have(&[("nbdinfo", "libnbd-bin")]) {
        return;
    }
    let bed = Bed::new();
    bed.done("export nbd add mem one --attach exclusive");
    bed.done("export nbd add mem last --attach takeover");
    let mut first = bed.attach("one");
    let uri = bed.lab.node("solo").unix_uri("one");
    let refused = client("nbdinfo", &[&uri]);
    assert_ne!(refused.exit, 0, "{refused:?}");
    answers(&mut first);
    drop(first);
    eventually(Duration::from_secs(5), "its place is free", || {
        bed.serves("one").then_some(())
    });
    let info = client_ok("nbdinfo", &[&uri]);
    assert!(info.stdout.contains("can_multi_conn: false"), "{info:?}");

    let mut before = bed.attach("last");
    answers(&mut before);
    let mut after = bed.attach("last");
    answers(&mut after);
    assert!(before.reply(0).is_err(), "it was cut off before");
}
