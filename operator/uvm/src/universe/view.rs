//! What a turn reads: records from the worker's cache, else from the store, under an overlay of what-ifs.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use batos_graph::{KeySpace, ObjectId, Record, Rev, Store};

use super::{Authority, Universe, UniverseError};
use crate::vm::{Effects, Exit, Needs, NotUnderstood, Turn, VmError};

/// An object with its revision; `None` when there is none.
pub(super) type Found = Option<(Rev, Arc<Record>)>;

/// Records that the cache holds before it starts anew.
const CACHE_RECORDS: usize = 65_536;
/// Fuel between two yields to the other turns of this worker.
const SLICE: u64 = 50_000;

/// Possibly stale records; the commit finds out.
#[derive(Default)]
pub(super) struct Cache {
    objects: Mutex<HashMap<ObjectId, (Rev, Arc<Record>)>>,
    names: Mutex<HashMap<String, ObjectId>>,
}

impl Cache {
    pub(super) async fn objects(
        &self,
        ids: &[ObjectId],
        store: &Arc<dyn Store>,
        keys: KeySpace,
    ) -> Result<Vec<Found>, UniverseError> {
        let mut found: Vec<Found> = {
            let cached = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
            ids.iter().map(|id| cached.get(id).cloned()).collect()
        };
        let missing: Vec<ObjectId> =
            ids.iter().zip(&found).filter(|(_, hit)| hit.is_none()).map(|(id, _)| *id).collect();
        if missing.is_empty() {
            return Ok(found);
        }
        let heads: Vec<_> = missing.iter().map(|id| keys.head(*id)).collect();
        // Whoever tells what a turn found, tells it after a commit or `is_current`.
        let mut rows = store.peek(&heads).await.map_err(UniverseError::Store)?.into_iter();
        for (id, hit) in ids.iter().zip(&mut found).filter(|(_, hit)| hit.is_none()) {
            let Some(row) = rows.next().flatten() else { continue };
            let record = Record::decode(&row.bytes).map_err(|source| UniverseError::Record { object: *id, source })?;
            let entry = (row.rev, Arc::new(record));
            self.put(*id, entry.clone());
            *hit = Some(entry);
        }
        Ok(found)
    }

    pub(super) async fn name(
        &self,
        name: &str,
        store: &Arc<dyn Store>,
        keys: KeySpace,
    ) -> Result<Option<ObjectId>, UniverseError> {
        if let Some(id) = self.names.lock().unwrap_or_else(PoisonError::into_inner).get(name) {
            return Ok(Some(*id));
        }
        let rows = store.read(&[keys.name(name)]).await.map_err(UniverseError::Store)?;
        let Some(row) = rows.into_iter().next().flatten() else { return Ok(None) };
        let id = <[u8; 16]>::try_from(row.bytes.as_slice())
            .map(ObjectId)
            .map_err(|_| UniverseError::Internal(format!("name {name:?} leads to no id")))?;
        self.names.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), id);
        Ok(Some(id))
    }

    pub(super) fn forget_name(&self, name: &str) {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    pub(super) fn put(&self, id: ObjectId, entry: (Rev, Arc<Record>)) {
        let mut cached = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        if cached.len() >= CACHE_RECORDS {
            cached.clear();
        }
        // A slower read must not bring back an older revision.
        if cached.get(&id).is_none_or(|(rev, _)| *rev <= entry.0) {
            cached.insert(id, entry);
        }
    }

    pub(super) fn forget(&self, ids: impl IntoIterator<Item = ObjectId>) {
        let mut cached = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        ids.into_iter().for_each(|id| {
            cached.remove(&id);
        });
    }
}

/// How a turn ended, before anybody commits it.
#[derive(Debug)]
pub enum Ended {
    Done(Effects),
    NotUnderstood(NotUnderstood),
    Failed(VmError),
    /// It wrote what its authority may not.
    Refused(UniverseError),
}

