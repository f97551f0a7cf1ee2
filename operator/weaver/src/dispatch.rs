//! Requests from their arrival to their end, and pods that come, fail and come again: what a gateway does, without doing it.
//!
//! The caller tells what happens and carries out the [`Order`]s; [`Admission`] decides who goes where. What is added here:
//!
//! - A request waits for so long and no longer, and only so many wait.
//! - One whose pod failed before anything of the answer was sent on is sent to another pod, keeping its place in the queue,
//!   so many times. That pod gets nothing more until its engine has been looked at again.
//! - An adapter that an engine refuses is not tried there again for a while; when every pod refuses it, so are its requests,
//!   with the engine's words.
//! - An engine that lacks what it had has started anew: nothing of what was in its slots is believed any more.
//! - What the forecast wants is loaded ahead.
//!
//! Which adapters are in slots and in host memory is modelled, not observed: vLLM tells only what is registered.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;

use crate::admission::{Admission, Decision, Knowledge, Limits, Origin, RequestId, Unloading};
use crate::forecast::{Forecast, Pace};
use crate::placement::{Held, Move, PodState, Policy, Wanted, plan};
use crate::{AdapterId, Millis, PodId};

/// What a gateway keeps to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    pub limits: Limits,
    pub unloading: Unloading,
    /// Requests that may wait.
    pub queue: usize,
    /// How long a request may wait, in milliseconds.
    pub wait: Millis,
    /// Pods that one request is sent to at most.
    pub tries: u32,
}

/// An engine as its command line has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EnginePod {
    /// `--max-loras`
    pub slots: usize,
    /// `--max-cpu-loras`
    pub host: usize,
    /// `--max-num-seqs`
    pub seats: u32,
    /// `--max-lora-rank`
    pub max_rank: u64,
}

/// What an engine answered when it was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// When it was asked.
    pub asked: Millis,
    /// Adapters that it has registered, from the right files.
    pub registered: BTreeSet<AdapterId>,
    /// Why it shall not load adapters while it runs, if so.
    pub no_loads: Option<String>,
}

/// What the caller has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Unload `unload`, then load `adapter`, and tell [`Dispatcher::loaded`].
    Load { pod: PodId, adapter: AdapterId, unload: Option<AdapterId> },
    /// Send it to the pod, and tell [`Dispatcher::ended`].
    Send { request: RequestId, pod: PodId },
    /// Tell the client. The request is over.
    Refuse { request: RequestId, why: Refused },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// It has waited for as long as it may.
    Late,
    /// No pod takes its adapter, and why one of them does not.
    Unloadable(String),
    /// All pods that it was sent to failed.
    Broken,
}

/// How a request ended that was sent to a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Answered, or nobody wants it any more.
    Done,
    /// The pod failed before anything of the answer was sent on.
    Broken,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadFailed {
    /// The engine's words.
    Refused(String),
    Unreachable,
}

#[derive(Debug, Clone)]
struct Adapter {
    rank: u64,
    /// Nobody will ask for it any more.
    retired: bool,
    /// What loading it from its files took last, in milliseconds.
    load: Millis,
}

#[derive(Debug, Clone)]
struct Pod {
    engine: EnginePod,
    /// Counts how often it came up: what began before is nothing to it.
    epoch: u64,
    up: Option<Up>,
    refused: BTreeMap<AdapterId, Refusal>,
}

#[derive(Debug, Clone, Default)]
struct Up {
    no_loads: Option<String>,
    /// Since when, in milliseconds since 1970.
    registered: BTreeMap<AdapterId, Millis>,
    /// Host memory as the engine keeps it: the adapter used last at the end.
    host: VecDeque<AdapterId>,
    /// Since when an adapter is in a slot.
    since: BTreeMap<AdapterId, Millis>,
}

#[derive(Debug, Clone)]
struct Refusal {
    until: Millis,
    times: u32,
    why: String,
}

#[derive(Debug, Clone)]
struct Request {
    adapter: AdapterId,
    arrived: Millis,
    tries: u32,
    /// Pod and its epoch, once it has been sent.
    at: Option<(PodId, u64)>,
}

