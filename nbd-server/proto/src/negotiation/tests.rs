//! Every rule of the handshake, option by option.

mod extended;

use super::*;
use crate::fuzzing::fixture::{Fixture, SIZE, disk};
use crate::{
    BlockSizes, ExportName, ExportNameReply, Info, InfoRequest, MetaRequest, OptionReplyHeader,
    Wanted,
};
use OptionCode as O;
use OptionReplyKind as K;

/// A client that has answered the greeting.
struct Talk {
    negotiation: Negotiation,
    out: Vec<u8>,
}

type Replies = Vec<(K, Vec<u8>)>;

impl Talk {
    fn new() -> Self {
        Self::with(Policy::default(), 3)
    }

    fn with(policy: Policy, client_flags: u32) -> Self {
        let mut talk = Talk {
            negotiation: Negotiation::new(policy),
            out: Vec::new(),
        };
        assert_eq!(talk.feed(&client_flags.to_be_bytes()), Step::NeedMore);
        talk
    }

    fn structured() -> Self {
        let mut talk = Self::new();
        assert_eq!(talk.ask(O::STRUCTURED_REPLY, b""), [(K::ACK, vec![])]);
        talk
    }

    fn feed(&mut self, bytes: &[u8]) -> Step {
        self.negotiation.feed(bytes, &Fixture, &mut self.out)
    }

    fn send(&mut self, option: O, data: &[u8]) -> Step {
        let mut bytes = Vec::new();
        OptionHeader::encode_with(option, data, &mut bytes);
        self.feed(&bytes)
    }

    /// The replies to an option that leaves the negotiation going.
    fn ask(&mut self, option: O, data: &[u8]) -> Replies {
        let step = self.send(option, data);
        assert_eq!(
            step,
            Step::Continue {
                consumed: 16 + data.len()
            }
        );
        self.replies(option)
    }

    fn replies(&mut self, option: O) -> Replies {
        let mut replies = Vec::new();
        let mut rest = &self.out[..];
        while let Some((header, used)) = OptionReplyHeader::parse(rest).unwrap() {
            assert_eq!(header.option, option);
            let end = used + header.length as usize;
            replies.push((header.kind, rest[used..end].to_vec()));
            rest = &rest[end..];
        }
        assert!(rest.is_empty());
        self.out.clear();
        replies
    }

    /// The only reply, an error.
    fn error(&mut self, option: O, data: &[u8]) -> K {
        let replies = self.ask(option, data);
        assert_eq!(replies.len(), 1, "{replies:?}");
        assert!(replies[0].0.is_error(), "{replies:?}");
        replies[0].0
    }

    fn go(&mut self, name: &str) -> Box<Negotiated> {
        match self.send(O::GO, &info_data(name, Wanted::default())) {
            Step::EnterTransmission { negotiated, .. } => negotiated,
            other => panic!("{other:?}"),
        }
    }

    fn still_in_step(&mut self) {
        assert_eq!(self.ask(O(77), b"whatever")[0].0, K::ERR_UNSUP);
    }
}

fn info_data(name: &str, wanted: Wanted) -> Vec<u8> {
    let mut data = Vec::new();
    InfoRequest {
        name: ExportName::new(name).unwrap(),
        wanted,
    }
    .encode(&mut data);
    data
}

fn meta_data(name: &str, queries: &[&str]) -> Vec<u8> {
    let mut data = Vec::new();
    MetaRequest::encode(&ExportName::new(name).unwrap(), queries, &mut data);
    data
}

const ALL: Wanted = Wanted {
    name: true,
    description: true,
    block_size: true,
};

#[test]
fn the_greeting_offers_fixed_newstyle_and_no_zeroes() {
    let greeting = Negotiation::new(Policy::default()).greeting();
    assert_eq!(greeting, *b"NBDMAGICIHAVEOPT\x00\x03");
    let policy = Policy {
        no_zeroes: false,
        ..Policy::default()
    };
    assert_eq!(Negotiation::new(policy).greeting()[16..], [0, 1]);
}

