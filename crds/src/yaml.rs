//! The custom resource definitions as YAML.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;

use crate::{Codex, Facet, ModelPool, Proposal, ProposalDecision, Prototype, Snapshot, Universe};

/// File name without ending, and the definition.
pub type Definitions = [(&'static str, CustomResourceDefinition); 8];

pub fn definitions() -> Definitions {
    let mut definitions = derived();
    for (_, definition) in &mut definitions {
        for version in &mut definition.spec.versions {
            let schema = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut());
            schema.into_iter().for_each(without_unsigned);
        }
    }
    definitions
}

/// Kubernetes knows no formats of unsigned numbers; their bounds say it.
fn without_unsigned(schema: &mut JSONSchemaProps) {
    schema.format = schema.format.take().filter(|format| !format.starts_with("uint"));
    schema.properties.iter_mut().flatten().for_each(|(_, schema)| without_unsigned(schema));
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(schema)) => without_unsigned(schema),
        Some(JSONSchemaPropsOrArray::Schemas(schemas)) => schemas.iter_mut().for_each(without_unsigned),
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(schema)) = &mut schema.additional_properties {
        without_unsigned(schema);
    }
}

fn derived() -> Definitions {
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
