//! What nothing reaches goes, what something reaches stays, and who refers to whom is known.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use batos_covenant::{ErrorKind, Reply, SendCommand, Wire};
use batos_graph::{Batch, Key, ObjectId, Place, Record};
use batos_uvm::universe::{Age, Retention, Universe, UniverseError, Work, check};
use common::house::{House, apply, deliver, eval, send, undo};
use proptest::prelude::*;
use serde_json::json;

const HOUR: u64 = 60 * 60;

/// Objects stay an hour after nothing reaches them, overwritten data `history` seconds.
fn keeping(history: u64) -> Retention {
    let age = |seconds| Age::For(Duration::from_secs(seconds));
    Retention { history: age(history), replies: age(HOUR), unreached: age(HOUR) }
}

async fn step(universe: &Universe) -> (usize, Duration) {
    let collected = universe.collect(|_| Vec::new()).await.unwrap();
    (collected.objects, collected.rest)
}

/// Two passes, more than an hour apart; answers how many objects went.
async fn collect(house: &House, universe: &Universe) -> usize {
    let mut objects = 0;
    for _ in 0..2 {
        house.pass(HOUR + 1);
        while universe.keep_house().await.unwrap().rest.is_none() {}
        loop {
            let (gone, rest) = step(universe).await;
            objects += gone;
            if !rest.is_zero() {
                break;
            }
        }
    }
    objects
}

fn id(wire: &Wire) -> ObjectId {
    wire["$ref"].as_str().unwrap().parse().unwrap()
}

fn reference(id: ObjectId) -> Wire {
    json!({ "$ref": id.to_string() })
}

async fn exists(universe: &Universe, id: ObjectId) -> bool {
    universe.store().read(&[universe.keys().head(id)]).await.unwrap()[0].is_some()
}

async fn rows_of(house: &House, id: ObjectId) -> usize {
    let of = |place: &Place| match place {
        Place::Head(of) | Place::History(of, _) | Place::Sent(of) | Place::Unreached(of) => *of == id,
        Place::Holder { id: of, holder } => *of == id || *holder == id,
        _ => false,
    };
    house.rows().await.iter().filter(|(key, _)| Place::of(key).as_ref().is_some_and(of)).count()
}

async fn assert_sound(house: &House) {
    let problems = check(house.store.as_ref(), "u", |_| {}).await.unwrap().problems;
    assert!(problems.is_empty(), "{problems:?}");
}

/// A message with an object that is named by its id.
async fn give(universe: &Universe, to: ObjectId, selector: &str, what: Wire) -> Result<Wire, UniverseError> {
    let send = SendCommand { selector: selector.to_owned(), arguments: vec![what] };
    match deliver(universe, to, Work::Send { send, made: None }, None).await? {
        Reply::Ok(reply) => Ok(reply.value),
        Reply::Error { error } => panic!("{error}"),
    }
}

#[tokio::test]
async fn what_nothing_reaches_goes_after_its_time_with_all_that_it_was() {
    let house = House::new();
    let universe = house.keeping(keeping(HOUR)).await;
    apply(&universe, "shelf", &[]).await;
    let pair = "| a b | a := (| parent* = Object. to <- nil |). b := (| parent* = Object. to <- nil |).";
    let a = id(&eval(&universe, &format!("{pair} a to: b. b to: a. shelf n: a. ^a")).await);
    let b = id(&eval(&universe, "shelf n to").await);

    assert_eq!(collect(&house, &universe).await, 0);
    assert!(exists(&universe, a).await && exists(&universe, b).await, "a name leads to them");
    eval(&universe, "shelf n: nil").await;
    house.pass(HOUR / 2);
    assert_eq!(step(&universe).await.0, 0);
    assert!(exists(&universe, a).await, "an undo would bring it back");
    assert_eq!(collect(&house, &universe).await, 2, "each holds the other, and nothing holds them");
    assert_eq!((rows_of(&house, a).await, rows_of(&house, b).await), (0, 0));
    assert_sound(&house).await;
}

#[tokio::test]
async fn what_waits_keeps_what_it_is_about() {
    let house = House::new();
    let universe = house.keeping(keeping(HOUR)).await;
    apply(&universe, "shelf", &[]).await;
    let timed = "| a | a := (| parent* = Object. go: x = ( x ) |). a after: 1000000000 send: #go: with: a. ^a";
    let a = id(&eval(&universe, timed).await);
    assert_eq!(collect(&house, &universe).await, 0);
    assert!(exists(&universe, a).await);
    assert_sound(&house).await;
}

