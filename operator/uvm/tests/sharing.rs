//! Messages that share a commit: each has its own effect, reply, history and event, all or none.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use async_trait::async_trait;
use batos_covenant::{Encoding, Wire};
use batos_graph::{Batch, Committed, Expect, Key, ObjectId, Place, Snapshot, Store, StoreError, Versioned};
use batos_uvm::universe::{Authority, Message, Universe, UniverseError, Work, check};
use common::universe::{answer, apply, data, send, store};
use serde_json::json;
use tokio::sync::Semaphore;

/// A store whose commits take as long as is wanted, as one across a network may.
struct Far {
    store: Arc<dyn Store>,
    /// Commits that may happen.
    gate: Semaphore,
    commits: AtomicUsize,
    /// Whether the next commit fails without having happened.
    fails: AtomicBool,
}

impl Far {
    fn new(store: Arc<dyn Store>) -> Arc<Self> {
        let gate = Semaphore::new(Semaphore::MAX_PERMITS);
        Arc::new(Self { store, gate, commits: AtomicUsize::new(0), fails: AtomicBool::new(false) })
    }
}

#[async_trait]
impl Store for Far {
    async fn read(&self, keys: &[Key]) -> Result<Vec<Option<Versioned>>, StoreError> {
        self.store.read(keys).await
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
        self.commits.fetch_add(1, Ordering::SeqCst);
        self.gate.acquire().await.unwrap().forget();
        if self.fails.swap(false, Ordering::SeqCst) {
            return Err(StoreError::Unavailable("nobody answers".to_owned()));
        }
        self.store.commit(batch).await
    }

    async fn restore(&self, rows: Vec<(Key, Versioned)>, still: Option<Expect>) -> Result<(), StoreError> {
        self.store.restore(rows, still).await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.store.close().await
    }
}

struct Setting {
    far: Arc<Far>,
    universe: Universe,
    /// Another worker, on the same rows.
    rival: Universe,
    counter: ObjectId,
    _folder: tempfile::TempDir,
}

const ADD: &str = "add: n = ( count: count + n. ^count )";
/// Leaves a message for itself.
const NOTE: &str = "note: n = ( self async add: n. ^n )";
/// Makes an object and gives away some.
const SPLIT: &str = "split = ( | half | half := clone. half count: 1. count: count - 1. last: half. ^count )";

async fn place() -> Setting {
    let (folder, store) = store();
    let rival = Universe::open("u", store.clone()).await.unwrap();
    let counter = ObjectId::of_name("counter");
    apply(&rival, "counter", vec![data("count", 0.into()), data("last", json!(null))]).await.unwrap();
    for (name, source) in [("add:", ADD), ("note:", NOTE), ("split", SPLIT)] {
        let work = Work::CreateMethod { name: name.to_owned(), source: source.to_owned() };
        answer(&rival, &common::universe::message(counter, "", work)).await.unwrap().unwrap();
    }
    let far = Far::new(store);
    let universe = Universe::open("u", far.clone()).await.unwrap();
    far.commits.store(0, Ordering::SeqCst);
    Setting { far, universe, rival, counter, _folder: folder }
}

fn message(object: ObjectId, id: &str, selector: &str, arguments: &[Wire]) -> Message {
    let authority = Authority::Sender;
    Message {
        id: Some(id.to_owned()),
        authority,
        encoding: Encoding::Json,
        ..send(object, "test", selector, arguments)
    }
}

impl Setting {
    /// Sends all of them at once, while the first is being committed; `meanwhile` is done before that ends.
    async fn at_once(&self, messages: &[Message], meanwhile: impl Future<Output = ()>) -> Vec<Result<Wire, String>> {
        let closed = self.far.gate.forget_permits(Semaphore::MAX_PERMITS);
        let deliver = |message: &Message| {
            let (universe, message) = (self.universe.clone(), message.clone());
            tokio::spawn(async move { answer(&universe, &message).await.map(Result::unwrap) })
        };
        let begun: Vec<_> = messages.iter().map(deliver).collect();
        while self.far.commits.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        meanwhile.await;
        self.far.gate.add_permits(closed);
        let mut answers = Vec::new();
        for task in begun {
            answers.push(task.await.unwrap());
        }
        answers
    }

