//! An API server in memory, as far as the operator can tell: lists, watches, server-side apply by one manager, statuses,
//! optimistic locking, finalizers, the garbage collector, the end of a namespace. Calls and events of watches are numbered,
//! and one of each can go wrong.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    convert::Infallible,
    sync::{Arc, Mutex},
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, channel::mpsc, future::BoxFuture};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::{sync::Notify, time::Instant};

/// What goes wrong with one call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// The operator dies before the call has arrived.
    CrashBefore,
    /// The operator dies after it was carried out.
    CrashAfter,
    /// It is refused with this status.
    Status(u16),
    /// It is carried out, and no answer comes.
    Silent,
}

/// What goes wrong with one event of a watch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Slip {
    /// It is lost, with the history that it stood in: 410.
    Lost,
    Twice,
    /// It comes half a minute late, and what follows after it.
    Late,
    /// The connection ends before it has come.
    Cut,
}

/// From its `after`th write on an operator's calls come late, and those for the Lease never.
#[derive(Clone, Copy)]
pub struct Trouble {
    pub who: &'static str,
    pub after: usize,
    pub late: Duration,
}

/// Collection, namespace, name.
pub type Place = (String, String, String);
type Events = mpsc::UnboundedSender<Value>;

#[derive(Default)]
struct State {
    version: u64,
    born: u64,
    objects: BTreeMap<Place, Value>,
    watchers: Vec<(String, Events)>,
    /// Version, collection and event of all that happened.
    log: Vec<(u64, String, Value)>,
    late: Option<VecDeque<(String, Value)>>,
    /// What was asked, in order.
    calls: Vec<String>,
    /// What was written and by whom, in order; events of the operator do not count.
    writes: Vec<(&'static str, String)>,
    trouble: Option<Trouble>,
    /// Nothing is carried out until then.
    down: Option<Instant>,
    /// Who does not ask for the latest is told of this version, and of what happened since only then.
    stale: Option<(u64, Instant)>,
    /// Nothing new comes into the namespace.
    ends: bool,
    fault: Option<(usize, Fault)>,
    events: usize,
    slip: Option<(usize, Slip)>,
}

#[derive(Clone, Default)]
pub struct Memory {
    state: Arc<Mutex<State>>,
    crash: Arc<Notify>,
    /// Which operator asks.
    who: &'static str,
}

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// A request that was understood.
struct Asked {
    method: Method,
    place: Place,
    subresource: String,
    watch: Option<u64>,
    /// Any version of a list will do.
    any: bool,
    body: Value,
}

impl Asked {
    fn told(&self) -> String {
        let method = if self.watch.is_some() { "WATCH" } else { self.method.as_str() };
        format!("{method} {} {} {}", self.place.0, self.place.2, self.subresource)
    }
}

impl Memory {
    pub fn with(fault: Option<(usize, Fault)>, slip: Option<(usize, Slip)>) -> Self {
        let memory = Self::default();
        {
            let mut state = memory.state.lock().unwrap();
            (state.fault, state.slip) = (fault, slip);
        }
        memory
    }

    /// The same server, as this operator asks it.
    pub fn of(&self, who: &'static str) -> Self {
        Self { who, ..self.clone() }
    }

    pub fn troubles(&self, trouble: Trouble) {
        self.state.lock().unwrap().trouble = Some(trouble);
    }

    /// It answers nobody for so long, and all connections end.
    pub fn goes_down(&self, time: Duration) {
        let mut state = self.state.lock().unwrap();
        state.down = Some(Instant::now() + time);
        state.watchers.clear();
    }

    pub fn version(&self) -> u64 {
        self.state.lock().unwrap().version
    }

    /// Who starts now sees all as it was then, if it does not ask for more, and for so long.
    pub fn lags(&self, version: u64, time: Duration) {
        self.state.lock().unwrap().stale = Some((version, Instant::now() + time));
    }

    pub fn calls(&self) -> Vec<String> {
        self.state.lock().unwrap().calls.clone()
    }

    /// Who wrote what, in order.
    pub fn written(&self) -> Vec<(&'static str, String)> {
        self.state.lock().unwrap().writes.clone()
    }

    /// Completes when the operator is to die.
    pub async fn crashed(&self) {
        self.crash.notified().await;
    }

    pub fn writes(&self) -> Vec<String> {
        self.state.lock().unwrap().writes.iter().map(|(_, what)| what.clone()).collect()
    }

    /// How often something other than the Lease changed.
    pub fn changes(&self) -> usize {
        self.state.lock().unwrap().log.iter().filter(|(_, of, _)| !of.ends_with("leases")).count()
    }

