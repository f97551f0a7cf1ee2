//! What the operator survives, enumerated: it dies before and after each of its writes, each of them is refused or
//! carried out in silence, each event of a watch is lost, doubled or late. Whatever happened, the end is the same, and
//! then nothing is written but the Lease. Time is played, so that pauses cost nothing.

mod memory;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, atomic::AtomicBool},
    time::Duration,
};

use batos_covenant::{
    Command, Decision, ErrorKind, ErrorReply, OkReply, Proposal, ProposalPage, ProposalState, Reply, Subject,
};
use futures::future::BoxFuture;
use kube::Client;
use serde_json::{Value, json};

use crate::{
    Decisions, Settings,
    bus::Ask,
    decision::{Signer, tests::installed},
    proposal,
    run::operate,
};
use memory::{Fault, Memory, Place, Slip};

/// uid, generation, term and definition of an object.
type Applied = (String, i64, i64, Value);

/// A universe's graph, as far as `apply` and `approve` go: it fences like the real one.
#[derive(Clone)]
struct Graph {
    memory: Memory,
    applied: Arc<Mutex<BTreeMap<String, Applied>>>,
    proposal: Arc<Mutex<Proposal>>,
}

/// What the universe `tikv` proposes.
fn proposed() -> Proposal {
    let source = "go = ( 1 )";
    Proposal {
        id: "0a".repeat(16),
        state: ProposalState::Pending,
        object: "0b".repeat(16),
        name: Some("child".into()),
        holder: "0c".repeat(16),
        asked: None,
        selector: "go".into(),
        source: source.into(),
        replaces: None,
        digest: blake3::hash(source.as_bytes()).to_hex().to_string(),
        risks: vec!["it is new".into()],
        conflict: None,
        mind: "script".into(),
        becoming: "0d".repeat(16),
        proposed_at: 1_767_225_600_000,
        expires_at: 4_102_444_800_000,
        decision: None,
    }
}

impl Graph {
    fn apply(&self, subject: &Subject, command: &Command) -> Reply {
        let Command::Apply(apply) = command else { panic!("{command:?}") };
        let error = |kind| Reply::Error { error: ErrorReply::new(kind, "played") };
        let mut applied = self.applied.lock().unwrap();
        if apply.definition.parents.iter().any(|parent| !applied.contains_key(parent)) {
            return error(ErrorKind::NoSuchObject);
        }
        if let Some((uid, generation, term, _)) = applied.get(&subject.object)
            && (apply.term < *term || (*uid == apply.uid && apply.generation < *generation))
        {
            return error(ErrorKind::Stale);
        }
        let definition = serde_json::to_value(&apply.definition).unwrap();
        applied.insert(subject.object.clone(), (apply.uid.clone(), apply.generation, apply.term, definition));
        Reply::Ok(OkReply::new(json!({ "object": subject.object, "drift": [] }), 1))
    }

    fn approve(&self, decision: &Decision) -> Reply {
        let mut proposal = self.proposal.lock().unwrap();
        let error = |kind| Reply::Error { error: ErrorReply::new(kind, "played") };
        match &proposal.decision {
            Some(before) if before == decision => {}
            Some(_) => return error(ErrorKind::Stale),
            None if decision.proposal != proposal.id || decision.digest != proposal.digest => {
                return error(ErrorKind::NoSuchObject);
            }
            None => {
                proposal.state = ProposalState::Applied;
                proposal.decision = Some(decision.clone());
            }
        }
        Reply::Ok(OkReply::new(serde_json::to_value(&*proposal).unwrap(), 0))
    }

    fn proposals(&self, subject: &Subject) -> Reply {
        let proposals = Vec::from_iter((subject.universe == "tikv").then(|| self.proposal.lock().unwrap().clone()));
        Reply::Ok(OkReply::new(serde_json::to_value(ProposalPage { proposals, next: None }).unwrap(), 0))
    }

    fn answer(&self, subject: &Subject, command: &Command) -> Reply {
        match command {
            Command::Approve(decision) => self.approve(decision),
            other => self.apply(subject, other),
        }
    }
}

