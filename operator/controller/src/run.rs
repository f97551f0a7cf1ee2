//! Watches once, for all controllers, and routes what happens to those whom it concerns.

use std::{
    fmt::Debug,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use batos_crds::{Codex, Facet, ModelPool, Proposal, ProposalDecision, Prototype, Snapshot, Universe};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use k8s_openapi::{NamespaceResourceScope, api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, Client, Config, Resource, ResourceExt,
    client::ClientBuilder,
    runtime::{
        Controller, WatchStreamExt,
        controller::{self, Action},
        reflector::{self, ObjectRef, Store, store::Writer},
        watcher,
    },
};
use serde::de::DeserializeOwned;
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinSet,
};
use tower::timeout::TimeoutLayer;

use crate::{
    bus::{Ask, Nats},
    codex,
    context::{Context, Guarded, Settings, Stores, lookup, readable},
    decision,
    error::Error,
    facet,
    leader::Candidate,
    meta,
    metrics::{Counting, METRICS},
    model_pool::{self, Engines, Http},
    proposal, prototype, snapshot, universe,
};

/// Reconciliations of one kind that run at once. Unbounded, the API server falls over before the operator does.
const CONCURRENCY: u16 = 16;

/// How long an answer may take to begin: a watch whose list never comes would see nothing any more. What writes has less.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Who shall look again.
#[derive(Clone)]
struct Routes {
    stores: Stores,
    universes: UnboundedSender<ObjectRef<Guarded<Universe>>>,
    prototypes: UnboundedSender<ObjectRef<Guarded<Prototype>>>,
    pools: UnboundedSender<ObjectRef<Guarded<ModelPool>>>,
    /// Pools whose adapters are to be looked at.
    adapters: UnboundedSender<ObjectRef<Guarded<ModelPool>>>,
    facets: UnboundedSender<ObjectRef<Guarded<Facet>>>,
    snapshots: UnboundedSender<ObjectRef<Guarded<Snapshot>>>,
    codexes: UnboundedSender<ObjectRef<Guarded<Codex>>>,
    /// Universes whose proposals are to be looked at.
    proposals: UnboundedSender<ObjectRef<Guarded<Universe>>>,
    decisions: UnboundedSender<ObjectRef<Guarded<ProposalDecision>>>,
}

/// Runs the operator until `stop` completes; what runs then is finished. `ready` is set once all caches are filled.
pub async fn run(
    settings: Settings,
    ready: Arc<AtomicBool>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let none = |error: &dyn std::error::Error| Error::Start(format!("no API server: {error}"));
    let config = Config::infer().await.map_err(|error| none(&error))?;
    let client = ClientBuilder::try_from(config).map_err(|error| none(&error))?;
    let client = client.with_layer(&TimeoutLayer::new(PATIENCE)).with_layer(&Counting).build();
    operate(client, Arc::new(Nats::default()), Arc::new(Http::new()?), settings, ready, stop).await
}

