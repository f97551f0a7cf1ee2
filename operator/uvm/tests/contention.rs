//! A message that loses against others again and again is told against whom.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use async_trait::async_trait;
use batos_graph::{Batch, Committed, Durable, Expect, Key, ObjectId, Place, Snapshot, Store, StoreError, Versioned};
use batos_uvm::universe::{Message, Universe, UniverseError};
use common::universe::{apply, data, send, store};

/// Before each batch that changes the counter, another worker is faster.
struct Overtaken {
    store: Arc<dyn Store>,
    other: Universe,
    counter: ObjectId,
    round: AtomicU32,
}

#[async_trait]
impl Store for Overtaken {
    async fn read(&self, keys: &[Key]) -> Result<Vec<Option<Versioned>>, StoreError> {
        self.store.read(keys).await
    }

    async fn peek(&self, keys: &[Key]) -> Result<Vec<Option<Versioned>>, StoreError> {
        self.store.peek(keys).await
    }

    async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        self.store.snapshot().await
    }

    async fn scan(
        &self,
        start: &Key,
        end: &Key,
        at: Option<Snapshot>,
        limit: usize,
    ) -> Result<Vec<(Key, Versioned)>, StoreError> {
        self.store.scan(start, end, at, limit).await
    }

    async fn commit(&self, batch: Batch) -> Result<Committed, StoreError> {
        self.store.commit(batch).await
    }

    async fn place(&self, batch: Batch) -> Result<(Committed, Durable), StoreError> {
        if batch.put.iter().any(|put| Place::of(&put.key) == Some(Place::Head(self.counter))) {
            self.other
                .deliver(&count(self.counter, "rival", self.round.fetch_add(1, Ordering::Relaxed)))
                .await
                .unwrap();
        }
        self.store.place(batch).await
    }

    async fn restore(&self, rows: Vec<(Key, Versioned)>, still: Option<Expect>) -> Result<(), StoreError> {
        self.store.restore(rows, still).await
    }

    async fn broken(&self) -> StoreError {
        self.store.broken().await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.store.close().await
    }
}

fn count(object: ObjectId, sender: &str, n: u32) -> Message {
    send(object, sender, "count:", &[n.into()])
}

#[tokio::test]
async fn the_error_names_object_slot_and_the_other_message() {
    let (_folder, store) = store();
    let other = Universe::open("u", store.clone()).await.unwrap();
    let counter = ObjectId::of_name("counter");
    apply(&other, "counter", vec![data("count", 0.into())]).await.unwrap();

    let overtaken = Overtaken { store, other: other.clone(), counter, round: AtomicU32::new(1) };
    let slow = Universe::open("u", Arc::new(overtaken)).await.unwrap();
    let error = slow.deliver(&count(counter, "loser", 0)).await.unwrap_err();
    assert!(matches!(error, UniverseError::Contended { attempts: 24, .. }), "{error}");
    let text = error.to_string();
    for part in ["slot \"count\" of counter", "send count: from rival", "24 times"] {
        assert!(text.contains(part), "{text}");
    }
}
