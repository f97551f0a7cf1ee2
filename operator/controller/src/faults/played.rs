//! What else the operator talks to, played: universes, and engines with adapters.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use batos_covenant::{
    Command, Decision, ErrorKind, ErrorReply, OkReply, Proposal, ProposalPage, ProposalState, RemoveCommand, Reply,
    Subject,
};
use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::memory::Memory;
use crate::{bus::Ask, model_pool::Engines};

/// uid, generation, term and definition of an object.
pub type Applied = (String, i64, i64, Value);

/// A universe's graph, as far as `apply` and `approve` go: it fences like the real one.
#[derive(Clone)]
pub struct Graph {
    memory: Memory,
    pub applied: Arc<Mutex<BTreeMap<String, Applied>>>,
    pub proposal: Arc<Mutex<Proposal>>,
    pub down: Arc<Mutex<Option<Down>>>,
}

/// What a universe cannot do without.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Down {
    Bus,
    Store,
}

/// What the universe `tikv` proposes.
pub fn proposed() -> Proposal {
    let source = "go = ( 1 )";
    Proposal {
        id: "0a".repeat(16),
        kind: batos_covenant::ProposalKind::Slot,
        state: ProposalState::Pending,
        object: "0b".repeat(16),
        name: Some("child".into()),
        holder: "0c".repeat(16),
        asked: None,
        selector: "go".into(),
        source: source.into(),
        replaces: None,
        digest: blake3::hash(source.as_bytes()).to_hex().to_string(),
        risks: vec!["it is new".into()],
        conflict: None,
        mind: "script".into(),
        becoming: "0d".repeat(16),
        proposed_at: 1_767_225_600_000,
        expires_at: 4_102_444_800_000,
        decision: None,
    }
}

impl Graph {
    pub fn new(memory: &Memory) -> Self {
        let proposal = Arc::new(Mutex::new(proposed()));
        Self { memory: memory.clone(), applied: Arc::default(), proposal, down: Arc::default() }
    }

    /// The same, as this operator asks it.
    pub fn of(&self, who: &'static str) -> Self {
        Self { memory: self.memory.of(who), ..self.clone() }
    }

    async fn carry_out(&self, subject: &Subject, command: &Command) -> Result<Reply, String> {
        let down = *self.down.lock().unwrap();
        match down {
            Some(Down::Bus) => return Err("no responders".to_owned()),
            Some(Down::Store) => {
                return Ok(Reply::Error {
                    error: ErrorReply::new(ErrorKind::Unavailable, "the store does not answer"),
                });
            }
            None => {}
        }
        // Asked again and again, so that a lost answer is another's; `down` has what is told without any.
        if let Command::Info = command {
            return Ok(self.answer(subject, command));
        }
        let what = format!("{} {}", subject.verb, subject.object);
        let writes = !matches!(command, Command::Proposals(_));
        match self.memory.gate(what, writes, || self.answer(subject, command)).await {
            Some(result) => result.map_err(|code| format!("played {code}")),
            // The bus gives up after ten seconds.
            None => {
                tokio::time::sleep(Duration::from_secs(10)).await;
                Err("no reply".to_owned())
            }
        }
    }

    fn apply(&self, subject: &Subject, command: &Command) -> Reply {
        let Command::Apply(apply) = command else { panic!("{command:?}") };
        let error = |kind| Reply::Error { error: ErrorReply::new(kind, "played") };
        let mut applied = self.applied.lock().unwrap();
        if apply.definition.parents.iter().any(|parent| !applied.contains_key(parent)) {
            return error(ErrorKind::NoSuchObject);
        }
        if let Some((uid, generation, term, _)) = applied.get(&subject.object)
            && (apply.term < *term || (*uid == apply.uid && apply.generation < *generation))
        {
            return error(ErrorKind::Stale);
        }
        let methods = apply.definition.slots.iter().filter_map(|slot| slot.method.as_ref());
        if methods.into_iter().any(|method| method.contains("( 1 + )")) {
            return error(ErrorKind::SyntaxError);
        }
        // What is called so the universe changes by itself.
        let lives = |name: &&str| name.starts_with("live") && !apply.enforce;
        let drift: Vec<&str> = apply.definition.slots.iter().map(|slot| slot.name.as_str()).filter(lives).collect();
        let definition = serde_json::to_value((&apply.definition, apply.enforce)).unwrap();
        applied.insert(subject.object.clone(), (apply.uid.clone(), apply.generation, apply.term, definition));
        Reply::Ok(OkReply::new(json!({ "object": subject.object, "drift": drift }), 1))
    }

    fn remove(&self, subject: &Subject, remove: &RemoveCommand) -> Reply {
        let mut applied = self.applied.lock().unwrap();
        let is_its = |(uid, _, term, _): &Applied| *uid == remove.uid && remove.term >= *term;
        let removed = applied.get(&subject.object).is_some_and(is_its);
        if removed {
            applied.remove(&subject.object);
        }
        Reply::Ok(OkReply::new(json!({ "object": subject.object, "removed": removed }), 1))
    }

