//! One body of laws for every ring: io_uring, POSIX and the fake.
//!
//! `laws!` makes one test per law and back end. A machine without io_uring says so and skips.

mod bed;
mod files;
mod life;
mod streams;

use bed::{Bed, Kind};

macro_rules! laws {
    ($($module:ident :: $law:ident),* $(,)?) => {
        mod io_uring { $(#[test] fn $law() { super::run(super::Kind::IoUring, super::$module::$law); })* }
        mod posix { $(#[test] fn $law() { super::run(super::Kind::Posix, super::$module::$law); })* }
        mod fake { $(#[test] fn $law() { super::run(super::Kind::Fake, super::$module::$law); })* }
    };
}

fn run(kind: Kind, law: fn(&mut Bed)) {
    if let Some(mut bed) = Bed::new(kind) {
        law(&mut bed);
    }
}

laws! {
    files::what_was_written_is_read,
    files::what_the_cache_forgets_is_read_as_it_was_written,
    files::a_durable_write_is_a_write,
    files::a_read_at_the_end_is_short,
    files::a_read_past_the_end_is_empty,
    files::a_flush_completes,
    files::a_punched_hole_reads_as_zeroes,
    files::a_zeroed_range_reads_as_zeroes,
    files::allocation_extends_the_file,
    files::many_operations_pass_through_a_small_ring,
    files::an_operation_on_a_closed_file_fails,
    files::an_operation_on_a_stale_id_never_reaches_the_new_file,
    files::a_read_of_a_socket_by_offset_fails,
    streams::bytes_arrive_in_order,
    streams::a_vectored_send_keeps_the_order_of_its_pieces,
    streams::a_send_of_a_thousand_pieces_arrives_whole,
    streams::a_region_is_sent_without_a_copy,
    streams::a_receive_that_wants_all_waits_for_all,
    streams::a_receive_that_wants_all_ends_short_at_the_end_of_the_stream,
    streams::the_end_of_a_stream_is_an_empty_receive,
    streams::a_send_to_a_closed_stream_fails,
    streams::a_pending_receive_can_be_cancelled,
    streams::a_large_transfer_survives_short_sends,
    streams::connect_and_accept_meet,
    streams::one_accept_brings_many,
    streams::connecting_to_nobody_is_refused,
    streams::a_readable_stream_is_polled,
    streams::two_receives_at_once_are_a_bug,
    streams::two_sends_at_once_are_a_bug,
    life::a_timeout_comes_at_its_time,
    life::timeouts_come_in_their_order,
    life::a_timeout_can_be_cancelled,
    life::an_idle_turn_ends_at_its_deadline,
    life::a_turn_that_may_not_sleep_does_not,
    life::another_thread_wakes_a_sleeping_ring,
    life::a_wakeup_before_the_sleep_is_not_lost,
    life::blocking_work_is_done,
    life::blocking_work_that_fails_or_panics_is_told,
    life::a_buffer_in_flight_is_not_freed,
    life::a_buffer_being_filled_cannot_be_seen,
    life::closing_ends_what_is_pending,
    life::a_file_in_use_is_not_unregistered,
    life::cancelling_what_has_ended_changes_nothing,
    life::late_completions_never_reach_a_reused_slot,
    life::a_dropped_ring_closes_its_streams,
    life::a_ring_dropped_with_work_in_flight_lets_go,
}
