//! The mind: making what a universe lacks. A becoming asks a model for a draft, has the Crucible judge it by running
//! it, asks again with what was wrong, and swaps what holds into the graph; every step is journalled, so that a killed
//! process goes on where it was. Models are reached over OpenAI's protocol, or answer from recordings.

mod agreement;
mod ask;
mod becoming;
mod budget;
mod client;
mod codex;
mod crucible;
mod draft;
mod extract;
mod inputs;
mod journal;
mod judgement;
mod kept;
mod laws;
mod lease;
mod lint;
mod listing;
mod openai;
mod organs;
mod outcome;
mod persona;
mod policy;
mod prompt;
mod proposal;
mod provenance;
mod recorded;
mod repair;
mod replay;
mod retry;
mod route;
mod secret;
mod shadow;
mod sse;

pub use agreement::{Agreement, Behaviour, Dissent, agree};
pub use ask::Directive;
pub use becoming::{BecomingError, Mind, Outcome};
pub use budget::Budget;
pub use client::{Client, ClientError, Endpoint, Server, Spent};
pub use codex::{Change, Codex, Rule};
pub use crucible::{Base, Case, Trace, Verdict};
pub use draft::{Answer, Drafter, Either, MindError};
pub use inputs::Inputs;
pub use journal::{BecomingEvent, Job, Step, Trial, job_targets};
pub use openai::{ChatMessage, Input, ModelAnswer, ModelRequest, Usage};
pub use organs::{Crucible, Forge, Scribe};
pub use outcome::{OutcomeEvent, Said};
pub use persona::Persona;
pub use policy::{Approver, Autonomy, Policy};
pub use prompt::{Failure, Material, Prompt};
pub use proposal::{ApprovalError, approver, public_key, sign, signing_key};
pub use recorded::{Recorder, Recordings};
pub use repair::Defect;
pub use route::{Organ, Route, Situation, Trigger};
pub use secret::{ApiKey, looks_secret};
