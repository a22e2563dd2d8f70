//! A client in transmission, over blocking calls.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nbd_proto::{
    Agreed, ClientNegotiation, ClientStep, CommandFlags, CommandKind, Cookie, NbdError,
    ParsedReply, Replies, Reply, Request, StatusExtent, Wish,
};

/// A whole reply.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub cookie: u64,
    pub result: Result<Vec<u8>, NbdError>,
    pub extents: Vec<StatusExtent>,
}

/// A connection to an export.
pub struct Session {
    pub stream: UnixStream,
    pub agreed: Box<Agreed>,
    replies: Replies,
    bytes: VecDeque<u8>,
    next: u64,
}

impl Session {
    /// Negotiates over a Unix socket.
    pub fn open(path: &Path, wish: Wish) -> Session {
        let mut stream = UnixStream::connect(path).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let mut negotiation = ClientNegotiation::new(wish);
        let (mut bytes, mut out) = (Vec::new(), Vec::new());
        let mut chunk = [0; 4096];
        let agreed = loop {
            let count = stream.read(&mut chunk).unwrap();
            assert!(count > 0, "the server closed during negotiation");
            bytes.extend_from_slice(&chunk[..count]);
            let step = negotiation.feed(&bytes, &mut out);
            stream.write_all(&out).unwrap();
            out.clear();
            bytes.clear();
            match step.unwrap() {
                ClientStep::NeedMore => {}
                ClientStep::StartTls { .. } => panic!("TLS was not wished for"),
                ClientStep::Ready { consumed, agreed } => {
                    assert_eq!(
                        consumed, count,
                        "the server says nothing before it is asked"
                    );
                    break agreed;
                }
            }
        };
        Session {
            stream,
            agreed,
            replies: Replies::new(),
            bytes: VecDeque::new(),
            next: 0,
        }
    }

    /// Sends a request and gives its cookie.
    pub fn send(
        &mut self,
        flags: CommandFlags,
        kind: CommandKind,
        offset: u64,
        length: u32,
        data: &[u8],
    ) -> u64 {
        let cookie = self.next;
        self.next += 1;
        let request = Request {
            flags,
            kind,
            cookie: Cookie(cookie),
            offset,
            length,
        };
        self.stream.write_all(&request.encode()).unwrap();
        self.stream.write_all(data).unwrap();
        cookie
    }

    /// Sends a request and waits for its reply; no other is outstanding.
    pub fn call(
        &mut self,
        flags: CommandFlags,
        kind: CommandKind,
        offset: u64,
        length: u32,
        data: &[u8],
    ) -> Answer {
        let cookie = self.send(flags, kind, offset, length, data);
        let answer = self.answer(if kind == CommandKind::READ { length } else { 0 });
        assert_eq!(answer.cookie, cookie);
        answer
    }

    pub fn write(&mut self, offset: u64, data: &[u8]) {
        let length = data.len() as u32;
        let answer = self.call(CommandFlags::NONE, CommandKind::WRITE, offset, length, data);
        assert_eq!(answer.result, Ok(Vec::new()));
    }

    pub fn read(&mut self, offset: u64, length: u32) -> Vec<u8> {
        let answer = self.call(CommandFlags::NONE, CommandKind::READ, offset, length, b"");
        answer.result.unwrap()
    }

    /// The next reply, with `length` bytes of data if it is a simple one of a read that succeeded.
    pub fn answer(&mut self, length: u32) -> Answer {
        self.try_answer(length).expect("the server closed")
    }

    /// The same; `None` if the server closed instead.
    pub fn try_answer(&mut self, length: u32) -> Option<Answer> {
        let mut answer = Answer {
            cookie: u64::MAX,
            result: Ok(Vec::new()),
            extents: Vec::new(),
        };
        let mut is_done = true;
        loop {
            let parsed = self.replies.next(self.bytes.make_contiguous()).unwrap();
            let ParsedReply { consumed, reply } = parsed;
            let taken = self.bytes.drain(..consumed);
            match reply {
                Reply::Data => {
                    if let Ok(data) = &mut answer.result {
                        data.extend(taken);
                    }
                    if self.replies.data_left() == 0 && is_done {
                        return Some(answer);
                    }
                    continue;
                }
                Reply::More => {
                    drop(taken);
                    let mut chunk = vec![0; 1 << 20];
                    match self.stream.read(&mut chunk) {
                        Ok(0) => return None,
                        Ok(count) => self.bytes.extend(&chunk[..count]),
                        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                            return None;
                        }
                        Err(error) => panic!("no reply: {error}"),
                    }
                    continue;
                }
                _ => drop(taken),
            }
            match reply {
                Reply::Simple { cookie, result } => {
                    answer.cookie = cookie.0;
                    if let Err(error) = result {
                        answer.result = Err(error);
                    } else if length > 0 {
                        self.replies.expect_data(length);
                        continue;
                    }
                    return Some(answer);
                }
                // The parts of a read come in order.
                Reply::OffsetData { cookie, done, .. } => {
                    (answer.cookie, is_done) = (cookie.0, done);
                }
                Reply::OffsetHole {
                    cookie,
                    length,
                    done,
                    ..
                } => {
                    answer.cookie = cookie.0;
                    if let Ok(data) = &mut answer.result {
                        data.resize(data.len() + length as usize, 0);
                    }
                    if done {
                        return Some(answer);
                    }
                }
                Reply::None { cookie } => {
                    answer.cookie = cookie.0;
                    return Some(answer);
                }
                Reply::Error {
                    cookie,
                    error,
                    done,
                    ..
                } => {
                    assert!(done);
                    (answer.cookie, answer.result) = (cookie.0, Err(error));
                    return Some(answer);
                }
                Reply::BlockStatus {
                    cookie,
                    extents,
                    done,
                    ..
                } => {
                    assert!(done);
                    (answer.cookie, answer.extents) = (cookie.0, extents);
                    return Some(answer);
                }
                Reply::Data | Reply::More => unreachable!("they were taken above"),
            }
        }
    }

    /// The server closes without another word.
    pub fn assert_closed(&mut self) {
        assert_eq!(self.try_answer(0), None);
    }
}
