//! The journal of a becoming: one row, written anew at each step, so that each step takes effect once.

use batos_covenant::{Agreement, Conflict, Decision, Encoding, PersonaVerdict, Wire, decode, encode};
use batos_graph::{ObjectId, Put, Record, Rev};
use batos_uvm::{
    syntax::parse_slots,
    universe::{Changes, Patch, Unanswered, Universe, UniverseError, View, now},
};
use serde::{Deserialize, Serialize};

use crate::{
    Case, Usage, Verdict,
    ask::{ASK, Directive},
    crucible::Base,
    judgement::Known,
    lease::Claim,
    organs::Crucible,
    prompt::Failure,
    repair::Defect,
    route::Route,
};

/// How far a becoming has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    Asked,
    /// The mind has answered.
    Drafted,
    /// No draft held; the mind is asked again, with what was wrong.
    Repair,
    /// A draft was admitted.
    Judged,
    /// A person is asked.
    Proposed,
    Swapped,
    Refused,
}

/// One becoming.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    pub id: ObjectId,
    pub step: Step,
    /// The object that lacked the method.
    pub receiver: ObjectId,
    pub selector: String,
    /// Types of the arguments.
    pub shapes: Vec<String>,
    /// Arguments of the message that nobody understood, as far as they are known and a row has room.
    #[serde(default)]
    pub arguments: Option<Vec<Wire>>,
    /// The object whose intent is made.
    #[serde(default)]
    pub intent: Option<ObjectId>,
    /// What the Architect wants in words.
    #[serde(default)]
    pub directive: Option<Directive>,
    /// What is wrong with the method that is made anew.
    #[serde(default)]
    pub defect: Option<Defect>,
    /// Who deals with it, and why.
    #[serde(default)]
    pub route: Option<Route>,
    /// Milliseconds since 1970: the time of the Crucible's turns.
    #[serde(default)]
    pub began: u64,
    /// The worker that asks the mind now.
    #[serde(default)]
    pub claim: Option<Claim>,
    /// Digest of the first request to the mind.
    pub request: String,
    /// What the mind answered last, to be judged.
    #[serde(default)]
    pub answers: Vec<String>,
    /// Answers that were judged, and how, as many as a row has room for.
    #[serde(default)]
    pub trials: Vec<Trial>,
    /// Answers that are not among them.
    #[serde(default)]
    pub trials_left_out: u32,
    /// Drafts that failed, each the best of its round.
    #[serde(default)]
    pub failures: Vec<Failure>,
    /// The admitted method's source.
    pub draft: Option<String>,
    /// Name of the mind that drafted.
    pub mind: String,
    /// Revision of `toolForge`, whose prompts the mind was asked with.
    #[serde(default)]
    pub forge_rev: Rev,
    /// How its drafts are judged.
    #[serde(default)]
    pub crucible: Crucible,
    pub model_calls: u32,
    /// Of all calls, as far as the server tells.
    #[serde(default)]
    pub usage: Usage,
    /// Text of the last request to the mind, and its digest.
    #[serde(default)]
    pub prompt: (String, String),
    /// What the Crucible ran.
    #[serde(default)]
    pub examples: u64,
    #[serde(default)]
    pub agreement: Option<Agreement>,
    #[serde(default)]
    pub personae: Vec<PersonaVerdict>,
    /// Why a person has to be asked.
    #[serde(default)]
    pub risks: Vec<String>,
    /// Digest of the Codex that the draft was held against.
    #[serde(default)]
    pub codex: String,
    /// The rule that it breaks.
    #[serde(default)]
    pub conflict: Option<Conflict>,
    /// What the person said.
    #[serde(default)]
    pub decision: Option<Decision>,
    /// Object that holds the method, or that would hold what was judged.
    pub holder: Option<ObjectId>,
    /// Why it was refused.
    pub refusal: Option<String>,
}

/// An answer before the Crucible.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    pub answer: String,
    pub verdict: String,
    /// Revisions that it was judged on.
    pub base: Vec<(ObjectId, Rev)>,
}

/// Bytes of the arguments that a row keeps.
const MAX_ARGUMENTS: usize = 8 * 1024;
/// Most objects that a kept verdict rests on.
const MAX_BASE: usize = 512;

/// Published on `….evt.<object>.becoming` at each step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BecomingEvent {
    pub becoming: String,
    pub object: String,
    pub selector: String,
    pub step: Step,
    pub model_calls: u32,
    pub mind: String,
    /// Revision of `toolForge`; 0 before it was read.
    pub forge_rev: Rev,
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    /// What was wrong with the last draft that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

