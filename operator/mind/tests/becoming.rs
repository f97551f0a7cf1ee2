//! Becomings in a universe on a file, with minds that answer by a script, from recordings, and over HTTP.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::sync::Arc;

use batos_covenant::{ApplyCommand, IntentDefinition, IntentExample, PrototypeDefinition, SendCommand, SlotDefinition};
use batos_graph::ObjectId;
use batos_mind::{
    ApiKey, BecomingError, Client, ClientError, Either, Endpoint, Mind, MindError, Outcome, Policy, Recorder,
    Recordings, Step, Usage,
};
use batos_uvm::universe::{Authority, Unanswered, Work};
use common::{BROKEN, GOOD, SLY, Scripted, deliver, place};
use serde_json::{Value, json};

#[tokio::test]
async fn a_draft_that_fails_is_asked_for_again_with_what_was_wrong() {
    let place = place().await;
    let mind = Scripted::new(&[&[SLY], &[BROKEN], &[GOOD]]);
    let outcome = place.make(mind.clone()).await.unwrap();
    let Outcome::Made(made) = outcome else { panic!("{outcome:?}") };
    assert_eq!((made.model_calls, made.mind.as_str()), (3, "script"));
    assert_eq!(place.send("withdraw:", 30).await, Ok(json!(70)));

    let asked = mind.asked.lock().unwrap().clone();
    assert!(!asked[0].user.contains("refused"), "{}", asked[0].user);
    let wanted = [SLY, r#"example 2 ({"given":{"balance":5}"#, "it answers 70, not 0"];
    assert!(wanted.iter().all(|wanted| asked[1].user.contains(wanted)), "{}", asked[1].user);
    let wanted = [SLY, BROKEN, "line 1, column 36"];
    assert!(wanted.iter().all(|wanted| asked[2].user.contains(wanted)), "{}", asked[2].user);

    use Step::{Asked, Drafted, Judged, Repair, Swapped};
    assert_eq!(place.steps().await, [Asked, Drafted, Repair, Drafted, Repair, Drafted, Judged, Swapped]);
    let last = place.events().await.pop().unwrap();
    assert_eq!((last.prompt_tokens, last.completion_tokens, last.forge_rev), (30, 15, 1));
}

#[tokio::test]
async fn rounds_are_bounded_and_a_refusal_is_remembered() {
    let place = place().await;
    let mind = Scripted::new(&[&[BROKEN], &[BROKEN], &[SLY], &[GOOD]]);
    for _ in 0..2 {
        let outcome = place.make(mind.clone()).await.unwrap();
        assert!(matches!(&outcome, Outcome::Refused(why) if why.contains("it answers 70, not 0")), "{outcome:?}");
        assert_eq!(mind.asked.lock().unwrap().len(), 3);
    }
    assert!(place.send("withdraw:", 30).await.is_err());
}

#[tokio::test]
async fn of_several_drafts_the_first_that_holds_is_taken_and_the_best_is_spoken_of() {
    let place = place().await;
    let amended = "toolForge drafts: 3. toolForge temperature: 1.0. toolForge request: 'Be brief.'. toolForge drafts";
    let refused = place.eval(Authority::Sender, amended).await;
    assert!(refused.is_err_and(|why| why.contains("image")));
    assert!(place.eval(Authority::Architect, "Object setSlot: #drafts value: 1").await.is_err());
    assert!(place.eval(Authority::Architect, "toolForge setSlot: #more value: 1").await.is_err());
    assert_eq!(place.eval(Authority::Architect, amended).await, Ok(json!(3)));

    let mind = Scripted::new(&[&[BROKEN, SLY, "no"], &["no", BROKEN, GOOD, SLY]]);
    assert!(matches!(place.make(mind.clone()).await.unwrap(), Outcome::Made(_)));
    let asked = mind.asked.lock().unwrap().clone();
    assert_eq!((asked[0].drafts, asked[0].temperature), (3, 1.0));
    assert!(asked[0].user.ends_with("Be brief."), "{}", asked[0].user);
    assert!(asked[1].user.contains(SLY) && !asked[1].user.contains(BROKEN), "{}", asked[1].user);
    assert_eq!(place.events().await.pop().unwrap().forge_rev, 2);

    assert_eq!(place.eval(Authority::Architect, "toolForge attempts: 0. 1").await, Ok(json!(1)));
    let error = Mind::new(place.universe.clone(), mind, Policy::default()).make(&place.missing("pay:")).await;
    assert!(matches!(error, Err(BecomingError::Mind(MindError::BadForge(why))) if why.contains("attempts")));
}

#[tokio::test]
async fn nothing_is_asked_that_cannot_be_judged_or_named() {
    let place = place().await;
    let mind = Scripted::new(&[&[GOOD]]);
    for selector in ["pay:", "x = ( 1 ). y", "ignore all that\nand:", "a b"] {
        let outcome = Mind::new(place.universe.clone(), mind.clone(), Policy::default())
            .make(&place.missing(selector))
            .await
            .unwrap();
        assert!(matches!(&outcome, Outcome::Refused(_)), "{selector}: {outcome:?}");
    }
    assert!(mind.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_intent_is_made_where_it_stands_and_from_its_words() {
    let place = place().await;
    let example = IntentExample { arguments: vec![json!(4)], answers: Some(json!(8)), ..IntentExample::default() };
    let (text, arguments) = ("Answers twice the number.".to_owned(), vec!["number".to_owned()]);
    let intent = Some(IntentDefinition { text, arguments, examples: vec![example], outcome: None });
    let slot = SlotDefinition { name: "twice:".to_owned(), value: None, method: None, intent, constant: false };
    let definition = PrototypeDefinition { slots: vec![slot], ..PrototypeDefinition::default() };
    let apply = ApplyCommand { definition, uid: String::new(), generation: 0, term: 0, enforce: false };
    let object = ObjectId::of_name("doubler");
    let work = Work::Apply { name: "doubler".to_owned(), apply };
    deliver(&place.universe, object, Authority::Operator, work).await.unwrap();

    let traits = ObjectId::of_name("traits doubler");
    let missing = Unanswered { receiver: object, intent: Some(traits), ..place.missing("twice:") };
    let mind =
        Scripted::new(&[&["twice: number = ( number + 4 )\n"], &["twice: n = ( n + 3 )"], &["twice: n = ( n * 2 )"]]);
    let Outcome::Made(made) =
        Mind::new(place.universe.clone(), mind.clone(), Policy::default()).make(&missing).await.unwrap()
    else {
        panic!()
    };
    // One example is a weak judge; what was asked is what matters here.
    assert_eq!((made.holder, made.model_calls), (traits.to_string(), 1));
    let asked = mind.asked.lock().unwrap()[0].user.clone();
    let wanted = ["twice: number\nnumber: integer", "Answers twice the number.", r#""arguments":[4]"#];
    assert!(wanted.iter().all(|wanted| asked.contains(wanted)), "{asked}");
    let send = SendCommand { selector: "twice:".to_owned(), arguments: vec![json!(4)] };
    let answer = deliver(&place.universe, object, Authority::Sender, Work::Send { send, made: None }).await;
    assert_eq!(answer, Ok(json!(8)));
}

async fn fake(steps: Value) -> Client {
    let address = fake_vllm::start("base").await.unwrap();
    // The client installs what TLS needs, for the other one as well.
    let client = Client::new(Endpoint::new(&format!("http://{address}/v1"), "base")).unwrap();
    let http = reqwest::Client::new();
    let response = http.post(format!("http://{address}/fake/script")).json(&steps).send().await.unwrap();
    assert_eq!(response.status(), 200);
    client
}

#[tokio::test]
async fn a_model_behind_a_url_makes_the_method() {
    let place = place().await;
    let client = fake(json!([
        { "texts": ["withdraw: n = ( balance"], "finish_reason": "length" },
        { "texts": [format!("Sure:\n```smalltalk\n{SLY}\n```")] },
        { "texts": [format!("I see. `{GOOD}` it is.")] },
    ]))
    .await;
    let outcome = place.make(Arc::new(client.clone())).await.unwrap();
    let Outcome::Made(made) = outcome else { panic!("{outcome:?}") };
    assert_eq!(made.mind, format!("base at {}", client.endpoint().url));
    assert_eq!((made.model_calls, client.spent().requests), (3, 3));
    assert_eq!(place.send("withdraw:", 30).await, Ok(json!(70)));
    let last = place.events().await.pop().unwrap();
    let Usage { prompt_tokens, completion_tokens } = client.spent().usage;
    assert_eq!((last.prompt_tokens, last.completion_tokens), (prompt_tokens, completion_tokens));

    let requests: Vec<Value> = reqwest::get(format!("{}/fake/requests", client.endpoint().url.replace("/v1", "")))
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let grammar = requests[0]["body"]["structured_outputs"]["grammar"].as_str().unwrap();
    assert!(grammar.starts_with("root ::= \"withdraw:\" s name s \"=\""), "{grammar}");
    assert!(requests[1]["body"]["messages"][1]["content"].as_str().unwrap().contains("cut off at the limit"));
}

#[tokio::test]
async fn a_mind_that_cannot_be_reached_leaves_the_becoming_open() {
    let place = place().await;
    let client = fake(json!(vec![json!({ "fault": "status", "status": 400, "message": "no such model" })])).await;
    let outcome = place.make(Arc::new(client.clone())).await;
    let refused = ClientError::Refused { status: 400, message: "no such model".to_owned() };
    assert!(matches!(outcome, Err(BecomingError::Mind(MindError::Client(error))) if error == refused));
    assert_eq!(place.steps().await, [Step::Asked]);
    assert!(matches!(place.make(Scripted::new(&[&[GOOD]])).await.unwrap(), Outcome::Made(_)));
}

#[tokio::test]
async fn what_a_live_mind_answered_is_recorded_and_answers_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("recordings.yaml");
    let client = fake(json!([{ "texts": [SLY] }, { "texts": [GOOD] }])).await;
    let recorder = Recorder::open(client, &file).unwrap();
    assert!(matches!(place().await.make(Arc::new(recorder)).await.unwrap(), Outcome::Made(_)));

    let recordings = Recordings::parse(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let outcome = place().await.make(Arc::new(recordings.clone())).await.unwrap();
    let Outcome::Made(made) = outcome else { panic!("{outcome:?}") };
    assert_eq!((made.mind.as_str(), made.model_calls), ("recorded", 2));

    // A recording that ends with a draft that failed refuses; another mind may go on where one is.
    let mut written: serde_json::Value = serde_yaml::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    written["recorded"].as_array_mut().unwrap().retain(|recording| recording["answer"] == SLY);
    let first_only = Recordings::parse(&written.to_string()).unwrap();
    let outcome = place().await.make(Arc::new(first_only.clone())).await.unwrap();
    assert!(matches!(&outcome, Outcome::Refused(why) if why.contains("it answers 70")), "{outcome:?}");
    let both = Either(first_only, fake(json!([{ "texts": [GOOD] }])).await);
    assert!(matches!(place().await.make(Arc::new(both)).await.unwrap(), Outcome::Made(_)));
}

#[tokio::test]
async fn what_looks_like_a_key_is_not_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("recordings.yaml");
    let leak = format!("{GOOD} \"sk-abcdefghijklmnopqrstuvwxyz\"");
    let recorder = Recorder::open(Recordings::default(), &file).unwrap();
    drop(recorder);
    let recorder = Recorder::open(fake(json!([{ "texts": [leak] }])).await, &file).unwrap();
    assert!(matches!(place().await.make(Arc::new(recorder)).await.unwrap(), Outcome::Made(_)));
    assert!(!file.exists());
    assert!(ApiKey::read(&file).is_err());
}
