//! From a message that nobody understood to a method in the graph.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hasher, RandomState},
    sync::Arc,
};

use batos_covenant::{Made, Proposal};
use batos_graph::{ObjectId, StoreError};
use batos_uvm::universe::{Changes, Unanswered, Universe, UniverseError, View};
use tokio::sync::Mutex;

use crate::{
    Autonomy, ClientError, Crucible, Drafter, Forge, Job, MindError, Policy, Step,
    budget::{self, Spent},
    draft::usage_of,
    journal::{load, open_jobs, record},
    organs::swap_attempts,
    prompt::{Failure, Prompt, is_selector},
    repair::Watch,
    route::{Route, Situation, Trigger},
};

/// Environment variable that names a step after whose commit the process aborts: how tests show that each step is
/// taken once.
const CRASH_AT: &str = "BATOS_CRASH_AT";

/// Makes missing methods for one universe. Cheap to clone.
#[derive(Clone)]
pub struct Mind {
    pub(crate) universe: Universe,
    pub(crate) drafter: Arc<dyn Drafter>,
    pub(crate) policy: Arc<Policy>,
    /// Becomings that this worker is busy with: one run each.
    running: Arc<Mutex<HashMap<ObjectId, Arc<Mutex<()>>>>>,
    /// Tells this worker's claims from those of others.
    pub(crate) worker: String,
    /// Looks on as messages are carried out, where the policy wants it.
    pub(crate) watch: Option<Arc<Watch>>,
}

/// How a becoming ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The method is in the graph: send the message again.
    Made(Made),
    Refused(String),
    /// The method waits for a person.
    Proposed(Box<Proposal>),
    /// What would deal with it is not there yet; that it was wanted is recorded.
    NotAvailable(String),
}

