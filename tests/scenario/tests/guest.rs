//! The kernel's NBD client through a failover; `cargo run -p scenario -- guest` does the same.

#[test]
#[ignore = "boots a guest under emulation: about two minutes, and fetches a kernel once"]
fn a_file_system_survives_the_death_of_its_primary() {
    scenario::guest::run();
}

#[test]
#[ignore = "boots a guest under emulation: about six minutes, fetches a kernel and builds fsx once"]
fn ext4_and_xfs_are_clean_after_fsx_and_stress() {
    scenario::guest::stress();
}

#[test]
#[ignore = "boots a guest under emulation: about two minutes, and fetches a kernel once"]
fn a_file_system_does_not_notice_that_its_node_is_taken_over() {
    scenario::guest::takeovers(5);
}

#[test]
#[ignore = "boots a guest under emulation: about two minutes, and fetches a kernel once"]
fn a_data_base_keeps_every_committed_row_through_failovers() {
    scenario::guest::failovers(2);
}
