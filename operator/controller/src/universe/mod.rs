//! Universe → workers.

mod guards;
mod plan;
mod pulse;
mod restore;
mod workers;

use std::sync::Arc;

use batos_crds::{Universe, UniverseStatus};
use kube::{
    Resource, ResourceExt,
    runtime::{controller::Action, reflector::ObjectRef},
};

pub use guards::{closed, port_of};
pub use plan::{Reach, reach, shape};
pub use pulse::Pulses;
pub use workers::{ARCHITECT, environment, logged_in, quantities};

use crate::{
    condition::Verdict,
    context::{Context, Guarded, Report, lookup, place, readable},
    error::Error,
    meta,
    metrics::METRICS,
};

pub async fn reconcile(object: Arc<Guarded<Universe>>, context: Arc<Context>) -> Result<Action, Error> {
    let ended = match &object.0 {
        Ok(universe) => METRICS.step("Universe", "reconcile", try_reconcile(universe, &context)).await,
        Err(invalid) => context.refuse::<Universe>(invalid).await,
    };
    context.after(object.as_ref(), ended)
}

async fn try_reconcile(universe: &Universe, context: &Context) -> Result<Action, Error> {
    if universe.meta().deletion_timestamp.is_some() {
        context.pulses.forget(&universe.uid().unwrap_or_default());
        return Ok(Action::await_change());
    }
    let (namespace, name) = place(universe.meta())?;
    let child = workers::name(name);
    let deployment = context.stores.deployments.get(&ObjectRef::new(&child).within(namespace));
    let stateful_set = context.stores.stateful_sets.get(&ObjectRef::new(&child).within(namespace));
    let pods = context.stores.pods.state_filter(|pod| meta::is_labelled(pod, namespace, meta::UNIVERSE, name));
    let namesakes = readable(&context.stores.universes, |other| other.name_any() == name);
    let job = context.stores.jobs.get(&ObjectRef::new(&restore::name(name)).within(namespace));
    let restoring = context.stores.pods.state_filter(|pod| meta::is_labelled(pod, namespace, meta::RESTORE, name));
    let from = universe.spec.restore_from.as_ref().and_then(|from| from.snapshot.as_deref());
    let snapshot = from.and_then(|from| lookup(&context.stores.snapshots, namespace, from));
    let codexes = readable(&context.stores.codexes, |codex| {
        codex.namespace().as_deref() == Some(namespace) && codex.spec.universe == name
    });
    let guarded = context.stores.codexes.state();
    let mut unreadable = guarded.iter().filter(|codex| codex.0.is_err());
    let unreadable = unreadable.find(|codex| codex.namespace().as_deref() == Some(namespace));
    let (approver, mut failure) = match &context.settings.decisions {
        Some(wanted) => match context.signer(wanted).await {
            Ok(signer) => (Some(signer.public.as_str()), None),
            Err(error) => (None, Some(error)),
        },
        None => (None, None),
    };
    let observed = plan::Observed {
        deployment: deployment.as_deref(),
        stateful_set: stateful_set.as_deref(),
        pods: pods.iter().map(AsRef::as_ref).collect(),
        namesakes: &namesakes,
        restore: restore::Observed {
            snapshot: snapshot.as_ref(),
            job: job.as_deref(),
            pods: restoring.iter().map(AsRef::as_ref).collect(),
            others_work: deployment.is_some() || stateful_set.is_some() || !pods.is_empty(),
        },
        codexes: &codexes,
        unreadable_codex: unreadable.map(|codex| codex.name_any()),
        approver,
    };
    let mut plan = plan::plan(universe, &observed, &context.settings);
    // Workers that do not know the key would be rolled for it later.
    if let Some(error) = &failure {
        plan.children.clear();
        plan.verdict = Verdict::bad("ApplyFailed", error.to_string());
    }
    // Children that somebody changed or deleted are seen by their versions, as far as they are watched.
    let versions = (
        deployment.as_ref().and_then(|child| child.resource_version()),
        stateful_set.as_ref().and_then(|child| child.resource_version()),
    );
    let (uid, state) = (universe.uid().unwrap_or_default(), meta::digest(&format!("{versions:?} {:?}", plan.children)));
    let is_applied = context.pulses.is_applied(&uid, &state);
    for child in plan.children.iter().filter(|_| !is_applied) {
        if let Err(error) = context.apply_child(namespace, child).await {
            plan.verdict = Verdict::bad("ApplyFailed", error.to_string());
            failure = Some(error);
            break;
        }
    }
    if failure.is_none() {
        context.pulses.applied(uid, state);
    }
    let reach = reach(universe, &context.settings);
    let bus = serde_json::json!({ "url": reach.url, "root": reach.root });
    let status = universe.status.as_ref();
    let before = status.map(|s| s.conditions.as_slice()).unwrap_or_default();
    // Where nothing was made there is nobody to ask.
    let pulse = match plan.store.is_some() && failure.is_none() {
        true => Some(pulse::feel(universe, plan.workers_ready > 0, context).await?),
        false => None,
    };
    let told = pulse::tell(plan.verdict, pulse.as_ref(), status.unwrap_or(&UniverseStatus::default()));
    let fields = serde_json::json!({ "workersReady": plan.workers_ready, "store": plan.store, "bus": bus, "restore": plan.restore,
        "selector": format!("{}={name}", meta::UNIVERSE), "phase": told.phase, "objects": told.objects,
        "objectsCounted": told.objects_counted, "versions": told.versions });
    context.report::<Universe>(universe.meta(), Report::new(status, before, fields, told.verdicts)).await?;
    let again = pulse.map_or_else(Action::await_change, |_| Action::requeue(context.settings.proposal_check));
    failure.map_or(Ok(again), Err)
}

#[cfg(test)]
mod tests;
