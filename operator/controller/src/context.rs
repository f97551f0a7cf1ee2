//! The one place that talks to the API server. Every call has a time-out.

use std::{fmt::Debug, future::Future, sync::Arc, time::Duration};

use batos_covenant::{Command, Reply, Subject};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::{Deployment, StatefulSet},
        batch::v1::Job,
        core::v1::{Pod, Secret},
    },
    apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta},
    jiff::Timestamp,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions},
    core::{DeserializeGuard, PartialObjectMeta, error_boundary::InvalidObject},
    runtime::{
        controller::Action,
        events::{Event, EventType, Recorder, Reporter},
        reflector::{ObjectRef, Store},
    },
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::{
    backoff::Backoff,
    bus::Ask,
    condition::{self, Outlook, READY, Verdict},
    decision::{Decisions, Signer},
    error::Error,
    leader::Leadership,
    meta,
    metrics::METRICS,
    model_pool::Engines,
    prototype::Rounds,
    universe::{ARCHITECT, Pulses, Reach, logged_in},
    workload::Child,
};

/// How long one call to the API server may take, its retries included.
const CALL: Duration = Duration::from_secs(15);
/// Kubernetes refuses longer notes of events.
const MAX_NOTE: usize = 1000;

/// What whoever installs the operator decides.
#[derive(Debug, Clone)]
pub struct Settings {
    /// NATS server for universes that name none, and for the operator.
    pub nats: String,
    /// First token of subjects for universes that name none.
    pub root: String,
    /// Image of the uvm workers; its entrypoint is `batos`.
    pub worker_image: String,
    /// `tikv://…` for universes that name no store; absent: a file on a volume.
    pub default_store: Option<String>,
    /// Size of such a volume, such as `1Gi`.
    pub volume_size: String,
    /// Watches only this namespace; all when absent.
    pub namespace: Option<String>,
    /// The pause after which a universe is asked again what it changed itself.
    pub drift_check: Duration,
    /// The pause after which a universe is asked again what waits for a person, and how it is.
    pub proposal_check: Duration,
    /// Absent: ProposalDecisions are refused.
    pub decisions: Option<Decisions>,
    /// Whether workers get a NetworkPolicy.
    pub network_policies: bool,
    /// Where the operator itself runs: its Lease is there.
    pub own_namespace: String,
    /// How the operator calls itself in the Lease and in events: its pod.
    pub own_name: String,
    /// How long a Lease lasts that is not renewed: the longest pause between two leaders.
    pub lease: Duration,
}

/// A resource that may be unreadable without hiding the others.
pub type Guarded<K> = DeserializeGuard<K>;

/// Caches of everything that is watched, shared by all controllers.
#[derive(Clone)]
pub struct Stores {
    pub universes: Store<Guarded<batos_crds::Universe>>,
    pub prototypes: Store<Guarded<batos_crds::Prototype>>,
    pub pools: Store<Guarded<batos_crds::ModelPool>>,
    pub facets: Store<Guarded<batos_crds::Facet>>,
    pub snapshots: Store<Guarded<batos_crds::Snapshot>>,
    pub codexes: Store<Guarded<batos_crds::Codex>>,
    pub proposals: Store<Guarded<batos_crds::Proposal>>,
    pub decisions: Store<Guarded<batos_crds::ProposalDecision>>,
    pub deployments: Store<Deployment>,
    pub stateful_sets: Store<StatefulSet>,
    pub jobs: Store<Job>,
    pub pods: Store<Pod>,
}

pub struct Context {
    pub client: Client,
    pub settings: Settings,
    pub stores: Stores,
    /// The right to write, and its term.
    pub leadership: Leadership,
    pub engines: Arc<dyn Engines>,
    pub backoff: Backoff,
    pub drift: Rounds,
    pub pulses: Pulses,
    recorder: Recorder,
    bus: Arc<dyn Ask>,
    signer: OnceCell<Signer>,
}

/// Runs one call with its time-out.
pub async fn bounded<T>(
    what: impl Into<String>,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, Error> {
    let what = what.into();
    match tokio::time::timeout(CALL, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(source)) => Err(Error::Kubernetes { what, source: Box::new(source) }),
        Err(_) => Err(Error::TimedOut { what, after: CALL }),
    }
}

/// The readable objects of a store.
pub fn readable<K: Resource<DynamicType = ()> + Clone + 'static>(
    store: &Store<Guarded<K>>,
    chosen: impl Fn(&K) -> bool,
) -> Vec<K> {
    let objects = store.state_filter(|object| object.0.as_ref().is_ok_and(&chosen));
    objects.iter().filter_map(|object| object.0.as_ref().ok()).cloned().collect()
}

