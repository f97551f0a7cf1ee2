//! Housekeeping: what retention lets go, goes, a bounded batch at a time.
//!
//! | row | goes when older than | its time |
//! |---|---|---|
//! | history | `history`, from the oldest revision on; methods that were overwritten stay, alone | when it was replaced |
//! | inbox marker with its reply | `replies` | when it was written |
//! | marker of a batch | an hour: outcomes are settled within a minute | when it was written |
//!
//! A row carries its time because nothing else tells: revisions count puts, and a marker's key is a digest. Rows from
//! before times were kept count from the first sweep on. Times are by the workers' clocks, which may differ a little.
//!
//! How far a pass has come is a row that every batch expects and writes. So the workers of a universe share one pass, a dead
//! one's stretch is done by the next, and a batch that lost is a batch that another did.

use std::time::Duration;

use batos_covenant::{Encoding, decode, encode};
use batos_graph::{Batch, Expect, Key, ObjectId, Past, Place, Put, Record, Rev, StoreError, Versioned};
use serde::{Deserialize, Serialize};

use super::{Age, Universe, UniverseError};

/// Rows that are read at once.
const PAGE: usize = 256;
/// Rows that one batch removes or rewrites.
const BATCH: usize = 512;
/// Rows that one stretch reads, and reads of them.
const STRETCH_ROWS: usize = 1 << 14;
const STRETCH_PAGES: usize = 1 << 10;
/// How long markers of batches stay.
const MARKERS: Age = Age::For(Duration::from_secs(60 * 60));
/// Passes in the shortest time that something is kept.
const PASSES: u32 = 12;
const SHORTEST_PASS: Duration = Duration::from_secs(1);
const LONGEST_PASS: Duration = Duration::from_secs(2 * 60 * 60);
/// Before it looks again at a pass that another worker is taking.
const OTHERS: Duration = Duration::from_secs(5);

/// How far housekeeping has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Progress {
    /// When it first began: the time of rows that have none.
    since: u64,
    /// When the last pass began.
    begun: u64,
    /// Key without the universe's prefix where the pass goes on; empty once it has ended.
    #[serde(with = "serde_bytes")]
    at: Vec<u8>,
}

/// What a stretch of housekeeping did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Rows that went, or went but for their methods.
    pub trimmed: usize,
    /// When to come again; `None`: the pass goes on.
    pub rest: Option<Duration>,
}

/// What one batch does.
#[derive(Default)]
struct Stretch {
    put: Vec<(Put, Rev)>,
    delete: Vec<Key>,
    pages: usize,
    rows: usize,
}

impl Stretch {
    fn trimmed(&self) -> usize {
        self.put.len() + self.delete.len()
    }

    fn is_full(&self) -> bool {
        self.trimmed() >= BATCH || self.pages >= STRETCH_PAGES || self.rows >= STRETCH_ROWS
    }
}

/// Reads the time of an inbox marker, and nothing else of it.
#[derive(Deserialize)]
struct Aged {
    #[serde(default)]
    at: u64,
}

impl Universe {
    /// A stretch of housekeeping: at most one batch.
    pub async fn keep_house(&self) -> Result<Swept, UniverseError> {
        let (keys, now) = (self.inner.keys, self.now());
        let rows = self.inner.store.read(&[keys.sweep()]).await.map_err(UniverseError::Store)?;
        let row = rows.into_iter().next().flatten();
        let rev = row.as_ref().map(|row| row.rev);
        let mut progress = match row {
            Some(row) => decode(&row.bytes).map_err(|e| UniverseError::Internal(format!("housekeeping: {e}")))?.0,
            None => Progress { since: now, begun: 0, at: Vec::new() },
        };
        if progress.at.is_empty() {
            let (pass, age) = (self.pass(), Duration::from_secs(now.abs_diff(progress.begun)));
            if age < pass {
                return Ok(Swept { trimmed: 0, rest: Some(pass - age) });
            }
            progress.begun = now;
            progress.at = keys.suffix(&keys.object_range(0).0).unwrap_or_default().to_vec();
        }
        let mut stretch = Stretch::default();
        let mut at = Some(keys.with_suffix(&progress.at));
        while let Some(start) = at.take_if(|_| !stretch.is_full()) {
            at = self.sweep_page(&start, progress.since, now, &mut stretch).await?;
        }
        progress.at = at.as_ref().and_then(|at| keys.suffix(at)).unwrap_or_default().to_vec();
        let trimmed = stretch.trimmed();
        match self.inner.store.commit(self.sweeping(stretch, &progress, rev)?).await {
            Ok(_) => Ok(Swept { trimmed, rest: progress.at.is_empty().then(|| self.pass()) }),
            Err(StoreError::Conflict(_)) => Ok(Swept { trimmed: 0, rest: Some(OTHERS) }),
            Err(error) => Err(UniverseError::Store(error)),
        }
    }

