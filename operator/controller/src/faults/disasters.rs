//! More than one thing goes wrong, or what people do is hard to follow.

use std::sync::atomic::Ordering;

use super::*;
use batos_covenant::ProposalState;
use memory::Trouble;
use played::Down;

/// Neither now, nor when the policy is back: who could decide meanwhile is not known.
#[tokio::test(start_paused = true)]
async fn what_is_decided_without_the_policy_never_counts() {
    let world = World::new(None, None);
    wanted(&world.memory);
    let bindings = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings";
    world.memory.lacks(bindings, "", "batos-decisions");
    world.run_for(120).await;
    let decision = |world: &World| {
        let objects = world.memory.objects();
        let found = objects.into_iter().find(|(place, _)| place.0.ends_with("/proposaldecisions")).unwrap().1;
        (found["status"]["state"].clone(), found["status"]["conditions"][0]["reason"].clone())
    };
    let expected = (json!("Refused"), json!("PolicyMissing"));
    assert_eq!(decision(&world), expected);
    for (plural, policy) in installed(&decisions()) {
        world.memory.has(&format!("/apis/admissionregistration.k8s.io/v1/{plural}"), "", policy);
    }
    world.run_for(120).await;
    assert_eq!(decision(&world), expected);
    assert_eq!(world.graph.proposal.lock().unwrap().state, ProposalState::Pending);
}

#[tokio::test(start_paused = true)]
async fn of_two_operators_one_writes_and_the_other_takes_over() {
    let world = World::new(None, None);
    wanted(&world.memory);
    let holder = || {
        let objects = world.memory.objects();
        let lease = objects.into_iter().find(|(place, _)| place.0.ends_with("leases"));
        lease.map(|(_, lease)| lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned())
    };
    let term = || world.graph.applied.lock().unwrap()["elder"].2;
    let mut second = Box::pin(world.operated("b"));
    let (first_holder, first_term) = {
        let first = world.operated("a");
        let mut first = std::pin::pin!(first);
        tokio::select! {
            () = &mut first => {}
            () = &mut second => {}
            () = seconds(120) => {}
        }
        let writers: std::collections::BTreeSet<_> = world
            .memory
            .written()
            .into_iter()
            .filter(|(_, what)| !what.contains("/leases"))
            .map(|(who, _)| who)
            .collect();
        assert_eq!(writers.len(), 1);
        (holder().unwrap(), term())
    };
    // Whichever led is as if it were gone for good when only the other runs.
    let gone = if first_holder.starts_with("a_") { "a" } else { "b" };
    world.memory.user_applies(prototype("elder", &[], 3));
    if gone == "a" {
        let _ = tokio::time::timeout(Duration::from_secs(120), &mut second).await;
    } else {
        // What it has spawned ends with it.
        drop(second);
        let _ = tokio::time::timeout(Duration::from_secs(120), world.operated("a")).await;
    }
    assert_ne!(holder().unwrap(), first_holder);
    assert!(term() > first_term, "{} {first_term}", term());
}

/// Wherever in its plans an operator is when its calls become slow and those for the Lease do not come through: once the
/// next leader has written an object, the old one does not, though what it has sent arrives whatever becomes of it.
#[tokio::test(start_paused = true)]
async fn after_the_next_leaders_first_write_the_old_one_writes_nothing() {
    let expected = outcome(None, None).await;
    let count = not_the_lease(&expected.memory.writes()).len();
    let mut belated = 0;
    // A call may be under way for a third of the Lease.
    for late in [1, 4].map(Duration::from_secs) {
        for after in 0..count {
            let world = World::new(None, None);
            world.memory.troubles(Trouble { who: "a", after, late });
            wanted(&world.memory);
            let next = async {
                // The first is led by `a`.
                seconds(2).await;
                world.operated("b").await;
            };
            let both = async { tokio::join!(world.operated("a"), next) };
            let _ = tokio::time::timeout(Duration::from_secs(200), both).await;
            let mut taken = std::collections::BTreeSet::new();
            let written = world.memory.written();
            for (who, what) in written.iter().filter(|(_, what)| !what.contains("/leases")) {
                let what = what.trim_end().to_owned();
                assert!(*who == "b" || !taken.contains(&what), "{late:?} after {after}: a wrote {what} after b");
                if *who == "b" {
                    taken.insert(what);
                }
            }
            let of_a = written.iter().filter(|(who, what)| *who == "a" && !what.contains("/leases")).count();
            belated += of_a.saturating_sub(after);
            assert_eq!(world.seen(), expected.seen(), "{late:?} after {after}");
        }
    }
    assert!(belated > count, "{belated} calls were under way");
}