impl Ask for Graph {
    fn ask<'a>(
        &'a self,
        _: &'a str,
        subject: &'a Subject,
        command: &'a Command,
    ) -> BoxFuture<'a, Result<Reply, String>> {
        Box::pin(async move {
            if let Command::Info = command {
                return Ok(Reply::Ok(OkReply::new(json!({ "batos": "0", "image": "0" }), 0)));
            }
            if let Command::Proposals(_) = command {
                return Ok(self.proposals(subject));
            }
            let what = format!("{} {}", subject.verb, subject.object);
            match self.memory.gate(what, || self.answer(subject, command)).await {
                Some(result) => result.map_err(|code| format!("played {code}")),
                // The bus gives up after ten seconds.
                None => {
                    tokio::time::sleep(Duration::from_secs(10)).await;
                    Err("no reply".to_owned())
                }
            }
        })
    }

    fn reaches<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

struct World {
    memory: Memory,
    graph: Graph,
}

impl World {
    fn new(fault: Option<(usize, Fault)>, slip: Option<(usize, Slip)>) -> Self {
        let memory = Memory::with(fault, slip);
        let proposal = Arc::new(Mutex::new(proposed()));
        World { graph: Graph { memory: memory.clone(), applied: Arc::default(), proposal }, memory }
    }

