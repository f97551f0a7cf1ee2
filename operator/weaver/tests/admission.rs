//! What the queue in front of the engines promises, on random traffic: a model of pods beside it checks each decision.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};

use batos_weaver::{AdapterId, Admission, Decision, Knowledge, Limits, Millis, Origin, PodId, RequestId, Unloading};
use proptest::prelude::*;

/// All adapters are worth as much as their number; loads take 50 ms. Odd ones need the large slots of even pods.
struct Known;

const LOAD: Millis = 50;

impl Knowledge for Known {
    fn worth(&self, adapter: AdapterId, from: Origin) -> u64 {
        u64::from(adapter) * if from == Origin::Files { 2_000 } else { 1_000 }
    }

    fn load(&self, _: AdapterId, _: PodId) -> Millis {
        LOAD
    }

    fn misfit(&self, adapter: AdapterId, pod: PodId) -> Option<u64> {
        match (adapter % 2, pod % 2) {
            (1, 1) => None,
            (1, _) => Some(0),
            (_, pod) => Some(u64::from(1 - pod)),
        }
    }
}

/// Pods as the engine has them. Every request runs for as long as its number tells.
struct Pods {
    admission: Admission,
    slots: usize,
    seats: u32,
    now: Millis,
    held: BTreeMap<PodId, BTreeSet<AdapterId>>,
    pinned: BTreeSet<(PodId, AdapterId)>,
    loading: BTreeMap<(PodId, AdapterId), Millis>,
    running: BTreeMap<RequestId, (PodId, AdapterId, Millis)>,
    waiting: BTreeMap<RequestId, (AdapterId, Millis)>,
    runs: BTreeMap<RequestId, Millis>,
    /// How long each request waited, in the order of admission.
    waited: Vec<(AdapterId, RequestId, Millis)>,
    loads: Vec<(PodId, Millis)>,
}

impl Pods {
    fn new(pods: u32, slots: usize, seats: u32, limits: Limits, unloading: Unloading) -> Self {
        let mut admission = Admission::new(limits, unloading);
        (0..pods).for_each(|pod| admission.pod_up(pod, slots, seats, &BTreeSet::new(), 0));
        Self {
            admission,
            slots,
            seats,
            now: 0,
            held: (0..pods).map(|pod| (pod, BTreeSet::new())).collect(),
            pinned: BTreeSet::new(),
            loading: BTreeMap::new(),
            running: BTreeMap::new(),
            waiting: BTreeMap::new(),
            runs: BTreeMap::new(),
            waited: Vec::new(),
            loads: Vec::new(),
        }
    }

    fn arrive(&mut self, request: RequestId, adapter: AdapterId, runs: Millis) {
        self.waiting.insert(request, (adapter, self.now));
        self.runs.insert(request, runs);
        self.admission.arrive(request, adapter, self.now);
        self.decide();
    }

    fn in_use(&self, pod: PodId, adapter: AdapterId) -> bool {
        self.running.values().any(|(at, with, _)| (*at, *with) == (pod, adapter))
    }

    fn decide(&mut self) {
        for decision in self.admission.decide(self.now, &Known) {
            match decision {
                Decision::Load { pod, adapter, leaves, unload } => {
                    assert!(Known.misfit(adapter, pod).is_some(), "loaded where it does not fit");
                    assert!(!unload || leaves.is_some());
                    if let Some(gone) = leaves {
                        assert!(self.held.get_mut(&pod).unwrap().remove(&gone), "evicted what was not there");
                        assert!(!self.in_use(pod, gone), "evicted one in use");
                        assert!(!self.loading.contains_key(&(pod, gone)), "evicted one on its way");
                        assert!(!self.pinned.contains(&(pod, gone)), "evicted a pinned one");
                    }
                    assert!(self.held.get_mut(&pod).unwrap().insert(adapter), "loaded twice");
                    assert!(self.held[&pod].len() <= self.slots, "over the slots");
                    self.loading.insert((pod, adapter), self.now + LOAD);
                    self.loads.push((pod, self.now));
                }
                Decision::Admit { request, pod } => {
                    let (adapter, since) = self.waiting.remove(&request).expect("admitted twice");
                    assert!(self.held[&pod].contains(&adapter), "admitted without its adapter");
                    assert!(!self.loading.contains_key(&(pod, adapter)), "admitted before it is loaded");
                    let end = self.now + self.runs[&request];
                    self.running.insert(request, (pod, adapter, end));
                    let seats = self.running.values().filter(|(at, ..)| *at == pod).count();
                    assert!(seats <= self.seats as usize, "over the seats");
                    self.waited.push((adapter, request, self.now - since));
                }
            }
        }
    }

