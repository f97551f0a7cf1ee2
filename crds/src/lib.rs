//! What people write: Universe, Prototype, Codex, Snapshot, ModelPool and Facet, as resources of Kubernetes or as the same YAML in
//! files; on Kubernetes also Proposal and ProposalDecision.
//!
//! Each spec is defined once. Feature `kubernetes` derives the resources (`Universe`, …) and their definitions from it;
//! [`parse`] reads files with or without that feature.

mod check;
mod codex;
mod facet;
mod manifest;
mod model_pool;
#[cfg(feature = "kubernetes")]
mod proposal;
mod prototype;
#[cfg(all(test, feature = "kubernetes"))]
mod released;
mod schema;
#[cfg(feature = "kubernetes")]
mod schema_check;
mod snapshot;
#[cfg(feature = "kubernetes")]
mod status;
mod universe;
#[cfg(feature = "kubernetes")]
mod yaml;

pub use codex::*;
pub use facet::*;
pub use manifest::{Manifest, Metadata, ParseError, Resource, parse, parse_mind};
pub use model_pool::*;
#[cfg(feature = "kubernetes")]
pub use proposal::*;
pub use prototype::*;
#[cfg(feature = "kubernetes")]
pub use schema_check::{violates, violations};
pub use snapshot::*;
#[cfg(feature = "kubernetes")]
pub use status::*;
pub use universe::*;
#[cfg(feature = "kubernetes")]
pub use yaml::{Definitions, crd_yaml, definitions};

/// Group of all resources.
pub const GROUP: &str = "batos.dev";
/// The version that is served and stored.
pub const VERSION: &str = "v1alpha1";
