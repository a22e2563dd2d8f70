//! The tables of a comparison, as Markdown.

use std::fmt::{self, Formatter};

use crate::figures::{NOISE_PERCENT, Spread};
use crate::results::{CompareRun, PointRun, Role, Row};
use crate::servers::Kind;

/// A comparison as a chapter of a document.
pub struct Report<'a>(pub &'a CompareRun);

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Report(run) = self;
        writeln!(f, "# Performance: {}\n\n{}\n", run.title, run.setting)?;
        writeln!(f, "| server | version | data |\n|---|---|---|")?;
        for server in &run.servers {
            writeln!(
                f,
                "| {} | {} | {} |",
                server.name, server.version, server.data
            )?;
        }
        writeln!(f)?;
        for ours in [Kind::Pollux, Kind::PolluxLatency] {
            self.summary(ours.name(), f)?;
        }
        self.cost_of_tls(f)?;
        self.attaching(f)?;
        for point in &run.points {
            write_rows(point, f)?;
        }
        self.rules(f)
    }
}

/// A column of the summary: its heading, its value, and whether more is better.
type Column = (&'static str, fn(&Row) -> Option<f64>, bool);

const COLUMNS: [Column; 3] = [
    ("requests/s", |row| Some(row.iops.median), true),
    (
        "CPU µs per request",
        |row| row.server_cpu_us_per_request.map(|s| s.median),
        false,
    ),
    ("p50 µs", |row| Some(row.p50_us.median), false),
];

impl Report<'_> {
    /// One of ours against the best of the others, point by point.
    fn summary(&self, ours: &str, f: &mut Formatter<'_>) -> fmt::Result {
        let Report(run) = self;
        let has = |role: Role| run.servers.iter().any(|server| server.role == role);
        if !run.servers.iter().any(|server| server.name == ours) || !has(Role::Peer) {
            return Ok(());
        }
        writeln!(f, "## {ours} against the best peer\n")?;
        writeln!(f, "The best peer is chosen for each column by itself.")?;
        if has(Role::Buffered) {
            let why = "Only peers that bypass the page cache, as Pollux does, are candidates.";
            writeln!(f, "{why}")?;
        }
        let has_ceiling = has(Role::Ceiling);
        if has_ceiling {
            writeln!(
                f,
                "Of fio: requests/s as a part of what fio alone gets from the file."
            )?;
        }
        write!(f, "\n| load |")?;
        for (heading, _, _) in COLUMNS {
            write!(f, " {heading} | best peer | ratio |")?;
        }
        writeln!(f, "{}", if has_ceiling { " of fio |" } else { "" })?;
        let columns = 1 + 3 * COLUMNS.len() + usize::from(has_ceiling);
        writeln!(f, "|{}", "---|".repeat(columns))?;
        for point in &run.points {
            let Some(mine) = point.rows.iter().find(|row| row.server == ours) else {
                continue;
            };
            write!(f, "| {} |", point.load)?;
            for (_, value, more_is_better) in COLUMNS {
                match value(mine).zip(self.best(point, value, more_is_better)) {
                    Some((mine, (best, name))) => {
                        let ratio = mine / best;
                        write!(f, " {} | {} {name} | {ratio:.2} |", show(mine), show(best))?;
                    }
                    None => write!(f, " – | – | – |")?,
                }
            }
            if has_ceiling {
                match point.rows.iter().find(|row| row.server == Kind::Fio.name()) {
                    Some(fio) => {
                        let part = mine.iops.median * 100.0 / fio.iops.median.max(1e-9);
                        write!(f, " {part:.0} % |")?;
                    }
                    None => write!(f, " – |")?,
                }
            }
            writeln!(f)?;
        }
        writeln!(f)
    }

    /// Ours under TLS beside ours in the clear.
    fn cost_of_tls(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Report(run) = self;
        let find = |point: &PointRun, kind: Kind| {
            let mut rows = point.rows.iter();
            rows.find(|row| row.server == kind.name()).cloned()
        };
        let pairs: Vec<(&str, Row, Row)> = run
            .points
            .iter()
            .filter_map(|point| {
                let (tls, plain) = (find(point, Kind::Pollux)?, find(point, Kind::PolluxPlain)?);
                Some((point.load.as_str(), tls, plain))
            })
            .collect();
        if pairs.is_empty() {
            return Ok(());
        }
        let heading = |(heading, _, _)| format!(" {heading} | in the clear | ratio |");
        let headings = COLUMNS.map(heading).concat();
        writeln!(f, "## What TLS costs pollux\n\n| load |{headings}")?;
        writeln!(f, "|{}", "---|".repeat(1 + 3 * COLUMNS.len()))?;
        for (load, tls, plain) in &pairs {
            write!(f, "| {load} |")?;
            for (_, value, _) in COLUMNS {
                match value(tls).zip(value(plain)) {
                    Some((tls, plain)) => {
                        let ratio = tls / plain;
                        write!(f, " {} | {} | {ratio:.2} |", show(tls), show(plain))?;
                    }
                    None => write!(f, " – | – | – |")?,
                }
            }
            writeln!(f)?;
        }
        writeln!(f)
    }

    /// What attaching costs everybody.
    fn attaching(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Report(run) = self;
        if run.handshakes.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "## Attaching\n\n\
             One client after the other connects, negotiates and leaves; no session is resumed. Pollux \
             lets in 500 a second after the first 500, whatever they cost.\n\n\
             | server | server CPU µs for each (least–most) | p50 µs (least–most) |\n|---|---|---|"
        )?;
        for row in &run.handshakes {
            let (cpu, p50) = (range(row.server_cpu_us), range(Some(row.p50_us)));
            writeln!(f, "| {} | {cpu} | {p50} |", row.server)?;
        }
        writeln!(f)
    }

    /// The best median of a peer, and whose it is.
    fn best<'a>(
        &self,
        point: &'a PointRun,
        value: fn(&Row) -> Option<f64>,
        more_is_better: bool,
    ) -> Option<(f64, &'a str)> {
        let is_peer = |row: &&Row| {
            let mut servers = self.0.servers.iter();
            servers.any(|server| server.name == row.server && server.role == Role::Peer)
        };
        let values = point.rows.iter().filter(is_peer);
        let values = values.filter_map(|row| Some((value(row)?, row.server.as_str())));
        values.max_by(|(a, _), (b, _)| match more_is_better {
            true => a.total_cmp(b),
            false => b.total_cmp(a),
        })
    }

    fn rules(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (server, client) = self.0.cores;
        writeln!(
            f,
            "## How to read this\n\n\
             * A load `randread:4k:64` is 64 requests of 4 KiB outstanding on one connection; a fourth \
             number is the connections. Figures are medians of the rounds.\n\
             * Servers ran on core {server}, the client (`perf nbd`) on core {client}. CPU per \
             request is user and system time of the server's whole process tree. Of the figures it \
             is the steadiest; 1,000,000 divided by it is what one core can carry.\n\
             * At depth 1 a request is two wake-ups from one core to the other, and these decide.\n\
             * Where the client is busy at nearly 100 %, it is what limits the rate.\n\
             * A measurement is disturbed if others, or the hypervisor for others, used more than \
             {NOISE_PERCENT} % of one core. It is then made again, up to twice. What stays disturbed \
             does not count, unless nothing else was measured: then the last column says `all`. \
             Ratios below 1.2 are not findings.\n\
             * Every block was written before anything was read. All servers with files export the \
             same file, fio uses it too; the page cache is emptied before each turn of a server that \
             bypasses it. fio runs on the core of the servers.\n\
             * tokio-uring is this program's own server on that runtime: what batching alone brings."
        )
    }
}

