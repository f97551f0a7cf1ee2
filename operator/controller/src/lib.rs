//! Reconciles custom resources: Universes into workers, Prototypes into objects, Snapshots into images on a volume,
//! ModelPools into GPU pods, Facets into adapters on them; shows what universes propose, and tells them what people decide.
//!
//! Deciding is separate from doing. Each kind has a `plan` that is pure: what is wanted and what is seen go in, children,
//! requests and verdicts come out. The context performs them, each call with a time-out of its own. Children are applied
//! by the server under one field manager, so that a repeat changes nothing; owner references let them go with their
//! owner, and only a Facet, which owns something outside Kubernetes, has a finalizer.

mod backoff;
mod bus;
pub mod cluster;
mod codex;
mod condition;
mod context;
mod decision;
mod error;
mod facet;
mod job;
mod leader;
mod meta;
mod metrics;
mod model_pool;
mod proposal;
mod prototype;
mod run;
mod snapshot;
mod universe;
mod workload;

pub use context::Settings;
pub use decision::Decisions;
pub use error::Error;
pub use metrics::METRICS;
pub use run::run;

#[cfg(test)]
mod faults;
