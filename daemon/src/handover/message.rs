//! What two processes of one node say to each other while one takes over from the other.
//!
//! One message is one packet of a `SOCK_SEQPACKET` socket, with at most one descriptor:
//!
//! `0: magic "PXHO" | 4: version u16 | 6: kind u16 | 8: length of the body u32 |
//! 12: CRC-32 of the body u32 | 16: body`, big-endian; a text is its length u16 and UTF-8.
//!
//! `Ask`, `Refused`, `Accepted` and `Abort` look the same in every version, so that any two releases can
//! part in words; fields that a later version adds to them come last and are skipped. The
//! versions of everything else are agreed by `Ask` (from, to) and `Accepted` (one of them).

use std::fmt;

/// First and last version this release speaks.
pub const VERSIONS: (u16, u16) = (1, 1);
/// Longest packet, bytes.
pub const PACKET_MAX: usize = 128 << 10;
/// Longest part of a client's state in one packet.
pub const PART_MAX: usize = 64 << 10;
/// Longest text.
const TEXT_MAX: usize = 8 << 10;
const MAGIC: [u8; 4] = *b"PXHO";
const HEADER: usize = 16;

/// What one process says to the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The new one asks to take over.
    Ask(Ask),
    /// The old one goes on serving; nothing has changed.
    Refused(Refused),
    /// The old one stops accepting, quiesces clients and volumes, and then sends what it has.
    Accepted {
        /// Version of all further messages.
        version: u16,
        /// Process number of the old one.
        pid: u32,
    },
    /// With the lock on `data_dir`.
    Lock(Lock),
    /// With a listening socket.
    Listener {
        /// What is listened for.
        role: Role,
        /// Where, as configured: an address or a path.
        address: String,
    },
    /// A volume that was attached, and is stopped.
    Volume {
        /// Its name.
        name: String,
        /// It is to serve clients again.
        was_primary: bool,
    },
    /// With a client's stream. Its state follows.
    Client(Client),
    /// A part of the state of the client named last.
    State(Vec<u8>),
    /// That was all.
    End {
        /// Descriptors sent: locks, listeners, clients.
        descriptors: u32,
        /// Volumes named.
        volumes: u32,
    },
    /// The new one has everything it needs to go on.
    Ready,
    /// The old one is out: whatever happens now, it touches nothing any more.
    Go,
    /// The sender gives up; the old one goes on.
    Abort(String),
}

/// A wish to take over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// First version the asker speaks.
    pub from: u16,
    /// Last one.
    pub to: u16,
    /// Also at the price of what lives in memory.
    pub force: bool,
    /// Its cluster.
    pub cluster: String,
    /// Its node.
    pub node: String,
    /// Its release, for log lines.
    pub release: String,
}

/// Why not, for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Stable code.
    pub code: String,
    /// What stands in the way.
    pub text: String,
    /// What can be done about it; empty if nothing.
    pub hint: String,
}

/// A client as it is announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its volume.
    pub volume: String,
    /// Its export.
    pub export: String,
    /// Its address.
    pub address: String,
    /// How long it has been attached, milliseconds.
    pub age_ms: u64,
    /// Bytes of its state.
    pub state_length: u64,
}

/// The two locks a node holds on its `data_dir`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// The daemon's, `pollux.lock`.
    Daemon,
    /// The engine's, `lock`.
    Engine,
}

/// What a listening socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// NBD over TCP.
    Nbd,
    /// NBD over a Unix socket.
    NbdSocket,
    /// Peers.
    Replication,
    /// The read-only API over TCP.
    Api,
    /// The API's Unix socket.
    ApiSocket,
    /// The next takeover.
    Handover,
}

