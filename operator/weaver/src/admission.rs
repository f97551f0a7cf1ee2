//! Which request goes to which pod, and when: the queue in front of the engines.
//!
//! An engine steps through at most `max_loras` adapters at once. Given requests for more it leaves some waiting behind
//! whatever runs, for as long as that keeps coming (the residency cliff; CLIMB, ICML 2026). So each pod gets requests for
//! no more adapters than it has slots, and the rest waits here, where it has an order:
//!
//! - The oldest request that can go, goes, to the pod that has its adapter and is least busy.
//! - An adapter that is on no pod is loaded over the idle one that is worth least. One whose pods are all busy gets a
//!   further copy only after its request has waited as long as the load takes: the ski rental rule, never over twice the
//!   best that hindsight would do.
//! - A request that has waited for [`Limits::patience`] claims a slot: an adapter in use there whose own requests are all
//!   younger is given no more, and the slot is free as soon as what runs is done. So nobody waits longer than patience,
//!   the longest running request and a load, times the claims before his for each slot, while pods may load.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::{AdapterId, Millis, PodId};

pub type RequestId = u64;

/// What bounds admission. Times in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// A request that waited for this long claims a slot.
    pub patience: Millis,
    /// Loads of one pod in a minute: each stalls all that it serves.
    pub loads_per_minute: u32,
    /// What one request more costs the others at a pod, to weigh against a load.
    pub busy: Millis,
    /// What it costs to take a slot twice as large as the adapter needs; thrice, twice as much.
    pub misfit: Millis,
}

impl Default for Limits {
    fn default() -> Self {
        Self { patience: 1_000, loads_per_minute: 240, busy: 10, misfit: 40 }
    }
}

/// What is known of an adapter: how much a pod loses without it, and what loading it takes.
pub trait Knowledge {
    /// Stall that having it ready saves, in milliseconds in a million seconds: its rate times what it takes to activate it
    /// from host memory, or to load it from its files.
    fn worth(&self, adapter: AdapterId, from: Origin) -> u64;
    /// Stall of loading it into a slot of the pod, in milliseconds.
    fn load(&self, adapter: AdapterId, pod: PodId) -> Millis;
    /// None if the pod's slots are too small for it; else how many times over they could hold it, less one.
    fn misfit(&self, adapter: AdapterId, pod: PodId) -> Option<u64>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Host,
    Files,
}

/// What the caller has to do, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Load `adapter`, and tell [`Admission::loaded`]. `leaves` is what loses its slot by that: with `unload` it has to be
    /// unloaded before, else the engine drops it by itself, as the one used longest ago, and keeps it in host memory.
    Load { pod: PodId, adapter: AdapterId, leaves: Option<AdapterId>, unload: bool },
    /// Send the request, and tell [`Admission::finished`].
    Admit { request: RequestId, pod: PodId },
}

/// What an engine does when it is told to unload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unloading {
    /// Frees slot and host memory (vLLM's Rust front end).
    #[default]
    Frees,
    /// Forgets the name only (vLLM's Python front end): what leaves a slot is always the one used longest ago.
    Forgets,
}

/// Which adapter leaves a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Leaves {
    None,
    /// The engine's own choice.
    Oldest(AdapterId),
    Unloaded(AdapterId),
}

impl Leaves {
    fn adapter(self) -> Option<AdapterId> {
        match self {
            Self::None => None,
            Self::Oldest(adapter) | Self::Unloaded(adapter) => Some(adapter),
        }
    }

    fn decision(self, pod: PodId, adapter: AdapterId) -> Decision {
        Decision::Load { pod, adapter, leaves: self.adapter(), unload: matches!(self, Self::Unloaded(_)) }
    }
}

#[derive(Debug, Clone, Default)]
struct Slot {
    running: u32,
    loading: bool,
    pinned: bool,
    /// It is the base model, which every pod has and which takes no slot.
    base: bool,
    used: Millis,
    /// Whose claim it is: no more requests for the adapter that is in it.
    claimed_by: Option<AdapterId>,
}

