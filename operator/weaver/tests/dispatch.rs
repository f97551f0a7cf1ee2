//! What a gateway decides: requests that wait, are sent, fail and are sent again; engines that refuse, die and restart.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};

use batos_weaver::{
    AdapterId, Dispatcher, Ended, EnginePod, Limits, LoadFailed, Millis, Order, PodId, Refused, RequestId, Seen, Terms,
    Unloading,
};
use proptest::prelude::*;

const BASE: AdapterId = 0;

fn terms() -> Terms {
    let limits = Limits { loads_per_minute: 6_000, ..Limits::default() };
    Terms { limits, unloading: Unloading::Forgets, queue: 100, wait: 10_000, tries: 2 }
}

fn engine() -> EnginePod {
    EnginePod { slots: 2, host: 4, seats: 8, max_rank: 16 }
}

fn seen(asked: Millis, registered: &[AdapterId]) -> Seen {
    Seen { asked, registered: registered.iter().copied().collect(), no_loads: None }
}

/// Five adapters of rank 8, and number 6 of rank 64; these pods, all up.
fn dispatcher(terms: Terms, pods: u32, engine: EnginePod) -> Dispatcher {
    let mut dispatcher = Dispatcher::new(terms, BASE, 0);
    (1..=6).for_each(|id| dispatcher.add_adapter(id, if id == 6 { 64 } else { 8 }));
    for pod in 0..pods {
        dispatcher.add_pod(pod, engine);
        assert!(dispatcher.pod_seen(pod, seen(0, &[]), 0));
    }
    dispatcher
}

fn load(pod: PodId, adapter: AdapterId) -> Order {
    Order::Load { pod, adapter, unload: None }
}

fn send(request: RequestId, pod: PodId) -> Order {
    Order::Send { request, pod }
}

#[test]
fn an_adapter_is_loaded_once_and_the_base_model_never() {
    let mut dispatcher = dispatcher(terms(), 1, engine());
    let base = dispatcher.arrive(BASE, 0).unwrap();
    assert_eq!(dispatcher.decide(0), [send(base, 0)]);
    let first = dispatcher.arrive(1, 1).unwrap();
    assert_eq!(dispatcher.decide(1), [load(0, 1)]);
    let second = dispatcher.arrive(1, 2).unwrap();
    assert_eq!(dispatcher.decide(2), []);
    dispatcher.loaded(0, 1, Ok(50), 50);
    assert_eq!(dispatcher.decide(50), [send(first, 0), send(second, 0)]);
    assert_eq!(dispatcher.held(0).collect::<Vec<_>>(), [1], "the base model takes no slot");
}

#[test]
fn what_is_registered_takes_a_slot_without_a_call() {
    let mut dispatcher = dispatcher(terms(), 0, engine());
    dispatcher.add_pod(0, engine());
    dispatcher.pod_seen(0, seen(0, &[1, 2, 3, 4, 5]), 0);
    for (now, adapter) in (1..=5).map(|adapter| (u64::from(adapter) * 100, adapter)) {
        let request = dispatcher.arrive(adapter, now).unwrap();
        assert_eq!(dispatcher.decide(now), [send(request, 0)]);
        dispatcher.ended(request, Ended::Done, now + 10);
    }
    assert_eq!(dispatcher.held(0).collect::<Vec<_>>(), [4, 5]);
}

#[test]
fn only_so_many_wait_and_only_so_long() {
    let mut dispatcher = dispatcher(Terms { queue: 2, ..terms() }, 1, EnginePod { seats: 1, ..engine() });
    let running = dispatcher.arrive(BASE, 0).unwrap();
    assert_eq!(dispatcher.decide(0), [send(running, 0)]);
    let [first, second] = [5, 6].map(|now| dispatcher.arrive(BASE, now).unwrap());
    assert_eq!(dispatcher.arrive(BASE, 7), None);
    // One whose client leaves makes room.
    dispatcher.ended(first, Ended::Done, 8);
    assert_eq!(dispatcher.waiting(), 1);
    let third = dispatcher.arrive(BASE, 9).unwrap();
    assert_eq!(dispatcher.decide(10_005), []);
    assert_eq!(dispatcher.decide(10_006), [Order::Refuse { request: second, why: Refused::Late }]);
    dispatcher.ended(running, Ended::Done, 10_007);
    assert_eq!(dispatcher.decide(10_007), [send(third, 0)]);
}

