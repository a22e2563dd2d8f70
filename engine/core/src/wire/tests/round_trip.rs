//! There and back, and what is refused on the way.

use proptest::prelude::*;

use super::samples::*;
use super::*;
use crate::message::{RUNS_MAX, Status};
use crate::units::{Extent, Seq};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_is_sent_is_what_arrives(
        (message, payload_len) in messages(),
        number in 1..=COUNTER_MAX,
        before in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let sums: Vec<u64> = (0..u64::from(payload_len) / 4096).map(|n| n ^ number).collect();
        let mut out = before.clone();
        encode(&message, number, &sums, payload_len, &mut out);
        prop_assert_eq!(&out[..before.len()], &before[..], "frames are appended");
        let (header, body) = open(&out[before.len()..]).unwrap();
        prop_assert_eq!((header.number, header.payload_len), (number, payload_len));
        let parsed = parse_body(&header, body);
        let Ok(Parsed::Message { message: found, sums: found_sums }) = parsed else {
            return Err(TestCaseError::fail(format!("{parsed:?}")));
        };
        prop_assert_eq!(found, message);
        prop_assert_eq!(found_sums.len(), sums.len());
        prop_assert_eq!(found_sums.iter().collect::<Vec<_>>(), sums);
    }
}

#[test]
fn there_is_a_sample_of_every_message_type() {
    let found: Vec<u16> = one_of_each()
        .iter()
        .map(|(m, len)| {
            let frame = frame(m, *len);
            u16::from_le_bytes([frame[4], frame[5]])
        })
        .collect();
    let data = Kind::ALL.iter().filter(|kind| !kind.is_control());
    assert_eq!(found, data.map(|kind| *kind as u16).collect::<Vec<_>>());
}

#[test]
fn every_number_names_its_own_type_only() {
    for number in 0..=u16::MAX {
        match Kind::from_number(number) {
            Some(kind) => assert_eq!(kind as u16, number),
            None => assert!(Kind::ALL.iter().all(|kind| *kind as u16 != number)),
        }
    }
    assert!(
        Kind::ALL
            .iter()
            .all(|kind| Kind::from_number(*kind as u16) == Some(*kind))
    );
}

#[test]
fn the_largest_write_fits_a_frame() {
    let extent = Extent::new(0, 8193);
    let message = Message::Data {
        stamp: stamp(),
        extent,
        durable: false,
    };
    let frame = frame(&message, PAYLOAD_MAX);
    assert_eq!(frame.len(), HEADER_LEN + 64 + 8193 * 8);
    assert_eq!(read(&frame).unwrap().unwrap().0, message);
}

#[test]
fn the_hot_messages_are_written_without_allocating() {
    let extent = Extent::new(0, 1);
    let hot = [
        (
            Message::Data {
                stamp: stamp(),
                extent,
                durable: false,
            },
            4096,
        ),
        (
            Message::Ack {
                seq: Seq(1),
                status: Status::Ok,
            },
            0,
        ),
        (Message::Progress { stamp: stamp() }, 0),
        (
            Message::FlushAck {
                round: 1,
                status: Status::Ok,
            },
            0,
        ),
    ];
    let mut out = Vec::with_capacity(512);
    let place = out.as_ptr();
    for (message, payload_len) in hot {
        out.clear();
        let sums = [7; 1];
        encode(
            &message,
            1,
            &sums[..payload_len as usize / 4096],
            payload_len,
            &mut out,
        );
        assert_eq!(out.as_ptr(), place, "the buffer did not move");
    }
}

#[test]
fn every_truncation_is_refused() {
    for (message, payload_len) in one_of_each() {
        let whole = frame(&message, payload_len);
        let fields_len = u16::from_le_bytes([whole[8], whole[9]]);
        for len in HEADER_LEN..whole.len() {
            let mut cut = whole[..len].to_vec();
            let (header, body) = open(&whole).unwrap();
            let error = parse_body(&header, &body[..len - HEADER_LEN]).unwrap_err();
            assert!(
                matches!(error, WireError::BodyLength { .. }),
                "{message:?}: {error}"
            );
            let fields = fields_len.min((len - HEADER_LEN) as u16);
            cut[8..10].copy_from_slice(&fields.to_le_bytes());
            reseal(&mut cut);
            let error = read(&cut).unwrap_err();
            assert!(
                matches!(error, WireError::Truncated { .. }),
                "{message:?} at {len}: {error}"
            );
        }
        for fields in 0..fields_len {
            let mut cut = whole.clone();
            cut[8..10].copy_from_slice(&fields.to_le_bytes());
            reseal(&mut cut);
            assert!(
                read(&cut).is_err(),
                "{message:?} with {fields} bytes of fields"
            );
        }
    }
}

