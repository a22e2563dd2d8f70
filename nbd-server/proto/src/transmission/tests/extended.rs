//! Extended headers: which length is a payload's, filters, and where the connection ends.

use super::*;
use crate::codes::TransmissionFlags;

fn extended(name: &str, contexts: &[&str]) -> Transmission {
    let export = Fixture.lookup(&ExportName::new(name).unwrap()).unwrap();
    let contexts: Vec<SelectedContext> = (1..)
        .zip(contexts)
        .map(|(id, name)| SelectedContext {
            id,
            name: (*name).to_owned(),
        })
        .collect();
    let filters = !contexts.is_empty();
    let flags = export.flags(ReplyStyle::Extended);
    Transmission::new(&Negotiated {
        flags: flags.with_if(TransmissionFlags::BLOCK_STATUS_PAYLOAD, filters),
        export,
        replies: ReplyStyle::Extended,
        contexts,
        no_zeroes: true,
    })
}

fn disk_extended() -> Transmission {
    extended("disk", &["base:allocation", "x-pollux:replicated"])
}

fn wide(kind: C, flags: F, offset: u64, length: u64) -> Vec<u8> {
    ExtendedRequest {
        flags,
        kind,
        cookie: Cookie(7),
        offset,
        length,
    }
    .encode()
    .to_vec()
}

fn filter(length: u64, ids: &[u32]) -> Vec<u8> {
    let ids: Vec<u8> = ids.iter().flat_map(|id| id.to_be_bytes()).collect();
    let payload = 8 + ids.len() as u64;
    let head = wide(C::BLOCK_STATUS, F::PAYLOAD_LEN, 512, payload);
    [head, length.to_be_bytes().to_vec(), ids].concat()
}

/// What a whole request comes to, and that the next one is found behind it.
fn outcome(transmission: &mut Transmission, bytes: &[u8]) -> Item {
    let stream = [bytes, &wide(C::FLUSH, F::NONE, 9, 0)].concat();
    let first = transmission.next(&stream).unwrap();
    let flush = transmission.next(&stream[first.consumed..]).unwrap();
    assert_eq!(first.consumed + flush.consumed, stream.len());
    let expected = Item::Request {
        cookie: Cookie(7),
        offset: 9,
        command: Command::Flush,
    };
    assert_eq!(flush.item, expected);
    first.item
}

fn command(item: Item) -> Command {
    match item {
        Item::Request { command, .. } => command,
        other => panic!("{other:?}"),
    }
}

