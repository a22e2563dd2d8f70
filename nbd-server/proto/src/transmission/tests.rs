//! Every judgement of the gate, and the stream around it.

mod extended;

use super::*;
use crate::codes::CommandFlags as F;
use crate::codes::CommandKind as C;
use crate::fuzzing::fixture::{Fixture, SIZE, disk};
use crate::{ExportInfo, ExportName, Exports, NbdError, ReplyStyle, SelectedContext};

fn negotiated(export: ExportInfo, replies: ReplyStyle) -> Negotiated {
    let contexts = match (replies, export.contexts.first()) {
        (ReplyStyle::Structured, Some(name)) => vec![SelectedContext {
            id: 1,
            name: name.clone(),
        }],
        _ => Vec::new(),
    };
    Negotiated {
        flags: export.flags(replies),
        export,
        replies,
        contexts,
        no_zeroes: true,
    }
}

fn gate(name: &str, replies: ReplyStyle) -> Gate {
    let export = Fixture.lookup(&ExportName::new(name).unwrap()).unwrap();
    Gate::new(&negotiated(export, replies))
}

fn full() -> Gate {
    gate("disk", ReplyStyle::Structured)
}

fn request(kind: C, flags: F, offset: u64, length: u32) -> Request {
    Request {
        flags,
        kind,
        cookie: Cookie(7),
        offset,
        length,
    }
}

fn ask(gate: &Gate, kind: C, flags: F, offset: u64, length: u32) -> Result<Command, NbdError> {
    gate.check(&request(kind, flags, offset, length))
        .map_err(|refused| refused.error)
}

const EINVAL: Result<Command, NbdError> = Err(NbdError::Invalid);
const ENOSPC: Result<Command, NbdError> = Err(NbdError::NoSpace);
const EPERM: Result<Command, NbdError> = Err(NbdError::Permission);

/// Commands that name a place.
const PLACED: [C; 6] = [
    C::READ,
    C::WRITE,
    C::TRIM,
    C::CACHE,
    C::WRITE_ZEROES,
    C::BLOCK_STATUS,
];

#[test]
fn commands_carry_what_the_request_said() {
    let gate = full();
    let read = Command::Read {
        offset: 512,
        length: 1024,
        in_one: true,
    };
    assert_eq!(ask(&gate, C::READ, F::DF, 512, 1024), Ok(read));
    let write = Command::Write {
        offset: 1,
        length: 3,
        fua: true,
    };
    assert_eq!(ask(&gate, C::WRITE, F::FUA, 1, 3), Ok(write));
    assert_eq!(ask(&gate, C::FLUSH, F::NONE, 0, 0), Ok(Command::Flush));
    let trim = Command::Trim {
        offset: 0,
        length: SIZE,
        fua: false,
    };
    assert_eq!(ask(&gate, C::TRIM, F::NONE, 0, SIZE as u32), Ok(trim));
    let cache = Command::Cache {
        offset: 0,
        length: SIZE,
    };
    assert_eq!(ask(&gate, C::CACHE, F::NONE, 0, SIZE as u32), Ok(cache));
    let flags = F::NO_HOLE.with(F::FAST_ZERO).with(F::FUA);
    let zeroes = Command::WriteZeroes {
        offset: 8,
        length: 8,
        fua: true,
        no_hole: true,
        fast: true,
    };
    assert_eq!(ask(&gate, C::WRITE_ZEROES, flags, 8, 8), Ok(zeroes));
    let status = Command::BlockStatus {
        offset: 0,
        length: 512,
        one: true,
        contexts: ContextSet::first(1),
    };
    assert_eq!(ask(&gate, C::BLOCK_STATUS, F::REQ_ONE, 0, 512), Ok(status));
    assert_eq!(ask(&gate, C::DISC, F::NONE, 0, 0), Ok(Command::Disconnect));
}