/// `run` on a given API server, bus and engines.
pub(crate) async fn operate(
    client: Client,
    bus: Arc<dyn Ask>,
    engines: Arc<dyn Engines>,
    settings: Settings,
    ready: Arc<AtomicBool>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let (universes, universe_writer) = reflector::store();
    let (prototypes, prototype_writer) = reflector::store();
    let (pools, pool_writer) = reflector::store();
    let (facets, facet_writer) = reflector::store();
    let (snapshots, snapshot_writer) = reflector::store();
    let (codexes, codex_writer) = reflector::store();
    let (proposals, proposal_writer) = reflector::store();
    let (decisions, decision_writer) = reflector::store();
    let (deployments, deployment_writer) = reflector::store();
    let (stateful_sets, stateful_set_writer) = reflector::store();
    let (jobs, job_writer) = reflector::store();
    let (pods, pod_writer) = reflector::store();
    let stores = Stores {
        universes,
        prototypes,
        pools,
        facets,
        snapshots,
        codexes,
        proposals,
        decisions,
        deployments,
        stateful_sets,
        jobs,
        pods,
    };

    let (to_universes, for_universes) = unbounded_channel();
    let (to_prototypes, for_prototypes) = unbounded_channel();
    let (to_pools, for_pools) = unbounded_channel();
    let (to_adapters, for_adapters) = unbounded_channel();
    let (to_facets, for_facets) = unbounded_channel();
    let (to_snapshots, for_snapshots) = unbounded_channel();
    let (to_codexes, for_codexes) = unbounded_channel();
    let (to_proposals, for_proposals) = unbounded_channel();
    let (to_decisions, for_decisions) = unbounded_channel();
    let routes = Routes {
        stores: stores.clone(),
        universes: to_universes,
        prototypes: to_prototypes,
        pools: to_pools,
        adapters: to_adapters,
        facets: to_facets,
        snapshots: to_snapshots,
        codexes: to_codexes,
        proposals: to_proposals,
        decisions: to_decisions,
    };
    let leads = Arc::new(AtomicBool::new(false));
    let watched = Watched {
        client: client.clone(),
        namespace: settings.namespace.clone(),
        routes: routes.clone(),
        leads: leads.clone(),
    };
    let watches: Vec<BoxFuture<'static, ()>> = vec![
        watched.clone().run(universe_writer, "", Routes::universe).boxed(),
        watched.clone().run(prototype_writer, "", Routes::prototype).boxed(),
        watched.clone().run(pool_writer, "", Routes::pool).boxed(),
        watched.clone().run(facet_writer, "", Routes::facet).boxed(),
        watched.clone().run(snapshot_writer, "", Routes::snapshot).boxed(),
        watched.clone().run(codex_writer, "", Routes::codex).boxed(),
        watched.clone().run(proposal_writer, "", Routes::proposal).boxed(),
        watched.clone().run(decision_writer, "", Routes::decision).boxed(),
        watched.clone().run(deployment_writer, meta::MANAGED, Routes::child).boxed(),
        watched.clone().run(stateful_set_writer, meta::MANAGED, Routes::child).boxed(),
        watched.clone().run(job_writer, meta::MANAGED, Routes::child).boxed(),
        watched.run(pod_writer, meta::MANAGED, Routes::pod).boxed(),
    ];

    let candidate = Candidate::new(client.clone(), &settings.own_namespace, &settings.own_name, settings.lease);
    let stop = stop.shared();
    let (finished, until_finished) = tokio::sync::oneshot::channel::<()>();
    // A plan looks at several kinds: none runs before all are known. Whoever does not lead keeps its caches warm.
    let led = async {
        if all_known(&stores).await.is_err() {
            return Ok(());
        }
        ready.store(true, Ordering::Relaxed);
        tracing::info!(namespace = settings.namespace, "caches are filled");
        let holder = tokio::select! {
            holder = candidate.acquire() => holder,
            () = stop.clone() => return Ok(()),
        };
        let leadership = holder.leadership();
        tracing::info!(term = leadership.term, "this operator leads");
        let context = Arc::new(Context::new(client, settings, stores.clone(), leadership.clone(), engines, bus));
        let controllers: Vec<BoxFuture<'static, ()>> = vec![
            control(stores.universes.clone(), for_universes, context.clone(), universe::reconcile, stop.clone())
                .boxed(),
            control(stores.prototypes.clone(), for_prototypes, context.clone(), prototype::reconcile, stop.clone())
                .boxed(),
            control(stores.pools.clone(), for_pools, context.clone(), model_pool::reconcile, stop.clone()).boxed(),
            control(stores.pools.clone(), for_adapters, context.clone(), model_pool::weave, stop.clone()).boxed(),
            control(stores.facets.clone(), for_facets, context.clone(), facet::reconcile, stop.clone()).boxed(),
            control(stores.snapshots.clone(), for_snapshots, context.clone(), snapshot::reconcile, stop.clone())
                .boxed(),
            control(stores.codexes.clone(), for_codexes, context.clone(), codex::reconcile, stop.clone()).boxed(),
            control(stores.universes.clone(), for_proposals, context.clone(), proposal::reconcile, stop.clone())
                .boxed(),
            control(stores.decisions.clone(), for_decisions, context.clone(), decision::reconcile, stop.clone())
                .boxed(),
        ];
        leads.store(true, Ordering::SeqCst);
        METRICS.leads(true);
        routes.all();
        // In a task of its own: no reconciliation may hold up a renewal.
        let mut keeping = JoinSet::new();
        keeping.spawn(holder.keep(async move { drop(until_finished.await) }));
        tokio::select! {
            _ = futures::future::join_all(controllers) => {}
            () = leadership.over() => return Err(Error::Deposed),
        }
        drop(finished);
        let _ = keeping.join_next().await;
        Ok(())
    };
    tokio::select! {
        ended = led => ended,
        _ = futures::future::select_all(watches) => Err(Error::Start("a watch ended".to_owned())),
    }
}

