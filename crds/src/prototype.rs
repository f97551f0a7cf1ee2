use std::collections::BTreeMap;

use batos_covenant::{
    ContractDefinition, Example, IntentDefinition, IntentExample, OutcomeDefinition, PrototypeDefinition, SendCommand,
    Shape, ShapeType, SlotDefinition, Wire,
};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

#[cfg(feature = "kubernetes")]
use crate::PrototypeStatus;
use crate::{
    check::{self, Check},
    schema,
};

/// An object of a universe: its parents, its slots, and examples of what it should understand.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(
    feature = "kubernetes",
    derive(kube::CustomResource),
    kube(
        group = "batos.dev",
        version = "v1alpha1",
        kind = "Prototype",
        namespaced,
        shortname = "proto",
        category = "batos",
        status = "PrototypeStatus",
        doc = "An object that others are cloned from.",
        derive = "PartialEq",
        selectable = ".spec.universe",
        validation = kube::core::Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && self.metadata.name.size() <= 63").message("a prototype's name has 1 to 63 of a to z, 0 to 9 and '-'"),
        validation = kube::core::Rule::new("self.spec.universe == oldSelf.spec.universe").message("the universe cannot change: the object lives there"),
        printcolumn(name = "Universe", type_ = "string", json_path = ".spec.universe"),
        printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
        printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
        validation = kube::core::Rule::new("!has(self.spec.slots) || self.spec.slots.map(s, (has(s.method) ? size(s.method) : 0) + (has(s.intent) ? size(s.intent.text) : 0)).sum() <= 196608").message("methods and intents have more than 196608 characters together: the object would not fit into a record; split it"),
        printcolumn(name = "Drift", type_ = "integer", json_path = ".status.drift"),
        printcolumn(name = "Deletion", type_ = "string", json_path = ".spec.deletionPolicy", priority = 1),
        printcolumn(name = "Object", type_ = "string", json_path = ".status.object", priority = 1),
        printcolumn(name = "Rev", type_ = "integer", json_path = ".status.rev", priority = 1),
        printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    )
)]
pub struct PrototypeSpec {
    /// Name of the Universe, in the same namespace, that the object lives in.
    #[serde(deserialize_with = "check::name")]
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::NAME))]
    pub universe: String,
    /// Names of prototypes that this one delegates to, after its own traits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 63)))]
    pub parents: Vec<String>,
    #[serde(default, deserialize_with = "check::checked", skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 256),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub slots: Vec<SlotSpec>,
    /// What a made method is judged by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub examples: Vec<ExampleSpec>,
    /// What becomes of methods, intents and constants that the universe changed itself.
    #[serde(default)]
    pub drift: DriftPolicy,
    /// What becomes of the object when this resource is deleted. On Kubernetes only: a file that is gone leaves its object.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// It lives on.
    #[default]
    Retain,
    /// It goes too, and its traits, once nobody refers to them any more. The universe keeps their history.
    Delete,
}

/// A change of the definition's own slot wins under each of them, and assignable data is nobody's drift.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DriftPolicy {
    /// They stay, and the status says so.
    #[default]
    Report,
    /// They are set back to what the definition says.
    Enforce,
    /// They stay: the universe knows better.
    Adopt,
}

/// A slot: exactly one of `value`, `method` and `intent`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
// CEL cannot see a field of any type, so `oneOf` says it.
#[schemars(extend(
    "oneOf" = [{ "required": ["value"] }, { "required": ["method"] }, { "required": ["intent"] }],
    "x-kubernetes-validations" = [{
        "rule": "!has(self.constant) || !self.constant || !(has(self.method) || has(self.intent))",
        "message": "a method is no constant",
    }],
))]
pub struct SlotSpec {
    /// A selector for a method, such as `deposit:`; else a plain name.
    #[schemars(length(min = 1, max = 128))]
    pub name: String,
    /// Data: any value; null is nil.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::value")]
    pub value: Option<Wire>,
    /// A method's source: header and body as in an object literal, `deposit: n = ( … )`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16384))]
    pub method: Option<String>,
    /// A method to be made when it is first sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent: Option<IntentSpec>,
    /// A data slot that cannot be assigned.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub constant: bool,
}

