//! The custom resource definitions as YAML.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use crate::{Codex, Facet, ModelPool, Proposal, ProposalDecision, Prototype, Snapshot, Universe};

/// File name without ending, and the definition.
pub type Definitions = [(&'static str, CustomResourceDefinition); 8];

pub fn definitions() -> Definitions {
    [
        ("codex", Codex::crd()),
        ("facet", Facet::crd()),
        ("modelpool", ModelPool::crd()),
        ("proposal", Proposal::crd()),
        ("proposaldecision", ProposalDecision::crd()),
        ("prototype", Prototype::crd()),
        ("snapshot", Snapshot::crd()),
        ("universe", Universe::crd()),
    ]
}

/// All definitions, as `kubectl apply` takes them.
pub fn crd_yaml() -> Result<String, serde_yaml::Error> {
    definitions().iter().map(|(_, definition)| Ok(format!("---\n{}", serde_yaml::to_string(definition)?))).collect()
}