/// A packet that is no message of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// It does not begin as every message does.
    NoHandover,
    /// Its length or checksum does not fit its body.
    Damaged,
    /// This kind of message is not known in this version.
    Kind(u16),
    /// Its version is not the one that was agreed.
    Version(u16),
    /// A field is cut short, too long, or holds what it may not.
    Field(&'static str),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Malformed::NoHandover => write!(f, "a message is none of a handover"),
            Malformed::Damaged => write!(f, "a message is damaged"),
            Malformed::Kind(kind) => write!(f, "a message of the unknown kind {kind}"),
            Malformed::Version(version) => write!(f, "a message of version {version}"),
            Malformed::Field(field) => write!(f, "a message with a wrong {field}"),
        }
    }
}

impl std::error::Error for Malformed {}

impl Message {
    /// The packet, in `version`. Texts longer than allowed are cut.
    pub fn encode(&self, version: u16) -> Vec<u8> {
        let mut body = Vec::with_capacity(64);
        let kind = self.body(&mut body);
        let mut out = Vec::with_capacity(HEADER + body.len());
        out.extend(MAGIC);
        out.extend(version.to_be_bytes());
        out.extend(kind.to_be_bytes());
        out.extend((body.len() as u32).to_be_bytes());
        out.extend(crc32fast::hash(&body).to_be_bytes());
        out.extend(body);
        out
    }

    /// Appends the body and gives the number of its kind.
    fn body(&self, out: &mut Vec<u8>) -> u16 {
        match self {
            Message::Ask(ask) => {
                out.extend(ask.from.to_be_bytes());
                out.extend(ask.to.to_be_bytes());
                out.push(u8::from(ask.force));
                put_texts([&ask.cluster, &ask.node, &ask.release], out);
                1
            }
            Message::Refused(Refused { code, text, hint }) => {
                put_texts([code, text, hint], out);
                2
            }
            Message::Accepted { version, pid } => {
                out.extend(version.to_be_bytes());
                out.extend(pid.to_be_bytes());
                3
            }
            Message::Lock(lock) => {
                out.push(match lock {
                    Lock::Daemon => 0,
                    Lock::Engine => 1,
                });
                4
            }
            Message::Listener { role, address } => {
                out.push(role.number());
                put_text(address, out);
                5
            }
            Message::Volume { name, was_primary } => {
                out.push(u8::from(*was_primary));
                put_text(name, out);
                6
            }
            Message::Client(client) => {
                out.extend(client.age_ms.to_be_bytes());
                out.extend(client.state_length.to_be_bytes());
                put_texts([&client.volume, &client.export, &client.address], out);
                7
            }
            Message::State(bytes) => {
                out.extend(bytes);
                8
            }
            Message::End {
                descriptors,
                volumes,
            } => {
                out.extend(descriptors.to_be_bytes());
                out.extend(volumes.to_be_bytes());
                9
            }
            Message::Ready => 10,
            Message::Go => 11,
            Message::Abort(why) => {
                put_text(why, out);
                12
            }
        }
    }

    /// The message in a packet. Errors: it is none, is damaged, or is of another version than
    /// `version`; the messages that look the same in every version are taken in any.
    pub fn parse(packet: &[u8], version: u16) -> Result<Message, Malformed> {
        let (header, body) = packet
            .split_first_chunk::<HEADER>()
            .ok_or(Malformed::NoHandover)?;
        if header[..4] != MAGIC {
            return Err(Malformed::NoHandover);
        }
        let half = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let word = |at: usize| u32::from(half(at)) << 16 | u32::from(half(at + 2));
        if word(8) as usize != body.len() || word(12) != crc32fast::hash(body) {
            return Err(Malformed::Damaged);
        }
        let (found, kind) = (half(4), half(6));
        let is_frozen = matches!(kind, 1..=3 | 12);
        if !is_frozen && found != version {
            return Err(Malformed::Version(found));
        }
        let mut at = Reader(body);
        let message = Message::parse_body(kind, &mut at)?;
        match at.0.is_empty() || is_frozen {
            true => Ok(message),
            false => Err(Malformed::Field("end")),
        }
    }

