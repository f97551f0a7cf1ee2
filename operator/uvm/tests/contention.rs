//! A message that loses against others again and again is told against whom.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use async_trait::async_trait;
use batos_covenant::{ApplyCommand, Encoding, PrototypeDefinition, SendCommand, SlotDefinition};
use batos_graph::{Batch, Committed, Durable, Key, ObjectId, Place, RedbStore, Snapshot, Store, StoreError, Versioned};
use batos_uvm::universe::{Authority, Message, Universe, UniverseError, Work};

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

    async fn restore(&self, rows: Vec<(Key, Versioned)>) -> Result<(), StoreError> {
        self.store.restore(rows).await
    }

    async fn broken(&self) -> StoreError {
        self.store.broken().await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.store.close().await
    }
}

fn message(object: ObjectId, sender: &str, work: Work) -> Message {
    Message {
        object,
        authority: Authority::Architect,
        sender: sender.to_owned(),
        id: None,
        digest: [0; 32],
        encoding: Encoding::Json,
        work,
    }
}

fn count(object: ObjectId, sender: &str, n: u32) -> Message {
    let send = SendCommand { selector: "count:".to_owned(), arguments: vec![n.into()] };
    message(object, sender, Work::Send { send, made: None })
}

#[tokio::test]
async fn the_error_names_object_slot_and_the_other_message() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(RedbStore::open(&folder.path().join("universe.redb")).unwrap());
    let other = Universe::open("u", store.clone()).await.unwrap();
    let counter = ObjectId::of_name("counter");
    let slot = SlotDefinition { name: "count".to_owned(), value: Some(0.into()), constant: false, method: None };
    let definition = PrototypeDefinition { slots: vec![slot], ..PrototypeDefinition::default() };
    let apply = ApplyCommand { definition, uid: String::new(), generation: 1, term: 1 };
    other.deliver(&message(counter, "", Work::Apply { name: "counter".to_owned(), apply })).await.unwrap();

    let overtaken = Overtaken { store, other: other.clone(), counter, round: AtomicU32::new(1) };
    let slow = Universe::open("u", Arc::new(overtaken)).await.unwrap();
    let error = slow.deliver(&count(counter, "loser", 0)).await.unwrap_err();
    assert!(matches!(error, UniverseError::Contended { attempts: 24, .. }), "{error}");
    let text = error.to_string();
    for part in ["slot \"count\" of counter", "send count: from rival", "24 times"] {
        assert!(text.contains(part), "{text}");
    }
}
