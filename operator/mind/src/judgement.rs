//! Of the answers of a round, the one that is taken: what the Crucible admits, most drafts agree on, and neither the Codex
//! nor a persona objects to.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use batos_covenant::{Example, PrototypeDefinition};
use batos_graph::{ObjectId, Record, SlotKind};
use batos_uvm::universe::{Changes, UniverseError, View};

use crate::{
    Autonomy, BecomingError, Change, Codex, Forge, Job, Mind, Prompt, Scribe, Step, Verdict,
    agreement::{Behaviour, agree},
    assertion::Contract,
    becoming::fail,
    crucible::{parents_of, unjudgeable},
    prompt::{Failure, Material},
};

/// Objects that the search for inherited methods visits.
const MAX_CHAIN: usize = 64;

/// A draft that the Crucible admitted.
struct Admitted {
    source: String,
    effects: BTreeSet<String>,
    touched: BTreeSet<String>,
    behaviour: Behaviour,
}

/// What the answers of a round came to.
struct Round {
    drafts: usize,
    admitted: Vec<Admitted>,
    /// Of those that were refused the one that held longest.
    best: Option<Failure>,
}

impl Mind {
    /// The first of most answers that hold and do the same is taken; the best of those that do not hold is what the mind
    /// hears of when none does.
    pub(crate) async fn judge(&self, mut job: Job) -> Result<(Job, Changes), BecomingError> {
        let context = self.context(&job).await?;
        let forge = Forge::read(&self.universe).await?;
        job.holder = Some(context.holder_id);
        let mut round = self.try_all(&mut job, &context).await?;
        let behaviours: Vec<_> = round.admitted.iter().map(|admitted| &admitted.behaviour).collect();
        let Some(agreement) = agree(&behaviours) else {
            let nothing = || Failure { draft: String::new(), reason: "the mind answered nothing".to_owned() };
            fail(&mut job, &forge, round.best.unwrap_or_else(nothing));
            return Ok((job, Changes::default()));
        };
        let Admitted { source, mut effects, touched, behaviour } = round.admitted.swap_remove(agreement.chosen);
        job.agreement = Some(batos_covenant::Agreement {
            drafts: round.drafts as u64,
            alike: agreement.alike as u64,
            messages: behaviour.0.len() as u64,
        });
        let (_, laws) = self.laws().await?;
        job.codex = laws.digest();
        let change = Change { objects: &context.names(), source: &source, touched: &touched };
        let conflict = laws.conflict(change);
        effects.extend(agreement.lone(round.drafts, forge.agreement));
        effects.extend(context.double(&job, &source));
        if context.known.examples.is_empty() {
            effects.insert("no example says what is right".to_owned());
        }
        job.risks = self.policy.risks(&context.holder, &job.brings(&source), &source, &effects);
        job.examples = context.known.examples.len() as u64;
        job.draft = Some(source.clone());
        if let Some(conflict) = conflict {
            return Ok(self.halt(job, conflict).await?);
        }
        let asked = job.clone();
        let material = Material { failures: &[], ..context.material(&asked, &laws) };
        job.personae = self.personae(&mut job, &forge, &material, &source, &asked.risks).await?;
        let objections =
            job.personae.iter().filter_map(|verdict| Some((&verdict.persona, verdict.objection.as_ref()?)));
        let objections: Vec<String> = objections.map(|(who, why)| format!("persona {who} objects: {why}")).collect();
        job.risks.extend(objections);
        // Its messages are real: no mind hears of them.
        let shadow = self.shadow(&job, &context, &source).await?;
        job.risks.extend(shadow.filter(|_| self.policy.autonomy != Autonomy::Free));
        job.step = Step::Judged;
        Ok((job, Changes::default()))
    }

    /// Tries every answer; equal ones once.
    async fn try_all(&self, job: &mut Job, context: &Context) -> Result<Round, BecomingError> {
        let scribe = Scribe::read(&self.universe).await?;
        let answers = std::mem::take(&mut job.answers);
        let asked = job.clone();
        let case = asked.case(View::new(&self.universe), (context.holder_id, &context.holder), &context.known);
        let (mut round, mut most) = (Round { drafts: answers.len(), admitted: Vec::new(), best: None }, 0);
        let mut judged: HashMap<String, Verdict> = HashMap::new();
        for answer in answers {
            let verdict = match judged.get(&answer) {
                Some(same) => same.clone(),
                None => {
                    let (verdict, base) = case.judged(&answer).await?;
                    job.tried(&answer, &verdict, base, scribe.answers);
                    judged.insert(answer.clone(), verdict.clone());
                    verdict
                }
            };
            let reason = verdict.hint().unwrap_or_default().to_owned();
            match verdict {
                Verdict::Admitted { source, effects, touched, behaviour } => {
                    round.admitted.push(Admitted { source, effects, touched, behaviour });
                }
                Verdict::Refused { held, .. } if round.best.is_none() || held > most => {
                    most = held;
                    round.best = Some(Failure { draft: answer, reason });
                }
                Verdict::Refused { .. } => {}
            }
        }
        Ok(round)
    }

