//! Large collections as records: those that have become large are planted as trees of buckets, the others are written as
//! they are.

use batos_graph::{
    self as graph, ObjectId, Payload, Record,
    bucket::{self, Bucket, Content, Elements, Entries, FLAT_BYTES, FLAT_ITEMS, Kind, Places, plant},
};

use super::{
    VmError,
    big::{BigArray, BigTable},
    heap::Body,
    tree::Tree,
    turn::{Harvest, Write},
    value::Handle,
};

type Stored = graph::Value;

impl Harvest<'_> {
    pub fn array(&mut self, id: ObjectId, elements: Vec<Stored>) -> Payload {
        match is_small::<Elements>(&elements) {
            true => Payload::Array(elements),
            false => {
                let elements = self.plant::<Elements>(id, elements);
                Payload::BigArray(bucket::BigArray { owner: owner(id), elements })
            }
        }
    }

    pub fn table(&mut self, id: ObjectId, entries: Vec<(u64, Stored, Stored)>) -> Payload {
        let entries: Vec<bucket::Entry<Stored>> = entries.into_iter().map(Some).collect();
        if is_small::<Entries>(&entries) {
            return Payload::Table(entries.into_iter().flatten().collect());
        }
        let live = entries.len() as u64;
        let mut places: Vec<(u64, u64)> = entries.iter().flatten().map(|entry| entry.0).zip(0..).collect();
        places.sort_unstable();
        let entries = self.plant::<Entries>(id, entries);
        let places = self.plant::<Places>(id, places);
        Payload::BigTable(bucket::BigTable { owner: owner(id), live, entries, places })
    }

    pub fn big_array(&mut self, array: &BigArray) -> Result<Payload, VmError> {
        self.borrowed(array.lender);
        let elements = self.tree(&array.elements)?;
        Ok(Payload::BigArray(bucket::BigArray { owner: array.owner, elements }))
    }

    pub fn big_table(&mut self, table: &BigTable) -> Result<Payload, VmError> {
        self.borrowed(table.lender);
        let (entries, places) = (self.tree(&table.entries)?, self.tree(&table.places)?);
        Ok(Payload::BigTable(bucket::BigTable { owner: table.owner, live: table.live, entries, places }))
    }

    fn tree(&mut self, tree: &Tree) -> Result<bucket::Tree<Stored>, VmError> {
        tree.try_map(&mut |bucket| self.stored(*bucket))
    }

    /// A copy that shares buckets is stored with the collections that lent them: they have new owners too.
    fn borrowed(&mut self, mut lender: Option<Handle>) {
        while let Some(handle) = lender {
            let Some(object) = self.object(handle) else { return };
            lender = match &object.body {
                Body::BigArray(array) => array.lender,
                Body::BigTable(table) => table.lender,
                _ => None,
            };
            if object.is_stored() {
                self.enqueue(handle);
            }
        }
    }

    fn plant<K: Kind>(&mut self, id: ObjectId, items: Vec<K::Item<Stored>>) -> bucket::Tree<Stored> {
        let (seed, buckets, owner) = (self.seed, &mut self.buckets, owner(id));
        plant::<K, Stored>(items, Stored::bytes, &mut |content: Content<Stored>| {
            // The seed is the message's, and the number the bucket's in this collection.
            let number = buckets.len() as u64;
            let hash = blake3::keyed_hash(seed, &[&id.0[..], &number.to_be_bytes()].concat());
            let id = ObjectId(hash.as_bytes().first_chunk().copied().unwrap_or_default());
            let record = Record { payload: Payload::Bucket(Bucket { owner, content }), ..Record::default() };
            buckets.push(Write { id, prev_rev: None, record, changed: Vec::new() });
            Stored::Ref(id)
        })
    }
}

/// Whoever copies a collection gives both new owners, so the first one may be told from its id.
fn owner(id: ObjectId) -> u64 {
    id.0.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

fn is_small<K: Kind>(items: &[K::Item<Stored>]) -> bool {
    let bytes = |item: &K::Item<Stored>| K::bytes(item, &Stored::bytes);
    items.len() <= FLAT_ITEMS && items.iter().map(bytes).sum::<usize>() <= FLAT_BYTES
}
