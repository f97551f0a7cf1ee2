//! What the operator reports. `Ready` follows the conventions that `kubectl wait` and Helm understand.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::S3Spec;

macro_rules! status {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty),* $(,)? }) => {
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

status!(CodexStatus {});

status!(UniverseStatus {
    /// In one word; the condition `Ready` says why.
    phase: UniversePhase,
    /// Workers that serve.
    workers_ready: i32,
    /// Living objects, those of the image included, as the universe counted them last: at least every six hours, and every
    /// ten minutes where that is quickly done.
    objects: i64,
    /// When that many were counted for the first time.
    objects_counted: Time,
    versions: VersionsStatus,
    /// The store that the objects are in.
    store: String,
    /// Where the universe is reached.
    bus: BusStatus,
    /// Selects the workers' pods, for autoscalers.
    selector: String,
    /// The image that the universe is restored from, once it is chosen.
    restore: RestoreStatus,
});

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum UniversePhase {
    /// Something has to come first: workers, an image, another resource.
    Pending,
    Running,
    /// Somebody should look.
    Failing,
}

/// What a worker says that it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VersionsStatus {
    /// Version of batos.
    pub batos: String,
    /// Digest of the image of objects that its turns rest on.
    pub image: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BusStatus {
    /// NATS server, as the workers see it; without a login.
    pub url: String,
    /// First token of all subjects.
    pub root: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoreStatus {
    /// Where the image is: on this claim's volume, or in this bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Spec>,
    pub image: String,
    /// All of it is there: it is not restored again.
    #[serde(default)]
    pub done: bool,
}

status!(SnapshotStatus {
    /// The last run that ended well was due then, in seconds since 1970.
    last_due: i64,
    /// The images that are there, the newest first.
    #[schemars(length(max = 100))]
    images: Vec<ImageStatus>,
});

/// An image on the snapshot's volume, or in its bucket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageStatus {
    /// On the volume, or in the bucket after the prefix.
    #[schemars(length(max = 253))]
    pub file: String,
    /// When it was begun: the universe is in it as it was then.
    pub taken: Time,
    pub bytes: i64,
    pub objects: i64,
    pub rows: i64,
    /// BLAKE3 of the file, as `b3sum` prints it.
    #[schemars(length(max = 64))]
    pub digest: String,
    pub milliseconds: i64,
}

status!(PrototypeStatus {
    /// Id of the object.
    object: String,
    /// The object's revision after the last apply.
    rev: i64,
    /// The Universe that has the object.
    universe_uid: String,
    /// How many slots the universe changed itself.
    drift: i32,
    /// The definition's slots, as the last apply found them.
    #[schemars(
        length(max = 256),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    slots: Vec<SlotStatus>,
});

/// A slot of the definition in the universe.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SlotStatus {
    #[schemars(length(max = 128))]
    pub name: String,
    pub owner: SlotOwner,
    /// The universe has it otherwise, and that is not adopted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub drift: bool,
    /// What is wrong with it, with line and column of its source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub error: Option<String>,
}

/// Who said last what is in a slot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SlotOwner {
    #[default]
    Manifest,
    Live,
}

status!(ProposalStatus { state: ProposalState });

/// What became of a proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ProposalState {
    Pending,
    /// Approved, and not in its object yet.
    Approved,
    Denied,
    /// Nobody decided in time.
    Expired,
    /// The method is in its object.
    Applied,
    /// The object changed meanwhile: another proposal has to be made.
    Superseded,
}

status!(ProposalDecisionStatus { state: DecisionState });

/// How far a decision came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DecisionState {
    /// It will be carried out.
    Waiting,
    /// The universe has taken it.
    Done,
    /// It was not carried out, and will not be.
    Refused,
}

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
