//! Witnesses come and go while clients are served.

use std::fs;
use std::time::Duration;

use conformance::{Daemon, Lab};
use scenario::{Followers, Shape, Trio};
use serde_json::Value;

const NODES: [&str; 4] = ["alpha", "beta", "gamma", "delta"];
const MEBIBYTES: u64 = 32;
/// A change of the voters, or a failover, on a busy machine.
const CHANGED_MAX: Duration = Duration::from_secs(60);

/// Writes the file that lists these witnesses, and no other node beside alpha and beta.
fn write_file(lab: &Lab, witnesses: &[&str]) {
    let list: Vec<String> = witnesses.iter().map(|name| format!("\"{name}\"")).collect();
    let volume = Shape::Witness
        .volume_text(MEBIBYTES)
        .replace("\"gamma\"", &list.join(", "));
    let text = lab.config_text("lab", &volume);
    let votes = "quorum = \"majority\"\nlease = \"1s\"\n";
    let mut text = text.replace("quorum = \"off\"\n", votes);
    for node in ["gamma", "delta"] {
        if !witnesses.contains(&node) {
            let from = text.find(&format!("[node.{node}]")).expect("it is there");
            let len = text[from + 1..].find('[').expect("the volume follows");
            text.replace_range(from..=from + len, "");
        }
    }
    fs::write(lab.config(), text).expect("the lab's folder is writable");
}

fn serve(lab: &Lab, node: &str) -> Daemon {
    lab.serve_as(node, lab.command(node, &["serve"]))
}

/// Waits until this node counts exactly these voters, all of them answer, and nobody comes or goes.
fn until_voters(lab: &Lab, node: &str, voters: &[&str]) -> Value {
    let is_so = |volume: &Value| {
        let notes = volume["notes"].as_array().into_iter().flatten();
        let mut notes = notes.filter_map(Value::as_str);
        let changes = notes.any(|note| note.starts_with("W137"));
        let votes = &volume["quorum"]["votes"];
        !changes
            && volume["quorum"]["voters"] == serde_json::json!(voters)
            && votes["have"] == voters.len()
    };
    lab.until(node, "v", CHANGED_MAX, "these voters answer", is_so)
}

#[test]
fn witnesses_come_and_go_under_load_and_the_new_one_s_vote_counts() {
    let lab = Lab::new(&NODES, &Shape::Witness.volume_text(MEBIBYTES));
    write_file(&lab, &["gamma"]);
    let mut trio = Trio::of(Shape::Witness, lab);
    (0..3).for_each(|index| trio.serve(index));
    trio.found();
    let followers = Followers::start(2, MEBIBYTES << 20, 5, &trio.uris());
    followers.until_served(0, CHANGED_MAX);

    // One comes.
    write_file(&trio.lab, &["gamma", "delta"]);
    let delta = serve(&trio.lab, "delta");
    trio.lab.done("delta", &["volume", "create", "v"]);
    trio.lab.done("gamma", &["config", "apply"]);
    let elsewhere = trio.lab.pollux("beta", &["config", "apply"]);
    assert!(elsewhere.stdout.contains("E274"), "{elsewhere:?}");
    trio.lab.done("alpha", &["config", "apply"]);
    until_voters(&trio.lab, "alpha", &["alpha", "beta", "gamma", "delta"]);
    followers.until_served(0, CHANGED_MAX);

    // The old one is lost, and goes.
    trio.kill(2);
    write_file(&trio.lab, &["delta"]);
    trio.lab.pollux("beta", &["config", "apply"]);
    trio.lab.done("alpha", &["config", "apply"]);
    until_voters(&trio.lab, "alpha", &["alpha", "beta", "delta"]);
    followers.until_served(0, CHANGED_MAX);

    // Nobody could serve without the vote of the one that came.
    trio.kill(0);
    followers.until_served(1, CHANGED_MAX);
    trio.start(0);
    until_voters(&trio.lab, "beta", &["alpha", "beta", "delta"]);

    // The old one comes back empty, behind the other one in the file.
    fs::remove_file(trio.lab.node("gamma").metadata("v")).expect("it had metadata");
    write_file(&trio.lab, &["delta", "gamma"]);
    trio.serve(2);
    trio.lab.done("gamma", &["volume", "create", "v"]);
    trio.lab.pollux("alpha", &["config", "apply"]);
    trio.lab.done("beta", &["config", "apply"]);
    until_voters(&trio.lab, "beta", &["alpha", "beta", "gamma", "delta"]);
    followers.until_served(1, CHANGED_MAX);

    followers.finish(&trio.uri(1)).assert_clean();

    // Two of four are no majority: nobody can be taken away now.
    trio.kill(2);
    delta.kill();
    write_file(&trio.lab, &["delta"]);
    std::thread::sleep(Duration::from_secs(4));
    let refused = trio.lab.pollux("beta", &["config", "apply"]);
    assert!(refused.stdout.contains("E273"), "{refused:?}");
}
