//! Methods with a risk wait for a person, whose decision is signed; what was made says where it came from.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::{sync::Arc, time::Duration};

use batos_covenant::{Decision, Proposal, ProposalState};
use batos_mind::{ApprovalError, Autonomy, BecomingError, Mind, MindError, Outcome, Policy, sign};
use batos_uvm::universe::{Authority, Patch, Work, check, now};
use common::{GOOD, Person, Place, SLY, Scripted, deliver, place};
use serde_json::json;

/// Does what the examples say, and more.
const RISKY: &str = "withdraw: n = ( self setSlot: #last value: n. balance: balance - n. ^balance )";

fn mind(place: &Place, rounds: &[&[&str]], policy: Policy) -> Mind {
    Mind::new(place.universe.clone(), Scripted::new(rounds), policy)
}

async fn proposed(mind: &Mind, place: &Place) -> Proposal {
    match mind.make(&place.missing("withdraw:")).await.unwrap() {
        Outcome::Proposed(proposal) => *proposal,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_risky_waits_and_goes_in_when_a_person_approves() {
    let (place, person) = (place().await, Person::new());
    let minds = mind(&place, &[&[RISKY]], person.policy());
    let proposal = proposed(&minds, &place).await;
    assert_eq!((proposal.state, proposal.source.as_str()), (ProposalState::Pending, RISKY));
    assert!(proposal.risks[0].contains("setSlot:value:"), "{:?}", proposal.risks);
    // Other senders join it, and nothing is asked of the mind again, also by another worker.
    let other = mind(&place, &[&[GOOD]], person.policy());
    for minds in [&minds, &other] {
        assert_eq!(proposed(minds, &place).await.id, proposal.id);
    }
    assert!(place.send("withdraw:", 30).await.is_err());
    assert_eq!(other.proposals(None).await.unwrap().proposals, std::slice::from_ref(&proposal));

    let decision = person.decide(&proposal, true, |_| {});
    let settled = other.decide(decision.clone()).await.unwrap();
    assert_eq!(settled.state, ProposalState::Applied);
    assert_eq!(place.send("withdraw:", 30).await, Ok(json!(70)));
    // The reply was lost: the same decision again is answered, another one is not.
    assert_eq!(other.decide(decision.clone()).await.unwrap().state, ProposalState::Applied);
    let denied = other.decide(person.decide(&proposal, false, |_| {})).await;
    assert!(matches!(denied, Err(ApprovalError::Settled("approved"))), "{denied:?}");

    let why = minds.why(place.account, "withdraw:").await.unwrap();
    assert_eq!(why.source, RISKY);
    let made = why.provenance.unwrap();
    assert_eq!((made.mind.as_str(), made.examples, made.decision), ("script", 2, Some(decision)));
    assert_eq!(Some(made.rev), why.rev);
    assert!(why.by.unwrap().contains(&made.becoming) && made.prompt.contains("balance: integer"));
}

#[tokio::test]
async fn a_denial_is_remembered() {
    let (place, person) = (place().await, Person::new());
    let minds = mind(&place, &[&[RISKY], &[GOOD]], person.policy());
    let proposal = proposed(&minds, &place).await;
    let settled = minds.decide(person.decide(&proposal, false, |_| {})).await.unwrap();
    assert_eq!(settled.state, ProposalState::Denied);
    let outcome = minds.make(&place.missing("withdraw:")).await.unwrap();
    assert!(matches!(&outcome, Outcome::Refused(why) if why.contains("looked at it")), "{outcome:?}");
    assert!(place.send("withdraw:", 30).await.is_err());
}

#[tokio::test]
async fn only_a_decision_of_this_architect_about_this_source_counts() {
    let (place, person, stranger) = (place().await, Person::new(), Person::new());
    let minds = mind(&place, &[&[RISKY]], person.policy());
    let proposal = proposed(&minds, &place).await;
    let cases = [
        ("another key", stranger.decide(&proposal, true, |_| {}), "not one of"),
        ("another source", person.decide(&proposal, true, |d| d.digest = "0".repeat(64)), "look at it again"),
        ("too late", person.decide(&proposal, true, |d| d.expires_at = now() - 1), "has expired"),
        ("another proposal", person.decide(&proposal, true, |d| d.proposal = "0".repeat(32)), "no proposal"),
        ("no id", person.decide(&proposal, true, |d| d.proposal = "☃".to_owned()), "no proposal"),
        (
            "changed after it was signed",
            {
                let mut decision = person.decide(&proposal, false, |_| {});
                decision.approve = true;
                decision
            },
            "signature",
        ),
        (
            "a key that is named only",
            {
                let mut decision = stranger.decide(&proposal, true, |_| {});
                decision.key = person.decide(&proposal, true, |_| {}).key;
                decision
            },
            "signature",
        ),
        (
            "signed for another universe",
            {
                let mut decision = person.decide(&proposal, true, |_| {});
                sign(&mut decision, "other", &person.key).unwrap();
                decision
            },
            "signature",
        ),
        (
            "no signature",
            Decision { signature: "zz".to_owned(), ..person.decide(&proposal, true, |_| {}) },
            "signature",
        ),
    ];
    for (case, decision, wanted) in cases {
        let error = minds.decide(decision).await.unwrap_err().to_string();
        assert!(error.contains(wanted), "{case}: {error}");
        assert_eq!(minds.proposals(None).await.unwrap().proposals[0].state, ProposalState::Pending, "{case}");
    }
    assert!(place.send("withdraw:", 30).await.is_err());
}

#[tokio::test]
async fn what_was_changed_meanwhile_is_superseded() {
    let (place, person) = (place().await, Person::new());
    let minds = mind(&place, &[&[RISKY]], person.policy());
    let proposal = proposed(&minds, &place).await;
    let (changes, holder) = place.universe.change(Patch::Method("withdraw:"), place.account, SLY).await.unwrap();
    place.universe.commit(place.universe.fresh_marker().unwrap(), Vec::new(), changes).await.unwrap();
    let settled = minds.decide(person.decide(&proposal, true, |_| {})).await.unwrap();
    assert_eq!(settled.state, ProposalState::Superseded);
    assert_eq!(minds.why(holder, "withdraw:").await.unwrap().source, SLY);
}

#[tokio::test]
async fn proposals_expire_and_are_made_anew() {
    let (place, person) = (place().await, Person::new());
    let policy = || Policy { patience: Duration::ZERO, ..person.policy() };
    let minds = mind(&place, &[&[RISKY], &[RISKY]], policy());
    let first = proposed(&minds, &place).await;
    assert_eq!(minds.proposals(None).await.unwrap().proposals[0].state, ProposalState::Expired);
    let late = minds.decide(person.decide(&first, true, |_| {})).await;
    assert!(matches!(late, Err(ApprovalError::Settled("expired"))), "{late:?}");
    let minds = mind(&place, &[&[GOOD]], policy());
    assert!(matches!(minds.make(&place.missing("withdraw:")).await.unwrap(), Outcome::Made(_)));
}

#[tokio::test]
async fn a_flood_of_proposals_is_bounded() {
    let (place, person) = (place().await, Person::new());
    let policy = Policy { most_pending: 0, ..person.policy() };
    let outcome = mind(&place, &[&[RISKY]], policy).make(&place.missing("withdraw:")).await.unwrap();
    assert!(matches!(&outcome, Outcome::Refused(why) if why.contains("wait for a person already")), "{outcome:?}");
}

#[tokio::test]
async fn a_universe_makes_as_much_as_its_policy_allows() {
    for (autonomy, draft, is_made) in [
        (Autonomy::Free, RISKY, true),
        (Autonomy::Careful, GOOD, true),
        (Autonomy::Careful, RISKY, false),
        (Autonomy::Ask, GOOD, false),
    ] {
        let place = place().await;
        let policy = Policy { autonomy, ..Policy::default() };
        let outcome = mind(&place, &[&[draft]], policy).make(&place.missing("withdraw:")).await.unwrap();
        assert_eq!(matches!(outcome, Outcome::Made(_)), is_made, "{autonomy:?} {draft}: {outcome:?}");
    }
    let place = place().await;
    let strict = Policy { autonomy: Autonomy::Strict, ..Policy::default() };
    let error = mind(&place, &[&[GOOD]], strict).make(&place.missing("withdraw:")).await.unwrap_err();
    assert!(matches!(error, BecomingError::Mind(MindError::Strict)), "{error}");
}

#[tokio::test]
async fn provenance_is_a_chain_that_the_check_verifies() {
    let place = place().await;
    for draft in [GOOD, "withdraw: n = ( balance: balance - n. balance )"] {
        let minds = mind(&place, &[&[draft]], Policy::default());
        let outcome = minds.make(&place.missing("withdraw:")).await.unwrap();
        assert!(matches!(outcome, Outcome::Made(_)), "{outcome:?}");
        let made = minds.why(place.account, "withdraw:").await.unwrap().provenance.unwrap();
        assert_eq!(made.before.is_empty(), draft == GOOD);
        let undo = Work::Undo { slot: "withdraw:".to_owned() };
        deliver(&place.universe, place.account, Authority::Architect, undo).await.unwrap();
    }
    let store: &Arc<dyn batos_graph::Store> = place.universe.store();
    assert_eq!(check(store.as_ref(), "u", |_| {}).await.unwrap().problems, Vec::<String>::new());
    // Somebody rewrites history.
    let (holder, _, _) = place.universe.holder(place.account).await.unwrap();
    let keys = place.universe.keys();
    let (start, end) = keys.provenance_range(holder);
    let (key, row) = store.scan(&start, &end, None, 1).await.unwrap().remove(0);
    let (mut made, _): (batos_covenant::Provenance, _) = batos_covenant::decode(&row.bytes).unwrap();
    made.mind = "a person".to_owned();
    let bytes = batos_covenant::encode(&made, batos_covenant::Encoding::MessagePack).unwrap();
    let row = batos_graph::Versioned { rev: row.rev, bytes };
    store.restore(vec![(key, row)], None).await.unwrap();
    let problems = check(store.as_ref(), "u", |_| {}).await.unwrap().problems;
    assert!(problems.iter().any(|problem| problem.contains("provenance")), "{problems:?}");
}
