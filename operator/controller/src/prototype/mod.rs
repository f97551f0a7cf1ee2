//! Prototype → an object, through the universe's workers, and its end.

mod drift;
mod plan;

use std::sync::Arc;

use batos_crds::{DeletionPolicy, Prototype, Universe};
use kube::{Resource, ResourceExt, runtime::controller::Action};
use serde_json::json;

use crate::{
    context::{Context, Guarded, Report, lookup, place},
    error::Error,
    meta,
    metrics::METRICS,
};
pub use drift::Rounds;
use plan::{Conclusion, Next, Outcome, Send};

pub async fn reconcile(object: Arc<Guarded<Prototype>>, context: Arc<Context>) -> Result<Action, Error> {
    let ended = match &object.0 {
        Ok(prototype) => METRICS.step("Prototype", "reconcile", try_reconcile(prototype, &context)).await,
        Err(invalid) => context.refuse::<Prototype>(invalid).await,
    };
    context.after(object.as_ref(), ended)
}

async fn try_reconcile(prototype: &Prototype, context: &Context) -> Result<Action, Error> {
    let (namespace, _) = place(prototype.meta())?;
    let universe = lookup(&context.stores.universes, namespace, &prototype.spec.universe);
    let is_held = prototype.finalizers().iter().any(|finalizer| finalizer == meta::REMOVE);
    if prototype.meta().deletion_timestamp.is_some() {
        context.drift.forget(&prototype.uid().unwrap_or_default());
        return match is_held {
            true => end(prototype, universe.as_ref(), context).await,
            false => Ok(Action::await_change()),
        };
    }
    // Before anything is sent: what the universe has shall not outlive its resource.
    let shall_be_held = prototype.spec.deletion_policy == DeletionPolicy::Delete;
    if is_held != shall_be_held {
        context.hold::<Prototype>(prototype.meta(), meta::REMOVE, shall_be_held).await?;
    }
    let uid = prototype.uid().unwrap_or_default();
    let due = context.drift.is_due(&uid, prototype.spec.drift);
    let observed = plan::Observed { universe: universe.as_ref(), due, outcome: None };
    let mut next = plan::plan(prototype, &observed, &context.settings, context.leadership.term);
    if let Next::Send(request) = &next {
        let outcome = send(request, context).await;
        let observed = plan::Observed { universe: universe.as_ref(), due, outcome: Some(&outcome) };
        context.drift.looked(&uid);
        next = plan::plan(prototype, &observed, &context.settings, context.leadership.term);
    }
    let Next::Conclude(report) = next else { return Ok(Action::await_change()) };
    conclude(prototype, report, context).await
}

/// Ends the object, then lets its resource go.
async fn end(prototype: &Prototype, universe: Option<&Universe>, context: &Context) -> Result<Action, Error> {
    let mut outcome = None;
    loop {
        match plan::end(prototype, universe, outcome.as_ref(), &context.settings, context.leadership.term) {
            Next::Send(request) if outcome.is_none() => outcome = Some(send(&request, context).await),
            Next::Send(_) => return Ok(Action::await_change()),
            Next::Release => {
                context.hold::<Prototype>(prototype.meta(), meta::REMOVE, false).await?;
                return Ok(Action::await_change());
            }
            Next::Conclude(report) => return conclude(prototype, report, context).await,
        }
    }
}

async fn conclude(prototype: &Prototype, report: Conclusion, context: &Context) -> Result<Action, Error> {
    let uid = prototype.uid().unwrap_or_default();
    let why = report.verdict.message.clone();
    let status = prototype.status.as_ref();
    let before = status.map(|s| s.conditions.as_slice()).unwrap_or_default();
    let slots = Some(report.slots).filter(|slots| !slots.is_empty());
    let fields = json!({ "object": report.object, "rev": report.rev, "universeUid": report.universe_uid,
        "drift": report.drift, "slots": slots });
    let verdicts = [Some(report.verdict), report.sync].into_iter().flatten().collect();
    context.report::<Prototype>(prototype.meta(), Report::new(status, before, fields, verdicts)).await?;
    match report.retry {
        true => Err(Error::NotYet(why)),
        false => Ok(context.drift.next(&uid, prototype.spec.drift)),
    }
}

async fn send(request: &Send, context: &Context) -> Outcome {
    let asked = context.ask(&request.namespace, &request.reach, &request.subject, &request.command);
    match METRICS.step("Prototype", "send", asked).await {
        Ok(reply) => Outcome::Replied(reply),
        Err(why) => Outcome::Unreachable(why),
    }
}

#[cfg(test)]
mod tests;
