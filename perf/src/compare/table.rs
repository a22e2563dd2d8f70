//! The tables of a comparison, as Markdown.

use std::fmt::{self, Formatter};

use super::machine::Machine;
use super::server::Kind;
use super::{Backing, Compare, Measurement, Results, Transport};
use crate::figures::{Figures, NOISE_PERCENT, Spread};
use crate::workload::{Point, show_size};

/// Everything a table says.
pub struct Report<'a> {
    /// What was asked for.
    pub compare: &'a Compare,
    /// Where it ran.
    pub machine: &'a Machine,
    /// Who took part.
    pub servers: &'a [Kind],
    /// What was measured.
    pub results: &'a Results,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.heading(f)?;
        self.summary(f)?;
        for (number, point) in self.compare.points.iter().enumerate() {
            self.point(number, point, f)?;
        }
        self.rules(f)
    }
}

impl Report<'_> {
    fn heading(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Compare {
            backing,
            transport,
            size,
            rounds,
            seconds,
            ..
        } = self.compare;
        let backing_words = match backing {
            Backing::Memory => "memory",
            Backing::File => "a file",
        };
        let transport = match transport {
            Transport::Unix => "a Unix socket",
            Transport::Tcp => "TCP on loopback",
        };
        writeln!(f, "# Performance: {backing_words} over {transport}\n")?;
        let Machine {
            cpu,
            cores,
            kernel,
            memory_gib,
            is_virtual,
            date,
            ..
        } = self.machine;
        let machine = if *is_virtual {
            "a virtual machine with "
        } else {
            ""
        };
        writeln!(
            f,
            "Measured on {date} with `perf compare`: {machine}{cores} cores of {cpu}, \
             {memory_gib} GiB, Linux {kernel}. Disk of {}{}. \
             {rounds} rounds of {} s for each figure, the servers in turn.\n",
            show_size(*size),
            match (&self.machine.file_system, backing) {
                (Some(kind), Backing::File) => format!(" on {kind}"),
                _ => String::new(),
            },
            seconds.as_secs_f64(),
        )?;
        writeln!(f, "| server | version | data |\n|---|---|---|")?;
        for (kind, version) in &self.machine.versions {
            writeln!(
                f,
                "| {} | {version} | {} |",
                kind.name(),
                kind.describe(*backing)
            )?;
        }
        writeln!(f)
    }

    /// Ours against the best of the others, point by point.
    fn summary(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Some(ours) = self.servers.iter().position(|kind| *kind == Kind::Pollux) else {
            return writeln!(f, "Pollux did not take part.\n");
        };
        writeln!(f, "## Pollux against the best peer\n")?;
        writeln!(f, "The best peer is chosen for each column by itself.")?;
        if self.compare.backing == Backing::File {
            let why = "Only peers that bypass the page cache, as Pollux does, are candidates.";
            writeln!(f, "{why}")?;
        }
        writeln!(f)?;
        writeln!(
            f,
            "| load | requests/s | best peer | ratio | CPU µs per request | best peer | ratio | \
             p50 µs | best peer | ratio |\n|---|---|---|---|---|---|---|---|---|---|"
        )?;
        for (number, point) in self.compare.points.iter().enumerate() {
            write!(f, "| {point}")?;
            let cells = [
                self.best(number, ours, |f| Some(f.iops), true),
                self.best(number, ours, |f| f.server_cpu_us_per_request, false),
                self.best(number, ours, |f| Some(f.p50_us), false),
            ];
            for cell in cells {
                match cell {
                    Some((mine, best, name)) => {
                        let ratio = mine / best;
                        write!(f, " | {} | {} {name} | {ratio:.2}", show(mine), show(best))?;
                    }
                    None => write!(f, " | – | – | –")?,
                }
            }
            writeln!(f, " |")?;
        }
        writeln!(f)
    }

    /// Our median, the best median of a peer, and whose it is.
    fn best(
        &self,
        point: usize,
        ours: usize,
        value: impl Fn(&Figures) -> Option<f64>,
        more_is_better: bool,
    ) -> Option<(f64, f64, &'static str)> {
        let median = |server| spread(self.results.get(&(point, server))?, &value).map(|s| s.median);
        let mine = median(ours)?;
        let is_peer = |server: &usize| {
            *server != ours && self.servers[*server].is_like_ours(self.compare.backing)
        };
        let peers = (0..self.servers.len()).filter(is_peer);
        let (server, best) = peers
            .filter_map(|server| median(server).map(|value| (server, value)))
            .max_by(|(_, a), (_, b)| {
                if more_is_better {
                    a.total_cmp(b)
                } else {
                    b.total_cmp(a)
                }
            })?;
        Some((mine, best, self.servers[server].name()))
    }

    fn point(&self, number: usize, point: &Point, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "## {point}\n")?;
        writeln!(
            f,
            "| server | requests/s (least–most) | MB/s | p50 µs | p99 µs | p99.9 µs | \
             server CPU µs per request (least–most) | server busy % | client busy % | disturbed |\n\
             |---|---|---|---|---|---|---|---|---|---|"
        )?;
        for (index, kind) in self.servers.iter().enumerate() {
            let Some(measured) = self.results.get(&(number, index)) else {
                continue;
            };
            let all = |value: fn(&Figures) -> Option<f64>| spread(measured, value);
            let median = |value: fn(&Figures) -> Option<f64>| {
                all(value).map_or_else(|| "–".to_owned(), |spread| show(spread.median))
            };
            let noisy = measured.iter().filter(|one| one.figures.is_noisy()).count();
            writeln!(
                f,
                "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {noisy} of {} |",
                kind.name(),
                range(all(|f| Some(f.iops))),
                median(|f| Some(f.mb_per_second)),
                median(|f| Some(f.p50_us)),
                median(|f| Some(f.p99_us)),
                median(|f| Some(f.p999_us)),
                range(all(|f| f.server_cpu_us_per_request)),
                median(|f| f.server_cpu_percent),
                median(|f| Some(f.client_cpu_percent)),
                measured.len(),
            )?;
        }
        writeln!(f)
    }

    fn rules(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Compare {
            server_cpu,
            client_cpu,
            ..
        } = self.compare;
        writeln!(
            f,
            "## How to read this\n\n\
             * A load `randread:4k:64` is 64 requests of 4 KiB outstanding on one connection; a fourth \
             number would be the connections. Figures are medians of the rounds.\n\
             * Servers ran on core {server_cpu}, the client (`perf nbd`) on core {client_cpu}. CPU per \
             request is user and system time of the server's whole process tree. Of the figures it \
             is the steadiest; 1,000,000 divided by it is what one core can carry.\n\
             * At depth 1 a request is two wake-ups from one core to the other, and these decide.\n\
             * Where the client is busy at nearly 100 %, it is what limits the rate.\n\
             * A measurement is disturbed if others, or the hypervisor for others, used more than \
             {NOISE_PERCENT} % of one core. It is then made again, up to twice; the last column \
             counts those that stayed disturbed. Ratios below 1.2 are not findings.\n\
             * Every block was written before anything was read."
        )
    }
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

