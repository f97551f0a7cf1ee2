//! Arrays and tables that were stored in buckets, as a turn works on them. One that has shrunk becomes a small one again.

use batos_covenant::ErrorKind;
use batos_graph::bucket::{Elements, Entries, Entry, LEAF, Places};

use super::{
    VmError,
    error::Stop,
    heap::{Body, Heap},
    table::{self, Table},
    tree::{At, Reached, Tree, tree_bytes},
    value::{Handle, Value},
};

/// A collection that has no more items is kept in one piece again.
const SHRUNK: u64 = LEAF as u64;

#[derive(Debug, Clone)]
pub(super) struct BigArray {
    pub owner: u64,
    /// Whose buckets these were when it was copied: stored with it, so that it, too, has its new owner.
    pub lender: Option<Handle>,
    pub elements: Tree,
}

#[derive(Debug, Clone)]
pub(super) struct BigTable {
    pub owner: u64,
    pub lender: Option<Handle>,
    pub live: u64,
    pub entries: Tree,
    pub places: Tree,
}

fn broken() -> Stop {
    Stop::Fail(VmError::new(ErrorKind::Internal, "a large collection has lost its buckets"))
}

impl Body {
    /// Elements, keys and values of a collection in one piece.
    pub fn values(&self) -> Vec<Value> {
        match self {
            Self::Array(elements) => elements.clone(),
            Self::Table(table) => table.entries().flat_map(|entry| [entry.key, entry.value]).collect(),
            _ => Vec::new(),
        }
    }

    /// The owner of a large collection's buckets, and from whom it borrowed them.
    pub fn ownership(&mut self) -> Option<(&mut u64, &mut Option<Handle>)> {
        match self {
            Self::BigArray(array) => Some((&mut array.owner, &mut array.lender)),
            Self::BigTable(table) => Some((&mut table.owner, &mut table.lender)),
            _ => None,
        }
    }
}

impl BigArray {
    pub fn len(&self) -> usize {
        usize::try_from(self.elements.count()).unwrap_or(usize::MAX)
    }

    pub fn bytes(&self) -> usize {
        tree_bytes(&self.elements)
    }
}

impl BigTable {
    pub fn bytes(&self) -> usize {
        tree_bytes(&self.entries) + tree_bytes(&self.places)
    }
}

impl Heap {
    /// Works on the body of a large collection, which has changed if that succeeds.
    fn edit<R>(
        &mut self,
        handle: Handle,
        work: impl FnOnce(&mut Self, &mut Body) -> Result<R, Stop>,
    ) -> Result<R, Stop> {
        let mut body = std::mem::replace(&mut self.get_mut(handle)?.body, Body::Plain);
        let done = work(self, &mut body);
        let object = self.get_mut(handle)?;
        object.body = body;
        object.dirty |= done.is_ok();
        done
    }

    fn edit_array<R>(
        &mut self,
        handle: Handle,
        work: impl FnOnce(&mut Self, &mut BigArray) -> Result<R, Stop>,
    ) -> Result<R, Stop> {
        self.edit(handle, |heap, body| match body {
            Body::BigArray(array) => work(heap, array),
            _ => Err(broken()),
        })
    }

    fn edit_table<R>(
        &mut self,
        handle: Handle,
        work: impl FnOnce(&mut Self, &mut BigTable) -> Result<R, Stop>,
    ) -> Result<R, Stop> {
        self.edit(handle, |heap, body| match body {
            Body::BigTable(table) => work(heap, table),
            _ => Err(broken()),
        })
    }

    /// A copy of a large collection, which shares its buckets until either changes them.
    pub fn share(&mut self, handle: Handle, seed: &[u8; 32]) -> Result<Body, Stop> {
        let mut owner = || {
            self.created += 1;
            let hash = blake3::keyed_hash(seed, &[&self.created.to_be_bytes()[..], b"owner"].concat());
            hash.as_bytes().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
        };
        let (mine, other) = (owner(), owner());
        let body = &mut self.get_mut(handle)?.body;
        *body.ownership().ok_or_else(broken)?.0 = mine;
        let mut copy = body.clone();
        if let Some((owner, lender)) = copy.ownership() {
            (*owner, *lender) = (other, Some(handle));
        }
        Ok(copy)
    }

    pub fn big_element(&self, array: &BigArray, index: usize) -> Result<Value, Stop> {
        let reached = self.reach::<Elements>(&array.elements, At::Item(index as u64))?;
        self.item::<Elements>(&reached)?.copied().ok_or_else(broken)
    }

    pub fn put_big_element(&mut self, handle: Handle, index: usize, value: Value) -> Result<(), Stop> {
        self.edit_array(handle, |heap, BigArray { owner, elements, .. }| {
            let reached = heap.reach::<Elements>(elements, At::Item(index as u64))?;
            heap.put_item::<Elements>(*owner, elements, &reached, value)
        })
    }

    pub fn swap_big_elements(&mut self, handle: Handle, i: usize, j: usize) -> Result<(), Stop> {
        self.edit_array(handle, |heap, BigArray { owner, elements, .. }| {
            let value = |heap: &Self, elements: &Tree, index: usize| {
                let reached = heap.reach::<Elements>(elements, At::Item(index as u64))?;
                heap.item::<Elements>(&reached)?.copied().ok_or_else(broken)
            };
            let (left, right) = (value(heap, elements, i)?, value(heap, elements, j)?);
            for (index, value) in [(i, right), (j, left)] {
                // The first may have cut a bucket.
                let reached = heap.reach::<Elements>(elements, At::Item(index as u64))?;
                heap.put_item::<Elements>(*owner, elements, &reached, value)?;
            }
            Ok(())
        })
    }

