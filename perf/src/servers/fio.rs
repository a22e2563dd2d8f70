//! fio on the image: what the disk gives without a server, in the units of a load.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

use super::Bench;
use crate::curves::Percentile;
use crate::figures::Figures;
use crate::usage::Sample;
use crate::workload::{Point, Rw};

/// Percentiles fio is asked for.
const PERCENTILES: [&str; 9] = [
    "1.0", "25.0", "50.0", "75.0", "90.0", "95.0", "99.0", "99.9", "99.99",
];

/// Runs fio with the depth of all connections together, on the servers' core. Errors: it fails, or
/// what it prints is not understood.
pub fn measure(
    bench: &Bench,
    point: Point,
    (warmup, time): (Duration, Duration),
) -> anyhow::Result<(Figures, Vec<Percentile>)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["launch", "--cpu", &bench.server_cpu.to_string()]);
    command.args(["--parent", &std::process::id().to_string(), "--"]);
    command.args(["fio", "--name=ceiling", "--ioengine=io_uring", "--direct=1"]);
    command.args([
        "--fixedbufs",
        "--registerfiles",
        "--norandommap",
        "--randrepeat=0",
    ]);
    command.args([
        "--time_based",
        "--output-format=json",
        "--allow_file_create=0",
    ]);
    command.arg(format!("--filename={}", bench.image.display()));
    command.arg(format!("--size={}", bench.size));
    command.arg(format!("--rw={}", words(point.rw)));
    command.arg(format!("--bs={}", point.block));
    command.arg(format!("--iodepth={}", point.depth * point.connections));
    command.arg(format!("--ramp_time={}ms", warmup.as_millis()));
    command.arg(format!("--runtime={}ms", time.as_millis()));
    command.arg(format!("--percentile_list={}", PERCENTILES.join(":")));
    let before = Sample::take(None)?;
    let output = command.output().context("cannot run fio")?;
    // fio was waited for: its CPU time counts as ours now, not as that of others.
    let foreign = before.until(&Sample::take(None)?);
    if !output.status.success() {
        bail!(
            "fio failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let (mut figures, percentiles) = parse(&text).context("fio's report is not understood")?;
    figures.foreign_cpu_percent = foreign.foreign_percent();
    figures.foreign_busiest = foreign.busiest;
    Ok((figures, percentiles))
}

fn words(rw: Rw) -> &'static str {
    rw.name()
}

/// Reads and writes together, from fio's JSON; lines before it are notes.
fn parse(text: &str) -> Option<(Figures, Vec<Percentile>)> {
    let report: Value = serde_json::from_str(text.get(text.find('{')?..)?).ok()?;
    let job = report.get("jobs")?.get(0)?;
    let ways = ["read", "write"].map(|way| &job[way]);
    let sum = |key: &str| ways.iter().filter_map(|way| way[key].as_f64()).sum::<f64>();
    let busiest = ways.into_iter().max_by(|a, b| {
        let ios = |way: &Value| way["total_ios"].as_f64().unwrap_or(0.0);
        ios(a).total_cmp(&ios(b))
    })?;
    let at = |percent: &str| {
        let key = format!("{percent}00000");
        let key = key
            .split_once('.')
            .map(|(whole, part)| format!("{whole}.{}", &part[..6]))?;
        Some(busiest["clat_ns"]["percentile"].get(key)?.as_f64()? / 1e3)
    };
    let seconds = busiest["runtime"].as_f64()? / 1e3;
    let cpu = job["usr_cpu"].as_f64()? + job["sys_cpu"].as_f64()?;
    let requests = sum("total_ios");
    // Its share of the CPU includes the ramp, as does the share of one request.
    let each = cpu / 100.0 * 1e6 / sum("iops").max(1e-9);
    let figures = Figures {
        seconds,
        requests: requests as u64,
        iops: sum("iops"),
        mb_per_second: sum("bw_bytes") / 1e6,
        p50_us: at("50.0")?,
        p99_us: at("99.0")?,
        p999_us: at("99.9")?,
        max_us: busiest["clat_ns"]["max"].as_f64()? / 1e3,
        client_cpu_us_per_request: 0.0,
        client_cpu_percent: 0.0,
        server_cpu_us_per_request: Some(each),
        server_cpu_percent: Some(cpu),
        helpers_cpu_us_per_request: None,
        foreign_cpu_percent: 0.0,
        foreign_busiest: None,
        unsent: 0,
    };
    let percentiles = PERCENTILES.iter().filter_map(|percent| {
        let us = at(percent)?;
        Some(Percentile {
            percent: percent.parse().ok()?,
            us,
        })
    });
    Some((figures, percentiles.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_as_a_load() {
        let text = r#"note: something
            {"jobs": [{"usr_cpu": 10.0, "sys_cpu": 30.0,
              "read": {"total_ios": 100000, "iops": 50000.0, "bw_bytes": 204800000,
                "runtime": 2000, "clat_ns": {"max": 9000000, "percentile": {
                  "1.000000": 20000, "50.000000": 100000, "99.000000": 400000,
                  "99.900000": 800000, "99.990000": 900000}}},
              "write": {"total_ios": 0, "iops": 0.0, "bw_bytes": 0, "runtime": 0,
                "clat_ns": {"max": 0}}}]}"#;
        let (figures, percentiles) = parse(text).unwrap();
        assert_eq!((figures.iops, figures.seconds), (50000.0, 2.0));
        assert_eq!(
            (figures.p50_us, figures.p99_us, figures.p999_us),
            (100.0, 400.0, 800.0)
        );
        assert_eq!(figures.server_cpu_us_per_request, Some(8.0));
        assert_eq!((percentiles.len(), percentiles[0].us), (5, 20.0));
        assert!(parse("").is_none() && parse("{}").is_none());
    }
}
