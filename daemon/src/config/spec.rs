//! From the checked file to what one node runs.

use std::path::PathBuf;

use engine::control::{self, Backing, EtcdSpec, NbdExportSpec, NodeSpec, VolumeSpec, Votes};
use nbd_proto::Transport;

use super::{At, Config, Control, Endpoint, Listener, NbdExport, Node, Placed, Quorum, Volume};

impl Config {
    /// What `node` runs: its listeners and the volumes it holds a replica of, or votes on.
    pub fn node_spec(&self, node: &Node) -> NodeSpec {
        let words = |node: &Node| -> Vec<String> {
            let addresses = node.addresses();
            addresses.map(|address| address.to_string()).collect()
        };
        let linked = self.nodes.iter().filter(|node| node.address.is_some());
        let peers = linked.map(|node| (node.name.value.clone(), words(node)));
        let held = self
            .volumes
            .iter()
            .filter(|volume| volume.is_on(&node.name) || self.is_witness(volume, &node.name));
        NodeSpec {
            cluster: self.cluster.name.clone(),
            name: node.name.value.clone(),
            data_dir: node.data_dir.value.clone(),
            addresses: words(node),
            peers: peers.collect(),
            // They are read where the node runs.
            tls: None,
            nbd: node.nbd.as_ref().map(|nbd| nbd.to_string()),
            nbd_socket: node.nbd_socket.as_ref().map(|path| path.value.clone()),
            reactors: node.reactors.unwrap_or_else(available_cpus),
            keepalive: self.cluster.keepalive.value,
            peer_timeout: self.cluster.peer_timeout.value,
            member_timeout: self.cluster.member_timeout.value,
            etcd: self.etcd_spec(),
            volumes: held
                .map(|volume| VolumeSpec {
                    votes: self.votes(volume),
                    ..volume.spec(node)
                })
                .collect(),
        }
    }

    /// Nodes with a replica of the volume of this name, and who votes on it. `None`: the file has no
    /// such volume.
    pub fn members(&self, name: &str) -> Option<(Vec<String>, Votes)> {
        let volume = self.volumes.iter().find(|v| v.name.as_str() == name)?;
        Some((volume.replica_names(), self.votes(volume)))
    }

    /// Nodes that may vote on a volume and hold no replica of it.
    pub(super) fn witnesses<'c>(&'c self, volume: &'c Volume) -> Vec<&'c str> {
        match &volume.witnesses {
            Some(named) => named.iter().map(|name| name.as_str()).collect(),
            None => {
                let nodes = self.nodes.iter().filter(|node| node.is_diskless);
                nodes.map(|node| node.name.as_str()).collect()
            }
        }
    }

    /// Who chooses which node serves a volume: a majority, by itself where there are three voters.
    /// `None`: the file does not say, and must. A volume with one replica has nothing to choose.
    pub(super) fn quorum_of(&self, volume: &Volume) -> Option<Quorum> {
        let voters = volume.replicas.len() + self.witnesses(volume).len();
        match &self.cluster.quorum {
            _ if volume.replicas.len() < 2 => Some(Quorum::Off),
            _ if self.is_etcd() => Some(Quorum::Etcd),
            Some(said) => Some(said.value),
            None => (voters > 2).then_some(Quorum::Majority),
        }
    }

    fn is_witness(&self, volume: &Volume, node: &str) -> bool {
        let votes = self.quorum_of(volume) == Some(Quorum::Majority);
        votes && self.witnesses(volume).contains(&node)
    }

    /// etcd chooses records.
    pub(super) fn is_etcd(&self) -> bool {
        let control = self.cluster.control.as_ref();
        control.is_some_and(|control| control.value == Control::Etcd)
    }

    fn etcd_spec(&self) -> Option<EtcdSpec> {
        let etcd = self.etcd.as_ref().filter(|_| self.is_etcd())?;
        let path = |path: &Option<At<PathBuf>>| path.as_ref().map(|path| path.value.clone());
        Some(EtcdSpec {
            endpoints: etcd.endpoints.iter().map(|at| at.value.clone()).collect(),
            ca: path(&etcd.ca),
            identity: path(&etcd.cert).zip(path(&etcd.key)),
        })
    }

    fn votes(&self, volume: &Volume) -> Votes {
        let witnesses = self.witnesses(volume).into_iter().map(str::to_owned);
        let (quorum, witnesses) = match self.quorum_of(volume) {
            Some(Quorum::Majority) => (control::Quorum::Majority, witnesses.collect()),
            Some(Quorum::Etcd) => (control::Quorum::Register, Vec::new()),
            _ => return Votes::default(),
        };
        Votes {
            quorum,
            witnesses,
            lease: self.cluster.lease.value,
            auto_promote: volume.auto_promote,
            on_quorum_loss: volume.on_quorum_loss,
        }
    }
}

