//! Verifies that end are noted, and those that are due begin.
//!
//! A volume with `verify_every` is compared by its primary when the last time is that long ago, or
//! is not known. The primary notes it: after a failover the new one compares once by itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::control::{Done, Repair, Request, Role, State, VolumeStatus};
use jiff::Timestamp;
use tokio::time::{MissedTickBehavior, interval};

use crate::api::Shared;
use crate::config::units::show_bytes;

const PERIOD: Duration = Duration::from_secs(2);
/// A verify that was refused, or ended early, is tried again after this.
const RETRY: Duration = Duration::from_secs(600);

/// What is remembered of a volume.
#[derive(Default)]
struct Seen {
    completed: u64,
    begun_at: Option<Instant>,
}

/// Follows the volumes until the engine is gone.
pub(super) async fn follow(shared: Arc<Shared>, every: HashMap<String, Duration>) {
    let mut seen: HashMap<String, Seen> = HashMap::new();
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Ok(volumes) = shared.volumes(None).await else {
            return;
        };
        let mirrored =
            |volume: &&VolumeStatus| volume.role == Role::Primary && volume.replicas.len() > 1;
        for volume in volumes.iter().filter(mirrored) {
            let seen = seen.entry(volume.name.clone()).or_default();
            let is_running = note_ended(&shared, &volume.name, seen).await;
            let every = every.get(&volume.name).copied();
            if volume.state == State::Healthy && !is_running {
                begin_due(&shared, &volume.name, every, seen).await;
            }
        }
    }
}

/// Notes one that ended; answers whether one runs.
async fn note_ended(shared: &Shared, volume: &str, seen: &mut Seen) -> bool {
    let Ok(Done::Verify(report)) = shared.ask(volume, Request::VerifyStatus).await else {
        return false;
    };
    if report.completed != seen.completed && !report.running {
        seen.completed = report.completed;
        let (compared, different) = (report.compared_bytes, report.different_bytes);
        shared.verified.note(volume, compared, different);
        let text = format!(
            "verify: {} compared, {different} bytes differ",
            show_bytes(compared)
        );
        match different {
            0 => tracing::info!(code = "I172", volume, "{text}"),
            _ => tracing::warn!(code = "W140", volume, "{text}"),
        }
    }
    report.running
}

async fn begin_due(shared: &Shared, volume: &str, every: Option<Duration>, seen: &mut Seen) {
    let Some(every) = every else { return };
    let last = shared.verified.of(volume);
    let last = last.and_then(|last| last.ended_at.parse::<Timestamp>().ok());
    let waits = seen.begun_at.is_some_and(|at| at.elapsed() < RETRY);
    if waits || !is_due(last, Timestamp::now(), every) {
        return;
    }
    seen.begun_at = Some(Instant::now());
    let repair = Repair::No;
    if let Err(why) = shared.change(volume, Request::Verify { repair }).await {
        tracing::warn!(
            code = "W141",
            volume,
            "the scheduled verify did not begin: {}",
            why.text
        );
    }
}

/// A clock that was put back does not put it off for longer than it may be.
fn is_due(last: Option<Timestamp>, now: Timestamp, every: Duration) -> bool {
    last.is_none_or(|last| {
        let age = now.duration_since(last);
        age.is_negative() || age.unsigned_abs() >= every
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_due_when_never_done_when_long_ago_and_when_the_clock_was_put_back() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let week = Duration::from_secs(7 * 86_400);
        let at = |text: &str| Some(text.parse::<Timestamp>().unwrap());
        assert!(is_due(None, now, week));
        assert!(is_due(at("2026-11-14T12:00:00Z"), now, week));
        assert!(!is_due(at("2026-11-14T12:00:01Z"), now, week));
        assert!(is_due(at("2027-01-01T00:00:00Z"), now, week));
    }
}