    /// Goes on to `until`, 10 ms a time.
    fn run(&mut self, until: Millis) {
        while self.now < until {
            self.now += 10;
            let done: Vec<_> =
                self.running.iter().filter(|(_, run)| run.2 <= self.now).map(|(id, run)| (*id, *run)).collect();
            for (request, (pod, adapter, _)) in done {
                self.running.remove(&request);
                self.admission.finished(pod, adapter, self.now);
            }
            let loaded: Vec<_> = self.loading.iter().filter(|(_, at)| **at <= self.now).map(|(key, _)| *key).collect();
            for (pod, adapter) in loaded {
                self.loading.remove(&(pod, adapter));
                self.admission.loaded(pod, adapter, true, self.now);
            }
            self.decide();
        }
    }
}

#[test]
fn at_most_as_many_adapters_as_slots_are_let_in_and_the_rest_waits_outside() {
    let mut pods = Pods::new(1, 2, 8, Limits::default(), Unloading::Frees);
    for adapter in 0..4 {
        pods.arrive(u64::from(adapter), adapter, 400);
    }
    pods.run(100);
    assert_eq!(pods.running.len(), 2);
    assert_eq!(pods.admission.queued(), 2);
    pods.run(1_000);
    assert_eq!(pods.admission.queued(), 0);
}

/// The cliff: adapters that always have requests would keep the others out for good.
#[test]
fn a_cold_adapter_gets_a_slot_while_hot_ones_never_pause() {
    let limits = Limits { patience: 500, ..Limits::default() };
    let mut pods = Pods::new(1, 2, 8, limits, Unloading::Frees);
    let longest = 1_000;
    let mut request = 0;
    for round in 0..200u64 {
        for adapter in [2, 4] {
            request += 1;
            pods.arrive(request, adapter, longest);
        }
        if round % 40 == 20 {
            request += 1;
            pods.arrive(request, 6, longest);
        }
        pods.run((round + 1) * 300);
    }
    pods.run(pods.now + 5_000);
    let cold: Vec<Millis> =
        pods.waited.iter().filter(|(adapter, ..)| *adapter == 6).map(|(_, _, waited)| *waited).collect();
    assert_eq!(cold.len(), 5);
    for waited in cold {
        assert!(waited <= limits.patience + longest + LOAD + 20, "{waited} ms");
    }
}

#[test]
fn a_busy_adapter_is_copied_when_waiting_has_cost_as_much_as_a_load() {
    let mut pods = Pods::new(3, 2, 2, Limits::default(), Unloading::Frees);
    pods.arrive(0, 2, 10);
    pods.run(1_000);
    for request in 1..5 {
        pods.arrive(request, 2, 1_000);
    }
    pods.run(1_000 + LOAD - 10);
    assert_eq!((pods.running.len(), pods.loads.len()), (2, 1), "one copy, its seats taken");
    pods.run(1_000 + 2 * LOAD);
    assert_eq!((pods.running.len(), pods.loads.len()), (4, 2), "a second for those that waited");
}

