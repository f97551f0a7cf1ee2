//! An intent's contract: what a method keeps wherever it is tried, beside what its examples say.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use batos_mind::{Mind, Outcome, Policy};
use batos_uvm::universe::Unanswered;
use common::{Scripted, apply, place};
use serde_json::{Value, json};

/// What becomes of one draft of `take:`, on a shelf of three items and two shelves that examples know.
async fn made(contract: Value, examples: Value, draft: &str) -> (Result<(), String>, String) {
    let place = place().await;
    let intent = json!({
        "text": "Takes so many items off and answers how many are left.",
        "arguments": ["count"],
        "examples": examples,
        "contract": contract,
    });
    let definition = json!({ "slots": [
        { "name": "items", "value": 3 },
        { "name": "take:", "intent": intent },
        { "name": "least", "method": "least = ( 0 )" },
    ] });
    let receiver = apply(&place.universe, "shelf", serde_json::from_value(definition).unwrap()).await;
    let traits = batos_graph::ObjectId::of_name("traits shelf");
    let missing =
        Unanswered { receiver, intent: Some(traits), arguments: Some(vec![json!(2)]), ..place.missing("take:") };
    let round: &[&str] = &[draft];
    let mind = Scripted::new(&[round; 3]);
    let outcome = Mind::new(place.universe.clone(), mind.clone(), Policy::default()).make(&missing).await.unwrap();
    let asked = mind.asked.lock().unwrap().last().unwrap().user.clone();
    match outcome {
        Outcome::Made(_) => (Ok(()), asked),
        Outcome::Proposed(proposal) => (Err(format!("{:?}", proposal.risks)), asked),
        Outcome::Refused(reason) => (Err(reason), asked),
        other => panic!("{other:?}"),
    }
}

fn example(items: i64, count: i64, left: i64, hidden: bool) -> Value {
    json!({ "given": { "items": items }, "arguments": [count], "answers": left, "hidden": hidden })
}

const GOOD: &str = "take: count = ( count > items ifTrue: [ self error: 'too few' ]. items: items - count. ^items )";
/// Fits the examples, and forgets that there may be too few.
const GREEDY: &str = "take: count = ( items: items - count. ^items )";
/// Fits the examples, and fails where it should not.
const FUSSY: &str = "take: count = ( count even ifTrue: [ self error: 'no pairs' ]. items: items - count. ^items )";
/// Answers right and leaves what was there.
const IDLE: &str = "take: count = ( count > items ifTrue: [ self error: 'too few' ]. ^items - count )";

#[tokio::test]
async fn a_contract_judges_where_no_example_does() {
    let examples = || json!([example(5, 1, 4, false), example(9, 3, 6, false)]);
    let whole =
        json!({ "requires": "count <= items", "ensures": "items = (before items - count) and: [ answer >= least ]" });
    let only_ensures = json!({ "ensures": "items >= 0" });
    for (contract, draft, wanted) in [
        (json!(null), GREEDY, None),
        (whole.clone(), GOOD, None),
        (whole.clone(), FUSSY, Some("it fails although what it requires is true")),
        (whole.clone(), IDLE, Some("afterwards this is false: items = (before items - count)")),
        (only_ensures.clone(), GREEDY, Some("afterwards this is false: items >= 0")),
        // What fails is not judged where nothing is required.
        (only_ensures.clone(), GOOD, None),
        (only_ensures, FUSSY, Some("afterwards this is false: items >= 0")),
        (json!({ "ensures": "answer" }), GOOD, Some("neither true nor false")),
        (json!({ "requires": "self nothingLike", "ensures": "true" }), GOOD, Some("nothingLike")),
    ] {
        let (outcome, _) = made(contract.clone(), examples(), draft).await;
        match (&outcome, wanted) {
            (Ok(()), None) => {}
            (Err(reason), Some(wanted)) if reason.contains(wanted) && reason.contains("contract") => {}
            _ => panic!("{contract} {draft}: {outcome:?}, wanted {wanted:?}"),
        }
    }
}

#[tokio::test]
async fn minds_are_told_the_contract_and_no_hidden_or_real_value() {
    let contract = json!({ "requires": "count <= items", "ensures": "items >= 5" });
    let hidden = json!([example(1234, 1, 1233, true), example(1236, 1233, 3, true)]);
    let (outcome, asked) = made(contract, hidden, GREEDY).await;
    assert!(outcome.unwrap_err().contains("not shown"), "people are not told it either");
    assert!(asked.contains("it does not fail: count <= items") && asked.contains("items >= 5"), "{asked}");
    assert!(!asked.contains("123"), "{asked}");
}

#[tokio::test]
async fn a_contract_alone_is_judged_on_the_message_and_a_person_decides() {
    let contract = json!({ "ensures": "answer = items" });
    let (outcome, _) = made(contract.clone(), json!([]), GREEDY).await;
    assert!(outcome.unwrap_err().contains("no example says what is right"));
    let (outcome, asked) = made(contract, json!([]), "take: count = ( items: items - count. ^count )").await;
    let reason = outcome.unwrap_err();
    assert!(reason.contains("on the message that asked for it: afterwards this is false"), "{reason}");
    assert!(asked.contains("afterwards this is false"), "{asked}");
}
