//! What a plan promises, and what it decides.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};

use batos_weaver::{Demand, Held, Move, Plan, PodState, Policy, RANKS, Waits, Wanted, classes, plan};
use proptest::prelude::*;

const NOW: u64 = 1_000_000;

fn pod(id: u32, slots: usize, max_rank: u64, held: &[u32]) -> PodState {
    let held = held.iter().map(|adapter| (*adapter, Held::default())).collect();
    PodState { id, slots, max_rank, held, staged: BTreeSet::new() }
}

fn wanted(id: u32, rank: u64, rate: u64) -> Wanted {
    Wanted { id, rank, rate, load: 20, least: 0 }
}

fn eager() -> Policy {
    Policy { loads: 100, loads_per_pod: 100, ..Policy::default() }
}

fn carried_out(pods: &[PodState], plan: &Plan, now: u64) -> Vec<PodState> {
    let mut pods = pods.to_vec();
    for step in &plan.moves {
        let (Move::Evict { pod, adapter } | Move::Load { pod, adapter }) = *step;
        let pod = pods.iter_mut().find(|p| p.id == pod).unwrap();
        match step {
            Move::Evict { .. } => assert!(pod.held.remove(&adapter).is_some()),
            Move::Load { .. } => assert!(pod.held.insert(adapter, Held { since: now, ..Held::default() }).is_none()),
        }
    }
    pods
}

#[test]
fn small_ranks_take_small_slots_and_leave_the_large_ones() {
    let pods = [pod(1, 2, 64, &[]), pod(2, 2, 16, &[])];
    let plan = plan(&pods, &[wanted(1, 8, 10), wanted(2, 64, 1), wanted(3, 16, 5)], &eager(), NOW);
    let homes: Vec<_> = plan.homes.iter().map(|(adapter, pods)| (*adapter, pods.first().copied().unwrap())).collect();
    assert_eq!(homes, [(1, 2), (2, 1), (3, 2)]);
}

#[test]
fn a_rank_that_no_pod_takes_is_told_with_the_highest() {
    let plan = plan(&[pod(1, 2, 16, &[])], &[wanted(1, 64, 10)], &eager(), NOW);
    assert_eq!(plan.waiting[&1], Waits::Rank { highest: 16 });
}

#[test]
fn copies_follow_the_load_and_first_copies_come_first() {
    let pods: Vec<PodState> = (0..4).map(|id| pod(id, 2, 16, &[])).collect();
    let adapters = [wanted(1, 8, 7_000_000), wanted(2, 8, 100_000), wanted(3, 8, 100_000)];
    let plan = plan(&pods, &adapters, &eager(), NOW);
    assert_eq!(plan.homes[&1].len(), 4, "7 a second at 2 for a copy");
    assert_eq!((plan.homes[&2].len(), plan.homes[&3].len()), (1, 1));
}

#[test]
fn a_newcomer_must_be_worth_twice_as_much_and_the_old_one_have_stayed() {
    for (rate, since, moves) in [(150, 0, 0), (210, 0, 2), (210, NOW - 10_000, 0)] {
        let mut old = pod(1, 1, 16, &[1]);
        old.held.get_mut(&1).unwrap().since = since;
        let plan = plan(&[old], &[wanted(1, 8, 100), wanted(2, 8, rate)], &Policy::default(), NOW);
        assert_eq!(plan.moves.len(), moves, "{rate}, since {since}: {plan:?}");
    }
}

#[test]
fn loads_of_one_plan_are_bounded() {
    let adapters: Vec<Wanted> = (0..20).map(|id| wanted(id, 8, 10)).collect();
    let pods: Vec<PodState> = (0..8).map(|id| pod(id, 4, 16, &[])).collect();
    let plan = plan(&pods, &adapters, &Policy::default(), NOW);
    assert_eq!(plan.moves.len(), 4);
    assert!(plan.waiting.values().all(|why| *why == Waits::Loads));
}

