//! TLS from STARTTLS to the last byte, over real sockets and a real engine.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use engine::control::{ClientTls, Clients, Request as Ask};
use nbd_proto::{CommandFlags, CommandKind, Cookie, OptionCode, OptionReplyKind, Request};
use nbd_server::{NbdTls, TlsFiles, TlsIdentity};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::certificates::{Authority, Pair, client, identity, write_secret, write_server};
use crate::common::{Client, connect_unix};
use crate::node::Served;

type Secure = Client<StreamOwned<ClientConnection, UnixStream>>;

/// A node with TLS on its socket, and the authority of both sides.
struct Bed {
    served: Served,
    authority: Authority,
}

impl Bed {
    fn new(required: bool) -> Bed {
        Bed::with(required, |_| {})
    }

    fn with(required: bool, change: impl FnOnce(&mut nbd_server::NbdConfig)) -> Bed {
        let authority = Authority::new("lab");
        let served = Served::start_with(64 << 20, |config| {
            config.tls = Some(NbdTls {
                identity: identity(&authority),
                tcp_required: required,
                unix_required: required,
            });
            change(config);
        });
        Bed { served, authority }
    }

    /// A client in the clear that has answered the greeting.
    fn greet(&self) -> Client<UnixStream> {
        let mut client = connect_unix(self.served.socket());
        client.greet();
        client
    }

    /// A client under TLS.
    fn secure(&self, name: &str) -> Secure {
        let pair = self.authority.issue(name);
        secure(
            self.greet(),
            client(&self.authority, Some(&pair), &[&TLS13]),
        )
    }

    fn open(&self, name: &str, export: &str) -> Secure {
        let mut client = self.secure(name);
        client.go(export);
        client
    }
}

/// STARTTLS, then TLS.
fn secure(mut plain: Client<UnixStream>, config: Arc<ClientConfig>) -> Secure {
    plain.option(OptionCode::STARTTLS, b"");
    assert_eq!(plain.reply(), (OptionReplyKind::ACK, String::new()));
    let name = "server".try_into().unwrap();
    let session = ClientConnection::new(config, name).unwrap();
    Client(StreamOwned::new(session, plain.0))
}

impl<S: Read + Write> Client<S> {
    fn go(&mut self, export: &str) {
        self.info(OptionCode::GO, export);
        assert_eq!(self.reply().0, OptionReplyKind::INFO);
        assert_eq!(self.reply().0, OptionReplyKind::ACK);
    }

    fn ask(&mut self, kind: CommandKind, cookie: u64, offset: u64, length: u32, data: &[u8]) {
        let request = Request {
            flags: CommandFlags::NONE,
            kind,
            cookie: Cookie(cookie),
            offset,
            length,
        };
        let mut bytes = request.encode().to_vec();
        bytes.extend_from_slice(data);
        self.0.write_all(&bytes).unwrap();
    }

    /// A simple reply without error.
    fn answered(&mut self, cookie: u64) {
        let header = self.read(16);
        assert_eq!(header[..8], *b"\x67\x44\x66\x98\0\0\0\0");
        assert_eq!(header[8..], cookie.to_be_bytes());
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        self.ask(CommandKind::WRITE, 1, offset, data.len() as u32, data);
        self.answered(1);
    }

    fn read_at(&mut self, offset: u64, length: u32) -> Vec<u8> {
        self.ask(CommandKind::READ, 2, offset, length, b"");
        self.answered(2);
        self.read(length as usize)
    }

    /// What a client reads whose certificate the server does not take.
    fn is_refused(&mut self) -> String {
        let mut byte = [0];
        match self.0.read(&mut byte) {
            Ok(0) => "closed".to_owned(),
            Ok(_) => panic!("the server answered"),
            Err(error) => error.to_string(),
        }
    }
}

/// Bytes that differ everywhere.
fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as u8
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn data_of_every_size_passes_unchanged() {
    let bed = Bed::new(true);
    let mut client = bed.open("hyper1", "disk");
    for (index, length) in [1, 511, 4096, 16_384, 16_385, 100_000, 1 << 20, 9 << 20]
        .into_iter()
        .enumerate()
    {
        let data = pattern(index as u64, length);
        client.write(4097, &data);
        assert!(client.read_at(4097, length as u32) == data, "{length}");
    }
    client.ask(CommandKind::DISC, 9, 0, 0, b"");
    assert_eq!(client.rest(), b"", "closed in good order, by a notice");
    bed.served.wait_for_clients(0);
}

