//! The embedded engine: redb under a sequencer of our own. One writer validates and applies all waiting batches, and one
//! sync of the redo log makes all of them durable (group commit). Serialisable.
//!
//! redb alone would write some ten pages of 4 KiB and sync them for a batch of one object. Here a group is one record of
//! the log, and rows in memory that are flushed into redb's pages later, with one sync a checkpoint. The group after it
//! runs while it is synced, and nothing that was read from a group leaves before that group is durable.

mod data;
mod log;
mod writer;

use std::{
    collections::HashMap,
    fs::{self, OpenOptions},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use redb::{Database, StorageBackend, backends::FileBackend};

use self::{
    data::Layers,
    writer::{Sequencer, Threads, Work},
};
use crate::{Batch, Committed, Durable, Expect, Key, Snapshot, Store, StoreError, Versioned};

/// Bytes of log between two checkpoints. More makes checkpoints rarer, and replay after a crash longer.
const LOG: u64 = 16 << 20;

/// How long a snapshot that nobody reads is kept: it keeps rows in memory, and the file from reusing pages.
const SNAPSHOT_LIFE: Duration = Duration::from_secs(60);

/// Open snapshots with the time of their last use.
#[derive(Default)]
struct Snapshots {
    last: u64,
    open: HashMap<u64, (Layers, Instant)>,
}

/// A universe's store in one file, for one process.
pub struct RedbStore {
    sequencer: Arc<Sequencer>,
    threads: Mutex<Option<Threads>>,
    snapshots: Mutex<Snapshots>,
}

fn damaged(error: impl std::fmt::Display) -> StoreError {
    StoreError::Damaged(error.to_string())
}

impl RedbStore {
    /// Opens or creates a store; fails when another process has it. The redo log lies beside the file, under its name
    /// with `.log`: they belong together.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let failed = |e: &dyn std::fmt::Display| StoreError::Unavailable(format!("{}: {e}", path.display()));
        if !path.exists() {
            create(path).map_err(|e| failed(&e))?;
        }
        let database = Database::open(path).map_err(|e| match e {
            redb::DatabaseError::DatabaseAlreadyOpen => failed(&"another process has this store open"),
            other => failed(&other),
        })?;
        let log = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(beside(path, "log"));
        let log = FileBackend::new(log.map_err(|e| failed(&e))?).map_err(|e| failed(&e))?;
        sync_folder(path).map_err(|e| failed(&e))?;
        Self::start(database, log, LOG)
    }

    /// Opens or creates a store on what stands for its file and its log: the seam for tests that cut the power. A
    /// checkpoint comes after `log_bytes` of log.
    pub fn open_on(file: impl StorageBackend, log: impl StorageBackend, log_bytes: u64) -> Result<Self, StoreError> {
        let database = Database::builder().create_with_backend(file);
        Self::start(database.map_err(|e| StoreError::Unavailable(e.to_string()))?, log, log_bytes)
    }

    fn start(database: Database, log: impl StorageBackend, log_bytes: u64) -> Result<Self, StoreError> {
        let (sequencer, threads) = Sequencer::open(database, Arc::new(log), log_bytes)?;
        Ok(Self { sequencer, threads: Mutex::new(Some(threads)), snapshots: Mutex::default() })
    }

    fn stop(&self) {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(threads) = threads {
            threads.close(&self.sequencer);
        }
    }

    fn at(&self, at: Snapshot) -> Result<Layers, StoreError> {
        let mut snapshots = self.snapshots.lock().unwrap_or_else(PoisonError::into_inner);
        snapshots.open.retain(|_, (_, used)| used.elapsed() < SNAPSHOT_LIFE);
        let (layers, used) = snapshots.open.get_mut(&at.0).ok_or(StoreError::SnapshotGone(at))?;
        *used = Instant::now();
        Ok(layers.clone())
    }

    /// Waits until everything that readers can see by now is durable.
    async fn settled(&self) -> Result<(), StoreError> {
        let progress = &self.sequencer.progress;
        progress.durable(progress.visible()).await.map_err(StoreError::Unavailable)
    }

    async fn write(&self, work: Work) -> Result<Committed, StoreError> {
        let (committed, sequence) = self.sequencer.hand_over(work).await?;
        self.sequencer.progress.durable(sequence).await.map_err(StoreError::Unknown)?;
        Ok(committed)
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
        let rows = self.peek(keys).await?;
        self.settled().await?;
        Ok(rows)
    }

    async fn peek(&self, keys: &[Key]) -> Result<Vec<Option<Versioned>>, StoreError> {
        let data = self.sequencer.data.now();
        keys.iter().map(|key| data.get(&key.0, Versioned::of_row)).collect()
    }

    async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let layers = self.sequencer.data.now().clone();
        self.settled().await?;
        let mut snapshots = self.snapshots.lock().unwrap_or_else(PoisonError::into_inner);
        snapshots.open.retain(|_, (_, used)| used.elapsed() < SNAPSHOT_LIFE);
        snapshots.last += 1;
        let number = snapshots.last;
        snapshots.open.insert(number, (layers, Instant::now()));
        Ok(Snapshot(number))
    }

    async fn scan(
        &self,
        start: &Key,
        end: &Key,
        at: Option<Snapshot>,
        limit: usize,
    ) -> Result<Vec<(Key, Versioned)>, StoreError> {
        let pair = |key: &[u8], row: &[u8]| Ok((Key(key.to_vec()), Versioned::of_row(row)?));
        match at {
            Some(at) => self.at(at)?.scan(&start.0, &end.0, limit, pair),
            None => {
                let rows = self.sequencer.data.now().scan(&start.0, &end.0, limit, pair)?;
                self.settled().await?;
                Ok(rows)
            }
        }
    }

    async fn commit(&self, batch: Batch) -> Result<Committed, StoreError> {
        batch.check_size()?;
        self.write(Work::Commit(batch)).await
    }

    fn pipelines(&self) -> bool {
        true
    }

    async fn place(&self, batch: Batch) -> Result<(Committed, Durable), StoreError> {
        batch.check_size()?;
        let (committed, sequence) = self.sequencer.hand_over(Work::Commit(batch)).await?;
        let progress = self.sequencer.progress.clone();
        let durable = async move { progress.durable(sequence).await.map_err(StoreError::Unknown) };
        Ok((committed, Box::pin(durable)))
    }

    async fn restore(&self, rows: Vec<(Key, Versioned)>, still: Option<Expect>) -> Result<(), StoreError> {
        self.write(Work::Restore(rows, still)).await.map(|_| ())
    }

    async fn broken(&self) -> StoreError {
        StoreError::Unavailable(self.sequencer.progress.failed().await)
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.stop();
        Ok(())
    }
}

fn beside(path: &Path, what: &str) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(what);
    name.into()
}

/// Makes the file under a name of its own first: a crash while redb makes it would leave one that redb refuses.
fn create(path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let new = beside(path, &format!("{}.new", std::process::id()));
    if new.exists() {
        fs::remove_file(&new)?;
    }
    drop(Database::create(&new)?);
    // Unlike a rename, this replaces no file of another process.
    let linked = fs::hard_link(&new, path);
    fs::remove_file(&new)?;
    match linked {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error.into()),
        _ => Ok(()),
    }
}

/// A file is durable under its name once its folder is.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(folder)?.sync_all()
}