/// What is applied late, by however much, is refused by its term.
#[tokio::test(start_paused = true)]
async fn an_apply_that_comes_after_the_next_leaders_changes_nothing() {
    let world = World::new(None, None);
    world.memory.user_applies(universe("tikv", 1));
    world.memory.user_applies(prototype("elder", &[], 1));
    let story = async {
        seconds(30).await;
        let after = world.memory.written().iter().filter(|(_, what)| !what.contains("/leases")).count();
        world.memory.troubles(Trouble { who: "a", after, late: Duration::from_secs(100) });
        world.memory.user_applies(prototype("elder", &[], 2));
        seconds(5).await;
        world.memory.user_applies(prototype("elder", &[], 3));
        seconds(300).await;
    };
    let next = async {
        seconds(2).await;
        world.operated("b").await;
    };
    tokio::select! {
        () = story => {}
        _ = async { tokio::join!(world.operated("a"), next) } => {}
    }
    let (_, _, _, definition) = world.graph.applied.lock().unwrap()["elder"].clone();
    assert_eq!(definition[0]["slots"][0]["value"], 3);
    let applies = world.memory.written().into_iter().filter(|(_, what)| what == "apply elder");
    assert_eq!(applies.map(|(who, _)| who).next_back(), Some("a"), "the late one came last");
    assert_eq!(world.reason("prototypes", "elder"), "Applied");
}

