//! Random concurrent transactions, each from reads at several moments and a worker's cache, held against the contract:
//! snapshot isolation over `expect` and `put`, serialisable over `lock`.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    sync::Arc,
};

use batos_graph::{Batch, Key, Rev, StoreError};
use batos_histories::{History, Kind, Model, Op, Plan, Recorder, Size, Step, Value, runs};

use super::{Engine, Space, expect, put};

/// What a transaction takes care of.
#[derive(Debug, Clone, Copy)]
struct Care {
    /// Locks what it only read.
    locks: bool,
    /// Expects what it read.
    expects: bool,
    /// Looks again at what it read, if it writes nothing.
    looks_again: bool,
}

const UNLOCKED: Care = Care { locks: false, expects: true, looks_again: true };
const LOCKED: Care = Care { locks: true, ..UNLOCKED };

/// Revisions and values as they were read.
type Cache = HashMap<u8, (Option<Rev>, Value)>;

struct Places {
    store: Engine,
    space: Space,
    care: Care,
}

impl Places {
    fn key(&self, place: u8) -> Key {
        self.space.key([place])
    }

    /// Nothing when the store is unavailable.
    async fn load(&self, places: &[u8]) -> Option<Vec<(Option<Rev>, Value)>> {
        let keys: Vec<Key> = places.iter().map(|place| self.key(*place)).collect();
        let value = |bytes: Vec<u8>| bytes.chunks(4).map(|word| u32::from_be_bytes(word.try_into().unwrap())).collect();
        let rows = match self.store.read(&keys).await {
            Ok(rows) => rows.into_iter(),
            Err(StoreError::Unavailable(_)) => return None,
            Err(error) => panic!("{error}"),
        };
        Some(rows.map(|row| row.map_or((None, Vec::new()), |row| (Some(row.rev), value(row.bytes)))).collect())
    }

    async fn transact(&self, steps: &[Step], cache: &mut Cache, recorder: &Recorder) {
        let begun = recorder.begin();
        let (mut ops, mut read, mut own) = (Vec::new(), BTreeMap::new(), BTreeMap::<u8, Value>::new());
        for step in steps {
            let place = step.place();
            if let Step::Write(_, value) = step {
                own.insert(place, vec![*value]);
                ops.push(Op::Write(place, Some(*value)));
                continue;
            }
            let mut value = match own.get(&place) {
                Some(value) => value.clone(),
                None => {
                    if let Entry::Vacant(missing) = cache.entry(place) {
                        let Some(mut loaded) = self.load(&[place]).await else { return };
                        missing.insert(loaded.remove(0));
                    }
                    let (rev, value) = &cache[&place];
                    read.insert(place, *rev);
                    value.clone()
                }
            };
            match step {
                Step::Append(_, element) => {
                    value.push(*element);
                    ops.push(Op::Append(place, *element));
                    own.insert(place, value);
                }
                Step::Switch(..) => {
                    // A key counts from 1 again after a delete: what comes back is what was there.
                    let turned = value.is_empty().then_some(u32::from(place));
                    ops.extend([Op::Read(place, value), Op::Write(place, turned)]);
                    own.insert(place, turned.into_iter().collect());
                }
                Step::Read(_) | Step::Write(..) => ops.push(Op::Read(place, value)),
            }
        }
        let places: Vec<u8> = read.keys().copied().collect();
        if own.is_empty() {
            let Some(still) = self.load(&places).await else { return };
            if !self.care.looks_again || read.values().eq(still.iter().map(|(rev, _)| rev)) {
                return recorder.committed(begun, ops);
            }
            return cache.retain(|place, _| !read.contains_key(place));
        }
        let mut batch = self.space.batch();
        if self.care.expects {
            batch.expect = read.iter().map(|(place, rev)| expect(&self.key(*place), *rev)).collect();
        }
        if self.care.locks {
            batch.lock = places.iter().filter(|place| !own.contains_key(place)).map(|place| self.key(*place)).collect();
        }
        for (place, value) in &own {
            match value.is_empty() {
                true => batch.delete.push(self.key(*place)),
                false => batch
                    .put
                    .push(put(&self.key(*place), value.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<_>>())),
            }
        }
        match self.store.commit(batch).await {
            Ok(_) => recorder.committed(begun, ops),
            // If anything was written, somebody sees what nobody says he wrote.
            Err(StoreError::Conflict(_) | StoreError::Unavailable(_)) => {}
            Err(StoreError::Unknown(_)) => recorder.unknown(begun, ops),
            Err(error) => panic!("{error}"),
        }
        cache.retain(|place, _| !own.contains_key(place) && !read.contains_key(place));
    }
}

