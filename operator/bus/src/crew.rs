//! The workers of a universe, and which of them has which shard: the one whose digest with the shard is highest
//! (rendezvous hashing), so that a worker that comes or goes moves no shards but its own. Workers tell of themselves on a
//! subject that all of them hear. What two of them believe may differ for a moment; then a message is carried out where
//! its object's records are not at hand, and nothing worse: who may write is the commit's to say.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_nats::{HeaderMap, Message, Request, RequestErrorKind, Subscriber};
use batos_covenant::{MESSAGE_ID_HEADER, SENDER_HEADER};
use futures::StreamExt;

use crate::{BusError, BusErrorKind, Client};

/// How often a worker tells that it is there, and how long others believe it.
const BEAT: Duration = Duration::from_secs(1);
const LIFE: Duration = Duration::from_secs(4);
/// Longest id of a worker that is believed, in bytes.
const MAX_ID: usize = 64;
/// How long a forwarded request may take. Whoever sent it waits for ten seconds, and then sends it again.
const PATIENCE: Duration = Duration::from_secs(30);
/// The subject that a forwarded request came on.
pub(crate) const SUBJECT_HEADER: &str = "Batos-Subject";

/// What becomes of a request that belongs to another worker.
pub(crate) enum Forwarded {
    Answered(Vec<u8>),
    /// The other one is gone, and has not had it.
    NotTaken,
    /// It has it, and no answer came.
    Lost(String),
}

/// This worker among the others.
pub struct Crew {
    client: Client,
    me: String,
    /// Where all of them hear of each other; a worker's own requests come on its id below it.
    subject: String,
    others: Mutex<BTreeMap<String, Instant>>,
    forwarded: AtomicU64,
}

impl Crew {
    /// `me` has to be unlike all others.
    pub fn new(client: &Client, root: &str, universe: &str, me: &str) -> Arc<Self> {
        Arc::new(Self {
            client: client.clone(),
            me: me.to_owned(),
            subject: format!("{root}.v1.{universe}.wrk"),
            others: Mutex::default(),
            forwarded: AtomicU64::new(0),
        })
    }

    /// Workers that are there, this one included.
    pub fn size(&self) -> usize {
        self.others().len() + 1
    }

    /// Requests that went to another worker.
    pub fn forwarded(&self) -> u64 {
        self.forwarded.load(Ordering::Relaxed)
    }

    /// The worker that has a shard, unless it is this one.
    pub(crate) fn owner(&self, shard: u8) -> Option<String> {
        let others = self.others();
        let owner = owner(others.iter().chain([&self.me]), shard)?;
        (*owner != self.me).then(|| owner.clone())
    }

    fn others(&self) -> Vec<String> {
        let others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        others.iter().filter(|(_, seen)| seen.elapsed() < LIFE).map(|(id, _)| id.clone()).collect()
    }

    /// Takes in what a worker tells of itself; whether it is news that it is there.
    fn hear(&self, told: &[u8]) -> bool {
        let Ok(text) = std::str::from_utf8(told) else { return false };
        match text.strip_prefix('-') {
            _ if text == self.me || text.len() > MAX_ID => false,
            Some(gone) => {
                self.forget(gone);
                false
            }
            None => {
                let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
                others.retain(|_, seen| seen.elapsed() < LIFE);
                others.insert(text.to_owned(), Instant::now()).is_none()
            }
        }
    }

    /// Whether a subject is the one of this worker alone.
    pub(crate) fn is_mine(&self, subject: &str) -> bool {
        subject.strip_prefix(&self.subject).and_then(|rest| rest.strip_prefix('.')) == Some(&self.me)
    }

    fn forget(&self, worker: &str) {
        self.others.lock().unwrap_or_else(PoisonError::into_inner).remove(worker);
    }

    /// Requests that others forward.
    pub(crate) async fn requests(&self) -> Result<Subscriber, BusError> {
        self.subscribe(format!("{}.{}", self.subject, self.me)).await
    }

    async fn subscribe(&self, subject: String) -> Result<Subscriber, BusError> {
        let failed = |e: String| BusError::new(BusErrorKind::Subscribe, format!("cannot subscribe to {subject}: {e}"));
        self.client.nats.subscribe(subject.clone()).await.map_err(|e| failed(e.to_string()))
    }

    /// Hears of the others and tells of itself, for ever.
    pub(crate) async fn meet(&self) -> Result<(), BusError> {
        let mut told = self.subscribe(self.subject.clone()).await?;
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = told.next() => {
                    let Some(message) = message else { return Ok(()) };
                    if self.hear(&message.payload) {
                        tracing::info!(worker = %String::from_utf8_lossy(&message.payload), "another worker is there");
                        // So that it hears at once who is here.
                        self.tell("").await;
                    }
                }
                _ = beat.tick() => self.tell("").await,
            }
        }
    }

    /// Others take what is this worker's.
    pub(crate) async fn leave(&self) {
        self.tell("-").await;
        let _ = self.client.nats.flush().await;
    }

    async fn tell(&self, sign: &str) {
        if let Err(error) = self.client.nats.publish(self.subject.clone(), format!("{sign}{}", self.me).into()).await {
            tracing::debug!(%error, "the other workers cannot be told");
        }
    }

    /// Has another worker answer.
    pub(crate) async fn forward(&self, owner: &str, message: &Message) -> Forwarded {
        let mut headers = HeaderMap::new();
        for name in [SENDER_HEADER, MESSAGE_ID_HEADER] {
            if let Some(value) = message.headers.as_ref().and_then(|headers| headers.get(name)) {
                headers.insert(name, value.as_str());
            }
        }
        headers.insert(SUBJECT_HEADER, message.subject.as_str());
        let request = Request::new().headers(headers).payload(message.payload.clone()).timeout(Some(PATIENCE));
        self.forwarded.fetch_add(1, Ordering::Relaxed);
        match self.client.nats.send_request(format!("{}.{owner}", self.subject), request).await {
            Ok(reply) => Forwarded::Answered(reply.payload.to_vec()),
            Err(error) if error.kind() == RequestErrorKind::NoResponders => {
                self.forget(owner);
                Forwarded::NotTaken
            }
            Err(error) => Forwarded::Lost(error.to_string()),
        }
    }
}

/// Of these workers the one that has a shard.
fn owner<'a>(workers: impl Iterator<Item = &'a String>, shard: u8) -> Option<&'a String> {
    let weight =
        |worker: &&String| *blake3::Hasher::new().update(&[shard]).update(worker.as_bytes()).finalize().as_bytes();
    workers.max_by_key(weight)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::owner;

    fn table(workers: &[&str]) -> BTreeMap<u8, String> {
        let workers: Vec<String> = workers.iter().map(|worker| (*worker).to_owned()).collect();
        (0..=u8::MAX).map(|shard| (shard, owner(workers.iter(), shard).unwrap().clone())).collect()
    }

    #[test]
    fn who_comes_or_goes_moves_its_own_shards_alone() {
        let (three, two) = (table(&["a", "b", "c"]), table(&["c", "a"]));
        for worker in ["a", "b", "c"] {
            let share = three.values().filter(|owner| *owner == worker).count();
            assert!((60..=110).contains(&share), "{worker} has {share} of 256");
        }
        for (shard, owner) in &three {
            assert!(owner == "b" || two[shard] == *owner, "shard {shard} moved from {owner}");
        }
        assert_eq!(table(&["a", "b", "c"]), table(&["c", "b", "a"]), "in whatever order they are known");
        assert_eq!(owner(std::iter::empty(), 7), None);
    }
}