#[test]
fn client_flags_that_were_not_offered_end_the_connection() {
    for (no_zeroes, flags) in [(true, 4u32), (true, 0x8000_0003), (false, 2), (false, 3)] {
        let policy = Policy {
            no_zeroes,
            ..Policy::default()
        };
        let mut negotiation = Negotiation::new(policy);
        let step = negotiation.feed(&flags.to_be_bytes(), &Fixture, &mut Vec::new());
        assert_eq!(
            step,
            Step::Close(CloseReason::ClientFlags(ClientFlags(flags)))
        );
    }
}

#[test]
fn an_unknown_option_is_unsupported_and_the_stream_stays_in_step() {
    let mut talk = Talk::new();
    for option in [O(0), O::PEEK_EXPORT, O(12), O(u32::MAX)] {
        assert_eq!(talk.error(option, b"some data"), K::ERR_UNSUP, "{option:?}");
    }
    talk.still_in_step();
}

#[test]
fn a_wrong_option_magic_ends_the_connection() {
    let step = Talk::new().feed(b"IHAVEOPX\0\0\0\x03\0\0\0\0");
    assert_eq!(
        step,
        Step::Close(CloseReason::OptionMagic(0x4948_4156_454f_5058))
    );
}

#[test]
fn an_option_of_64_kib_is_read_and_a_longer_one_ends_the_connection() {
    let mut talk = Talk::new();
    assert_eq!(talk.error(O(77), &vec![7; 64 << 10]), K::ERR_UNSUP);
    let header = OptionHeader {
        option: O(77),
        length: (64 << 10) + 1,
    };
    let reason = CloseReason::OptionTooLong {
        option: O(77),
        length: (64 << 10) + 1,
    };
    assert_eq!(talk.feed(&header.encode()), Step::Close(reason));
    assert_eq!(talk.feed(b"more"), Step::Close(CloseReason::Ended));
}

#[test]
fn an_announced_length_allocates_nothing() {
    let mut talk = Talk::new();
    let header = OptionHeader {
        option: O::GO,
        length: 64 << 10,
    };
    assert_eq!(talk.feed(&header.encode()), Step::NeedMore);
    assert_eq!(talk.feed(b"abc"), Step::NeedMore);
    assert!(talk.negotiation.partial.capacity() < 256);
}

#[test]
fn one_option_too_many_ends_the_connection() {
    let mut talk = Talk::with(
        Policy {
            options_max: 3,
            ..Policy::default()
        },
        3,
    );
    for _ in 0..3 {
        talk.ask(O::LIST, b"");
    }
    assert_eq!(
        talk.send(O::LIST, b""),
        Step::Close(CloseReason::TooManyOptions(3))
    );
}

#[test]
fn pipelined_options_are_answered_one_per_call() {
    let mut talk = Talk::new();
    let mut bytes = Vec::new();
    OptionHeader::encode_with(O::LIST, b"", &mut bytes);
    OptionHeader::encode_with(O::ABORT, b"", &mut bytes);
    assert_eq!(talk.feed(&bytes), Step::Continue { consumed: 16 });
    assert_eq!(talk.replies(O::LIST).len(), 6);
    assert_eq!(talk.feed(&bytes[16..]), Step::Close(CloseReason::Aborted));
}

#[test]
fn abort_is_acknowledged_whatever_its_data() {
    for data in [&b""[..], b"bye"] {
        let mut talk = Talk::new();
        assert_eq!(talk.send(O::ABORT, data), Step::Close(CloseReason::Aborted));
        assert_eq!(talk.replies(O::ABORT), [(K::ACK, vec![])]);
    }
}

#[test]
fn list_names_every_export_then_acknowledges() {
    let replies = Talk::new().ask(O::LIST, b"");
    assert_eq!(replies[0], (K::SERVER, b"\0\0\0\x04diska disk".to_vec()));
    assert_eq!(replies[3], (K::SERVER, b"\0\0\0\x09secondary".to_vec()));
    assert_eq!(replies[5], (K::ACK, vec![]));
}