/// Before an adapter was ever loaded.
const LOAD: Millis = 200;
/// What is in host memory is there in a part of the time.
const FROM_HOST: u64 = 4;
/// An adapter that an engine refused is tried there again after this, then after twice as long, up to `LONGEST_REST`.
const REST: Millis = 5_000;
const LONGEST_REST: Millis = 300_000;
/// Between two looks ahead, and how far they go.
const PLAN: Millis = 1_000;
const AHEAD: Millis = 10_000;

struct Known<'a> {
    adapters: &'a BTreeMap<AdapterId, Adapter>,
    pods: &'a BTreeMap<PodId, Pod>,
    forecast: &'a Forecast,
    now: Millis,
}

impl Known<'_> {
    fn files(&self, adapter: AdapterId) -> Millis {
        self.adapters.get(&adapter).map_or(LOAD, |adapter| adapter.load)
    }
}

impl Knowledge for Known<'_> {
    fn worth(&self, adapter: AdapterId, from: Origin) -> u64 {
        let stall = match from {
            Origin::Files => self.files(adapter),
            Origin::Host => self.files(adapter) / FROM_HOST,
        };
        self.forecast.rate(adapter, self.now).saturating_mul(stall)
    }

    fn load(&self, adapter: AdapterId, pod: PodId) -> Millis {
        let up = self.pods.get(&pod).and_then(|pod| pod.up.as_ref());
        let in_host = up.is_some_and(|up| up.host.contains(&adapter));
        self.files(adapter) / if in_host { FROM_HOST } else { 1 }
    }

    fn misfit(&self, adapter: AdapterId, pod: PodId) -> Option<u64> {
        let rank = self.adapters.get(&adapter)?.rank;
        let pod = self.pods.get(&pod)?;
        // Ranks up to 16 are one class.
        pod.objection(adapter, rank, self.now).is_none().then(|| (pod.engine.max_rank / rank.max(16)).saturating_sub(1))
    }
}

impl Pod {
    /// Why it does not take the adapter now.
    fn objection(&self, adapter: AdapterId, rank: u64, now: Millis) -> Option<String> {
        if rank > self.engine.max_rank {
            return Some(format!("its rank is {rank}, the pool's slots are for {}", self.engine.max_rank));
        }
        if let Some(refusal) = self.refused.get(&adapter).filter(|refusal| refusal.until > now) {
            return Some(refusal.why.clone());
        }
        let up = self.up.as_ref()?;
        up.no_loads.clone().filter(|_| !up.registered.contains_key(&adapter))
    }

    fn touch(&mut self, adapter: AdapterId) {
        let most = self.engine.host;
        let Some(up) = &mut self.up else { return };
        up.host.retain(|held| *held != adapter);
        up.host.push_back(adapter);
        while up.host.len() > most {
            up.host.pop_front();
        }
    }
}

/// All that a gateway decides about requests and adapters.
#[derive(Debug, Clone)]
pub struct Dispatcher {
    terms: Terms,
    base: AdapterId,
    admission: Admission,
    forecast: Forecast,
    adapters: BTreeMap<AdapterId, Adapter>,
    pods: BTreeMap<PodId, Pod>,
    requests: BTreeMap<RequestId, Request>,
    /// Of those that wait.
    deadlines: BTreeSet<(Millis, RequestId)>,
    last: RequestId,
    /// Loads under way, and the epoch in which they began.
    loading: BTreeMap<(PodId, AdapterId), u64>,
    /// Adapters of which it may have become certain that no pod takes them.
    doubtful: BTreeSet<AdapterId>,
    /// Refusals that were decided before anybody asked for orders.
    broken: Vec<RequestId>,
    planned: Millis,
}

impl Dispatcher {
    /// Requests for the base model itself are those for `base`.
    pub fn new(terms: Terms, base: AdapterId, now: Millis) -> Self {
        let mut admission = Admission::new(terms.limits, terms.unloading);
        admission.serve_base(base);
        Self {
            terms,
            base,
            admission,
            forecast: Forecast::new(Pace::default(), now),
            adapters: BTreeMap::new(),
            pods: BTreeMap::new(),
            requests: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            last: 0,
            loading: BTreeMap::new(),
            doubtful: BTreeSet::new(),
            broken: Vec::new(),
            planned: now,
        }
    }

