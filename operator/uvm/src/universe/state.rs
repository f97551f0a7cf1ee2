//! The state of an object, whole or by pages.

use std::{collections::BTreeMap, sync::Arc};

use batos_covenant::{FullState, GetFullStateCommand, OkReply};
use batos_graph::{ObjectId, Payload, Record, Rev, SlotKind, StoreError, Value, bucket::Content};
use serde_json::json;

use super::{Universe, UniverseError, View, buckets, render};

/// About how many bytes of slots, methods and elements go into one page: a reply must fit into a message of 1 MiB.
const PAGE_BYTES: usize = 256 << 10;

/// Where a page begins: the revisions that all pages are of, and how many parts came before.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Mark {
    rev: Rev,
    traits: Rev,
    parts: usize,
}

impl Mark {
    fn parse(text: &str) -> Result<Self, UniverseError> {
        let bad = || UniverseError::BadMark(text.chars().take(64).collect());
        let numbers = text.split('-').map(|part| part.parse().ok()).collect::<Option<Vec<u64>>>().ok_or_else(bad)?;
        let [rev, traits, parts] = numbers.as_slice() else { return Err(bad()) };
        Ok(Self { rev: *rev, traits: *traits, parts: usize::try_from(*parts).map_err(|_| bad())? })
    }

    fn text(self) -> String {
        format!("{}-{}-{}", self.rev, self.traits, self.parts)
    }
}

/// What a state is made of, in the order of pages.
enum Part<'a> {
    Slot(&'a str, &'a Value),
    Parent(&'a str, ObjectId),
    Method(&'a str, &'a str),
    Intent(&'a str, &'a str),
    Element(&'a Value),
    Entry(&'a Value, &'a Value),
}

impl Part<'_> {
    fn bytes(&self) -> usize {
        match self {
            Self::Slot(name, value) => name.len() + render::weight(value),
            Self::Parent(name, _) => name.len() + 40,
            Self::Method(name, text) | Self::Intent(name, text) => name.len() + text.len() + 8,
            Self::Element(value) => render::weight(value),
            Self::Entry(key, value) => render::weight(key) + render::weight(value),
        }
    }

    fn put(self, state: &mut FullState) {
        let element = match self {
            Self::Slot(name, value) => return drop(state.state.insert(name.to_owned(), render::wire(value))),
            Self::Parent(name, id) => return drop(state.parents.insert(name.to_owned(), id.to_string())),
            Self::Method(name, source) => return drop(state.methods.insert(name.to_owned(), source.to_owned())),
            Self::Intent(name, text) => return drop(state.intents.insert(name.to_owned(), text.to_owned())),
            Self::Element(value) => render::wire(value),
            Self::Entry(key, value) => json!([render::wire(key), render::wire(value)]),
        };
        state.elements.get_or_insert_default().push(element);
    }
}

/// Of a collection in buckets only the `first` one is shown.
fn parts<'a>(record: &'a Record, traits: Option<&'a Record>, first: Option<&'a Record>) -> Vec<Part<'a>> {
    let mut parts = Vec::new();
    for slot in record.slots.iter().filter(|slot| !slot.name.starts_with('_')) {
        if let SlotKind::Constant(value) | SlotKind::Assignable(value) = &slot.kind {
            parts.push(Part::Slot(&slot.name, value));
        }
    }
    for slot in &record.slots {
        if let SlotKind::Parent(Value::Ref(parent)) = &slot.kind {
            parts.push(Part::Parent(&slot.name, *parent));
        }
    }
    let (mut methods, mut intents) = (BTreeMap::<&str, &str>::new(), BTreeMap::<&str, &str>::new());
    for slot in traits.into_iter().chain([record]).flat_map(|record| &record.slots) {
        if let Some(source) = slot.kind.method() {
            methods.insert(&slot.name, source);
        }
        if let SlotKind::Intent(intent) = &slot.kind {
            intents.insert(&slot.name, &intent.text);
        }
    }
    parts.extend(methods.into_iter().map(|(name, source)| Part::Method(name, source)));
    parts.extend(intents.into_iter().map(|(name, text)| Part::Intent(name, text)));
    match &first.unwrap_or(record).payload {
        Payload::Array(elements) => parts.extend(elements.iter().map(Part::Element)),
        Payload::Table(entries) => parts.extend(entries.iter().map(|(_, key, value)| Part::Entry(key, value))),
        Payload::Bucket(bucket) => match &bucket.content {
            Content::Elements(elements) => parts.extend(elements.iter().map(Part::Element)),
            Content::Entries(entries) => {
                parts.extend(entries.iter().flatten().map(|(_, key, value)| Part::Entry(key, value)));
            }
            Content::Branches(_) | Content::Places(_) => {}
        },
        Payload::BigArray(_) | Payload::BigTable(_) => {}
        Payload::None | Payload::Block(_) | Payload::Context { .. } => {}
    }
    parts
}

