//! Long runs, by hand: `cargo run --release -p scenario -- kills --rounds 200`.

#![forbid(unsafe_code)]

use clap::{Parser, Subcommand};
use scenario::{Shape, failovers, guest, hand_overs, kills, restarts};

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
    /// Three nodes that choose the primary by majority, killed and paused at random
    Failovers {
        /// How many processes are killed or paused
        #[arg(long, default_value_t = 100)]
        kills: u32,
        /// Seed of all choices
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Nodes with data: 2 and a witness, or 3
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(2..=3))]
        replicas: u8,
        /// Size of the volume, MiB
        #[arg(long, default_value_t = 32)]
        mebibytes: u64,
        /// Clients that write at the same time
        #[arg(long, default_value_t = 2)]
        clients: u64,
        /// `[cluster] lease`
        #[arg(long, default_value = "2s")]
        lease: String,
    },
    /// The primary role moved from node to node by command, and the stalls that clients saw
    HandOvers {
        /// How often it moves
        #[arg(long, default_value_t = 50)]
        rounds: u32,
        /// Seed of all choices
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Nodes with data: 2 and a witness, or 3
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(2..=3))]
        replicas: u8,
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
    /// A Linux kernel in QEMU whose primary is killed again and again under ext4 and SQLite
    GuestFailovers {
        /// How many times
        #[arg(long, default_value_t = 20)]
        failovers: u32,
    },
    /// A volume on QEMU's NVMe device, past the block layer and polled, with its server killed
    Nvme,
    /// ext4 and XFS of a Linux kernel in QEMU under fsx and stress-ng; builds fsx once
    Stress,
    /// Packets, bytes and guest instructions of DRBD 8.4 and of a pair of ours at the same writes
    Drbd {
        /// Writes of 4 KiB at each depth
        #[arg(long, default_value_t = 1000)]
        writes: u32,
    },
}

fn shape_of(replicas: u8) -> Shape {
    match replicas {
        3 => Shape::Three,
        _ => Shape::Witness,
    }
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
        Run::Failovers {
            kills,
            seed,
            replicas,
            mebibytes,
            clients,
            lease,
        } => {
            let shape = shape_of(replicas);
            let plan = failovers::Plan {
                mebibytes,
                clients,
                lease,
                is_verbose: true,
                ..failovers::Plan::of(shape, kills, seed)
            };
            let tally = failovers::run(&plan);
            println!("{tally:#?}");
            let kills = tally.kills;
            println!(
                "{kills} kills: 0 lost, 0 stale, 0 divergent; {}",
                tally.failovers_text()
            );
        }
        Run::HandOvers {
            rounds,
            seed,
            replicas,
        } => {
            let tally = hand_overs::run(&hand_overs::Plan {
                shape: shape_of(replicas),
                rounds,
                seed,
                mebibytes: 32,
                clients: 2,
            });
            println!("{}; {} answers, 0 errors", tally.text(), tally.answers);
        }
        Run::Restarts { rounds } => {
            println!("{:#?}", restarts::run(rounds));
            println!("{rounds} takeovers: 0 errors, the copies are equal");
        }
        Run::Guest if guest::run() => println!("the file system survived its primary"),
        Run::Nvme if guest::nvme() => println!("the namespace holds what was synced"),
        Run::Drbd { writes } if guest::beside_drbd(writes) => println!("both were counted"),
        Run::Stress if guest::stress() => println!("both file systems are clean"),
        Run::GuestTakeovers { rounds } if guest::takeovers(rounds) => {
            println!("{rounds} takeovers: the guest saw no error");
        }
        Run::GuestFailovers { failovers } if guest::failovers(failovers) => {
            println!("{failovers} failovers: every committed row is there");
        }
        Run::Guest
        | Run::GuestFailovers { .. }
        | Run::GuestTakeovers { .. }
        | Run::Nvme
        | Run::Stress
        | Run::Drbd { .. } => std::process::exit(1),
    }
}
