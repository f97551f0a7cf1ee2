//! Collection of what a turn no longer reaches: mark the handles, copy the words of those that live.
//!
//! It runs at safe points of the interpreter alone, where every live value is in a register, and when the program has
//! allocated enough; so when it runs, and what it leaves, depends on the program and on nothing else.

use super::{
    error::Stop,
    heap::{Body, Cell, Heap, OBJECT_BYTES, Origin, step},
    map::reserved,
    value::{Handle, Value},
};

impl Heap {
    pub fn wants_collection(&self) -> bool {
        self.allocated > self.threshold
    }

    /// Frees everything that neither `roots` nor objects of the graph reach.
    pub fn collect(&mut self, roots: impl Iterator<Item = Value>) -> Result<(), Stop> {
        let mut marked = vec![false; self.cells.len()];
        let mut live_maps = vec![false; self.maps.len()];
        let mut next: Vec<Handle> = roots.filter_map(Value::as_object).collect();
        // What came from the store stays: it is part of what the turn has read.
        next.extend(self.by_id.values());
        let mut live = self.permanent;
        while let Some(handle) = next.pop() {
            let Some(mark) = marked.get_mut(handle.0 as usize) else { continue };
            if std::mem::replace(mark, true) {
                continue;
            }
            let Some(Cell::Here(object)) = self.cells.get(handle.0 as usize) else { continue };
            // What came from the store as it is now was not allocated by the program.
            if object.dirty || matches!(object.origin, Origin::New(1..)) {
                live += OBJECT_BYTES + object.words as usize * 8 + object.body.bytes();
            }
            let words = self.words.get(object.at as usize..object.at as usize + object.words as usize);
            next.extend(words.unwrap_or_default().iter().filter_map(|value| value.as_object()));
            match &object.body {
                Body::Array(elements) => next.extend(elements.iter().filter_map(|value| value.as_object())),
                Body::Table(table) => {
                    let entries = table.entries().flat_map(|entry| [entry.key, entry.value]);
                    next.extend(entries.filter_map(Value::as_object));
                }
                Body::BigArray(array) => {
                    next.extend(array.elements.values().filter_map(|bucket| bucket.as_object()).chain(array.lender));
                }
                Body::BigTable(table) => {
                    let buckets = table.entries.values().chain(table.places.values());
                    next.extend(buckets.filter_map(|bucket| bucket.as_object()).chain(table.lender));
                }
                Body::Bucket(bucket) => next.extend(bucket.values().filter_map(|value| value.as_object())),
                _ => {}
            }
            if let Some(known) = live_maps.get_mut(object.map.0 as usize)
                && !std::mem::replace(known, true)
                && let Some(map) = self.maps.get(object.map)
            {
                next.extend(&map.parents);
                next.extend(
                    map.slots.iter().filter(|slot| !slot.is_data()).filter_map(|slot| slot.content.as_object()),
                );
            }
        }
        let old = std::mem::take(&mut self.words);
        self.words.reserve(old.len() / 2);
        for ((cell, place), mark) in self.cells.iter_mut().zip(0..).zip(&marked) {
            match cell {
                Cell::Here(object) if *mark => {
                    let words = old.get(object.at as usize..object.at as usize + object.words as usize);
                    object.at = self.words.len() as u32;
                    self.words.extend_from_slice(words.unwrap_or_default());
                }
                Cell::Here(_) => {
                    *cell = Cell::Free;
                    self.free.push(place);
                }
                _ => {}
            }
        }
        self.maps.sweep(|map| map.0 <= reserved::EMPTY.0 || live_maps.get(map.0 as usize).copied().unwrap_or(false));
        // Caches may name what is gone.
        self.epoch += 1;
        self.allocated = live;
        self.threshold = live.saturating_add(live.max(step(self.limit)));
        match live > self.limit {
            true => self.too_large(),
            false => Ok(()),
        }
    }
}
