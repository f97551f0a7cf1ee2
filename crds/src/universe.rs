use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[cfg(feature = "kubernetes")]
use crate::UniverseStatus;
use crate::{
    RestoreSpec,
    check::{self, Check},
    schema,
};

/// A universe: where its objects are kept, how they are reached and how many workers run their turns.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(
    feature = "kubernetes",
    derive(kube::CustomResource),
    kube(
        group = "batos.dev",
        version = "v1alpha1",
        kind = "Universe",
        namespaced,
        shortname = "uni",
        category = "batos",
        status = "UniverseStatus",
        scale(spec_replicas_path = ".spec.workers.replicas", status_replicas_path = ".status.workersReady", label_selector_path = ".status.selector"),
        doc = "A live image of objects that never restarts.",
        derive = "PartialEq",
        validation = kube::core::Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && self.metadata.name.size() <= 48").message("a universe's name has 1 to 48 of a to z, 0 to 9 and '-'"),
        validation = kube::core::Rule::new("!has(oldSelf.spec.store) || (has(self.spec.store) && self.spec.store == oldSelf.spec.store)").message("the store cannot change: the objects live there"),
        validation = kube::core::Rule::new("!has(self.spec.restoreFrom) || (has(oldSelf.spec.restoreFrom) && self.spec.restoreFrom == oldSelf.spec.restoreFrom)").message("only a new universe can be restored: create another one with restoreFrom"),
        printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
        printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
        printcolumn(name = "Workers", type_ = "integer", json_path = ".status.workersReady"),
        printcolumn(name = "Objects", type_ = "integer", json_path = ".status.objects"),
        printcolumn(name = "Version", type_ = "string", json_path = ".status.versions.batos"),
        printcolumn(name = "Bus", type_ = "string", json_path = ".status.conditions[?(@.type==\"BusReachable\")].status", priority = 1),
        printcolumn(name = "StoreOK", type_ = "string", json_path = ".status.conditions[?(@.type==\"StoreReachable\")].status", priority = 1),
        printcolumn(name = "Store", type_ = "string", json_path = ".status.store", priority = 1),
        printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    )
)]
pub struct UniverseSpec {
    /// Where the objects are kept. Absent: the operator's default store, or one file on a volume of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreSpec>,
    /// Absent: the operator's own server and root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bus: Option<BusSpec>,
    #[serde(default)]
    pub workers: WorkersSpec,
    /// Absent: nothing drafts missing methods.
    #[serde(default, deserialize_with = "check::optional", skip_serializing_if = "Option::is_none")]
    pub mind: Option<MindSpec>,
    #[serde(default)]
    pub retention: RetentionSpec,
    /// Begins with this image instead of with nothing. Only a new universe can; refused where anything is stored under its
    /// name. Kubernetes only: elsewhere `batos import` does it.
    #[serde(default, deserialize_with = "check::optional", skip_serializing_if = "Option::is_none")]
    pub restore_from: Option<RestoreSpec>,
}

/// How long the universe keeps what was. Overwritten methods stay for good.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RetentionSpec {
    /// Data that was overwritten: 90s, 15m, 12h, 30d, or forever.
    #[serde(default = "history", deserialize_with = "check::age")]
    #[schemars(regex(pattern = schema::AGE))]
    pub history: String,
    /// Replies to messages with an id. A repeat within this time gets the reply again, a later one is carried out again.
    #[serde(default = "replies", deserialize_with = "check::age")]
    #[schemars(regex(pattern = schema::AGE))]
    pub replies: String,
    /// Objects that nothing reaches from a name, a manifest or a waiting message. With several workers keep them for minutes.
    #[serde(default = "unreached", deserialize_with = "check::age")]
    #[schemars(regex(pattern = schema::AGE))]
    pub unreached: String,
}

impl Default for RetentionSpec {
    fn default() -> Self {
        Self { history: history(), replies: replies(), unreached: unreached() }
    }
}

fn history() -> String {
    "30d".to_owned()
}

fn replies() -> String {
    "1d".to_owned()
}