/// Behaviour in words, and examples of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    { "rule": "(has(self.mode) && self.mode == 'outcome') == has(self.answers)", "message": "mode outcome and answers belong together" },
    { "rule": "has(self.answers) || !has(self.cache)", "message": "cache is for mode outcome" },
    { "rule": "!has(self.answers) || !has(self.contract)", "message": "an outcome has a shape, not a contract" },
]))]
pub struct IntentSpec {
    /// What it does, for the model that makes it.
    #[schemars(length(min = 1, max = 4096))]
    pub text: String,
    /// Names of the arguments, one for each that the selector takes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 64)))]
    pub arguments: Vec<String>,
    /// What the method is judged by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub examples: Vec<IntentExampleSpec>,
    /// What holds wherever the method is tried, on the examples and on messages like them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contract: Option<ContractSpec>,
    #[serde(default, skip_serializing_if = "IntentMode::is_method")]
    pub mode: IntentMode,
    /// What an outcome looks like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<ShapeSpec>,
    /// How long the same question gets the same outcome: 90s, 15m, 12h, 30d; absent, it is asked each time. Never longer
    /// than the universe keeps replies.
    #[serde(default, deserialize_with = "check::optional_age", skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = schema::AGE))]
    pub cache: Option<String>,
}

/// Expressions of the language; the arguments have the names that the intent gives them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ContractSpec {
    /// Of the receiver and the arguments before the message. Where it is true the message must not fail, where it is false
    /// the method may do as it likes. When absent, messages that fail are not judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub requires: Option<String>,
    /// Afterwards: `answer` is what was answered, `before` a copy of the receiver as it was.
    #[schemars(length(min = 1, max = 4096))]
    pub ensures: String,
}

/// What becomes of an intent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum IntentMode {
    /// A method is made when it is first sent.
    #[default]
    Method,
    /// A model is asked each time, and answers with a value: for judgement, not for code. It is told the arguments and the
    /// receiver's own data slots, those that begin with an underscore left out.
    Outcome,
}

impl IntentMode {
    fn is_method(&self) -> bool {
        *self == Self::Method
    }
}

/// A value's type and bounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ShapeSpec {
    #[serde(rename = "type")]
    pub kind: ShapeKind,
    /// The values that it may be; any when absent.
    #[serde(default, rename = "enum", skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::arguments")]
    pub allowed: Vec<Wire>,
    /// Of a number its least value, of a string its least length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// Of a record, by name; the record comes as an object with a slot for each.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub fields: BTreeMap<String, FieldSpec>,
}

/// A field of a record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FieldSpec {
    #[serde(rename = "type")]
    pub kind: ShapeKind,
    /// The values that it may be; any when absent.
    #[serde(default, rename = "enum", skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::arguments")]
    pub allowed: Vec<Wire>,
    /// Of a number its least value, of a string its least length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
}

/// A record is none within a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ShapeKind {
    Boolean,
    Integer,
    Number,
    String,
    Record,
}

impl ShapeSpec {
    fn shape(&self) -> Shape {
        let Self { kind, allowed, min, max, fields } = self;
        let field = |(name, field): (&String, &FieldSpec)| {
            let FieldSpec { kind, allowed, min, max } = field;
            let (allowed, fields) = (allowed.clone(), BTreeMap::new());
            (name.clone(), Shape { kind: kind.shape(), allowed, min: *min, max: *max, fields })
        };
        let fields = fields.iter().map(field).collect();
        Shape { kind: kind.shape(), allowed: allowed.clone(), min: *min, max: *max, fields }
    }
}

impl ShapeKind {
    fn shape(self) -> ShapeType {
        match self {
            Self::Boolean => ShapeType::Boolean,
            Self::Integer => ShapeType::Integer,
            Self::Number => ShapeType::Number,
            Self::String => ShapeType::String,
            Self::Record => ShapeType::Record,
        }
    }
}

/// With these slots, the message with these arguments is answered so and leaves these slots.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IntentExampleSpec {
    /// Slots of the receiver before the message.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::values")]
    pub given: BTreeMap<String, Wire>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::arguments")]
    pub arguments: Vec<Wire>,
    /// What it answers; not checked when absent.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::value")]
    pub answers: Option<Wire>,
    /// Slots of the receiver afterwards.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::values")]
    pub leaves: BTreeMap<String, Wire>,
    /// Whether minds are not shown it: what they make is judged by it all the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hidden: bool,
}

