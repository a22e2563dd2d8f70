//! `nbd_proto::fuzzing::uri` on whatever libFuzzer finds.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nbd_proto::fuzzing::uri(bytes));
