//! Carries out what the weaver's `Dispatcher` decides: wakes requests whose turn it is, loads adapters, looks at engines.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use batos_weaver::{
    AdapterId, Dispatcher, Ended, EnginePod, LoadFailed, Millis, Order, Over, PodId, Quotas, Refused, RequestId, Seen,
};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    task::JoinSet,
};

use crate::{
    config::{Config, Facet},
    engine::{Engine, NotLoaded, judge},
    failure::Failure,
    metrics::Metrics,
};

/// Between two looks at an engine that serves, and at one that does not.
const LOOK: Duration = Duration::from_secs(2);
const LOOK_FOR: Duration = Duration::from_millis(250);

/// Between two decisions for those that wait.
const TICK: Duration = Duration::from_millis(10);

/// The base model itself.
pub const BASE: AdapterId = 0;

/// Milliseconds since 1970 that never go back.
#[derive(Debug, Clone, Copy)]
struct Clock {
    began: Instant,
    at: Millis,
}

impl Clock {
    fn new() -> Self {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { began: Instant::now(), at: millis(at) }
    }

    fn now(self) -> Millis {
        self.at + millis(self.began.elapsed())
    }
}

fn millis(time: Duration) -> Millis {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Whose limits a request counts against.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Facet(String),
    Sender(String),
}

type Turn = Result<PodId, Refused>;

struct Pod {
    engine: Engine,
    /// Look at it now.
    look: Notify,
    loads: mpsc::UnboundedSender<(AdapterId, Option<AdapterId>)>,
}

/// One version of a facet's adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Adapter {
    facet: String,
    /// At the engines.
    name: String,
    path: String,
}

struct State {
    dispatcher: Dispatcher,
    quotas: Quotas<Who>,
    turns: HashMap<RequestId, oneshot::Sender<Turn>>,
    /// All that there ever were, by their numbers from `BASE` + 1 on.
    adapters: Vec<Arc<Adapter>>,
    /// Which of them a facet's name means now.
    facets: BTreeMap<String, AdapterId>,
    pods: BTreeMap<PodId, Arc<Pod>>,
    last_pod: PodId,
    /// Of the engine that was seen last.
    version: Option<String>,
}

/// The queue, the engines and what is known of them.
pub struct Desk {
    state: Mutex<State>,
    clock: Clock,
    model: String,
    engine: EnginePod,
    wait: Duration,
    http: reqwest::Client,
    key: Option<String>,
    /// Somebody waits.
    waits: Notify,
    pub metrics: Metrics,
}

impl Desk {
    /// A desk without pods and facets; `key` is the engines'.
    pub fn new(config: &Config, http: reqwest::Client, key: Option<String>) -> Arc<Self> {
        let clock = Clock::new();
        let state = State {
            dispatcher: Dispatcher::new(config.terms(), BASE, clock.now()),
            quotas: Quotas::new([], clock.now()),
            turns: HashMap::new(),
            adapters: Vec::new(),
            facets: BTreeMap::new(),
            pods: BTreeMap::new(),
            last_pod: 0,
            version: None,
        };
        Arc::new(Self {
            state: Mutex::new(state),
            clock,
            model: config.model.clone(),
            engine: config.engine.pod(),
            wait: Duration::from_secs(config.wait_seconds),
            http,
            key,
            waits: Notify::new(),
            metrics: Metrics::default(),
        })
    }

