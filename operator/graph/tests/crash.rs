//! The power goes at every moment, in every way that a disk allows, and nothing that was acknowledged is lost.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod power;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use batos_graph::{Batch, Expect, Key, Put, RedbStore, Rev, Store, StoreError};
use power::{Cuts, Disk, Fate, Image, Op, Random};

type Rows = BTreeMap<Key, (Rev, Vec<u8>)>;

const COMMITTERS: usize = 4;
const KEYS: usize = 60;
/// Marker of the batch that is committed after a crash.
const NEXT: &str = "marker of the next";
/// Crashes of one load.
const SAMPLE: usize = 1500;

fn key(text: impl Into<Vec<u8>>) -> Key {
    Key(text.into())
}

/// Every batch puts this one too, so that its revision is the number of batches that were applied.
fn clock() -> Key {
    key("clock")
}

/// A batch with values of all sizes, and now and then one that a store must refuse.
fn batch(marker: String, random: &mut Random) -> Batch {
    let mut batch = Batch {
        marker: key(marker),
        marker_bytes: b"reply".to_vec(),
        expect: vec![],
        lock: vec![],
        put: vec![Put { key: clock(), bytes: vec![] }],
        delete: vec![],
        passes: Default::default(),
    };
    let name = |random: &mut Random| key(format!("object {}", random.below(KEYS)));
    for _ in 0..1 + random.below(4) {
        let size = [8, 100, 900, 9000][random.below(4)];
        let bytes = vec![random.below(256) as u8; size];
        batch.put.push(Put { key: name(random), bytes });
    }
    batch.put.sort_by(|a, b| a.key.cmp(&b.key));
    batch.put.dedup_by(|a, b| a.key == b.key);
    let gone = name(random);
    if batch.put.iter().all(|put| put.key != gone) {
        batch.delete.push(gone);
    }
    if random.below(5) == 0 {
        batch.expect.push(Expect { key: name(random), rev: Some(1 + random.below(3) as u64) });
    }
    batch
}

fn advance(rows: &mut Rows, batch: &Batch) {
    rows.insert(batch.marker.clone(), (1, batch.marker_bytes.clone()));
    for put in &batch.put {
        let rev = rows.get(&put.key).map_or(1, |(rev, _)| rev + 1);
        rows.insert(put.key.clone(), (rev, put.bytes.clone()));
    }
    batch.delete.iter().for_each(|key| {
        rows.remove(key);
    });
}

/// What was committed, in its order, each with the number of disk operations at which its sender knew.
struct Load {
    log: Vec<(usize, Op)>,
    start: Image,
    known: Vec<usize>,
    batches: Vec<Batch>,
    /// The rows after so many batches.
    states: Vec<Rows>,
}

