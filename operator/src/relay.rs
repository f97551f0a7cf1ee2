//! Moves events from the outbox to the bus. The outbox row goes only when the bus has the event.

use std::time::Duration;

use batos_bus::{Event, Publisher};
use batos_uvm::universe::{Universe, UniverseError};

/// Looks at the outbox this often even when no commit woke it: what a dead worker left is found here.
const SWEEP: Duration = Duration::from_secs(5);

pub async fn run(universe: Universe, publisher: Publisher, root: String) {
    loop {
        if let Err(error) = sweep(&universe, &publisher, &root).await {
            tracing::warn!(%error, "events wait in the outbox");
            tokio::time::sleep(Duration::from_millis(250)).await;
            continue;
        }
        universe.outbox_filled(SWEEP).await;
    }
}

async fn sweep(universe: &Universe, publisher: &Publisher, root: &str) -> Result<(), crate::cli::Error> {
    for shard in 0..=u8::MAX {
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
