//! Records: what an object is on disk.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize, Serializer, ser::SerializeStruct};

use crate::{
    ObjectId,
    bucket::{BigArray, BigTable, Bucket, MAX_HEIGHT},
};

/// Newest format tag of records; a reader refuses newer ones.
pub const FORMAT: u8 = 4;
/// What a record is written as that has neither buckets nor outcomes nor contracts: older binaries read it.
const PLAIN: u8 = 1;
const BUCKETS: u8 = 2;
const OUTCOMES: u8 = 3;
/// Largest encoded record, in bytes.
pub const MAX_RECORD: usize = 256 * 1024;

/// Deepest nesting that is read; a record needs some ten levels.
const MAX_DEPTH: usize = 64;

/// A stored value. Objects are referred to by id; strings and symbols are values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Value {
    Nil,
    Bool(bool),
    Int(i64),
    /// Integers beyond 64 bits: sign and magnitude as decimal text.
    BigInt(String),
    Float(f64),
    Str(String),
    Symbol(String),
    Char(char),
    /// Numerator and denominator as decimal text, in lowest terms; the denominator is greater than 1.
    Fraction(String, String),
    Ref(ObjectId),
}

impl Value {
    /// What it takes in a record, in bytes, at most.
    pub fn bytes(&self) -> usize {
        match self {
            Self::BigInt(text) | Self::Str(text) | Self::Symbol(text) => 16 + text.len(),
            Self::Fraction(numerator, denominator) => 32 + numerator.len() + denominator.len(),
            Self::Ref(_) => 40,
            _ => 16,
        }
    }
}

/// What a slot is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum SlotKind {
    Constant(Value),
    Assignable(Value),
    /// A parent slot; lookup goes on in the object it refers to.
    Parent(Value),
    /// A method, by its canonical source (`deposit: n = ( … )`).
    Method(String),
    /// Behaviour that people described, and the method that was made of it.
    Intent(Box<Intent>),
}

/// A method to be made from its description when it is first sent.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Intent {
    pub text: String,
    /// Names of the arguments, one for each that the selector takes.
    pub arguments: Vec<String>,
    /// What a method is judged by: JSON of `Vec<Example>`.
    pub examples: String,
    /// Canonical source of the method that was made; a change of the intent takes it away.
    pub compiled: Option<String>,
    /// No method is made, a model answers each time: JSON of `OutcomeDefinition`.
    #[serde(default)]
    pub outcome: Option<String>,
    /// What a method must keep wherever it is tried: JSON of `ContractDefinition`.
    #[serde(default)]
    pub contract: Option<String>,
}

/// A record's fields have no names, so that only the last ones may be left out: as many as the record's format lacks.
impl Serialize for Intent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { text, arguments, examples, compiled, outcome, contract } = self;
        let fields = if contract.is_some() { 6 } else { 4 + usize::from(outcome.is_some()) };
        let mut intent = serializer.serialize_struct("Intent", fields)?;
        intent.serialize_field("text", text)?;
        intent.serialize_field("arguments", arguments)?;
        intent.serialize_field("examples", examples)?;
        intent.serialize_field("compiled", compiled)?;
        if fields > 4 {
            intent.serialize_field("outcome", outcome)?;
        }
        if fields > 5 {
            intent.serialize_field("contract", contract)?;
        }
        intent.end()
    }
}

impl SlotKind {
    /// Canonical source of the method that runs when the slot is sent, if there is one.
    pub fn method(&self) -> Option<&str> {
        match self {
            Self::Method(source) => Some(source),
            Self::Intent(intent) => intent.compiled.as_deref(),
            Self::Constant(_) | Self::Assignable(_) | Self::Parent(_) => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Slot {
    /// Selector of the slot: `balance`, `deposit:`, `+`. An assignable slot answers `name:` too.
    pub name: String,
    pub kind: SlotKind,
}

/// What an object holds beside its slots.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub enum Payload {
    #[default]
    None,
    /// Elements of an array.
    Array(Vec<Value>),
    /// Keys with their values, in the order in which they were added. Beside each the key's hash, sealed at insertion.
    Table(Vec<(u64, Value, Value)>),
    /// A closure.
    Block(Box<Block>),
    /// Variables that closures share, with the context around them (or nil).
    Context { outer: Value, variables: Vec<Value> },
    /// An array in buckets.
    BigArray(BigArray<Value>),
    /// A table in buckets.
    BigTable(BigTable<Value>),
    /// A part of such a collection.
    Bucket(Bucket<Value>),
}

/// A closure: its code, and what it was closed over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Block {
    /// Canonical source: `[ :x | x + y ]`.
    pub source: String,
    /// Names of the variables in the contexts around, the innermost context first.
    pub environment: Vec<Vec<String>>,
    /// Whether the image wrote it, which may name primitives.
    pub is_kernel: bool,
    pub me: Value,
    /// The object that holds the method in which the block was written, for resends; or nil.
    pub holder: Value,
    pub context: Value,
}

/// One object.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Name in the universe's directory, if it has one.
    pub name: Option<String>,
    /// Others delegate to it: made methods may be put here.
    pub is_trait: bool,
    /// Part of the image: only the Architect may change it.
    pub is_kernel: bool,
    pub slots: Vec<Slot>,
    pub payload: Payload,
    /// What the manifest said last (JSON of the definition), with its fence; empty for other objects.
    pub manifest: Option<Manifest>,
    /// What made this revision: verb, sender and id of a message.
    #[serde(default)]
    pub cause: Option<String>,
}

