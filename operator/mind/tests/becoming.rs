//! Becomings in a universe on a file, with minds that answer by a script, from recordings, and over HTTP.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::sync::Arc;

use batos_covenant::{ApplyCommand, IntentDefinition, IntentExample, PrototypeDefinition, SendCommand, SlotDefinition};
use batos_graph::ObjectId;
use batos_mind::{
    Answer, ApiKey, BecomingError, Client, ClientError, Drafter, Either, Endpoint, Mind, MindError, Outcome, Policy,
    Prompt, Recorder, Recordings, Step, Usage,
};
use batos_uvm::universe::{Authority, Unanswered, Work};
use common::{ALIKE, BROKEN, GOOD, SLY, STINGY, Scripted, deliver, place};
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
async fn of_several_drafts_one_that_holds_is_taken_and_the_best_is_spoken_of() {
    let place = place().await;
    let amended = "toolForge drafts: 3. toolForge temperature: 1.0. toolForge request: 'Be brief.'. toolForge drafts";
    let refused = place.eval(Authority::Sender, amended).await;
    assert!(refused.is_err_and(|why| why.contains("image")));
    assert!(place.eval(Authority::Architect, "Object setSlot: #drafts value: 1").await.is_err());
    assert!(place.eval(Authority::Architect, "toolForge setSlot: #more value: 1").await.is_err());
    assert_eq!(place.eval(Authority::Architect, amended).await, Ok(json!(3)));

    let mind = Scripted::new(&[&[BROKEN, SLY, "no"], &["no", GOOD, BROKEN, ALIKE, SLY]]);
    assert!(matches!(place.make(mind.clone()).await.unwrap(), Outcome::Made(_)));
    let asked = mind.asked.lock().unwrap().clone();
    assert_eq!((asked[0].drafts, asked[0].temperature), (3, 1.0));
    assert!(asked[0].user.ends_with("Be brief."), "{}", asked[0].user);
    assert!(asked[1].user.contains(SLY) && !asked[1].user.contains(BROKEN), "{}", asked[1].user);
    assert_eq!(place.events().await.pop().unwrap().forge_rev, 2);

    assert_eq!(place.eval(Authority::Architect, "toolForge attempts: 0. 1").await, Ok(json!(1)));
    let error = Mind::new(place.universe.clone(), mind, Policy::default()).make(&place.missing("pay:")).await;
    assert!(matches!(error, Err(BecomingError::Mind(MindError::BadOrgan(why))) if why.contains("attempts")));
}

