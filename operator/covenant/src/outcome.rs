//! Intents of which a model answers the outcome each time: a value of a declared shape, and no code.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Wire;

/// How a model answers an intent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OutcomeDefinition {
    pub answers: Shape,
    /// For how many seconds the same question gets the same answer; absent: it is asked each time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_seconds: Option<u64>,
}

/// What an answer looks like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Shape {
    #[serde(rename = "type")]
    pub kind: ShapeType,
    /// The values that it may be; none: any of its type.
    #[serde(default, rename = "enum", skip_serializing_if = "Vec::is_empty")]
    pub allowed: Vec<Wire>,
    /// Of a number its least value, of a string its least length in characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// Of a record, all of which it must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, Shape>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ShapeType {
    Boolean,
    Integer,
    Number,
    String,
    Record,
}

/// Longest answer that is a string without a `max`, in characters.
const MAX_STRING: f64 = 4096.0;

impl Shape {
    /// What is wrong with a value, in words that a model can use.
    pub fn check(&self, value: &Wire) -> Result<(), String> {
        let shown = || value.to_string().chars().take(120).collect::<String>();
        if self.kind == ShapeType::Record {
            let Wire::Object(map) = value else { return Err(format!("{} is no record", shown())) };
            if let Some(other) = map.keys().find(|name| !self.fields.contains_key(*name)) {
                return Err(format!("there is no field {:?}", other.chars().take(80).collect::<String>()));
            }
            return self.fields.iter().try_for_each(|(name, shape)| match map.get(name) {
                Some(value) => shape.check(value).map_err(|wrong| format!("field {name:?}: {wrong}")),
                None => Err(format!("field {name:?} is missing")),
            });
        }
        let measure = match (self.kind, value) {
            (ShapeType::Boolean, Wire::Bool(_)) => None,
            (ShapeType::Integer, Wire::Number(n)) if n.is_i64() => n.as_f64(),
            (ShapeType::Number, Wire::Number(n)) => n.as_f64(),
            (ShapeType::String, Wire::String(text)) => Some(text.chars().count() as f64),
            (kind, _) => return Err(format!("{} is no {}", shown(), name(kind))),
        };
        if !self.allowed.is_empty() && !self.allowed.contains(value) {
            let allowed: Vec<String> = self.allowed.iter().map(Wire::to_string).collect();
            return Err(format!("{} is none of {}", shown(), allowed.join(", ")));
        }
        let Some(measure) = measure else { return Ok(()) };
        let most = self.max.or((self.kind == ShapeType::String).then_some(MAX_STRING));
        let what = if self.kind == ShapeType::String { "its length" } else { "it" };
        match (self.min, most) {
            (Some(min), _) if measure < min => Err(format!("{}: {what} must be at least {min}", shown())),
            (_, Some(max)) if measure > max => Err(format!("{}: {what} must be at most {max}", shown())),
            _ => Ok(()),
        }
    }

    /// What is wrong with the shape itself.
    pub fn flaw(&self) -> Option<String> {
        let is_record = self.kind == ShapeType::Record;
        if is_record == self.fields.is_empty() {
            return Some("a record, and only a record, has fields".to_owned());
        }
        if is_record && (self.min.is_some() || self.max.is_some() || !self.allowed.is_empty()) {
            return Some("a record has neither enum nor min nor max".to_owned());
        }
        if self.min.zip(self.max).is_some_and(|(min, max)| min > max) {
            return Some("min is more than max".to_owned());
        }
        let any = Self { allowed: Vec::new(), ..self.clone() };
        if let Some(wrong) = self.allowed.iter().find_map(|value| any.check(value).err()) {
            return Some(format!("enum: {wrong}"));
        }
        self.fields.iter().find_map(|(name, shape)| match shape.kind {
            ShapeType::Record => Some(format!("field {name:?} is a record: records do not nest")),
            _ => shape.flaw().map(|flaw| format!("field {name:?}: {flaw}")),
        })
    }

    /// An answer as the language takes it: the fields of a record in the order of their names.
    pub fn values(&self, answer: &Wire) -> Wire {
        match (self.kind, answer) {
            (ShapeType::Record, Wire::Object(map)) => {
                Wire::Array(self.fields.keys().map(|name| map.get(name).cloned().unwrap_or_default()).collect())
            }
            _ => answer.clone(),
        }
    }
}

fn name(kind: ShapeType) -> &'static str {
    match kind {
        ShapeType::Boolean => "boolean",
        ShapeType::Integer => "integer",
        ShapeType::Number => "number",
        ShapeType::String => "string",
        ShapeType::Record => "record",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shape(json: Wire) -> Shape {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn answers_are_held_against_their_shape() {
        let mood = json!({ "type": "string", "enum": ["calm", "angry"] });
        let score = json!({ "type": "integer", "min": 1, "max": 5 });
        let both = json!({ "type": "record", "fields": { "mood": mood, "score": score } });
        for (wanted, value, wrong) in [
            (&mood, json!("calm"), None),
            (&mood, json!("glad"), Some("\"glad\" is none of \"calm\", \"angry\"")),
            (&mood, json!(3), Some("3 is no string")),
            (&score, json!(5), None),
            (&score, json!(6), Some("at most 5")),
            (&score, json!(0), Some("at least 1")),
            (&score, json!(2.5), Some("no integer")),
            (&score, json!("3"), Some("no integer")),
            (&json!({ "type": "number", "max": 1 }), json!(0.5), None),
            (&json!({ "type": "boolean" }), json!(true), None),
            (&json!({ "type": "boolean" }), json!(null), Some("null is no boolean")),
            (&json!({ "type": "string", "max": 3 }), json!("äöüß"), Some("its length must be at most 3")),
            (&json!({ "type": "string" }), json!("x".repeat(5000)), Some("at most 4096")),
            (&both, json!({ "mood": "calm", "score": 1 }), None),
            (&both, json!({ "mood": "calm" }), Some("field \"score\" is missing")),
            (&both, json!({ "mood": "calm", "score": 1, "more": 1 }), Some("no field \"more\"")),
            (&both, json!({ "mood": "calm", "score": 9 }), Some("field \"score\": 9: it must be at most 5")),
            (&both, json!([1]), Some("no record")),
        ] {
            let checked = shape(wanted.clone()).check(&value);
            match wrong {
                None => assert_eq!(checked, Ok(()), "{value}"),
                Some(wrong) => assert!(checked.as_ref().is_err_and(|why| why.contains(wrong)), "{value}: {checked:?}"),
            }
        }
        let answer = json!({ "score": 2, "mood": "calm" });
        assert_eq!(shape(both).values(&answer), json!(["calm", 2]));
    }

    #[test]
    fn shapes_that_no_answer_has_are_refused() {
        for (bad, wrong) in [
            (json!({ "type": "record" }), "has fields"),
            (json!({ "type": "string", "fields": { "a": { "type": "string" } } }), "has fields"),
            (json!({ "type": "integer", "min": 2, "max": 1 }), "more than max"),
            (json!({ "type": "integer", "enum": ["a"] }), "no integer"),
            (json!({ "type": "record", "min": 1, "fields": { "a": { "type": "string" } } }), "neither enum"),
            (json!({ "type": "record", "fields": { "a": { "type": "integer", "enum": [true] } } }), "field \"a\""),
        ] {
            let flaw = shape(bad.clone()).flaw();
            assert!(flaw.as_ref().is_some_and(|flaw| flaw.contains(wrong)), "{bad}: {flaw:?}");
        }
        assert_eq!(shape(json!({ "type": "number", "enum": [1, 2.5] })).flaw(), None);
    }
}
