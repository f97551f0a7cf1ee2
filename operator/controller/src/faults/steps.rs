//! One thing goes wrong, wherever it can.

use super::*;
use batos_covenant::ProposalState;

const FAULTS: [Fault; 7] = [
    Fault::CrashBefore,
    Fault::CrashAfter,
    Fault::Silent,
    Fault::Status(409),
    Fault::Status(410),
    Fault::Status(429),
    Fault::Status(500),
];

/// What only reads: to die there is to die after the write before.
/// Of the places the first of so many is tried: all of them take minutes. BATOS_FAULTS_EVERY=1 tries each.
fn every() -> usize {
    std::env::var("BATOS_FAULTS_EVERY").ok().and_then(|every| every.parse().ok()).unwrap_or(5)
}

fn reads(call: &str) -> bool {
    ["GET", "WATCH", "models", "proposals"].iter().any(|read| call.starts_with(read))
}

/// Whatever can go wrong with a call.
fn faults(call: &str) -> &'static [Fault] {
    match reads(call) {
        true => &[Fault::Silent, Fault::Status(410), Fault::Status(500)],
        false => &FAULTS,
    }
}

/// Whether two worlds came to the same.
fn assert_same(world: &World, expected: &World, what: &str) {
    let (seen, expected) = (world.seen(), expected.seen());
    for (place, object) in &expected {
        assert_eq!(seen.get(place), Some(object), "{what}: {place:?}");
    }
    let more: Vec<_> = seen.keys().filter(|place| !expected.contains_key(place)).collect();
    assert!(more.is_empty(), "{what}: {more:?}");
}