/// With these slots, this message is answered so and leaves these slots.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExampleSpec {
    /// Slots of the receiver before the message.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::values")]
    pub given: BTreeMap<String, Wire>,
    pub send: SendSpec,
    /// What it answers; not checked when absent.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::value")]
    pub answers: Option<Wire>,
    /// Slots of the receiver afterwards.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::values")]
    pub leaves: BTreeMap<String, Wire>,
    /// Whether minds are not shown it: what they make is judged by it all the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hidden: bool,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SendSpec {
    #[schemars(length(min = 1, max = 128))]
    pub selector: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::arguments")]
    pub arguments: Vec<Wire>,
}

/// A given null is a value, unlike an absent field.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Wire>, D::Error> {
    Wire::deserialize(deserializer).map(Some)
}

impl Check for SlotSpec {
    fn check(&self) -> Result<(), String> {
        let given = [self.value.is_some(), self.method.is_some(), self.intent.is_some()];
        match given.iter().filter(|given| **given).count() {
            0 => Err(format!("slot {:?} has neither value nor method nor intent: give one", self.name)),
            1 if self.constant && self.value.is_none() => Err(format!("slot {:?}: a method is no constant", self.name)),
            1 => match self.intent.as_ref().and_then(IntentSpec::flaw) {
                Some(flaw) => Err(format!("intent {:?}: {flaw}", self.name)),
                None => Ok(()),
            },
            _ => Err(format!("slot {:?} has more than one of value, method and intent: give one", self.name)),
        }
    }

    fn key(&self) -> &str {
        &self.name
    }
}

impl IntentSpec {
    fn definition(&self) -> IntentDefinition {
        let example = |example: &IntentExampleSpec| IntentExample {
            given: example.given.clone(),
            arguments: example.arguments.clone(),
            answers: example.answers.clone(),
            leaves: example.leaves.clone(),
            hidden: example.hidden,
        };
        IntentDefinition {
            text: self.text.clone(),
            arguments: self.arguments.clone(),
            examples: self.examples.iter().map(example).collect(),
            contract: self.contract.as_ref().map(|contract| ContractDefinition {
                requires: contract.requires.clone(),
                ensures: contract.ensures.clone(),
            }),
            outcome: self.answers.as_ref().filter(|_| self.mode == IntentMode::Outcome).map(|answers| {
                let cache_seconds = self.cache.as_deref().and_then(check::seconds);
                OutcomeDefinition { answers: answers.shape(), cache_seconds }
            }),
        }
    }

    /// What is wrong between its fields.
    fn flaw(&self) -> Option<String> {
        if self.mode == IntentMode::Outcome && self.contract.is_some() {
            return Some("an outcome has a shape, not a contract".to_owned());
        }
        match (self.mode, &self.answers) {
            (IntentMode::Outcome, None) => Some("an outcome needs answers, which say its type".to_owned()),
            (IntentMode::Outcome, Some(answers)) => answers.shape().flaw(),
            (IntentMode::Method, None) if self.cache.is_none() => None,
            (IntentMode::Method, _) => Some("answers and cache are for mode outcome".to_owned()),
        }
    }
}

impl PrototypeSpec {
    /// What is sent to the universe.
    pub fn definition(&self) -> PrototypeDefinition {
        let slot = |slot: &SlotSpec| SlotDefinition {
            name: slot.name.clone(),
            value: slot.value.clone(),
            method: slot.method.clone(),
            intent: slot.intent.as_ref().map(IntentSpec::definition),
            constant: slot.constant,
        };
        let example = |example: &ExampleSpec| Example {
            given: example.given.clone(),
            send: SendCommand { selector: example.send.selector.clone(), arguments: example.send.arguments.clone() },
            answers: example.answers.clone(),
            leaves: example.leaves.clone(),
            hidden: example.hidden,
        };
        PrototypeDefinition {
            parents: self.parents.clone(),
            slots: self.slots.iter().map(slot).collect(),
            examples: self.examples.iter().map(example).collect(),
        }
    }
}