    pub fn events(&self) -> usize {
        self.state.lock().unwrap().events
    }

    /// All objects, as a user would compare them.
    pub fn objects(&self) -> BTreeMap<Place, Value> {
        self.state.lock().unwrap().objects.clone()
    }

    /// A user creates or changes an object.
    pub fn user_applies(&self, object: Value) {
        let name = object["metadata"]["name"].as_str().unwrap();
        let place = super::place(&super::plural(object["kind"].as_str().unwrap()), name);
        self.state.lock().unwrap().apply(&place, object);
        self.flush_late();
    }

    /// Something that no operator wrote is there, as it is given.
    pub fn has(&self, collection: &str, namespace: &str, object: Value) {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let place = (collection.to_owned(), namespace.to_owned(), name);
        self.state.lock().unwrap().put(&place, object);
    }

    pub fn lacks(&self, collection: &str, namespace: &str, name: &str) {
        self.state.lock().unwrap().remove(&(collection.to_owned(), namespace.to_owned(), name.to_owned()));
    }

    /// A user deletes an object. It stays as long as it has finalizers; its children go with it.
    pub fn user_deletes(&self, plural: &str, name: &str) {
        self.state.lock().unwrap().delete(&super::place(plural, name));
        self.flush_late();
    }

    /// A user deletes the namespace, whose content goes in this order of collections, with a pause after each. What the
    /// operator itself needs is elsewhere.
    pub async fn user_ends_the_namespace(&self, collections: &[String], pause: Duration) {
        self.state.lock().unwrap().ends = true;
        for collection in collections {
            {
                let mut state = self.state.lock().unwrap();
                let of_it: Vec<Place> = state.objects.keys().filter(|place| place.0 == *collection).cloned().collect();
                of_it.iter().for_each(|place| state.delete(place));
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Passes a call, also one elsewhere than to the API server; None when it is never answered.
    pub async fn gate<T>(&self, what: String, writes: bool, carry_out: impl FnOnce() -> T) -> Option<Result<T, u16>> {
        let fault = self.state.lock().unwrap().fault(self.who, what, writes);
        let result = match fault {
            Some(Fault::CrashBefore) => None,
            Some(Fault::Status(code)) => return Some(Err(code)),
            _ => Some(carry_out()),
        };
        match fault {
            None => return result.map(Ok),
            Some(Fault::CrashBefore | Fault::CrashAfter) => self.crash.notify_one(),
            Some(_) => {}
        }
        None
    }

    /// How late a call comes, if it does.
    pub fn lateness(&self, of_lease: bool) -> Option<Duration> {
        let state = self.state.lock().unwrap();
        let own = state.writes.iter().filter(|(who, what)| *who == self.who && !what.contains("/leases")).count();
        match state.trouble.filter(|trouble| trouble.who == self.who && own >= trouble.after) {
            None => Some(Duration::ZERO),
            Some(_) if of_lease => None,
            Some(trouble) => Some(trouble.late),
        }
    }

    fn flush_late(&self) {
        let held = self.state.lock().unwrap().late.is_some();
        if held {
            let state = self.state.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_secs(30)).await;
                let mut state = state.lock().unwrap();
                for (collection, event) in state.late.take().unwrap_or_default() {
                    state.send(&collection, &event);
                }
            });
        }
    }

    async fn answer(self, request: Request<Body>) -> Answer {
        let asked = understood(request).await;
        let Some(late) = self.lateness(asked.place.0.ends_with("/leases")) else { return std::future::pending().await };
        if late.is_zero() || asked.method == Method::GET {
            return self.carry_out(asked).await;
        }
        // On its way, whatever becomes of whoever sent it.
        let arrives = async move {
            tokio::time::sleep(late).await;
            self.carry_out(asked).await
        };
        tokio::spawn(arrives).await.unwrap()
    }

    async fn carry_out(self, asked: Asked) -> Answer {
        if self.state.lock().unwrap().down.is_some_and(|until| Instant::now() < until) {
            return refusal(503);
        }
        let of_events = asked.place.0.ends_with("/events");
        let writes = asked.method != Method::GET && !of_events;
        let carried_out = self.gate(asked.told(), writes, || match writes {
            _ if of_events => reply(201, &asked.body),
            true => self.state.lock().unwrap().write(asked),
            false => self.state.lock().unwrap().read(&asked),
        });
        let carried_out = carried_out.await;
        self.flush_late();
        match carried_out {
            Some(Ok(answer)) => answer,
            Some(Err(code)) => refusal(code),
            None => std::future::pending().await,
        }
    }
}

impl tower::Service<Request<Body>> for Memory {
    type Response = Answer;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Answer, Infallible>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let memory = self.clone();
        Box::pin(async move { Ok(memory.answer(request).await) })
    }
}

