//! What a client meets before it is attached. The volumes are a table.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::{Server, config, connect_unix, export, socket_config};
use engine::front_end::{AttachError, Attachment, ExportLabel, Service, VolumeView};
use nbd_proto::{OptionCode, OptionReplyKind};
use nbd_server::{Elsewhere, Limits, Volumes};

/// Volumes that only remember who was attached.
#[derive(Default)]
struct Table {
    services: HashMap<&'static str, Service>,
    attached: Mutex<Vec<(String, String, OwnedFd)>>,
}

impl Table {
    fn of<const N: usize>(services: [(&'static str, Service); N]) -> Arc<Table> {
        Arc::new(Table {
            services: services.into(),
            ..Table::default()
        })
    }

    fn primary() -> Arc<Table> {
        Table::of([("vm", Service::Primary)])
    }

    /// Volume, address and stream of the client attached next.
    fn next(&self) -> (String, String, OwnedFd) {
        for _ in 0..2000 {
            if let Some(client) = self.attached.lock().unwrap().pop() {
                return client;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("nobody was attached");
    }
}

impl Volumes for Table {
    fn view(&self, volume: &str) -> Option<VolumeView> {
        let service = self.services.get(volume)?.clone();
        let name = volume.to_owned();
        Some(VolumeView {
            name,
            size_bytes: 1 << 20,
            service,
            trims: true,
            clients: 0,
            contexts: VolumeView::usual_contexts(2),
        })
    }

    fn attach(&self, volume: &str, attachment: Attachment) -> Result<(), AttachError> {
        let Attachment { socket, client, .. } = attachment;
        assert_eq!(client.export.name(), volume);
        self.attached
            .lock()
            .unwrap()
            .push((volume.to_owned(), client.address, socket));
        Ok(())
    }

    fn cut_off(&self, _: &str, _: &ExportLabel) {}
}

fn secondary() -> Service {
    Service::Secondary {
        primary: Some("alpha".to_owned()),
    }
}

#[test]
fn go_moves_the_socket_to_the_volume() {
    let volumes = Table::primary();
    let server = Server::start(config(&["vm"]), volumes.clone()).unwrap();
    let mut client = server.connect();
    client.greet();
    client.info(OptionCode::GO, "vm");
    let (kind, data) = client.reply();
    assert_eq!((kind, data.len()), (OptionReplyKind::INFO, 12));
    assert_eq!(client.reply().0, OptionReplyKind::ACK);
    let (volume, address, socket) = volumes.next();
    assert_eq!(volume, "vm");
    assert_eq!(address, client.0.local_addr().unwrap().to_string());
    fs::File::from(socket)
        .write_all(b"from the reactor")
        .unwrap();
    assert_eq!(client.rest(), b"from the reactor");
}

#[test]
fn a_unix_client_is_known_by_its_process() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nbd.sock");
    let volumes = Table::primary();
    let _server = Server::start(socket_config(path.clone()), volumes.clone()).unwrap();
    let mut client = connect_unix(&path);
    client.greet();
    // The empty name is the only export.
    client.info(OptionCode::GO, "");
    assert_eq!(client.reply().0, OptionReplyKind::INFO);
    assert_eq!(client.reply().0, OptionReplyKind::ACK);
    assert_eq!(volumes.next().1, format!("unix:{}", std::process::id()));
}

#[test]
fn a_secondary_lists_its_exports_and_says_where_to_go() {
    let mut config = config(&["vm store", "lost", "off"]);
    config.elsewhere = vec![Elsewhere {
        node: "alpha".to_owned(),
        uri: "nbd://10.0.0.1:10810".parse().unwrap(),
    }];
    let volumes = Table::of([
        ("vm store", secondary()),
        ("lost", Service::Secondary { primary: None }),
        (
            "off",
            Service::Unavailable {
                reason: "off is offline: its backing is missing".to_owned(),
            },
        ),
    ]);
    let server = Server::start(config, volumes).unwrap();
    let mut client = server.connect();
    client.greet();
    client.option(OptionCode::LIST, b"");
    for name in ["vm store", "lost", "off"] {
        let (kind, data) = client.reply();
        assert_eq!(kind, OptionReplyKind::SERVER);
        assert!(
            data.ends_with(&format!("{name}the disk {name}")),
            "{data:?}"
        );
    }
    assert_eq!(client.reply().0, OptionReplyKind::ACK);
    let refusals = [
        (
            "vm store",
            "vm store is secondary on beta; primary: alpha, nbd://10.0.0.1:10810/vm%20store",
        ),
        ("lost", "lost is secondary on beta; no primary is known"),
        ("off", "off is offline: its backing is missing"),
    ];
    for (name, text) in refusals {
        for option in [OptionCode::INFO, OptionCode::GO] {
            client.info(option, name);
            assert_eq!(
                client.reply(),
                (OptionReplyKind::ERR_POLICY, text.to_owned())
            );
        }
    }
    client.info(OptionCode::GO, "none");
    assert_eq!(client.reply().0, OptionReplyKind::ERR_UNKNOWN);
    client.info(OptionCode::GO, "");
    assert_eq!(
        client.reply().0,
        OptionReplyKind::ERR_UNKNOWN,
        "there are three exports"
    );
    client.option(OptionCode::EXPORT_NAME, b"vm store");
    assert_eq!(client.rest(), b"");
}

#[test]
fn only_allowed_networks_attach_over_tcp() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&[]);
    config.exports = vec![
        export("far", &["10.0.0.0/8"]),
        export("near", &["10.0.0.0/8", "127.0.0.1"]),
    ];
    config.socket = Some(dir.path().join("nbd.sock"));
    let volumes = Table::of([("far", Service::Primary), ("near", Service::Primary)]);
    let server = Server::start(config, volumes).unwrap();
    let mut client = server.connect();
    client.greet();
    client.info(OptionCode::INFO, "far");
    let text = "127.0.0.1 may not attach to far".to_owned();
    assert_eq!(client.reply(), (OptionReplyKind::ERR_POLICY, text));
    client.info(OptionCode::INFO, "near");
    assert_eq!(client.reply().0, OptionReplyKind::INFO);
    let mut local = connect_unix(server.nbd.socket().unwrap());
    local.greet();
    local.info(OptionCode::INFO, "far");
    assert_eq!(
        local.reply().0,
        OptionReplyKind::INFO,
        "the socket's permissions decide"
    );
}

#[test]
fn a_stopping_server_says_so_and_removes_its_socket() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nbd.sock");
    let mut server = Server::start(socket_config(path.clone()), Table::primary()).unwrap();
    let mut client = connect_unix(&path);
    client.greet();
    client.info(OptionCode::INFO, "vm");
    assert_eq!(client.reply().0, OptionReplyKind::INFO);
    assert_eq!(client.reply().0, OptionReplyKind::ACK);
    server.stop();
    while path.exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    client.info(OptionCode::GO, "vm");
    let text = "the server is shutting down".to_owned();
    assert_eq!(client.reply(), (OptionReplyKind::ERR_SHUTDOWN, text));
}

