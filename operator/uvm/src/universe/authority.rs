//! Who may change what. Every turn carries an authority; what it may not write is refused before the commit.
//!
//! | authority | data and methods | parents | the image |
//! |---|---|---|---|
//! | Sender | of any object | of the receiver and of new objects | no |
//! | Operator, Becoming | of any object | of any object | no |
//! | Architect | of any object | of any object | yes |
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
        let refuse = |what: &str| {
            let name = old.name.clone().unwrap_or_else(|| write.id.to_string());
            Err(UniverseError::Forbidden(format!("{name}: {what} may only be changed by the Architect")))
        };
        if self == Self::Architect {
            return Ok(());
        }
        if old.is_kernel {
            return refuse("an object of the image");
        }
        if self == Self::Sender && write.id != receiver && parents(old).ne(parents(&write.record)) {
            return refuse("the parents of another object than the receiver");
        }
        Ok(())
    }
}

fn parents(record: &Record) -> impl Iterator<Item = &Slot> {
    record.slots.iter().filter(|slot| matches!(slot.kind, SlotKind::Parent(_)))
}