/// The calls of a story at which something may go wrong: none after its last write, and of the Lease's renewals none but
/// the first.
fn places(calls: &[String]) -> Vec<(usize, String)> {
    let last = calls.iter().rposition(|call| !reads(call) && !call.contains("/leases")).unwrap();
    let mut leases = 0;
    let calls = calls.iter().take(last + 2).enumerate();
    calls
        .filter(|(_, call)| {
            leases += usize::from(call.contains("/leases"));
            !call.contains("/leases") || leases <= 4
        })
        .map(|(at, call)| (at, call.clone()))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn all_become_ready_and_then_nothing_is_written() {
    let world = outcome(None, None).await;
    let objects = world.seen();
    let ours: Vec<_> = objects.iter().filter(|(place, _)| place.0.contains("batos.dev")).collect();
    assert_eq!(ours.len(), 11);
    world.assert_all_ready("nothing went wrong");
    let order = |what: &str| world.memory.writes().iter().position(|write| write.contains(what)).unwrap();
    assert!(order("jobs copy-restore") < order("statefulsets copy-uvm"), "no worker before the image is there");
    let row = world.graph.proposal.lock().unwrap().clone();
    assert_eq!((row.state, row.decision.unwrap().reason.as_str()), (ProposalState::Applied, "alice: seen"));
    assert_eq!(world.memory.writes().iter().filter(|write| write.starts_with("approve")).count(), 1);
    let (changes, before) = (world.memory.changes(), world.memory.writes().len());
    // Long enough for a look at drift. An operator that starts anew applies all once more, which changes nothing.
    world.run_for(1500).await;
    assert_eq!(world.memory.changes(), changes);
    let after = world.memory.writes();
    let (first, later) = after[before..].split_at(60);
    assert!(not_the_lease(first).len() < 24, "{first:?}");
    let asked_again = later.iter().filter(|write| write.starts_with("apply")).count();
    assert_eq!(not_the_lease(later).len(), asked_again, "{later:?}");
    assert!(later.len() > 300, "the Lease is renewed");
}

/// From nothing to all that is wanted.
#[tokio::test(start_paused = true)]
async fn each_call_of_a_beginning_may_fail_in_each_way() {
    let story = async |fault| {
        let world = World::new(fault, None);
        pretended(&world.memory);
        wanted(&world.memory);
        world.run_for(300).await;
        world
    };
    let expected = story(None).await;
    let places = places(&expected.memory.calls());
    assert!(places.len() > 90, "{places:?}");
    for kind in
        ["universes", "prototypes", "codexes", "proposals", "proposaldecisions", "snapshots", "modelpools", "facets"]
    {
        let steps = places.iter().filter(|(_, call)| call.starts_with("PATCH") && call.contains(kind)).count();
        assert!(steps > 0, "no step of {kind}");
    }
    assert!(places.iter().any(|(_, call)| call.starts_with("DELETE") && call.contains("pretended")), "{places:?}");
    for (at, call) in places.iter().step_by(every()) {
        for fault in faults(call) {
            assert_same(&story(Some((*at, *fault))).await, &expected, &format!("{fault:?} at call {at}, {call}"));
        }
    }
}

/// What changes, goes and comes back under its name, before the eyes of an operator that leads.
async fn changed(fault: Option<(usize, Fault)>, slip: Option<(usize, Slip)>) -> World {
    let world = World::new(fault, slip);
    let story = async {
        wanted(&world.memory);
        seconds(60).await;
        world.memory.user_deletes("facets", "ledger");
        world.memory.user_deletes("universes", "tikv");
        world.memory.user_applies(codex("be brief"));
        // Until the facet is gone, though its engine may be silent for a minute.
        seconds(150).await;
        world.memory.user_applies(facet("ledger", "/adapters/other"));
        world.memory.user_applies(universe("tikv", 3));
        world.memory.user_applies(pool(1));
        seconds(60).await;
        world.memory.user_applies(facet("scribe", "/adapters/scribe"));
        world.memory.user_deletes("facets", "ledger");
        world.memory.user_deletes("prototypes", "elder");
        seconds(5).await;
        world.memory.user_applies(prototype("elder", &[], 8));
        seconds(200).await;
    };
    world.run_while(story).await;
    world
}

#[tokio::test(start_paused = true)]
async fn each_call_of_a_change_may_fail_in_each_way() {
    let expected = changed(None, None).await;
    expected.assert_all_ready("nothing went wrong");
    let places = places(&expected.memory.calls());
    let begun = places.iter().position(|(_, call)| call.starts_with("unload")).unwrap();
    for (at, call) in places[begun.saturating_sub(4)..].iter().step_by(every()) {
        for fault in faults(call) {
            let world = changed(Some((*at, *fault)), None).await;
            assert_same(&world, &expected, &format!("{fault:?} at call {at}, {call}"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_event_may_be_lost_or_doubled_or_late_or_cut_off() {
    let expected = changed(None, None).await;
    for slip in [Slip::Lost, Slip::Twice, Slip::Late, Slip::Cut] {
        for at in (0..expected.memory.events()).step_by(every()) {
            assert_same(&changed(None, Some((at, slip))).await, &expected, &format!("{slip:?} of event {at}"));
        }
    }
}

/// An API server that has fallen behind tells whoever does not ask for the latest what was.
#[tokio::test(start_paused = true)]
async fn an_operator_that_starts_is_not_misled_by_what_was() {
    let world = changed(None, None).await;
    let (changes, seen) = (world.memory.changes(), world.seen());
    for version in (0..world.memory.version()).step_by(every()) {
        world.memory.lags(version, Duration::from_secs(40));
        world.run_for(60).await;
        assert_eq!(world.memory.changes(), changes, "as of version {version}: {:?}", world.memory.writes().last());
    }
    assert_eq!(world.seen(), seen);
}

/// Nobody has a key yet, and the operator may die wherever it makes one.
#[tokio::test(start_paused = true)]
async fn the_key_that_decisions_are_signed_with_is_made_once() {
    let faults = FAULTS.into_iter().map(Some);
    for fault in std::iter::once(None).chain(faults) {
        for at in 24..40 {
            let world = World::new(fault.map(|fault| (at, fault)), None);
            decided(&world.memory);
            world.memory.user_applies(universe("tikv", 1));
            world.run_for(300).await;
            let objects = world.memory.objects();
            let all = |collection: &str| {
                objects.iter().filter(|(place, _)| place.0.ends_with(collection)).collect::<Vec<_>>()
            };
            let secrets = all("/secrets");
            assert_eq!(secrets.len(), 1, "{fault:?} at {at}");
            let public = Signer::of(&serde_json::from_value(secrets[0].1.clone()).unwrap()).unwrap().public;
            let known = all("/configmaps")[0].1["data"]["mind.yaml"].as_str().unwrap().to_owned();
            assert!(known.contains(&public), "{fault:?} at {at}: {known}");
            let decision = world.graph.proposal.lock().unwrap().decision.clone().unwrap();
            assert_eq!(decision.key, public, "{fault:?} at {at}");
        }
    }
}