    pub(crate) async fn context(&self, job: &Job) -> Result<Context, UniverseError> {
        let view = View::new(&self.universe);
        let gone = |id: ObjectId| UniverseError::NoSuchObject(id.to_string());
        let (holder_id, _, holder) = self.universe.holder_of(job.patch(), job.receiver).await?;
        let receiver = view.object(job.receiver).await?;
        let (_, receiver) = receiver.ok_or_else(|| gone(job.receiver))?;
        let known = known(holder_id, &holder, job)?;
        let mut inherited = BTreeSet::new();
        let (mut seen, mut next) = (vec![job.receiver], vec![receiver.clone()]);
        while let Some(record) = next.pop() {
            for slot in &record.slots {
                if let SlotKind::Method(_) | SlotKind::Intent(_) = slot.kind
                    && holder.slot(&slot.name).is_none()
                {
                    inherited.insert((slot.name.clone(), slot.kind.method().map(str::to_owned)));
                }
            }
            for id in parents_of(&record) {
                if !seen.contains(&id) && seen.len() < MAX_CHAIN {
                    seen.push(id);
                    // What the image has, a model knows from Smalltalk.
                    next.extend(view.object(id).await?.map(|(_, parent)| parent).filter(|parent| !parent.is_kernel));
                }
            }
        }
        let (inherited, mut methods): (Vec<_>, Vec<_>) = inherited.into_iter().unzip();
        methods.extend(holder.slots.iter().map(|slot| slot.kind.method().map(str::to_owned)));
        let methods = methods.into_iter().flatten().collect();
        Ok(Context { holder_id, holder, receiver, known, inherited, methods })
    }
}

/// What a becoming looks at.
pub(crate) struct Context {
    pub holder_id: ObjectId,
    pub holder: Arc<Record>,
    pub receiver: Arc<Record>,
    pub known: Known,
    /// Selectors of parents that are neither the holder nor of the image.
    inherited: Vec<String>,
    /// Sources of the methods of the holder and of those parents.
    methods: Vec<String>,
}

/// What people wrote that a draft is judged by.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Of what is made.
    pub examples: Vec<Example>,
    /// Of what is there and could be broken.
    pub kept: Vec<Example>,
    pub contract: Option<Contract>,
}

impl Context {
    /// What the receiver and the holder are called.
    pub fn names(&self) -> Vec<&str> {
        [&self.receiver, &self.holder].into_iter().filter_map(|record| record.name.as_deref()).collect()
    }

    /// Whether all that it brought is there.
    pub fn has_all_of(&self, job: &Job) -> bool {
        let there = |name: &String| {
            let made = self.holder.slot(name).is_some_and(|slot| slot.kind.method().is_some());
            made || (job.directive.is_some() && self.receiver.slot(name).is_some())
        };
        job.draft.as_deref().is_some_and(|source| job.brings(source).iter().all(there))
    }

    /// Why nothing could tell a right draft from a wrong one.
    pub fn unjudgeable(&self, job: &Job) -> Option<String> {
        unjudgeable(job.patch(), &self.known.examples, self.known.contract.as_ref())
    }

    pub fn prompt(&self, forge: &Forge, job: &Job, codex: &Codex) -> Prompt {
        Prompt::new(forge, &self.material(job, codex))
    }

    fn material<'a>(&'a self, job: &'a Job, codex: &'a Codex) -> Material<'a> {
        Material {
            selector: &job.selector,
            shapes: &job.shapes,
            directive: job.directive.as_ref().map(|directive| directive.text.as_str()),
            defect: job.defect.as_ref(),
            receiver: &self.receiver,
            holder: &self.holder,
            inherited: &self.inherited,
            examples: &self.known.examples,
            contract: self.known.contract.as_ref(),
            failures: &job.failures,
            principles: &codex.principles,
        }
    }

    /// The method that is there already and differs from this one in nothing but its name.
    fn double(&self, job: &Job, source: &str) -> Option<String> {
        let (_, body) = source.split_once(" = ").filter(|_| job.directive.is_none())?;
        let there = self.methods.iter().filter_map(|method| method.split_once(" = "));
        let (header, _) =
            there.filter(|(header, other)| *other == body && !header.is_empty()).find(|(header, _)| {
                // Its own name is no double.
                !source.starts_with(&format!("{header} = "))
            })?;
        Some(format!("it is what {header} is already, under another name"))
    }
}

/// What people wrote of a selector, in the holder's manifest and in its intent, or with the Architect's directive.
pub(crate) fn known(id: ObjectId, holder: &Record, job: &Job) -> Result<Known, UniverseError> {
    let definition: PrototypeDefinition = match &holder.manifest {
        Some(manifest) => serde_json::from_str(&manifest.definition)
            .map_err(|e| UniverseError::Internal(format!("manifest of {id}: {e}")))?,
        None => PrototypeDefinition::default(),
    };
    let is_of = |example: &Example| example.send.selector == job.selector && job.directive.is_none();
    let (mut examples, mut kept): (Vec<_>, Vec<_>) = definition.examples.into_iter().partition(is_of);
    let mut contract = None;
    if let Some(SlotKind::Intent(intent)) = holder.slot(&job.selector).map(|slot| &slot.kind) {
        let damaged = |e| UniverseError::Internal(format!("intent {:?} of {id}: {e}", job.selector));
        examples.extend(serde_json::from_str::<Vec<Example>>(&intent.examples).map_err(damaged)?);
        if let Some(parts) = &intent.contract {
            let parts = serde_json::from_str(parts).map_err(damaged)?;
            contract = Some(Contract { arguments: intent.arguments.clone(), parts });
        }
    }
    match (&job.directive, &job.defect) {
        (Some(directive), _) => examples.extend(directive.examples.iter().cloned()),
        // What adds a method that nobody understood changes nothing that was there.
        (None, None) => kept.clear(),
        (None, Some(_)) => {}
    }
    Ok(Known { examples, kept, contract })
}