#[test]
fn whoever_chooses_no_export_in_time_is_closed() {
    let mut config = config(&["vm"]);
    config.limits.handshake_max = Duration::from_millis(300);
    let server = Server::start(config, Table::primary()).unwrap();
    let mut silent = server.connect();
    let mut slow = server.connect();
    slow.greet();
    for byte in 0..200 {
        std::thread::sleep(Duration::from_millis(10));
        // One byte at a time does not prolong it.
        if slow.0.write_all(&b"IHAVEOPT"[byte % 8..][..1]).is_err() {
            break;
        }
    }
    assert_eq!(silent.rest().len(), 18);
    assert_eq!(slow.rest(), b"");
}

#[test]
fn one_address_cannot_occupy_the_server() {
    let mut config = config(&["vm"]);
    config.limits = Limits {
        half_open_per_address_max: 3,
        ..config.limits
    };
    let volumes = Table::primary();
    let server = Server::start(config, volumes.clone()).unwrap();
    let mut first: Vec<_> = (0..3).map(|_| server.connect()).collect();
    for client in &mut first {
        client.greet();
    }
    assert_eq!(server.connect().rest(), b"", "the fourth is turned away");
    // Attached, a client is no longer half-open.
    first[0].info(OptionCode::GO, "vm");
    let _attached = volumes.next();
    let mut next = server.connect();
    std::thread::sleep(Duration::from_millis(50));
    next.greet();
}

