//! Clients and listeners that a second node and server go on with, over real sockets and disks.

use std::io::Write;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use engine::control::{Backing, Node, NodeSpec, Request, VolumeSpec};
use engine::front_end::Service;
use engine::handover::{Inherited, Legacy};
use engine::log::Silent;
use engine::node::NodeHandle;
use nbd_proto::{CommandFlags, CommandKind, Cookie, ExportName, Wish};
use nbd_server::{AdoptError, Listeners, NbdConfig};

use crate::common::Server;
use crate::node::{request, spec};
use crate::session::Session;

const SIZE: u64 = 64 << 20;

struct Running {
    node: Arc<NodeHandle>,
    server: Server,
}

fn start(spec: &NodeSpec, inherited: Inherited, open: Listeners) -> Running {
    let node = engine::node::start_with(spec.clone(), Arc::new(Silent), inherited).unwrap();
    let create = Request::Create {
        adopt: false,
        if_absent: true,
    };
    request(&*node, create).unwrap();
    while node.view("vm").unwrap().service != Service::Primary {
        std::thread::sleep(Duration::from_millis(1));
    }
    let server = Server::start_with(NbdConfig::of(spec), node.clone(), open).unwrap();
    Running { node, server }
}

impl Running {
    /// Everything goes to whoever comes next; this node and its server are gone.
    fn hand_over(self) -> (Legacy, Listeners) {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let open = runtime.unwrap().block_on(self.server.nbd.stop_listening());
        let (done, is_done) = mpsc::channel();
        let done = move |legacy| drop(done.send(legacy));
        self.node.hand_over(Box::new(done));
        let legacy = is_done.recv_timeout(Duration::from_secs(10)).unwrap();
        (legacy.unwrap(), open.unwrap())
    }
}

fn go_on(running: Running, spec: &NodeSpec) -> Running {
    let (legacy, open) = running.hand_over();
    let next = start(spec, legacy.inherited, open);
    for client in legacy.clients {
        next.server.nbd.adopt(client).unwrap();
    }
    next
}

fn file_spec(dir: &tempfile::TempDir) -> NodeSpec {
    let mut spec = spec(dir.path(), dir.path().join("nbd.sock"), SIZE);
    spec.volumes[0].backing = Some(Backing::Path(dir.path().join("vm.img")));
    spec
}

fn open(spec: &NodeSpec, export: &str) -> Session {
    let wish = Wish::full(ExportName::new(export).unwrap());
    Session::open(spec.nbd_socket.as_ref().unwrap(), wish)
}

#[test]
fn clients_and_sockets_outlive_the_node_they_came_to() {
    let dir = tempfile::tempdir().unwrap();
    let spec = file_spec(&dir);
    let mut running = start(&spec, Inherited::default(), Listeners::default());
    let mut clients: Vec<Session> = (0..3).map(|_| open(&spec, "disk")).collect();
    for round in 0..5u8 {
        // Of this write only the header and a part of the payload come before the change.
        let (last, others) = clients.split_last_mut().unwrap();
        let data: Vec<u8> = (0..200_000).map(|n| n as u8 ^ round).collect();
        let head = nbd_proto::Request {
            flags: CommandFlags::NONE,
            kind: CommandKind::WRITE,
            cookie: Cookie(77),
            offset: 10_000_001,
            length: data.len() as u32,
        };
        last.stream.write_all(&head.encode()).unwrap();
        last.stream.write_all(&data[..150_000]).unwrap();
        others[0].write(u64::from(round) * 4096, &[round + 1; 4096]);
        running = go_on(running, &spec);
        last.stream.write_all(&data[150_000..]).unwrap();
        let answer = last.answer(0);
        assert_eq!((answer.cookie, answer.result), (77, Ok(Vec::new())));
        assert!(last.read(10_000_001, 200_000) == data);
        assert_eq!(
            others[1].read(u64::from(round) * 4096, 4096),
            [round + 1; 4096]
        );
        clients.push(open(&spec, "disk"));
    }
    // The last one may still be on its way to the reactor.
    clients.last_mut().unwrap().read(0, 1);
    assert_eq!(status_clients(&running), clients.len());
    drop(running);
    assert!(
        !spec.nbd_socket.unwrap().exists(),
        "the last server removes its socket"
    );
}

fn status_clients(running: &Running) -> usize {
    let (answer, answered) = mpsc::channel();
    running
        .node
        .status(None, Box::new(move |status| answer.send(status).unwrap()));
    answered.recv_timeout(Duration::from_secs(10)).unwrap()[0]
        .clients
        .len()
}

#[test]
fn replies_under_way_come_whole_and_requests_not_begun_are_served_by_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let spec = file_spec(&dir);
    let mut running = start(&spec, Inherited::default(), Listeners::default());
    let mut client = open(&spec, "disk");
    let pattern: Vec<u8> = (0..1 << 20).map(|n: u32| (n >> 3) as u8).collect();
    client.write(0, &pattern);
    for _ in 0..5 {
        // More than socket buffers hold, so that replies are cut wherever the node stops.
        let (flags, kind) = (CommandFlags::NONE, CommandKind::READ);
        let asked: Vec<u64> = (0..24)
            .map(|_| client.send(flags, kind, 0, 1 << 20, b""))
            .collect();
        let expected = pattern.clone();
        let reader = std::thread::spawn(move || {
            let mut cookies = Vec::new();
            for _ in 0..24 {
                let answer = client.answer(1 << 20);
                assert!(answer.result.as_ref() == Ok(&expected));
                cookies.push(answer.cookie);
            }
            cookies.sort_unstable();
            assert_eq!(cookies, asked);
            client
        });
        running = go_on(running, &spec);
        client = reader.join().unwrap();
    }
    drop(running);
}

#[test]
fn a_client_whose_export_changed_is_closed_without_a_word() {
    type Change = fn(&mut VolumeSpec);
    let changes: [(Change, &str); 3] = [
        (
            |volume| drop(volume.nbd.remove(0)),
            "export `disk` is not configured any more",
        ),
        (
            |volume| volume.nbd[0].read_only = true,
            "its export changed between read-only and writable",
        ),
        (
            |volume| volume.allocation = engine::control::Allocation::Full,
            "its export can no longer do what the client was told",
        ),
    ];
    for (change, why) in changes {
        let dir = tempfile::tempdir().unwrap();
        let mut spec = file_spec(&dir);
        let running = start(&spec, Inherited::default(), Listeners::default());
        let (mut disk, mut sealed) = (open(&spec, "disk"), open(&spec, "sealed"));
        let (legacy, open) = running.hand_over();
        change(&mut spec.volumes[0]);
        let next = start(&spec, legacy.inherited, open);
        for client in legacy.clients {
            let export = client.client.export.name();
            match next.server.nbd.adopt(client) {
                Ok(()) => assert_eq!(export, "sealed"),
                Err(AdoptError::Refused(text)) => assert_eq!((&*export, &*text), ("disk", why)),
                Err(AdoptError::Changed(text)) => assert_eq!((&*export, text), ("disk", why)),
                Err(other) => panic!("{other}"),
            }
        }
        disk.assert_closed();
        assert_eq!(sealed.read(0, 10), [0; 10]);
    }
}
