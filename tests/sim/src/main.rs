//! Command line of the simulator.
//!
//! ```text
//! sim run [--seeds A..B] [--nodes N | --votes | --register] [--minutes N] [--failures N] [--bug NAME] [--no-shrink]
//! sim replay (--seed S [--nodes N] | FILE) [--step] [--bug NAME]
//! sim plan --seed S [--nodes N]
//! sim small [--seed S | --seeds A..B] [--bug NAME]
//! sim bugs [--bug NAME] [--seeds 0..MAX]
//! ```

#![forbid(unsafe_code)]

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sim::campaign::{campaign, kept_plans};
#[cfg(feature = "planted")]
use sim::catch::{Catch, SEEDS_MAX, catch, summary};
use sim::engine::Bug;
use sim::plan::Plan;
use sim::run::run;
use sim::shrink::shrink;
use sim::small::{crash_everywhere, crash_in_recovery, crash_while_growing, majority_worlds};
use sim::swarm;
use sim::world::format_time;

const USAGE: &str = "usage:
  sim run [--seeds A..B] [--nodes N | --votes | --register] [--minutes N] [--failures N] [--bug NAME] [--no-shrink]
  sim replay (--seed S [--nodes N] | FILE) [--step] [--bug NAME]
  sim plan --seed S [--nodes N]
  sim small [--seed S | --seeds A..B] [--bug NAME]
  sim bugs [--bug NAME] [--seeds 0..MAX]
exit: 0 clean, 1 a law is broken, 2 usage";

#[derive(Default)]
struct Options {
    seeds: Option<Range<u64>>,
    minutes: Option<f64>,
    failures: Option<usize>,
    seed: Option<u64>,
    nodes: Option<u64>,
    file: Option<PathBuf>,
    bug: Option<Bug>,
    steps: bool,
    keeps_long: bool,
    votes: bool,
    register: bool,
}

fn range(text: &str) -> Option<Range<u64>> {
    let (from, to) = text.split_once("..")?;
    Some(from.parse().ok()?..to.parse().ok()?)
}

#[cfg(feature = "planted")]
fn bug(name: &str) -> Option<Bug> {
    Bug::ALL.into_iter().find(|b| format!("{b:?}") == name)
}

#[cfg(not(feature = "planted"))]
fn bug(_name: &str) -> Option<Bug> {
    eprintln!("build with --features planted to plant a bug");
    None
}

impl Options {
    /// The plan of a seed: for a world of so many nodes, or of as many as the seed draws.
    fn plan(&self, seed: u64) -> Plan {
        match self.nodes {
            Some(nodes) => swarm::plan_of(seed, nodes),
            None => swarm::plan(seed),
        }
    }
}

fn options(words: &[String]) -> Option<Options> {
    let mut options = Options::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--seeds" => options.seeds = Some(range(words.next()?)?),
            "--minutes" => options.minutes = Some(words.next()?.parse().ok()?),
            "--failures" => options.failures = Some(words.next()?.parse().ok()?),
            "--nodes" => options.nodes = Some(words.next()?.parse().ok()?),
            "--seed" => options.seed = Some(words.next()?.parse().ok()?),
            "--bug" => options.bug = Some(bug(words.next()?)?),
            "--step" => options.steps = true,
            "--votes" => options.votes = true,
            "--register" => options.register = true,
            "--no-shrink" => options.keeps_long = true,
            file if !file.starts_with('-') => options.file = Some(file.into()),
            _ => return None,
        }
    }
    Some(options)
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let parsed = words
        .split_first()
        .and_then(|(verb, rest)| Some((verb, options(rest)?)));
    match parsed {
        Some((verb, options)) if verb == "run" => run_many(&options),
        Some((verb, options)) if verb == "replay" => replay(&options),
        Some((verb, options)) if verb == "bugs" => bugs(&options),
        Some((verb, options)) if verb == "small" => small_worlds(&options),
        Some((
            verb,
            options @ Options {
                seed: Some(seed), ..
            },
        )) if verb == "plan" => {
            print!("{}", options.plan(seed).to_text());
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// Panics of the core are failures of a seed, told once there.
fn quiet_panics() {
    std::panic::set_hook(Box::new(|_| {}));
}

fn run_many(options: &Options) -> ExitCode {
    quiet_panics();
    let time = options.minutes.map(|m| Duration::from_secs_f64(m * 60.0));
    // Of all kinds of worlds, and never the same twice, unless told otherwise.
    let is_long = time.is_some() && options.seeds.is_none();
    let is_one_kind = options.votes || options.register || options.nodes.is_some();
    let is_mixed = is_long && !is_one_kind && options.bug.is_none();
    let mut code = ExitCode::SUCCESS;
    if is_mixed {
        match replay_kept() {
            Ok(count) => println!("{count} plans that once failed were replayed: every law held"),
            Err(text) => {
                println!("{text}");
                code = ExitCode::FAILURE;
            }
        }
    }
    let start = if is_long { new_seeds() } else { 0 };
    let seeds = options
        .seeds
        .clone()
        .unwrap_or(start..if is_long { u64::MAX } else { 1000 });
    let shift = match (options.votes, options.register) {
        (_, true) => swarm::REGISTER,
        (true, false) => swarm::VOTES,
        (false, false) => 0,
    };
    let seeds = seeds.start + shift..seeds.end.saturating_add(shift);
    let (bug, failures) = (options.bug, options.failures.unwrap_or(5));
    let draw = |seed| match is_mixed {
        true => swarm::mixed(seed),
        false => options.plan(seed),
    };
    let figures = campaign(seeds, draw, bug, time, failures, |plan, failure| {
        println!(
            "seed {}: law {} at {}: {}",
            plan.seed,
            failure.law,
            format_time(failure.at),
            failure.text
        );
        let nodes = options
            .nodes
            .map_or(String::new(), |n| format!(" --nodes {n}"));
        println!(
            "  step through it: scripts/sim --seed {}{nodes} --step",
            plan.seed
        );
        if !options.keeps_long {
            store(&shrink(plan, bug, Duration::from_secs(20)));
        }
    });
    print!("{}", figures.table());
    if is_mixed {
        let (lines, missed) = figures.situations();
        print!("situations, per minute of CPU time:\n{lines}");
        if !missed.is_empty() && figures.on_cpu.as_secs() >= 60 {
            println!("not met once a minute: {missed:?}");
            code = ExitCode::FAILURE;
        }
        println!("seeds drawn from {start} on");
    }
    println!("{}", figures.summary());
    match figures.failures.is_empty() {
        true => code,
        false => ExitCode::FAILURE,
    }
}

/// Where nobody was before: by the clock.
fn new_seeds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    (since.map_or(0, |s| s.as_secs()) % (1 << 20)) << 16
}

/// Replays every plan that once failed; how many, or the first that fails again.
fn replay_kept() -> Result<usize, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    let plans = kept_plans(&folder)?;
    for (name, plan) in &plans {
        if let Some(failure) = run(plan, None, false).failure {
            return Err(format!(
                "{name}: law {} at {}: {}",
                failure.law,
                format_time(failure.at),
                failure.text
            ));
        }
    }
    Ok(plans.len())
}