/// A readable object of a store, by name.
pub fn lookup<K: Resource<DynamicType = ()> + Clone + 'static>(
    store: &Store<Guarded<K>>,
    namespace: &str,
    name: &str,
) -> Option<K> {
    store.get(&ObjectRef::new(name).within(namespace))?.0.as_ref().ok().cloned()
}

impl Context {
    pub fn new(
        client: Client,
        settings: Settings,
        stores: Stores,
        leadership: Leadership,
        engines: Arc<dyn Engines>,
        bus: Arc<dyn Ask>,
    ) -> Self {
        let reporter = Reporter { controller: meta::MANAGER.to_owned(), instance: Some(settings.own_name.clone()) };
        Self {
            recorder: Recorder::new(client.clone(), reporter),
            drift: Rounds::new(settings.drift_check),
            pulses: Pulses::new(settings.proposal_check),
            client,
            settings,
            stores,
            leadership,
            engines,
            backoff: Backoff::default(),
            bus,
            signer: OnceCell::new(),
        }
    }

    /// Asks a universe; only a leader does. `namespace` has the Secret with the password.
    pub async fn ask(
        &self,
        namespace: &str,
        reach: &Reach,
        subject: &Subject,
        command: &Command,
    ) -> Result<Reply, String> {
        let url = self.url(namespace, reach).await?;
        match self.leadership.lasts() {
            true => self.bus.ask(&url, subject, command).await,
            false => Err(Error::Deposed.to_string()),
        }
    }

    /// Whether a universe's bus can be talked to now.
    pub async fn reaches(&self, namespace: &str, reach: &Reach) -> Result<(), String> {
        self.bus.reaches(&self.url(namespace, reach).await?).await
    }

    /// Where a universe's bus is, with the operator's login; why it has none that it may read.
    pub async fn url(&self, namespace: &str, reach: &Reach) -> Result<String, String> {
        match &reach.credentials {
            Some(secret) => Ok(logged_in(&reach.url, ARCHITECT, &self.password(namespace, secret).await?)),
            None => Ok(reach.url.clone()),
        }
    }

