//! The Covenant: what travels on the bus between universes, their users and their operator.
//!
//! This crate is the one source of the wire's types. The JSON Schema beside it is generated from here
//! (`hack/generate`) and CI fails when the two differ.

mod codec;
mod message;
mod outcome;
mod proposal;
mod skim;
mod subject;

pub use codec::{CodecError, Encoding, MAX_DEPTH, MAX_PAYLOAD, decode, encode};
pub use message::*;
pub use outcome::*;
pub use proposal::*;
pub use subject::{AccessClass, Subject, SubjectError, event_subject};

/// A value on the wire: JSON's data model, in MessagePack or JSON. An object of the universe is the map `{"$ref": id}`.
pub type Wire = serde_json::Value;