impl State {
    fn fault(&mut self, who: &'static str, what: String, writes: bool) -> Option<Fault> {
        self.calls.push(what.clone());
        if writes {
            self.writes.push((who, what));
        }
        self.fault.filter(|(at, _)| at + 1 == self.calls.len()).map(|(_, fault)| fault)
    }

    /// What was there at a version.
    fn at(&self, version: u64) -> BTreeMap<Place, Value> {
        let mut objects = BTreeMap::new();
        for (_, collection, event) in self.log.iter().filter(|(then, ..)| *then <= version) {
            let text = |field: &str| event["object"]["metadata"][field].as_str().unwrap_or_default().to_owned();
            let place = (collection.clone(), text("namespace"), text("name"));
            match event["type"] == "DELETED" {
                true => objects.remove(&place),
                false => objects.insert(place, event["object"].clone()),
            };
        }
        objects
    }

    fn read(&mut self, asked: &Asked) -> Answer {
        let (collection, namespace, name) = &asked.place;
        if let Some(since) = asked.watch {
            let (sender, receiver) = mpsc::unbounded();
            let missed = self.log.iter().filter(|(version, of, _)| *version > since && of == collection);
            missed.for_each(|(_, _, event)| drop(sender.unbounded_send(event.clone())));
            self.watchers.push((collection.clone(), sender));
            let until =
                self.stale.filter(|(version, _)| *version <= since).map_or_else(Instant::now, |(_, until)| until);
            let patience = futures::stream::once(tokio::time::sleep_until(until)).filter_map(async |()| None);
            let lines = patience
                .chain(receiver)
                .map(|event: Value| Ok(http_body::Frame::data(Bytes::from(format!("{event}\n")))));
            return Response::new(StreamBody::new(lines).boxed_unsync());
        }
        if !name.is_empty() {
            return self.objects.get(&asked.place).map_or_else(|| refusal(404), |object| reply(200, object));
        }
        let there = |place: &Place| place.0 == *collection && (namespace.is_empty() || place.1 == *namespace);
        let stale = self.stale.filter(|(_, until)| asked.any && Instant::now() < *until).map(|(version, _)| version);
        let old = stale.map(|version| self.at(version));
        let items: Vec<&Value> =
            old.as_ref().unwrap_or(&self.objects).iter().filter(|(place, _)| there(place)).map(|(_, o)| o).collect();
        let version = stale.unwrap_or(self.version).to_string();
        reply(
            200,
            &json!({ "kind": "List", "apiVersion": "v1", "metadata": { "resourceVersion": version }, "items": items }),
        )
    }

    fn write(&mut self, mut asked: Asked) -> Answer {
        if asked.method == Method::POST {
            asked.place.2 = asked.body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        }
        let old = self.objects.get(&asked.place).cloned();
        let sent = &asked.body["metadata"];
        let differs = |field: &str| {
            let known = old.as_ref().map(|old| old["metadata"][field].clone());
            !sent[field].is_null() && known.is_none_or(|known| known != sent[field])
        };
        match (asked.method.as_str(), &old) {
            ("POST" | "PATCH", None) if self.ends && !asked.place.0.ends_with("/leases") => {
                return refusal(if asked.subresource.is_empty() { 403 } else { 404 });
            }
            ("POST", Some(_)) => return refusal(409),
            ("PUT" | "DELETE", None) => return refusal(404),
            ("DELETE", Some(old)) => {
                let seen = &asked.body["preconditions"];
                if ["uid", "resourceVersion"].iter().any(|field| seen[*field] != old["metadata"][*field]) {
                    return refusal(409);
                }
                self.delete(&asked.place);
                return reply(
                    200,
                    &json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success" }),
                );
            }
            ("PUT", Some(_)) if differs("resourceVersion") => return refusal(409),
            ("PATCH", _) if differs("uid") || differs("resourceVersion") => return refusal(409),
            _ => {}
        }
        let place = asked.place;
        match (old, asked.subresource.as_str()) {
            (Some(mut object), "status") => {
                object["status"] = asked.body["status"].clone();
                reply(200, &self.put(&place, object))
            }
            (Some(mut object), _) if asked.body["spec"].is_null() && sent.get("finalizers").is_some() => {
                object["metadata"]["finalizers"] = sent["finalizers"].clone();
                let held = self.put(&place, object);
                if is_leaving(&held) {
                    self.remove(&place);
                }
                reply(200, &held)
            }
            (None, "status") => refusal(404),
            _ => reply(200, &self.apply(&place, asked.body)),
        }
    }

