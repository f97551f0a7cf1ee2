//! Records of the store as objects of a turn's heap.

use std::{convert::Infallible, sync::Arc};

use batos_graph::{self as graph, ObjectId, Payload, Record, Rev, SlotKind};
use num_bigint::BigInt;

use super::{
    big::{BigArray, BigTable},
    heap::{Body, Cell, Fraction, Heap, Object, Origin, Slot, SlotType, Stored},
    table::Table,
    tree::Tree,
    value::{Handle, Value},
};

impl Heap {
    /// Puts what the store holds under `id` into its place.
    /// A closure's code has the number `code` in this turn.
    pub fn supply(&mut self, id: ObjectId, found: Option<(Rev, Arc<Record>)>, code: Option<u32>) {
        let handle = self.refer(id);
        let cell = match found {
            Some((rev, record)) if record.is_gone() => Cell::Absent(id, Some(rev)),
            Some((rev, record)) => Cell::Here(self.object_of(id, rev, record, code)),
            None => Cell::Absent(id, None),
        };
        if let Some(place) = self.cells.get_mut(handle.0 as usize) {
            *place = cell;
        }
    }

    fn object_of(&mut self, id: ObjectId, rev: Rev, record: Arc<Record>, code: Option<u32>) -> Object {
        let mut slots = Vec::with_capacity(record.slots.len());
        for slot in &record.slots {
            let name = self.symbols.intern(&slot.name);
            let (kind, value) = match &slot.kind {
                SlotKind::Constant(value) => (SlotType::Constant, self.value_of(value)),
                SlotKind::Assignable(value) => (SlotType::Assignable, self.value_of(value)),
                SlotKind::Parent(value) => (SlotType::Parent, self.value_of(value)),
                SlotKind::Intent(intent) => (SlotType::Method, self.intent(name, intent)),
                SlotKind::Method(source) => {
                    (SlotType::Method, self.method(name, Arc::from(source.as_str()), record.is_kernel))
                }
            };
            slots.push(Slot { name, kind, value });
        }
        let body = match &record.payload {
            Payload::None => Body::Plain,
            Payload::Array(elements) => Body::Array(elements.iter().map(|element| self.value_of(element)).collect()),
            Payload::Table(entries) => {
                let mut table = Table::default();
                for (hash, key, value) in entries {
                    table.add(*hash, self.value_of(key), self.value_of(value));
                }
                Body::Table(Box::new(table))
            }
            // No activation has the serial number 0: `^` finds its method gone.
            Payload::Block(_) => code.map_or(Body::Plain, |code| Body::Block { code, home: 0 }),
            Payload::Context { .. } => Body::Context,
            Payload::BigArray(array) => {
                let elements = self.tree_of(&array.elements);
                Body::BigArray(Box::new(BigArray { owner: array.owner, lender: None, elements }))
            }
            Payload::BigTable(table) => {
                let (entries, places) = (self.tree_of(&table.entries), self.tree_of(&table.places));
                let (owner, live) = (table.owner, table.live);
                Body::BigTable(Box::new(BigTable { owner, lender: None, live, entries, places }))
            }
            Payload::Bucket(bucket) => {
                let Ok(bucket) = bucket.try_map(&mut |value| Ok::<_, Infallible>(self.value_of(value)));
                Body::Bucket(Box::new(bucket))
            }
        };
        let (map, mut data) = self.shape(&slots, &body);
        match &record.payload {
            Payload::Block(block) => {
                data.extend([&block.me, &block.context, &block.holder].map(|value| self.value_of(value)));
            }
            Payload::Context { outer, variables } => {
                data.extend(std::iter::once(outer).chain(variables).map(|value| self.value_of(value)));
            }
            _ => {}
        }
        let at = self.words.len() as u32;
        self.words.extend_from_slice(&data);
        let origin = Origin::Stored(Box::new(Stored { id, rev, record }));
        Object { map, at, words: data.len() as u32, dirty: false, is_ancestor: false, is_ascii: false, body, origin }
    }

    fn tree_of(&mut self, tree: &graph::bucket::Tree<graph::Value>) -> Tree {
        let Ok(tree) = tree.try_map(&mut |value| Ok::<_, Infallible>(self.value_of(value)));
        tree
    }

    /// A stored value in this heap. What the store holds fits: it was charged when it was made.
    pub(super) fn value_of(&mut self, value: &graph::Value) -> Value {
        let body = match value {
            graph::Value::Nil => return Value::NIL,
            graph::Value::Bool(b) => return Value::bool(*b),
            graph::Value::Float(x) => return Value::float(*x),
            graph::Value::Symbol(name) => return Value::symbol(self.symbols.intern(name)),
            graph::Value::Char(c) => return Value::char(*c),
            graph::Value::Ref(id) => return Value::object(self.refer(*id)),
            graph::Value::Str(text) => Body::Str(Arc::from(text.as_str())),
            graph::Value::BigInt(digits) => Body::Big(Arc::new(digits.parse().unwrap_or_default())),
            graph::Value::Fraction(n, d) => Body::Fraction(Arc::new(Fraction {
                numerator: n.parse().unwrap_or_default(),
                denominator: d.parse().unwrap_or_default(),
            })),
            graph::Value::Int(n) => match Value::int(*n) {
                Some(value) => return value,
                None => Body::Big(Arc::new(BigInt::from(*n))),
            },
        };
        let (map, _) = self.shape(&[], &body);
        Value::object(self.place(map, body, &[], Origin::New(0)))
    }

    /// What the turn read: every object that came in or was found absent.
    pub fn reads(&self) -> Vec<(ObjectId, Option<Rev>)> {
        let read = |(id, handle): (&ObjectId, &Handle)| match self.cells.get(handle.0 as usize) {
            Some(Cell::Here(Object { origin: Origin::Stored(stored), .. })) => Some((*id, Some(stored.rev))),
            Some(Cell::Absent(_, rev)) => Some((*id, *rev)),
            _ => None,
        };
        let mut reads: Vec<_> = self.by_id.iter().filter_map(read).collect();
        reads.sort();
        reads
    }

    /// The stored objects that this turn changed, in the order of their ids.
    pub fn dirty(&self) -> Vec<Handle> {
        let changed = |handle: Handle| matches!(self.get(handle), Ok(object) if object.dirty && object.is_stored());
        let mut dirty: Vec<_> = self.by_id.iter().filter(|(_, handle)| changed(**handle)).collect();
        dirty.sort();
        dirty.into_iter().map(|(_, handle)| *handle).collect()
    }
}
