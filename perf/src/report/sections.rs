//! Which charts and tables show a result.

use super::chart::{Bar, BarChart, Labelled, Line, LineChart};
use super::page::{Part, Section, Table};
use super::scale::{Scale, show};
use crate::curves::{Moment, Percentile};
use crate::figures::{Figures, Spread};
use crate::results::{CompareRun, NbdRun, Outcome, PointRun, Role, Row, SoakRun};

const REQUESTS: Labelled = linear("requests per second");
const SECONDS: Labelled = linear("seconds");
const CPU: Labelled = linear("server CPU, µs per request");
const P99: Labelled = linear("p99, µs");
const P999: Labelled = linear("p99.9, µs");
const PERCENT: Labelled = Labelled {
    label: "percent of requests that were at most as slow",
    scale: Scale::Nines,
};
const LATENCY: Labelled = Labelled {
    label: "latency, µs",
    scale: Scale::Log,
};

const fn linear(label: &'static str) -> Labelled {
    Labelled {
        label,
        scale: Scale::Linear,
    }
}

/// All sections of a page about these results: single runs together, everything else by itself.
pub fn of(outcomes: &[Outcome]) -> Vec<Section> {
    let single = |outcome: &Outcome| match outcome {
        Outcome::Nbd(run) => Some(run.clone()),
        _ => None,
    };
    let runs: Vec<NbdRun> = outcomes.iter().filter_map(single).collect();
    let mut sections = Vec::new();
    if !runs.is_empty() {
        sections.push(single_runs(&runs));
    }
    for outcome in outcomes {
        match outcome {
            Outcome::Nbd(_) => {}
            Outcome::Compare(run) => sections.extend(comparison(run)),
            Outcome::Soak(run) => sections.push(soak(run)),
        }
    }
    sections
}

fn distribution(title: String, lines: Vec<(String, &[Percentile])>) -> Part {
    let line = |(name, points): (String, &[Percentile])| Line {
        name,
        points: points.iter().map(|p| (p.percent, p.us)).collect(),
    };
    Part::Lines(LineChart {
        title,
        x: PERCENT,
        y: LATENCY,
        lines: lines.into_iter().map(line).collect(),
    })
}

fn over_time(
    title: &str,
    y: Labelled,
    runs: &[(&str, &[Moment])],
    value: impl Fn(&Moment) -> Option<f64>,
) -> Option<Part> {
    let line = |(name, series): &(&str, &[Moment])| Line {
        name: (*name).to_owned(),
        points: series
            .iter()
            .filter_map(|moment| Some((round(moment.at_seconds), value(moment)?)))
            .collect(),
    };
    let lines: Vec<Line> = runs.iter().map(line).collect();
    let is_empty = lines.iter().all(|line| line.points.is_empty());
    let title = title.to_owned();
    let x = SECONDS;
    (!is_empty).then_some(Part::Lines(LineChart { title, x, y, lines }))
}

/// So that moments of different runs share a row of the table.
fn round(seconds: f64) -> f64 {
    (seconds * 10.0).round() / 10.0
}

fn series(runs: &[(&str, &[Moment])]) -> Vec<Part> {
    let parts = [
        over_time("Requests over time", REQUESTS, runs, |m| Some(m.iops)),
        over_time("p99 over time", P99, runs, |m| Some(m.p99_us)),
        over_time("p99.9 over time", P999, runs, |m| Some(m.p999_us)),
        over_time("CPU over time", CPU, runs, |m| m.server_cpu_us_per_request),
    ];
    parts.into_iter().flatten().collect()
}

fn figures_table(rows: &[(String, String, &Figures)]) -> Part {
    let head = [
        "run",
        "load",
        "requests/s",
        "MB/s",
        "p50 µs",
        "p99 µs",
        "p99.9 µs",
        "max µs",
        "server CPU µs per request",
        "client busy %",
        "others busy %",
        "unsent",
    ];
    let row = |(label, load, figures): &(String, String, &Figures)| {
        let cpu = figures.server_cpu_us_per_request;
        vec![
            label.clone(),
            load.clone(),
            show(figures.iops),
            show(figures.mb_per_second),
            show(figures.p50_us),
            show(figures.p99_us),
            show(figures.p999_us),
            show(figures.max_us),
            cpu.map_or_else(|| "not known".to_owned(), show),
            show(figures.client_cpu_percent),
            show(figures.foreign_cpu_percent),
            figures.unsent.to_string(),
        ]
    };
    Part::Table(Table {
        head: head.map(str::to_owned).to_vec(),
        rows: rows.iter().map(row).collect(),
    })
}

