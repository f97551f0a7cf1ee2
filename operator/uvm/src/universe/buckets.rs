//! Large collections as those outside see them, and whether their buckets fit together.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use batos_graph::{
    ObjectId, Payload, Record, Value,
    bucket::{Child, Content, Tree},
};

use super::{UniverseError, View};

/// The first leaf of a collection in buckets; `None` for other objects.
pub(super) async fn first(view: &View<'_>, record: &Record) -> Result<Option<Arc<Record>>, UniverseError> {
    let tree = match &record.payload {
        Payload::BigArray(array) => &array.elements,
        Payload::BigTable(table) => &table.entries,
        _ => return Ok(None),
    };
    let mut next = leftmost(&tree.top);
    for _ in 0..=tree.height {
        let Some(Value::Ref(id)) = next else { break };
        // What was found may be newer than the collection: this is a glance, not a moment.
        let Some((_, record)) = view.object(id).await? else { break };
        let Payload::Bucket(bucket) = &record.payload else { break };
        let Content::Branches(children) = &bucket.content else { return Ok(Some(record)) };
        next = leftmost(children);
    }
    Ok(None)
}

fn leftmost(children: &[Child<Value>]) -> Option<Value> {
    children.iter().find_map(|child| child.bucket.clone())
}

/// By what they hold.
type Trees = Vec<(&'static str, Tree<Value>)>;

/// What a check knows of a universe's large collections and their buckets.
#[derive(Default)]
pub(super) struct Survey {
    /// Each with its owner's tag and its trees.
    collections: Vec<(ObjectId, u64, Trees)>,
    buckets: BTreeMap<ObjectId, Known>,
}

struct Known {
    owner: u64,
    tally: Tally,
    /// What it holds: the name of a kind, or of a branch nothing.
    leaf: Option<&'static str>,
    children: Vec<Child<Value>>,
}

/// Items of a tree, or of a part.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Tally {
    count: u64,
    /// Entries that are there, or places of such.
    live: u64,
    /// Of all their hashes, whatever their order.
    hashes: u64,
}

impl Tally {
    fn of<'a>(hashes: impl Iterator<Item = Option<&'a u64>>, counts: bool) -> Self {
        hashes.fold(Self::default(), |sum, hash| Self {
            count: sum.count + u64::from(counts),
            live: sum.live + u64::from(hash.is_some()),
            hashes: sum.hashes.wrapping_add(hash.copied().unwrap_or(0)),
        })
    }
}

const ELEMENTS: &str = "elements";
const ENTRIES: &str = "entries";
const PLACES: &str = "places";

impl Survey {
    pub(super) fn record(&mut self, id: ObjectId, record: &Record) {
        match &record.payload {
            Payload::BigArray(array) => {
                self.collections.push((id, array.owner, vec![(ELEMENTS, array.elements.clone())]));
            }
            Payload::BigTable(table) => {
                let trees = vec![(ENTRIES, table.entries.clone()), (PLACES, table.places.clone())];
                self.collections.push((id, table.owner, trees));
            }
            Payload::Bucket(bucket) => {
                let (leaf, tally) = match &bucket.content {
                    Content::Branches(_) => (None, Tally::default()),
                    Content::Elements(elements) => (Some(ELEMENTS), Tally::of(elements.iter().map(|_| None), true)),
                    Content::Entries(entries) => {
                        let hashes = entries.iter().map(|entry| entry.as_ref().map(|(hash, ..)| hash));
                        (Some(ENTRIES), Tally::of(hashes, true))
                    }
                    Content::Places(places) => {
                        (Some(PLACES), Tally::of(places.iter().map(|(hash, _)| Some(hash)), false))
                    }
                };
                let children = match &bucket.content {
                    Content::Branches(children) => children.clone(),
                    _ => Vec::new(),
                };
                self.buckets.insert(id, Known { owner: bucket.owner, tally, leaf, children });
            }
            _ => {}
        }
    }

    /// Whether the buckets of each collection fit together, and none that one may write is another's.
    pub(super) fn conclude(&self, problem: &mut impl FnMut(String)) {
        let mut users: BTreeMap<ObjectId, (ObjectId, bool)> = BTreeMap::new();
        for (id, owner, trees) in &self.collections {
            let mut used = BTreeSet::new();
            let mut tallies = Vec::new();
            for (kind, tree) in trees {
                match self.tally(&tree.top, tree.height, kind, &mut used) {
                    Ok(tally) => tallies.push(tally),
                    Err(error) => problem(format!("collection {id}: {error}")),
                }
            }
            if let [entries, places] = tallies.as_slice()
                && (entries.live, entries.hashes) != (places.live, places.hashes)
            {
                problem(format!("collection {id} has {} entries and finds {}", entries.live, places.live));
            }
            for bucket in used {
                let owns = self.buckets.get(&bucket).is_some_and(|known| known.owner == *owner);
                match users.insert(bucket, (*id, owns)) {
                    Some((other, owned)) if owns || owned => {
                        problem(format!("bucket {bucket} is of {id} and of {other}, and one of them may write it"));
                    }
                    _ => {}
                }
            }
        }
    }

    fn tally(
        &self,
        children: &[Child<Value>],
        height: u32,
        kind: &str,
        used: &mut BTreeSet<ObjectId>,
    ) -> Result<Tally, String> {
        let mut sum = Tally::default();
        for child in children {
            let tally = match &child.bucket {
                None => Tally { count: child.count, ..Tally::default() },
                Some(Value::Ref(id)) => {
                    if !used.insert(*id) {
                        return Err(format!("bucket {id} is there twice"));
                    }
                    let known = self.buckets.get(id).ok_or(format!("{id} is no bucket"))?;
                    match (known.leaf, height.checked_sub(1)) {
                        (Some(leaf), None) if leaf == kind => known.tally,
                        (None, Some(height)) => self.tally(&known.children, height, kind, used)?,
                        _ => return Err(format!("bucket {id} holds no {kind}, or lies at another height")),
                    }
                }
                Some(other) => return Err(format!("{other:?} in the place of a bucket")),
            };
            if tally.count != child.count {
                return Err(format!("{} {kind} where {} should be", tally.count, child.count));
            }
            sum.count = sum.count.saturating_add(tally.count);
            sum.live += tally.live;
            sum.hashes = sum.hashes.wrapping_add(tally.hashes);
        }
        Ok(sum)
    }
}
