//! The sequencer of batches, in groups, and the threads that sync and flush: so one group is synced while the next one runs.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread::JoinHandle,
};

use redb::{Database, ReadableTable, Table};
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::{oneshot, watch},
};

use super::{
    damaged,
    data::{self, DATA, Data, META, commit_durably},
    log::{File, Log, Rows, each_row},
};
use crate::{Batch, Committed, Expect, Key, Rev, StoreError, Versioned};

/// Format of the files; a newer one is refused.
const FILE_FORMAT: u64 = 2;
/// Batches that share one sync at most.
const GROUP: usize = 256;
/// Rows are flushed so many times from one checkpoint to the next, so that none has much to write.
const FLUSHES: u64 = 16;

/// A batch is in its place, with this sequence of the group that it belongs to. It is durable once the group is.
pub(super) type Placed = Result<(Committed, u64), StoreError>;

struct Waiting {
    work: Work,
    reply: oneshot::Sender<Placed>,
}

pub(super) enum Work {
    Commit(Batch),
    Restore(Vec<(Key, Versioned)>, Option<Expect>),
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

    /// Nothing is under way to the disk.
    fn is_idle(&self) -> bool {
        self.durable.borrow().0 >= self.visible()
    }

    fn has_failed(&self) -> bool {
        self.durable.borrow().1.is_some()
    }
}

/// Batches wait here for the store's thread. While they come one by one, whoever brings one carries it out himself: so it
/// reaches the log without another thread being woken. While one is under way, more gather for the next group.
pub(super) struct Sequencer {
    /// `None` once the store is closed.
    waiting: Mutex<Option<VecDeque<Waiting>>>,
    come: Condvar,
    /// Whether the last group was of several batches.
    gathers: AtomicBool,
    writer: Mutex<Writer>,
    pub progress: Arc<Progress>,
    pub data: Arc<Data>,
}

impl Sequencer {
    /// Checks the format and brings in what the log has beyond redb's pages. A checkpoint comes after `max` bytes of log.
    /// Answers the threads that end after `close`, too.
    pub fn open(database: Database, file: File, max: u64) -> Result<(Arc<Self>, Threads), StoreError> {
        let (to_sync, written) = channel();
        let (to_flush, leaving) = channel();
        let writer = Writer::open(database, file.clone(), max, (to_sync, to_flush))?;
        let (progress, data) = (writer.progress.clone(), writer.data.clone());
        let sequencer = Arc::new(Self {
            waiting: Mutex::new(Some(VecDeque::new())),
            come: Condvar::new(),
            gathers: AtomicBool::new(false),
            progress: progress.clone(),
            data: data.clone(),
            writer: Mutex::new(writer),
        });
        let run = {
            let sequencer = sequencer.clone();
            move || while sequencer.carry_out_next() {}
        };
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let flush = {
            let progress = progress.clone();
            move || flush_all(&data, &progress, &leaving)
        };
        let threads = [
            thread("store").spawn(run),
            thread("store-sync").spawn(move || sync_all(&file, &progress, &written)),
            thread("store-flush").spawn(flush),
        ];
        let threads = threads.into_iter().collect::<Result<Vec<_>, _>>();
        Ok((sequencer, Threads(threads.map_err(|e| StoreError::Unavailable(e.to_string()))?)))
    }

    /// Completes when the work is in its place.
    pub async fn hand_over(&self, work: Work) -> Placed {
        let (reply, answer) = oneshot::channel();
        match &mut *unpoisoned(&self.waiting) {
            Some(waiting) => waiting.push_back(Waiting { work, reply }),
            None => return Err(StoreError::Unavailable("the store is closed".to_owned())),
        }
        if !self.gathers.load(Ordering::Relaxed)
            && self.progress.is_idle()
            && let Ok(mut writer) = self.writer.try_lock()
        {
            self.carry_out(&mut writer);
        }
        // Unless somebody was quicker.
        if unpoisoned(&self.waiting).as_ref().is_some_and(|waiting| !waiting.is_empty()) {
            self.come.notify_one();
        }
        answer.await.unwrap_or_else(|_| Err(StoreError::Unknown("the store's writer stopped".to_owned())))
    }

    /// Waits for a group and carries it out; answers whether there may be another.
    fn carry_out_next(&self) -> bool {
        let waiting = unpoisoned(&self.waiting);
        let is_empty = |waiting: &mut Option<VecDeque<Waiting>>| waiting.as_ref().is_some_and(VecDeque::is_empty);
        let waiting = self.come.wait_while(waiting, is_empty).unwrap_or_else(PoisonError::into_inner);
        let is_open = waiting.is_some();
        drop(waiting);
        self.carry_out(&mut self.writer.lock().unwrap_or_else(|poisoned| self.broken(poisoned)));
        is_open
    }

    /// The group is taken by whoever has the writer, so that groups keep the order in which batches came.
    fn carry_out(&self, writer: &mut Writer) {
        let group: Vec<Waiting> = match &mut *unpoisoned(&self.waiting) {
            Some(waiting) => waiting.drain(..waiting.len().min(GROUP)).collect(),
            None => Vec::new(),
        };
        self.gathers.store(group.len() > 1, Ordering::Relaxed);
        writer.carry_out(group);
    }

    fn broken<T>(&self, poisoned: PoisonError<T>) -> T {
        self.progress.fail(&StoreError::Unavailable("a write to the store panicked".to_owned()));
        poisoned.into_inner()
    }

    /// Takes nothing more.
    fn close(&self) {
        let rest = unpoisoned(&self.waiting).take();
        let mut writer = self.writer.lock().unwrap_or_else(|poisoned| self.broken(poisoned));
        writer.carry_out(rest.into_iter().flatten().collect());
        writer.close();
        self.come.notify_all();
    }
}

