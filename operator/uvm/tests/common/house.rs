//! A universe on a store in memory, whose clock the test sets.

use std::sync::{
    Arc,
    atomic::{AtomicI64, AtomicU64, Ordering},
};

use async_trait::async_trait;
use batos_covenant::{ApplyCommand, Encoding, PrototypeDefinition, Reply, SendCommand, SlotDefinition, Wire, decode};
use batos_graph::{
    Batch, Committed, Durable, Expect, Key, ObjectId, Record, RedbStore, Snapshot, Store, StoreError, Versioned,
};
use batos_uvm::{
    image,
    universe::{
        Authority, Changes, Delivery, Image, ImageRow, Message, Opening, Restoring, Retention, Universe, UniverseError,
        Work,
    },
    vm::{Reads, Write},
};
use redb::{StorageBackend, backends::InMemoryBackend};

/// A store, and a clock that begins somewhere in 2027.
#[derive(Clone)]
pub struct House {
    pub store: Arc<dyn Store>,
    pub clock: Arc<AtomicU64>,
}

impl House {
    pub fn new() -> Self {
        let log = InMemoryBackend::new();
        // Memory does not grow where it is written, as files do.
        log.set_len(2 << 20).unwrap();
        let store = RedbStore::open_on(InMemoryBackend::new(), log, 1 << 20).unwrap();
        Self { store: Arc::new(store), clock: Arc::new(AtomicU64::new(1_800_000_000)) }
    }

    pub fn opening(&self, image: Image) -> Opening {
        let clock = self.clock.clone();
        Opening { image: Some(image), clock: Arc::new(move || clock.load(Ordering::SeqCst)), ..Opening::usual() }
    }

    pub async fn open(&self, image: Image) -> Result<Universe, UniverseError> {
        Universe::open_with("u", self.store.clone(), self.opening(image)).await
    }

    pub async fn keeping(&self, retention: Retention) -> Universe {
        let opening = Opening { retention, ..self.opening(Image::shipped().unwrap()) };
        Universe::open_with("u", self.store.clone(), opening).await.unwrap()
    }

    pub fn pass(&self, seconds: u64) {
        self.clock.fetch_add(seconds, Ordering::SeqCst);
    }

    /// All rows.
    pub async fn rows(&self) -> Vec<(Key, Versioned)> {
        let all = (Key(Vec::new()), Key(vec![0xff; 64]));
        self.store.scan(&all.0, &all.1, None, usize::MAX).await.unwrap()
    }
}

/// A store that takes some commits and then no more.
pub struct Flaky {
    pub inner: Arc<dyn Store>,
    pub left: AtomicI64,
}

#[async_trait]
impl Store for Flaky {
    async fn read(&self, keys: &[Key]) -> Result<Vec<Option<Versioned>>, StoreError> {
        self.inner.read(keys).await
    }

    async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        self.inner.snapshot().await
    }

    async fn scan(
        &self,
        start: &Key,
        end: &Key,
        at: Option<Snapshot>,
        limit: usize,
    ) -> Result<Vec<(Key, Versioned)>, StoreError> {
        self.inner.scan(start, end, at, limit).await
    }

    async fn commit(&self, batch: Batch) -> Result<Committed, StoreError> {
        match self.left.fetch_sub(1, Ordering::SeqCst) > 0 {
            true => self.inner.commit(batch).await,
            false => Err(StoreError::Unavailable("the power is gone".to_owned())),
        }
    }

    async fn place(&self, batch: Batch) -> Result<(Committed, Durable), StoreError> {
        let committed = self.commit(batch).await?;
        Ok((committed, Box::pin(std::future::ready(Ok(())))))
    }

    async fn restore(&self, rows: Vec<(Key, Versioned)>, still: Option<Expect>) -> Result<(), StoreError> {
        match self.left.fetch_sub(1, Ordering::SeqCst) > 0 {
            true => self.inner.restore(rows, still).await,
            false => Err(StoreError::Unavailable("the power is gone".to_owned())),
        }
    }

    async fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

pub async fn deliver(
    universe: &Universe,
    object: ObjectId,
    work: Work,
    id: Option<&str>,
) -> Result<Reply, UniverseError> {
    let message = Message {
        object,
        authority: Authority::Architect,
        sender: "test".to_owned(),
        id: id.map(str::to_owned),
        digest: [0; 32],
        encoding: Encoding::Json,
        work,
    };
    match universe.deliver(&message).await? {
        Delivery::Replied(reply) => Ok(decode(&reply).unwrap().0),
        Delivery::NotUnderstood(missing) => panic!("nobody understands {:?}", missing.selector),
    }
}

fn value(reply: Reply) -> Wire {
    match reply {
        Reply::Ok(reply) => reply.value,
        Reply::Error { error } => panic!("{error}"),
    }
}

pub async fn eval(universe: &Universe, source: &str) -> Wire {
    let work = Work::Eval { source: source.to_owned(), made: None };
    value(deliver(universe, image::GENESIS, work, None).await.unwrap())
}

pub async fn send(universe: &Universe, object: &str, selector: &str, arguments: Vec<Wire>, id: Option<&str>) -> Wire {
    let object = universe.resolve(object).await.unwrap();
    let send = SendCommand { selector: selector.to_owned(), arguments };
    value(deliver(universe, object, Work::Send { send, made: None }, id).await.unwrap())
}

pub async fn undo(universe: &Universe, object: &str, slot: &str) -> Result<Wire, UniverseError> {
    let object = universe.resolve(object).await?;
    Ok(value(deliver(universe, object, Work::Undo { slot: slot.to_owned() }, None).await?))
}

pub async fn create_method(universe: &Universe, object: &str, name: &str, source: &str) {
    let object = universe.resolve(object).await.unwrap();
    let work = Work::CreateMethod { name: name.to_owned(), source: source.to_owned() };
    value(deliver(universe, object, work, None).await.unwrap());
}

/// An image, whole.
pub async fn restore(store: &dyn Store, universe: &str, rows: &[ImageRow]) {
    let mut restoring = Restoring::begin(store, universe, "digest", None).await.unwrap().unwrap();
    for page in rows.chunks(500) {
        restoring.page(page.to_vec()).await.unwrap();
    }
    restoring.finish().await.unwrap();
}

/// A prototype with a data slot `n`.
pub async fn apply(universe: &Universe, name: &str, parents: &[&str]) {
    let slot =
        SlotDefinition { name: "n".to_owned(), value: Some(0.into()), method: None, intent: None, constant: false };
    let parents = parents.iter().map(|parent| (*parent).to_owned()).collect();
    let definition = PrototypeDefinition { parents, slots: vec![slot], ..PrototypeDefinition::default() };
    let apply = ApplyCommand { definition, uid: String::new(), generation: 0, term: 0, enforce: false };
    let work = Work::Apply { name: name.to_owned(), apply };
    value(deliver(universe, ObjectId::of_name(name), work, None).await.unwrap());
}

/// Changes an object past every rule.
pub async fn change(universe: &Universe, id: ObjectId, edit: impl FnOnce(&mut Record)) {
    let row = universe.store().read(&[universe.keys().head(id)]).await.unwrap().remove(0).unwrap();
    let mut record = Record::decode(&row.bytes).unwrap();
    edit(&mut record);
    let reads = Reads { objects: vec![(id, Some(row.rev))], ..Reads::default() };
    let write = Write { id, prev_rev: Some(row.rev), record, changed: Vec::new() };
    let changes = Changes { writes: vec![write], ..Changes::reading(reads) };
    universe.commit(universe.fresh_marker().unwrap(), Vec::new(), changes).await.unwrap();
}
