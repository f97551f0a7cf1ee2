//! The store's contract: conditional batches over versioned keys, in two engines.
//!
//! Every stored value carries a revision that counts from 1 and grows by one with each put. A batch names the
//! revisions it was computed from; it is applied wholly or not at all. Guarantee: snapshot isolation over
//! `expect` and `put`, serialisable over `lock`.

use std::{collections::BTreeMap, pin::Pin};

use async_trait::async_trait;

use crate::Key;

/// Counts the puts of one key, from 1.
pub type Rev = u64;

/// A stored value with its revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned {
    pub rev: Rev,
    pub bytes: Vec<u8>,
}

impl Versioned {
    /// A row of an engine: the revision, big-endian, before the value.
    #[cfg(feature = "tikv")]
    pub(crate) fn row(rev: Rev, bytes: &[u8]) -> Vec<u8> {
        [rev.to_be_bytes().as_slice(), bytes].concat()
    }

    pub(crate) fn rev_of_row(row: &[u8]) -> Result<Rev, StoreError> {
        let rev = row.first_chunk::<8>().map(|rev| Rev::from_be_bytes(*rev));
        rev.ok_or_else(|| StoreError::Damaged("a row is shorter than its revision".to_owned()))
    }

    pub(crate) fn of_row(row: &[u8]) -> Result<Self, StoreError> {
        match row.split_first_chunk::<8>() {
            Some((rev, bytes)) => Ok(Self { rev: Rev::from_be_bytes(*rev), bytes: bytes.to_vec() }),
            None => Err(StoreError::Damaged("a row is shorter than its revision".to_owned())),
        }
    }
}

/// The revision that a key must have for the batch to apply; `None` means the key must be absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expect {
    pub key: Key,
    pub rev: Option<Rev>,
}

/// A value to write. Its revision becomes that of the present value plus one (1 when absent or deleted), and plus what the
/// batch passes over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    pub key: Key,
    pub bytes: Vec<u8>,
}

/// Largest batch, in bytes of its keys and values.
pub const MAX_BATCH: usize = 8 << 20;

/// A moment of the store that scans can read at. It is kept for as long as it is used, and some 60 s more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snapshot(pub u64);

/// One conditional transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Unique to this batch and absent before it; settles an unknown outcome. Written with `marker_bytes`.
    pub marker: Key,
    pub marker_bytes: Vec<u8>,
    pub expect: Vec<Expect>,
    /// Keys on which two batches may not overlap even if neither puts them.
    pub lock: Vec<Key>,
    pub put: Vec<Put>,
    pub delete: Vec<Key>,
    /// How many revisions a put leaves out, for keys that several messages wrote which share this batch.
    pub passes: BTreeMap<Key, Rev>,
}

impl Batch {
    /// The revision that a put of this key gets.
    pub(crate) fn rev_of(&self, key: &Key, present: Option<Rev>) -> Rev {
        present.unwrap_or(0) + 1 + self.passes.get(key).copied().unwrap_or(0)
    }

    pub(crate) fn check_size(&self) -> Result<(), StoreError> {
        let keys = self.expect.iter().map(|expect| expect.key.0.len());
        let keys = keys.chain(self.lock.iter().chain(&self.delete).map(|key| key.0.len()));
        let puts = self.put.iter().map(|put| put.key.0.len() + put.bytes.len());
        let size = keys.chain(puts).sum::<usize>() + self.marker.0.len() + self.marker_bytes.len();
        match size > MAX_BATCH {
            true => Err(StoreError::TooLarge(format!("{size} bytes, more than {MAX_BATCH}"))),
            false => Ok(()),
        }
    }
}

/// An applied batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Committed {
    /// Revisions of `put`, in its order.
    pub revs: Vec<Rev>,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Some expected revisions differ, or the marker is there already. Nothing was written: read anew and run again.
    #[error("conflict on {} keys, first {:?}", .0.len(), .0.first())]
    Conflict(Vec<Key>),
    /// The batch may or may not have been applied. Never write it again: look for its marker.
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// Too many or too large values.
    #[error("batch too large: {0}")]
    TooLarge(String),
    /// The engine cannot be reached or refuses work; nothing was written.
    #[error("store unavailable: {0}")]
    Unavailable(String),
    /// The data on disk is not ours, damaged, or of a newer version.
    #[error("store damaged: {0}")]
    Damaged(String),
    /// An earlier batos left its rows where this one does not look for them; what to do.
    #[error("an older batos has written here: {0}")]
    Older(String),
    /// The snapshot is of another store or process, or was not used for too long: take a new one.
    #[error("snapshot {} is gone", .0.0)]
    SnapshotGone(Snapshot),
}

/// Completes once a batch is durable; an error is [`StoreError::Unknown`].
pub type Durable = Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send>>;

/// A store engine.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Values of `keys`, in their order, from one snapshot.
    async fn read(&self, keys: &[Key]) -> Result<Vec<Option<Versioned>>, StoreError>;

    /// As `read`, but of batches that may not be durable yet. For what goes into a later batch, which cannot become
    /// durable before them; nothing else may leave.
    async fn peek(&self, keys: &[Key]) -> Result<Vec<Option<Versioned>>, StoreError> {
        self.read(keys).await
    }

    /// The present moment, for scans that must fit together.
    async fn snapshot(&self) -> Result<Snapshot, StoreError>;

    /// Up to `limit` pairs with `start <= key < end`, in key order, as they are now or were `at` a snapshot.
    async fn scan(
        &self,
        start: &Key,
        end: &Key,
        at: Option<Snapshot>,
        limit: usize,
    ) -> Result<Vec<(Key, Versioned)>, StoreError>;

    /// Refuses, with [`StoreError::Older`], a range that looks empty because an earlier batos kept its rows elsewhere.
    async fn admit(&self, _start: &Key, _end: &Key) -> Result<(), StoreError> {
        Ok(())
    }

    /// Applies `batch` if everything it expects holds. Returns once it is durable. An engine settles an outcome that
    /// it does not know by looking for the marker, for a bounded time, before it answers [`StoreError::Unknown`].
    async fn commit(&self, batch: Batch) -> Result<Committed, StoreError>;

    /// Whether `place` returns before its batch is durable. Where it does not, messages that wait for each other may share a
    /// batch.
    fn pipelines(&self) -> bool {
        false
    }

    /// As `commit`, but returns as soon as later batches can rest on this one. Nothing that this one says may leave before
    /// the second part has completed.
    async fn place(&self, batch: Batch) -> Result<(Committed, Durable), StoreError> {
        let committed = self.commit(batch).await?;
        Ok((committed, Box::pin(std::future::ready(Ok(())))))
    }

    /// Writes rows with the revisions that they had, as an image has them: for a universe that nobody uses yet. Refuses with
    /// [`StoreError::Conflict`] once `still` no longer holds, so that a writer that was given up writes nothing more.
    async fn restore(&self, rows: Vec<(Key, Versioned)>, still: Option<Expect>) -> Result<(), StoreError>;

    /// Completes when the engine has failed for good, with the reason: a sync failed, and nobody knows what the disk holds.
    /// The process should end; whoever starts it again finds what was durable.
    async fn broken(&self) -> StoreError {
        std::future::pending().await
    }

    /// Finishes what was accepted and closes.
    async fn close(&self) -> Result<(), StoreError>;
}