#[tokio::test]
async fn drafts_that_hold_must_also_agree_where_no_example_is() {
    let only = |alike: usize, of: usize, why: &str| format!("only {alike} of {of} drafts does what it does: {why}");
    let differ = "on withdraw: [";
    for (drafts, source, risk) in [
        (vec![GOOD], GOOD, None),
        (vec![GOOD, ALIKE], GOOD, None),
        // Whatever stands first.
        (vec![STINGY, ALIKE, GOOD], ALIKE, None),
        (vec![SLY, GOOD, ALIKE], GOOD, None),
        (vec![STINGY, GOOD], STINGY, Some(only(1, 2, differ))),
        (vec![BROKEN, GOOD], GOOD, Some(only(1, 2, "the others fail the examples"))),
        (vec![STINGY, STINGY, GOOD, ALIKE], STINGY, Some(only(2, 4, differ))),
    ] {
        let place = place().await;
        match (place.make(Scripted::new(&[&drafts])).await.unwrap(), risk) {
            (Outcome::Made(made), None) => {
                let mind = Mind::new(place.universe.clone(), Scripted::new(&[]), Policy::default());
                let why = mind.why(place.account, "withdraw:").await.unwrap();
                assert_eq!(why.source, source, "{drafts:?}");
                let found = why.provenance.and_then(|provenance| provenance.agreement).unwrap();
                let alike = drafts.iter().filter(|draft| [GOOD, ALIKE].contains(draft)).count();
                assert_eq!((found.drafts, found.alike), (drafts.len() as u64, alike as u64), "{drafts:?}");
                assert!(found.messages > 30 && made.model_calls == 1, "{found:?}");
            }
            (Outcome::Proposed(proposal), Some(risk)) => {
                assert_eq!(proposal.source, source);
                assert!(proposal.risks.concat().contains(&risk), "{drafts:?}: {:?}", proposal.risks);
            }
            other => panic!("{drafts:?}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_draft_that_fails_on_the_message_itself_waits_for_a_person() {
    let timid = "withdraw: n = ( n > 500 ifTrue: [ self error: 'too much' ]. balance: balance - n. ^balance )";
    for (arguments, asks) in [(None, false), (Some(vec![json!(30)]), false), (Some(vec![json!(900)]), true)] {
        let place = place().await;
        let missing = Unanswered { arguments, ..place.missing("withdraw:") };
        let mind = Scripted::new(&[&[timid]]);
        match Mind::new(place.universe.clone(), mind.clone(), Policy::default()).make(&missing).await.unwrap() {
            Outcome::Proposed(proposal) => assert!(asks && proposal.risks.concat().contains("fails on the message")),
            other => assert!(!asks && matches!(other, Outcome::Made(_)), "{other:?}"),
        }
        assert!(mind.asked.lock().unwrap().iter().all(|prompt| !prompt.user.contains("900")), "minds hear no values");
    }
}

/// Answers when it is let.
struct Slow {
    asked: tokio::sync::Semaphore,
    go: tokio::sync::Semaphore,
}

impl Slow {
    fn new() -> Arc<Self> {
        Arc::new(Self { asked: tokio::sync::Semaphore::new(0), go: tokio::sync::Semaphore::new(0) })
    }
}

#[async_trait::async_trait]
impl Drafter for Slow {
    async fn draft(&self, _: &Prompt) -> Result<Answer, MindError> {
        self.asked.add_permits(1);
        self.go.acquire().await.unwrap().forget();
        Ok(Answer { texts: vec![GOOD.to_owned()], mind: "slow".to_owned(), usage: Usage::default() })
    }
}

#[tokio::test]
async fn of_several_workers_one_asks_and_another_goes_on_when_it_dies() {
    let place = place().await;
    let policy = Policy { lease: std::time::Duration::from_millis(1500), ..Policy::default() };
    let (first, second) = (Slow::new(), Slow::new());
    let mind = |slow: &Arc<Slow>| Mind::new(place.universe.clone(), slow.clone(), policy.clone());
    let make = |slow: &Arc<Slow>| {
        let (mind, missing) = (mind(slow), place.missing("withdraw:"));
        tokio::spawn(async move { mind.make(&missing).await })
    };
    let (one, two) = (make(&first), make(&second));
    let first_asks = tokio::select! {
        _ = first.asked.acquire() => true,
        _ = second.asked.acquire() => false,
    };
    let (dies, lives, slow) = if first_asks { (one, two, &second) } else { (two, one, &first) };
    // The claim is renewed for as long as the mind thinks.
    let patience = tokio::time::timeout(policy.lease * 2, slow.asked.acquire()).await;
    assert!(patience.is_err(), "two ask at once");
    dies.abort();
    slow.asked.acquire().await.unwrap().forget();
    slow.go.add_permits(1);
    assert!(matches!(lives.await.unwrap().unwrap(), Outcome::Made(_)));
    assert_eq!(place.send("withdraw:", 30).await, Ok(json!(70)));
}

#[tokio::test]
async fn who_asks_for_what_is_cancelled_stops() {
    let place = place().await;
    let policy = Policy { lease: std::time::Duration::from_millis(30), ..Policy::default() };
    let slow = Slow::new();
    let mind = Mind::new(place.universe.clone(), slow.clone(), policy);
    let (maker, missing) = (mind.clone(), place.missing("withdraw:"));
    let making = tokio::spawn(async move { maker.make(&missing).await });
    slow.asked.acquire().await.unwrap().forget();
    let becoming = mind.becoming_for(&place.missing("withdraw:")).await.unwrap().unwrap();
    // While somebody renews its claim, a row changes under whoever reads it.
    assert_eq!(mind.cancel(becoming, "enough").await.unwrap().step, "refused");
    let outcome = making.await.unwrap().unwrap();
    assert!(matches!(&outcome, Outcome::Refused(why) if why.contains("enough")), "{outcome:?}");
    assert_eq!(mind.becomings(None).await.unwrap().becomings.len(), 1);
}

#[tokio::test]
async fn a_hidden_example_judges_and_is_not_told() {
    let place = place().await;
    let mut examples = common::examples();
    examples[1].hidden = true;
    let definition = json!({ "slots": [{ "name": "balance", "value": 100 }], "examples": examples });
    common::apply(&place.universe, "account", serde_json::from_value(definition).unwrap()).await;
    let mind = Scripted::new(&[&[SLY], &[GOOD]]);
    assert!(matches!(place.make(mind.clone()).await.unwrap(), Outcome::Made(_)));
    let asked = mind.asked.lock().unwrap().clone();
    assert!(asked[1].user.contains(SLY) && asked[1].user.contains("an example that is not shown to you"));
    for prompt in asked {
        assert!(prompt.user.contains(r#""balance":100"#) && !prompt.user.contains(r#""balance":5"#), "{}", prompt.user);
    }
    // People see it all.
    let judge = Mind::new(place.universe.clone(), Scripted::new(&[]), Policy::default());
    let becoming = judge.becoming_of(place.account, "withdraw:").await.unwrap();
    let replay = judge.replay(becoming).await.unwrap();
    assert!(replay.trials[0].verdict.contains(r#"{"given":{"balance":5}"#), "{replay:?}");
    assert!(replay.trials.iter().all(|trial| !trial.differs()));
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
    let intent = Some(IntentDefinition { text, arguments, examples: vec![example], contract: None, outcome: None });
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

/// Makes `selector` for an object whose one example sends it, and does not say what is right.
async fn made_of(selector: &str, arguments: Value, draft: &str) -> Outcome {
    let place = place().await;
    let example = json!({ "send": { "selector": selector, "arguments": arguments } });
    let definition = json!({ "slots": [{ "name": "worth", "value": 3 }], "examples": [example] });
    let thing = common::apply(&place.universe, "thing", serde_json::from_value(definition).unwrap()).await;
    let missing = Unanswered { receiver: thing, ..place.missing(selector) };
    let mind = Scripted::new(&[&[draft], &[draft], &[draft]]);
    Mind::new(place.universe.clone(), mind, Policy::default()).make(&missing).await.unwrap()
}

#[tokio::test]
async fn laws_of_a_name_hold_whatever_the_examples_say() {
    for (selector, arguments, wrong, law, right) in [
        ("isRich", json!([]), "isRich = ( worth )", "answered with true or false", "isRich = ( worth > 9 )"),
        ("hasAtLeast:", json!([2]), "hasAtLeast: n = ( n )", "true or false", "hasAtLeast: n = ( worth >= n )"),
        ("size", json!([]), "size = ( 0 - worth )", "not below 0", "size = ( worth )"),
        ("isRich", json!([]), "isRich = ( 3 )", "true or false", "isRich = ( true )"),
        ("cost", json!([]), "cost = ( worth foo )", "does not understand", "cost = ( 0 - worth )"),
    ] {
        let refused = made_of(selector, arguments.clone(), wrong).await;
        let why = match &refused {
            Outcome::Refused(why) => why,
            other => panic!("{wrong}: {other:?}"),
        };
        assert!(why.contains(law) || selector == "cost", "{wrong}: {why}");
        assert!(matches!(made_of(selector, arguments, right).await, Outcome::Made(_)), "{right}");
    }
}

#[tokio::test]
async fn a_method_that_is_there_under_another_name_is_told() {
    let place = place().await;
    let example = json!({ "given": { "balance": 1 }, "send": { "selector": "put:", "arguments": [2] }, "answers": 3 });
    let method = json!({ "name": "add:", "method": "add: n = ( balance: balance + n. ^balance )" });
    let slots = json!([{ "name": "balance", "value": 0 }, method]);
    let definition = json!({ "slots": slots, "examples": [example] });
    let purse = common::apply(&place.universe, "purse", serde_json::from_value(definition).unwrap()).await;
    let missing = Unanswered { receiver: purse, ..place.missing("put:") };
    let mind = Scripted::new(&[&["put: n = ( balance: balance + n. ^balance )"]]);
    let outcome = Mind::new(place.universe.clone(), mind, Policy::default()).make(&missing).await.unwrap();
    let Outcome::Proposed(proposal) = outcome else { panic!("{outcome:?}") };
    assert_eq!(proposal.risks, ["it is what add: n is already, under another name"]);
}

#[tokio::test]
async fn the_organs_slots_are_policy() {
    let place = place().await;
    let sets = "crucible probes: 4. weaver makes: 'facet-a'. scribe promptBytes: 0. crucible probes";
    assert!(place.eval(Authority::Sender, sets).await.is_err());
    assert_eq!(place.eval(Authority::Architect, sets).await, Ok(json!(4)));
    let mind = Scripted::new(&[&[GOOD]]);
    assert!(matches!(place.make(mind.clone()).await.unwrap(), Outcome::Made(_)));
    assert_eq!(mind.asked.lock().unwrap()[0].model.as_deref(), Some("facet-a"));
    let minds = Mind::new(place.universe.clone(), mind, Policy::default());
    let made = minds.why(place.account, "withdraw:").await.unwrap().provenance.unwrap();
    assert_eq!((made.agreement.unwrap().messages, made.prompt.as_str()), (4, ""));
    for (source, wrong) in [
        ("crucible probes: 1000. 1", "crucible: its slot \"probes\""),
        ("weaver makes: 3. 1", "weaver: its slot \"makes\""),
        ("atomicSwap attempts: 0. 1", "atomicSwap: its slot \"attempts\""),
        ("codex personaSystem: nil. 1", "codex: its slot \"personaSystem\""),
    ] {
        assert_eq!(place.eval(Authority::Architect, source).await, Ok(json!(1)), "{source}");
        let missing = common::till(&place.universe).await;
        let error = minds.make(&missing).await;
        let why = match error {
            Err(BecomingError::Mind(MindError::BadOrgan(why))) => why,
            other => panic!("{source}: {other:?}"),
        };
        assert!(why.starts_with(wrong), "{source}: {why}");
        let slot = wrong.split('"').nth(1).unwrap();
        let organ = wrong.split(':').next().unwrap();
        let undone = Work::Undo { slot: slot.to_owned() };
        let id = place.universe.lookup_name(organ).await.unwrap().unwrap();
        deliver(&place.universe, id, Authority::Architect, undone).await.unwrap();
    }
}