#[test]
fn the_adapter_that_is_worth_least_leaves_if_the_engine_frees_what_it_unloads() {
    for (unloading, last) in [(Unloading::Frees, 2), (Unloading::Forgets, 40)] {
        let mut pods = Pods::new(1, 2, 8, Limits::default(), unloading);
        for (request, adapter) in [(0, 40), (1, 2), (2, 6)] {
            pods.arrive(request, adapter, 100);
            pods.run((request + 1) * 500);
        }
        assert!(!pods.held[&0].contains(&last), "{unloading:?}: {:?}", pods.held);
    }
}

#[test]
fn loads_are_bounded_by_the_minute() {
    let limits = Limits { loads_per_minute: 30, ..Limits::default() };
    let mut pods = Pods::new(1, 1, 8, limits, Unloading::Frees);
    for request in 0..300 {
        pods.arrive(request, u32::try_from(request % 7).unwrap() * 2, 20);
        pods.run((request + 1) * 400);
    }
    for (_, from) in &pods.loads {
        let within = pods.loads.iter().filter(|(_, at)| (*from..from + 60_000).contains(at)).count();
        assert!(within <= 30 + 3 + 1, "{within} loads in a minute");
    }
}

#[test]
fn a_load_that_failed_frees_its_slot_and_the_request_goes_on_waiting() {
    let mut admission = Admission::new(Limits::default(), Unloading::Frees);
    admission.pod_up(0, 1, 8, &BTreeSet::new(), 0);
    admission.arrive(1, 2, 0);
    assert_eq!(admission.decide(0, &Known), [Decision::Load { pod: 0, adapter: 2, leaves: None, unload: false }]);
    admission.loaded(0, 2, false, 50);
    assert_eq!(admission.held(0).count(), 0);
    assert_eq!(admission.decide(50, &Known), [Decision::Load { pod: 0, adapter: 2, leaves: None, unload: false }]);
    admission.loaded(0, 2, true, 100);
    assert_eq!(admission.decide(100, &Known), [Decision::Admit { request: 1, pod: 0 }]);
    admission.pod_down(0);
    admission.finished(0, 2, 200);
    admission.arrive(2, 2, 200);
    assert_eq!(admission.decide(200, &Known), []);
}

#[test]
fn the_base_model_takes_seats_but_no_slot() {
    for unloading in [Unloading::Frees, Unloading::Forgets] {
        let mut admission = Admission::new(Limits::default(), unloading);
        admission.serve_base(100);
        admission.pod_up(0, 1, 2, &BTreeSet::new(), 0);
        admission.arrive(1, 100, 0);
        assert_eq!(admission.decide(0, &Known), [Decision::Admit { request: 1, pod: 0 }]);
        admission.finished(0, 100, 1);
        // The base model was used longest ago, and idle; it is not what leaves.
        for (request, adapter, now) in [(2, 2, 1_000), (3, 4, 2_000)] {
            admission.arrive(request, adapter, now);
            let [Decision::Load { leaves, .. }] = admission.decide(now, &Known)[..] else { panic!("{unloading:?}") };
            assert_eq!(leaves, (adapter == 4).then_some(2));
            admission.loaded(0, adapter, true, now);
            assert_eq!(admission.decide(now, &Known), [Decision::Admit { request, pod: 0 }]);
            admission.finished(0, adapter, now + 1);
        }
        (4..7).for_each(|request| admission.arrive(request, 100, 3_000));
        assert_eq!(admission.decide(3_000, &Known).len(), 2, "as many as there are seats");
    }
}

#[test]
fn a_request_that_is_cancelled_is_admitted_no_more_and_one_that_comes_again_keeps_its_place() {
    let mut admission = Admission::new(Limits::default(), Unloading::Frees);
    admission.pod_up(0, 1, 8, &BTreeSet::from([2]), 0);
    for request in 1..=4 {
        admission.arrive(request, 2, 10 * request);
    }
    assert!(admission.cancel(1, 2) && admission.cancel(3, 2));
    assert!(!admission.cancel(1, 2) && !admission.cancel(9, 2) && !admission.cancel(2, 7));
    admission.arrive(1, 2, 10);
    assert_eq!(admission.queued(), 3);
    let admitted = [1, 2, 4].map(|request| Decision::Admit { request, pod: 0 });
    assert_eq!(admission.decide(50, &Known), admitted);
}

