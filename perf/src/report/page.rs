//! A report as one HTML file: no script, nothing fetched, well-formed as XML too.

use std::fmt::Write;

use super::chart::{BarChart, LineChart};

/// Rows of words under a head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Of each column.
    pub head: Vec<String>,
    /// As many words each as the head has.
    pub rows: Vec<Vec<String>>,
}

/// What stands in a section.
#[derive(Clone, Debug)]
pub enum Part {
    /// A paragraph.
    Text(String),
    /// A table.
    Table(Table),
    /// Lines, and their values as a table to unfold.
    Lines(LineChart),
    /// Bars, and their values as a table to unfold.
    Bars(BarChart),
}

/// A heading and what belongs to it.
#[derive(Clone, Debug)]
pub struct Section {
    /// Its heading.
    pub heading: String,
    /// From top to bottom.
    pub parts: Vec<Part>,
}

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1b1b1b;--paper:#fff;--grid:#d5d5d5;--head:#f1f3f5}
@media(prefers-color-scheme:dark){:root{--ink:#e6e6e6;--paper:#15181b;--grid:#3b4146;--head:#22272b}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);\
max-width:60rem;margin:0 auto;padding:1rem}
h1{line-height:1.2}h2{margin-top:2.5rem}h3{margin:0 0 .3rem;font-size:1rem}
figure{margin:1.5rem 0}figure>svg{width:100%;height:auto}
svg text{font:12px system-ui,sans-serif;fill:var(--ink)}
svg .grid{stroke:var(--grid);stroke-width:1}svg rect+.grid,svg text+.grid{stroke:var(--grid)}
svg rect~.grid{stroke:var(--ink)}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:.2rem 1.2rem;padding:0;margin:.2rem 0}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.875rem}
th,td{padding:.2rem .6rem;border:1px solid var(--grid);text-align:right}
th{background:var(--head)}th:first-child,td:first-child{text-align:left}
summary{cursor:pointer}
";

/// Words as they may stand in HTML and XML, also between quotes. Characters that XML does not know
/// are left out.
pub fn escape(words: &str) -> String {
    let mut out = String::with_capacity(words.len());
    for c in words.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\t' | '\n' => out.push(' '),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => {}
            c => out.push(c),
        }
    }
    out
}

/// The whole page.
pub fn render(title: &str, sections: &[Section]) -> String {
    let title = escape(title);
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\" xmlns=\"http://www.w3.org/1999/xhtml\">\n<head>\n\
         <meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <h1>{title}</h1>\n"
    );
    let mut number = 0;
    for section in sections {
        let _ = writeln!(out, "<section>\n<h2>{}</h2>", escape(&section.heading));
        for part in &section.parts {
            number += 1;
            write_part(part, &format!("c{number}"), &mut out);
        }
        out.push_str("</section>\n");
    }
    out.push_str("</main>\n</body>\n</html>\n");
    out
}

fn write_part(part: &Part, id: &str, out: &mut String) {
    match part {
        Part::Text(words) => {
            let _ = writeln!(out, "<p>{}</p>", escape(words));
        }
        Part::Table(table) => write_table(table, out),
        Part::Lines(chart) => {
            figure(&chart.title, out);
            chart.draw(id, out);
            twin(&chart.table(), out);
        }
        Part::Bars(chart) => {
            figure(&chart.title, out);
            chart.draw(id, out);
            twin(&chart.table(), out);
        }
    }
}

fn figure(title: &str, out: &mut String) {
    let _ = writeln!(
        out,
        "<figure>\n<figcaption><h3>{}</h3></figcaption>",
        escape(title)
    );
}

fn twin(table: &Table, out: &mut String) {
    out.push_str("<details><summary>The same as a table</summary>\n");
    write_table(table, out);
    out.push_str("</details>\n</figure>\n");
}

fn write_table(table: &Table, out: &mut String) {
    out.push_str("<div class=\"wide\"><table>\n<thead><tr>");
    for word in &table.head {
        let _ = write!(out, "<th scope=\"col\">{}</th>", escape(word));
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for row in &table.rows {
        out.push_str("<tr>");
        for word in row {
            let _ = write!(out, "<td>{}</td>", escape(word));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody>\n</table></div>\n");
}
