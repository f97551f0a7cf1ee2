//! Events wait in the outbox, written by the commit that caused them, until the bus has them.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use batos_covenant::{Encoding, Transcript, TranscriptEvent, encode};
use batos_graph::{Batch, Key, KeySpace, ObjectId, Put, Rev, Versioned};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::{Universe, UniverseError, View, render};

/// An event as it lies in the outbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutboxEvent {
    /// Subject token: the object's name, else its id.
    pub object: String,
    pub kind: String,
    /// Unique to the event; a repeat carries the same.
    pub id: String,
    /// MessagePack.
    #[serde(with = "serde_bytes")]
    pub payload: Vec<u8>,
}

/// Most events that one look at a shard answers.
pub const OUTBOX_PAGE: usize = 256;

/// Most keys that are remembered for the relay; what is forgotten, it finds when it looks at everything.
const REMEMBERED: usize = 1 << 16;

/// What commits of this worker left in the outbox.
#[derive(Default)]
pub(super) struct Filled {
    keys: Mutex<Vec<Key>>,
    wake: Notify,
}

impl Filled {
    fn keys(&self) -> MutexGuard<'_, Vec<Key>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Universe {
    /// The outbox row of an event about `subject` at `rev`.
    pub fn event_row(
        &self,
        subject: ObjectId,
        rev: Rev,
        object: String,
        kind: &str,
        event: &impl Serialize,
    ) -> Result<Put, UniverseError> {
        let id = format!("{}/{subject}/{rev}", self.inner.name);
        self.row(self.inner.keys.outbox(subject, rev), object, kind, id, event)
    }

    fn row(
        &self,
        key: Key,
        object: String,
        kind: &str,
        id: String,
        event: &impl Serialize,
    ) -> Result<Put, UniverseError> {
        let internal = |e: String| UniverseError::Internal(format!("event: {e}"));
        let payload = encode(event, Encoding::MessagePack).map_err(|e| internal(e.to_string()))?;
        let row = OutboxEvent { object, kind: kind.to_owned(), id, payload };
        let bytes = encode(&row, Encoding::MessagePack).map_err(|e| internal(e.to_string()))?;
        Ok(Put { key, bytes })
    }

    /// The outbox row of what a turn on `object` has shown. Turns that change nothing leave `rev` as it is, so the time
    /// orders them, and chance keeps them apart.
    pub(super) async fn transcript_row(
        &self,
        object: ObjectId,
        rev: Rev,
        shown: &Transcript,
    ) -> Result<Put, UniverseError> {
        let record = View::new(self).object(object).await?;
        let token = record.map_or_else(|| object.to_string(), |(_, record)| render::subject_token(object, &record));
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_micros() as u64);
        let random = self.random()?;
        let note = [time.to_be_bytes(), *random.first_chunk::<8>().unwrap_or(&[0; 8])].concat();
        let id = format!("{}/{object}/{rev}/{:032x}", self.inner.name, u128::from_be_bytes(random));
        let event = TranscriptEvent { object: object.to_string(), transcript: shown.clone() };
        self.row(self.inner.keys.outbox_note(object, rev, &note), token, "transcript", id, &event)
    }

    /// What commits of this worker left since the last call, in their order; waits for something, but not longer than
    /// `at_most`.
    pub async fn outbox_filled(&self, at_most: Duration) -> Vec<Key> {
        let filled = &self.inner.outbox;
        let some = async {
            loop {
                let keys = std::mem::take(&mut *filled.keys());
                if !keys.is_empty() {
                    return keys;
                }
                filled.wake.notified().await;
            }
        };
        tokio::time::timeout(at_most, some).await.unwrap_or_default()
    }

    pub(super) fn wake_relay(&self, events: Vec<Key>) {
        let mut keys = self.inner.outbox.keys();
        if keys.len() < REMEMBERED {
            keys.extend(events);
        }
        self.inner.outbox.wake.notify_one();
    }

    /// Waiting events of the object that `last` is about, after `after` and up to `last`, in order: also those that a worker
    /// which is no more has left before it.
    pub async fn outbox_of(&self, last: &Key, after: Option<&Key>) -> Result<Vec<(Key, OutboxEvent)>, UniverseError> {
        let Some(object) = KeySpace::object_of(last) else { return Ok(Vec::new()) };
        let end = last.successor();
        let mut start = after.map_or_else(|| self.inner.keys.outbox(object, 0), Key::successor);
        let mut events = Vec::new();
        loop {
            let page = self.outbox_between(&start, &end).await?;
            let full = page.len() == OUTBOX_PAGE;
            events.extend(page);
            match events.last() {
                Some((key, _)) if full => start = key.successor(),
                _ => return Ok(events),
            }
        }
    }

    /// Waiting events of one shard, in order per object, after the last one of the page before.
    pub async fn outbox(&self, shard: u8, after: Option<&Key>) -> Result<Vec<(Key, OutboxEvent)>, UniverseError> {
        let (start, end) = self.inner.keys.outbox_range(shard);
        self.outbox_between(&after.map_or(start, Key::successor), &end).await
    }

    async fn outbox_between(&self, start: &Key, end: &Key) -> Result<Vec<(Key, OutboxEvent)>, UniverseError> {
        let rows = self.inner.store.scan(start, end, None, OUTBOX_PAGE).await.map_err(UniverseError::Store)?;
        rows.iter().map(|(key, row)| event_of(key, row)).collect()
    }

    /// Removes published events. Doing it twice does no harm. Answers the batch's marker: the next call may take it away
    /// with its own keys, for what became of this batch is known then.
    pub async fn trim(&self, keys: Vec<Key>) -> Result<Key, UniverseError> {
        let marker = self.fresh_marker()?;
        let batch = Batch { delete: keys, ..self.batch(marker.clone()) };
        self.inner.store.commit(batch).await.map(|_| marker).map_err(UniverseError::Store)
    }
}

fn event_of(key: &Key, row: &Versioned) -> Result<(Key, OutboxEvent), UniverseError> {
    let (event, _) =
        batos_covenant::decode(&row.bytes).map_err(|e| UniverseError::Internal(format!("outbox row {key:?}: {e}")))?;
    Ok((key.clone(), event))
}
