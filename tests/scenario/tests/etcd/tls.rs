//! etcd that takes who shows a certificate, and nobody else.

use std::fs;

use scenario::{TRIO, is_there, trio_by_etcd_tls};

use super::{ALPHA, BETA, MEBIBYTES, SERVED_MAX};

#[test]
fn with_certificates_etcd_chooses_and_without_the_right_ones_nothing_is_promoted() {
    if !is_there() {
        return;
    }
    let (_etcd, mut trio) = trio_by_etcd_tls(MEBIBYTES, "2s");
    (0..3).for_each(|index| trio.serve(index));
    trio.found();
    trio.kill(ALPHA);
    let next = trio.until_primary(SERVED_MAX);
    trio.start(ALPHA);
    trio.until_healthy(next);
    // Signed by somebody else: nothing is said to etcd.
    let lab = &trio.lab;
    let stranger = lab.path("stranger").display().to_string();
    lab.done(TRIO[BETA], &["tls", "init", &stranger]);
    let own = lab.path("etcd-tls").display().to_string();
    for index in 0..3 {
        let config = &trio.configs[index];
        let text = fs::read_to_string(config).expect("the lab wrote it");
        fs::write(config, text.replace(&own, &stranger)).expect("the lab's folder is writable");
    }
    (0..3).for_each(|index| trio.kill(index));
    (0..3).for_each(|index| trio.start(index));
    let refused = trio
        .lab
        .pollux(TRIO[BETA], &["promote", "v", "--wait", "3s"]);
    assert_eq!(refused.exit, 4, "{}", refused.stderr);
    assert!(refused.stderr.contains("E231"), "{}", refused.stderr);
}
