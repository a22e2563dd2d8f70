//! The tables of the file, one value at a time: names, units, words, addresses.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use engine::control::{
    Allocation, Attach, Backing, Cache, Checksums, Completion, Polling, QuorumLoss, Reads,
    SplitBrain, WritePolicy,
};
use toml::de::DeTable;

use super::endpoint::parse_network;
use super::section::{Findings, Section};
use super::units;
use super::words::Words;
use super::{
    At, Cluster, Config, Control, Diagnostic, Endpoint, Hooks, Listener, NbdExport, Node, Placed,
    Quorum, Volume, check, etcd, tls,
};

/// Where a node keeps its state unless the file says otherwise.
const DATA_DIR: &str = "/var/lib/pollux";
/// Longest name of cluster, node or volume, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// Longest NBD export name, in bytes. Source: NBD protocol, "Values", strings of 4096 bytes.
const EXPORT_NAME_BYTES_MAX: usize = 4096;
/// Longest path of a Unix socket, in bytes, without its end mark. Source: unix(7), `sun_path`.
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// How long a voter that granted a lease promises nobody else, unless the file says otherwise.
const LEASE: Duration = Duration::from_secs(2);
/// How long a client may be waited for.
const NBD_PATIENCE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
/// Shortest time between two verifies that begin by themselves.
const VERIFY_EVERY_MIN: Duration = Duration::from_secs(60);
/// How long a program that is told of a role may run.
const HOOK_TIMEOUT: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(600);
/// Paths to one node.
const ADDRESSES_MAX: usize = 8;
/// Name of the API socket in `data_dir`.
pub(crate) const API_SOCKET: &str = "pollux.sock";

/// Everything the text says and everything wrong with it.
pub(super) fn read(source: &str) -> (Config, Vec<Diagnostic>) {
    let (root, errors) = DeTable::parse_recoverable(source);
    let mut out = Findings::new();
    let config = cluster_file(
        Section::new(root.get_ref(), 0..0, "the file".into()),
        &mut out,
    );
    if errors.is_empty() {
        check::check(&config, &mut out);
    } else {
        // What a broken line leaves behind says little about the rest.
        out = errors.iter().map(syntax_error).collect();
        out.dedup_by_key(|found| found.position(source).0);
    }
    out.sort_by_key(|found| found.span.start);
    (config, out)
}

fn syntax_error(error: &toml::de::Error) -> Diagnostic {
    let (text, expected) = error
        .message()
        .split_once('\n')
        .unwrap_or((error.message(), ""));
    let expected = if expected == "expected nothing" {
        ""
    } else {
        expected
    };
    Diagnostic::error("E001", error.span().unwrap_or(0..0), text).label(expected)
}

fn cluster_file(mut root: Section<'_>, out: &mut Findings) -> Config {
    let shared = root.section("cluster", out);
    if shared.is_none() && root.value("cluster").is_none() {
        let found = Diagnostic::error("E004", 0..0, "the table [cluster] is missing");
        out.push(found.label("as in [cluster] name = \"prod\""));
    }
    let cluster = cluster(shared, out);
    let etcd = root.section("etcd", out);
    let etcd = etcd.map(|table| etcd::etcd(table, out));
    let nodes = root.named("node", out);
    if nodes.is_empty() {
        let found = Diagnostic::error("E004", 0..0, "the file names no node");
        out.push(found.label("at least one [node.NAME] must stand in it"));
    }
    let mut nodes: Vec<Node> = nodes
        .into_iter()
        .map(|(name, table)| node(name, table, out))
        .collect();
    let links = root.section("tls", out);
    let links = links.map(|table| tls::link_table(table, out));
    tls::share_links(links.as_ref(), &mut nodes, out);
    let only = match &nodes[..] {
        [only] => Some(only.name.clone()),
        _ => None,
    };
    let volumes = root.named("volume", out).into_iter();
    let volumes = volumes
        .map(|(name, table)| volume(name, table, only.as_ref(), out))
        .collect();
    root.finish(&["site", "include"], out);
    Config {
        cluster,
        etcd,
        nodes,
        volumes,
    }
}

