//! Where adapters should be, told ahead of their requests: homes, copies by load, and the few moves that are worth it.
//!
//! Each copy of an adapter has a value: the stall that it saves, shared by the copies there are. Copies of the highest value
//! get slots. A copy that is there keeps its slot unless another is worth more by [`Policy::advantage`] and it has stayed
//! for [`Policy::stay`]; nothing that is in use or pinned ever leaves. Ranks come in classes: pods with small slots take
//! what fits them, so that high ranks, which make every slot of their pod large, have the others for themselves.

use std::collections::{BTreeMap, BTreeSet};

use crate::forecast::Rate;
use crate::{AdapterId, Millis, PodId};

/// A pod and what is in its slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodState {
    pub id: PodId,
    pub slots: usize,
    /// Rank for which its slots are made.
    pub max_rank: u64,
    pub held: BTreeMap<AdapterId, Held>,
    /// Adapters in its host memory: to load one of them takes a copy only.
    pub staged: BTreeSet<AdapterId>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    pub in_use: bool,
    pub pinned: bool,
    pub since: Millis,
}

/// An adapter that may be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub id: AdapterId,
    pub rank: u64,
    /// How often it is asked for, now or soon.
    pub rate: Rate,
    /// What loading it takes, in milliseconds.
    pub load: Millis,
    /// Copies that it must have, however seldom it is asked for.
    pub least: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Requests in a million seconds that one copy serves well. A rate beyond it is worth a copy more.
    pub per_copy: Rate,
    /// How much more a newcomer must be worth than what it drives out, in hundredths.
    pub advantage: u64,
    /// How long a copy stays at least, in milliseconds.
    pub stay: Millis,
    /// Loads of one pod, and loads of all, in one plan.
    pub loads_per_pod: usize,
    pub loads: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Self { per_copy: 2_000_000, advantage: 200, stay: 30_000, loads_per_pod: 1, loads: 4 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Move {
    Evict { pod: PodId, adapter: AdapterId },
    Load { pod: PodId, adapter: AdapterId },
}

/// Why an adapter has no slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waits {
    /// The highest rank that any pod takes is lower than its own.
    Rank { highest: u64 },
    /// All slots of its class are used for what is worth more, or must not leave yet.
    NoSlot,
    /// Its turn comes with the next plans.
    Loads,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// In this order no pod ever has more than its slots, unless it had already.
    pub moves: Vec<Move>,
    /// Pods of each adapter once the moves are done.
    pub homes: BTreeMap<AdapterId, BTreeSet<PodId>>,
    /// Adapters without a home.
    pub waiting: BTreeMap<AdapterId, Waits>,
}

/// Plans the next moves. The same state gives the same plan, in whatever order pods and adapters are told. Done again and
/// again on what does not change, it soon has no moves left.
pub fn plan(pods: &[PodState], wanted: &[Wanted], policy: &Policy, now: Millis) -> Plan {
    let wanted: BTreeMap<AdapterId, &Wanted> = wanted.iter().map(|adapter| (adapter.id, adapter)).collect();
    let mut planner = Planner::new(pods, &wanted, policy, now);
    planner.drop_unwanted();
    planner.drop_surplus();
    // All first copies before any second of the same value: ties go to fewer copies, then to the lower number.
    let mut copies: Vec<(std::cmp::Reverse<bool>, std::cmp::Reverse<u64>, usize, AdapterId)> = Vec::new();
    for adapter in wanted.values() {
        for copy in 1..=planner.copies_wanted(adapter) {
            let must = copy <= adapter.least;
            copies.push((std::cmp::Reverse(must), std::cmp::Reverse(value(adapter, copy)), copy, adapter.id));
        }
    }
    copies.sort_unstable();
    for (std::cmp::Reverse(must), _, copy, id) in copies {
        if let Some(adapter) = wanted.get(&id)
            && planner.homes(id) < copy
        {
            planner.place(adapter, copy, must);
        }
    }
    planner.finish()
}

