//! Large collections in a world's records, read without the machine, every rule of theirs checked on the way.

use std::collections::HashMap;

use batos_graph::{
    ObjectId, Payload, Record, Value,
    bucket::{BRANCH, Branches, Child, Content, Elements, Entries, Kind, LEAF, LEAF_BYTES, Places, TOP, Tree},
};

use super::World;

/// The collection in a slot of an object.
pub fn in_slot<'a>(world: &'a World, object: ObjectId, slot: &str) -> (ObjectId, &'a Record) {
    let record = &world.records[&object].1;
    let Some((_, Value::Ref(id))) = record.values().find(|(name, _)| *name == slot) else { panic!("{slot} is empty") };
    (*id, &world.records[id].1)
}

pub fn is_large(record: &Record) -> bool {
    matches!(record.payload, Payload::BigArray(_) | Payload::BigTable(_))
}

/// Elements of an array, large or small.
pub fn elements(world: &World, record: &Record) -> Vec<Value> {
    match &record.payload {
        Payload::Array(elements) => elements.clone(),
        Payload::BigArray(array) => items::<Elements>(world, &array.elements, array.owner),
        other => panic!("no array: {other:?}"),
    }
}

/// Keys and values of a table, large or small.
pub fn entries(world: &World, record: &Record) -> Vec<(Value, Value)> {
    match &record.payload {
        Payload::Table(entries) => entries.iter().map(|(_, key, value)| (key.clone(), value.clone())).collect(),
        Payload::BigTable(table) => {
            let entries = items::<Entries>(world, &table.entries, table.owner);
            let places = items::<Places>(world, &table.places, table.owner);
            assert!(places.is_sorted(), "places are sorted");
            let mut wanted: Vec<(u64, u64)> =
                entries.iter().zip(0..).filter_map(|(entry, place)| Some((entry.as_ref()?.0, place))).collect();
            wanted.sort_unstable();
            assert_eq!(places, wanted);
            assert_eq!(table.live, places.len() as u64);
            entries.into_iter().flatten().map(|(_, key, value)| (key, value)).collect()
        }
        other => panic!("no table: {other:?}"),
    }
}

fn items<K: Kind>(world: &World, tree: &Tree<Value>, owner: u64) -> Vec<K::Item<Value>>
where
    K::Item<Value>: Clone + Hole,
{
    assert!(tree.top.len() <= TOP);
    let mut items = Vec::new();
    tree.top.iter().for_each(|child| walk::<K>(world, child, tree.height, owner, true, &mut items));
    items
}

/// What stands for a removed entry.
pub trait Hole: Sized {
    fn hole() -> Option<Self> {
        None
    }
}

impl Hole for Value {}
impl Hole for (u64, u64) {}
impl Hole for Option<(u64, Value, Value)> {
    fn hole() -> Option<Self> {
        Some(None)
    }
}

fn walk<K: Kind>(
    world: &World,
    child: &Child<Value>,
    height: u32,
    owner: u64,
    is_owned: bool,
    to: &mut Vec<K::Item<Value>>,
) where
    K::Item<Value>: Clone + Hole,
{
    let Some(Value::Ref(id)) = &child.bucket else {
        (0..child.count).for_each(|_| to.push(K::Item::<Value>::hole().expect("only entries have holes")));
        return;
    };
    let record = &world.records[id].1;
    record.encode().unwrap();
    let Payload::Bucket(bucket) = &record.payload else { panic!("{id} is no bucket") };
    assert!(is_owned || bucket.owner != owner, "below a bucket of another collection there are none of one's own");
    assert!(!bucket.is_empty());
    let begin = to.len();
    let low = match &bucket.content {
        Content::Branches(children) => {
            assert!(height > 0 && children.len() <= BRANCH);
            children.iter().for_each(|child| walk::<K>(world, child, height - 1, owner, bucket.owner == owner, to));
            Branches::low(&children[0])
        }
        content => {
            let items = K::items(content).expect("leaves of one kind");
            assert!(height == 0 && items.len() <= LEAF);
            let bytes: usize = items.iter().map(|item| K::bytes(item, &Value::bytes)).sum();
            assert!(bytes <= LEAF_BYTES || items.len() == 1, "{bytes} bytes of {} items", items.len());
            to.extend_from_slice(items);
            K::low(&items[0])
        }
    };
    assert!(child.low <= low || begin == 0, "{} is not the lowest, {low}", child.low);
    let count: u64 = to[begin..].iter().map(K::count).sum();
    assert_eq!(child.count, count);
}

/// No bucket that a collection may write is part of another one.
pub fn check_owners(world: &World, collections: &[ObjectId]) {
    let mut seen: HashMap<ObjectId, Vec<ObjectId>> = HashMap::new();
    for collection in collections {
        let mut next = vec![*collection];
        while let Some(id) = next.pop() {
            for (_, value) in world.records[&id].1.values() {
                if let Value::Ref(part) = value
                    && world.records.get(part).is_some_and(|(_, record)| record.is_bucket())
                {
                    seen.entry(*part).or_default().push(*collection);
                    next.push(*part);
                }
            }
        }
    }
    for (part, users) in seen {
        let Payload::Bucket(bucket) = &world.records[&part].1.payload else { continue };
        let owns = |id: &&ObjectId| match &world.records[*id].1.payload {
            Payload::BigArray(array) => array.owner == bucket.owner,
            Payload::BigTable(table) => table.owner == bucket.owner,
            _ => false,
        };
        assert!(users.len() == 1 || !users.iter().any(|user| owns(&user)), "{part} is shared by {users:?}");
    }
}