/// The threads of a store.
pub(super) struct Threads(Vec<JoinHandle<()>>);

impl Threads {
    /// Finishes what waits, and ends the threads.
    pub fn close(self, sequencer: &Sequencer) {
        sequencer.close();
        for thread in self.0 {
            if thread.join().is_err() {
                tracing::error!("a thread of the store died");
            }
        }
    }
}

fn unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does what takes long without keeping other tasks from their worker thread.
fn patiently<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

struct Writer {
    data: Arc<Data>,
    log: Log,
    /// Of the last group.
    sequence: u64,
    /// Bytes of log whose rows have not left for the pages.
    recent: u64,
    /// `None` once the store is closed.
    to_threads: Option<ToThreads>,
    progress: Arc<Progress>,
}

/// Sequences of groups to sync; rows to flush, with the sequence of their last group.
type ToThreads = (Sender<u64>, Sender<Leaving>);
type Leaving = (Arc<data::Rows>, u64);

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
    fn open(database: Database, file: File, max: u64, to_threads: ToThreads) -> Result<Self, StoreError> {
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
        let log = Log::open(file, identity, max).map_err(damaged)?;
        let (data, progress) = (Arc::new(Data::new(database)?), Progress::new(sequence));
        Ok(Self { data, log, sequence, recent: 0, to_threads: Some(to_threads), progress })
    }

    /// Carries out a group. Once a write has failed nobody knows what the disk holds, so nothing more is written.
    fn carry_out(&mut self, group: Vec<Waiting>) {
        if group.is_empty() {
            return;
        }
        let (works, replies): (Vec<_>, Vec<_>) = group.into_iter().map(|waiting| (waiting.work, waiting.reply)).unzip();
        if self.progress.has_failed() {
            return refuse(replies, StoreError::Unavailable, "an earlier write to the store failed");
        }
        match self.write_group(&works) {
            // A sender that has gone away does not mind.
            Ok(outcomes) => replies.into_iter().zip(outcomes).for_each(|(reply, outcome)| {
                let _ = reply.send(outcome.map(|committed| (committed, self.sequence)));
            }),
            Err(error) => {
                self.progress.fail(&error);
                refuse(replies, StoreError::Unknown, &error.to_string());
            }
        }
    }

    fn write_group(&mut self, works: &[Work]) -> Result<Vec<Result<Committed, StoreError>>, StoreError> {
        let (sequence, mut rows) = (self.sequence + 1, Rows::default());
        let outcomes = {
            let mut group = Group { data: &self.data, revs: HashMap::new(), rows: &mut rows };
            works.iter().map(|work| group.work(work)).collect::<Result<Vec<_>, _>>()?
        };
        if rows.is_empty() {
            return Ok(outcomes);
        }
        let fits = self.log.fits(&rows);
        if fits {
            self.log.append(sequence, &rows).map_err(damaged)?;
            self.to_threads.as_ref().map(|(to_sync, _)| to_sync.send(sequence));
        }
        self.progress.visible.store(sequence, Ordering::Release);
        self.sequence = sequence;
        self.data.put(rows.bytes())?;
        self.recent += rows.bytes().len() as u64;
        if !fits {
            self.checkpoint()?;
        } else if self.recent > self.log.max() / FLUSHES
            && let Some(leaving) = self.data.leave()
        {
            self.recent = 0;
            self.to_threads.as_ref().map(|(_, to_flush)| to_flush.send((leaving, sequence)));
        }
        Ok(outcomes)
    }

    /// The rows of all groups so far, with one more sync.
    fn checkpoint(&mut self) -> Result<(), StoreError> {
        patiently(|| self.data.checkpoint(self.sequence))?;
        self.recent = 0;
        self.log.restart();
        self.progress.reached(self.sequence);
        Ok(())
    }

    /// Leaves nothing to be read from the log, and lets the threads end.
    fn close(&mut self) {
        if !self.progress.has_failed()
            && let Err(error) = self.checkpoint()
        {
            self.progress.fail(&error);
        }
        self.to_threads = None;
    }
}

fn refuse(replies: Vec<oneshot::Sender<Placed>>, error: fn(String) -> StoreError, why: &str) {
    replies.into_iter().for_each(|reply| {
        let _ = reply.send(Err(error(why.to_owned())));
    });
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

fn flush_all(data: &Data, progress: &Progress, leaving: &Receiver<Leaving>) {
    while let Ok((rows, sequence)) = leaving.recv() {
        if let Err(error) = data.flush(&rows, sequence) {
            return progress.fail(&error);
        }
    }
}

/// One group: validated against the data as it finds it, and turned into the rows that the log and the data get.
struct Group<'w, 'r> {
    data: &'r Data,
    /// Revisions that the group has changed.
    revs: HashMap<&'w Key, Option<Rev>>,
    rows: &'r mut Rows,
}

impl<'w> Group<'w, '_> {
    fn work(&mut self, work: &'w Work) -> Result<Result<Committed, StoreError>, StoreError> {
        match work {
            Work::Commit(batch) => self.apply(batch),
            Work::Restore(rows, still) => {
                if let Some(still) = still
                    && self.present(&still.key)? != still.rev
                {
                    return Ok(Err(StoreError::Conflict(vec![still.key.clone()])));
                }
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
            let rev = batch.rev_of(&put.key, self.present(&put.key)?);
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
        self.data.now().get(&key.0, Versioned::rev_of_row)
    }

    fn write(&mut self, key: &'w Key, rev: Rev, bytes: &[u8]) {
        self.revs.insert(key, Some(rev));
        self.rows.put(&key.0, rev, bytes);
    }
}
