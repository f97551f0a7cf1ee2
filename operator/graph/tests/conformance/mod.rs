//! The store's contract as cases that every engine passes. Each case gets keys of its own under `space`.

mod histories;

use std::{collections::BTreeMap, sync::Arc};

use batos_graph::{Batch, Expect, Key, MAX_BATCH, Put, Rev, Store, StoreError, Versioned};

pub use histories::*;

pub type Engine = Arc<dyn Store>;

/// Runs every case as a test of one engine; `$open` makes a store.
#[macro_export]
macro_rules! conformance {
    ($open:expr; $($case:ident)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            let (store, _guard) = $open.await;
            let space = $crate::conformance::Space::new(stringify!($case));
            $crate::conformance::$case(store, space).await;
        })*
    };
    ($open:expr) => {
        $crate::conformance! { $open;
            absent_keys_are_none_in_their_order
            a_revision_counts_the_puts_of_its_key
            a_put_may_pass_over_revisions
            what_is_expected_must_hold
            a_marker_is_written_once
            a_scan_is_ordered_and_bounded
            concurrent_increments_are_all_counted
            locks_prevent_write_skew
            a_batch_is_seen_wholly_or_not_at_all
            large_values_fit_and_larger_batches_are_refused
            a_page_of_large_rows_is_read
            random_batches_behave_as_a_map
            a_snapshot_stays_as_it_was
            restored_rows_keep_their_revisions
            histories_read_snapshots
            locked_histories_are_serial
            what_is_not_expected_or_looked_at_again_shows
        }
    };
}

/// Keys that no other test and no earlier run uses.
pub struct Space(Vec<u8>);

impl Space {
    pub fn new(case: &str) -> Self {
        let mut unique = [0; 8];
        getrandom::fill(&mut unique).unwrap();
        Self([case.as_bytes(), &unique, b"/"].concat())
    }

    fn key(&self, name: impl AsRef<[u8]>) -> Key {
        Key([&self.0, name.as_ref()].concat())
    }

    fn marker(&self) -> Key {
        let mut unique = [0; 16];
        getrandom::fill(&mut unique).unwrap();
        self.key([b"~", unique.as_slice()].concat())
    }

    fn batch(&self) -> Batch {
        Batch {
            marker: self.marker(),
            marker_bytes: b"m".to_vec(),
            expect: vec![],
            lock: vec![],
            put: vec![],
            delete: vec![],
            passes: Default::default(),
        }
    }
}

fn put(key: &Key, bytes: impl Into<Vec<u8>>) -> Put {
    Put { key: key.clone(), bytes: bytes.into() }
}

fn expect(key: &Key, rev: Option<Rev>) -> Expect {
    Expect { key: key.clone(), rev }
}

async fn read(store: &Engine, key: &Key) -> Option<(Rev, Vec<u8>)> {
    let rows = store.read(std::slice::from_ref(key)).await.unwrap();
    rows.into_iter().next().unwrap().map(|row| (row.rev, row.bytes))
}

pub async fn absent_keys_are_none_in_their_order(store: Engine, space: Space) {
    let (a, b, c) = (space.key("a"), space.key("b"), space.key("c"));
    store.commit(Batch { put: vec![put(&b, "B")], ..space.batch() }).await.unwrap();
    let rows = store.read(&[c.clone(), b.clone(), a, b]).await.unwrap();
    let found: Vec<_> = rows.into_iter().map(|row| row.map(|row| row.bytes)).collect();
    assert_eq!(found, [None, Some(b"B".to_vec()), None, Some(b"B".to_vec())]);
    assert_eq!(store.read(&[]).await.unwrap(), []);
}

pub async fn a_revision_counts_the_puts_of_its_key(store: Engine, space: Space) {
    let (a, b) = (space.key("a"), space.key("b"));
    for rev in 1..=3 {
        let committed = store.commit(Batch { put: vec![put(&a, [rev as u8])], ..space.batch() }).await.unwrap();
        assert_eq!(committed.revs, [rev]);
    }
    let committed = store.commit(Batch { put: vec![put(&b, "x"), put(&a, "y")], ..space.batch() }).await.unwrap();
    assert_eq!(committed.revs, [1, 4], "in the order of the puts");
    store.commit(Batch { delete: vec![a.clone()], ..space.batch() }).await.unwrap();
    assert_eq!(read(&store, &a).await, None);
    store.commit(Batch { put: vec![put(&a, "z")], ..space.batch() }).await.unwrap();
    assert_eq!(read(&store, &a).await, Some((1, b"z".to_vec())), "from 1 again after a delete");
}

