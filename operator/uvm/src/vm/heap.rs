//! The heap of one turn: an arena of handles that is dropped with it. Objects of the graph come in when they are touched.
//!
//! An object has a map, the values of its data slots in `words`, and a body for what is no slot. Memory is counted by
//! what the program allocates, so that the count does not depend on faults; see `collect` for the limit.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use batos_graph::{Intent, ObjectId, Record, Rev};
use num_bigint::BigInt;

pub(super) use super::map::{Slot, SlotType};
use super::{
    big::{BigArray, BigTable},
    error::{Stop, limit},
    map::{MapId, Maps, reserved},
    op::Code,
    symbols::Symbols,
    table::Table,
    tree::{Bucket, bucket_bytes},
    value::{Handle, Kind, Symbol, Value},
};
use crate::image;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fraction {
    pub numerator: BigInt,
    pub denominator: BigInt,
}

/// What an object holds beside its slots.
#[derive(Debug, Clone)]
pub(super) enum Body {
    Plain,
    Array(Vec<Value>),
    Str(Arc<str>),
    Big(Arc<BigInt>),
    /// In lowest terms, with a denominator greater than 1.
    Fraction(Arc<Fraction>),
    Table(Box<Table>),
    /// An array in buckets.
    BigArray(Box<BigArray>),
    /// A table in buckets.
    BigTable(Box<BigTable>),
    /// A part of such a collection; no program sees it.
    Bucket(Box<Bucket>),
    /// A closure; its words are self, the context and the holder of the method.
    Block {
        /// Number of its code in this turn.
        code: u32,
        /// Serial number of the activation that `^` answers from.
        home: u64,
    },
    /// Captured variables; the first word is the context around.
    Context,
}

/// An object's place in the store.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub id: ObjectId,
    pub rev: Rev,
    pub record: Arc<Record>,
}

/// Where an object comes from.
#[derive(Debug, Clone)]
pub(super) enum Origin {
    /// Made in this turn; the number decides its id.
    New(u64),
    Stored(Box<Stored>),
}

#[derive(Debug)]
pub(super) struct Object {
    pub map: MapId,
    /// Its words begin here.
    pub at: u32,
    pub words: u32,
    pub dirty: bool,
    /// A lookup went through it: when its map changes, what was found is void.
    pub is_ancestor: bool,
    /// A string whose characters are bytes.
    pub is_ascii: bool,
    pub body: Body,
    pub origin: Origin,
}

impl Object {
    pub fn record(&self) -> Option<&Record> {
        match &self.origin {
            Origin::Stored(stored) => Some(&stored.record),
            Origin::New(_) => None,
        }
    }

    pub fn is_stored(&self) -> bool {
        matches!(self.origin, Origin::Stored(_))
    }
}

/// A place in the heap.
#[derive(Debug)]
pub(super) enum Cell {
    /// Known by id, not loaded.
    Outside(ObjectId),
    /// Not in the store, or gone, and then what is left has a revision.
    Absent(ObjectId, Option<Rev>),
    Here(Object),
    /// Was collected.
    Free,
}

/// A method slot's source.
pub(super) struct Method {
    pub name: Symbol,
    pub source: Arc<str>,
    pub is_kernel: bool,
    /// The intent that it was made from, or stands for.
    pub intent: Option<Arc<Intent>>,
    /// Number of its code in this turn, from the first activation on.
    pub code: Option<u32>,
}

/// How much a program has allocated and made.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Spent {
    allocated: usize,
    permanent: usize,
    created: u64,
    symbols: usize,
}

pub(super) struct Heap {
    pub(super) cells: Vec<Cell>,
    pub(super) words: Vec<Value>,
    pub(super) free: Vec<u32>,
    pub(super) by_id: HashMap<ObjectId, Handle>,
    pub maps: Maps,
    pub methods: Vec<Method>,
    pub symbols: Symbols,
    /// Grows when a map changes that lookups rest on.
    pub epoch: u64,
    pub created: u64,
    /// Bytes that live objects had at the last collection, and all that was allocated since.
    pub allocated: usize,
    /// Bytes of it that no collection frees: methods and symbols that the program made.
    pub permanent: usize,
    /// Symbols that the program made of strings, in their order and as a set.
    made_symbols: (Vec<Symbol>, HashSet<Symbol>),
    /// The next safe point collects when more is allocated.
    pub threshold: usize,
    pub(super) limit: usize,
}

/// Bytes charged for an object beside its contents.
pub(super) const OBJECT_BYTES: usize = 64;
/// Bytes charged for a slot.
pub(super) const SLOT_BYTES: usize = 16;

