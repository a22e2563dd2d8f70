//! Replicas that cannot attach: offline or not created, with a reason, while the rest runs on.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;

use conformance::Lab;
use scenario::disk::{attach, read, try_attach, write};
use serde_json::Value;

fn volume(name: &str) -> String {
    format!(
        "[volume.{name}]\nsize = \"16MiB\"\nbacking = \"{name}.img\"\nreplicas = [\"solo\"]\n\
         nbd = [{{ name = \"{name}\" }}]\n"
    )
}

/// A node with the volumes `a` and `b`, written to and stopped.
fn at_rest() -> Lab {
    let lab = Lab::new(&["solo"], &format!("{}{}", volume("a"), volume("b")));
    let daemon = lab.serve("solo");
    for (name, byte) in [("a", 0xa), ("b", 0xb)] {
        lab.done("solo", &["volume", "create", name]);
        lab.until_serving("solo", name, scenario::HEALTHY_MAX);
        let mut client = attach(&lab.node("solo").uri(name));
        assert_eq!(write(&mut client, 0, &[byte; 8192]), Ok(()));
    }
    assert_eq!(daemon.stop(), 0);
    lab
}

/// Volume `a` is offline and its files stay as they are; volume `b` serves.
fn only_a_is_offline(lab: &Lab, words: &[&str]) {
    let node = lab.node("solo");
    let before = [node.metadata("a"), node.file("a.img")].map(|path| fs::read(path).ok());
    let daemon = lab.serve("solo");
    let entry = lab.volume("solo", "a");
    assert_eq!(entry["state"], "offline", "{entry:#}");
    let text = entry["reason"]["text"].as_str().unwrap_or_default();
    for word in words {
        assert!(text.contains(word), "no {word} in: {text}");
    }
    let refused = try_attach(&node.uri("a"))
        .err()
        .expect("an offline volume takes no clients");
    assert!(
        refused.in_full().contains("a is offline"),
        "{}",
        refused.in_full()
    );
    lab.until_serving("solo", "b", scenario::HEALTHY_MAX);
    let mut client = attach(&node.uri("b"));
    assert_eq!(read(&mut client, 0, 8192), Ok(vec![0xb; 8192]));
    assert_eq!(lab.pollux("solo", &["status", "--check"]).exit, 6);
    assert_eq!(lab.pollux("solo", &["promote", "a"]).exit, 1);
    drop(client);
    assert_eq!(daemon.stop(), 0);
    let after = [node.metadata("a"), node.file("a.img")].map(|path| fs::read(path).ok());
    assert!(before == after, "a replica that cannot attach was changed");
}

#[test]
fn damaged_metadata_is_refused_and_not_touched() {
    let lab = at_rest();
    let meta = lab.node("solo").metadata("a");
    let file = OpenOptions::new()
        .write(true)
        .open(meta)
        .expect("it was created");
    file.write_all_at(&[0xff; 65_536], 0)
        .expect("it can be written");
    drop(file);
    only_a_is_offline(&lab, &[]);
}

#[test]
fn metadata_of_another_volume_is_refused_and_not_touched() {
    let lab = at_rest();
    let node = lab.node("solo");
    fs::copy(node.metadata("b"), node.metadata("a")).expect("both were created");
    only_a_is_offline(&lab, &[]);
}

#[test]
fn a_missing_backing_is_named() {
    let lab = at_rest();
    fs::remove_file(lab.node("solo").file("a.img")).expect("it was created");
    only_a_is_offline(&lab, &["a.img"]);
    assert!(
        !lab.node("solo").file("a.img").exists(),
        "serve never makes one"
    );
}

#[test]
fn a_backing_that_is_too_short_is_refused() {
    let lab = at_rest();
    let file = OpenOptions::new()
        .write(true)
        .open(lab.node("solo").file("a.img"));
    file.and_then(|file| file.set_len(8 << 20))
        .expect("it was created");
    only_a_is_offline(&lab, &[]);
}

/// The metadata decides, and the difference is told: a mirror grows where the file is not at hand.
#[test]
fn a_volume_declared_with_another_size_keeps_its_own() {
    let lab = at_rest();
    let larger = volume("a").replace("16MiB", "32MiB");
    lab.write_config("lab", &format!("{larger}{}", volume("b")));
    let _daemon = lab.serve("solo");
    lab.until_serving("solo", "a", scenario::HEALTHY_MAX);
    let entry = lab.volume("solo", "a");
    assert_eq!(entry["size_bytes"], 16 << 20, "{entry:#}");
    let notes = entry["notes"].to_string();
    assert!(notes.contains("volume resize a 33554432B"), "{notes}");
    assert_eq!(
        read(&mut attach(&lab.node("solo").uri("a")), 0, 8192),
        Ok(vec![0xa; 8192])
    );
}

