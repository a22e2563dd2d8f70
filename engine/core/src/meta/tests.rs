//! Whole metadata areas: what a crash, a flipped bit or a stranger leaves, and what is made of it.

mod attributes;
mod golden;
mod nodes;
mod refusals;
mod torn;
mod world;
