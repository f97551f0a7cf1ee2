//! Prototype → an object, through the universe's workers.

mod plan;

use std::sync::Arc;

use batos_crds::Prototype;
use kube::{Resource, runtime::controller::Action};
use serde_json::json;

use crate::{
    context::{Context, Guarded, Report, lookup, place},
    error::Error,
};
use plan::{Next, Outcome, Send};

pub async fn reconcile(object: Arc<Guarded<Prototype>>, context: Arc<Context>) -> Result<Action, Error> {
    let ended = match &object.0 {
        Ok(prototype) => try_reconcile(prototype, &context).await,
        Err(invalid) => context.refuse::<Prototype>(invalid).await,
    };
    context.after(object.as_ref(), ended)
}

async fn try_reconcile(prototype: &Prototype, context: &Context) -> Result<Action, Error> {
    if prototype.meta().deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let (namespace, _) = place(prototype.meta())?;
    let universe = lookup(&context.stores.universes, namespace, &prototype.spec.universe);
    let observed = plan::Observed { universe: universe.as_ref(), outcome: None };
    let mut next = plan::plan(prototype, &observed, &context.settings, context.term);
    if let Next::Send(request) = &next {
        let outcome = send(request, context).await;
        let observed = plan::Observed { universe: universe.as_ref(), outcome: Some(&outcome) };
        next = plan::plan(prototype, &observed, &context.settings, context.term);
    }
    let Next::Conclude(report) = next else { return Ok(Action::await_change()) };
    let why = report.verdict.message.clone();
    let status = prototype.status.as_ref();
    let before = status.map(|s| s.conditions.as_slice()).unwrap_or_default();
    let fields = json!({ "object": report.object, "rev": report.rev, "universeUid": report.universe_uid });
    context.report::<Prototype>(prototype.meta(), Report::new(status, before, fields, vec![report.verdict])).await?;
    if report.retry { Err(Error::NotYet(why)) } else { Ok(Action::await_change()) }
}

async fn send(request: &Send, context: &Context) -> Outcome {
    let bus = match context.bus(&request.bus).await {
        Ok(bus) => bus,
        Err(error) => return Outcome::Unreachable(error.to_string()),
    };
    match bus.request(&request.subject, &request.command, None).await {
        Ok(reply) => Outcome::Replied(reply),
        Err(error) => Outcome::Unreachable(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
