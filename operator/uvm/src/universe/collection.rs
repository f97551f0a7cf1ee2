//! Collection of objects that nothing reaches, while turns go on.
//!
//! A pass reads the universe at one moment and marks what its roots lead to: objects of the image, of manifests and with
//! names, and what waiting messages, timers and open becomings are about. Overwritten data that is kept leads on too, so
//! that an undo finds what it puts back. What is not marked gets a row, `unreached`, with the time and its revision.
//!
//! A commit that makes somebody refer to an object expects that it has no such row; one that meets a row removes it, and
//! runs again. So what has had a row for the time that the universe's retention says, and is not reached by a later pass
//! either, can be reached by nothing but a message to its id. Such objects are condemned, with all that only they lead to;
//! then one row of the universe decides: from there on a commit that would refer to one of them fails, and they are
//! deleted. Until there, a commit that refers to one makes the pass vain.
//!
//! On a store whose commits overlap (TiKV), a commit that takes longer than the retention would not be seen: keep what is
//! unreached for minutes at least.
//!
//! The same pass compares the rows that say who refers to whom with what objects hold, and repairs them: that is also how
//! a universe of an older batos gets them.
//!
//! In memory a pass takes some 100 bytes an object and 20 a reference.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use batos_covenant::{Encoding, ErrorKind, ObjectCount, UniverseInfo, decode, encode};
use batos_graph::{Expect, Key, ObjectId, Past, Place, Put, Record, Rev, StoreError, Versioned, bucket::MAX_HEIGHT};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Age, Envelope, Universe, UniverseError, View};
use crate::vm::VmError;

/// Rows that are read at once.
const PAGE: usize = 256;
/// Rows that one batch writes.
const BATCH: usize = 512;
/// A rest after work is this many times as long as the work.
const REST: u32 = 4;
/// Passes in the time that unreached objects are kept.
const PASSES: u32 = 4;
const SHORTEST_PASS: Duration = Duration::from_secs(1);
const LONGEST_PASS: Duration = Duration::from_secs(6 * 60 * 60);
/// A pass that comes earlier than it must, so that objects are counted: not before this time, and not before this many
/// times as long as it took.
const SOON: Duration = Duration::from_secs(10 * 60);
const COUNTING: u64 = 1000;
/// Before it looks again at a pass that another worker is taking, or that has failed.
const OTHERS: Duration = Duration::from_secs(60);
/// Most who refer to one object that are told.
const MOST_HOLDERS: usize = 10_000;

/// The objects that a row of the journal keeps from being collected.
pub type JobTargets = fn(&[u8]) -> Vec<ObjectId>;

/// How far collection has come.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Collection {
    /// When the last pass began.
    begun: u64,
    /// Its number.
    pass: u64,
    /// Whether what it condemned is dead.
    deleting: bool,
    /// Whether it is known who refers to whom.
    indexed: bool,
    /// What the last pass that came to its end has counted.
    #[serde(default)]
    counted: Option<Counted>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Counted {
    objects: ObjectCount,
    /// How long it took to look through the universe, in milliseconds.
    took: u64,
}

/// An object that a pass did not reach.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Unreached {
    since: u64,
    rev: Rev,
    /// The pass that condemned it.
    condemned: Option<u64>,
}

/// What a step of collection did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    pub objects: usize,
    /// When to come again.
    pub rest: Duration,
}

/// Rows that are written if what they rest on is still so.
#[derive(Default)]
struct Step {
    expect: Vec<Expect>,
    put: Option<Put>,
    delete: Vec<Key>,
}

