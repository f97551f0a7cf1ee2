//! What waits for a person, and what a person decides: on Kubernetes only, for elsewhere decisions are signed by hand.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ProposalDecisionStatus, ProposalStatus, schema};

/// A method that was made in a universe and waits for a person, as its operator shows it: the universe itself has the truth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, kube::CustomResource)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[kube(
    group = "batos.dev",
    version = "v1alpha1",
    kind = "Proposal",
    namespaced,
    shortname = "prop",
    category = "batos",
    status = "ProposalStatus",
    doc = "A made method that waits for a person, or what became of it. Written by the operator alone.",
    derive = "PartialEq",
    selectable = ".spec.universe",
    validation = kube::core::Rule::new("self.spec == oldSelf.spec").message("what is proposed cannot change: another draft is another proposal"),
    printcolumn(name = "Universe", type_ = "string", json_path = ".spec.universe"),
    printcolumn(name = "Object", type_ = "string", json_path = ".spec.object"),
    printcolumn(name = "Selector", type_ = "string", json_path = ".spec.selector"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Rule", type_ = "string", json_path = ".spec.conflict.rule", priority = 1),
    printcolumn(name = "Mind", type_ = "string", json_path = ".spec.mind", priority = 1),
    printcolumn(name = "Expires", type_ = "string", json_path = ".spec.expiresAt", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
)]
pub struct ProposalSpec {
    /// Name of the Universe, in the same namespace.
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::NAME))]
    pub universe: String,
    /// What the universe itself calls the proposal.
    #[schemars(length(min = 1, max = 64))]
    pub id: String,
    /// Whether other laws are proposed, in a Codex or its Universe, that take some away: the source is what they would be.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub amendment: bool,
    /// Name of the object that lacked the method, or its id.
    #[schemars(length(max = 128))]
    pub object: String,
    /// Id of the object that the method goes to.
    #[schemars(length(max = 64))]
    pub holder: String,
    #[schemars(length(max = 256))]
    pub selector: String,
    /// What was asked for in words; the source is then an object literal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub asked: Option<String>,
    /// The method.
    #[schemars(length(max = 65536))]
    pub source: String,
    /// BLAKE3 of the source, in hexadecimal: what a decision is about.
    #[schemars(length(max = 64))]
    pub digest: String,
    /// The method that it takes the place of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub replaces: Option<String>,
    /// Why a person is asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 1024)))]
    pub risks: Vec<String>,
    /// The rule of the Codex that it breaks: until somebody decides, the universe makes nothing by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conflict: Option<ConflictSpec>,
    /// What drafted it.
    #[schemars(length(max = 256))]
    pub mind: String,
    pub proposed_at: Time,
    /// Nobody can decide after that. Absent: it waits for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
}

/// A rule of the Codex that a proposal breaks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConflictSpec {
    #[schemars(length(max = 63))]
    pub rule: String,
    /// Why there is the rule, in its author's words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub why: String,
    /// What breaks it.
    #[schemars(length(max = 1024))]
    pub how: String,
}

/// What a person decides about a Proposal, once and in the own name. The operator signs it and tells the universe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, kube::CustomResource)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[kube(
    group = "batos.dev",
    version = "v1alpha1",
    kind = "ProposalDecision",
    namespaced,
    shortname = "propd",
    category = "batos",
    status = "ProposalDecisionStatus",
    doc = "What a person decides about a Proposal. Whoever creates it needs the verb approve on that Proposal.",
    derive = "PartialEq",
    selectable = ".spec.proposal",
    validation = kube::core::Rule::new("self.spec == oldSelf.spec").message("a decision cannot change"),
    printcolumn(name = "Proposal", type_ = "string", json_path = ".spec.proposal"),
    printcolumn(name = "Verdict", type_ = "string", json_path = ".spec.verdict"),
    printcolumn(name = "Approver", type_ = "string", json_path = ".spec.approver"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
)]
pub struct ProposalDecisionSpec {
    /// Name of the Proposal, in the same namespace.
    #[schemars(length(min = 1, max = 253))]
    pub proposal: String,
    /// The Proposal's digest, so that nothing is approved that was not seen.
    #[schemars(length(min = 64, max = 64), regex(pattern = "^[0-9a-f]+$"))]
    pub digest: String,
    pub verdict: DecisionVerdict,
    /// Who decides: the name under which the API server knows whoever creates this.
    #[schemars(length(min = 1, max = 512))]
    pub approver: String,
    /// Why; it is kept with the method.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub reason: String,
    /// Not carried out after that. Absent: an hour after its creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DecisionVerdict {
    Approve,
    Deny,
}
