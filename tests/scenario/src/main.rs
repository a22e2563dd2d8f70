//! Long runs, by hand: `cargo run --release -p scenario -- kills --rounds 200`.

#![forbid(unsafe_code)]

use clap::{Parser, Subcommand};
use scenario::{guest, kills, restarts};

#[derive(Debug, Parser)]
#[command(
    name = "scenario",
    about = "Real processes killed, judged by what clients saw"
)]
struct Cli {
    #[command(subcommand)]
    run: Run,
}

#[derive(Debug, Subcommand)]
enum Run {
    /// kill -9 of either node at random moments, under clients whose history is judged
    Kills {
        /// How many times something is killed
        #[arg(long, default_value_t = 200)]
        rounds: u32,
        /// Seed of all choices
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Size of the volume, MiB
        #[arg(long, default_value_t = 32)]
        mebibytes: u64,
        /// Clients that write at the same time
        #[arg(long, default_value_t = 3)]
        clients: u64,
    },
    /// Nodes taken over by new processes (`serve --takeover`) under clients that see no error
    Restarts {
        /// How many times
        #[arg(long, default_value_t = 20)]
        rounds: u32,
    },
    /// A Linux kernel in QEMU as the client of a failover; fetches the kernel once
    Guest,
    /// A Linux kernel in QEMU whose node is taken over again and again under ext4 and fio
    GuestTakeovers {
        /// How many times
        #[arg(long, default_value_t = 10)]
        rounds: u32,
    },
    /// A volume on QEMU's NVMe device, past the block layer and polled, with its server killed
    Nvme,
    /// ext4 and XFS of a Linux kernel in QEMU under fsx and stress-ng; builds fsx once
    Stress,
}

fn main() {
    conformance::refresh_binary();
    match Cli::parse().run {
        Run::Kills {
            rounds,
            seed,
            mebibytes,
            clients,
        } => {
            let plan = kills::Plan {
                mebibytes,
                clients,
                is_verbose: true,
                ..kills::Plan::of(rounds, seed)
            };
            let tally = kills::run(&plan);
            println!("{tally:#?}");
            println!("{rounds} kills: 0 violations, the copies are equal");
        }
        Run::Restarts { rounds } => {
            println!("{:#?}", restarts::run(rounds));
            println!("{rounds} takeovers: 0 errors, the copies are equal");
        }
        Run::Guest if guest::run() => println!("the file system survived its primary"),
        Run::Nvme if guest::nvme() => println!("the namespace holds what was synced"),
        Run::Stress if guest::stress() => println!("both file systems are clean"),
        Run::GuestTakeovers { rounds } if guest::takeovers(rounds) => {
            println!("{rounds} takeovers: the guest saw no error");
        }
        Run::Guest | Run::GuestTakeovers { .. } | Run::Nvme | Run::Stress => std::process::exit(1),
    }
}