/// The last applied definition of a prototype.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub uid: String,
    pub generation: i64,
    pub term: i64,
    /// JSON of `PrototypeDefinition`.
    pub definition: String,
}

#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("record format {0} is newer than {FORMAT}: use a newer batos")]
    Newer(u8),
    #[error("record of {0} bytes is larger than {MAX_RECORD}")]
    TooLarge(usize),
    #[error("record damaged: {0}")]
    Damaged(String),
}

impl Record {
    pub fn encode(&self) -> Result<Vec<u8>, RecordError> {
        let mut bytes = vec![self.format()];
        rmp_serde::encode::write(&mut bytes, self).map_err(|e| RecordError::Damaged(e.to_string()))?;
        match bytes.len() > MAX_RECORD {
            true => Err(RecordError::TooLarge(bytes.len())),
            false => Ok(bytes),
        }
    }

    /// Of the trees that the record holds, the higher one's.
    fn height(&self) -> u32 {
        match &self.payload {
            Payload::BigArray(array) => array.elements.height,
            Payload::BigTable(table) => table.entries.height.max(table.places.height),
            _ => 0,
        }
    }

    fn format(&self) -> u8 {
        let has = |what: fn(&Intent) -> bool| {
            self.slots.iter().any(|slot| matches!(&slot.kind, SlotKind::Intent(intent) if what(intent)))
        };
        match self.payload {
            _ if has(|intent| intent.contract.is_some()) => FORMAT,
            _ if has(|intent| intent.outcome.is_some()) => OUTCOMES,
            Payload::BigArray(_) | Payload::BigTable(_) | Payload::Bucket(_) => BUCKETS,
            _ => PLAIN,
        }
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        match bytes.split_first() {
            Some((&(PLAIN..=FORMAT), rest)) => {
                let mut reader = rmp_serde::Deserializer::from_read_ref(rest);
                // What is damaged may nest deeper than the stack is.
                reader.set_max_depth(MAX_DEPTH);
                let record = Self::deserialize(&mut reader).map_err(|e| RecordError::Damaged(e.to_string()))?;
                match record.height() > MAX_HEIGHT {
                    true => Err(RecordError::Damaged(format!("a tree of {} levels", record.height()))),
                    false => Ok(record),
                }
            }
            Some((&format, _)) if format > FORMAT => Err(RecordError::Newer(format)),
            _ => Err(RecordError::Damaged("no format tag".to_owned())),
        }
    }

    /// Every value that the object holds, with its place.
    pub fn values(&self) -> impl Iterator<Item = (&str, &Value)> {
        let slots = self.slots.iter().filter_map(|slot| match &slot.kind {
            SlotKind::Constant(value) | SlotKind::Assignable(value) | SlotKind::Parent(value) => {
                Some((slot.name.as_str(), value))
            }
            SlotKind::Method(_) | SlotKind::Intent(_) => None,
        });
        let payload: Vec<&Value> = match &self.payload {
            Payload::None => Vec::new(),
            Payload::Array(elements) => elements.iter().collect(),
            Payload::Table(entries) => entries.iter().flat_map(|(_, key, value)| [key, value]).collect(),
            Payload::Block(block) => vec![&block.me, &block.holder, &block.context],
            Payload::Context { outer, variables } => std::iter::once(outer).chain(variables).collect(),
            Payload::BigArray(array) => array.elements.values().collect(),
            Payload::BigTable(table) => table.entries.values().chain(table.places.values()).collect(),
            Payload::Bucket(bucket) => bucket.values().collect(),
        };
        slots.chain(payload.into_iter().map(|value| ("an element", value)))
    }

    /// The objects that this one refers to. Those of the image are left out: everything refers to them, and they stay.
    pub fn targets(&self) -> BTreeSet<ObjectId> {
        let target = |(_, value): (_, &Value)| match value {
            Value::Ref(id) if !id.is_well_known() => Some(*id),
            _ => None,
        };
        self.values().filter_map(target).collect()
    }

    /// What is left of a prototype that was removed: it keeps the fence, so that nothing older brings it back, and its
    /// revisions go on if the prototype is made anew.
    pub fn is_gone(&self) -> bool {
        self.name.is_none() && self.manifest.is_some()
    }

    /// A collection whose elements are in buckets.
    pub fn is_in_buckets(&self) -> bool {
        matches!(self.payload, Payload::BigArray(_) | Payload::BigTable(_))
    }

    pub fn is_bucket(&self) -> bool {
        matches!(self.payload, Payload::Bucket(_))
    }

    pub fn slot(&self, name: &str) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.name == name)
    }
}