#[derive(Debug, thiserror::Error)]
pub enum BecomingError {
    #[error(transparent)]
    Universe(#[from] UniverseError),
    /// The mind cannot be asked now; the becoming goes on when the message is sent again.
    #[error(transparent)]
    Mind(#[from] MindError),
    /// It ends when that is settled.
    #[error("becoming {0} waits for a person: deny its proposal, which has the same id")]
    Proposed(ObjectId),
}

impl Mind {
    pub fn new(universe: Universe, drafter: Arc<dyn Drafter>, policy: Policy) -> Self {
        // Keyed at random, unlike anything that another process has.
        let worker = format!("{:016x}", RandomState::new().build_hasher().finish());
        let Policy { repair_after, recent_messages, .. } = policy;
        let watch = || Arc::new(Watch::new(repair_after, recent_messages));
        let watch = (repair_after.is_some() || recent_messages > 0).then(watch);
        watch.iter().for_each(|watch| universe.watched_by(watch.clone()));
        Self { universe, drafter, policy: Arc::new(policy), running: Arc::default(), worker, watch }
    }

    /// This process, unlike any other.
    pub fn worker(&self) -> &str {
        &self.worker
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
        if self.policy.autonomy == Autonomy::Strict {
            return Err(MindError::Strict.into());
        }
        if !is_selector(&missing.selector) {
            let shown: String = missing.selector.chars().take(80).collect();
            return Ok(Outcome::Refused(format!("no method can be called {shown:?}")));
        }
        let holder = self.holder(missing).await?;
        self.begun(&Job::asked(holder, missing), &missing.sender).await
    }

    /// Begins a becoming, unless there is one that answers the same question, and takes its steps.
    pub(crate) async fn begun(&self, job: &Job, sender: &str) -> Result<Outcome, BecomingError> {
        let (mut conflicts, attempts) = (0, swap_attempts(&self.universe).await?);
        while let Err(error) = self.begin(job, sender).await {
            match error {
                // Somebody else asked, or spent something.
                BecomingError::Universe(UniverseError::Store(StoreError::Conflict(_))) if conflicts < attempts => {
                    conflicts += 1;
                }
                other => return Err(other),
            }
        }
        self.pursue(job.id).await
    }

    /// The object that lacks the method.
    async fn holder(&self, missing: &Unanswered) -> Result<ObjectId, UniverseError> {
        match missing.intent {
            Some(holder) => Ok(holder),
            None => self.universe.holder(missing.receiver).await.map(|(id, ..)| id),
        }
    }

    /// The becoming that makes what is missing, or that tried to.
    pub async fn becoming_for(&self, missing: &Unanswered) -> Result<Option<ObjectId>, UniverseError> {
        let id = Job::id_of(self.holder(missing).await?, &missing.selector);
        Ok(load(&self.universe, id).await?.map(|_| id))
    }

    async fn begin(&self, job: &Job, sender: &str) -> Result<(), BecomingError> {
        let context = self.context(job).await?;
        let route = Route::of(Situation::of(job, &context.receiver, context.known.examples.len()));
        let missing = route.organ.is_missing();
        let mut job = Job { route: Some(route), ..job.clone() };
        let job = &mut job;
        let known = load(&self.universe, job.id).await?;
        let (_, laws) = self.laws().await?;
        let ask = match &known {
            None => true,
            // A refusal is remembered as long as the same question would be asked.
            // Another Codex is another question.
            Some((_, known)) if known.step == Step::Refused && known.codex != laws.digest() => true,
            Some((_, known)) if known.step == Step::Refused => known.request != self.question(job).await?,
            // Another sender's becoming may have ended meanwhile; what is gone again, or still fails, is made anew.
            Some((_, known)) if known.step == Step::Swapped => job.defect.is_some() || !context.has_all_of(known),
            // Who proposed it waits for an answer, but not for ever; and what was proposed for another object as it was
            // then is no use now.
            Some((_, known)) if known.step == Step::Proposed => !self.is_pending(known).await?,
            Some(_) => false,
        };
        if ask {
            if let Some(what) = missing {
                // Remembered as what was wanted.
                job.request = self.question(job).await?;
                job.codex = laws.digest();
                refuse(job, not_there(what));
            }
            self.unhalted().await?;
            let (rev, mut spent) = Spent::read(&self.universe).await?;
            spent.begin(sender, &self.policy.budget)?;
            let changes = Changes { rows: vec![spent.row(&self.universe, rev)?], ..Changes::default() };
            self.step(job, known.map(|(rev, _)| rev), changes).await?;
        }
        Ok(())
    }

    /// Records that something was wanted which nothing deals with yet. Answers that in words.
    pub(crate) async fn in_vain(&self, job: Job, trigger: Trigger) -> Result<String, BecomingError> {
        let context = self.context(&job).await?;
        let situation = Situation { trigger, ..Situation::of(&job, &context.receiver, context.known.examples.len()) };
        let route = Route::of(situation);
        let reason = not_there(route.organ.is_missing().unwrap_or_default());
        let mut job = Job { route: Some(route), ..job };
        refuse(&mut job, reason.clone());
        if load(&self.universe, job.id).await?.is_none() {
            match self.step(&job, None, Changes::default()).await {
                Err(UniverseError::Store(StoreError::Conflict(_))) => {}
                other => other.map(|_| ())?,
            }
        }
        Ok(reason)
    }

    /// Takes the remaining steps of a becoming, whoever began it.
    pub(crate) async fn pursue(&self, id: ObjectId) -> Result<Outcome, BecomingError> {
        self.alone(id, Box::pin(self.take_steps(id))).await
    }

    pub(crate) async fn is_running(&self, id: ObjectId) -> bool {
        self.running.lock().await.contains_key(&id)
    }

    /// Runs what has this id once at a time on this worker.
    pub(crate) async fn alone<T>(&self, id: ObjectId, task: impl Future<Output = T>) -> T {
        let run = self.running.lock().await.entry(id).or_default().clone();
        let _run = run.lock().await;
        let outcome = task.await;
        self.running.lock().await.retain(|_, run| Arc::strong_count(run) > 1);
        outcome
    }

    async fn take_steps(&self, id: ObjectId) -> Result<Outcome, BecomingError> {
        let (mut conflicts, attempts) = (0, swap_attempts(&self.universe).await?);
        loop {
            let Some((mut rev, job)) = load(&self.universe, id).await? else {
                return Err(UniverseError::Internal(format!("becoming {id} has no journal")).into());
            };
            let is_autonomous = job.is_open() && job.step != Step::Proposed && job.decision.is_none();
            let unhalted = if is_autonomous { Some(self.unhalted().await?) } else { None };
            let next = match job.step {
                Step::Asked | Step::Repair => {
                    let asked = Job { claim: None, ..job.clone() };
                    let Some((after, next)) = self.claimed(&job, rev, Box::pin(self.draft(asked))).await? else {
                        continue;
                    };
                    rev = after;
                    next
                }
                // Boxed: what judges is large, and whoever waits for it waits on a stack.
                Step::Drafted => Box::pin(self.judge(job)).await?,
                Step::Judged if job.risks.is_empty() || job.decision.is_some() => Box::pin(self.swap(job)).await?,
                Step::Judged => Box::pin(self.propose(job)).await?,
                Step::Proposed => return self.proposed(&job).await,
                Step::Swapped => return Ok(Outcome::Made(made(&job))),
                Step::Refused => {
                    let missing = job.route.as_ref().is_some_and(|route| route.organ.is_missing().is_some());
                    let reason = job.refusal.unwrap_or_default();
                    return Ok(if missing { Outcome::NotAvailable(reason) } else { Outcome::Refused(reason) });
                }
            };
            let (job, mut changes) = next;
            // Whoever finds a conflict meanwhile halts this one too.
            changes.expect.extend(unhalted.filter(|_| job.step == Step::Swapped));
            match self.step(&job, Some(rev), changes).await {
                Err(UniverseError::Store(StoreError::Conflict(_))) if conflicts < attempts => conflicts += 1,
                other => other.map(|_| ())?,
            }
        }
    }

    /// When the mind cannot be asked, the becoming stays open.
    async fn draft(&self, mut job: Job) -> Result<(Job, Changes), BecomingError> {
        let forge = Forge::read(&self.universe).await?;
        job.crucible = Crucible::read(&self.universe).await?;
        let context = self.context(&job).await?;
        let (_, laws) = self.laws().await?;
        let prompt = Prompt { seed: Some(job.seed()), ..context.prompt(&forge, &job, &laws) };
        let digest = prompt.digest();
        tracing::info!(becoming = %job.id, selector = %job.selector, digest, "asking the mind");
        if job.failures.is_empty() {
            job.request = digest;
            job.codex = laws.digest();
            if let Some(conflict) = laws.forbids_making(&context.names()) {
                refuse(&mut job, format!("{conflict}"));
                return Ok((job, Changes::default()));
            }
            // Before anything is spent on a draft that nothing can judge.
            if let Some(reason) = context.unjudgeable(&job) {
                refuse(&mut job, reason);
                return Ok((job, Changes::default()));
            }
        }
        job.forge_rev = forge.rev;
        job.prompt = (format!("{}\n\n{}", prompt.system, prompt.user), prompt.digest());
        budget::allow(&self.universe, &self.policy.budget).await?;
        let asked = self.drafter.draft(&prompt).await;
        budget::pay(&self.universe, usage_of(&asked)).await?;
        match asked {
            Ok(answer) => {
                job.answers = answer.texts.into_iter().map(capped).collect();
                job.mind = answer.mind;
                job.usage.add(answer.usage);
                job.step = Step::Drafted;
            }
            Err(MindError::Client(ClientError::Truncated { usage })) => {
                job.usage.add(usage);
                let reason =
                    format!("it was cut off at the limit of {} tokens: write a shorter method", prompt.max_tokens);
                fail(&mut job, &forge, Failure { draft: String::new(), reason });
            }
            // The recording ends with the last draft, which failed.
            Err(MindError::NotRecorded { .. }) if !job.failures.is_empty() => {
                let reason = job.failures.last().map(|failure| failure.reason.clone()).unwrap_or_default();
                refuse(&mut job, reason);
                return Ok((job, Changes::default()));
            }
            Err(error) => return Err(error.into()),
        }
        job.model_calls += 1;
        Ok((job, Changes::default()))
    }

    /// The method and the journal's last step are one commit.
    async fn swap(&self, mut job: Job) -> Result<(Job, Changes), BecomingError> {
        let source = job.draft.clone().unwrap_or_default();
        let (laws_rev, laws) = self.laws().await?;
        if job.decision.is_none() && job.codex != laws.digest() {
            refuse(&mut job, "the Codex was amended while it was made: send the message again".to_owned());
            return Ok((job, Changes::default()));
        }
        let (mut changes, holder) = match self.universe.change(job.patch(), job.receiver, &source).await {
            Err(error @ (UniverseError::BadSlot { .. } | UniverseError::Syntax { .. })) => {
                refuse(&mut job, format!("it does not go in any more: {error}"));
                return Ok((job, Changes::default()));
            }
            other => other?,
        };
        if let Some(refused) = self.settle(&mut job, holder, &mut changes).await? {
            return Ok(refused);
        }
        changes.expect.push((self.universe.keys().laws(), laws_rev));
        job.holder = Some(holder);
        job.step = Step::Swapped;
        Ok((job, changes))
    }

    /// Digest of what a mind would be asked first about it now.
    pub(crate) async fn question(&self, job: &Job) -> Result<String, BecomingError> {
        let context = self.context(job).await?;
        let (_, laws) = self.laws().await?;
        Ok(context.prompt(&Forge::read(&self.universe).await?, job, &laws).digest())
    }

    pub(crate) async fn step(&self, job: &Job, rev: Option<u64>, changes: Changes) -> Result<u64, UniverseError> {
        let view = View::new(&self.universe);
        let name = view.object(job.receiver).await?.and_then(|(_, record)| record.name.clone());
        let rev = record(&self.universe, job, rev, name.unwrap_or_else(|| job.receiver.to_string()), changes).await?;
        if std::env::var(CRASH_AT).ok() == Some(job.step.name()) {
            std::process::abort();
        }
        Ok(rev)
    }
}

fn not_there(what: &str) -> String {
    format!("{what} is not there yet; that it was wanted is recorded")
}

/// A round of drafts failed: there may be another.
pub(crate) fn fail(job: &mut Job, forge: &Forge, failure: Failure) {
    let reason = failure.reason.clone();
    job.failures.push(failure);
    match job.failures.len() < forge.attempts {
        true => job.step = Step::Repair,
        false => refuse(job, reason),
    }
}

/// A journal row is bounded, whatever a model says.
fn capped(mut answer: String) -> String {
    const MOST: usize = 16 * 1024;
    if answer.len() > MOST {
        let end = (0..=MOST).rev().find(|at| answer.is_char_boundary(*at)).unwrap_or(0);
        answer.truncate(end);
    }
    answer
}

pub(crate) fn refuse(job: &mut Job, reason: String) {
    tracing::warn!(becoming = %job.id, selector = %job.selector, reason, "becoming refused");
    job.refusal = Some(reason);
    job.step = Step::Refused;
}

fn made(job: &Job) -> Made {
    Made {
        selector: job.selector.clone(),
        brings: job.draft.iter().filter(|_| job.directive.is_some()).flat_map(|source| job.brings(source)).collect(),
        becoming: job.id.to_string(),
        holder: job.holder.map(|id| id.to_string()).unwrap_or_default(),
        mind: job.mind.clone(),
        model_calls: job.model_calls,
    }
}