async fn all_known(stores: &Stores) -> Result<(), reflector::store::WriterDropped> {
    stores.universes.wait_until_ready().await?;
    stores.prototypes.wait_until_ready().await?;
    stores.pools.wait_until_ready().await?;
    stores.facets.wait_until_ready().await?;
    stores.snapshots.wait_until_ready().await?;
    stores.codexes.wait_until_ready().await?;
    stores.proposals.wait_until_ready().await?;
    stores.decisions.wait_until_ready().await?;
    stores.deployments.wait_until_ready().await?;
    stores.stateful_sets.wait_until_ready().await?;
    stores.jobs.wait_until_ready().await?;
    stores.pods.wait_until_ready().await
}

#[derive(Clone)]
struct Watched {
    client: Client,
    namespace: Option<String>,
    routes: Routes,
    /// While another leads nobody takes what is routed.
    leads: Arc<AtomicBool>,
}

impl Watched {
    /// Keeps a store up to date for ever, and routes every change and deletion.
    async fn run<K>(self, writer: Writer<K>, labels: &'static str, route: fn(&Routes, &K))
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + Debug
            + Send
            + Sync
            + 'static,
    {
        let api: Api<K> = match &self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        // By pages, and the latest: an API server that has fallen behind would tell of what is no more.
        let config = watcher::Config::default().labels(labels);
        let changes =
            watcher(api, config).default_backoff().modify(|object| lighten(object.meta_mut())).reflect(writer);
        let kind = K::kind(&());
        changes
            .for_each(|event| {
                match event {
                    Ok(_) if !self.leads.load(Ordering::SeqCst) => {}
                    Ok(watcher::Event::Apply(object) | watcher::Event::Delete(object)) => route(&self.routes, &object),
                    // What a new list names is in the store only now, and what it no longer names went without an event.
                    Ok(watcher::Event::InitDone) => self.routes.all(),
                    Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => {}
                    // Among others: a definition that is not installed.
                    Err(error) => tracing::warn!(%kind, %error, "watch; it goes on by itself"),
                }
                std::future::ready(())
            })
            .await;
    }
}

/// Leaves out what no plan looks at: who wrote which field, and the manifest once more.
fn lighten(metadata: &mut ObjectMeta) {
    metadata.managed_fields = None;
    if let Some(annotations) = &mut metadata.annotations {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
}

/// Runs the reconciler of one kind for what its receiver names.
async fn control<K, F>(
    store: Store<Guarded<K>>,
    triggers: UnboundedReceiver<ObjectRef<Guarded<K>>>,
    context: Arc<Context>,
    reconcile: fn(Arc<Guarded<K>>, Arc<Context>) -> F,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    F: Future<Output = Result<Action, Error>> + Send + 'static,
{
    let triggers = stream::unfold(triggers, |mut triggers| async move {
        let trigger = triggers.recv().await?;
        METRICS.queued(&K::kind(&()), -1);
        Some((trigger, triggers))
    });
    // The watch is elsewhere: this stream only gives the controller its type.
    Controller::for_stream(stream::pending::<Result<Guarded<K>, watcher::Error>>(), store)
        .reconcile_on(triggers)
        .with_config(controller::Config::default().concurrency(CONCURRENCY))
        .graceful_shutdown_on(stop)
        .run(reconcile, |_, _, _| Action::await_change(), context)
        .for_each(|ended| {
            if let Err(error) = ended {
                // An object that went before its turn came.
                tracing::debug!(%error, "reconcile");
            }
            std::future::ready(())
        })
        .await;
}

impl Routes {
    /// Everything, for a new leader, and after a gap in what was watched.
    fn all(&self) {
        self.stores.universes.state().iter().for_each(|o| enqueue(&self.universes, ObjectRef::from_obj(o.as_ref())));
        self.stores.prototypes.state().iter().for_each(|o| enqueue(&self.prototypes, ObjectRef::from_obj(o.as_ref())));
        self.stores.pools.state().iter().for_each(|o| enqueue(&self.pools, ObjectRef::from_obj(o.as_ref())));
        self.stores.pools.state().iter().for_each(|o| enqueue(&self.adapters, ObjectRef::from_obj(o.as_ref())));
        self.stores.facets.state().iter().for_each(|o| enqueue(&self.facets, ObjectRef::from_obj(o.as_ref())));
        self.stores.snapshots.state().iter().for_each(|o| enqueue(&self.snapshots, ObjectRef::from_obj(o.as_ref())));
        self.stores.codexes.state().iter().for_each(|o| enqueue(&self.codexes, ObjectRef::from_obj(o.as_ref())));
        self.stores.universes.state().iter().for_each(|o| enqueue(&self.proposals, ObjectRef::from_obj(o.as_ref())));
        self.stores.decisions.state().iter().for_each(|o| enqueue(&self.decisions, ObjectRef::from_obj(o.as_ref())));
    }

    fn universe(&self, object: &Guarded<Universe>) {
        let (name, namespace) = (object.name_any(), object.namespace());
        for namesake in self.stores.universes.state_filter(|other| other.name_any() == name) {
            enqueue(&self.universes, ObjectRef::from_obj(&namesake));
        }
        let lives_here = |prototype: &Prototype| prototype.namespace() == namespace && prototype.spec.universe == name;
        for prototype in readable(&self.stores.prototypes, lives_here) {
            enqueue(&self.prototypes, reference(&prototype));
        }
        let is_of_it = |snapshot: &Snapshot| snapshot.namespace() == namespace && snapshot.spec.universe == name;
        for snapshot in readable(&self.stores.snapshots, is_of_it) {
            enqueue(&self.snapshots, reference(&snapshot));
        }
        let is_for_it = |codex: &Codex| codex.namespace() == namespace && codex.spec.universe == name;
        for codex in readable(&self.stores.codexes, is_for_it) {
            enqueue(&self.codexes, reference(&codex));
        }
        enqueue(&self.proposals, ObjectRef::from_obj(object));
    }

    /// One that cannot be read may be anybody's of its namespace, and so may one that could not be read before.
    fn codex(&self, object: &Guarded<Codex>) {
        enqueue(&self.codexes, ObjectRef::from_obj(object));
        let namespace = object.namespace();
        for universe in readable(&self.stores.universes, |universe| universe.namespace() == namespace) {
            enqueue(&self.universes, reference(&universe));
        }
    }

    fn proposal(&self, object: &Guarded<Proposal>) {
        let (name, namespace) = (object.name_any(), object.namespace());
        if let Ok(proposal) = &object.0 {
            enqueue(&self.proposals, named(&proposal.spec.universe, namespace.as_deref()));
            let amended =
                |codex: &Codex| codex.namespace() == namespace && codex.spec.universe == proposal.spec.universe;
            for codex in readable(&self.stores.codexes, |codex| proposal.spec.amendment && amended(codex)) {
                enqueue(&self.codexes, reference(&codex));
            }
        }
        let about = |decision: &ProposalDecision| decision.namespace() == namespace && decision.spec.proposal == name;
        for decision in readable(&self.stores.decisions, about) {
            enqueue(&self.decisions, reference(&decision));
        }
    }

    /// What a universe has taken is seen at its proposal.
    fn decision(&self, object: &Guarded<ProposalDecision>) {
        enqueue(&self.decisions, ObjectRef::from_obj(object));
        let Ok(decision) = &object.0 else { return };
        let namespace = decision.namespace().unwrap_or_default();
        let proposal = lookup(&self.stores.proposals, &namespace, &decision.spec.proposal);
        if let Some(proposal) = proposal.filter(|_| decision::is_settled(decision)) {
            enqueue(&self.proposals, named(&proposal.spec.universe, Some(&namespace)));
        }
    }

    fn snapshot(&self, object: &Guarded<Snapshot>) {
        let (name, namespace) = (object.name_any(), object.namespace());
        enqueue(&self.snapshots, ObjectRef::from_obj(object));
        let waits = |universe: &Universe| {
            let from = universe.spec.restore_from.as_ref().and_then(|from| from.snapshot.as_ref());
            universe.namespace() == namespace && from == Some(&name)
        };
        for universe in readable(&self.stores.universes, waits) {
            enqueue(&self.universes, reference(&universe));
        }
    }

    fn prototype(&self, object: &Guarded<Prototype>) {
        let (name, namespace) = (object.name_any(), object.namespace());
        enqueue(&self.prototypes, ObjectRef::from_obj(object));
        let delegates = |other: &Prototype| other.namespace() == namespace && other.spec.parents.contains(&name);
        for child in readable(&self.stores.prototypes, delegates) {
            enqueue(&self.prototypes, reference(&child));
        }
        // One that goes may have waited for this one.
        let parents = object.0.as_ref().map(|prototype| prototype.spec.parents.as_slice()).unwrap_or_default();
        let waits = |other: &Prototype| {
            let goes = other.metadata.deletion_timestamp.is_some();
            goes && other.namespace() == namespace && parents.contains(&other.name_any())
        };
        if !parents.is_empty() {
            for parent in readable(&self.stores.prototypes, waits) {
                enqueue(&self.prototypes, reference(&parent));
            }
        }
    }

    fn pool(&self, object: &Guarded<ModelPool>) {
        let (name, namespace) = (object.name_any(), object.namespace());
        enqueue(&self.pools, ObjectRef::from_obj(object));
        enqueue(&self.adapters, ObjectRef::from_obj(object));
        let of_it = |facet: &Facet| facet.namespace() == namespace && facet.spec.pool == name;
        for facet in readable(&self.stores.facets, of_it) {
            enqueue(&self.facets, reference(&facet));
        }
    }

    fn facet(&self, object: &Guarded<Facet>) {
        enqueue(&self.facets, ObjectRef::from_obj(object));
        if let Ok(facet) = &object.0 {
            enqueue(&self.adapters, named(&facet.spec.pool, facet.namespace().as_deref()));
        }
    }

    fn child<K: Resource<DynamicType = ()>>(&self, child: &K) {
        let namespace = child.namespace();
        for owner in child.owner_references() {
            match owner.kind.as_str() {
                "Universe" => enqueue(&self.universes, named(&owner.name, namespace.as_deref())),
                "Snapshot" => enqueue(&self.snapshots, named(&owner.name, namespace.as_deref())),
                "ModelPool" => enqueue(&self.pools, named(&owner.name, namespace.as_deref())),
                _ => {}
            }
        }
    }

    fn pod(&self, pod: &Pod) {
        let namespace = pod.namespace();
        for universe in [meta::UNIVERSE, meta::RESTORE].into_iter().filter_map(|label| pod.labels().get(label)) {
            enqueue(&self.universes, named(universe, namespace.as_deref()));
        }
        if let Some(snapshot) = pod.labels().get(meta::SNAPSHOT) {
            enqueue(&self.snapshots, named(snapshot, namespace.as_deref()));
        }
        if let Some(pool) = pod.labels().get(meta::POOL) {
            enqueue(&self.pools, named(pool, namespace.as_deref()));
            enqueue(&self.adapters, named(pool, namespace.as_deref()));
        }
    }
}

/// Puts an object into its reconciler's queue. That fails only when the reconciler has ended, and then all end.
fn enqueue<K: Resource<DynamicType = ()>>(
    queue: &UnboundedSender<ObjectRef<Guarded<K>>>,
    object: ObjectRef<Guarded<K>>,
) {
    METRICS.queued(&K::kind(&()), 1);
    let _ = queue.send(object);
}

fn named<K: Resource<DynamicType = ()>>(name: &str, namespace: Option<&str>) -> ObjectRef<Guarded<K>> {
    ObjectRef::new(name).within(namespace.unwrap_or_default())
}

fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectRef<Guarded<K>> {
    named(&object.name_any(), object.namespace().as_deref())
}
