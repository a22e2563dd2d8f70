use super::chart::{Bar, BarChart, Labelled, Line, LineChart};
use super::page::{Part, Section, escape, render};
use super::scale::Scale;
use super::*;
use crate::curves::{Moment, Percentile};
use crate::figures::{Figures, Spread};
use crate::results::{write as write_result, *};
use crate::workload::{Load, Point};

/// Checks that `text` is well-formed: every element ends where it should, attributes are quoted
/// and named once, references are known. Gives the elements in their order.
fn elements(text: &str) -> Vec<String> {
    let mut rest = text.strip_prefix("<!DOCTYPE html>").expect("a doctype");
    let (mut open, mut seen) = (Vec::<String>::new(), Vec::new());
    while let Some(at) = rest.find('<') {
        references(&rest[..at]);
        let end = rest[at..].find('>').expect("an element ends") + at;
        let inside = &rest[at + 1..end];
        rest = &rest[end + 1..];
        if let Some(name) = inside.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "closed in order");
            continue;
        }
        let is_empty = inside.ends_with('/');
        let inside = inside.trim_end_matches('/');
        let (name, attributes) = inside.split_once(' ').unwrap_or((inside, ""));
        attributes_of(attributes);
        seen.push(name.to_owned());
        if !is_empty {
            open.push(name.to_owned());
        }
    }
    assert!(open.is_empty() && rest.trim().is_empty(), "{open:?} {rest}");
    seen
}

fn attributes_of(mut text: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    while !text.trim().is_empty() {
        let (name, value) = text.trim_start().split_once("=\"").expect("a quoted value");
        let (value, after) = value.split_once('"').expect("a closing quote");
        assert!(
            name.chars()
                .all(|c| c.is_ascii_alphanumeric() || "-:".contains(c)),
            "{name}"
        );
        assert!(!value.contains('<'), "{value}");
        assert!(
            !found.iter().any(|(other, _)| other == name),
            "{name} twice"
        );
        references(value);
        found.push((name.to_owned(), value.to_owned()));
        text = after;
    }
    found
}

fn references(text: &str) {
    for after in text.split('&').skip(1) {
        let name = after.split_once(';').expect("a reference ends").0;
        assert!(["amp", "lt", "gt", "quot"].contains(&name), "{name}");
    }
}

fn percentiles() -> Vec<Percentile> {
    let each = [(0.0, 10.0), (90.0, 50.0), (99.0, 800.0), (99.9, 12000.0)];
    each.map(|(percent, us)| Percentile { percent, us })
        .to_vec()
}

fn figures() -> Figures {
    Figures {
        seconds: 2.0,
        requests: 2000,
        iops: 1000.0,
        mb_per_second: 4.0,
        p50_us: 10.0,
        p99_us: 800.0,
        p999_us: 12000.0,
        max_us: 13000.0,
        client_cpu_us_per_request: 1.0,
        client_cpu_percent: 20.0,
        server_cpu_us_per_request: Some(0.8),
        server_cpu_percent: Some(60.0),
        helpers_cpu_us_per_request: None,
        foreign_cpu_percent: 0.5,
        foreign_busiest: None,
        unsent: 3,
    }
}

fn moments() -> Vec<Moment> {
    let moment = |second: u32| Moment {
        at_seconds: f64::from(second) + 0.0004,
        seconds: 1.0,
        requests: 1000,
        iops: 1000.0,
        mb_per_second: 4.0,
        p50_us: 10.0,
        p99_us: 800.0,
        p999_us: 12000.0,
        max_us: 13000.0,
        server_cpu_percent: Some(60.0),
        server_cpu_us_per_request: Some(0.8),
        client_cpu_percent: 20.0,
    };
    (0..3).map(moment).collect()
}

fn words() -> crate::workload::LoadWords {
    Load::from("randread:4k:64".parse::<Point>().unwrap()).words()
}

fn single(label: &str) -> Outcome {
    Outcome::Nbd(NbdRun {
        label: label.to_owned(),
        uri: "nbd+unix:///v?socket=/a".to_owned(),
        load: words(),
        rate: Some(1000),
        seed: 1,
        figures: figures(),
        percentiles: percentiles(),
        series: moments(),
    })
}

fn spread(median: f64) -> Spread {
    Spread {
        median,
        min: median / 2.0,
        max: median * 2.0,
    }
}

fn compared() -> Outcome {
    let row = |server: &str| Row {
        server: server.to_owned(),
        iops: spread(1000.0),
        mb_per_second: spread(4.0),
        p50_us: spread(10.0),
        p99_us: spread(20.0),
        p999_us: spread(30.0),
        server_cpu_us_per_request: Some(spread(1.5)),
        server_cpu_percent: Some(spread(90.0)),
        helpers_cpu_us_per_request: None,
        client_cpu_percent: spread(50.0),
        rounds: 3,
        disturbed: 0,
        percentiles: percentiles(),
    };
    let server = |name: &str, role| ServerWords {
        name: name.to_owned(),
        version: "1 <beta> & \"more\"".to_owned(),
        data: "memory".to_owned(),
        role,
    };
    Outcome::Compare(CompareRun {
        title: "memory".to_owned(),
        setting: "a machine".to_owned(),
        cores: (0, 1),
        servers: vec![server("pollux", Role::Ours), server("other", Role::Peer)],
        points: vec![PointRun {
            load: "randread:4k:64".to_owned(),
            rows: vec![row("pollux"), row("other")],
        }],
        handshakes: Vec::new(),
    })
}