impl Universe {
    /// A step of collection: a pass, or the deletion of what the last pass condemned.
    pub async fn collect(&self, jobs: JobTargets) -> Result<Collected, UniverseError> {
        let (rev, mut state) = self.collection().await?;
        if state.deleting {
            return self.delete_condemned(rev, state).await;
        }
        // What has never been counted, or may lack rows, is looked at soon.
        let wait = match (state.indexed, state.counted) {
            (true, Some(_)) => self.pause(&state),
            (true, None) => self.pause(&state).min(OTHERS),
            (false, _) => OTHERS,
        };
        let age = Duration::from_secs(self.now().abs_diff(state.begun));
        if age < wait {
            return Ok(Collected { objects: 0, rest: wait - age });
        }
        state.begun = self.now();
        state.pass += 1;
        let lost = Ok(Collected { objects: 0, rest: OTHERS });
        let Some(rev) = self.put_collection(&state, rev).await? else { return lost };
        let looking = Instant::now();
        let graph = self.survey(jobs).await?;
        let took = u64::try_from(looking.elapsed().as_millis()).unwrap_or(u64::MAX);
        let objects = ObjectCount { count: graph.living, at: state.begun };
        state.counted = Some(Counted { objects, took });
        let repairs = graph.repairs();
        if state.indexed && !repairs.is_empty() {
            tracing::error!(
                references = repairs.len(),
                "rows that say who refers to whom were wrong; they are repaired"
            );
        }
        state.indexed |= self.carry_out(self.repairing(&graph, repairs)).await?;
        let verdict = graph.judge(self.inner.retention.unreached, state.begun);
        if !self.carry_out(self.noting(&graph, &verdict, &state)?).await? {
            return lost;
        }
        state.deleting = !verdict.condemned.is_empty();
        if self.put_collection(&state, Some(rev)).await?.is_none() {
            return lost;
        }
        let rest = if state.deleting { Duration::ZERO } else { self.pause(&state) };
        Ok(Collected { objects: 0, rest })
    }

    /// Time from one pass to the next. Where a pass costs little it comes earlier than it must, because it counts.
    fn pause(&self, state: &Collection) -> Duration {
        let must = match self.inner.retention.unreached {
            Age::For(kept) => (kept / PASSES).clamp(SHORTEST_PASS, LONGEST_PASS),
            Age::Forever => LONGEST_PASS,
        };
        let cheap = state.counted.map_or(LONGEST_PASS, |Counted { took, .. }| {
            Duration::from_millis(took.saturating_mul(COUNTING)).max(SOON)
        });
        must.min(cheap)
    }

    /// What can be said of the universe without looking at its objects.
    pub async fn info(&self) -> Result<UniverseInfo, UniverseError> {
        let objects = self.collection().await?.1.counted.map(|counted| counted.objects);
        let image = self.inner.image.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(UniverseInfo { batos: env!("CARGO_PKG_VERSION").to_owned(), image, objects })
    }

    /// The row of a new universe.
    pub(super) fn first_collection(&self) -> Result<(Put, Option<Rev>), UniverseError> {
        let state = Collection { begun: self.now(), indexed: true, ..Collection::default() };
        Ok((Put { key: self.inner.keys.collection(), bytes: written(&state)? }, None))
    }

    async fn collection(&self) -> Result<(Option<Rev>, Collection), UniverseError> {
        let rows = self.inner.store.read(&[self.inner.keys.collection()]).await.map_err(UniverseError::Store)?;
        match rows.into_iter().next().flatten() {
            Some(row) => Ok((Some(row.rev), read(&row, "collection")?)),
            None => Ok((None, Collection::default())),
        }
    }

    /// The new revision; `None` if another worker was first.
    async fn put_collection(&self, state: &Collection, rev: Option<Rev>) -> Result<Option<Rev>, UniverseError> {
        let key = self.inner.keys.collection();
        let step = Step {
            expect: vec![Expect { key: key.clone(), rev }],
            put: Some(Put { key, bytes: written(state)? }),
            delete: Vec::new(),
        };
        Ok(self.carry_out(vec![step]).await?.then_some(rev.unwrap_or(0) + 1))
    }

    /// Commits steps, many at a time; answers whether nothing came in between. Steps that met something are left out.
    async fn carry_out(&self, steps: Vec<Step>) -> Result<bool, UniverseError> {
        let mut all = true;
        let mut steps = steps.into_iter().peekable();
        while steps.peek().is_some() {
            let begun = Instant::now();
            let mut batch = self.batch(self.fresh_marker()?);
            let mut expected = HashSet::new();
            while batch.put.len() + batch.delete.len() < BATCH
                && let Some(step) = steps.next()
            {
                let expect = step.expect.into_iter().filter(|expect| expected.insert(expect.key.clone()));
                batch.expect.extend(expect);
                batch.put.extend(step.put);
                batch.delete.extend(step.delete);
            }
            match self.inner.store.commit(batch).await {
                Ok(_) => {}
                Err(StoreError::Conflict(_)) => all = false,
                Err(error) => return Err(UniverseError::Store(error)),
            }
            if steps.peek().is_some() {
                tokio::time::sleep(begun.elapsed() * REST).await;
            }
        }
        Ok(all)
    }

