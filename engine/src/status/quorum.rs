//! Votes of a volume in the control plane's words.

use std::collections::BTreeSet;

use engine_core::quorum::Quorum;
use engine_core::register::REGISTER;
use engine_core::table::{NodeKind, Table};
use engine_core::units::{NodeIdx, NodeSet};
use engine_core::volume::{RoleStatus, Status, VotesStatus};

use super::name_of;
use crate::control::{QuorumLoss, QuorumStatus, Reason, State, VolumeSpec};
use crate::words::etcd_waits;

/// The register among the names of voters; no node has the name where it is one.
const ETCD: &str = "etcd";

/// What is known of votes here: the core's part, and who is connected at all.
pub(super) fn quorum(
    (spec, table): (&VolumeSpec, &Table),
    me: NodeIdx,
    connected: &BTreeSet<String>,
    (role, votes): (RoleStatus, &VotesStatus),
) -> QuorumStatus {
    let nodes = table.names();
    let index = |name: &String| table.index_of(name);
    let is_voter = |name: &&String| {
        let is_on_list = |node| votes.voters.is_empty() || votes.voters.has(node);
        index(name).is_some_and(is_on_list)
    };
    let mut voters: Vec<String> = nodes.iter().filter(is_voter).cloned().collect();
    let is_etcd = spec.votes.quorum == Quorum::Register;
    if is_etcd && votes.voters.is_empty() {
        voters.clear();
    }
    if is_etcd && (votes.voters.is_empty() || votes.voters.has(REGISTER)) {
        voters.push(ETCD.to_owned());
    }
    // Who reigns asks all of them all the time; others know only who is connected.
    let asks = role == RoleStatus::Primary;
    let is_near = |name: &&String| {
        if is_etcd && name.as_str() == ETCD {
            return votes.heard.has(REGISTER);
        }
        let is_heard = index(name).is_some_and(|node| votes.heard.has(node));
        index(name) == Some(me) || connected.contains(*name) && (is_heard || !asks)
    };
    let missing = voters.iter().filter(|name| !is_near(name));
    QuorumStatus {
        is_etcd,
        missing: missing.cloned().collect(),
        witnesses: table
            .live(NodeKind::Witness)
            .map(|(_, entry)| entry.name.clone())
            .collect(),
        is_held: votes.reigning.is_some(),
        primary: votes
            .reigning
            .and_then(|node| nodes.get(usize::from(node.0)).cloned()),
        voters,
    }
}

/// A majority is missing: nobody serves, or who serves is about to wait.
pub(super) fn lost(spec: &VolumeSpec, core: &Status, quorum: &QuorumStatus) -> Option<Reason> {
    let serves = core.role == RoleStatus::Primary;
    let holds = core.votes.is_some_and(|votes| votes.holds_lease);
    let is_founded = core.volume_id != 0;
    if !is_founded || quorum.is_met() && (holds || !serves) || quorum.is_held && !serves {
        return None;
    }
    let io = match spec.votes.on_quorum_loss {
        QuorumLoss::Freeze => "I/O waits",
        QuorumLoss::Fail => "I/O fails",
    };
    let (have, need, of) = (quorum.have(), quorum.need(), quorum.voters.len());
    if quorum.is_met() {
        let who = match quorum.is_etcd {
            true => "etcd",
            false => "a majority",
        };
        let text = format!("its lease ran out; {io} until {who} grants it again");
        return Some(Reason { code: "W118", text });
    }
    if quorum.is_etcd && of == 1 {
        let fails = spec.votes.on_quorum_loss == QuorumLoss::Fail;
        let text = match serves {
            true => format!("etcd does not answer; {} until it does", etcd_waits(fails)),
            false => "etcd does not answer; it is served nowhere that this node knows of".into(),
        };
        return Some(Reason { code: "W120", text });
    }
    let mut text = format!("no quorum: {have} of {of} voters are there, {need} are needed");
    if !quorum.missing.is_empty() {
        text.push_str(&format!("; not heard: {}", quorum.missing.join(", ")));
    }
    text.push_str(&match serves {
        true => format!("; {io} until a majority is back"),
        false => "; it is served nowhere that this node knows of".to_owned(),
    });
    if of == 2 {
        text.push_str("; two voters need each other: a witness would help");
    }
    Some(Reason { code: "W118", text })
}

/// Of a node that votes and holds no copy.
pub(super) fn witness_health(
    spec: &VolumeSpec,
    me: NodeIdx,
    (core, table): (&Status, &Table),
) -> (State, Option<Reason>) {
    let say = |state, code, text: String| (state, Some(Reason { code, text }));
    let name = name_of(table, me);
    if core.has_meta_failed {
        let text = format!("the metadata of {name} cannot be written");
        return say(State::Critical, "E209", text);
    }
    let voters = core.votes.map_or(NodeSet::EMPTY, |votes| votes.voters);
    if core.volume_id == 0 {
        let text = format!(
            "it was never promoted; on a node with a replica: pollux promote {}",
            spec.name
        );
        return say(State::Degraded, "W105", text);
    }
    if !voters.has(me) {
        let text = format!("{name} has no vote yet: the primary admits it once both are connected");
        return say(State::Degraded, "W119", text);
    }
    (State::Healthy, None)
}