#[test]
fn a_volume_that_was_not_created_says_how_to() {
    let lab = Lab::new(&["solo"], &format!("{}{}", volume("a"), volume("b")));
    let daemon = lab.serve("solo");
    let entry = lab.volume("solo", "a");
    assert_eq!(
        (&entry["state"], &entry["generation"]),
        (&"not_created".into(), &Value::Null)
    );
    assert_eq!(entry["replicas"][0]["disk_state"], "not_created");
    let text = entry["reason"]["text"].as_str().unwrap_or_default();
    assert!(text.contains("pollux volume create a"), "{text}");
    assert!(try_attach(&lab.node("solo").uri("a")).is_err());
    assert_eq!(lab.pollux("solo", &["promote", "a"]).exit, 1);
    assert_eq!(lab.pollux("solo", &["status", "--check"]).exit, 5);
    assert_eq!(lab.pollux("solo", &["status", "nothing"]).exit, 3);
    drop(daemon);
    assert!(
        !lab.node("solo").file("a.img").exists(),
        "serve never makes one"
    );
}

#[test]
fn create_refuses_what_exists_unless_told() {
    let lab = Lab::new(&["solo"], &format!("{}{}", volume("a"), volume("b")));
    let _daemon = lab.serve("solo");
    let backing = lab.node("solo").file("a.img");
    let mut content = vec![0; 16 << 20];
    content[5000..9000].fill(0x77);
    fs::write(&backing, &content).expect("the lab's folder is writable");
    let refused = lab.pollux("solo", &["volume", "create", "a"]);
    assert_eq!(refused.exit, 1, "{refused:?}");
    assert!(refused.stderr.contains("--adopt"), "{}", refused.stderr);
    assert_eq!(fs::read(&backing).expect("it is there"), content);
    lab.done("solo", &["volume", "create", "a", "--adopt"]);
    lab.until_serving("solo", "a", scenario::HEALTHY_MAX);
    let mut client = attach(&lab.node("solo").uri("a"));
    assert_eq!(
        read(&mut client, 0, 1 << 20),
        Ok(content[..1 << 20].to_vec())
    );
    drop(client);
    assert_eq!(lab.pollux("solo", &["volume", "create", "a"]).exit, 1);
    lab.done("solo", &["volume", "create", "a", "--if-absent"]);

    let short = lab.node("solo").file("b.img");
    fs::write(&short, [1; 4096]).expect("the lab's folder is writable");
    assert_eq!(
        lab.pollux("solo", &["volume", "create", "b", "--adopt"])
            .exit,
        1
    );
    assert_eq!(fs::read(short).expect("it is there"), [1; 4096]);
}

#[test]
fn delete_removes_the_metadata_and_keeps_the_data() {
    let lab = at_rest();
    let node = lab.node("solo");
    let daemon = lab.serve("solo");
    assert_eq!(
        lab.pollux("solo", &["volume", "delete", "a"]).exit,
        2,
        "nobody can be asked"
    );
    for name in ["a", "b"] {
        lab.until_serving("solo", name, scenario::HEALTHY_MAX);
    }
    let client = attach(&node.uri("a"));
    let refused = lab.pollux("solo", &["volume", "delete", "a", "--yes"]);
    assert_eq!(
        refused.exit, 1,
        "a volume in use is not deleted: {refused:?}"
    );
    client.detach().expect("it was attached");
    lab.until("solo", "a", scenario::HEALTHY_MAX, "no client", |entry| {
        entry["clients"] == Value::Array(Vec::new())
    });
    for name in ["a", "b"] {
        lab.done("solo", &["demote", name]);
    }
    lab.done("solo", &["volume", "delete", "a", "--yes"]);
    lab.done("solo", &["volume", "delete", "b", "--wipe", "--yes"]);
    assert!(!node.metadata("a").exists() && node.file("a.img").exists());
    assert!(!node.metadata("b").exists() && !node.file("b.img").exists());
    assert_eq!(lab.volume("solo", "a")["state"], "not_created");
    drop(daemon);
    assert_eq!(
        fs::read(node.file("a.img")).expect("it is kept")[..8192],
        [0xa; 8192]
    );
}