/// The graph as one turn sees it. With an overlay it is a throw-away view: nothing of it reaches the store.
#[derive(Clone)]
pub struct View<'a> {
    universe: &'a Universe,
    /// Without a revision an object has that of what is stored.
    overlay: BTreeMap<ObjectId, (Option<Rev>, Arc<Record>)>,
}

impl<'a> View<'a> {
    pub fn new(universe: &'a Universe) -> Self {
        Self { universe, overlay: BTreeMap::new() }
    }

    pub fn universe(&self) -> &'a Universe {
        self.universe
    }

    /// Lets the turn see `record` instead of what is stored under `id`.
    pub fn overlay(&mut self, id: ObjectId, record: Record) {
        self.overlay.insert(id, (None, Arc::new(record)));
    }

    /// Lets the turn see what another turn will have left.
    pub(super) fn after(universe: &'a Universe, left: &BTreeMap<ObjectId, (Rev, Arc<Record>)>) -> Self {
        let overlay = left.iter().map(|(id, (rev, record))| (*id, (Some(*rev), record.clone())));
        Self { universe, overlay: overlay.collect() }
    }

    /// A living object.
    pub async fn object(&self, id: ObjectId) -> Result<Option<(Rev, Arc<Record>)>, UniverseError> {
        Ok(self.record(id).await?.filter(|(_, record)| !record.is_gone()))
    }

    /// An object, or what is left of one that is gone.
    pub(super) async fn record(&self, id: ObjectId) -> Result<Found, UniverseError> {
        Ok(self.objects(&[id]).await?.into_iter().next().flatten())
    }

    async fn objects(&self, ids: &[ObjectId]) -> Result<Vec<Found>, UniverseError> {
        let inner = &self.universe.inner;
        let mut found = inner.cache.objects(ids, &inner.store, inner.keys).await?;
        for (id, found) in ids.iter().zip(&mut found) {
            if let Some((rev, record)) = self.overlay.get(id) {
                let stored = || found.as_ref().map_or(1, |(rev, _)| *rev);
                *found = Some((rev.unwrap_or_else(stored), record.clone()));
            }
        }
        Ok(found)
    }

    /// Runs a turn on `receiver` in the name of `authority`: whether it is carried out or tried, it comes to the same.
    pub async fn end(&self, turn: &mut Turn, authority: Authority, receiver: ObjectId) -> Result<Ended, UniverseError> {
        let effects = match self.run(turn).await? {
            Exit::Done => turn.effects(),
            Exit::Failed(error) => Err(error),
            Exit::NotUnderstood(missing) => return Ok(Ended::NotUnderstood(missing)),
            Exit::Paused | Exit::Fault(_) => {
                return Err(UniverseError::Internal("a turn left its view unfinished".to_owned()));
            }
        };
        let effects = match effects {
            Ok(effects) => effects,
            Err(error) => return Ok(Ended::Failed(error)),
        };
        for write in &effects.writes {
            let old = self.object(write.id).await?.filter(|(rev, _)| Some(*rev) == write.prev_rev);
            let old = old.as_ref().map(|(_, record)| record.as_ref());
            if let Err(refused) = authority.check(receiver, write, old) {
                return Ok(Ended::Refused(refused));
            }
        }
        Ok(Ended::Done(effects))
    }

    /// Runs a turn to its exit, loading what it faults on. Never answers `Paused` or `Fault`.
    pub async fn run(&self, turn: &mut Turn) -> Result<Exit, UniverseError> {
        loop {
            match turn.run(SLICE) {
                Exit::Paused => tokio::task::yield_now().await,
                Exit::Fault(Needs { objects, names, holders }) => {
                    for (id, found) in objects.iter().zip(self.objects(&objects).await?) {
                        turn.supply(*id, found);
                    }
                    for name in names {
                        turn.supply_name(&name, self.universe.lookup_name(&name).await?);
                    }
                    for id in holders {
                        turn.supply_holders(id, self.universe.holders(id).await?);
                    }
                }
                exit => return Ok(exit),
            }
        }
    }
}
