//! At the start with `--takeover`: everything is asked for from the process that runs.

use std::time::{Duration, Instant};

use tracing::info;

use super::Takeover;
use super::lock::DataDirLock;
use crate::config::{Loaded, Node as NodeConfig};
use crate::explain::{self, Failure};
use crate::handover::{self, Answer, Given, Predecessor};

/// Time for a process that cannot be asked yet, or ends instead of giving.
const END_MAX: Duration = Duration::from_secs(15);
/// Pause between two questions.
const ASK_EVERY: Duration = Duration::from_millis(10);

/// Everything the process that runs has, and the lock on `data_dir`. A process that is about to
/// start or to end is waited for.
pub(super) fn take_over(
    loaded: &Loaded,
    node: &NodeConfig,
    how: Takeover,
) -> Result<(Given, Option<Predecessor>, DataDirLock), Failure> {
    let (cluster, name) = (&loaded.config.cluster.name, &node.name.value);
    let until = Instant::now() + END_MAX;
    loop {
        if let Answer::Given(mut given, predecessor) =
            handover::ask(&node.data_dir, cluster, name, how.force)?
        {
            let lock = given.daemon_lock.take();
            let lock = lock.ok_or_else(|| explain::takeover_failed("it gave no lock"))?;
            return Ok((*given, Some(predecessor), DataDirLock::adopt(lock)));
        }
        match DataDirLock::take(&node.data_dir) {
            Ok(lock) => {
                info!(code = "I125", "no process is there to be taken over");
                return Ok((Given::default(), None, lock));
            }
            Err(_) if Instant::now() < until => std::thread::sleep(ASK_EVERY),
            Err(failure) => return Err(failure),
        }
    }
}
