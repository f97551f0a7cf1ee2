//! Effects of a turn or an apply, as one conditional batch.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use batos_graph::{Batch, Durable, Expect, Key, KeySpace, ObjectId, Past, Place, Put, Record, Rev, StoreError};

use super::{Envelope, Universe, UniverseError, View, render, sharing::Group};
use crate::vm::{Fault, Reads, TimerId, Write};

/// What a commit rests on and what it writes.
#[derive(Default)]
pub struct Changes {
    pub reads: Reads,
    pub writes: Vec<Write>,
    /// Objects that must still exist as they are: structural invariants.
    pub lock: Vec<ObjectId>,
    /// The message that makes these changes, for people.
    pub cause: Option<String>,
    /// Rows that must be as they were read.
    pub expect: Vec<(Key, Option<Rev>)>,
    /// Rows beside objects: a journal, with the revision it was read at.
    pub rows: Vec<(Put, Option<Rev>)>,
    /// Events beside those of the written objects.
    pub events: Vec<Put>,
    /// Messages to send.
    pub posts: Vec<Envelope>,
    /// Timers to stop.
    pub cancelled: Vec<(ObjectId, TimerId)>,
    /// The message that was carried out, if it came from an object.
    pub delivered: Option<Delivered>,
    /// Rows that go; what is read says whether they may.
    pub delete: Vec<Key>,
    /// The method that made the turn fail.
    pub fault: Option<Box<Fault>>,
}

/// A batch, with what this worker knows once it is committed.
#[derive(Debug)]
pub(super) struct Composed {
    pub batch: Batch,
    pub written: Vec<(ObjectId, Rev, Arc<Record>)>,
    pub deleted: Vec<ObjectId>,
    /// Names that lead nowhere afterwards.
    pub unnamed: Vec<String>,
}

/// A row that goes with the commit; if it has gone already, somebody else was there first.
pub struct Delivered {
    pub key: Key,
    pub rev: Rev,
}

impl Changes {
    pub fn reading(reads: Reads) -> Self {
        Self { reads, ..Self::default() }
    }

    /// Whether a commit would leave no trace.
    pub(super) fn is_only_reading(&self) -> bool {
        let written = self.writes.is_empty() && self.events.is_empty();
        written && self.posts.is_empty() && self.cancelled.is_empty() && self.delivered.is_none()
    }

    pub(super) fn is_absent(&self, id: ObjectId) -> bool {
        self.reads.objects.iter().any(|(read, rev)| *read == id && rev.is_none())
    }

    /// Revision of `id` once these changes are committed.
    pub(super) fn rev_after(&self, id: ObjectId) -> Rev {
        if let Some(write) = self.writes.iter().find(|write| write.id == id) {
            return write.prev_rev.unwrap_or(0) + 1;
        }
        self.reads.objects.iter().find(|(read, _)| *read == id).and_then(|(_, rev)| *rev).unwrap_or(0)
    }
}

impl Universe {
    /// A batch that does nothing yet.
    pub(super) fn batch(&self, marker: Key) -> Batch {
        Batch {
            marker,
            // Housekeeping goes by it.
            marker_bytes: self.now().to_be_bytes().to_vec(),
            expect: Vec::new(),
            lock: Vec::new(),
            put: Vec::new(),
            delete: Vec::new(),
            passes: Default::default(),
        }
    }

