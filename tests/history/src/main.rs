//! `history check FILE`: judges a recorded history.
//!
//! Exit 0: no law broken; 1: laws broken, one line each; 2: not a history.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use history::{History, Report};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [command, path] = arguments.as_slice() else {
        eprintln!("usage: history check FILE");
        return ExitCode::from(2);
    };
    if command != "check" {
        eprintln!("usage: history check FILE");
        return ExitCode::from(2);
    }
    match judge(path) {
        Ok(report) => tell(&report),
        Err(why) => {
            eprintln!("{path} is not a history: {why}");
            ExitCode::from(2)
        }
    }
}

fn judge(path: &str) -> Result<Report, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let mut history = History::parse(&text).map_err(|error| error.to_string())?;
    history.sort();
    history
        .check()
        .map_err(|(at, error)| match history.events().get(at) {
            Some((time, _)) => format!("event {} in order of time, at {time}: {error}", at + 1),
            None => error.to_string(),
        })
}

fn tell(report: &Report) -> ExitCode {
    for violation in &report.violations {
        println!("{violation}");
    }
    let counts = report.counts;
    println!(
        "{} broken laws; {} requests, {} blocks touched, {} block values read ({} zeros unnamed, \
         {} late answers ignored)",
        report.violations.len(),
        counts.requests,
        counts.blocks,
        counts.blocks_read,
        counts.zeros_unnamed,
        counts.late_answers,
    );
    if report.is_clean() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