fn cluster(section: Option<Section<'_>>, out: &mut Findings) -> Cluster {
    let [keepalive, peer_timeout, member_timeout] = [500, 3_000, 5_000].map(Duration::from_millis);
    let Some(mut section) = section else {
        let at = |time| At::new(time, 0..0);
        return Cluster {
            name: String::new(),
            quorum: None,
            control: None,
            lease: at(LEASE),
            keepalive: at(keepalive),
            peer_timeout: at(peer_timeout),
            member_timeout: at(member_timeout),
        };
    };
    let name = section.needed("name", out);
    if let Some(name) = &name {
        check_name("cluster", name, out);
    }
    let words = [("off", Quorum::Off), ("majority", Quorum::Majority)];
    let quorum = section.word("quorum", &words, &[], out).or_else(|| {
        section
            .value("quorum")
            .map(|value| At::new(Quorum::Unusable, value.span()))
    });
    let words = [("voters", Control::Voters), ("etcd", Control::Etcd)];
    let control = section.word("control", &words, &[], out);
    let cluster = Cluster {
        name: name.map(|name| name.value.to_owned()).unwrap_or_default(),
        quorum,
        control,
        lease: section.duration("lease", LEASE, out),
        keepalive: section.duration("keepalive", keepalive, out),
        peer_timeout: section.duration("peer_timeout", peer_timeout, out),
        member_timeout: section.duration("member_timeout", member_timeout, out),
    };
    section.finish(&[], out);
    cluster
}

fn node(name: At<String>, mut section: Section<'_>, out: &mut Findings) -> Node {
    check_name("node", &At::new(name.as_str(), name.span.clone()), out);
    let data_dir = data_dir(&mut section, out);
    let nbd_socket = section.text("nbd_socket", out).map(|text| {
        let path = data_dir.join(text.value);
        check_socket_path("nbd_socket", &path, text.span.clone(), out);
        At::new(path, text.span)
    });
    let nbd_tls = section.section("nbd_tls", out);
    let nbd_tls = nbd_tls.map(|table| tls::nbd_tls(&name, &data_dir, table, out));
    let link_tls = section.section("tls", out).map(|mut table| {
        table.title = format!("[node.{}.tls]", name.value);
        tls::link_table(table, out)
    });
    let words = [Listener::Nbd, Listener::Replication, Listener::Api].map(|l| (l.word(), l));
    let insecure = section
        .texts("insecure", out)
        .map(|texts| texts.value)
        .unwrap_or_default();
    let mut addresses = endpoints(&mut section, "address", out).into_iter();
    let node = Node {
        name,
        is_diskless: section.flag("diskless", out).unwrap_or(false),
        data_dir,
        address: addresses.next(),
        more_addresses: addresses.collect(),
        nbd: endpoint(&mut section, "nbd", out),
        nbd_socket,
        nbd_tls,
        link_tls,
        fingerprint: tls::fingerprint(&mut section, out),
        api: endpoint(&mut section, "api", out),
        reactors: section
            .count("reactors", 1..=1024, out)
            .map(|count| count.value as usize),
        insecure: insecure
            .iter()
            .filter_map(|text| listener(text, &words, out))
            .collect(),
        nbd_limits: nbd_limits(&mut section, out),
    };
    section.finish(&["iscsi"], out);
    node
}

