//! `pollux demo`: two synchronous nodes and their clients on this machine, shown working.

/// Arguments of `pollux demo`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct DemoArgs {
    /// Keep the nodes running until Ctrl-C
    #[arg(long)]
    pub stay: bool,
}
