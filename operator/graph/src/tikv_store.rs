//! TiKV behind the store's contract, with the crate `tikv-client` 0.4: optimistic two-phase commit, plain.
//!
//! What the client gets wrong is handled here and nowhere else:
//! - a request for a timestamp may hang for ever when PD goes silent, and once in a while when it does not: every call has
//!   a time-out of our own, and what writes nothing is asked once more;
//! - a lost acknowledgement of a commit arrives as an ordinary error: whatever is no proven conflict is unknown, and
//!   settled by looking for the batch's marker, which is the transaction's primary key; what has not happened is tried again;
//! - rolling back after an unknown outcome can tear a commit whose primary is applied: only a proven write conflict,
//!   which only a prewrite can answer, is rolled back; other locks are left to their time to live;
//! - a conflict may be nested in other errors: it is one only if all leaves are;
//! - `batch_get` groups neighbours only: keys are sorted and deduplicated before;
//! - a lock whose primary was never written (its client or server died between prewrites) makes every call on its key
//!   fail with `MultipleKeyErrors([txn_not_found])` for ever, because the client's lock resolver looks for that error
//!   bare: once its time to live has passed, such a lock is cleaned up here;
//! - a heartbeat task outlives each transaction by up to 10 s, and dropping an active one panics: both are switched off;
//! - a read of a key that a dead client locked gives up before the lock expires: it is repeated until then.
//!
//! A transaction costs five round trips, however many batches it carries: while some are under way, batches that come
//! gather, and those that touch nothing of each other go together. What a batch expects is compared for it alone; which of
//! them a write conflict was about is seen on the next snapshot.
//!
//! Every key has a prefix there. Keys begin with a hash, and TiDB, which may share the cluster, has its own under `t` and
//! `m`, keyspaces under `x` and `r`; unistore, which the tests have for TiKV (tidb v1.1.0-beta.0.20251126), takes a key with
//! `t` first and `r` in eleventh place for a row of TiDB and fails to read it (`insufficient bytes to decode value`).

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::Future,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tikv_client::{
    CheckLevel, Config, KvPair, Timestamp, TimestampExt, Transaction, TransactionClient, TransactionOptions,
    transaction::{HeartbeatOption, ResolveLocksOptions},
};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

use crate::{Batch, Committed, Expect, Key, Snapshot, Store, StoreError, Versioned};

/// Longest wait for one answer of PD or TiKV. The client itself retries for about 1.5 s.
const CALL: Duration = Duration::from_secs(5);
/// Of what may be asked once more.
const READ: Duration = Duration::from_secs(3);
/// A lock lives for 3 to 20 s; an outcome is settled, and a locked key readable, soon after.
const LOCK_LIFE: Duration = Duration::from_secs(25);
const POLL: Duration = Duration::from_millis(100);
/// How often a commit is tried again that is proven not to have happened.
const REPEATS: u32 = 2;
/// Locks that one clean-up looks at.
const MAX_LOCKS: u32 = 256;

/// Of an answer, in bytes: the client's own limit is 4 MiB, a page of 512 rows of `MAX_RECORD` may have 128.
const LARGEST_ANSWER: usize = 256 << 20;

/// Before every key in TiKV, and nowhere else.
const PREFIX: &[u8] = b"batos/";

/// Transactions of one worker that are under way at once; what comes then gathers.
const AT_ONCE: usize = 4;
/// What goes together at most: batches, and bytes of their values.
const TOGETHER: usize = 64;
const TOGETHER_BYTES: usize = 1 << 20;
/// How often batches go together that have met a write conflict, before each goes alone.
const JOINT_TRIES: u32 = 2;

/// A universe's store in a TiKV cluster. A cheap handle; all share one client.
#[derive(Clone)]
pub struct TikvStore {
    client: TransactionClient,
    gathering: Arc<Mutex<Gathering>>,
}

