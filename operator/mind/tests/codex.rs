//! The Codex: what breaks a rule is refused, and the universe makes nothing by itself until an Architect has answered.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::sync::Arc;

use async_trait::async_trait;
use batos_covenant::{Proposal, ProposalState};
use batos_mind::{Answer, BecomingError, Codex, Drafter, Mind, MindError, Outcome, Policy, Prompt, Rule, Usage};
use common::{GOOD, Person, Place, Scripted, place, till};
use serde_json::json;
use tokio::sync::Notify;

/// Does what the examples say, and more.
const RISKY: &str = "withdraw: n = ( self setSlot: #last value: n. balance: balance - n. ^balance )";

fn policy(person: &Person) -> Policy {
    let rule = Rule {
        name: "as it is".to_owned(),
        why: "objects keep their shape".to_owned(),
        forbid_sends: vec!["setSlot:value:".to_owned()],
        ..Rule::default()
    };
    let principles = vec!["Money is never made of nothing.".to_owned()];
    Policy { codex: Codex { principles, rules: vec![rule] }, ..person.policy() }
}

fn mind(place: &Place, drafter: Arc<dyn Drafter>, policy: Policy) -> Mind {
    Mind::new(place.universe.clone(), drafter, policy)
}

async fn conflict(mind: &Mind, place: &Place) -> Proposal {
    let outcome = mind.make(&place.missing("withdraw:")).await.unwrap();
    let Outcome::Refused(why) = &outcome else { panic!("{outcome:?}") };
    assert!(why.contains("rule \"as it is\"") && why.contains("objects keep their shape"), "{why}");
    mind.proposals(None).await.unwrap().proposals.remove(0)
}

fn is_halted<T>(outcome: Result<T, BecomingError>) -> bool {
    matches!(outcome, Err(BecomingError::Mind(MindError::Halted(_))))
}

#[tokio::test]
async fn a_conflict_halts_what_is_made_until_it_is_denied() {
    let (place, person) = (place().await, Person::new());
    let script = Scripted::new(&[&[RISKY], &[GOOD]]);
    let minds = mind(&place, script.clone(), policy(&person));
    let till = till(&place.universe).await;
    let found = conflict(&minds, &place).await;
    assert_eq!((found.state, found.conflict.as_ref().unwrap().rule.as_str()), (ProposalState::Pending, "as it is"));
    assert!(place.told("conflict").await);

    // Also another worker makes nothing now; what is there goes on, and the refusal is remembered.
    let other = mind(&place, Scripted::new(&[&[GOOD]]), policy(&person));
    for minds in [&minds, &other] {
        assert!(is_halted(minds.make(&till).await));
    }
    assert_eq!(place.send("deposit:", 5).await, Ok(json!(105)));
    assert!(matches!(other.make(&place.missing("withdraw:")).await.unwrap(), Outcome::Refused(_)));

    // Only the Architect ends it.
    let stranger = minds.decide(Person::new().decide(&found, false, |_| {})).await;
    assert!(stranger.is_err());
    assert!(is_halted(minds.make(&till).await));
    let settled = minds.decide(person.decide(&found, false, |_| {})).await.unwrap();
    assert_eq!(settled.state, ProposalState::Denied);
    assert!(matches!(minds.make(&till).await.unwrap(), Outcome::Made(_)));
    let outcome = minds.make(&place.missing("withdraw:")).await.unwrap();
    assert!(matches!(&outcome, Outcome::Refused(why) if why.contains("looked at it")), "{outcome:?}");
    assert_eq!(script.asked.lock().unwrap().len(), 2);

    // Under another Codex it is another question.
    let free = mind(&place, Scripted::new(&[&[GOOD]]), person.policy());
    assert!(matches!(free.make(&place.missing("withdraw:")).await.unwrap(), Outcome::Made(_)));
}

#[tokio::test]
async fn the_architect_may_let_a_change_in_against_a_rule() {
    let (place, person) = (place().await, Person::new());
    let minds = mind(&place, Scripted::new(&[&[RISKY]]), policy(&person));
    let found = conflict(&minds, &place).await;
    let settled = minds.decide(person.decide(&found, true, |_| {})).await.unwrap();
    assert_eq!(settled.state, ProposalState::Applied);
    assert_eq!(place.send("withdraw:", 30).await, Ok(json!(70)));
    let made = minds.why(place.account, "withdraw:").await.unwrap().provenance.unwrap();
    assert_eq!((made.codex, made.conflict), (policy(&person).codex.digest(), found.conflict));
    assert!(made.decision.unwrap().approve);
    let next = mind(&place, Scripted::new(&[&[GOOD]]), policy(&person));
    assert!(matches!(next.make(&till(&place.universe).await).await.unwrap(), Outcome::Made(_)));
}

/// Answers when it is let.
struct Slow {
    asked: Notify,
    answer: Notify,
}

#[async_trait]
impl Drafter for Slow {
    async fn draft(&self, _: &Prompt) -> Result<Answer, MindError> {
        self.asked.notify_one();
        self.answer.notified().await;
        Ok(Answer { texts: vec![GOOD.to_owned()], mind: "slow".to_owned(), usage: Usage::default() })
    }
}

#[tokio::test]
async fn what_is_under_way_when_a_conflict_comes_waits_and_goes_on() {
    let (place, person) = (place().await, Person::new());
    let slow = Arc::new(Slow { asked: Notify::new(), answer: Notify::new() });
    let slowly = mind(&place, slow.clone(), policy(&person));
    let missing = till(&place.universe).await;
    let under_way = tokio::spawn({
        let (slowly, missing) = (slowly.clone(), missing.clone());
        async move { slowly.make(&missing).await }
    });
    slow.asked.notified().await;
    let minds = mind(&place, Scripted::new(&[&[RISKY]]), policy(&person));
    let found = conflict(&minds, &place).await;
    slow.answer.notify_one();
    assert!(is_halted(under_way.await.unwrap()));
    slowly.decide(person.decide(&found, false, |_| {})).await.unwrap();
    // It goes on by itself; whoever asks joins it.
    assert!(matches!(slowly.make(&missing).await.unwrap(), Outcome::Made(_)));
}

#[tokio::test]
async fn principles_are_told_and_closed_objects_are_left_alone() {
    let (place, person) = (place().await, Person::new());
    let script = Scripted::new(&[&[GOOD]]);
    let minds = mind(&place, script.clone(), policy(&person));
    assert!(matches!(minds.make(&place.missing("withdraw:")).await.unwrap(), Outcome::Made(_)));
    let asked = script.asked.lock().unwrap()[0].user.clone();
    assert!(asked.contains("principles that every method here keeps>\nMoney is never made of nothing."), "{asked}");
    let made = minds.why(place.account, "withdraw:").await.unwrap().provenance.unwrap();
    assert_eq!((made.codex, made.conflict), (policy(&person).codex.digest(), None));

    let closed =
        Rule { name: "by hand".to_owned(), objects: vec!["till".to_owned()], forbid_making: true, ..Rule::default() };
    let codex = Codex { principles: Vec::new(), rules: vec![closed] };
    let minds = mind(&place, script.clone(), Policy { codex, ..person.policy() });
    let outcome = minds.make(&till(&place.universe).await).await.unwrap();
    assert!(matches!(&outcome, Outcome::Refused(why) if why.contains("by hand")), "{outcome:?}");
    // Nobody was asked, and nothing halts.
    assert_eq!(script.asked.lock().unwrap().len(), 1);
    assert!(minds.proposals(None).await.unwrap().proposals.is_empty());
}
