//! Laws of whole streams: any division into pieces comes to the same, and every step keeps the
//! machines' contracts.

use super::fixture::Fixture;
use super::split_mix::SplitMix;
use crate::{
    Agreed, ClientError, ClientNegotiation, ClientStep, CloseReason, Command, Cookie, ErrorChunk,
    ExportName, ExportNameReply, Fatal, Item, Negotiated, Negotiation, OptionReplyHeader,
    OptionReplyKind, Policy, Replies, Reply, ReplyError, ReplyStyle, Step, Transmission, Wish,
};

/// What a connection came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transcript {
    /// What the server sent after its greeting.
    pub sent: Vec<u8>,
    /// What happened, in order.
    pub events: Vec<Event>,
}

/// One thing that happened on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// One option was answered and negotiation goes on.
    Answered,
    /// Transmission began.
    Entered(Box<Negotiated>),
    /// Negotiation ended.
    Closed(CloseReason),
    /// A request, refusal or disconnect.
    Item(Item),
    /// Payload, pieces joined.
    Payload(Vec<u8>),
    /// The stream was lost.
    Fatal(Fatal),
}

/// The policy the connection target runs `choice` with.
pub fn fuzz_policy(choice: u8) -> Policy {
    Policy {
        no_zeroes: choice & 1 == 0,
        list: choice & 2 == 0,
        structured_replies: choice & 4 == 0,
        extended_headers: choice & 8 == 0,
        options_max: 50,
        ..Policy::default()
    }
}

/// Whole connections. Byte 0 seeds the division into pieces, byte 1 chooses the policy, the rest is
/// what the client sends after the greeting.
pub fn connection(bytes: &[u8]) {
    let [seed, choice, stream @ ..] = bytes else {
        return;
    };
    let whole = serve(fuzz_policy(*choice), [stream]);
    let mut numbers = SplitMix(u64::from(*seed));
    let longest = if *seed & 1 == 0 { 40 } else { 4096 };
    let pieces = numbers.pieces(stream, longest);
    assert_eq!(serve(fuzz_policy(*choice), pieces), whole);
    check_sent(&whole);
}

/// Serves a client that sends `pieces`, as the shell would.
pub fn serve<'a>(policy: Policy, pieces: impl IntoIterator<Item = &'a [u8]>) -> Transcript {
    let mut transcript = Transcript::default();
    let mut negotiation = Negotiation::new(policy);
    let mut transmission: Option<(Transmission, ReplyStyle)> = None;
    for piece in pieces {
        let mut rest = piece;
        if transmission.is_none() {
            match negotiate(&mut negotiation, &mut rest, &mut transcript) {
                Some(negotiated) => {
                    let machine = Transmission::new(&negotiated);
                    transmission = Some((machine, negotiated.replies));
                    transcript.events.push(Event::Entered(negotiated));
                }
                None if transcript.ended() => return transcript,
                None => continue,
            }
        }
        if let Some((machine, style)) = &mut transmission {
            transmit(machine, *style, rest, &mut transcript);
            if transcript.ended() {
                return transcript;
            }
        }
    }
    transcript
}

impl Transcript {
    fn ended(&self) -> bool {
        matches!(
            self.events.last(),
            Some(Event::Closed(_) | Event::Fatal(_) | Event::Item(Item::Disconnect))
        )
    }
}

/// Feeds the negotiation until it needs more or ends; `rest` is what it left.
fn negotiate(
    negotiation: &mut Negotiation,
    rest: &mut &[u8],
    transcript: &mut Transcript,
) -> Option<Box<Negotiated>> {
    loop {
        match negotiation.feed(rest, &Fixture, &mut transcript.sent) {
            Step::NeedMore => return None,
            Step::Continue { consumed } | Step::StartTls { consumed } => {
                transcript.events.push(Event::Answered);
                *rest = &rest[consumed..];
            }
            Step::EnterTransmission {
                consumed,
                negotiated,
            } => {
                *rest = &rest[consumed..];
                return Some(negotiated);
            }
            Step::Close(reason) => {
                transcript.events.push(Event::Closed(reason));
                return None;
            }
        }
    }
}

