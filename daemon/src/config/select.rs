//! Which node of the file this process is, or talks to.

use super::{Config, Node, nearest};
use crate::explain::{self, Failure};

/// The file that is read if nothing else was named.
pub const DEFAULT_PATH: &str = "/etc/pollux/pollux.toml";

/// The node named `wanted`; else the only node; else the one named as the host, with or without
/// its domain. Errors: none of these is in the file.
pub fn select_node<'c>(
    config: &'c Config,
    wanted: Option<&str>,
    hostname: &str,
) -> Result<&'c Node, Failure> {
    let find = |name: &str| config.nodes.iter().find(|node| node.name.value == name);
    let names = || config.nodes.iter().map(|node| node.name.as_str());
    match (wanted, &config.nodes[..]) {
        (Some(name), _) => find(name).ok_or_else(|| {
            let all: Vec<&str> = names().collect();
            explain::no_such_node(name, nearest(name, names()), &all)
        }),
        (None, [only]) => Ok(only),
        (None, _) => {
            let short = hostname.split('.').next().unwrap_or_default();
            find(hostname).or_else(|| find(short)).ok_or_else(|| {
                let all: Vec<&str> = names().collect();
                explain::node_not_chosen(hostname, &all)
            })
        }
    }
}
