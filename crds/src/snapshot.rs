use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[cfg(feature = "kubernetes")]
use crate::SnapshotStatus;
use crate::{check, schema};

/// Images of a universe, each of one moment, in files on a volume or in a bucket.
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
        doc = "Images of a universe on a volume or in a bucket.",
        derive = "PartialEq",
        selectable = ".spec.universe",
        validation = kube::core::Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && self.metadata.name.size() <= 48").message("a snapshot's name has 1 to 48 of a to z, 0 to 9 and '-'"),
        validation = kube::core::Rule::new("has(self.spec.claim) != has(self.spec.s3)").message("give one of claim and s3"),
        validation = kube::core::Rule::new("self.spec.universe == oldSelf.spec.universe && has(self.spec.claim) == has(oldSelf.spec.claim) && (!has(self.spec.claim) || self.spec.claim == oldSelf.spec.claim)").message("universe and claim cannot change: the images are of that universe, on that volume; create another snapshot"),
        validation = kube::core::Rule::new("!has(self.spec.s3) || !has(oldSelf.spec.s3) || (self.spec.s3.endpoint == oldSelf.spec.s3.endpoint && self.spec.s3.bucket == oldSelf.spec.s3.bucket && self.spec.s3.prefix == oldSelf.spec.s3.prefix)").message("endpoint, bucket and prefix cannot change: the images are there; create another snapshot"),
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub claim: Option<String>,
    /// The bucket that the images go to instead, under the prefix and the snapshot's name. They stay there too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Spec>,
    /// Time from one image to the next, counted from the snapshot's creation: 90s, 15m, 6h, 7d. Absent: one image.
    #[serde(default, deserialize_with = "check::period", skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = schema::PERIOD))]
    pub every: Option<String>,
    /// How many images stay; older ones are removed once a new one is whole.
    #[serde(default = "three")]
    #[schemars(range(min = 1, max = 100))]
    pub keep: i32,
}

/// A bucket of a server that speaks S3. A Job has to have room for an image on its node, on the way there and back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct S3Spec {
    /// The server, as in https://s3.eu-central-1.amazonaws.com or http://minio:9000; buckets are named in the path.
    #[schemars(length(min = 8, max = 512), regex(pattern = "^https?://[^@?#\\s]+$"))]
    pub endpoint: String,
    #[schemars(length(min = 3, max = 63), regex(pattern = "^[a-z0-9][a-z0-9.-]*[a-z0-9]$"))]
    pub bucket: String,
    /// Folders that the images' own names follow, as in backups/batos.
    #[serde(default)]
    #[schemars(length(max = 512), regex(pattern = schema::PREFIX))]
    pub prefix: String,
    #[serde(default = "first_region")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9-]+$"))]
    pub region: String,
    /// A Secret beside the resource, with `accessKeyId`, `secretAccessKey` and, if there is one, `sessionToken`.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub credentials_secret: String,
}

fn first_region() -> String {
    "us-east-1".to_owned()
}

impl S3Spec {
    /// An image there, as `batos export` and `batos import` take it.
    pub fn url(&self, image: &str) -> String {
        let Self { bucket, prefix, .. } = self;
        match prefix.trim_matches('/') {
            "" => format!("s3://{bucket}/{image}"),
            prefix => format!("s3://{bucket}/{prefix}/{image}"),
        }
    }
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
        { "rule": "[has(self.snapshot), has(self.claim), has(self.s3)].filter(given, given).size() == 1", "message": "give one of snapshot, claim and s3" },
        { "rule": "has(self.snapshot) || has(self.image)", "message": "with a claim or a bucket, give the image there" },
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
    /// The bucket with the image, where no Snapshot tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Spec>,
    /// The image's file on the volume, or its name in the bucket after the prefix. Absent: the snapshot's last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = schema::FILE))]
    pub image: Option<String>,
}

impl check::Check for RestoreSpec {
    fn check(&self) -> Result<(), String> {
        let given = [self.snapshot.is_some(), self.claim.is_some(), self.s3.is_some()];
        if given.iter().filter(|given| **given).count() != 1 {
            return Err("restoreFrom: give one of snapshot, claim and s3".to_owned());
        }
        if self.snapshot.is_none() && self.image.is_none() {
            return Err("restoreFrom: with a claim or a bucket, give the image there".to_owned());
        }
        Ok(())
    }

    fn key(&self) -> &str {
        "restoreFrom"
    }
}