impl Step {
    /// As the journal and events name it.
    pub fn name(self) -> String {
        serde_json::to_value(self).ok().and_then(|step| step.as_str().map(str::to_owned)).unwrap_or_default()
    }
}

impl Job {
    /// A new becoming. Its id is that of the holder and selector, so that two askers share one.
    pub fn asked(holder: ObjectId, missing: &Unanswered) -> Self {
        Self {
            id: Self::id_of(holder, &missing.selector),
            step: Step::Asked,
            receiver: missing.receiver,
            selector: missing.selector.clone(),
            shapes: missing.shapes.clone(),
            arguments: missing.arguments.clone().filter(|arguments| size(arguments) <= MAX_ARGUMENTS),
            intent: missing.intent,
            directive: None,
            defect: None,
            route: None,
            began: now(),
            claim: None,
            request: String::new(),
            answers: Vec::new(),
            trials: Vec::new(),
            trials_left_out: 0,
            failures: Vec::new(),
            draft: None,
            mind: String::new(),
            forge_rev: 0,
            crucible: Crucible::default(),
            model_calls: 0,
            usage: Usage::default(),
            prompt: Default::default(),
            examples: 0,
            agreement: None,
            personae: Vec::new(),
            risks: Vec::new(),
            codex: String::new(),
            conflict: None,
            decision: None,
            holder: None,
            refusal: None,
        }
    }

    /// A becoming that adds what is asked for in words.
    pub fn directed(holder: ObjectId, receiver: ObjectId, directive: Directive) -> Self {
        let missing = Unanswered::of(receiver, ASK);
        let key = format!("{ASK} {}", blake3::hash(directive.text.as_bytes()).to_hex());
        Self { id: Self::id_of(holder, &key), directive: Some(directive), ..Self::asked(holder, &missing) }
    }

    /// A becoming that makes a method anew.
    pub fn repair(selector: &str, receiver: ObjectId, defect: Defect) -> Self {
        let missing = Unanswered::of(receiver, selector);
        Self { defect: Some(defect.clone()), ..Self::asked(defect.holder, &missing) }
    }

    pub fn id_of(holder: ObjectId, selector: &str) -> ObjectId {
        ObjectId::of_name(&format!("becoming {holder} {selector}"))
    }

    /// What a draft of it is, and where it goes.
    pub fn patch(&self) -> Patch<'_> {
        let selector = &self.selector;
        match (&self.directive, &self.defect, self.intent) {
            (Some(_), ..) => Patch::Slots,
            (_, Some(defect), _) => Patch::Repair { holder: defect.holder, selector },
            (.., Some(holder)) => Patch::Intent { holder, selector },
            (None, None, None) => Patch::Method(selector),
        }
    }

    /// Names of the slots that `source` brings.
    pub fn brings(&self, source: &str) -> Vec<String> {
        match self.patch() {
            Patch::Slots => parse_slots(source).unwrap_or_default().into_iter().map(|slot| slot.name).collect(),
            _ => vec![self.selector.clone()],
        }
    }

    /// The methods of `holder` that `source` would replace, as they are.
    pub fn replaces(&self, holder: &Record, source: &str) -> Option<String> {
        let names = self.brings(source);
        let there: Vec<&str> =
            names.iter().filter_map(|name| holder.slot(name).and_then(|slot| slot.kind.method())).collect();
        (!there.is_empty()).then(|| there.join("\n"))
    }

    /// What a draft of it is judged by, on the graph that `view` shows.
    pub(crate) fn case<'a>(&'a self, view: View<'a>, holder: (ObjectId, &'a Record), known: &'a Known) -> Case<'a> {
        Case {
            view,
            receiver: self.receiver,
            holder,
            patch: self.patch(),
            examples: &known.examples,
            kept: &known.kept,
            contract: known.contract.as_ref(),
            asked: self.arguments.as_deref(),
            defect: self.defect.as_ref(),
            crucible: self.crucible,
            began: self.began,
            seed: *blake3::hash(format!("crucible {} {}", self.id, self.began).as_bytes()).as_bytes(),
        }
    }

    /// Keeps what was judged, for a replay, as far as `most` bytes hold all that was: a row of the journal is bounded.
    pub fn tried(&mut self, answer: &str, verdict: &Verdict, base: Base, most: usize) {
        let verdict = verdict.to_string();
        let kept: usize = self.trials.iter().map(|trial| trial.answer.len() + trial.verdict.len()).sum();
        match kept + answer.len() + verdict.len() <= most && base.len() <= MAX_BASE {
            true => {
                let base = base.into_iter().collect();
                self.trials.push(Trial { answer: answer.to_owned(), verdict, base });
            }
            false => self.trials_left_out += 1,
        }
    }

    /// Of the model's sampling in this round.
    pub fn seed(&self) -> u32 {
        let digest = blake3::hash(format!("sampling {} {} {}", self.id, self.began, self.failures.len()).as_bytes());
        let bytes = digest.as_bytes().first_chunk().copied().unwrap_or_default();
        // What every server takes: some read it as a signed number.
        u32::from_le_bytes(bytes) >> 1
    }

    pub fn is_open(&self) -> bool {
        !matches!(self.step, Step::Swapped | Step::Refused)
    }
}

