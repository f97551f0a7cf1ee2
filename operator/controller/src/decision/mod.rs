//! ProposalDecision → a signed decision, which the universe carries out. Each is acted on once.

mod plan;
mod policy;
mod signer;

use std::sync::Arc;

use batos_covenant::{Command, ErrorKind, Reply, Subject};
use batos_crds::{DecisionState, ProposalDecision};
use k8s_openapi::{
    api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
    jiff::Timestamp,
};
use kube::{Api, Resource, runtime::controller::Action};
use serde_json::json;

pub use plan::is_settled;
pub use policy::Decisions;
pub use signer::Signer;

use crate::{
    context::{Context, Guarded, Report, bounded, lookup, place},
    error::Error,
    metrics::METRICS,
    universe::Reach,
};
use plan::{Conclusion, aim, conclude, refused, unreached};

pub async fn reconcile(object: Arc<Guarded<ProposalDecision>>, context: Arc<Context>) -> Result<Action, Error> {
    let ended = match &object.0 {
        Ok(decision) => METRICS.step("ProposalDecision", "reconcile", try_reconcile(decision, &context)).await,
        Err(invalid) => context.refuse::<ProposalDecision>(invalid).await,
    };
    context.after(object.as_ref(), ended)
}

async fn try_reconcile(decision: &ProposalDecision, context: &Context) -> Result<Action, Error> {
    if decision.meta().deletion_timestamp.is_some() || is_settled(decision) {
        return Ok(Action::await_change());
    }
    let Conclusion { state, verdict, retry } = match carry_out(decision, context).await {
        Ok(conclusion) | Err(conclusion) => conclusion,
    };
    let why = verdict.message.clone();
    let status = decision.status.as_ref();
    let before = status.map(|s| s.conditions.as_slice()).unwrap_or_default();
    let report = Report::new(status, before, json!({ "state": state }), vec![verdict]);
    context.report::<ProposalDecision>(decision.meta(), report).await?;
    match state {
        _ if retry => Err(Error::NotYet(why)),
        // For something that may never come.
        DecisionState::Waiting => Ok(Action::requeue(plan::rest(decision, Timestamp::now()))),
        DecisionState::Done | DecisionState::Refused => Ok(Action::await_change()),
    }
}

async fn carry_out(decision: &ProposalDecision, context: &Context) -> Result<Conclusion, Conclusion> {
    let failed = |error: Error| unreached("PolicyUnknown", error.to_string());
    let Some(wanted) = &context.settings.decisions else {
        let why =
            "this operator takes no decisions: values of the chart, decisions.enabled; or sign with a key".to_owned();
        return Err(refused(("NotEnabled", why)));
    };
    let (namespace, _) = place(decision.meta()).map_err(failed)?;
    let proposal = lookup(&context.stores.proposals, namespace, &decision.spec.proposal);
    let universe = |name: &str| lookup(&context.stores.universes, namespace, name);
    let mut send = aim(decision, proposal.as_ref(), universe, Timestamp::now(), &context.settings)?;

    // Last of all, and not from a cache.
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(context.client.clone());
    let policy = bounded("policy", policies.get_opt(&wanted.name)).await.map_err(failed)?;
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(context.client.clone());
    let binding = bounded("its binding", bindings.get_opt(&wanted.name)).await.map_err(failed)?;
    policy::judge(decision, policy.as_ref(), binding.as_ref(), wanted).map_err(refused)?;

    let signer = context.signer(wanted).await.map_err(failed)?;
    signer.sign(&mut send.decision, &send.universe);
    let (reach, subject, command) = send.command();
    Ok(conclude(METRICS.step("ProposalDecision", "send", ask(namespace, &reach, &subject, &command, context)).await))
}

/// Two of one decision may be under way, when the first was given up on: the later one is refused as stale while the
/// earlier is taken, and said once more it is known as the same.
async fn ask(
    namespace: &str,
    reach: &Reach,
    subject: &Subject,
    command: &Command,
    context: &Context,
) -> Result<Reply, String> {
    match context.ask(namespace, reach, subject, command).await {
        Ok(Reply::Error { error }) if error.kind == ErrorKind::Stale => {
            context.ask(namespace, reach, subject, command).await
        }
        other => other,
    }
}

#[cfg(test)]
pub mod tests;