fn single_runs(runs: &[NbdRun]) -> Section {
    let rows: Vec<(String, String, &Figures)> = runs
        .iter()
        .map(|run| {
            let load = match run.rate {
                Some(rate) => format!("{}, {rate} due each second", run.load.load),
                None => run.load.load.clone(),
            };
            (run.label.clone(), load, &run.figures)
        })
        .collect();
    let mut parts = vec![figures_table(&rows)];
    let lines = runs
        .iter()
        .map(|run| (run.label.clone(), &run.percentiles[..]));
    parts.push(distribution("Latency".to_owned(), lines.collect()));
    let named: Vec<(&str, &[Moment])> = runs
        .iter()
        .map(|run| (run.label.as_str(), &run.series[..]))
        .collect();
    parts.extend(series(&named));
    let bars = runs.iter().filter_map(|run| {
        let cpu = run.figures.server_cpu_us_per_request?;
        Some(Bar {
            name: run.label.clone(),
            value: cpu,
            range: None,
        })
    });
    let bars: Vec<_> = bars.collect();
    if !bars.is_empty() {
        parts.push(Part::Bars(BarChart {
            title: "Server CPU for each request".to_owned(),
            label: CPU.label,
            bars,
        }));
    }
    Section {
        heading: "Runs".to_owned(),
        parts,
    }
}

fn comparison(run: &CompareRun) -> Vec<Section> {
    let head = ["server", "version", "data", "role"]
        .map(str::to_owned)
        .to_vec();
    let row = |server: &crate::results::ServerWords| {
        let role = match server.role {
            Role::Ours => "ours",
            Role::OursToo => "ours, another mode",
            Role::Peer => "peer",
            Role::Buffered => "peer in the page cache: not comparable with O_DIRECT",
            Role::Baseline => "baseline",
            Role::Ceiling => "ceiling: the disk without a server",
        };
        vec![
            server.name.clone(),
            server.version.clone(),
            server.data.clone(),
            role.to_owned(),
        ]
    };
    let rows = run.servers.iter().map(row).collect();
    let mut sections = vec![Section {
        heading: run.title.clone(),
        parts: vec![
            Part::Text(run.setting.clone()),
            Part::Table(Table { head, rows }),
        ],
    }];
    sections.extend(run.points.iter().map(point));
    sections
}

fn point(point: &PointRun) -> Section {
    let bars = |title: &str, label, value: fn(&Row) -> Option<Spread>| {
        let bar = |row: &Row| {
            let Spread { median, min, max } = value(row)?;
            Some(Bar {
                name: row.server.clone(),
                value: median,
                range: Some((min, max)),
            })
        };
        Part::Bars(BarChart {
            title: format!("{title}, {}", point.load),
            label,
            bars: point.rows.iter().filter_map(bar).collect(),
        })
    };
    let lines = point.rows.iter();
    let lines = lines.map(|row| (row.server.clone(), &row.percentiles[..]));
    Section {
        heading: point.load.clone(),
        parts: vec![
            bars("Requests per second", REQUESTS.label, |row| Some(row.iops)),
            bars("Server CPU for each request", CPU.label, |row| {
                row.server_cpu_us_per_request
            }),
            distribution(format!("Latency, {}", point.load), lines.collect()),
        ],
    }
}

fn soak(run: &SoakRun) -> Section {
    let load = run.load.load.clone();
    let verdict = match run.failures.is_empty() {
        true => "Passed.".to_owned(),
        false => format!("Failed: {}.", run.failures.join("; ")),
    };
    let mut parts = vec![Part::Text(verdict)];
    parts.extend(run.remarks.iter().cloned().map(Part::Text));
    parts.push(figures_table(&[(run.server.clone(), load, &run.figures)]));
    let vital = |name: &str, value: fn(&crate::results::Vital) -> f64| Line {
        name: name.to_owned(),
        points: run
            .vitals
            .iter()
            .map(|v| (round(v.at_seconds), value(v)))
            .collect(),
    };
    parts.push(Part::Lines(LineChart {
        title: "Memory".to_owned(),
        x: SECONDS,
        y: linear("resident, MiB"),
        lines: vec![vital("resident", |v| v.rss_kib as f64 / 1024.0)],
    }));
    parts.push(Part::Lines(LineChart {
        title: "Files and threads".to_owned(),
        x: SECONDS,
        y: linear("number"),
        lines: vec![
            vital("open files", |v| v.files as f64),
            vital("threads", |v| v.threads as f64),
        ],
    }));
    parts.extend(series(&[(run.server.as_str(), &run.series[..])]));
    parts.push(distribution(
        "Latency".to_owned(),
        vec![(run.server.clone(), &run.percentiles[..])],
    ));
    Section {
        heading: format!("Soak of {}", run.server),
        parts,
    }
}