    fn parse_body(kind: u16, at: &mut Reader<'_>) -> Result<Message, Malformed> {
        Ok(match kind {
            1 => Message::Ask(Ask {
                from: at.u16()?,
                to: at.u16()?,
                force: at.mark("force")?,
                cluster: at.text()?,
                node: at.text()?,
                release: at.text()?,
            }),
            2 => Message::Refused(Refused {
                code: at.text()?,
                text: at.text()?,
                hint: at.text()?,
            }),
            3 => {
                let (version, pid) = (at.u16()?, at.u32()?);
                Message::Accepted { version, pid }
            }
            4 => Message::Lock(match at.u8()? {
                0 => Lock::Daemon,
                1 => Lock::Engine,
                _ => return Err(Malformed::Field("lock")),
            }),
            5 => Message::Listener {
                role: Role::from_number(at.u8()?).ok_or(Malformed::Field("listener"))?,
                address: at.text()?,
            },
            6 => {
                let was_primary = at.mark("role")?;
                let name = at.text()?;
                Message::Volume { name, was_primary }
            }
            7 => {
                let (age_ms, state_length) = (at.u64()?, at.u64()?);
                Message::Client(Client {
                    volume: at.text()?,
                    export: at.text()?,
                    address: at.text()?,
                    age_ms,
                    state_length,
                })
            }
            8 => Message::State(std::mem::take(&mut at.0).to_vec()),
            9 => Message::End {
                descriptors: at.u32()?,
                volumes: at.u32()?,
            },
            10 => Message::Ready,
            11 => Message::Go,
            12 => Message::Abort(at.text()?),
            kind => return Err(Malformed::Kind(kind)),
        })
    }

    /// A descriptor comes with it.
    pub fn has_descriptor(&self) -> bool {
        matches!(
            self,
            Message::Lock(_) | Message::Listener { .. } | Message::Client(_)
        )
    }
}

impl Role {
    const ALL: [Role; 6] = [
        Role::Nbd,
        Role::NbdSocket,
        Role::Replication,
        Role::Api,
        Role::ApiSocket,
        Role::Handover,
    ];

    fn number(self) -> u8 {
        self as u8
    }

    fn from_number(number: u8) -> Option<Role> {
        Role::ALL.get(usize::from(number)).copied()
    }
}

fn put_texts(texts: [&str; 3], out: &mut Vec<u8>) {
    texts.into_iter().for_each(|text| put_text(text, out));
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    let text = &text[..text.floor_char_boundary(TEXT_MAX)];
    out.extend((text.len() as u16).to_be_bytes());
    out.extend(text.as_bytes());
}