    /// The whole universe at one moment, read a page at a time.
    async fn survey(&self, jobs: JobTargets) -> Result<Graph, UniverseError> {
        let store = &self.inner.store;
        let at = store.snapshot().await.map_err(UniverseError::Store)?;
        let mut graph = Graph::default();
        let (mut start, end) = self.inner.keys.range();
        loop {
            let begun = Instant::now();
            let rows = store.scan(&start, &end, Some(at), PAGE).await.map_err(UniverseError::Store)?;
            rows.iter().try_for_each(|(key, row)| graph.row(key, row, jobs))?;
            match rows.last() {
                Some((last, _)) if rows.len() == PAGE => start = last.successor(),
                _ => return Ok(graph.sorted()),
            }
            tokio::time::sleep(begun.elapsed() * REST).await;
        }
    }

    fn repairing(&self, graph: &Graph, repairs: Vec<(Edge, bool)>) -> Vec<Step> {
        let keys = self.inner.keys;
        let step = |((from, to), is_missing): (Edge, bool)| {
            let (Some(holder), Some(target)) = (graph.object(from), graph.object(to)) else { return Step::default() };
            let key = keys.holder(target.id, holder.id);
            // The holder is what it was at the moment of the survey.
            let expect = vec![Expect { key: keys.head(holder.id), rev: holder.rev }];
            match is_missing {
                true => Step { expect, put: Some(Put { key, bytes: Vec::new() }), delete: Vec::new() },
                false => Step { expect, put: None, delete: vec![key] },
            }
        };
        repairs.into_iter().map(step).collect()
    }

    /// Rows of what was not reached.
    fn noting(&self, graph: &Graph, verdict: &Verdict, state: &Collection) -> Result<Vec<Step>, UniverseError> {
        let keys = self.inner.keys;
        let mut steps = Vec::new();
        for place in &verdict.reached {
            let Some((object, (rev, _))) = graph.object(*place).zip(graph.rows.get(place)) else { continue };
            let key = keys.unreached(object.id);
            let expect = vec![Expect { key: key.clone(), rev: Some(*rev) }];
            steps.push(Step { expect, put: None, delete: vec![key] });
        }
        let first = verdict.unreached.iter().map(|place| (place, false));
        for (place, is_condemned) in first.chain(verdict.condemned.iter().map(|place| (place, true))) {
            let Some((id, rev)) = graph.object(*place).and_then(|object| Some((object.id, object.rev?))) else {
                continue;
            };
            let row = graph.rows.get(place);
            let key = keys.unreached(id);
            let mut expect = vec![Expect { key: key.clone(), rev: row.map(|(rev, _)| *rev) }];
            let bytes = match row.filter(|_| is_condemned) {
                Some((_, row)) => {
                    expect.push(Expect { key: keys.head(id), rev: Some(rev) });
                    written(&Unreached { condemned: Some(state.pass), ..row.clone() })?
                }
                None => written(&Unreached { since: state.begun, rev, condemned: None })?,
            };
            steps.push(Step { expect, put: Some(Put { key, bytes }), delete: Vec::new() });
        }
        Ok(steps)
    }

    /// Deletes what the last pass condemned. The rows that say so go once all of it is gone: as long as one of the objects
    /// is there, a commit may try to refer to another that it has seen in it.
    async fn delete_condemned(&self, rev: Option<Rev>, mut state: Collection) -> Result<Collected, UniverseError> {
        let mut condemned = Vec::new();
        for shard in 0..=u8::MAX {
            let (mut start, end) = self.inner.keys.unreached_range(shard);
            loop {
                let rows = self.inner.store.scan(&start, &end, None, PAGE).await.map_err(UniverseError::Store)?;
                for (key, row) in &rows {
                    let Some(Place::Unreached(id)) = Place::of(key) else { continue };
                    if read::<Unreached>(row, "unreached object")?.condemned == Some(state.pass) {
                        condemned.push((id, Expect { key: key.clone(), rev: Some(row.rev) }));
                    }
                }
                match rows.last() {
                    Some((last, _)) if rows.len() == PAGE => start = last.successor(),
                    _ => break,
                }
            }
        }
        for some in condemned.chunks(PAGE) {
            let begun = Instant::now();
            let ids: Vec<ObjectId> = some.iter().map(|(id, _)| *id).collect();
            // A message that comes by an object's id may change it meanwhile.
            while !self.carry_out(self.deleting(&ids).await?).await? {}
            self.inner.cache.forget(ids);
            tokio::time::sleep(begun.elapsed() * REST).await;
        }
        let objects = condemned.len();
        let decided = Expect { key: self.inner.keys.collection(), rev };
        let step = |(_, row): (ObjectId, Expect)| Step {
            delete: vec![row.key.clone()],
            expect: vec![decided.clone(), row],
            put: None,
        };
        let steps = condemned.into_iter().map(step).collect();
        state.deleting = false;
        if !self.carry_out(steps).await? || self.put_collection(&state, rev).await?.is_none() {
            // Another worker deletes them too.
            return Ok(Collected { objects: 0, rest: SHORTEST_PASS });
        }
        Ok(Collected { objects, rest: self.pause(&state) })
    }