#[test]
fn a_request_whose_pod_failed_goes_first_to_another() {
    let mut dispatcher = dispatcher(terms(), 2, EnginePod { seats: 1, ..engine() });
    let requests: Vec<_> = (0..3).map(|now| dispatcher.arrive(BASE, now).unwrap()).collect();
    assert_eq!(dispatcher.decide(3), [send(requests[0], 0), send(requests[1], 1)]);
    dispatcher.ended(requests[0], Ended::Broken, 4);
    assert!(!dispatcher.is_up(0));
    assert_eq!(dispatcher.decide(4), [], "the other pod is busy, and the failed one gets nothing");
    dispatcher.ended(requests[1], Ended::Done, 5);
    assert_eq!(dispatcher.decide(5), [send(requests[0], 1)], "before the one that came later");
    dispatcher.ended(requests[0], Ended::Broken, 6);
    assert_eq!(dispatcher.decide(6), [Order::Refuse { request: requests[0], why: Refused::Broken }]);
    // Once its engine answers, a pod serves again.
    assert!(dispatcher.pod_seen(0, seen(7, &[]), 7));
    assert_eq!(dispatcher.decide(7), [send(requests[2], 0)]);
}

#[test]
fn an_adapter_that_is_refused_everywhere_is_refused_in_the_engines_words_for_a_while() {
    let mut dispatcher = dispatcher(terms(), 2, engine());
    let request = dispatcher.arrive(1, 0).unwrap();
    assert_eq!(dispatcher.decide(0), [load(0, 1)]);
    dispatcher.loaded(0, 1, Err(LoadFailed::Refused("no".to_owned())), 10);
    assert_eq!(dispatcher.decide(10), [load(1, 1)], "the other may take it");
    dispatcher.loaded(1, 1, Err(LoadFailed::Refused("never".to_owned())), 20);
    let refused = |request| Order::Refuse { request, why: Refused::Unloadable("never".to_owned()) };
    assert_eq!(dispatcher.decide(20), [refused(request)]);
    // Others are served, and this one is not tried again at once.
    let other = dispatcher.arrive(BASE, 30).unwrap();
    let again = dispatcher.arrive(1, 31).unwrap();
    assert_eq!(dispatcher.decide(31), [refused(again), send(other, 0)]);
    let later = dispatcher.arrive(1, 5_020).unwrap();
    assert_eq!(dispatcher.decide(5_020), [load(1, 1)], "the pod that is less busy");
    dispatcher.loaded(1, 1, Ok(10), 5_030);
    assert_eq!(dispatcher.decide(5_030), [send(later, 1)]);
}

#[test]
fn what_no_slot_is_large_enough_for_and_what_an_old_engine_shall_not_load_is_refused_at_once() {
    let mut dispatcher = dispatcher(terms(), 1, engine());
    let wide = dispatcher.arrive(6, 0).unwrap();
    let [Order::Refuse { request, why: Refused::Unloadable(why) }] = &dispatcher.decide(0)[..] else { panic!() };
    assert_eq!((*request, why.as_str()), (wide, "its rank is 64, the pool's slots are for 16"));
    dispatcher.pod_down(0);
    dispatcher.pod_seen(0, Seen { no_loads: Some("0.25 is too old".to_owned()), ..seen(1, &[1]) }, 1);
    let [registered, other] = [1, 2].map(|adapter| dispatcher.arrive(adapter, 2).unwrap());
    let why = Refused::Unloadable("0.25 is too old".to_owned());
    assert_eq!(dispatcher.decide(2), [Order::Refuse { request: other, why }, send(registered, 0)]);
    // While no pod is up, nothing is known.
    dispatcher.pod_down(0);
    dispatcher.arrive(6, 3).unwrap();
    assert_eq!(dispatcher.decide(3), []);
}

