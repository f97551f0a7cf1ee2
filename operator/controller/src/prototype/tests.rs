use batos_covenant::{Command, ErrorKind, ErrorReply, OkReply, Reply};
use batos_crds::{PrototypeStatus, SlotOwner, Universe};
use serde_json::{Value, json};

use super::{plan::*, *};
use crate::{
    condition::{self, Verdict},
    context::Settings,
};

fn settings() -> Settings {
    Settings {
        nats: "nats://bus:4222".into(),
        root: "batos".into(),
        worker_image: String::new(),
        default_store: None,
        volume_size: String::new(),
        namespace: None,
        drift_check: std::time::Duration::from_secs(600),
        proposal_check: std::time::Duration::from_secs(30),
        decisions: None,
        network_policies: true,
        own_namespace: String::new(),
        own_name: String::new(),
        lease: std::time::Duration::from_secs(15),
    }
}

fn prototype() -> Prototype {
    serde_json::from_value(json!({
        "apiVersion": "batos.dev/v1alpha1", "kind": "Prototype",
        "metadata": { "name": "account", "namespace": "default", "uid": "p", "generation": 3 },
        "spec": { "universe": "u", "slots": [{ "name": "balance", "value": 0 }] },
    }))
    .unwrap()
}

fn universe(workers_ready: i32) -> Universe {
    serde_json::from_value(json!({
        "apiVersion": "batos.dev/v1alpha1", "kind": "Universe",
        "metadata": { "name": "u", "namespace": "default", "uid": "u-1" },
        "spec": {}, "status": { "workersReady": workers_ready },
    }))
    .unwrap()
}

fn reported(universe: Option<&Universe>, outcome: Option<&Outcome>) -> Conclusion {
    match plan(&prototype(), &Observed { universe, due: false, outcome }, &settings(), 7) {
        Next::Conclude(report) => report,
        next => panic!("{next:?}"),
    }
}

#[test]
fn a_definition_is_sent_with_what_fences_it() {
    let (prototype, universe) = (prototype(), universe(1));
    let observed = Observed { universe: Some(&universe), due: false, outcome: None };
    let Next::Send(send) = plan(&prototype, &observed, &settings(), 7) else { panic!("not sent") };
    assert_eq!(
        (send.reach.url.as_str(), send.subject.to_string()),
        ("nats://bus:4222", "batos.v1.u.adm.account.apply".into())
    );
    let Command::Apply(apply) = send.command else { panic!("no apply") };
    assert_eq!((apply.uid.as_str(), apply.generation, apply.term), ("p", 3, 7));
    assert_eq!(apply.definition.slots[0].value, Some(0.into()));
}

#[test]
fn it_waits_for_its_universe_and_says_so() {
    let report = reported(None, None);
    assert_eq!((report.verdict.reason, report.retry), ("UniverseMissing", false));
    let report = reported(Some(&universe(0)), None);
    assert_eq!((report.verdict.reason, report.retry), ("UniverseNotReady", false));
}

#[test]
fn each_reply_becomes_a_reason() {
    let ok = Reply::Ok(OkReply::new(json!({ "object": "o-1", "rev": 4 }), 4));
    let report = reported(Some(&universe(1)), Some(&Outcome::Replied(ok)));
    assert_eq!((report.verdict.reason, report.object.as_deref(), report.rev), ("Applied", Some("o-1"), Some(4)));
    assert_eq!(report.universe_uid.as_deref(), Some("u-1"));

    for (kind, reason, retry) in [
        (ErrorKind::SyntaxError, "SyntaxError", false),
        (ErrorKind::Stale, "Stale", false),
        (ErrorKind::LimitExceeded, "Refused", false),
        (ErrorKind::NoSuchObject, "ParentMissing", true),
        (ErrorKind::Unavailable, "ApplyFailed", true),
    ] {
        let outcome = Outcome::Replied(Reply::Error { error: ErrorReply::new(kind, "line 1, column 9: because") });
        let report = reported(Some(&universe(1)), Some(&outcome));
        assert_eq!((report.verdict.reason, report.retry), (reason, retry));
        assert!(report.verdict.message.contains("line 1, column 9"));
    }
    let report = reported(Some(&universe(1)), Some(&Outcome::Unreachable("no responders".into())));
    assert_eq!((report.verdict.reason, report.retry), ("Unreachable", true));
}

#[test]
fn what_is_applied_is_not_sent_again_unless_the_universe_is_another() {
    let mut prototype = prototype();
    let ready = condition::conditions(&[], &[Verdict::ready("Applied", "")], Some(3), Default::default());
    let status = PrototypeStatus {
        observed_generation: Some(3),
        conditions: ready,
        universe_uid: Some("u-1".into()),
        ..Default::default()
    };
    prototype.status = Some(status);
    let sent = |prototype: &Prototype, universe: &Universe| {
        let observed = Observed { universe: Some(universe), due: false, outcome: None };
        matches!(plan(prototype, &observed, &settings(), 8), Next::Send(_))
    };
    assert!(!sent(&prototype, &universe(1)));
    let mut another = universe(1);
    another.metadata.uid = Some("u-2".into());
    assert!(sent(&prototype, &another));
    prototype.metadata.generation = Some(4);
    assert!(sent(&prototype, &universe(1)));
}

