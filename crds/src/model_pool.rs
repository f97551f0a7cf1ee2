use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[cfg(feature = "kubernetes")]
use crate::ModelPoolStatus;

/// Pods that serve one base model and take LoRA adapters while they run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(
    feature = "kubernetes",
    derive(kube::CustomResource),
    kube(
        group = "batos.dev",
        version = "v1alpha1",
        kind = "ModelPool",
        namespaced,
        shortname = "mp",
        category = "batos",
        status = "ModelPoolStatus",
        doc = "GPU pods that serve one base model.",
        derive = "PartialEq",
        validation = kube::core::Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') && self.metadata.name.size() <= 48").message("a pool's name has 1 to 48 of a to z, 0 to 9 and '-', and begins with a letter"),
        printcolumn(name = "Model", type_ = "string", json_path = ".spec.model"),
        printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
        printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
        printcolumn(name = "Pods", type_ = "integer", json_path = ".status.readyReplicas"),
        printcolumn(name = "Slots", type_ = "integer", json_path = ".spec.slots", priority = 1),
        printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    )
)]
pub struct ModelPoolSpec {
    /// The base model as the engine names it.
    #[schemars(length(min = 1, max = 253))]
    pub model: String,
    /// The engine's image; it takes vLLM's arguments.
    #[schemars(length(min = 1, max = 512))]
    pub image: String,
    /// Adapters that fit on one pod (vLLM's `--max-loras`).
    #[schemars(range(min = 1, max = 256))]
    pub slots: i32,
    /// Highest rank of an adapter, one of those that vLLM has kernels for; memory is reserved for it in every slot.
    #[serde(default = "sixteen")]
    #[schemars(extend("enum" = [1, 8, 16, 32, 64, 128, 256, 320, 512]))]
    pub max_rank: i32,
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 100))]
    pub replicas: i32,
    /// Absent: no GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<GpuSpec>,
    /// Further arguments of the engine.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 512)))]
    pub args: Vec<String>,
    /// A claim with adapters, mounted read-only at `/adapters`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub adapters_claim: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GpuSpec {
    /// The extended resource that the pod asks for.
    #[serde(default = "nvidia")]
    #[schemars(length(min = 1, max = 253))]
    pub resource: String,
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 16))]
    pub count: i32,
}

fn sixteen() -> i32 {
    16
}

fn one() -> i32 {
    1
}

fn nvidia() -> String {
    "nvidia.com/gpu".to_owned()
}