/// The table of one point.
pub fn write_rows(point: &PointRun, f: &mut Formatter<'_>) -> fmt::Result {
    writeln!(f, "## {}\n", point.load)?;
    writeln!(
        f,
        "| server | requests/s (least–most) | MB/s | p50 µs | p99 µs | p99.9 µs | \
         server CPU µs per request (least–most) | server busy % | client busy % | disturbed |\n\
         |---|---|---|---|---|---|---|---|---|---|"
    )?;
    for row in &point.rows {
        let disturbed = match (row.disturbed, row.rounds) {
            (disturbed, rounds) if disturbed == rounds => "all".to_owned(),
            (disturbed, rounds) => format!("{disturbed} of {}", rounds + disturbed),
        };
        writeln!(
            f,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {disturbed} |",
            row.server,
            range(Some(row.iops)),
            show(row.mb_per_second.median),
            show(row.p50_us.median),
            show(row.p99_us.median),
            show(row.p999_us.median),
            range(row.server_cpu_us_per_request),
            row.server_cpu_percent
                .map_or_else(|| "–".to_owned(), |s| show(s.median)),
            show(row.client_cpu_percent.median),
        )?;
    }
    writeln!(f)
}

/// `file` with `chapter` in the place of its chapter of the same heading, or at its end.
pub fn replace_chapter(file: &str, chapter: &str) -> String {
    let mut chapters: Vec<String> = Vec::new();
    for line in file.lines() {
        if line.starts_with("# ") || chapters.is_empty() {
            chapters.push(String::new());
        }
        let last = chapters.last_mut().expect("the first line pushed one");
        last.push_str(line);
        last.push('\n');
    }
    let heading = chapter.lines().next();
    let mut chapter = chapter.to_owned();
    match chapters
        .iter()
        .position(|old| old.lines().next() == heading)
    {
        Some(place) => {
            if place + 1 < chapters.len() {
                chapter.push('\n');
            }
            chapters[place] = chapter;
        }
        None => {
            if let Some(last) = chapters.last_mut() {
                last.push('\n');
            }
            chapters.push(chapter);
        }
    }
    chapters.concat()
}

