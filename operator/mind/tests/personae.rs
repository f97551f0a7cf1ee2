//! Personae look at what the Crucible admitted: they can only object.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use batos_mind::{Autonomy, BecomingError, Budget, Codex, Mind, MindError, Outcome, Persona, Policy};
use common::{GOOD, SLY, Scripted, place};

const FINE: &str = r#"{"objects": false, "why": ""}"#;
const NO: &str = r#"{"objects": true, "why": "it may go below zero"}"#;

fn policy() -> Policy {
    let persona = |name: &str, model: Option<&str>| Persona {
        name: name.to_owned(),
        prompt: format!("You are the {name}."),
        model: model.map(str::to_owned),
    };
    Policy {
        personae: vec![persona("treasurer", Some("thrift")), persona("lawyer", None)],
        codex: Codex { principles: vec!["Nobody owes.".to_owned()], rules: Vec::new() },
        ..Policy::default()
    }
}

#[tokio::test]
async fn a_method_goes_in_when_nobody_objects() {
    let place = place().await;
    let mind = Scripted::new(&[&[SLY], &[GOOD], &[FINE], &[FINE]]);
    let minds = Mind::new(place.universe.clone(), mind.clone(), policy());
    let outcome = minds.make(&place.missing("withdraw:")).await.unwrap();
    let Outcome::Made(made) = outcome else { panic!("{outcome:?}") };
    assert_eq!(made.model_calls, 4);
    let asked = mind.asked.lock().unwrap().clone();
    // What does not hold is shown to no persona.
    let [_, _, treasurer, lawyer] = asked.as_slice() else { panic!("{asked:?}") };
    assert_eq!((treasurer.model.as_deref(), lawyer.model.as_deref()), (Some("thrift"), None));
    assert!(treasurer.system.ends_with("You are the treasurer.") && treasurer.grammar().is_none());
    for wanted in [GOOD, "Nobody owes.", r#""withdraw:""#] {
        assert!(treasurer.user.contains(wanted), "{wanted} in {}", treasurer.user);
    }
    let why = minds.why(place.account, "withdraw:").await.unwrap().provenance.unwrap();
    let said: Vec<_> = why.personae.iter().map(|said| (said.persona.as_str(), said.objection.as_deref())).collect();
    assert_eq!(said, [("treasurer", None), ("lawyer", None)]);
}

#[tokio::test]
async fn whoever_objects_or_gives_no_verdict_has_a_person_decide() {
    for (autonomy, said, wanted) in [
        (Autonomy::Careful, [NO, FINE], "persona treasurer objects: it may go below zero"),
        (Autonomy::Careful, [FINE, "Looks good to me!"], "persona lawyer objects: it gave no verdict"),
        // What goes in without a question elsewhere does not go in against an objection.
        (Autonomy::Free, [NO, FINE], "persona treasurer objects"),
    ] {
        let place = place().await;
        let mind = Scripted::new(&[&[GOOD], &[said[0]], &[said[1]]]);
        let minds = Mind::new(place.universe.clone(), mind, Policy { autonomy, ..policy() });
        let outcome = minds.make(&place.missing("withdraw:")).await.unwrap();
        let Outcome::Proposed(proposal) = outcome else { panic!("{outcome:?}") };
        assert!(proposal.risks.concat().contains(wanted), "{:?}", proposal.risks);
        assert!(place.send("withdraw:", 30).await.is_err());
    }
}

#[tokio::test]
async fn a_budget_that_ends_leaves_the_becoming_open() {
    let place = place().await;
    // One call takes 15 tokens.
    let budget = Budget { tokens_per_day: 15, ..Budget::default() };
    let mind = Scripted::new(&[&[GOOD], &[FINE], &[FINE]]);
    let minds = Mind::new(place.universe.clone(), mind.clone(), Policy { budget, ..policy() });
    let error = minds.make(&place.missing("withdraw:")).await;
    assert!(matches!(error, Err(BecomingError::Mind(MindError::Spent { .. }))), "{error:?}");
    assert_eq!(mind.asked.lock().unwrap().len(), 1);
    let minds = Mind::new(place.universe.clone(), mind, policy());
    assert!(matches!(minds.make(&place.missing("withdraw:")).await.unwrap(), Outcome::Made(_)));
}