    /// Time between two passes.
    fn pass(&self) -> Duration {
        let kept = [self.inner.retention.history, self.inner.retention.replies].into_iter().min();
        match kept {
            Some(Age::For(kept)) => (kept / PASSES).clamp(SHORTEST_PASS, LONGEST_PASS),
            _ => LONGEST_PASS,
        }
    }

    fn sweeping(&self, stretch: Stretch, progress: &Progress, rev: Option<Rev>) -> Result<Batch, UniverseError> {
        let key = self.inner.keys.sweep();
        let bytes = encode(progress, Encoding::MessagePack).map_err(|e| UniverseError::Internal(e.to_string()))?;
        let mut batch = Batch { delete: stretch.delete, ..self.batch(self.fresh_marker()?) };
        for (put, rev) in stretch.put {
            batch.expect.push(Expect { key: put.key.clone(), rev: Some(rev) });
            batch.put.push(put);
        }
        batch.expect.push(Expect { key: key.clone(), rev });
        batch.put.push(Put { key, bytes });
        Ok(batch)
    }

    /// Looks at the rows from `start` on; answers where to go on.
    async fn sweep_page(
        &self,
        start: &Key,
        since: u64,
        now: u64,
        stretch: &mut Stretch,
    ) -> Result<Option<Key>, UniverseError> {
        let (keys, retention) = (self.inner.keys, self.inner.retention);
        stretch.pages += 1;
        let Some(&shard) = keys.suffix(start).and_then(<[u8]>::first) else { return Ok(None) };
        // Objects, then markers; nothing else grows old.
        let (_, objects) = keys.object_range(shard);
        let (end, behind) = match *start < objects {
            true => (objects, Some(keys.marker_range(shard).0)),
            false => (keys.marker_range(shard).1, shard.checked_add(1).map(|shard| keys.object_range(shard).0)),
        };
        let rows = self.inner.store.scan(start, &end, None, PAGE).await.map_err(UniverseError::Store)?;
        stretch.rows += rows.len();
        let is_whole = rows.len() < PAGE;
        for (index, (key, row)) in rows.iter().enumerate() {
            match Place::of(key) {
                Some(Place::Inbox(_)) => {
                    let written = decode::<Aged>(&row.bytes).map_or(0, |(aged, _)| aged.at);
                    let written = if written > 0 { written } else { since };
                    stretch.delete.extend(retention.replies.has_passed(written, now).then(|| key.clone()));
                }
                Some(Place::Marker) => {
                    let written = row.bytes.as_slice().try_into().map_or(since, u64::from_be_bytes);
                    stretch.delete.extend(MARKERS.has_passed(written, now).then(|| key.clone()));
                }
                Some(Place::History(id, rev)) => {
                    let Ok(past) = Past::decode(&row.bytes) else { continue };
                    if !past.is_whole {
                        continue;
                    }
                    // Only from the oldest on, so that what is left has no gaps.
                    if !retention.history.has_passed(past.replaced.unwrap_or(since), now) {
                        return Ok(Some(keys.after_history(id)));
                    }
                    let next = match rows.get(index + 1) {
                        None if !is_whole => return Ok(Some(key.clone())),
                        next => self.revision(id, rev + 1, next).await?,
                    };
                    let Some(next) = next else { return Ok(Some(keys.after_history(id))) };
                    match past.trimmed(&next) {
                        None => stretch.delete.push(key.clone()),
                        Some(methods) => {
                            let bytes =
                                methods.encode().map_err(|source| UniverseError::Record { object: id, source })?;
                            stretch.put.push((Put { key: key.clone(), bytes }, row.rev));
                        }
                    }
                }
                _ => {}
            }
            if stretch.trimmed() >= BATCH {
                return Ok(Some(key.successor()));
            }
        }
        match rows.last() {
            Some((last, _)) if !is_whole => Ok(Some(last.successor())),
            _ => Ok(behind),
        }
    }

    /// An object at `rev`: that is the row `next` of its history, or what lives.
    async fn revision(
        &self,
        id: ObjectId,
        rev: Rev,
        next: Option<&(Key, Versioned)>,
    ) -> Result<Option<Record>, UniverseError> {
        if let Some((key, row)) = next
            && Place::of(key) == Some(Place::History(id, rev))
        {
            return Ok(Past::decode(&row.bytes).ok().filter(|past| past.is_whole).map(|past| past.record));
        }
        let rows = self.inner.store.read(&[self.inner.keys.head(id)]).await.map_err(UniverseError::Store)?;
        let live = rows.into_iter().next().flatten().filter(|row| row.rev == rev);
        Ok(live.and_then(|row| Record::decode(&row.bytes).ok()))
    }
}
