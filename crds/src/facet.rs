use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[cfg(feature = "kubernetes")]
use crate::FacetStatus;
use crate::{check, schema};

/// One expert of a pool: a LoRA adapter, perhaps with a persona.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(
    feature = "kubernetes",
    derive(kube::CustomResource),
    kube(
        group = "batos.dev",
        version = "v1alpha1",
        kind = "Facet",
        namespaced,
        category = "batos",
        status = "FacetStatus",
        doc = "A LoRA adapter on a pool of models.",
        derive = "PartialEq",
        selectable = ".spec.pool",
        validation = kube::core::Rule::new("self.metadata.name.size() <= 63").message("a facet's name has at most 63 characters"),
        validation = kube::core::Rule::new("self.spec.pool == oldSelf.spec.pool").message("the pool cannot change: delete the facet and create another"),
        printcolumn(name = "Pool", type_ = "string", json_path = ".spec.pool"),
        printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
        printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
        printcolumn(name = "Pod", type_ = "string", json_path = ".status.pod"),
        printcolumn(name = "Adapter", type_ = "string", json_path = ".status.adapter", priority = 1),
        printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    )
)]
pub struct FacetSpec {
    /// Name of the ModelPool, in the same namespace.
    #[serde(deserialize_with = "check::name")]
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::NAME))]
    pub pool: String,
    pub adapter: AdapterSpec,
    /// What the expert is told about itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persona: Option<PersonaSpec>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AdapterSpec {
    /// The adapter's folder, as the engine's pods see it.
    #[schemars(length(min = 1, max = 1024))]
    pub path: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PersonaSpec {
    #[schemars(length(max = 16384))]
    pub prompt: String,
}
