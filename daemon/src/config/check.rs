//! Values against each other: references, clashes, what listens where, and known risks.

use std::ops::Range;

use engine::control::Backing;

use super::section::Findings;
use super::{
    At, Config, Diagnostic, Endpoint, Listener, NbdExport, Node, Volume, etcd, nearest, votes,
};

/// Adds what is wrong or risky between values that are each well-formed.
pub(super) fn check(config: &Config, out: &mut Findings) {
    timers(config, out);
    votes::check(config, out);
    etcd::check(config, out);
    for node in &config.nodes {
        listeners(node, out);
        clashes(node, out);
    }
    addresses(config, out);
    for volume in &config.volumes {
        replicas(config, volume, out);
    }
    exports(config, out);
    default_exports(config, out);
    backings(config, out);
}

fn timers(config: &Config, out: &mut Findings) {
    let cluster = &config.cluster;
    for (key, time) in [
        ("keepalive", &cluster.keepalive),
        ("peer_timeout", &cluster.peer_timeout),
        ("member_timeout", &cluster.member_timeout),
    ] {
        if time.is_zero() || time.as_secs() > 3_600 {
            let says = format!("`{key}` of [cluster] is out of range");
            let label = "must be from 1ms to 1h";
            out.push(Diagnostic::error("E005", time.span.clone(), says).label(label));
        }
    }
    if cluster.peer_timeout.value < cluster.keepalive.value * 2 {
        let says = "`peer_timeout` must be at least two times `keepalive`";
        let at = later(&cluster.peer_timeout.span, &cluster.keepalive.span);
        let label = "one lost keepalive would cut the link";
        out.push(Diagnostic::error("E013", at, says).label(label));
    }
}

fn later(a: &Range<usize>, b: &Range<usize>) -> Range<usize> {
    if a.start >= b.start {
        a.clone()
    } else {
        b.clone()
    }
}

fn listeners(node: &Node, out: &mut Findings) {
    for (listener, endpoint) in listening(node) {
        if endpoint.is_loopback() {
            continue;
        }
        let word = listener.word();
        let has_tls = listener == Listener::Nbd && node.nbd_tls.is_some();
        let links_are_sealed = listener == Listener::Replication && node.link_tls.is_some();
        if links_are_sealed || (has_tls && node.nbd_tcp_needs_tls()) {
            continue;
        }
        if node.insecure.contains(&listener) {
            let says = match has_tls {
                true => format!("{word} of node {} also serves without TLS", *node.name),
                false => format!(
                    "{word} of node {} has neither TLS nor a password",
                    *node.name
                ),
            };
            let label = "whoever reaches this address gets in";
            out.push(Diagnostic::warning("W002", endpoint.span.clone(), says).label(label));
        } else {
            let says = format!("{word} of node {} would listen beyond loopback", *node.name);
            let trusted = format!(
                "on a network that only trusted machines reach, set insecure = [\"{word}\"] in \
                 [node.{}]",
                *node.name
            );
            let hint = match listener {
                Listener::Nbd => format!(
                    "give it certificates in [node.{}.nbd_tls], as `pollux tls init` makes them; \
                     or, {trusted}",
                    *node.name
                ),
                Listener::Replication => format!(
                    "give all nodes certificates in [tls], as `pollux tls init DIR --for-node {}` \
                     makes them; or, {trusted}",
                    *node.name
                ),
                Listener::Api => format!("this version has no TLS for it: {trusted}"),
            };
            let found = Diagnostic::error("E010", endpoint.span.clone(), says);
            out.push(found.label("not a loopback address").hint(hint));
        }
    }
}

fn listening(node: &Node) -> Vec<(Listener, &At<Endpoint>)> {
    let links = node.addresses().map(|at| (Listener::Replication, at));
    let nbd = node.nbd.iter().map(|at| (Listener::Nbd, at));
    let api = node.api.iter().map(|at| (Listener::Api, at));
    links.chain(nbd).chain(api).collect()
}

fn clashes(node: &Node, out: &mut Findings) {
    let all = listening(node);
    for (index, (listener, endpoint)) in all.iter().enumerate() {
        let earlier = all[..index]
            .iter()
            .find(|(_, other)| other.clashes_with(endpoint));
        if let Some((other, _)) = earlier {
            let says = format!(
                "{} and {} of node {} cannot both listen on port {}",
                other.word(),
                listener.word(),
                *node.name,
                endpoint.port
            );
            let label = format!("{} has this port", other.word());
            out.push(Diagnostic::error("E009", endpoint.span.clone(), says).label(label));
        }
    }
    if let Some(socket) = &node.nbd_socket
        && **socket == node.data_dir.join(super::file::API_SOCKET)
    {
        let says = format!(
            "`nbd_socket` of node {} is the socket of its API",
            *node.name
        );
        out.push(Diagnostic::error("E009", socket.span.clone(), says).label("choose another name"));
    }
}