/// What the copy saves, in milliseconds in a million seconds.
fn value(adapter: &Wanted, copy: usize) -> u64 {
    adapter.rate.saturating_mul(adapter.load) / copy.max(1) as u64
}

/// A pool's load as it is known before any request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand {
    /// Adapters by rank.
    pub adapters: BTreeMap<u64, usize>,
    /// Adapters that are in use at once, on average, in hundredths.
    pub in_use: u64,
}

/// The rank that each of `pods` should be made for, all with the same bytes for slots: `units` times rank 1, such as four
/// slots of rank 64 are 256. Highest first; empty without pods or adapters.
///
/// Pods for the highest rank serve everybody, pods for the rank that three quarters of the adapters have at most hold many
/// more. So pods become small one by one for as long as not every adapter has a slot; but half of them stay large, for a
/// crowd may want a high rank, and so many that high ranks have slots for as many as are in use at once and three standard
/// deviations (square-root staffing).
pub fn classes(pods: usize, units: u64, demand: &Demand) -> Vec<u64> {
    let all: usize = demand.adapters.values().sum();
    let Some((&high, _)) = demand.adapters.last_key_value() else { return Vec::new() };
    let mut below = 0;
    let small = demand.adapters.iter().find_map(|(rank, count)| {
        below += count;
        (below * 4 >= all * 3).then_some(*rank)
    });
    let small = small.unwrap_or(high).max(1);
    let (many, few) = ((units / small) as usize, ((units / high.max(1)) as usize).max(1));
    let above = demand.in_use.saturating_mul((all - below) as u64) / all.max(1) as u64;
    let staffed = above.saturating_add(3 * (above.saturating_mul(100)).isqrt()).div_ceil(100).div_ceil(few as u64);
    let large = usize::try_from(staffed).unwrap_or(pods).max(pods.div_ceil(2)).min(pods);
    let enough = |large: &usize| large * few + (pods - large) * many >= all;
    let large = (large..=pods).rev().find(enough).unwrap_or(large);
    (0..pods).map(|pod| if pod < large { high } else { small }).collect()
}

struct Planner<'a> {
    pods: BTreeMap<PodId, PodState>,
    wanted: &'a BTreeMap<AdapterId, &'a Wanted>,
    policy: &'a Policy,
    now: Millis,
    moves: Vec<Move>,
    loads: BTreeMap<PodId, usize>,
    waiting: BTreeMap<AdapterId, Waits>,
}

impl<'a> Planner<'a> {
    fn new(pods: &[PodState], wanted: &'a BTreeMap<AdapterId, &'a Wanted>, policy: &'a Policy, now: Millis) -> Self {
        let pods = pods.iter().map(|pod| (pod.id, pod.clone())).collect();
        Self { pods, wanted, policy, now, moves: Vec::new(), loads: BTreeMap::new(), waiting: BTreeMap::new() }
    }

    /// Copies by load, one at least if it is asked for at all.
    fn copies_wanted(&self, adapter: &Wanted) -> usize {
        let by_load = usize::try_from(adapter.rate.div_ceil(self.policy.per_copy.max(1))).unwrap_or(usize::MAX);
        by_load.max(adapter.least).max(1).min(self.pods.len())
    }

    fn homes(&self, id: AdapterId) -> usize {
        self.pods.values().filter(|pod| pod.held.contains_key(&id)).count()
    }

    fn movable(held: &Held) -> bool {
        !held.in_use && !held.pinned
    }

    /// What nobody wants any more leaves first, and makes room.
    fn drop_unwanted(&mut self) {
        for (id, pod) in &mut self.pods {
            pod.held.retain(|adapter, held| {
                let stays = self.wanted.contains_key(adapter) || !Self::movable(held);
                if !stays {
                    self.moves.push(Move::Evict { pod: *id, adapter: *adapter });
                }
                stays
            });
        }
    }