#[test]
fn each_command_takes_its_own_flags_and_fua_and_no_other() {
    let gate = full();
    for (kind, allowed) in [
        (C::READ, F::FUA.with(F::DF)),
        (C::WRITE, F::FUA),
        (C::FLUSH, F::FUA),
        (C::TRIM, F::FUA),
        (C::CACHE, F::FUA),
        (C::WRITE_ZEROES, F::FUA.with(F::NO_HOLE).with(F::FAST_ZERO)),
        (C::BLOCK_STATUS, F::FUA.with(F::REQ_ONE)),
    ] {
        for bit in 0..16 {
            let flag = F(1 << bit);
            let answer = ask(&gate, kind, flag, 0, 512);
            assert_eq!(
                answer.is_ok(),
                allowed.contains(flag),
                "{kind:?} with {flag:?}"
            );
            assert!(answer.is_ok() || answer == EINVAL);
        }
    }
}

#[test]
fn fua_is_refused_where_it_was_not_offered() {
    let gate = gate("plain", ReplyStyle::Simple);
    assert_eq!(ask(&gate, C::WRITE, F::FUA, 0, 512), EINVAL);
    assert_eq!(ask(&gate, C::READ, F::FUA, 0, 512), EINVAL);
}

#[test]
fn unknown_and_unoffered_commands_are_einval() {
    for kind in [C::RESIZE, C(9), C(0x100), C(u16::MAX)] {
        assert_eq!(ask(&full(), kind, F::NONE, 0, 512), EINVAL, "{kind:?}");
    }
    let plain = gate("plain", ReplyStyle::Simple);
    for kind in [C::FLUSH, C::TRIM, C::CACHE, C::WRITE_ZEROES] {
        assert_eq!(ask(&plain, kind, F::NONE, 0, 512), EINVAL, "{kind:?}");
    }
}

#[test]
fn df_needs_structured_replies() {
    assert_eq!(
        ask(&gate("disk", ReplyStyle::Simple), C::READ, F::DF, 0, 512),
        EINVAL
    );
}

#[test]
fn fast_zero_that_was_not_offered_is_einval() {
    let mut export = disk();
    export.features.fast_zero = false;
    let gate = Gate::new(&negotiated(export, ReplyStyle::Structured));
    assert_eq!(ask(&gate, C::WRITE_ZEROES, F::FAST_ZERO, 0, 512), EINVAL);
    assert!(ask(&gate, C::WRITE_ZEROES, F::NO_HOLE, 0, 512).is_ok());
}

#[test]
fn block_status_needs_a_selected_context() {
    let gate = gate("disk", ReplyStyle::Simple);
    assert_eq!(ask(&gate, C::BLOCK_STATUS, F::NONE, 0, 512), EINVAL);
}

#[test]
fn what_changes_a_read_only_export_is_eperm() {
    let gate = gate("read-only", ReplyStyle::Structured);
    for kind in [C::WRITE, C::TRIM, C::WRITE_ZEROES] {
        for (offset, length) in [(0, 512), (SIZE, 512), (0, 0), (0, u32::MAX)] {
            assert_eq!(ask(&gate, kind, F::NONE, offset, length), EPERM, "{kind:?}");
        }
    }
    for kind in [C::READ, C::FLUSH, C::CACHE, C::BLOCK_STATUS] {
        assert!(ask(&gate, kind, F::NONE, 0, 512).is_ok(), "{kind:?}");
    }
}

#[test]
fn beyond_the_end_is_enospc_for_writers_and_einval_for_the_rest() {
    for kind in PLACED {
        let expected = if matches!(kind, C::WRITE | C::WRITE_ZEROES) {
            ENOSPC
        } else {
            EINVAL
        };
        for (offset, length) in [
            (SIZE - 512, 513),
            (SIZE, 1),
            (SIZE + 1, 0),
            (u64::MAX, 1),
            (u64::MAX, 0),
            (u64::MAX - 511, 512),
        ] {
            let answer = ask(&full(), kind, F::NONE, offset, length);
            assert_eq!(answer, expected, "{kind:?} at {offset} of {length}");
        }
        assert!(
            ask(&full(), kind, F::NONE, SIZE - 512, 512).is_ok(),
            "{kind:?}"
        );
    }
}

