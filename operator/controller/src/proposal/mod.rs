//! What universes propose → Proposals. The universe has the truth: it is asked again and again, for it tells nobody.

mod plan;

use std::sync::Arc;

use batos_covenant::{AccessClass, Command, ListCommand, ProposalPage, Reply, Subject};
use batos_crds::{Proposal, Universe};
use kube::{Resource, runtime::controller::Action};
use serde_json::json;

pub use plan::belongs;
#[cfg(test)]
pub use plan::name;

use crate::{
    context::{Context, Guarded, Report, place, readable},
    error::Error,
    metrics::METRICS,
    universe::reach,
};

/// The verbs of a universe as a whole have this object.
pub const ANY: &str = "_";

/// Runs for Universes, beside what makes their workers. What fails is tried again in the next round.
pub async fn reconcile(object: Arc<Guarded<Universe>>, context: Arc<Context>) -> Result<Action, Error> {
    let Ok(universe) = &object.0 else { return Ok(Action::await_change()) };
    let ready = universe.status.as_ref().and_then(|status| status.workers_ready).unwrap_or(0) > 0;
    if universe.meta().deletion_timestamp.is_some() || !ready {
        return Ok(Action::await_change());
    }
    if let Err(error) = METRICS.step("Proposal", "reconcile", try_reconcile(universe, &context)).await {
        tracing::warn!(universe = universe.metadata.name, %error, "proposals are not shown; tried again soon");
    }
    Ok(Action::requeue(context.settings.proposal_check))
}

async fn try_reconcile(universe: &Universe, context: &Context) -> Result<(), Error> {
    let (namespace, name) = place(universe.meta())?;
    let rows = ask(universe, context).await?;
    let live = readable(&context.stores.proposals, |proposal| {
        proposal.metadata.namespace.as_deref() == Some(namespace) && proposal.spec.universe == name
    });
    let plan = plan::plan(universe, &rows, &live);
    for proposal in plan.gone {
        context.remove::<Proposal>(proposal.meta()).await?;
    }
    for shown in plan.shown {
        let metadata = match shown.live {
            Some(live) => live.metadata.clone(),
            None => context.apply(namespace, &shown.object).await?.metadata,
        };
        let status = shown.live.and_then(|live| live.status.as_ref());
        let before = status.map(|s| s.conditions.as_slice()).unwrap_or_default();
        let report = Report::new(status, before, json!({ "state": shown.state }), vec![shown.verdict]);
        context.report::<Proposal>(&metadata, report).await?;
    }
    Ok(())
}

/// All that a universe proposes or has proposed.
async fn ask(universe: &Universe, context: &Context) -> Result<Vec<batos_covenant::Proposal>, Error> {
    let (namespace, name) = place(universe.meta())?;
    let reach = reach(universe, &context.settings);
    let failed = |error: String| Error::Asked(format!("universe {name:?}: {error}"));
    let subject =
        Subject::new(&reach.root, name, AccessClass::Adm, ANY, "proposals").map_err(|e| failed(e.to_string()))?;
    let (mut rows, mut after) = (Vec::new(), None);
    loop {
        let command = Command::Proposals(ListCommand { after });
        let value = match context.ask(namespace, &reach, &subject, &command).await.map_err(failed)? {
            Reply::Ok(reply) => reply.value,
            Reply::Error { error } => return Err(failed(error.message)),
        };
        let page: ProposalPage = serde_json::from_value(value)
            .map_err(|source| Error::Encode { what: format!("proposals of {name:?}"), source })?;
        rows.extend(page.proposals);
        after = page.next;
        if after.is_none() {
            return Ok(rows);
        }
    }
}

#[cfg(test)]
mod tests;
