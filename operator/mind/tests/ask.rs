//! What an Architect asks for in words: several slots in one swap.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use batos_covenant::{Example, ProposalState};
use batos_mind::{Autonomy, Directive, Mind, Outcome, Policy};
use batos_uvm::universe::Authority;
use common::{GOOD, Person, Place, Scripted, place};
use serde_json::json;

const TEXT: &str = "keep the last two deposits";
/// Data, a new method, and one that replaces what is there.
const RECENT: &str = "(| recent <- nil.
    last = ( recent isNil ifTrue: [ 0 ] ifFalse: [ recent last ] ).
    deposit: n = ( recent isNil ifTrue: [ recent: OrderedCollection new ]. recent add: n.
        recent size > 2 ifTrue: [ recent removeFirst ]. balance: balance + n. ^balance ) |)";

fn last() -> Example {
    let example = json!({ "given": { "balance": 1 }, "send": { "selector": "last" }, "answers": 0 });
    serde_json::from_value(example).unwrap()
}

fn directive(examples: Vec<Example>) -> Directive {
    Directive { text: TEXT.to_owned(), examples }
}

async fn ask(place: &Place, drafts: &[&[&str]], policy: Policy, examples: Vec<Example>) -> (Mind, Outcome) {
    let mind = Mind::new(place.universe.clone(), Scripted::new(drafts), policy);
    let outcome = mind.ask(place.account, directive(examples), "test").await.unwrap();
    (mind, outcome)
}

#[tokio::test]
async fn several_slots_come_in_one_swap_that_a_person_approves() {
    let (place, person) = (place().await, Person::new());
    let (mind, outcome) = ask(&place, &[&[RECENT]], person.policy(), Vec::new()).await;
    let Outcome::Proposed(proposal) = outcome else { panic!("{outcome:?}") };
    assert_eq!((proposal.asked.as_deref(), proposal.selector.as_str()), (Some(TEXT), "ask"));
    let risks = proposal.risks.concat();
    assert!(risks.contains("it replaces a method") && risks.contains("no example says"), "{risks}");
    assert!(proposal.replaces.as_deref().unwrap().starts_with("deposit:"), "{proposal:?}");
    assert!(place.eval(Authority::Architect, "recent").await.is_err(), "nothing is there before");

    let settled = mind.decide(person.decide(&proposal, true, |_| {})).await.unwrap();
    assert_eq!(settled.state, ProposalState::Applied);
    for n in [1, 2, 3] {
        place.send("deposit:", n).await.unwrap();
    }
    assert_eq!(place.eval(Authority::Architect, "recent asArray").await, Ok(json!([2, 3])));
    for selector in ["deposit:", "last"] {
        let made = mind.why(place.account, selector).await.unwrap().provenance.unwrap();
        assert_eq!(made.asked.as_deref(), Some(TEXT), "{selector}");
        assert!(made.decision.is_some() && made.brings.len() == 2, "{selector}");
    }
    // The same again is there already.
    let again = mind.ask(place.account, directive(Vec::new()), "test").await.unwrap();
    assert!(matches!(&again, Outcome::Made(made) if made.brings == ["recent", "last", "deposit:"]), "{again:?}");
}

#[tokio::test]
async fn what_held_before_must_hold_and_state_stays() {
    let without = |reason: &str, draft: &str| (draft.to_owned(), reason.to_owned());
    for (draft, reason) in [
        without("is there already", "(| balance <- 0. last = ( 0 ) |)"),
        without("is a parent", "(| more* = nil. last = ( 0 ) |)"),
        without("begins with a literal", "(| list <- OrderedCollection new. last = ( 0 ) |)"),
        without("no object literal", "last = ( 0 )"),
        without("does not compile", "(| last = ( _Clone ) |)"),
        without("sends \"lots\" to itself", "(| last = ( lots last ) |)"),
        without("hides the slot", "(| last = ( | balance | balance := nil. ^balance ) |)"),
        without("it answers 3, not 0", "(| last = ( 3 ) |)"),
        without("an example of something else", "(| last = ( 0 ). withdraw: n = ( balance: 0. ^0 ) |)"),
    ] {
        let place = place().await;
        // A method that the account's examples are about.
        let mind = Mind::new(place.universe.clone(), Scripted::new(&[&[GOOD]]), Policy::default());
        assert!(matches!(mind.make(&place.missing("withdraw:")).await.unwrap(), Outcome::Made(_)));
        let rounds: Vec<&[&str]> = vec![&[]; 3];
        let drafts = [draft.as_str()];
        let rounds: Vec<&[&str]> = rounds.iter().map(|_| &drafts[..]).collect();
        let (_, outcome) = ask(&place, &rounds, Policy::default(), vec![last()]).await;
        assert!(matches!(&outcome, Outcome::Refused(why) if why.contains(&reason)), "{draft}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_free_universe_makes_it_and_a_strict_one_never() {
    let place = place().await;
    let free = Policy { autonomy: Autonomy::Free, ..Policy::default() };
    let (mind, outcome) = ask(&place, &[&[RECENT]], free, vec![last()]).await;
    assert!(matches!(outcome, Outcome::Made(_)), "{outcome:?}");
    let made = mind.why(place.account, "last").await.unwrap().provenance.unwrap();
    assert_eq!((made.examples, made.risks.len()), (1, 0));
    let listed = mind.becomings(None).await.unwrap().becomings;
    assert_eq!((listed[0].asked.as_deref(), listed[0].step.as_str()), (Some(TEXT), "swapped"));

    let strict = Policy { autonomy: Autonomy::Strict, ..Policy::default() };
    let mind = Mind::new(place.universe.clone(), Scripted::new(&[&[RECENT]]), strict);
    assert!(mind.ask(place.account, directive(Vec::new()), "test").await.is_err());
}

#[tokio::test]
async fn an_undone_part_is_made_again_and_nonsense_is_refused() {
    let place = place().await;
    let free = || Policy { autonomy: Autonomy::Free, ..Policy::default() };
    let (mind, outcome) = ask(&place, &[&["(| fee = ( 3 ) |)"], &["(| fee = ( 4 ) |)"]], free(), Vec::new()).await;
    assert!(matches!(outcome, Outcome::Made(_)), "{outcome:?}");
    let remove = "(Mirror on: (Mirror on: self) parents first) removeSlot: #fee";
    let removed = place.eval(Authority::Architect, remove).await;
    let again = mind.ask(place.account, directive(Vec::new()), "test").await.unwrap();
    assert!(matches!(again, Outcome::Made(_)), "{again:?}");
    let wanted = if removed.is_ok() { json!(4) } else { json!(3) };
    assert_eq!(place.eval(Authority::Architect, "fee").await, Ok(wanted), "{removed:?}");
    for text in [String::new(), " \n".to_owned(), "x".repeat(5000)] {
        let outcome = mind.ask(place.account, Directive { text, examples: Vec::new() }, "test").await.unwrap();
        assert!(matches!(&outcome, Outcome::Refused(why) if why.contains("a directive has")), "{outcome:?}");
    }
}
