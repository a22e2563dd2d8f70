//! Replicas come and go while clients are served.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use conformance::{Daemon, Lab};
use scenario::Followers;
use scenario::disk::{attach, different_blocks, read, write};
use serde_json::Value;

const NODES: [&str; 4] = ["alpha", "beta", "gamma", "delta"];
const ALPHA: usize = 0;
const BETA: usize = 1;
const GAMMA: usize = 2;
const DELTA: usize = 3;
const MEBIBYTES: u64 = 32;
/// A resync, a change of the voters, or a failover, on a busy machine.
const CHANGED_MAX: Duration = Duration::from_secs(90);

/// Four machines, of which the file names those that hold a replica.
struct Group {
    daemons: [Option<Daemon>; 4],
    lab: Lab,
}

fn in_memory(replicas: &[usize], memory: usize) -> String {
    let place = |index: &usize| match *index == memory {
        true => format!("{} = \"memory\"", NODES[*index]),
        false => format!("{} = \"v.img\"", NODES[*index]),
    };
    let places: Vec<String> = replicas.iter().map(place).collect();
    let backing = format!("backing = {{ {} }}", places.join(", "));
    volume_text(replicas, "").replace("backing = \"v.img\"", &backing)
}

fn volume_text(replicas: &[usize], more: &str) -> String {
    let list: Vec<String> = replicas
        .iter()
        .map(|i| format!("{:?}", NODES[*i]))
        .collect();
    format!(
        "[volume.v]\nsize = \"{MEBIBYTES}MiB\"\nbacking = \"v.img\"\nreplicas = [{}]\n{more}\
         nbd = [{{ name = \"v\" }}]\n",
        list.join(", ")
    )
}

impl Group {
    /// Alpha serves; beta and gamma are in sync with it; delta is a machine without anything.
    fn of_three(more: &str) -> Group {
        let three = [ALPHA, BETA, GAMMA];
        let mut group = Group {
            daemons: [const { None }; 4],
            lab: Lab::new(&NODES, &volume_text(&three, more)),
        };
        group.write_file_with(&three, more);
        for index in three {
            group.serve(index);
            group.lab.done(NODES[index], &["volume", "create", "v"]);
        }
        group.lab.done("alpha", &["promote", "v", "--wait", "10s"]);
        group.until_whole(ALPHA, &three);
        group
    }

    /// Every node's file: these hold a replica.
    fn write_file(&self, replicas: &[usize]) {
        self.write_file_with(replicas, "");
    }

    fn write_file_with(&self, replicas: &[usize], more: &str) {
        self.write_volume(&volume_text(replicas, more));
    }

    fn write_volume(&self, volume: &str) {
        let text = self.lab.config_text("lab", volume);
        let votes = "quorum = \"majority\"\nlease = \"1s\"\n";
        let text = text.replace("quorum = \"off\"\n", votes);
        fs::write(self.lab.config(), text).expect("the lab's folder is writable");
    }

    fn serve(&mut self, index: usize) {
        let command = self.lab.command(NODES[index], &["serve"]);
        self.daemons[index] = Some(self.lab.serve_as(NODES[index], command));
    }

    fn serve_with(&mut self, index: usize, file: &Path) {
        let command = self.lab.command_with(file, NODES[index], &["serve"]);
        self.daemons[index] = Some(self.lab.serve_as(NODES[index], command));
    }

    /// A copy of the file as it is now.
    fn keep_file(&self, name: &str) -> PathBuf {
        let copy = self.lab.path(name);
        fs::copy(self.lab.config(), &copy).expect("the lab's folder is writable");
        copy
    }

    fn kill(&mut self, index: usize) {
        let daemon = self.daemons[index].take();
        daemon.expect("it runs").kill();
    }

    fn uri(&self, index: usize) -> String {
        self.lab.node(NODES[index]).uri("v")
    }

    /// What `config apply` says on a node.
    fn apply(&self, index: usize) -> String {
        self.lab.pollux(NODES[index], &["config", "apply"]).stdout
    }

