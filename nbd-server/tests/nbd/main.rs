//! Listeners and connections over real sockets.

mod allocations;
mod certificates;
mod common;
mod counts;
mod listener;
mod moving;
mod node;
mod served;
mod session;
mod tls;

#[global_allocator]
static ALLOCATOR: allocations::Counting = allocations::Counting;