pub async fn a_put_may_pass_over_revisions(store: Engine, space: Space) {
    let (a, b) = (space.key("a"), space.key("b"));
    let passing = |a: Rev| [(space.key("a"), a)].into();
    for (passes, wanted) in [(2, 3), (0, 4), (5, 10)] {
        let put = vec![put(&a, "x"), put(&b, "y")];
        let committed = store.commit(Batch { put, passes: passing(passes), ..space.batch() }).await.unwrap();
        assert_eq!(committed.revs[0], wanted);
    }
    assert_eq!(read(&store, &a).await.unwrap().0, 10);
    assert_eq!(read(&store, &b).await.unwrap().0, 3, "others count as ever");
}

pub async fn what_is_expected_must_hold(store: Engine, space: Space) {
    let (a, b) = (space.key("a"), space.key("b"));
    store.commit(Batch { expect: vec![expect(&a, None)], put: vec![put(&a, "1")], ..space.batch() }).await.unwrap();
    for wrong in [vec![expect(&a, None)], vec![expect(&a, Some(2))], vec![expect(&a, Some(1)), expect(&b, Some(1))]] {
        let batch = Batch { expect: wrong.clone(), put: vec![put(&a, "2"), put(&b, "2")], ..space.batch() };
        let marker = batch.marker.clone();
        let Err(StoreError::Conflict(keys)) = store.commit(batch).await else { panic!("{wrong:?} held") };
        assert_eq!(keys, [wrong.last().unwrap().key.clone()], "names the stale key");
        assert_eq!(read(&store, &marker).await, None, "a refused batch leaves no marker");
    }
    assert_eq!(read(&store, &a).await, Some((1, b"1".to_vec())));
    assert_eq!(read(&store, &b).await, None);
    store.commit(Batch { expect: vec![expect(&a, Some(1))], delete: vec![a.clone()], ..space.batch() }).await.unwrap();
    assert_eq!(read(&store, &a).await, None);
}

pub async fn a_marker_is_written_once(store: Engine, space: Space) {
    let a = space.key("a");
    let batch = Batch { put: vec![put(&a, "1")], ..space.batch() };
    store.commit(batch.clone()).await.unwrap();
    assert_eq!(read(&store, &batch.marker).await, Some((1, b"m".to_vec())));
    let again = Batch { put: vec![put(&a, "2")], ..batch.clone() };
    let Err(StoreError::Conflict(keys)) = store.commit(again).await else { panic!("applied twice") };
    assert_eq!(keys, [batch.marker]);
    assert_eq!(read(&store, &a).await, Some((1, b"1".to_vec())));
}

pub async fn a_scan_is_ordered_and_bounded(store: Engine, space: Space) {
    let keys: Vec<Key> = (0..40_u8).map(|n| space.key([b's', n * 6])).collect();
    let puts = keys.iter().rev().map(|key| put(key, key.0.clone())).collect();
    store.commit(Batch { put: puts, ..space.batch() }).await.unwrap();
    let (start, end) = (keys[3].clone(), keys[30].clone());
    let scan = |limit| {
        let (store, start, end) = (store.clone(), start.clone(), end.clone());
        async move { store.scan(&start, &end, None, limit).await.unwrap() }
    };
    let all: Vec<Key> = scan(1000).await.into_iter().map(|(key, _)| key).collect();
    assert_eq!(all, keys[3..30], "start is in, end is out");
    let some: Vec<Key> = scan(5).await.into_iter().map(|(key, _)| key).collect();
    assert_eq!(some, keys[3..8]);
    let nothing = store.scan(&space.key("t"), &space.key("u"), None, 10).await.unwrap();
    assert_eq!(nothing, []);
}