    /// Puts values before the element `index`, or behind all.
    pub fn insert_big_elements(&mut self, handle: Handle, index: usize, values: &[Value]) -> Result<(), Stop> {
        self.edit_array(handle, |heap, BigArray { owner, elements, .. }| {
            for (value, at) in values.iter().zip(index as u64..) {
                let reached = heap.reach::<Elements>(elements, At::Gap(at))?;
                let appended = at == elements.count();
                heap.insert_item::<Elements>(*owner, elements, &reached, *value, appended)?;
            }
            Ok(())
        })
    }

    pub fn remove_big_element(&mut self, handle: Handle, index: usize) -> Result<Value, Stop> {
        self.edit(handle, |heap, body| {
            let Body::BigArray(array) = body else { return Err(broken()) };
            let BigArray { owner, elements, .. } = &mut **array;
            let reached = heap.reach::<Elements>(elements, At::Item(index as u64))?;
            let count = elements.count();
            if count > SHRUNK + 1 {
                return heap.remove_item::<Elements>(*owner, elements, &reached);
            }
            let mut rest = heap.items_of::<Elements>(elements, 0..count)?;
            if index >= rest.len() {
                return Err(broken());
            }
            heap.charge(rest.len() * 8)?;
            let value = rest.remove(index);
            *body = Body::Array(rest);
            Ok(value)
        })
    }

    pub fn big_candidates(&self, table: &BigTable, hash: u64) -> Result<Vec<usize>, Stop> {
        let mut places = Vec::new();
        self.places(&table.places, hash, |place, _| places.push(place as usize))?;
        Ok(places)
    }

    /// The entry at a place; `None` when it was removed, or never was.
    pub fn big_entry(&self, table: &BigTable, place: usize) -> Result<Entry<Value>, Stop> {
        if place as u64 >= table.entries.count() {
            return Ok(None);
        }
        let reached = self.reach::<Entries>(&table.entries, At::Item(place as u64))?;
        Ok(self.item::<Entries>(&reached)?.copied().flatten())
    }

    /// Gives the entry at a place another value.
    pub fn put_big_value(&mut self, handle: Handle, place: usize, value: Value) -> Result<(), Stop> {
        self.edit_table(handle, |heap, BigTable { owner, entries, .. }| {
            let reached = heap.reach::<Entries>(entries, At::Item(place as u64))?;
            let (hash, key, _) = heap.item::<Entries>(&reached)?.copied().flatten().ok_or_else(broken)?;
            heap.put_item::<Entries>(*owner, entries, &reached, Some((hash, key, value)))
        })
    }

    /// Touches what `add_big_entry` changes.
    pub fn reach_big_entry(&self, table: &BigTable, hash: u64) -> Result<(Reached, Reached), Stop> {
        let entry = self.reach::<Entries>(&table.entries, At::Gap(table.entries.count()))?;
        Ok((entry, self.reach::<Places>(&table.places, At::Hash(hash))?))
    }

    pub fn add_big_entry(&mut self, handle: Handle, hash: u64, key: Value, value: Value) -> Result<(), Stop> {
        self.edit_table(handle, |heap, table| {
            let (entry, place) = heap.reach_big_entry(table, hash)?;
            let number = table.entries.count();
            table.live += 1;
            heap.insert_item::<Entries>(table.owner, &mut table.entries, &entry, Some((hash, key, value)), true)?;
            heap.insert_item::<Places>(table.owner, &mut table.places, &place, (hash, number), false)
        })
    }

    /// Takes out the entry at a place, where there is one.
    pub fn remove_big_entry(&mut self, handle: Handle, place: usize) -> Result<Value, Stop> {
        self.edit(handle, |heap, body| {
            let Body::BigTable(table) = body else { return Err(broken()) };
            let reached = heap.reach::<Entries>(&table.entries, At::Item(place as u64))?;
            let (hash, _, value) = heap.item::<Entries>(&reached)?.copied().flatten().ok_or_else(broken)?;
            if table.live <= SHRUNK + 1 {
                let mut small = Table::default();
                let entries = heap.items_of::<Entries>(&table.entries, 0..place as u64)?;
                let after = heap.items_of::<Entries>(&table.entries, place as u64 + 1..table.entries.count())?;
                let rest = entries.into_iter().chain(after).flatten();
                rest.for_each(|(hash, key, value)| small.add(hash, key, value));
                heap.charge(small.len() * table::ENTRY_BYTES)?;
                *body = Body::Table(Box::new(small));
                return Ok(value);
            }
            let mut found = None;
            heap.places(&table.places, hash, |number, reached| {
                if number == place as u64 {
                    found = Some(reached());
                }
            })?;
            let found = found.ok_or_else(broken)?;
            heap.remove_item::<Places>(table.owner, &mut table.places, &found)?;
            table.live -= 1;
            heap.remove_entry(table.owner, &mut table.entries, &reached)?;
            Ok(value)
        })
    }

    /// A large collection as a small one.
    pub fn in_one_piece(&self, body: &Body) -> Result<Body, Stop> {
        match body {
            Body::BigArray(array) => {
                self.items_of::<Elements>(&array.elements, 0..array.elements.count()).map(Body::Array)
            }
            Body::BigTable(table) => {
                let mut small = Table::default();
                self.big_entries(table)?
                    .into_iter()
                    .flatten()
                    .for_each(|(hash, key, value)| small.add(hash, key, value));
                Ok(Body::Table(Box::new(small)))
            }
            _ => Err(broken()),
        }
    }

    pub fn big_entries(&self, table: &BigTable) -> Result<Vec<Entry<Value>>, Stop> {
        self.items_of::<Entries>(&table.entries, 0..table.entries.count())
    }
}