/// Traits of the reserved maps, in their order.
const TRAITS: [ObjectId; 12] = [
    image::INTEGER_TRAITS,
    image::FLOAT_TRAITS,
    image::SYMBOL_TRAITS,
    image::CHARACTER_TRAITS,
    image::NIL,
    image::TRUE,
    image::FALSE,
    image::STRING_TRAITS,
    image::INTEGER_TRAITS,
    image::FRACTION_TRAITS,
    image::BLOCK_TRAITS,
    image::ARRAY_TRAITS,
];

impl Body {
    /// Whether it has elements, as arrays and ordered collections do.
    pub fn is_array(&self) -> bool {
        matches!(self, Self::Array(_) | Self::BigArray(_))
    }

    /// Whether the object is one of its own, with slots, rather than a value.
    pub fn is_object(&self) -> bool {
        matches!(self, Self::Plain | Self::Array(_) | Self::Table(_) | Self::BigArray(_) | Self::BigTable(_))
    }

    /// Bytes beside the object's own.
    pub fn bytes(&self) -> usize {
        let bits = |n: &BigInt| usize::try_from(n.bits() / 8).unwrap_or(usize::MAX);
        match self {
            Self::Array(elements) => elements.len() * 8,
            Self::Str(text) => text.len(),
            Self::Big(n) => bits(n),
            Self::Fraction(n) => bits(&n.numerator).saturating_add(bits(&n.denominator)),
            Self::Table(table) => table.bytes(),
            Self::BigArray(array) => array.bytes(),
            Self::BigTable(table) => table.bytes(),
            Self::Bucket(bucket) => bucket_bytes(bucket),
            Self::Plain | Self::Block { .. } | Self::Context => 0,
        }
    }
}

impl Heap {
    pub fn new(limit: usize) -> Self {
        let mut cells = Vec::with_capacity(256);
        let mut by_id = HashMap::new();
        let traits: Vec<Handle> = TRAITS.iter().map(|id| refer(&mut cells, &mut by_id, *id)).collect();
        Self {
            cells,
            words: Vec::with_capacity(1024),
            free: Vec::new(),
            by_id,
            maps: Maps::new(traits),
            methods: Vec::new(),
            symbols: Symbols::current(),
            epoch: 0,
            created: 0,
            allocated: 0,
            permanent: 0,
            made_symbols: Default::default(),
            threshold: step(limit),
            limit,
        }
    }

    /// Charges memory before it is taken.
    #[inline]
    pub fn charge(&mut self, bytes: usize) -> Result<(), Stop> {
        self.allocated = self.allocated.saturating_add(bytes);
        // Garbage may be among it until the next safe point; what is live there is held against the limit itself.
        match self.allocated > self.limit.saturating_mul(3) || bytes > self.limit {
            true => self.too_large(),
            false => Ok(()),
        }
    }

    #[cold]
    pub(super) fn too_large<T>(&self) -> Result<T, Stop> {
        limit(format!("the turn needs more than {} bytes of memory", self.limit))
    }

    /// Charges memory that the turn keeps to its end.
    pub fn charge_for_good(&mut self, bytes: usize) -> Result<(), Stop> {
        self.charge(bytes)?;
        self.permanent += bytes;
        Ok(())
    }

    /// The symbol of a text that the program made.
    pub fn make_symbol(&mut self, text: &str) -> Result<Symbol, Stop> {
        let symbol = self.symbols.intern(text);
        if self.made_symbols.1.insert(symbol) {
            self.made_symbols.0.push(symbol);
            self.charge_for_good(OBJECT_BYTES + text.len())?;
        }
        Ok(symbol)
    }

    /// What an op gives back when it has to start again: see `give_back`.
    pub fn spent(&self) -> Spent {
        let (allocated, permanent, created) = (self.allocated, self.permanent, self.created);
        Spent { allocated, permanent, created, symbols: self.made_symbols.0.len() }
    }

    pub fn give_back(&mut self, before: Spent) {
        (self.allocated, self.permanent, self.created) = (before.allocated, before.permanent, before.created);
        let (order, set) = &mut self.made_symbols;
        order.drain(before.symbols.min(order.len())..).for_each(|symbol| {
            set.remove(&symbol);
        });
    }

    pub(super) fn push(&mut self, object: Object) -> Handle {
        match self.free.pop() {
            Some(place) => {
                if let Some(cell) = self.cells.get_mut(place as usize) {
                    *cell = Cell::Here(object);
                }
                Handle(place)
            }
            None => push(&mut self.cells, Cell::Here(object)),
        }
    }

