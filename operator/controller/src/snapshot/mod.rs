//! Snapshot → images of a universe on a volume or in a bucket, each written by a Job.

mod plan;

use std::sync::Arc;

use batos_crds::Snapshot;
use k8s_openapi::jiff::Timestamp;
use kube::{Resource, runtime::controller::Action};
use serde_json::json;

use crate::{
    condition::Verdict,
    context::{Context, Guarded, Report, lookup, place},
    error::Error,
    meta,
    metrics::METRICS,
};

pub async fn reconcile(object: Arc<Guarded<Snapshot>>, context: Arc<Context>) -> Result<Action, Error> {
    let ended = match &object.0 {
        Ok(snapshot) => METRICS.step("Snapshot", "reconcile", try_reconcile(snapshot, &context)).await,
        Err(invalid) => context.refuse::<Snapshot>(invalid).await,
    };
    context.after(object.as_ref(), ended)
}

async fn try_reconcile(snapshot: &Snapshot, context: &Context) -> Result<Action, Error> {
    if snapshot.meta().deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let (namespace, name) = place(snapshot.meta())?;
    let universe = lookup(&context.stores.universes, namespace, &snapshot.spec.universe);
    let jobs = context.stores.jobs.state_filter(|job| meta::is_labelled(job, namespace, meta::SNAPSHOT, name));
    let pods = context.stores.pods.state_filter(|pod| meta::is_labelled(pod, namespace, meta::SNAPSHOT, name));
    let observed = plan::Observed {
        universe: universe.as_ref(),
        jobs: jobs.iter().map(AsRef::as_ref).collect(),
        pods: pods.iter().map(AsRef::as_ref).collect(),
        now: Timestamp::now().as_second(),
    };
    let mut plan = plan::plan(snapshot, &observed, &context.settings);
    let mut failure = None;
    for child in &plan.children {
        if let Err(error) = context.apply_child(namespace, child).await {
            plan.verdict = Verdict::bad("ApplyFailed", error.to_string());
            failure = Some(error);
            break;
        }
    }
    let status = snapshot.status.as_ref();
    let before = status.map(|s| s.conditions.as_slice()).unwrap_or_default();
    let images = Some(plan.images).filter(|images| !images.is_empty());
    let fields = json!({ "lastDue": plan.last_due, "images": images });
    context.report::<Snapshot>(snapshot.meta(), Report::new(status, before, fields, vec![plan.verdict])).await?;
    match (failure, plan.next) {
        (Some(error), _) => Err(error),
        (None, Some(pause)) => Ok(Action::requeue(pause)),
        (None, None) => Ok(Action::await_change()),
    }
}

#[cfg(test)]
mod tests;