/// Takes the requests from `rest` and answers them at once.
fn transmit(
    machine: &mut Transmission,
    style: ReplyStyle,
    mut rest: &[u8],
    transcript: &mut Transcript,
) {
    let mut room = [0; ReplyStyle::ERROR_MAX];
    loop {
        let parsed = match machine.next(rest) {
            Ok(parsed) => parsed,
            Err(fatal) => return transcript.events.push(Event::Fatal(fatal)),
        };
        let (taken, left) = rest.split_at(parsed.consumed);
        rest = left;
        let length = match parsed.item {
            Item::More => {
                assert!(rest.is_empty(), "More leaves nothing");
                return;
            }
            Item::Payload => {
                assert!(!taken.is_empty(), "a payload step takes something");
                match transcript.events.last_mut() {
                    Some(Event::Payload(before)) => before.extend_from_slice(taken),
                    _ => transcript.events.push(Event::Payload(taken.to_vec())),
                }
                continue;
            }
            Item::Disconnect => {
                transcript.events.push(Event::Item(parsed.item));
                return;
            }
            Item::Request {
                cookie,
                offset: request,
                command,
            } => {
                assert!(!taken.is_empty(), "a request step takes something");
                assert_eq!(machine.payload_left(), command.payload());
                match command {
                    Command::Read { offset, length, .. } => {
                        style.encode_read(cookie, offset, length, &mut room)
                    }
                    _ => style.encode_ok(cookie, request, &mut room),
                }
            }
            Item::Reject {
                cookie,
                offset,
                refused,
                ..
            } => {
                let chunk = ErrorChunk {
                    cookie,
                    error: refused.error,
                    text: refused.text,
                    offset: None,
                    done: true,
                };
                style.encode_error(chunk, offset, &mut room)
            }
        };
        transcript.sent.extend_from_slice(&room[..length]);
        transcript.events.push(Event::Item(parsed.item));
    }
}

/// Each option got well-formed replies and exactly one that is final, and then each request one
/// well-formed reply.
fn check_sent(transcript: &Transcript) {
    let mut rest = &transcript.sent[..];
    let mut finals = 0;
    while let Ok(Some((header, used))) = OptionReplyHeader::parse(rest) {
        rest = &rest[used + header.length as usize..];
        finals += usize::from(header.kind == OptionReplyKind::ACK || header.kind.is_error());
    }
    let answered = transcript
        .events
        .iter()
        .filter(|event| **event == Event::Answered)
        .count();
    let entered = transcript.events.iter().find_map(|event| match event {
        Event::Entered(negotiated) => Some(negotiated),
        _ => None,
    });
    let aborted = transcript.events.last() == Some(&Event::Closed(CloseReason::Aborted));
    let Some(negotiated) = entered else {
        assert_eq!(finals, answered + usize::from(aborted));
        assert!(rest.is_empty(), "{} bytes are no option reply", rest.len());
        return;
    };
    if finals == answered {
        let reply = ExportNameReply::parse(rest, negotiated.no_zeroes);
        let (reply, used) = reply.expect("without an ACK the export was chosen by EXPORT_NAME");
        assert_eq!(
            (reply.size, reply.flags),
            (negotiated.export.size, negotiated.flags)
        );
        rest = &rest[used..];
    } else {
        assert_eq!(finals, answered + 1, "GO is acknowledged once");
    }
    check_replies(transcript, negotiated.replies, rest);
}

