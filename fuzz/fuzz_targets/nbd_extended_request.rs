//! `nbd_proto::fuzzing::extended_request` on whatever libFuzzer finds.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nbd_proto::fuzzing::extended_request(bytes));
