//! Who chooses the node that serves: what the file says of it, and what that means.

use std::time::Duration;

use engine::control::{REPLICAS_MAX, WITNESSES_MAX};

use super::check::no_such_node;
use super::section::Findings;
use super::{At, Config, Diagnostic, Quorum, Volume};

/// Most replicas without votes: two nodes that an operator keeps apart.
const REPLICAS_OFF_MAX: usize = 2;
/// Shorter leases end while a busy machine hesitates, longer ones keep clients waiting.
const LEASE: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(500)..=Duration::from_secs(60);

/// Adds what is wrong or risky in the choice of who serves.
pub(super) fn check(config: &Config, out: &mut Findings) {
    lease(config, out);
    let mirrored = || config.volumes.iter().filter(|v| v.replicas.len() > 1);
    if let (Some(off), true) = (&config.cluster.quorum, mirrored().next().is_some())
        && off.value == Quorum::Off
    {
        out.push(is_off(off));
    }
    for volume in mirrored() {
        match config.quorum_of(volume) {
            Some(Quorum::Majority) => majority(config, volume, out),
            Some(Quorum::Etcd) => by_etcd(volume, out),
            Some(Quorum::Off) => off(volume, out),
            Some(Quorum::Unusable) => {}
            None => out.push(is_missing(volume)),
        }
    }
}

fn lease(config: &Config, out: &mut Findings) {
    let lease = &config.cluster.lease;
    if !LEASE.contains(&lease.value) {
        let says = "`lease` of [cluster] is out of range";
        let found = Diagnostic::error("E005", lease.span.clone(), says);
        out.push(found.label("must be from 500ms to 1m"));
    }
}

fn is_off(off: &At<Quorum>) -> Diagnostic {
    let says = "quorum is off: nothing stops a second primary when the nodes lose each other";
    let hint = "promote a node only when the other is known to be down; if both took writes they \
                stop as split brain, and one side's writes are given up";
    Diagnostic::warning("W001", off.span.clone(), says)
        .label("the operator decides who is primary")
        .hint(hint)
}

fn is_missing(volume: &Volume) -> Diagnostic {
    let count = volume.replicas.len();
    let says = "`quorum` is missing in [cluster], and a volume has more than one replica";
    let hint = "add a witness, any third machine: [node.NAME] diskless = true; then a majority \
                decides by itself. Or set quorum = \"off\" in [cluster]: you decide who is primary";
    Diagnostic::error("E011", volume.replicas.span.clone(), says)
        .label(format!("{count} replicas, and nobody else who votes"))
        .hint(hint)
}

fn off(volume: &Volume, out: &mut Findings) {
    if volume.replicas.len() > REPLICAS_OFF_MAX {
        let says = format!(
            "volume {} has {} replicas, and quorum is off",
            *volume.name,
            volume.replicas.len()
        );
        let found = Diagnostic::error("E013", volume.replicas.span.clone(), says);
        let hint = "set quorum = \"majority\" in [cluster]";
        out.push(found.label("at most two without votes").hint(hint));
    }
    if let Some(named) = volume.witnesses.as_ref().filter(|named| !named.is_empty()) {
        let says = format!("volume {} has witnesses, and quorum is off", *volume.name);
        let found = Diagnostic::error("E013", named.span.clone(), says);
        let hint = "set quorum = \"majority\" in [cluster]";
        out.push(found.label("nobody asks them").hint(hint));
    }
}

/// Replicas are all a volume has; the one vote is etcd's.
fn by_etcd(volume: &Volume, out: &mut Findings) {
    let replicas = volume.replicas.len();
    if replicas > REPLICAS_MAX {
        let says = format!("volume {} has {replicas} replicas", *volume.name);
        let found = Diagnostic::error("E005", volume.replicas.span.clone(), says);
        out.push(found.label(format!("at most {REPLICAS_MAX}")));
    }
    if let Some(named) = volume.witnesses.as_ref().filter(|named| !named.is_empty()) {
        let says = format!(
            "volume {} has witnesses, and etcd chooses its records",
            *volume.name
        );
        let found = Diagnostic::error("E013", named.span.clone(), says);
        out.push(found.label("nobody asks them").hint("remove it"));
    }
}

fn majority(config: &Config, volume: &Volume, out: &mut Findings) {
    let (replicas, witnesses) = (volume.replicas.len(), config.witnesses(volume).len());
    if replicas > REPLICAS_MAX {
        let says = format!("volume {} has {replicas} replicas", *volume.name);
        let found = Diagnostic::error("E005", volume.replicas.span.clone(), says);
        out.push(found.label(format!("at most {REPLICAS_MAX}")));
    }
    let named = volume.witnesses.as_ref();
    if witnesses > WITNESSES_MAX {
        let says = format!("volume {} has {witnesses} witnesses", *volume.name);
        let span = named.map_or(volume.name.span.clone(), |named| named.span.clone());
        let found = Diagnostic::error("E005", span, says);
        let hint = "name one or two: witnesses = [\"NODE\"]";
        out.push(found.label(format!("at most {WITNESSES_MAX}")).hint(hint));
    }
    let defaults = config
        .nodes
        .iter()
        .filter(|node| node.is_diskless && named.is_none());
    for node in defaults.filter(|node| node.address.is_none()) {
        let says = format!("diskless node {} has no `address`", *node.name);
        let found = Diagnostic::error("E004", node.name.span.clone(), says);
        let hint = format!("set address = \"host:8790\" in [node.{}]", *node.name);
        out.push(
            found
                .label("it votes, and the others cannot reach it")
                .hint(hint),
        );
    }
    for (index, name) in named.into_iter().flat_map(|named| named.iter()).enumerate() {
        witness(config, volume, (index, name), out);
    }
    if replicas + witnesses == 2 {
        let quorum = config.cluster.quorum.as_ref();
        let span = quorum.map_or(volume.replicas.span.clone(), |quorum| quorum.span.clone());
        let says = format!(
            "volume {} has two voters: when either is lost, I/O stops on both",
            *volume.name
        );
        let hint = "a majority of two is two. Add a witness, any third machine: [node.NAME] \
                    diskless = true; or set quorum = \"off\" and decide by hand";
        let found = Diagnostic::warning("W012", span, says);
        out.push(found.label("needs a third voter").hint(hint));
    }
}

fn witness(
    config: &Config,
    volume: &Volume,
    (index, name): (usize, &At<String>),
    out: &mut Findings,
) {
    let named = volume.witnesses.iter().flat_map(|named| named.iter());
    let is_again = named.take(index).any(|earlier| earlier.value == name.value);
    let node = config
        .nodes
        .iter()
        .find(|node| node.name.value == name.value);
    let (code, says, label) = match node {
        None => return out.push(no_such_node(config, volume, ("witness", name))),
        Some(_) if is_again => (
            "E009",
            format!("volume {} names witness {} twice", *volume.name, **name),
            "a node has one vote",
        ),
        Some(_) if volume.is_on(name) => (
            "E013",
            format!("{} has a replica of volume {}", **name, *volume.name),
            "it votes already",
        ),
        Some(node) if node.address.is_none() => (
            "E004",
            format!(
                "witness {} of volume {} has no `address`",
                **name, *volume.name
            ),
            "the others cannot reach it",
        ),
        Some(_) => return,
    };
    out.push(Diagnostic::error(code, name.span.clone(), says).label(label));
}