impl Node {
    /// Where it listens for peers and they dial: each is a path.
    pub fn addresses(&self) -> impl Iterator<Item = &At<Endpoint>> {
        self.address.iter().chain(&self.more_addresses)
    }

    /// Socket of this node's API.
    pub fn api_socket(&self) -> PathBuf {
        self.data_dir.join(super::file::API_SOCKET)
    }

    /// Where clients of other machines find its NBD server, if they can. A wildcard stands for no
    /// machine: then the host is the one that peers dial.
    pub fn nbd_tcp(&self) -> Option<Transport> {
        let nbd = self.nbd.as_deref()?;
        let known = self.address.as_deref().filter(|_| nbd.is_wildcard());
        Some(Transport::Tcp {
            host: known.unwrap_or(nbd).host.clone(),
            port: nbd.port,
        })
    }

    /// Where clients find its NBD server, in the order in which they are shown, and whether it
    /// serves nobody there without TLS.
    pub fn nbd_transports(&self) -> Vec<(Transport, bool)> {
        let tcp = self.nbd_tcp().map(|tcp| (tcp, self.nbd_tcp_needs_tls()));
        let socket = self.nbd_socket.as_ref().map(|path| {
            // The file is UTF-8, and so is every path in it.
            let socket = path.display().to_string();
            (Transport::Unix { socket }, self.nbd_socket_needs_tls())
        });
        tcp.into_iter().chain(socket).collect()
    }

    /// Listeners that really are open to others, not merely allowed to be.
    pub fn insecure_words(&self) -> Vec<&'static str> {
        let is_far = |address: Option<&At<Endpoint>>| address.is_some_and(|at| !at.is_loopback());
        let open = |listener: &&Listener| match listener {
            Listener::Nbd => is_far(self.nbd.as_ref()),
            Listener::Replication => self.addresses().any(|address| is_far(Some(address))),
            Listener::Api => is_far(self.api.as_ref()),
        };
        let is_bare = |listener: &&Listener| match listener {
            Listener::Nbd => !self.nbd_tcp_needs_tls(),
            Listener::Replication => self.link_tls.is_none(),
            Listener::Api => true,
        };
        self.insecure
            .iter()
            .filter(open)
            .filter(is_bare)
            .map(|listener| listener.word())
            .collect()
    }
}

impl Volume {
    /// `node` holds a replica.
    pub fn is_on(&self, node: &str) -> bool {
        self.replicas.iter().any(|replica| replica.value == node)
    }

    /// Where `node` keeps its replica, as the file says it.
    pub fn backing_on(&self, node: &str) -> Option<&At<Backing>> {
        let is_its = |placed: &&Placed| placed.node.as_ref().is_none_or(|n| n.value == node);
        Some(&self.backings.iter().find(is_its)?.backing)
    }

    fn replica_names(&self) -> Vec<String> {
        let names = self.replicas.iter();
        names.map(|replica| replica.value.clone()).collect()
    }

    fn spec(&self, node: &Node) -> VolumeSpec {
        let held = self.is_on(&node.name).then(|| self.backing_on(&node.name));
        let backing = held.flatten().map(|backing| match &backing.value {
            Backing::Path(path) => Backing::Path(node.data_dir.join(path)),
            Backing::Memory => Backing::Memory,
        });
        VolumeSpec {
            name: self.name.value.clone(),
            size_bytes: self.size_bytes.value,
            backing,
            replicas: self.replica_names(),
            votes: Votes::default(),
            write_policy: self.write_policy,
            allocation: self.allocation,
            cache: self.cache,
            completion: self.completion,
            min_copies: self.min_copies.value,
            polling: self.polling,
            reads: self.reads,
            splitbrain: self.splitbrain,
            resync_rate: self.resync_rate,
            checksums: self.checksums,
            nbd: self.nbd.iter().map(NbdExport::spec).collect(),
        }
    }
}

impl NbdExport {
    fn spec(&self) -> NbdExportSpec {
        NbdExportSpec {
            name: self.name.value.clone(),
            read_only: self.read_only,
            description: self.description.clone(),
            allow: self.allow.clone(),
            allow_subjects: self.allow_subjects.value.clone(),
            needs_tls: self.needs_tls.value,
            attach: self.attach,
            is_default: self.is_default.value,
        }
    }
}

/// CPUs of the inherited affinity mask; one if the kernel does not say.
fn available_cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
