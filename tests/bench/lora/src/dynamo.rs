//! NVIDIA Dynamo 1.6.1's control plane (`dynamo-llm`, `src/lora/`), re-implemented with its defaults: every 3 s, replicas by
//! share of load and hosts by rendezvous hashing (`routing/hrw.rs`) or min-cost flow (`routing/mcf_allocator.rs`); requests
//! go to the least busy pod that its filter leaves (`filter.rs`). Engines load at the first request. Hashes are ours
//! instead of BLAKE3's.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::engine::{Costs, Engine, Kind, SEATS};
use crate::flow::Flow;
use crate::peers::{engines, least_busy, rendezvous};
use crate::sim::{Policy, World};
use crate::workload::Scenario;

/// `timestep_secs` times `rate_window_multiplier`, in microseconds.
const WINDOW: u64 = 90_000_000;
/// `ema_alpha`.
const ALPHA: f64 = 0.3;
/// `scale_down_cooldown_ticks`.
const COOLDOWN: u64 = 3;
/// `gamma_load`, `beta_keep`, `overflow_cost`; `alpha_pref` is 1, and all pods are candidates (`candidate_m` is 16).
const LOAD: i64 = 1000;
const KEEP: i64 = 250;
const OVERFLOW: i64 = 1_000_000_000_000;

type Hosts = BTreeSet<usize>;

#[derive(Debug, Clone, Default, PartialEq)]
struct Route {
    hosts: Vec<usize>,
    active: bool,
}

#[derive(Default)]
pub struct Dynamo {
    min_cost_flow: bool,
    arrivals: BTreeMap<u32, VecDeque<u64>>,
    smoothed: BTreeMap<u32, f64>,
    table: BTreeMap<u32, Route>,
    scaled_down: BTreeMap<u32, u64>,
    ticks: u64,
    /// What the flow gave last, and for how many replicas.
    assigned: BTreeMap<u32, Hosts>,
    asked: BTreeMap<u32, usize>,
}

impl Policy for Dynamo {
    fn name(&self) -> String {
        if self.min_cost_flow { "dynamo mcf" } else { "dynamo hrw" }.to_owned()
    }

    fn engines(&self, scenario: &Scenario, costs: &Costs) -> Vec<Engine> {
        engines(Kind::Lru, scenario, costs)
    }

    fn arrive(&mut self, world: &mut World, request: usize) {
        let adapter = world.scenario.requests[request].adapter;
        self.arrivals.entry(adapter).or_default().push_back(world.now);
        let loaded = |pod: usize| world.pods[pod].gpu.contains(&adapter);
        // Its filter leaves a replica that is not loaded no request as long as another is loaded. Where adapters are loaded
        // on demand, as here and in its own simulation, a new replica would then never get its first, and crowds drown
        // the old one. In production a `DynamoModel` is loaded on all pods beforehand, so the preference is taken here
        // only while a loaded replica has a seat.
        let ready = |pod: usize| loaded(pod) && world.pods[pod].outstanding() < SEATS;
        let pod = match self.table.get(&adapter) {
            None => least_busy(world, adapter, loaded).or_else(|| least_busy(world, adapter, |_| true)),
            Some(Route { hosts, active: true }) => least_busy(world, adapter, |pod| hosts.contains(&pod) && ready(pod))
                .or_else(|| least_busy(world, adapter, |pod| hosts.contains(&pod))),
            Some(Route { hosts, .. }) => hosts.first().copied(),
        };
        world.send(request, pod.unwrap_or(0));
    }

    fn tick(&mut self, world: &mut World) {
        self.ticks += 1;
        let loads = self.loads(world.now);
        let slots = world.scenario.slots * world.pods.len();
        let mut known: BTreeSet<u32> = world.pods.iter().flat_map(|pod| pod.gpu.iter().copied()).collect();
        known.extend(loads.keys());
        let replicas = replicas(&loads, slots, world.pods.len());
        let idle: Vec<u32> = known.iter().copied().filter(|adapter| !loads.contains_key(adapter)).collect();
        if self.min_cost_flow {
            self.flow(world, &replicas, &idle);
        } else {
            self.hash(world, &replicas, &idle);
        }
        let dropped: Vec<u32> = loads.keys().copied().filter(|adapter| !replicas.contains_key(adapter)).collect();
        self.pin(world, &dropped, |_| true);
        self.table.retain(|adapter, _| known.contains(adapter));
    }
}

impl Dynamo {
    pub fn new(min_cost_flow: bool) -> Self {
        Self { min_cost_flow, ..Self::default() }
    }

    /// Arrivals in the window, smoothed, rounded; none at zero.
    fn loads(&mut self, now: u64) -> BTreeMap<u32, usize> {
        let mut loads = BTreeMap::new();
        for (adapter, times) in &mut self.arrivals {
            while times.front().is_some_and(|at| *at + WINDOW < now) {
                times.pop_front();
            }
            let count = times.len() as f64;
            let smoothed = self.smoothed.entry(*adapter).or_insert(count);
            *smoothed = ALPHA * count + (1.0 - ALPHA) * *smoothed;
            if smoothed.round() > 0.0 {
                loads.insert(*adapter, smoothed.round() as usize);
            }
        }
        loads
    }

