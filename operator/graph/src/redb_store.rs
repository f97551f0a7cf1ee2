//! The embedded engine: redb under a sequencer of our own. One writer validates and applies all waiting batches in one
//! transaction, syncs once, and then acknowledges all of them (group commit). Serialisable.

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use redb::{
    Database, Durability, ReadTransaction, ReadableDatabase, ReadableTable, Table, TableDefinition, TableError,
};
use tokio::sync::oneshot;

use crate::{Batch, Committed, Key, Rev, Snapshot, Store, StoreError, Versioned};

const DATA: TableDefinition<&[u8], &[u8]> = TableDefinition::new("data");
/// Format of the file; a newer one is refused.
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const FILE_FORMAT: u64 = 1;
/// Batches that wait for the writer before senders have to wait.
const QUEUE: usize = 1024;
/// Batches that share one sync at most.
const GROUP: usize = 256;

/// How long a snapshot that nobody reads is kept: it keeps the file from reusing pages.
const SNAPSHOT_LIFE: Duration = Duration::from_secs(60);

struct Waiting {
    work: Work,
    reply: oneshot::Sender<Result<Committed, StoreError>>,
}

enum Work {
    Commit(Batch),
    Restore(Vec<(Key, Versioned)>),
}

/// Open snapshots with the time of their last use.
#[derive(Default)]
struct Snapshots {
    last: u64,
    open: HashMap<u64, (Arc<ReadTransaction>, Instant)>,
}

/// A universe's store in one file, for one process.
pub struct RedbStore {
    database: Arc<Database>,
    queue: Mutex<Option<SyncSender<Waiting>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    snapshots: Mutex<Snapshots>,
}

fn damaged(error: impl std::fmt::Display) -> StoreError {
    StoreError::Damaged(error.to_string())
}

impl RedbStore {
    /// Opens or creates the file; fails when another process has it.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let failed = |e: &dyn std::fmt::Display| StoreError::Unavailable(format!("{}: {e}", path.display()));
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|e| failed(&e))?;
        }
        let database = Database::create(path).map_err(|e| match e {
            redb::DatabaseError::DatabaseAlreadyOpen => failed(&"another process has this store open"),
            other => failed(&other),
        })?;
        check_format(&database)?;
        let database = Arc::new(database);
        let (queue, waiting) = sync_channel(QUEUE);
        let writer = std::thread::Builder::new().name("store".to_owned()).spawn({
            let database = database.clone();
            move || write_all(&database, &waiting)
        });
        let writer = writer.map_err(|e| StoreError::Unavailable(e.to_string()))?;
        Ok(Self {
            database,
            queue: Mutex::new(Some(queue)),
            writer: Mutex::new(Some(writer)),
            snapshots: Mutex::default(),
        })
    }

    fn stop(&self) {
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if writer.is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the store's writer died");
        }
    }

    fn reading(&self, at: Option<Snapshot>) -> Result<Arc<ReadTransaction>, StoreError> {
        let Some(at) = at else { return self.database.begin_read().map(Arc::new).map_err(damaged) };
        let mut snapshots = self.snapshots.lock().unwrap_or_else(PoisonError::into_inner);
        snapshots.open.retain(|_, (_, used)| used.elapsed() < SNAPSHOT_LIFE);
        let (transaction, used) = snapshots.open.get_mut(&at.0).ok_or(StoreError::SnapshotGone(at))?;
        *used = Instant::now();
        Ok(transaction.clone())
    }

    /// Hands work to the writer and waits for its outcome.
    async fn write(&self, work: Work) -> Result<Committed, StoreError> {
        let (reply, answer) = oneshot::channel();
        let closed = || StoreError::Unavailable("the store is closed".to_owned());
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(closed)?;
        match queue.try_send(Waiting { work, reply }) {
            Ok(()) => {}
            Err(TrySendError::Full(waiting)) => {
                tokio::task::spawn_blocking(move || queue.send(waiting).map_err(|_| ()))
                    .await
                    .map_err(|e| StoreError::Unavailable(e.to_string()))?
                    .map_err(|_| closed())?;
            }
            Err(TrySendError::Disconnected(_)) => return Err(closed()),
        }
        answer.await.unwrap_or_else(|_| Err(StoreError::Unknown("the store's writer stopped".to_owned())))
    }

    /// The data table as it is now or was at a snapshot; `empty` before the first commit.
    fn with_data<T>(
        &self,
        at: Option<Snapshot>,
        read: impl FnOnce(&redb::ReadOnlyTable<&'static [u8], &'static [u8]>) -> Result<T, StoreError>,
        empty: impl FnOnce() -> T,
    ) -> Result<T, StoreError> {
        match self.reading(at)?.open_table(DATA) {
            Ok(table) => read(&table),
            Err(TableError::TableDoesNotExist(_)) => Ok(empty()),
            Err(error) => Err(damaged(error)),
        }
    }
}

impl Drop for RedbStore {
    fn drop(&mut self) {
        self.stop();
    }
}

#[async_trait]
impl Store for RedbStore {
    async fn read(&self, keys: &[Key]) -> Result<Vec<Option<Versioned>>, StoreError> {
        let read = |table: &redb::ReadOnlyTable<&[u8], &[u8]>| {
            let get = |key: &Key| match table.get(key.0.as_slice()).map_err(damaged)? {
                Some(row) => Versioned::of_row(row.value()).map(Some),
                None => Ok(None),
            };
            keys.iter().map(get).collect()
        };
        self.with_data(None, read, || vec![None; keys.len()])
    }

