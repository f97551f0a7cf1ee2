//! The heap of one turn: an arena that is dropped with it. Objects of the graph come in when they are touched.

use std::{collections::HashMap, sync::Arc};

use batos_graph::{self as graph, ObjectId, Payload, Record, Rev, SlotKind};
use num_bigint::BigInt;

use super::{
    error::{Stop, limit},
    op::Code,
    value::{Handle, Kind, Symbol, Value},
};

/// Symbols of one turn.
#[derive(Default)]
pub(super) struct Symbols {
    names: Vec<Arc<str>>,
    indices: HashMap<Arc<str>, Symbol>,
}

impl Symbols {
    pub fn intern(&mut self, name: &str) -> Symbol {
        if let Some(symbol) = self.indices.get(name) {
            return *symbol;
        }
        let symbol = Symbol(u32::try_from(self.names.len()).unwrap_or(u32::MAX));
        let name: Arc<str> = Arc::from(name);
        self.names.push(name.clone());
        self.indices.insert(name, symbol);
        symbol
    }

    pub fn name(&self, symbol: Symbol) -> &str {
        self.names.get(symbol.0 as usize).map_or("", |name| name)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SlotType {
    Constant,
    Assignable,
    Parent,
    /// The value is the method's index in the heap's table.
    Method,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    pub name: Symbol,
    pub kind: SlotType,
    pub value: Value,
}

/// A block's closure.
#[derive(Debug, Clone)]
pub(super) struct Closure {
    pub code: Arc<Code>,
    pub me: Value,
    pub holder: Option<Handle>,
    /// Context of the activation that made it.
    pub context: Option<Handle>,
    /// Serial number of the method activation that `^` answers from.
    pub home: u64,
}

/// What an object holds beside its slots.
#[derive(Debug, Clone)]
pub(super) enum Body {
    Plain,
    Array(Vec<Value>),
    Str(Arc<str>),
    Big(Arc<BigInt>),
    Block(Arc<Closure>),
    /// Captured variables, with the context around.
    Context {
        variables: Vec<Value>,
        outer: Option<Handle>,
    },
}

/// Where an object comes from.
#[derive(Debug, Clone)]
pub(super) enum Origin {
    /// Made in this turn; the number decides its id.
    New(u64),
    Stored {
        id: ObjectId,
        rev: Rev,
        record: Arc<Record>,
    },
}

#[derive(Debug, Clone)]
pub(super) struct Object {
    pub slots: Vec<Slot>,
    pub body: Body,
    pub origin: Origin,
    pub dirty: bool,
}

/// A place in the heap.
pub(super) enum Cell {
    /// Known by id, not loaded.
    Outside(ObjectId),
    /// Not in the store.
    Absent(ObjectId),
    Here(Object),
}

/// A method slot's source, compiled at its first activation.
pub(super) struct Method {
    pub name: Symbol,
    pub source: Arc<str>,
    pub is_kernel: bool,
    pub code: Option<Arc<Code>>,
}

pub(super) struct Heap {
    cells: Vec<Cell>,
    by_id: HashMap<ObjectId, Handle>,
    pub methods: Vec<Method>,
    pub symbols: Symbols,
    created: u64,
    bytes: usize,
    limit: usize,
}

/// Bytes charged for an object beside its contents.
const OBJECT_BYTES: usize = 96;

impl Heap {
    pub fn new(limit: usize) -> Self {
        Self {
            cells: Vec::new(),
            by_id: HashMap::new(),
            methods: Vec::new(),
            symbols: Symbols::default(),
            created: 0,
            bytes: 0,
            limit,
        }
    }

    /// Charges memory before it is taken.
    pub fn charge(&mut self, bytes: usize) -> Result<(), Stop> {
        self.bytes = self.bytes.saturating_add(bytes);
        match self.bytes > self.limit {
            true => limit(format!("the turn needs more than {} bytes of memory", self.limit)),
            false => Ok(()),
        }
    }

    fn push(&mut self, cell: Cell) -> Handle {
        self.cells.push(cell);
        Handle(u32::try_from(self.cells.len() - 1).unwrap_or(u32::MAX))
    }

    /// A new object.
    pub fn create(&mut self, slots: Vec<Slot>, body: Body) -> Result<Handle, Stop> {
        let contents = match &body {
            Body::Array(elements) => elements.len() * 8,
            Body::Str(text) => text.len(),
            Body::Big(n) => usize::try_from(n.bits() / 8).unwrap_or(usize::MAX),
            Body::Context { variables, .. } => variables.len() * 8,
            Body::Plain | Body::Block(_) => 0,
        };
        self.charge(OBJECT_BYTES.saturating_add(contents).saturating_add(slots.len() * 24))?;
        self.created += 1;
        let origin = Origin::New(self.created);
        Ok(self.push(Cell::Here(Object { slots, body, origin, dirty: false })))
    }

    pub fn string(&mut self, text: &str) -> Result<Value, Stop> {
        self.create(Vec::new(), Body::Str(Arc::from(text))).map(Value::object)
    }

    pub fn array(&mut self, elements: Vec<Value>) -> Result<Value, Stop> {
        self.create(Vec::new(), Body::Array(elements)).map(Value::object)
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
        if let Some(handle) = self.by_id.get(&id) {
            return *handle;
        }
        let handle = self.push(Cell::Outside(id));
        self.by_id.insert(id, handle);
        handle
    }

    /// The object, if it is loaded; else what the turn has to ask for.
    pub fn get(&self, handle: Handle) -> Result<&Object, Stop> {
        match self.cells.get(handle.0 as usize) {
            Some(Cell::Here(object)) => Ok(object),
            Some(Cell::Outside(id)) => Err(Stop::Object(*id)),
            Some(Cell::Absent(id)) => Err(no_such_object(*id)),
            None => limit("the turn's heap is full"),
        }
    }

    pub fn get_mut(&mut self, handle: Handle) -> Result<&mut Object, Stop> {
        match self.cells.get_mut(handle.0 as usize) {
            Some(Cell::Here(object)) => Ok(object),
            Some(Cell::Outside(id)) => Err(Stop::Object(*id)),
            Some(Cell::Absent(id)) => Err(no_such_object(*id)),
            None => limit("the turn's heap is full"),
        }
    }

    /// Puts what the store holds under `id` into its place.
    pub fn supply(&mut self, id: ObjectId, found: Option<(Rev, Arc<Record>)>) {
        let handle = self.refer(id);
        let cell = match found {
            Some((rev, record)) => Cell::Here(self.object_of(id, rev, record)),
            None => Cell::Absent(id),
        };
        if let Some(place) = self.cells.get_mut(handle.0 as usize) {
            *place = cell;
        }
    }

    fn object_of(&mut self, id: ObjectId, rev: Rev, record: Arc<Record>) -> Object {
        let mut slots = Vec::with_capacity(record.slots.len());
        for slot in &record.slots {
            let name = self.symbols.intern(&slot.name);
            let (kind, value) = match &slot.kind {
                SlotKind::Constant(value) => (SlotType::Constant, self.value_of(value)),
                SlotKind::Assignable(value) => (SlotType::Assignable, self.value_of(value)),
                SlotKind::Parent(value) => (SlotType::Parent, self.value_of(value)),
                SlotKind::Method(source) => {
                    (SlotType::Method, self.method(name, Arc::from(source.as_str()), record.is_kernel))
                }
            };
            slots.push(Slot { name, kind, value });
        }
        let body = match &record.payload {
            Payload::None => Body::Plain,
            Payload::Array(elements) => Body::Array(elements.iter().map(|element| self.value_of(element)).collect()),
        };
        Object { slots, body, origin: Origin::Stored { id, rev, record }, dirty: false }
    }

    /// Enters a method into the table; the answer is a method slot's value.
    pub fn method(&mut self, name: Symbol, source: Arc<str>, is_kernel: bool) -> Value {
        self.methods.push(Method { name, source, is_kernel, code: None });
        i64::try_from(self.methods.len() - 1).ok().and_then(Value::int).unwrap_or(Value::NIL)
    }

    /// A stored value in this heap. What the store holds fits: it was charged when it was made.
    fn value_of(&mut self, value: &graph::Value) -> Value {
        let body = match value {
            graph::Value::Nil => return Value::NIL,
            graph::Value::Bool(b) => return Value::bool(*b),
            graph::Value::Float(x) => return Value::float(*x),
            graph::Value::Symbol(name) => return Value::symbol(self.symbols.intern(name)),
            graph::Value::Ref(id) => return Value::object(self.refer(*id)),
            graph::Value::Str(text) => Body::Str(Arc::from(text.as_str())),
            graph::Value::BigInt(digits) => Body::Big(Arc::new(digits.parse().unwrap_or_default())),
            graph::Value::Int(n) => match Value::int(*n) {
                Some(value) => return value,
                None => Body::Big(Arc::new(BigInt::from(*n))),
            },
        };
        let object = Object { slots: Vec::new(), body, origin: Origin::New(0), dirty: false };
        Value::object(self.push(Cell::Here(object)))
    }

    /// What the turn read: every object that came in or was found absent.
    pub fn reads(&self) -> Vec<(ObjectId, Option<Rev>)> {
        let mut reads: Vec<_> = self
            .cells
            .iter()
            .filter_map(|cell| match cell {
                Cell::Here(Object { origin: Origin::Stored { id, rev, .. }, .. }) => Some((*id, Some(*rev))),
                Cell::Absent(id) => Some((*id, None)),
                Cell::Here(_) | Cell::Outside(_) => None,
            })
            .collect();
        reads.sort();
        reads
    }

    /// Handles of the stored objects that this turn changed.
    pub fn dirty(&self) -> Vec<Handle> {
        let changed =
            |cell: &Cell| matches!(cell, Cell::Here(Object { origin: Origin::Stored { .. }, dirty: true, .. }));
        let places = (0..).map(Handle).zip(&self.cells);
        places.filter(|(_, cell)| changed(cell)).map(|(handle, _)| handle).collect()
    }

    /// The id of an object that is in the graph, or will be.
    pub fn id_of(&self, handle: Handle, seed: &[u8; 32]) -> Option<ObjectId> {
        match self.cells.get(handle.0 as usize)? {
            Cell::Outside(id) | Cell::Absent(id) => Some(*id),
            Cell::Here(Object { origin: Origin::Stored { id, .. }, .. }) => Some(*id),
            Cell::Here(Object { origin: Origin::New(number), .. }) => {
                let mut bytes = [0; 16];
                let hash = blake3::keyed_hash(seed, &number.to_be_bytes());
                bytes.copy_from_slice(hash.as_bytes().split_at(16).0);
                Some(ObjectId(bytes))
            }
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

fn no_such_object(id: ObjectId) -> Stop {
    let kind = batos_covenant::ErrorKind::NoSuchObject;
    Stop::Fail(super::VmError::new(kind, format!("no object {id} in this universe")))
}
