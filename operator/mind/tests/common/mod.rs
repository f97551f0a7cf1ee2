//! An account in a universe on a file, whose `withdraw:` nobody wrote, and a mind that answers by a script.
// Each test uses a part of this.
#![allow(dead_code, clippy::unwrap_used, clippy::indexing_slicing)]

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use batos_covenant::{
    ApplyCommand, Decision, Encoding, ErrorKind, ErrorReply, Example, Proposal, PrototypeDefinition, Reply,
    SendCommand, SlotDefinition, decode,
};
use batos_graph::{ObjectId, RedbStore};
use batos_mind::{
    Answer, BecomingError, BecomingEvent, Drafter, Mind, MindError, Outcome, Policy, Prompt, Step, Usage, public_key,
    sign, signing_key,
};
use batos_uvm::universe::{Authority, Delivery, Message, Unanswered, Universe, Work, now};
use serde_json::{Value, json};

pub const GOOD: &str = "withdraw: n = ( balance: balance - n. ^balance )";
/// Does the same in other words.
pub const ALIKE: &str = "withdraw: n = ( balance: n negated + balance. ^balance )";
/// Fits the examples, and nothing else that would go below zero.
pub const STINGY: &str = "withdraw: n = ( n > balance ifFalse: [ balance: balance - n ]. ^balance )";
/// Fits the first example by chance.
pub const SLY: &str = "withdraw: n = ( balance: 70. ^balance )";
pub const BROKEN: &str = "withdraw: n = ( balance: balance - )";

/// Answers by a script and remembers what it was asked.
#[derive(Default)]
pub struct Scripted {
    answers: Mutex<VecDeque<Result<Vec<String>, MindError>>>,
    pub asked: Mutex<Vec<Prompt>>,
}

impl Scripted {
    pub fn new(rounds: &[&[&str]]) -> Arc<Self> {
        let texts = |round: &&[&str]| Ok(round.iter().map(|text| (*text).to_owned()).collect());
        Arc::new(Self { answers: Mutex::new(rounds.iter().map(texts).collect()), asked: Mutex::default() })
    }
}

#[async_trait]
impl Drafter for Scripted {
    async fn draft(&self, prompt: &Prompt) -> Result<Answer, MindError> {
        self.asked.lock().unwrap().push(prompt.clone());
        let next = self.answers.lock().unwrap().pop_front().unwrap_or(Err(MindError::NoMind));
        let usage = Usage { prompt_tokens: 10, completion_tokens: 5 };
        next.map(|texts| Answer { texts, mind: "script".to_owned(), usage })
    }
}

/// An Architect.
pub struct Person {
    pub key: Vec<u8>,
}

impl Person {
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self { key: signing_key().unwrap().0 }
    }

    pub fn policy(&self) -> Policy {
        Policy { approvers: vec![public_key(&self.key).unwrap()], ..Policy::default() }
    }

    pub fn decide(&self, proposal: &Proposal, approve: bool, change: impl FnOnce(&mut Decision)) -> Decision {
        let mut decision = Decision {
            proposal: proposal.id.clone(),
            digest: proposal.digest.clone(),
            approve,
            reason: "looked at it\napprove".to_owned(),
            expires_at: now() + 60_000,
            key: String::new(),
            signature: String::new(),
        };
        change(&mut decision);
        sign(&mut decision, "u", &self.key).unwrap();
        decision
    }
}

pub struct Place {
    pub universe: Universe,
    pub account: ObjectId,
    _folder: tempfile::TempDir,
}

pub async fn place() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(RedbStore::open(&folder.path().join("u.redb")).unwrap());
    let universe = Universe::open("u", store).await.unwrap();
    let balance = SlotDefinition {
        name: "balance".to_owned(),
        value: Some(json!(100)),
        method: None,
        intent: None,
        constant: false,
    };
    let method = "deposit: n = ( balance: balance + n. ^balance )".to_owned();
    let deposit = SlotDefinition {
        name: "deposit:".to_owned(),
        value: None,
        method: Some(method),
        intent: None,
        constant: false,
    };
    let definition =
        PrototypeDefinition { slots: vec![balance, deposit], examples: examples(), ..PrototypeDefinition::default() };
    let account = apply(&universe, "account", definition).await;
    Place { universe, account, _folder: folder }
}