#[test]
fn list_with_data_is_invalid_and_lists_nothing() {
    let mut talk = Talk::new();
    assert_eq!(talk.error(O::LIST, b"x"), K::ERR_INVALID);
    talk.still_in_step();
}

#[test]
fn list_is_refused_where_the_policy_says_so() {
    let mut talk = Talk::with(
        Policy {
            list: false,
            ..Policy::default()
        },
        3,
    );
    assert_eq!(talk.error(O::LIST, b""), K::ERR_POLICY);
}

#[test]
fn starttls_is_unsupported_or_refused_and_invalid_with_data() {
    let mut talk = Talk::new();
    assert_eq!(talk.error(O::STARTTLS, b""), K::ERR_UNSUP);
    assert_eq!(talk.error(O::STARTTLS, b"x"), K::ERR_INVALID);
    let mut talk = Talk::with(
        Policy {
            tls: Tls::Refused,
            ..Policy::default()
        },
        3,
    );
    assert_eq!(talk.error(O::STARTTLS, b""), K::ERR_POLICY);
    talk.still_in_step();
}

impl Talk {
    fn tls(tls: Tls) -> Self {
        let policy = Policy {
            tls,
            ..Policy::default()
        };
        Talk::with(policy, 3)
    }

    /// STARTTLS is acknowledged, and TLS comes up.
    fn secure(&mut self) {
        let step = self.send(O::STARTTLS, b"");
        assert_eq!(step, Step::StartTls { consumed: 16 });
        assert_eq!(self.replies(O::STARTTLS), [(K::ACK, vec![])]);
        self.negotiation.secured();
    }
}

#[test]
fn starttls_and_its_answer_are_these_bytes() {
    let mut talk = Talk::tls(Tls::Offered);
    assert_eq!(
        talk.feed(b"IHAVEOPT\0\0\0\x05\0\0\0\0"),
        Step::StartTls { consumed: 16 }
    );
    let ack = b"\x00\x03\xe8\x89\x04\x55\x65\xa9\0\0\0\x05\0\0\0\x01\0\0\0\0";
    assert_eq!(talk.out, ack);
}

#[test]
fn forced_tls_answers_all_but_starttls_and_abort_with_tls_required() {
    let mut talk = Talk::tls(Tls::Required);
    for option in [
        O::LIST,
        O::INFO,
        O::GO,
        O::STRUCTURED_REPLY,
        O::LIST_META_CONTEXT,
        O::SET_META_CONTEXT,
        O(77),
    ] {
        assert_eq!(talk.error(option, b"junk"), K::ERR_TLS_REQD, "{option:?}");
    }
    assert_eq!(talk.error(O::STARTTLS, b"x"), K::ERR_INVALID);
    talk.secure();
    assert_eq!(talk.go("disk").export.name.as_str(), "disk");
    let mut talk = Talk::tls(Tls::Required);
    assert_eq!(talk.send(O::ABORT, b""), Step::Close(CloseReason::Aborted));
    let mut talk = Talk::tls(Tls::Required);
    let reason = "this server is to be used with TLS only".to_owned();
    assert_eq!(
        talk.send(O::EXPORT_NAME, b"disk"),
        Step::Close(CloseReason::ExportName(reason))
    );
    assert_eq!(talk.out, b"", "EXPORT_NAME knows no error reply");
}

#[test]
fn starttls_counts_once() {
    let mut talk = Talk::tls(Tls::Offered);
    talk.secure();
    assert_eq!(talk.error(O::STARTTLS, b""), K::ERR_INVALID);
    talk.still_in_step();
    assert_eq!(talk.go("disk").export.name.as_str(), "disk");
}

#[test]
fn what_was_agreed_before_tls_does_not_count() {
    let mut talk = Talk::tls(Tls::Offered);
    assert_eq!(talk.ask(O::STRUCTURED_REPLY, b"")[0].0, K::ACK);
    let wish = meta_data("disk", &[BASE_ALLOCATION]);
    assert_eq!(talk.ask(O::SET_META_CONTEXT, &wish).len(), 2);
    talk.secure();
    assert_eq!(talk.error(O::SET_META_CONTEXT, &wish), K::ERR_INVALID);
    let agreed = talk.go("disk");
    assert_eq!(agreed.replies, ReplyStyle::Simple);
    assert_eq!(agreed.contexts, []);
    assert!(agreed.no_zeroes, "the greeting is not repeated");
}