    /// An adapter may be asked for from now on, or again.
    pub fn add_adapter(&mut self, id: AdapterId, rank: u64) {
        let load = self.adapters.get(&id).map_or(LOAD, |adapter| adapter.load);
        self.adapters.insert(id, Adapter { rank, retired: false, load });
    }

    /// Nobody will ask for an adapter any more. Requests for it that are there go on; others push it out of its slots.
    pub fn retire_adapter(&mut self, id: AdapterId) {
        if let Some(adapter) = self.adapters.get_mut(&id) {
            adapter.retired = true;
        }
    }

    /// A pod is there; it serves once it has been seen.
    pub fn add_pod(&mut self, id: PodId, engine: EnginePod) {
        self.pods.insert(id, Pod { engine, epoch: 0, up: None, refused: BTreeMap::new() });
    }

    /// A pod is gone for good. What it is answering goes on.
    pub fn remove_pod(&mut self, id: PodId) {
        self.pod_down(id);
        self.pods.remove(&id);
    }

    /// Its engine answered. True if it serves anew: it did not before, or it has lost what it had.
    pub fn pod_seen(&mut self, id: PodId, seen: Seen, now: Millis) -> bool {
        let Some(pod) = self.pods.get_mut(&id) else { return false };
        let Seen { asked, registered, no_loads } = seen;
        if let Some(up) = &mut pod.up {
            // What was loaded after the question need not be in the answer.
            let lost = up.registered.iter().any(|(held, since)| *since < asked && !registered.contains(held));
            if !lost {
                registered.into_iter().for_each(|adapter| {
                    up.registered.entry(adapter).or_insert(asked);
                });
                up.no_loads = no_loads;
                return false;
            }
        }
        pod.epoch += 1;
        pod.refused.clear();
        let registered = registered.into_iter().map(|adapter| (adapter, asked)).collect();
        pod.up = Some(Up { no_loads, registered, ..Up::default() });
        self.admission.pod_up(id, pod.engine.slots, pod.engine.seats, &BTreeSet::new(), now);
        self.doubt_all();
        true
    }

    /// Its engine does not answer. What it is answering goes on. True if it served before.
    pub fn pod_down(&mut self, id: PodId) -> bool {
        let was_up = self.pods.get_mut(&id).and_then(|pod| pod.up.take()).is_some();
        if was_up {
            self.admission.pod_down(id);
            self.doubt_all();
        }
        was_up
    }

    fn doubt_all(&mut self) {
        let waiting = self.deadlines.iter().filter_map(|(_, id)| self.requests.get(id));
        self.doubtful = waiting.map(|request| request.adapter).collect();
    }

    /// A request came. None: too many wait.
    pub fn arrive(&mut self, adapter: AdapterId, now: Millis) -> Option<RequestId> {
        if self.deadlines.len() >= self.terms.queue {
            return None;
        }
        self.last += 1;
        let request = self.last;
        self.requests.insert(request, Request { adapter, arrived: now, tries: 0, at: None });
        if adapter != self.base {
            self.forecast.observe(adapter, now);
            self.doubtful.insert(adapter);
        }
        self.wait(request, adapter, now);
        Some(request)
    }

    fn wait(&mut self, request: RequestId, adapter: AdapterId, arrived: Millis) {
        self.deadlines.insert((arrived.saturating_add(self.terms.wait), request));
        self.admission.arrive(request, adapter, arrived);
    }

