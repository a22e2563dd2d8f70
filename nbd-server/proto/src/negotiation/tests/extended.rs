//! EXTENDED_HEADERS, and what it changes in other options.

use super::*;
use crate::TransmissionFlags as T;

fn extended() -> Talk {
    let mut talk = Talk::new();
    assert_eq!(talk.ask(O::EXTENDED_HEADERS, b"")[0].0, K::ACK);
    talk
}

#[test]
fn extended_headers_take_precedence_over_structured_replies() {
    let mut talk = Talk::structured();
    assert_eq!(talk.ask(O::EXTENDED_HEADERS, b"")[0].0, K::ACK);
    assert_eq!(talk.error(O::STRUCTURED_REPLY, b""), K::ERR_EXT_HEADER_REQD);
    assert_eq!(talk.ask(O::EXTENDED_HEADERS, b"")[0].0, K::ACK);
    let agreed = talk.go("disk");
    assert_eq!(agreed.replies, ReplyStyle::Extended);
    assert!(agreed.flags.contains(T::SEND_DF));
}

#[test]
fn extended_headers_have_no_data() {
    let mut talk = Talk::new();
    assert_eq!(talk.error(O::EXTENDED_HEADERS, b"x"), K::ERR_INVALID);
    talk.still_in_step();
    assert_eq!(talk.go("disk").replies, ReplyStyle::Simple);
}

#[test]
fn a_policy_without_extended_headers_does_not_know_the_option() {
    for (structured_replies, extended_headers) in [(true, false), (false, true)] {
        let policy = Policy {
            structured_replies,
            extended_headers,
            ..Policy::default()
        };
        let mut talk = Talk::with(policy, 3);
        assert_eq!(talk.error(O::EXTENDED_HEADERS, b""), K::ERR_UNSUP);
    }
}

#[test]
fn after_extended_headers_export_name_ends_the_connection() {
    let mut talk = extended();
    let step = talk.send(O::EXPORT_NAME, b"disk");
    assert!(
        matches!(step, Step::Close(CloseReason::ExportName(_))),
        "{step:?}"
    );
    assert!(talk.out.is_empty());
}

#[test]
fn contexts_are_selected_after_extended_headers_alone() {
    let mut talk = extended();
    let query = meta_data("disk", &["base:allocation", "x-pollux:replicated"]);
    assert_eq!(talk.ask(O::SET_META_CONTEXT, &query).len(), 3);
    let ids: Vec<u32> = talk.go("disk").contexts.iter().map(|c| c.id).collect();
    assert_eq!(ids, [1, 2]);
}

#[test]
fn filters_are_offered_with_extended_headers_and_contexts_alone() {
    let select = meta_data("disk", &["base:allocation"]);
    let mut structured = Talk::structured();
    structured.ask(O::SET_META_CONTEXT, &select);
    assert!(
        !structured
            .go("disk")
            .flags
            .contains(T::BLOCK_STATUS_PAYLOAD)
    );
    assert!(
        !extended()
            .go("disk")
            .flags
            .contains(T::BLOCK_STATUS_PAYLOAD)
    );
    let mut talk = extended();
    talk.ask(O::SET_META_CONTEXT, &select);
    // INFO tells the same as GO, and nothing of another export.
    let told = |talk: &mut Talk, name| {
        let replies = talk.ask(O::INFO, &info_data(name, Wanted::default()));
        match Info::parse(&replies[0].1) {
            Ok(Info::Export { flags, .. }) => flags.contains(T::BLOCK_STATUS_PAYLOAD),
            other => panic!("{other:?}"),
        }
    };
    assert!(told(&mut talk, "disk"));
    assert!(!told(&mut talk, "read-only"));
    assert!(talk.go("disk").flags.contains(T::BLOCK_STATUS_PAYLOAD));
}

#[test]
fn tls_forgets_extended_headers_and_contexts() {
    let policy = Policy {
        tls: Tls::Offered,
        ..Policy::default()
    };
    let mut talk = Talk::with(policy, 3);
    talk.ask(O::EXTENDED_HEADERS, b"");
    talk.ask(
        O::SET_META_CONTEXT,
        &meta_data("disk", &["base:allocation"]),
    );
    assert!(matches!(talk.send(O::STARTTLS, b""), Step::StartTls { .. }));
    talk.negotiation.secured();
    talk.out.clear();
    let agreed = talk.go("disk");
    assert_eq!(agreed.replies, ReplyStyle::Simple);
    assert!(agreed.contexts.is_empty());
}