    async fn rows(&self, wanted: impl Fn(&Place) -> bool) -> usize {
        let all = (Key(Vec::new()), Key(vec![0xff; 64]));
        let rows = self.far.store.scan(&all.0, &all.1, None, usize::MAX).await.unwrap();
        rows.iter().filter(|(key, _)| Place::of(key).is_some_and(|place| wanted(&place))).count()
    }

    async fn is_sound(&self) {
        let found = check(&*self.far.store, "u", |_| {}).await.unwrap();
        assert_eq!(found.problems, Vec::<String>::new());
    }
}

fn adds(counter: ObjectId, n: usize) -> Vec<Message> {
    (0..n).map(|n| message(counter, &format!("add {n}"), "add:", &[1.into()])).collect()
}

#[tokio::test]
async fn those_that_wait_share_the_next_commit() {
    let place = place().await;
    let messages = adds(place.counter, 40);
    let before = place.rows(|row| matches!(row, Place::History(id, _) if *id == place.counter)).await;
    let answers = place.at_once(&messages, async {}).await;
    let mut found: Vec<i64> = answers.iter().map(|answer| answer.as_ref().unwrap().as_i64().unwrap()).collect();
    found.sort_unstable();
    assert_eq!(found, (1..=40).collect::<Vec<_>>(), "each saw those before it");
    assert_eq!(place.far.commits.load(Ordering::SeqCst), 2);
    // Each has its own revision, event, and stored reply.
    let history = place.rows(|row| matches!(row, Place::History(id, _) if *id == place.counter)).await;
    assert_eq!(history, before + 40);
    for (message, answer) in messages.iter().zip(&answers) {
        assert_eq!(told(&place.rival, message).await, *answer, "also from another worker");
    }
    assert_eq!(place.far.commits.load(Ordering::SeqCst), 2, "a repeat writes nothing");
    let next = message(place.counter, "next", "add:", &[0.into()]);
    assert_eq!(told(&place.rival, &next).await, Ok(json!(40)));
    place.is_sound().await;
}

async fn told(universe: &Universe, message: &Message) -> Result<Wire, String> {
    answer(universe, message).await.map(Result::unwrap)
}

#[tokio::test]
async fn what_loses_against_another_worker_runs_again_as_a_whole() {
    let place = place().await;
    let messages = adds(place.counter, 20);
    let rival = async {
        let other = message(place.counter, "rival", "add:", &[1000.into()]);
        assert_eq!(told(&place.rival, &other).await, Ok(json!(1000)));
    };
    let answers = place.at_once(&messages, rival).await;
    let mut found: Vec<i64> = answers.iter().map(|answer| answer.as_ref().unwrap().as_i64().unwrap()).collect();
    found.sort_unstable();
    assert_eq!(found, (1001..=1020).collect::<Vec<_>>());
    place.is_sound().await;
}

#[tokio::test]
async fn repeats_and_other_kinds_of_messages_find_their_place() {
    let place = place().await;
    let mut messages = adds(place.counter, 6);
    // The same message again, while the first waits.
    messages.extend(adds(place.counter, 3));
    messages.extend((0..4).map(|n| message(place.counter, &format!("note {n}"), "note:", &[n.into()])));
    messages.extend((0..3).map(|n| message(place.counter, &format!("split {n}"), "split", &[])));
    // Reads, with and without an id, and an error.
    messages.push(message(place.counter, "read", "count", &[]));
    messages.push(Message { id: None, ..message(place.counter, "", "count", &[]) });
    messages.push(message(place.counter, "wrong", "add:", &["x".into()]));
    let answers = place.at_once(&messages, async {}).await;
    for (n, repeat) in answers[6..9].iter().enumerate() {
        assert_eq!(*repeat, answers[n], "one effect");
    }
    assert_eq!(answers[9..13], [Ok(json!(0)), Ok(json!(1)), Ok(json!(2)), Ok(json!(3))]);
    assert_eq!(answers[13..16], [Ok(json!(5)), Ok(json!(4)), Ok(json!(3))]);
    assert_eq!((&answers[16], &answers[17]), (&Ok(json!(3)), &Ok(json!(3))));
    assert!(answers[18].is_err());
    assert_eq!(place.rows(|row| matches!(row, Place::Post { .. })).await, 4);
    assert!(place.far.commits.load(Ordering::SeqCst) <= 6, "{:?}", place.far.commits);
    place.is_sound().await;
}

