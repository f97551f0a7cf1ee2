//! Methods that fail again and again are made anew; what would replace a method is tried on recent messages.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::sync::Arc;

use batos_covenant::ProposalState;
use batos_mind::{Autonomy, Mind, Outcome, Policy};
use batos_uvm::universe::{Authority, Work};
use common::{Person, Place, Scripted, answer, deliver, place};
use serde_json::json;

/// Divides by zero where it should answer 0.
const SHARE: &str = "withdraw: n = ( balance: balance - (n * (100 // n)) + (n * (100 // n - 1)). ^balance )";
const FIXED: &str = "withdraw: n = ( balance: balance - n. ^balance )";
/// Sends what two parents of the account have.
const UNCLEAR: &str = "withdraw: n = ( n = 0 ifTrue: [ balance: balance - fee ]. balance: balance - n. ^balance )";
const LOOP: &str = "withdraw: n = ( n = 0 ifTrue: [ [ true ] whileTrue ]. balance: balance - n. ^balance )";

/// An account whose `withdraw:` is this, and a mind that looks on.
async fn failing(source: &str, script: &Arc<Scripted>, policy: Policy) -> (Place, Mind) {
    let place = place().await;
    let create = Work::CreateMethod { name: "withdraw:".to_owned(), source: source.to_owned() };
    deliver(&place.universe, place.account, Authority::Architect, create).await.unwrap();
    let policy = Policy { repair_after: Some(3), recent_messages: 8, ..policy };
    let mind = Mind::new(place.universe.clone(), script.clone(), policy);
    (place, mind)
}

#[tokio::test]
async fn the_third_failure_begins_a_repair_that_a_person_approves() {
    for source in [SHARE, LOOP, UNCLEAR] {
        let (script, person) = (Scripted::new(&[&[SHARE, LOOP, UNCLEAR], &[FIXED]]), Person::new());
        let (place, mind) = failing(source, &script, person.policy()).await;
        let parents = "mirror addParent: #left value: (| fee = 1 |). mirror addParent: #right value: (| fee = 2 |)";
        place.eval(Authority::Architect, parents).await.unwrap();
        for _ in 0..3 {
            assert!(place.send("withdraw:", 0).await.is_err());
        }
        let (seen, times) = mind.next_fault().await.unwrap();
        let fault = seen.fault.as_ref().unwrap();
        assert_eq!((times, fault.selector.as_str(), fault.line), (3, "withdraw:", 1));
        let outcome = mind.repair(&seen, times).await.unwrap();
        let Outcome::Proposed(proposal) = outcome else { panic!("{outcome:?}") };
        assert_eq!((proposal.replaces.is_some(), proposal.source.as_str()), (true, FIXED));
        assert!(proposal.risks.concat().contains("it replaces a method"), "{:?}", proposal.risks);
        let asked = script.asked.lock().unwrap().clone();
        assert!(asked[0].user.contains("failed 3 times"), "{}", asked[0].user);
        assert!(asked[1].user.contains("the message that failed still fails"), "{}", asked[1].user);

        let settled = mind.decide(person.decide(&proposal, true, |_| {})).await.unwrap();
        assert_eq!(settled.state, ProposalState::Applied);
        assert_eq!(place.send("withdraw:", 0).await, Ok(json!(100)));
        let listed = mind.becomings(None).await.unwrap().becomings;
        assert!(listed[0].route.as_deref().unwrap().starts_with("ToolForge: Failing("), "{listed:?}");
    }
}

#[tokio::test]
async fn an_error_of_its_own_words_is_no_fault_and_neither_is_one_that_is_handled() {
    let own = "withdraw: n = ( n > balance ifTrue: [ self error: 'too much' ]. balance: balance - n. ^balance )";
    let asserted = "withdraw: n = ( self assert: [ n <= balance ]. balance: balance - n. ^balance )";
    let handled = "withdraw: n = ( [ n / 0 ] on: ZeroDivide do: [ :e | self error: 'no' ] )";
    for source in [own, asserted, handled] {
        let script = Scripted::new(&[]);
        let (place, mind) = failing(source, &script, Policy::default()).await;
        for _ in 0..5 {
            assert!(place.send("withdraw:", 900).await.is_err());
        }
        // A real fault afterwards is the first that is told.
        let create = Work::CreateMethod { name: "withdraw:".to_owned(), source: "withdraw: n = ( n / 0 )".to_owned() };
        deliver(&place.universe, place.account, Authority::Architect, create).await.unwrap();
        for _ in 0..3 {
            assert!(place.send("withdraw:", 7).await.is_err());
        }
        let (seen, times) = mind.next_fault().await.unwrap();
        assert_eq!((seen.send.unwrap().arguments, times), (vec![json!(7)], 3), "{source}");
    }
}

#[tokio::test]
async fn what_replaces_a_method_is_tried_on_recent_messages() {
    // Right by the examples, another one below zero.
    let stingy = "withdraw: n = ( n > balance ifTrue: [ ^balance ]. balance: balance - n. ^balance )";
    for (draft, differs) in [(stingy, true), (FIXED, false)] {
        let (script, person) = (Scripted::new(&[&[draft]]), Person::new());
        let (place, mind) = failing(SHARE, &script, person.policy()).await;
        for n in [1, 150, 5] {
            assert!(place.send("withdraw:", n).await.is_ok());
        }
        for _ in 0..3 {
            assert!(place.send("withdraw:", 0).await.is_err());
        }
        let (seen, times) = mind.next_fault().await.unwrap();
        let outcome = mind.repair(&seen, times).await.unwrap();
        let Outcome::Proposed(proposal) = outcome else { panic!("{outcome:?}") };
        let risks = proposal.risks.join("\n");
        assert_eq!(risks.contains("recent messages it does something else on"), differs, "{risks}");
        // No mind hears what senders sent.
        let asked = script.asked.lock().unwrap().clone();
        assert!(asked.iter().all(|prompt| !prompt.user.contains("150")));
    }
}

#[tokio::test]
async fn what_is_repaired_is_not_asked_about_again_and_nobody_repairs_the_image() {
    let script = Scripted::new(&[&[LOOP], &[LOOP], &[LOOP], &[FIXED]]);
    let free = Policy { autonomy: Autonomy::Free, ..Policy::default() };
    let (place, mind) = failing(SHARE, &script, free).await;
    for _ in 0..3 {
        assert!(place.send("withdraw:", 0).await.is_err());
    }
    let (seen, times) = mind.next_fault().await.unwrap();
    for _ in 0..2 {
        let outcome = mind.repair(&seen, times).await.unwrap();
        assert!(matches!(&outcome, Outcome::Refused(why) if why.contains("still fails")), "{outcome:?}");
    }
    assert_eq!(script.asked.lock().unwrap().len(), 3, "a refusal is remembered");
    // The innermost method outside the image is at fault, and an eval is nobody's.
    let error = answer(
        &place.universe,
        place.account,
        Authority::Architect,
        Work::Eval { source: "OrderedCollection new removeFirst".to_owned(), made: None },
    )
    .await;
    assert!(error.is_err());
}
