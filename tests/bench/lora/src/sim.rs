//! The clock: arrivals, ends of steps, and ticks of control planes, in order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::engine::{Costs, Counts, Engine, Load};
use crate::workload::Scenario;

/// What a control plane sees, and what it does.
pub struct World<'a> {
    /// Microseconds.
    pub now: u64,
    pub scenario: &'a Scenario,
    pub costs: &'a Costs,
    pub pods: Vec<Engine>,
    /// Pods in whose slots the adapter was when the request came, as bits.
    ready: Vec<u64>,
    busy: Vec<bool>,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    count: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrival(usize),
    StepEnd(usize),
    Tick,
}

/// A policy: engines, and who sends what where.
pub trait Policy {
    fn name(&self) -> String;
    fn engines(&self, scenario: &Scenario, costs: &Costs) -> Vec<Engine>;
    fn arrive(&mut self, world: &mut World, request: usize);
    fn finished(&mut self, _world: &mut World, _pod: usize, _adapter: u32) {}
    fn loaded(&mut self, _world: &mut World, _pod: usize, _adapter: u32) {}
    /// After each event, and every 10 ms.
    fn decide(&mut self, _world: &mut World) {}
    /// Every 3 s.
    fn tick(&mut self, _world: &mut World) {}
}

impl World<'_> {
    fn at(&mut self, time: u64, event: Event) {
        self.count += 1;
        self.events.push(Reverse((time, self.count, event)));
    }

    pub fn send(&mut self, request: usize, pod: usize) {
        let asked = self.scenario.requests[request];
        self.pods[pod].push(request, asked.adapter, asked.prompt, asked.output);
    }

    pub fn load(&mut self, pod: usize, load: Load) {
        self.pods[pod].loads.push_back(load);
    }
}

#[derive(Debug, Clone, Default)]
pub struct Score {
    pub policy: String,
    /// Microseconds.
    pub p50: u64,
    pub p99: u64,
    pub longest: u64,
    /// Requests of a hundred that a pod served in whose slot the adapter was when they came.
    pub hits: f64,
    pub loads: f64,
    pub reads: f64,
    /// Requests of a thousand that waited for over ten seconds.
    pub starved: f64,
    /// GiB of slots without weights, over time and all pods.
    pub wasted: f64,
    /// Answers a second.
    pub answered: f64,
}

const TICK: u64 = 3_000_000;
const POLL: u64 = 10_000;

pub fn run(scenario: &Scenario, costs: &Costs, policy: &mut dyn Policy) -> Score {
    let pods = policy.engines(scenario, costs);
    let busy = vec![false; pods.len()];
    let mut world = World {
        now: 0,
        scenario,
        costs,
        pods,
        ready: vec![0; scenario.requests.len()],
        busy,
        events: BinaryHeap::new(),
        count: 0,
    };
    for (request, asked) in scenario.requests.iter().enumerate() {
        world.at(asked.at, Event::Arrival(request));
    }
    world.at(POLL, Event::Tick);
    let warm = scenario.seconds * 100_000;
    let end = scenario.seconds * 1_000_000;
    let mut pending: Vec<Option<crate::engine::Step>> = (0..world.pods.len()).map(|_| None).collect();
    let mut first: Vec<u64> = vec![u64::MAX; scenario.requests.len()];
    let (mut at_warm, mut wasted, mut samples, mut answered, mut hits) = (None, 0.0, 0u64, 0u64, 0u64);
    while let Some(Reverse((now, _, event))) = world.events.pop() {
        if now > end {
            break;
        }
        world.now = now;
        if at_warm.is_none() && now >= warm {
            at_warm = Some(total(&world));
        }
        match event {
            Event::Arrival(request) => {
                let adapter = scenario.requests[request].adapter;
                let bit = |(id, pod): (usize, &Engine)| u64::from(pod.gpu.contains(&adapter)) << id;
                world.ready[request] = world.pods.iter().enumerate().map(bit).sum();
                policy.arrive(&mut world, request);
            }
            Event::StepEnd(pod) => {
                world.busy[pod] = false;
                let step = pending[pod].take().unwrap_or_default();
                for request in step.first_tokens {
                    first[request] = now - scenario.requests[request].at;
                    hits += u64::from(scenario.requests[request].at >= warm) & (world.ready[request] >> pod);
                }
                for adapter in step.loaded {
                    policy.loaded(&mut world, pod, adapter);
                }
                for job in step.finished {
                    answered += u64::from(now >= warm);
                    policy.finished(&mut world, pod, job.adapter);
                }
            }
            Event::Tick => {
                if now % TICK < POLL {
                    policy.tick(&mut world);
                }
                if now >= warm && now % 1_000_000 < POLL {
                    samples += 1;
                    wasted += waste(&world);
                }
                world.at(now + POLL, Event::Tick);
            }
        }
        policy.decide(&mut world);
        for (pod, pending) in pending.iter_mut().enumerate() {
            if !world.busy[pod] && world.pods[pod].has_work() {
                let step = world.pods[pod].step(&scenario.ranks, costs);
                world.busy[pod] = true;
                world.at(now + step.takes.max(1), Event::StepEnd(pod));
                *pending = Some(step);
            }
        }
    }
    let mut waits: Vec<u64> = Vec::new();
    for (request, asked) in scenario.requests.iter().enumerate() {
        if asked.at >= warm {
            // One that has no answer yet has waited until now at least.
            waits.push(if first[request] == u64::MAX { end.saturating_sub(asked.at) } else { first[request] });
        }
    }
    waits.sort_unstable();
    let part =
        |thousandths: usize| waits.get((waits.len().saturating_sub(1)) * thousandths / 1000).copied().unwrap_or(0);
    let counts = total(&world);
    let before = at_warm.unwrap_or_default();
    let started = (counts.started - before.started).max(1) as f64;
    Score {
        policy: policy.name(),
        p50: part(500),
        p99: part(990),
        longest: part(1000),
        hits: hits as f64 * 100.0 / waits.len().max(1) as f64,
        loads: (counts.activations - before.activations) as f64 * 1000.0 / started,
        reads: (counts.reads - before.reads) as f64 * 1000.0 / started,
        starved: waits.iter().filter(|wait| **wait > 10_000_000).count() as f64 * 1000.0 / waits.len().max(1) as f64,
        wasted: wasted / samples.max(1) as f64,
        answered: answered as f64 / (scenario.seconds as f64 * 0.9),
    }
}

fn total(world: &World) -> Counts {
    world.pods.iter().fold(Counts::default(), |sum, pod| Counts {
        activations: sum.activations + pod.counts.activations,
        reads: sum.reads + pod.counts.reads,
        started: sum.started + pod.counts.started,
    })
}

fn waste(world: &World) -> f64 {
    let unit = world.costs.unit as f64 / (1u64 << 30) as f64;
    let of = |pod: &Engine| {
        let held: u64 = pod.gpu.iter().map(|adapter| world.scenario.ranks[*adapter as usize]).sum();
        (pod.slots as u64 * pod.max_rank).saturating_sub(held) as f64 * unit
    };
    world.pods.iter().map(of).sum()
}