    /// All but what the server itself says is as it was sent.
    fn apply(&mut self, place: &Place, mut object: Value) -> Value {
        let old = self.objects.get(place).cloned();
        let spec_changed = old.as_ref().is_some_and(|old| old["spec"] != object["spec"]);
        let generation = old.as_ref().map_or(1, |old| old["metadata"]["generation"].as_i64().unwrap_or(1));
        object["metadata"]["generation"] = json!(generation + i64::from(spec_changed));
        object["metadata"]["namespace"] = json!(place.1);
        match &old {
            Some(old) => {
                for field in ["uid", "creationTimestamp", "resourceVersion"] {
                    object["metadata"][field] = old["metadata"][field].clone();
                }
                for field in ["finalizers", "deletionTimestamp"] {
                    if let Some(value) = old["metadata"].get(field) {
                        object["metadata"][field] = value.clone();
                    }
                }
                if !old["status"].is_null() {
                    object["status"] = old["status"].clone();
                }
            }
            None => {
                self.born += 1;
                object["metadata"]["uid"] = json!(format!("{}-{}", place.2, self.born));
                object["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
            }
        }
        let applied = self.put(place, object);
        self.collect();
        match place.0.rsplit('/').next() {
            Some("deployments" | "statefulsets") => self.run_pods(place, applied),
            Some("jobs") if applied["status"].is_null() => self.run_job(place, applied),
            _ => applied,
        }
    }

    /// The Job's controller, and a container that does what it was told.
    fn run_job(&mut self, place: &Place, mut job: Value) -> Value {
        job["status"] = json!({ "succeeded": 1, "conditions": [{ "type": "Complete", "status": "True" }] });
        let job = self.put(place, job);
        let report = json!({ "bytes": 900, "objects": 2, "rows": 3, "digest": "d", "milliseconds": 5 }).to_string();
        let ended = json!({ "exitCode": 0, "message": report, "startedAt": "2026-01-01T00:00:00Z" });
        let owner = json!({ "apiVersion": "batch/v1", "kind": "Job", "name": place.2, "uid": job["metadata"]["uid"] });
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": place.2, "labels": job["spec"]["template"]["metadata"]["labels"],
                "ownerReferences": [owner] },
            "status": { "containerStatuses": [{ "name": "image", "ready": false, "restartCount": 0, "image": "",
                "imageID": "", "state": { "terminated": ended } }] },
        });
        self.apply(&("/api/v1/pods".to_owned(), place.1.clone(), place.2.clone()), pod);
        job
    }

    /// The controller manager, which is quick here.
    fn run_pods(&mut self, place: &Place, mut workload: Value) -> Value {
        let replicas = workload["spec"]["replicas"].clone();
        workload["status"] = json!({
            "observedGeneration": workload["metadata"]["generation"], "replicas": replicas, "readyReplicas": replicas,
            "updatedReplicas": replicas, "currentRevision": "1", "updateRevision": "1",
        });
        let wanted = replicas.as_i64().unwrap_or(0);
        let workload = self.put(place, workload);
        let labels = &workload["spec"]["template"]["metadata"]["labels"];
        if labels["batos.dev/pool"].is_string() {
            let pod = |number: i64| ("/api/v1/pods".to_owned(), place.1.clone(), format!("{}-{number}", place.2));
            for place in (0..wanted).map(pod).filter(|place| !self.objects.contains_key(place)).collect::<Vec<_>>() {
                let address = blake3::hash(place.2.as_bytes());
                let [a, b, c, ..] = address.as_bytes();
                let owner = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "name": workload["metadata"]["name"],
                    "uid": workload["metadata"]["uid"] });
                let pod = json!({
                    "apiVersion": "v1", "kind": "Pod",
                    "metadata": { "name": place.2, "labels": labels, "ownerReferences": [owner] },
                    "status": { "podIP": format!("10.{a}.{b}.{c}"), "conditions": [{ "type": "Ready", "status": "True" }] },
                });
                self.apply(&place, pod);
            }
            (wanted..wanted + 8).map(pod).for_each(|place| self.remove(&place));
        }
        workload
    }

    fn put(&mut self, place: &Place, mut object: Value) -> Value {
        let old = self.objects.get(place);
        if old == Some(&object) {
            return object;
        }
        let kind = if old.is_some() { "MODIFIED" } else { "ADDED" };
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(place.clone(), object.clone());
        self.emit(&place.0, json!({ "type": kind, "object": object }));
        object
    }

    fn remove(&mut self, place: &Place) {
        if let Some(mut object) = self.objects.remove(place) {
            self.version += 1;
            object["metadata"]["resourceVersion"] = json!(self.version.to_string());
            self.emit(&place.0, json!({ "type": "DELETED", "object": object }));
            self.collect();
        }
    }

    fn delete(&mut self, place: &Place) {
        let Some(mut object) = self.objects.get(place).cloned() else { return };
        object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        match is_leaving(&object) {
            true => self.remove(place),
            false => drop(self.put(place, object)),
        }
    }

    /// The garbage collector, which is quick here: what has an owner goes with it.
    fn collect(&mut self) {
        let alive: BTreeSet<Option<&str>> =
            self.objects.values().map(|object| object["metadata"]["uid"].as_str()).collect();
        let orphan = |object: &Value| {
            let owners = object["metadata"]["ownerReferences"].as_array();
            owners.is_some_and(|owners| !owners.iter().any(|owner| alive.contains(&owner["uid"].as_str())))
        };
        let orphans: Vec<Place> =
            self.objects.iter().filter(|(_, object)| orphan(object)).map(|(place, _)| place.clone()).collect();
        orphans.iter().for_each(|place| self.remove(place));
    }

    fn emit(&mut self, collection: &str, event: Value) {
        self.log.push((self.version, collection.to_owned(), event.clone()));
        let slip = self.slip.filter(|(at, _)| *at == self.events).map(|(_, slip)| slip);
        self.events += 1;
        match slip {
            Some(Slip::Lost) => {
                // Whoever asks from before finds nothing of it either.
                self.log.pop();
                let expired = json!({ "type": "ERROR", "object": { "kind": "Status", "apiVersion": "v1", "metadata": {},
                    "status": "Failure", "reason": "Expired", "code": 410, "message": "too old" } });
                return self.send(collection, &expired);
            }
            Some(Slip::Late) => self.late = Some(VecDeque::new()),
            Some(Slip::Twice) => self.send(collection, &event),
            Some(Slip::Cut) => self.watchers.retain(|(of, _)| of != collection),
            None => {}
        }
        match &mut self.late {
            Some(late) => late.push_back((collection.to_owned(), event)),
            None => self.send(collection, &event),
        }
    }

    fn send(&mut self, collection: &str, event: &Value) {
        self.watchers.retain(|(of, sender)| of != collection || sender.unbounded_send(event.clone()).is_ok());
    }
}

