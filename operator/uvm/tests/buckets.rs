//! Large collections in a universe on a file: what a turn writes, how they are shown, checked, exported, brought back.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeMap;

use batos_covenant::{FullState, GetFullStateCommand, Wire};
use batos_graph::{
    Batch, Expect, KeySpace, ObjectId, Past, Payload, Place, Put, Record, Store, Value,
    bucket::{BigArray, Content, MAX_HEIGHT, Tree},
};
use batos_uvm::universe::{Universe, Work, check};
use common::house::restore;
use common::universe::{answer, apply, data, message, store};
use serde_json::json;

const SIZE: usize = 30_000;

fn holder() -> ObjectId {
    ObjectId::of_name("holder")
}

async fn eval(universe: &Universe, source: &str) -> Result<Wire, String> {
    let work = Work::Eval { source: source.to_owned(), made: None };
    answer(universe, &message(holder(), "", work)).await.map(|answer| answer.unwrap())
}

/// A universe whose object `holder` has a dictionary, a list and a set of so many elements, made over several turns.
async fn filled(store: &std::sync::Arc<dyn Store>) -> Universe {
    let universe = Universe::open("one", store.clone()).await.unwrap();
    let slots = ["dictionary", "list", "set"].map(|name| data(name, Wire::Null)).to_vec();
    apply(&universe, "holder", slots).await.unwrap();
    eval(&universe, "dictionary: Dictionary new. list: OrderedCollection new. set: Set new. nil").await.unwrap();
    for start in (0..SIZE).step_by(5000) {
        let source = format!(
            "{} to: {} do: [ :i | dictionary at: i * 7919 put: i printString. list add: i. set add: i ]. nil",
            start + 1,
            start + 5000
        );
        eval(&universe, &source).await.unwrap();
    }
    universe
}

/// Heads of all objects: revision and record.
async fn heads(store: &dyn Store) -> BTreeMap<ObjectId, (u64, Record)> {
    let (mut start, end) = KeySpace::new("one").range();
    let mut heads = BTreeMap::new();
    loop {
        let rows = store.scan(&start, &end, None, 1000).await.unwrap();
        for (key, row) in &rows {
            match Place::of(key) {
                Some(Place::Head(id)) => drop(heads.insert(id, (row.rev, Record::decode(&row.bytes).unwrap()))),
                Some(Place::History(id, _)) => {
                    assert!(!Past::decode(&row.bytes).unwrap().record.is_bucket(), "bucket {id} has a history");
                }
                Some(Place::Outbox(id, _)) => {
                    assert!(!heads.get(&id).is_some_and(|(_, record)| record.is_bucket()), "an event of bucket {id}");
                }
                _ => {}
            }
        }
        match rows.last() {
            Some((last, _)) if rows.len() == 1000 => start = last.successor(),
            _ => return heads,
        }
    }
}

#[tokio::test]
async fn a_turn_writes_the_way_to_what_it_changes() {
    let (_folder, store) = store();
    let universe = filled(&store).await;
    let mut before = heads(&*store).await;
    // Nothing is cached any more.
    let universe_again = Universe::open("one", store.clone()).await.unwrap();
    drop(universe);
    for (source, most) in [
        // The collection itself and one leaf.
        ("dictionary at: 7919 * 12345 put: 'other'. dictionary size", 2),
        ("list at: 12345 put: 0. list size", 2),
        // With the branches above, which count; a full leaf is cut, and a full branch.
        ("dictionary at: -1 put: 'new'. dictionary size", 1 + 2 + 4),
        ("list removeFirst. list size", 1 + 2),
        ("list add: 5 beforeIndex: 7000. list size", 1 + 4),
        ("set remove: 77. set size", 1 + 2 + 2),
    ] {
        let size = eval(&universe_again, source).await.unwrap();
        assert!(size.as_u64().unwrap().abs_diff(SIZE as u64) <= 1, "{source}: {size}");
        let now = heads(&*store).await;
        let changed = now.iter().filter(|(id, (rev, _))| before.get(id).is_none_or(|(old, _)| old != rev)).count();
        assert!((1..=most).contains(&changed), "{source} writes {changed} objects");
        let bytes: usize = now
            .iter()
            .filter(|(id, (rev, _))| before.get(id).is_none_or(|(old, _)| old != rev))
            .map(|(_, (_, record))| record.encode().unwrap().len())
            .sum();
        assert!(bytes < 8192, "{source} writes {bytes} bytes");
        before = now;
    }
    let problems = check(&*store, "one", |_| {}).await.unwrap().problems;
    assert!(problems.is_empty(), "{problems:?}");
}

#[tokio::test]
async fn states_show_the_first_elements() {
    let (_folder, store) = store();
    let universe = filled(&store).await;
    for (slot, first) in [("list", json!(1)), ("set", json!([1, null])), ("dictionary", json!([7919, "1"]))] {
        let id = eval(&universe, slot).await.unwrap()["$ref"].as_str().unwrap().parse().unwrap();
        let state = universe.full_state(id, &GetFullStateCommand::default()).await.unwrap().value;
        let state: FullState = serde_json::from_value(state).unwrap();
        assert_eq!((state.size, state.next), (Some(SIZE as u64), None));
        let elements = state.elements.unwrap();
        assert!(elements[0] == first && elements.len() < 100, "{slot}: {elements:?}");
    }
}

