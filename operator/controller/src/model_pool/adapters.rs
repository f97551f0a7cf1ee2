//! Which adapter is loaded where: the weaver's placement in terms of facets and pods. Pure.

use std::collections::{BTreeMap, BTreeSet};

use batos_crds::{Facet, ModelPool};
use batos_weaver::{Action, Placement, place};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use crate::{
    condition::{LOADED, Outlook, PLACED, READY, Verdict},
    meta,
};

/// A pod that serves, and what its engine answered.
pub struct EnginePod {
    pub name: String,
    pub ip: String,
    /// Adapters and their folders.
    pub models: Result<BTreeMap<String, String>, String>,
}

/// One request to an engine: a load when there is a path, else an unload.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    pub pod: String,
    pub ip: String,
    pub adapter: String,
    pub path: Option<String>,
}

#[derive(Debug, Default)]
pub struct Plan {
    pub steps: Vec<Step>,
    placement: Placement,
    /// Pods that were considered.
    pods: usize,
    /// Why others were not.
    unusable: Vec<String>,
}

/// What became of the steps, by pod and adapter.
pub type Outcomes = BTreeMap<(String, String), Result<(), String>>;

/// What a facet is told.
pub struct Told {
    pub verdicts: Vec<Verdict>,
    pub pod: Option<String>,
    pub adapter: Option<String>,
    /// Try again, even if nothing changes.
    pub retry: bool,
}

/// The adapter's name at the engine. The digest of its path keeps the weights of an older path from being taken for it.
pub fn adapter_name(facet: &Facet) -> String {
    let digest: String = meta::digest(&facet.spec.adapter.path).chars().take(8).collect();
    format!("{}-{digest}", facet.name_any())
}

/// Name and address of the pods whose engine serves.
pub fn serving(pods: &[&Pod]) -> Vec<(String, String)> {
    let address = |pod: &&Pod| {
        let status = pod.status.as_ref()?;
        let ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
        let stays = pod.metadata.deletion_timestamp.is_none();
        let ip = status.pod_ip.clone()?;
        (ready && stays).then(|| (pod.name_any(), ip))
    };
    let mut pods: Vec<_> = pods.iter().filter_map(address).collect();
    pods.sort();
    pods
}

/// Whether a facet still lacks the finalizer that it must have before anything is loaded.
pub fn needs_hold(facet: &Facet) -> bool {
    facet.metadata.deletion_timestamp.is_none() && !is_held(facet)
}

pub fn is_held(facet: &Facet) -> bool {
    facet.finalizers().iter().any(|finalizer| finalizer == meta::UNLOAD)
}

pub fn plan(pool: &ModelPool, facets: &[Facet], engines: &[EnginePod]) -> Plan {
    let slots = usize::try_from(pool.spec.slots).unwrap_or(0);
    let wanted: BTreeMap<String, &str> = facets
        .iter()
        .filter(|facet| facet.metadata.deletion_timestamp.is_none())
        .map(|facet| (adapter_name(facet), facet.spec.adapter.path.as_str()))
        .collect();
    let pods: Vec<batos_weaver::Pod> = engines
        .iter()
        .filter_map(|engine| {
            let holds = engine.models.as_ref().ok()?.keys().cloned().collect();
            Some(batos_weaver::Pod { name: engine.name.clone(), slots, holds })
        })
        .collect();
    let placement = place(&pods, &wanted.keys().cloned().collect::<BTreeSet<_>>());
    let ip = |name: &str| engines.iter().find(|e| e.name == name).map(|e| e.ip.clone()).unwrap_or_default();
    let step = |action: &Action| match action {
        Action::Load { pod, adapter } => {
            let path = wanted.get(adapter).map(|path| (*path).to_owned());
            Step { pod: pod.clone(), ip: ip(pod), adapter: adapter.clone(), path }
        }
        Action::Unload { pod, adapter } => Step { pod: pod.clone(), ip: ip(pod), adapter: adapter.clone(), path: None },
    };
    let unusable = |engine: &EnginePod| Some(format!("{}: {}", engine.name, engine.models.as_ref().err()?));
    Plan {
        steps: placement.actions.iter().map(step).collect(),
        placement,
        pods: pods.len(),
        unusable: engines.iter().filter_map(unusable).collect(),
    }
}

/// Whether no engine that answers has the facet's adapter any more, so that the facet may go.
pub fn may_go(facet: &Facet, engines: &[EnginePod], outcomes: &Outcomes) -> bool {
    // After a change of its path it may have left one under another digest.
    let prefix = format!("{}-", facet.name_any());
    engines.iter().filter_map(|engine| Some((engine, engine.models.as_ref().ok()?))).all(|(engine, models)| {
        let mine = models
            .keys()
            .filter(|adapter| adapter.strip_prefix(&prefix).is_some_and(|rest| rest.len() == 8 && !rest.contains('-')));
        mine.into_iter().all(|adapter| matches!(outcomes.get(&(engine.name.clone(), adapter.clone())), Some(Ok(()))))
    })
}

pub fn tell(facet: &Facet, plan: &Plan, outcomes: &Outcomes) -> Told {
    let adapter = adapter_name(facet);
    let Some(pod) = plan.placement.homes.get(&adapter) else {
        let (outlook, reason, message) = match (plan.pods, plan.unusable.first()) {
            (0, Some(why)) => (Outlook::Bad, "EngineUnreachable", why.clone()),
            (0, None) => (Outlook::Waiting, "NoPod", "no pod of the pool is ready".to_owned()),
            (pods, _) => (Outlook::Bad, "NoFreeSlot", format!("all slots of {pods} pods are taken")),
        };
        let verdict = |condition| Verdict::new(condition, outlook, reason, message.clone());
        let verdicts = vec![verdict(READY), verdict(PLACED), verdict(LOADED)];
        return Told { verdicts, pod: None, adapter: None, retry: reason == "EngineUnreachable" };
    };
    let placed = Verdict::new(PLACED, Outlook::Good, "Placed", format!("on pod {pod}"));
    let failed = outcomes.get(&(pod.clone(), adapter.clone())).and_then(|outcome| outcome.as_ref().err());
    let (outlook, reason, message) = match failed {
        Some(why) => (Outlook::Bad, "LoadFailed", format!("pod {pod} answered {why}")),
        None => (Outlook::Good, "Loaded", format!("pod {pod} has it as {adapter:?}")),
    };
    let verdict = |condition| Verdict::new(condition, outlook, reason, message.clone());
    Told {
        verdicts: vec![verdict(READY), placed, verdict(LOADED)],
        pod: Some(pod.clone()),
        adapter: Some(adapter),
        retry: failed.is_some(),
    }
}
