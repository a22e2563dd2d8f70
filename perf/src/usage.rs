//! Who used the CPU between two moments: a server's process tree, this process, everybody else.
//!
//! ```text
//!  /proc/*/stat ──────────────┐ Sample ─┐
//!  /proc/PID/task/*/schedstat ┘         ├─► between ─► Usage
//!                               Sample ─┘
//! ```
//! `schedstat` counts nanoseconds but forgets threads that ended; `stat` counts ticks of 10 ms,
//! includes them, and children that were waited for. The nanoseconds are taken unless the ticks
//! show that they miss something. Threads of the kernel are nobody's: they work for all.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// What the ticks may be ahead of the nanoseconds by rounding, for each process.
const SLACK_TICKS: u64 = 3;

/// The kernel's thread that all kernel threads descend from.
const KTHREADD: u32 = 2;

/// Why CPU times cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// There is no `/proc`, or not one to be read.
    #[error("/proc cannot be read")]
    Proc(#[source] io::Error),
    /// The server is gone.
    #[error("there is no process {0}")]
    NoProcess(u32),
}

/// One process, as `/proc/PID/stat` tells.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Process {
    parent: u32,
    name: String,
    /// User and system time, its own and that of children it waited for, ticks.
    ticks: u64,
}

/// The accounts at one moment.
#[derive(Clone, Debug)]
pub struct Sample {
    at: Duration,
    processes: HashMap<u32, Process>,
    server: Option<u32>,
    /// Processes that belong to the measurement, and are neither server nor others.
    helpers: Vec<u32>,
    /// Nanoseconds of each thread of the server's tree.
    threads: HashMap<(u32, u32), u64>,
    /// Time the hypervisor gave to others, ticks of all CPUs.
    steal: u64,
}

/// Reads the CPU time of a server's tree, cheaply and often. Processes and threads that end take
/// their time with them: fit for pieces of a run, not for the whole.
#[derive(Clone, Debug)]
pub struct Meter(Vec<u32>);

impl Meter {
    /// CPU time of all threads so far.
    pub fn read(&self) -> Duration {
        let mut threads = HashMap::new();
        for pid in &self.0 {
            read_threads(*pid, &mut threads);
        }
        Duration::from_nanos(threads.into_values().sum())
    }
}

/// Who used how much between two samples.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Time between the samples.
    pub elapsed: Duration,
    /// The server's tree, if one was named.
    pub server: Option<Duration>,
    /// The trees of processes that belong to the measurement beside it, if there are some.
    pub helpers: Option<Duration>,
    /// All other processes but this one and the kernel's threads.
    pub others: Duration,
    /// The name of the busiest of them.
    pub busiest: Option<String>,
    /// Time the hypervisor gave to other machines.
    pub steal: Duration,
}