#[derive(Debug, Clone)]
struct Pod {
    slots: usize,
    /// Requests that it takes at once (`--max-num-seqs`).
    seats: u32,
    held: BTreeMap<AdapterId, Slot>,
    /// Loads that it may still do, in 60000ths, and since when.
    credit: u64,
    credited: Millis,
}

const LOAD: u64 = 60_000;
/// What leaves is taken to be asked for again within a minute or so: a million seconds over this.
const AGAIN: u64 = 16_000;

impl Pod {
    /// Seats taken, one for each load under way included.
    fn taken(&self) -> u32 {
        self.held.values().map(|slot| slot.running + u32::from(slot.loading)).sum()
    }

    fn has_seat(&self) -> bool {
        self.taken() < self.seats
    }

    fn has_slot(&self) -> bool {
        self.held.values().filter(|slot| !slot.base).count() < self.slots
    }
}

/// The less of two, where there may be none yet.
fn least<T: Ord>(best: Option<T>, other: T) -> Option<T> {
    match best {
        Some(best) => Some(best.min(other)),
        None => Some(other),
    }
}

/// The queue in front of a pool's engines.
#[derive(Debug, Clone)]
pub struct Admission {
    limits: Limits,
    unloading: Unloading,
    base: Option<AdapterId>,
    pods: BTreeMap<PodId, Pod>,
    waiting: BTreeMap<AdapterId, VecDeque<(Millis, RequestId)>>,
    /// The oldest request of each adapter that waits.
    heads: BTreeSet<(Millis, RequestId, AdapterId)>,
}

impl Admission {
    pub fn new(limits: Limits, unloading: Unloading) -> Self {
        let (pods, waiting) = (BTreeMap::new(), BTreeMap::new());
        Self { limits, unloading, base: None, pods, waiting, heads: BTreeSet::new() }
    }

    /// Requests for the base model itself bear this number. Pods that come up from now on serve it.
    pub fn serve_base(&mut self, base: AdapterId) {
        self.base = Some(base);
    }

    /// A pod serves, with these adapters in its slots. One that was known already starts anew.
    pub fn pod_up(&mut self, pod: PodId, slots: usize, seats: u32, held: &BTreeSet<AdapterId>, now: Millis) {
        let slot = |adapter: &AdapterId| (*adapter, Slot { used: now, ..Slot::default() });
        let base = self.base.map(|base| (base, Slot { base: true, ..Slot::default() }));
        let held = held.iter().map(slot).chain(base).collect();
        // A tenth of a minute's loads at once.
        let credit = u64::from(self.limits.loads_per_minute) * LOAD / 10;
        self.pods.insert(pod, Pod { slots, seats, held, credit, credited: now });
    }

    /// A pod is gone. Its requests are lost to the caller, who may ask again for them.
    pub fn pod_down(&mut self, pod: PodId) {
        self.pods.remove(&pod);
    }

    /// A pinned adapter keeps its slot at the pod.
    pub fn pin(&mut self, pod: PodId, adapter: AdapterId, pinned: bool) {
        if let Some(slot) = self.pods.get_mut(&pod).and_then(|pod| pod.held.get_mut(&adapter)) {
            slot.pinned = pinned;
        }
    }

    /// A request came. Ids grow with time; one that lost its pod may come again, with the time at which it came first.
    pub fn arrive(&mut self, request: RequestId, adapter: AdapterId, arrived: Millis) {
        let queue = self.waiting.entry(adapter).or_default();
        let at = queue.partition_point(|before| *before < (arrived, request));
        queue.insert(at, (arrived, request));
        if at == 0 {
            if let Some((arrived, request)) = queue.get(1) {
                self.heads.remove(&(*arrived, *request, adapter));
            }
            self.heads.insert((arrived, request, adapter));
        }
    }

