//! A cluster as a person sees it: what `kubectl batos` asks.

use std::time::Duration;

use batos_crds::{DecisionVerdict, Proposal, ProposalDecision, ProposalDecisionSpec, Prototype, Universe};
use futures::{AsyncBufReadExt, StreamExt, TryStreamExt, stream};
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        authentication::v1::SelfSubjectReview,
        core::v1::{Pod, Secret},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, Config, Resource, ResourceExt,
    api::{ApiResource, DynamicObject, ListParams, LogParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    runtime::wait::await_condition,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    condition::{READY, find},
    context::{Settings, bounded},
    decision::is_settled,
    error::Error,
    meta,
    universe::{ARCHITECT, logged_in, shape},
};

/// Field manager of what is tried; nothing is written under it.
const MANAGER: &str = "kubectl-batos";

/// How long somebody waits for the operator to carry out a decision.
const PATIENCE: Duration = Duration::from_secs(60);

/// Universes and what belongs to them, in one namespace.
pub struct Cluster {
    client: Client,
    namespace: String,
}

/// Where a universe is reached, with the Architect's login if that could be read.
pub struct Way {
    pub url: String,
    pub root: String,
    /// Why there is no login though the universe has some.
    pub no_login: Option<String>,
}

/// What applying a resource would do.
#[derive(Debug, PartialEq)]
pub enum Change {
    Created,
    Unchanged,
    /// Paths with what is there and what would be.
    Changed(Vec<String>),
}

impl Cluster {
    /// As kubectl finds it: the kubeconfig's current context, or the one that is named.
    pub async fn connect(context: Option<&str>, namespace: Option<&str>) -> Result<Self, Error> {
        let none = |error: &dyn std::error::Error| Error::Asked(format!("no cluster: {error}"));
        let config = match context {
            Some(context) => {
                let options = KubeConfigOptions { context: Some(context.to_owned()), ..KubeConfigOptions::default() };
                let file = Kubeconfig::read().map_err(|error| none(&error))?;
                Config::from_custom_kubeconfig(file, &options).await.map_err(|error| none(&error))?
            }
            None => Config::infer().await.map_err(|error| none(&error))?,
        };
        let namespace = namespace.map_or_else(|| config.default_namespace.clone(), str::to_owned);
        Ok(Self { client: Client::try_from(config).map_err(|error| none(&error))?, namespace })
    }