    /// `apply_hysteresis`.
    fn cooled(&mut self, adapter: u32, desired: usize) -> usize {
        let current = self.table.get(&adapter).map_or(0, |route| route.hosts.len());
        if desired >= current {
            self.scaled_down.remove(&adapter);
            return desired;
        }
        match self.scaled_down.get_mut(&adapter) {
            Some(since) if self.ticks - *since < COOLDOWN => current,
            Some(since) => {
                *since = self.ticks;
                desired
            }
            None => {
                self.scaled_down.insert(adapter, self.ticks);
                current
            }
        }
    }

    /// `recompute_per_lora`.
    fn hash(&mut self, world: &World, replicas: &BTreeMap<u32, usize>, idle: &[u32]) {
        let mut used: Vec<usize> = world.pods.iter().map(|pod| pod.gpu.len()).collect();
        for (adapter, desired) in replicas {
            let wanted = self.cooled(*adapter, *desired);
            let prior = self.table.get(adapter).map(|route| route.hosts.clone()).unwrap_or_default();
            let own = |pod: usize| usize::from(world.pods[pod].gpu.contains(adapter));
            let full = |pod: usize| used[pod].saturating_sub(own(pod)) >= world.pods[pod].slots;
            let ranked = rendezvous(*adapter, world.pods.len());
            let kept = ranked.iter().filter(|pod| prior.contains(pod) && !full(**pod));
            let others = ranked.iter().filter(|pod| !prior.contains(pod) && !full(**pod));
            let mut hosts: Vec<usize> = kept.chain(others).copied().take(wanted).collect();
            if hosts.is_empty() {
                hosts = ranked.into_iter().take(wanted).collect();
            }
            for pod in &hosts {
                used[*pod] += 1 - own(*pod);
            }
            self.table.insert(*adapter, Route { hosts, active: true });
        }
        for adapter in idle {
            let hosts = rendezvous(*adapter, world.pods.len()).into_iter().take(1).collect();
            self.table.insert(*adapter, Route { hosts, active: false });
            self.scaled_down.remove(adapter);
        }
    }

    /// `recompute_mcf`: what changed is solved anew, the rest is frozen; if that leaves more unplaced than it must, all is.
    fn flow(&mut self, world: &World, replicas: &BTreeMap<u32, usize>, idle: &[u32]) {
        let mut wanted: BTreeMap<u32, usize> = BTreeMap::new();
        for (adapter, desired) in replicas {
            wanted.insert(*adapter, self.cooled(*adapter, *desired));
        }
        for adapter in idle {
            wanted.insert(*adapter, 1);
            self.scaled_down.remove(adapter);
        }
        let changed: BTreeSet<u32> = wanted
            .iter()
            .filter(|(adapter, n)| self.asked.get(adapter) != Some(n))
            .map(|(adapter, _)| *adapter)
            .collect();
        let (mut placed, over) = self.solve(world, &wanted, &changed);
        let all: BTreeSet<u32> = wanted.keys().copied().collect();
        let total: usize = wanted.values().sum();
        let floor = total.saturating_sub(world.pods.len() * world.scenario.slots);
        if over > floor && changed.len() < all.len() {
            let (again, fewer) = self.solve(world, &wanted, &all);
            if fewer < over {
                placed = again;
            }
        }
        for (adapter, hosts) in &placed {
            let active = replicas.contains_key(adapter);
            self.table.insert(*adapter, Route { hosts: hosts.iter().copied().collect(), active });
        }
        let unplaced: Vec<u32> = wanted.keys().copied().filter(|adapter| !placed.contains_key(adapter)).collect();
        self.assigned = placed;
        self.asked = wanted;
        self.pin(world, &unplaced, |adapter| replicas.contains_key(&adapter));
    }

