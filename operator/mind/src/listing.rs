//! Becomings before people: lists of them, and their end by an Architect.

use batos_covenant::{Becoming, BecomingPage, FullState, OkReply, Wire};
use batos_graph::{ObjectId, StoreError};
use batos_uvm::{
    image::TOOL_FORGE,
    universe::{Changes, UniverseError, View},
};

use crate::{
    BecomingError, Job, Mind, Step,
    becoming::refuse,
    journal::{load, page},
    organs::swap_attempts,
    route::Route,
};

/// Longest reason that a list shows, in characters.
const MAX_REASON: usize = 500;

impl Mind {
    /// Ends an open becoming. It is remembered like one that was refused.
    pub async fn cancel(&self, id: ObjectId, reason: &str) -> Result<Becoming, BecomingError> {
        let (mut conflicts, attempts) = (0, swap_attempts(&self.universe).await?);
        loop {
            let Some((rev, mut job)) = load(&self.universe, id).await? else {
                return Err(UniverseError::NoSuchObject(format!("becoming {id}")).into());
            };
            match job.step {
                Step::Swapped | Step::Refused => return Ok(self.told(&job).await?),
                Step::Proposed => return Err(BecomingError::Proposed(id)),
                Step::Asked | Step::Drafted | Step::Repair | Step::Judged => {}
            }
            if job.request.is_empty() {
                job.request = self.question(&job).await?;
            }
            job.codex = self.laws().await?.1.digest();
            refuse(&mut job, format!("it was cancelled: {reason}"));
            match self.step(&job, Some(rev), Changes::default()).await {
                Err(UniverseError::Store(StoreError::Conflict(_))) if conflicts < attempts => conflicts += 1,
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok(self.told(&job).await?),
            }
        }
    }

    pub async fn becoming(&self, id: ObjectId) -> Result<Becoming, UniverseError> {
        let known = load(&self.universe, id).await?;
        let (_, job) = known.ok_or_else(|| UniverseError::NoSuchObject(format!("becoming {id}")))?;
        self.told(&job).await
    }

    /// A becoming as an object: a clone of `toolForge` whose data slots are what the journal tells everybody. None if there
    /// is no becoming of this id.
    pub async fn becoming_state(&self, id: ObjectId) -> Result<Option<OkReply>, UniverseError> {
        let Some((rev, job)) = load(&self.universe, id).await? else { return Ok(None) };
        let told = serde_json::to_value(self.told(&job).await?);
        let told = told.map_err(|e| UniverseError::Internal(e.to_string()))?;
        let Wire::Object(slots) = told else {
            return Err(UniverseError::Internal("a becoming without slots".to_owned()));
        };
        let state = FullState {
            object: id.to_string(),
            rev,
            state: slots.into_iter().filter(|(name, _)| name != "id").collect(),
            parents: [("parent".to_owned(), TOOL_FORGE.to_string())].into(),
            ..FullState::default()
        };
        let value = serde_json::to_value(state).map_err(|e| UniverseError::Internal(e.to_string()))?;
        Ok(Some(OkReply::new(value, rev)))
    }

    /// Becomings, a page at a time, in the order of their ids.
    pub async fn becomings(&self, after: Option<&ObjectId>) -> Result<BecomingPage, UniverseError> {
        let (jobs, next) = page(&self.universe, after).await?;
        let mut becomings = Vec::new();
        for job in &jobs {
            becomings.push(self.told(job).await?);
        }
        Ok(BecomingPage { becomings, next: next.map(|id| id.to_string()) })
    }

    /// A becoming as people see it.
    async fn told(&self, job: &Job) -> Result<Becoming, UniverseError> {
        let receiver = View::new(&self.universe).object(job.receiver).await?;
        let reason = job.refusal.as_ref().or_else(|| job.failures.last().map(|failure| &failure.reason));
        Ok(Becoming {
            id: job.id.to_string(),
            object: job.receiver.to_string(),
            name: receiver.and_then(|(_, record)| record.name.clone()),
            selector: job.selector.clone(),
            asked: job.directive.as_ref().map(|directive| directive.text.clone()),
            route: job.route.as_ref().map(Route::to_string),
            step: job.step.name(),
            began: job.began,
            mind: job.mind.clone(),
            model_calls: job.model_calls,
            judged: job.trials_left_out.saturating_add(u32::try_from(job.trials.len()).unwrap_or(u32::MAX)),
            prompt_tokens: job.usage.prompt_tokens,
            completion_tokens: job.usage.completion_tokens,
            reason: reason.map(|reason| reason.chars().take(MAX_REASON).collect()),
        })
    }
}
