//! The image of a newer batos, merged into the living universe slot by slot: what was shipped before, what is shipped now,
//! what lives.
//!
//! | live, against shipped before | shipped now, against shipped before | becomes |
//! |---|---|---|
//! | the same | changed, added, removed | shipped now |
//! | changed | the same | live |
//! | changed | changed too | live, and it is told |
//!
//! Live is what was shipped before but for the prompts and policies that the Architect may change. Whoever changed one meant
//! it: what lives stays, and it is told that something else is shipped. An object that is shipped no more goes, unless it was
//! changed or something outside the image refers to it or names it.
//!
//! A commit holds as many objects as fit into it, each with its row of what was shipped, so that an upgrade that was
//! interrupted goes on with the others. Every commit expects the universe's version as it was read and writes it anew: of
//! two workers one is first, and the other looks again.

use std::collections::{BTreeMap, BTreeSet};

use batos_covenant::{ImageChange, ImageEvent};
use batos_graph::{Key, ObjectId, Payload, Place, Put, Record, Rev, StoreError, Value};

use super::{
    Image, Universe, UniverseError,
    commit::Changes,
    merge::merge,
    version::{self, UNIVERSE_FORMAT, Version, spelled, this_batos},
};
use crate::vm::Write;

/// Lost races against other workers before opening fails.
const ATTEMPTS: u32 = 64;
/// Objects that an image may have.
const MAX_OBJECTS: usize = 4096;
/// Rows that are read at once.
const PAGE: usize = 256;
/// Stands for the image of a universe that is being made.
const GENESIS: &[u8] = b"genesis";

/// An object of the image, as it was shipped last and as it lives.
#[derive(Default)]
struct Known {
    shipped: Option<(Rev, Record)>,
    live: Option<(Rev, Record)>,
}

/// One commit of an upgrade.
struct Step {
    changes: Changes,
    told: ImageEvent,
    is_last: bool,
}

impl Universe {
    /// Makes the image in an empty store, or this image of the one that is there. `None`: what this batos ships.
    pub(super) async fn bring_up_to_date(&self, mut image: Option<Image>) -> Result<(), UniverseError> {
        let store = &self.inner.store;
        let mut lost = 0;
        while lost < ATTEMPTS {
            let found = version::admitted(store.as_ref(), self.inner.keys).await?;
            if found.as_ref().is_some_and(|(_, found)| self.is_up_to_date(found)) {
                return Ok(());
            }
            let image = match &mut image {
                Some(image) => &*image,
                none => none.insert(Image::shipped()?),
            };
            if let Some((_, found)) = &found
                && found.image != self.inner.image
                && found.batos > image.batos
            {
                return Err(UniverseError::Newer {
                    found: "a newer image".to_owned(),
                    needs: spelled(found.batos),
                    this: spelled(this_batos()),
                });
            }
            let step = self.next_step(image, found.as_ref()).await?;
            let (told, is_last) = (step.told, step.is_last);
            match self.commit(self.fresh_marker()?, Vec::new(), step.changes).await {
                Ok(()) => tell(&told),
                Err(UniverseError::Store(StoreError::Conflict(_))) => {
                    lost += 1;
                    continue;
                }
                Err(error) => return Err(error),
            }
            if is_last {
                return Ok(());
            }
        }
        Err(UniverseError::Contended { attempts: ATTEMPTS, conflict: "the image".to_owned() })
    }

    fn is_up_to_date(&self, found: &Version) -> bool {
        let formats = (found.format, found.records) == (UNIVERSE_FORMAT, batos_graph::FORMAT);
        formats && found.image == self.inner.image
    }

