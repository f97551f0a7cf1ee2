use batos_covenant::{ErrorReply, OkReply};
use batos_crds::{Proposal, Universe};
use ring::signature::{ED25519, UnparsedPublicKey};
use serde_json::{Value, json};

use super::{plan::*, *};
use crate::{condition::Outlook, context::Settings};

/// Policy and binding as the chart installs them, each with its plural.
pub fn installed(wanted: &Decisions) -> [(&'static str, Value); 2] {
    let metadata = json!({ "name": wanted.name, "creationTimestamp": "2025-01-01T00:00:00Z" });
    let (rules, bound) = (policy::rules(wanted).unwrap(), policy::bound(&wanted.name));
    [
        (
            "validatingadmissionpolicies",
            json!({ "kind": "ValidatingAdmissionPolicy",
            "apiVersion": "admissionregistration.k8s.io/v1", "metadata": metadata, "spec": rules }),
        ),
        (
            "validatingadmissionpolicybindings",
            json!({ "kind": "ValidatingAdmissionPolicyBinding",
            "apiVersion": "admissionregistration.k8s.io/v1", "metadata": metadata, "spec": bound }),
        ),
    ]
}

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

const SOURCE: &str = "go = ( 1 )";

fn digest() -> String {
    blake3::hash(SOURCE.as_bytes()).to_hex().to_string()
}

fn decision(spec: Value) -> ProposalDecision {
    let mut all = json!({ "proposal": "u-1", "digest": digest(), "verdict": "Approve", "approver": "alice" });
    all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    serde_json::from_value(json!({
        "apiVersion": "batos.dev/v1alpha1", "kind": "ProposalDecision",
        "metadata": { "name": "d", "namespace": "default", "creationTimestamp": "2026-01-01T00:00:00Z" }, "spec": all,
    }))
    .unwrap()
}

fn proposal(source: &str, owner: &str) -> Proposal {
    serde_json::from_value(json!({
        "apiVersion": "batos.dev/v1alpha1", "kind": "Proposal",
        "metadata": { "name": "u-1", "namespace": "default",
            "ownerReferences": [{ "apiVersion": "", "kind": "Universe", "name": "u", "uid": owner }] },
        "spec": { "universe": "u", "id": "0a", "object": "o", "holder": "h", "selector": "go", "source": source,
            "digest": digest(), "mind": "m", "proposedAt": "2026-01-01T00:00:00Z" },
    }))
    .unwrap()
}

fn universe(_: &str) -> Option<Universe> {
    serde_json::from_value(json!({
        "apiVersion": "batos.dev/v1alpha1", "kind": "Universe",
        "metadata": { "name": "u", "namespace": "default", "uid": "uid" }, "spec": {},
    }))
    .unwrap()
}

fn aimed(decision: &ProposalDecision, proposal: Option<&Proposal>, second: i64) -> Result<Send, Conclusion> {
    let now = Timestamp::from_second(1_767_225_600 + second).unwrap();
    aim(decision, proposal, universe, now, &settings())
}

#[test]
fn what_is_signed_is_what_was_seen_and_who_decided() {
    let seen = proposal(SOURCE, "uid");
    let send = aimed(&decision(json!({ "reason": "seen" })), Some(&seen), 10).unwrap();
    assert_eq!(send.subject.to_string(), "batos.v1.u.adm._.approve");
    let signed = &send.decision;
    assert_eq!((signed.proposal.as_str(), &signed.digest, signed.approve), ("0a", &digest(), true));
    // An hour from its creation, whenever it is looked at: a repeat is the same to the byte.
    assert_eq!((signed.reason.as_str(), signed.expires_at), ("alice: seen", 1_767_229_200_000));
    assert_eq!(aimed(&decision(json!({ "reason": "seen" })), Some(&seen), 900).unwrap(), send);
    let spec = json!({ "verdict": "Deny", "expiresAt": "2026-01-01T00:10:00Z" });
    let denied = aimed(&decision(spec), Some(&seen), 10).unwrap().decision;
    assert_eq!((denied.approve, denied.reason.as_str(), denied.expires_at), (false, "alice", 1_767_226_200_000));
}

#[test]
fn nothing_is_signed_that_was_not_shown() {
    let told = |found: Result<Send, Conclusion>| {
        let Err(Conclusion { state, verdict, retry }) = found else { panic!("it was to be signed") };
        (state, verdict.reason, retry)
    };
    use DecisionState::{Refused, Waiting};
    let seen = proposal(SOURCE, "uid");
    let other = decision(json!({ "digest": "0a".repeat(32) }));
    assert_eq!(told(aimed(&other, Some(&seen), 10)), (Refused, "OtherSource", false));
    let cut = proposal("go = ( …", "uid");
    assert_eq!(told(aimed(&decision(json!({})), Some(&cut), 10)), (Refused, "SourceNotShown", false));
    let of_an_earlier_one = proposal(SOURCE, "another");
    for proposal in [None, Some(&of_an_earlier_one)] {
        assert_eq!(told(aimed(&decision(json!({})), proposal, 10)), (Waiting, "ProposalMissing", false));
        assert_eq!(told(aimed(&decision(json!({})), proposal, 3600)), (Refused, "Expired", false));
    }
    assert_eq!(rest(&decision(json!({})), Timestamp::from_second(1_767_225_610).unwrap()).as_secs(), 3590);
}

#[test]
fn what_the_universe_answers_is_told() {
    let row = |state: &str| {
        json!({ "id": "0a", "state": state, "object": "o", "holder": "h", "selector": "go", "source": SOURCE,
            "digest": digest(), "risks": [], "mind": "m", "becoming": "b", "proposed_at": 1, "expires_at": 2 })
    };
    let ok = |value: Value| conclude(Ok(Reply::Ok(OkReply::new(value, 0))));
    for (state, reason, outlook) in [
        ("applied", "Applied", Outlook::Good),
        ("approved", "Approved", Outlook::Good),
        ("denied", "Denied", Outlook::Good),
        ("superseded", "Superseded", Outlook::Bad),
    ] {
        let Conclusion { state: done, verdict, retry } = ok(row(state));
        assert_eq!((done, verdict.reason, verdict.outlook, retry), (DecisionState::Done, reason, outlook, false));
    }
    let error = |kind| conclude(Ok(Reply::Error { error: ErrorReply::new(kind, "so it is") }));
    for kind in [ErrorKind::Stale, ErrorKind::NoSuchObject, ErrorKind::BadRequest] {
        let Conclusion { state, verdict, retry } = error(kind);
        assert_eq!((state, verdict.message.as_str(), retry), (DecisionState::Refused, "so it is", false), "{kind:?}");
    }
    // Workers that are rolled for a new key, a store that is away, no worker: all of it passes.
    for again in [
        error(ErrorKind::Forbidden),
        error(ErrorKind::Unavailable),
        conclude(Err("no responders".to_owned())),
        ok(json!(7)),
    ] {
        assert_eq!((again.state, again.retry), (DecisionState::Waiting, true));
    }
}

#[test]
fn a_signature_holds_for_its_decision_alone() {
    let secret = Signer::secret("s").unwrap();
    let signer = Signer::of(&secret).unwrap();
    let mut decision = aimed(&decision(json!({})), Some(&proposal(SOURCE, "uid")), 1).unwrap().decision;
    signer.sign(&mut decision, "u");
    let unhex = |text: &str| -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    };
    let (key, signature) = (unhex(&decision.key), unhex(&decision.signature));
    let holds = |text: String| UnparsedPublicKey::new(&ED25519, &key).verify(text.as_bytes(), &signature).is_ok();
    assert!(decision.key == signer.public && holds(decision.text("u")));
    assert!(!holds(decision.text("v")));
    decision.approve = false;
    assert!(!holds(decision.text("u")));
    // Whoever reads the Secret again signs alike.
    let mut again = decision.clone();
    Signer::of(&secret).unwrap().sign(&mut again, "u");
    signer.sign(&mut decision, "u");
    assert_eq!(again, decision);
    assert!(Signer::of(&k8s_openapi::api::core::v1::Secret::default()).is_err());
}