fn soaked() -> Outcome {
    Outcome::Soak(SoakRun {
        server: "pollux".to_owned(),
        load: words(),
        figures: figures(),
        percentiles: percentiles(),
        series: moments(),
        vitals: vec![
            Vital {
                at_seconds: 0.0,
                rss_kib: 1024,
                files: 20,
                threads: 4,
            };
            2
        ],
        settled_after_seconds: 1.0,
        failures: vec!["RSS grew by 7 %".to_owned()],
        remarks: vec!["p99.9 has a step".to_owned()],
    })
}

#[test]
fn a_page_is_well_formed_whatever_stands_in_it() {
    let all = [
        single("a <b> & \"c\"\u{1}\n"),
        single("second"),
        compared(),
        soaked(),
    ];
    let text = render("<title> & more", &sections::of(&all));
    let seen = elements(&text);
    let count = |name: &str| seen.iter().filter(|element| *element == name).count();
    assert!(count("polyline") >= 12 && count("rect") >= 5, "{seen:?}");
    // Each figure has its table, each drawing its words.
    assert_eq!(count("figure"), count("details"));
    assert_eq!(count("desc"), count("figure"));
    assert!(!text.contains('\u{1}'));
}

#[test]
fn a_page_fetches_nothing_and_runs_nothing() {
    let text = render("page", &sections::of(&[single("a"), compared(), soaked()]));
    for word in [
        "<script", "<link", "<img", "src=", "href=", "url(", "@import", "onload",
    ] {
        assert!(!text.contains(word), "{word}");
    }
    // The only addresses are names of namespaces.
    let others = text.matches("http").count() - text.matches("\"http://www.w3.org/").count();
    assert_eq!(others, 0);
}

#[test]
fn ids_are_unique_and_labels_refer_to_them() {
    let text = render("page", &sections::of(&[single("a"), compared()]));
    let ids: Vec<&str> = text
        .split(" id=\"")
        .skip(1)
        .map(|after| after.split_once('"').unwrap().0)
        .collect();
    let unique: std::collections::HashSet<&&str> = ids.iter().collect();
    assert_eq!(unique.len(), ids.len());
    for labels in text.split("aria-labelledby=\"").skip(1) {
        for id in labels.split_once('"').unwrap().0.split(' ') {
            assert!(ids.contains(&id), "{id}");
        }
    }
}

#[test]
fn the_table_beside_a_chart_has_all_its_values() {
    let chart = LineChart {
        title: "t".to_owned(),
        x: Labelled {
            label: "seconds",
            scale: Scale::Linear,
        },
        y: Labelled {
            label: "µs",
            scale: Scale::Log,
        },
        lines: vec![
            Line {
                name: "a".to_owned(),
                points: vec![(0.0, 1.0), (1.0, 2.0)],
            },
            Line {
                name: "b".to_owned(),
                points: vec![(1.0, 30.0)],
            },
        ],
    };
    let table = chart.table();
    assert_eq!(table.head, ["seconds", "a: µs", "b: µs"]);
    assert_eq!(table.rows, [["0", "1", ""], ["1", "2", "30"]]);
}

#[test]
fn charts_without_values_are_drawn_empty() {
    let lines = LineChart {
        title: "t".to_owned(),
        x: Labelled {
            label: "x",
            scale: Scale::Nines,
        },
        y: Labelled {
            label: "y",
            scale: Scale::Log,
        },
        lines: Vec::new(),
    };
    let bars = BarChart {
        title: "t".to_owned(),
        label: "y",
        bars: vec![Bar {
            name: "zero".to_owned(),
            value: 0.0,
            range: None,
        }],
    };
    let section = Section {
        heading: "empty".to_owned(),
        parts: vec![Part::Lines(lines), Part::Bars(bars)],
    };
    let text = render("empty", &[section]);
    elements(&text);
    assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
}

#[test]
fn results_read_as_they_were_written() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("r.json");
    let mut lines = String::new();
    for outcome in [single("a"), compared(), soaked()] {
        write_result(&file, &outcome).unwrap();
        assert_eq!(read(&file).unwrap(), std::slice::from_ref(&outcome));
        lines += &(serde_json::to_string(&outcome).unwrap() + "\n");
    }
    std::fs::write(&file, lines).unwrap();
    assert_eq!(read(&file).unwrap().len(), 3);
    std::fs::write(&file, "{\"kind\":\"other\"}").unwrap();
    assert!(
        read(&file)
            .unwrap_err()
            .to_string()
            .ends_with("is no result of perf")
    );
}

#[test]
fn escaped_words_hold_nothing_that_markup_would_take() {
    assert_eq!(
        escape("<a href=\"x\">&\u{0}\u{7}é"),
        "&lt;a href=&quot;x&quot;&gt;&amp;é"
    );
}
