use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[cfg(feature = "kubernetes")]
use crate::SnapshotStatus;
use crate::{check, schema};

/// Images of a universe, each of one moment, in files on a volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(
    feature = "kubernetes",
    derive(kube::CustomResource),
    kube(
        group = "batos.dev",
        version = "v1alpha1",
        kind = "Snapshot",
        namespaced,
        shortname = "snap",
        category = "batos",
        status = "SnapshotStatus",
        doc = "Images of a universe on a volume.",
        derive = "PartialEq",
        selectable = ".spec.universe",
        validation = kube::core::Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && self.metadata.name.size() <= 48").message("a snapshot's name has 1 to 48 of a to z, 0 to 9 and '-'"),
        validation = kube::core::Rule::new("self.spec.universe == oldSelf.spec.universe && self.spec.claim == oldSelf.spec.claim").message("universe and claim cannot change: the images are of that universe, on that volume; create another snapshot"),
        printcolumn(name = "Universe", type_ = "string", json_path = ".spec.universe"),
        printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
        printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
        printcolumn(name = "Every", type_ = "string", json_path = ".spec.every"),
        printcolumn(name = "Last", type_ = "date", json_path = ".status.images[0].taken"),
        printcolumn(name = "Image", type_ = "string", json_path = ".status.images[0].file", priority = 1),
        printcolumn(name = "Bytes", type_ = "integer", json_path = ".status.images[0].bytes", priority = 1),
        printcolumn(name = "Objects", type_ = "integer", json_path = ".status.images[0].objects", priority = 1),
        printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    )
)]
pub struct SnapshotSpec {
    /// Name of the Universe, in the same namespace.
    #[serde(deserialize_with = "check::name")]
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::NAME))]
    pub universe: String,
    /// Name of the PersistentVolumeClaim, in the same namespace, that the images go to, into a folder of the snapshot's name.
    /// They stay there when the snapshot is deleted.
    #[schemars(length(min = 1, max = 253))]
    pub claim: String,
    /// Time from one image to the next, counted from the snapshot's creation: 90s, 15m, 6h, 7d. Absent: one image.
    #[serde(default, deserialize_with = "check::period", skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = schema::PERIOD))]
    pub every: Option<String>,
    /// How many images stay; older ones are removed once a new one is whole.
    #[serde(default = "three")]
    #[schemars(range(min = 1, max = 100))]
    pub keep: i32,
}

fn three() -> i32 {
    3
}

impl SnapshotSpec {
    /// Seconds from one image to the next.
    pub fn period(&self) -> Option<i64> {
        i64::try_from(check::seconds(self.every.as_deref()?)?).ok()
    }
}

/// The image that a new universe begins with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend(
    "x-kubernetes-validations" = [
        { "rule": "has(self.snapshot) != has(self.claim)", "message": "give one of snapshot and claim" },
        { "rule": "!has(self.claim) || has(self.image)", "message": "with a claim, give the image on it" },
    ],
))]
pub struct RestoreSpec {
    /// Name of a Snapshot in the same namespace; waited for if it has no image yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub snapshot: Option<String>,
    /// Name of the PersistentVolumeClaim with the image, where no Snapshot tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub claim: Option<String>,
    /// The image's file on the volume. Absent: the snapshot's last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = schema::FILE))]
    pub image: Option<String>,
}

impl check::Check for RestoreSpec {
    fn check(&self) -> Result<(), String> {
        if self.snapshot.is_some() == self.claim.is_some() {
            return Err("restoreFrom: give one of snapshot and claim".to_owned());
        }
        if self.claim.is_some() && self.image.is_none() {
            return Err("restoreFrom: with a claim, give the image on it".to_owned());
        }
        Ok(())
    }

    fn key(&self) -> &str {
        "restoreFrom"
    }
}