    /// Takes pods, facets and limits as they are configured now; what is there goes on. The pods' tasks end when they are
    /// dropped, or with their pod.
    pub fn configure(self: &Arc<Self>, config: &Config, senders: &BTreeSet<String>, tasks: &mut JoinSet<()>) {
        let now = self.clock.now();
        let mut guard = self.state();
        let state = &mut *guard;
        let facets = config.facets.iter().map(|facet| (Who::Facet(facet.name.clone()), facet.limits.into()));
        let senders = senders.iter().map(|sender| (Who::Sender(sender.clone()), config.sender_limits.into()));
        state.quotas.set(facets.chain(senders), now);
        let facets = config.facets.iter().map(|facet| (facet.name.clone(), state.adapter(facet))).collect();
        let before = std::mem::replace(&mut state.facets, facets);
        let still: BTreeSet<AdapterId> = state.facets.values().copied().collect();
        for adapter in before.into_values().filter(|adapter| !still.contains(adapter)) {
            state.dispatcher.retire_adapter(adapter);
        }
        let engines: Vec<Engine> =
            config.pods.iter().map(|url| Engine::new(self.http.clone(), url, self.key.clone())).collect();
        let stays = |pod: &Pod| engines.iter().any(|engine| engine.url() == pod.engine.url());
        let gone: Vec<PodId> = state.pods.iter().filter(|(_, pod)| !stays(pod)).map(|(id, _)| *id).collect();
        for id in gone {
            state.dispatcher.remove_pod(id);
            state.pods.remove(&id);
        }
        for engine in engines {
            if state.pods.values().any(|pod| pod.engine.url() == engine.url()) {
                continue;
            }
            state.last_pod += 1;
            let id = state.last_pod;
            state.dispatcher.add_pod(id, self.engine);
            let (loads, queue) = mpsc::unbounded_channel();
            let pod = Arc::new(Pod { engine, look: Notify::new(), loads });
            state.pods.insert(id, pod.clone());
            tasks.spawn(self.clone().load_all(pod.engine.clone(), id, queue));
            tasks.spawn(self.clone().look(id));
        }
        self.go_on(guard);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pod(&self, id: PodId) -> Option<Arc<Pod>> {
        self.state().pods.get(&id).cloned()
    }

    pub fn engine(&self, id: PodId) -> Option<Engine> {
        self.pod(id).map(|pod| pod.engine.clone())
    }

    /// A facet's adapter, and its name at the engines; those of the base model for its own name.
    pub fn resolve(&self, name: &str) -> Option<(AdapterId, String)> {
        if name == self.model {
            return Some((BASE, self.model.clone()));
        }
        let state = self.state();
        let id = *state.facets.get(name)?;
        Some((id, state.adapter_of(id)?.name.clone()))
    }

    /// The base model.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The facets and their adapters' names at the engines.
    pub fn facets(&self) -> Vec<(String, String)> {
        let state = self.state();
        let named = |(facet, id): (&String, &AdapterId)| Some((facet.clone(), state.adapter_of(*id)?.name.clone()));
        state.facets.iter().filter_map(named).collect()
    }

    /// Of the engine that was seen last.
    pub fn version(&self) -> Option<String> {
        self.state().version.clone()
    }

    /// Whether any engine answers.
    pub fn serves(&self) -> bool {
        let state = self.state();
        state.pods.keys().any(|id| state.dispatcher.is_up(*id))
    }

    pub fn metrics_text(&self) -> String {
        let (waiting, pods) = {
            let state = self.state();
            let about = |(id, pod): (&PodId, &Arc<Pod>)| {
                (pod.engine.url().to_owned(), state.dispatcher.is_up(*id), state.dispatcher.held(*id).count())
            };
            (state.dispatcher.waiting(), state.pods.iter().map(about).collect::<Vec<_>>())
        };
        self.metrics.text(waiting, &pods)
    }

    /// A request for a facet, or for the base model, takes its place in the queue.
    pub fn enter(self: &Arc<Self>, adapter: AdapterId, sender: Option<&str>) -> Result<Ticket, Failure> {
        let now = self.clock.now();
        let mut state = self.state();
        let facet = state.adapter_of(adapter).map_or_else(|| self.model.clone(), |adapter| adapter.facet.clone());
        let sender = sender.map(|sender| Who::Sender(sender.to_owned()));
        let whom: Vec<Who> = sender.into_iter().chain([Who::Facet(facet.clone())]).collect();
        let taken = state.quotas.take(&whom, now).map_err(limited);
        let arrived = taken.and_then(|()| {
            state.dispatcher.arrive(adapter, now).ok_or_else(|| {
                state.quotas.ended(&whom);
                Failure::Full
            })
        });
        self.metrics.opened(&facet);
        let request = arrived.inspect_err(|failure| self.metrics.ended(&facet, failure.code()))?;
        let turn = state.expect(request);
        self.go_on(state);
        Ok(Ticket { desk: self.clone(), request, adapter, facet, whom, turn, began: Instant::now(), outcome: "left" })
    }

    /// Carries out what is decided now.
    fn go_on(&self, mut state: MutexGuard<'_, State>) {
        for order in state.dispatcher.decide(self.clock.now()) {
            match order {
                Order::Send { request, pod } => state.tell(request, Ok(pod)),
                Order::Refuse { request, why } => state.tell(request, Err(why)),
                Order::Load { pod, adapter, unload } => {
                    if let Some(pod) = state.pods.get(&pod) {
                        // Nobody takes it only when all ends.
                        let _ = pod.loads.send((adapter, unload));
                    }
                }
            }
        }
        if state.dispatcher.waiting() > 0 {
            self.waits.notify_one();
        }
    }

    /// Some decisions depend on time alone.
    pub async fn tick(self: Arc<Self>) {
        loop {
            let rest = {
                let state = self.state();
                let rest = state.dispatcher.rest();
                self.go_on(state);
                Duration::from_millis(rest)
            };
            if tokio::time::timeout(rest, self.waits.notified()).await.is_ok() {
                tokio::time::sleep(TICK).await;
            }
        }
    }

    /// Loads adapters on a pod, one after the other: each stalls all that it serves.
    async fn load_all(
        self: Arc<Self>,
        engine: Engine,
        id: PodId,
        mut queue: mpsc::UnboundedReceiver<(AdapterId, Option<AdapterId>)>,
    ) {
        while let Some((id_of_adapter, unload)) = queue.recv().await {
            let (adapter, gone) = {
                let state = self.state();
                (state.adapter_of(id_of_adapter), unload.and_then(|gone| state.adapter_of(gone)))
            };
            if let Some(gone) = gone
                && let Err(error) = engine.unload(&gone.name).await
            {
                tracing::warn!(pod = engine.url(), adapter = gone.name, ?error, "not unloaded");
            }
            let Some(adapter) = adapter else { continue };
            let (name, began) = (&adapter.name, Instant::now());
            let loaded = engine.load(name, &adapter.path).await;
            let took = began.elapsed();
            self.metrics.loaded(&adapter.facet, loaded.is_ok().then_some(took));
            let how = match loaded {
                Ok(()) => {
                    tracing::info!(pod = engine.url(), adapter = name, ?took, "loaded");
                    Ok(millis(took))
                }
                Err(NotLoaded::Refused(why)) => {
                    tracing::warn!(pod = engine.url(), adapter = name, why, "not loaded");
                    Err(LoadFailed::Refused(why))
                }
                Err(NotLoaded::Unreachable(why)) => {
                    tracing::warn!(pod = engine.url(), adapter = name, why, "not loaded");
                    if let Some(pod) = self.pod(id) {
                        pod.look.notify_one();
                    }
                    Err(LoadFailed::Unreachable)
                }
            };
            let mut state = self.state();
            state.dispatcher.loaded(id, id_of_adapter, how, self.clock.now());
            self.go_on(state);
        }
    }

    /// Looks at an engine again and again, while it is one of the pool's.
    async fn look(self: Arc<Self>, id: PodId) {
        let mut told = None;
        while let Some(pod) = self.pod(id) {
            let asked = self.clock.now();
            let about = pod.engine.about(&self.model).await;
            let up = about.is_ok();
            match about {
                Ok(about) => {
                    let judged = judge(&about.version);
                    let mut state = self.state();
                    let adapters = state.adapters.iter().zip(BASE + 1..);
                    let registered = adapters.filter(|(adapter, _)| about.adapters.contains(&adapter.name));
                    let registered = registered.map(|(_, id)| id).collect();
                    let seen = Seen { asked, registered, no_loads: judged.clone().err() };
                    state.version = Some(about.version);
                    if state.dispatcher.pod_seen(id, seen, self.clock.now()) {
                        tracing::info!(pod = pod.engine.url(), "serves");
                        if let Ok(Some(warning)) | Err(warning) = judged {
                            tracing::warn!(pod = pod.engine.url(), warning);
                        }
                    }
                    self.go_on(state);
                    told = None;
                }
                Err(why) => {
                    let mut state = self.state();
                    state.dispatcher.pod_down(id);
                    self.go_on(state);
                    // Once for each reason.
                    if told.as_ref() != Some(&why) {
                        tracing::warn!(pod = pod.engine.url(), why, "does not serve");
                        told = Some(why);
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(if up { LOOK } else { LOOK_FOR }) => {}
                () = pod.look.notified() => {}
            }
        }
    }
}

impl State {
    fn adapter_of(&self, id: AdapterId) -> Option<Arc<Adapter>> {
        let at = usize::try_from(id.checked_sub(BASE + 1)?).ok()?;
        self.adapters.get(at).cloned()
    }

    /// The number of a facet's adapter: a version that was there before has its own again.
    fn adapter(&mut self, facet: &Facet) -> AdapterId {
        let (facet_name, name, path) = (facet.name.clone(), facet.engine_name(), facet.path.clone());
        let adapter = Arc::new(Adapter { facet: facet_name, name, path });
        let known = self.adapters.iter_mut().zip(BASE + 1..).find(|(other, _)| other.name == adapter.name);
        let id = match known {
            Some((known, id)) => {
                // The same content may lie elsewhere now.
                *known = adapter;
                id
            }
            None => {
                self.adapters.push(adapter);
                BASE + AdapterId::try_from(self.adapters.len()).unwrap_or(AdapterId::MAX)
            }
        };
        self.dispatcher.add_adapter(id, facet.rank);
        id
    }

    fn expect(&mut self, request: RequestId) -> oneshot::Receiver<Turn> {
        let (sender, turn) = oneshot::channel();
        self.turns.insert(request, sender);
        turn
    }

    fn tell(&mut self, request: RequestId, turn: Turn) {
        if let Some(waiter) = self.turns.remove(&request) {
            // Whoever does not wait any more gives his ticket back.
            let _ = waiter.send(turn);
        }
    }
}

fn limited(over: Over<Who>) -> Failure {
    let whose = match over.who {
        Who::Facet(facet) => format!("the facet {facet:?}'s"),
        Who::Sender(_) => "your".to_owned(),
    };
    let (limit, after) = match over.after {
        Some(after) => (format!("{} requests a minute", over.quota.per_minute.unwrap_or(0)), after),
        None => (format!("{} requests at once", over.quota.at_once.unwrap_or(0)), 1_000),
    };
    Failure::Limited { whose, limit, after: Duration::from_millis(after) }
}

/// A request's place in the queue, then its place at an engine. Dropped, it gives both back.
pub struct Ticket {
    desk: Arc<Desk>,
    request: RequestId,
    adapter: AdapterId,
    facet: String,
    whom: Vec<Who>,
    turn: oneshot::Receiver<Turn>,
    began: Instant,
    outcome: &'static str,
}

impl Ticket {
    /// Waits for the request's turn.
    pub async fn turn(&mut self) -> Result<PodId, Failure> {
        match (&mut self.turn).await {
            Ok(Ok(pod)) => {
                self.desk.metrics.queued(&self.facet, self.began.elapsed());
                Ok(pod)
            }
            Ok(Err(Refused::Late)) => Err(Failure::Late(self.desk.wait)),
            Ok(Err(Refused::Unloadable(why))) => Err(Failure::Unloadable { facet: self.facet.clone(), why }),
            Ok(Err(Refused::Broken)) | Err(_) => Err(Failure::Broken),
        }
    }

    /// The pod failed before anything of the answer was sent on: the request waits for another turn.
    pub fn broken(&mut self, pod: PodId) {
        self.desk.metrics.retried(&self.facet);
        self.suspect(pod);
        let mut state = self.desk.state();
        self.turn = state.expect(self.request);
        state.dispatcher.ended(self.request, Ended::Broken, self.desk.clock.now());
        self.desk.go_on(state);
    }

    /// Has the pod looked at.
    pub fn suspect(&self, pod: PodId) {
        if let Some(pod) = self.desk.pod(pod) {
            pod.look.notify_one();
        }
    }

    /// The answer begins.
    pub fn begins(&self) {
        self.desk.metrics.began(&self.facet, self.began.elapsed());
    }

    /// How the request ends: `ok` or the code of a failure. Without it, its client left.
    pub fn ends(&mut self, outcome: &'static str) {
        self.outcome = outcome;
    }

    pub fn is_for_adapter(&self) -> bool {
        self.adapter != BASE
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.desk.metrics.ended(&self.facet, self.outcome);
        let mut state = self.desk.state();
        state.turns.remove(&self.request);
        state.quotas.ended(&self.whom);
        state.dispatcher.ended(self.request, Ended::Done, self.desk.clock.now());
        self.desk.go_on(state);
    }
}
