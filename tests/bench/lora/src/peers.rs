//! Peers that send each request on at once.

use crate::engine::{Costs, Engine, Kind, SEATS};
use crate::sim::{Policy, World};
use crate::workload::{Scenario, mix};

/// Engines as all peers have them: slots for the highest rank there is.
pub fn engines(kind: Kind, scenario: &Scenario, costs: &Costs) -> Vec<Engine> {
    (0..scenario.pods).map(|_| Engine::new(kind, scenario.slots, costs.max_rank, scenario.ranks.len())).collect()
}

/// Pods by a hash with the adapter, highest first: rendezvous hashing.
pub fn rendezvous(adapter: u32, pods: usize) -> Vec<usize> {
    let mut ranked: Vec<usize> = (0..pods).collect();
    ranked.sort_by_key(|pod| std::cmp::Reverse(mix(u64::from(adapter) << 32 | *pod as u64)));
    ranked
}

/// The pod among these with the fewest requests outstanding; ties go by the adapter's hash.
pub fn least_busy(world: &World, adapter: u32, among: impl Fn(usize) -> bool) -> Option<usize> {
    let ranked = rendezvous(adapter, world.pods.len());
    ranked.into_iter().filter(|pod| among(*pod)).min_by_key(|pod| world.pods[*pod].outstanding())
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Route {
    /// The least busy pod that has the adapter in a slot, as long as it has a seat; else the least busy of all. What Ray
    /// Serve's multiplexing does (`serve/multiplex.py`), with full knowledge instead of two choices.
    Holders,
    /// KubeAI's consistent hashing with bounded loads: the first by hash whose load would be at most 125 % of the mean
    /// (`internal/loadbalancer/balance_chwbl.go`).
    BoundedHash,
    /// llm-d's affinity scorer: 1.0 if the adapter is active on the pod, 0.8 if the pod has fewer than `max_loras` active,
    /// 0.6 if it waits there, else 0; KServe gives it the weight 4, beside queue and occupancy with 2 each
    /// (`scheduling/scorer/loraaffinity`). Sees metrics without delay here.
    Affinity,
}

pub struct Peer {
    pub name: &'static str,
    pub kind: Kind,
    pub route: Route,
}

impl Policy for Peer {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn engines(&self, scenario: &Scenario, costs: &Costs) -> Vec<Engine> {
        engines(self.kind, scenario, costs)
    }

    fn arrive(&mut self, world: &mut World, request: usize) {
        let adapter = world.scenario.requests[request].adapter;
        let pod = match self.route {
            Route::Holders => {
                let holds =
                    |pod: usize| world.pods[pod].gpu.contains(&adapter) && world.pods[pod].outstanding() < SEATS;
                least_busy(world, adapter, holds).or_else(|| least_busy(world, adapter, |_| true))
            }
            Route::BoundedHash => {
                let all: usize = world.pods.iter().map(Engine::outstanding).sum();
                let bound = ((all + 1) * 125).div_ceil(100 * world.pods.len());
                let ranked = rendezvous(adapter, world.pods.len());
                ranked.into_iter().find(|pod| world.pods[*pod].outstanding() < bound)
            }
            Route::Affinity => {
                let longest = world.pods.iter().map(|pod| pod.waiting.len()).max().unwrap_or(0).max(1);
                let score = |pod: usize| {
                    let pod = &world.pods[pod];
                    let mut active: Vec<u32> = pod.running.iter().map(|job| job.adapter).collect();
                    active.sort_unstable();
                    active.dedup();
                    let affinity = if active.contains(&adapter) {
                        10
                    } else if active.len() < pod.slots {
                        8
                    } else if pod.waiting.iter().any(|job| job.adapter == adapter) {
                        6
                    } else {
                        0
                    };
                    // In thousandths.
                    4 * affinity * 100
                        + 2 * (1000 - 1000 * pod.waiting.len() / longest)
                        + 2 * (1000 - 1000 * pod.running.len() / SEATS)
                };
                // Ties at random; by the hash of the request here.
                let ranked = rendezvous(request as u32, world.pods.len());
                ranked.into_iter().rev().max_by_key(|pod| score(*pod))
            }
        };
        world.send(request, pod.unwrap_or(0));
    }
}