    /// Waits until this node counts exactly these, all of them vote and are in sync, and nobody
    /// comes or goes.
    fn until_whole(&self, index: usize, replicas: &[usize]) -> Value {
        let names: Vec<&str> = replicas.iter().map(|i| NODES[*i]).collect();
        let is_so = |volume: &Value| {
            let notes = volume["notes"].as_array().into_iter().flatten();
            let mut notes = notes.filter_map(Value::as_str);
            let changes = notes.any(|note| note.starts_with("W137"));
            let (quorum, copies) = (&volume["quorum"], volume["replicas"].as_array());
            let shown = copies.into_iter().flatten().map(|r| &r["node"]);
            let mut shown: Vec<&str> = shown.filter_map(Value::as_str).collect();
            shown.sort_unstable();
            let mut wanted = names.clone();
            wanted.sort_unstable();
            let voters = quorum["voters"].as_array().into_iter().flatten();
            let mut voters: Vec<&str> = voters.filter_map(Value::as_str).collect();
            voters.sort_unstable();
            !changes
                && volume["state"] == "healthy"
                && shown == wanted
                && voters == wanted
                && quorum["votes"]["have"] == names.len()
        };
        self.lab
            .until(NODES[index], "v", CHANGED_MAX, "these, all in sync", is_so)
    }