/// The objects that a row of the journal is about while its becoming is open: they are not collected.
pub fn job_targets(row: &[u8]) -> Vec<ObjectId> {
    match parse(row) {
        Ok(job) if job.is_open() => {
            let defect = job.defect.iter().flat_map(|defect| [defect.holder, defect.object]);
            [Some(job.receiver), job.intent, job.holder].into_iter().flatten().chain(defect).collect()
        }
        _ => Vec::new(),
    }
}

/// Reads a becoming with its revision.
pub(crate) async fn load(universe: &Universe, id: ObjectId) -> Result<Option<(Rev, Job)>, UniverseError> {
    let rows = universe.store().read(&[universe.keys().job(id)]).await.map_err(UniverseError::Store)?;
    rows.into_iter().next().flatten().map(|row| Ok((row.rev, parse(&row.bytes)?))).transpose()
}

/// Becomings of a page.
const PAGE: usize = 64;

/// Becomings in the order of their ids, and the mark of the next page.
pub(crate) async fn page(
    universe: &Universe,
    after: Option<&ObjectId>,
) -> Result<(Vec<Job>, Option<ObjectId>), UniverseError> {
    let mut jobs: Vec<Job> = Vec::new();
    for shard in after.map_or(0, ObjectId::shard)..=u8::MAX {
        let (mut start, end) = universe.keys().job_range(shard);
        if let Some(after) = after.filter(|after| after.shard() == shard) {
            start = universe.keys().job(*after).successor();
        }
        let rows = universe.store().scan(&start, &end, None, PAGE).await.map_err(UniverseError::Store)?;
        for (_, row) in &rows {
            jobs.push(parse(&row.bytes)?);
        }
        if rows.len() == PAGE || jobs.len() >= PAGE {
            let next = jobs.last().map(|job| job.id);
            return Ok((jobs, next));
        }
    }
    Ok((jobs, None))
}

/// All open becomings.
pub(crate) async fn open_jobs(universe: &Universe) -> Result<Vec<ObjectId>, UniverseError> {
    let (mut open, mut after) = (Vec::new(), None);
    loop {
        let (jobs, next) = page(universe, after.as_ref()).await?;
        open.extend(jobs.iter().filter(|job| job.is_open()).map(|job| job.id));
        after = next;
        if after.is_none() {
            return Ok(open);
        }
    }
}

/// Writes the journal's next row, its event, and what else belongs to the step, in one commit.
pub(crate) async fn record(
    universe: &Universe,
    job: &Job,
    rev: Option<Rev>,
    object: String,
    mut changes: Changes,
) -> Result<Rev, UniverseError> {
    let put = row(universe, job)?;
    let next = rev.unwrap_or(0) + 1;
    let event = BecomingEvent {
        becoming: job.id.to_string(),
        object: object.clone(),
        selector: job.selector.clone(),
        step: job.step,
        model_calls: job.model_calls,
        mind: job.mind.clone(),
        forge_rev: job.forge_rev,
        prompt_tokens: job.usage.prompt_tokens,
        completion_tokens: job.usage.completion_tokens,
        failure: job.failures.last().map(|failure| failure.reason.clone()),
    };
    changes.cause = Some(format!("becoming {}", job.id));
    changes.rows.push((put, rev));
    changes.events.push(universe.event_row(job.id, next, object, "becoming", &event)?);
    universe.commit(universe.fresh_marker()?, Vec::new(), changes).await?;
    Ok(next)
}

pub(crate) fn row(universe: &Universe, job: &Job) -> Result<Put, UniverseError> {
    let bytes = encode(job, Encoding::MessagePack).map_err(|e| UniverseError::Internal(e.to_string()))?;
    Ok(Put { key: universe.keys().job(job.id), bytes })
}

fn size(arguments: &[Wire]) -> usize {
    serde_json::to_vec(arguments).map_or(usize::MAX, |bytes| bytes.len())
}

fn parse(bytes: &[u8]) -> Result<Job, UniverseError> {
    decode(bytes).map(|(job, _)| job).map_err(|e| UniverseError::Internal(format!("journal row: {e}")))
}