/// How many elements a collection has.
fn size(record: &Record) -> Option<u64> {
    match &record.payload {
        Payload::Array(elements) => Some(elements.len() as u64),
        Payload::Table(entries) => Some(entries.len() as u64),
        Payload::BigArray(array) => Some(array.elements.count()),
        Payload::BigTable(table) => Some(table.live),
        Payload::None | Payload::Block(_) | Payload::Context { .. } | Payload::Bucket(_) => None,
    }
}

impl Universe {
    /// Slots, parents, methods and elements of an object as they are stored now, or the next page of what was begun.
    pub async fn full_state(&self, object: ObjectId, wanted: &GetFullStateCommand) -> Result<OkReply, UniverseError> {
        let mark = wanted.after.as_deref().map(Mark::parse).transpose()?;
        let missing = || UniverseError::NoSuchObject(object.to_string());
        let (rev, record) = self.fresh(object, mark.map(|mark| mark.rev)).await?.ok_or_else(missing)?;
        let traits = match super::apply::traits_of(&record) {
            Some(id) => self.fresh(id, mark.map(|mark| mark.traits)).await?.map(|found| (id, found)),
            None => None,
        };
        // What was found may not be durable yet; a read comes back when it is.
        self.inner.store.read(&[self.inner.keys.head(object)]).await.map_err(UniverseError::Store)?;

        let mark = mark.unwrap_or(Mark { rev, traits: traits.as_ref().map_or(0, |(_, found)| found.0), parts: 0 });
        let mut state = FullState {
            object: object.to_string(),
            name: record.name.clone(),
            rev,
            size: size(&record),
            ..FullState::default()
        };
        let first = buckets::first(&View::new(self), &record).await?;
        let all = parts(&record, traits.as_ref().map(|(_, (_, record))| record.as_ref()), first.as_deref());
        let (mut bytes, mut taken) = (0, mark.parts);
        for part in all.into_iter().skip(mark.parts) {
            bytes += part.bytes();
            if bytes > PAGE_BYTES && taken > mark.parts {
                state.next = Some(Mark { parts: taken, ..mark }.text());
                break;
            }
            part.put(&mut state);
            taken += 1;
        }
        // The history of what is large is as large.
        if wanted.revs && mark.parts == 0 && state.next.is_none() {
            if let Some((id, (rev, record))) = &traits {
                state.revs = self.slot_revs(*id, *rev, record).await?;
                state.revs.retain(|name, _| state.methods.contains_key(name) || state.intents.contains_key(name));
            }
            state.revs.extend(self.slot_revs(object, rev, &record).await?);
        }
        let value = serde_json::to_value(state).map_err(|e| UniverseError::Internal(e.to_string()))?;
        Ok(OkReply::new(value, rev))
    }

    /// The object as the store has it now, or had it at a revision.
    async fn fresh(&self, id: ObjectId, at: Option<Rev>) -> Result<Option<(Rev, Arc<Record>)>, UniverseError> {
        self.inner.cache.forget([id]);
        let now = View::new(self).object(id).await?;
        match (at, &now) {
            (Some(at), Some((rev, _))) if at != *rev => {
                let past = self.revision_at(id, at).await?;
                let gone = || {
                    let text = format!("revision {at} of {id} is no longer kept: begin again without `after`");
                    UniverseError::Store(StoreError::Unavailable(text))
                };
                past.map(|record| Some((at, Arc::new(record)))).ok_or_else(gone)
            }
            _ => Ok(now),
        }
    }

    /// The revisions in which slots got what they hold, as far as the last few revisions tell.
    async fn slot_revs(&self, id: ObjectId, rev: Rev, now: &Record) -> Result<BTreeMap<String, Rev>, UniverseError> {
        let mut records = self.recent(id, rev).await?;
        records.push((rev, now.clone()));
        let nothing = Record::default();
        // What there was before the first of all is known; before the first that is looked at, it is not.
        let first = records.first().filter(|(rev, _)| *rev == 1).map(|(rev, record)| (*rev, &nothing, record));
        let pairs = records.windows(2).filter_map(|pair| match pair {
            [(_, old), (rev, new)] => Some((*rev, old, new)),
            _ => None,
        });
        let mut revs = BTreeMap::new();
        for (rev, old, new) in first.into_iter().chain(pairs) {
            for slot in new.slots.iter().filter(|slot| !slot.name.starts_with('_')) {
                if old.slot(&slot.name) != Some(slot) {
                    revs.insert(slot.name.clone(), rev);
                }
            }
        }
        revs.retain(|name, _| now.slot(name).is_some());
        Ok(revs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_is_written() {
        let mark = Mark { rev: 7, traits: 0, parts: 300 };
        assert_eq!(Mark::parse(&mark.text()).unwrap(), mark);
        for bad in ["", "7", "7-0", "7-0-x", "7-0-1-2", "-1-0-0", "7-0-99999999999999999999"] {
            assert!(Mark::parse(bad).is_err(), "{bad}");
        }
    }
}