#[test]
fn fields_and_lists_of_the_future_are_skipped() {
    for (message, payload_len) in one_of_each() {
        let whole = frame(&message, payload_len);
        let fields_len = u16::from_le_bytes([whole[8], whole[9]]);
        let mut newer = whole.clone();
        let fields_end = HEADER_LEN + usize::from(fields_len);
        newer.splice(fields_end..fields_end, [0xee; 13]);
        newer[8..10].copy_from_slice(&(fields_len + 13).to_le_bytes());
        newer.extend([0xdd; 21]);
        newer[6..8].copy_from_slice(&0xfffe_u16.to_le_bytes());
        reseal(&mut newer);
        assert_eq!(read(&newer), read(&whole), "{message:?}");
    }
}

#[test]
fn an_unknown_type_is_skipped_unless_it_must_be_understood() {
    for number in [0, 9, 25, 64, 259, u16::MAX] {
        let mut strange = frame(&Message::AdoptAck, 0);
        strange[4..6].copy_from_slice(&number.to_le_bytes());
        strange.extend([1, 2, 3]);
        strange[17] = 0x10; // a payload of one granule
        reseal(&mut strange);
        assert_eq!(read(&strange), Err(WireError::UnknownType { number }));
        strange[6] = 0;
        reseal(&mut strange);
        assert_eq!(read(&strange), Ok(None));
        let (header, body) = open(&strange).unwrap();
        assert_eq!(header.payload_len, 4096);
        assert_eq!(parse_control(&header, body), Ok(None));
    }
}

