//! The same connection under TLS: a session of rustls on either side, the stream between them cut
//! as the test wants.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::sync::Arc;

use engine_core::action::Outcome;
use engine_ring::{BufId, Class};
use nbd_proto::{CommandFlags, CommandKind, Cookie, ReplyStyle, Request};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

use super::fake::{Fake, Lines, SIZE, negotiated, slice, who};
use crate::config::Limits;
use crate::connection::{Early, RETRY, TlsConnection};

/// Both ends of a session whose handshake is over.
fn sessions() -> (ClientConnection, ServerConnection) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)
        .unwrap();
    server.send_tls13_tickets = 0;
    let name = "localhost".try_into().unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        feed(&bytes, |part| {
            server.read_tls(part).unwrap();
            server.process_new_packets().unwrap();
        });
        bytes.clear();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        feed(&bytes, |part| {
            client.read_tls(part).unwrap();
            client.process_new_packets().unwrap();
        });
    }
    (client, server)
}

fn feed(mut bytes: &[u8], mut take: impl FnMut(&mut &[u8])) {
    while !bytes.is_empty() {
        take(&mut bytes);
    }
}

/// A client under TLS, a connection and a volume.
struct Sealed {
    host: Fake,
    connection: TlsConnection,
    client: ClientConnection,
    /// Client to server, not received yet.
    input: VecDeque<u8>,
    /// Server to client, opened.
    output: Vec<u8>,
    disk: Vec<u8>,
}

impl Sealed {
    fn new(arena_bytes: usize) -> Sealed {
        let (client, server) = sessions();
        let mut host = Fake::new(arena_bytes);
        let connection = TlsConnection::open(
            &negotiated(ReplyStyle::Simple),
            Early::default(),
            Box::new(server),
            who(&Arc::new(Lines::default())),
            Limits::default(),
            &mut host,
        );
        Sealed {
            host,
            connection,
            client,
            input: VecDeque::new(),
            output: Vec::new(),
            disk: vec![0; SIZE as usize],
        }
    }

    fn ask(&mut self, kind: CommandKind, cookie: u64, offset: u64, length: u32, data: &[u8]) {
        let request = Request {
            flags: CommandFlags::NONE,
            kind,
            cookie: Cookie(cookie),
            offset,
            length,
        };
        let bytes = [&request.encode()[..], data].concat();
        let mut left = &bytes[..];
        while !left.is_empty() {
            let count = self.client.writer().write(left).unwrap();
            left = &left[count..];
            while self.client.wants_write() {
                self.client.write_tls(&mut self.input).unwrap();
            }
        }
    }

    /// The receive in flight ends with at most `max` bytes. `false` if nothing came.
    fn deliver(&mut self, max: usize) -> bool {
        let Some((into, _)) = self.host.receive.filter(|_| !self.input.is_empty()) else {
            return false;
        };
        let count = self.input.len().min(into.len as usize).min(max);
        let bytes: Vec<u8> = self.input.drain(..count).collect();
        let part = into.buf.slice(into.offset, count as u32);
        self.host.arena.slice_mut(part).copy_from_slice(&bytes);
        self.host.receive = None;
        self.host.arena.release(into.buf);
        self.connection.received(&mut self.host, Ok(count as u32));
        true
    }

    fn sent(&mut self) -> bool {
        let Some(segments) = self.host.send.take() else {
            return false;
        };
        let mut sealed = Vec::new();
        for segment in &segments {
            sealed.extend_from_slice(self.host.arena.slice(slice(segment)));
            self.host.arena.release(slice(segment).buf);
        }
        let (client, output) = (&mut self.client, &mut self.output);
        feed(&sealed, |part| {
            client.read_tls(part).unwrap();
            client.process_new_packets().unwrap();
            // Once there is nothing more it would block.
            let _ = client.reader().read_to_end(output);
        });
        let count = sealed.len() as u32;
        self.connection.sent(&mut self.host, Ok(count));
        true
    }

    /// Turns until nothing moves; at most `max` bytes are received at a time.
    fn run(&mut self, max: usize) {
        loop {
            let mut has_moved = self.deliver(max);
            self.connection.turn_ends(&mut self.host);
            while let Some((req, op)) = self.host.submitted.pop_front() {
                self.host.carry_out(&mut self.disk, op);
                self.host.room += 1;
                self.connection
                    .completed(&mut self.host, req.0 as u16, Outcome::Ok);
                has_moved = true;
            }
            self.connection.turn_ends(&mut self.host);
            has_moved |= self.sent();
            self.connection.turn_ends(&mut self.host);
            if !has_moved {
                return;
            }
        }
    }
}

fn reply(cookie: u64, data: &[u8]) -> Vec<u8> {
    let mut bytes = super::simple(0, cookie);
    bytes.extend_from_slice(data);
    bytes
}

#[test]
fn an_idle_client_under_tls_holds_one_receive_buffer() {
    let mut world = Sealed::new(64 << 20);
    assert_eq!(world.host.arena.used(Class::Net), 4096);
    world.ask(CommandKind::READ, 1, 0, 512, &[]);
    world.run(usize::MAX);
    assert_eq!(world.output, reply(1, &[0; 512]));
    // Beside it the headers of its replies.
    assert_eq!(world.host.arena.used(Class::Net), 4096 + 8192);
    assert!(world.host.receive.is_some());
}

#[test]
fn a_stream_under_tls_is_the_same_however_it_is_cut() {
    for max in [1, 7, 100, 4096, usize::MAX] {
        let mut world = Sealed::new(64 << 20);
        let mut expected = Vec::new();
        for round in 0..6u64 {
            // Short ones, one that fills the buffer of an idle connection, long ones.
            let length = [1, 512, 4068, 5000, 40_000, 9][round as usize];
            let data = vec![round as u8 + 1; length];
            world.ask(CommandKind::WRITE, round, round << 16, length as u32, &data);
            world.run(max);
            world.ask(
                CommandKind::READ,
                100 + round,
                round << 16,
                length as u32,
                &[],
            );
            world.run(max);
            expected.extend(reply(round, b""));
            expected.extend(reply(100 + round, &data));
        }
        assert!(world.output == expected, "at most {max} bytes at a time");
    }
}

#[test]
fn what_comes_under_tls_while_memory_is_out_is_served_once_there_is_some() {
    let mut world = Sealed::new(64 << 20);
    let hog: Vec<BufId> = std::iter::from_fn(|| world.host.arena.alloc(Class::Net, 4096)).collect();
    world.ask(CommandKind::WRITE, 1, 4096, 5, b"later");
    world.deliver(usize::MAX);
    world.connection.turn_ends(&mut world.host);
    assert!(world.host.submitted.is_empty());
    assert!(world.host.receive.is_none(), "nothing is received over it");
    for buf in hog {
        world.host.arena.release(buf);
    }
    let at = world.host.timer.take().expect("it looks again");
    assert!(at <= world.host.now.after(RETRY));
    world.host.now = at;
    world.connection.timer_fired(&mut world.host);
    world.run(usize::MAX);
    assert_eq!(world.output, reply(1, b""));
    assert_eq!(world.disk[4096..4101], *b"later");
}
