//! One worker at a time asks the mind about a becoming: a claim in its row, which lapses when nobody renews it.

use std::{pin::pin, time::Duration};

use batos_graph::{ObjectId, Rev, StoreError};
use batos_uvm::universe::{Changes, UniverseError, now};
use serde::{Deserialize, Serialize};

use crate::{
    BecomingError, Job, Mind, Step,
    journal::{load, open_jobs, row},
};

/// How long a worker that finds a claim waits before it looks again.
const POLL: Duration = Duration::from_millis(200);
/// How often open becomings are gone on with that nobody is busy with: a model may answer again.
const TEND: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    worker: String,
    /// Milliseconds since 1970 by the worker's clock.
    until: u64,
}

impl Mind {
    /// Does a piece of work while no other worker does, and answers the row's revision after it; `None` when another one has
    /// the claim, or takes it, or the becoming has ended meanwhile: then the work is dropped.
    pub(crate) async fn claimed<T>(
        &self,
        job: &Job,
        rev: Rev,
        work: impl Future<Output = Result<T, BecomingError>>,
    ) -> Result<Option<(Rev, T)>, BecomingError> {
        if job.claim.as_ref().is_some_and(|claim| claim.worker != self.worker && claim.until > now()) {
            tokio::time::sleep(POLL).await;
            return Ok(None);
        }
        let Some(mut rev) = self.claim(job, rev, true).await? else { return Ok(None) };
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return match done {
                    Ok(done) => Ok(Some((rev, done))),
                    Err(error) => {
                        self.claim(job, rev, false).await?;
                        Err(error)
                    }
                },
                () = tokio::time::sleep(self.policy.lease / 3) => match self.claim(job, rev, true).await? {
                    Some(next) => rev = next,
                    None => return Ok(None),
                },
            }
        }
    }

    /// Writes or removes the claim. `None` when the row is another one by now.
    async fn claim(&self, job: &Job, rev: Rev, holds: bool) -> Result<Option<Rev>, UniverseError> {
        let until = now().saturating_add(u64::try_from(self.policy.lease.as_millis()).unwrap_or(u64::MAX));
        let claim = holds.then(|| Claim { worker: self.worker.clone(), until });
        let claimed = Job { claim, ..job.clone() };
        let rows = vec![(row(&self.universe, &claimed)?, Some(rev))];
        let changes = Changes { rows, ..Changes::default() };
        match self.universe.commit(self.universe.fresh_marker()?, Vec::new(), changes).await {
            Err(UniverseError::Store(StoreError::Conflict(_))) => Ok(None),
            other => other.map(|()| Some(rev + 1)),
        }
    }

    /// Goes on, again and again, with what was left open because a mind could not be asked.
    pub async fn tend(self) {
        loop {
            tokio::time::sleep(TEND).await;
            if let Err(error) = self.tend_once().await {
                tracing::warn!(%error, "open becomings could not be looked through");
            }
            if let Err(error) = self.amend_again().await {
                tracing::warn!(%error, "the Codex could not be looked at");
            }
        }
    }

    async fn tend_once(&self) -> Result<(), UniverseError> {
        let mut runs = tokio::task::JoinSet::new();
        for id in open_jobs(&self.universe).await? {
            if self.is_waiting(id).await? {
                let mind = self.clone();
                runs.spawn(async move {
                    if let Err(error) = mind.pursue(id).await {
                        tracing::debug!(becoming = %id, %error, "still open");
                    }
                });
            }
        }
        while runs.join_next().await.is_some() {}
        Ok(())
    }

    /// Whether nobody of this worker is busy with it and no person has to answer.
    async fn is_waiting(&self, id: ObjectId) -> Result<bool, UniverseError> {
        if self.is_running(id).await {
            return Ok(false);
        }
        let known = load(&self.universe, id).await?;
        Ok(known.is_some_and(|(_, job)| job.is_open() && job.step != Step::Proposed))
    }
}