    /// An operator that is started again whenever it ends or dies.
    async fn operated(&self, name: &str) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        loop {
            let client = Client::new(self.memory.clone(), "default");
            let (bus, ready) = (Arc::new(self.graph.clone()), Arc::new(AtomicBool::new(false)));
            tokio::select! {
                ended = operate(client, bus, settings(name), ready, std::future::pending()) => drop(ended),
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

    fn seen(&self) -> BTreeMap<Place, Value> {
        let mut objects = self.memory.objects();
        objects.retain(|place, _| !place.0.ends_with("leases"));
        objects.values_mut().for_each(forget_times);
        objects
    }
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

/// One of each, the child before its parent and the copy before what it is copied from.
fn wanted(memory: &Memory) {
    memory.has("/api/v1/secrets", "default", key());
    decided(memory);
    memory.user_applies(object("Universe", "copy", json!({ "restoreFrom": { "snapshot": "nightly" } })));
    memory.user_applies(object("Snapshot", "nightly", json!({ "universe": "tikv", "claim": "images", "keep": 2 })));
    memory.user_applies(prototype("child", &["elder"], 1));
    memory.user_applies(universe("tikv", 2));
    memory.user_applies(object("Universe", "file", json!({ "workers": { "replicas": 1 } })));
    memory.user_applies(prototype("elder", &[], 2));
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

async fn outcome(fault: Option<(usize, Fault)>, slip: Option<(usize, Slip)>) -> World {
    let world = World::new(fault, slip);
    wanted(&world.memory);
    world.run_for(300).await;
    world
}

fn not_the_lease(writes: &[String]) -> Vec<&String> {
    writes.iter().filter(|write| !write.contains("/leases")).collect()
}

#[tokio::test(start_paused = true)]
async fn all_become_ready_and_then_nothing_is_written() {
    let world = outcome(None, None).await;
    let objects = world.seen();
    let ours: Vec<_> = objects.iter().filter(|(place, _)| place.0.contains("batos.dev")).collect();
    assert_eq!(ours.len(), 8);
    for (place, object) in ours {
        assert_eq!(object["status"]["conditions"][0]["status"], "True", "{place:?} {object}");
    }
    let order = |what: &str| world.memory.writes().iter().position(|write| write.contains(what)).unwrap();
    assert!(order("jobs copy-restore") < order("statefulsets copy-uvm"), "no worker before the image is there");
    let row = world.graph.proposal.lock().unwrap().clone();
    assert_eq!((row.state, row.decision.unwrap().reason.as_str()), (ProposalState::Applied, "alice: seen"));
    assert_eq!(world.memory.writes().iter().filter(|write| write.starts_with("approve")).count(), 1);
    let (changes, before) = (world.memory.changes(), world.memory.writes().len());
    // Long enough for a look at drift. An operator that starts anew applies all once more, which changes nothing.
    world.run_for(1500).await;
    assert_eq!(world.memory.changes(), changes);
    let after = world.memory.writes();
    let (first, later) = after[before..].split_at(60);
    assert!(not_the_lease(first).len() < 20, "{first:?}");
    let asked_again = later.iter().filter(|write| write.starts_with("apply")).count();
    assert_eq!(not_the_lease(later).len(), asked_again, "{later:?}");
    assert!(later.len() > 300, "the Lease is renewed");
}

#[tokio::test(start_paused = true)]
async fn each_write_may_fail_in_each_way() {
    let expected = outcome(None, None).await;
    let writes = expected.memory.writes();
    let count = writes.iter().rposition(|write| !write.contains("/leases")).unwrap() + 2;
    assert!(count > 20, "{writes:?}");
    let faults = [Fault::CrashBefore, Fault::CrashAfter, Fault::Silent].into_iter();
    for fault in faults.chain([409, 410, 429, 500].map(Fault::Status)) {
        for (at, write) in writes.iter().take(count).enumerate() {
            let world = outcome(Some((at, fault)), None).await;
            let what = format!("{fault:?} at write {at}, {write}");
            assert_eq!(world.seen(), expected.seen(), "{what}");
            let definitions = |world: &World| {
                let applied = world.graph.applied.lock().unwrap();
                applied.iter().map(|(name, (.., definition))| (name.clone(), definition.clone())).collect::<Vec<_>>()
            };
            assert_eq!(definitions(&world), definitions(&expected), "{what}");
        }
    }
}

/// Nobody has a key yet, and the operator may die wherever it makes one.
#[tokio::test(start_paused = true)]
async fn the_key_that_decisions_are_signed_with_is_made_once() {
    for fault in
        [None, Some(Fault::CrashBefore), Some(Fault::CrashAfter), Some(Fault::Silent), Some(Fault::Status(500))]
    {
        for at in 0..6 {
            let world = World::new(fault.map(|fault| (at, fault)), None);
            decided(&world.memory);
            world.memory.user_applies(universe("tikv", 1));
            world.run_for(300).await;
            let objects = world.memory.objects();
            let all = |collection: &str| {
                objects.iter().filter(|(place, _)| place.0.ends_with(collection)).collect::<Vec<_>>()
            };
            let secrets = all("/secrets");
            assert_eq!(secrets.len(), 1, "{fault:?} at {at}");
            let public = Signer::of(&serde_json::from_value(secrets[0].1.clone()).unwrap()).unwrap().public;
            let known = all("/configmaps")[0].1["data"]["mind.yaml"].as_str().unwrap().to_owned();
            assert!(known.contains(&public), "{fault:?} at {at}: {known}");
            let decision = world.graph.proposal.lock().unwrap().decision.clone().unwrap();
            assert_eq!(decision.key, public, "{fault:?} at {at}");
        }
    }
}

/// Neither now, nor when the policy is back: who could decide meanwhile is not known.
#[tokio::test(start_paused = true)]
async fn what_is_decided_without_the_policy_never_counts() {
    let world = World::new(None, None);
    wanted(&world.memory);
    let bindings = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings";
    world.memory.lacks(bindings, "", "batos-decisions");
    world.run_for(120).await;
    let decision = |world: &World| {
        let objects = world.memory.objects();
        let found = objects.into_iter().find(|(place, _)| place.0.ends_with("/proposaldecisions")).unwrap().1;
        (found["status"]["state"].clone(), found["status"]["conditions"][0]["reason"].clone())
    };
    let expected = (json!("Refused"), json!("PolicyMissing"));
    assert_eq!(decision(&world), expected);
    for (plural, policy) in installed(&decisions()) {
        world.memory.has(&format!("/apis/admissionregistration.k8s.io/v1/{plural}"), "", policy);
    }
    world.run_for(120).await;
    assert_eq!(decision(&world), expected);
    assert_eq!(world.graph.proposal.lock().unwrap().state, ProposalState::Pending);
}

/// What the user does happens before the eyes of an operator that leads.
async fn outcome_of_watching(slip: Option<(usize, Slip)>) -> World {
    let world = World::new(None, slip);
    let user = async {
        let a_while = || tokio::time::sleep(Duration::from_secs(60));
        a_while().await;
        wanted(&world.memory);
        a_while().await;
        world.memory.user_deletes("universes", "tikv");
        a_while().await;
        world.memory.user_applies(universe("tikv", 3));
    };
    tokio::join!(user, world.run_for(500));
    world
}

#[tokio::test(start_paused = true)]
async fn each_event_may_be_lost_or_doubled_or_late() {
    let expected = outcome_of_watching(None).await;
    for slip in [Slip::Lost, Slip::Twice, Slip::Late] {
        for at in 0..expected.memory.events() {
            let world = outcome_of_watching(Some((at, slip))).await;
            assert_eq!(world.seen(), expected.seen(), "{slip:?} of event {at}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_operators_one_writes_and_the_other_takes_over() {
    let world = World::new(None, None);
    wanted(&world.memory);
    let holder = || {
        let objects = world.memory.objects();
        let lease = objects.into_iter().find(|(place, _)| place.0.ends_with("leases"));
        lease.map(|(_, lease)| lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned())
    };
    let term = || world.graph.applied.lock().unwrap()["elder"].2;
    let mut second = Box::pin(world.operated("b"));
    let (first_holder, first_term) = {
        let first = world.operated("a");
        let mut first = std::pin::pin!(first);
        tokio::select! {
            () = &mut first => {}
            () = &mut second => {}
            () = tokio::time::sleep(Duration::from_secs(120)) => {}
        }
        let writes = world.memory.writes();
        let creations = writes.iter().filter(|write| write.contains("deployments tikv-uvm")).count();
        assert!(creations > 0);
        (holder().unwrap(), term())
    };
    // Whichever led is as if it were gone for good when only the other runs.
    let gone = if first_holder.starts_with("a_") { "a" } else { "b" };
    world.memory.user_applies(prototype("elder", &[], 3));
    if gone == "a" {
        let _ = tokio::time::timeout(Duration::from_secs(120), &mut second).await;
    } else {
        // What it has spawned ends with it.
        drop(second);
        let _ = tokio::time::timeout(Duration::from_secs(120), world.operated("a")).await;
    }
    assert_ne!(holder().unwrap(), first_holder);
    assert!(term() > first_term, "{} {first_term}", term());
}

#[tokio::test(start_paused = true)]
async fn histories_to_the_same_wishes_end_alike() {
    let expected = outcome(None, None).await;
    for seed in 1..=40_u64 {
        let world = World::new(None, None);
        world.memory.has("/api/v1/secrets", "default", key());
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut next = move |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let history = async {
            for _ in 0..12 {
                match next(7) {
                    0 => world.memory.user_applies(universe("tikv", 1 + i64::try_from(next(3)).unwrap())),
                    1 => world.memory.user_deletes("universes", "tikv"),
                    2 => world.memory.user_applies(prototype("elder", &[], 7)),
                    3 => world.memory.user_deletes("prototypes", "elder"),
                    4 => world.memory.user_applies(prototype("child", &[], 9)),
                    5 => world.memory.user_applies(object("Universe", "file", json!({ "workers": { "replicas": 2 } }))),
                    _ => world.memory.user_deletes("universes", "file"),
                }
                tokio::time::sleep(Duration::from_millis(next(40_000))).await;
            }
            wanted(&world.memory);
            std::future::pending::<()>().await;
        };
        let operator = world.operated("a");
        let both = async { tokio::join!(history, operator) };
        let _ = tokio::time::timeout(Duration::from_secs(2400), both).await;
        assert_eq!(world.seen(), expected.seen(), "seed {seed}");
    }
}
