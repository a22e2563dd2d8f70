//! The binary and the API against a node that does what the test says.

mod api;
mod cli;
mod config;
mod engine_runs;
mod fake;
mod serve;
mod takeover;
