//! One log line per change of a volume: its state, role, copies and links.
//!
//! The status is compared with the one before at a steady pace; what comes and goes in between is
//! not seen here.

use std::sync::Arc;
use std::time::Duration;

use engine::control::{Node, ReplicaStatus, VolumeStatus};
use tokio::time::{MissedTickBehavior, interval};

use crate::api::body::{DiskState, LinkState, Role, State};
use crate::api::volume_status;

const PERIOD: Duration = Duration::from_millis(250);

/// Logs changes until the engine is gone.
pub(super) async fn log_changes(node: Arc<dyn Node>) {
    let mut before: Vec<VolumeStatus> = Vec::new();
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(now) = volume_status(&*node, None).await else {
            return;
        };
        for change in changes(&before, &now) {
            change.log();
        }
        before = now;
    }
}

/// A change worth a line.
#[derive(Debug, PartialEq, Eq)]
struct Change {
    code: String,
    volume: String,
    text: String,
    is_bad: bool,
}

impl Change {
    fn log(&self) {
        let Change {
            code,
            volume,
            text,
            is_bad,
        } = self;
        match is_bad {
            true => tracing::warn!(code, volume, "{text}"),
            false => tracing::info!(code, volume, "{text}"),
        }
    }
}

/// What differs; a volume not seen before counts as changed in everything but its links.
fn changes(before: &[VolumeStatus], now: &[VolumeStatus]) -> Vec<Change> {
    let mut found = Vec::new();
    for volume in now {
        let old = before.iter().find(|old| old.name == volume.name);
        found.extend(state_change(old, volume));
        if old.is_none_or(|old| old.role != volume.role) {
            let text = format!("role is {}", Role::from(volume.role).word());
            found.push(change("I102", volume, text));
        }
        for replica in &volume.replicas {
            let old = old.and_then(|old| old.replicas.iter().find(|o| o.node == replica.node));
            found.extend(replica_changes(volume, old, replica));
        }
    }
    found
}

fn state_change(old: Option<&VolumeStatus>, volume: &VolumeStatus) -> Option<Change> {
    if old.is_some_and(|old| old.state == volume.state && old.reason == volume.reason) {
        return None;
    }
    let state = State::from(volume.state);
    let mut text = format!("state is {}", state.word());
    if let Some(was) = old
        .map(|old| State::from(old.state))
        .filter(|was| *was != state)
    {
        text.push_str(&format!(", was {}", was.word()));
    }
    let mut found = change("I101", volume, text);
    if let Some(reason) = &volume.reason {
        found
            .text
            .push_str(&format!(": {}", reason.text.replace('\n', " ")));
        found.code = reason.code.to_owned();
    }
    found.is_bad = state != State::Healthy;
    Some(found)
}

fn replica_changes(
    volume: &VolumeStatus,
    old: Option<&ReplicaStatus>,
    replica: &ReplicaStatus,
) -> Vec<Change> {
    let mut found = Vec::new();
    let node = &replica.node;
    if old.is_none_or(|old| old.disk_state != replica.disk_state) {
        let word = DiskState::from(replica.disk_state).word();
        found.push(change("I103", volume, format!("copy on {node} is {word}")));
    }
    if old.is_some_and(|old| old.link_state != replica.link_state) {
        let word = LinkState::from(replica.link_state).word();
        found.push(change("I104", volume, format!("link to {node} is {word}")));
    }
    found
}

fn change(code: &str, volume: &VolumeStatus, text: String) -> Change {
    Change {
        code: code.to_owned(),
        volume: volume.name.clone(),
        text,
        is_bad: false,
    }
}

#[cfg(test)]
mod tests {
    use engine::control;

    use super::*;

    fn volume(state: control::State, link: control::LinkState) -> VolumeStatus {
        VolumeStatus {
            name: "vm-store".into(),
            size_bytes: 4096,
            role: control::Role::Primary,
            state,
            reason: None,
            generation: None,
            replicas: vec![ReplicaStatus {
                node: "beta".into(),
                disk_state: control::DiskState::UpToDate,
                link_state: link,
                out_of_sync_bytes: 0,
                resync: None,
            }],
            clients: Vec::new(),
            notes: Vec::new(),
            io: Default::default(),
        }
    }

    #[test]
    fn each_change_is_one_line_with_code_and_volume() {
        use control::{LinkState, State};
        let up = volume(State::Healthy, LinkState::Connected);
        let mut down = volume(State::Degraded, LinkState::Connecting);
        down.reason = Some(control::Reason {
            code: "W104",
            text: "beta lost its link".into(),
        });
        assert_eq!(
            changes(std::slice::from_ref(&up), std::slice::from_ref(&up)),
            []
        );
        let found = changes(&[up], &[down]);
        let shown: Vec<_> = found
            .iter()
            .map(|c| (&*c.code, &*c.volume, &*c.text))
            .collect();
        let state = "state is degraded, was healthy: beta lost its link";
        assert_eq!(
            shown,
            [
                ("W104", "vm-store", state),
                ("I104", "vm-store", "link to beta is connecting")
            ]
        );
    }
}