/// Takes fields from the front.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, left) = self
            .0
            .split_first_chunk()
            .ok_or(Malformed::Field("length"))?;
        self.0 = left;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    fn mark(&mut self, field: &'static str) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed::Field(field)),
        }
    }

    fn text(&mut self) -> Result<String, Malformed> {
        let length = usize::from(self.u16()?);
        let taken = self.0.split_at_checked(length);
        let (taken, left) = taken.ok_or(Malformed::Field("length"))?;
        self.0 = left;
        let text = std::str::from_utf8(taken).ok();
        let text = text.filter(|text| text.len() <= TEXT_MAX);
        Ok(text.ok_or(Malformed::Field("text"))?.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Message> {
        let text = |text: &str| text.to_owned();
        vec![
            Message::Ask(Ask {
                from: 1,
                to: 3,
                force: true,
                cluster: text("lab"),
                node: text("alpha"),
                release: text("0.2.0"),
            }),
            Message::Refused(Refused {
                code: text("E132"),
                text: text("no"),
                hint: text(""),
            }),
            Message::Accepted { version: 1, pid: 7 },
            Message::Lock(Lock::Daemon),
            Message::Lock(Lock::Engine),
            Message::Listener {
                role: Role::Handover,
                address: text("/x"),
            },
            Message::Volume {
                name: text("vm"),
                was_primary: true,
            },
            Message::Client(Client {
                volume: text("vm"),
                export: text("disk"),
                address: text("unix:7"),
                age_ms: 1000,
                state_length: 1 << 33,
            }),
            Message::State(b"state".to_vec()),
            Message::End {
                descriptors: 5,
                volumes: 2,
            },
            Message::Ready,
            Message::Go,
            Message::Abort(text("why")),
        ]
    }

    #[test]
    fn a_wish_is_these_bytes() {
        let golden = b"PXHO\0\x01\0\x01\0\0\0\x18\x15\xb4\xfb\xc4\0\x01\0\x03\x01\0\x03lab\
            \0\x05alpha\0\x050.2.0";
        assert_eq!(all()[0].encode(1), golden, "{:x?}", all()[0].encode(1));
    }

    #[test]
    fn a_client_is_these_bytes() {
        let golden = b"PXHO\0\x01\0\x07\0\0\0\x22\0\0\0\0\0\0\0\0\0\0\x03\xe8\0\0\0\x02\0\0\0\0\
            \0\x02vm\0\x04disk\0\x06unix:7";
        let mut found = all()[7].encode(1);
        found[12..16].fill(0);
        assert_eq!(found, golden);
    }

    #[test]
    fn what_is_written_is_read() {
        for message in all() {
            assert_eq!(Message::parse(&message.encode(1), 1), Ok(message));
        }
    }

    #[test]
    fn a_packet_that_is_cut_or_damaged_is_refused() {
        for message in all() {
            let packet = message.encode(1);
            for cut in 0..packet.len() {
                assert!(
                    Message::parse(&packet[..cut], 1).is_err(),
                    "{message:?} {cut}"
                );
            }
            for at in 0..packet.len() {
                let mut packet = packet.clone();
                packet[at] ^= 0x10;
                // The version of what looks the same in every version says nothing.
                let is_version = (4..6).contains(&at);
                assert!(
                    Message::parse(&packet, 1).is_err() || is_version,
                    "{message:?} at {at}"
                );
            }
            let longer = [&packet[..], b"x"].concat();
            assert_eq!(Message::parse(&longer, 1), Err(Malformed::Damaged));
        }
    }

    /// A packet with a body that no release writes, and a right checksum.
    fn forged(kind: u16, body: &[u8]) -> Result<Message, Malformed> {
        let mut packet = Message::Ready.encode(1);
        packet[6..8].copy_from_slice(&kind.to_be_bytes());
        packet[8..12].copy_from_slice(&(body.len() as u32).to_be_bytes());
        packet[12..16].copy_from_slice(&crc32fast::hash(body).to_be_bytes());
        packet.extend(body);
        Message::parse(&packet, 1)
    }

    #[test]
    fn bodies_that_no_release_writes_are_refused() {
        use Malformed as M;
        assert_eq!(forged(0, b""), Err(M::Kind(0)));
        assert_eq!(forged(13, b""), Err(M::Kind(13)));
        assert_eq!(forged(4, b"\x02"), Err(M::Field("lock")));
        assert_eq!(forged(4, b""), Err(M::Field("length")));
        assert_eq!(forged(5, b"\x06\0\0"), Err(M::Field("listener")));
        assert_eq!(forged(6, b"\x02\0\0"), Err(M::Field("role")));
        assert_eq!(forged(6, b"\x01\0\x02\xff\xff"), Err(M::Field("text")));
        assert_eq!(forged(6, b"\x01\xff\xffab"), Err(M::Field("length")));
        let long = [&[1][..], &9000u16.to_be_bytes(), &[b'x'; 9000]].concat();
        assert_eq!(forged(6, &long), Err(M::Field("text")));
        assert_eq!(forged(10, b"more"), Err(M::Field("end")));
    }

    #[test]
    fn releases_can_part_in_words_whatever_their_versions() {
        for message in all() {
            let is_frozen = matches!(
                message,
                Message::Ask(_)
                    | Message::Refused(_)
                    | Message::Accepted { .. }
                    | Message::Abort(_)
            );
            let read = Message::parse(&message.encode(9), 1);
            match is_frozen {
                true => assert_eq!(read, Ok(message)),
                false => assert_eq!(read, Err(Malformed::Version(9))),
            }
        }
        assert!(forged(1, b"\0\x07\0\x09\0\0\x01a\0\x01b\0\x01cand more").is_ok());
    }
}