    /// A pod with more than its slots, or with ranks above its own, was made smaller: what is worth least leaves.
    fn drop_surplus(&mut self) {
        for (id, pod) in &mut self.pods {
            let mut movable: Vec<(u64, AdapterId)> = pod
                .held
                .iter()
                .filter(|(_, held)| Self::movable(held))
                .filter_map(|(adapter, _)| self.wanted.get(adapter))
                .map(|adapter| (if adapter.rank > pod.max_rank { 0 } else { 1 + value(adapter, 1) }, adapter.id))
                .collect();
            movable.sort_unstable();
            for (worth, adapter) in movable {
                if worth > 0 && pod.held.len() <= pod.slots {
                    break;
                }
                pod.held.remove(&adapter);
                self.moves.push(Move::Evict { pod: *id, adapter });
            }
        }
    }

    fn place(&mut self, adapter: &Wanted, copy: usize, must: bool) {
        let highest = self.pods.values().map(|pod| pod.max_rank).max().unwrap_or(0);
        if adapter.rank > highest {
            self.waiting.insert(adapter.id, Waits::Rank { highest });
            return;
        }
        let mut why = Waits::NoSlot;
        let mut best = None;
        for (id, pod) in &self.pods {
            if pod.max_rank < adapter.rank || pod.held.contains_key(&adapter.id) {
                continue;
            }
            let Some((loss, evict)) = self.room(pod, value(adapter, copy), must) else { continue };
            if self.loads.values().sum::<usize>() >= self.policy.loads
                || self.loads.get(id).copied().unwrap_or(0) >= self.policy.loads_per_pod
            {
                why = Waits::Loads;
                continue;
            }
            // Small slots for small ranks; then what costs least; then the pod with the least to do.
            let busy: u64 = pod.held.keys().filter_map(|held| self.wanted.get(held)).map(|a| a.rate).sum();
            let order = (pod.max_rank, loss, !pod.staged.contains(&adapter.id), busy, *id, evict);
            best = match best {
                Some(best) => Some(order.min(best)),
                None => Some(order),
            };
        }
        let Some((.., id, evict)) = best else {
            if self.homes(adapter.id) == 0 {
                self.waiting.insert(adapter.id, why);
            }
            return;
        };
        let Some(pod) = self.pods.get_mut(&id) else { return };
        if let Some(evict) = evict {
            pod.held.remove(&evict);
            self.moves.push(Move::Evict { pod: id, adapter: evict });
        }
        pod.held.insert(adapter.id, Held { since: self.now, ..Held::default() });
        self.moves.push(Move::Load { pod: id, adapter: adapter.id });
        *self.loads.entry(id).or_default() += 1;
    }

    /// A slot for a copy of this value, and the value of what leaves.
    fn room(&self, pod: &PodState, value_of_newcomer: u64, must: bool) -> Option<(u64, Option<AdapterId>)> {
        if pod.held.len() < pod.slots {
            return Some((0, None));
        }
        if pod.held.len() > pod.slots {
            return None;
        }
        let leaves = pod.held.iter().filter_map(|(id, held)| {
            let adapter = self.wanted.get(id)?;
            let copies = self.homes(*id);
            let stayed = self.now.saturating_sub(held.since) >= self.policy.stay;
            let needed = copies <= adapter.least;
            let worth = value(adapter, copies);
            let less = u128::from(worth) * u128::from(self.policy.advantage) < u128::from(value_of_newcomer) * 100;
            let goes = Self::movable(held) && !needed && (must || (stayed && less));
            goes.then_some((worth, Some(*id)))
        });
        leaves.min()
    }

    fn finish(self) -> Plan {
        let mut homes: BTreeMap<AdapterId, BTreeSet<PodId>> = BTreeMap::new();
        for (id, pod) in &self.pods {
            for adapter in pod.held.keys().filter(|adapter| self.wanted.contains_key(adapter)) {
                homes.entry(*adapter).or_default().insert(*id);
            }
        }
        let mut waiting = self.waiting;
        // One may have been driven out after it was placed.
        for id in self.wanted.keys().filter(|id| !homes.contains_key(id)) {
            waiting.entry(*id).or_insert(Waits::NoSlot);
        }
        waiting.retain(|id, _| !homes.contains_key(id));
        Plan { moves: self.moves, homes, waiting }
    }
}
