//! Behaviour that people described: stored, shown, asked for, made once, stale when its description changes.

mod common;

use batos_covenant::{ContractDefinition, GetFullStateCommand, IntentDefinition, IntentExample, SlotDefinition};
use batos_graph::ObjectId;
use batos_uvm::universe::{Patch, Universe};
use common::universe::{answer, apply, data, send, store};
use serde_json::json;

fn intent(name: &str, text: &str) -> SlotDefinition {
    let example = IntentExample { arguments: vec![4.into()], answers: Some(8.into()), ..IntentExample::default() };
    let intent = IntentDefinition {
        text: text.to_owned(),
        arguments: vec!["n".to_owned()],
        examples: vec![example],
        contract: None,
        outcome: None,
    };
    SlotDefinition { name: name.to_owned(), value: None, method: None, intent: Some(intent), constant: false }
}

const SOURCE: &str = "double: n = ( n * 2 )";

#[tokio::test]
async fn an_intent_is_asked_for_until_it_is_made_and_again_when_it_changes() {
    let (_folder, store) = store();
    let universe = Universe::open("u", store).await.unwrap();
    let (maker, traits) = (ObjectId::of_name("maker"), ObjectId::of_name("traits maker"));
    let slots = |text: &str| vec![data("x", 1.into()), intent("double:", text)];
    apply(&universe, "maker", slots("Answers twice the argument.")).await.unwrap();

    let double = send(maker, "", "double:", &[21.into()]);
    let missing = answer(&universe, &double).await.unwrap().unwrap_err();
    assert_eq!((missing.receiver, missing.intent), (maker, Some(traits)));
    assert_eq!((missing.selector.as_str(), missing.shapes.as_slice()), ("double:", &["integer".to_owned()][..]));
    let state = universe.full_state(maker, &GetFullStateCommand::default()).await.unwrap().value;
    assert_eq!(state["intents"], json!({ "double:": "Answers twice the argument." }));
    assert_eq!(state["methods"], json!({}));

    let changes =
        universe.change(Patch::Intent { holder: traits, selector: "double:" }, maker, SOURCE).await.unwrap().0;
    universe.commit(universe.fresh_marker().unwrap(), Vec::new(), changes).await.unwrap();
    assert_eq!(answer(&universe, &double).await.unwrap().unwrap(), json!(42));
    assert_eq!(
        universe.full_state(maker, &GetFullStateCommand::default()).await.unwrap().value["methods"],
        json!({ "double:": SOURCE })
    );

    // The same manifest again changes nothing, and what was made of an intent is no drift.
    let applied = apply(&universe, "maker", slots("Answers twice the argument.")).await.unwrap();
    assert_eq!(applied["drift"], json!([]));
    assert_eq!(answer(&universe, &double).await.unwrap().unwrap(), json!(42));

    apply(&universe, "maker", slots("Answers the argument doubled, but never more than 10.")).await.unwrap();
    assert_eq!(answer(&universe, &double).await.unwrap().unwrap_err().intent, Some(traits));
}

#[tokio::test]
async fn objects_that_change_keep_their_intents() {
    let (_folder, store) = store();
    let universe = Universe::open("u", store).await.unwrap();
    let (maker, traits) = (ObjectId::of_name("maker"), ObjectId::of_name("traits maker"));
    apply(&universe, "maker", vec![data("copy", json!(null)), intent("double:", "Twice.")]).await.unwrap();
    let eval = |object, source: &str| {
        common::universe::message(object, "", batos_uvm::universe::Work::Eval { source: source.to_owned(), made: None })
    };
    let kinds = "{(mirror kindOf: #double:). (mirror at: #double:). mirror slotNames size}";
    answer(&universe, &eval(traits, "self setSlot: #note value: 3")).await.unwrap().unwrap();
    assert_eq!(answer(&universe, &eval(traits, kinds)).await.unwrap().unwrap(), json!(["intent", "Twice.", 3]));

    // A clone's intent is the clone's.
    let clone = answer(&universe, &eval(traits, "self clone")).await.unwrap().unwrap();
    let clone: ObjectId = clone["$ref"].as_str().unwrap().parse().unwrap();
    assert_eq!(answer(&universe, &eval(clone, kinds)).await.unwrap().unwrap(), json!(["intent", "Twice.", 3]));
    let missing = answer(&universe, &send(clone, "", "double:", &[1.into()])).await.unwrap().unwrap_err();
    assert_eq!(missing.intent, Some(clone));
    assert_eq!(maker, ObjectId::of_name("maker"));

    // Code that takes its place is a method.
    let set = "self setSlot: #double: value: [ :n | n + n ]";
    answer(&universe, &eval(clone, set)).await.unwrap().unwrap();
    assert_eq!(answer(&universe, &eval(clone, "mirror kindOf: #double:")).await.unwrap().unwrap(), json!("method"));
    assert_eq!(answer(&universe, &send(clone, "", "double:", &[4.into()])).await.unwrap().unwrap(), json!(8));
}

