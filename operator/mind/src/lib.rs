//! The mind: making what a universe lacks. A becoming asks a model for a draft, has the Crucible judge it by running
//! it, and swaps it into the graph; every step is journalled, so that a killed process goes on where it was.

mod becoming;
mod client;
mod crucible;
mod draft;
mod journal;
mod openai;
mod prompt;
mod recorded;
mod retry;
mod secret;
mod sse;

pub use becoming::{BecomingError, Mind, Outcome};
pub use client::{Client, ClientError, Endpoint, Server, Spent};
pub use crucible::Verdict;
pub use draft::{Answer, Drafter, MindError};
pub use journal::{BecomingEvent, Job, Step};
pub use openai::{ChatMessage, Input, ModelAnswer, ModelRequest, Usage};
pub use prompt::Prompt;
pub use recorded::Recordings;
pub use secret::{ApiKey, looks_secret};