    fn api<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn all<K>(&self) -> Result<Vec<K>, Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        let what = format!("{} of namespace {}", K::plural(&()), self.namespace);
        Ok(bounded(what, self.api::<K>().list(&ListParams::default())).await?.items)
    }

    pub async fn universes(&self) -> Result<Vec<Universe>, Error> {
        self.all().await
    }

    pub async fn prototypes(&self) -> Result<Vec<Prototype>, Error> {
        self.all().await
    }

    /// How to reach a universe, as its resource and the Secret beside it say.
    pub async fn way(&self, name: &str) -> Result<Way, Error> {
        let universe = bounded(format!("Universe {name:?}"), self.api::<Universe>().get(name)).await?;
        let bus = universe.status.and_then(|status| status.bus);
        let bus =
            bus.ok_or_else(|| Error::Asked(format!("no operator has said yet where universe {name:?} is reached")))?;
        let (mut url, mut no_login) = (bus.url, None);
        if let Some(secret) = universe.spec.bus.and_then(|bus| bus.credentials_secret) {
            let found = bounded(format!("Secret {secret:?}"), self.api::<Secret>().get(&secret)).await;
            let password = found.map_err(|error| error.to_string()).and_then(|found| {
                let password = found.data.and_then(|mut data| data.remove(ARCHITECT));
                let password = password.and_then(|password| String::from_utf8(password.0).ok());
                password.ok_or_else(|| format!("Secret {secret:?} has no password under {ARCHITECT:?}"))
            });
            match password {
                Ok(password) => url = logged_in(&url, ARCHITECT, &password),
                Err(why) => no_login = Some(why),
            }
        }
        Ok(Way { url, root: bus.root, no_login })
    }

    /// Decides about a proposal, by its name or its id, in the name of whoever asks; waits until the operator has acted.
    /// Answers the decision's name, and what became of it.
    pub async fn decide(&self, proposal: &str, approve: bool, reason: &str) -> Result<(String, String), Error> {
        let found = self.all::<Proposal>().await?;
        let found = found.iter().find(|found| found.name_any() == proposal || found.spec.id == proposal);
        let found = found.ok_or_else(|| {
            let text = format!("{proposal:?} is no Proposal in namespace {:?}: kubectl get proposals", self.namespace);
            Error::Asked(text)
        })?;
        let reviews: Api<SelfSubjectReview> = Api::all(self.client.clone());
        let (create, review) = (PostParams::default(), SelfSubjectReview::default());
        let review = bounded("who you are", reviews.create(&create, &review)).await.map_err(in_its_words)?;
        let approver = review.status.and_then(|status| status.user_info?.username).unwrap_or_default();
        let decision = ProposalDecision {
            metadata: ObjectMeta {
                generate_name: Some(format!("{}-", found.name_any())),
                // It goes with what it is about.
                owner_references: found.owner_ref(&()).map(|owner| vec![owner]),
                ..ObjectMeta::default()
            },
            spec: ProposalDecisionSpec {
                proposal: found.name_any(),
                digest: found.spec.digest.clone(),
                verdict: if approve { DecisionVerdict::Approve } else { DecisionVerdict::Deny },
                approver,
                reason: reason.to_owned(),
                expires_at: None,
            },
            status: None,
        };
        let decisions = self.api::<ProposalDecision>();
        let name = bounded("decision", decisions.create(&create, &decision)).await.map_err(in_its_words)?.name_any();
        let settled = |decision: Option<&ProposalDecision>| decision.is_some_and(is_settled);
        let settled = tokio::time::timeout(PATIENCE, await_condition(decisions, &name, settled)).await;
        let Ok(Ok(Some(settled))) = settled else {
            return Err(Error::Asked(format!("it waits for the operator: kubectl get proposaldecision {name}")));
        };
        let conditions = settled.status.map(|status| status.conditions).unwrap_or_default();
        match find(&conditions, READY) {
            Some(ready) if ready.status == "True" => Ok((name, format!("{}: {}", ready.reason, ready.message))),
            Some(ready) => Err(Error::Asked(format!("{}: {}", ready.reason, ready.message))),
            None => Err(Error::Asked(format!("nothing is said about {name}"))),
        }
    }

    /// What applying `resource` would do, as the API server answers to a dry run.
    pub async fn would(&self, resource: &Value) -> Result<Change, Error> {
        let text = |pointer: &str| resource.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (kind, name) = (text("/kind"), text("/metadata/name"));
        let definitions = batos_crds::definitions();
        let names = definitions.iter().map(|(_, definition)| &definition.spec.names).find(|names| names.kind == kind);
        let plural = names.map(|names| names.plural.clone()).unwrap_or_default();
        let what = format!("{kind} {name:?}");
        let resources = ApiResource {
            group: batos_crds::GROUP.to_owned(),
            version: batos_crds::VERSION.to_owned(),
            api_version: format!("{}/{}", batos_crds::GROUP, batos_crds::VERSION),
            kind: kind.to_owned(),
            plural,
        };
        let namespace = resource.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or(&self.namespace);
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resources);
        let live = bounded(what.clone(), api.get_opt(name)).await?;
        let dry = PatchParams { dry_run: true, ..PatchParams::default() };
        let served = |manager: &str| PatchParams { dry_run: true, ..PatchParams::apply(manager).force() };
        let (parameters, patch) = match live.as_ref().map(|live| (live, manager(live))) {
            None => (served(MANAGER), Patch::Apply(resource.clone())),
            Some((_, Some(manager))) => (served(&manager), Patch::Apply(resource.clone())),
            Some((live, None)) => (dry, Patch::Merge(merged(live, resource))),
        };
        let asked = bounded(what, api.patch(name, &parameters, &patch)).await;
        let would = asked.map_err(in_its_words)?;
        let spec = |object: &DynamicObject| object.data.get("spec").cloned().unwrap_or_default();
        let Some(live) = live else { return Ok(Change::Created) };
        let mut changes = Vec::new();
        compare("spec", &spec(&live), &spec(&would), &mut changes);
        Ok(if changes.is_empty() { Change::Unchanged } else { Change::Changed(changes) })
    }

    /// Lines of the workers' logs, each after its pod's name, until they end.
    pub async fn logs(
        &self,
        universe: &str,
        lines: i64,
        follow: bool,
        mut line: impl FnMut(&str, &str),
    ) -> Result<(), Error> {
        let pods = self.api::<Pod>();
        let selected = ListParams::default().labels(&format!("{}={universe}", meta::UNIVERSE));
        let found = bounded("pods".to_owned(), pods.list(&selected)).await?.items;
        if found.is_empty() {
            return Err(Error::Asked(format!("universe {universe:?} has no worker in namespace {:?}", self.namespace)));
        }
        let parameters = LogParams { follow, tail_lines: Some(lines), ..LogParams::default() };
        let mut all = Vec::new();
        for pod in found {
            let name = pod.name_any();
            let log = bounded(format!("log of {name}"), pods.log_stream(&name, &parameters)).await?;
            all.push(log.lines().map_ok(move |text| (name.clone(), text)).boxed());
        }
        let mut all = stream::select_all(all);
        while let Some(read) = all.next().await {
            let (pod, text) = read.map_err(|error| Error::Asked(format!("a log ended: {error}")))?;
            line(&pod, &text);
        }
        Ok(())
    }
}