#[tokio::test(start_paused = true)]
async fn what_is_down_is_said_and_all_recovers_by_itself() {
    type Break = fn(&World, bool);
    type Reasons = &'static [(&'static str, &'static str, &'static str)];
    let bus: Break = |world, down| *world.graph.down.lock().unwrap() = down.then_some(Down::Bus);
    let store: Break = |world, down| *world.graph.down.lock().unwrap() = down.then_some(Down::Store);
    let engines: Break = |world, down| world.engines.down.store(down, Ordering::SeqCst);
    let api: Break = |world, down| world.memory.goes_down(Duration::from_secs(if down { 3600 } else { 0 }));
    let table: [(&str, Break, Reasons); 4] = [
        ("the bus", bus, &[("prototypes", "elder", "Unreachable"), ("prototypes", "late", "Unreachable")]),
        ("the store", store, &[("prototypes", "elder", "ApplyFailed"), ("prototypes", "late", "ApplyFailed")]),
        ("the engines", engines, &[("facets", "ledger", "EngineUnreachable"), ("facets", "late", "EngineUnreachable")]),
        // Nobody can be told.
        ("the API server", api, &[]),
    ];
    let story = async |broken: Option<(Break, Reasons)>| {
        let world = World::new(None, None);
        let story = async {
            wanted(&world.memory);
            seconds(60).await;
            if let Some((switch, _)) = broken {
                switch(&world, true);
            }
            world.memory.user_applies(prototype("elder", &[], 5));
            world.memory.user_applies(prototype("late", &["elder"], 6));
            world.memory.user_applies(facet("late", "/adapters/late"));
            world.memory.user_deletes("codexes", "laws");
            seconds(400).await;
            if let Some((switch, reasons)) = broken {
                for (plural, name, reason) in reasons {
                    assert_eq!(world.reason(plural, name), *reason, "{plural} {name}");
                }
                switch(&world, false);
            }
            // The longest pause is two minutes.
            seconds(200).await;
        };
        world.run_while(story).await;
        world
    };
    let expected = story(None).await;
    expected.assert_all_ready("nothing is down");
    for (what, switch, reasons) in table {
        let world = story(Some((switch, reasons))).await;
        world.assert_all_ready(what);
        assert_eq!(world.seen(), expected.seen(), "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_applied_before_there_are_workers_and_the_reason_says_so() {
    let world = World::new(None, None);
    let mut reasons = Vec::new();
    let story = async {
        world.memory.user_applies(prototype("child", &["elder"], 1));
        seconds(20).await;
        reasons.push(world.reason("prototypes", "child"));
        world.memory.user_applies(universe("tikv", 0));
        seconds(20).await;
        reasons.push(world.reason("prototypes", "child"));
        assert!(!world.memory.writes().iter().any(|write| write.starts_with("apply")));
        world.memory.user_applies(universe("tikv", 1));
        seconds(20).await;
        reasons.push(world.reason("prototypes", "child"));
        world.memory.user_applies(prototype("elder", &[], 1));
        seconds(20).await;
        reasons.push(world.reason("prototypes", "child"));
    };
    world.run_while(story).await;
    assert_eq!(reasons, ["UniverseMissing", "UniverseNotReady", "ParentMissing", "Applied"]);
}

struct Random(u64);

impl Random {
    fn of(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

#[tokio::test(start_paused = true)]
async fn histories_to_the_same_wishes_end_alike() {
    let expected = outcome(None, None).await;
    for seed in 1..=40_u64 {
        let world = World::new(None, None);
        world.memory.has("/api/v1/secrets", "default", key());
        let mut random = Random::of(seed);
        let history = async {
            for _ in 0..16 {
                match random.below(14) {
                    0 => world.memory.user_applies(universe("tikv", 1 + i64::try_from(random.below(3)).unwrap())),
                    1 => world.memory.user_deletes("universes", "tikv"),
                    2 => world.memory.user_applies(prototype("elder", &[], 7)),
                    3 => world.memory.user_deletes("prototypes", "elder"),
                    4 => world.memory.user_applies(prototype("child", &[], 9)),
                    5 => world.memory.user_applies(object("Universe", "file", json!({ "workers": { "replicas": 2 } }))),
                    6 => world.memory.user_deletes("universes", "file"),
                    7 => world.memory.user_applies(codex("be quick")),
                    8 => world.memory.user_deletes("codexes", "laws"),
                    9 => world.memory.user_applies(pool(1)),
                    10 => world.memory.user_deletes("modelpools", "small"),
                    11 => world.memory.user_applies(facet("ledger", "/adapters/older")),
                    12 => world.memory.user_deletes("facets", "ledger"),
                    _ => pretended(&world.memory),
                }
                tokio::time::sleep(Duration::from_millis(random.below(40_000))).await;
            }
            // What is still going comes back only once it is gone.
            seconds(300).await;
            wanted(&world.memory);
            seconds(1000).await;
        };
        world.run_while(history).await;
        assert_eq!(world.seen(), expected.seen(), "seed {seed}");
    }
}

/// Many come and go at once, again and again under the same names.
#[tokio::test(start_paused = true)]
async fn a_storm_leaves_what_is_wanted_and_nothing_else() {
    let expected = outcome(None, None).await;
    let world = World::new(None, None);
    let mut random = Random::of(7);
    let story = async {
        wanted(&world.memory);
        for round in 0..3 {
            for number in 0..40 {
                let name = format!("of-the-storm-{number}");
                world.memory.user_applies(prototype(&name, &["elder"], round));
                world.memory.user_applies(facet(&name, "/adapters/storm"));
                tokio::time::sleep(Duration::from_millis(random.below(50))).await;
            }
            for number in 0..40 {
                let name = format!("of-the-storm-{number}");
                world.memory.user_deletes("prototypes", &name);
                world.memory.user_deletes("facets", &name);
                tokio::time::sleep(Duration::from_millis(random.below(10))).await;
            }
        }
        seconds(600).await;
    };
    world.run_while(story).await;
    let mut seen = world.seen();
    // Objects end in their universe.
    seen.retain(|place, _| !(place.0 == "graph" && place.2.starts_with("of-the-storm")));
    assert_eq!(seen, expected.seen());
    let (changes, writes) = (world.memory.changes(), world.memory.writes().len());
    world.run_while(seconds(100)).await;
    assert_eq!(world.memory.changes(), changes);
    assert!(not_the_lease(&world.memory.writes()[writes..]).len() < 30, "it is over");
}

/// In each order in which its content may go, at once or one kind after the other.
#[tokio::test(start_paused = true)]
async fn a_namespace_ends_in_whatever_order() {
    let start = outcome(None, None).await;
    let needed = |collection: &str| ["leases", "secrets"].iter().any(|own| collection.ends_with(own));
    let mut collections: Vec<String> = start.memory.objects().into_keys().map(|place| place.0).collect();
    collections.dedup();
    collections.retain(|collection| !needed(collection) && !collection.contains("admission"));
    assert!(collections.len() > 14, "{collections:?}");
    for turn in 0..2 * collections.len() {
        let mut order = collections.clone();
        order.rotate_left(turn / 2);
        if turn % 2 == 1 {
            order.reverse();
        }
        for pause in [0, 4] {
            let world = World::new(None, None);
            let story = async {
                wanted(&world.memory);
                seconds(60).await;
                world.memory.user_ends_the_namespace(&order, Duration::from_secs(pause)).await;
                seconds(300).await;
            };
            world.run_while(story).await;
            let mut left = world.memory.objects();
            left.retain(|place, _| !needed(&place.0) && !place.0.contains("admission"));
            assert!(left.is_empty(), "{order:?}, {pause} s between: {:?}", left.keys());
        }
    }
}
