//! What a model is told. Of a sender's arguments it learns the types, never the values.

use batos_covenant::Example;
use batos_graph::{Record, SlotKind, Value};
use serde::Serialize;

const TASK: &str = "Write one method for an object of a living universe. The language has Self's objects with \
Smalltalk-80's syntax; the object's slots are read by sending their names to self and set by sending `name: value`. \
Answer with the method alone, as a slot: `selector: argument = ( statements. ^answer )`.";

/// One request to a model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prompt {
    pub task: &'static str,
    pub selector: String,
    /// Types of the arguments.
    pub arguments: Vec<String>,
    /// Data slots of the receiver with the types of their values.
    pub slots: Vec<(String, &'static str)>,
    /// Methods beside which the new one will stand.
    pub siblings: Vec<String>,
    /// Examples that the model may see.
    pub examples: Vec<Example>,
}

/// Longest sibling source that is shown, in bytes, and most siblings.
const MAX_SIBLING: usize = 2048;
const MAX_SIBLINGS: usize = 16;

impl Prompt {
    pub fn new(
        selector: &str,
        arguments: &[String],
        receiver: &Record,
        holder: &Record,
        examples: Vec<Example>,
    ) -> Self {
        let data = receiver.slots.iter().filter_map(|slot| match &slot.kind {
            SlotKind::Constant(value) | SlotKind::Assignable(value) => Some((slot.name.clone(), shape(value))),
            SlotKind::Parent(_) | SlotKind::Method(_) | SlotKind::Intent(_) => None,
        });
        let siblings = holder.slots.iter().filter_map(|slot| match &slot.kind {
            SlotKind::Method(source) if source.len() <= MAX_SIBLING => Some(source.clone()),
            _ => None,
        });
        Self {
            task: TASK,
            selector: selector.to_owned(),
            arguments: arguments.to_vec(),
            slots: data.collect(),
            siblings: siblings.take(MAX_SIBLINGS).collect(),
            examples,
        }
    }

    /// BLAKE3 of the request's JSON, in hexadecimal.
    pub fn digest(&self) -> String {
        let json = serde_json::to_vec(self).unwrap_or_default();
        blake3::hash(&json).to_hex().to_string()
    }
}

fn shape(value: &Value) -> &'static str {
    match value {
        Value::Nil => "nil",
        Value::Bool(_) => "boolean",
        Value::Int(_) | Value::BigInt(_) => "integer",
        Value::Float(_) => "float",
        Value::Str(_) => "string",
        Value::Symbol(_) => "symbol",
        Value::Char(_) => "character",
        Value::Fraction(..) => "fraction",
        Value::Ref(_) => "object",
    }
}