pub async fn concurrent_increments_are_all_counted(store: Engine, space: Space) {
    const TASKS: u64 = 6;
    const EACH: u64 = 15;
    let (space, counter) = (Arc::new(space), Arc::new("counter"));
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let (store, space, counter) = (store.clone(), space.clone(), space.key(*counter));
            tokio::spawn(async move {
                for _ in 0..EACH {
                    loop {
                        let now = read(&store, &counter).await;
                        let rev = now.as_ref().map(|(rev, _)| *rev);
                        let value = now.map_or(0, |(_, bytes)| u64::from_be_bytes(bytes.try_into().unwrap())) + 1;
                        let batch = Batch {
                            expect: vec![expect(&counter, rev)],
                            put: vec![put(&counter, value.to_be_bytes())],
                            ..space.batch()
                        };
                        match store.commit(batch).await {
                            Ok(committed) => break assert_eq!(committed.revs, [rev.unwrap_or(0) + 1]),
                            Err(StoreError::Conflict(_)) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let (rev, bytes) = read(&store, &space.key(*counter)).await.unwrap();
    assert_eq!((rev, u64::from_be_bytes(bytes.try_into().unwrap())), (TASKS * EACH, TASKS * EACH));
}

pub async fn locks_prevent_write_skew(store: Engine, space: Space) {
    for round in 0..20_u8 {
        let (x, y) = (space.key([b'x', round]), space.key([b'y', round]));
        store.commit(Batch { put: vec![put(&x, "0"), put(&y, "0")], ..space.batch() }).await.unwrap();
        // Each reads one key and writes the other: without locks snapshot isolation lets both commit.
        let half = |reads: &Key, writes: &Key| Batch {
            expect: vec![expect(reads, Some(1))],
            lock: vec![reads.clone()],
            put: vec![put(writes, "1")],
            ..space.batch()
        };
        let (left, right) = (half(&x, &y), half(&y, &x));
        let outcomes = tokio::join!(store.commit(left), store.commit(right));
        let committed = [outcomes.0.is_ok(), outcomes.1.is_ok()].into_iter().filter(|ok| *ok).count();
        assert!(committed <= 1, "round {round}: both committed");
    }
}

pub async fn a_batch_is_seen_wholly_or_not_at_all(store: Engine, space: Space) {
    let keys: Vec<Key> = (0..8_u8).map(|n| space.key([n * 32])).collect();
    let space = Arc::new(space);
    let writer = tokio::spawn({
        let (store, space, keys) = (store.clone(), space.clone(), keys.clone());
        async move {
            for value in 0..30_u8 {
                let put = keys.iter().map(|key| put(key, [value])).collect();
                store.commit(Batch { put, ..space.batch() }).await.unwrap();
            }
        }
    });
    while !writer.is_finished() {
        let rows = store.read(&keys).await.unwrap();
        let first = rows[0].clone();
        assert!(rows.iter().all(|row| *row == first), "half a batch: {rows:?}");
    }
    writer.await.unwrap();
}

pub async fn large_values_fit_and_larger_batches_are_refused(store: Engine, space: Space) {
    let a = space.key("a");
    let large = vec![7; 256 * 1024];
    store.commit(Batch { put: vec![put(&a, large.clone())], ..space.batch() }).await.unwrap();
    assert_eq!(read(&store, &a).await, Some((1, large)));
    let too_large = Batch { put: vec![put(&a, vec![8; MAX_BATCH])], ..space.batch() };
    assert!(matches!(store.commit(too_large).await, Err(StoreError::TooLarge(_))));
    assert_eq!(read(&store, &a).await.map(|(rev, _)| rev), Some(1));
}

/// More than gRPC's clients take without being told.
pub async fn a_page_of_large_rows_is_read(store: Engine, space: Space) {
    for n in 0..12 {
        let puts = (0..4).map(|m| put(&space.key(format!("large {n} {m}")), vec![n as u8; 200 << 10])).collect();
        store.commit(Batch { put: puts, ..space.batch() }).await.unwrap();
    }
    let (start, end) = (space.key("large "), space.key("large~"));
    let rows = store.scan(&start, &end, None, 256).await.unwrap();
    assert_eq!(rows.len(), 48);
    let keys: Vec<Key> = rows.iter().map(|(key, _)| key.clone()).collect();
    assert!(store.read(&keys).await.unwrap().iter().all(Option::is_some));
}

pub async fn a_snapshot_stays_as_it_was(store: Engine, space: Space) {
    let (a, b, c) = (space.key("a"), space.key("b"), space.key("c"));
    store.commit(Batch { put: vec![put(&a, "1"), put(&b, "1")], ..space.batch() }).await.unwrap();
    let at = store.snapshot().await.unwrap();
    store
        .commit(Batch { put: vec![put(&a, "2"), put(&c, "2")], delete: vec![b.clone()], ..space.batch() })
        .await
        .unwrap();
    let values = |at| {
        let (store, start, end) = (store.clone(), space.key("a"), space.key("d"));
        async move {
            let rows = store.scan(&start, &end, at, 10).await.unwrap();
            rows.into_iter().map(|(_, row)| (row.rev, row.bytes)).collect::<Vec<_>>()
        }
    };
    assert_eq!(values(Some(at)).await, [(1, b"1".to_vec()), (1, b"1".to_vec())]);
    assert_eq!(values(None).await, [(2, b"2".to_vec()), (1, b"2".to_vec())]);
}

pub async fn restored_rows_keep_their_revisions(store: Engine, space: Space) {
    let a = space.key("a");
    let row = Versioned { rev: 41, bytes: b"old".to_vec() };
    store.restore(vec![(a.clone(), row)], None).await.unwrap();
    assert_eq!(read(&store, &a).await, Some((41, b"old".to_vec())));
    let batch = Batch { expect: vec![expect(&a, Some(41))], put: vec![put(&a, "new")], ..space.batch() };
    assert_eq!(store.commit(batch).await.unwrap().revs, [42]);

    let late = vec![
        (a.clone(), Versioned { rev: 7, bytes: b"late".to_vec() }),
        (space.key("b"), Versioned { rev: 1, bytes: vec![] }),
    ];
    for still in [expect(&a, Some(41)), expect(&a, None)] {
        let refused = store.restore(late.clone(), Some(still)).await;
        assert!(matches!(refused, Err(StoreError::Conflict(_))), "{refused:?}");
    }
    assert_eq!(read(&store, &a).await, Some((42, b"new".to_vec())));
    assert_eq!(read(&store, &space.key("b")).await, None);
    store.restore(late, Some(expect(&a, Some(42)))).await.unwrap();
    assert_eq!(read(&store, &a).await, Some((7, b"late".to_vec())));
}

pub async fn random_batches_behave_as_a_map(store: Engine, space: Space) {
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).unwrap();
    let mut state = u64::from_le_bytes(seed) | 1;
    let mut random = |below: u64| {
        // Marsaglia's xorshift64.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let keys: Vec<Key> = (0..12_u8).map(|n| space.key([n * 20])).collect();
    let mut model: BTreeMap<Key, (Rev, Vec<u8>)> = BTreeMap::new();
    for step in 0..60_u64 {
        let mut batch = space.batch();
        let mut holds = true;
        for key in &keys {
            let now = model.get(key).map(|(rev, _)| *rev);
            match random(8) {
                0 => batch.put.push(put(key, step.to_be_bytes())),
                1 if now.is_some() => batch.delete.push(key.clone()),
                2 => batch.expect.push(expect(key, now)),
                3 if random(10) == 0 => {
                    batch.expect.push(expect(key, Some(now.unwrap_or(0) + 1)));
                    holds = false;
                }
                _ => {}
            }
        }
        let outcome = store.commit(batch.clone()).await;
        assert_eq!(outcome.is_ok(), holds, "seed {seed:?} step {step}: {outcome:?}");
        if let Ok(committed) = outcome {
            for (written, rev) in batch.put.iter().zip(committed.revs) {
                let next = model.get(&written.key).map_or(1, |(rev, _)| rev + 1);
                assert_eq!(rev, next, "seed {seed:?} step {step}");
                model.insert(written.key.clone(), (rev, written.bytes.clone()));
            }
            batch.delete.iter().for_each(|key| {
                model.remove(key);
            });
        }
        let rows = store.scan(&keys[0], &space.key([255]), None, 1000).await.unwrap();
        let rows = rows.into_iter().filter(|(key, _)| keys.contains(key)).map(|(key, row)| (key, (row.rev, row.bytes)));
        assert_eq!(rows.collect::<BTreeMap<_, _>>(), model, "seed {seed:?} step {step}");
    }
}
