//! The role moves by command.

use std::thread;
use std::time::Instant;

use scenario::{TRIO, is_there};

use super::{LEASE, SERVED_MAX, Six};

#[test]
fn a_promotion_by_hand_moves_the_volume_without_a_wait_for_the_lease() {
    if !is_there() {
        return;
    }
    let mut six = Six::start(10);
    for round in 0..6 {
        six.until_whole();
        // Links that broke soon after they stood are dialled again after growing pauses.
        thread::sleep(LEASE / 2);
        let (before, next) = (six.primary, (six.primary + 1 + round % 2) % 3);
        // Every second time one member of etcd is down, the leader too.
        let down = (round % 2 == 1).then(|| six.etcd.leader());
        if let Some(member) = down {
            six.etcd.kill(member);
            six.etcd.leader();
        }
        let began = Instant::now();
        six.trio.lab.done(TRIO[next], &["promote", "v"]);
        let took = began.elapsed();
        six.primary = six.until_written(|server| server != before);
        let (from, to) = (TRIO[before], TRIO[next]);
        assert_eq!(TRIO[six.primary], to, "another node than was told serves");
        println!("{from} → {to}: {took:.0?}, a member down: {down:?}");
        assert_eq!(six.trio.volume(before)["role"], "secondary");
        if let Some(member) = down {
            six.etcd.serve(member);
        }
    }
    six.until_whole();
    // Without etcd nothing moves, and who serves goes on.
    let leader = six.etcd.leader();
    let two = [leader, (leader + 1) % 3];
    two.iter().for_each(|member| six.etcd.kill(*member));
    let node = TRIO[six.primary];
    let is_critical = |volume: &serde_json::Value| volume["state"] == "critical";
    let lab = &six.trio.lab;
    lab.until(node, "v", SERVED_MAX, "says that etcd is away", is_critical);
    let next = TRIO[(six.primary + 1) % 3];
    let refused = lab.pollux(next, &["promote", "v", "--wait", "3s"]);
    assert_eq!(refused.exit, 4, "{}", refused.stderr);
    assert!(refused.stderr.contains("E231"), "{}", refused.stderr);
    six.stays();
    two.iter().for_each(|member| six.etcd.serve(*member));
    six.until_whole();
    six.judge();
}
