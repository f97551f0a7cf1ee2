use batos_crds::{Codex, RestoreStatus, Universe};
use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    core::v1::Pod,
};
use kube::ResourceExt;

use super::{guards, restore, workers};
use crate::{
    condition::Verdict,
    context::Settings,
    workload::{Child, Progress},
};

/// Store of a universe that names none, when the operator has no default.
pub const FILE: &str = "redb:///data/universe.redb";

/// What is there.
pub struct Observed<'a> {
    pub deployment: Option<&'a Deployment>,
    pub stateful_set: Option<&'a StatefulSet>,
    pub pods: Vec<&'a Pod>,
    /// All universes of this name, this one too: on the bus they would be one.
    pub namesakes: &'a [Universe],
    pub restore: restore::Observed<'a>,
    /// Laws beside its own, and the name of one that cannot be read and may be its.
    pub codexes: &'a [Codex],
    pub unreadable_codex: Option<String>,
    /// Public key that the operator signs people's decisions with.
    pub approver: Option<&'a str>,
}

#[derive(Debug)]
pub struct Plan {
    pub children: Vec<Child>,
    pub verdict: Verdict,
    pub workers_ready: i32,
    /// Where the objects are, once workers were made for them.
    pub store: Option<String>,
    /// The image that the universe begins with.
    pub restore: Option<RestoreStatus>,
}

/// Where a universe is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    pub url: String,
    pub root: String,
    /// Secret with the passwords, in the universe's namespace.
    pub credentials: Option<String>,
}

pub fn reach(universe: &Universe, settings: &Settings) -> Reach {
    let bus = universe.spec.bus.clone().unwrap_or_default();
    Reach {
        url: bus.url.unwrap_or_else(|| settings.nats.clone()),
        root: bus.root.unwrap_or_else(|| settings.root.clone()),
        credentials: bus.credentials_secret,
    }
}

pub fn plan(universe: &Universe, observed: &Observed<'_>, settings: &Settings) -> Plan {
    let named = universe.spec.store.as_ref().map(batos_crds::StoreSpec::url);
    let wanted = named.or_else(|| settings.default_store.clone()).unwrap_or_else(|| FILE.to_owned());
    let known = universe.status.as_ref().and_then(|status| status.store.clone());
    let store = known.clone().unwrap_or_else(|| wanted.clone());
    let replicas = universe.spec.workers.replicas;

    let in_file = store == FILE;
    let progress = match in_file {
        true => observed.stateful_set.map(Progress::of_stateful_set),
        false => observed.deployment.map(Progress::of_deployment),
    }
    .unwrap_or_default();
    let refused = |verdict| Plan {
        children: Vec::new(),
        verdict,
        workers_ready: progress.ready,
        store: known.clone(),
        restore: universe.status.as_ref().and_then(|status| status.restore.clone()),
    };
    if let Some(elder) = elder(universe, observed.namesakes) {
        let message = format!("namespace {elder:?} has a universe of this name already; give this one another");
        return refused(Verdict::bad("NameTaken", message));
    }
    if store != wanted {
        let message = format!("the objects are in {store}, the operator's default is now {wanted}: name the store");
        return refused(Verdict::bad("StoreChanged", message));
    }
    if in_file && replicas > 1 {
        return refused(Verdict::bad("SingleWriter", format!("{replicas} workers cannot share a store in a file")));
    }
    // Rather the laws that were in force than some of them.
    if let Some(name) = &observed.unreadable_codex {
        let message = format!("Codex {name:?} in this namespace cannot be read: mend or delete it");
        return refused(Verdict::bad("CodexInvalid", message));
    }
    let (restore, pending) = restore::plan(universe, &store, &observed.restore, settings);
    if let Some(restore::Pending { children, verdict }) = pending {
        // Once there is a Job, the objects are where it puts them.
        let store = restore.as_ref().map(|_| store).or(known);
        return Plan { children, verdict, workers_ready: progress.ready, store, restore };
    }
    Plan {
        // The account comes before the pods that run under it.
        children: guards::build(universe, &store, settings)
            .into_iter()
            .chain(workers::build(universe, &store, in_file, observed.approver, observed.codexes, settings))
            .collect(),
        verdict: progress.verdict("workers", replicas, &observed.pods),
        workers_ready: progress.ready,
        store: Some(store),
        restore,
    }
}

/// What would be made for a new universe, without anything that is there: kinds with names, or why nothing.
pub fn shape(universe: &Universe, settings: &Settings) -> Result<Vec<String>, String> {
    let observed = Observed {
        deployment: None,
        stateful_set: None,
        pods: Vec::new(),
        namesakes: &[],
        restore: restore::Observed::default(),
        codexes: &[],
        unreadable_codex: None,
        approver: None,
    };
    let mut universe = universe.clone();
    // What is restored gets its workers after that.
    universe.spec.restore_from = None;
    let Plan { children, verdict, .. } = plan(&universe, &observed, settings);
    match children.is_empty() {
        true => Err(format!("{}: {}", verdict.reason, verdict.message)),
        false => Ok(children.iter().map(Child::told).collect()),
    }
}

/// Namespace of the universe that had the name first.
fn elder(universe: &Universe, namesakes: &[Universe]) -> Option<String> {
    let age = |u: &Universe| (u.metadata.creation_timestamp.clone().map(|time| time.0), u.uid());
    let first = namesakes.iter().min_by_key(|namesake| age(namesake))?;
    (first.uid() != universe.uid()).then(|| first.namespace().unwrap_or_default())
}