#[test]
fn broken_negotiations_are_closed_and_the_server_goes_on() {
    let server = Server::start(config(&["vm"]), Table::primary()).unwrap();
    let long = [
        b"IHAVEOPT".as_slice(),
        &[0, 0, 0, 6, 0xff, 0xff, 0xff, 0xff],
    ]
    .concat();
    let storm: Vec<u8> = [b"IHAVEOPT".as_slice(), &[0, 0, 0, 77, 0, 0, 0, 0]]
        .concat()
        .repeat(1001);
    for bytes in [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0xff; 64],
        long,
        storm,
    ] {
        let mut client = server.connect();
        client.greet();
        // The server may close before all of it is written.
        let _ = client.0.write_all(&bytes);
        client.rest();
    }
    let mut unknown_flags = server.connect();
    unknown_flags.read(18);
    unknown_flags.0.write_all(&[0, 0, 0, 0x83]).unwrap();
    assert_eq!(unknown_flags.rest(), b"");
    let mut polite = server.connect();
    polite.greet();
    polite.option(OptionCode::ABORT, b"");
    assert_eq!(polite.reply().0, OptionReplyKind::ACK);
    assert_eq!(polite.rest(), b"");
}

#[test]
fn a_port_in_use_is_named() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    let mut config = config(&["vm"]);
    config.address = Some(address.clone());
    let error = Server::start(config, Table::primary()).err().unwrap();
    assert_eq!(
        error.to_string(),
        format!("nbd: {address} is in use by another process")
    );
}

#[test]
fn a_socket_left_behind_is_replaced_and_a_living_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nbd.sock");
    drop(UnixListener::bind(&path).unwrap());
    let server = Server::start(socket_config(path.clone()), Table::primary()).unwrap();
    let metadata = fs::metadata(&path).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o660);
    connect_unix(&path).greet();
    let error = Server::start(socket_config(path.clone()), Table::primary())
        .err()
        .unwrap();
    let text = format!("nbd: {} is in use by another process", path.display());
    assert_eq!(error.to_string(), text);
    connect_unix(&path).greet();
    drop(server);
    assert!(!path.exists());
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("precious");
    fs::write(&path, "data").unwrap();
    let error = Server::start(socket_config(path.clone()), Table::primary())
        .err()
        .unwrap();
    assert_eq!(
        error.to_string(),
        format!("nbd: {} cannot be listened on", path.display())
    );
    assert_eq!(fs::read(&path).unwrap(), b"data");
}

#[test]
fn exports_that_cannot_be_served_are_refused_at_the_start() {
    let refused = |config| {
        Server::start(config, Table::primary())
            .err()
            .unwrap()
            .to_string()
    };
    assert_eq!(
        refused(config(&["vm", "vm"])),
        "nbd: two exports are named `vm`"
    );
    assert_eq!(
        refused(config(&[""])),
        "nbd: export name `` cannot be used: it is empty"
    );
    let mut wrong = config(&[]);
    wrong.exports = vec![export("vm", &["10.0.0.1/24"])];
    assert_eq!(refused(wrong), "nbd: `allow` of export `vm` is wrong");
}