/// Senders that commit at the same time, so that batches share syncs.
async fn load(start: Image, rows: Rows, each: usize, random: &mut Random) -> Load {
    let disk = Disk::of(start.clone());
    let store = Arc::new(disk.open().unwrap());
    let committed = Arc::new(Mutex::new(Vec::new()));
    let before = rows.get(&clock()).map_or(0, |(rev, _)| *rev);
    let senders: Vec<_> = (0..COMMITTERS)
        .map(|sender| {
            let (store, disk, committed) = (store.clone(), disk.clone(), committed.clone());
            let mut random = random.fork();
            tokio::spawn(async move {
                for n in 0..each {
                    let batch = batch(format!("marker {before} {sender} {n}"), &mut random);
                    let at = batch.put.iter().position(|put| put.key == clock()).unwrap();
                    match store.commit(batch.clone()).await {
                        Ok(done) => committed.lock().unwrap().push((done.revs[at], disk.now(), batch)),
                        Err(StoreError::Conflict(_)) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.unwrap();
    }
    store.close().await.unwrap();
    drop(store);
    let mut committed = std::mem::take(&mut *committed.lock().unwrap());
    committed.sort_by_key(|(order, ..)| *order);
    let mut load = Load { log: disk.log(), start, known: vec![], batches: vec![], states: vec![rows] };
    for (n, (order, known, batch)) in committed.into_iter().enumerate() {
        assert_eq!(order, before + n as u64 + 1, "an applied batch was not acknowledged");
        let mut rows = load.states[n].clone();
        advance(&mut rows, &batch);
        load.states.push(rows);
        load.known.push(known);
        load.batches.push(batch);
    }
    load
}

async fn rows(store: &RedbStore) -> Rows {
    let rows = store.scan(&key(""), &key([255]), None, usize::MAX).await.unwrap();
    rows.into_iter().map(|(key, row)| (key, (row.rev, row.bytes))).collect()
}

impl Load {
    /// Opens what a crash before operation `at` left, and checks it. Answers the rows and what opening and one more
    /// batch did to the disk.
    async fn check(&self, image: Image, at: usize, case: &str) -> (Rows, Vec<(usize, Op)>) {
        let disk = Disk::of(image);
        let store = match disk.open() {
            Ok(store) => store,
            Err(error) => panic!("{case}: {error}"),
        };
        let found = rows(&store).await;
        assert!(self.is_whole(&found, at), "{case}: the rows are those after no batch since the last acknowledged one");
        let next = Batch {
            put: vec![Put { key: clock(), bytes: vec![] }],
            expect: vec![Expect { key: clock(), rev: found.get(&clock()).map(|(rev, _)| *rev) }],
            delete: vec![],
            ..batch(NEXT.to_owned(), &mut Random::of(1))
        };
        let log = store.commit(next.clone()).await.map(|_| disk.log()).unwrap_or_else(|e| panic!("{case}: {e}"));
        let mut wanted = found.clone();
        advance(&mut wanted, &next);
        assert_eq!(rows(&store).await, wanted, "{case}: the next batch");
        (found, log)
    }
}

impl Load {
    /// The same for what a second crash left, which the first survivor's next batch may have reached.
    async fn check_twice(&self, image: Image, at: usize, case: &str) {
        let store = Disk::of(image).open().unwrap_or_else(|e| panic!("{case}: {e}"));
        let mut found = rows(&store).await;
        if found.remove(&key(NEXT)).is_some()
            && let Some(clock) = found.get_mut(&clock())
        {
            clock.0 -= 1;
        }
        if found.get(&clock()).is_some_and(|(rev, _)| *rev == 0) {
            found.remove(&clock());
        }
        assert!(self.is_whole(&found, at), "{case}");
    }

    fn is_whole(&self, found: &Rows, at: usize) -> bool {
        let acknowledged = self.known.iter().filter(|known| **known <= at).count();
        self.states.iter().skip(acknowledged).any(|rows| rows == found)
    }
}

/// The operations of the disk before which it is cut: all, or a sample.
fn moments(of: usize, most: usize, random: &mut Random) -> Vec<usize> {
    match of < most {
        true => (0..=of).collect(),
        false => {
            let mut moments: Vec<_> = (0..most).map(|_| random.below(of + 1)).collect();
            moments.sort_unstable();
            moments
        }
    }
}

/// A new store, as it is once it has its name.
fn new() -> Image {
    let disk = Disk::default();
    drop(disk.open().unwrap());
    disk.image()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_crash_at_any_write() {
    let mut random = Random::new();
    let load = load(new(), Rows::new(), 60, &mut random).await;
    for fate in [Fate::All, Fate::Torn, Fate::Any] {
        let mut cuts = Cuts::new(load.start.clone(), load.log.clone());
        for at in moments(load.log.len(), SAMPLE / 3, &mut random) {
            let image = cuts.image(at, fate, &mut random);
            load.check(image, at, &format!("{fate:?} at {at} of {}", load.log.len())).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_while_a_store_comes_back_loses_nothing_either() {
    let mut random = Random::new();
    let load = load(new(), Rows::new(), 60, &mut random).await;
    let mut cuts = Cuts::new(load.start.clone(), load.log.clone());
    for at in moments(load.log.len(), SAMPLE / 15, &mut random) {
        let image = cuts.image(at, Fate::Any, &mut random);
        let case = format!("at {at} of {}", load.log.len());
        let (_, log) = load.check(image.clone(), at, &case).await;
        let mut again = Cuts::new(image, log.clone());
        // The last operations are of the next batch, which was never acknowledged to this crash's survivor.
        for second in moments(log.len(), 4, &mut random) {
            let image = again.image(second, Fate::Any, &mut random);
            load.check_twice(image, at, &format!("{case}, then at {second} of {}", log.len())).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_sync_that_failed_nothing_is_taken_and_nothing_lost() {
    let mut random = Random::new();
    for good in (0..40).chain([100, 200]) {
        let start = new();
        let disk = Disk::of(start.clone());
        let store = disk.open().unwrap();
        disk.fail_after(good);
        let (mut rows, mut acknowledged) = (Rows::new(), Rows::new());
        let mut count = 0;
        let unknown = loop {
            count += 1;
            let batch = batch(format!("marker {count}"), &mut random);
            match store.commit(batch.clone()).await {
                Ok(_) => {
                    advance(&mut rows, &batch);
                    acknowledged.clone_from(&rows);
                }
                Err(StoreError::Conflict(_)) => {}
                Err(StoreError::Unknown(_)) => break Some(batch),
                // Rows of earlier batches could not be flushed; this one was not begun.
                Err(StoreError::Unavailable(_)) => break None,
                Err(error) => panic!("after {good} syncs: {error}"),
            }
        };
        for n in 0..3 {
            let outcome = store.commit(batch(format!("late {n}"), &mut random)).await;
            assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "after {good} syncs: {outcome:?}");
        }
        assert!(matches!(store.broken().await, StoreError::Unavailable(_)), "the process is told to end");
        let told = store.read(&[clock()]).await;
        assert!(
            !matches!(&told, Ok(rows) if rows[0].as_ref().map(|row| row.rev) != acknowledged.get(&clock()).map(|(rev, _)| *rev)),
            "what may be lost is told: {told:?}"
        );
        drop(store);
        let mut with_unknown = rows.clone();
        unknown.iter().for_each(|unknown| advance(&mut with_unknown, unknown));
        for fate in [Fate::All, Fate::Any, Fate::Any] {
            let log = disk.log();
            let image = Cuts::new(start.clone(), log.clone()).image(log.len(), fate, &mut random);
            let found = self::rows(&Disk::of(image).open().unwrap()).await;
            assert!(found == acknowledged || found == with_unknown, "after {good} syncs, {fate:?}");
        }
    }
}