#[test]
fn an_engine_that_restarted_is_told_by_what_it_lacks_and_gets_it_again_ahead() {
    let mut dispatcher = dispatcher(terms(), 1, engine());
    let request = dispatcher.arrive(1, 0).unwrap();
    assert_eq!(dispatcher.decide(0), [load(0, 1)]);
    // Asked before it was loaded, answered after.
    dispatcher.loaded(0, 1, Ok(50), 50);
    assert!(!dispatcher.pod_seen(0, seen(40, &[]), 60));
    assert_eq!(dispatcher.decide(60), [send(request, 0)]);
    assert!(dispatcher.pod_seen(0, seen(2_000, &[]), 2_000));
    assert_eq!(dispatcher.decide(2_000), [load(0, 1)], "nobody asks for it, but somebody may");
    // What ends now began on the engine that is gone.
    dispatcher.ended(request, Ended::Done, 2_010);
    let next = dispatcher.arrive(1, 2_020).unwrap();
    assert_eq!(dispatcher.decide(2_020), []);
    dispatcher.loaded(0, 1, Ok(50), 2_050);
    assert_eq!(dispatcher.decide(2_050), [send(next, 0)]);
}

#[test]
fn a_load_that_was_under_way_when_the_engine_died_counts_for_nothing() {
    let mut dispatcher = dispatcher(terms(), 1, engine());
    let request = dispatcher.arrive(1, 0).unwrap();
    assert_eq!(dispatcher.decide(0), [load(0, 1)]);
    dispatcher.pod_down(0);
    dispatcher.pod_seen(0, seen(10, &[]), 10);
    dispatcher.loaded(0, 1, Ok(5), 20);
    assert_eq!(dispatcher.decide(20), [load(0, 1)]);
    dispatcher.loaded(0, 1, Err(LoadFailed::Unreachable), 30);
    assert_eq!((dispatcher.is_up(0), dispatcher.decide(30).len(), dispatcher.waiting()), (false, 0, 1));
    dispatcher.ended(request, Ended::Done, 40);
    assert_eq!(dispatcher.waiting(), 0);
}

#[test]
fn an_engine_that_frees_what_it_unloads_is_told_to() {
    let terms = Terms { unloading: Unloading::Frees, ..terms() };
    let mut dispatcher = dispatcher(terms, 1, EnginePod { slots: 1, ..engine() });
    let mut orders = Vec::new();
    for (now, adapter) in [(0, 1), (1_000, 2), (2_000, 1)] {
        let request = dispatcher.arrive(adapter, now).unwrap();
        for order in dispatcher.decide(now) {
            if let Order::Load { adapter, unload, .. } = order {
                orders.push((adapter, unload));
                dispatcher.loaded(0, adapter, Ok(50), now + 50);
            }
        }
        dispatcher.decide(now + 50);
        dispatcher.ended(request, Ended::Done, now + 60);
    }
    assert!(orders.iter().all(|(adapter, unload)| unload.is_none_or(|gone| gone != *adapter)), "{orders:?}");
    assert_eq!(orders[0], (1, None));
    assert_eq!(orders[1].0, 2);
}

#[test]
fn what_is_retired_is_answered_to_its_end_and_not_loaded_ahead_and_a_pod_may_go_for_good() {
    let mut dispatcher = dispatcher(terms(), 1, engine());
    let request = dispatcher.arrive(1, 0).unwrap();
    dispatcher.retire_adapter(1);
    assert_eq!(dispatcher.decide(0), [load(0, 1)]);
    dispatcher.loaded(0, 1, Ok(50), 50);
    assert_eq!(dispatcher.decide(50), [send(request, 0)]);
    assert!(dispatcher.pod_seen(0, seen(2_000, &[]), 2_000));
    assert_eq!(dispatcher.decide(2_000), []);
    dispatcher.remove_pod(0);
    dispatcher.ended(request, Ended::Done, 2_010);
    assert!(!dispatcher.pod_seen(0, seen(2_020, &[]), 2_020));
    dispatcher.arrive(1, 2_030).unwrap();
    assert_eq!((dispatcher.decide(2_030), dispatcher.waiting()), (vec![], 1));
}

#[derive(Debug, Clone)]
enum Event {
    Arrive(AdapterId),
    End(usize, Ended),
    Loaded(usize, Result<Millis, LoadFailed>),
    Down(PodId),
    Seen(PodId),
    Wait(Millis),
}