#[test]
fn plaintext_behind_starttls_closes_however_it_is_cut() {
    let mut bytes = Vec::new();
    OptionHeader::encode_with(O::STARTTLS, b"", &mut bytes);
    OptionHeader::encode_with(O::GO, &info_data("disk", Wanted::default()), &mut bytes);
    let mut talk = Talk::tls(Tls::Offered);
    assert_eq!(talk.feed(&bytes), Step::StartTls { consumed: 16 });
    assert_eq!(talk.feed(b""), Step::NeedMore);
    assert_eq!(
        talk.feed(&bytes[16..]),
        Step::Close(CloseReason::PlaintextBehindStartTls)
    );
    let mut talk = Talk::tls(Tls::Offered);
    for byte in &bytes[..15] {
        assert_eq!(talk.feed(&[*byte]), Step::NeedMore);
    }
    assert_eq!(talk.feed(&bytes[15..16]), Step::StartTls { consumed: 1 });
    assert_eq!(
        talk.feed(&bytes[16..17]),
        Step::Close(CloseReason::PlaintextBehindStartTls)
    );
    assert_eq!(talk.feed(b"x"), Step::Close(CloseReason::Ended));
}

#[test]
fn an_export_for_tls_only_says_so_and_never_once_tls_is_up() {
    let go = info_data("secret", Wanted::default());
    let mut talk = Talk::tls(Tls::Offered);
    assert_eq!(talk.error(O::INFO, &go), K::ERR_TLS_REQD);
    assert_eq!(talk.error(O::GO, &go), K::ERR_TLS_REQD);
    talk.secure();
    assert_eq!(talk.error(O::GO, &go), K::ERR_POLICY);
    // Where STARTTLS leads nowhere, it is not asked for.
    for tls in [Tls::Unsupported, Tls::Refused] {
        assert_eq!(Talk::tls(tls).error(O::GO, &go), K::ERR_POLICY);
    }
}

#[test]
fn info_answers_in_a_fixed_order_and_stays_in_negotiation() {
    let mut talk = Talk::new();
    let replies = talk.ask(O::INFO, &info_data("disk", ALL));
    let kinds: Vec<_> = replies.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [K::INFO, K::INFO, K::INFO, K::INFO, K::ACK]);
    let flags = disk().flags(ReplyStyle::Simple);
    assert_eq!(
        Info::parse(&replies[0].1),
        Ok(Info::Export { size: SIZE, flags })
    );
    assert_eq!(Info::parse(&replies[1].1), Ok(Info::Name("disk")));
    assert_eq!(Info::parse(&replies[2].1), Ok(Info::Description("a disk")));
    assert_eq!(Info::parse(&replies[3].1), Ok(BlockSizes::USUAL.to_info()));
    talk.still_in_step();
}

#[test]
fn size_and_flags_are_told_without_asking_and_nothing_else() {
    let replies = Talk::new().ask(O::INFO, &info_data("disk", Wanted::default()));
    assert_eq!(replies.len(), 2);
    assert_eq!(replies[0].1.len(), 12);
}

#[test]
fn a_missing_description_is_not_told() {
    let replies = Talk::new().ask(O::INFO, &info_data("plain", ALL));
    assert_eq!(replies.len(), 4);
}

#[test]
fn go_after_info_tells_the_same_and_enters_transmission() {
    for mut talk in [Talk::new(), Talk::structured()] {
        let info = talk.ask(O::INFO, &info_data("disk", ALL));
        let step = talk.send(O::GO, &info_data("disk", ALL));
        assert_eq!(talk.replies(O::GO), info);
        assert!(matches!(step, Step::EnterTransmission { .. }));
    }
}