    /// Promotes a node once its copy is fit for it.
    fn until_promoted(&self, index: usize) {
        let began = Instant::now();
        let promote = ["promote", "v", "--wait", "10s"];
        loop {
            let ran = self.lab.pollux(NODES[index], &promote);
            if ran.exit == 0 {
                return;
            }
            assert!(began.elapsed() < CHANGED_MAX, "{ran:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until a node's own table says that this one comes, or goes, or that it is done.
    fn until_begun(&self, index: usize, node: usize, comes: bool) {
        let is_begun = |volume: &Value| {
            let notes = volume["notes"].as_array().into_iter().flatten();
            let mut notes = notes.filter_map(Value::as_str);
            let says = format!(
                "W137: {} {}",
                NODES[node],
                if comes { "comes" } else { "goes" }
            );
            let listed = volume["replicas"].as_array().into_iter().flatten();
            let is_listed = listed.into_iter().any(|r| r["node"] == NODES[node]);
            notes.any(|note| note.starts_with(&says)) || is_listed == comes
        };
        self.lab
            .until(NODES[index], "v", CHANGED_MAX, "it is begun", is_begun);
    }

    /// Stops all daemons and holds these copies against each other.
    fn stop_and_compare(&mut self, primary: usize, replicas: &[usize]) {
        let demote = ["demote", "v", "--disconnect"];
        self.lab.done(NODES[primary], &demote);
        for (index, daemon) in self.daemons.iter_mut().enumerate() {
            if let Some(daemon) = daemon.take() {
                assert_eq!(daemon.stop(), 0, "{} did not drain", NODES[index]);
            }
        }
        let file = |index: usize| self.lab.node(NODES[index]).file("v.img");
        for other in &replicas[1..] {
            let different = different_blocks(&file(replicas[0]), &file(*other), MEBIBYTES << 20);
            let (one, other) = (NODES[replicas[0]], NODES[*other]);
            assert!(
                different.is_empty(),
                "{other} differs from {one} in {different:?}"
            );
        }
    }
}

/// Who serves writes that began from now on.
fn until_served_by_one_of(followers: &Followers, servers: &[usize]) -> usize {
    let began = Instant::now();
    loop {
        let serves = |i: &&usize| followers.wrote(**i).is_some_and(|wrote| wrote > began);
        if let Some(server) = servers.iter().find(serves) {
            return *server;
        }
        assert!(began.elapsed() < CHANGED_MAX, "nobody serves writes");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_replica_comes_and_another_one_goes_under_load() {
    let mut group = Group::of_three("");
    let uris: Vec<String> = (0..4).map(|index| group.uri(index)).collect();
    let followers = Followers::start(2, MEBIBYTES << 20, 7, &uris);
    followers.until_served(ALPHA, CHANGED_MAX);

    // One comes: it is copied, and votes.
    group.write_file(&[DELTA, ALPHA, BETA, GAMMA]);
    group.serve(DELTA);
    group.lab.done("delta", &["volume", "create", "v"]);
    for index in [BETA, GAMMA] {
        assert!(group.apply(index).contains("E274"), "{}", NODES[index]);
    }
    let said = group.apply(ALPHA);
    assert!(
        said.contains("nodes of v change as the file says"),
        "{said}"
    );
    group.until_whole(ALPHA, &[ALPHA, BETA, GAMMA, DELTA]);
    group.until_whole(DELTA, &[ALPHA, BETA, GAMMA, DELTA]);
    followers.until_served(ALPHA, CHANGED_MAX);

    // Without the new one's vote there would be no majority; without its copy no data for gamma's.
    group.kill(ALPHA);
    let primary = until_served_by_one_of(&followers, &[BETA, GAMMA, DELTA]);
    group.serve(ALPHA);
    group.until_whole(primary, &[ALPHA, BETA, GAMMA, DELTA]);

    // An old one goes. It is not the primary.
    let old_file = group.keep_file("before.toml");
    let goes = if primary == GAMMA { BETA } else { GAMMA };
    let left: Vec<usize> = (0..4).filter(|index| *index != goes).collect();
    group.write_file(&left);
    for index in left.iter().filter(|index| **index != primary) {
        group.apply(*index);
    }
    group.apply(primary);
    group.until_whole(primary, &left);
    let is_out =
        |volume: &Value| volume["state"] == "offline" && volume["reason"]["code"] == "W138";
    group
        .lab
        .until(NODES[goes], "v", CHANGED_MAX, "it is out", is_out);
    followers.until_served(primary, CHANGED_MAX);
    let refused = group.lab.pollux(NODES[goes], &["promote", "v"]);
    assert!(refused.stderr.contains("E285"), "{refused:?}");
    // A start with the file of before changes nothing about it, nor about its data.
    group.kill(goes);
    group.serve_with(goes, &old_file);
    group
        .lab
        .until(NODES[goes], "v", CHANGED_MAX, "it stays out", is_out);
    let backing = group.lab.node(NODES[goes]).file("v.img");
    assert!(backing.exists());
    group
        .lab
        .done(NODES[goes], &["volume", "delete", "v", "--wipe", "--yes"]);
    assert!(!backing.exists() && !group.lab.node(NODES[goes]).metadata("v").exists());
    followers.until_served(primary, CHANGED_MAX);

    followers.finish(&group.uri(primary)).assert_clean();
    group.stop_and_compare(primary, &left);

    // Metadata made with another list of nodes, in another order, attaches.
    let reversed: Vec<usize> = left.iter().rev().copied().collect();
    group.write_file(&reversed);
    for index in &left {
        group.serve(*index);
    }
    group
        .lab
        .done(NODES[primary], &["promote", "v", "--wait", "20s"]);
    group.until_whole(primary, &left);
    let mut client = attach(&group.uri(primary));
    assert_eq!(write(&mut client, 1 << 20, &[7; 4096]), Ok(()));
    assert_eq!(read(&mut client, 1 << 20, 4096), Ok(vec![7; 4096]));
    drop(client);
    group.stop_and_compare(primary, &left);
}

#[test]
fn the_primary_and_copies_that_are_needed_stay() {
    let more = "min_copies = 2\n";
    let mut group = Group::of_three(more);

    // Who serves is not taken away: it serves on, new clients too.
    group.write_file_with(&[BETA, GAMMA, DELTA], more);
    let said = group.apply(ALPHA);
    assert!(said.contains("E283"), "{said}");
    drop(attach(&group.uri(ALPHA)));

    // Nor is a copy that min_copies asks for.
    group.kill(GAMMA);
    let is_out = |volume: &Value| {
        let why = volume["reason"]["text"].as_str().unwrap_or_default();
        why.contains("not in sync: gamma")
    };
    group
        .lab
        .until("alpha", "v", CHANGED_MAX, "gamma is lost", is_out);
    group.write_file_with(&[ALPHA, GAMMA], more);
    let said = group.apply(ALPHA);
    assert!(said.contains("E284") || said.contains("E273"), "{said}");
    group.write_file_with(&[ALPHA, BETA, GAMMA], more);
    group.serve(GAMMA);
    group.apply(ALPHA);
    group.until_whole(ALPHA, &[ALPHA, BETA, GAMMA]);

    // One at a time: delta is asked for, and does not answer.
    group.write_file_with(&[ALPHA, BETA, GAMMA, DELTA], more);
    group.apply(ALPHA);
    let waits = |volume: &Value| {
        let notes = volume["notes"].as_array().into_iter().flatten();
        let mut notes = notes.filter_map(Value::as_str);
        notes.any(|note| note.contains("delta comes: waits for delta"))
    };
    group
        .lab
        .until("alpha", "v", CHANGED_MAX, "it waits for delta", waits);
    group.write_file_with(&[ALPHA, BETA, DELTA], more);
    let said = group.apply(ALPHA);
    assert!(said.contains("E272"), "{said}");
    // It is not wanted any more, and goes without having been there.
    group.write_file_with(&[ALPHA, BETA, GAMMA], more);
    group.apply(ALPHA);
    group.until_whole(ALPHA, &[ALPHA, BETA, GAMMA]);
}

#[test]
fn a_lost_replica_is_replaced_by_another_node_and_finds_itself_gone() {
    let mut group = Group::of_three("");
    let uris: Vec<String> = (0..4).map(|index| group.uri(index)).collect();
    let followers = Followers::start(2, MEBIBYTES << 20, 11, &uris);
    followers.until_served(ALPHA, CHANGED_MAX);
    group.kill(GAMMA);
    followers.until_served(ALPHA, CHANGED_MAX);

    // One word for both: gamma goes, then delta comes.
    let old_file = group.keep_file("before.toml");
    group.write_file(&[ALPHA, BETA, DELTA]);
    group.serve(DELTA);
    group.lab.done("delta", &["volume", "create", "v"]);
    group.apply(BETA);
    group.apply(ALPHA);
    group.until_whole(ALPHA, &[ALPHA, BETA, DELTA]);
    followers.until_served(ALPHA, CHANGED_MAX);

    // Whoever serves next goes by the table too, and tells gamma once it is back.
    group.kill(ALPHA);
    let primary = until_served_by_one_of(&followers, &[BETA, DELTA]);
    group.serve(ALPHA);
    group.until_whole(primary, &[ALPHA, BETA, DELTA]);
    group.serve_with(GAMMA, &old_file);
    let is_out =
        |volume: &Value| volume["state"] == "offline" && volume["reason"]["code"] == "W138";
    group
        .lab
        .until("gamma", "v", CHANGED_MAX, "it is told", is_out);
    group.until_whole(primary, &[ALPHA, BETA, DELTA]);
    followers.until_served(primary, CHANGED_MAX);

    // Asked back it needs no format: it is resynced.
    group.write_file(&[ALPHA, BETA, GAMMA, DELTA]);
    group.apply(primary);
    let all = [ALPHA, BETA, GAMMA, DELTA];
    group.until_whole(primary, &all);
    followers.until_served(primary, CHANGED_MAX);

    followers.finish(&group.uri(primary)).assert_clean();
    group.stop_and_compare(primary, &all);
}

#[test]
fn whoever_serves_next_goes_on_with_a_change_that_was_begun() {
    let mut group = Group::of_three("");
    let uris: Vec<String> = (0..4).map(|index| group.uri(index)).collect();
    let followers = Followers::start(2, MEBIBYTES << 20, 13, &uris);
    followers.until_served(ALPHA, CHANGED_MAX);
    group.write_file(&[ALPHA, BETA, GAMMA, DELTA]);
    group.serve(DELTA);
    group.lab.done("delta", &["volume", "create", "v"]);
    for index in [BETA, GAMMA] {
        group.apply(index);
    }

    // Delta comes, and alpha is lost at one moment or another of it.
    group.apply(ALPHA);
    group.until_begun(ALPHA, DELTA, true);
    group.kill(ALPHA);
    let primary = until_served_by_one_of(&followers, &[BETA, GAMMA, DELTA]);
    group.serve(ALPHA);
    group.apply(primary);
    group.until_whole(primary, &[ALPHA, BETA, GAMMA, DELTA]);

    // And so when one goes.
    let goes = if primary == GAMMA { BETA } else { GAMMA };
    let left: Vec<usize> = (0..4).filter(|index| *index != goes).collect();
    group.write_file(&left);
    for index in left.iter().filter(|index| **index != primary) {
        group.apply(*index);
    }
    group.apply(primary);
    group.until_begun(primary, goes, false);
    group.kill(primary);
    let mut next = until_served_by_one_of(&followers, &[ALPHA, BETA, GAMMA, DELTA]);
    if next == goes {
        // It had not heard of it, and is not taken away while it serves.
        let other = left.iter().find(|index| **index != primary);
        next = *other.expect("two are left");
        group.until_promoted(next);
        followers.until_served(next, CHANGED_MAX);
    }
    group.serve(primary);
    group.apply(next);
    group.until_whole(next, &left);
    followers.until_served(next, CHANGED_MAX);

    followers.finish(&group.uri(next)).assert_clean();
    group.stop_and_compare(next, &left);
}

#[test]
fn a_replica_in_memory_comes_under_another_index_than_its_file_s_and_is_made_anew_there() {
    let mut group = Group::of_three("");
    let all = [DELTA, ALPHA, BETA, GAMMA];
    group.write_volume(&in_memory(&all, DELTA));
    group.serve(DELTA);
    group.lab.done("delta", &["volume", "create", "v"]);
    for index in [BETA, GAMMA, ALPHA] {
        group.apply(index);
    }
    group.until_whole(ALPHA, &all);
    group.until_whole(DELTA, &all);

    // Its process took its data and its votes along.
    group.kill(DELTA);
    let is_lost = |volume: &Value| volume["state"] == "degraded";
    group
        .lab
        .until("alpha", "v", CHANGED_MAX, "delta is lost", is_lost);
    group.serve(DELTA);
    group.until_whole(DELTA, &all);
    group.until_whole(ALPHA, &all);
}
