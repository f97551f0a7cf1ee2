//! The end of a prototype whose resource goes with its object.
//!
//! Nothing may refer to what goes. Whoever refers to an object expects that it has no row of `collection`, `unreached`, and
//! takes away one that it meets. So both objects get one, then it is looked who refers to them, and the commit expects
//! that the rows are still there.
//!
//! What is left under the two ids is empty and has no name (`Record::is_gone`): it keeps the fence.

use std::collections::BTreeSet;

use batos_covenant::{OkReply, RemoveCommand, Reply};
use batos_graph::{Manifest, ObjectId, Record};
use serde_json::json;

use super::{Universe, UniverseError, View, apply::fence, commit::Changes, turns::Attempt};
use crate::vm::{Reads, Write};

/// Who refers to an object, as far as an error names them.
const TOLD: usize = 5;

impl Universe {
    pub(super) async fn attempt_remove(&self, name: &str, command: &RemoveCommand) -> Result<Attempt, UniverseError> {
        let pair = self.pair(name).await?;
        self.inner.cache.forget(pair);
        let view = View::new(self);
        let [object, traits] = pair;
        let (old, old_traits) = (view.record(object).await?, view.record(traits).await?);
        let rev_of = |found: &super::view::Found| found.as_ref().map(|(rev, _)| *rev);
        let objects = vec![(object, rev_of(&old)), (traits, rev_of(&old_traits))];
        let mut changes = Changes::reading(Reads { objects, ..Reads::default() });
        let replied = |changes: Changes, is_removed: bool| {
            let value = json!({ "object": object.to_string(), "removed": is_removed });
            let rev = changes.rev_after(object);
            Ok(Attempt::Commit(changes, Reply::Ok(OkReply::new(value, rev))))
        };
        match old.as_ref().map(|(_, record)| (record, record.manifest.as_ref())) {
            // Another resource has the object now, or none ever had it.
            Some((_, None)) => return replied(changes, false),
            Some((_, Some(known))) if known.uid != command.uid => return replied(changes, false),
            Some((record, Some(_))) if record.is_gone() => return replied(changes, true),
            Some((_, Some(known))) => fence(name, (&command.uid, command.generation, command.term), known)?,
            // It is fenced all the same: an apply may be under way.
            None => {}
        }
        self.refuse_held(name, pair).await?;
        changes.expect = self.note_unreached(&pair).await?;
        changes.delete = changes.expect.iter().map(|(key, _)| key.clone()).collect();
        self.refuse_held(name, pair).await?;
        for (id, old) in [(object, old), (traits, old_traits)] {
            let changed = old.iter().flat_map(|(_, record)| &record.slots).map(|slot| slot.name.clone()).collect();
            let manifest = Manifest {
                uid: command.uid.clone(),
                generation: command.generation,
                term: command.term,
                definition: String::new(),
            };
            let record = Record { manifest: Some(manifest), ..Record::default() };
            changes.writes.push(Write { id, prev_rev: rev_of(&old), record, changed });
        }
        replied(changes, true)
    }

    async fn refuse_held(&self, name: &str, pair: [ObjectId; 2]) -> Result<(), UniverseError> {
        let mut holders = BTreeSet::new();
        for id in pair {
            holders.extend(self.holders(id).await?.into_iter().filter(|holder| !pair.contains(holder)));
        }
        if holders.is_empty() {
            return Ok(());
        }
        let mut by = Vec::new();
        for id in holders.iter().take(TOLD) {
            let found = View::new(self).object(*id).await?;
            by.push(found.and_then(|(_, record)| record.name.clone()).unwrap_or_else(|| id.to_string()));
        }
        let others = holders.len().saturating_sub(TOLD);
        let others = if others == 0 { String::new() } else { format!(" and {others} others") };
        Err(UniverseError::InUse { object: name.to_owned(), by: by.join(", ") + &others })
    }
}