/// Faults planted in the core, one after the other, until each is caught.
#[cfg(feature = "planted")]
fn bugs(options: &Options) -> ExitCode {
    quiet_panics();
    let seeds_max = options.seeds.as_ref().map_or(SEEDS_MAX, |s| s.end);
    let wanted = |bug: &Bug| options.bug.is_none_or(|only| only == *bug);
    let catch = |bug| {
        let caught = catch(bug, |index| swarm::plan_for(bug, index), seeds_max);
        println!("{}", caught.line());
        caught
    };
    let catches: Vec<Catch> = Bug::ALL.into_iter().filter(wanted).map(catch).collect();
    println!("{}", summary(&catches));
    match catches.iter().all(|c| c.found.is_some()) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

#[cfg(not(feature = "planted"))]
fn bugs(_options: &Options) -> ExitCode {
    eprintln!("build with --features planted to plant bugs");
    ExitCode::from(2)
}

/// Keeps a shrunk plan among the seeds that every test run repeats.
fn store(plan: &Plan) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("seeds")
        .join(format!("{}.plan", plan.seed));
    match std::fs::write(&path, plan.to_text()) {
        Ok(()) => println!("  shrunk to {} steps: {}", plan.steps.len(), path.display()),
        Err(error) => println!(
            "  shrunk plan cannot be kept at {}: {error}",
            path.display()
        ),
    }
}

fn small_worlds(options: &Options) -> ExitCode {
    quiet_panics();
    let seed = options.seed.unwrap_or(1);
    let mut all = vec![
        crash_everywhere(seed, 64, options.bug),
        crash_while_growing(seed, 8, options.bug),
    ];
    for first in [3, 8, 15, 25, 40] {
        all.push(crash_in_recovery(seed, first, options.bug));
    }
    for tried in &all {
        println!("{} runs, {} events", tried.runs, tried.events);
    }
    for seed in options.seeds.clone().unwrap_or(seed..seed + 4) {
        let worlds = majority_worlds(seed, options.bug);
        println!("seed {seed}: {}", worlds.summary());
        all.push(worlds.tried);
    }
    let failures = all.iter().flat_map(|t| &t.failures);
    let mut code = ExitCode::SUCCESS;
    for (plan, report) in failures {
        println!("{:?}\n{}", report.failure, plan.to_text());
        code = ExitCode::FAILURE;
    }
    code
}

fn replay(options: &Options) -> ExitCode {
    if !options.steps {
        quiet_panics();
    }
    let plan = match (options.seed, &options.file) {
        (Some(seed), None) => options.plan(seed),
        (None, Some(file)) => {
            match std::fs::read_to_string(file)
                .map_err(|e| e.to_string())
                .and_then(|t| Plan::parse(&t))
            {
                Ok(plan) => plan,
                Err(why) => {
                    eprintln!("{}: {why}", file.display());
                    return ExitCode::from(2);
                }
            }
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    let report = run(&plan, options.bug, options.steps);
    for (what, count) in &report.coverage {
        println!("  {count:>10}  {what}");
    }
    match report.failure {
        None => {
            println!(
                "seed {}: every law held, {} events",
                plan.seed, report.events
            );
            ExitCode::SUCCESS
        }
        Some(failure) => {
            println!(
                "seed {}: law {} at {}: {}",
                plan.seed,
                failure.law,
                format_time(failure.at),
                failure.text
            );
            ExitCode::FAILURE
        }
    }
}
