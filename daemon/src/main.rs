//! The `pollux` binary.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    pollux_daemon::cli::main()
}