impl Usage {
    /// CPU time that neither server nor client used, in hundredths of one CPU.
    pub fn foreign_percent(&self) -> f64 {
        (self.others + self.steal).as_secs_f64() * 100.0 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

impl Sample {
    /// Reads the accounts; of the tree below `server` in detail. Takes about a millisecond.
    pub fn take(server: Option<u32>) -> Result<Sample, UsageError> {
        let mut processes = HashMap::new();
        for entry in fs::read_dir("/proc").map_err(UsageError::Proc)? {
            let name = entry.map_err(UsageError::Proc)?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            // A process may end between being listed and being read.
            let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
            if let Some(process) = stat.ok().as_deref().and_then(parse_stat) {
                processes.insert(pid, process);
            }
        }
        if let Some(pid) = server.filter(|pid| !processes.contains_key(pid)) {
            return Err(UsageError::NoProcess(pid));
        }
        let mut threads = HashMap::new();
        for pid in server.into_iter().flat_map(|root| tree(&processes, root)) {
            read_threads(pid, &mut threads);
        }
        let stat = fs::read_to_string("/proc/stat").map_err(UsageError::Proc)?;
        let steal = parse_steal(&stat);
        let at = Duration::from_nanos(engine_ring::sys::clock::boottime_ns());
        Ok(Sample {
            at,
            processes,
            server,
            helpers: Vec::new(),
            threads,
            steal,
        })
    }

    /// The same, and these processes and all below them are not counted among others.
    pub fn take_with(server: Option<u32>, helpers: &[u32]) -> Result<Sample, UsageError> {
        let helpers = helpers.to_vec();
        let sample = Sample::take(server)?;
        Ok(Sample { helpers, ..sample })
    }

    /// A meter of the server's tree as it is now; `None` if no server was named.
    pub fn meter(&self) -> Option<Meter> {
        let root = self.server?;
        Some(Meter(tree(&self.processes, root).into_iter().collect()))
    }

    /// What was used from `self` to `later`.
    pub fn until(&self, later: &Sample) -> Usage {
        let ours = later
            .server
            .map(|root| tree(&later.processes, root))
            .unwrap_or_default();
        let server = later.server.map(|_| self.server_time(later, &ours));
        let me = std::process::id();
        let trees = later.helpers.iter().map(|pid| tree(&later.processes, *pid));
        let helpers: HashSet<u32> = trees.flatten().collect();
        let is_other = |pid: u32, process: &Process| {
            let is_kernel = pid == KTHREADD || process.parent == KTHREADD;
            pid != me && !is_kernel && !ours.contains(&pid) && !helpers.contains(&pid)
        };
        let mut others = 0;
        let mut busiest: Option<(u64, &str)> = None;
        let vanished = self.vanished(later);
        for (pid, process) in later.processes.iter().filter(|(pid, p)| is_other(**pid, p)) {
            let before = self.processes.get(pid).map_or(0, |p| p.ticks);
            let before = before + vanished.get(pid).copied().unwrap_or(0);
            let ticks = process.ticks.saturating_sub(before);
            others += ticks;
            if ticks > busiest.map_or(0, |(most, _)| most) {
                busiest = Some((ticks, &process.name));
            }
        }
        let grown = |pid: &u32| {
            let before = self.processes.get(pid).map_or(0, |p| p.ticks);
            let now = later.processes.get(pid).map_or(0, |p| p.ticks);
            now.saturating_sub(before)
        };
        let of_helpers = || ticks_to_time(helpers.iter().map(grown).sum());
        Usage {
            elapsed: later.at.saturating_sub(self.at),
            server,
            helpers: (!later.helpers.is_empty()).then(of_helpers),
            others: ticks_to_time(others),
            busiest: busiest.map(|(_, name)| name.to_owned()),
            steal: ticks_to_time(later.steal.saturating_sub(self.steal)),
        }
    }

    /// Ticks of processes that ended since, by the nearest ancestor that did not: its account of
    /// waited-for children grew by all their time, not only by that between the samples.
    fn vanished(&self, later: &Sample) -> HashMap<u32, u64> {
        let mut vanished = HashMap::new();
        for process in self
            .processes
            .iter()
            .filter(|(pid, _)| !later.processes.contains_key(pid))
        {
            let mut heir = process.1.parent;
            while !later.processes.contains_key(&heir)
                && let Some(above) = self.processes.get(&heir)
            {
                heir = above.parent;
            }
            *vanished.entry(heir).or_default() += process.1.ticks;
        }
        vanished
    }

    fn server_time(&self, later: &Sample, tree_now: &HashSet<u32>) -> Duration {
        let tree_before = self
            .server
            .map(|root| tree(&self.processes, root))
            .unwrap_or_default();
        let ticks = |sample: &Sample, pids: &HashSet<u32>| -> u64 {
            pids.iter()
                .filter_map(|pid| sample.processes.get(pid))
                .map(|p| p.ticks)
                .sum()
        };
        let ticks = ticks(later, tree_now).saturating_sub(ticks(self, &tree_before));
        let grown = |(thread, now): (&(u32, u32), &u64)| {
            now.saturating_sub(self.threads.get(thread).copied().unwrap_or(0))
        };
        let exact = Duration::from_nanos(later.threads.iter().map(grown).sum());
        choose(exact, ticks, tree_now.len() as u64)
    }
}

/// The nanoseconds, or the ticks where these are so far ahead that threads must have ended.
fn choose(exact: Duration, ticks: u64, processes: u64) -> Duration {
    let slack = ticks_to_time(SLACK_TICKS * processes.max(1));
    let coarse = ticks_to_time(ticks);
    if coarse > exact + slack {
        coarse
    } else {
        exact
    }
}

fn ticks_to_time(ticks: u64) -> Duration {
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Duration::from_nanos(ticks.saturating_mul(1_000_000_000 / per_second))
}

/// `root` and everything that descends from it.
fn tree(processes: &HashMap<u32, Process>, root: u32) -> HashSet<u32> {
    let mut found = HashSet::from([root]);
    loop {
        let is_new = |(pid, process): &(&u32, &Process)| {
            found.contains(&process.parent) && !found.contains(*pid)
        };
        let more: Vec<u32> = processes
            .iter()
            .filter(is_new)
            .map(|(pid, _)| *pid)
            .collect();
        if more.is_empty() {
            return found;
        }
        found.extend(more);
    }
}

/// A process and everything that descends from it now. Errors: it is gone.
pub fn tree_of(root: u32) -> Result<Vec<u32>, UsageError> {
    let sample = Sample::take(Some(root))?;
    Ok(tree(&sample.processes, root).into_iter().collect())
}

/// There is no such process any more, or only its status is left to be collected.
pub fn has_ended(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rfind(')')
        .and_then(|end| stat.get(end + 1..)?.trim_start().chars().next());
    matches!(state, None | Some('Z' | 'X'))
}

/// `/proc/PID/stat`: the name stands in parentheses and may contain anything.
fn parse_stat(stat: &str) -> Option<Process> {
    let (begin, end) = (stat.find('(')?, stat.rfind(')')?);
    let name = stat.get(begin + 1..end)?.to_owned();
    // From field 3 on: state, ppid; utime, stime, cutime, cstime are fields 14 to 17.
    let fields: Vec<&str> = stat.get(end + 1..)?.split_ascii_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let parent = u32::try_from(number(4)?).ok()?;
    let ticks = (14..=17).map(number).sum::<Option<u64>>()?;
    Some(Process {
        parent,
        name,
        ticks,
    })
}

/// The `steal` column of all CPUs; 0 where the kernel tells none.
fn parse_steal(stat: &str) -> u64 {
    let line = stat.lines().find(|line| line.starts_with("cpu "));
    let steal = line.and_then(|line| line.split_ascii_whitespace().nth(8));
    steal.and_then(|steal| steal.parse().ok()).unwrap_or(0)
}

/// Adds the run time of each thread of `pid`; none where the kernel keeps no schedstat.
fn read_threads(pid: u32, threads: &mut HashMap<(u32, u32), u64>) {
    for entry in fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = entry.file_name();
        let thread = name.to_str().and_then(|name| name.parse::<u32>().ok());
        let text = fs::read_to_string(entry.path().join("schedstat")).unwrap_or_default();
        let run = text
            .split_ascii_whitespace()
            .next()
            .and_then(|run| run.parse().ok());
        if let (Some(thread), Some(run)) = (thread, run) {
            threads.insert((pid, thread), run);
        }
    }
}

/// CPU time of this process so far.
pub fn own() -> Duration {
    clock(ClockId::ProcessCPUTime)
}

/// CPU time of this thread so far.
pub fn thread() -> Duration {
    clock(ClockId::ThreadCPUTime)
}

fn clock(id: ClockId) -> Duration {
    let time = clock_gettime(id);
    // CPU time is never negative and its nanoseconds are below one second.
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn process(parent: u32, name: &str, ticks: u64) -> Process {
        Process {
            parent,
            name: name.to_owned(),
            ticks,
        }
    }

    fn sample(at_ms: u64, server: u32, processes: &[(u32, Process)]) -> Sample {
        Sample {
            at: Duration::from_millis(at_ms),
            processes: processes.iter().cloned().collect(),
            server: Some(server),
            helpers: Vec::new(),
            threads: HashMap::new(),
            steal: 0,
        }
    }

    fn ticks(count: u64) -> Duration {
        ticks_to_time(count)
    }

    #[test]
    fn a_name_may_contain_anything() {
        let stat = "42 (a) R (b c) S 7 42 42 0 -1 4194304 1 2 3 4 100 20 3 1 20 0 1 0 5 0 0\n";
        assert_eq!(parse_stat(stat), Some(process(7, "a) R (b c", 124)));
        for broken in [
            "",
            "42",
            "42 (x",
            "42 (x) S",
            "42 )x( S 1",
            "42 (x) S 1 2 3",
        ] {
            assert_eq!(parse_stat(broken), None, "{broken}");
        }
    }

    #[test]
    fn steal_is_the_eighth_number_of_the_first_line() {
        assert_eq!(
            parse_steal("cpu  1 2 3 4 5 6 7 88 9 10\ncpu0 1 1 1 1 1 1 1 1\n"),
            88
        );
        assert_eq!(parse_steal("cpu  1 2 3 4\n"), 0);
    }

    #[test]
    fn the_server_is_its_whole_tree() {
        let before = sample(
            0,
            10,
            &[
                (10, process(1, "server", 5)),
                (11, process(10, "worker", 7)),
                (12, process(11, "helper", 1)),
            ],
        );
        // The worker's helper ended and was waited for; a new worker came.
        let after = sample(
            1000,
            10,
            &[
                (10, process(1, "server", 6)),
                (11, process(10, "worker", 7 + 4 + 30)),
                (13, process(10, "worker", 20)),
            ],
        );
        let usage = before.until(&after);
        assert_eq!(usage.server, Some(ticks(1 + 4 + 30 - 1 + 20)));
        assert_eq!((usage.others, usage.busiest), (Duration::ZERO, None));
    }

    #[test]
    fn helpers_are_neither_server_nor_others() {
        let at = |ms, busy| {
            let all = [
                (10, process(1, "server", 0)),
                (20, process(1, "node", busy)),
                (21, process(20, "worker", busy)),
                (30, process(1, "make", busy)),
            ];
            Sample {
                helpers: vec![20],
                ..sample(ms, 10, &all)
            }
        };
        let usage = at(0, 0).until(&at(1000, 7));
        assert_eq!(usage.others, ticks(7));
        assert_eq!(usage.busiest.as_deref(), Some("make"));
    }

    #[test]
    fn others_count_with_what_began_and_ended_in_between() {
        let before = sample(
            0,
            10,
            &[
                (10, process(1, "server", 0)),
                (20, process(1, "make", 100)),
                (21, process(20, "sh", 3)),
                (23, process(21, "cc", 37)),
                (30, process(KTHREADD, "kworker", 0)),
            ],
        );
        let after = sample(
            1000,
            10,
            &[
                (10, process(1, "server", 0)),
                // Two ticks of its own, ten of `cc` after the first sample.
                (20, process(1, "make", 100 + 50 + 2)),
                (22, process(20, "ld", 6)),
                (30, process(KTHREADD, "kworker", 90)),
            ],
        );
        let usage = before.until(&after);
        assert_eq!(usage.others, ticks(12 + 6));
        assert_eq!(usage.busiest.as_deref(), Some("make"));
        let percent = usage.foreign_percent();
        assert!((percent - 18.0).abs() < 1e-6, "{percent}");
    }

    #[test]
    fn ticks_are_taken_where_threads_were_forgotten() {
        let exact = Duration::from_millis(500);
        assert_eq!(choose(exact, 52, 1), exact);
        assert_eq!(choose(exact, 80, 1), ticks(80));
        assert_eq!(choose(Duration::ZERO, 80, 1), ticks(80));
    }

    #[test]
    fn a_process_that_is_gone_is_named() {
        let taken = Sample::take(Some(u32::MAX));
        assert!(matches!(taken, Err(UsageError::NoProcess(u32::MAX))));
    }

    #[test]
    fn a_process_that_nobody_collected_has_ended() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        assert!(!has_ended(child.id()));
        child.kill().unwrap();
        let ended = (0..500).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            has_ended(child.id())
        });
        child.wait().unwrap();
        assert!(ended && has_ended(child.id()));
    }

    #[test]
    fn a_busy_child_is_measured_to_the_millisecond() {
        let burn = "i=0; while :; do i=$((i+1)); done";
        let mut child = Command::new("sh").args(["-c", burn]).spawn().unwrap();
        let run = |pid| {
            let before = Sample::take(Some(pid)).unwrap();
            std::thread::sleep(Duration::from_millis(300));
            before.until(&Sample::take(Some(pid)).unwrap())
        };
        let usage = run(child.id());
        let seen_by_others = run(std::process::id());
        child.kill().unwrap();
        child.wait().unwrap();
        let used = usage.server.unwrap();
        // On a crowded machine it gets less than a whole CPU, but never more.
        assert!(used > Duration::from_millis(20), "{usage:?}");
        assert!(
            used < usage.elapsed + Duration::from_millis(20),
            "{usage:?}"
        );
        assert!(
            seen_by_others.server.unwrap() >= Duration::from_millis(20),
            "a child belongs"
        );
    }
}