fn unreached() -> String {
    "1d".to_owned()
}

/// A shared store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StoreSpec {
    pub tikv: TikvSpec,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TikvSpec {
    /// Placement drivers, each host:port.
    #[schemars(length(min = 1, max = 16), inner(length(min = 3, max = 253), regex(pattern = "^[^/,\\s]+:[0-9]+$")))]
    pub endpoints: Vec<String>,
}

impl StoreSpec {
    /// As the workers' command line takes it.
    pub fn url(&self) -> String {
        format!("tikv://{}", self.tikv.endpoints.join(","))
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BusSpec {
    /// A NATS server, nats://host:port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub url: Option<String>,
    /// First token of all subjects; `batos` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[A-Za-z0-9_-]+$"))]
    pub root: Option<String>,
    /// A Secret beside the Universe with the passwords of the bus: of user `system` for the workers, of user `architect`
    /// for the operator. Absent: nobody logs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub credentials_secret: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkersSpec {
    /// A store in a file takes exactly one.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: i32,
    /// Of each worker. Absent: requests of 50m CPU and 64Mi, no limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourcesSpec>,
}

/// As in a container: quantities by resource.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResourcesSpec {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::quantities")]
    pub requests: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::quantities")]
    pub limits: BTreeMap<String, String>,
}

impl Default for WorkersSpec {
    fn default() -> Self {
        Self { replicas: one(), resources: None }
    }
}

fn one() -> i32 {
    1
}

/// How much a universe makes without asking a person.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Autonomy {
    /// Nothing is made.
    Strict,
    /// Every method waits for a person.
    Ask,
    /// Methods with a risk wait for a person.
    #[default]
    Careful,
    /// What the Crucible admits goes in.
    Free,
}

/// What drafts missing methods: a model behind a URL, recorded answers, or both, then what is recorded comes first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    { "rule": "has(self.url) == has(self.model)", "message": "url and model belong together" },
    { "rule": "has(self.url) || !(has(self.apiKeyFile) || has(self.apiKeySecret))", "message": "a key is for a url" },
    { "rule": "!has(self.apiKeyFile) || !has(self.apiKeySecret)", "message": "give one of apiKeyFile and apiKeySecret" },
]))]
pub struct MindSpec {
    /// How much it makes by itself.
    #[serde(default)]
    pub autonomy: Autonomy,
    /// How long a proposal waits for a decision; a week when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 8760))]
    pub approval_hours: Option<u32>,
    /// Ed25519 public keys, in hexadecimal, whose decisions about proposals count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 64, max = 64), regex(pattern = "^[0-9a-f]+$")))]
    pub approvers: Vec<String>,
    /// How much it makes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<BudgetSpec>,
    /// How often a method may fail within an hour, otherwise than by an error that it signals itself, before it is made anew;
    /// it never is when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub repair_after: Option<u32>,
    /// Messages that each worker remembers, to try on them what would replace a method; none when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1024))]
    pub recent_messages: Option<u32>,
    /// Laws that hold for all that is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codex: Option<LawsSpec>,
    /// Who looks at a method that has held, in this order. They can only object: then a person decides.
    #[serde(default, deserialize_with = "check::checked", skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 8),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub personae: Vec<MindPersonaSpec>,
    /// A server that speaks OpenAI's protocol: what `/chat/completions` follows, as in http://vllm:8000/v1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = "^https?://[^@?#\\s]+$"))]
    pub url: Option<String>,
    /// The model as the server names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub model: Option<String>,
    /// A file that holds the server's key alone, where the worker runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub api_key_file: Option<String>,
    /// The server's key, in a Secret beside the Universe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_secret: Option<SecretKeySpec>,
    /// Seconds that one answer may take, with all that is tried again; 120 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub timeout_seconds: Option<u32>,
    /// Requests of one worker at once; 4 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 256))]
    pub max_concurrency: Option<u32>,
    /// Recorded answers of a model, for tests and tours without one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub recorded: Vec<RecordingSpec>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretKeySpec {
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// What is beyond it is refused, and may be asked for again later.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BudgetSpec {
    /// Methods whose making may begin within an hour; 600 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000000))]
    pub becomings_per_hour: Option<u32>,
    /// Of those, for the messages of one sender; 120 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000000))]
    pub becomings_per_hour_and_sender: Option<u32>,
    /// Tokens that models may read and write within a day of UTC; ten million when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000000000000i64))]
    pub tokens_per_day: Option<i64>,
}

