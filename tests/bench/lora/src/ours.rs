//! batos: the weaver's own code, fed with what a router knows.

use std::collections::{BTreeMap, BTreeSet};

use batos_weaver::{
    Admission, Decision, Demand, Forecast, Held, Knowledge, Limits, Move, Origin, Pace, PodState, Policy as Placement,
    Unloading, Wanted, classes, plan,
};

use crate::engine::{Costs, Engine, Kind, Load, SEATS};
use crate::sim::{Policy, World};
use crate::workload::Scenario;

pub struct Ours {
    name: &'static str,
    unloading: Unloading,
    limits: Limits,
    /// Pods of two sizes of slots, in the same bytes.
    classes: bool,
    admission: Option<Admission>,
    forecast: Forecast,
    since: BTreeMap<(usize, u32), u64>,
}

impl Ours {
    pub fn new(name: &'static str, unloading: Unloading, classes: bool) -> Self {
        Self {
            name,
            unloading,
            limits: Limits::default(),
            classes,
            admission: None,
            forecast: Forecast::new(Pace::default(), 0),
            since: BTreeMap::new(),
        }
    }

    /// Slots and ranks of the pods. The split is by what is known before any request: the adapters' ranks, and the load
    /// that the pool is made for, as if all adapters had their share of it.
    fn sizes(&self, scenario: &Scenario, costs: &Costs) -> Vec<(usize, u64)> {
        if !self.classes {
            return vec![(scenario.slots, costs.max_rank); scenario.pods];
        }
        let in_use = (scenario.rate * costs.service() * 100.0) as u64;
        let mut adapters: BTreeMap<u64, usize> = BTreeMap::new();
        for rank in &scenario.ranks {
            *adapters.entry(*rank).or_default() += 1;
        }
        let units = scenario.slots as u64 * costs.max_rank;
        classes(scenario.pods, units, &Demand { adapters, in_use })
            .into_iter()
            .map(|rank| ((units / rank) as usize, rank))
            .collect()
    }
}

/// What the router knows of adapters and of the engines' caches, which it models.
struct Known<'a, 'b> {
    world: &'a World<'b>,
    forecast: &'a Forecast,
    now: u64,
}

impl Known<'_, '_> {
    /// Milliseconds.
    fn stall(&self, adapter: u32, read: bool) -> u64 {
        let rank = self.world.scenario.ranks[adapter as usize];
        let costs = self.world.costs;
        (costs.activating(rank) + if read { costs.reading(rank) } else { 0 }) / 1000
    }
}

impl Knowledge for Known<'_, '_> {
    fn worth(&self, adapter: u32, from: Origin) -> u64 {
        let stall = self.stall(adapter, from == Origin::Files);
        self.forecast.rate(adapter, self.now).saturating_mul(stall)
    }

    fn load(&self, adapter: u32, pod: u32) -> u64 {
        self.stall(adapter, !self.world.pods[pod as usize].host.contains(&adapter))
    }

    fn misfit(&self, adapter: u32, pod: u32) -> Option<u64> {
        let (slot, rank) = (self.world.pods[pod as usize].max_rank, self.world.scenario.ranks[adapter as usize]);
        // Ranks up to 16 are one class.
        (slot >= rank).then(|| slot / rank.max(16) - 1)
    }
}

impl Policy for Ours {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn engines(&self, scenario: &Scenario, costs: &Costs) -> Vec<Engine> {
        let adapters = scenario.ranks.len();
        let engine = |(slots, rank): (usize, u64)| Engine::new(Kind::Lru, slots, rank, adapters);
        self.sizes(scenario, costs).into_iter().map(engine).collect()
    }

    fn arrive(&mut self, world: &mut World, request: usize) {
        let now = world.now / 1000;
        let admission = self.admission.get_or_insert_with(|| {
            self.forecast = Forecast::new(Pace { day: world.scenario.day * 1000, ..Pace::default() }, 0);
            let mut admission = Admission::new(self.limits, self.unloading);
            for (id, pod) in world.pods.iter().enumerate() {
                admission.pod_up(id as u32, pod.slots, SEATS as u32, &BTreeSet::new(), now);
            }
            admission
        });
        let adapter = world.scenario.requests[request].adapter;
        self.forecast.observe(adapter, now);
        admission.arrive(request as u64, adapter, now);
    }

    fn finished(&mut self, world: &mut World, pod: usize, adapter: u32) {
        if let Some(admission) = &mut self.admission {
            admission.finished(pod as u32, adapter, world.now / 1000);
        }
    }

    fn loaded(&mut self, world: &mut World, pod: usize, adapter: u32) {
        if let Some(admission) = &mut self.admission {
            admission.loaded(pod as u32, adapter, true, world.now / 1000);
        }
    }

    fn decide(&mut self, world: &mut World) {
        let Some(admission) = &mut self.admission else { return };
        let now = world.now / 1000;
        let decisions = admission.decide(now, &Known { world, forecast: &self.forecast, now });
        decisions.into_iter().for_each(|decision| self.carry_out(world, decision));
    }

    fn tick(&mut self, world: &mut World) {
        let now = world.now / 1000;
        let Some(admission) = &mut self.admission else { return };
        let known = Known { world, forecast: &self.forecast, now };
        let pods: Vec<PodState> = (0..world.pods.len())
            .map(|id| PodState {
                id: id as u32,
                slots: world.pods[id].slots,
                max_rank: world.pods[id].max_rank,
                held: admission
                    .held(id as u32)
                    .map(|adapter| {
                        let since = self.since.get(&(id, adapter)).copied().unwrap_or(0);
                        (adapter, Held { in_use: admission.in_use(id as u32, adapter), pinned: false, since })
                    })
                    .collect(),
                staged: world.pods[id].host.iter().copied().collect(),
            })
            .collect();
        let wanted: Vec<Wanted> = (0..world.scenario.ranks.len() as u32)
            .map(|id| Wanted {
                id,
                rank: world.scenario.ranks[id as usize],
                rate: self.forecast.ahead(id, now, 10_000),
                load: known.stall(id, false),
                least: 0,
            })
            .filter(|wanted| wanted.rate > 0)
            .collect();
        let plan = plan(&pods, &wanted, &Placement::default(), now);
        let mut decisions = Vec::new();
        for step in plan.moves {
            if let Move::Load { pod, adapter } = step {
                decisions.extend(admission.preload(pod, adapter, now, &known));
            }
        }
        decisions.into_iter().for_each(|decision| self.carry_out(world, decision));
    }
}

impl Ours {
    fn carry_out(&mut self, world: &mut World, decision: Decision) {
        match decision {
            Decision::Admit { request, pod } => world.send(request as usize, pod as usize),
            Decision::Load { pod, adapter, leaves, unload } => {
                self.since.insert((pod as usize, adapter), world.now / 1000);
                world.load(pod as usize, Load { adapter, unload: leaves.filter(|_| unload) });
            }
        }
    }
}