#[test]
fn trim_past_the_end_is_refused() {
    assert_eq!(ask(&full(), C::TRIM, F::NONE, SIZE - 1, 2), EINVAL);
}

#[test]
fn a_request_off_the_minimum_block_is_einval() {
    let gate = gate("plain", ReplyStyle::Simple);
    for kind in [C::READ, C::WRITE] {
        assert_eq!(ask(&gate, kind, F::NONE, 1, 512), EINVAL);
        assert_eq!(ask(&gate, kind, F::NONE, 0, 511), EINVAL);
        assert!(ask(&gate, kind, F::NONE, 512, 512).is_ok());
    }
}

#[test]
fn a_payload_beyond_the_maximum_is_einval_and_effects_may_be_longer() {
    let big = ExportInfo {
        size: 1 << 40,
        ..disk()
    };
    let gate = Gate::new(&negotiated(big, ReplyStyle::Structured));
    let max = 32 << 20;
    for kind in [C::READ, C::WRITE] {
        assert!(ask(&gate, kind, F::NONE, 0, max).is_ok());
        assert_eq!(ask(&gate, kind, F::NONE, 0, max + 1), EINVAL);
    }
    for kind in [C::TRIM, C::CACHE, C::WRITE_ZEROES, C::BLOCK_STATUS] {
        assert!(ask(&gate, kind, F::NONE, 0, u32::MAX).is_ok(), "{kind:?}");
    }
}

#[test]
fn length_zero_is_nothing_to_do_except_for_block_status() {
    for kind in PLACED {
        let expected = if kind == C::BLOCK_STATUS {
            EINVAL
        } else {
            Ok(Command::Nothing)
        };
        assert_eq!(ask(&full(), kind, F::NONE, 0, 0), expected, "{kind:?}");
        assert_eq!(ask(&full(), kind, F::NONE, SIZE, 0), expected, "{kind:?}");
    }
}

#[test]
fn flush_does_not_look_at_offset_and_length() {
    assert_eq!(
        ask(&full(), C::FLUSH, F::NONE, u64::MAX, u32::MAX),
        Ok(Command::Flush)
    );
}

fn transmission() -> Transmission {
    Transmission::new(&negotiated(disk(), ReplyStyle::Structured))
}

fn write(length: u32) -> [u8; 28] {
    request(C::WRITE, F::NONE, 0, length).encode()
}

#[test]
fn a_request_is_judged_where_it_lies() {
    let bytes = request(C::READ, F::NONE, 0, 512).encode();
    let command = Command::Read {
        offset: 0,
        length: 512,
        in_one: false,
    };
    let item = Item::Request {
        cookie: Cookie(7),
        offset: 0,
        command,
    };
    assert_eq!(
        transmission().next(&bytes),
        Ok(Parsed { consumed: 28, item })
    );
}

#[test]
fn a_header_in_parts_is_put_together() {
    let bytes = request(C::READ, F::NONE, 0, 512).encode();
    let mut transmission = transmission();
    for byte in &bytes[..27] {
        let more = Parsed {
            consumed: 1,
            item: Item::More,
        };
        assert_eq!(transmission.next(&[*byte]), Ok(more));
    }
    let last = transmission.next(&bytes[27..]).unwrap();
    assert_eq!(last.consumed, 1);
    assert!(matches!(
        last.item,
        Item::Request {
            cookie: Cookie(7),
            ..
        }
    ));
}

#[test]
fn payload_is_told_from_requests() {
    let mut transmission = transmission();
    let bytes = [&write(5)[..], b"hello", &write(0)].concat();
    assert_eq!(transmission.next(&bytes).unwrap().consumed, 28);
    assert_eq!(transmission.payload_left(), 5);
    let part = Parsed {
        consumed: 2,
        item: Item::Payload,
    };
    assert_eq!(transmission.next(&bytes[28..30]), Ok(part));
    assert_eq!(transmission.payload_left(), 3);
    let rest = Parsed {
        consumed: 3,
        item: Item::Payload,
    };
    assert_eq!(transmission.next(&bytes[30..]), Ok(rest));
    let item = Item::Request {
        cookie: Cookie(7),
        offset: 0,
        command: Command::Nothing,
    };
    assert_eq!(
        transmission.next(&bytes[33..]),
        Ok(Parsed { consumed: 28, item })
    );
}