fn addresses(config: &Config, out: &mut Findings) {
    for (index, node) in config.nodes.iter().enumerate() {
        for address in node.addresses() {
            let has_it = |other: &&Node| other.addresses().any(|at| at.value == address.value);
            if let Some(other) = config.nodes[..index].iter().find(has_it) {
                let says = format!(
                    "nodes {} and {} have the same address",
                    *other.name, *node.name
                );
                let label = format!("also the address of {}", *other.name);
                out.push(Diagnostic::error("E009", address.span.clone(), says).label(label));
            }
            if address.is_wildcard() {
                let says = format!("`address` of node {} is where its peers dial", *node.name);
                let label = "stands for no machine; give its IP address or name";
                out.push(Diagnostic::error("E005", address.span.clone(), says).label(label));
            }
        }
    }
}

fn replicas(config: &Config, volume: &Volume, out: &mut Findings) {
    let count = volume.replicas.len();
    let key_stands = !volume.replicas.span.is_empty();
    if count == 0 && key_stands {
        let says = format!("volume {} has no replica", *volume.name);
        let found = Diagnostic::error("E005", volume.replicas.span.clone(), says);
        out.push(found.label("name at least one node"));
    }
    for (index, replica) in volume.replicas.iter().enumerate() {
        if volume.replicas[..index]
            .iter()
            .any(|earlier| earlier.value == replica.value)
        {
            let says = format!("volume {} names node {} twice", *volume.name, **replica);
            let found = Diagnostic::error("E009", replica.span.clone(), says);
            out.push(found.label("a node holds one replica"));
            continue;
        }
        match config
            .nodes
            .iter()
            .find(|node| node.name.value == replica.value)
        {
            None => out.push(no_such_node(config, volume, ("replica", replica))),
            Some(node) if count > 1 && node.address.is_none() => {
                let says = format!(
                    "volume {} is replicated, but node {} has no `address`",
                    *volume.name, **replica
                );
                let found = Diagnostic::error("E004", replica.span.clone(), says);
                let hint = format!("set address = \"host:8790\" in [node.{}]", **replica);
                out.push(found.label("its peers cannot reach it").hint(hint));
            }
            Some(node) if node.is_diskless => {
                let says = format!(
                    "volume {} wants a replica on {}, which is diskless",
                    *volume.name, **replica
                );
                let found = Diagnostic::error("E013", replica.span.clone(), says);
                out.push(found.label("a diskless node only votes"));
            }
            Some(_) => {}
        }
    }
    if count > 0 && volume.min_copies.value as usize > count {
        let says = format!(
            "`min_copies` of volume {} asks for {} of {count} replicas",
            *volume.name, *volume.min_copies
        );
        let found = Diagnostic::error("E013", volume.min_copies.span.clone(), says);
        out.push(found.label("writes would never be acknowledged"));
    }
    let mut placed = volume.backings.iter();
    if let Some(placed) = placed.find(|placed| *placed.backing == Backing::Memory) {
        let says = match &placed.node {
            None => format!("volume {} lives in memory", *volume.name),
            Some(node) => format!("volume {} lives in memory on {}", *volume.name, **node),
        };
        let label = "what is written is lost when the daemon ends";
        out.push(Diagnostic::warning("W004", placed.backing.span.clone(), says).label(label));
    }
    places(volume, out);
}

/// Named places are those of the replicas, each once.
fn places(volume: &Volume, out: &mut Findings) {
    for node in volume.backings.iter().filter_map(|p| p.node.as_ref()) {
        if !volume.is_on(node) {
            let says = format!(
                "`backing` of volume {} names {}, which holds no replica",
                *volume.name, **node
            );
            let label = "not among `replicas`";
            out.push(Diagnostic::error("E007", node.span.clone(), says).label(label));
        }
    }
    let homeless = |replica: &&At<String>| volume.backing_on(replica).is_none();
    if !volume.backings.is_empty()
        && let Some(replica) = volume.replicas.iter().find(homeless)
    {
        let says = format!(
            "`backing` of volume {} says nothing of {}",
            *volume.name, **replica
        );
        let label = "where is this replica?";
        out.push(Diagnostic::error("E004", replica.span.clone(), says).label(label));
    }
}

/// `what` it wants there, and the name that no node has.
pub(super) fn no_such_node(
    config: &Config,
    volume: &Volume,
    (what, replica): (&str, &At<String>),
) -> Diagnostic {
    let says = format!("volume {} wants a {what} on an unknown node", *volume.name);
    let found = Diagnostic::error("E007", replica.span.clone(), says);
    let names: Vec<&str> = config.nodes.iter().map(|node| node.name.as_str()).collect();
    match nearest(replica, names.iter().copied()) {
        Some(name) => found.label(format!("did you mean \"{name}\"?")),
        None => found.label(format!("known nodes: {}", names.join(", "))),
    }
}

