//! The mind: making what a universe lacks. A becoming asks a model for a draft, has the Crucible judge it by running
//! it, and swaps it into the graph; every step is journalled, so that a killed process goes on where it was.

mod becoming;
mod crucible;
mod draft;
mod journal;
mod prompt;
mod recorded;

pub use becoming::{BecomingError, Mind, Outcome};
pub use crucible::Verdict;
pub use draft::{Answer, Drafter, MindError};
pub use journal::{BecomingEvent, Job, Step};
pub use prompt::Prompt;
pub use recorded::Recordings;
