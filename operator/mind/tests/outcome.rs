//! Intents of which a model says the outcome each time: what it is told, what is taken, and what hears the same answer.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::sync::Arc;

use batos_covenant::{Encoding, ErrorReply, OkReply, PrototypeDefinition, Reply, SendCommand, decode};
use batos_graph::ObjectId;
use batos_mind::{BecomingError, Mind, MindError, Outcome, OutcomeEvent, Policy, Said};
use batos_uvm::universe::{Authority, Delivery, Message, Patch, Unanswered, Universe, Work};
use common::{Place, Scripted, apply, place};
use serde_json::{Value, json};

/// A clerk who judges letters, and acts on what it finds.
fn clerk(text: &str, cache: Option<u64>) -> PrototypeDefinition {
    let intent = |text: &str, answers: Value| json!({ "text": text, "arguments": ["letter"], "outcome": { "answers": answers, "cache_seconds": cache } });
    let mood = json!({ "type": "string", "enum": ["calm", "angry"] });
    let report = json!({ "type": "record", "fields": {
        "mood": mood, "urgency": { "type": "integer", "min": 1, "max": 5 } } });
    let sort =
        "sort: letter = ( sorted := sorted + 1. ^(mood: letter) = 'angry' ifTrue: [ 'now' ] ifFalse: [ 'later' ] )";
    let weigh = "weigh: letter = ( | report | report := report: letter. ^{report mood. report urgency + 1. sorted} )";
    let definition = json!({ "slots": [
        { "name": "sorted", "value": 0 },
        { "name": "_secret", "value": "hunter2" },
        { "name": "mood:", "intent": intent(text, mood) },
        { "name": "report:", "intent": intent("Sum the letter up.", report) },
        { "name": "sort:", "method": sort },
        { "name": "weigh:", "method": weigh },
        { "name": "twice:", "method": "twice: letter = ( {mood: letter. mood: 'other'. mood: letter} )" },
        { "name": "odd", "method": "odd = ( mood: Object clone )" },
    ] });
    serde_json::from_value(definition).unwrap()
}

async fn office(cache: Option<u64>) -> (Place, ObjectId) {
    let place = place().await;
    let clerk = apply(&place.universe, "clerk", clerk("How does the writer feel?", cache)).await;
    (place, clerk)
}

/// Sends as the ingress does: what a model has to say is asked, and the message is carried out again.
async fn send(
    universe: &Universe,
    mind: &Mind,
    object: ObjectId,
    selector: &str,
    arguments: &[Value],
    id: Option<&str>,
) -> Result<Value, String> {
    let send = SendCommand { selector: selector.to_owned(), arguments: arguments.to_vec() };
    let message = Message {
        object,
        authority: Authority::Sender,
        sender: "test".to_owned(),
        id: id.map(str::to_owned),
        digest: [0; 32],
        encoding: Encoding::Json,
        work: Work::Send { send, made: None },
    };
    let mut outcomes = Vec::new();
    loop {
        let missing = match universe.deliver_with(&message, &outcomes).await.unwrap() {
            Delivery::NotUnderstood(missing) => missing,
            Delivery::Replied(reply) => {
                return match decode(&reply).unwrap().0 {
                    Reply::Ok(OkReply { value, .. }) => Ok(value),
                    Reply::Error { error: ErrorReply { message, .. } } => Err(message),
                };
            }
        };
        let question = missing.question.clone().unwrap();
        match mind.outcome(&missing, &question, id.map(str::as_bytes)).await.unwrap() {
            Said::Answer(outcome) => outcomes.push(outcome),
            Said::Refused(reason) => return Err(reason),
        }
    }
}

fn mind(place: &Place, script: &Arc<Scripted>) -> Mind {
    Mind::new(place.universe.clone(), script.clone(), Policy::default())
}

#[tokio::test]
async fn a_model_is_asked_each_time_and_no_method_comes_of_it() {
    let (place, clerk) = office(None).await;
    let script = Scripted::new(&[&["\"angry\""], &["calm"], &["angry"], &["calm"]]);
    let mind = mind(&place, &script);
    for wanted in ["now", "later"] {
        assert_eq!(send(&place.universe, &mind, clerk, "sort:", &[json!("Sirs!")], None).await, Ok(json!(wanted)));
    }
    // The turn that asked left nothing; the one that knew the answer was carried out once.
    assert_eq!(send(&place.universe, &mind, clerk, "sorted", &[], None).await, Ok(json!(2)));
    // Within a turn one question has one answer.
    let twice = send(&place.universe, &mind, clerk, "twice:", &[json!("Sirs!")], None).await;
    assert_eq!(twice, Ok(json!(["angry", "calm", "angry"])));

    let asked = script.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 4);
    for wanted in ["How does the writer feel?", "letter: \"Sirs!\"", "sorted: 1", r#""enum":["calm","angry"]"#] {
        assert!(asked[0].user.contains(wanted), "{wanted} in {}", asked[0].user);
    }
    assert!(!asked[0].user.contains("hunter2") && asked[0].grammar().is_none() && asked[0].drafts == 1);
    assert!(place.told("outcome").await);
}

