//! Keys with values in the order of insertion, found by hash: what dictionaries and sets are made of.
//!
//! The table knows hashes, not equality: that may be a message, and primitives never call back into the language. A key
//! is found by asking for the entries with its hash and comparing.

use super::value::Value;

#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub hash: u64,
    pub key: Value,
    pub value: Value,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    /// `None` where an entry was removed; places keep their numbers until entries are added.
    places: Vec<Option<Entry>>,
    /// Open addressing with linear probing: place + 1, or 0 for empty. Its length is a power of two, at least twice
    /// the number of places.
    index: Vec<u32>,
    live: usize,
}

/// What an entry takes of the turn's memory, with its share of the index.
pub(super) const ENTRY_BYTES: usize = 48;

impl Table {
    pub fn len(&self) -> usize {
        self.live
    }

    pub fn bytes(&self) -> usize {
        self.places.len() * ENTRY_BYTES
    }

    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.places.iter().flatten()
    }

    /// The keys' hashes stay as they are.
    pub fn entries_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.places.iter_mut().flatten()
    }

    /// Places in use, those of removed entries included.
    pub fn span(&self) -> usize {
        self.places.len()
    }

    pub fn at(&self, place: usize) -> Option<&Entry> {
        self.places.get(place)?.as_ref()
    }

    pub fn at_mut(&mut self, place: usize) -> Option<&mut Entry> {
        self.places.get_mut(place)?.as_mut()
    }

    /// Places of the entries with this hash.
    pub fn candidates(&self, hash: u64) -> impl Iterator<Item = usize> {
        self.probe(hash).filter(move |place| self.at(*place).is_some_and(|entry| entry.hash == hash))
    }

    /// Steps that a search for this hash takes at most.
    pub fn probes(&self, hash: u64) -> usize {
        self.probe(hash).count()
    }

    fn probe(&self, hash: u64) -> impl Iterator<Item = usize> {
        let mask = self.index.len().wrapping_sub(1);
        let first = scatter(hash) & mask;
        (0..self.index.len())
            .map(move |step| self.index.get((first + step) & mask).copied().unwrap_or(0))
            .take_while(|place| *place != 0)
            .map(|place| place as usize - 1)
    }

    /// Adds an entry whose key is not there yet.
    pub fn add(&mut self, hash: u64, key: Value, value: Value) {
        if (self.places.len() + 1) * 2 > self.index.len() {
            // A table full of removed entries shrinks instead.
            self.places.retain(Option::is_some);
            let wanted = ((self.places.len() + 1) * 4).next_power_of_two().max(8);
            self.index = vec![0; wanted];
            for place in 0..self.places.len() {
                if let Some(hash) = self.at(place).map(|entry| entry.hash) {
                    self.enter(hash, place);
                }
            }
        }
        self.places.push(Some(Entry { hash, key, value }));
        self.live += 1;
        self.enter(hash, self.places.len() - 1);
    }

    fn enter(&mut self, hash: u64, place: usize) {
        let mask = self.index.len().wrapping_sub(1);
        let mut at = scatter(hash) & mask;
        while let Some(slot) = self.index.get_mut(at) {
            if *slot == 0 {
                *slot = u32::try_from(place + 1).unwrap_or(u32::MAX);
                return;
            }
            at = (at + 1) & mask;
        }
    }

    pub fn remove(&mut self, place: usize) -> Option<Entry> {
        let entry = self.places.get_mut(place)?.take()?;
        self.live -= 1;
        Some(entry)
    }
}

/// Spreads hashes that differ in high bits only, or run in sequence, over the index.
fn scatter(hash: u64) -> usize {
    (hash.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_added_through_growth_and_removal() {
        let mut table = Table::default();
        let key = |n: u64| Value::int(n as i64).unwrap();
        // Every hash twice.
        for n in 0..1000 {
            table.add(n / 2, key(n), Value::NIL);
        }
        for n in (0..1000).step_by(3) {
            let place = table.candidates(n / 2).find(|place| table.at(*place).unwrap().key == key(n)).unwrap();
            assert_eq!(table.remove(place).unwrap().key, key(n));
            assert!(table.remove(place).is_none());
        }
        for n in 1000..3000 {
            table.add(n / 2, key(n), Value::NIL);
        }
        for n in 0..3000 {
            let found = table.candidates(n / 2).any(|place| table.at(place).unwrap().key == key(n));
            assert_eq!(found, n >= 1000 || n % 3 != 0, "{n}");
        }
        assert_eq!(table.len(), 3000 - 334);
        assert_eq!(table.entries().count(), table.len());
        let order: Vec<_> = table.entries().filter_map(|entry| entry.key.as_int()).collect();
        assert!(order.is_sorted(), "insertion order");
    }
}