    /// The operator's password on the bus. What is told of a failure holds nothing of the Secret.
    async fn password(&self, namespace: &str, secret: &str) -> Result<String, String> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let found = bounded(format!("Secret {secret:?}"), secrets.get(secret)).await.map_err(|e| e.to_string())?;
        let password = found.data.and_then(|mut data| data.remove(ARCHITECT));
        let password = password.ok_or_else(|| format!("Secret {secret:?} has no key {ARCHITECT:?}"))?;
        String::from_utf8(password.0).map_err(|_| format!("Secret {secret:?}: {ARCHITECT:?} is no text"))
    }

    /// The key that decisions are signed with; made by whoever wants it first.
    pub async fn signer(&self, wanted: &Decisions) -> Result<&Signer, Error> {
        self.signer.get_or_try_init(|| self.open_signer(&wanted.name)).await
    }

    async fn open_signer(&self, name: &str) -> Result<Signer, Error> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.settings.own_namespace);
        let bad = |why: String| Error::Asked(format!("Secret {name:?}: {why}"));
        let found = match bounded(format!("Secret {name:?}"), secrets.get_opt(name)).await? {
            Some(found) => found,
            // Of two that make one, the slower fails, and reads it when it tries again.
            None => {
                let (new, parameters) = (Signer::secret(name).map_err(bad)?, PostParams::default());
                let what = format!("creating Secret {name:?}");
                self.write("Secret", "create", what, secrets.create(&parameters, &new)).await?
            }
        };
        Signer::of(&found).map_err(bad)
    }

    /// One write, which only a leader does.
    async fn write<T>(
        &self,
        kind: &str,
        step: &str,
        what: String,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, Error> {
        match self.leadership.lasts() {
            true => METRICS.step(kind, step, bounded(what, call)).await,
            false => Err(Error::Deposed),
        }
    }

    pub async fn apply_child(&self, namespace: &str, child: &Child) -> Result<(), Error> {
        match child {
            Child::ConfigMap(object) => self.apply(namespace, object).await.map(drop),
            Child::Service(object) => self.apply(namespace, object).await.map(drop),
            Child::ServiceAccount(object) => self.apply(namespace, object).await.map(drop),
            Child::NetworkPolicy(object) => self.apply(namespace, object).await.map(drop),
            Child::PodDisruptionBudget(object) => self.apply(namespace, object).await.map(drop),
            Child::Deployment(object) => self.apply(namespace, object).await.map(drop),
            Child::StatefulSet(object) => self.apply(namespace, object).await.map(drop),
            Child::Job(object) => self.apply(namespace, object).await.map(drop),
            Child::PersistentVolumeClaim(object) => self.apply(namespace, object).await.map(drop),
        }
    }

    /// Answers the object as it is then.
    pub async fn apply<K>(&self, namespace: &str, object: &K) -> Result<K, Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Serialize + DeserializeOwned + Clone + Debug,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let (name, parameters) = (object.name_any(), PatchParams::apply(meta::MANAGER).force());
        let what = format!("applying {} {name}", K::kind(&()));
        self.write(K::kind(&()).as_ref(), "apply", what, api.patch(&name, &parameters, &Patch::Apply(object))).await
    }

    /// Deletes this very object, as it was seen.
    pub async fn remove<K>(&self, object: &ObjectMeta) -> Result<(), Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        let (namespace, name) = place(object)?;
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let seen = Preconditions { uid: object.uid.clone(), resource_version: object.resource_version.clone() };
        let parameters = DeleteParams::background().preconditions(seen);
        match self.write(&K::kind(&()), "delete", format!("deleting {name}"), api.delete(name, &parameters)).await {
            Err(Error::Kubernetes { source, .. }) if gone(&source) => Ok(()),
            result => result.map(drop),
        }
    }

    /// Sets or drops the operator's finalizer of this kind. The uid keeps a new object of the same name out.
    pub async fn hold<K>(&self, object: &ObjectMeta, finalizer: &str, held: bool) -> Result<(), Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug,
    {
        let (namespace, name) = place(object)?;
        let finalizers: &[&str] = if held { &[finalizer] } else { &[] };
        let patch = json!({
            "apiVersion": K::api_version(&()), "kind": K::kind(&()),
            "metadata": { "name": name, "uid": object.uid, "finalizers": finalizers },
        });
        let api: Api<PartialObjectMeta<K>> = Api::namespaced(self.client.clone(), namespace);
        let parameters = PatchParams::apply(meta::MANAGER).force();
        match self
            .write(
                &K::kind(&()),
                "finalizer",
                format!("finalizer of {name}"),
                api.patch(name, &parameters, &Patch::Apply(&patch)),
            )
            .await
        {
            Err(Error::Kubernetes { source, .. }) if gone(&source) && !held => Ok(()),
            result => result.map(drop),
        }
    }

    /// Writes a status when it differs from the one that is there, and tells of it in an event when that is news.
    pub async fn report<K>(&self, object: &ObjectMeta, report: Report) -> Result<(), Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug,
    {
        let (namespace, name) = place(object)?;
        let now = condition::conditions(&report.before, &report.verdicts, object.generation, Timestamp::now());
        let now = Vec::from_iter(now.into_iter().chain(report.rest));
        let conditions =
            serde_json::to_value(&now).map_err(|source| Error::Encode { what: name.to_owned(), source })?;
        let mut status = report.fields;
        if let Value::Object(fields) = &mut status {
            fields.insert("observedGeneration".to_owned(), json!(object.generation));
            fields.insert("conditions".to_owned(), conditions);
            fields.retain(|_, value| !value.is_null());
        }
        if status == report.old {
            return Ok(());
        }
        let patch = json!({
            "apiVersion": K::api_version(&()), "kind": K::kind(&()),
            "metadata": { "name": name, "uid": object.uid }, "status": status,
        });
        let api: Api<PartialObjectMeta<K>> = Api::namespaced(self.client.clone(), namespace);
        let parameters = PatchParams::apply(meta::MANAGER).force();
        match self
            .write(
                &K::kind(&()),
                "status",
                format!("status of {name}"),
                api.patch_status(name, &parameters, &Patch::Apply(&patch)),
            )
            .await
        {
            // It went while it was looked at. A conflict is tried again: another of its name may be there.
            Err(Error::Kubernetes { source, .. }) if gone(&source) => return Ok(()),
            result => result.map(drop)?,
        }
        let told = |verdict: &&Verdict| verdict.condition == READY || verdict.reason == "Drifted";
        for verdict in report.verdicts.iter().filter(told).filter(|verdict| is_news(verdict, &report.before)) {
            self.tell::<K>(object, verdict).await;
        }
        Ok(())
    }

    /// Tells whoever wrote an object that cannot be read. The rest of its status stays: what it says is still so, and counts
    /// again once the object is mended. Only a status that cannot be read itself is thrown away.
    pub async fn refuse<K>(&self, invalid: &InvalidObject) -> Result<Action, Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        let object = &invalid.metadata;
        tracing::warn!(kind = %K::kind(&()), name = object.name, error = invalid.error, "unreadable");
        let (namespace, name) = place(object)?;
        let raw: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), namespace, &ApiResource::erase::<K>(&()));
        let found = bounded(format!("{name} as it is"), raw.get_opt(name)).await?;
        let Some(mut found) = found.filter(|found| found.metadata.uid == object.uid) else {
            return Ok(Action::await_change());
        };
        let old = found.data.as_object_mut().and_then(|data| data.remove("status")).unwrap_or_else(|| json!({}));
        let before = old.get("conditions").cloned().and_then(|before| serde_json::from_value(before).ok());
        let before: Vec<Condition> = before.unwrap_or_default();
        let rest = before.iter().filter(|c| !condition::is_summary(c)).cloned().collect();
        let legible = serde_json::to_value(&found).and_then(serde_json::from_value::<K>).is_ok();
        let fields = if legible { json!({}) } else { old.clone() };
        let verdicts = vec![Verdict::bad("Invalid", &invalid.error)];
        let report = Report { old, before, rest, fields, verdicts };
        self.report::<K>(object, report).await.map(|()| Action::await_change())
    }

    /// An event, as far as one can be published.
    async fn tell<K>(&self, object: &ObjectMeta, verdict: &Verdict)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug,
    {
        let kind = K::kind(&()).into_owned();
        let reference = k8s_openapi::api::core::v1::ObjectReference {
            api_version: Some(K::api_version(&()).into_owned()),
            kind: Some(kind.clone()),
            name: object.name.clone(),
            namespace: object.namespace.clone(),
            uid: object.uid.clone(),
            ..Default::default()
        };
        let good = verdict.outlook == Outlook::Good;
        let event = Event {
            type_: if good { EventType::Normal } else { EventType::Warning },
            reason: verdict.reason.to_owned(),
            note: Some(condition::truncated(&verdict.message, MAX_NOTE)),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        let name = object.name.as_deref().unwrap_or_default();
        tracing::info!(kind, name, reason = verdict.reason, "{}", verdict.message);
        if let Err(error) =
            self.write(&kind, "event", "event".to_owned(), self.recorder.publish(&event, &reference)).await
        {
            tracing::warn!(kind, name, %error, "no event");
        }
    }

    /// What follows a reconciliation: nothing until something changes, or another try after a pause.
    pub fn after<K: Resource<DynamicType = ()>>(
        &self,
        object: &K,
        ended: Result<Action, Error>,
    ) -> Result<Action, Error> {
        let key = format!("{} {}", K::kind(&()), object.uid().unwrap_or_default());
        match ended {
            Ok(action) => {
                self.backoff.succeeded(&key);
                Ok(action)
            }
            Err(error) => {
                let pause = self.backoff.failed(&key);
                let (kind, name) = (K::kind(&()), object.name_any());
                match error {
                    Error::NotYet(why) => tracing::debug!(%kind, name, ?pause, why, "not yet"),
                    error => tracing::warn!(%kind, name, ?pause, %error, "will be tried again"),
                }
                Ok(Action::requeue(pause))
            }
        }
    }
}

