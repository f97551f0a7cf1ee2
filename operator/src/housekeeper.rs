//! Housekeeping while a worker runs: bounded work, then a rest, so that turns hardly notice. Ends when another batos has
//! given the universe a newer image: this worker must not go on with its own.

use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

use batos_uvm::universe::{Universe, UniverseError};

/// A rest after work is this many times as long as the work.
const REST: u32 = 4;
/// Rest after a failure, and the time between two looks at the universe's version.
const LOOK: Duration = Duration::from_secs(30);

/// Answers why the worker must end.
pub async fn run(universe: Universe) -> UniverseError {
    tokio::select! {
        superseded = superseded(&universe) => superseded,
        never = sweep(&universe) => match never {},
        never = collect(&universe) => match never {},
    }
}

async fn superseded(universe: &Universe) -> UniverseError {
    loop {
        match universe.confirm_version().await {
            Err(superseded @ UniverseError::Newer { .. }) => return superseded,
            Err(error) => tracing::warn!(%error, "the universe's version is not known"),
            Ok(()) => {}
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Lets go what retention lets go.
async fn sweep(universe: &Universe) -> Infallible {
    let mut trimmed = 0;
    loop {
        let begun = Instant::now();
        let rest = match universe.keep_house().await {
            Ok(swept) => {
                trimmed += swept.trimmed;
                if swept.rest.is_some() && trimmed > 0 {
                    tracing::info!(rows = trimmed, "housekeeping let go what its time has passed");
                    trimmed = 0;
                }
                swept.rest.unwrap_or(begun.elapsed() * REST)
            }
            Err(error) => {
                tracing::warn!(%error, "housekeeping waits");
                LOOK
            }
        };
        tokio::time::sleep(rest).await;
    }
}

/// Collects objects that nothing reaches.
async fn collect(universe: &Universe) -> Infallible {
    loop {
        let rest = match universe.collect(batos_mind::job_targets).await {
            Ok(collected) => {
                if collected.objects > 0 {
                    tracing::info!(objects = collected.objects, "objects that nothing reached are gone");
                }
                collected.rest
            }
            Err(error) => {
                tracing::warn!(%error, "collection waits");
                LOOK
            }
        };
        tokio::time::sleep(rest).await;
    }
}
