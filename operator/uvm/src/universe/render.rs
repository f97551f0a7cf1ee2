//! Records as people and programs see them on the wire.

use std::collections::BTreeMap;

use batos_covenant::{FullState, UvmStateUpdateEvent, Wire};
use batos_graph::{ObjectId, Payload, Record, Rev, SlotKind, Value};
use serde_json::{Map, json};

/// A stored value on the wire.
pub(super) fn wire(value: &Value) -> Wire {
    match value {
        Value::Nil => Wire::Null,
        Value::Bool(b) => json!(b),
        Value::Int(n) => json!(n),
        Value::BigInt(digits) => json!({ "$int": digits }),
        Value::Float(x) => json!(x),
        Value::Str(text) | Value::Symbol(text) => json!(text),
        Value::Char(c) => json!(c),
        Value::Fraction(n, d) => json!(format!("{n}/{d}")),
        Value::Ref(id) => json!({ "$ref": id.to_string() }),
    }
}

/// A value from the wire as a slot holds it. Arrays and maps are objects of their own, which a manifest cannot make yet.
pub(super) fn stored(wire: &Wire) -> Result<Value, String> {
    Ok(match wire {
        Wire::Null => Value::Nil,
        Wire::Bool(b) => Value::Bool(*b),
        Wire::Number(n) => match (n.as_i64(), n.as_f64()) {
            (Some(n), _) => Value::Int(n),
            (None, _) if n.is_u64() => Value::BigInt(n.to_string()),
            (None, Some(x)) => Value::Float(x),
            (None, None) => return Err(format!("number {n} is out of range")),
        },
        Wire::String(text) => Value::Str(text.clone()),
        Wire::Object(map) => match map.get("$ref").and_then(Wire::as_str).map(str::parse) {
            Some(Ok(id)) if map.len() == 1 => Value::Ref(id),
            _ => return Err(format!("{wire} is neither a scalar nor {{\"$ref\": id}}")),
        },
        Wire::Array(_) => return Err(format!("{wire}: an array cannot be a slot's value in a manifest yet")),
    })
}

/// Data slots that events may show: names that begin with `_` are private.
fn public_state(record: &Record) -> Map<String, Wire> {
    let slots = record.slots.iter().filter(|slot| !slot.name.starts_with('_'));
    let mut state: Map<String, Wire> = slots
        .filter_map(|slot| match &slot.kind {
            SlotKind::Constant(value) | SlotKind::Assignable(value) => Some((slot.name.clone(), wire(value))),
            SlotKind::Parent(_) | SlotKind::Method(_) | SlotKind::Intent(_) => None,
        })
        .collect();
    let elements = match &record.payload {
        Payload::None | Payload::Block(_) | Payload::Context { .. } => return state,
        Payload::Array(elements) => elements.iter().map(wire).collect(),
        Payload::Table(entries) => entries.iter().map(|(_, key, value)| json!([wire(key), wire(value)])).collect(),
    };
    state.insert("elements".to_owned(), Wire::Array(elements));
    state
}

/// How an object is called in subjects: by name, else by id.
pub(super) fn subject_token(id: ObjectId, record: &Record) -> String {
    let speakable = |name: &&String| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    record.name.as_ref().filter(speakable).cloned().unwrap_or_else(|| id.to_string())
}

pub(super) fn event(id: ObjectId, rev: Rev, prev: Rev, record: &Record, changed: &[String]) -> UvmStateUpdateEvent {
    UvmStateUpdateEvent {
        object: id.to_string(),
        name: record.name.clone(),
        state: public_state(record),
        rev,
        prev_rev: prev,
        changed: changed.iter().filter(|name| !name.starts_with('_')).cloned().collect(),
    }
}

pub(super) fn full_state(id: ObjectId, rev: Rev, record: &Record, traits: Option<&Record>) -> FullState {
    let mut parents = BTreeMap::new();
    for slot in &record.slots {
        if let SlotKind::Parent(Value::Ref(parent)) = &slot.kind {
            parents.insert(slot.name.clone(), parent.to_string());
        }
    }
    let (mut methods, mut intents) = (BTreeMap::new(), BTreeMap::new());
    for slot in traits.into_iter().chain([record]).flat_map(|record| &record.slots) {
        if let Some(source) = slot.kind.method() {
            methods.insert(slot.name.clone(), source.to_owned());
        }
        if let SlotKind::Intent(intent) = &slot.kind {
            intents.insert(slot.name.clone(), intent.text.clone());
        }
    }
    FullState {
        object: id.to_string(),
        name: record.name.clone(),
        rev,
        state: public_state(record),
        parents,
        methods,
        intents,
    }
}
