//! Carries out what the weaver's `Dispatcher` decides: wakes requests whose turn it is, loads adapters, looks at engines.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use batos_weaver::{
    AdapterId, Dispatcher, Ended, LoadFailed, Millis, Order, Over, PodId, Quotas, Refused, RequestId, Seen,
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

struct State {
    dispatcher: Dispatcher,
    quotas: Quotas<Who>,
    turns: HashMap<RequestId, oneshot::Sender<Turn>>,
    /// Of the engine that was seen last.
    version: Option<String>,
}

/// The queue, the engines and what is known of them.
pub struct Desk {
    state: Mutex<State>,
    clock: Clock,
    model: String,
    facets: Vec<Facet>,
    wait: Duration,
    pods: Vec<Pod>,
    /// Somebody waits.
    waits: Notify,
    pub metrics: Metrics,
}

impl Desk {
    /// A desk, and the tasks that it lives by; they end when they are dropped.
    pub fn start(config: &Config, engines: Vec<Engine>, senders: &BTreeSet<String>) -> (Arc<Self>, JoinSet<()>) {
        let clock = Clock::new();
        let adapters = config.facets.iter().zip(BASE + 1..).map(|(facet, id)| (id, facet.rank));
        let mut dispatcher = Dispatcher::new(config.terms(), BASE, adapters, clock.now());
        let facets = config.facets.iter().map(|facet| (Who::Facet(facet.name.clone()), facet.limits.into()));
        let senders = senders.iter().map(|sender| (Who::Sender(sender.clone()), config.sender_limits.into()));
        let quotas = Quotas::new(facets.chain(senders), clock.now());
        let (mut pods, mut queues) = (Vec::new(), Vec::new());
        for (engine, id) in engines.into_iter().zip(0..) {
            dispatcher.add_pod(id, config.engine.pod());
            let (loads, queue) = mpsc::unbounded_channel();
            pods.push(Pod { engine, look: Notify::new(), loads });
            queues.push((id, queue));
        }
        let state = State { dispatcher, quotas, turns: HashMap::new(), version: None };
        let desk = Arc::new(Self {
            state: Mutex::new(state),
            clock,
            model: config.model.clone(),
            facets: config.facets.clone(),
            wait: Duration::from_secs(config.wait_seconds),
            pods,
            waits: Notify::new(),
            metrics: Metrics::default(),
        });
        let mut tasks = JoinSet::new();
        for (id, queue) in queues {
            tasks.spawn(desk.clone().load_all(id, queue));
            tasks.spawn(desk.clone().look(id));
        }
        tasks.spawn(desk.clone().tick());
        (desk, tasks)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn facet(&self, adapter: AdapterId) -> Option<&Facet> {
        let at = usize::try_from(adapter.checked_sub(BASE + 1)?).ok()?;
        self.facets.get(at)
    }

    fn pod(&self, id: PodId) -> Option<&Pod> {
        self.pods.get(usize::try_from(id).ok()?)
    }

    pub fn engine(&self, id: PodId) -> Option<&Engine> {
        self.pod(id).map(|pod| &pod.engine)
    }

    /// A facet's number and its adapter's name at the engines; those of the base model for its own name.
    pub fn resolve(&self, name: &str) -> Option<(AdapterId, String)> {
        if name == self.model {
            return Some((BASE, self.model.clone()));
        }
        let (facet, id) = self.facets.iter().zip(BASE + 1..).find(|(facet, _)| facet.name == name)?;
        Some((id, facet.engine_name()))
    }

    /// The facets, after the base model: name, and the adapter's name and folder.
    pub fn models(&self) -> (&str, impl Iterator<Item = (&str, String, &str)>) {
        let facets = self.facets.iter().map(|facet| (facet.name.as_str(), facet.engine_name(), facet.path.as_str()));
        (&self.model, facets)
    }

    /// Of the engine that was seen last.
    pub fn version(&self) -> Option<String> {
        self.state().version.clone()
    }

    /// Whether any engine answers.
    pub fn serves(&self) -> bool {
        let state = self.state();
        (0..).zip(&self.pods).any(|(id, _)| state.dispatcher.is_up(id))
    }

    pub fn metrics_text(&self) -> String {
        let (waiting, pods) = {
            let state = self.state();
            let about = |(id, pod): (PodId, &Pod)| {
                (pod.engine.url().to_owned(), state.dispatcher.is_up(id), state.dispatcher.held(id).count())
            };
            (state.dispatcher.waiting(), (0..).zip(&self.pods).map(about).collect::<Vec<_>>())
        };
        self.metrics.text(waiting, &pods)
    }

    /// A request for a facet, or for the base model, takes its place in the queue.
    pub fn enter(self: &Arc<Self>, adapter: AdapterId, sender: Option<&str>) -> Result<Ticket, Failure> {
        let facet = self.facet(adapter).map_or(&self.model, |facet| &facet.name).clone();
        let whom: Vec<Who> = [Some(Who::Facet(facet.clone())), sender.map(|sender| Who::Sender(sender.to_owned()))]
            .into_iter()
            .flatten()
            .collect();
        let now = self.clock.now();
        let mut state = self.state();
        state.quotas.take(&whom, now).map_err(limited)?;
        let Some(request) = state.dispatcher.arrive(adapter, now) else {
            state.quotas.ended(&whom);
            return Err(Failure::Full);
        };
        let turn = state.expect(request);
        self.metrics.opened(&facet);
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
                    if let Some(pod) = self.pod(pod) {
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
    async fn tick(self: Arc<Self>) {
        loop {
            let rest = {
                let state = self.state();
                let rest = state.dispatcher.rest();
                self.go_on(state);
                Duration::from_millis(rest)
            };
            let began = Instant::now();
            tokio::select! {
                () = tokio::time::sleep(rest) => {}
                () = self.waits.notified() => tokio::time::sleep(Duration::from_millis(10).saturating_sub(began.elapsed())).await,
            }
        }
    }

    /// Loads adapters on a pod, one after the other: each stalls all that it serves.
    async fn load_all(self: Arc<Self>, id: PodId, mut queue: mpsc::UnboundedReceiver<(AdapterId, Option<AdapterId>)>) {
        while let Some((adapter, unload)) = queue.recv().await {
            let (Some(pod), Some(facet)) = (self.pod(id), self.facet(adapter)) else { continue };
            if let Some(gone) = unload.and_then(|gone| self.facet(gone))
                && let Err(error) = pod.engine.unload(&gone.engine_name()).await
            {
                tracing::warn!(pod = pod.engine.url(), adapter = gone.engine_name(), ?error, "not unloaded");
            }
            let (name, began) = (facet.engine_name(), Instant::now());
            let loaded = pod.engine.load(&name, &facet.path).await;
            let took = began.elapsed();
            self.metrics.loaded(&facet.name, loaded.is_ok().then_some(took));
            let how = match loaded {
                Ok(()) => {
                    tracing::info!(pod = pod.engine.url(), adapter = name, ?took, "loaded");
                    Ok(millis(took))
                }
                Err(NotLoaded::Refused(why)) => {
                    tracing::warn!(pod = pod.engine.url(), adapter = name, why, "not loaded");
                    Err(LoadFailed::Refused(why))
                }
                Err(NotLoaded::Unreachable(why)) => {
                    tracing::warn!(pod = pod.engine.url(), adapter = name, why, "not loaded");
                    pod.look.notify_one();
                    Err(LoadFailed::Unreachable)
                }
            };
            let mut state = self.state();
            state.dispatcher.loaded(id, adapter, how, self.clock.now());
            self.go_on(state);
        }
    }

    /// Looks at an engine again and again.
    async fn look(self: Arc<Self>, id: PodId) {
        let Some(pod) = self.pod(id) else { return };
        let mut told = None;
        loop {
            let asked = self.clock.now();
            let about = pod.engine.about(&self.model).await;
            let up = about.is_ok();
            match about {
                Ok(about) => {
                    let judged = judge(&about.version);
                    let facets = self.facets.iter().zip(BASE + 1..);
                    let registered = facets.filter(|(facet, _)| about.adapters.contains(&facet.engine_name()));
                    let registered = registered.map(|(_, id)| id).collect();
                    let seen = Seen { asked, registered, no_loads: judged.clone().err() };
                    let mut state = self.state();
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