    /// Removes all that belongs to objects but the replies to their messages, which housekeeping lets go in time.
    async fn deleting(&self, ids: &[ObjectId]) -> Result<Vec<Step>, UniverseError> {
        let (keys, store) = (self.inner.keys, &self.inner.store);
        let heads: Vec<Key> = ids.iter().map(|id| keys.head(*id)).collect();
        let heads = store.read(&heads).await.map_err(UniverseError::Store)?;
        let mut steps = Vec::new();
        for (id, head) in ids.iter().zip(heads) {
            for (mut start, end) in
                [keys.history_range(*id, Rev::MAX), (keys.holder_range(*id).0, keys.own_range(*id).1)]
            {
                loop {
                    let rows = store.scan(&start, &end, None, PAGE).await.map_err(UniverseError::Store)?;
                    let is_last = rows.len() < PAGE;
                    if let Some((last, _)) = rows.last() {
                        start = last.successor();
                    }
                    steps.extend(rows.into_iter().map(|(key, _)| Step { delete: vec![key], ..Step::default() }));
                    if is_last {
                        break;
                    }
                }
            }
            let Some(head) = head else { continue };
            let record = Record::decode(&head.bytes).map_err(|source| UniverseError::Record { object: *id, source })?;
            let held = record.targets().into_iter().map(|target| keys.holder(target, *id));
            steps.push(Step {
                expect: vec![Expect { key: keys.head(*id), rev: Some(head.rev) }],
                put: None,
                delete: held.chain([keys.head(*id)]).collect(),
            });
        }
        Ok(steps)
    }

    /// Of the keys that a commit conflicted on: objects that nothing reached are reached again by it, unless they are dead.
    pub(super) async fn reach(&self, stale: &[Key]) -> Result<(), UniverseError> {
        let keys = self.inner.keys;
        let unreached = |key: &&Key| matches!(Place::of(key), Some(Place::Unreached(_)));
        let stale: Vec<Key> = stale.iter().filter(unreached).cloned().collect();
        if stale.is_empty() {
            return Ok(());
        }
        let rows = self.inner.store.read(&stale).await.map_err(UniverseError::Store)?;
        let (rev, state) = self.collection().await?;
        let mut batch = self.batch(self.fresh_marker()?);
        let mut is_condemned = false;
        for (key, row) in stale.into_iter().zip(rows) {
            let Some(row) = row else { continue };
            let unreached: Unreached = read(&row, "unreached object")?;
            if state.deleting && unreached.condemned == Some(state.pass) {
                let id = match Place::of(&key) {
                    Some(Place::Unreached(id)) => id.to_string(),
                    _ => format!("{key:?}"),
                };
                return Err(UniverseError::NoSuchObject(id));
            }
            is_condemned |= unreached.condemned.is_some();
            batch.expect.push(Expect { key: key.clone(), rev: Some(row.rev) });
            batch.delete.push(key);
        }
        if is_condemned {
            // The pass that condemned them cannot decide any more.
            batch.expect.push(Expect { key: keys.collection(), rev });
            batch.put.push(Put { key: keys.collection(), bytes: written(&state)? });
        }
        match self.inner.store.commit(batch).await {
            Ok(_) | Err(StoreError::Conflict(_)) => Ok(()),
            Err(error) => Err(UniverseError::Store(error)),
        }
    }