/// Deleted, and nothing holds it.
fn is_leaving(object: &Value) -> bool {
    let held = object["metadata"]["finalizers"].as_array().is_some_and(|held| !held.is_empty());
    object["metadata"]["deletionTimestamp"].is_string() && !held
}

async fn understood(request: Request<Body>) -> Asked {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let path = request.uri().path().to_owned();
    let mut segments: Vec<&str> = path.split('/').collect();
    let mut namespace = String::new();
    if let Some(at) = segments.iter().position(|segment| *segment == "namespaces") {
        namespace = segments[at + 1].to_owned();
        segments.drain(at..at + 2);
    }
    // "", "api", version, plural … or "", "apis", group, version, plural …
    let head = if segments[1] == "api" { 4 } else { 5 };
    let rest = |at: usize| segments.get(at).copied().unwrap_or_default().to_owned();
    let value =
        |key: &str| query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('=').map(str::to_owned));
    let watch = value("watch").map(|_| value("resourceVersion").and_then(|v| v.parse().ok()).unwrap_or(0));
    let any = watch.is_none() && value("resourceVersion").as_deref() == Some("0");
    let place = (segments[..head].join("/"), namespace, rest(head));
    let (method, subresource) = (request.method().clone(), rest(head + 1));
    let bytes = request.into_body().collect_bytes().await.unwrap();
    Asked { method, place, subresource, watch, any, body: serde_json::from_slice(&bytes).unwrap_or_default() }
}

fn reply(code: u16, body: &Value) -> Answer {
    let body = Full::new(Bytes::from(body.to_string())).boxed_unsync();
    Response::builder().status(code).body(body).unwrap()
}

fn refusal(code: u16) -> Answer {
    let reason = match code {
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        410 => "Expired",
        429 => "TooManyRequests",
        _ => "InternalError",
    };
    reply(
        code,
        &json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": reason,
        "message": "played", "code": code }),
    )
}
