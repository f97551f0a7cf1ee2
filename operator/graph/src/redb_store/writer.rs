//! The writer and the syncer: two threads, so that one group of batches is synced while redb gets its rows, and while the
//! next one runs.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
};

use redb::{
    Database, Durability, ReadOnlyTable, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction,
};
use tokio::sync::{oneshot, watch};

use super::{
    damaged,
    log::{File, Log, Rows, each_row},
};
use crate::{Batch, Committed, Key, Rev, StoreError, Versioned};

pub(super) const DATA: TableDefinition<&[u8], &[u8]> = TableDefinition::new("data");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// Format of the files; a newer one is refused.
const FILE_FORMAT: u64 = 2;
/// Batches that share one sync at most.
const GROUP: usize = 256;

/// A batch is in its place, with this sequence of the group that it belongs to. It is durable once the group is.
pub(super) type Placed = Result<(Committed, u64), StoreError>;

pub(super) struct Waiting {
    pub work: Work,
    pub reply: oneshot::Sender<Placed>,
}

pub(super) enum Work {
    Commit(Batch),
    Restore(Vec<(Key, Versioned)>),
}

/// How far the writer and the syncer are.
pub(super) struct Progress {
    /// Last group that readers may see.
    visible: AtomicU64,
    /// Last group that is durable. An error ends everything.
    durable: watch::Sender<(u64, Option<String>)>,
}

impl Progress {
    fn new(sequence: u64) -> Arc<Self> {
        Arc::new(Self { visible: AtomicU64::new(sequence), durable: watch::Sender::new((sequence, None)) })
    }

    pub fn visible(&self) -> u64 {
        self.visible.load(Ordering::Acquire)
    }

    /// Waits until a group is durable.
    pub async fn durable(&self, sequence: u64) -> Result<(), String> {
        if self.durable.borrow().0 >= sequence {
            return Ok(());
        }
        let mut durable = self.durable.subscribe();
        let ended = durable.wait_for(|(done, failed)| *done >= sequence || failed.is_some()).await;
        match &*ended.map_err(|e| e.to_string())? {
            (done, _) if *done >= sequence => Ok(()),
            (_, failed) => Err(failed.clone().unwrap_or_default()),
        }
    }

    /// Completes once a write or a sync has failed, with the reason.
    pub async fn failed(&self) -> String {
        let mut durable = self.durable.subscribe();
        let reason =
            durable.wait_for(|(_, failed)| failed.is_some()).await.ok().and_then(|progress| progress.1.clone());
        match reason {
            Some(reason) => reason,
            None => std::future::pending().await,
        }
    }

    fn reached(&self, sequence: u64) {
        self.durable.send_modify(|(done, _)| *done = sequence.max(*done));
    }

    fn fail(&self, error: &StoreError) {
        tracing::error!(%error, "a write to the store failed; no more are taken");
        self.durable.send_modify(|(_, failed)| {
            failed.get_or_insert_with(|| error.to_string());
        });
    }

    fn has_failed(&self) -> bool {
        self.durable.borrow().1.is_some()
    }
}

pub(super) struct Writer {
    database: Arc<Database>,
    log: Log,
    file: File,
    /// Of the last group.
    sequence: u64,
    pub progress: Arc<Progress>,
}

/// Commits with a sync. redb writes down which pages are free, so that opening after a crash need not walk all of them;
/// at every commit that would be slow, at a checkpoint it is not.
fn commit_durably(mut transaction: WriteTransaction) -> Result<(), StoreError> {
    transaction.set_durability(Durability::Immediate).map_err(damaged)?;
    transaction.set_quick_repair(true);
    transaction.commit().map_err(damaged)
}

fn replay(data: &mut Table<'_, &'static [u8], &'static [u8]>, rows: &[u8]) -> Result<(), StoreError> {
    each_row(rows, |key, row| {
        let before = match row {
            Some(row) => data.insert(key, row),
            None => data.remove(key),
        };
        before.map(|_| ()).map_err(damaged)
    })
}