/// Carries a plan out on keys of its own, and reads all places in the end.
async fn history(store: &Engine, kind: Kind, size: Size, seed: u64, care: Care) -> History {
    let places = Arc::new(Places { store: store.clone(), space: Space::new("history"), care });
    let recorder = Arc::new(Recorder::default());
    let workers: Vec<_> = Plan::draw(kind, size, seed)
        .workers
        .into_iter()
        .map(|transactions| {
            let (places, recorder) = (places.clone(), recorder.clone());
            tokio::spawn(async move {
                let mut cache = Cache::new();
                for steps in transactions {
                    places.transact(&steps, &mut cache, &recorder).await;
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    let (begun, all) = (recorder.begin(), (0..size.places).collect::<Vec<_>>());
    let ends = loop {
        if let Some(ends) = places.load(&all).await {
            break ends;
        }
    };
    recorder.committed(begun, all.into_iter().zip(ends).map(|(place, (_, value))| Op::Read(place, value)).collect());
    Arc::into_inner(recorder).unwrap().history()
}

/// Why histories of this seed are not what the model says.
async fn wrong(store: &Engine, seed: u64, care: Care, model: Model) -> Option<String> {
    for kind in [Kind::Lists, Kind::Registers, Kind::Switches] {
        let small = history(store, kind, Plan::SMALL, seed, care).await;
        if !small.is_explained(model) {
            return Some(format!("no order explains it:\n{small}"));
        }
    }
    let anomalies = history(store, Kind::Lists, Plan::LARGE, seed, care).await.anomalies(model);
    (!anomalies.is_empty()).then(|| anomalies.join("\n"))
}

async fn hold(store: &Engine, care: Care, model: Model) {
    for seed in runs() {
        if let Some(wrong) = wrong(store, seed, care, model).await {
            panic!("BATOS_HISTORIES_SEED={seed} {care:?} {model:?}\n{wrong}");
        }
    }
}

/// As `hold`, with a fault that `switched` turns on before each seed's histories.
#[allow(dead_code)] // Only TiKV has faults that can be switched.
pub async fn hold_under<F>(store: Engine, mut switched: impl FnMut() -> F) {
    for seed in runs() {
        let _fault = switched();
        if let Some(wrong) = wrong(&store, seed, LOCKED, Model::Serial).await {
            panic!("BATOS_HISTORIES_SEED={seed}\n{wrong}");
        }
    }
}

pub async fn histories_read_snapshots(store: Engine, _space: Space) {
    hold(&store, UNLOCKED, Model::Snapshot).await;
}

pub async fn locked_histories_are_serial(store: Engine, _space: Space) {
    hold(&store, LOCKED, Model::Serial).await;
}

/// These histories would show if anything of it were not so.
pub async fn what_is_not_expected_or_looked_at_again_shows(store: Engine, _space: Space) {
    for care in [Care { expects: false, ..LOCKED }, Care { looks_again: false, ..LOCKED }] {
        let mut seeds = runs();
        let shows = loop {
            let Some(seed) = seeds.next() else { break false };
            if wrong(&store, seed, care, Model::Snapshot).await.is_some() {
                break true;
            }
        };
        assert!(shows, "{care:?}");
    }
}

/// Of `rounds` pairs of transactions, each of which reads what the other writes: how many were both carried out.
pub async fn write_skews(store: &Engine, rounds: usize, is_locked: bool) -> usize {
    let mut skews = 0;
    for _ in 0..rounds {
        let (space, recorder) = (Space::new("skew"), Recorder::default());
        let (x, y) = (space.key("x"), space.key("y"));
        let half = |read: &Key, written: &Key| Batch {
            expect: vec![expect(read, None)],
            lock: if is_locked { vec![read.clone()] } else { vec![] },
            put: vec![put(written, "1")],
            ..space.batch()
        };
        let begun = [recorder.begin(), recorder.begin()];
        let (left, right) = tokio::join!(store.commit(half(&x, &y)), store.commit(half(&y, &x)));
        for (begun, (outcome, [read, written])) in begun.into_iter().zip([(left, [0, 1]), (right, [1, 0])]) {
            match outcome {
                Ok(_) => recorder.committed(begun, vec![Op::Read(read, vec![]), Op::Write(written, Some(1))]),
                Err(StoreError::Conflict(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
        let history = recorder.history();
        assert!(history.is_explained(Model::Snapshot));
        skews += usize::from(!history.is_explained(Model::Serial));
    }
    skews
}