    /// A request ended, or its client left while it waited. One that is over already is nobody.
    pub fn ended(&mut self, id: RequestId, how: Ended, now: Millis) {
        let Some(mut request) = self.requests.remove(&id) else { return };
        let Request { adapter, arrived, .. } = request;
        let Some((pod, epoch)) = request.at.take() else {
            self.deadlines.remove(&(arrived.saturating_add(self.terms.wait), id));
            self.admission.cancel(id, adapter);
            return;
        };
        let same = self.pods.get(&pod).is_some_and(|pod| pod.epoch == epoch && pod.up.is_some());
        match how {
            Ended::Done if same => self.admission.finished(pod, adapter, now),
            Ended::Done => {}
            Ended::Broken => {
                if same {
                    self.pod_down(pod);
                }
                request.tries += 1;
                if request.tries >= self.terms.tries {
                    self.broken.push(id);
                    return;
                }
                self.requests.insert(id, request);
                self.doubtful.insert(adapter);
                self.wait(id, adapter, arrived);
            }
        }
    }

    /// A load ended, well after so many milliseconds.
    pub fn loaded(&mut self, id: PodId, adapter: AdapterId, how: Result<Millis, LoadFailed>, now: Millis) {
        let began = self.loading.remove(&(id, adapter));
        let Some(pod) = self.pods.get_mut(&id).filter(|pod| Some(pod.epoch) == began) else { return };
        let Some(up) = &mut pod.up else { return };
        let success = how.is_ok();
        match how {
            Ok(took) => {
                up.registered.insert(adapter, now);
                pod.refused.remove(&adapter);
                pod.touch(adapter);
                if let Some(adapter) = self.adapters.get_mut(&adapter) {
                    adapter.load = took.max(1);
                }
            }
            Err(LoadFailed::Refused(why)) => {
                let times = pod.refused.get(&adapter).map_or(0, |refusal| refusal.times);
                let rest = (REST << times.min(16)).min(LONGEST_REST);
                pod.refused.insert(adapter, Refusal { until: now.saturating_add(rest), times: times + 1, why });
                self.doubtful.insert(adapter);
            }
            Err(LoadFailed::Unreachable) => {
                self.pod_down(id);
            }
        }
        self.admission.loaded(id, adapter, success, now);
    }

    /// What is to be done now. To be asked after each call above, and again after [`Dispatcher::rest`].
    pub fn decide(&mut self, now: Millis) -> Vec<Order> {
        let broken = mem::take(&mut self.broken).into_iter();
        let mut orders: Vec<Order> = broken.map(|request| Order::Refuse { request, why: Refused::Broken }).collect();
        while let Some((deadline, request)) = self.deadlines.first().copied().filter(|(deadline, _)| *deadline <= now) {
            self.deadlines.remove(&(deadline, request));
            if let Some(Request { adapter, .. }) = self.requests.remove(&request) {
                self.admission.cancel(request, adapter);
            }
            orders.push(Order::Refuse { request, why: Refused::Late });
        }
        for adapter in mem::take(&mut self.doubtful) {
            if let Some(why) = self.hopeless(adapter, now) {
                self.refuse_all(adapter, &why, &mut orders);
            }
        }
        loop {
            let known = Known { adapters: &self.adapters, pods: &self.pods, forecast: &self.forecast, now };
            let decisions = self.admission.decide(now, &known);
            // What is registered needs no call, so that its requests can go at once.
            let mut again = false;
            for decision in decisions {
                again |= self.carry_out(decision, now, &mut orders);
            }
            if !again {
                break;
            }
        }
        if now >= self.planned {
            self.planned = now + PLAN;
            self.look_ahead(now, &mut orders);
        }
        orders
    }

    /// How long nobody need ask for orders when nothing happens.
    pub fn rest(&self) -> Millis {
        if self.deadlines.is_empty() { PLAN } else { 10 }
    }

    /// Why no pod that is up takes the adapter.
    fn hopeless(&self, adapter: AdapterId, now: Millis) -> Option<String> {
        let rank = self.adapters.get(&adapter)?.rank;
        let mut why = None;
        for pod in self.pods.values().filter(|pod| pod.up.is_some()) {
            why = Some(pod.objection(adapter, rank, now)?);
        }
        why
    }

