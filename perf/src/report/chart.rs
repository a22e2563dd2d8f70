//! Charts as SVG: lines and bars. Each comes with the same values as a table, for those who cannot
//! see it or want the numbers. Lines differ by colour and by dashes.

use std::fmt::Write;

use super::page::{Table, escape};
use super::scale::{Axis, Scale, show, show_percent};

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 340.0;
const LEFT: f64 = 74.0;
const RIGHT: f64 = 28.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 46.0;
/// Colours that people with any kind of colour vision tell apart (Okabe and Ito).
const COLOURS: [&str; 7] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f",
];
const DASHES: [&str; 4] = ["none", "7 3", "2 3", "10 3 2 3"];

/// What an axis shows.
#[derive(Clone, Copy, Debug)]
pub struct Labelled {
    /// Quantity and unit.
    pub label: &'static str,
    /// How values are spread.
    pub scale: Scale,
}

/// A line of a chart.
#[derive(Clone, Debug)]
pub struct Line {
    /// Its name in the legend.
    pub name: String,
    /// x and y.
    pub points: Vec<(f64, f64)>,
}

/// Values over values.
#[derive(Clone, Debug)]
pub struct LineChart {
    /// What it shows.
    pub title: String,
    /// To the right.
    pub x: Labelled,
    /// Up.
    pub y: Labelled,
    /// What is drawn.
    pub lines: Vec<Line>,
}

/// A bar of a chart.
#[derive(Clone, Debug)]
pub struct Bar {
    /// What it stands for.
    pub name: String,
    /// How long it is.
    pub value: f64,
    /// The least and the most of its rounds, where there were several.
    pub range: Option<(f64, f64)>,
}

/// One value for each name.
#[derive(Clone, Debug)]
pub struct BarChart {
    /// What it shows.
    pub title: String,
    /// Quantity and unit.
    pub label: &'static str,
    /// From top to bottom.
    pub bars: Vec<Bar>,
}

impl LineChart {
    /// Appends the drawing; `id` is unique in the page.
    pub fn draw(&self, id: &str, out: &mut String) {
        let each = |pick: fn(&(f64, f64)) -> f64| {
            let points = self.lines.iter().flat_map(|line| line.points.iter());
            points.map(pick).collect::<Vec<_>>()
        };
        let x = Axis::over(self.x.scale, each(|p| p.0).into_iter());
        let y = Axis::over(self.y.scale, each(|p| p.1).into_iter());
        let names: Vec<&str> = self.lines.iter().map(|line| line.name.as_str()).collect();
        let what = format!(
            "{} over {}: {}",
            self.y.label,
            self.x.label,
            names.join(", ")
        );
        open(id, HEIGHT, &self.title, &what, out);
        let named = |scale, value| match scale {
            Scale::Nines => show_percent(value),
            _ => show(value),
        };
        for tick in x.ticks() {
            let Some(at) = x.at(*tick).map(across) else {
                continue;
            };
            let (low, high) = (HEIGHT - BOTTOM, TOP);
            line(at, low, at, high, out);
            text(at, low + 17.0, "middle", &named(self.x.scale, *tick), out);
        }
        for tick in y.ticks() {
            let Some(at) = y.at(*tick).map(up) else {
                continue;
            };
            line(LEFT, at, WIDTH - RIGHT, at, out);
            text(
                LEFT - 7.0,
                at + 4.0,
                "end",
                &named(self.y.scale, *tick),
                out,
            );
        }
        let middle = LEFT + (WIDTH - LEFT - RIGHT) / 2.0;
        text(middle, HEIGHT - 7.0, "middle", self.x.label, out);
        turned(14.0, TOP + (HEIGHT - TOP - BOTTOM) / 2.0, self.y.label, out);
        for (number, one) in self.lines.iter().enumerate() {
            let places = one
                .points
                .iter()
                .filter_map(|(a, b)| Some((x.at(*a)?, y.at(*b)?)));
            let places: Vec<String> = places
                .map(|(a, b)| format!("{:.1},{:.1}", across(a), up(b)))
                .collect();
            let (colour, dash) = style(number);
            let _ = writeln!(
                out,
                "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" \
                 stroke-dasharray=\"{dash}\" points=\"{}\"><title>{}</title></polyline>",
                places.join(" "),
                escape(&one.name)
            );
        }
        out.push_str("</svg>\n");
        legend(&names, out);
    }

    /// The same values: a row for each x, a column for each line.
    pub fn table(&self) -> Table {
        let points = self.lines.iter().flat_map(|line| line.points.iter());
        let mut xs: Vec<f64> = points.map(|point| point.0).collect();
        xs.sort_by(f64::total_cmp);
        xs.dedup();
        let mut head = vec![self.x.label.to_owned()];
        head.extend(
            self.lines
                .iter()
                .map(|line| format!("{}: {}", line.name, self.y.label)),
        );
        let row = |x: &f64| {
            let mut row = vec![match self.x.scale {
                Scale::Nines => show_percent(*x),
                _ => show(*x),
            }];
            row.extend(self.lines.iter().map(|line| {
                let found = line.points.iter().find(|point| point.0 == *x);
                found.map_or_else(String::new, |point| show(point.1))
            }));
            row
        };
        let rows = xs.iter().map(row).collect();
        Table { head, rows }
    }
}