#[derive(Debug, Clone)]
struct Asked {
    after: Millis,
    adapter: AdapterId,
    runs: Millis,
}

fn asked() -> impl Strategy<Value = Asked> {
    (0..300u64, 0..12u32, 10..800u64).prop_map(|(after, adapter, runs)| Asked { after, adapter, runs })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    /// Never over slots or seats, never evicts what is in use, on its way or pinned (checked at each decision); each
    /// adapter's requests in order; nobody starves; and the same traffic gives the same decisions.
    #[test]
    fn any_traffic_keeps_the_promises(
        traffic in prop::collection::vec(asked(), 1..120),
        pods in 1..4u32, slots in 1..4usize, seats in 1..5u32, patience in 0..2_000u64,
        forgets: bool,
    ) {
        let unloading = if forgets { Unloading::Forgets } else { Unloading::Frees };
        let limits = Limits { patience, loads_per_minute: 600, ..Limits::default() };
        let run = || {
            let mut model = Pods::new(pods, slots, seats, limits, unloading);
            for (request, Asked { after, adapter, runs }) in traffic.iter().enumerate() {
                model.run(model.now + after);
                model.arrive(request as u64, *adapter, *runs);
            }
            let arrived = model.now;
            // All that waits could run one after the other on one pod.
            let last = arrived + 130 * (800 + 2 * LOAD + 60_000 / 600) + patience;
            while model.admission.queued() > 0 && model.now < last {
                model.run(model.now + 10);
            }
            model
        };
        let model = run();
        prop_assert_eq!(model.admission.queued(), 0);
        prop_assert_eq!(model.waited.len(), traffic.len());
        for adapter in 0..12 {
            let order: Vec<RequestId> = model.waited.iter().filter(|w| w.0 == adapter).map(|w| w.1).collect();
            prop_assert!(order.is_sorted(), "{adapter}: {order:?}");
        }
        prop_assert_eq!(run().waited, model.waited);
    }

    #[test]
    fn a_pinned_adapter_stays(traffic in prop::collection::vec(asked(), 1..80), forgets: bool) {
        let unloading = if forgets { Unloading::Forgets } else { Unloading::Frees };
        let mut model = Pods::new(1, 2, 4, Limits { patience: 200, ..Limits::default() }, unloading);
        model.arrive(1_000, 2, 10);
        model.run(500);
        model.admission.pin(0, 2, true);
        model.pinned.insert((0, 2));
        for (request, Asked { after, adapter, runs }) in traffic.iter().enumerate() {
            model.run(model.now + after);
            model.arrive(request as u64, *adapter, *runs);
        }
        model.run(model.now + 1_000);
        prop_assert!(model.held[&0].contains(&2));
    }

    #[test]
    fn preloading_never_drives_out_what_is_worth_more(adapters in prop::collection::vec(0..30u32, 1..60)) {
        let mut model = Pods::new(1, 3, 4, Limits { loads_per_minute: 60_000, ..Limits::default() }, Unloading::Frees);
        for adapter in adapters {
            if let Some(Decision::Load { pod, adapter, leaves, .. }) = model.admission.preload(0, adapter, model.now, &Known) {
                prop_assert!(leaves.is_none_or(|gone| gone * 2 < adapter), "{leaves:?} for {adapter}");
                model.held.insert(0, model.admission.held(pod).collect());
                model.admission.loaded(pod, adapter, true, model.now);
                prop_assert!(model.held[&0].len() <= 3);
            }
            model.now += 1_000;
        }
    }
}
