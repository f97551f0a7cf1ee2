//! Records as people and programs see them on the wire.

use batos_covenant::{UvmStateUpdateEvent, Wire};
use batos_graph::{ObjectId, Payload, Record, Rev, SlotKind, Value};
use serde_json::json;

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

/// Objects that a value from the wire names by their ids.
pub(super) fn named(wire: &Wire) -> Vec<ObjectId> {
    match wire {
        Wire::Array(elements) => elements.iter().flat_map(named).collect(),
        Wire::Object(map) => {
            map.get("$ref").and_then(Wire::as_str).and_then(|id| id.parse().ok()).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

/// About how many bytes a value takes on the wire.
pub(super) fn weight(value: &Value) -> usize {
    match value {
        Value::Nil | Value::Bool(_) => 5,
        Value::Int(_) | Value::Float(_) | Value::Char(_) => 9,
        Value::BigInt(text) | Value::Str(text) | Value::Symbol(text) => text.len() + 10,
        Value::Fraction(n, d) => n.len() + d.len() + 10,
        Value::Ref(_) => 42,
    }
}

/// Events of what is larger, in bytes, tell what changed alone: every commit would write all of it twice.
const WHOLE: usize = 64 << 10;

/// Data slots that events may show: names that begin with `_` are private.
fn public_slots(record: &Record) -> impl Iterator<Item = (&String, &Value)> {
    record.slots.iter().filter(|slot| !slot.name.starts_with('_')).filter_map(|slot| match &slot.kind {
        SlotKind::Constant(value) | SlotKind::Assignable(value) => Some((&slot.name, value)),
        SlotKind::Parent(_) | SlotKind::Method(_) | SlotKind::Intent(_) => None,
    })
}

fn elements(record: &Record) -> Option<Vec<Wire>> {
    match &record.payload {
        Payload::None | Payload::Block(_) | Payload::Context { .. } => None,
        Payload::Array(elements) => Some(elements.iter().map(wire).collect()),
        Payload::Table(entries) => {
            Some(entries.iter().map(|(_, key, value)| json!([wire(key), wire(value)])).collect())
        }
        Payload::BigArray(_) | Payload::BigTable(_) | Payload::Bucket(_) => None,
    }
}

/// How an object is called in subjects: by name, else by id.
pub(super) fn subject_token(id: ObjectId, record: &Record) -> String {
    let speakable = |name: &&String| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    record.name.as_ref().filter(speakable).cloned().unwrap_or_else(|| id.to_string())
}

pub(super) fn event(id: ObjectId, rev: Rev, prev: Rev, record: &Record, changed: &[String]) -> UvmStateUpdateEvent {
    let changed: Vec<String> = changed.iter().filter(|name| !name.starts_with('_')).cloned().collect();
    let partial = record.is_in_buckets() || record.values().map(|(_, value)| weight(value)).sum::<usize>() > WHOLE;
    let mut room = WHOLE;
    let mut fits = |name: &String, value: &Value| {
        let bytes = name.len() + weight(value);
        let fits = changed.contains(name) && bytes <= room;
        room -= if fits { bytes } else { 0 };
        fits
    };
    let slots = public_slots(record).filter(|(name, value)| !partial || fits(name, value));
    UvmStateUpdateEvent {
        object: id.to_string(),
        name: record.name.clone(),
        state: slots.map(|(name, value)| (name.clone(), wire(value))).collect(),
        elements: if partial { None } else { elements(record) },
        partial,
        rev,
        prev_rev: prev,
        changed,
    }
}
