use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[cfg(feature = "kubernetes")]
use crate::CodexStatus;
use crate::{CodexRuleSpec, LawsSpec, MindSpec, check, schema};

/// Laws of a universe, beside those that its own manifest has: whoever may change the Universe need not be who may change
/// its laws.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(
    feature = "kubernetes",
    derive(kube::CustomResource),
    kube(
        group = "batos.dev",
        version = "v1alpha1",
        kind = "Codex",
        plural = "codexes",
        namespaced,
        category = "batos",
        status = "CodexStatus",
        doc = "Laws of a universe.",
        derive = "PartialEq",
        selectable = ".spec.universe",
        validation = kube::core::Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && self.metadata.name.size() <= 63").message("a codex's name has 1 to 63 of a to z, 0 to 9 and '-'"),
        validation = kube::core::Rule::new("self.spec.universe == oldSelf.spec.universe").message("universe cannot change: create another codex"),
        printcolumn(name = "Universe", type_ = "string", json_path = ".spec.universe"),
        printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
        printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
        printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    )
)]
pub struct CodexSpec {
    /// Name of the Universe, in the same namespace.
    #[serde(deserialize_with = "check::name")]
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::NAME))]
    pub universe: String,
    /// In words, for the model.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 1024)))]
    pub principles: Vec<String>,
    #[serde(default, deserialize_with = "check::checked", skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub rules: Vec<CodexRuleSpec>,
}

impl MindSpec {
    /// Adds the laws of a Codex to the manifest's own. Its rules are told by its name and theirs.
    pub fn with_codex(&mut self, name: &str, codex: &CodexSpec) {
        let laws = self.codex.get_or_insert_with(LawsSpec::default);
        laws.principles.extend(codex.principles.iter().cloned());
        let named = |rule: &CodexRuleSpec| CodexRuleSpec { name: format!("{name}/{}", rule.name), ..rule.clone() };
        laws.rules.extend(codex.rules.iter().map(named));
    }
}