#[test]
fn many_requests_at_once_are_all_answered() {
    let bed = Bed::new(true);
    let mut client = bed.open("hyper1", "disk");
    let data = pattern(7, 256 << 12);
    client.write(0, &data);
    let mut bytes = Vec::new();
    for cookie in 0..256_u64 {
        let request = Request {
            flags: CommandFlags::NONE,
            kind: CommandKind::READ,
            cookie: Cookie(cookie),
            offset: cookie << 12,
            length: 4096,
        };
        bytes.extend_from_slice(&request.encode());
    }
    client.0.write_all(&bytes).unwrap();
    let mut seen = [false; 256];
    for _ in 0..256 {
        let header = client.read(16);
        let cookie = u64::from_be_bytes(header[8..].try_into().unwrap()) as usize;
        assert!(!std::mem::replace(&mut seen[cookie], true));
        assert!(client.read(4096) == data[cookie << 12..][..4096]);
    }
}

#[test]
fn a_client_that_does_not_read_for_a_while_gets_everything_later() {
    let bed = Bed::new(true);
    let mut client = bed.open("hyper1", "disk");
    let data = pattern(3, 8 << 20);
    client.write(0, &data);
    for cookie in 0..4 {
        client.ask(CommandKind::READ, cookie, 0, 8 << 20, b"");
    }
    std::thread::sleep(std::time::Duration::from_millis(300));
    for cookie in 0..4 {
        client.answered(cookie);
        assert!(client.read(8 << 20) == data);
    }
}

#[test]
fn tls_1_2_is_for_old_clients() {
    let bed = Bed::new(true);
    let pair = bed.authority.issue("old");
    let config = client(&bed.authority, Some(&pair), &[&TLS12]);
    let mut client = secure(bed.greet(), config);
    client.go("disk");
    let data = pattern(5, 300_000);
    client.write(0, &data);
    assert!(client.read_at(0, 300_000) == data);
    let tls = bed.served.client_list()[0].tls.clone();
    let expected = ClientTls {
        version: "TLS 1.2",
        subject: Some("CN=old,DNS=old".to_owned()),
    };
    assert_eq!(tls, Some(expected));
}

#[test]
fn keys_change_under_way() {
    let bed = Bed::new(true);
    let mut client = bed.open("hyper1", "disk");
    let data = pattern(5, 100_000);
    for _ in 0..4 {
        client.0.conn.refresh_traffic_keys().unwrap();
        client.write(0, &data);
        assert!(client.read_at(0, 100_000) == data);
    }
}

#[test]
fn without_tls_nothing_but_starttls_and_abort_is_answered() {
    let bed = Bed::new(true);
    let mut plain = bed.greet();
    plain.option(OptionCode::LIST, b"");
    let (kind, text) = plain.reply();
    assert_eq!(kind, OptionReplyKind::ERR_TLS_REQD);
    assert_eq!(text, "this server is to be used with TLS only");
    plain.option(OptionCode::EXPORT_NAME, b"disk");
    assert_eq!(plain.rest(), b"");
}

#[test]
fn where_tls_is_offered_clients_may_do_without() {
    let bed = Bed::new(false);
    let mut plain = bed.greet();
    plain.go("disk");
    plain.write(0, b"clear");
    assert_eq!(bed.open("hyper1", "disk").read_at(0, 5), b"clear");
    assert_eq!(bed.served.client_list()[0].tls, None);
}

#[test]
fn plaintext_pipelined_behind_starttls_is_never_looked_at() {
    let bed = Bed::new(false);
    let mut plain = bed.greet();
    let mut bytes = b"IHAVEOPT\0\0\0\x05\0\0\0\0".to_vec();
    bytes.extend_from_slice(b"IHAVEOPT\0\0\0\x03\0\0\0\0");
    plain.0.write_all(&bytes).unwrap();
    assert_eq!(plain.reply(), (OptionReplyKind::ACK, String::new()));
    // What comes is the end, and no list of exports.
    assert_eq!(plain.rest(), b"");
}

#[test]
fn garbage_instead_of_tls_closes() {
    let bed = Bed::new(true);
    let mut plain = bed.greet();
    plain.option(OptionCode::STARTTLS, b"");
    assert_eq!(plain.reply().0, OptionReplyKind::ACK);
    plain.0.write_all(&[b'x'; 64]).unwrap();
    let rest = plain.rest();
    assert!(rest.len() <= 7, "an alert at most: {rest:?}");
}

