//! Who may change what. Every turn carries an authority; what it may not write is refused before the commit.
//!
//! | authority | data and methods | parents | the image |
//! |---|---|---|---|
//! | Sender | of any object | of the receiver and of new objects | no |
//! | Operator, Becoming | of any object | of any object | no |
//! | Architect | of any object | of any object | no |
//!
//! The image is nobody's to change: the machine's fast paths rest on it, and it changes with batos itself.
//!
//! A sender brings no source text: what its turn installs are blocks whose text was admitted before.

use batos_graph::{ObjectId, Record, Slot, SlotKind};

use super::UniverseError;
use crate::vm::Write;

/// In whose name a turn runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authority {
    /// Whoever may publish on `cmd` subjects.
    Sender,
    /// Manifests.
    Operator,
    /// A method that the Crucible has admitted.
    Becoming,
    /// Whoever may publish on `adm` subjects.
    Architect,
}

impl Authority {
    /// Refuses a write that this authority may not do in a turn on `receiver`; `old` is what is stored.
    pub(super) fn check(self, receiver: ObjectId, write: &Write, old: Option<&Record>) -> Result<(), UniverseError> {
        let Some(old) = old else { return Ok(()) };
        let refuse = |why: &str| {
            let name = old.name.clone().unwrap_or_else(|| write.id.to_string());
            Err(UniverseError::Forbidden(format!("{name} {why}")))
        };
        if old.is_kernel {
            return refuse("belongs to the image: a message may not change it");
        }
        if self == Self::Sender && write.id != receiver && parents(old).ne(parents(&write.record)) {
            return refuse("is not the receiver: only the Architect may change its parents");
        }
        Ok(())
    }
}

fn parents(record: &Record) -> impl Iterator<Item = &Slot> {
    record.slots.iter().filter(|slot| matches!(slot.kind, SlotKind::Parent(_)))
}
