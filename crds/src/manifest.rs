//! Resources in files, for embedded mode: what is wrong is refused with its line in the file.

use std::collections::BTreeMap;

use serde::{
    Deserialize,
    de::{DeserializeOwned, IgnoredAny},
};

use crate::{CodexSpec, FacetSpec, MindSpec, ModelPoolSpec, PrototypeSpec, SnapshotSpec, UniverseSpec, check};

/// A resource as it stands in a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest<S> {
    pub metadata: Metadata,
    pub spec: S,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    #[serde(deserialize_with = "check::name")]
    pub name: String,
    /// Kubernetes' business, as labels and annotations are: accepted, so that the same file serves both.
    #[serde(default)]
    pub namespace: Option<String>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// One resource of the group.
#[derive(Debug, Clone, PartialEq)]
pub enum Resource {
    Universe(Box<Manifest<UniverseSpec>>),
    Prototype(Manifest<PrototypeSpec>),
    ModelPool(Manifest<ModelPoolSpec>),
    Facet(Manifest<FacetSpec>),
    Snapshot(Manifest<SnapshotSpec>),
    Codex(Manifest<CodexSpec>),
}

/// Why a file is refused. Line and column count from 1; both are 1 where nothing narrower is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{line}:{column}: {message}")]
pub struct ParseError {
    pub line: usize,
    pub column: usize,
    pub message: String,
}

impl From<serde_yaml::Error> for ParseError {
    fn from(error: serde_yaml::Error) -> Self {
        let (line, column) = error.location().map_or((1, 1), |place| (place.line(), place.column()));
        // The reader appends the place to most messages; here it has fields of its own.
        let message = error.to_string();
        let place = format!(" at line {line} column {column}");
        Self { line, column, message: message.replacen(&place, "", 1) }
    }
}

#[derive(Deserialize)]
enum ApiVersion {
    #[serde(rename = "batos.dev/v1alpha1")]
    V1alpha1,
}

#[derive(Deserialize, Clone, Copy)]
enum Kind {
    Universe,
    Prototype,
    ModelPool,
    Facet,
    Snapshot,
    Codex,
}

/// Decides how the rest of a document is read.
#[derive(Deserialize)]
#[serde(expecting = "a map with apiVersion and kind")]
struct Head {
    #[serde(rename = "apiVersion")]
    _api_version: ApiVersion,
    kind: Kind,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document<S> {
    #[serde(rename = "apiVersion")]
    _api_version: IgnoredAny,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    metadata: Metadata,
    spec: S,
    #[serde(rename = "status", default)]
    _status: Option<IgnoredAny>,
}

/// Reads a file of one or more documents; empty ones are skipped.
pub fn parse(text: &str) -> Result<Vec<Resource>, ParseError> {
    let mut heads = Vec::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        heads.push(Option::<Head>::deserialize(document)?);
    }
    let mut resources = Vec::new();
    for (document, head) in serde_yaml::Deserializer::from_str(text).zip(heads) {
        let Some(head) = head else { continue };
        resources.push(match head.kind {
            Kind::Universe => Resource::Universe(Box::new(read(document)?)),
            Kind::Prototype => Resource::Prototype(read(document)?),
            Kind::ModelPool => Resource::ModelPool(read(document)?),
            Kind::Facet => Resource::Facet(read(document)?),
            Kind::Snapshot => Resource::Snapshot(read(document)?),
            Kind::Codex => Resource::Codex(read(document)?),
        });
    }
    Ok(resources)
}

/// Reads what `spec.mind` of a Universe is, alone.
pub fn parse_mind(text: &str) -> Result<Option<MindSpec>, ParseError> {
    Ok(check::optional(serde_yaml::Deserializer::from_str(text))?)
}

fn read<S: DeserializeOwned>(document: serde_yaml::Deserializer<'_>) -> Result<Manifest<S>, ParseError> {
    let Document { metadata, spec, .. } = Document::deserialize(document)?;
    Ok(Manifest { metadata, spec })
}

#[cfg(test)]
mod tests;