#[test]
fn go_leaves_the_bytes_of_the_transmission_alone() {
    let mut bytes = Vec::new();
    OptionHeader::encode_with(O::GO, &info_data("disk", Wanted::default()), &mut bytes);
    let length = bytes.len();
    bytes.extend_from_slice(b"transmission");
    let mut talk = Talk::new();
    match talk.feed(&bytes) {
        Step::EnterTransmission {
            consumed,
            negotiated,
        } => {
            assert_eq!(consumed, length);
            assert_eq!(negotiated.export, disk());
            assert!(negotiated.no_zeroes);
            assert_eq!(negotiated.replies, ReplyStyle::Simple);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_df_flag_is_offered_only_with_structured_replies() {
    assert!(
        !Talk::new()
            .go("disk")
            .flags
            .contains(TransmissionFlags::SEND_DF)
    );
    assert!(
        Talk::structured()
            .go("disk")
            .flags
            .contains(TransmissionFlags::SEND_DF)
    );
}

#[test]
fn the_empty_name_is_the_default_export() {
    assert_eq!(Talk::new().go("").export, disk());
    let replies = Talk::new().ask(O::INFO, &info_data("", ALL));
    assert_eq!(Info::parse(&replies[1].1), Ok(Info::Name("disk")));
}

#[test]
fn refusals_of_an_export_are_told_with_their_words() {
    let mut talk = Talk::structured();
    for (name, kind, text) in [
        ("nothing", K::ERR_UNKNOWN, "there is no export `nothing`"),
        ("secondary", K::ERR_POLICY, "secondary is secondary on beta"),
        ("leaving", K::ERR_SHUTDOWN, "leaving is being deleted"),
    ] {
        let expected = [(kind, text.as_bytes().to_vec())];
        assert_eq!(talk.ask(O::INFO, &info_data(name, ALL)), expected);
        assert_eq!(talk.ask(O::GO, &info_data(name, ALL)), expected);
        let query = meta_data(name, &["base:allocation"]);
        assert_eq!(talk.ask(O::LIST_META_CONTEXT, &query), expected);
        assert_eq!(talk.ask(O::SET_META_CONTEXT, &query), expected);
    }
    talk.still_in_step();
}

#[test]
fn malformed_info_and_go_are_invalid_and_keep_the_stream_in_step() {
    let mut talk = Talk::new();
    let long = [&4097u32.to_be_bytes()[..], &[b'a'; 4097], &[0, 0]].concat();
    let cases: [(&[u8], K); 8] = [
        (b"", K::ERR_INVALID),
        (b"\0\0\0\x04", K::ERR_INVALID),
        (b"\0\0\0\x05disk\0\0", K::ERR_INVALID),
        (b"\0\0\0\x04disk\0\x01", K::ERR_INVALID),
        (b"\0\0\0\x04disk\0\0junk", K::ERR_INVALID),
        (b"\0\0\0\x04di\0k\0\0", K::ERR_INVALID),
        (b"\0\0\0\x04di\xffk\0\0", K::ERR_UNKNOWN),
        (&long, K::ERR_INVALID),
    ];
    for option in [O::INFO, O::GO] {
        for (data, kind) in &cases {
            assert_eq!(talk.error(option, data), *kind, "{data:?}");
        }
    }
    talk.still_in_step();
}

#[test]
fn export_name_sends_zeroes_unless_agreed_otherwise() {
    for (client_flags, length) in [(3, 10), (1, 134)] {
        let mut talk = Talk::with(Policy::default(), client_flags);
        let step = talk.send(O::EXPORT_NAME, b"disk");
        assert!(
            matches!(step, Step::EnterTransmission { consumed: 20, .. }),
            "{step:?}"
        );
        assert_eq!(talk.out.len(), length);
        let (reply, _) = ExportNameReply::parse(&talk.out, length == 10).unwrap();
        assert_eq!(
            reply,
            ExportNameReply {
                size: SIZE,
                flags: TransmissionFlags(0x0d6d)
            }
        );
    }
}

#[test]
fn export_name_that_cannot_be_served_ends_the_connection_without_a_reply() {
    let long = [b'a'; 4097];
    for name in [
        &b"nothing"[..],
        b"secondary",
        b"leaving",
        b"a\0b",
        b"a\xffb",
        &long,
    ] {
        let mut talk = Talk::new();
        let step = talk.send(O::EXPORT_NAME, name);
        assert!(
            matches!(step, Step::Close(CloseReason::ExportName(_))),
            "{step:?}"
        );
        assert!(talk.out.is_empty());
    }
}

#[test]
fn a_client_without_fixed_newstyle_may_only_send_export_name() {
    for option in [O::LIST, O::GO, O::ABORT, O(77)] {
        let mut talk = Talk::with(Policy::default(), 0);
        let step = talk.send(option, b"");
        assert_eq!(step, Step::Close(CloseReason::NotFixedNewstyle(option)));
        assert!(talk.out.is_empty());
    }
    let mut talk = Talk::with(Policy::default(), 0);
    assert!(matches!(
        talk.send(O::EXPORT_NAME, b""),
        Step::EnterTransmission { .. }
    ));
    assert_eq!(talk.out.len(), 134);
}

#[test]
fn structured_replies_may_be_asked_for_twice_but_never_with_data() {
    let mut talk = Talk::structured();
    assert_eq!(talk.ask(O::STRUCTURED_REPLY, b""), [(K::ACK, vec![])]);
    let mut talk = Talk::new();
    assert_eq!(talk.error(O::STRUCTURED_REPLY, b"x"), K::ERR_INVALID);
    assert_eq!(talk.go("disk").replies, ReplyStyle::Simple);
}

#[test]
fn without_structured_replies_in_the_policy_their_options_are_unknown() {
    let mut talk = Talk::with(
        Policy {
            structured_replies: false,
            ..Policy::default()
        },
        3,
    );
    assert_eq!(talk.error(O::STRUCTURED_REPLY, b""), K::ERR_UNSUP);
    let query = meta_data("disk", &[]);
    assert_eq!(talk.error(O::LIST_META_CONTEXT, &query), K::ERR_UNSUP);
    assert_eq!(talk.error(O::SET_META_CONTEXT, &query), K::ERR_UNSUP);
}

#[test]
fn meta_contexts_need_structured_replies_first() {
    let mut talk = Talk::new();
    let query = meta_data("disk", &["base:allocation"]);
    assert_eq!(talk.error(O::LIST_META_CONTEXT, &query), K::ERR_INVALID);
    assert_eq!(talk.error(O::SET_META_CONTEXT, &query), K::ERR_INVALID);
    talk.still_in_step();
}

#[test]
fn listed_contexts_have_id_zero_and_selected_ones_their_own() {
    let mut talk = Talk::structured();
    let listed = talk.ask(O::LIST_META_CONTEXT, &meta_data("disk", &["base:"]));
    assert_eq!(
        listed,
        [
            (K::META_CONTEXT, b"\0\0\0\0base:allocation".to_vec()),
            (K::ACK, vec![])
        ]
    );
    let selected = talk.ask(
        O::SET_META_CONTEXT,
        &meta_data("disk", &["base:allocation"]),
    );
    assert_eq!(
        selected,
        [
            (K::META_CONTEXT, b"\0\0\0\x01base:allocation".to_vec()),
            (K::ACK, vec![])
        ]
    );
}

#[test]
fn listing_selects_nothing() {
    let mut talk = Talk::structured();
    talk.ask(
        O::LIST_META_CONTEXT,
        &meta_data("disk", &["base:allocation"]),
    );
    assert!(talk.go("disk").contexts.is_empty());
}

#[test]
fn a_selection_counts_for_the_name_it_was_made_with() {
    let set = |asked| {
        let mut talk = Talk::structured();
        talk.ask(O::SET_META_CONTEXT, &meta_data(asked, &["base:allocation"]));
        talk
    };
    let context = SelectedContext {
        id: 1,
        name: BASE_ALLOCATION.to_owned(),
    };
    assert_eq!(set("disk").go("disk").contexts, [context]);
    assert!(set("read-only").go("disk").contexts.is_empty());
    // The same export by another name does not count either.
    assert!(set("").go("disk").contexts.is_empty());
    let mut talk = set("disk");
    match talk.send(O::EXPORT_NAME, b"disk") {
        Step::EnterTransmission { negotiated, .. } => assert_eq!(negotiated.contexts.len(), 1),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_new_selection_replaces_the_old_one_also_when_it_fails() {
    let failing: [(&[u8], K); 4] = [
        (b"", K::ERR_INVALID),
        (&meta_data("nothing", &["base:allocation"]), K::ERR_UNKNOWN),
        (b"\0\0\0\x04disk\0\0\0\x01\0\0\0\x20base:", K::ERR_INVALID),
        (&meta_data("secondary", &[]), K::ERR_POLICY),
    ];
    for (data, kind) in failing {
        let mut talk = Talk::structured();
        talk.ask(
            O::SET_META_CONTEXT,
            &meta_data("disk", &["base:allocation"]),
        );
        assert_eq!(talk.error(O::SET_META_CONTEXT, data), kind);
        assert!(talk.go("disk").contexts.is_empty(), "{kind:?}");
    }
    let mut talk = Talk::structured();
    talk.ask(
        O::SET_META_CONTEXT,
        &meta_data("disk", &["base:allocation"]),
    );
    assert_eq!(
        talk.ask(O::SET_META_CONTEXT, &meta_data("disk", &[])),
        [(K::ACK, vec![])]
    );
    assert!(talk.go("disk").contexts.is_empty());
}

#[test]
fn too_many_queries_are_too_big() {
    let mut talk = Talk::structured();
    let queries = vec!["x"; 1025];
    let data = meta_data("disk", &queries);
    assert_eq!(talk.error(O::LIST_META_CONTEXT, &data), K::ERR_TOO_BIG);
    assert_eq!(talk.error(O::SET_META_CONTEXT, &data), K::ERR_TOO_BIG);
    assert_eq!(
        talk.ask(O::SET_META_CONTEXT, &meta_data("disk", &queries[1..]))
            .len(),
        1
    );
}

#[test]
fn malformed_meta_requests_are_invalid_and_keep_the_stream_in_step() {
    let mut talk = Talk::structured();
    let whole = meta_data("disk", &["base:allocation"]);
    for cut in 0..whole.len() {
        assert_eq!(
            talk.error(O::LIST_META_CONTEXT, &whole[..cut]),
            K::ERR_INVALID,
            "{cut}"
        );
        assert_eq!(
            talk.error(O::SET_META_CONTEXT, &whole[..cut]),
            K::ERR_INVALID,
            "{cut}"
        );
    }
    let more = [&whole[..], b"x"].concat();
    assert_eq!(talk.error(O::SET_META_CONTEXT, &more), K::ERR_INVALID);
    talk.still_in_step();
}

#[test]
fn a_server_shutting_down_says_so_to_all_but_abort() {
    let mut talk = Talk::structured();
    talk.ask(
        O::SET_META_CONTEXT,
        &meta_data("disk", &["base:allocation"]),
    );
    talk.negotiation.shut_down("the node stops");
    for option in [
        O::LIST,
        O::INFO,
        O::GO,
        O::STARTTLS,
        O::SET_META_CONTEXT,
        O(77),
    ] {
        let replies = talk.ask(option, b"");
        assert_eq!(
            replies,
            [(K::ERR_SHUTDOWN, b"the node stops".to_vec())],
            "{option:?}"
        );
    }
    let mut leaving = Talk::new();
    leaving.negotiation.shut_down("the node stops");
    let reason = CloseReason::ExportName("the node stops".to_owned());
    assert_eq!(leaving.send(O::EXPORT_NAME, b"disk"), Step::Close(reason));
    assert_eq!(talk.send(O::ABORT, b""), Step::Close(CloseReason::Aborted));
    assert_eq!(talk.replies(O::ABORT), [(K::ACK, vec![])]);
}