fn exports(config: &Config, out: &mut Findings) {
    let mut seen: Vec<(&str, &Volume)> = Vec::new();
    for volume in &config.volumes {
        for export in &volume.nbd {
            let same = seen.iter().find(|(name, other)| {
                *name == export.name.as_str() && (same_node(volume, other).is_some())
            });
            if let Some((name, other)) = same {
                let says = format!("two exports of one node are named \"{name}\"");
                let label = format!("also an export of volume {}", *other.name);
                out.push(Diagnostic::error("E009", export.name.span.clone(), says).label(label));
            }
            seen.push((&export.name, volume));
        }
        for export in &volume.nbd {
            certificates(config, volume, export, out);
        }
        let Some(export) = volume.nbd.first() else {
            continue;
        };
        for replica in volume.replicas.iter() {
            let node = config
                .nodes
                .iter()
                .find(|node| node.name.value == replica.value);
            let silent = node.filter(|node| node.nbd.is_none() && node.nbd_socket.is_none());
            if let Some(node) = silent {
                let says = format!(
                    "volume {} is exported, but node {} has neither `nbd` nor `nbd_socket`",
                    *volume.name, *node.name
                );
                let found = Diagnostic::warning("W003", export.name.span.clone(), says);
                out.push(found.label(format!("no client reaches it on {}", *node.name)));
            }
        }
    }
}

/// What an export asks of clients, its nodes must be able to ask for.
fn certificates(config: &Config, volume: &Volume, export: &NbdExport, out: &mut Findings) {
    let (key, span) = match (export.allow_subjects.is_empty(), export.needs_tls.value) {
        (false, _) => ("allow_subjects", &export.allow_subjects.span),
        (true, true) => ("tls", &export.needs_tls.span),
        (true, false) => return,
    };
    let is_here = |node: &&Node| {
        volume.is_on(&node.name) && (node.nbd.is_some() || node.nbd_socket.is_some())
    };
    for node in config.nodes.iter().filter(is_here) {
        let (node, name) = (&node.nbd_tls, &*node.name);
        match node {
            None => {
                let says = format!(
                    "export {} asks for TLS, but node {name} has none",
                    *export.name
                );
                let hint = format!("give it certificates in [node.{name}.nbd_tls]");
                let found = Diagnostic::error("E013", span.clone(), says);
                out.push(
                    found
                        .label(format!("`{key}` shuts everybody out"))
                        .hint(hint),
                );
            }
            Some(tls) if tls.client_ca.is_none() && key == "allow_subjects" => {
                let says = format!(
                    "export {} asks for certificates, but node {name} does not",
                    *export.name
                );
                let hint = format!(
                    "give [node.{name}.nbd_tls] a `client_ca` instead of clients = \"anyone\""
                );
                let found = Diagnostic::error("E013", span.clone(), says);
                out.push(
                    found
                        .label(format!("`{key}` shuts everybody out"))
                        .hint(hint),
                );
            }
            Some(_) => {}
        }
    }
}

/// The empty name means one export of a node.
fn default_exports(config: &Config, out: &mut Findings) {
    let mut seen: Vec<(&NbdExport, &Volume)> = Vec::new();
    for volume in &config.volumes {
        for export in volume.nbd.iter().filter(|export| export.is_default.value) {
            let same = seen
                .iter()
                .find(|(_, other)| same_node(volume, other).is_some());
            if let Some((other, _)) = same {
                let says = "two exports of one node are its default".to_owned();
                let label = format!("also {}", *other.name);
                let span = export.is_default.span.clone();
                out.push(Diagnostic::error("E009", span, says).label(label));
            }
            seen.push((export, volume));
        }
    }
}

fn backings(config: &Config, out: &mut Findings) {
    for (index, volume) in config.volumes.iter().enumerate() {
        for placed in &volume.backings {
            let Backing::Path(path) = &placed.backing.value else {
                continue;
            };
            if path.starts_with("volumes") || path.as_os_str() == super::file::API_SOCKET {
                let says = format!(
                    "`backing` of volume {} lies where the daemon keeps state",
                    *volume.name
                );
                let label = "choose another name";
                out.push(Diagnostic::error("E009", placed.backing.span.clone(), says).label(label));
            }
        }
        let shared = config.volumes[..index].iter().find_map(|other| {
            let both = config
                .nodes
                .iter()
                .filter(|node| volume.is_on(&node.name) && other.is_on(&node.name));
            let clash = both
                .filter(|node| {
                    let here = on_disk(node, volume);
                    here.is_some() && here == on_disk(node, other)
                })
                .find_map(|node| volume.backing_on(&node.name));
            clash.map(|backing| (other, backing))
        });
        if let Some((other, backing)) = shared {
            let says = format!(
                "volumes {} and {} have the same backing",
                *other.name, *volume.name
            );
            let label = format!("also the backing of {}", *other.name);
            out.push(Diagnostic::error("E009", backing.span.clone(), says).label(label));
        }
    }
}

fn on_disk(node: &Node, volume: &Volume) -> Option<std::path::PathBuf> {
    match &volume.backing_on(&node.name)?.value {
        Backing::Path(path) if path.as_os_str().is_empty() => None,
        Backing::Path(path) => Some(node.data_dir.join(path)),
        Backing::Memory => None,
    }
}

/// A node that holds a replica of both.
fn same_node<'v>(a: &'v Volume, b: &Volume) -> Option<&'v str> {
    let mut names = a.replicas.iter().map(|name| name.as_str());
    names.find(|name| b.is_on(name))
}
