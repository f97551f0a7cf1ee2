//! A Facet whose ModelPool is not there. Facets of a pool are that pool's business.

use std::sync::Arc;

use batos_crds::Facet;
use kube::{Resource, runtime::controller::Action};
use serde_json::json;

use crate::{
    condition::{LOADED, Outlook, PLACED, READY, Verdict},
    context::{Context, Guarded, Report, lookup, place},
    error::Error,
    meta,
    metrics::METRICS,
};

pub async fn reconcile(object: Arc<Guarded<Facet>>, context: Arc<Context>) -> Result<Action, Error> {
    let ended = match &object.0 {
        Ok(facet) => METRICS.step("Facet", "reconcile", try_reconcile(facet, &context)).await,
        Err(invalid) => context.refuse::<Facet>(invalid).await,
    };
    context.after(object.as_ref(), ended)
}

async fn try_reconcile(facet: &Facet, context: &Context) -> Result<Action, Error> {
    let (namespace, _) = place(facet.meta())?;
    let pool = lookup(&context.stores.pools, namespace, &facet.spec.pool);
    if pool.is_some_and(|pool| pool.metadata.deletion_timestamp.is_none()) {
        return Ok(Action::await_change());
    }
    // With the pool its pods went, and with them all that was loaded.
    if facet.meta().finalizers.iter().flatten().any(|finalizer| finalizer == meta::UNLOAD) {
        context.hold::<Facet>(facet.meta(), meta::UNLOAD, false).await?;
    }
    if facet.meta().deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let message = format!("no ModelPool {:?} in this namespace", facet.spec.pool);
    let verdict = |condition| Verdict::new(condition, Outlook::Waiting, "PoolMissing", message.clone());
    let status = facet.status.as_ref();
    let before = status.map(|s| s.conditions.as_slice()).unwrap_or_default();
    let report = Report::new(status, before, json!({}), vec![verdict(READY), verdict(PLACED), verdict(LOADED)]);
    context.report::<Facet>(facet.meta(), report).await?;
    Ok(Action::await_change())
}
