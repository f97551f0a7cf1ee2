//! Methods that fail again and again: whoever looks on counts them, and a becoming makes them anew.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use batos_covenant::{ErrorKind, SendCommand};
use batos_graph::ObjectId;
use batos_uvm::{
    universe::{Seen, TRAITS_PREFIX, UniverseError, View, Witness},
    vm::Fault,
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::{Autonomy, BecomingError, Job, Mind, MindError, Outcome, crucible::parents_of};

/// Failures count together that lie within this time.
const WINDOW: Duration = Duration::from_secs(3600);
/// Methods at fault that are counted at once, and repairs that wait.
const MAX_FAULTS: usize = 1024;
const MAX_WAITING: usize = 64;
/// Objects that the search for a method's holder visits.
const MAX_CHAIN: usize = 64;
/// Bytes of messages that are kept for shadow runs.
const MAX_RECENT: usize = 1 << 20;

/// What is wrong with a method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Defect {
    /// Holds the method.
    pub holder: ObjectId,
    /// As it was when it failed.
    pub source: String,
    pub kind: ErrorKind,
    pub line: u32,
    /// How often it failed before somebody looked.
    pub times: u32,
    /// Whom the message was for that failed, and the message, where a sender sent it.
    pub object: ObjectId,
    pub send: Option<SendCommand>,
}

/// Looks on as messages are carried out.
pub(crate) struct Watch {
    /// Failures after which a method is repaired.
    after: Option<u32>,
    faults: Mutex<HashMap<(ObjectId, String), (u32, Instant)>>,
    /// Messages that are kept.
    most: usize,
    recent: Mutex<VecDeque<Seen>>,
    at_fault: mpsc::Sender<(Seen, u32)>,
    waiting: tokio::sync::Mutex<mpsc::Receiver<(Seen, u32)>>,
}

impl Watch {
    pub fn new(after: Option<u32>, most: usize) -> Self {
        let (at_fault, waiting) = mpsc::channel(MAX_WAITING);
        let waiting = tokio::sync::Mutex::new(waiting);
        Self { after, faults: Mutex::default(), most, recent: Mutex::default(), at_fault, waiting }
    }

    /// Messages that went through this object, the latest first.
    pub fn recent(&self, through: ObjectId) -> Vec<Seen> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let reads = |seen: &&Seen| seen.base.iter().any(|(id, _)| *id == through);
        recent.iter().rev().filter(reads).cloned().collect()
    }

    /// How often the method has failed, if that is often enough now.
    fn count(&self, fault: &Fault) -> Option<u32> {
        let after = self.after?;
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults.retain(|_, (_, since)| since.elapsed() < WINDOW);
        let key = (fault.holder, fault.selector.clone());
        if faults.len() >= MAX_FAULTS && !faults.contains_key(&key) {
            return None;
        }
        let (times, _) = faults.entry(key.clone()).or_insert((0, Instant::now()));
        *times += 1;
        let times = *times;
        (times >= after).then(|| faults.remove(&key)).flatten().map(|_| times)
    }

    fn keep(&self, seen: Seen) {
        let size = |seen: &Seen| serde_json::to_vec(&seen.send).map_or(0, |bytes| bytes.len()) + 24 * seen.base.len();
        if self.most == 0 || seen.send.is_none() || size(&seen) > MAX_RECENT / self.most {
            return;
        }
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() >= self.most {
            recent.pop_front();
        }
        recent.push_back(seen);
    }
}

impl Witness for Watch {
    fn saw(&self, seen: Seen) {
        if let Some(times) = seen.fault.as_ref().and_then(|fault| self.count(fault)) {
            // What does not fit fails again.
            let _ = self.at_fault.try_send((seen.clone(), times));
        }
        self.keep(seen);
    }
}

impl Mind {
    /// Repairs what fails again and again, until the process ends.
    pub async fn mend(self) {
        while let Some((seen, times)) = self.next_fault().await {
            match self.repair(&seen, times).await {
                Ok(outcome) => tracing::info!(?outcome, "a method that failed was looked at"),
                Err(error) => tracing::warn!(%error, "a method that fails could not be repaired"),
            }
        }
    }

    /// The next message that made a method fail once too often, and how often that was.
    pub async fn next_fault(&self) -> Option<(Seen, u32)> {
        match &self.watch {
            Some(watch) => watch.waiting.lock().await.recv().await,
            None => None,
        }
    }

    /// Makes anew the method at fault. Its examples, and what else the object is for, must hold; the message must not fail.
    pub async fn repair(&self, seen: &Seen, times: u32) -> Result<Outcome, BecomingError> {
        if self.policy.autonomy == Autonomy::Strict {
            return Err(MindError::Strict.into());
        }
        let nothing = |why: String| Ok(Outcome::Refused(why));
        let Some(fault) = &seen.fault else { return nothing("no method was at fault".to_owned()) };
        let found = View::new(&self.universe).object(fault.holder).await?;
        let Some((_, holder)) = found.filter(|(_, record)| !record.is_kernel) else {
            return nothing(format!("{} is no object of this universe that could be changed", fault.holder));
        };
        let Some(source) = holder.slot(&fault.selector).and_then(|slot| slot.kind.method()).map(str::to_owned) else {
            return nothing(format!("{:?} is no method any more", fault.selector));
        };
        let Fault { holder, ref selector, line, kind } = **fault;
        let (object, send) = (seen.object, seen.send.clone());
        let defect = Defect { holder, source, kind, line, times, object, send };
        let receiver = self.receiver_of(seen.object, holder).await?;
        self.begun(&Job::repair(selector, receiver, defect), "").await
    }

    /// An object that runs the methods of `holder`: this one, or else the prototype whose traits they are.
    async fn receiver_of(&self, object: ObjectId, holder: ObjectId) -> Result<ObjectId, UniverseError> {
        let view = View::new(&self.universe);
        let (mut seen, mut next) = (vec![object], 0);
        while let Some(id) = seen.get(next).copied() {
            next += 1;
            if id == holder {
                return Ok(object);
            }
            let Some((_, record)) = view.object(id).await? else { continue };
            let parents: Vec<ObjectId> = parents_of(&record).filter(|id| !seen.contains(id)).collect();
            seen.extend(parents.into_iter().take(MAX_CHAIN.saturating_sub(seen.len())));
        }
        let name = view.object(holder).await?.and_then(|(_, record)| record.name.clone()).unwrap_or_default();
        match name.strip_prefix(TRAITS_PREFIX) {
            Some(prototype) => Ok(self.universe.lookup_name(prototype).await?.unwrap_or(holder)),
            None => Ok(holder),
        }
    }
}