impl Writer {
    /// Checks the format and brings in what the log has beyond redb's pages. A checkpoint comes after `max` bytes of log.
    pub fn open(database: Arc<Database>, file: File, max: u64) -> Result<Self, StoreError> {
        let transaction = database.begin_write().map_err(damaged)?;
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(damaged)?;
        let identity = u64::from_le_bytes(random);
        let mut sequence;
        {
            let mut meta = transaction.open_table(META).map_err(damaged)?;
            let get = |meta: &Table<'_, &'static str, u64>, name| {
                meta.get(name).map(|row| row.map(|row| row.value())).map_err(damaged)
            };
            if let Some(format) = get(&meta, "format")?.filter(|format| *format > FILE_FORMAT) {
                return Err(StoreError::Damaged(format!("file format {format}; this batos reads {FILE_FORMAT}")));
            }
            sequence = get(&meta, "log")?.unwrap_or(0);
            let mut data = transaction.open_table(DATA).map_err(damaged)?;
            // A file without an identity never had a log.
            if let Some(earlier) = get(&meta, "identity")? {
                let mut log = Log::open(file.clone(), earlier, max).map_err(damaged)?;
                while let Some(rows) = log.next(sequence).map_err(damaged)? {
                    replay(&mut data, &rows)?;
                    sequence += 1;
                }
            }
            // Another identity each time: the log may hold a record that came after a torn one, and which must not follow
            // what is written now in its place.
            for (name, value) in [("format", FILE_FORMAT), ("identity", identity), ("log", sequence)] {
                meta.insert(name, value).map_err(damaged)?;
            }
        }
        commit_durably(transaction)?;
        let log = Log::open(file.clone(), identity, max).map_err(damaged)?;
        Ok(Self { database, log, file, sequence, progress: Progress::new(sequence) })
    }

    /// One group after the other until the queue is closed and empty. Once a write has failed nobody knows what the disk
    /// holds, so nothing more is written.
    pub fn run(mut self, waiting: &Receiver<Waiting>) {
        let (to_sync, written) = channel();
        let syncer = std::thread::Builder::new().name("store-sync".to_owned()).spawn({
            let (file, progress) = (self.file.clone(), self.progress.clone());
            move || sync_all(&file, &progress, &written)
        });
        if let Err(error) = &syncer {
            self.progress.fail(&StoreError::Unavailable(error.to_string()));
        }
        while let Ok(first) = waiting.recv() {
            if self.progress.has_failed() {
                let _ =
                    first.reply.send(Err(StoreError::Unavailable("an earlier write to the store failed".to_owned())));
                continue;
            }
            let group: Vec<_> = std::iter::once(first).chain(waiting.try_iter().take(GROUP - 1)).collect();
            let (works, replies): (Vec<_>, Vec<_>) = group.into_iter().map(|w| (w.work, w.reply)).unzip();
            match self.write_group(&works, &to_sync) {
                // A sender that has gone away does not mind.
                Ok(outcomes) => replies.into_iter().zip(outcomes).for_each(|(reply, outcome)| {
                    let _ = reply.send(outcome.map(|committed| (committed, self.sequence)));
                }),
                Err(error) => {
                    self.progress.fail(&error);
                    replies.into_iter().for_each(|reply| {
                        let _ = reply.send(Err(StoreError::Unknown(error.to_string())));
                    });
                }
            }
        }
        drop(to_sync);
        if syncer.is_ok_and(|syncer| syncer.join().is_err()) {
            tracing::error!("the store's syncer died");
        }
    }