#[tokio::test]
async fn an_undo_finds_what_it_puts_back_as_long_as_history_is_kept() {
    let house = House::new();
    let universe = house.keeping(keeping(100 * HOUR)).await;
    apply(&universe, "shelf", &[]).await;
    let a = id(&eval(&universe, "shelf n: (| parent* = Object. watts <- 40 |). ^shelf n").await);
    eval(&universe, "shelf n: nil").await;
    assert_eq!(collect(&house, &universe).await, 0);
    undo(&universe, "shelf", "n").await.unwrap();
    assert_eq!(eval(&universe, "shelf n watts").await, json!(40));
    assert_eq!(collect(&house, &universe).await, 0);
    assert!(exists(&universe, a).await);
}

#[tokio::test]
async fn whoever_refers_again_in_time_keeps_it_and_what_it_leads_to() {
    let house = House::new();
    let universe = house.keeping(keeping(HOUR)).await;
    apply(&universe, "shelf", &[]).await;
    let shelf = universe.resolve("shelf").await.unwrap();
    let a = id(&eval(&universe, "^(| parent* = Object. to = (| parent* = Object. watts <- 40 |) |)").await);
    // Answers are stored when something leads to them; this one was new and is in the store, held by nobody.
    assert!(exists(&universe, a).await);
    house.pass(HOUR);
    step(&universe).await;
    house.pass(HOUR + 1);
    give(&universe, shelf, "n:", reference(a)).await.unwrap();
    assert_eq!(collect(&house, &universe).await, 0);
    assert_eq!(eval(&universe, "shelf n to watts").await, json!(40));
    assert_sound(&house).await;
}

#[tokio::test]
async fn who_refers_once_it_is_decided_hears_that_it_is_gone() {
    let house = House::new();
    let universe = house.keeping(keeping(HOUR)).await;
    apply(&universe, "shelf", &[]).await;
    let shelf = universe.resolve("shelf").await.unwrap();
    let a = id(&eval(&universe, "^(| parent* = Object. to = (| parent* = Object. watts <- 40 |) |)").await);
    let inner = universe.holders(a).await.unwrap();
    assert!(inner.is_empty());
    house.pass(HOUR);
    step(&universe).await;
    house.pass(HOUR + 1);
    assert_eq!(step(&universe).await, (0, Duration::ZERO), "condemned, and the deletion comes next");
    assert!(exists(&universe, a).await);
    let error = give(&universe, shelf, "n:", reference(a)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSuchObject, "{error}");
    assert!(error.to_string().contains(&a.to_string()), "{error}");
    assert_eq!(step(&universe).await.0, 2);
    let error = give(&universe, shelf, "n:", reference(a)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSuchObject, "{error}");
    assert_sound(&house).await;
}

#[tokio::test]
async fn a_large_collection_goes_with_its_buckets_and_tells_whom_it_holds() {
    let house = House::new();
    let universe = house.keeping(keeping(HOUR)).await;
    apply(&universe, "shelf", &[]).await;
    let fill = "| all | all := OrderedCollection new.
        1 to: 2000 do: [ :i | all add: (| parent* = Object. number <- nil |) ]. shelf n: all. ^nil";
    eval(&universe, fill).await;
    let before = house.rows().await.len();
    assert!(before > 4000, "objects, and rows that say who holds them");
    // Through buckets, and an OrderedCollection's own array.
    let held = "((Mirror on: (shelf n at: 1000)) holders) collect: [ :array | array size >= 2000 ]";
    assert_eq!(eval(&universe, held).await, json!([true]));
    let shelves = "((Mirror on: shelf n) holders) collect: [ :each | each == shelf ]";
    assert_eq!(eval(&universe, shelves).await, json!([true]));
    assert_eq!(collect(&house, &universe).await, 0);
    assert_sound(&house).await;

    eval(&universe, "shelf n: nil").await;
    assert!(collect(&house, &universe).await > 2000);
    let left = house.rows().await.len();
    assert!(left < before - 3900, "{before} rows became {left}");
    assert_sound(&house).await;
}