#[derive(Default)]
struct Gathering {
    under_way: usize,
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    batch: Batch,
    told: oneshot::Sender<Result<Committed, StoreError>>,
}

impl Gathering {
    /// Batches that touch nothing of each other, the first that waits among them.
    fn next(&mut self) -> Vec<Waiting> {
        let (mut together, mut apart, mut bytes) = (Vec::new(), VecDeque::new(), 0_usize);
        let (mut written, mut expected) = (BTreeSet::new(), BTreeSet::new());
        while let Some(next) = self.waiting.pop_front() {
            let Batch { marker, expect, lock, put, delete, .. } = &next.batch;
            let writes = || put.iter().map(|put| &put.key).chain(lock).chain(delete).chain([marker]);
            let size: usize = put.iter().map(|put| put.bytes.len()).sum();
            let fits = together.is_empty() || bytes.saturating_add(size) <= TOGETHER_BYTES;
            let free = writes().all(|key| !written.contains(key) && !expected.contains(key))
                && expect.iter().all(|expect| !written.contains(&expect.key));
            if !fits || !free || together.len() >= TOGETHER {
                apart.push_back(next);
                continue;
            }
            written.extend(writes().cloned());
            expected.extend(expect.iter().map(|expect| expect.key.clone()));
            bytes = bytes.saturating_add(size);
            together.push(next);
        }
        self.waiting = apart;
        together
    }
}

/// What a failed call means.
enum Failure {
    /// All of it is a write conflict, found by a prewrite: nothing was applied.
    Conflict,
    /// A lock of somebody else is in the way and may expire.
    Locked,
    /// A lock is in the way whose primary was never written.
    Orphaned,
    /// A commit failed, and it is proven that nothing was applied nor can be any more.
    Undone(String),
    /// No answer in time to what writes nothing.
    Silent(String),
    Other(String),
}

