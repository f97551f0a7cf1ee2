//! Feeds damaged input to everything that reads input from outside, on stable Rust: inputs that are almost right, made by
//! changing right ones, under a limit on memory and time. `cargo test -p batos-fuzz` does it for some seconds;
//! `cargo run --release -p batos-fuzz -- TARGET SECONDS` for as long as wanted.
//!
//! There is no coverage to steer by. What an input comes to (its error without names and numbers) stands for it: inputs
//! with new outcomes are changed further.

mod memory;
mod mutate;
mod runner;
mod targets;

pub use runner::{Report, Settings, run};
pub use targets::{TARGETS, Target};

/// Everything is counted, so that a length that promises gigabytes is caught.
#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;