fn refusal(item: Item) -> NbdError {
    match item {
        Item::Reject { refused, .. } => refused.error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_whole_export_is_one_request() {
    let all = SIZE;
    let mut transmission = disk_extended();
    let mut ask = |kind| command(outcome(&mut transmission, &wide(kind, F::NONE, 0, all)));
    assert!(matches!(ask(C::TRIM), Command::Trim { length: SIZE, .. }));
    assert!(matches!(ask(C::CACHE), Command::Cache { length: SIZE, .. }));
    let zeroes = ask(C::WRITE_ZEROES);
    assert!(matches!(zeroes, Command::WriteZeroes { length: SIZE, .. }));
    let status = Command::BlockStatus {
        offset: 0,
        length: SIZE,
        one: false,
        contexts: ContextSet::first(2),
    };
    assert_eq!(ask(C::BLOCK_STATUS), status);
}

#[test]
fn a_length_without_the_flag_is_never_that_of_a_payload() {
    let mut transmission = disk_extended();
    for kind in (0..12)
        .map(C)
        .filter(|kind| *kind != C::DISC && *kind != C::FLUSH)
    {
        for length in [1 << 26, 1 << 32, 1 << 63, u64::MAX] {
            let item = outcome(&mut transmission, &wide(kind, F::NONE, 0, length));
            if length > SIZE {
                refusal(item);
            }
            assert_eq!(transmission.payload_left(), 0);
        }
    }
}

#[test]
fn a_write_says_how_long_its_payload_is() {
    let mut transmission = disk_extended();
    let bytes = wide(C::WRITE, F::PAYLOAD_LEN.with(F::FUA), 4096, 5);
    let write = Command::Write {
        offset: 4096,
        length: 5,
        fua: true,
    };
    assert_eq!(command(transmission.next(&bytes).unwrap().item), write);
    assert_eq!(transmission.payload_left(), 5);
    assert_eq!(transmission.next(b"hello").unwrap().item, Item::Payload);
    let without = wide(C::WRITE, F::NONE, 0, 512);
    assert_eq!(
        refusal(outcome(&mut transmission, &without)),
        NbdError::Invalid
    );
    let without = wide(C::WRITE, F::NONE, 0, 0);
    assert_eq!(
        refusal(outcome(&mut transmission, &without)),
        NbdError::Invalid
    );
}

#[test]
fn a_read_only_export_is_told_before_a_missing_payload() {
    let mut transmission = extended("read-only", &[]);
    let bytes = wide(C::WRITE, F::NONE, 0, 512);
    assert_eq!(
        refusal(outcome(&mut transmission, &bytes)),
        NbdError::Permission
    );
    let bytes = [wide(C::WRITE, F::PAYLOAD_LEN, 0, 5), b"hello".to_vec()].concat();
    let first = transmission.next(&bytes).unwrap();
    assert_eq!(refusal(first.item), NbdError::Permission);
    let rest = transmission.next(&bytes[first.consumed..]).unwrap();
    assert_eq!((rest.consumed, rest.item), (5, Item::More));
}

#[test]
fn a_payload_where_none_belongs_is_dropped_and_refused() {
    for kind in (0..12).map(C) {
        if [C::WRITE, C::DISC].contains(&kind) {
            continue;
        }
        let mut transmission = disk_extended();
        let bytes = wide(kind, F::PAYLOAD_LEN, 0, 9);
        let first = transmission.next(&bytes).unwrap();
        assert_eq!(refusal(first.item), NbdError::Invalid, "{kind:?}");
        let stream = [&b"123456789"[..], &wide(C::FLUSH, F::NONE, 0, 0)].concat();
        let next = transmission.next(&stream).unwrap();
        assert_eq!((next.consumed, command(next.item)), (41, Command::Flush));
    }
}

#[test]
fn a_payload_above_the_maximum_ends_the_connection() {
    let maximum = 32 << 20;
    for kind in [C::WRITE, C::READ, C::TRIM, C::BLOCK_STATUS, C(99)] {
        for length in [maximum + 1, 1 << 31, 1 << 32, u64::MAX] {
            let mut transmission = disk_extended();
            let fatal = Fatal::PayloadTooLong(length);
            let bytes = wide(kind, F::PAYLOAD_LEN, 0, length);
            assert_eq!(transmission.next(&bytes), Err(fatal));
            assert_eq!(transmission.next(b""), Err(fatal));
        }
        let mut transmission = disk_extended();
        let bytes = wide(kind, F::PAYLOAD_LEN, u64::MAX, maximum);
        refusal(transmission.next(&bytes).unwrap().item);
    }
    // What was announced is less than what any client may send: it is dropped.
    let mut plain = extended("plain", &[]);
    let bytes = wide(C::WRITE, F::PAYLOAD_LEN, 0, maximum);
    assert_eq!(refusal(plain.next(&bytes).unwrap().item), NbdError::Invalid);
}

#[test]
fn a_filter_chooses_among_the_selected_contexts() {
    let mut transmission = disk_extended();
    for (ids, places) in [(&[2u32][..], 0b10), (&[1], 0b01), (&[2, 1], 0b11)] {
        let status = Command::BlockStatus {
            offset: 512,
            length: 4096,
            one: false,
            contexts: ContextSet(places),
        };
        assert_eq!(
            command(outcome(&mut transmission, &filter(4096, ids))),
            status
        );
    }
}

#[test]
fn a_filter_in_parts_is_put_together() {
    let bytes = filter(4096, &[2]);
    for cut in 1..bytes.len() {
        let mut transmission = disk_extended();
        let (first, second) = bytes.split_at(cut);
        let more = Parsed {
            consumed: cut,
            item: Item::More,
        };
        assert_eq!(transmission.next(first), Ok(more));
        let last = transmission.next(second).unwrap();
        assert_eq!(last.consumed, second.len());
        assert!(matches!(last.item, Item::Request { .. }));
    }
}

#[test]
fn a_wrong_filter_is_consumed_and_refused() {
    let mut transmission = disk_extended();
    for bytes in [
        filter(4096, &[]),
        filter(4096, &[1, 1]),
        filter(4096, &[3]),
        filter(4096, &[1, 2, 1]),
        filter(0, &[1]),
        filter(SIZE, &[1]),
        filter(u64::MAX, &[1]),
        [wide(C::BLOCK_STATUS, F::PAYLOAD_LEN, 0, 0)].concat(),
        [wide(C::BLOCK_STATUS, F::PAYLOAD_LEN, 0, 13), vec![0; 13]].concat(),
    ] {
        let first = transmission.next(&bytes).unwrap();
        assert_eq!(refusal(first.item), NbdError::Invalid);
        let mut at = first.consumed;
        while at < bytes.len() {
            let next = transmission.next(&bytes[at..]).unwrap();
            assert_eq!(next.item, Item::More);
            at += next.consumed;
        }
        assert!(matches!(
            outcome(&mut transmission, &filter(4096, &[1])),
            Item::Request { .. }
        ));
    }
}

#[test]
fn without_contexts_there_is_no_status_and_no_filter() {
    let mut transmission = extended("disk", &[]);
    let status = wide(C::BLOCK_STATUS, F::NONE, 0, 4096);
    assert_eq!(
        refusal(outcome(&mut transmission, &status)),
        NbdError::Invalid
    );
    let filtered = filter(4096, &[1]);
    let first = transmission.next(&filtered).unwrap();
    assert_eq!(refusal(first.item), NbdError::Invalid);
    let rest = transmission.next(&filtered[first.consumed..]).unwrap();
    assert_eq!((rest.consumed, rest.item), (12, Item::More));
}

#[test]
fn a_compact_request_is_out_of_step() {
    let bytes = [&request(C::READ, F::NONE, 0, 512).encode()[..], &[0; 4]].concat();
    assert_eq!(disk_extended().next(&bytes), Err(Fatal::Magic(0x2560_9513)));
    let bytes = wide(C::READ, F::NONE, 0, 512);
    assert_eq!(transmission().next(&bytes), Err(Fatal::Magic(0x21e4_1c71)));
}
