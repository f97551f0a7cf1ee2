//! From a message that nobody understood to a method in the graph.

use std::{collections::HashMap, sync::Arc};

use batos_covenant::{Example, Made, PrototypeDefinition};
use batos_graph::{ObjectId, Record, StoreError};
use batos_uvm::universe::{Changes, Unanswered, Universe, UniverseError, View};
use tokio::sync::Mutex;

use crate::{
    Drafter, Job, MindError, Prompt, Step, Verdict, crucible,
    journal::{load, open_jobs, record},
};

/// Environment variable that names a step after whose commit the process aborts: how tests show that each step is
/// taken once.
const CRASH_AT: &str = "BATOS_CRASH_AT";
/// Journal conflicts with other workers that one run of a becoming survives.
const ATTEMPTS: u32 = 16;

/// Makes missing methods for one universe. Cheap to clone.
#[derive(Clone)]
pub struct Mind {
    universe: Universe,
    drafter: Arc<dyn Drafter>,
    /// Becomings that this worker is busy with: one run each.
    running: Arc<Mutex<HashMap<ObjectId, Arc<Mutex<()>>>>>,
}

/// How a becoming ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The method is in the graph: send the message again.
    Made(Made),
    Refused(String),
}

#[derive(Debug, thiserror::Error)]
pub enum BecomingError {
    #[error(transparent)]
    Universe(#[from] UniverseError),
    /// The mind cannot be asked now; the becoming goes on when the message is sent again.
    #[error(transparent)]
    Mind(#[from] MindError),
}

impl Mind {
    pub fn new(universe: Universe, drafter: Arc<dyn Drafter>) -> Self {
        Self { universe, drafter, running: Arc::default() }
    }

    /// Goes on with every becoming that a dead process left open.
    pub async fn resume(&self) -> Result<usize, UniverseError> {
        let open = open_jobs(&self.universe).await?;
        for &id in &open {
            let mind = self.clone();
            tokio::spawn(async move {
                match mind.pursue(id).await {
                    Ok(outcome) => tracing::info!(%id, ?outcome, "becoming resumed and ended"),
                    Err(error) => tracing::error!(%id, %error, "becoming resumed and stuck"),
                }
            });
        }
        Ok(open.len())
    }

    /// Makes the missing method, or joins the becoming that already does.
    pub async fn make(&self, missing: &Unanswered) -> Result<Outcome, BecomingError> {
        let (holder, _, _) = self.universe.holder(missing.receiver).await?;
        let id = Job::id_of(holder, &missing.selector);
        let known = load(&self.universe, id).await?;
        let job = Job::asked(holder, missing);
        let (_, holder, receiver, examples) = self.context(&job).await?;
        let prompt = Prompt::new(&job.selector, &job.shapes, &receiver, &holder, examples);
        let ask = match &known {
            None => true,
            // A refusal is remembered as long as the same question would be asked.
            Some((_, known)) if known.step == Step::Refused => known.request != prompt.digest(),
            // Another sender's becoming may have ended meanwhile; a method that is gone again is made anew.
            Some((_, known)) if known.step == Step::Swapped => holder.slot(&known.selector).is_none(),
            Some(_) => false,
        };
        if ask {
            match self.step(&job, known.map(|(rev, _)| rev), Changes::default()).await {
                Err(UniverseError::Store(StoreError::Conflict(_))) => {} // somebody else asked
                other => other.map(|_| ())?,
            }
        }
        self.pursue(id).await
    }

    /// Takes the remaining steps of a becoming, whoever began it.
    async fn pursue(&self, id: ObjectId) -> Result<Outcome, BecomingError> {
        let run = self.running.lock().await.entry(id).or_default().clone();
        let _run = run.lock().await;
        let outcome = self.take_steps(id).await;
        self.running.lock().await.retain(|_, run| Arc::strong_count(run) > 1);
        outcome
    }

    async fn take_steps(&self, id: ObjectId) -> Result<Outcome, BecomingError> {
        let mut conflicts = 0;
        loop {
            let Some((rev, job)) = load(&self.universe, id).await? else {
                return Err(UniverseError::Internal(format!("becoming {id} has no journal")).into());
            };
            let next = match job.step {
                Step::Asked => self.draft(job).await?,
                Step::Drafted => self.judge(job).await?,
                Step::Judged => self.swap(job).await?,
                Step::Swapped => return Ok(Outcome::Made(made(&job))),
                Step::Refused => return Ok(Outcome::Refused(job.refusal.unwrap_or_default())),
            };
            let (job, changes) = next;
            match self.step(&job, Some(rev), changes).await {
                Err(UniverseError::Store(StoreError::Conflict(_))) if conflicts < ATTEMPTS => conflicts += 1,
                other => other.map(|_| ())?,
            }
        }
    }

    /// When the mind cannot be asked, the becoming stays open.
    async fn draft(&self, mut job: Job) -> Result<(Job, Changes), BecomingError> {
        let (_, holder, receiver, examples) = self.context(&job).await?;
        let prompt = Prompt::new(&job.selector, &job.shapes, &receiver, &holder, examples);
        tracing::info!(becoming = %job.id, selector = %job.selector, digest = %prompt.digest(), "asking the mind");
        let answer = self.drafter.draft(&prompt).await?;
        job.model_calls += 1;
        job.request = prompt.digest();
        job.draft = Some(answer.source().to_owned());
        job.mind = answer.mind;
        job.step = Step::Drafted;
        Ok((job, Changes::default()))
    }

    async fn judge(&self, mut job: Job) -> Result<(Job, Changes), UniverseError> {
        let (holder_id, holder, _, examples) = self.context(&job).await?;
        let draft = job.draft.clone().unwrap_or_default();
        let holder = (holder_id, holder.as_ref());
        match crucible::judge(&self.universe, job.receiver, holder, &job.selector, &draft, &examples).await? {
            Verdict::Admitted(source) => {
                job.draft = Some(source);
                job.step = Step::Judged;
            }
            Verdict::Refused(reason) => refuse(&mut job, reason),
        }
        Ok((job, Changes::default()))
    }

    /// The method and the journal's last step are one commit.
    async fn swap(&self, mut job: Job) -> Result<(Job, Changes), UniverseError> {
        let source = job.draft.clone().unwrap_or_default();
        let (changes, holder) = self.universe.method_change(job.receiver, &job.selector, &source).await?;
        job.holder = Some(holder);
        job.step = Step::Swapped;
        Ok((job, changes))
    }

    /// Holder, receiver, and the examples that people wrote for the selector.
    async fn context(&self, job: &Job) -> Result<(ObjectId, Arc<Record>, Arc<Record>, Vec<Example>), UniverseError> {
        let (holder_id, _, holder) = self.universe.holder(job.receiver).await?;
        let receiver = View::new(&self.universe).object(job.receiver).await?;
        let (_, receiver) = receiver.ok_or_else(|| UniverseError::NoSuchObject(job.receiver.to_string()))?;
        let definition: PrototypeDefinition = match &holder.manifest {
            Some(manifest) => serde_json::from_str(&manifest.definition)
                .map_err(|e| UniverseError::Internal(format!("manifest of {holder_id}: {e}")))?,
            None => PrototypeDefinition::default(),
        };
        let examples = definition.examples.into_iter().filter(|example| example.send.selector == job.selector);
        Ok((holder_id, holder, receiver, examples.collect()))
    }

    async fn step(&self, job: &Job, rev: Option<u64>, changes: Changes) -> Result<u64, UniverseError> {
        let view = View::new(&self.universe);
        let name = view.object(job.receiver).await?.and_then(|(_, record)| record.name.clone());
        let rev = record(&self.universe, job, rev, name.unwrap_or_else(|| job.receiver.to_string()), changes).await?;
        let reached = serde_json::to_value(job.step).unwrap_or_default();
        if std::env::var(CRASH_AT).ok().as_deref() == reached.as_str() {
            std::process::abort();
        }
        Ok(rev)
    }
}

fn refuse(job: &mut Job, reason: String) {
    tracing::warn!(becoming = %job.id, selector = %job.selector, reason, "becoming refused");
    job.refusal = Some(reason);
    job.step = Step::Refused;
}

fn made(job: &Job) -> Made {
    Made {
        selector: job.selector.clone(),
        becoming: job.id.to_string(),
        holder: job.holder.map(|id| id.to_string()).unwrap_or_default(),
        mind: job.mind.clone(),
        model_calls: job.model_calls,
    }
}
