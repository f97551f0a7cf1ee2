//! Housekeeping while a worker runs: a bounded batch, then a rest, so that turns hardly notice. Ends when another batos has
//! given the universe a newer image: this worker must not go on with its own.

use std::time::{Duration, Instant};

use batos_uvm::universe::{Universe, UniverseError};

/// A rest after work is this many times as long as the work.
const REST: u32 = 4;
/// Rest after a failure, and the longest time between two looks at the universe's version.
const LOOK: Duration = Duration::from_secs(30);

/// Answers why the worker must end.
pub async fn run(universe: Universe) -> UniverseError {
    let mut trimmed = 0;
    let mut rest = Duration::ZERO;
    loop {
        let look = rest.min(LOOK);
        tokio::time::sleep(look).await;
        rest -= look;
        match universe.confirm_version().await {
            Err(superseded @ UniverseError::Newer { .. }) => return superseded,
            Err(error) => tracing::warn!(%error, "the universe's version is not known"),
            Ok(()) => {}
        }
        if !rest.is_zero() {
            continue;
        }
        let begun = Instant::now();
        rest = match universe.keep_house().await {
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
    }
}