    /// What is still to be done, as far as one commit holds it.
    async fn next_step(&self, image: &Image, found: Option<&(Rev, Version)>) -> Result<Step, UniverseError> {
        let keys = self.inner.keys;
        // Before images had versions, an object of one revision is what was shipped; others hold what somebody changed.
        let unversioned = found.is_none_or(|(_, version)| version.image.is_empty());
        let known = self.known(image).await?;
        let names = self.taken_names(image).await?;
        let mut told = ImageEvent { batos: spelled(image.batos), ..ImageEvent::default() };
        let (mut changes, mut bytes, mut is_last) = (Changes::default(), 0, true);
        let is_genesis = match found {
            Some((_, found)) => found.image == GENESIS,
            None => known.values().all(|known| known.live.is_none()),
        };
        for (id, now) in &image.objects {
            let none = Known::default();
            let Known { shipped, live } = known.get(id).unwrap_or(&none);
            let record = |source| UniverseError::Record { object: *id, source };
            let encoded = now.encode().map_err(record)?;
            let live_record = live.as_ref().map(|(_, record)| record);
            let before = match shipped {
                Some((_, record)) => Some(record),
                None => live.as_ref().filter(|(rev, _)| unversioned && *rev == 1).map(|(_, record)| record),
            };
            let mut merged = merge(before, now, live_record);
            if live.is_none() && merged.record.name.as_ref().is_some_and(|name| names.contains(name)) {
                // The universe has an object of this name already, which keeps it.
                merged.kept.push("name".to_owned());
                merged.record.name = None;
            }
            let is_changed = live_record != Some(&merged.record);
            let is_shipped = shipped.as_ref().is_some_and(|(_, record)| record == now);
            if !is_changed && is_shipped {
                continue;
            }
            let size = if is_changed { 3 * encoded.len() } else { encoded.len() };
            if bytes > 0 && bytes + size > self.inner.upgrade_bytes {
                is_last = false;
                break;
            }
            bytes += size;
            let rev = shipped.as_ref().map(|(rev, _)| *rev);
            changes.rows.push((Put { key: keys.shipped(*id), bytes: encoded }, rev));
            let named = |slots| ImageChange { object: now.name.clone().unwrap_or_else(|| id.to_string()), slots };
            if live.is_none() {
                told.added.push(named(Vec::new()).object);
            } else if is_changed {
                told.changed.push(named(merged.changed.clone()));
            }
            if !merged.kept.is_empty() {
                told.kept.push(named(merged.kept));
            }
            if is_changed {
                let prev_rev = live.as_ref().map(|(rev, _)| *rev);
                changes.reads.objects.push((*id, prev_rev));
                changes.writes.push(Write { id: *id, prev_rev, record: merged.record, changed: merged.changed });
            }
        }
        let gone: Vec<ObjectId> =
            known.keys().filter(|id| !image.objects.iter().any(|(now, _)| now == *id)).copied().collect();
        if is_last && !gone.is_empty() {
            // Only once nothing of the image refers to them any more.
            match changes.writes.is_empty() {
                true => self.remove(&gone, &known, &mut changes, &mut told).await?,
                false => is_last = false,
            }
        }
        let version = Version {
            format: UNIVERSE_FORMAT,
            records: batos_graph::FORMAT,
            batos: image.batos,
            image: match (is_last, found) {
                (true, _) => self.inner.image.to_vec(),
                (false, _) if is_genesis => GENESIS.to_vec(),
                (false, Some((_, found))) => found.image.clone(),
                (false, None) => Vec::new(),
            },
            restore: found.and_then(|(_, found)| found.restore.clone()),
        };
        let rev = found.map(|(rev, _)| *rev);
        changes.rows.push((Put { key: keys.version(), bytes: version.encode()? }, rev));
        if is_genesis && is_last {
            changes.rows.push(self.first_collection()?);
        }
        // The image that a universe begins with is no news.
        let is_news = !is_genesis && told.is_news();
        changes.cause = (!is_genesis).then(|| format!("the image of batos {}", told.batos));
        if is_news {
            let (subject, rev) = (ObjectId::of_name("the image"), rev.unwrap_or(0) + 1);
            changes.events.push(self.event_row(subject, rev, "genesis".to_owned(), "image", &told)?);
        }
        Ok(Step { changes, told: if is_news { told } else { ImageEvent::default() }, is_last })
    }

    /// Objects of this image and of the one before.
    async fn known(&self, image: &Image) -> Result<BTreeMap<ObjectId, Known>, UniverseError> {
        let (keys, store) = (self.inner.keys, &self.inner.store);
        let mut known: BTreeMap<ObjectId, Known> =
            image.objects.iter().map(|(id, _)| (*id, Known::default())).collect();
        let (start, end) = keys.shipped_range();
        for (key, row) in store.scan(&start, &end, None, MAX_OBJECTS).await.map_err(UniverseError::Store)? {
            let Some(Place::Shipped(id)) = Place::of(&key) else { continue };
            let record = Record::decode(&row.bytes).map_err(|source| UniverseError::Record { object: id, source })?;
            known.entry(id).or_default().shipped = Some((row.rev, record));
        }
        let heads: Vec<Key> = known.keys().map(|id| keys.head(*id)).collect();
        let rows = store.read(&heads).await.map_err(UniverseError::Store)?;
        self.inner.cache.forget(known.keys().copied());
        for ((id, known), row) in known.iter_mut().zip(rows) {
            let Some(row) = row else { continue };
            let record = Record::decode(&row.bytes).map_err(|source| UniverseError::Record { object: *id, source })?;
            known.live = Some((row.rev, record));
        }
        Ok(known)
    }

    /// Names of the image's objects that lead somewhere.
    async fn taken_names(&self, image: &Image) -> Result<BTreeSet<String>, UniverseError> {
        let names: Vec<&String> = image.objects.iter().filter_map(|(_, record)| record.name.as_ref()).collect();
        let keys: Vec<Key> = names.iter().map(|name| self.inner.keys.name(name)).collect();
        let rows = self.inner.store.read(&keys).await.map_err(UniverseError::Store)?;
        Ok(names.into_iter().zip(rows).filter(|(_, row)| row.is_some()).map(|(name, _)| name.clone()).collect())
    }

