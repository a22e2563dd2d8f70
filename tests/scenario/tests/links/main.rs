//! Links between nodes: under TLS, and refused with the cause where that does not fit.

mod sealed;
mod strangers;
