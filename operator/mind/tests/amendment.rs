//! Amendments of the Codex: what is added is law at once, what goes or changes waits for an Architect.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::sync::Arc;

use async_trait::async_trait;
use batos_covenant::{Laws, Proposal, ProposalKind, ProposalState};
use batos_mind::{
    Answer, ApprovalError, Autonomy, Codex, Drafter, Mind, MindError, Outcome, Persona, Policy, Prompt, Rule, Usage,
};
use common::{GOOD, Person, Place, Scripted, place};
use tokio::sync::Notify;

fn closed() -> Codex {
    let closed =
        Rule { name: "closed".to_owned(), objects: vec!["account".to_owned()], forbid_making: true, ..Rule::default() };
    Codex { principles: vec!["Be careful.".to_owned()], rules: vec![closed] }
}

/// A worker that has just started with this manifest.
async fn worker(place: &Place, person: &Person, codex: Codex, autonomy: Autonomy) -> Mind {
    let policy = Policy { codex, autonomy, ..person.policy() };
    let mind = Mind::new(place.universe.clone(), Scripted::new(&[&[GOOD]]), policy);
    mind.amend().await.unwrap();
    mind
}

async fn version(mind: &Mind) -> (u64, String) {
    let Laws { version, digest, .. } = mind.laws_in_force().await.unwrap();
    (version, digest)
}

async fn amendments(mind: &Mind) -> Vec<Proposal> {
    let mut proposals = mind.proposals(None).await.unwrap().proposals;
    proposals.retain(|proposal| proposal.kind == ProposalKind::Amendment);
    proposals
}

async fn makes(mind: &Mind, place: &Place) -> bool {
    match mind.make(&place.missing("withdraw:")).await.unwrap() {
        Outcome::Made(_) => true,
        Outcome::Refused(why) if why.contains("closed") => false,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn laws_that_are_added_are_in_force_at_once_and_for_all_workers() {
    let (place, person) = (place().await, Person::new());
    let lawless = worker(&place, &person, Codex::default(), Autonomy::Careful).await;
    assert_eq!(version(&lawless).await, (0, String::new()));
    let first = Codex { principles: vec!["Be careful.".to_owned()], rules: Vec::new() };
    let careful = worker(&place, &person, first.clone(), Autonomy::Careful).await;
    assert_eq!(version(&careful).await, (1, first.digest()));
    let strict = worker(&place, &person, closed(), Autonomy::Careful).await;
    assert_eq!(version(&strict).await, (2, closed().digest()));
    assert!(place.told("amended").await);
    // Whoever started before, with whatever manifest.
    for mind in [&lawless, &careful, &strict] {
        assert!(!makes(mind, &place).await);
    }
    assert!(amendments(&strict).await.is_empty());
    // Starting again changes nothing.
    assert_eq!(version(&worker(&place, &person, closed(), Autonomy::Careful).await).await.0, 2);
}

#[tokio::test]
async fn a_law_goes_only_when_an_architect_says_so() {
    let (place, person) = (place().await, Person::new());
    worker(&place, &person, closed(), Autonomy::Careful).await;
    let loose = worker(&place, &person, Codex::default(), Autonomy::Careful).await;
    let [found] = amendments(&loose).await.try_into().unwrap();
    assert_eq!((found.state, found.name.as_deref()), (ProposalState::Pending, Some("codex")));
    assert_eq!(found.risks, ["the principle \"Be careful.\" goes", "the rule \"closed\" goes"]);
    assert!(place.told("proposal").await);
    // Another start asks nobody anew.
    worker(&place, &person, Codex::default(), Autonomy::Careful).await;
    assert_eq!(amendments(&loose).await, std::slice::from_ref(&found));
    assert!(!makes(&loose, &place).await);
    assert_eq!(version(&loose).await, (1, closed().digest()));

    let stranger = loose.decide(Person::new().decide(&found, true, |_| {})).await;
    assert!(matches!(stranger, Err(ApprovalError::UnknownKey(_))), "{stranger:?}");
    let approval = person.decide(&found, true, |_| {});
    let settled = loose.decide(approval.clone()).await.unwrap();
    assert_eq!(settled.state, ProposalState::Applied);
    // The same again, as after a lost reply.
    assert_eq!(loose.decide(approval).await.unwrap(), settled);
    assert_eq!(version(&loose).await, (2, String::new()));
    assert!(makes(&loose, &place).await);
}

#[tokio::test]
async fn what_was_denied_stays_so_until_the_manifest_says_something_else() {
    let (place, person) = (place().await, Person::new());
    worker(&place, &person, closed(), Autonomy::Careful).await;
    let loose = worker(&place, &person, Codex::default(), Autonomy::Careful).await;
    let found = amendments(&loose).await.remove(0);
    assert_eq!(loose.decide(person.decide(&found, false, |_| {})).await.unwrap().state, ProposalState::Denied);
    worker(&place, &person, Codex::default(), Autonomy::Careful).await;
    assert_eq!(amendments(&loose).await[0].state, ProposalState::Denied);

    let other = Codex { principles: closed().principles, rules: Vec::new() };
    worker(&place, &person, other.clone(), Autonomy::Careful).await;
    let next = amendments(&loose).await.remove(0);
    assert_eq!((next.state, &next.risks[..]), (ProposalState::Pending, &["the rule \"closed\" goes".to_owned()][..]));
    // The manifest takes it back.
    worker(&place, &person, closed(), Autonomy::Careful).await;
    assert_eq!(amendments(&loose).await[0].state, ProposalState::Superseded);
    let late = loose.decide(person.decide(&next, true, |_| {})).await;
    assert!(matches!(late, Err(ApprovalError::Settled("superseded"))), "{late:?}");
    assert_eq!(version(&loose).await, (1, closed().digest()));
    // A free universe asks nobody.
    let free = worker(&place, &person, other.clone(), Autonomy::Free).await;
    assert_eq!(version(&free).await, (2, other.digest()));
}

/// Drafts at once; as a persona it answers when it is let.
struct Thoughtful {
    asked: Notify,
    answer: Notify,
}

#[async_trait]
impl Drafter for Thoughtful {
    async fn draft(&self, prompt: &Prompt) -> Result<Answer, MindError> {
        let text = match prompt.model.as_deref() {
            Some("persona") => {
                self.asked.notify_one();
                self.answer.notified().await;
                r#"{"objects": false, "why": ""}"#
            }
            _ => GOOD,
        };
        Ok(Answer { texts: vec![text.to_owned()], mind: "script".to_owned(), usage: Usage::default() })
    }
}

#[tokio::test]
async fn what_was_judged_by_older_laws_does_not_go_in() {
    let (place, person) = (place().await, Person::new());
    let thoughtful = Arc::new(Thoughtful { asked: Notify::new(), answer: Notify::new() });
    let persona =
        Persona { name: "careful".to_owned(), prompt: "Object.".to_owned(), model: Some("persona".to_owned()) };
    let policy = Policy { personae: vec![persona], ..person.policy() };
    let mind = Mind::new(place.universe.clone(), thoughtful.clone(), policy);
    let under_way = tokio::spawn({
        let (mind, missing) = (mind.clone(), place.missing("withdraw:"));
        async move { mind.make(&missing).await }
    });
    thoughtful.asked.notified().await;
    worker(&place, &person, closed(), Autonomy::Careful).await;
    thoughtful.answer.notify_one();
    let outcome = under_way.await.unwrap().unwrap();
    assert!(matches!(&outcome, Outcome::Refused(why) if why.contains("amended while it was made")), "{outcome:?}");
    assert!(!makes(&mind, &place).await, "and the next one is held against the new law");
}
