//! Names and labels of what the operator makes.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use kube::{Resource, ResourceExt};

/// The one field manager of the operator.
pub const MANAGER: &str = "batos-operator";
/// Selects what the operator makes.
pub const MANAGED: &str = "app.kubernetes.io/managed-by=batos-operator";
/// On pods: the Universe that they work for.
pub const UNIVERSE: &str = "batos.dev/universe";
/// On pods: the ModelPool that they belong to.
pub const POOL: &str = "batos.dev/pool";
/// On Jobs and their pods: the Snapshot that they write images for.
pub const SNAPSHOT: &str = "batos.dev/snapshot";
/// On Jobs and their pods: the Universe that they restore.
pub const RESTORE: &str = "batos.dev/restore";
/// On pod templates: what they were made from, so that a change rolls them.
pub const DIGEST: &str = "batos.dev/config-digest";
/// Keeps a Facet until its adapter is unloaded. Escape: remove it by hand when the pool is lost for good.
pub const UNLOAD: &str = "facets.batos.dev/unload";
/// Keeps a Prototype with `deletionPolicy: Delete` until its object is gone. Escape: set the policy to Retain.
pub const REMOVE: &str = "prototypes.batos.dev/remove";

/// Labels that select the pods of one owner.
pub fn selector(label: &str, owner: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(label.to_owned(), owner.to_owned())])
}

pub fn labels(component: &str, label: &str, owner: &str) -> BTreeMap<String, String> {
    let mut labels = selector(label, owner);
    for (name, value) in [
        ("app.kubernetes.io/name", "batos"),
        ("app.kubernetes.io/component", component),
        ("app.kubernetes.io/instance", owner),
        ("app.kubernetes.io/managed-by", MANAGER),
    ] {
        labels.insert(name.to_owned(), value.to_owned());
    }
    labels
}

pub fn label_selector(label: &str, owner: &str) -> LabelSelector {
    LabelSelector { match_labels: Some(selector(label, owner)), ..LabelSelector::default() }
}

/// Whether an object is in `namespace` and bears the label with `owner`.
pub fn is_labelled<K: Resource>(object: &K, namespace: &str, label: &str, owner: &str) -> bool {
    let there = object.meta().namespace.as_deref() == Some(namespace);
    there && object.labels().get(label).is_some_and(|found| found == owner)
}

/// Metadata of a child that goes with its owner.
pub fn child<K: Resource<DynamicType = ()>>(owner: &K, name: &str, labels: BTreeMap<String, String>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: owner.namespace(),
        labels: Some(labels),
        owner_references: Some(vec![OwnerReference {
            api_version: K::api_version(&()).into_owned(),
            kind: K::kind(&()).into_owned(),
            name: owner.name_any(),
            uid: owner.uid().unwrap_or_default(),
            controller: Some(true),
            block_owner_deletion: None,
        }]),
        ..ObjectMeta::default()
    }
}

/// Sixteen hexadecimal digits of a digest.
pub fn digest(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex().chars().take(16).collect()
}