    /// Gives objects rows as if nothing had reached them: a commit that makes somebody refer to one takes its row away.
    /// Answers the rows as they are until then.
    pub(super) async fn note_unreached(&self, ids: &[ObjectId]) -> Result<Vec<(Key, Option<Rev>)>, UniverseError> {
        let keys: Vec<Key> = ids.iter().map(|id| self.inner.keys.unreached(*id)).collect();
        let rows = self.inner.store.read(&keys).await.map_err(UniverseError::Store)?;
        let row = written(&Unreached { since: self.now(), rev: 0, condemned: None })?;
        let step = |key: &Key| Step {
            expect: vec![Expect { key: key.clone(), rev: None }],
            put: Some(Put { key: key.clone(), bytes: row.clone() }),
            delete: Vec::new(),
        };
        let missing = keys.iter().zip(&rows).filter(|(_, row)| row.is_none());
        // If something came in between, whoever rests on the rows meets it.
        self.carry_out(missing.map(|(key, _)| step(key)).collect()).await?;
        let rev = |row: Option<Versioned>| Some(row.map_or(1, |row| row.rev));
        Ok(keys.into_iter().zip(rows.into_iter().map(rev)).collect())
    }

    /// The objects that refer to `id`, sorted; of a bucket's, the collection that it is of.
    pub async fn holders(&self, id: ObjectId) -> Result<Vec<ObjectId>, UniverseError> {
        if !self.inner.indexed.load(Ordering::Relaxed) {
            if !self.collection().await?.1.indexed {
                let text =
                    "who refers to whom is being worked out since an older batos had this universe: ask again later";
                return Err(UniverseError::NotYet(text.to_owned()));
            }
            self.inner.indexed.store(true, Ordering::Relaxed);
        }
        let view = View::new(self);
        let mut holders = BTreeSet::new();
        let mut level = vec![id];
        for _ in 0..=MAX_HEIGHT + 1 {
            let mut buckets = Vec::new();
            for id in level {
                let (mut start, end) = self.inner.keys.holder_range(id);
                loop {
                    let rows = self.inner.store.scan(&start, &end, None, PAGE).await.map_err(UniverseError::Store)?;
                    for (key, _) in &rows {
                        let Some(Place::Holder { holder, .. }) = Place::of(key) else { continue };
                        match view.object(holder).await? {
                            Some((_, record)) if record.is_bucket() => buckets.push(holder),
                            Some(_) => drop(holders.insert(holder)),
                            None => {}
                        }
                    }
                    if holders.len() + buckets.len() > MOST_HOLDERS {
                        let text = format!("more than {MOST_HOLDERS} objects refer to {id}");
                        return Err(VmError::new(ErrorKind::LimitExceeded, text).into());
                    }
                    match rows.last() {
                        Some((last, _)) if rows.len() == PAGE => start = last.successor(),
                        _ => break,
                    }
                }
            }
            if buckets.is_empty() {
                break;
            }
            level = buckets;
        }
        Ok(holders.into_iter().collect())
    }
}

/// Whether the universe's row of collection says that it is known who refers to whom.
pub(super) fn is_indexed(row: &Versioned) -> bool {
    read::<Collection>(row, "collection").is_ok_and(|state| state.indexed)
}

fn written(row: &impl Serialize) -> Result<Vec<u8>, UniverseError> {
    encode(row, Encoding::MessagePack).map_err(|e| UniverseError::Internal(e.to_string()))
}

fn read<T: DeserializeOwned>(row: &Versioned, what: &str) -> Result<T, UniverseError> {
    decode(&row.bytes).map(|(row, _)| row).map_err(|e| UniverseError::Internal(format!("{what}: {e}")))
}

/// Places of objects in a survey: who refers, to whom.
type Edge = (u32, u32);

struct Object {
    id: ObjectId,
    /// `None`: somebody refers to it, and it is not there.
    rev: Option<Rev>,
}

/// A universe at one moment.
#[derive(Default)]
struct Graph {
    places: HashMap<ObjectId, u32>,
    objects: Vec<Object>,
    roots: Vec<u32>,
    /// By what objects are, and by what they were.
    edges: Vec<Edge>,
    past: Vec<Edge>,
    /// What the rows say.
    held: Vec<Edge>,
    /// Objects, without the parts of collections and what is left of those that went.
    living: u64,
    rows: BTreeMap<u32, (Rev, Unreached)>,
}

/// What becomes of objects and their rows.
#[derive(Default)]
struct Verdict {
    /// They are reached again, or gone: their rows go.
    reached: Vec<u32>,
    /// Not reached for the first time at this revision.
    unreached: Vec<u32>,
    condemned: Vec<u32>,
}

impl Graph {
    fn place(&mut self, id: ObjectId) -> u32 {
        let next = u32::try_from(self.objects.len()).unwrap_or(u32::MAX);
        *self.places.entry(id).or_insert_with(|| {
            self.objects.push(Object { id, rev: None });
            next
        })
    }

