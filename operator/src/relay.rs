//! Moves events from the outbox to the bus. The outbox row goes only when the bus has the event.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use batos_bus::{Event, Publisher};
use batos_graph::{Key, KeySpace};
use batos_uvm::universe::{OUTBOX_PAGE, OutboxEvent, Universe};
use futures::{StreamExt, stream};
use tokio::{sync::watch, time::Instant};

use crate::{cli::Error, metrics::Metrics};

/// The whole outbox is looked at this often: what a dead worker left is found then.
const SWEEP: Duration = Duration::from_secs(5);
/// Events of commits that are this close together are published together.
const GATHER: Duration = Duration::from_millis(1);
/// Published events are removed together, so that removing does not compete with turns for syncs. What a crash keeps from
/// being removed is published again, under the same ids.
const TRIM: Duration = Duration::from_millis(250);
/// Events that are published at once, and published ones that may wait to be removed.
const PAGE: usize = 1024;
/// Objects whose events are read at once.
const READS: usize = 16;
/// After a failure.
const PAUSE: Duration = Duration::from_millis(250);

pub struct Relay {
    universe: Universe,
    publisher: Publisher,
    root: String,
    /// Published and still in the outbox.
    published: BTreeSet<Key>,
    /// When they shall go.
    trim_at: Option<Instant>,
    /// Marker of the last removal.
    marker: Option<Key>,
    metrics: Arc<Metrics>,
}

impl Relay {
    pub fn new(universe: Universe, publisher: Publisher, root: String, metrics: Arc<Metrics>) -> Self {
        Self { universe, publisher, root, published: BTreeSet::new(), trim_at: None, marker: None, metrics }
    }

    /// Until `stop` turns true; then what waits is published once more.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut sweep_at = Instant::now();
        let mut healthy = true;
        loop {
            let stopping = *stop.borrow();
            let wake_at = self.trim_at.map_or(sweep_at, |trim_at| sweep_at.min(trim_at));
            let keys = match stopping {
                true => Vec::new(),
                false => tokio::select! {
                    keys = self.universe.outbox_filled(wake_at.saturating_duration_since(Instant::now())) => keys,
                    _ = stop.wait_for(|stop| *stop) => continue,
                },
            };
            let done = match stopping || Instant::now() >= sweep_at {
                true => self.sweep().await.map(|()| sweep_at = Instant::now() + SWEEP),
                false => self.publish_keys(keys).await,
            };
            let trimmed = match stopping || self.trim_at.is_some_and(|trim_at| Instant::now() >= trim_at) {
                true => self.trim().await,
                false => Ok(()),
            };
            match done.and(trimmed) {
                Ok(()) if healthy => {}
                Ok(()) => {
                    healthy = true;
                    tracing::info!("events are published again");
                }
                Err(error) => {
                    // Once, not every time: the state is told, and counted.
                    if std::mem::replace(&mut healthy, false) {
                        tracing::warn!(%error, "events wait in the outbox");
                    }
                    // What could not be published now is found again.
                    sweep_at = Instant::now();
                    tokio::time::sleep(PAUSE).await;
                }
            }
            if stopping {
                return;
            }
        }
    }

    /// Publishes what commits of this worker left, after what waits of the same objects: another worker may have died with it.
    async fn publish_keys(&mut self, mut keys: Vec<Key>) -> Result<(), Error> {
        if keys.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(GATHER).await;
        keys.extend(self.universe.outbox_filled(Duration::ZERO).await);
        let mut last = BTreeMap::new();
        for key in keys {
            let last = last.entry(KeySpace::object_of(&key)).or_insert_with(|| key.clone());
            if *last < key {
                *last = key;
            }
        }
        let wanted: Vec<_> = last.into_values().map(|last| (self.published_before(&last), last)).collect();
        let universe = self.universe.clone();
        let reads = stream::iter(wanted).map(move |(after, last)| {
            let universe = universe.clone();
            async move { universe.outbox_of(&last, after.as_ref()).await }
        });
        let mut reads = std::pin::pin!(reads.buffered(READS));
        let mut events = Vec::new();
        while let Some(more) = reads.next().await {
            events.extend(more?);
            if events.len() >= PAGE {
                self.publish(std::mem::take(&mut events)).await?;
            }
        }
        self.publish(events).await
    }

    /// The last event before `key`, or it, that is published and of the same object.
    fn published_before(&self, key: &Key) -> Option<Key> {
        let before = self.published.range(..=key).next_back()?;
        (KeySpace::object_of(before) == KeySpace::object_of(key)).then(|| before.clone())
    }

    /// Publishes all that waits.
    async fn sweep(&mut self) -> Result<(), Error> {
        for shard in 0..=u8::MAX {
            let mut after = None;
            loop {
                let events = self.universe.outbox(shard, after.as_ref()).await?;
                let full = events.len() == OUTBOX_PAGE;
                after = events.last().map(|(key, _)| key.clone());
                self.publish(events).await?;
                if !full {
                    break;
                }
            }
        }
        Ok(())
    }

    async fn publish(&mut self, mut events: Vec<(Key, OutboxEvent)>) -> Result<(), Error> {
        events.retain(|(key, _)| !self.published.contains(key));
        if events.is_empty() {
            return Ok(());
        }
        let (keys, events): (Vec<_>, Vec<_>) = events
            .into_iter()
            .map(|(key, event)| {
                let subject =
                    batos_covenant::event_subject(&self.root, self.universe.name(), &event.object, &event.kind);
                (key, Event { subject, id: event.id, payload: event.payload })
            })
            .unzip();
        self.metrics.waiting(events.len());
        self.publisher.publish(events).await?;
        self.metrics.waiting(0);
        self.published.extend(keys);
        self.trim_at.get_or_insert_with(|| Instant::now() + TRIM);
        match self.published.len() >= PAGE {
            true => self.trim().await,
            false => Ok(()),
        }
    }

    async fn trim(&mut self) -> Result<(), Error> {
        if !self.published.is_empty() {
            // The marker of the removal before has served its purpose.
            let keys = self.published.iter().cloned().chain(self.marker.take()).collect();
            self.marker = Some(self.universe.trim(keys).await?);
            self.published.clear();
        }
        self.trim_at = None;
        Ok(())
    }
}