#[tokio::test]
async fn an_intent_that_no_method_can_be_is_refused() {
    let (_folder, store) = store();
    let universe = Universe::open("u", store).await.unwrap();
    for (name, arguments, examples, wanted) in [
        ("double:", vec!["a", "b"], vec![], "names 2 arguments, the selector takes 1"),
        ("double:", vec!["3x"], vec![], "slot \"double:\""),
        ("at:put:", vec!["k", "v"], vec![IntentExample::default()], "gives 0 arguments, the selector takes 2"),
    ] {
        let arguments = arguments.into_iter().map(str::to_owned).collect();
        let intent = IntentDefinition { text: "x".to_owned(), arguments, examples, contract: None, outcome: None };
        let slot =
            SlotDefinition { name: name.to_owned(), value: None, method: None, intent: Some(intent), constant: false };
        let error = apply(&universe, "bad", vec![slot]).await.unwrap_err();
        assert!(error.contains(wanted), "{error}");
    }
}

#[tokio::test]
async fn a_contract_is_made_of_expressions_and_changes_the_intent() {
    let (_folder, store) = store();
    let universe = Universe::open("u", store).await.unwrap();
    let maker = ObjectId::of_name("maker");
    let slot = |requires: &str, ensures: &str| {
        let mut slot = intent("double:", "Answers twice the argument.");
        let (requires, ensures) = (Some(requires.to_owned()), ensures.to_owned());
        slot.intent.as_mut().unwrap().contract = Some(ContractDefinition { requires, ensures });
        slot
    };
    for (requires, ensures, wanted) in [
        ("n > 0", "answer >\n  * n", "slot \"double: (ensures)\": line 2, column 3"),
        ("n > 0. n", "true", "slot \"double: (requires)\": line 1, column 6"),
        ("true", "true) ] x: (false", "slot \"double: (ensures)\": line 1, column 7"),
        ("true", "_Clone", "slot \"double: (ensures)\""),
    ] {
        let error = apply(&universe, "maker", vec![slot(requires, ensures)]).await.unwrap_err();
        assert!(error.contains(wanted), "{error}");
    }
    let mut taken = slot("true", "true");
    taken.intent.as_mut().unwrap().arguments = vec!["answer".to_owned()];
    let error = apply(&universe, "maker", vec![taken]).await.unwrap_err();
    assert!(error.contains("\"answer\" means something in a contract"), "{error}");

    let traits = ObjectId::of_name("traits maker");
    let double = send(maker, "", "double:", &[21.into()]);
    for ensures in ["answer > n", "answer = (n * 2)"] {
        assert_eq!(apply(&universe, "maker", vec![slot("n > 0", ensures)]).await.unwrap()["drift"], json!([]));
        assert!(answer(&universe, &double).await.unwrap().is_err(), "what was made is judged by another contract");
        let patch = Patch::Intent { holder: traits, selector: "double:" };
        let changes = universe.change(patch, maker, SOURCE).await.unwrap().0;
        universe.commit(universe.fresh_marker().unwrap(), Vec::new(), changes).await.unwrap();
        assert_eq!(answer(&universe, &double).await.unwrap().unwrap(), json!(42));
    }
}