    pub(super) fn random(&self) -> Result<[u8; 16], UniverseError> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|e| UniverseError::Internal(format!("no randomness: {e}")))?;
        Ok(bytes)
    }

    pub fn fresh_marker(&self) -> Result<Key, UniverseError> {
        Ok(self.inner.keys.marker(self.random()?))
    }

    /// Lets `changes` rest on objects that somebody outside has named by their ids: nothing else says that they are there.
    pub(super) async fn require(
        &self,
        changes: &mut Changes,
        named: BTreeSet<ObjectId>,
        view: &View<'_>,
    ) -> Result<(), UniverseError> {
        for id in named {
            let is_read = changes.reads.objects.iter().any(|(read, _)| *read == id);
            if is_read || changes.writes.iter().any(|write| write.id == id) {
                continue;
            }
            match view.object(id).await? {
                Some((rev, _)) => changes.reads.objects.push((id, Some(rev))),
                None => return Err(UniverseError::NoSuchObject(id.to_string())),
            }
        }
        changes.reads.objects.sort();
        Ok(())
    }

    /// Whether everything that was read is still so in the store. Forgets what is not.
    pub(super) async fn is_current(&self, changes: &Changes) -> Result<bool, UniverseError> {
        let keys = self.inner.keys;
        let expected: Vec<Expect> = self.expectations(changes);
        let wanted: Vec<Key> = expected.iter().map(|expect| expect.key.clone()).collect();
        let rows = self.inner.store.read(&wanted).await.map_err(UniverseError::Store)?;
        let stale: Vec<&Key> = expected
            .iter()
            .zip(&rows)
            .filter(|(expect, row)| expect.rev != row.as_ref().map(|row| row.rev))
            .map(|(expect, _)| &expect.key)
            .collect();
        let stale_objects =
            changes.reads.objects.iter().map(|(id, _)| *id).filter(|id| stale.contains(&&keys.head(*id)));
        self.inner.cache.forget(stale_objects);
        Ok(stale.is_empty())
    }

    pub(super) fn expectations(&self, changes: &Changes) -> Vec<Expect> {
        let keys = self.inner.keys;
        let objects = changes.reads.objects.iter().map(|(id, rev)| Expect { key: keys.head(*id), rev: *rev });
        // A name keeps its object, so only names that led nowhere can go stale.
        let names = changes.reads.names.iter().filter(|(_, id)| id.is_none());
        objects.chain(names.map(|(name, _)| Expect { key: keys.name(name), rev: None })).collect()
    }

    /// Commits, or says `Conflict` and forgets what is stale.
    pub async fn commit(&self, marker: Key, marker_bytes: Vec<u8>, changes: Changes) -> Result<(), UniverseError> {
        self.place(marker, marker_bytes, changes).await?.await.map_err(UniverseError::Store)
    }

    /// As `commit`, but later turns may run on these changes as soon as this returns. Nothing leaves before what it
    /// returns has completed.
    pub(super) async fn place(
        &self,
        marker: Key,
        marker_bytes: Vec<u8>,
        changes: Changes,
    ) -> Result<Durable, UniverseError> {
        let composed = self.composed(marker, marker_bytes, changes, &Group::default()).await?;
        self.enter(composed).await
    }

    /// The batch of these changes, on what `group` has changed before them.
    pub(super) async fn composed(
        &self,
        marker: Key,
        marker_bytes: Vec<u8>,
        changes: Changes,
        group: &Group,
    ) -> Result<Composed, UniverseError> {
        let keys = self.inner.keys;
        let view = group.view(self);
        let mut batch = Batch { expect: self.expectations(&changes), ..self.batch(marker) };
        if !marker_bytes.is_empty() {
            batch.marker_bytes = marker_bytes;
        }
        batch.lock.extend(changes.lock.iter().map(|id| keys.head(*id)));
        let mut expected: HashSet<Key> = batch.expect.iter().map(|expect| expect.key.clone()).collect();
        let mut written: Vec<(ObjectId, Rev, Arc<Record>)> = Vec::new();
        let mut unnamed = Vec::new();
        let mut gained: BTreeSet<ObjectId> = changes.posts.iter().flat_map(Envelope::targets).collect();
        for mut write in changes.writes {
            // A bucket's changes are those of its collection, which tells of them.
            let is_bucket = write.record.is_bucket();
            if !is_bucket {
                write.record.cause.clone_from(&changes.cause);
            }
            let record = |source| UniverseError::Record { object: write.id, source };
            let prev = write.prev_rev.unwrap_or(0);
            if expected.insert(keys.head(write.id)) {
                batch.expect.push(Expect { key: keys.head(write.id), rev: write.prev_rev });
            }
            let old = match write.prev_rev {
                // If the cache moved on meanwhile, the expectation above refuses the batch.
                Some(_) => view.record(write.id).await?,
                None => None,
            };
            let old = old.map(|(_, old)| old);
            let (before, after) = (old.as_ref().map(|old| old.targets()).unwrap_or_default(), write.record.targets());
            batch.delete.extend(before.difference(&after).map(|lost| keys.holder(*lost, write.id)));
            for target in after.difference(&before) {
                batch.put.push(Put { key: keys.holder(*target, write.id), bytes: Vec::new() });
                gained.insert(*target);
            }
            if let Some(rev) = write.prev_rev
                && let Some(old) = old.as_ref().filter(|_| !is_bucket)
            {
                let bytes = Past::row(self.now(), old).map_err(record)?;
                batch.put.push(Put { key: keys.history(write.id, rev), bytes });
            }
            let was = old.as_ref().and_then(|old| old.name.as_ref());
            if was != write.record.name.as_ref() {
                if let Some(name) = was {
                    batch.delete.push(keys.name(name));
                    unnamed.push(name.clone());
                }
                if let Some(name) = &write.record.name {
                    batch.expect.push(Expect { key: keys.name(name), rev: None });
                    batch.put.push(Put { key: keys.name(name), bytes: write.id.0.to_vec() });
                }
            }
            batch.put.push(Put { key: keys.head(write.id), bytes: write.record.encode().map_err(record)? });
            // The image itself is no news.
            if is_bucket || write.record.is_kernel && prev == 0 {
                written.push((write.id, prev + 1, Arc::new(write.record)));
                continue;
            }
            let event = render::event(write.id, prev + 1, prev, &write.record, &write.changed);
            // What goes is told under the name that it had.
            let told = old.as_deref().filter(|_| write.record.is_gone()).unwrap_or(&write.record);
            let token = render::subject_token(write.id, told);
            batch.put.push(self.event_row(write.id, prev + 1, token, "state", &event)?);
            written.push((write.id, prev + 1, Arc::new(write.record)));
        }
        // What nothing reached goes, unless somebody refers to it again before it is decided: see `collection`.
        for (new, ..) in written.iter().filter(|(_, rev, _)| *rev == 1) {
            gained.remove(new);
        }
        batch.expect.extend(gained.iter().map(|id| Expect { key: keys.unreached(*id), rev: None }));
        batch.expect.extend(changes.expect.into_iter().map(|(key, rev)| Expect { key, rev }));
        for (put, rev) in changes.rows {
            batch.expect.push(Expect { key: put.key.clone(), rev });
            batch.put.push(put);
        }
        batch.put.extend(changes.events);
        self.send_posts(&mut batch, &changes.posts, &changes.cancelled, group).await?;
        if let Some(Delivered { key, rev }) = changes.delivered {
            batch.expect.push(Expect { key: key.clone(), rev: Some(rev) });
            batch.delete.push(key);
        }
        let deleted: Vec<ObjectId> = changes.delete.iter().filter_map(KeySpace::object_of).collect();
        batch.delete.extend(changes.delete);
        Ok(Composed { batch, written, deleted, unnamed })
    }

    /// Commits, and lets later turns know.
    pub(super) async fn enter(&self, composed: Composed) -> Result<Durable, UniverseError> {
        let Composed { batch, written, deleted, unnamed } = composed;
        let put = || batch.put.iter().map(|put| &put.key);
        let events = put().filter(|key| KeySpace::is_outbox(key)).cloned().collect();
        let is_post = |key: &&Key| matches!(Place::of(key), Some(Place::Post { .. } | Place::Timer { .. }));
        let posts: Vec<u8> = put().filter(is_post).filter_map(Key::shard).collect();
        match self.inner.store.place(batch).await {
            Ok((_, durable)) => {
                written.into_iter().for_each(|(id, rev, record)| self.inner.cache.put(id, (rev, record)));
                self.inner.cache.forget(deleted);
                unnamed.iter().for_each(|name| self.inner.cache.forget_name(name));
                self.wake_relay(events);
                self.inner.posts.fill(posts);
                Ok(durable)
            }
            Err(StoreError::Conflict(stale)) => {
                self.reach(&stale).await?;
                self.inner.cache.forget(stale.iter().filter_map(KeySpace::object_of));
                Err(UniverseError::Store(StoreError::Conflict(stale)))
            }
            Err(error) => Err(UniverseError::Store(error)),
        }
    }
}
