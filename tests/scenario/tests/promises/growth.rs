//! Mirrors that grow: every copy has the new size before a client may use it, a crash of either node
//! leaves one size everywhere, and who was away follows.

use std::process::Stdio;
use std::thread;
use std::time::Duration;

use scenario::disk::{attach, flush, read, write};
use scenario::{Clients, HEALTHY_MAX, NODES, Pair};
use serde_json::Value;

const MIB: u64 = 1 << 20;
const BLOCK: u64 = 4096;

fn size_on(pair: &Pair, node: usize) -> u64 {
    pair.volume(node)["size_bytes"].as_u64().unwrap_or(0)
}

/// Waits until both nodes say that the volume has one size and both copies are in sync.
fn until_of_one_size(pair: &Pair, primary: usize) -> u64 {
    pair.until_healthy(primary);
    let size = size_on(pair, primary);
    let is_same = |volume: &Value| volume["size_bytes"] == size;
    let other = NODES[1 - primary];
    pair.lab
        .until(other, "v", HEALTHY_MAX, "the same size", is_same);
    size
}

/// The last block of this many bytes can be written and read back, and what is before it is zeros.
fn last_block_is_usable(pair: &Pair, primary: usize, size: u64, byte: u8) {
    let mut client = attach(&pair.uri(primary));
    let fresh = read(&mut client, size - 4 * BLOCK, BLOCK as u32);
    assert_eq!(fresh, Ok(vec![0; BLOCK as usize]));
    let bytes = vec![byte; BLOCK as usize];
    assert_eq!(write(&mut client, size - BLOCK, &bytes), Ok(()));
    assert_eq!(flush(&mut client), Ok(()));
    assert_eq!(read(&mut client, size - BLOCK, BLOCK as u32), Ok(bytes));
}

#[test]
fn a_mirror_grows_under_load_and_a_new_session_sees_it() {
    let mut pair = Pair::healthy(16);
    let clients = Clients::start(3, 16 * MIB, 31);
    clients.point_at(&pair.uri(0));
    thread::sleep(Duration::from_millis(300));
    // The last is past what one page of bits covers.
    for (mebibytes, byte) in [(24, 1), (40, 2), (132, 3)] {
        let size = format!("{mebibytes}MiB");
        let done = pair.lab.done("alpha", &["volume", "resize", "v", &size]);
        assert!(
            done.stdout.contains(&(mebibytes * MIB).to_string()),
            "{done:?}"
        );
        assert_eq!(size_on(&pair, 0), mebibytes * MIB);
        assert_eq!(size_on(&pair, 1), mebibytes * MIB);
        last_block_is_usable(&pair, 0, mebibytes * MIB, byte);
    }
    let seen = clients.finish(&pair.uri(0));
    assert!(seen.report.violations.is_empty(), "{:#?}", seen.report);
    assert!(seen.complaints.is_empty(), "{:?}", seen.complaints);
    pair.until_unused(0);
    let refused = pair
        .lab
        .pollux("beta", &["volume", "resize", "v", "300MiB"]);
    assert_eq!(refused.exit, 1, "{refused:?}");
    assert!(refused.stderr.contains("alpha"), "{refused:?}");
    pair.stop_and_compare(0, 132);
}

#[test]
fn a_replica_that_was_away_grows_before_it_joins_and_the_new_space_is_zeros() {
    let mut pair = Pair::healthy(16);
    pair.kill(1);
    // Something lies behind the end of the file of the one that is away.
    let longer = std::fs::OpenOptions::new()
        .append(true)
        .open(pair.lab.node("beta").file("v.img"));
    let mut longer = longer.expect("the copy is a file");
    std::io::Write::write_all(&mut longer, &vec![7; 4 << 20]).expect("there is room");
    drop(longer);
    pair.lab.done("alpha", &["volume", "resize", "v", "64MiB"]);
    last_block_is_usable(&pair, 0, 64 * MIB, 9);
    pair.start(1);
    assert_eq!(until_of_one_size(&pair, 0), 64 * MIB);
    pair.until_unused(0);
    pair.stop_and_compare(0, 64);
}

#[test]
fn a_kill_of_either_node_in_a_growth_leaves_one_size_on_both() {
    let mut pair = Pair::healthy(16);
    let mut size = 16 * MIB;
    for round in 0..6_u64 {
        let next = size + 8 * MIB;
        let word = format!("{}MiB", next / MIB);
        let mut verb = pair.lab.command("alpha", &["volume", "resize", "v", &word]);
        verb.stdout(Stdio::null()).stderr(Stdio::null());
        let mut verb = verb.spawn().expect("the binary can be run");
        thread::sleep(Duration::from_millis(4 + 3 * (round / 2)));
        let victim = (round % 2) as usize;
        pair.kill(victim);
        verb.wait().expect("a child can be waited for");
        pair.start(victim);
        if victim == 0 {
            let promoted = pair.promote(0, "30s");
            assert_eq!(promoted.exit, 0, "{promoted:?}");
        }
        let found = until_of_one_size(&pair, 0);
        assert!(found == size || found == next, "round {round}: {found}");
        // What was cut short can be repeated.
        pair.lab.done("alpha", &["volume", "resize", "v", &word]);
        assert_eq!(until_of_one_size(&pair, 0), next, "round {round}");
        last_block_is_usable(&pair, 0, next, round as u8 + 1);
        pair.until_unused(0);
        size = next;
    }
    pair.stop_and_compare(0, size / MIB);
}