impl TikvStore {
    /// Connects to `tikv://HOST:PORT[,HOST:PORT…]`, the addresses of PD.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        let addresses = url.strip_prefix("tikv://").unwrap_or(url);
        let endpoints: Vec<String> = addresses.split(',').map(str::to_owned).collect();
        let unavailable = |e: String| StoreError::Unavailable(format!("{url}: {e}"));
        // A page of a scan may be as large as its rows.
        let config = Config::default().with_grpc_max_decoding_message_size(LARGEST_ANSWER);
        let client = timeout(CALL, TransactionClient::new_with_config(endpoints, config))
            .await
            .map_err(|_| unavailable(format!("PD does not answer within {CALL:?}")))?
            .map_err(|e| unavailable(e.to_string()))?;
        Ok(Self { client, gathering: Arc::default() })
    }

    async fn begin(&self) -> Result<Transaction, Failure> {
        call("begin", self.client.begin_with_options(options())).await
    }

    /// Repeats a call on a new snapshot while others' locks are in the way of `ranges`, and a few times what was undone.
    async fn waiting<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        ranges: &[Range<Vec<u8>>],
        call: impl Fn() -> F,
    ) -> Result<T, StoreError> {
        let end = Instant::now() + LOCK_LIFE;
        let (mut repeats, mut was_silent) = (0, false);
        loop {
            let failure = match call().await {
                Ok(found) => return Ok(found),
                Err(failure) => failure,
            };
            match failure {
                Failure::Other(reason) => return Err(StoreError::Unavailable(reason)),
                Failure::Silent(reason) if was_silent => return Err(StoreError::Unavailable(reason)),
                Failure::Undone(reason) if repeats == REPEATS => {
                    return Err(StoreError::Unavailable(format!("not committed: {reason}")));
                }
                _ if Instant::now() > end => {
                    return Err(StoreError::Unavailable(format!("a key stays locked for {LOCK_LIFE:?}")));
                }
                Failure::Orphaned => self.clean_up(ranges).await,
                Failure::Undone(_) => repeats += 1,
                Failure::Silent(_) => was_silent = true,
                Failure::Conflict | Failure::Locked => {}
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Removes the locks in `ranges` whose time to live has passed, or commits what they stand for if their primary is
    /// committed. What fails here is tried again by whoever waits.
    async fn clean_up(&self, ranges: &[Range<Vec<u8>>]) {
        let Ok(now) = call("timestamp", self.client.current_timestamp()).await else { return };
        for range in ranges {
            let Ok(locks) = call("locks", self.client.scan_locks(&now, range.clone(), MAX_LOCKS)).await else {
                continue;
            };
            // Not every server heeds the end of the range.
            for lock in locks.into_iter().filter(|lock| range.contains(&lock.key)) {
                let written = Timestamp::from_version(lock.lock_version);
                let age = u64::try_from(now.physical - written.physical).unwrap_or(0);
                if age <= lock.lock_ttl {
                    continue;
                }
                tracing::warn!(key = ?ours(&lock.key), age_ms = age, "cleaning up an expired lock");
                // Some servers take the bound as exclusive.
                let bound = Timestamp::from_version(lock.lock_version + 1);
                let options = ResolveLocksOptions { batch_size: MAX_LOCKS, ..ResolveLocksOptions::default() };
                if call("clean-up", self.client.cleanup_locks(only(lock.key), &bound, options)).await.is_err() {
                    tracing::warn!("an expired lock could not be cleaned up yet");
                }
            }
        }
    }

    /// Carries out what gathers until nothing waits.
    async fn work(self) {
        loop {
            let group = {
                let mut gathering = self.gathering.lock().unwrap_or_else(PoisonError::into_inner);
                let group = gathering.next();
                if group.is_empty() {
                    gathering.under_way -= 1;
                    return;
                }
                group
            };
            let (batches, told): (Vec<Batch>, Vec<_>) =
                group.into_iter().map(|Waiting { batch, told }| (batch, told)).unzip();
            for (told, result) in told.into_iter().zip(self.together(&batches).await) {
                let _ = told.send(result);
            }
        }
    }

    /// Commits batches that touch nothing of each other; what becomes of each, in their order.
    async fn together(&self, batches: &[Batch]) -> Vec<Result<Committed, StoreError>> {
        let ranges: Vec<_> = batches.iter().flat_map(touched).map(|key| only(there(&key))).collect();
        let mut tries = 0;
        // What fails before the commit began has written nothing; what was undone is compared and written anew, under the
        // same marker.
        loop {
            match self.waiting(&ranges, || self.attempt(batches)).await {
                Ok(Some(results)) => return results,
                Err(error) => return batches.iter().map(|_| Err(error.clone())).collect(),
                Ok(None) if tries < JOINT_TRIES => tries += 1,
                Ok(None) => break,
            }
        }
        let mut results = Vec::new();
        for batch in batches {
            results.extend(Box::pin(self.together(std::slice::from_ref(batch))).await);
        }
        results
    }

    /// Prewrite and commit. What does not hold of a batch is its own affair; `Ok(None)`: somebody else was faster, and it
    /// is not known for which of several.
    async fn attempt(&self, batches: &[Batch]) -> Result<Option<Vec<Result<Committed, StoreError>>>, Failure> {
        let mut transaction = self.begin().await?;
        let wanted: Vec<Key> = batches.iter().flat_map(compared_keys).collect();
        let rows = rows(&mut transaction, wanted.iter()).await?;
        let mut results: Vec<_> = batches.iter().map(|batch| compared(batch, &rows)).collect();
        let holds = || batches.iter().zip(&results).filter_map(|(batch, found)| Some((batch, found.as_ref().ok()?)));
        let Some((first, _)) = holds().next() else { return Ok(Some(results)) };
        for (batch, committed) in holds() {
            // The first write is the primary: whether the first marker is there then tells whether all is.
            write(transaction.put(there(&batch.marker), Versioned::row(1, &batch.marker_bytes)).await)?;
            for (put, rev) in batch.put.iter().zip(&committed.revs) {
                write(transaction.put(there(&put.key), Versioned::row(*rev, &put.bytes)).await)?;
            }
            for key in &batch.delete {
                write(transaction.delete(there(key)).await)?;
            }
            let written = |key: &Key| batch.put.iter().any(|put| put.key == *key) || batch.delete.contains(key);
            let lock: Vec<Vec<u8>> = batch.lock.iter().filter(|key| !written(key)).map(there).collect();
            write(transaction.lock_keys(lock).await)?;
        }
        let reason = match timeout(CALL, transaction.commit()).await {
            Ok(Ok(_)) => return Ok(Some(results)),
            Ok(Err(error)) => match failure("commit", &error) {
                Failure::Conflict => {
                    // Locks that stay behind would hold up others until they expire.
                    if !matches!(timeout(CALL, transaction.rollback()).await, Ok(Ok(()))) {
                        tracing::debug!("locks of a lost transaction are left to expire");
                    }
                    let [batch] = batches else { return Ok(None) };
                    let lost = batch.put.iter().map(|put| put.key.clone()).collect();
                    return Ok(Some(vec![Err(StoreError::Conflict(lost))]));
                }
                Failure::Locked | Failure::Orphaned | Failure::Undone(_) | Failure::Silent(_) | Failure::Other(_) => {
                    error.to_string()
                }
            },
            Err(_) => format!("commit not answered within {CALL:?}"),
        };
        if let Err(unknown) = self.settle(&first.marker, &reason).await? {
            results.iter_mut().filter(|result| result.is_ok()).for_each(|result| *result = Err(unknown.clone()));
        }
        Ok(Some(results))
    }

    /// An outcome that is not known: the marker tells, once the primary's lock has expired at the latest. That nothing was
    /// applied is [`Failure::Undone`].
    async fn settle(&self, marker: &Key, reason: &str) -> Result<Result<(), StoreError>, Failure> {
        tracing::warn!(reason, "the outcome of a commit is unknown; looking for its marker");
        let end = Instant::now() + LOCK_LIFE;
        while Instant::now() < end {
            let found = match self.begin().await {
                Ok(mut transaction) => rows(&mut transaction, [marker].into_iter()).await,
                Err(failure) => Err(failure),
            };
            match found {
                Ok(found) if found.contains_key(marker) => return Ok(Ok(())),
                // Readable and absent: no lock of ours is left on the primary, so nothing can be applied any more.
                Ok(_) => return Err(Failure::Undone(reason.to_owned())),
                Err(_) => tokio::time::sleep(POLL).await,
            }
        }
        Ok(Err(StoreError::Unknown(format!("{reason}; its marker could not be read for {LOCK_LIFE:?}"))))
    }
}

#[async_trait]
impl Store for TikvStore {
    async fn read(&self, keys: &[Key]) -> Result<Vec<Option<Versioned>>, StoreError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let ranges: Vec<_> = keys.iter().map(|key| only(there(key))).collect();
        let found = self
            .waiting(&ranges, || async {
                let mut transaction = self.begin().await?;
                rows(&mut transaction, keys.iter()).await
            })
            .await?;
        keys.iter().map(|key| found.get(key).map(|row| Versioned::of_row(row)).transpose()).collect()
    }

    /// A timestamp of PD, so that any worker can read at it.
    async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let now = self.waiting(&[], || call("timestamp", self.client.current_timestamp())).await?;
        Ok(Snapshot(now.version()))
    }

    async fn scan(
        &self,
        start: &Key,
        end: &Key,
        at: Option<Snapshot>,
        limit: usize,
    ) -> Result<Vec<(Key, Versioned)>, StoreError> {
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let range = there(start)..there(end);
        let pairs = self
            .waiting(std::slice::from_ref(&range), || async {
                let range = range.clone();
                let pairs: Vec<KvPair> = match at {
                    None => call("scan", self.begin().await?.scan(range, limit)).await?.collect(),
                    Some(at) => {
                        let mut snapshot = self.client.snapshot(Timestamp::from_version(at.0), options());
                        call("scan", snapshot.scan(range, limit)).await?.collect()
                    }
                };
                Ok(pairs.into_iter().map(|pair| (Vec::from(pair.0), pair.1)).collect::<Vec<_>>())
            })
            .await?;
        pairs.into_iter().map(|(key, row)| Ok((ours(&key), Versioned::of_row(&row)?))).collect()
    }

    /// The first batos had no prefix. Its rows are not moved: one of its workers may still write there.
    async fn admit(&self, start: &Key, end: &Key) -> Result<(), StoreError> {
        if !self.scan(start, end, None, 1).await?.is_empty() {
            return Ok(());
        }
        let bare = start.0.clone()..end.0.clone();
        let left = self
            .waiting(std::slice::from_ref(&bare), || async {
                let keys = call("scan", self.begin().await?.scan_keys(bare.clone(), 1)).await?;
                Ok(keys.count())
            })
            .await?;
        match left {
            0 => Ok(()),
            _ => Err(StoreError::Older(
                "its keys lack the prefix that TiKV's have now; `batos export` it with the batos that ran it, then \
                 `batos import` the image with this one"
                    .to_owned(),
            )),
        }
    }

    async fn commit(&self, batch: Batch) -> Result<Committed, StoreError> {
        batch.check_size()?;
        let (told, answer) = oneshot::channel();
        let may_begin = {
            let mut gathering = self.gathering.lock().unwrap_or_else(PoisonError::into_inner);
            gathering.waiting.push_back(Waiting { batch, told });
            let may_begin = gathering.under_way < AT_ONCE;
            gathering.under_way += usize::from(may_begin);
            may_begin
        };
        if may_begin {
            // Whoever waits for a batch may give up; the others of its transaction do not.
            tokio::spawn(self.clone().work());
        }
        let stopped = |_| StoreError::Unknown("the process ends".to_owned());
        answer.await.map_err(stopped)?
    }

    async fn restore(&self, rows: Vec<(Key, Versioned)>, still: Option<Expect>) -> Result<(), StoreError> {
        let unavailable = |failure| match failure {
            Failure::Conflict | Failure::Locked | Failure::Orphaned | Failure::Undone(_) => {
                StoreError::Unavailable("somebody else writes there".to_owned())
            }
            Failure::Silent(reason) | Failure::Other(reason) => StoreError::Unavailable(reason),
        };
        let mut transaction = self.begin().await.map_err(unavailable)?;
        if let Some(Expect { key, rev }) = still {
            let found = self::rows(&mut transaction, [&key].into_iter()).await.map_err(unavailable)?;
            if found.get(&key).map(|row| Versioned::rev_of_row(row)).transpose()? != rev {
                return Err(StoreError::Conflict(vec![key]));
            }
            write(transaction.lock_keys([there(&key)]).await).map_err(unavailable)?;
        }
        for (key, row) in rows {
            write(transaction.put(there(&key), Versioned::row(row.rev, &row.bytes)).await).map_err(unavailable)?;
        }
        match timeout(CALL, transaction.commit()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(unavailable(failure("commit", &error))),
            Err(_) => Err(StoreError::Unavailable(format!("TiKV: commit not answered within {CALL:?}"))),
        }
    }

    async fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// All that locks may be on.
fn touched(batch: &Batch) -> Vec<Key> {
    let more = batch.lock.iter().chain(&batch.delete).cloned();
    compared_keys(batch).into_iter().chain(more).collect()
}

/// What has to be read before a batch is written.
fn compared_keys(batch: &Batch) -> Vec<Key> {
    let expected = batch.expect.iter().map(|expect| &expect.key);
    expected.chain(batch.put.iter().map(|put| &put.key)).chain([&batch.marker]).cloned().collect()
}

/// The revisions that a batch's puts get, if what it expects holds.
fn compared(batch: &Batch, rows: &BTreeMap<Key, Vec<u8>>) -> Result<Committed, StoreError> {
    let present = |key: &Key| rows.get(key).map(|row| Versioned::rev_of_row(row)).transpose();
    let mut stale: Vec<Key> = Vec::new();
    stale.extend(rows.contains_key(&batch.marker).then(|| batch.marker.clone()));
    for expect in &batch.expect {
        if present(&expect.key)? != expect.rev {
            stale.push(expect.key.clone());
        }
    }
    if !stale.is_empty() {
        return Err(StoreError::Conflict(stale));
    }
    let revs = batch.put.iter().map(|put| Ok(batch.rev_of(&put.key, present(&put.key)?)));
    Ok(Committed { revs: revs.collect::<Result<_, StoreError>>()? })
}

fn options() -> TransactionOptions {
    TransactionOptions::new_optimistic().drop_check(CheckLevel::None).heartbeat_option(HeartbeatOption::NoHeartbeat)
}

/// The rows that are there, in one request.
async fn rows(
    transaction: &mut Transaction,
    keys: impl Iterator<Item = &Key>,
) -> Result<BTreeMap<Key, Vec<u8>>, Failure> {
    let mut keys: Vec<Vec<u8>> = keys.map(there).collect();
    keys.sort();
    keys.dedup();
    let pairs = call("read", transaction.batch_get(keys)).await?;
    Ok(pairs.map(|pair| (ours(&Vec::from(pair.0)), pair.1)).collect())
}

/// A call that writes nothing.
async fn call<T>(what: &str, call: impl Future<Output = tikv_client::Result<T>>) -> Result<T, Failure> {
    match timeout(READ, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(failure(what, &error)),
        Err(_) => Err(Failure::Silent(format!("TiKV: {what} not answered within {READ:?}"))),
    }
}

/// A key as TiKV has it.
fn there(key: &Key) -> Vec<u8> {
    [PREFIX, &key.0].concat()
}

/// A key of TiKV as it is outside.
fn ours(key: &[u8]) -> Key {
    Key(key.strip_prefix(PREFIX).unwrap_or(key).to_vec())
}

/// The range of one key.
fn only(key: Vec<u8>) -> Range<Vec<u8>> {
    let end = [key.as_slice(), &[0]].concat();
    key..end
}

/// A write into the transaction's buffer.
fn write(written: tikv_client::Result<()>) -> Result<(), Failure> {
    written.map_err(|error| failure("write", &error))
}

fn failure(what: &str, error: &tikv_client::Error) -> Failure {
    if is_conflict(error) {
        return Failure::Conflict;
    }
    if is_orphan(error) {
        return Failure::Orphaned;
    }
    match error {
        tikv_client::Error::ResolveLockError(_) => Failure::Locked,
        other => Failure::Other(format!("TiKV: {what}: {other}")),
    }
}

fn is_conflict(error: &tikv_client::Error) -> bool {
    use tikv_client::Error::{ExtractedErrors, KeyError, MultipleKeyErrors, PessimisticLockError};
    match error {
        KeyError(error) => error.conflict.is_some(),
        MultipleKeyErrors(all) | ExtractedErrors(all) => !all.is_empty() && all.iter().all(is_conflict),
        PessimisticLockError { inner, .. } => is_conflict(inner),
        _ => false,
    }
}

fn is_orphan(error: &tikv_client::Error) -> bool {
    use tikv_client::Error::{ExtractedErrors, KeyError, MultipleKeyErrors, TxnNotFound};
    match error {
        TxnNotFound(_) => true,
        KeyError(error) => error.txn_not_found.is_some(),
        MultipleKeyErrors(all) | ExtractedErrors(all) => all.iter().any(is_orphan),
        _ => false,
    }
}
