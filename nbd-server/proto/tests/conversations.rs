//! Conversations recorded from real clients (nbdinfo, nbdcopy and Python bindings of libnbd 1.14)
//! against a server of the fixture's exports: the bytes the client sent, after two bytes that the
//! fuzz target reads.

use nbd_proto::fuzzing::{Event, Transcript, fuzz_policy, serve};
use nbd_proto::{Command, Item, NbdError, OptionReplyHeader, ReplyStyle};
use proptest::prelude::*;

const COMMANDS: &[u8] = include_bytes!("../corpus/connection/recorded-libnbd-commands");
const LIST: &[u8] = include_bytes!("../corpus/connection/recorded-nbdinfo-list");
const COPY: &[u8] = include_bytes!("../corpus/connection/recorded-nbdcopy-read");

fn whole(recorded: &[u8]) -> Transcript {
    serve(fuzz_policy(0), [&recorded[2..]])
}

#[test]
fn libnbds_commands_are_served_and_refused_as_it_expects() {
    let transcript = whole(COMMANDS);
    let entered = transcript.events.iter().find_map(|event| match event {
        Event::Entered(negotiated) => Some(negotiated),
        _ => None,
    });
    let negotiated = entered.expect("transmission began");
    assert_eq!(negotiated.replies, ReplyStyle::Structured);
    assert_eq!(negotiated.contexts[0].name, "base:allocation");
    let refused: Vec<NbdError> = transcript
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Item(Item::Reject { refused, .. }) => Some(refused.error),
            _ => None,
        })
        .collect();
    use NbdError::{Invalid, NoSpace};
    // READ and WRITE past the end, TRIM across it, an unknown flag, 33 MiB, status of nothing.
    assert_eq!(
        refused,
        [Invalid, NoSpace, Invalid, Invalid, Invalid, Invalid]
    );
    let payload: usize = transcript
        .events
        .iter()
        .map(|event| {
            if let Event::Payload(bytes) = event {
                bytes.len()
            } else {
                0
            }
        })
        .sum();
    assert_eq!(payload, 600 + 512);
    let nothing = transcript
        .events
        .iter()
        .filter(|event| {
            matches!(
                event,
                Event::Item(Item::Request {
                    command: Command::Nothing,
                    ..
                })
            )
        })
        .count();
    assert_eq!(nothing, 2, "a read and a write of length zero");
    assert_eq!(
        transcript.events.last(),
        Some(&Event::Item(Item::Disconnect))
    );
}

#[test]
fn nbdinfos_walk_through_all_exports_is_answered() {
    let transcript = whole(LIST);
    let mut rest = &transcript.sent[..];
    let mut servers = 0;
    while let Ok(Some((header, used))) = OptionReplyHeader::parse(rest) {
        servers += usize::from(header.kind.0 == 2);
        rest = &rest[used + header.length as usize..];
    }
    assert_eq!((servers, rest.len()), (5, 0));
    assert!(matches!(transcript.events.last(), Some(Event::Closed(_))));
}

#[test]
fn nbdcopys_reads_are_all_accepted() {
    let transcript = whole(COPY);
    assert!(transcript.events.iter().any(|event| {
        matches!(
            event,
            Event::Item(Item::Request {
                command: Command::Read { .. },
                ..
            })
        )
    }));
    let rejected = |event: &Event| matches!(event, Event::Item(Item::Reject { .. }));
    assert!(!transcript.events.iter().any(rejected));
    assert_eq!(
        transcript.events.last(),
        Some(&Event::Item(Item::Disconnect))
    );
}

proptest! {
    #[test]
    fn any_division_into_pieces_leads_to_the_same_output(
        choice in 0usize..3,
        mut cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..200),
        byte_by_byte in any::<bool>(),
    ) {
        let recorded = [COMMANDS, LIST, COPY][choice];
        let stream = &recorded[2..];
        let mut at: Vec<usize> = cuts.drain(..).map(|cut| cut.index(stream.len())).collect();
        if byte_by_byte {
            at = (0..stream.len()).collect();
        }
        at.extend([0, stream.len()]);
        at.sort_unstable();
        let pieces = at.windows(2).map(|pair| &stream[pair[0]..pair[1]]);
        prop_assert!(serve(fuzz_policy(0), pieces) == whole(recorded));
    }
}