fn range(spread: Option<Spread>) -> String {
    let Some(Spread { median, min, max }) = spread else {
        return "–".to_owned();
    };
    format!("{} ({}–{})", show(median), show(min), show(max))
}

/// Three figures that mean something; thousands as they are.
pub fn show(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::tally::tests::taken;
    use crate::compare::tally::{Taken, Tally};
    use crate::results::{HandshakeRow, ServerWords};
    use crate::servers::Backing;

    #[test]
    fn a_chapter_takes_the_place_of_its_elder() {
        let (memory, file) = ("# memory\n\nold\n", "# file\n\nit\n");
        let both = replace_chapter(memory, file);
        assert_eq!(both, "# memory\n\nold\n\n# file\n\nit\n");
        let newer = replace_chapter(&both, "# memory\n\nnew\n");
        assert_eq!(newer, "# memory\n\nnew\n\n# file\n\nit\n");
        assert_eq!(replace_chapter(&newer, "# memory\n\nnew\n"), newer);
        assert_eq!(replace_chapter("", file), file);
    }

    fn run(backing: Backing, all: Vec<(Kind, Vec<Taken>)>) -> CompareRun {
        let mut tally = Tally::default();
        let mut servers = Vec::new();
        for (kind, taken) in all {
            servers.push(kind);
            taken.into_iter().for_each(|one| tally.add(0, kind, one));
        }
        let words = servers.iter().map(|kind| ServerWords {
            name: kind.name().to_owned(),
            version: "1".to_owned(),
            data: kind.describe(backing).to_owned(),
            role: kind.role(backing),
        });
        CompareRun {
            title: "memory over a Unix socket".to_owned(),
            setting: "Measured somewhere.".to_owned(),
            cores: (0, 1),
            servers: words.collect(),
            points: tally.points(&["randread:4k:64".parse().unwrap()], &servers),
            handshakes: Vec::new(),
        }
    }

    #[test]
    fn a_peer_in_the_page_cache_is_no_rival_of_a_file() {
        let all = [
            (Kind::Pollux, 2e4),
            (Kind::QemuNative, 1e4),
            (Kind::NbdkitFile, 4e4),
            (Kind::TokioUring, 3e4),
            (Kind::Fio, 2.5e4),
        ];
        let all = all.map(|(kind, iops)| (kind, vec![taken(iops, 1.0, 0.0)]));
        let run = run(Backing::File, all.into_iter().collect());
        let text = Report(&run).to_string();
        assert!(
            text.contains("| 20000 | 10000 qemu-nbd-native | 2.00 |"),
            "{text}"
        );
        assert!(
            text.contains("Only peers that bypass the page cache"),
            "{text}"
        );
        assert!(text.contains(" 80 % |"), "{text}");
    }

    #[test]
    fn tls_is_held_against_ours_in_the_clear() {
        let all = [(Kind::Pollux, 2e4, 2.0), (Kind::PolluxPlain, 4e4, 1.0)];
        let all = all.map(|(kind, iops, cpu)| (kind, vec![taken(iops, cpu, 0.0)]));
        let mut run = run(Backing::Memory, all.into_iter().collect());
        run.handshakes.push(HandshakeRow {
            server: "pollux".to_owned(),
            p50_us: Spread::of([700.0]).unwrap(),
            server_cpu_us: Spread::of([500.0]),
        });
        let text = Report(&run).to_string();
        let row = "| randread:4k:64 | 20000 | 40000 | 0.50 | 2.00 | 1.00 | 2.00 |";
        assert!(text.contains(row), "{text}");
        let row = "| pollux | 500 (500–500) | 700 (700–700) |";
        assert!(text.contains(row), "{text}");
    }

    #[test]
    fn ratios_are_ours_to_the_best_peer_of_each_column() {
        let ours = [
            (1e6, 0.8, 0.0),
            (9e5, 0.9, 7.0),
            (2e6, 0.7, 0.0),
            (1e6, 0.8, 0.0),
        ];
        let ours = ours.map(|(iops, cpu, foreign)| taken(iops, cpu, foreign));
        let run = run(
            Backing::Memory,
            vec![
                (Kind::Pollux, ours.into_iter().collect()),
                (Kind::NbdkitMemory, vec![taken(4e5, 3.0, 0.0)]),
                (Kind::NbdServer, vec![taken(2e5, 2.0, 9.0)]),
            ],
        );
        let text = Report(&run).to_string();
        let row = "| randread:4k:64 | 1000000 | 400000 nbdkit-memory | 2.50 \
                   | 0.80 | 2.00 nbd-server | 0.40 | 1.00 | 2.50 nbdkit-memory | 0.40 |";
        assert!(text.contains(row), "{text}");
        let row = "| pollux | 1000000 (1000000–2000000) | 4000 | 1.00 | 2.00 | 3.00 \
                   | 0.80 (0.70–0.80) | 90.0 | 50.0 | 1 of 4 |";
        assert!(text.contains(row), "{text}");
        assert!(text.contains("| 90.0 | 50.0 | all |"), "{text}");
    }
}