fn nbd_limits(section: &mut Section<'_>, out: &mut Findings) -> nbd_server::Limits {
    let usual = nbd_server::Limits::default();
    let mut patience = |key, default| {
        let time = section.duration(key, default, out);
        if !NBD_PATIENCE.contains(&time.value) {
            let says = format!("`{key}` of {} is out of range", section.title);
            let label = "must be from 1s to 1h";
            out.push(Diagnostic::error("E005", time.span, says).label(label));
        }
        time.value
    };
    nbd_server::Limits {
        handshake_max: patience("nbd_handshake_timeout", usual.handshake_max),
        stalled_max: patience("nbd_stall_timeout", usual.stalled_max),
        ..usual
    }
}

fn data_dir(section: &mut Section<'_>, out: &mut Findings) -> At<PathBuf> {
    let text = section
        .text("data_dir", out)
        .unwrap_or(At::new(DATA_DIR, section.span.clone()));
    let path = PathBuf::from(text.value);
    if !path.is_absolute() {
        let says = format!("`data_dir` of {} must be an absolute path", section.title);
        out.push(Diagnostic::error("E005", text.span.clone(), says).label("begins without /"));
    } else {
        check_socket_path(API_SOCKET, &path.join(API_SOCKET), text.span.clone(), out);
    }
    At::new(path, text.span)
}

fn check_socket_path(
    what: &str,
    path: &std::path::Path,
    span: std::ops::Range<usize>,
    out: &mut Findings,
) {
    let bytes = path.as_os_str().len();
    if bytes > SOCKET_PATH_BYTES_MAX {
        let says = format!(
            "the path of the socket `{what}` is too long: {}",
            path.display()
        );
        let label = format!("makes {bytes} bytes; Unix sockets take {SOCKET_PATH_BYTES_MAX}");
        out.push(Diagnostic::error("E005", span, says).label(label));
    }
}

fn endpoint(
    section: &mut Section<'_>,
    key: &'static str,
    out: &mut Findings,
) -> Option<At<Endpoint>> {
    let text = section.text(key, out)?;
    parse_endpoint(&section.title, key, text, out)
}

fn parse_endpoint(
    title: &str,
    key: &str,
    text: At<&str>,
    out: &mut Findings,
) -> Option<At<Endpoint>> {
    match Endpoint::parse(text.value) {
        Ok(endpoint) => Some(At::new(endpoint, text.span)),
        Err(wrong) => {
            let says = format!("`{key}` of {title} must be host:port");
            out.push(Diagnostic::error("E005", text.span, says).label(wrong));
            None
        }
    }
}

/// One address, or an array of several.
fn endpoints(
    section: &mut Section<'_>,
    key: &'static str,
    out: &mut Findings,
) -> Vec<At<Endpoint>> {
    let value = section.value(key);
    if value.is_none_or(|value| value.get_ref().as_array().is_none()) {
        return endpoint(section, key, out).into_iter().collect();
    }
    let Some(texts) = section.texts(key, out) else {
        return Vec::new();
    };
    if !(1..=ADDRESSES_MAX).contains(&texts.len()) {
        let says = format!(
            "`{key}` of {} names {} addresses",
            section.title,
            texts.len()
        );
        let label = format!("from 1 to {ADDRESSES_MAX}, one for each path");
        out.push(Diagnostic::error("E005", texts.span.clone(), says).label(label));
    }
    let title = section.title.clone();
    let texts = texts.value.into_iter().take(ADDRESSES_MAX);
    texts
        .filter_map(|text| parse_endpoint(&title, key, text, out))
        .collect()
}