    /// A new object of a map that is known; its words follow.
    #[inline]
    pub fn allocate(&mut self, map: MapId, body: Body, words: &[Value]) -> Result<Handle, Stop> {
        self.charge(OBJECT_BYTES + words.len() * 8)?;
        self.created += 1;
        Ok(self.place(map, body, words, Origin::New(self.created)))
    }

    pub(super) fn place(&mut self, map: MapId, body: Body, words: &[Value], origin: Origin) -> Handle {
        let at = self.words.len() as u32;
        self.words.extend_from_slice(words);
        let words = words.len() as u32;
        let is_ascii = matches!(&body, Body::Str(text) if text.is_ascii());
        self.push(Object { map, at, words, dirty: false, is_ancestor: false, is_ascii, body, origin })
    }

    /// A new object.
    pub fn create(&mut self, slots: Vec<Slot>, body: Body) -> Result<Handle, Stop> {
        self.charge(body.bytes().saturating_add(slots.len() * SLOT_BYTES))?;
        let (map, data) = self.shape(&slots, &body);
        self.allocate(map, body, &data)
    }

    pub fn string(&mut self, text: &str) -> Result<Value, Stop> {
        self.text_of(Arc::from(text))
    }

    /// A string of a text that is there already.
    pub fn text_of(&mut self, text: Arc<str>) -> Result<Value, Stop> {
        self.charge(text.len())?;
        self.allocate(reserved::STR, Body::Str(text), &[]).map(Value::object)
    }

    pub fn array(&mut self, elements: Vec<Value>) -> Result<Value, Stop> {
        self.charge(elements.len() * 8)?;
        self.allocate(reserved::ARRAY, Body::Array(elements), &[]).map(Value::object)
    }

    /// An integer of any size.
    pub fn integer(&mut self, n: BigInt) -> Result<Value, Stop> {
        match i64::try_from(&n).ok().and_then(Value::int) {
            Some(value) => Ok(value),
            None => self.create(Vec::new(), Body::Big(Arc::new(n))).map(Value::object),
        }
    }

    /// The place of an object of the graph, loaded or not.
    pub fn refer(&mut self, id: ObjectId) -> Handle {
        refer(&mut self.cells, &mut self.by_id, id)
    }

    /// Whether the last collection has left it.
    pub fn is_live(&self, handle: Handle) -> bool {
        !matches!(self.cells.get(handle.0 as usize), None | Some(Cell::Free))
    }

    /// The object, if it is loaded; else what the turn has to ask for.
    #[inline]
    pub fn get(&self, handle: Handle) -> Result<&Object, Stop> {
        match self.cells.get(handle.0 as usize) {
            Some(Cell::Here(object)) => Ok(object),
            other => Err(missing(other)),
        }
    }

    #[inline]
    pub fn get_mut(&mut self, handle: Handle) -> Result<&mut Object, Stop> {
        match self.cells.get_mut(handle.0 as usize) {
            Some(Cell::Here(object)) => Ok(object),
            other => Err(missing(other.as_deref())),
        }
    }

    /// The map that lookup goes by; an object of the graph has to be loaded.
    pub fn map_of(&self, value: Value) -> Result<MapId, Stop> {
        match value.as_object() {
            Some(handle) => Ok(self.get(handle)?.map),
            None => Ok(map_of_plain(value)),
        }
    }

    /// Word number `index` of an object that is loaded.
    #[inline]
    pub fn word(&self, handle: Handle, index: usize) -> Value {
        match self.cells.get(handle.0 as usize) {
            Some(Cell::Here(object)) => self.words.get(object.at as usize + index).copied().unwrap_or(Value::NIL),
            _ => Value::NIL,
        }
    }

    #[inline]
    pub fn set_word(&mut self, handle: Handle, index: usize, value: Value) {
        if let Some(Cell::Here(object)) = self.cells.get_mut(handle.0 as usize) {
            object.dirty = true;
            if let Some(word) = self.words.get_mut(object.at as usize + index) {
                *word = value;
            }
        }
    }

    /// The id of an object that is in the graph, or will be.
    pub fn id_of(&self, handle: Handle, seed: &[u8; 32]) -> Option<ObjectId> {
        match self.cells.get(handle.0 as usize)? {
            Cell::Outside(id) | Cell::Absent(id, _) => Some(*id),
            Cell::Free => None,
            Cell::Here(Object { origin: Origin::Stored(stored), .. }) => Some(stored.id),
            Cell::Here(Object { origin: Origin::New(number), .. }) => {
                let mut bytes = [0; 16];
                let hash = blake3::keyed_hash(seed, &number.to_be_bytes());
                bytes.copy_from_slice(hash.as_bytes().split_at(16).0);
                Some(ObjectId(bytes))
            }
        }
    }

