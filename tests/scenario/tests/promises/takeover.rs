//! A takeover that cannot end in order.

use std::time::{Duration, Instant};

use conformance::{Lab, eventually};
use nbd_proto::CommandKind;
use pollux_daemon::demo::client::Ask;
use scenario::disk::{attach, read, write};

/// Longest time a drain may take (`docs/operations.md`), and a busy machine's share.
const DRAIN_MAX: Duration = Duration::from_secs(20);

#[test]
fn a_takeover_from_a_disk_that_hangs_becomes_a_restart_and_loses_nothing_acknowledged() {
    const SINGLE: &str = "[volume.v]\nsize = \"16MiB\"\nbacking = \"v.img\"\n\
                          replicas = [\"solo\"]\nnbd = [{ name = \"v\" }]\n";
    let lab = Lab::new(&["solo"], SINGLE);
    // The write at 1 MiB never ends.
    let mut old = lab.serve_faulty("solo", "v: write=hang@1M..2M");
    lab.done("solo", &["volume", "create", "v"]);
    lab.until_serving("solo", "v", Duration::from_secs(10));
    let mut client = attach(&lab.node("solo").uri("v"));
    assert_eq!(write(&mut client, 8192, &[7; 8192]), Ok(()));
    let hanging = Ask::write(1 << 20, vec![8; 4096]);
    client.send(&hanging).expect("it is taken");
    let began = Instant::now();
    let command = lab.command("solo", &["serve", "--takeover"]);
    let mut new = lab.spawn("solo", command);
    let status = eventually(DRAIN_MAX, "the old process gives up", || old.ended());
    println!("it gave up after {:?}: {status}", began.elapsed());
    assert!(!status.success(), "a drain that did not end is no success");
    assert!(old.log().contains("E109"), "{}", old.log());
    assert!(
        client.receive().is_err(),
        "nobody answers the write that hung"
    );
    // One of the two always serves: the successor starts as if none had run.
    eventually(Duration::from_secs(20), "the new process answers", || {
        assert_eq!(new.ended(), None, "{}", new.log());
        (lab.pollux("solo", &["status"]).exit == 0).then_some(())
    });
    // The kernel may give back the lock of the old one only now (E203 until then).
    eventually(Duration::from_secs(20), "the volume is attached", || {
        (lab.pollux("solo", &["promote", "v"]).exit == 0).then_some(())
    });
    lab.until_serving("solo", "v", Duration::from_secs(20));
    let mut client = attach(&lab.node("solo").uri("v"));
    assert_eq!(read(&mut client, 8192, 8192), Ok(vec![7; 8192]));
    // What hung was never acknowledged: all of it or nothing.
    let kind = CommandKind::READ;
    let hung = client.exchange(&Ask::plain(kind, 1 << 20, 4096));
    let hung = hung.expect("the server answers").data;
    assert!(hung == [0; 4096] || hung == [8; 4096]);
    assert_eq!(new.stop(), 0);
}
