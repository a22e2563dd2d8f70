//! The table as Markdown, and its place in a document.

use super::{Cell, Transport};

/// Lines between which the table stands.
const BEGIN: &str = "<!-- interop: begin -->";
const END: &str = "<!-- interop: end -->";

/// One client.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its name.
    pub client: &'static str,
    /// Its own word for its version.
    pub version: String,
    /// What it did.
    pub shown: &'static str,
    /// Results, in the order of [`Transport::ALL`].
    pub cells: Vec<Cell>,
}

/// The table, and below it the words of what failed.
pub fn print(rows: &[Row]) -> String {
    let heads: Vec<&str> = Transport::ALL
        .iter()
        .map(|transport| transport.word())
        .collect();
    let mut text = format!(
        "| client | version | what it does | {} |\n",
        heads.join(" | ")
    );
    text += &format!("|---|---|---|{}\n", "---|".repeat(heads.len()));
    for row in rows {
        let cells: Vec<String> = row.cells.iter().map(Cell::to_string).collect();
        let Row {
            client,
            version,
            shown,
            ..
        } = row;
        text += &format!(
            "| {client} | {version} | {shown} | {} |\n",
            cells.join(" | ")
        );
    }
    for row in rows {
        for (transport, cell) in Transport::ALL.iter().zip(&row.cells) {
            if let Cell::Fails(why) = cell {
                let first = why.lines().find(|line| !line.trim().is_empty());
                let (client, over) = (row.client, transport.word());
                text += &format!("\n- {client} over {over}: {}\n", first.unwrap_or("no word"));
            }
        }
    }
    text
}

/// `document` with the table between its markers. Errors: it has no markers.
pub fn put_into(document: &str, table: &str) -> Result<String, String> {
    let missing = |marker: &str| format!("the document has no line `{marker}`");
    let (head, rest) = document.split_once(BEGIN).ok_or_else(|| missing(BEGIN))?;
    let (_, tail) = rest.split_once(END).ok_or_else(|| missing(END))?;
    Ok(format!("{head}{BEGIN}\n{table}{END}{tail}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_table_replaces_what_stood_between_the_markers_and_nothing_else() {
        let document = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        let put = put_into(&document, "new\n").unwrap();
        assert_eq!(put, format!("before\n{BEGIN}\nnew\n{END}\nafter\n"));
        assert_eq!(put_into(&put, "new\n").unwrap(), put);
        assert!(put_into("no markers", "new\n").is_err());
    }

    #[test]
    fn a_failure_is_told_below_the_table() {
        let row = Row {
            client: "c",
            version: "1".into(),
            shown: "reads",
            cells: vec![
                Cell::Works(Duration::ZERO),
                Cell::Fails("\nbroken pipe\nmore".into()),
                Cell::Missing("p"),
                Cell::Absent("no TLS".into()),
            ],
        };
        let text = print(&[row]);
        assert!(
            text.contains("| c | 1 | reads | works | **fails** | not installed (p) | no TLS |\n")
        );
        assert!(text.ends_with("\n- c over Unix: broken pipe\n"));
    }
}
