//! `cargo run --release -p conformance -- matrix [--write FILE]`: every client over every transport.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use conformance::matrix::{Bench, Cell, print, put_into};

const USAGE: &str = "usage: conformance matrix [--write FILE]
Runs every third-party client against the daemon and prints the table of results; with --write it
also stands between the markers in FILE. Exit 1 if a client fails.";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let document = match words[..] {
        ["matrix"] => None,
        ["matrix", "--write", file] => Some(file),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    conformance::refresh_binary();
    let Some(bench) = Bench::start() else {
        return ExitCode::FAILURE;
    };
    let rows = bench.rows();
    let table = print(&rows);
    println!("{table}");
    let cells = || {
        rows.iter()
            .flat_map(|row| row.cells.iter().map(move |cell| (row, cell)))
    };
    for (row, cell) in cells() {
        if let Cell::Fails(why) = cell {
            eprintln!("{}: {why}", row.client);
        }
    }
    if let Some(file) = document
        && let Err(why) = write(file, &table)
    {
        eprintln!("{file}: {why}");
        return ExitCode::FAILURE;
    }
    match cells().any(|(_, cell)| matches!(cell, Cell::Fails(_))) {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    }
}

fn write(file: &str, table: &str) -> Result<(), String> {
    let document = std::fs::read_to_string(file).map_err(|why| why.to_string())?;
    let document = put_into(&document, table)?;
    std::fs::write(file, document).map_err(|why| why.to_string())
}