    fn solve(
        &self,
        world: &World,
        wanted: &BTreeMap<u32, usize>,
        solved: &BTreeSet<u32>,
    ) -> (BTreeMap<u32, Hosts>, usize) {
        let pods = world.pods.len();
        let mut placed: BTreeMap<u32, Hosts> = BTreeMap::new();
        let mut used = vec![0usize; pods];
        for (adapter, replicas) in wanted.iter().filter(|(adapter, _)| !solved.contains(adapter)) {
            let kept: Hosts = self.assigned.get(adapter).into_iter().flatten().copied().take(*replicas).collect();
            kept.iter().for_each(|pod| used[*pod] += 1);
            if !kept.is_empty() {
                placed.insert(*adapter, kept);
            }
        }
        let open: Vec<(u32, usize)> = wanted
            .iter()
            .map(|(adapter, replicas)| {
                (*adapter, replicas.saturating_sub(placed.get(adapter).map_or(0, BTreeSet::len)))
            })
            .filter(|(_, missing)| *missing > 0)
            .collect();
        let demand: usize = open.iter().map(|(_, missing)| missing).sum();
        // Nodes: source, adapters, pods, overflow, sink.
        let pod_node = |pod: usize| 1 + open.len() + pod;
        let (overflow, sink) = (1 + open.len() + pods, 2 + open.len() + pods);
        let mut flow = Flow::new(sink + 1);
        let mut edges = Vec::new();
        for (at, (adapter, missing)) in open.iter().enumerate() {
            flow.edge(0, 1 + at, *missing as i64, 0);
            let frozen = placed.get(adapter).cloned().unwrap_or_default();
            for (rank, pod) in rendezvous(*adapter, pods).into_iter().enumerate() {
                if used[pod] >= world.pods[pod].slots || frozen.contains(&pod) {
                    continue;
                }
                let kept = self.assigned.get(adapter).is_some_and(|hosts| hosts.contains(&pod));
                let cost = rank as i64 + if kept { -KEEP } else { LOAD };
                edges.push((*adapter, pod, flow.edge(1 + at, pod_node(pod), 1, cost)));
            }
            flow.edge(1 + at, overflow, *missing as i64, OVERFLOW);
        }
        for (pod, used) in used.iter().enumerate() {
            flow.edge(pod_node(pod), sink, world.pods[pod].slots.saturating_sub(*used) as i64, 0);
        }
        flow.edge(overflow, sink, demand as i64, 0);
        flow.send(0, sink, demand as i64);
        let mut given = 0;
        for (adapter, pod, edge) in edges {
            if flow.sent(edge) > 0 {
                given += 1;
                placed.entry(adapter).or_default().insert(pod);
            }
        }
        (placed, demand - given)
    }

    /// Adapters without a place stay where they are warm, else one pod with a slot that nobody was given, else the first
    /// by hash.
    fn pin(&mut self, world: &World, adapters: &[u32], active: impl Fn(u32) -> bool) {
        let mut projected = vec![0usize; world.pods.len()];
        for (_, route) in self.table.iter().filter(|(adapter, _)| !adapters.contains(adapter)) {
            route.hosts.iter().for_each(|pod| projected[*pod] += 1);
        }
        for adapter in adapters {
            let prior = self.table.get(adapter).map(|route| route.hosts.clone()).unwrap_or_default();
            let mut hosts: Vec<usize> =
                prior.into_iter().filter(|pod| world.pods[*pod].gpu.contains(adapter)).collect();
            if hosts.is_empty() {
                let ranked = rendezvous(*adapter, world.pods.len());
                let free = ranked.iter().find(|pod| projected[**pod] < world.pods[**pod].slots);
                hosts = free.or(ranked.first()).copied().into_iter().collect();
            }
            hosts.iter().for_each(|pod| projected[*pod] += 1);
            self.table.insert(*adapter, Route { hosts, active: active(*adapter) });
        }
    }
}

/// `compute_active_replica_counts`: slots by share of load, one at least, for the adapters of the highest loads.
fn replicas(loads: &BTreeMap<u32, usize>, slots: usize, pods: usize) -> BTreeMap<u32, usize> {
    let mut ranked: Vec<(u32, usize)> = loads.iter().map(|(adapter, load)| (*adapter, *load)).collect();
    ranked.sort_by_key(|(adapter, load)| (std::cmp::Reverse(*load), *adapter));
    ranked.truncate(slots);
    let total: usize = ranked.iter().map(|(_, load)| load).sum();
    let raw: Vec<(u32, f64)> = ranked
        .into_iter()
        .map(|(adapter, load)| {
            let share = (load as f64 / total as f64 * slots as f64).ceil().max(1.0);
            (adapter, share.min(pods as f64))
        })
        .collect();
    let sum: f64 = raw.iter().map(|(_, count)| count).sum();
    if sum <= slots as f64 {
        return raw.into_iter().map(|(adapter, count)| (adapter, count as usize)).collect();
    }
    let scale = slots as f64 / sum;
    let mut floored: Vec<(u32, usize, f64)> = raw
        .into_iter()
        .map(|(adapter, count)| {
            let count = (count * scale).max(1.0);
            (adapter, count.floor() as usize, count.fract())
        })
        .collect();
    let mut left = slots.saturating_sub(floored.iter().map(|(_, count, _)| count).sum());
    floored.sort_by(|a, b| b.2.total_cmp(&a.2).then(a.0.cmp(&b.0)));
    for (_, count, _) in &mut floored {
        if left == 0 {
            break;
        }
        if *count < pods {
            *count += 1;
            left -= 1;
        }
    }
    floored.into_iter().map(|(adapter, count, _)| (adapter, count.clamp(1, pods))).collect()
}