#[tokio::test]
async fn a_commit_that_fails_fails_for_all_and_leaves_nothing() {
    let place = place().await;
    let messages = adds(place.counter, 5);
    let fails = async { place.far.fails.store(true, Ordering::SeqCst) };
    let answers = place.at_once(&messages, fails).await;
    // The first one was alone in the commit that failed.
    assert!(answers[0].as_ref().unwrap_err().contains("nobody answers"), "{answers:?}");
    assert_eq!(answers[1..], [Ok(json!(1)), Ok(json!(2)), Ok(json!(3)), Ok(json!(4))]);
    assert_eq!(told(&place.universe, &messages[0]).await, Ok(json!(5)));
    // Whoever gave up before it began is not carried out.
    let closed = place.far.gate.forget_permits(Semaphore::MAX_PERMITS);
    let begun = place.far.commits.load(Ordering::SeqCst);
    let first = tokio::spawn({
        let (universe, message) = (place.universe.clone(), message(place.counter, "first", "add:", &[1.into()]));
        async move { told(&universe, &message).await }
    });
    while place.far.commits.load(Ordering::SeqCst) == begun {
        tokio::task::yield_now().await;
    }
    let given_up = message(place.counter, "given up", "add:", &[500.into()]);
    let gave_up = tokio::time::timeout(std::time::Duration::ZERO, place.universe.deliver(&given_up)).await;
    assert!(gave_up.is_err());
    place.far.gate.add_permits(closed);
    assert_eq!(first.await.unwrap(), Ok(json!(6)));
    let last = message(place.counter, "last", "add:", &[0.into()]);
    assert_eq!(told(&place.universe, &last).await, Ok(json!(6)));
    place.is_sound().await;
}

/// Two workers, one that shares and one that does not, and every kind of message at random: nothing is lost or doubled.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_workers_and_many_messages_come_to_the_same() {
    let place = Arc::new(place().await);
    let mut tasks = Vec::new();
    for sender in 0..16_i64 {
        let place = place.clone();
        tasks.push(tokio::spawn(async move {
            let mut total = 0;
            for n in 0..25_i64 {
                let amount = (sender * 31 + n * 7) % 11;
                let message = message(place.counter, &format!("{sender} {n}"), "add:", &[amount.into()]);
                let by = if (sender + n) % 5 == 0 { &place.rival } else { &place.universe };
                // Who hears that others were faster asks again.
                let again = |error: &UniverseError| matches!(error, UniverseError::Contended { .. });
                let mut reply = by.deliver(&message).await;
                while reply.as_ref().is_err_and(again) {
                    reply = by.deliver(&message).await;
                }
                reply.unwrap();
                // A repeat, by the other one.
                let other = if (sender + n) % 2 == 0 { &place.rival } else { &place.universe };
                other.deliver(&message).await.unwrap();
                total += amount;
            }
            total
        }));
    }
    let mut total = 0;
    for task in tasks {
        total += task.await.unwrap();
    }
    let read = message(place.counter, "end", "count", &[]);
    assert_eq!(told(&place.universe, &read).await, Ok(json!(total)));
    assert_eq!(place.rows(|row| matches!(row, Place::Inbox(id) if *id == place.counter)).await, 16 * 25 + 1);
    place.is_sound().await;
}