    fn approve(&self, decision: &Decision) -> Reply {
        let mut proposal = self.proposal.lock().unwrap();
        let error = |kind| Reply::Error { error: ErrorReply::new(kind, "played") };
        match &proposal.decision {
            Some(before) if before == decision => {}
            Some(_) => return error(ErrorKind::Stale),
            None if decision.proposal != proposal.id || decision.digest != proposal.digest => {
                return error(ErrorKind::NoSuchObject);
            }
            None => {
                proposal.state = ProposalState::Applied;
                proposal.decision = Some(decision.clone());
            }
        }
        Reply::Ok(OkReply::new(serde_json::to_value(&*proposal).unwrap(), 0))
    }

    fn proposals(&self, subject: &Subject) -> Reply {
        let proposals = Vec::from_iter((subject.universe == "tikv").then(|| self.proposal.lock().unwrap().clone()));
        Reply::Ok(OkReply::new(serde_json::to_value(ProposalPage { proposals, next: None }).unwrap(), 0))
    }

    fn answer(&self, subject: &Subject, command: &Command) -> Reply {
        match command {
            Command::Approve(decision) => self.approve(decision),
            Command::Proposals(_) => self.proposals(subject),
            Command::Remove(remove) => self.remove(subject, remove),
            Command::Info => Reply::Ok(OkReply::new(json!({ "batos": "0", "image": "0" }), 0)),
            other => self.apply(subject, other),
        }
    }
}

impl Ask for Graph {
    fn ask<'a>(
        &'a self,
        _: &'a str,
        subject: &'a Subject,
        command: &'a Command,
    ) -> BoxFuture<'a, Result<Reply, String>> {
        let (graph, subject, command) = (self.clone(), subject.clone(), command.clone());
        let late = self.memory.lateness(false).unwrap_or_default();
        let arrives = async move {
            tokio::time::sleep(late).await;
            graph.carry_out(&subject, &command).await
        };
        Box::pin(async move {
            match late.is_zero() {
                true => arrives.await,
                // On its way, whatever becomes of whoever sent it.
                false => tokio::spawn(arrives).await.unwrap(),
            }
        })
    }

    fn reaches<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(), String>> {
        let reached = match *self.down.lock().unwrap() {
            Some(Down::Bus) => Err("no responders".to_owned()),
            _ => Ok(()),
        };
        Box::pin(std::future::ready(reached))
    }
}

/// The engines of all pods: what each has loaded, by the pod's uid.
#[derive(Clone)]
pub struct Played {
    memory: Memory,
    pub loaded: Arc<Mutex<BTreeMap<String, BTreeMap<String, String>>>>,
    pub down: Arc<AtomicBool>,
}

impl Played {
    pub fn new(memory: &Memory) -> Self {
        Self { memory: memory.clone(), loaded: Arc::default(), down: Arc::default() }
    }

    pub fn of(&self, who: &'static str) -> Self {
        Self { memory: self.memory.of(who), ..self.clone() }
    }

    /// Carries out a request to the engine on `ip`.
    async fn asked<T>(
        &self,
        what: &str,
        ip: &str,
        writes: bool,
        carry_out: impl FnOnce(&mut BTreeMap<String, String>) -> T,
    ) -> Result<T, String> {
        let objects = self.memory.objects();
        let pod = objects.values().find(|object| object["status"]["podIP"] == ip);
        let Some(pod) = pod.filter(|_| !self.down.load(Ordering::SeqCst)) else { return Err("no route".to_owned()) };
        let uid = pod["metadata"]["uid"].as_str().unwrap().to_owned();
        let work = || carry_out(self.loaded.lock().unwrap().entry(uid).or_default());
        match self.memory.gate(format!("{what} {ip}"), writes, work).await {
            Some(result) => result.map_err(|code| format!("played {code}")),
            None => {
                tokio::time::sleep(Duration::from_secs(60)).await;
                Err("no answer in time".to_owned())
            }
        }
    }
}

impl Engines for Played {
    fn adapters<'a>(&'a self, ip: &'a str, _: &'a str) -> BoxFuture<'a, Result<BTreeMap<String, String>, String>> {
        Box::pin(self.asked("models", ip, false, |loaded| loaded.clone()))
    }

    fn load<'a>(&'a self, ip: &'a str, adapter: &'a str, path: &'a str) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(self.asked("load", ip, true, |loaded| drop(loaded.insert(adapter.to_owned(), path.to_owned()))))
    }

    fn unload<'a>(&'a self, ip: &'a str, adapter: &'a str) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(self.asked("unload", ip, true, |loaded| drop(loaded.remove(adapter))))
    }
}