impl BarChart {
    /// Appends the drawing; `id` is unique in the page.
    pub fn draw(&self, id: &str, out: &mut String) {
        const BAR: f64 = 26.0;
        const NAMES: f64 = 170.0;
        const VALUES: f64 = 76.0;
        let most = self.bars.iter();
        let most = most.map(|bar| bar.range.map_or(bar.value, |range| range.1));
        let axis = Axis::over(Scale::Linear, most);
        let height = BAR * self.bars.len() as f64 + 12.0;
        let each = self.bars.iter();
        let each = each.map(|bar| format!("{} {}", bar.name, show(bar.value)));
        let what = format!("{}: {}", self.label, each.collect::<Vec<_>>().join(", "));
        open(id, height, &self.title, &what, out);
        let place = |value| axis.at(value).unwrap_or(0.0) * (WIDTH - NAMES - VALUES);
        for (number, Bar { name, value, range }) in self.bars.iter().enumerate() {
            let top = 6.0 + BAR * number as f64;
            let middle = top + BAR / 2.0;
            let (colour, _) = style(number);
            text(NAMES - 8.0, middle + 4.0, "end", name, out);
            let _ = writeln!(
                out,
                "<rect x=\"{NAMES}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" \
                 fill=\"{colour}\"/>",
                top + 4.0,
                place(*value).max(1.0),
                BAR - 8.0
            );
            let mut end = place(*value);
            if let Some((least, most)) = range {
                line(
                    NAMES + place(*least),
                    middle,
                    NAMES + place(*most),
                    middle,
                    out,
                );
                end = end.max(place(*most));
            }
            text(NAMES + end + 6.0, middle + 4.0, "start", &show(*value), out);
        }
        out.push_str("</svg>\n");
    }

    /// The same values: a row for each bar.
    pub fn table(&self) -> Table {
        let head = ["", self.label, "least", "most"]
            .map(str::to_owned)
            .to_vec();
        let row = |Bar { name, value, range }: &Bar| {
            let bound =
                |pick: fn((f64, f64)) -> f64| range.map(pick).map_or_else(String::new, show);
            vec![name.clone(), show(*value), bound(|r| r.0), bound(|r| r.1)]
        };
        let rows = self.bars.iter().map(row).collect();
        Table { head, rows }
    }
}

fn across(at: f64) -> f64 {
    LEFT + at * (WIDTH - LEFT - RIGHT)
}

fn up(at: f64) -> f64 {
    HEIGHT - BOTTOM - at * (HEIGHT - BOTTOM - TOP)
}

fn style(number: usize) -> (&'static str, &'static str) {
    let dash = DASHES[number / COLOURS.len() % DASHES.len()];
    let dash = if number < COLOURS.len() {
        DASHES[number % DASHES.len()]
    } else {
        dash
    };
    (COLOURS[number % COLOURS.len()], dash)
}

fn open(id: &str, height: f64, title: &str, what: &str, out: &mut String) {
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-labelledby=\"{id}-title {id}-what\">\n<title id=\"{id}-title\">{}</title>\n\
         <desc id=\"{id}-what\">{}</desc>",
        escape(title),
        escape(what)
    );
}

fn line(x1: f64, y1: f64, x2: f64, y2: f64, out: &mut String) {
    let _ = writeln!(
        out,
        "<line class=\"grid\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
    );
}

fn text(x: f64, y: f64, anchor: &str, words: &str, out: &mut String) {
    let words = escape(words);
    let _ = writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>"
    );
}

fn turned(x: f64, y: f64, words: &str, out: &mut String) {
    let words = escape(words);
    let _ = writeln!(
        out,
        "<text transform=\"translate({x:.1} {y:.1}) rotate(-90)\" text-anchor=\"middle\">\
         {words}</text>"
    );
}

/// Names with the strokes of their lines.
fn legend(names: &[&str], out: &mut String) {
    out.push_str("<ul class=\"legend\">\n");
    for (number, name) in names.iter().enumerate() {
        let (colour, dash) = style(number);
        let _ = writeln!(
            out,
            "<li><svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 34 8\" width=\"34\" \
             height=\"8\" aria-hidden=\"true\"><line x1=\"0\" y1=\"4\" x2=\"34\" y2=\"4\" \
             stroke=\"{colour}\" stroke-width=\"3\" stroke-dasharray=\"{dash}\"/></svg> {}</li>",
            escape(name)
        );
    }
    out.push_str("</ul>\n");
}
