//! Links between nodes: over several networks, under TLS, and refused with the cause where that does not fit.

mod paths;
mod sealed;
mod strangers;
