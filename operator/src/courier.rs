//! Carries out the messages that objects send to run on their own. What waits lies in the store: a courier that dies
//! leaves nothing behind but rows for the next one, and two couriers do no harm.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use batos_covenant::{ErrorKind, ErrorReply};
use batos_graph::{Key, ObjectId};
use batos_uvm::universe::{Filled, Universe, UniverseError, Waiting, now};
use tokio::task::JoinSet;

use crate::ingress::Ingress;

/// Looks at all shards this often: what a dead worker left is found here.
const SWEEP: Duration = Duration::from_secs(5);
/// Messages under way at once.
const LANES: usize = 64;
/// Rest before a message is tried again that could not be carried out now.
const REST: Duration = Duration::from_millis(500);

/// Messages of one lane are delivered one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Lane {
    Pair { sender: ObjectId, receiver: ObjectId },
    Timer(Key),
}

struct Courier {
    ingress: Arc<Ingress>,
    busy: HashSet<Lane>,
    carrying: JoinSet<(Lane, u8)>,
    /// When the next timer of a shard is due, in milliseconds since 1970.
    due: BTreeMap<u8, u64>,
    /// Shards with more than could be taken.
    behind: BTreeSet<u8>,
}

/// Runs until it is dropped; what is under way then goes on from its row.
pub async fn run(ingress: Arc<Ingress>) {
    let universe = ingress.universe.clone();
    let mut courier = Courier {
        ingress,
        busy: HashSet::new(),
        carrying: JoinSet::new(),
        due: BTreeMap::new(),
        behind: BTreeSet::new(),
    };
    let mut shards = Filled::Any.shards();
    let (mut sweeps, mut swept) = (true, Instant::now());
    loop {
        for shard in std::mem::take(&mut shards) {
            if let Err(error) = courier.look(&universe, shard).await {
                tracing::warn!(shard, %error, "messages of objects wait");
                courier.due.insert(shard, now() + 1_000);
            }
        }
        // From its end: on a slow store a sweep may take as long as its period, and what is posted must have its turn.
        if std::mem::take(&mut sweeps) {
            swept = Instant::now();
        }
        if swept.elapsed() >= SWEEP {
            sweeps = true;
            shards = Filled::Any.shards();
            continue;
        }
        let due = courier.due.values().min().map_or(SWEEP, |due| Duration::from_millis(due.saturating_sub(now())));
        tokio::select! {
            filled = universe.posted(due.min(SWEEP.saturating_sub(swept.elapsed()))) => shards = match filled {
                Filled::These(shards) => shards,
                Filled::Any => courier.take_due(),
            },
            Some(carried) = courier.carrying.join_next() => match carried {
                Ok((lane, shard)) => {
                    courier.busy.remove(&lane);
                    shards.extend(std::mem::take(&mut courier.behind));
                    shards.insert(shard);
                }
                Err(error) => tracing::error!(%error, "a message's delivery died"),
            },
        }
    }
}

impl Courier {
    /// Shards whose next timer is due.
    fn take_due(&mut self) -> BTreeSet<u8> {
        let now = now();
        let due: BTreeSet<u8> = self.due.iter().filter(|(_, due)| **due <= now).map(|(shard, _)| *shard).collect();
        self.due.retain(|shard, _| !due.contains(shard));
        due
    }

    /// Takes what waits in a shard and can go.
    async fn look(&mut self, universe: &Universe, shard: u8) -> Result<(), UniverseError> {
        let (timers, next) = universe.timers(shard).await?;
        match next {
            Some(next) => drop(self.due.insert(shard, next)),
            None => drop(self.due.remove(&shard)),
        }
        for timer in timers {
            self.carry(Lane::Timer(timer.key.clone()), shard, vec![timer]);
        }
        let mut pairs: BTreeMap<(ObjectId, ObjectId), Vec<Waiting>> = BTreeMap::new();
        for waiting in universe.posts(shard, None).await? {
            let pair = (waiting.envelope.sender, waiting.envelope.post.receiver);
            pairs.entry(pair).or_default().push(waiting);
        }
        for ((sender, receiver), run) in pairs {
            self.carry(Lane::Pair { sender, receiver }, shard, run);
        }
        Ok(())
    }

    fn carry(&mut self, lane: Lane, shard: u8, run: Vec<Waiting>) {
        if self.busy.contains(&lane) {
            return;
        }
        if self.carrying.len() >= LANES {
            self.behind.insert(shard);
            return;
        }
        self.busy.insert(lane.clone());
        let ingress = self.ingress.clone();
        self.carrying.spawn(async move {
            for waiting in run {
                if !deliver(&ingress, waiting).await {
                    // Those behind it wait too: they come after it.
                    tokio::time::sleep(REST).await;
                    break;
                }
            }
            (lane, shard)
        });
    }
}

/// Whether the message is out of the way.
async fn deliver(ingress: &Ingress, waiting: Waiting) -> bool {
    let failed = match waiting.is_expired() {
        true => ErrorReply::new(ErrorKind::LimitExceeded, "it has waited too long to begin"),
        false => match ingress.carry_out(&waiting).await {
            Ok(()) => return true,
            Err(error) if matches!(error.kind, ErrorKind::Unavailable | ErrorKind::Conflict) => return false,
            Err(error) => error,
        },
    };
    match ingress.universe.give_up(&waiting, failed).await {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(%error, "a failed message waits");
            false
        }
    }
}