    /// A context of `count` variables that are nil.
    #[inline]
    pub fn context(&mut self, outer: Value, count: usize) -> Result<Value, Stop> {
        self.charge(OBJECT_BYTES + count * 8)?;
        self.created += 1;
        let at = self.words.len() as u32;
        self.words.push(outer);
        self.words.resize(at as usize + 1 + count, Value::NIL);
        Ok(Value::object(self.push(Object {
            map: reserved::EMPTY,
            at,
            words: count as u32 + 1,
            dirty: false,
            is_ancestor: false,
            is_ascii: false,
            body: Body::Context,
            origin: Origin::New(self.created),
        })))
    }

    /// Whether two values are the same; `None` for values of objects, which `_Identical:` compares.
    #[inline]
    pub fn identical(&self, left: Value, right: Value) -> Option<bool> {
        if left == right {
            return Some(true);
        }
        match (left.as_object(), right.as_object()) {
            (Some(left), Some(_)) => match self.cells.get(left.0 as usize) {
                Some(Cell::Here(object)) if object.body.is_object() => Some(false),
                _ => None,
            },
            _ => Some(false),
        }
    }

    /// The text of a string or symbol.
    pub fn text(&self, value: Value) -> Result<Option<&str>, Stop> {
        Ok(match value.kind() {
            Kind::Symbol(symbol) => Some(self.symbols.name(symbol)),
            Kind::Object(handle) => match &self.get(handle)?.body {
                Body::Str(text) => Some(text),
                _ => None,
            },
            _ => None,
        })
    }
}

/// The map of a value that is no object.
#[inline]
pub(super) fn map_of_plain(value: Value) -> MapId {
    match value.kind() {
        Kind::Int(_) => reserved::INT,
        Kind::Float(_) => reserved::FLOAT,
        Kind::Symbol(_) => reserved::SYMBOL,
        Kind::Char(_) => reserved::CHAR,
        Kind::Nil => reserved::NIL,
        Kind::Bool(true) => reserved::TRUE,
        Kind::Bool(false) => reserved::FALSE,
        Kind::Object(_) => reserved::NONE,
    }
}

/// Bytes that are allocated between two collections at least.
pub(super) fn step(limit: usize) -> usize {
    (limit / 4).min(4 << 20)
}

fn push(cells: &mut Vec<Cell>, cell: Cell) -> Handle {
    cells.push(cell);
    Handle(u32::try_from(cells.len() - 1).unwrap_or(u32::MAX))
}

fn refer(cells: &mut Vec<Cell>, by_id: &mut HashMap<ObjectId, Handle>, id: ObjectId) -> Handle {
    *by_id.entry(id).or_insert_with(|| push(cells, Cell::Outside(id)))
}

/// Why there is no object in this place.
#[cold]
fn missing(cell: Option<&Cell>) -> Stop {
    match cell {
        Some(Cell::Outside(id)) => Stop::Object(*id),
        Some(Cell::Absent(id, _)) => {
            let kind = batos_covenant::ErrorKind::NoSuchObject;
            Stop::Fail(super::VmError::new(kind, format!("no object {id} in this universe")))
        }
        _ => Stop::Fail(super::VmError::new(batos_covenant::ErrorKind::Internal, "a handle without an object")),
    }
}

/// Code that a turn has linked, with the place of its inline caches.
pub(super) struct Linked {
    pub code: Arc<Code>,
    /// Number of its first cache.
    pub caches: u32,
    /// Numbers of its blocks' code, once they are linked.
    pub blocks: Vec<Option<u32>>,
    /// What its object literals made last.
    pub objects: Vec<Option<Arc<ObjectShape>>>,
}

/// The shape of an object that a literal made, for the next one with the same parents.
#[derive(Debug)]
pub(super) struct ObjectShape {
    pub epoch: u64,
    pub parents: Vec<Value>,
    /// Entries of the method table, in the order of the method slots.
    pub methods: Vec<Value>,
    pub map: MapId,
}

#[cfg(test)]
mod tests {
    #[test]
    fn cells_are_small() {
        assert!(size_of::<super::Cell>() <= 64, "{}", size_of::<super::Cell>());
    }
}
