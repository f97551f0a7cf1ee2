//! What an object was before, and the way back.

use batos_covenant::{HistoryPage, OkReply, Reply, SlotChange, Wire};
use batos_graph::{ObjectId, Past, Place, Record, Rev, Slot, SlotKind};
use serde_json::json;

use super::{Universe, UniverseError, View, commit::Changes, patch::put_slot, render, turns::Attempt};
use crate::vm::{Reads, Write};

/// Revisions that one page looks at, at most.
const PAGE: usize = 64;

/// A revision of an object as far as it is kept. The living one is whole.
type Revision = (Rev, Past);

impl Universe {
    /// Changes of an object, the latest first: of one slot, or of all. Where data was trimmed, changes of methods.
    pub async fn history(
        &self,
        object: ObjectId,
        slot: Option<&str>,
        before: Option<Rev>,
    ) -> Result<HistoryPage, UniverseError> {
        self.inner.cache.forget([object]);
        let Some((rev, now)) = View::new(self).record(object).await? else {
            return Err(UniverseError::NoSuchObject(object.to_string()));
        };
        let from = before.unwrap_or(rev + 1).min(rev + 1);
        let (mut records, is_all) = self.past(object, from.min(rev)).await?;
        if from == rev + 1 {
            records.push((rev, whole((*now).clone())));
        }
        let first = records.first().map_or(0, |(rev, _)| *rev);
        // The oldest record of a page is only there to be compared with, unless it is the first of all.
        if is_all {
            let record = Record::default();
            records.insert(0, (0, Past { replaced: None, is_whole: first == 1, record }));
        }
        let mut page = HistoryPage { changes: Vec::new(), data_from: None, next: (!is_all).then_some(first + 1) };
        for pair in records.windows(2).rev() {
            let [old, new] = pair else { continue };
            if !is_next(old, new) && new.1.is_whole {
                page.data_from.get_or_insert(new.0);
            }
            page.changes
                .extend(differences(old, new).into_iter().filter(|change| slot.is_none_or(|slot| change.slot == slot)));
        }
        Ok(page)
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

    /// Revisions before `high` that are kept, in order: some, at least two if there are. Also answers whether there are
    /// none before them.
    async fn past(&self, object: ObjectId, mut high: Rev) -> Result<(Vec<Revision>, bool), UniverseError> {
        let keys = self.inner.keys;
        let (mut found, mut width) = (Vec::new(), PAGE as u64);
        // The store reads upwards, so windows below `high` are tried: wider ones where nothing is left, narrower ones where
        // more is than a page.
        while high > 0 && found.len() < 2 {
            let low = high.saturating_sub(width);
            let (start, end) = (keys.history(object, low), keys.history(object, high));
            let rows = self.inner.store.scan(&start, &end, None, PAGE + 1).await.map_err(UniverseError::Store)?;
            if rows.len() > PAGE {
                width /= 2;
                continue;
            }
            width = if rows.is_empty() { width.saturating_mul(2) } else { PAGE as u64 };
            let mut revisions = Vec::with_capacity(rows.len() + found.len());
            for (key, row) in rows {
                let Some(Place::History(_, rev)) = Place::of(&key) else { continue };
                let past = Past::decode(&row.bytes).map_err(|source| UniverseError::Record { object, source })?;
                revisions.push((rev, past));
            }
            revisions.append(&mut found);
            (found, high) = (revisions, low);
        }
        Ok((found, high == 0))
    }

    /// What an object was at a revision, if nothing of it was trimmed.
    pub async fn object_at(&self, object: ObjectId, rev: Rev) -> Result<Option<Record>, UniverseError> {
        self.inner.cache.forget([object]);
        match View::new(self).record(object).await? {
            Some((now, record)) if now == rev => Ok(Some((*record).clone())),
            _ => self.revision_at(object, rev).await,
        }
    }

    /// What an object was at a revision before the living one, if nothing of it was trimmed.
    pub(super) async fn revision_at(&self, object: ObjectId, rev: Rev) -> Result<Option<Record>, UniverseError> {
        let rows =
            self.inner.store.read(&[self.inner.keys.history(object, rev)]).await.map_err(UniverseError::Store)?;
        let Some(row) = rows.into_iter().next().flatten() else { return Ok(None) };
        let past = Past::decode(&row.bytes).map_err(|source| UniverseError::Record { object, source })?;
        Ok(Some(past).filter(|past| past.is_whole).map(|past| past.record))
    }

    /// The last revisions before `rev` without a gap, in order.
    pub(super) async fn recent(&self, object: ObjectId, rev: Rev) -> Result<Vec<(Rev, Record)>, UniverseError> {
        let (past, _) = self.past(object, rev).await?;
        let recent = past.into_iter().rev().zip(1..).take_while(|((of, past), back)| past.is_whole && of + back == rev);
        let mut recent: Vec<_> = recent.map(|((rev, past), _)| (rev, past.record)).collect();
        recent.reverse();
        Ok(recent)
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
        let before = self.before(holder, rev, &now, name).await?;
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

    /// What a slot was before its last change, `None` if it was not there.
    async fn before(
        &self,
        holder: ObjectId,
        rev: Rev,
        now: &Record,
        name: &str,
    ) -> Result<Option<Slot>, UniverseError> {
        let unknown = |reason: String| Err(UniverseError::BadSlot { slot: name.to_owned(), reason });
        let trimmed = |before: Rev| unknown(format!("data of {holder} before revision {before} is no longer kept"));
        let mut newer = (rev, whole(now.clone()));
        loop {
            let (mut past, is_all) = self.past(holder, newer.0).await?;
            while let Some(older) = past.pop() {
                let slot = older.1.record.slot(name);
                let is_known = is_next(&older, &newer) || is_method(now.slot(name)) || {
                    // It was a method until the revision that is known.
                    older.0 + 1 == newer.0 && newer.1.is_whole && is_method(slot)
                };
                if !is_known {
                    return trimmed(newer.0);
                }
                if slot != now.slot(name) {
                    return Ok(slot.cloned());
                }
                newer = older;
            }
            match is_all {
                true if newer.0 > 1 && !is_method(now.slot(name)) => return trimmed(newer.0),
                true => return unknown(format!("no earlier content is known in {holder}")),
                false => {}
            }
        }
    }
}

/// A revision that nothing was trimmed of.
pub(super) fn whole(record: Record) -> Past {
    Past { replaced: None, is_whole: true, record }
}

/// Whether nothing that happened between two revisions was trimmed.
fn is_next(old: &Revision, new: &Revision) -> bool {
    old.0 + 1 == new.0 && old.1.is_whole && new.1.is_whole
}

fn is_method(slot: Option<&Slot>) -> bool {
    slot.is_some_and(|slot| matches!(slot.kind, SlotKind::Method(_) | SlotKind::Intent(_)))
}

/// What the revision after `old` changed; `new` is the next one that is kept.
pub(super) fn differences(old: &Revision, new: &Revision) -> Vec<SlotChange> {
    let (is_next, at, rev) = (is_next(old, new), old.1.replaced, old.0 + 1);
    let by = if old.1.is_whole { new.1.record.cause.clone() } else { old.1.record.cause.clone() };
    let (old, new) = (&old.1.record, &new.1.record);
    let gone = old.slots.iter().filter(|slot| new.slot(&slot.name).is_none());
    let slots = new.slots.iter().chain(gone).filter(|slot| old.slot(&slot.name) != new.slot(&slot.name));
    let changes = slots.filter_map(|slot| {
        let (was, became) = (old.slot(&slot.name), new.slot(&slot.name));
        // Of what is trimmed, only methods are as they were right after the change.
        if !is_next && !is_method(was) && !is_method(became) {
            return None;
        }
        let became = became.filter(|_| is_next || is_method(became));
        let (was, became) = (was.map(content), became.map(content));
        Some(SlotChange { rev, by: by.clone(), at, slot: slot.name.clone(), was, became })
    });
    // Private slots stay private here too.
    changes.filter(|change| !change.slot.starts_with('_')).collect()
}

fn content(slot: &Slot) -> Wire {
    match &slot.kind {
        SlotKind::Constant(value) | SlotKind::Assignable(value) | SlotKind::Parent(value) => render::wire(value),
        SlotKind::Method(source) => json!(source),
        SlotKind::Intent(intent) => json!({ "intent": intent.text, "method": intent.compiled }),
    }
}