/// What people wrote of `withdraw:`.
pub fn examples() -> Vec<Example> {
    let example = |balance: i64, n: i64| Example {
        given: [("balance".to_owned(), json!(balance))].into(),
        send: SendCommand { selector: "withdraw:".to_owned(), arguments: vec![json!(n)] },
        answers: Some(json!(balance - n)),
        leaves: [("balance".to_owned(), json!(balance - n))].into(),
        hidden: false,
    };
    vec![example(100, 30), example(5, 5)]
}

/// Another object like the account, whose `withdraw:` nobody wrote either.
pub async fn till(universe: &Universe) -> Unanswered {
    let balance = json!({ "name": "balance", "value": 100 });
    let definition = json!({ "slots": [balance], "examples": examples() });
    let receiver = apply(universe, "till", serde_json::from_value(definition).unwrap()).await;
    Unanswered {
        receiver,
        selector: "withdraw:".to_owned(),
        shapes: vec!["integer".to_owned()],
        arguments: None,
        sender: "test".to_owned(),
        intent: None,
        question: None,
    }
}

pub async fn apply(universe: &Universe, name: &str, definition: PrototypeDefinition) -> ObjectId {
    let apply = ApplyCommand { definition, uid: String::new(), generation: 0, term: 0, enforce: false };
    let object = ObjectId::of_name(name);
    let work = Work::Apply { name: name.to_owned(), apply };
    deliver(universe, object, Authority::Operator, work).await.unwrap();
    object
}

pub async fn deliver(universe: &Universe, object: ObjectId, authority: Authority, work: Work) -> Result<Value, String> {
    answer(universe, object, authority, work).await.map_err(|error| error.to_string())
}

pub async fn answer(
    universe: &Universe,
    object: ObjectId,
    authority: Authority,
    work: Work,
) -> Result<Value, ErrorReply> {
    let (sender, encoding) = ("test".to_owned(), Encoding::Json);
    let message = Message { object, authority, sender, id: None, digest: [0; 32], encoding, work };
    match universe.deliver(&message).await {
        Ok(Delivery::Replied(reply)) => match decode(&reply).unwrap().0 {
            Reply::Ok(ok) => Ok(ok.value),
            Reply::Error { error } => Err(ErrorReply { transcript: None, ..error }),
        },
        Ok(Delivery::NotUnderstood(missing)) => {
            Err(ErrorReply::new(ErrorKind::NotUnderstood, format!("not understood: {}", missing.selector)))
        }
        Err(error) => Err(error.to_reply()),
    }
}

impl Place {
    pub fn missing(&self, selector: &str) -> Unanswered {
        let selector = selector.to_owned();
        Unanswered {
            receiver: self.account,
            selector,
            shapes: vec!["integer".to_owned()],
            arguments: None,
            sender: "test".to_owned(),
            intent: None,
            question: None,
        }
    }

    pub async fn make(&self, drafter: Arc<dyn Drafter>) -> Result<Outcome, BecomingError> {
        Mind::new(self.universe.clone(), drafter, Policy::default()).make(&self.missing("withdraw:")).await
    }

    pub async fn send(&self, selector: &str, argument: i64) -> Result<Value, String> {
        let send = SendCommand { selector: selector.to_owned(), arguments: vec![json!(argument)] };
        deliver(&self.universe, self.account, Authority::Sender, Work::Send { send, made: None }).await
    }

    pub async fn eval(&self, authority: Authority, source: &str) -> Result<Value, String> {
        let work = Work::Eval { source: source.to_owned(), made: None };
        deliver(&self.universe, self.account, authority, work).await
    }

    pub async fn events(&self) -> Vec<BecomingEvent> {
        let mut events = Vec::new();
        for shard in 0..=u8::MAX {
            for (_, event) in self.universe.outbox(shard, None).await.unwrap() {
                events.extend(decode::<BecomingEvent>(&event.payload).map(|(event, _)| event));
            }
        }
        events
    }

    /// Whether a message waits to run on its own.
    pub async fn waiting(&self) -> bool {
        let shard = self.account.shard();
        let posts = self.universe.posts(shard, None).await.unwrap();
        let (due, next) = self.universe.timers(shard).await.unwrap();
        !(posts.is_empty() && due.is_empty() && next.is_none())
    }

    /// Whether an event of this kind waits to be published.
    pub async fn told(&self, kind: &str) -> bool {
        for shard in 0..=u8::MAX {
            let events = self.universe.outbox(shard, None).await.unwrap();
            if events.iter().any(|(_, event)| event.kind == kind) {
                return true;
            }
        }
        false
    }

    pub async fn steps(&self) -> Vec<Step> {
        self.events().await.iter().map(|event| event.step).collect()
    }
}