#[tokio::test]
async fn answers_without_the_shape_are_asked_for_again_and_then_refused() {
    let (place, clerk) = office(None).await;
    let good = r#"Here: {"mood": "calm", "urgency": 2}"#;
    let bad = r#"{"mood": "calm", "urgency": 9}"#;
    let script = Scripted::new(&[&["no idea"], &[bad], &[good], &[bad], &[bad], &[bad], &[good]]);
    let mind = mind(&place, &script);
    let weighed = send(&place.universe, &mind, clerk, "weigh:", &[json!("Sirs!")], None).await;
    assert_eq!(weighed, Ok(json!(["calm", 3, 0])));
    let asked = script.asked.lock().unwrap()[2].user.clone();
    assert!(asked.contains("is no JSON") && asked.contains("field \"urgency\": 9: it must be at most 5"), "{asked}");

    let refused = send(&place.universe, &mind, clerk, "weigh:", &[json!("Sirs!")], None).await;
    assert!(refused.as_ref().is_err_and(|why| why.contains("at most 5")), "{refused:?}");
    assert_eq!(script.asked.lock().unwrap().len(), 6);
    let refusals = outcomes(&place).await.into_iter().filter(|event| event.refused.is_some());
    assert_eq!(refusals.map(|event| event.model_calls).collect::<Vec<_>>(), [3]);
}

async fn outcomes(place: &Place) -> Vec<OutcomeEvent> {
    let mut events = Vec::new();
    for shard in 0..=u8::MAX {
        for (_, event) in place.universe.outbox(shard, None).await.unwrap() {
            events.extend((event.kind == "outcome").then(|| decode::<OutcomeEvent>(&event.payload).unwrap().0));
        }
    }
    events
}

#[tokio::test]
async fn the_same_message_hears_the_same_answer_whatever_died_meanwhile() {
    let (place, clerk) = office(None).await;
    let script = Scripted::new(&[&["angry"], &["calm"]]);
    // The worker dies between the answer and the turn's commit.
    let missing = match place.universe.deliver(&sorting(clerk)).await.unwrap() {
        Delivery::NotUnderstood(missing) => missing,
        Delivery::Replied(reply) => panic!("{reply:?}"),
    };
    let question = missing.question.clone().unwrap();
    let first = mind(&place, &script).outcome(&missing, &question, Some(b"a")).await.unwrap();
    let again = mind(&place, &script);
    assert_eq!(again.outcome(&missing, &question, Some(b"a")).await.unwrap(), first);
    assert_eq!(send(&place.universe, &again, clerk, "sort:", &[json!("Sirs!")], Some("a")).await, Ok(json!("now")));
    assert_eq!(script.asked.lock().unwrap().len(), 1);
    assert_eq!(send(&place.universe, &again, clerk, "sort:", &[json!("Sirs!")], Some("b")).await, Ok(json!("later")));
    assert_eq!(script.asked.lock().unwrap().len(), 2);
}

fn sorting(clerk: ObjectId) -> Message {
    let send = SendCommand { selector: "sort:".to_owned(), arguments: vec![json!("Sirs!")] };
    Message {
        object: clerk,
        authority: Authority::Sender,
        sender: "test".to_owned(),
        id: None,
        digest: [0; 32],
        encoding: Encoding::Json,
        work: Work::Send { send, made: None },
    }
}

#[tokio::test]
async fn a_cached_answer_is_one_questions() {
    // The window has to outlive the test: it begins when the clock says so, so that two may be met.
    let (place, clerk) = office(Some(1 << 40)).await;
    let script = Scripted::new(&[&["angry"], &["calm"], &["calm"]]);
    let mind = mind(&place, &script);
    for _ in 0..3 {
        assert_eq!(send(&place.universe, &mind, clerk, "mood:", &[json!("Sirs!")], None).await, Ok(json!("angry")));
    }
    assert_eq!(script.asked.lock().unwrap().len(), 1);
    assert_eq!(send(&place.universe, &mind, clerk, "mood:", &[json!("Dear")], None).await, Ok(json!("calm")));
    apply(&place.universe, "clerk", self::clerk("Is the writer angry?", Some(1 << 40))).await;
    assert_eq!(send(&place.universe, &mind, clerk, "mood:", &[json!("Sirs!")], None).await, Ok(json!("calm")));
    assert_eq!(script.asked.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn what_cannot_be_told_or_asked_is_an_error_with_a_type() {
    let (place, clerk) = office(None).await;
    let script = Scripted::new(&[]);
    let minds = mind(&place, &script);
    let object = send(&place.universe, &minds, clerk, "odd", &[], None).await;
    assert!(object.as_ref().is_err_and(|why| why.contains("argument 1 of \"mood:\" is a new object")), "{object:?}");
    let long = send(&place.universe, &minds, clerk, "mood:", &[json!("x".repeat(9000))], None).await;
    assert!(long.as_ref().is_err_and(|why| why.contains("at most 8192")), "{long:?}");

    let Delivery::NotUnderstood(missing) = place.universe.deliver(&sorting(clerk)).await.unwrap() else { panic!() };
    let none = minds.outcome(&missing, missing.question.as_ref().unwrap(), None).await;
    assert!(matches!(none, Err(BecomingError::Mind(MindError::NoMind))), "{none:?}");
}

#[tokio::test]
async fn a_trial_asks_no_model() {
    let (place, _) = office(None).await;
    let round: &[&str] = &["withdraw: n = ( clerk mood: 'x' )"];
    let script = Scripted::new(&[round; 3]);
    let outcome = mind(&place, &script).make(&place.missing("withdraw:")).await.unwrap();
    assert!(matches!(&outcome, Outcome::Refused(why) if why.contains("a trial asks none")), "{outcome:?}");
}

#[tokio::test]
async fn an_outcome_becomes_no_method() {
    let (place, clerk) = office(None).await;
    let traits = ObjectId::of_name("traits clerk");
    let change = place
        .universe
        .change(Patch::Intent { holder: traits, selector: "mood:" }, clerk, "mood: letter = ( 'calm' )")
        .await;
    assert!(change.is_err_and(|error| error.to_string().contains("answered by a model each time")));
    let Delivery::NotUnderstood(Unanswered { intent, receiver, .. }) =
        place.universe.deliver(&sorting(clerk)).await.unwrap()
    else {
        panic!()
    };
    assert_eq!((intent, receiver), (Some(traits), clerk));
}
