//! One log line per change of a volume's state or of its reason, and of a change only seen here.
//!
//! The engine logs what happens: roles, links, members, resyncs. What that means for a volume is
//! a word of its status, which is compared with the one before at a steady pace; what comes and
//! goes in between is not seen here.

use std::sync::Arc;
use std::time::Duration;

use engine::control::{Node, VolumeStatus};
use tokio::time::{MissedTickBehavior, interval};

use crate::api::body::State;
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
    code: &'static str,
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

/// What differs; a volume not seen before counts as changed.
fn changes(before: &[VolumeStatus], now: &[VolumeStatus]) -> Vec<Change> {
    let old = |volume: &VolumeStatus| before.iter().find(|old| old.name == volume.name);
    now.iter()
        .filter_map(|volume| state_change(old(volume), volume))
        .collect()
}

fn state_change(old: Option<&VolumeStatus>, volume: &VolumeStatus) -> Option<Change> {
    if old.is_some_and(|old| old.state == volume.state && old.reason == volume.reason) {
        return None;
    }
    let state = State::from(volume.state);
    let was = old
        .map(|old| State::from(old.state))
        .filter(|was| *was != state);
    let was = was
        .map(|was| format!(", was {}", was.word()))
        .unwrap_or_default();
    let (code, why) = match &volume.reason {
        Some(reason) => (reason.code, format!(": {}", reason.text.replace('\n', " "))),
        None => ("I124", String::new()),
    };
    Some(Change {
        code,
        volume: volume.name.clone(),
        text: format!("state is {}{was}{why}", state.word()),
        is_bad: state != State::Healthy,
    })
}

#[cfg(test)]
mod tests {
    use engine::control;

    use super::*;

    fn volume(state: control::State) -> VolumeStatus {
        VolumeStatus {
            name: "vm-store".into(),
            size_bytes: 4096,
            role: control::Role::Primary,
            state,
            reason: None,
            generation: None,
            replicas: Vec::new(),
            quorum: None,
            checksums: None,
            clients: Vec::new(),
            notes: Vec::new(),
            io: Default::default(),
        }
    }

    #[test]
    fn each_change_of_state_is_one_line_with_code_and_volume() {
        let up = volume(control::State::Healthy);
        let mut down = volume(control::State::Degraded);
        down.reason = Some(control::Reason {
            code: "W104",
            text: "beta lost its link".into(),
        });
        let said = |before: Option<&VolumeStatus>, now: &VolumeStatus| {
            let found = state_change(before, now).into_iter();
            found
                .into_iter()
                .map(|c| (c.code, c.volume, c.text))
                .collect::<Vec<_>>()
        };
        let line = |code, text: &str| vec![(code, "vm-store".to_owned(), text.to_owned())];
        assert_eq!(said(None, &up), line("I124", "state is healthy"));
        assert_eq!(said(Some(&up), &up), []);
        let text = "state is degraded, was healthy: beta lost its link";
        assert_eq!(said(Some(&up), &down), line("W104", text));
        assert_eq!(
            said(Some(&down), &up),
            line("I124", "state is healthy, was degraded")
        );
    }
}
