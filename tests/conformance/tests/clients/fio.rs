//! fio with its NBD engine: four connections that verify what they wrote.

use conformance::tools;
use serde_json::Value;

use crate::stage::{Stage, client};

#[test]
fn fio_verifies_every_block_over_four_connections() {
    if !tools::have(&[("fio", "fio")]) {
        return;
    }
    let stage = Stage::new();
    for place in stage.places() {
        let uri = format!("--uri={}", place.uri);
        let ran = client(
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
        if ran.stderr.contains("engine nbd not loadable") || ran.stderr.contains("engine: nbd") {
            tools::skip("install a fio that was built with libnbd");
            return;
        }
        assert_eq!(ran.exit, 0, "{place:?}\n{}\n{}", ran.stdout, ran.stderr);
        let start = ran.stdout.find('{').expect("fio prints JSON");
        let report: Value = serde_json::from_str(&ran.stdout[start..]).expect("fio prints JSON");
        let jobs = report["jobs"].as_array().expect("an array of jobs");
        assert_eq!(jobs.len(), 4);
        for job in jobs {
            assert_eq!(job["error"], 0, "{place:?}");
            assert_eq!(job["write"]["io_bytes"], 8 << 20);
            assert_eq!(job["read"]["io_bytes"], 8 << 20, "everything was read back");
        }
    }
}