    fn write_group(
        &mut self,
        works: &[Work],
        to_sync: &Sender<u64>,
    ) -> Result<Vec<Result<Committed, StoreError>>, StoreError> {
        let (sequence, mut rows) = (self.sequence + 1, Rows::default());
        let outcomes = {
            let reading = self.database.begin_read().map_err(damaged)?;
            let data = reading.open_table(DATA).map_err(damaged)?;
            let mut group = Group { data, revs: HashMap::new(), rows: &mut rows };
            works.iter().map(|work| group.work(work)).collect::<Result<Vec<_>, _>>()?
        };
        if rows.is_empty() {
            return Ok(outcomes);
        }
        let fits = self.log.fits(&rows);
        if fits {
            self.log.append(sequence, &rows).map_err(damaged)?;
            let _ = to_sync.send(sequence);
        }
        // While the record is synced, redb gets the rows.
        let mut transaction = self.database.begin_write().map_err(damaged)?;
        replay(&mut transaction.open_table(DATA).map_err(damaged)?, rows.bytes())?;
        transaction.open_table(META).map_err(damaged)?.insert("log", sequence).map_err(damaged)?;
        self.progress.visible.store(sequence, Ordering::Release);
        self.sequence = sequence;
        if fits {
            transaction.set_durability(Durability::None).map_err(damaged)?;
            transaction.commit().map_err(damaged)?;
        } else {
            // A checkpoint: the pages of all groups so far, with one more sync.
            commit_durably(transaction)?;
            self.log.restart();
            self.progress.reached(sequence);
        }
        Ok(outcomes)
    }
}

fn sync_all(file: &File, progress: &Progress, written: &Receiver<u64>) {
    while let Ok(first) = written.recv() {
        let last = written.try_iter().last().unwrap_or(first);
        match file.sync_data() {
            Ok(()) => progress.reached(last),
            Err(error) => return progress.fail(&damaged(error)),
        }
    }
}

/// One group: validated against the data as it finds it, and turned into the rows that the log and then redb get.
struct Group<'w, 'r> {
    data: ReadOnlyTable<&'static [u8], &'static [u8]>,
    /// Revisions that the group has changed.
    revs: HashMap<&'w Key, Option<Rev>>,
    rows: &'r mut Rows,
}

impl<'w> Group<'w, '_> {
    fn work(&mut self, work: &'w Work) -> Result<Result<Committed, StoreError>, StoreError> {
        match work {
            Work::Commit(batch) => self.apply(batch),
            Work::Restore(rows) => {
                rows.iter().for_each(|(key, row)| self.write(key, row.rev, &row.bytes));
                Ok(Ok(Committed::default()))
            }
        }
    }

    /// Validates and applies one batch. The outer error is the engine's, the inner one the batch's.
    fn apply(&mut self, batch: &'w Batch) -> Result<Result<Committed, StoreError>, StoreError> {
        if self.present(&batch.marker)?.is_some() {
            return Ok(Err(StoreError::Conflict(vec![batch.marker.clone()])));
        }
        let mut stale = Vec::new();
        for expect in &batch.expect {
            if self.present(&expect.key)? != expect.rev {
                stale.push(expect.key.clone());
            }
        }
        if !stale.is_empty() {
            return Ok(Err(StoreError::Conflict(stale)));
        }
        // One writer: whoever comes later sees what this batch wrote, so locks need no more than the expectations.
        self.write(&batch.marker, 1, &batch.marker_bytes);
        let mut committed = Committed::default();
        for put in &batch.put {
            let rev = self.present(&put.key)?.unwrap_or(0) + 1;
            self.write(&put.key, rev, &put.bytes);
            committed.revs.push(rev);
        }
        for key in &batch.delete {
            self.revs.insert(key, None);
            self.rows.delete(&key.0);
        }
        Ok(Ok(committed))
    }

    fn present(&self, key: &Key) -> Result<Option<Rev>, StoreError> {
        if let Some(rev) = self.revs.get(key) {
            return Ok(*rev);
        }
        match self.data.get(key.0.as_slice()).map_err(damaged)? {
            Some(row) => Versioned::rev_of_row(row.value()).map(Some),
            None => Ok(None),
        }
    }

    fn write(&mut self, key: &'w Key, rev: Rev, bytes: &[u8]) {
        self.revs.insert(key, Some(rev));
        self.rows.put(&key.0, rev, bytes);
    }
}