    /// Nobody wants the request any more. False if it does not wait.
    pub fn cancel(&mut self, request: RequestId, adapter: AdapterId) -> bool {
        let found = self.waiting.get(&adapter).and_then(|queue| queue.iter().position(|(_, id)| *id == request));
        found.is_some_and(|at| {
            self.take(adapter, at);
            true
        })
    }

    /// Takes a request out of its queue.
    fn take(&mut self, adapter: AdapterId, at: usize) {
        let Some(queue) = self.waiting.get_mut(&adapter) else { return };
        let Some((arrived, request)) = queue.remove(at) else { return };
        if self.heads.remove(&(arrived, request, adapter))
            && let Some((arrived, request)) = queue.front()
        {
            self.heads.insert((*arrived, *request, adapter));
        }
        if queue.is_empty() {
            self.waiting.remove(&adapter);
        }
    }

    /// A load ended. One that failed frees the slot; its requests go on waiting.
    pub fn loaded(&mut self, pod: PodId, adapter: AdapterId, success: bool, now: Millis) {
        let Some(pod) = self.pods.get_mut(&pod) else { return };
        if let Some(slot) = pod.held.get_mut(&adapter) {
            slot.loading = false;
            slot.used = now;
        }
        if !success {
            pod.held.remove(&adapter);
        }
    }

    /// A request at the pod ended, well or not.
    pub fn finished(&mut self, pod: PodId, adapter: AdapterId, now: Millis) {
        if let Some(slot) = self.pods.get_mut(&pod).and_then(|pod| pod.held.get_mut(&adapter)) {
            slot.running = slot.running.saturating_sub(1);
            slot.used = now;
        }
    }

    /// Requests that wait.
    pub fn queued(&self) -> usize {
        self.waiting.values().map(VecDeque::len).sum()
    }