    fn refuse_all(&mut self, adapter: AdapterId, why: &str, orders: &mut Vec<Order>) {
        let waits = |request: &Request| request.adapter == adapter && request.at.is_none();
        let refused: Vec<(RequestId, Millis)> =
            self.requests.iter().filter(|(_, request)| waits(request)).map(|(id, r)| (*id, r.arrived)).collect();
        for (request, arrived) in refused {
            self.requests.remove(&request);
            self.deadlines.remove(&(arrived.saturating_add(self.terms.wait), request));
            self.admission.cancel(request, adapter);
            orders.push(Order::Refuse { request, why: Refused::Unloadable(why.to_owned()) });
        }
    }

    /// True if more may be decided now.
    fn carry_out(&mut self, decision: Decision, now: Millis, orders: &mut Vec<Order>) -> bool {
        match decision {
            Decision::Admit { request: id, pod } => {
                let (Some(request), Some(at)) = (self.requests.get_mut(&id), self.pods.get_mut(&pod)) else {
                    return false;
                };
                request.at = Some((pod, at.epoch));
                if request.adapter != self.base {
                    at.touch(request.adapter);
                }
                self.deadlines.remove(&(request.arrived.saturating_add(self.terms.wait), id));
                orders.push(Order::Send { request: id, pod });
                false
            }
            Decision::Load { pod, adapter, leaves, unload } => {
                let Some(at) = self.pods.get_mut(&pod) else { return false };
                let Some(up) = &mut at.up else { return false };
                let unload = leaves.filter(|_| unload);
                if let Some(gone) = &leaves {
                    up.since.remove(gone);
                }
                up.since.insert(adapter, now);
                if let Some(gone) = &unload {
                    up.registered.remove(gone);
                    up.host.retain(|held| held != gone);
                }
                let registered = up.registered.contains_key(&adapter);
                if registered && unload.is_none() {
                    self.admission.loaded(pod, adapter, true, now);
                    return true;
                }
                self.loading.insert((pod, adapter), at.epoch);
                orders.push(Order::Load { pod, adapter, unload });
                false
            }
        }
    }

    fn look_ahead(&mut self, now: Millis, orders: &mut Vec<Order>) {
        let Self { adapters, pods, forecast, admission, .. } = self;
        let known = Known { adapters, pods, forecast, now };
        let wanted: Vec<Wanted> = adapters
            .iter()
            .filter(|(_, adapter)| !adapter.retired)
            .map(|(id, adapter)| Wanted {
                id: *id,
                rank: adapter.rank,
                rate: forecast.ahead(*id, now, AHEAD),
                load: adapter.load,
                least: 0,
            })
            .filter(|wanted| wanted.rate > 0)
            .collect();
        let states: Vec<PodState> = pods
            .iter()
            .filter_map(|(id, pod)| {
                let up = pod.up.as_ref()?;
                let held = admission.held(*id).map(|adapter| {
                    let since = up.since.get(&adapter).copied().unwrap_or(now);
                    (adapter, Held { in_use: admission.in_use(*id, adapter), pinned: false, since })
                });
                Some(PodState {
                    id: *id,
                    slots: pod.engine.slots,
                    max_rank: pod.engine.max_rank,
                    held: held.collect(),
                    staged: up.host.iter().copied().collect(),
                })
            })
            .collect();
        let mut decisions = Vec::new();
        for step in plan(&states, &wanted, &Policy::default(), now).moves {
            let Move::Load { pod, adapter } = step else { continue };
            let up = pods.get(&pod).and_then(|pod| pod.up.as_ref());
            // What is registered would not be called for, and so not come ahead.
            if up.is_some_and(|up| !up.registered.contains_key(&adapter)) {
                decisions.extend(admission.preload(pod, adapter, now, &known));
            }
        }
        decisions.into_iter().for_each(|decision| {
            self.carry_out(decision, now, orders);
        });
    }

    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.deadlines.len()
    }

    /// Whether the pod serves.
    pub fn is_up(&self, pod: PodId) -> bool {
        self.pods.get(&pod).is_some_and(|pod| pod.up.is_some())
    }

    /// Adapters in the pod's slots, as modelled.
    pub fn held(&self, pod: PodId) -> impl Iterator<Item = AdapterId> + '_ {
        self.admission.held(pod)
    }
}
