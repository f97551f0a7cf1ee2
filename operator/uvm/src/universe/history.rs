//! What an object was before, and the way back.

use batos_covenant::{HistoryPage, OkReply, Reply, SlotChange, Wire};
use batos_graph::{ObjectId, Place, Record, Rev, Slot, SlotKind};
use serde_json::json;

use super::{Universe, UniverseError, View, apply::put_slot, commit::Changes, render, turns::Attempt};
use crate::vm::{Reads, Write};

/// Revisions that one page looks at.
pub(super) const PAGE: usize = 64;

impl Universe {
    /// Changes of an object, the latest first: of one slot, or of all.
    pub async fn history(
        &self,
        object: ObjectId,
        slot: Option<&str>,
        before: Option<Rev>,
    ) -> Result<HistoryPage, UniverseError> {
        self.inner.cache.forget([object]);
        let Some((rev, now)) = View::new(self).object(object).await? else {
            return Err(UniverseError::NoSuchObject(object.to_string()));
        };
        let from = before.unwrap_or(rev + 1).min(rev + 1);
        let low = from.saturating_sub(PAGE as u64 + 1);
        let mut records = self.past(object, low, from).await?;
        if from == rev + 1 {
            records.push((rev, (*now).clone()));
        }
        let first = records.first().map_or(from, |(rev, _)| *rev);
        // The oldest record of a page is only there to be compared with, unless it is the first of all.
        if first == 1 {
            records.insert(0, (0, Record::default()));
        }
        let mut changes = Vec::new();
        for pair in records.windows(2).rev() {
            let [(_, old), (rev, new)] = pair else { continue };
            changes.extend(differences(*rev, old, new).filter(|change| slot.is_none_or(|slot| change.slot == slot)));
        }
        Ok(HistoryPage { changes, next: (first > 1).then_some(first + 1) })
    }

    /// The object that holds a slot, itself or its traits, and the slot's content as text.
    pub async fn slot(&self, object: ObjectId, name: &str) -> Result<(ObjectId, String), UniverseError> {
        self.inner.cache.forget([object]);
        let view = View::new(self);
        let missing = || UniverseError::NoSuchObject(object.to_string());
        let (_, record) = view.object(object).await?.ok_or_else(missing)?;
        let text = |slot: &Slot| match content(slot) {
            _ if slot.kind.method().is_some() => slot.kind.method().unwrap_or_default().to_owned(),
            Wire::String(text) => text,
            other => other.to_string(),
        };
        if let Some(slot) = record.slot(name) {
            return Ok((object, text(slot)));
        }
        if let Some(traits) = super::apply::traits_of(&record)
            && let Some((_, record)) = view.object(traits).await?
            && let Some(slot) = record.slot(name)
        {
            return Ok((traits, text(slot)));
        }
        let reason = format!("{object} and its traits have no such slot");
        Err(UniverseError::BadSlot { slot: name.to_owned(), reason })
    }

    /// Records of the revisions `low <= rev < high` that are kept, in order.
    pub(super) async fn past(
        &self,
        object: ObjectId,
        low: Rev,
        high: Rev,
    ) -> Result<Vec<(Rev, Record)>, UniverseError> {
        let keys = self.inner.keys;
        let (start, end) = (keys.history(object, low), keys.history(object, high));
        let rows = self.inner.store.scan(&start, &end, None, PAGE + 2).await.map_err(UniverseError::Store)?;
        rows.iter()
            .filter_map(|(key, row)| match Place::of(key) {
                Some(Place::History(_, rev)) => Some((rev, row)),
                _ => None,
            })
            .map(|(rev, row)| {
                let record = Record::decode(&row.bytes).map_err(|source| UniverseError::Record { object, source })?;
                Ok((rev, record))
            })
            .collect()
    }

    /// Gives a slot what it had before its last change, as a new revision. A method is looked for in the object's
    /// traits too.
    pub(super) async fn attempt_undo(&self, object: ObjectId, name: &str) -> Result<Attempt, UniverseError> {
        let view = View::new(self);
        // An error that rests on stale records would be told before a commit could find out.
        self.inner.cache.forget([object]);
        let mut holder = object;
        let missing = || UniverseError::NoSuchObject(object.to_string());
        let mut found = view.object(object).await?.ok_or_else(missing)?;
        if found.1.slot(name).is_none()
            && let Some(traits) = super::apply::traits_of(&found.1)
            && let Some(record) = view.object(traits).await?.filter(|(_, record)| !record.is_kernel)
        {
            (holder, found) = (traits, record);
        }
        let (rev, now) = found;
        let mut high = rev;
        let before = loop {
            let low = high.saturating_sub(PAGE as u64);
            let past = self.past(holder, low, high).await?;
            if let Some((_, old)) = past.iter().rev().find(|(_, old)| old.slot(name) != now.slot(name)) {
                break old.slot(name).cloned();
            }
            if low == 0 || past.is_empty() {
                return Err(UniverseError::BadSlot {
                    slot: name.to_owned(),
                    reason: format!("no earlier content is known in {holder}"),
                });
            }
            high = low;
        };
        let mut record = (*now).clone();
        match &before {
            Some(slot) => put_slot(&mut record.slots, slot.clone()),
            None => record.slots.retain(|slot| slot.name != name),
        }
        let reads = Reads { objects: vec![(holder, Some(rev))], ..Reads::default() };
        let write = Write { id: holder, prev_rev: Some(rev), record, changed: vec![name.to_owned()] };
        let changes = Changes { writes: vec![write], ..Changes::reading(reads) };
        let value = json!({ "object": holder.to_string(), "slot": name, "became": before.as_ref().map(content) });
        let reply = Reply::Ok(OkReply::new(value, rev + 1));
        Ok(Attempt::Commit(changes, reply))
    }
}

pub(super) fn differences(rev: Rev, old: &Record, new: &Record) -> impl Iterator<Item = SlotChange> {
    let gone = old.slots.iter().filter(|slot| new.slot(&slot.name).is_none());
    let slots = new.slots.iter().chain(gone).filter(|slot| old.slot(&slot.name) != new.slot(&slot.name));
    let changes = slots.map(|slot| SlotChange {
        rev,
        by: new.cause.clone(),
        slot: slot.name.clone(),
        was: old.slot(&slot.name).map(content),
        became: new.slot(&slot.name).map(content),
    });
    // Private slots stay private here too.
    changes.filter(|change| !change.slot.starts_with('_')).collect::<Vec<_>>().into_iter()
}

fn content(slot: &Slot) -> Wire {
    match &slot.kind {
        SlotKind::Constant(value) | SlotKind::Assignable(value) | SlotKind::Parent(value) => render::wire(value),
        SlotKind::Method(source) => json!(source),
        SlotKind::Intent(intent) => json!({ "intent": intent.text, "method": intent.compiled }),
    }
}