    fn object(&self, place: u32) -> Option<&Object> {
        self.objects.get(place as usize)
    }

    fn row(&mut self, key: &Key, row: &Versioned, jobs: JobTargets) -> Result<(), UniverseError> {
        let damaged = |id| move |source| UniverseError::Record { object: id, source };
        match Place::of(key) {
            Some(Place::Head(id)) => {
                let record = Record::decode(&row.bytes).map_err(damaged(id))?;
                let place = self.place(id);
                self.living += u64::from(!record.is_bucket() && !record.is_gone());
                if let Some(object) = self.objects.get_mut(place as usize) {
                    object.rev = Some(row.rev);
                }
                if record.name.is_some() || record.is_kernel || record.manifest.is_some() || id.is_well_known() {
                    self.roots.push(place);
                }
                for target in record.targets() {
                    let target = self.place(target);
                    self.edges.push((place, target));
                }
            }
            Some(Place::History(id, _)) => {
                let past = Past::decode(&row.bytes).map_err(damaged(id))?;
                let place = self.place(id);
                for target in past.record.targets() {
                    let target = self.place(target);
                    self.past.push((place, target));
                }
            }
            Some(Place::Holder { id, holder }) => {
                let edge = (self.place(holder), self.place(id));
                self.held.push(edge);
            }
            Some(Place::Post { .. } | Place::Timer { .. }) => {
                for target in read::<Envelope>(row, "message")?.targets() {
                    let target = self.place(target);
                    self.roots.push(target);
                }
            }
            Some(Place::Job(_)) => {
                for target in jobs(&row.bytes) {
                    let target = self.place(target);
                    self.roots.push(target);
                }
            }
            Some(Place::Unreached(id)) => {
                let place = self.place(id);
                self.rows.insert(place, (row.rev, read(row, "unreached object")?));
            }
            _ => {}
        }
        Ok(())
    }

    fn sorted(mut self) -> Self {
        [&mut self.edges, &mut self.past, &mut self.held].into_iter().for_each(|edges| edges.sort_unstable());
        self.past.dedup();
        self
    }

    /// References whose row is missing, and rows whose reference is.
    fn repairs(&self) -> Vec<(Edge, bool)> {
        let is_in = |edges: &[Edge], edge: &Edge| edges.binary_search(edge).is_ok();
        let missing = self.edges.iter().filter(|edge| !is_in(&self.held, edge)).map(|edge| (*edge, true));
        let wrong = self.held.iter().filter(|edge| !is_in(&self.edges, edge)).map(|edge| (*edge, false));
        missing.chain(wrong).collect()
    }

    fn judge(&self, kept: Age, now: u64) -> Verdict {
        let mut marked = vec![false; self.objects.len()];
        self.mark(self.roots.clone(), &mut marked);
        let is_marked = |marked: &[bool], place: u32| marked.get(place as usize).copied().unwrap_or(true);
        let mut verdict = Verdict::default();
        let mut young = Vec::new();
        for (object, place) in self.objects.iter().zip(0..) {
            let row = self.rows.get(&place).map(|(_, row)| row);
            if is_marked(&marked, place) || object.rev.is_none() || kept == Age::Forever {
                verdict.reached.extend(row.map(|_| place));
                continue;
            }
            match row {
                Some(row) if Some(row.rev) == object.rev && kept.has_passed(row.since, now) => {
                    verdict.condemned.push(place);
                }
                Some(row) if Some(row.rev) == object.rev => young.push(place),
                _ => {
                    young.push(place);
                    verdict.unreached.push(place);
                }
            }
        }
        // What was changed or left lately keeps what it leads to.
        self.mark(young, &mut marked);
        verdict.condemned.retain(|place| !is_marked(&marked, *place));
        verdict
    }

    fn mark(&self, mut waiting: Vec<u32>, marked: &mut [bool]) {
        while let Some(place) = waiting.pop() {
            match marked.get_mut(place as usize) {
                Some(mark) if !*mark => *mark = true,
                _ => continue,
            }
            for edges in [&self.edges, &self.past] {
                let from = edges.partition_point(|(from, _)| *from < place);
                let targets = edges.iter().skip(from).take_while(|(from, _)| *from == place).map(|(_, to)| *to);
                waiting.extend(targets.filter(|to| marked.get(*to as usize) == Some(&false)));
            }
        }
    }
}
