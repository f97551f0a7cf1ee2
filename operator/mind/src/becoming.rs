//! From a message that nobody understood to a method in the graph.

use std::{
    collections::{BTreeSet, HashMap},
    hash::{BuildHasher, Hasher, RandomState},
    sync::Arc,
};

use batos_covenant::{Example, Made, Proposal, PrototypeDefinition};
use batos_graph::{ObjectId, Record, SlotKind, StoreError, Value};
use batos_uvm::universe::{Changes, Unanswered, Universe, UniverseError, View};
use tokio::sync::Mutex;

use crate::{
    Autonomy, Change, ClientError, Codex, Drafter, Forge, Job, MindError, Policy, Prompt, Step, Verdict,
    agreement::agree,
    budget::{self, Spent},
    draft::usage_of,
    journal::{load, open_jobs, record},
    prompt::{Failure, Material, is_selector},
};

/// Environment variable that names a step after whose commit the process aborts: how tests show that each step is
/// taken once.
const CRASH_AT: &str = "BATOS_CRASH_AT";
/// Journal conflicts with other workers that one run of a becoming survives.
pub(crate) const ATTEMPTS: u32 = 16;
/// Objects that the search for inherited methods visits.
const MAX_CHAIN: usize = 64;

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
}

/// How a becoming ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The method is in the graph: send the message again.
    Made(Made),
    Refused(String),
    /// The method waits for a person.
    Proposed(Box<Proposal>),
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
        Self { universe, drafter, policy: Arc::new(policy), running: Arc::default(), worker }
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
        let id = Job::id_of(holder, &missing.selector);
        let mut conflicts = 0;
        while let Err(error) = self.begin(holder, missing).await {
            match error {
                // Somebody else asked, or spent something.
                BecomingError::Universe(UniverseError::Store(StoreError::Conflict(_))) if conflicts < ATTEMPTS => {
                    conflicts += 1;
                }
                other => return Err(other),
            }
        }
        self.pursue(id).await
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

    /// Begins a becoming, unless there is one that answers the same question.
    async fn begin(&self, holder: ObjectId, missing: &Unanswered) -> Result<(), BecomingError> {
        let job = Job::asked(holder, missing);
        let known = load(&self.universe, job.id).await?;
        let ask = match &known {
            None => true,
            // A refusal is remembered as long as the same question would be asked.
            // Another Codex is another question.
            Some((_, known)) if known.step == Step::Refused && known.codex != self.policy.codex.digest() => true,
            Some((_, known)) if known.step == Step::Refused => known.request != self.question(&job).await?,
            // Another sender's becoming may have ended meanwhile; a method that is gone again is made anew.
            Some((_, known)) if known.step == Step::Swapped => {
                self.context(&job).await?.holder.slot(&known.selector).and_then(|slot| slot.kind.method()).is_none()
            }
            // Who proposed it waits for an answer, but not for ever; and what was proposed for another object as it was
            // then is no use now.
            Some((_, known)) if known.step == Step::Proposed => !self.is_pending(known).await?,
            Some(_) => false,
        };
        if ask {
            self.unhalted().await?;
            let (rev, mut spent) = Spent::read(&self.universe).await?;
            spent.begin(&missing.sender, &self.policy.budget)?;
            let changes = Changes { rows: vec![spent.row(&self.universe, rev)?], ..Changes::default() };
            self.step(&job, known.map(|(rev, _)| rev), changes).await?;
        }
        Ok(())
    }

    /// Takes the remaining steps of a becoming, whoever began it.
    pub(crate) async fn pursue(&self, id: ObjectId) -> Result<Outcome, BecomingError> {
        self.alone(id, self.take_steps(id)).await
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
        let mut conflicts = 0;
        loop {
            let Some((mut rev, job)) = load(&self.universe, id).await? else {
                return Err(UniverseError::Internal(format!("becoming {id} has no journal")).into());
            };
            let is_autonomous = job.is_open() && job.step != Step::Proposed && job.decision.is_none();
            let unhalted = if is_autonomous { Some(self.unhalted().await?) } else { None };
            let next = match job.step {
                Step::Asked | Step::Repair => {
                    let asked = Job { claim: None, ..job.clone() };
                    let Some((after, next)) = self.claimed(&job, rev, self.draft(asked)).await? else { continue };
                    rev = after;
                    next
                }
                Step::Drafted => self.judge(job).await?,
                Step::Judged if job.risks.is_empty() || job.decision.is_some() => self.swap(job).await?,
                Step::Judged => self.propose(job).await?,
                Step::Proposed => return self.proposed(&job).await,
                Step::Swapped => return Ok(Outcome::Made(made(&job))),
                Step::Refused => return Ok(Outcome::Refused(job.refusal.unwrap_or_default())),
            };
            let (job, mut changes) = next;
            // Whoever finds a conflict meanwhile halts this one too.
            changes.expect.extend(unhalted.filter(|_| job.step == Step::Swapped));
            match self.step(&job, Some(rev), changes).await {
                Err(UniverseError::Store(StoreError::Conflict(_))) if conflicts < ATTEMPTS => conflicts += 1,
                other => other.map(|_| ())?,
            }
        }
    }

    /// When the mind cannot be asked, the becoming stays open.
    async fn draft(&self, mut job: Job) -> Result<(Job, Changes), BecomingError> {
        let forge = Forge::read(&self.universe).await?;
        let context = self.context(&job).await?;
        let prompt = context.prompt(&forge, &job, &self.policy.codex);
        let digest = prompt.digest();
        tracing::info!(becoming = %job.id, selector = %job.selector, digest, "asking the mind");
        if job.failures.is_empty() {
            job.request = digest;
            job.codex = self.policy.codex.digest();
            if let Some(conflict) = self.policy.codex.forbids_making(&context.names()) {
                refuse(&mut job, format!("{conflict}"));
                return Ok((job, Changes::default()));
            }
            // Before anything is spent on a draft that nothing can judge.
            if context.examples.is_empty() {
                let reason =
                    format!("nothing to judge by: give the prototype an example that sends {:?}", job.selector);
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

    /// The first of most answers that hold and do the same is taken; the best of those that do not hold is what the mind
    /// hears of when none does.
    async fn judge(&self, mut job: Job) -> Result<(Job, Changes), BecomingError> {
        let context = self.context(&job).await?;
        let answers = std::mem::take(&mut job.answers);
        job.holder = Some(context.holder_id);
        let asked = job.clone();
        let case = asked.case(View::new(&self.universe), (context.holder_id, &context.holder), &context.examples);
        let mut best: Option<(usize, Failure)> = None;
        let (drafts, mut admitted) = (answers.len(), Vec::new());
        let mut judged: HashMap<String, Verdict> = HashMap::new();
        for answer in answers {
            let verdict = match judged.get(&answer) {
                Some(same) => same.clone(),
                None => {
                    let (verdict, base) = case.judged(&answer).await?;
                    job.tried(&answer, &verdict, base);
                    judged.insert(answer.clone(), verdict.clone());
                    verdict
                }
            };
            let reason = verdict.hint().unwrap_or_default().to_owned();
            match verdict {
                Verdict::Admitted { source, effects, touched, behaviour } => {
                    admitted.push((source, effects, touched, behaviour));
                }
                Verdict::Refused { held, .. } if best.as_ref().is_none_or(|(most, _)| held > *most) => {
                    best = Some((held, Failure { draft: answer, reason }));
                }
                Verdict::Refused { .. } => {}
            }
        }
        let forge = Forge::read(&self.universe).await?;
        let behaviours: Vec<_> = admitted.iter().map(|(.., behaviour)| behaviour).collect();
        let Some(agreement) = agree(&behaviours) else {
            let nothing = || Failure { draft: String::new(), reason: "the mind answered nothing".to_owned() };
            fail(&mut job, &forge, best.map_or_else(nothing, |(_, failure)| failure));
            return Ok((job, Changes::default()));
        };
        let (source, mut effects, touched, behaviour) = admitted.swap_remove(agreement.chosen);
        job.agreement = Some(batos_covenant::Agreement {
            drafts: drafts as u64,
            alike: agreement.alike as u64,
            messages: behaviour.0.len() as u64,
        });
        job.codex = self.policy.codex.digest();
        let change = Change { objects: &context.names(), source: &source, touched: &touched };
        let conflict = self.policy.codex.conflict(change);
        effects.extend(agreement.lone(drafts, forge.agreement));
        job.risks = self.policy.risks(&context.holder, &job.selector, &source, &effects);
        job.examples = context.examples.len() as u64;
        job.draft = Some(source.clone());
        if let Some(conflict) = conflict {
            return Ok(self.halt(job, conflict).await?);
        }
        let asked = job.clone();
        let material = Material { failures: &[], ..context.material(&asked, &self.policy.codex) };
        job.personae = self.personae(&mut job, &forge, &material, &source, &asked.risks).await?;
        let objections =
            job.personae.iter().filter_map(|verdict| Some((&verdict.persona, verdict.objection.as_ref()?)));
        let objections: Vec<String> = objections.map(|(who, why)| format!("persona {who} objects: {why}")).collect();
        job.risks.extend(objections);
        job.step = Step::Judged;
        Ok((job, Changes::default()))
    }

    /// The method and the journal's last step are one commit.
    async fn swap(&self, mut job: Job) -> Result<(Job, Changes), UniverseError> {
        let source = job.draft.clone().unwrap_or_default();
        let (mut changes, holder) = match job.intent {
            Some(holder) => (self.universe.intent_change(holder, &job.selector, &source).await?, holder),
            None => self.universe.method_change(job.receiver, &job.selector, &source).await?,
        };
        if let Some(refused) = self.settle(&mut job, holder, &mut changes).await? {
            return Ok(refused);
        }
        job.holder = Some(holder);
        job.step = Step::Swapped;
        Ok((job, changes))
    }

    /// Digest of what a mind would be asked first about it now.
    pub(crate) async fn question(&self, job: &Job) -> Result<String, BecomingError> {
        let context = self.context(job).await?;
        Ok(context.prompt(&Forge::read(&self.universe).await?, job, &self.policy.codex).digest())
    }

    async fn context(&self, job: &Job) -> Result<Context, UniverseError> {
        let view = View::new(&self.universe);
        let gone = |id: ObjectId| UniverseError::NoSuchObject(id.to_string());
        let (holder_id, holder) = match job.intent {
            Some(id) => (id, view.object(id).await?.ok_or_else(|| gone(id))?.1),
            None => {
                let (id, _, holder) = self.universe.holder(job.receiver).await?;
                (id, holder)
            }
        };
        let receiver = view.object(job.receiver).await?;
        let (_, receiver) = receiver.ok_or_else(|| gone(job.receiver))?;
        let examples = examples(holder_id, &holder, &job.selector)?;
        let mut inherited = BTreeSet::new();
        let (mut seen, mut next) = (vec![job.receiver], vec![receiver.clone()]);
        while let Some(record) = next.pop() {
            for slot in &record.slots {
                match slot.kind {
                    SlotKind::Method(_) | SlotKind::Intent(_) if holder.slot(&slot.name).is_none() => {
                        inherited.insert(slot.name.clone());
                    }
                    SlotKind::Parent(Value::Ref(id)) if !seen.contains(&id) && seen.len() < MAX_CHAIN => {
                        seen.push(id);
                        // What the image has, a model knows from Smalltalk.
                        next.extend(
                            view.object(id).await?.map(|(_, parent)| parent).filter(|parent| !parent.is_kernel),
                        );
                    }
                    _ => {}
                }
            }
        }
        Ok(Context { holder_id, holder, receiver, examples, inherited: inherited.into_iter().collect() })
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

/// What a becoming looks at.
struct Context {
    holder_id: ObjectId,
    holder: Arc<Record>,
    receiver: Arc<Record>,
    /// What people wrote of the selector.
    examples: Vec<Example>,
    /// Selectors of parents that are neither the holder nor of the image.
    inherited: Vec<String>,
}

impl Context {
    /// What the receiver and the holder are called.
    fn names(&self) -> Vec<&str> {
        [&self.receiver, &self.holder].into_iter().filter_map(|record| record.name.as_deref()).collect()
    }

    fn prompt(&self, forge: &Forge, job: &Job, codex: &Codex) -> Prompt {
        Prompt::new(forge, &self.material(job, codex))
    }

    fn material<'a>(&'a self, job: &'a Job, codex: &'a Codex) -> Material<'a> {
        Material {
            selector: &job.selector,
            shapes: &job.shapes,
            receiver: &self.receiver,
            holder: &self.holder,
            inherited: &self.inherited,
            examples: &self.examples,
            failures: &job.failures,
            principles: &codex.principles,
        }
    }
}

/// What people wrote of a selector, in the holder's manifest and in its intent.
pub(crate) fn examples(id: ObjectId, holder: &Record, selector: &str) -> Result<Vec<Example>, UniverseError> {
    let definition: PrototypeDefinition = match &holder.manifest {
        Some(manifest) => serde_json::from_str(&manifest.definition)
            .map_err(|e| UniverseError::Internal(format!("manifest of {id}: {e}")))?,
        None => PrototypeDefinition::default(),
    };
    let mut examples = definition.examples;
    examples.retain(|example| example.send.selector == selector);
    if let Some(SlotKind::Intent(intent)) = holder.slot(selector).map(|slot| &slot.kind) {
        let told: Vec<Example> = serde_json::from_str(&intent.examples)
            .map_err(|e| UniverseError::Internal(format!("intent {selector:?} of {id}: {e}")))?;
        examples.extend(told);
    }
    Ok(examples)
}

/// A round of drafts failed: there may be another.
fn fail(job: &mut Job, forge: &Forge, failure: Failure) {
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
        becoming: job.id.to_string(),
        holder: job.holder.map(|id| id.to_string()).unwrap_or_default(),
        mind: job.mind.clone(),
        model_calls: job.model_calls,
    }
}