fn answered(policy: &str, drift: Value) -> Conclusion {
    let mut prototype = prototype();
    prototype.spec.drift = serde_json::from_value(json!(policy)).unwrap();
    let reply = Outcome::Replied(Reply::Ok(OkReply::new(json!({ "object": "o", "drift": drift }), 4)));
    let universe = universe(1);
    let observed = Observed { universe: Some(&universe), due: true, outcome: Some(&reply) };
    match plan(&prototype, &observed, &settings(), 7) {
        Next::Conclude(conclusion) => conclusion,
        next => panic!("{next:?}"),
    }
}

#[test]
fn drift_is_told_by_slot_unless_it_is_adopted() {
    let told = answered("Report", json!(["balance"]));
    assert_eq!((told.verdict.reason, told.sync.unwrap().reason, told.drift), ("Applied", "Drifted", Some(1)));
    assert_eq!((told.slots[0].owner, told.slots[0].drift), (SlotOwner::Live, true));
    let told = answered("Adopt", json!(["balance"]));
    assert_eq!(
        (told.sync.unwrap().reason, told.slots[0].owner, told.slots[0].drift),
        ("InSync", SlotOwner::Live, false)
    );
    let told = answered("Enforce", json!([]));
    assert_eq!((told.sync.unwrap().reason, told.slots[0].owner, told.drift), ("InSync", SlotOwner::Manifest, Some(0)));
}

#[test]
fn an_error_stands_at_its_slot() {
    let error = ErrorReply {
        slot: Some("balance".into()),
        ..ErrorReply::new(ErrorKind::SyntaxError, "slot \"balance\": line 1, column 9: because")
    };
    let report = reported(Some(&universe(1)), Some(&Outcome::Replied(Reply::Error { error })));
    assert_eq!(report.verdict.reason, "SyntaxError");
    assert!(report.slots[0].error.as_ref().unwrap().contains("line 1, column 9"));
}

#[test]
fn what_fits_into_no_message_is_not_sent() {
    let mut prototype = prototype();
    prototype.spec.slots[0].value = Some(json!("x".repeat(1 << 20)));
    let universe = universe(1);
    let observed = Observed { universe: Some(&universe), due: false, outcome: None };
    let Next::Conclude(report) = plan(&prototype, &observed, &settings(), 7) else { panic!("sent") };
    assert_eq!((report.verdict.reason, report.retry), ("TooLarge", false));
}

#[test]
fn what_is_deleted_goes_once_its_object_is_gone() {
    let replied = |reply: Reply| Some(Outcome::Replied(reply));
    let error = |kind, text: &str| replied(Reply::Error { error: ErrorReply::new(kind, text) });
    let gone = || replied(Reply::Ok(OkReply::new(json!({ "removed": true }), 5)));
    let unreachable = || Some(Outcome::Unreachable("no responders".into()));
    // Policy, ready workers of its universe, what came of a request; what follows, and whether it is tried again.
    let table = [
        ("Delete", Some(1), None, "sends", false),
        ("Delete", Some(1), gone(), "released", false),
        ("Delete", Some(1), error(ErrorKind::InUse, "a cannot go while others refer to it: b"), "InUse", true),
        ("Delete", Some(1), error(ErrorKind::Unavailable, "the store"), "RemoveFailed", true),
        ("Delete", Some(1), error(ErrorKind::Stale, "term 6 is older than 7"), "RemoveFailed", true),
        ("Delete", Some(1), unreachable(), "Unreachable", true),
        ("Delete", Some(0), None, "UniverseNotReady", false),
        ("Delete", None, None, "released", false),
        // Somebody has given up on it.
        ("Retain", Some(1), None, "released", false),
        ("Retain", Some(0), unreachable(), "released", false),
    ];
    for (policy, workers, outcome, follows, again) in table {
        let mut prototype = prototype();
        prototype.spec.deletion_policy = serde_json::from_value(json!(policy)).unwrap();
        let universe = workers.map(universe);
        let (found, retry) = match plan::end(&prototype, universe.as_ref(), outcome.as_ref(), &settings(), 7) {
            Next::Send(send) => {
                assert_eq!(send.subject.to_string(), "batos.v1.u.adm.account.remove");
                let Command::Remove(remove) = send.command else { panic!("no remove") };
                assert_eq!((remove.uid.as_str(), remove.generation, remove.term), ("p", 3, 7));
                ("sends", false)
            }
            Next::Release => ("released", false),
            Next::Conclude(conclusion) => (conclusion.verdict.reason, conclusion.retry),
        };
        assert_eq!((found, retry), (follows, again), "{policy} {workers:?}");
    }
}