/// A status to write.
pub struct Report {
    /// The whole status that is there.
    pub old: Value,
    pub before: Vec<Condition>,
    /// Conditions that stay as they are.
    pub rest: Vec<Condition>,
    /// The kind's own fields.
    pub fields: Value,
    pub verdicts: Vec<Verdict>,
}

impl Report {
    /// A report that replaces `old`, whose conditions are `before`.
    pub fn new<S: Serialize>(old: Option<&S>, before: &[Condition], fields: Value, verdicts: Vec<Verdict>) -> Self {
        let old = old.and_then(|status| serde_json::to_value(status).ok()).unwrap_or_default();
        Self { old, before: before.to_vec(), rest: Vec::new(), fields, verdicts }
    }
}

/// Waiting is no news; success and each new failure are.
fn is_news(verdict: &Verdict, before: &[Condition]) -> bool {
    verdict.outlook != Outlook::Waiting
        && condition::find(before, verdict.condition).is_none_or(|c| {
            let good = verdict.outlook == Outlook::Good;
            (c.status == "True") != good || (!good && (c.reason != verdict.reason || c.message != verdict.message))
        })
}

fn gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_not_found())
}

/// Namespace and name.
pub fn place(object: &ObjectMeta) -> Result<(&str, &str), Error> {
    let namespace = object.namespace.as_deref().ok_or(Error::Nameless("namespace"))?;
    Ok((namespace, object.name.as_deref().ok_or(Error::Nameless("name"))?))
}

#[cfg(test)]
mod tests;
