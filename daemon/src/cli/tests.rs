use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory};

use super::*;

fn all_commands(command: &Command, name: &str, found: &mut Vec<(String, Command)>) {
    found.push((name.to_owned(), command.clone()));
    for below in command.get_subcommands() {
        all_commands(below, &format!("{name} {}", below.get_name()), found);
    }
}

fn commands() -> Vec<(String, Command)> {
    let mut found = Vec::new();
    all_commands(&Cli::command(), "pollux", &mut found);
    found
}

#[test]
fn the_command_line_is_well_formed() {
    Cli::command().debug_assert();
}

#[test]
fn every_help_ends_with_examples_that_parse() {
    for (name, command) in commands() {
        let help = command
            .get_after_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        let (_, examples) = help
            .split_once("EXAMPLES\n")
            .unwrap_or_else(|| panic!("{name}"));
        assert!(
            !examples.contains("\n\n"),
            "{name}: something stands after the examples"
        );
        for line in examples.lines() {
            let line = line.trim_start();
            assert!(line.starts_with(&name), "{name}: {line}");
            let words = line.split("  ").next().unwrap_or_default();
            let words = words.split(" && ").next().unwrap_or_default();
            if let Err(wrong) = Cli::try_parse_from(words.split(' ')) {
                panic!("{line}: {wrong}");
            }
        }
    }
}

#[test]
fn config_and_node_stand_before_or_after_the_verb() {
    for line in [
        "pollux --config f --node n status",
        "pollux status --config f --node n",
        "pollux --config f volume create v --node n",
        "pollux peer connect beta --config f --node n",
    ] {
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        assert_eq!(cli.place.config.as_deref(), Some(Path::new("f")), "{line}");
        assert_eq!(cli.place.node.as_deref(), Some("n"), "{line}");
    }
}

fn sources(below: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => sources(&path, found),
            false => found.push(path),
        }
    }
}

/// Words after each `pollux ` in code, comments left out.
fn mentions(source: &str) -> Vec<Vec<&str>> {
    let code = source
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let mut found = Vec::new();
    for line in code {
        let starts = |at: &usize| !line[..*at].ends_with(['/', '-']);
        for at in line
            .match_indices("pollux ")
            .map(|(at, _)| at)
            .filter(starts)
        {
            let rest = line[at + "pollux ".len()..].split(['`', '"', '\\', ';', '{', '<']);
            found.push(
                rest.take(1)
                    .flat_map(|text| text.split_whitespace())
                    .take(2)
                    .collect(),
            );
        }
    }
    found
}

#[test]
fn no_message_names_a_verb_that_does_not_exist() {
    let mut paths = Vec::new();
    sources(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut paths,
    );
    let root = Cli::command();
    let is_word = |word: &&str| word.starts_with(|c: char| c.is_ascii_lowercase());
    let mut seen = 0;
    for path in paths {
        let source = std::fs::read_to_string(&path).unwrap();
        for words in mentions(&source) {
            let Some(verb) = words.first().filter(|word| is_word(word)) else {
                continue;
            };
            let verb = verb.trim_end_matches(['.', ',', ':', ')']);
            let known = root.find_subcommand(verb);
            let known = known.unwrap_or_else(|| panic!("{}: pollux {verb}", path.display()));
            let below = words.get(1).filter(|word| is_word(word));
            if let Some(below) = below.filter(|_| known.has_subcommands()) {
                let exists = known.find_subcommand(below).is_some();
                assert!(exists, "{}: pollux {verb} {below}", path.display());
            }
            seen += 1;
        }
    }
    assert!(
        seen > 50,
        "only {seen} mentions found; the search itself is broken"
    );
}

#[test]
fn start_here_fits_twelve_lines() {
    assert!(START_HERE.lines().count() <= 12);
}
