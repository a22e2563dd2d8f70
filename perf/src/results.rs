//! What the verbs find, as JSON: written by `--json`, read by `perf report`.

use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::curves::{Moment, Percentile};
use crate::figures::{Figures, Spread};
use crate::workload::LoadWords;

/// Result of one run of the program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Outcome {
    /// Of `perf nbd`.
    Nbd(NbdRun),
    /// Of `perf compare` and `perf mirror`.
    Compare(CompareRun),
    /// Of `perf soak`.
    Soak(SoakRun),
}

/// One load on one server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NbdRun {
    /// Its name in reports.
    pub label: String,
    /// Whom it loaded.
    pub uri: String,
    /// What with.
    #[serde(flatten)]
    pub load: LoadWords,
    /// Requests due each second; a closed loop if absent.
    pub rate: Option<u64>,
    /// Of blocks and contents.
    pub seed: u64,
    /// What it came to.
    #[serde(flatten)]
    pub figures: Figures,
    /// The distribution of latencies.
    pub percentiles: Vec<Percentile>,
    /// The run in pieces.
    pub series: Vec<Moment>,
}

/// Several servers in turn under the same loads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CompareRun {
    /// What was compared: `memory over a Unix socket`.
    pub title: String,
    /// Date, machine, disk, rounds, in one sentence each.
    pub setting: String,
    /// Cores of servers and client.
    pub cores: (usize, usize),
    /// Who took part, in the order of their turns.
    pub servers: Vec<ServerWords>,
    /// What was measured.
    pub points: Vec<PointRun>,
    /// What attaching costs, where that was measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub handshakes: Vec<HandshakeRow>,
}

/// Clients that attach to a server and leave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HandshakeRow {
    /// Its name.
    pub server: String,
    /// Median time of an attachment, microseconds.
    pub p50_us: Spread,
    /// CPU time of the server's tree for each, microseconds.
    pub server_cpu_us: Option<Spread>,
}

/// What a server's figures are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Ours.
    Ours,
    /// Ours in another mode.
    OursToo,
    /// Somebody else's that gives the same promise about the data.
    Peer,
    /// Somebody else's that promises less: reads come from, and writes end in, the page cache.
    Buffered,
    /// A yardstick of this program.
    Baseline,
    /// The same I/O without a server: what the disk gives.
    Ceiling,
}

/// A server that took part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerWords {
    /// Its name.
    pub name: String,
    /// What it says of itself.
    pub version: String,
    /// Where its data are.
    pub data: String,
    /// What its figures are for.
    pub role: Role,
}

/// All servers under one load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PointRun {
    /// The load.
    pub load: String,
    /// In the order of the servers.
    pub rows: Vec<Row>,
}

/// One server under one load, over all rounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Its name.
    pub server: String,
    /// Requests per second.
    pub iops: Spread,
    /// Millions of bytes per second.
    pub mb_per_second: Spread,
    /// Median latency, microseconds.
    pub p50_us: Spread,
    /// 99 of 100 were faster, microseconds.
    pub p99_us: Spread,
    /// 999 of 1000 were faster, microseconds.
    pub p999_us: Spread,
    /// CPU time of the server's tree, microseconds.
    pub server_cpu_us_per_request: Option<Spread>,
    /// How busy the server was, hundredths of one CPU.
    pub server_cpu_percent: Option<Spread>,
    /// CPU time of other nodes, microseconds.
    #[serde(default)]
    pub helpers_cpu_us_per_request: Option<Spread>,
    /// How busy the client was, hundredths of one CPU.
    pub client_cpu_percent: Spread,
    /// Rounds that count.
    pub rounds: usize,
    /// Rounds that others disturbed. These count only if all were disturbed.
    pub disturbed: usize,
    /// The distribution of latencies, of all rounds that count.
    pub percentiles: Vec<Percentile>,
}

/// A long run under full load, and what the server held meanwhile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SoakRun {
    /// The server.
    pub server: String,
    /// What it was loaded with.
    #[serde(flatten)]
    pub load: LoadWords,
    /// What it came to.
    #[serde(flatten)]
    pub figures: Figures,
    /// The distribution of latencies.
    pub percentiles: Vec<Percentile>,
    /// The run in pieces.
    pub series: Vec<Moment>,
    /// What the server's processes held.
    pub vitals: Vec<Vital>,
    /// Seconds at the beginning that are not judged.
    pub settled_after_seconds: f64,
    /// What is wrong; nothing if the soak passed.
    pub failures: Vec<String>,
    /// What is worth a look, and does not fail the soak.
    pub remarks: Vec<String>,
}

/// What the server's processes held at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Vital {
    /// After the measured time began.
    pub at_seconds: f64,
    /// Resident memory, KiB.
    pub rss_kib: u64,
    /// Open files.
    pub files: u64,
    /// Threads.
    pub threads: u64,
}

/// Reads results: one JSON object, or one on each line. Errors: the file, or what stands in it.
pub fn read(path: &Path) -> anyhow::Result<Vec<Outcome>> {
    let at = || format!("{}", path.display());
    let text = std::fs::read_to_string(path).with_context(at)?;
    let all = serde_json::Deserializer::from_str(&text).into_iter::<Outcome>();
    let all: Result<Vec<_>, _> = all.collect();
    all.with_context(|| format!("{} is no result of perf", path.display()))
}

/// Writes one result. Errors: the file.
pub fn write(path: &Path, outcome: &Outcome) -> anyhow::Result<()> {
    write_text(path, &(serde_json::to_string(outcome)? + "\n"))
}

/// Writes a file and the directory it lies in: a measurement of minutes does not end for want of
/// one. Errors: the file.
pub fn write_text(path: &Path, text: &str) -> anyhow::Result<()> {
    let directory = path.parent().filter(|d| !d.as_os_str().is_empty());
    let made = directory.map_or(Ok(()), std::fs::create_dir_all);
    made.and_then(|()| std::fs::write(path, text))
        .with_context(|| format!("cannot write {}", path.display()))
}
