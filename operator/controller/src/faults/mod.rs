//! What the operator survives, enumerated: it dies before and after each of its steps, each of its calls is refused or
//! carried out in silence, each event of a watch is lost, doubled or late, its lists are old, its Lease is stolen, what it
//! needs is down. Whatever happened, the end is the same, and then nothing is written but the Lease. Time is played, so that
//! pauses cost nothing.

mod disasters;
mod fuzz;
mod memory;
mod played;
mod steps;

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use kube::Client;
use serde_json::{Value, json};
use tower::timeout::Timeout;

use crate::{
    Decisions, Settings,
    decision::{Signer, tests::installed},
    proposal,
    run::{PATIENCE, operate},
};
use memory::{Fault, Memory, Place, Slip};
use played::{Graph, Played, proposed};

struct World {
    memory: Memory,
    graph: Graph,
    engines: Played,
}

impl World {
    fn new(fault: Option<(usize, Fault)>, slip: Option<(usize, Slip)>) -> Self {
        let memory = Memory::with(fault, slip);
        World { graph: Graph::new(&memory), engines: Played::new(&memory), memory }
    }

    /// An operator that is started again whenever it ends or dies.
    async fn operated(&self, name: &'static str) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        loop {
            let client = Client::new(Timeout::new(self.memory.of(name), PATIENCE), "default");
            let (bus, engines) = (Arc::new(self.graph.of(name)), Arc::new(self.engines.of(name)));
            let ready = Arc::new(AtomicBool::new(false));
            tokio::select! {
                ended = operate(client, bus, engines, settings(name), ready, std::future::pending()) => drop(ended),
                () = self.memory.crashed() => {}
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Lets an operator work for so many seconds.
    async fn run_for(&self, seconds: u64) {
        let operator = self.operated("a");
        let _ = tokio::time::timeout(Duration::from_secs(seconds), operator).await;
    }

    /// Lets an operator work while something happens.
    async fn run_while<T>(&self, story: impl Future<Output = T>) -> T {
        tokio::select! {
            told = story => told,
            () = self.operated("a") => unreachable!(),
        }
    }

    /// All that a user could compare: objects, what universes hold, what engines have loaded.
    fn seen(&self) -> BTreeMap<Place, Value> {
        let mut objects = self.memory.objects();
        // Pods are nobody's wish.
        objects.retain(|place, _| !place.0.ends_with("leases") && !place.0.ends_with("pods"));
        objects.values_mut().for_each(forget_times);
        let elsewhere = |what: &str, name: &str| (what.to_owned(), String::new(), name.to_owned());
        for (name, (.., definition)) in self.graph.applied.lock().unwrap().iter() {
            objects.insert(elsewhere("graph", name), definition.clone());
        }
        let loaded: Vec<_> = self.engines.loaded.lock().unwrap().clone().into_iter().collect();
        let living = self.memory.objects();
        for (uid, adapters) in loaded {
            if let Some(pod) = living.values().find(|object| object["metadata"]["uid"] == uid.as_str()) {
                objects.insert(elsewhere("engine", pod["metadata"]["name"].as_str().unwrap()), json!(adapters));
            }
        }
        objects
    }

    /// The reason of an object's condition `Ready`.
    fn reason(&self, plural: &str, name: &str) -> String {
        let object = self.memory.objects().remove(&place(plural, name)).unwrap_or_default();
        object["status"]["conditions"][0]["reason"].as_str().unwrap_or_default().to_owned()
    }

    fn assert_all_ready(&self, what: &str) {
        for (place, object) in self.memory.objects().iter().filter(|(place, _)| place.0.contains("batos.dev")) {
            assert_eq!(object["status"]["conditions"][0]["status"], "True", "{what}: {place:?} {object}");
        }
    }
}

fn place(plural: &str, name: &str) -> Place {
    (format!("/apis/batos.dev/v1alpha1/{plural}"), "default".to_owned(), name.to_owned())
}

fn plural(kind: &str) -> String {
    let kind = kind.to_lowercase();
    if kind == "codex" { "codexes".to_owned() } else { format!("{kind}s") }
}

async fn seconds(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// What depends on when something happened, and how often something was tried.
fn forget_times(object: &mut Value) {
    match object {
        Value::Object(fields) => {
            for field in
                ["resourceVersion", "uid", "universeUid", "lastTransitionTime", "generation", "observedGeneration"]
            {
                fields.remove(field);
            }
            fields.values_mut().for_each(forget_times);
        }
        Value::Array(values) => {
            // A restore is named by its universe's uid.
            if let Some(at) = values.iter().position(|value| value == "--once") {
                values.remove(at + 1);
            }
            values.iter_mut().for_each(forget_times);
        }
        _ => {}
    }
}

fn settings(name: &str) -> Settings {
    Settings {
        nats: "nats://bus:4222".into(),
        root: "batos".into(),
        worker_image: "batos:1".into(),
        default_store: None,
        volume_size: "1Gi".into(),
        namespace: None,
        drift_check: Duration::from_secs(600),
        proposal_check: Duration::from_secs(30),
        decisions: Some(decisions()),
        network_policies: true,
        own_namespace: "default".into(),
        own_name: name.into(),
        lease: Duration::from_secs(15),
    }
}

fn decisions() -> Decisions {
    Decisions { name: "batos-decisions".into(), account: "system:serviceaccount:default:batos-operator".into() }
}

/// A key that was made before: a new one would be another in every world.
fn key() -> Value {
    static KEY: std::sync::LazyLock<Value> =
        std::sync::LazyLock::new(|| serde_json::to_value(Signer::secret("batos-decisions").unwrap()).unwrap());
    KEY.clone()
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({ "apiVersion": "batos.dev/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec })
}

fn universe(name: &str, replicas: i64) -> Value {
    let store = json!({ "tikv": { "endpoints": ["pd:2379"] } });
    object("Universe", name, json!({ "store": store, "workers": { "replicas": replicas } }))
}

fn prototype(name: &str, parents: &[&str], value: i64) -> Value {
    object(
        "Prototype",
        name,
        json!({ "universe": "tikv", "parents": parents, "slots": [{ "name": "x", "value": value }] }),
    )
}

fn codex(principle: &str) -> Value {
    let rules = json!([{ "name": "closed", "objects": ["vault"], "forbidMaking": true }]);
    object("Codex", "laws", json!({ "universe": "tikv", "principles": [principle], "rules": rules }))
}

fn pool(slots: i64) -> Value {
    object("ModelPool", "small", json!({ "model": "m", "image": "vllm:1", "slots": slots }))
}

fn facet(name: &str, path: &str) -> Value {
    object("Facet", name, json!({ "pool": "small", "adapter": { "path": path } }))
}

/// One of each, the child before its parent and the copy before what it is copied from.
fn wanted(memory: &Memory) {
    memory.has("/api/v1/secrets", "default", key());
    decided(memory);
    memory.user_applies(facet("ledger", "/adapters/ledger"));
    memory.user_applies(codex("be kind"));
    memory.user_applies(object("Universe", "copy", json!({ "restoreFrom": { "snapshot": "nightly" } })));
    memory.user_applies(object("Snapshot", "nightly", json!({ "universe": "tikv", "claim": "images", "keep": 2 })));
    memory.user_applies(prototype("child", &["elder"], 1));
    memory.user_applies(universe("tikv", 2));
    memory.user_applies(object("Universe", "file", json!({ "workers": { "replicas": 1 } })));
    memory.user_applies(prototype("elder", &[], 2));
    memory.user_applies(pool(2));
}

/// What lets people decide, and what one decides.
fn decided(memory: &Memory) {
    for (plural, policy) in installed(&decisions()) {
        memory.has(&format!("/apis/admissionregistration.k8s.io/v1/{plural}"), "", policy);
    }
    let row = proposed();
    let spec = json!({ "proposal": proposal::name("tikv", &row), "digest": row.digest, "verdict": "Approve",
        "approver": "alice", "reason": "seen", "expiresAt": "2099-01-01T00:00:00Z" });
    memory.user_applies(object("ProposalDecision", "yes", spec));
}

/// One that no universe proposes: whoever wrote it, it goes.
fn pretended(memory: &Memory) {
    let spec = json!({ "universe": "tikv", "id": "0a", "object": "vault", "holder": "0c", "selector": "go",
        "source": "go = ( 2 )", "digest": "0d", "mind": "me", "proposedAt": "2026-01-01T00:00:00Z" });
    memory.user_applies(object("Proposal", "pretended", spec));
}

async fn outcome(fault: Option<(usize, Fault)>, slip: Option<(usize, Slip)>) -> World {
    let world = World::new(fault, slip);
    wanted(&world.memory);
    world.run_for(300).await;
    world
}

fn not_the_lease(writes: &[String]) -> Vec<&String> {
    writes.iter().filter(|write| !write.contains("/leases")).collect()
}
