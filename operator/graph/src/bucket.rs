//! Large collections: trees of buckets, each a record of its own.
//!
//! The collection's own record holds the top of the tree. Below it are branches, then leaves; all leaves are equally
//! deep. A bucket belongs to the collection whose `owner` it bears: only that one may write it in place. A copy of a
//! collection takes the top alone, and both get new owners, so that each writes a bucket of its own where it changes.
//!
//! An array is one tree of elements. A table is two: its entries in the order in which they were added, with holes where
//! some were removed, and the places of the entries in the order of their keys' hashes.

use serde::{Deserialize, Serialize};

/// A collection of more items than this is stored in buckets.
pub const FLAT_ITEMS: usize = 256;
/// So is one whose items take more than this, in bytes.
pub const FLAT_BYTES: usize = 64 * 1024;
/// Most items of a leaf.
pub const LEAF: usize = 32;
/// A leaf of more than one item holds at most so many bytes of them.
pub const LEAF_BYTES: usize = 16 * 1024;
/// Most children of a branch.
pub const BRANCH: usize = 64;
/// Most levels of branches. Nothing that fits into a store has so many.
pub const MAX_HEIGHT: u32 = 16;
/// Most children at the top, which is written with every change.
pub const TOP: usize = 16;

/// A part of a tree. `V` is a value: of a record, or of a turn's heap.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Child<V> {
    /// `None`: all its entries were removed.
    pub bucket: Option<V>,
    /// Items below it; 0 in a tree of places, which nobody counts.
    pub count: u64,
    /// In a tree of places: no hash below it is smaller, unless it is the first child. Else 0.
    pub low: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tree<V> {
    /// Levels of branches between the top and the leaves.
    pub height: u32,
    pub top: Vec<Child<V>>,
}