fn listener(
    text: &At<&str>,
    words: &[(&'static str, Listener)],
    out: &mut Findings,
) -> Option<Listener> {
    let found = words.iter().find(|(word, _)| *word == text.value);
    if found.is_none() {
        let known = words.iter().map(|(word, _)| *word);
        let label = match super::nearest(text.value, known.clone()) {
            Some(word) => format!("did you mean \"{word}\"?"),
            None => format!("must be {}", super::section::list(known)),
        };
        let says = format!("`insecure` names no listener \"{}\"", text.value);
        out.push(Diagnostic::error("E005", text.span.clone(), says).label(label));
    }
    found.map(|(_, listener)| *listener)
}

fn volume(
    name: At<String>,
    mut section: Section<'_>,
    only_node: Option<&At<String>>,
    out: &mut Findings,
) -> Volume {
    check_name("volume", &At::new(name.as_str(), name.span.clone()), out);
    let at = section.span.clone();
    let replicas = match (section.texts("replicas", out), only_node) {
        (Some(texts), _) => owned(texts),
        (None, Some(only)) if section.value("replicas").is_none() => {
            At::new(vec![At::new(only.value.clone(), at.clone())], at.clone())
        }
        (None, _) => {
            if section.value("replicas").is_none() {
                section.missing("replicas", out);
            }
            At::new(Vec::new(), 0..0)
        }
    };
    let weaker = "an acknowledged write could be lost with one node (law R9); use \"written\" or \
                  \"durable\"";
    let refused = [("received", weaker), ("local", weaker)];
    let policy = section.word("write_policy", WritePolicy::WORDS, &refused, out);
    let allocation = section.word("allocation", Allocation::WORDS, &[], out);
    let cache = section.word("cache", Cache::WORDS, &[], out);
    let completion = section.word("completion", Completion::WORDS, &[], out);
    let polling = section.word("polling", Polling::WORDS, &[], out);
    let reads = section.word("reads", Reads::WORDS, &[], out);
    let on_loss = section.word("on_quorum_loss", QuorumLoss::WORDS, &[], out);
    let younger = "it would throw acknowledged writes away; use \"manual\"";
    let refused = [
        "discard-younger",
        "discard-older",
        "discard-least",
        "discard-local",
    ];
    let refused = refused.map(|word| (word, younger));
    let splitbrain = section.word("splitbrain", SplitBrain::WORDS, &refused, out);
    let checksums = section.word("checksums", Checksums::WORDS, &[], out);
    let exports = section.array("nbd", out);
    let volume = Volume {
        size_bytes: size(&mut section, out),
        backings: backings(&mut section, out),
        replicas,
        witnesses: section.texts("witnesses", out).map(owned),
        auto_promote: section.flag("auto_promote", out).unwrap_or(true),
        on_quorum_loss: on_loss.map_or(QuorumLoss::Freeze, |word| word.value),
        hooks: hooks(&mut section, out),
        write_policy: policy.map_or(WritePolicy::Written, |policy| policy.value),
        allocation: allocation.map_or(Allocation::Thin, |allocation| allocation.value),
        cache: cache.map_or(Cache::Direct, |cache| cache.value),
        completion: completion.map_or(Completion::Interrupt, |word| word.value),
        polling: polling.map_or(Polling::Balanced, |polling| polling.value),
        reads: reads.map_or(Reads::Local, |reads| reads.value),
        splitbrain: splitbrain.map_or(SplitBrain::Manual, |word| word.value),
        checksums: checksums.map_or(Checksums::Off, |checksums| checksums.value),
        min_copies: section
            .count("min_copies", 1..=32, out)
            .unwrap_or(At::new(1, 0..0)),
        resync_rate: resync_rate(&mut section, out),
        verify_every: verify_every(&mut section, out),
        nbd: exports
            .into_iter()
            .map(|table| nbd_export(&name, table, out))
            .collect(),
        name,
    };
    section.finish(&["iscsi", "dr"], out);
    volume
}

fn owned(texts: At<Vec<At<&str>>>) -> At<Vec<At<String>>> {
    let own = |text: At<&str>| At::new(text.value.to_owned(), text.span);
    At::new(texts.value.into_iter().map(own).collect(), texts.span)
}

/// `None` is no limit: the key is missing, or says `max`.
fn resync_rate(section: &mut Section<'_>, out: &mut Findings) -> Option<u64> {
    let text = section.text("resync_rate", out)?;
    match units::rate(text.value) {
        Ok(Some(0)) => {
            let says = format!(
                "`resync_rate` of {} is 0: a resync would never end",
                section.title
            );
            let found = Diagnostic::error("E005", text.span, says);
            out.push(found.label("`pollux resync pause` stops one for a while"));
            None
        }
        Ok(rate) => rate,
        Err(wrong) => {
            out.push(section.wrong_unit("resync_rate", &text, &wrong));
            None
        }
    }
}

fn verify_every(section: &mut Section<'_>, out: &mut Findings) -> Option<Duration> {
    section.value("verify_every")?;
    let every = section.duration("verify_every", VERIFY_EVERY_MIN, out);
    if every.value < VERIFY_EVERY_MIN {
        let says = format!("`verify_every` of {} is out of range", section.title);
        let found = Diagnostic::error("E005", every.span, says);
        out.push(found.label("must be at least 1m; 7d reads each copy once a week"));
    }
    Some(every.value)
}

fn hooks(section: &mut Section<'_>, out: &mut Findings) -> Hooks {
    let usual = Hooks::default();
    let timeout = section.duration("hook_timeout", usual.timeout, out);
    if !HOOK_TIMEOUT.contains(&timeout.value) {
        let says = format!("`hook_timeout` of {} is out of range", section.title);
        let found = Diagnostic::error("E005", timeout.span, says);
        out.push(found.label("must be from 100ms to 10m"));
    }
    Hooks {
        on_promote: program(section, "on_promote", out),
        on_demote: program(section, "on_demote", out),
        timeout: timeout.value,
    }
}

fn program(section: &mut Section<'_>, key: &'static str, out: &mut Findings) -> Vec<String> {
    let Some(argv) = section.texts(key, out) else {
        return Vec::new();
    };
    let is_path = argv.first().is_some_and(|word| word.starts_with('/'));
    if !is_path || argv.iter().any(|word| word.contains('\0')) {
        let says = format!("`{key}` of {} names no program", section.title);
        let found = Diagnostic::error("E005", argv.span.clone(), says);
        out.push(found.label("as in [\"/usr/local/bin/virtual-ip\", \"10.0.0.9/24\"]"));
    }
    argv.value
        .into_iter()
        .map(|word| word.value.to_owned())
        .collect()
}

fn size(section: &mut Section<'_>, out: &mut Findings) -> At<u64> {
    let Some(size) = section.size("size", out) else {
        return At::new(4096, 0..0);
    };
    if size.value == 0 || size.value % 4096 != 0 {
        let says = format!(
            "`size` of {} must be a multiple of 4096 bytes",
            section.title
        );
        let found = Diagnostic::error("E005", size.span.clone(), says);
        out.push(found.label(format!("this is {} bytes", size.value)));
    }
    size
}

/// One backing for all nodes, or `{ NODE = …, NODE = … }`.
fn backings(section: &mut Section<'_>, out: &mut Findings) -> Vec<Placed> {
    let value = section.value("backing");
    let Some(table) = value.and_then(|value| value.get_ref().as_table()) else {
        let text = section.needed("backing", out);
        let backing = text.map(|text| backing(&section.title, &text, out));
        let placed = |backing| Placed {
            node: None,
            backing,
        };
        return backing.map(placed).into_iter().collect();
    };
    let names: Vec<At<String>> = table
        .iter()
        .map(|(name, _)| At::new(name.get_ref().to_string(), name.span()))
        .collect();
    let title = format!("`backing` of {}", section.title);
    let span = value.map_or(0..0, |value| value.span());
    let mut inner = Section::new(table, span, title);
    let mut placed: Vec<Placed> = names
        .into_iter()
        .filter_map(|node| {
            let text = inner.text_of(&node, out)?;
            Some(Placed {
                backing: backing(&section.title, &text, out),
                node: Some(node),
            })
        })
        .collect();
    placed.sort_by_key(|placed| placed.backing.span.start);
    placed
}

fn backing(title: &str, text: &At<&str>, out: &mut Findings) -> At<Backing> {
    if text.value.is_empty() || text.value.contains('\0') || text.value.ends_with('/') {
        let says = format!("`backing` of {title} must be a file or block device");
        let label = "a path, or \"memory\"";
        out.push(Diagnostic::error("E005", text.span.clone(), says).label(label));
    }
    let backing = match text.value {
        "memory" => Backing::Memory,
        path => Backing::Path(PathBuf::from(path)),
    };
    At::new(backing, text.span.clone())
}

fn nbd_export(volume: &At<String>, mut section: Section<'_>, out: &mut Findings) -> NbdExport {
    let name = match section.text("name", out) {
        Some(name) => At::new(name.value.to_owned(), name.span),
        None => At::new(volume.value.clone(), section.span.clone()),
    };
    let fits = (1..=EXPORT_NAME_BYTES_MAX).contains(&name.len());
    if !fits || name.chars().any(char::is_control) {
        let says = format!("`name` of {} is no export name", section.title);
        let label = format!("1 to {EXPORT_NAME_BYTES_MAX} bytes without control characters");
        out.push(Diagnostic::error("E006", name.span.clone(), says).label(label));
    }
    let description = section.text("description", out);
    if let Some(text) = description
        .as_ref()
        .filter(|text| text.len() > EXPORT_NAME_BYTES_MAX)
    {
        let says = format!("`description` of {} is too long", section.title);
        let label = format!("at most {EXPORT_NAME_BYTES_MAX} bytes");
        out.push(Diagnostic::error("E005", text.span.clone(), says).label(label));
    }
    let allow = section
        .texts("allow", out)
        .map(|texts| texts.value)
        .unwrap_or_default();
    let attach = section.word("attach", Attach::WORDS, &[], out);
    let needs_tls = [("require", true), ("optional", false)];
    let needs_tls = section.word("tls", &needs_tls, &[], out);
    let export = NbdExport {
        name,
        allow_subjects: tls::subjects(&mut section, out),
        needs_tls: needs_tls.unwrap_or(At::new(false, 0..0)),
        attach: attach.map_or(Attach::Shared, |attach| attach.value),
        is_default: is_default(&mut section, out),
        read_only: section.flag("read_only", out).unwrap_or(false),
        description: description
            .map(|text| text.value.to_owned())
            .unwrap_or_default(),
        allow: allow.iter().filter_map(|text| network(text, out)).collect(),
    };
    section.finish(&[], out);
    export
}

fn is_default(section: &mut Section<'_>, out: &mut Findings) -> At<bool> {
    let span = section.value("default").map(|value| value.span());
    let value = section.flag("default", out).unwrap_or(false);
    At::new(value, span.unwrap_or(0..0))
}

fn network(text: &At<&str>, out: &mut Findings) -> Option<String> {
    match parse_network(text.value) {
        Ok(network) => Some(network),
        Err((wrong, meant)) => {
            let says = format!("`allow` cannot hold \"{}\": {wrong}", text.value);
            let label = match meant {
                Some(meant) => format!("did you mean {meant}?"),
                None => "as in \"10.0.0.0/24\"".to_owned(),
            };
            out.push(Diagnostic::error("E005", text.span.clone(), says).label(label));
            None
        }
    }
}

fn check_name(what: &str, name: &At<&str>, out: &mut Findings) {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    let label = match name.value {
        "" => "is empty",
        name if name.len() > NAME_BYTES_MAX => "longer than 64 bytes",
        name if !name.bytes().all(legal) => "only A-Z a-z 0-9 . _ - may stand in it",
        name if name.starts_with(['.', '-']) => "must begin with a letter, a digit or _",
        _ => return,
    };
    let says = format!("\"{}\" cannot be the name of a {what}", name.value);
    out.push(Diagnostic::error("E006", name.span.clone(), says).label(label));
}
