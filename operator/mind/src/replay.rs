//! Verdicts again: they rest on the answers that the journal keeps, the graph as it was, and chance that the becoming's id
//! decides. What the manifest says now, the Codex and what asks a person, is no part of them.

use batos_covenant::{Replay, ReplayedTrial};
use batos_graph::{ObjectId, Record};
use batos_uvm::universe::{UniverseError, View};

use crate::{Job, Mind, Trial, journal::load, judgement::known};

impl Mind {
    /// The becoming that made, or tried to make, a method for an object.
    pub async fn becoming_of(&self, object: ObjectId, selector: &str) -> Result<ObjectId, UniverseError> {
        let (holder, _, _) = self.universe.holder(object).await?;
        Ok(Job::id_of(holder, selector))
    }

    /// Judges the answers of a becoming once more.
    pub async fn replay(&self, becoming: ObjectId) -> Result<Replay, UniverseError> {
        let unknown = || UniverseError::NoSuchObject(format!("becoming {becoming}"));
        let (_, job) = load(&self.universe, becoming).await?.ok_or_else(unknown)?;
        let mut trials = Vec::new();
        for trial in &job.trials {
            let (again, lost) = match self.judge_again(&job, trial).await? {
                Ok(verdict) => (Some(verdict), None),
                Err(lost) => (None, Some(lost)),
            };
            let Trial { answer, verdict, .. } = trial.clone();
            trials.push(ReplayedTrial { answer, verdict, again, lost });
        }
        let (becoming, step) = (becoming.to_string(), job.step.name());
        Ok(Replay { becoming, selector: job.selector, step, trials, left_out: job.trials_left_out })
    }

    /// The verdict on the graph as it was, or what of it is no longer kept.
    async fn judge_again(&self, job: &Job, trial: &Trial) -> Result<Result<String, String>, UniverseError> {
        let mut view = View::new(&self.universe);
        let mut holder: Option<(ObjectId, Record)> = None;
        for (id, rev) in &trial.base {
            let Some(record) = self.universe.object_at(*id, *rev).await? else {
                return Ok(Err(format!("revision {rev} of {id}")));
            };
            if job.holder == Some(*id) {
                holder = Some((*id, record.clone()));
            }
            view.overlay(*id, record);
        }
        let Some((id, record)) = holder else { return Ok(Err("the object that would hold the method".to_owned())) };
        let known = known(id, &record, job)?;
        let verdict = job.case(view, (id, &record), &known).judge(&trial.answer).await?;
        Ok(Ok(verdict.to_string()))
    }
}
