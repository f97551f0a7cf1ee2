//! ModelPool → engine pods and their Service, and the Facets' adapters on those pods.
//!
//! Adapters are placed here and not facet by facet: where one goes depends on where the others are.

mod adapters;
mod engine;
mod workload;

use std::{sync::Arc, time::Duration};

use batos_crds::{Facet, ModelPool};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Resource, ResourceExt,
    runtime::{controller::Action, reflector::ObjectRef},
};
use serde_json::json;

pub use engine::{Engines, Http};

use crate::{
    condition::Verdict,
    context::{Context, Guarded, Report, place, readable},
    error::Error,
    meta,
    metrics::METRICS,
    workload::Progress,
};
use adapters::{EnginePod, Outcomes};

/// An engine may forget adapters without telling: a pool with facets is looked at this often.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

pub async fn reconcile(object: Arc<Guarded<ModelPool>>, context: Arc<Context>) -> Result<Action, Error> {
    let ended = match &object.0 {
        Ok(pool) => METRICS.step("ModelPool", "reconcile", try_reconcile(pool, &context)).await,
        Err(invalid) => context.refuse::<ModelPool>(invalid).await,
    };
    context.after(object.as_ref(), ended)
}

async fn try_reconcile(pool: &ModelPool, context: &Context) -> Result<Action, Error> {
    if pool.meta().deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let (namespace, name) = place(pool.meta())?;
    let pods = pods(pool, context);
    let pods: Vec<&Pod> = pods.iter().map(AsRef::as_ref).collect();
    let child = workload::name(name);
    let deployment = context.stores.deployments.get(&ObjectRef::new(&child).within(namespace));
    let progress = deployment.as_deref().map(Progress::of_deployment).unwrap_or_default();
    let mut verdict = progress.verdict("pods", pool.spec.replicas, &pods);
    let mut failure = None;
    for child in workload::build(pool) {
        if let Err(error) = context.apply_child(namespace, &child).await {
            verdict = Verdict::bad("ApplyFailed", error.to_string());
            failure = Some(error);
            break;
        }
    }
    let status = pool.status.as_ref();
    let before = status.map(|s| s.conditions.as_slice()).unwrap_or_default();
    let fields = json!({ "readyReplicas": progress.ready });
    context.report::<ModelPool>(pool.meta(), Report::new(status, before, fields, vec![verdict])).await?;
    failure.map_or(Ok(Action::await_change()), Err)
}

/// Runs beside what makes the pods: an engine is looked at again and again, which writes nothing as long as all is well.
pub async fn weave(object: Arc<Guarded<ModelPool>>, context: Arc<Context>) -> Result<Action, Error> {
    let Ok(pool) = &object.0 else { return Ok(Action::await_change()) };
    if pool.meta().deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let ended = METRICS.step("ModelPool", "weave", try_weave(pool, &context)).await;
    context.after(object.as_ref(), ended)
}

async fn try_weave(pool: &ModelPool, context: &Context) -> Result<Action, Error> {
    let (namespace, name) = place(pool.meta())?;
    let pods = pods(pool, context);
    let pods: Vec<&Pod> = pods.iter().map(AsRef::as_ref).collect();
    let ours = |facet: &Facet| facet.namespace().as_deref() == Some(namespace) && facet.spec.pool == name;
    let facets = readable(&context.stores.facets, ours);
    match facets.is_empty() && pods.is_empty() {
        true => Ok(Action::await_change()),
        false => place_adapters(pool, &facets, &pods, context).await,
    }
}

fn pods(pool: &ModelPool, context: &Context) -> Vec<Arc<Pod>> {
    let (namespace, name) = (pool.namespace().unwrap_or_default(), pool.name_any());
    context.stores.pods.state_filter(|pod| meta::is_labelled(pod, &namespace, meta::POOL, &name))
}

/// Brings the adapters of `facets` onto the pods, and tells each facet how it stands.
async fn place_adapters(pool: &ModelPool, facets: &[Facet], pods: &[&Pod], context: &Context) -> Result<Action, Error> {
    let mut engines = Vec::new();
    for (name, ip) in adapters::serving(pods) {
        let models = context.engines.adapters(&ip, &pool.spec.model).await;
        engines.push(EnginePod { name, ip, models });
    }
    // First of all: what is loaded for a facet must be unloaded before the facet goes.
    for facet in facets.iter().filter(|facet| adapters::needs_hold(facet)) {
        context.hold::<Facet>(facet.meta(), meta::UNLOAD, true).await?;
    }
    let plan = adapters::plan(pool, facets, &engines);
    let mut outcomes = Outcomes::default();
    for step in &plan.steps {
        let done = match &step.path {
            Some(path) => context.engines.load(&step.ip, &step.adapter, path).await,
            None => context.engines.unload(&step.ip, &step.adapter).await,
        };
        if let Err(error) = &done {
            tracing::warn!(pod = step.pod, adapter = step.adapter, error, "engine");
        }
        outcomes.insert((step.pod.clone(), step.adapter.clone()), done);
    }
    let mut failed = false;
    for facet in facets {
        if facet.meta().deletion_timestamp.is_some() {
            match adapters::may_go(facet, &engines, &outcomes) {
                true => context.hold::<Facet>(facet.meta(), meta::UNLOAD, false).await?,
                false => failed = true,
            }
            continue;
        }
        let told = adapters::tell(facet, &plan, &outcomes);
        failed |= told.retry;
        let status = facet.status.as_ref();
        let before = status.map(|s| s.conditions.as_slice()).unwrap_or_default();
        let fields = json!({ "pod": told.pod, "adapter": told.adapter });
        context.report::<Facet>(facet.meta(), Report::new(status, before, fields, told.verdicts)).await?;
    }
    match (failed, facets.is_empty()) {
        (true, _) => Err(Error::NotYet("an adapter is not where it belongs".to_owned())),
        (false, false) => Ok(Action::requeue(LOOK_AGAIN)),
        (false, true) => Ok(Action::await_change()),
    }
}

#[cfg(test)]
mod tests;
