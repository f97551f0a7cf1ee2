//! Codex → laws of a universe's workers. The universe's reconciler gives them to the workers; here is told whether there is
//! one that they are in force for, and whether an Architect has to approve them first.

use std::sync::Arc;

use batos_crds::{Codex, ProposalState, Universe};
use kube::{Resource, ResourceExt, runtime::controller::Action};
use serde_json::json;

use crate::{
    condition::Verdict,
    context::{Context, Guarded, Report, lookup, place, readable},
    error::Error,
    metrics::METRICS,
};

pub async fn reconcile(object: Arc<Guarded<Codex>>, context: Arc<Context>) -> Result<Action, Error> {
    let ended = match &object.0 {
        Ok(codex) => METRICS.step("Codex", "reconcile", try_reconcile(codex, &context)).await,
        Err(invalid) => context.refuse::<Codex>(invalid).await,
    };
    context.after(object.as_ref(), ended)
}

async fn try_reconcile(codex: &Codex, context: &Context) -> Result<Action, Error> {
    if codex.meta().deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let (namespace, _) = place(codex.meta())?;
    let universe = lookup(&context.stores.universes, namespace, &codex.spec.universe);
    let status = codex.status.as_ref();
    let before = status.map(|s| s.conditions.as_slice()).unwrap_or_default();
    let amendments = readable(&context.stores.proposals, |proposal| {
        let waits = proposal.status.as_ref().is_some_and(|status| status.state == Some(ProposalState::Pending));
        proposal.namespace().as_deref() == Some(namespace)
            && proposal.spec.universe == codex.spec.universe
            && proposal.spec.amendment
            && waits
    });
    let amendment = amendments.first().map(ResourceExt::name_any);
    let verdict = verdict(codex, universe.as_ref(), amendment.as_deref());
    let report = Report::new(status, before, json!({}), vec![verdict]);
    context.report::<Codex>(codex.meta(), report).await?;
    Ok(Action::await_change())
}

fn verdict(codex: &Codex, universe: Option<&Universe>, amendment: Option<&str>) -> Verdict {
    let name = &codex.spec.universe;
    match (universe, amendment) {
        (Some(_), Some(proposal)) => {
            let text = format!("the laws of universe {name} stay as they are until Proposal {proposal} is approved");
            Verdict::waiting("AmendmentPending", text)
        }
        (Some(_), None) => {
            let (principles, rules) = (codex.spec.principles.len(), codex.spec.rules.len());
            Verdict::ready("InForce", format!("{principles} principles and {rules} rules for universe {name}"))
        }
        (None, _) => Verdict::waiting("UniverseMissing", format!("there is no Universe {name:?} in this namespace")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::condition::Outlook;

    #[test]
    fn a_codex_is_in_force_once_its_universe_is_there() {
        let object = |kind: &str, spec: serde_json::Value| json!({ "apiVersion": "batos.dev/v1alpha1", "kind": kind, "metadata": { "name": "x" }, "spec": spec });
        let codex = object(
            "Codex",
            json!({ "universe": "u", "principles": ["be kind"], "rules": [{ "name": "r", "forbidMaking": true }] }),
        );
        let codex: Codex = serde_json::from_value(codex).unwrap();
        let universe: Universe = serde_json::from_value(object("Universe", json!({}))).unwrap();
        let told = verdict(&codex, Some(&universe), Some("u-1"));
        assert_eq!((told.reason, told.outlook), ("AmendmentPending", Outlook::Waiting));
        let told = verdict(&codex, Some(&universe), None);
        assert_eq!((told.reason, told.outlook), ("InForce", Outlook::Good));
        assert_eq!(told.message, "1 principles and 1 rules for universe u");
        let told = verdict(&codex, None, None);
        assert_eq!((told.reason, told.outlook), ("UniverseMissing", Outlook::Waiting));
    }
}
