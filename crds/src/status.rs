//! What the operator reports. `Ready` follows the conventions that `kubectl wait` and Helm understand.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! status {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "camelCase")]
        pub struct $name {
            /// The generation of the spec that this status speaks of.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub observed_generation: Option<i64>,
            #[serde(default, skip_serializing_if = "Vec::is_empty")]
            #[schemars(
                length(max = 16),
                extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
            )]
            pub conditions: Vec<Condition>,
            $(
                $(#[$field_doc])*
                #[serde(default, skip_serializing_if = "Option::is_none")]
                pub $field: Option<$type>,
            )*
        }
    };
}

status!(UniverseStatus {
    /// Workers that serve.
    workers_ready: i32,
    /// The store that the objects are in.
    store: String,
});

status!(PrototypeStatus {
    /// Id of the object.
    object: String,
    /// The object's revision after the last apply.
    rev: i64,
    /// The Universe that has the object.
    universe_uid: String,
});

status!(ModelPoolStatus {
    /// Pods that serve.
    ready_replicas: i32,
});

status!(FacetStatus {
    /// The pod that holds the adapter.
    pod: String,
    /// The adapter's name at the engine: ask for it as the model.
    adapter: String,
});