#[tokio::test]
async fn a_universe_of_an_older_batos_gets_its_rows_of_who_refers_to_whom() {
    let house = House::new();
    let universe = house.keeping(keeping(HOUR)).await;
    apply(&universe, "shelf", &[]).await;
    eval(&universe, "shelf n: (| parent* = Object. to <- nil |). shelf n to: shelf").await;
    let wanted = eval(&universe, "(Mirror on: shelf) holders").await;
    assert_eq!(wanted.as_array().unwrap().len(), 1);

    let is_new = |key: &Key| matches!(Place::of(key), Some(Place::Holder { .. } | Place::Collection));
    let delete = house.rows().await.into_iter().map(|(key, _)| key).filter(is_new).collect();
    let batch = Batch {
        marker: universe.fresh_marker().unwrap(),
        marker_bytes: Vec::new(),
        expect: Vec::new(),
        lock: Vec::new(),
        put: Vec::new(),
        delete,
        passes: Default::default(),
    };
    house.store.commit(batch).await.unwrap();
    let universe = house.keeping(keeping(HOUR)).await;
    let work = Work::Eval { source: "(Mirror on: shelf) holders".to_owned(), made: None };
    let error = deliver(&universe, ObjectId::well_known(1), work, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    step(&universe).await;
    assert_eq!(eval(&universe, "(Mirror on: shelf) holders").await, wanted);
    assert_sound(&house).await;
}

#[derive(Debug, Clone)]
enum Op {
    /// A new object in a slot of one that is known.
    Make(usize, bool),
    Link(usize, bool, usize),
    Unlink(usize, bool),
    /// More than an hour with a step of collection at its end, after housekeeping.
    Hour,
    Step,
}

fn op() -> impl Strategy<Value = Op> {
    let any_object = 0..12_usize;
    prop_oneof![
        3 => (any_object.clone(), any::<bool>()).prop_map(|(at, slot)| Op::Make(at, slot)),
        3 => (any_object.clone(), any::<bool>(), any_object.clone()).prop_map(|(at, slot, to)| Op::Link(at, slot, to)),
        3 => (any_object, any::<bool>()).prop_map(|(at, slot)| Op::Unlink(at, slot)),
        4 => Just(Op::Hour),
        1 => Just(Op::Step),
    ]
}

/// What should be there: two objects with names, others with two slots each.
#[derive(Default)]
struct Model {
    objects: Vec<ObjectId>,
    links: BTreeMap<(ObjectId, bool), ObjectId>,
}

impl Model {
    fn at(&self, place: usize) -> ObjectId {
        self.objects[place % self.objects.len()]
    }

    fn reached(&self) -> BTreeSet<ObjectId> {
        let mut reached = BTreeSet::new();
        let mut waiting = self.objects[..2].to_vec();
        while let Some(id) = waiting.pop() {
            if reached.insert(id) {
                waiting.extend([false, true].iter().filter_map(|slot| self.links.get(&(id, *slot))));
            }
        }
        reached
    }
}

async fn run(ops: Vec<Op>) {
    let house = House::new();
    let universe = house.keeping(keeping(1)).await;
    let mut model = Model::default();
    for name in ["shelf", "table"] {
        apply(&universe, name, &[]).await;
        let two = format!("(Mirror on: {name}) addAssignable: #a value: nil; addAssignable: #b value: nil. ^{name}");
        model.objects.push(id(&eval(&universe, &two).await));
    }
    let selector = |slot: bool| if slot { "b:" } else { "a:" };
    for op in ops {
        match op.clone() {
            Op::Make(at, slot) => {
                let holder = model.at(at);
                let source = format!(
                    "| new | new := (| parent* = Object. a <- nil. b <- nil |). self {} new. ^new",
                    selector(slot)
                );
                match deliver(&universe, holder, Work::Eval { source, made: None }, None).await {
                    Ok(Reply::Ok(reply)) => {
                        let new = id(&reply.value);
                        model.objects.push(new);
                        model.links.insert((holder, slot), new);
                    }
                    Ok(Reply::Error { error }) => panic!("{op:?}: {error}"),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::NoSuchObject, "{op:?}: {error}"),
                }
            }
            Op::Link(at, slot, to) => {
                let (holder, target) = (model.at(at), model.at(to));
                match give(&universe, holder, selector(slot), reference(target)).await {
                    Ok(_) => drop(model.links.insert((holder, slot), target)),
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::NoSuchObject, "{op:?}: {error}");
                        let reached = model.reached();
                        assert!(!reached.contains(&holder) || !reached.contains(&target), "{op:?}: {error}");
                    }
                }
            }
            Op::Unlink(at, slot) => {
                let holder = model.at(at);
                match give(&universe, holder, selector(slot), Wire::Null).await {
                    Ok(_) => drop(model.links.remove(&(holder, slot))),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::NoSuchObject, "{op:?}: {error}"),
                }
            }
            Op::Hour => {
                house.pass(HOUR + 1);
                universe.keep_house().await.unwrap();
                step(&universe).await;
            }
            Op::Step => drop(step(&universe).await),
        }
        assert_sound(&house).await;
        for id in model.reached() {
            assert!(exists(&universe, id).await, "{op:?}: {id} is reached and gone");
        }
    }
    // Once for what is overwritten, once for what only that held.
    collect(&house, &universe).await;
    collect(&house, &universe).await;
    assert_sound(&house).await;
    let ours = |(key, row): &(Key, batos_graph::Versioned)| match Place::of(key) {
        Some(Place::Head(id)) if !id.is_well_known() => {
            Record::decode(&row.bytes).unwrap().slot("a").is_some().then_some(id)
        }
        _ => None,
    };
    let there: BTreeSet<ObjectId> = house.rows().await.iter().filter_map(ours).collect();
    assert_eq!(there, model.reached());
    assert_eq!(send(&universe, "shelf", "n", vec![], None).await, 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn exactly_what_is_reached_is_there(ops in prop::collection::vec(op(), 1..50)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run(ops));
    }
}
