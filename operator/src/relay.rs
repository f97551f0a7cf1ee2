//! Moves events from the outbox to the bus. The outbox row goes only when the bus has the event.

use std::time::Duration;

use batos_bus::{Event, Publisher};
use batos_uvm::universe::{Filled, Universe, UniverseError};

/// Looks at the outbox this often even when no commit woke it: what a dead worker left is found here.
const SWEEP: Duration = Duration::from_secs(5);

pub async fn run(universe: Universe, publisher: Publisher, root: String) {
    let mut shards = Filled::Any;
    loop {
        if let Err(error) = sweep(&universe, &publisher, &root, shards).await {
            tracing::warn!(%error, "events wait in the outbox");
            tokio::time::sleep(Duration::from_millis(250)).await;
            shards = Filled::Any;
            continue;
        }
        shards = universe.outbox_filled(SWEEP).await;
    }
}

async fn sweep(
    universe: &Universe,
    publisher: &Publisher,
    root: &str,
    shards: Filled,
) -> Result<(), crate::cli::Error> {
    for shard in shards.shards() {
        loop {
            let waiting = universe.outbox(shard).await?;
            if waiting.is_empty() {
                break;
            }
            let (keys, events): (Vec<_>, Vec<_>) = waiting
                .into_iter()
                .map(|(key, event)| {
                    let subject = batos_covenant::event_subject(root, universe.name(), &event.object, &event.kind);
                    (key, Event { subject, id: event.id, payload: event.payload })
                })
                .unzip();
            publisher.publish(events).await?;
            universe.trim(keys).await.map_err(|e: UniverseError| e.to_string())?;
        }
    }
    Ok(())
}