#[test]
fn any_single_bit_flip_is_refused() {
    for (message, payload_len) in one_of_each() {
        let mut frame = frame(&message, payload_len);
        for bit in 0..frame.len() * 8 {
            frame[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&frame).is_err(), "{message:?} with bit {bit} flipped");
            frame[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn lengths_past_their_bounds_are_refused_before_anything_is_read() {
    let cases = [
        (12, BODY_MAX + 1, "body", BODY_MAX),
        (16, PAYLOAD_MAX + 1, "payload", PAYLOAD_MAX),
    ];
    let mut header = [0; HEADER_LEN];
    header.copy_from_slice(&frame(&Message::AdoptAck, 0));
    for (at, found, what, limit) in cases {
        let mut header = header;
        header[at..at + 4].copy_from_slice(&found.to_le_bytes());
        assert_eq!(
            parse_header(&header),
            Err(WireError::TooLong { what, found, limit })
        );
    }
    header[8] = 1;
    let error = WireError::TooLong {
        what: "fields",
        found: 1,
        limit: 0,
    };
    assert_eq!(parse_header(&header), Err(error));
    header[0] = b'G';
    assert!(matches!(
        parse_header(&header),
        Err(WireError::Magic { .. })
    ));
}

/// A frame with some bytes of its body replaced.
fn forged(message: &Message, payload_len: u32, at: usize, bytes: &[u8]) -> WireError {
    let mut frame = frame(message, payload_len);
    frame[HEADER_LEN + at..][..bytes.len()].copy_from_slice(bytes);
    reseal(&mut frame);
    read(&frame).expect_err("the forgery is refused")
}

#[test]
fn impossible_values_are_refused_by_field() {
    let samples = one_of_each();
    let sample = |kind: Kind| {
        let place = Kind::ALL.iter().position(|k| *k == kind).unwrap();
        &samples[place]
    };
    let ff = &[0xff; 8][..];
    let cases = [
        (Kind::Data, 0, ff, BadField::Counter),
        (Kind::Data, 8, &[8], BadField::Term),
        (Kind::Data, 15, &[0x80], BadField::Term),
        (Kind::Data, 32, ff, BadField::Counter),
        (Kind::Data, 40, &[10], BadField::Extent),
        (Kind::Data, 40, &[11], BadField::Extent),
        (Kind::Data, 55, &[1], BadField::Extent),
        (Kind::Data, 56, &[2], BadField::Code),
        (Kind::Zero, 56, &[3], BadField::Code),
        (Kind::Zero, 50, &[1], BadField::Extent),
        (Kind::Ack, 8, &[4], BadField::Code),
        (Kind::State, 1, &[5], BadField::Code),
        (Kind::Refuse, 0, &[15], BadField::Code),
        (Kind::Record, 12, &[8], BadField::Node),
        (Kind::Record, 13, &[0], BadField::Node),
        (Kind::Record, 8, ff, BadField::Counter),
        (Kind::Record, 32, &[65], BadField::Chain),
        (Kind::Record, 168 + 24 + 16, &[0, 1], BadField::Chain),
        (Kind::Hello, 94, &[65], BadField::Chain),
        (Kind::Hello, 208, &[0xff], BadField::Text),
        (Kind::Runs, 0, &[1, 1], BadField::List),
        (Kind::Map, 8, &[2], BadField::Extent),
        (Kind::ResyncRequest, 24, &[1], BadField::List),
        (Kind::ResyncRequest, 17, &[2], BadField::Extent),
        (Kind::ResyncData, 17, &[2], BadField::Extent),
        (Kind::SumReply, 12, &[1, 1], BadField::List),
        (Kind::ResyncAsk, 17, &[2], BadField::Extent),
        (Kind::ResyncDiffer, 8, &[0], BadField::List),
        (Kind::ResyncDiffer, 8, &[129], BadField::List),
        (Kind::HashRequest, 24, &[0], BadField::List),
        (Kind::HashReply, 12, &[1, 1], BadField::List),
        (Kind::SetAttr, 20, &[1, 0, 1], BadField::List),
        (Kind::SetAttr, 16, &[2], BadField::Code),
        (Kind::MarkPage, 40, &[0xf9, 1], BadField::List),
        (Kind::ReadRequest, 18, &[1], BadField::Extent),
        (Kind::ResyncEqual, 0, ff, BadField::Counter),
    ];
    for (kind, at, bytes, field) in cases {
        let (message, payload_len) = sample(kind);
        let error = forged(message, *payload_len, at, bytes);
        assert_eq!(error, WireError::Field { kind, field }, "{bytes:?} at {at}");
    }
}

#[test]
fn a_payload_that_does_not_fit_its_message_is_refused() {
    for (message, payload_len) in one_of_each() {
        for wrong in [0, 4096, 4095, 8192, 8193, 12288] {
            let is_free = matches!(message, Message::ReadReply { .. });
            if wrong == payload_len || is_free && wrong > 0 && wrong % 4096 == 0 {
                continue;
            }
            let mut frame = frame(&message, payload_len);
            frame[16..20].copy_from_slice(&u32::to_le_bytes(wrong));
            reseal(&mut frame);
            let error = read(&frame).unwrap_err();
            assert!(
                matches!(error, WireError::Payload { found, .. } if found == wrong),
                "{message:?} with {wrong}: {error}"
            );
        }
    }
    let failed = Message::ReadReply {
        id: 1,
        status: Status::Io,
    };
    assert!(read(&frame(&failed, 0)).is_ok());
}

#[test]
fn frame_numbers_are_dense_in_each_direction() {
    let (mut sender, mut receiver) = (Numbers::default(), Numbers::default());
    let mut send = |number| {
        let mut out = Vec::new();
        encode(&Message::AdoptAck, number, &[], 0, &mut out);
        let header = open(&out).unwrap().0;
        receiver.expect(&header)
    };
    assert_eq!(send(sender.take()), Ok(()));
    assert_eq!(send(sender.take()), Ok(()));
    assert_eq!(
        send(2),
        Err(WireError::Number {
            found: 2,
            expected: 3
        })
    );
    assert_eq!(
        send(4),
        Err(WireError::Number {
            found: 4,
            expected: 3
        })
    );
    assert_eq!(send(sender.take()), Ok(()));
}

#[test]
fn our_own_breaches_stop_us_before_they_reach_the_peer() {
    let refused = |message: Message, payload_len: u32| {
        let encoding = std::panic::catch_unwind(move || frame(&message, payload_len));
        assert!(encoding.is_err());
    };
    let extent = Extent::new(0, 257);
    refused(Message::ResyncZero { id: 1, extent }, 0);
    refused(Message::SumRequest { id: 1, extent }, 0);
    refused(
        Message::ReadRequest {
            id: 1,
            extent: Extent::new(0, 8194),
        },
        0,
    );
    refused(
        Message::Runs {
            runs: vec![extent; RUNS_MAX + 1],
            last: true,
        },
        0,
    );
    refused(
        Message::ResyncRequest {
            id: 1,
            extent: Extent::new(0, 2),
            sums: vec![1],
        },
        0,
    );
    refused(
        Message::Data {
            stamp: stamp(),
            extent: Extent::new(0, 2),
            durable: true,
        },
        4096,
    );
}

fn controls() -> impl Strategy<Value = Control> {
    let name = || "[a-zß☃]{0,80}";
    prop_oneof![
        any::<u64>().prop_map(|n| Control::Ping { n }),
        any::<u64>().prop_map(|n| Control::Pong { n }),
        (any::<(u16, u16, u64, u32)>(), name(), name(), name()).prop_map(
            |((protocol_min, protocol_max, process, keepalive_ms), cluster, from, to)| {
                Control::Hello(ControlHello {
                    protocol_min,
                    protocol_max,
                    cluster,
                    from,
                    to,
                    process,
                    keepalive_ms,
                })
            }
        ),
    ]
}

proptest! {
    #[test]
    fn control_messages_arrive_as_sent(control in controls(), number in 1..=COUNTER_MAX) {
        let mut out = Vec::new();
        encode_control(&control, number, &mut out);
        let (header, body) = open(&out).unwrap();
        prop_assert_eq!(header.number, number);
        prop_assert_eq!(parse_control(&header, body), Ok(Some(control)));
        for len in 0..body.len() {
            let mut cut = out[..HEADER_LEN + len].to_vec();
            let fields = header.fields_len.min(len as u16);
            cut[8..10].copy_from_slice(&fields.to_le_bytes());
            reseal(&mut cut);
            let (header, body) = open(&cut).unwrap();
            let refused = matches!(parse_control(&header, body), Err(WireError::Truncated { .. }));
            prop_assert!(refused, "cut at {}", len);
        }
    }
}

#[test]
fn data_and_control_do_not_mix() {
    let mut ping = Vec::new();
    encode_control(&Control::Ping { n: 1 }, 1, &mut ping);
    assert_eq!(
        read(&ping),
        Err(WireError::WrongConnection { kind: Kind::Ping })
    );
    let data = frame(&Message::AdoptAck, 0);
    let (header, body) = open(&data).unwrap();
    let error = WireError::WrongConnection {
        kind: Kind::AdoptAck,
    };
    assert_eq!(parse_control(&header, body), Err(error));
}

#[test]
fn a_table_is_no_vote_and_a_vote_no_table() {
    for (ballot, kind, other) in [(table(), 274u16, 272u16), (ballot(), 272, 274)] {
        let volume = "pg".to_string();
        let said = Control::Vote { volume, ballot };
        let mut frame = Vec::new();
        encode_control(&said, 1, &mut frame);
        assert_eq!(frame[4..6], kind.to_le_bytes());
        let (header, body) = open(&frame).unwrap();
        assert_eq!(parse_control(&header, body), Ok(Some(said)));
        frame[4..6].copy_from_slice(&other.to_le_bytes());
        reseal(&mut frame);
        let (header, body) = open(&frame).unwrap();
        let read = parse_control(&header, body);
        assert!(matches!(read, Err(WireError::Field { .. })), "{read:?}");
    }
}

#[test]
fn a_vote_of_a_version_that_says_no_lives_is_heard() {
    let (volume, ballot) = ("pg".to_string(), ballot());
    let mut frame = Vec::new();
    let said = Control::Vote {
        volume,
        ballot: ballot.clone(),
    };
    encode_control(&said, 1, &mut frame);
    // Fields of 112 bytes, then the name.
    frame.drain(HEADER_LEN + 112..HEADER_LEN + 144);
    frame[8..10].copy_from_slice(&112u16.to_le_bytes());
    reseal(&mut frame);
    let (header, body) = open(&frame).unwrap();
    let Ok(Some(Control::Vote {
        volume,
        ballot: found,
    })) = parse_control(&header, body)
    else {
        panic!("it is a vote");
    };
    let nothing = crate::message::Life::default();
    assert_eq!(
        (volume.as_str(), found.life, found.knows),
        ("pg", nothing, nothing)
    );
    assert_eq!(
        (found.vote, found.incarnation),
        (ballot.vote, ballot.incarnation)
    );
}
