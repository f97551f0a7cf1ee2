use std::collections::BTreeMap;

use batos_covenant::{
    Example, IntentDefinition, IntentExample, PrototypeDefinition, SendCommand, SlotDefinition, Wire,
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
            1 => Ok(()),
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
        };
        IntentDefinition {
            text: self.text.clone(),
            arguments: self.arguments.clone(),
            examples: self.examples.iter().map(example).collect(),
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
        };
        PrototypeDefinition {
            parents: self.parents.clone(),
            slots: self.slots.iter().map(slot).collect(),
            examples: self.examples.iter().map(example).collect(),
        }
    }
}