#[test]
fn garbage_under_way_cuts_off_this_client_alone() {
    let bed = Bed::new(true);
    let mut bad = bed.open("bad", "disk");
    let mut good = bed.open("good", "disk");
    bad.0.sock.write_all(&[0x17, 3, 3, 0, 64]).unwrap();
    bad.0.sock.write_all(&[0; 64]).unwrap();
    let error = bad.0.read(&mut [0]).unwrap_err().to_string();
    assert_eq!(error, "received fatal alert: BadRecordMac");
    bed.served.wait_for_clients(1);
    good.write(0, b"still served");
}

#[test]
fn a_client_that_is_gone_in_the_middle_of_a_record_is_gone() {
    let bed = Bed::new(true);
    let bad = bed.open("bad", "disk");
    (&bad.0.sock).write_all(&[0x17, 3, 3, 0x40, 0]).unwrap();
    drop(bad);
    bed.served.wait_for_clients(0);
}

#[test]
fn who_shows_no_certificate_or_a_wrong_one_is_not_let_in() {
    let bed = Bed::new(true);
    let versions = &[&TLS13];
    let refused = |config| secure(bed.greet(), config).is_refused();
    let alert = |what: &str| format!("received fatal alert: {what}");
    let none = refused(client(&bed.authority, None, versions));
    assert_eq!(none, alert("CertificateRequired"));
    let stranger = Authority::new("elsewhere").issue("hyper1");
    let wrong = refused(client(&bed.authority, Some(&stranger), versions));
    assert_eq!(wrong, alert("UnknownCA"));
    let expired = bed.authority.issue_expired("hyper1");
    let late = refused(client(&bed.authority, Some(&expired), versions));
    assert_eq!(late, alert("CertificateExpired"));
    assert_eq!(bed.served.clients(), 0);
}

#[test]
fn a_client_that_does_not_trust_the_server_goes() {
    let bed = Bed::new(true);
    let other = Authority::new("elsewhere");
    let pair = bed.authority.issue("hyper1");
    let mut client = secure(bed.greet(), client(&other, Some(&pair), &[&TLS13]));
    let error = client.is_refused();
    assert_eq!(error, "invalid peer certificate: UnknownIssuer");
}

#[test]
fn a_certificate_opens_the_exports_that_name_it() {
    let bed = Bed::with(true, |config| {
        config.exports[0].spec.allow_subjects =
            vec!["CN=hyper1".to_owned(), "DNS=hyper2".to_owned()];
    });
    bed.open("hyper1", "disk").write(0, b"x");
    bed.open("hyper2", "disk").write(0, b"x");
    let mut other = bed.secure("hyper3");
    other.info(OptionCode::GO, "disk");
    let (kind, text) = other.reply();
    assert_eq!(kind, OptionReplyKind::ERR_POLICY);
    assert_eq!(text, "CN=hyper3,DNS=hyper3 may not attach to disk");
    // Nor does it learn of it.
    other.option(OptionCode::LIST, b"");
    let (kind, entry) = other.reply();
    assert_eq!((kind, &entry[4..]), (OptionReplyKind::SERVER, "sealed"));
    assert_eq!(other.reply().0, OptionReplyKind::ACK);
    other.go("sealed");
}

#[test]
fn an_export_for_certificates_asks_for_tls_where_it_is_offered() {
    let bed = Bed::with(false, |config| {
        config.exports[0].spec.allow_subjects = vec!["CN=hyper1".to_owned()];
        config.exports[1].spec.needs_tls = true;
    });
    let mut plain = bed.greet();
    for export in ["disk", "sealed"] {
        plain.info(OptionCode::GO, export);
        let (kind, text) = plain.reply();
        assert_eq!(kind, OptionReplyKind::ERR_TLS_REQD);
        assert_eq!(text, format!("{export} is only to be had over TLS"));
    }
    plain.option(OptionCode::LIST, b"");
    assert_eq!(plain.reply().0, OptionReplyKind::ACK, "nothing is listed");
    bed.open("hyper1", "disk").write(0, b"x");
    bed.open("hyper2", "sealed").read_at(0, 1);
}