    /// Adapters in the pod's slots, those that are being loaded included.
    pub fn held(&self, pod: PodId) -> impl Iterator<Item = AdapterId> + '_ {
        let held = self.pods.get(&pod).into_iter().flat_map(|pod| &pod.held);
        held.filter(|(_, slot)| !slot.base).map(|(adapter, _)| *adapter)
    }

    /// Whether the adapter is in use at the pod, or about to be.
    pub fn in_use(&self, pod: PodId, adapter: AdapterId) -> bool {
        self.pods.get(&pod).and_then(|pod| pod.held.get(&adapter)).is_some_and(|slot| slot.running > 0 || slot.loading)
    }

    /// What can be done now. To be asked after each call above, and while requests wait at least every few milliseconds,
    /// for what depends on time alone.
    pub fn decide(&mut self, now: Millis, known: &dyn Knowledge) -> Vec<Decision> {
        let mut decisions = Vec::new();
        self.release_claims(now);
        let mut after = None;
        while let Some(head) = self.next_head(after) {
            after = Some(head);
            let (arrived, request, adapter) = head;
            let patient = now.saturating_sub(arrived) < self.limits.patience;
            if patient && !self.pods.values().any(Pod::has_seat) {
                break;
            }
            if let Some(pod) = self.holder(adapter, arrived) {
                self.admit(pod, head, now);
                decisions.push(Decision::Admit { request, pod });
            } else if let Some(decision) = self.load(arrived, adapter, now, known) {
                decisions.push(decision);
            } else if !patient {
                self.claim(arrived, adapter, now, known);
            }
        }
        decisions
    }

    /// The next oldest after this one. An admitted request's successor comes when its own age does.
    fn next_head(&self, after: Option<(Millis, RequestId, AdapterId)>) -> Option<(Millis, RequestId, AdapterId)> {
        use std::ops::Bound::{Excluded, Unbounded};
        match after {
            Some(after) => self.heads.range((Excluded(after), Unbounded)).next().copied(),
            None => self.heads.first().copied(),
        }
    }

    fn admit(&mut self, pod: PodId, head: (Millis, RequestId, AdapterId), now: Millis) {
        let (_, _, adapter) = head;
        self.take(adapter, 0);
        if let Some(slot) = self.pods.get_mut(&pod).and_then(|pod| pod.held.get_mut(&adapter)) {
            slot.running += 1;
            slot.used = now;
        }
    }

    /// The least busy pod that has the adapter and a seat; of equals one where it runs already, which takes no idle slot.
    fn holder(&self, adapter: AdapterId, arrived: Millis) -> Option<PodId> {
        let ready = self.pods.iter().filter_map(|(id, pod)| {
            let slot = pod.held.get(&adapter).filter(|slot| !slot.loading && pod.has_seat())?;
            // The claimer's own requests are older than what the slot's adapter has waiting.
            let free = slot.claimed_by.is_none_or(|by| self.head(by).is_none_or(|head| arrived < head));
            free.then_some((pod.taken(), slot.running == 0, *id))
        });
        ready.min().map(|(_, _, id)| id)
    }

    fn head(&self, adapter: AdapterId) -> Option<Millis> {
        self.waiting.get(&adapter).and_then(|queue| queue.front()).map(|(arrived, _)| *arrived)
    }

    fn load(&mut self, arrived: Millis, adapter: AdapterId, now: Millis, known: &dyn Knowledge) -> Option<Decision> {
        let holders = self.pods.values().filter_map(|pod| pod.held.get(&adapter)).count();
        if self.pods.values().any(|pod| pod.held.get(&adapter).is_some_and(|slot| slot.loading)) {
            return None;
        }
        let mut best = None;
        for (id, pod) in &self.pods {
            if !pod.has_seat() || pod.held.contains_key(&adapter) {
                continue;
            }
            let Some(misfit) = known.misfit(adapter, *id) else { continue };
            let claimed = pod.held.values().any(|slot| slot.claimed_by == Some(adapter));
            if self.credit(pod, now) < LOAD {
                continue;
            }
            let Some((loss, leaves)) = self.room(pod, adapter, known) else { continue };
            let load = known.load(adapter, *id);
            let taken = u64::from(pod.taken());
            // The load's stall falls on all that runs there, and what leaves has to come back.
            let price = load * (taken + 1) + loss / AGAIN;
            if holders > 0 && !claimed && now.saturating_sub(arrived) < price {
                continue;
            }
            // A large slot is one less for those that need it.
            let cost = price + self.limits.busy * taken + self.limits.misfit * misfit;
            best = least(best, (cost, *id, leaves));
        }
        let (_, id, leaves) = best?;
        self.fill(id, adapter, leaves, now);
        self.unclaim(adapter);
        Some(leaves.decision(id, adapter))
    }

    /// Puts an adapter into a slot, as the engine will.
    fn fill(&mut self, id: PodId, adapter: AdapterId, leaves: Leaves, now: Millis) {
        let Some(credit) = self.pods.get(&id).map(|pod| self.credit(pod, now)) else { return };
        let Some(pod) = self.pods.get_mut(&id) else { return };
        (pod.credit, pod.credited) = (credit.saturating_sub(LOAD), now);
        if let Some(gone) = leaves.adapter() {
            pod.held.remove(&gone);
        }
        pod.held.insert(adapter, Slot { loading: true, used: now, ..Slot::default() });
    }

    /// Loads that a pod may do now, in 60000ths: a tenth of a minute's at most.
    fn credit(&self, pod: &Pod, now: Millis) -> u64 {
        let rate = u64::from(self.limits.loads_per_minute);
        let earned = now.saturating_sub(pod.credited).saturating_mul(rate);
        pod.credit.saturating_add(earned).min((rate * LOAD / 10).max(LOAD))
    }

    /// A slot for the adapter, and what is lost with what leaves it: a free one; that of the adapter used longest ago, if
    /// it may leave; or, where unloading frees, that of the idle one whose loss is least, its copy in host memory included.
    fn room(&self, pod: &Pod, adapter: AdapterId, known: &dyn Knowledge) -> Option<(u64, Leaves)> {
        if pod.has_slot() {
            return Some((0, Leaves::None));
        }
        let idle = || pod.held.iter().filter(|(_, slot)| slot.running == 0 && !slot.loading && !slot.base);
        let may_leave = |slot: &Slot| !slot.pinned && slot.claimed_by.is_none_or(|by| by == adapter);
        let oldest = idle().min_by_key(|(held, slot)| (slot.used, **held)).filter(|(_, slot)| may_leave(slot));
        let oldest = oldest.map(|(held, _)| (known.worth(*held, Origin::Host), Leaves::Oldest(*held)));
        let unloaded = match self.unloading {
            Unloading::Forgets => None,
            Unloading::Frees => idle()
                .filter(|(_, slot)| may_leave(slot))
                .map(|(held, _)| (known.worth(*held, Origin::Files), Leaves::Unloaded(*held)))
                .min(),
        };
        oldest.into_iter().chain(unloaded).min()
    }

    /// Stops an adapter whose requests are all younger, so that its slot becomes free: the one with least to finish.
    fn claim(&mut self, arrived: Millis, adapter: AdapterId, now: Millis, known: &dyn Knowledge) {
        if self.pods.values().flat_map(|pod| pod.held.values()).any(|slot| slot.claimed_by == Some(adapter)) {
            return;
        }
        // Where it is, but all seats are taken, a slot more would be no seat more.
        if self.pods.values().any(|pod| pod.held.contains_key(&adapter)) {
            return;
        }
        let mut best = None;
        for (id, pod) in &self.pods {
            // Without a load to do, its slot would only stand idle.
            if known.misfit(adapter, *id).is_none() || self.credit(pod, now) < LOAD {
                continue;
            }
            for (held, slot) in &pod.held {
                let younger = self.head(*held).is_none_or(|head| head > arrived);
                if slot.base || slot.pinned || slot.claimed_by.is_some() || !younger {
                    continue;
                }
                let running = slot.running + u32::from(slot.loading);
                best = least(best, (running, known.worth(*held, Origin::Host), *id, *held));
            }
        }
        if let Some((_, _, id, held)) = best
            && let Some(slot) = self.pods.get_mut(&id).and_then(|pod| pod.held.get_mut(&held))
        {
            slot.claimed_by = Some(adapter);
        }
    }

    fn unclaim(&mut self, adapter: AdapterId) {
        for slot in self.pods.values_mut().flat_map(|pod| pod.held.values_mut()) {
            slot.claimed_by = slot.claimed_by.filter(|by| *by != adapter);
        }
    }

    /// Claims end when nobody waits for the claimer any more.
    fn release_claims(&mut self, now: Millis) {
        let (waiting, patience) = (&self.waiting, self.limits.patience);
        for slot in self.pods.values_mut().flat_map(|pod| pod.held.values_mut()) {
            slot.claimed_by = slot.claimed_by.filter(|by| {
                let head = waiting.get(by).and_then(|queue| queue.front());
                head.is_some_and(|(arrived, _)| now.saturating_sub(*arrived) >= patience)
            });
        }
    }

    /// Loads an adapter ahead of its requests: over an idle one that is worth less than half of it, on the least busy pod
    /// that is not asked to load anything else. None if there is no such, or the pod's loads are used up.
    pub fn preload(&mut self, pod: PodId, adapter: AdapterId, now: Millis, known: &dyn Knowledge) -> Option<Decision> {
        let state = self.pods.get(&pod)?;
        let spare = self.credit(state, now) >= 2 * LOAD && !state.held.values().any(|slot| slot.loading);
        if !spare || state.held.contains_key(&adapter) || known.misfit(adapter, pod).is_none() || !state.has_seat() {
            return None;
        }
        let (loss, leaves) = self.room(state, adapter, known)?;
        let copies = 1 + self.pods.values().filter(|pod| pod.held.contains_key(&adapter)).count() as u64;
        if leaves != Leaves::None && loss.saturating_mul(2) >= known.worth(adapter, Origin::Host) / copies {
            return None;
        }
        self.fill(pod, adapter, leaves, now);
        Some(leaves.decision(pod, adapter))
    }
}