    /// Removes objects that are shipped no more, if they are as they were shipped and nobody holds them.
    async fn remove(
        &self,
        gone: &[ObjectId],
        known: &BTreeMap<ObjectId, Known>,
        changes: &mut Changes,
        told: &mut ImageEvent,
    ) -> Result<(), UniverseError> {
        let keys = self.inner.keys;
        let mut unchanged = BTreeMap::new();
        for id in gone {
            let Some(Known { shipped: Some((_, shipped)), live }) = known.get(id) else { continue };
            let name = || shipped.name.clone().unwrap_or_else(|| id.to_string());
            match live {
                Some((rev, live)) if live.slots == shipped.slots => drop(unchanged.insert(*id, (*rev, live))),
                Some(_) => told.kept.push(ImageChange { object: name(), slots: Vec::new() }),
                None => changes.delete.push(keys.shipped(*id)),
            }
        }
        let holders =
            self.users(&unchanged.iter().map(|(id, (_, record))| (*id, record.name.clone())).collect()).await?;
        let mut held = BTreeSet::new();
        // What only objects refer to that go themselves goes too.
        while let Some((_, id)) =
            holders.iter().find(|(by, id)| !held.contains(id) && (held.contains(by) || !unchanged.contains_key(by)))
        {
            held.insert(*id);
        }
        for (id, (rev, record)) in unchanged {
            let name = record.name.clone().unwrap_or_else(|| id.to_string());
            if held.contains(&id) {
                told.kept.push(ImageChange { object: name, slots: Vec::new() });
                continue;
            }
            changes.reads.objects.push((id, Some(rev)));
            changes.delete.extend([keys.head(id), keys.shipped(id)]);
            changes.delete.extend(record.name.as_ref().map(|name| keys.name(name)));
            let (start, end) = keys.history_range(id, rev);
            let past = self.inner.store.scan(&start, &end, None, MAX_OBJECTS).await.map_err(UniverseError::Store)?;
            changes.delete.extend(past.into_iter().map(|(key, _)| key));
            told.removed.push(name);
        }
        changes.reads.objects.sort();
        Ok(())
    }

    /// Who refers to one of `wanted`, or says its name in a method: holder and held. Looks at every object.
    async fn users(
        &self,
        wanted: &BTreeMap<ObjectId, Option<String>>,
    ) -> Result<Vec<(ObjectId, ObjectId)>, UniverseError> {
        let mut holders = Vec::new();
        if wanted.is_empty() {
            return Ok(holders);
        }
        let names: BTreeMap<&str, ObjectId> =
            wanted.iter().filter_map(|(id, name)| Some((name.as_deref()?, *id))).collect();
        for shard in 0..=u8::MAX {
            let (mut start, end) = self.inner.keys.object_range(shard);
            loop {
                let rows = self.inner.store.scan(&start, &end, None, PAGE).await.map_err(UniverseError::Store)?;
                for (key, row) in &rows {
                    let Some(Place::Head(by)) = Place::of(key) else { continue };
                    let record =
                        Record::decode(&row.bytes).map_err(|source| UniverseError::Record { object: by, source })?;
                    let references = record.values().filter_map(|(_, value)| match value {
                        Value::Ref(id) => Some(*id),
                        _ => None,
                    });
                    let held = references.chain(mentions(&record, &names));
                    holders.extend(held.filter(|id| *id != by && wanted.contains_key(id)).map(|id| (by, id)));
                }
                match rows.last() {
                    Some((last, _)) if rows.len() == PAGE => start = last.successor(),
                    _ => break,
                }
            }
        }
        Ok(holders)
    }
}

/// Objects whose names stand in a method or closure.
fn mentions(record: &Record, names: &BTreeMap<&str, ObjectId>) -> impl Iterator<Item = ObjectId> {
    let methods = record.slots.iter().filter_map(|slot| slot.kind.method());
    let block = match &record.payload {
        Payload::Block(block) => Some(block.source.as_str()),
        _ => None,
    };
    let words = methods.chain(block).flat_map(|source| source.split(|c: char| !c.is_alphanumeric() && c != '_'));
    words.filter_map(|word| names.get(word).copied())
}

fn tell(told: &ImageEvent) {
    if !told.is_news() {
        return;
    }
    let objects = |changes: &[ImageChange]| {
        let changes = changes.iter().map(|change| match change.slots.as_slice() {
            [] => change.object.clone(),
            slots => format!("{} ({})", change.object, slots.join(" ")),
        });
        changes.collect::<Vec<_>>().join(", ")
    };
    tracing::info!(
        batos = told.batos,
        added = told.added.join(", "),
        changed = objects(&told.changed),
        removed = told.removed.join(", "),
        "the image is that of this batos"
    );
    if !told.kept.is_empty() {
        tracing::warn!(
            kept = objects(&told.kept),
            "the universe changed these itself or still uses them; they are kept"
        );
    }
}