#[test]
fn pods_become_small_only_where_slots_are_short_and_half_stay_large() {
    let ranks =
        |counts: [usize; 4]| BTreeMap::from([(8, counts[0]), (16, counts[1]), (32, counts[2]), (64, counts[3])]);
    let demand = |counts| Demand { adapters: ranks(counts), in_use: 1500 };
    assert_eq!(classes(8, 4 * 64, &demand([16, 10, 5, 1])), [64; 8], "32 adapters have 32 slots");
    assert_eq!(classes(8, 4 * 64, &demand([50, 30, 15, 5])), [64, 64, 64, 64, 16, 16, 16, 16]);
    assert_eq!(classes(8, 8 * 64, &demand([50, 30, 15, 5])), [64, 64, 64, 64, 64, 64, 16, 16]);
    assert_eq!(classes(8, 64, &demand([0, 0, 0, 9])), [64; 8]);
    assert_eq!(classes(0, 64, &demand([1, 1, 1, 1])), [0u64; 0]);
    assert_eq!(classes(3, 64, &Demand { adapters: BTreeMap::new(), in_use: 1 }), [0u64; 0]);
    // High ranks in use by many at once keep their pods.
    let busy = Demand { adapters: ranks([60, 20, 0, 20]), in_use: 10_000 };
    assert_eq!(classes(8, 4 * 64, &busy), [64; 8]);
}

fn pods() -> impl Strategy<Value = Vec<PodState>> {
    let held = prop::collection::btree_map(0..12u32, (any::<bool>(), any::<bool>(), 0..NOW), 0..5);
    let one = (0..4usize, prop::sample::select(RANKS.to_vec()), held, prop::collection::btree_set(0..12u32, 0..4));
    prop::collection::vec(one, 0..5).prop_map(|pods| {
        let state = |(id, (slots, max_rank, held, staged))| PodState {
            id: u32::try_from(id).unwrap(),
            slots,
            max_rank,
            held: BTreeMap::into_iter(held)
                .map(|(adapter, (in_use, pinned, since))| (adapter, Held { in_use, pinned, since }))
                .collect(),
            staged,
        };
        pods.into_iter().enumerate().map(state).collect()
    })
}

fn adapters() -> impl Strategy<Value = Vec<Wanted>> {
    let one = (prop::sample::select(RANKS.to_vec()), 0..9_000_000u64, 1..200u64, 0..3usize);
    prop::collection::btree_map(0..12u32, one, 0..12).prop_map(|adapters| {
        let wanted = |(id, (rank, rate, load, least))| Wanted { id, rank, rate, load, least };
        adapters.into_iter().map(wanted).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_plan_keeps_its_promises(pods in pods(), adapters in adapters()) {
        let policy = eager();
        let made = plan(&pods, &adapters, &policy, NOW);
        let (mut backwards, mut others) = (pods.clone(), adapters.clone());
        backwards.reverse();
        others.reverse();
        prop_assert_eq!(&plan(&backwards, &others, &policy, NOW), &made, "order matters");

        let ranks: BTreeMap<u32, u64> = adapters.iter().map(|adapter| (adapter.id, adapter.rank)).collect();
        let mut state = pods.clone();
        for step in &made.moves {
            let (Move::Evict { pod, adapter } | Move::Load { pod, adapter }) = *step;
            let pod = state.iter_mut().find(|p| p.id == pod).unwrap();
            match step {
                Move::Evict { .. } => {
                    let held = pod.held.remove(&adapter).expect("evicted what was not there");
                    prop_assert!(!held.in_use && !held.pinned, "evicted one in use or pinned");
                }
                Move::Load { .. } => {
                    prop_assert!(pod.held.insert(adapter, Held { since: NOW, ..Held::default() }).is_none(), "loaded twice");
                    prop_assert!(pod.held.len() <= pod.slots, "over the slots");
                    prop_assert!(ranks[&adapter] <= pod.max_rank, "rank {} into {}", ranks[&adapter], pod.max_rank);
                }
            }
        }
        for adapter in &adapters {
            let homes: BTreeSet<u32> =
                state.iter().filter(|pod| pod.held.contains_key(&adapter.id)).map(|pod| pod.id).collect();
            prop_assert_eq!(made.homes.get(&adapter.id).cloned().unwrap_or_default(), homes.clone());
            prop_assert_eq!(made.waiting.contains_key(&adapter.id), homes.is_empty(), "has a home or waits, not both");
        }
        // Nobody waits beside a free slot that would do.
        for (adapter, why) in &made.waiting {
            let free = state.iter().any(|pod| pod.held.len() < pod.slots && pod.max_rank >= ranks[adapter]);
            prop_assert!(!free, "{adapter} waits ({why:?}) beside a free slot");
        }
        // It settles, though a move may make another possible.
        let mut state = carried_out(&pods, &made, NOW);
        let mut rounds = 0;
        loop {
            let next = plan(&state, &adapters, &policy, NOW);
            if next.moves.is_empty() {
                break;
            }
            state = carried_out(&state, &next, NOW);
            rounds += 1;
            prop_assert!(rounds < 5, "still moving: {:?}", next.moves);
        }
    }
}