/// Hash, sealed at insertion, key and value; `None` where an entry was removed.
pub type Entry<V> = Option<(u64, V, V)>;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Content<V> {
    Branches(Vec<Child<V>>),
    Elements(Vec<V>),
    Entries(Vec<Entry<V>>),
    /// Hashes with the places of their entries, sorted.
    #[serde(with = "packed")]
    Places(Vec<(u64, u64)>),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bucket<V> {
    pub owner: u64,
    pub content: Content<V>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BigArray<V> {
    pub owner: u64,
    pub elements: Tree<V>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BigTable<V> {
    pub owner: u64,
    /// Entries that were not removed.
    pub live: u64,
    pub entries: Tree<V>,
    pub places: Tree<V>,
}

impl<V> Default for Tree<V> {
    fn default() -> Self {
        Self { height: 0, top: Vec::new() }
    }
}

impl<V> Tree<V> {
    /// Items, those of holes included.
    pub fn count(&self) -> u64 {
        total::<Branches, V>(&self.top)
    }

    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.top.iter().filter_map(|child| child.bucket.as_ref())
    }

    pub fn try_map<W, E>(&self, f: &mut impl FnMut(&V) -> Result<W, E>) -> Result<Tree<W>, E> {
        let top = self.top.iter().map(|child| child.try_map(f)).collect::<Result<_, _>>()?;
        Ok(Tree { height: self.height, top })
    }
}

impl<V> Child<V> {
    fn try_map<W, E>(&self, f: &mut impl FnMut(&V) -> Result<W, E>) -> Result<Child<W>, E> {
        let bucket = self.bucket.as_ref().map(f).transpose()?;
        Ok(Child { bucket, count: self.count, low: self.low })
    }
}

impl<V> Bucket<V> {
    pub fn values(&self) -> Box<dyn Iterator<Item = &V> + '_> {
        match &self.content {
            Content::Branches(children) => Box::new(children.iter().filter_map(|child| child.bucket.as_ref())),
            Content::Elements(elements) => Box::new(elements.iter()),
            Content::Entries(entries) => Box::new(entries.iter().flatten().flat_map(|(_, key, value)| [key, value])),
            Content::Places(_) => Box::new(std::iter::empty()),
        }
    }

    pub fn len(&self) -> usize {
        match &self.content {
            Content::Branches(children) => children.len(),
            Content::Elements(elements) => elements.len(),
            Content::Entries(entries) => entries.len(),
            Content::Places(places) => places.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn try_map<W, E>(&self, f: &mut impl FnMut(&V) -> Result<W, E>) -> Result<Bucket<W>, E> {
        let content = match &self.content {
            Content::Branches(children) => {
                Content::Branches(children.iter().map(|child| child.try_map(f)).collect::<Result<_, _>>()?)
            }
            Content::Elements(elements) => Content::Elements(elements.iter().map(f).collect::<Result<_, _>>()?),
            Content::Entries(entries) => {
                let mut entry = |(hash, key, value): &(u64, V, V)| Ok((*hash, f(key)?, f(value)?));
                let entries = entries.iter().map(|place| place.as_ref().map(&mut entry).transpose());
                Content::Entries(entries.collect::<Result<_, _>>()?)
            }
            Content::Places(places) => Content::Places(places.clone()),
        };
        Ok(Bucket { owner: self.owner, content })
    }
}

/// Places as bytes: of each the difference of its hash from the one before, then the place, seven bits a byte from the
/// lowest on, the last byte without the high bit. A new key changes a bucket of places wherever its hash lies, so these
/// are most of what a turn with many new keys writes.
mod packed {
    use serde::{Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(places: &[(u64, u64)], to: S) -> Result<S::Ok, S::Error> {
        let mut bytes = Vec::with_capacity(places.len() * 8);
        let mut last = 0;
        for (hash, place) in places {
            [hash.wrapping_sub(last), *place].into_iter().for_each(|number| put(number, &mut bytes));
            last = *hash;
        }
        serde_bytes::serialize(&bytes, to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<(u64, u64)>, D::Error> {
        let bytes: Vec<u8> = serde_bytes::deserialize(from)?;
        let (mut rest, mut last, mut places) = (bytes.as_slice(), 0_u64, Vec::new());
        while !rest.is_empty() {
            let mut number = || take(&mut rest).ok_or_else(|| D::Error::custom("places end within a number"));
            last = last.wrapping_add(number()?);
            places.push((last, number()?));
        }
        Ok(places)
    }

    fn put(mut number: u64, bytes: &mut Vec<u8>) {
        while number > 0x7f {
            bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        bytes.push(number as u8);
    }

    fn take(bytes: &mut &[u8]) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = bytes.split_first()?;
            *bytes = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }
}

/// What the buckets of one level hold.
pub trait Kind {
    type Item<V>;
    /// Most items of a bucket.
    const MOST: usize;

    fn items<V>(content: &Content<V>) -> Option<&Vec<Self::Item<V>>>;

    fn items_mut<V>(content: &mut Content<V>) -> Option<&mut Vec<Self::Item<V>>>;

    fn content<V>(items: Vec<Self::Item<V>>) -> Content<V>;

    /// What the item counts for in the bucket above.
    fn count<V>(_: &Self::Item<V>) -> u64 {
        1
    }

    /// The smallest hash of an item, if it has one.
    fn low<V>(_: &Self::Item<V>) -> u64 {
        0
    }

    /// Bytes of which a bucket should not have too many.
    fn bytes<V>(_: &Self::Item<V>, _value: &impl Fn(&V) -> usize) -> usize {
        0
    }
}

pub struct Branches;
pub struct Elements;
pub struct Entries;
pub struct Places;

/// What a kind is in `Content`.
macro_rules! variant {
    ($name:ident) => {
        fn items<V>(content: &Content<V>) -> Option<&Vec<Self::Item<V>>> {
            match content {
                Content::$name(items) => Some(items),
                _ => None,
            }
        }

        fn items_mut<V>(content: &mut Content<V>) -> Option<&mut Vec<Self::Item<V>>> {
            match content {
                Content::$name(items) => Some(items),
                _ => None,
            }
        }

        fn content<V>(items: Vec<Self::Item<V>>) -> Content<V> {
            Content::$name(items)
        }
    };
}

impl Kind for Branches {
    type Item<V> = Child<V>;
    const MOST: usize = BRANCH;
    variant!(Branches);

    fn count<V>(child: &Child<V>) -> u64 {
        child.count
    }

    fn low<V>(child: &Child<V>) -> u64 {
        child.low
    }
}

impl Kind for Elements {
    type Item<V> = V;
    const MOST: usize = LEAF;
    variant!(Elements);

    fn bytes<V>(element: &V, value: &impl Fn(&V) -> usize) -> usize {
        value(element)
    }
}

impl Kind for Entries {
    type Item<V> = Entry<V>;
    const MOST: usize = LEAF;
    variant!(Entries);

    fn bytes<V>(entry: &Entry<V>, bytes: &impl Fn(&V) -> usize) -> usize {
        entry.as_ref().map_or(0, |(_, key, value)| bytes(key) + bytes(value))
    }
}

impl Kind for Places {
    type Item<V> = (u64, u64);
    const MOST: usize = LEAF;
    variant!(Places);

    fn count<V>(_: &(u64, u64)) -> u64 {
        0
    }

    fn low<V>(place: &(u64, u64)) -> u64 {
        place.0
    }
}

/// What items count for together.
pub fn total<K: Kind, V>(items: &[K::Item<V>]) -> u64 {
    items.iter().map(K::count).fold(0, u64::saturating_add)
}

/// Where too many or too large items of a bucket are cut: the ends of the parts. One part is left as it is. `appended`:
/// the last item was added behind all others of the tree, where more will come; so the first part stays full.
pub fn cuts<K: Kind, V>(items: &[K::Item<V>], value: impl Fn(&V) -> usize, appended: bool) -> Vec<usize> {
    let bytes = |item: &K::Item<V>| K::bytes(item, &value);
    if items.len() <= K::MOST && (items.len() <= 1 || items.iter().map(bytes).sum::<usize>() <= LEAF_BYTES) {
        return vec![items.len()];
    }
    let most = if appended { K::MOST } else { items.len().div_ceil(2).min(K::MOST) };
    let mut ends = Vec::new();
    let (mut start, mut held) = (0, 0);
    for (at, item) in items.iter().enumerate() {
        let more = bytes(item);
        if at > start && (at - start == most || held + more > LEAF_BYTES) {
            ends.push(at);
            (start, held) = (at, 0);
        }
        held += more;
    }
    ends.push(items.len());
    ends
}

/// Makes a tree of items in their order; `keep` makes a bucket and tells how to refer to it.
pub fn plant<K: Kind, V>(
    items: Vec<K::Item<V>>,
    value: impl Fn(&V) -> usize,
    keep: &mut impl FnMut(Content<V>) -> V,
) -> Tree<V> {
    let mut tree = Tree { height: 0, top: level::<K, V>(items, value, keep) };
    while tree.top.len() > TOP {
        tree = Tree { height: tree.height + 1, top: level::<Branches, V>(tree.top, |_| 0, keep) };
    }
    tree
}

/// The buckets that hold these items, as children of a level above.
fn level<K: Kind, V>(
    mut items: Vec<K::Item<V>>,
    value: impl Fn(&V) -> usize,
    keep: &mut impl FnMut(Content<V>) -> V,
) -> Vec<Child<V>> {
    let ends = if items.is_empty() { Vec::new() } else { cuts::<K, V>(&items, value, true) };
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let starts: Vec<usize> = starts.take(ends.len()).collect();
    let mut children: Vec<Child<V>> = starts
        .into_iter()
        .rev()
        .map(|start| {
            let part = items.split_off(start);
            let (count, low) = (total::<K, V>(&part), part.first().map_or(0, K::low));
            Child { bucket: Some(keep(K::content(part))), count, low }
        })
        .collect();
    children.reverse();
    children
}
