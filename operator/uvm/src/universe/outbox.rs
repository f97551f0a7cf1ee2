//! Events wait in the outbox, written by the commit that caused them, until the bus has them.

use std::time::Duration;

use batos_covenant::{Encoding, encode};
use batos_graph::{Batch, Key, ObjectId, Put, Rev};
use serde::{Deserialize, Serialize};

use super::{Universe, UniverseError, shards::Filled};

/// An event as it lies in the outbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutboxEvent {
    /// Subject token: the object's name, else its id.
    pub object: String,
    pub kind: String,
    /// Unique to the event; a repeat carries the same.
    pub id: String,
    /// MessagePack.
    pub payload: Vec<u8>,
}

/// Events that are published and trimmed at once.
const PAGE: usize = 256;

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
        let internal = |e: String| UniverseError::Internal(format!("event: {e}"));
        let payload = encode(event, Encoding::MessagePack).map_err(|e| internal(e.to_string()))?;
        let id = format!("{}/{subject}/{rev}", self.inner.name);
        let row = OutboxEvent { object, kind: kind.to_owned(), id, payload };
        let bytes = encode(&row, Encoding::MessagePack).map_err(|e| internal(e.to_string()))?;
        Ok(Put { key: self.inner.keys.outbox(subject, rev), bytes })
    }

    /// Waits until a commit left events, or until `at_most` has passed.
    pub async fn outbox_filled(&self, at_most: Duration) -> Filled {
        self.inner.outbox.filled(at_most).await
    }

    /// Waiting events of one shard, in order per object, with the keys to trim once they are published.
    pub async fn outbox(&self, shard: u8) -> Result<Vec<(Key, OutboxEvent)>, UniverseError> {
        let (start, end) = self.inner.keys.outbox_range(shard);
        let rows = self.inner.store.scan(&start, &end, None, PAGE).await.map_err(UniverseError::Store)?;
        rows.into_iter()
            .map(|(key, row)| {
                batos_covenant::decode(&row.bytes)
                    .map(|(event, _)| (key.clone(), event))
                    .map_err(|e| UniverseError::Internal(format!("outbox row {key:?}: {e}")))
            })
            .collect()
    }

    /// Removes published events. Doing it twice does no harm.
    pub async fn trim(&self, keys: Vec<Key>) -> Result<(), UniverseError> {
        let batch = Batch { delete: keys, ..self.batch(self.fresh_marker()?) };
        self.inner.store.commit(batch).await.map(|_| ()).map_err(UniverseError::Store)
    }
}
