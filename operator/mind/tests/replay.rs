//! A becoming's answers get the same verdicts again, on the objects as they were.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use batos_covenant::Replay;
use batos_graph::{ObjectId, RedbStore};
use batos_mind::{Mind, Outcome, Policy};
use batos_uvm::universe::{Age, Authority, Opening, Retention, Universe, Work, now};
use common::{BROKEN, GOOD, Place, SLY, Scripted, deliver, place, till};
use serde_json::json;
use std::{sync::Arc, time::Duration};

fn mind(place: &Place, rounds: &[&[&str]]) -> Mind {
    Mind::new(place.universe.clone(), Scripted::new(rounds), Policy::default())
}

async fn replay(mind: &Mind, object: ObjectId) -> Replay {
    mind.replay(mind.becoming_of(object, "withdraw:").await.unwrap()).await.unwrap()
}

fn assert_same(replay: &Replay, verdicts: &[&str]) {
    assert_eq!(replay.trials.len(), verdicts.len(), "{replay:?}");
    for (trial, wanted) in replay.trials.iter().zip(verdicts) {
        assert!(trial.verdict.contains(wanted), "{wanted}: {trial:?}");
        assert_eq!((trial.again.as_ref(), trial.differs()), (Some(&trial.verdict), false), "{trial:?}");
    }
}

#[tokio::test]
async fn what_was_judged_is_judged_the_same_after_everything_has_changed() {
    let place = place().await;
    let till = till(&place.universe).await.receiver;
    // It rests on another object, on chance, on time and on its own traits.
    let nosy = "withdraw: n = ( till balance = 100 ifFalse: [ ^0 ]. (Random new next: 3) size. self after: 10 send: #f. \
        balance: balance - n. ^balance )";
    let minds = mind(&place, &[&[SLY], &[BROKEN, nosy]]);
    let outcome = minds.make(&place.missing("withdraw:")).await.unwrap();
    assert!(matches!(outcome, Outcome::Proposed(_)), "{outcome:?}");
    let verdicts = ["it answers 70, not 0", "does not compile", "admitted: withdraw: n = ( till balance"];
    assert_same(&replay(&minds, place.account).await, &verdicts);

    let work = Work::Eval { source: "till balance: 7. account balance: 1. account balance: 2".to_owned(), made: None };
    deliver(&place.universe, till, Authority::Architect, work).await.unwrap();
    let examples = json!({ "slots": [{ "name": "balance", "value": 1 }], "examples": [] });
    common::apply(&place.universe, "account", serde_json::from_value(examples).unwrap()).await;
    // Another worker, later.
    let replayed = replay(&mind(&place, &[]), place.account).await;
    assert_same(&replayed, &verdicts);
    assert_eq!((replayed.step.as_str(), replayed.left_out), ("proposed", 0));
}

#[tokio::test]
async fn refused_and_swapped_becomings_are_replayed() {
    let place = place().await;
    let till = till(&place.universe).await;
    let minds = mind(&place, &[&[GOOD], &[SLY], &[SLY], &["no"]]);
    assert!(matches!(minds.make(&place.missing("withdraw:")).await.unwrap(), Outcome::Made(_)));
    assert!(matches!(minds.make(&till).await.unwrap(), Outcome::Refused(_)));
    assert_same(&replay(&minds, place.account).await, &[&format!("admitted: {GOOD}")]);
    assert_same(&replay(&minds, till.receiver).await, &["it answers 70, not 0", "it answers 70, not 0", "compile"]);
    let none = minds.replay(ObjectId::of_name("nothing")).await;
    assert!(none.is_err_and(|error| error.to_string().contains("becoming")));
}

#[tokio::test]
async fn what_is_no_longer_kept_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(std::sync::atomic::AtomicU64::new(now() / 1000));
    let time = clock.clone();
    let universe = Universe::open_with(
        "u",
        Arc::new(RedbStore::open(&folder.path().join("u.redb")).unwrap()),
        Opening {
            retention: Retention { history: Age::For(Duration::from_secs(60)), ..Retention::default() },
            clock: Arc::new(move || time.load(std::sync::atomic::Ordering::Relaxed)),
            ..Opening::usual()
        },
    )
    .await
    .unwrap();
    let missing = till(&universe).await;
    let minds = Mind::new(universe.clone(), Scripted::new(&[&[GOOD]]), Policy::default());
    assert!(matches!(minds.make(&missing).await.unwrap(), Outcome::Made(_)));
    for balance in [1, 2, 3] {
        let work = Work::Eval { source: format!("till balance: {balance}"), made: None };
        deliver(&universe, missing.receiver, Authority::Architect, work).await.unwrap();
    }
    clock.fetch_add(3600, std::sync::atomic::Ordering::Relaxed);
    while universe.keep_house().await.unwrap().rest.is_none() {}
    let replayed = replay(&minds, missing.receiver).await;
    let lost = replayed.trials[0].lost.as_deref().unwrap();
    assert!(lost.contains("revision 1 of") && !replayed.trials[0].differs(), "{lost}");
}

#[tokio::test]
async fn a_row_of_the_journal_stays_bounded() {
    let place = place().await;
    let amended = "toolForge drafts: 8. toolForge temperature: 1.0. toolForge attempts: 8. 1";
    place.eval(Authority::Architect, amended).await.unwrap();
    let long = |n: usize| format!("withdraw: n = ( '{}' )", "x".repeat(15_000 + n));
    let long: Vec<String> = (0..8).map(long).collect();
    let round: Vec<&str> = long.iter().map(String::as_str).collect();
    let minds = mind(&place, &[round.as_slice(); 8]);
    assert!(matches!(minds.make(&place.missing("withdraw:")).await.unwrap(), Outcome::Refused(_)));
    let replayed = replay(&minds, place.account).await;
    assert_eq!(replayed.trials.len() + replayed.left_out as usize, 64);
    assert!((4..8).contains(&replayed.trials.len()), "{}", replayed.trials.len());
}
