//! Who may change what. Every turn carries an authority; what it may not write is refused before the commit.
//!
//! | authority | data and methods | parents | the image |
//! |---|---|---|---|
//! | Sender | of any object | of the receiver and of new objects | no |
//! | Operator, Becoming | of any object | of any object | no |
//! | Architect | of any object | of any object | data slots of organs |
//!
//! The image is nobody's to change: the machine's fast paths rest on it, and it changes with batos itself. Organs are
//! the objects of it that hold prompts and policies (`image::ORGANS`).
//!
//! A sender brings no source text: what its turn installs are blocks whose text was admitted before.

use batos_graph::{ObjectId, Record, Slot, SlotKind};

use super::UniverseError;
use crate::{image, vm::Write};

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
        let amends =
            self == Self::Architect && image::ORGANS.contains(&write.id) && differs_in_data(old, &write.record);
        if old.is_kernel && !amends {
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

/// Whether no more than the values of data slots differ.
fn differs_in_data(old: &Record, new: &Record) -> bool {
    let same = |(old, new): (&Slot, &Slot)| {
        let data = matches!((&old.kind, &new.kind), (SlotKind::Assignable(_), SlotKind::Assignable(_)));
        old.name == new.name && (data || old.kind == new.kind)
    };
    let slots = &new.slots;
    let frame = Record { slots: old.slots.clone(), cause: old.cause.clone(), ..new.clone() };
    frame == *old && slots.len() == old.slots.len() && old.slots.iter().zip(slots).all(same)
}