/// A model that plays somebody who looks at made methods.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MindPersonaSpec {
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Who it is and what it looks for.
    #[schemars(length(min = 1, max = 4096))]
    pub prompt: String,
    /// The model or facet that plays it, as the server names it; the mind's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub model: Option<String>,
}

impl Check for MindPersonaSpec {
    fn check(&self) -> Result<(), String> {
        match self.prompt.trim().is_empty() {
            true => Err(format!("persona {:?} has no prompt", self.name)),
            false => Ok(()),
        }
    }

    fn key(&self) -> &str {
        &self.name
    }
}

/// A change that breaks a rule is refused, and nothing more is made until an approver has answered.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LawsSpec {
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

/// A rule about made methods; each thing that it forbids breaks it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CodexRuleSpec {
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// For people who have to decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub why: Option<String>,
    /// Names of the prototypes that it is about; all when absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 63)))]
    pub objects: Vec<String>,
    /// No method is made for these objects. Whoever wants one is refused; this halts nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forbid_making: bool,
    /// Selectors that a method must not send.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 128)))]
    pub forbid_sends: Vec<String>,
    /// Names of objects that a method must neither name nor change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 128)))]
    pub forbid_reaching: Vec<String>,
    /// Longest source of a method, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16384))]
    pub max_bytes: Option<u32>,
}

impl Check for CodexRuleSpec {
    fn check(&self) -> Result<(), String> {
        let bad = |what: &str| Err(format!("rule {:?} of the codex {what}", self.name));
        let forbids = self.forbid_making || self.max_bytes.is_some();
        if !forbids && self.forbid_sends.is_empty() && self.forbid_reaching.is_empty() {
            return bad("forbids nothing: give forbidMaking, forbidSends, forbidReaching or maxBytes");
        }
        match self.max_bytes {
            Some(n) if !(1..=16384).contains(&n) => bad("has maxBytes that are not from 1 to 16384"),
            _ => Ok(()),
        }
    }

    fn key(&self) -> &str {
        &self.name
    }
}

impl Check for MindSpec {
    fn check(&self) -> Result<(), String> {
        let bad = |what: &str| Err(format!("mind: {what}"));
        let url = self.url.as_deref();
        match url {
            Some(url) if !url.starts_with("http://") && !url.starts_with("https://") => {
                return bad("the url begins with http:// or https://");
            }
            Some(url) if url.contains(['@', '?', '#']) => {
                return bad("the url has a login, a query or a fragment; a key belongs into apiKeyFile");
            }
            _ => {}
        }
        if url.is_some() != self.model.is_some() {
            return bad("url and model belong together");
        }
        if url.is_none() && (self.api_key_file.is_some() || self.api_key_secret.is_some()) {
            return bad("a key is for a url");
        }
        if self.api_key_file.is_some() && self.api_key_secret.is_some() {
            return bad("give one of apiKeyFile and apiKeySecret");
        }
        if self.timeout_seconds.is_some_and(|n| !(1..=3600).contains(&n)) {
            return bad("timeoutSeconds is from 1 to 3600");
        }
        match self.max_concurrency {
            Some(n) if !(1..=256).contains(&n) => bad("maxConcurrency is from 1 to 256"),
            _ => Ok(()),
        }
    }

    fn key(&self) -> &str {
        "mind"
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RecordingSpec {
    /// Digest of the request that this answers.
    #[schemars(length(min = 1, max = 128))]
    pub request: String,
    /// The model's answer.
    #[schemars(length(max = 16384))]
    pub answer: String,
}