fn spread(measured: &[Measurement], value: impl Fn(&Figures) -> Option<f64>) -> Option<Spread> {
    Spread::of(measured.iter().filter_map(|one| value(&one.figures)))
}

fn range(spread: Option<Spread>) -> String {
    let Some(Spread { median, min, max }) = spread else {
        return "–".to_owned();
    };
    format!("{} ({}–{})", show(median), show(min), show(max))
}

/// Three figures that mean something; thousands as they are.
fn show(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::Results;
    use clap::Parser;

    #[derive(Parser)]
    struct Words {
        #[command(flatten)]
        compare: Compare,
    }

    fn measurement(iops: f64, cpu: f64, foreign: f64) -> Measurement {
        let figures = Figures {
            seconds: 2.0,
            requests: 1,
            iops,
            mb_per_second: iops / 250.0,
            p50_us: 1e6 / iops,
            p99_us: 2e6 / iops,
            p999_us: 3e6 / iops,
            max_us: 4e6 / iops,
            client_cpu_us_per_request: 0.5,
            client_cpu_percent: 50.0,
            server_cpu_us_per_request: Some(cpu),
            server_cpu_percent: Some(90.0),
            foreign_cpu_percent: foreign,
            foreign_busiest: None,
            unsent: 0,
        };
        Measurement { figures }
    }

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

    fn machine() -> Machine {
        Machine {
            cpu: "a processor".to_owned(),
            cores: 2,
            kernel: "6.1".to_owned(),
            memory_gib: 8,
            is_virtual: true,
            file_system: None,
            date: "2026-01-02".to_owned(),
            versions: vec![(Kind::Pollux, "pollux 1".to_owned())],
        }
    }

    #[test]
    fn a_peer_in_the_page_cache_is_no_rival_of_a_file() {
        let words = ["perf", "--points", "randread:4k:64", "--backing", "file"];
        let compare = Words::parse_from(words).compare;
        let servers = [Kind::Pollux, Kind::QemuNative, Kind::NbdkitFile];
        let mut results = Results::new();
        for (server, iops) in [(0, 2e4), (1, 1e4), (2, 4e4)] {
            results.insert((0, server), vec![measurement(iops, 1.0, 0.0)]);
        }
        let (machine, servers) = (&machine(), &servers[..]);
        let text = Report {
            compare: &compare,
            machine,
            servers,
            results: &results,
        }
        .to_string();
        assert!(
            text.contains("| 20000 | 10000 qemu-nbd-native | 2.00 |"),
            "{text}"
        );
        assert!(
            text.contains("Only peers that bypass the page cache"),
            "{text}"
        );
    }

    #[test]
    fn ratios_are_ours_to_the_best_peer_of_each_column() {
        let words = ["perf", "--points", "randread:4k:64", "--rounds", "3"];
        let compare = Words::parse_from(words).compare;
        let servers = [Kind::Pollux, Kind::NbdkitMemory, Kind::NbdServer];
        let mut results = Results::new();
        let rounds = |all: &[(f64, f64, f64)]| {
            all.iter()
                .map(|(iops, cpu, foreign)| measurement(*iops, *cpu, *foreign))
                .collect()
        };
        results.insert(
            (0, 0),
            rounds(&[(1e6, 0.8, 0.0), (9e5, 0.9, 7.0), (2e6, 0.7, 0.0)]),
        );
        results.insert((0, 1), rounds(&[(4e5, 3.0, 0.0)]));
        results.insert((0, 2), rounds(&[(2e5, 2.0, 0.0)]));
        let machine = machine();
        let (machine, servers) = (&machine, &servers[..]);
        let text = Report {
            compare: &compare,
            machine,
            servers,
            results: &results,
        }
        .to_string();
        let row = "| randread:4k:64 | 1000000 | 400000 nbdkit-memory | 2.50 \
                   | 0.80 | 2.00 nbd-server | 0.40 | 1.00 | 2.50 nbdkit-memory | 0.40 |";
        assert!(text.contains(row), "{text}");
        let row = "| pollux | 1000000 (900000–2000000) | 4000 | 1.00 | 2.00 | 3.00 \
                   | 0.80 (0.70–0.90) | 90.0 | 50.0 | 1 of 3 |";
        assert!(text.contains(row), "{text}");
        assert!(text.contains("a virtual machine with 2 cores of a processor, 8 GiB, Linux 6.1"));
    }
}