fn event() -> impl Strategy<Value = Event> {
    let refused = || Err(LoadFailed::Refused("no".to_owned()));
    prop_oneof![
        6 => (0..7u32).prop_map(Event::Arrive),
        4 => (0..100usize).prop_map(|at| Event::End(at, Ended::Done)),
        1 => (0..100usize).prop_map(|at| Event::End(at, Ended::Broken)),
        4 => (0..100usize).prop_map(|at| Event::Loaded(at, Ok(20))),
        1 => (0..100usize).prop_map(move |at| Event::Loaded(at, refused())),
        1 => (0..100usize).prop_map(|at| Event::Loaded(at, Err(LoadFailed::Unreachable))),
        1 => (0..2u32).prop_map(Event::Down),
        2 => (0..2u32).prop_map(Event::Seen),
        4 => (0..2_000u64).prop_map(Event::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 256, ..ProptestConfig::default() })]

    /// Whatever fails: each request is sent or refused, never after it is over; a pod has no more adapters in use than
    /// slots since it was seen last, and none that was not loaded; nobody waits past his deadline.
    #[test]
    fn whatever_happens_each_request_ends_once(events in prop::collection::vec(event(), 1..200)) {
        let mut dispatcher = dispatcher(terms(), 2, engine());
        let mut now = 0;
        let mut waiting: BTreeMap<RequestId, (AdapterId, Millis)> = BTreeMap::new();
        let mut running: BTreeMap<RequestId, (AdapterId, Millis, PodId, u32)> = BTreeMap::new();
        let mut loads: Vec<(PodId, AdapterId)> = Vec::new();
        let mut epochs = [1u32, 1];
        // An engine here never forgets, so that every look at it finds all that was loaded.
        let mut registered = [BTreeSet::new(), BTreeSet::new()];
        for event in events {
            match event {
                Event::Arrive(adapter) => {
                    if let Some(request) = dispatcher.arrive(adapter, now) {
                        prop_assert!(waiting.insert(request, (adapter, now)).is_none());
                    }
                }
                Event::End(at, how) => {
                    let Some(request) = running.keys().nth(at % running.len().max(1)).copied() else { continue };
                    let (adapter, arrived, pod, epoch) = running.remove(&request).unwrap();
                    if how == Ended::Broken {
                        waiting.insert(request, (adapter, arrived));
                        epochs[pod as usize] += u32::from(epoch == epochs[pod as usize]);
                    }
                    dispatcher.ended(request, how, now);
                }
                Event::Loaded(at, how) => {
                    if loads.is_empty() { continue }
                    let (pod, adapter) = loads.remove(at % loads.len());
                    if how.is_ok() {
                        registered[pod as usize].insert(adapter);
                    }
                    if how == Err(LoadFailed::Unreachable) {
                        epochs[pod as usize] += 1;
                    }
                    dispatcher.loaded(pod, adapter, how, now);
                }
                Event::Down(pod) => {
                    epochs[pod as usize] += 1;
                    dispatcher.pod_down(pod);
                }
                Event::Seen(pod) => {
                    let registered: Vec<_> = registered[pod as usize].iter().copied().collect();
                    dispatcher.pod_seen(pod, seen(now, &registered), now);
                }
                Event::Wait(time) => now += time,
            }
            for order in dispatcher.decide(now) {
                match order {
                    Order::Load { pod, adapter, .. } => {
                        prop_assert!(dispatcher.is_up(pod) && adapter != 6 && adapter != BASE);
                        loads.push((pod, adapter));
                    }
                    Order::Send { request, pod } => {
                        let (adapter, arrived) = waiting.remove(&request).expect("it waits");
                        prop_assert!(adapter == BASE || registered[pod as usize].contains(&adapter));
                        running.insert(request, (adapter, arrived, pod, epochs[pod as usize]));
                        let used: BTreeSet<_> = running
                            .values()
                            .filter(|run| run.0 != BASE && (run.2, run.3) == (pod, epochs[pod as usize]))
                            .map(|run| run.0)
                            .collect();
                        prop_assert!(used.len() <= 2, "{used:?}");
                    }
                    Order::Refuse { request, .. } => {
                        prop_assert!(waiting.remove(&request).is_some());
                    }
                }
            }
            prop_assert_eq!(dispatcher.waiting(), waiting.len());
            prop_assert!(waiting.values().all(|(_, arrived)| now < arrived + 10_000));
        }
    }
}