    async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let transaction = self.reading(None)?;
        let mut snapshots = self.snapshots.lock().unwrap_or_else(PoisonError::into_inner);
        snapshots.open.retain(|_, (_, used)| used.elapsed() < SNAPSHOT_LIFE);
        snapshots.last += 1;
        let number = snapshots.last;
        snapshots.open.insert(number, (transaction, Instant::now()));
        Ok(Snapshot(number))
    }

    async fn scan(
        &self,
        start: &Key,
        end: &Key,
        at: Option<Snapshot>,
        limit: usize,
    ) -> Result<Vec<(Key, Versioned)>, StoreError> {
        let read = |table: &redb::ReadOnlyTable<&[u8], &[u8]>| {
            let rows = table.range(start.0.as_slice()..end.0.as_slice()).map_err(damaged)?;
            let pair = |row: Result<(redb::AccessGuard<&[u8]>, redb::AccessGuard<&[u8]>), redb::StorageError>| {
                let (key, value) = row.map_err(damaged)?;
                Ok((Key(key.value().to_vec()), Versioned::of_row(value.value())?))
            };
            rows.take(limit).map(pair).collect()
        };
        self.with_data(at, read, Vec::new)
    }

    async fn commit(&self, batch: Batch) -> Result<Committed, StoreError> {
        batch.check_size()?;
        self.write(Work::Commit(batch)).await
    }

    async fn restore(&self, rows: Vec<(Key, Versioned)>) -> Result<(), StoreError> {
        self.write(Work::Restore(rows)).await.map(|_| ())
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.stop();
        Ok(())
    }
}

fn check_format(database: &Database) -> Result<(), StoreError> {
    let transaction = database.begin_write().map_err(damaged)?;
    {
        let mut meta = transaction.open_table(META).map_err(damaged)?;
        let known = meta.get("format").map_err(damaged)?.map(|row| row.value());
        match known {
            Some(FILE_FORMAT) => {}
            Some(other) => {
                return Err(StoreError::Damaged(format!("file format {other}; this batos reads {FILE_FORMAT}")));
            }
            None => {
                meta.insert("format", FILE_FORMAT).map_err(damaged)?;
            }
        }
    }
    transaction.commit().map_err(damaged)
}

/// The writer: one group after the other until the queue is closed and empty, or a write fails.
fn write_all(database: &Database, waiting: &Receiver<Waiting>) {
    while let Ok(first) = waiting.recv() {
        let mut group = vec![first];
        while group.len() < GROUP {
            match waiting.try_recv() {
                Ok(next) => group.push(next),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        let (works, replies): (Vec<_>, Vec<_>) = group.into_iter().map(|w| (w.work, w.reply)).unzip();
        match write_group(database, &works) {
            // A sender that has gone away does not mind.
            Ok(outcomes) => replies.into_iter().zip(outcomes).for_each(|(reply, outcome)| {
                let _ = reply.send(outcome);
            }),
            Err(error) => {
                tracing::error!(%error, "a write to the store failed; no more are taken");
                replies.into_iter().for_each(|reply| {
                    let _ = reply.send(Err(StoreError::Unknown(error.to_string())));
                });
                return;
            }
        }
    }
}

fn write_group(database: &Database, works: &[Work]) -> Result<Vec<Result<Committed, StoreError>>, StoreError> {
    let mut transaction = database.begin_write().map_err(damaged)?;
    transaction.set_durability(Durability::Immediate).map_err(damaged)?;
    let outcomes = {
        let mut table = transaction.open_table(DATA).map_err(damaged)?;
        let write = |work: &Work| match work {
            Work::Commit(batch) => apply(&mut table, batch),
            Work::Restore(rows) => {
                rows.iter().try_for_each(|(key, row)| write(&mut table, key, row.rev, &row.bytes))?;
                Ok(Ok(Committed::default()))
            }
        };
        works.iter().map(write).collect::<Result<Vec<_>, _>>()?
    };
    transaction.commit().map_err(damaged)?;
    Ok(outcomes)
}

/// Validates and applies one batch. The outer error is the engine's, the inner one the batch's.
fn apply(
    table: &mut Table<'_, &'static [u8], &'static [u8]>,
    batch: &Batch,
) -> Result<Result<Committed, StoreError>, StoreError> {
    if present(table, &batch.marker)?.is_some() {
        return Ok(Err(StoreError::Conflict(vec![batch.marker.clone()])));
    }
    let mut stale = Vec::new();
    for expect in &batch.expect {
        if present(table, &expect.key)? != expect.rev {
            stale.push(expect.key.clone());
        }
    }
    if !stale.is_empty() {
        return Ok(Err(StoreError::Conflict(stale)));
    }
    // One writer: whoever comes later sees what this batch wrote, so locks need no more than the expectations.
    write(table, &batch.marker, 1, &batch.marker_bytes)?;
    let mut committed = Committed::default();
    for put in &batch.put {
        let rev = present(table, &put.key)?.unwrap_or(0) + 1;
        write(table, &put.key, rev, &put.bytes)?;
        committed.revs.push(rev);
    }
    for key in &batch.delete {
        table.remove(key.0.as_slice()).map_err(damaged)?;
    }
    Ok(Ok(committed))
}

fn present(table: &Table<'_, &'static [u8], &'static [u8]>, key: &Key) -> Result<Option<Rev>, StoreError> {
    match table.get(key.0.as_slice()).map_err(damaged)? {
        Some(row) => Versioned::of_row(row.value()).map(|row| Some(row.rev)),
        None => Ok(None),
    }
}

fn write(
    table: &mut Table<'_, &'static [u8], &'static [u8]>,
    key: &Key,
    rev: Rev,
    bytes: &[u8],
) -> Result<(), StoreError> {
    table.insert(key.0.as_slice(), Versioned::row(rev, bytes).as_slice()).map(|_| ()).map_err(damaged)
}