#[test]
fn payload_received_elsewhere_is_accounted_for() {
    let mut transmission = transmission();
    transmission.next(&write(4096)).unwrap();
    transmission.payload_received(96);
    assert_eq!(transmission.payload_left(), 4000);
    transmission.payload_received(4000);
    assert!(matches!(
        transmission.next(&write(1)).unwrap().item,
        Item::Request { .. }
    ));
}

#[test]
#[should_panic(expected = "3 bytes received of 2 bytes of payload")]
fn more_payload_than_announced_is_our_own_bug() {
    let mut transmission = transmission();
    transmission.next(&write(2)).unwrap();
    transmission.payload_received(3);
}

#[test]
fn the_payload_of_a_refused_write_is_dropped() {
    let mut transmission = transmission();
    let refused = request(C::WRITE, F::DF, 0, 10).encode();
    let bytes = [&refused[..], &[0xff; 10], &write(1)].concat();
    let rejected = transmission.next(&bytes).unwrap();
    assert_eq!(rejected.consumed, 28);
    assert!(matches!(
        rejected.item,
        Item::Reject {
            cookie: Cookie(7),
            kind: C::WRITE,
            ..
        }
    ));
    assert_eq!(transmission.payload_left(), 0);
    let dropped = Parsed {
        consumed: 4,
        item: Item::More,
    };
    assert_eq!(transmission.next(&bytes[28..32]), Ok(dropped));
    let next = transmission.next(&bytes[32..]).unwrap();
    assert_eq!(next.consumed, 6 + 28);
    assert!(matches!(
        next.item,
        Item::Request {
            command: Command::Write { .. },
            ..
        }
    ));
}

#[test]
fn only_a_write_that_is_refused_has_bytes_to_drop() {
    let mut transmission = transmission();
    for kind in [C::READ, C::RESIZE, C(99)] {
        let bytes = request(kind, F::PAYLOAD_LEN, 0, 512).encode();
        assert!(matches!(
            transmission.next(&bytes).unwrap().item,
            Item::Reject { .. }
        ));
    }
    assert!(matches!(
        transmission.next(&write(1)).unwrap().item,
        Item::Request { .. }
    ));
}

#[test]
fn a_payload_is_dropped_up_to_64_mib_and_ends_the_connection_beyond() {
    let mut bearable = transmission();
    let item = bearable.next(&write(DRAIN_MAX)).unwrap().item;
    assert!(matches!(item, Item::Reject { refused, .. } if refused.error == NbdError::Invalid));
    let mut absurd = transmission();
    let fatal = Fatal::PayloadTooLong(u64::from(DRAIN_MAX) + 1);
    assert_eq!(absurd.next(&write(DRAIN_MAX + 1)), Err(fatal));
    assert_eq!(absurd.next(&write(1)), Err(fatal));
}

#[test]
fn a_wrong_magic_ends_the_connection_for_good() {
    let mut transmission = transmission();
    let mut bytes = write(0);
    bytes[0] = 0;
    assert_eq!(transmission.next(&bytes), Err(Fatal::Magic(0x0060_9513)));
    assert_eq!(transmission.next(b""), Err(Fatal::Magic(0x0060_9513)));
}

#[test]
fn nothing_after_a_disconnect_is_looked_at() {
    let mut transmission = transmission();
    let bytes = request(C::DISC, F(u16::MAX), 1, 1).encode();
    assert_eq!(transmission.next(&bytes).unwrap().item, Item::Disconnect);
    let more = Parsed {
        consumed: 28,
        item: Item::Disconnect,
    };
    assert_eq!(transmission.next(&write(1)), Ok(more));
}