/// `sent` is one reply per request and refusal, in order, without the data of reads.
fn check_replies(transcript: &Transcript, style: ReplyStyle, mut sent: &[u8]) {
    for event in &transcript.events {
        let Event::Item(item) = event else { continue };
        let (expected, at, failed) = match item {
            Item::Request { cookie, offset, .. } => (*cookie, *offset, false),
            Item::Reject { cookie, offset, .. } => (*cookie, *offset, true),
            _ => continue,
        };
        let mut replies = Replies::new();
        let parsed = replies.next(sent).expect("replies are well formed");
        let echo = (style == ReplyStyle::Extended).then_some(at);
        assert_eq!(
            replies.echoed(),
            echo,
            "extended replies alone echo the offset"
        );
        let (cookie, error) = match parsed.reply {
            Reply::Simple { cookie, result } => (cookie, result.is_err()),
            Reply::OffsetData {
                cookie, done: true, ..
            }
            | Reply::None { cookie } => (cookie, false),
            Reply::Error {
                cookie, done: true, ..
            } => (cookie, true),
            other => panic!("a reply is whole and done, not {other:?}"),
        };
        assert_eq!((cookie, error), (expected, failed));
        sent = &sent[parsed.consumed..];
    }
    assert!(sent.is_empty(), "{} bytes are no reply", sent.len());
}

/// A client facing any server. Byte 0 seeds the pieces and the wish, the rest is what the server
/// sends.
pub fn client_negotiation(bytes: &[u8]) {
    let [seed, stream @ ..] = bytes else { return };
    let name = ExportName::new("disk").unwrap_or_default();
    let wish = match *seed & 6 {
        0 => Wish::full(name),
        4 => Wish::extended(name),
        6 => Wish {
            tls: true,
            ..Wish::full(name)
        },
        _ => Wish::simple(name),
    };
    let whole = greet(wish.clone(), [stream]);
    let pieces = SplitMix(u64::from(*seed)).pieces(stream, 30);
    assert_eq!(greet(wish, pieces), whole);
}

type Greeted = (Vec<u8>, Option<Result<(Box<Agreed>, Vec<u8>), ClientError>>);

/// What a client sends, and how its negotiation ended, with the bytes it left. TLS is up as soon as
/// it was agreed on: what follows is what it protects.
fn greet<'a>(wish: Wish, pieces: impl IntoIterator<Item = &'a [u8]>) -> Greeted {
    let mut client = ClientNegotiation::new(wish);
    let mut out = Vec::new();
    let mut pieces = pieces.into_iter();
    while let Some(mut piece) = pieces.next() {
        loop {
            match client.feed(piece, &mut out) {
                Ok(ClientStep::NeedMore) => break,
                Ok(ClientStep::StartTls { consumed }) => {
                    client.secured(&mut out);
                    piece = &piece[consumed..];
                }
                Ok(ClientStep::Ready { consumed, agreed }) => {
                    let mut left = piece[consumed..].to_vec();
                    pieces.for_each(|piece| left.extend_from_slice(piece));
                    return (out, Some(Ok((agreed, left))));
                }
                Err(error) => return (out, Some(Err(error))),
            }
        }
    }
    (out, None)
}

/// A client facing any replies. Byte 0 seeds the pieces, the rest is what the server sends. A
/// simple success carries as many bytes of data as the lowest byte of its cookie says.
pub fn client_replies(bytes: &[u8]) {
    let [seed, stream @ ..] = bytes else { return };
    let whole = listen([stream]);
    let pieces = SplitMix(u64::from(*seed)).pieces(stream, 30);
    assert_eq!(listen(pieces), whole);
}

/// The replies in `pieces`, data joined, and how the stream was lost.
fn listen<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Reply>, Vec<u8>, Option<ReplyError>) {
    let mut replies = Replies::new();
    let (mut seen, mut data) = (Vec::new(), Vec::new());
    for piece in pieces {
        let mut rest = piece;
        loop {
            let parsed = match replies.next(rest) {
                Ok(parsed) => parsed,
                Err(error) => return (seen, data, Some(error)),
            };
            let (taken, left) = rest.split_at(parsed.consumed);
            rest = left;
            match parsed.reply {
                Reply::More => {
                    assert!(rest.is_empty(), "More leaves nothing");
                    break;
                }
                Reply::Data => data.extend_from_slice(taken),
                reply => {
                    if let Reply::Simple {
                        cookie: Cookie(cookie),
                        result: Ok(()),
                    } = reply
                    {
                        replies.expect_data(cookie as u32 & 0xff);
                    }
                    seen.push(reply);
                }
            }
        }
    }
    (seen, data, None)
}
