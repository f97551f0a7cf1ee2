//! Changes that wait for a person, the decisions about them, and where methods came from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Wire;

/// A method that was made and waits for the Architect, or what became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Proposal {
    pub id: String,
    #[serde(default, skip_serializing_if = "ProposalKind::is_slot")]
    pub kind: ProposalKind,
    pub state: ProposalState,
    /// The object that lacked the method.
    pub object: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The object that the method goes to.
    pub holder: String,
    pub selector: String,
    /// What the Architect asked for; the source is then an object literal, whose data goes to the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<String>,
    pub source: String,
    /// The method that stood there when it was proposed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
    /// BLAKE3 of the source, in hexadecimal: what a decision is about.
    pub digest: String,
    /// Why a person is asked.
    pub risks: Vec<String>,
    /// The rule of the Codex that it breaks: until somebody decides, the universe makes nothing by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conflict: Option<Conflict>,
    /// Name of the mind that drafted.
    pub mind: String,
    /// Empty where nothing is made.
    pub becoming: String,
    /// Milliseconds since 1970.
    pub proposed_at: u64,
    pub expires_at: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
}

/// What is proposed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProposalKind {
    /// What a becoming made for an object.
    #[default]
    Slot,
    /// Other laws: the source is what they would be, `replaces` what they are, and the risks say what they take away.
    Amendment,
}

impl ProposalKind {
    fn is_slot(&self) -> bool {
        *self == Self::Slot
    }
}

/// A universe's Codex, as it is in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Laws {
    /// Counts amendments; 0 where there have never been laws.
    pub version: u64,
    /// BLAKE3, in hexadecimal; empty without laws.
    pub digest: String,
    /// `principles` and `rules`.
    pub laws: Wire,
}

/// A rule of the Codex that a change breaks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Conflict {
    pub rule: String,
    /// Why there is the rule, in its author's words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// What breaks it.
    pub how: String,
}

impl std::fmt::Display for Conflict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { rule, why, how } = self;
        write!(f, "rule {rule:?} of the Codex: {how}")?;
        if why.is_empty() { Ok(()) } else { write!(f, " ({why})") }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProposalState {
    Pending,
    Approved,
    Denied,
    /// Nobody decided in time.
    Expired,
    /// The method is in the graph.
    Applied,
    /// The object changed meanwhile: another proposal has to be made.
    Superseded,
}

/// What an Architect decided, signed with Ed25519 (RFC 8032) over `Decision::text`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Decision {
    pub proposal: String,
    /// Digest of the proposed source.
    pub digest: String,
    pub approve: bool,
    #[serde(default)]
    pub reason: String,
    /// Milliseconds since 1970 after which the decision does not count any more.
    pub expires_at: u64,
    /// Public key, in hexadecimal.
    pub key: String,
    /// In hexadecimal.
    #[serde(default)]
    pub signature: String,
}

impl Decision {
    /// What is signed: every field on a line of its own, so that none can pass for another.
    pub fn text(&self, universe: &str) -> String {
        let Self { proposal, digest, approve, reason, expires_at, key, .. } = self;
        let reason = serde_json::Value::from(reason.as_str());
        format!("batos decision 1\n{universe}\n{proposal}\n{digest}\n{approve}\n{expires_at}\n{key}\n{reason}\n")
    }
}

/// A page of proposals, in the order of their ids.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProposalPage {
    pub proposals: Vec<Proposal>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Where a made method came from. The records of one object are chained by their digests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Provenance {
    pub becoming: String,
    pub selector: String,
    /// What the Architect asked for; the digest is then that of all that came with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<String>,
    /// The methods that came with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub brings: Vec<Brought>,
    /// Revision of the holder that has the method first.
    pub rev: u64,
    /// BLAKE3 of the method's source, in hexadecimal.
    pub digest: String,
    /// What it replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced: Option<String>,
    pub mind: String,
    /// Digest and text of the last request to the mind.
    pub request: String,
    pub prompt: String,
    /// Revision of `toolForge`, whose prompts it was asked with.
    pub forge_rev: u64,
    /// Of the model's sampling in the last round.
    #[serde(default)]
    pub seed: u32,
    pub model_calls: u32,
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    /// Drafts that the Crucible refused, and why.
    pub refused: Vec<RefusedDraft>,
    /// What the Crucible ran.
    pub examples: u64,
    /// How many drafts did the same where no example says what is right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreement: Option<Agreement>,
    /// What personae said of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub personae: Vec<PersonaVerdict>,
    pub risks: Vec<String>,
    /// BLAKE3 of the Codex that it was held against, in hexadecimal; empty where there was none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub codex: String,
    /// The rule that it breaks; the decision allows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conflict: Option<Conflict>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
    /// Milliseconds since 1970.
    pub made_at: u64,
    /// BLAKE3 of the object's provenance record before, in hexadecimal; empty for its first.
    pub before: String,
}

/// One of several methods of a swap.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Brought {
    pub selector: String,
    /// BLAKE3 of its source, in hexadecimal.
    pub digest: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PersonaVerdict {
    pub persona: String,
    /// The mind that played it.
    pub mind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objection: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Agreement {
    /// Drafts of the last round.
    pub drafts: u64,
    /// Those that did what the method does, itself among them.
    pub alike: u64,
    /// Messages that they were tried on.
    pub messages: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RefusedDraft {
    pub draft: String,
    pub reason: String,
}

/// Answer to `becomings`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BecomingPage {
    pub becomings: Vec<Becoming>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// The making of one method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Becoming {
    pub id: String,
    /// Id of the object that lacked the method.
    pub object: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub selector: String,
    /// What the Architect asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<String>,
    /// Who deals with it, and why: the organ, and what it was chosen by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// How far it came: asked, drafted, repair, judged, proposed, swapped, refused.
    pub step: String,
    /// Milliseconds since 1970.
    pub began: u64,
    pub mind: String,
    pub model_calls: u32,
    /// Drafts that the Crucible has judged.
    #[serde(default)]
    pub judged: u32,
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    /// Why it was refused, or why its last draft failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Answer to `replay`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Replay {
    pub becoming: String,
    pub selector: String,
    /// How far the becoming came.
    pub step: String,
    /// Every answer that the Crucible judged, in its order.
    pub trials: Vec<ReplayedTrial>,
    /// Answers that were too long to be kept with the others.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u32,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReplayedTrial {
    /// As the mind gave it.
    pub answer: String,
    pub verdict: String,
    /// The verdict now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again: Option<String>,
    /// What it was judged on that is no longer kept: it cannot be judged again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<String>,
}

impl ReplayedTrial {
    /// Whether it was judged again, to another verdict.
    pub fn differs(&self) -> bool {
        self.again.as_ref().is_some_and(|again| *again != self.verdict)
    }
}

/// Answer to `why`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Why {
    /// The object that holds the slot.
    pub holder: String,
    pub selector: String,
    /// What is there now.
    pub source: String,
    /// The revision that brought it, as far as the history is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rev: Option<u64>,
    /// The message that brought it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// For a method that was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provenance: Option<Provenance>,
}