/// What the operator would make for a universe: kinds with names, or why nothing.
pub fn children(universe: &Universe, default_store: Option<&str>) -> Result<Vec<String>, String> {
    let settings = Settings {
        nats: String::new(),
        root: String::new(),
        worker_image: String::new(),
        default_store: default_store.map(str::to_owned),
        volume_size: String::new(),
        namespace: None,
        drift_check: std::time::Duration::MAX,
        proposal_check: std::time::Duration::MAX,
        decisions: None,
        network_policies: true,
        own_namespace: String::new(),
        own_name: String::new(),
        lease: std::time::Duration::MAX,
    };
    shape(universe, &settings)
}

/// The server's own words are enough.
fn in_its_words(error: Error) -> Error {
    match error {
        Error::Kubernetes { what, source } => match *source {
            kube::Error::Api(status) => Error::Asked(status.message),
            source => Error::Kubernetes { what, source: Box::new(source) },
        },
        error => error,
    }
}

/// Who applied the object by server-side apply, if somebody did: what leaves the manifest leaves what that one owns.
fn manager(live: &DynamicObject) -> Option<String> {
    let ours = |entry: &&ManagedFieldsEntry| {
        entry.operation.as_deref() == Some("Apply")
            && entry.subresource.is_none()
            && entry.manager.as_deref() != Some(meta::MANAGER)
    };
    live.managed_fields().iter().find(ours)?.manager.clone()
}

/// The patch that `kubectl apply` sends without --server-side: the manifest, and nothing for what it had the last time.
fn merged(live: &DynamicObject, resource: &Value) -> Value {
    fn leave_out(before: &Value, patch: &mut Value) {
        let (Value::Object(before), Value::Object(patch)) = (before, patch) else { return };
        for (name, before) in before {
            match patch.get_mut(name) {
                Some(patch) => leave_out(before, patch),
                None => {
                    patch.insert(name.clone(), Value::Null);
                }
            }
        }
    }
    let last = live.annotations().get("kubectl.kubernetes.io/last-applied-configuration");
    let last: Value = last.and_then(|last| serde_json::from_str(last).ok()).unwrap_or_default();
    let mut patch = resource.clone();
    if let (Some(last), Some(patch)) = (last.get("spec"), patch.get_mut("spec")) {
        leave_out(last, patch);
    }
    patch
}

/// Where two values differ.
fn compare(path: &str, before: &Value, after: &Value, found: &mut Vec<String>) {
    let cut = |value: &Value| crate::condition::truncated(&value.to_string(), 60);
    match (before, after) {
        (before, after) if before == after => {}
        (Value::Object(old), Value::Object(new)) => {
            for (name, value) in old {
                compare(&format!("{path}.{name}"), value, new.get(name).unwrap_or(&Value::Null), found);
            }
            for (name, value) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
                found.push(format!("{path}.{name}: + {}", cut(value)));
            }
        }
        (Value::Array(old), Value::Array(new)) => {
            for at in 0..old.len().max(new.len()) {
                match (old.get(at), new.get(at)) {
                    (Some(old), Some(new)) => compare(&format!("{path}[{at}]"), old, new, found),
                    (Some(old), None) => found.push(format!("{path}[{at}]: - {}", cut(old))),
                    (None, Some(new)) => found.push(format!("{path}[{at}]: + {}", cut(new))),
                    (None, None) => {}
                }
            }
        }
        (before, Value::Null) => found.push(format!("{path}: - {}", cut(before))),
        (before, after) => found.push(format!("{path}: {} -> {}", cut(before), cut(after))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_left_the_manifest_is_dropped_as_kubectl_does() {
        let last =
            json!({ "spec": { "universe": "u", "drift": "Adopt", "workers": { "replicas": 2, "resources": {} } } });
        let live = json!({ "apiVersion": "batos.dev/v1alpha1", "kind": "Prototype", "metadata": { "name": "p",
            "annotations": { "kubectl.kubernetes.io/last-applied-configuration": last.to_string() } } });
        let live = serde_json::from_value(live).unwrap();
        let manifest = json!({ "spec": { "universe": "u", "workers": { "replicas": 3 }, "parents": ["q"] } });
        let patch = json!({ "universe": "u", "drift": null, "workers": { "replicas": 3, "resources": null },
            "parents": ["q"] });
        assert_eq!(merged(&live, &manifest)["spec"], patch);
    }

    #[test]
    fn differences_are_told_by_path() {
        let before = json!({ "a": 1, "b": [1, 2], "c": { "d": "x" }, "e": true });
        let after = json!({ "a": 2, "b": [1, 3, 4], "c": { "d": "x", "f": null }, "g": "new" });
        let mut found = Vec::new();
        compare("spec", &before, &after, &mut found);
        found.sort();
        assert_eq!(
            found,
            [
                "spec.a: 1 -> 2",
                "spec.b[1]: 2 -> 3",
                "spec.b[2]: + 4",
                "spec.c.f: + null",
                "spec.e: - true",
                "spec.g: + \"new\"",
            ]
        );
        let mut none = Vec::new();
        compare("spec", &before, &before, &mut none);
        assert!(none.is_empty());
    }
}