#[tokio::test]
async fn an_image_holds_them() {
    let (_folder, store) = store();
    let universe = filled(&store).await;
    let (mut at, mut after, mut rows) = (None, None, Vec::new());
    loop {
        let (moment, page, next) = universe.export(at, after.as_deref()).await.unwrap();
        rows.extend(page);
        (at, after) = (Some(moment), next);
        if after.is_none() {
            break;
        }
    }
    restore(&*store, "two", &rows).await;
    let problems = check(&*store, "two", |_| {}).await.unwrap().problems;
    assert!(problems.is_empty(), "{problems:?}");
    let other = Universe::open("two", store.clone()).await.unwrap();
    eval(&other, "dictionary removeKey: 7919").await.unwrap();
    assert_eq!(eval(&other, "{dictionary size. list last. set size}").await.unwrap(), json!([SIZE - 1, SIZE, SIZE]));
    assert_eq!(eval(&universe, "{dictionary size. list last. set size}").await.unwrap(), json!([SIZE, SIZE, SIZE]));
}

#[tokio::test]
async fn undo_brings_a_collection_back_to_its_slot() {
    let (_folder, store) = store();
    let universe = filled(&store).await;
    eval(&universe, "list at: 1 put: #kept. list: list copy. list at: 1 put: #copied. list at: 2 put: #copied")
        .await
        .unwrap();
    let undo = Work::Undo { slot: "list".to_owned() };
    answer(&universe, &message(holder(), "", undo)).await.unwrap().unwrap();
    assert_eq!(eval(&universe, "list copyFrom: 1 to: 3").await.unwrap(), json!(["kept", 2, 3]));
    let problems = check(&*store, "one", |_| {}).await.unwrap().problems;
    assert!(problems.is_empty(), "{problems:?}");
}

/// A branch that holds itself, below the elements of a list.
#[tokio::test]
async fn a_circle_of_buckets_is_told() {
    let (_folder, store) = store();
    drop(filled(&store).await);
    let heads = heads(&*store).await;
    let list = heads.values().find_map(|(_, record)| match &record.payload {
        Payload::BigArray(array) => array.elements.top[0].bucket.clone(),
        _ => None,
    });
    let Some(Value::Ref(branch)) = list else { panic!("no list in buckets") };
    let (rev, mut record) = heads[&branch].clone();
    let Payload::Bucket(bucket) = &mut record.payload else { panic!("no bucket") };
    let Content::Branches(children) = &mut bucket.content else { panic!("no branch") };
    children[0].bucket = Some(Value::Ref(branch));
    let key = KeySpace::new("one").head(branch);
    let batch = Batch {
        marker: KeySpace::new("one").marker([1; 16]),
        marker_bytes: Vec::new(),
        expect: vec![Expect { key: key.clone(), rev: Some(rev) }],
        lock: Vec::new(),
        put: vec![Put { key, bytes: record.encode().unwrap() }],
        delete: Vec::new(),
        passes: Default::default(),
    };
    store.commit(batch).await.unwrap();
    let problems = check(&*store, "one", |_| {}).await.unwrap().problems;
    assert!(problems.iter().any(|problem| problem.contains(&branch.to_string())), "{problems:?}");
    let universe = Universe::open("one", store.clone()).await.unwrap();
    for source in ["list at: 1", "list add: 1 beforeIndex: 1", "list indexOf: -1"] {
        let error = eval(&universe, source).await.unwrap_err();
        assert!(error.contains("do not fit together"), "{source}: {error}");
    }
}

#[test]
fn a_tree_of_too_many_levels_is_refused() {
    let array = |height| Record {
        payload: Payload::BigArray(BigArray { owner: 1, elements: Tree { height, top: Vec::new() } }),
        ..Record::default()
    };
    assert!(Record::decode(&array(MAX_HEIGHT).encode().unwrap()).is_ok());
    assert!(Record::decode(&array(MAX_HEIGHT + 1).encode().unwrap()).is_err());
    assert!(Record::decode(&array(u32::MAX).encode().unwrap()).is_err());
}

#[tokio::test]
async fn what_is_lost_is_told() {
    let (_folder, store) = store();
    drop(filled(&store).await);
    let heads = heads(&*store).await;
    let leaf = heads.iter().find(|(_, (_, record))| match &record.payload {
        Payload::Bucket(bucket) => matches!(bucket.content, Content::Elements(_)),
        _ => false,
    });
    let (lost, (rev, _)) = leaf.unwrap();
    let key = KeySpace::new("one").head(*lost);
    let batch = Batch {
        marker: KeySpace::new("one").marker([1; 16]),
        marker_bytes: Vec::new(),
        expect: vec![Expect { key: key.clone(), rev: Some(*rev) }],
        lock: Vec::new(),
        put: Vec::new(),
        delete: vec![key],
        passes: Default::default(),
    };
    store.commit(batch).await.unwrap();
    let problems = check(&*store, "one", |_| {}).await.unwrap().problems;
    assert!(problems.iter().any(|problem| problem.contains(&lost.to_string())), "{problems:?}");
    let universe = Universe::open("one", store.clone()).await.unwrap();
    let error = eval(&universe, "list inject: 0 into: [ :a :b | a + b ]").await.unwrap_err();
    assert!(error.contains(&lost.to_string()), "{error}");
}