#[test]
fn the_client_list_tells_certificate_and_requests() {
    let bed = Bed::new(true);
    let mut client = bed.open("hyper1", "disk");
    client.write(0, &[1; 4096]);
    client.read_at(0, 512);
    let list = bed.served.client_list();
    assert_eq!(list.len(), 1);
    let tls = list[0].tls.as_ref().unwrap();
    assert_eq!(tls.version, "TLS 1.3");
    assert_eq!(tls.subject.as_deref(), Some("CN=hyper1,DNS=hyper1"));
    let io = list[0].io;
    assert_eq!((io.writes, io.written_bytes), (1, 4096));
    assert_eq!((io.reads, io.read_bytes), (1, 512));
}

#[test]
fn a_client_that_was_cut_off_hears_no_more() {
    let bed = Bed::new(true);
    let mut one = bed.open("one", "disk");
    let mut two = bed.open("two", "disk");
    let id = |name: &str| {
        let list = bed.served.client_list();
        let is_it = |tls: &ClientTls| tls.subject.as_deref().unwrap().contains(name);
        let found = list
            .iter()
            .find(|client| client.tls.as_ref().is_some_and(is_it));
        found.unwrap().id
    };
    let clients = Clients::Id(id("one"));
    bed.served.request(Ask::Disconnect { clients }).unwrap();
    let mut rest = Vec::new();
    // Without a word also means without a notice of TLS.
    let error = one.0.read_to_end(&mut rest).map_err(|error| error.kind());
    assert!(rest.is_empty() && !matches!(error, Ok(1..)), "{error:?}");
    bed.served.wait_for_clients(1);
    two.write(0, b"x");
    let clients = Clients::Id(9999);
    let refusal = bed.served.request(Ask::Disconnect { clients }).unwrap_err();
    assert_eq!(
        (refusal.code, &*refusal.text),
        ("E218", "vm has no client 9999")
    );
}

#[test]
fn a_drained_node_says_goodbye_under_tls() {
    let bed = Bed::new(true);
    let mut client = bed.open("hyper1", "disk");
    client.write(0, b"x");
    bed.served.drain();
    assert_eq!(client.rest(), b"", "the end is told by TLS, not by a cut");
}

fn load(change: impl FnOnce(&mut TlsFiles, &Authority)) -> String {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("lab");
    let mut files = write_server(dir.path(), &authority.issue("server"), Some(&authority));
    change(&mut files, &authority);
    let text = match TlsIdentity::load(&files) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    };
    text.replace(&dir.path().display().to_string(), "DIR")
}

#[test]
fn files_that_cannot_serve_are_named_with_the_reason() {
    let put = |files: &TlsFiles, pair: &Pair| {
        std::fs::write(&files.cert, &pair.pem).unwrap();
        write_secret(&files.key, &pair.key.serialize_pem());
    };
    assert_eq!(load(|_, _| {}), "");
    assert_eq!(
        load(|files, _| files.cert.set_file_name("none.pem")),
        "DIR/none.pem cannot be read"
    );
    assert_eq!(
        load(|files, _| {
            let open = std::fs::Permissions::from_mode(0o640);
            std::fs::set_permissions(&files.key, open).unwrap();
        }),
        "the key DIR/server-key.pem is open to others (mode 0640); close it: \
         chmod 600 DIR/server-key.pem"
    );
    assert_eq!(
        load(|files, authority| put(files, &authority.issue_expired("server"))),
        "the certificate DIR/server-cert.pem expired on Jan  1 00:00:00 2021 +00:00"
    );
    assert_eq!(
        load(|files, authority| put(files, &authority.issue_for_later("server"))),
        "the certificate DIR/server-cert.pem is not in force before Jan  1 00:00:00 3000 +00:00"
    );
    assert_eq!(
        load(|files, authority| {
            write_secret(&files.key, &authority.issue("x").key.serialize_pem());
        }),
        "the key DIR/server-key.pem does not belong to the certificate DIR/server-cert.pem"
    );
    assert_eq!(
        load(|files, _| std::fs::write(&files.cert, "junk").unwrap()),
        "DIR/server-cert.pem holds no PEM certificate"
    );
    assert_eq!(
        load(|files, _| write_secret(&files.key, "junk")),
        "DIR/server-key.pem holds no PEM private key (PKCS#8, PKCS#1 or SEC1, not encrypted)"
    );
    assert_eq!(
        load(|files, _| files.client_ca = Some(files.key.clone())),
        "DIR/server-key.pem holds no PEM certificate"
    );
}
