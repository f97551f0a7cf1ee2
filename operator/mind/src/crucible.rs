//! The Crucible judges a draft by running it in turns that are thrown away.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
};

use batos_covenant::{ErrorKind, ErrorReply, Example, SendCommand, Wire};
use batos_graph::{ObjectId, Payload, Record, Rev, Slot, SlotKind, Value};
use batos_uvm::{
    syntax::sent_by,
    universe::{Authority, Ended, MAX_REPLY, Patch, UniverseError, View},
    vm::{Call, Effects, Limits, Turn, VmError},
};

use crate::{
    agreement::{Behaviour, Outcome},
    assertion::Contract,
    extract,
    inputs::Inputs,
    organs::Crucible,
    repair::Defect,
};

/// Objects that the search for an inherited slot visits.
const MAX_CHAIN: usize = 64;

/// Messages that are drawn at most for each that is new.
const DRAWS: usize = 8;

/// Revisions of the objects that a verdict rests on; those of the image are left out.
pub type Base = BTreeMap<ObjectId, Rev>;

/// What the Crucible found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Admitted {
        /// Canonical.
        source: String,
        /// What it did beyond its receiver, for people.
        effects: BTreeSet<String>,
        /// Names of other objects that it names or changes.
        touched: BTreeSet<String>,
        /// What it does where no example says what is right.
        behaviour: Behaviour,
    },
    /// After so many examples that held; the reason is for people.
    Refused {
        held: usize,
        reason: String,
        /// Whether the example that failed is hidden from minds.
        hidden: bool,
    },
}

impl Verdict {
    /// Why it was refused, as far as a mind may know it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Admitted { .. } => None,
            Self::Refused { hidden: true, .. } => Some("it fails an example that is not shown to you"),
            Self::Refused { reason, .. } => Some(reason),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { held, reason, .. } => write!(f, "refused after {held} examples that held: {reason}"),
            Self::Admitted { source, effects, .. } => {
                write!(f, "admitted: {source}")?;
                effects.iter().try_for_each(|effect| write!(f, "\n{effect}"))
            }
        }
    }
}

/// What a draft is judged by.
pub struct Case<'a> {
    /// The graph as the judge sees it.
    pub view: View<'a>,
    /// The object that lacked the method.
    pub receiver: ObjectId,
    /// The object that would hold it.
    pub holder: (ObjectId, &'a Record),
    /// What a draft is, and where it goes.
    pub patch: Patch<'a>,
    pub examples: &'a [Example],
    /// Examples of what is there already: those that hold without a draft must hold with it.
    pub kept: &'a [Example],
    /// Of the intent that it is made of.
    pub contract: Option<&'a Contract>,
    /// Arguments of the message that asked for it.
    pub asked: Option<&'a [Wire]>,
    /// What is wrong with the method that a draft replaces.
    pub defect: Option<&'a Defect>,
    pub crucible: Crucible,
    /// Time and chance of the turns: the same draft gets the same verdict.
    pub began: u64,
    pub seed: [u8; 32],
}

/// What a turn came to, seen from outside.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// An error as its sender would get it.
    pub answer: Result<Wire, ErrorReply>,
    /// Data slots of the receiver afterwards.
    pub leaves: BTreeMap<String, Value>,
    /// What else it did, for people.
    pub effects: BTreeSet<String>,
    /// Names of other objects that it changed.
    pub touched: BTreeSet<String>,
    pub base: Base,
}

impl Case<'_> {
    /// Judges what a model wrote. The draft must compile to just the wanted method and do what every example says, within
    /// the limits of a turn.
    pub async fn judge(&self, answer: &str) -> Result<Verdict, UniverseError> {
        self.judged(answer).await.map(|(verdict, _)| verdict)
    }

    /// As `judge`, with what the verdict rests on.
    pub async fn judged(&self, answer: &str) -> Result<(Verdict, Base), UniverseError> {
        let mut base = Base::new();
        for id in [self.receiver, self.holder.0] {
            base.extend(self.view.object(id).await?.map(|(rev, _)| (id, rev)));
        }
        let verdict = self.verdict(answer, &mut base).await?;
        Ok((verdict, base))
    }

    async fn verdict(&self, answer: &str, base: &mut Base) -> Result<Verdict, UniverseError> {
        let refused = |held, reason| Ok(Verdict::Refused { held, reason, hidden: false });
        let found = match self.patch {
            Patch::Slots => extract::slots(answer),
            Patch::Method(selector) | Patch::Intent { selector, .. } | Patch::Repair { selector, .. } => {
                extract::method(answer, selector)
            }
        };
        let source = match found {
            Ok(source) => source,
            Err(reason) => return refused(0, reason),
        };
        if let Some(reason) = unjudgeable(self.patch, self.examples, self.contract) {
            return refused(0, reason);
        }
        if let Err(reason) = self.lint(&source).await? {
            return refused(0, reason);
        }
        let (mut effects, mut touched) = self.neighbours(&source).await?;
        for (number, example) in self.examples.iter().enumerate() {
            match self.run(&source, example, number, base).await? {
                Ok(trace) => {
                    effects.extend(trace.effects);
                    touched.extend(trace.touched);
                }
                Err(reason) => {
                    let hidden = example.hidden;
                    let example = serde_json::to_string(example).unwrap_or_default();
                    let reason = format!("example {} ({example}): {reason}", number + 1);
                    return Ok(Verdict::Refused { held: number, reason, hidden });
                }
            }
        }
        let held = self.examples.len();
        if let Some(broken) = self.broken_law(&source, base).await? {
            return refused(held, broken);
        }
        if let Some((reason, hidden)) = self.broken_contract(&source, base).await? {
            return Ok(Verdict::Refused { held, reason, hidden });
        }
        if let Some((reason, hidden)) = self.lost(&source, base).await? {
            return Ok(Verdict::Refused { held, reason, hidden });
        }
        if let Some(reason) = self.still_fails(&source, base).await? {
            return refused(held, reason);
        }
        let mut behaviour = Behaviour::default();
        let asked = self.asked.zip(self.selector()).map(|(arguments, selector)| message(selector, arguments.to_vec()));
        for (number, message) in asked.iter().chain(&self.probes()).enumerate() {
            let Ok(trace) = self.trace(&source, message, self.examples.len() + number).await? else { continue };
            match (asked.as_ref().filter(|_| number == 0), &trace.answer) {
                (None, _) => behaviour.0.push((told(message), Outcome::of(&trace))),
                // It may be right to fail: a person sees whether it is.
                (Some(_), Err(error)) => {
                    effects.insert(format!("it fails on the message that asked for it ({:?})", error.kind));
                }
                (Some(_), Ok(_)) => {}
            }
            effects.extend(trace.effects);
            touched.extend(trace.touched);
            base.extend(trace.base);
        }
        Ok(Verdict::Admitted { source, effects, touched, behaviour })
    }

    /// The one selector that is made, if it is one.
    pub(crate) fn selector(&self) -> Option<&str> {
        match self.patch {
            Patch::Method(selector) | Patch::Intent { selector, .. } | Patch::Repair { selector, .. } => Some(selector),
            Patch::Slots => None,
        }
    }

    /// Messages like the examples, the same ones for every draft.
    pub(crate) fn probes(&self) -> Vec<Example> {
        let mut seen: BTreeSet<String> = self.examples.iter().map(told).collect();
        let selectors: BTreeSet<&str> = self.examples.iter().map(|example| example.send.selector.as_str()).collect();
        let share = self.crucible.probes / selectors.len().max(1);
        let mut probes = Vec::new();
        for selector in selectors {
            let drawn = Inputs::new(self.examples, selector).widened().take(DRAWS * share);
            probes.extend(drawn.filter(|probe| seen.insert(told(probe))).take(share));
        }
        probes
    }

    pub(crate) async fn run(
        &self,
        source: &str,
        example: &Example,
        number: usize,
        base: &mut Base,
    ) -> Result<Result<Trace, String>, UniverseError> {
        let trace = match self.trace(source, example, number).await? {
            Ok(trace) => trace,
            Err(reason) => return Ok(Err(reason)),
        };
        base.extend(&trace.base);
        Ok(differs(&trace, example).map_or(Ok(trace), Err))
    }

    /// Sends the example's message with the method in its place, as a message from outside would be carried out; nothing
    /// of it is kept. `number` tells one example's chance from another's. An error says why it cannot be sent.
    pub async fn trace(
        &self,
        source: &str,
        example: &Example,
        number: usize,
    ) -> Result<Result<Trace, String>, UniverseError> {
        self.sent(Some(source), self.receiver, example, number).await
    }

    /// As `trace`, to any object, and without a source as things are.
    pub(crate) async fn sent(
        &self,
        source: Option<&str>,
        receiver: ObjectId,
        example: &Example,
        number: usize,
    ) -> Result<Result<Trace, String>, UniverseError> {
        let mut view = self.view.clone();
        if let Some(source) = source {
            let Some((_, own)) = view.object(self.receiver).await? else {
                return Ok(Err(format!("receiver {} is gone", self.receiver)));
            };
            let holder = if self.holder.0 == self.receiver { (self.receiver, &*own) } else { self.holder };
            for (id, record, _) in self.patch.apply(source, (self.receiver, &own), holder)? {
                view.overlay(id, record);
            }
        }
        let Some((_, record)) = view.object(receiver).await? else {
            return Ok(Err(format!("receiver {receiver} is gone")));
        };
        let mut given = (*record).clone();
        for (name, value) in &example.given {
            let Some(value) = scalar(value) else { return Ok(Err(format!("given {name}: {value} is no scalar"))) };
            let slot = Slot { name: name.clone(), kind: SlotKind::Assignable(value) };
            match given.slots.iter_mut().find(|old| old.name == *name) {
                Some(old) => *old = slot,
                None => given.slots.push(slot),
            }
        }
        view.overlay(receiver, given.clone());
        let send = &example.send;
        let call = Call { receiver, selector: send.selector.clone(), arguments: send.arguments.clone() };
        let seed = *blake3::keyed_hash(&self.seed, &(number as u64).to_be_bytes()).as_bytes();
        let mut turn = match Turn::new(&call, Limits::default(), seed) {
            Ok(turn) => turn.starting_at(self.began),
            Err(error) => return Ok(Err(error.to_string())),
        };
        let ended = view.end(&mut turn, Authority::Sender, receiver).await?;
        let read = turn.reads().objects.into_iter().filter(|(id, _)| !id.is_well_known());
        let base: Base = read.filter_map(|(id, rev)| Some((id, rev?))).collect();
        let failed = |error: ErrorReply| {
            let (leaves, base) = (data(&given), base.clone());
            Ok(Ok(Trace { answer: Err(error), leaves, effects: BTreeSet::new(), touched: BTreeSet::new(), base }))
        };
        let effects = match ended {
            Ended::Done(effects) => effects,
            Ended::NotUnderstood(missing) => {
                let why = match missing.question {
                    Some(_) => "which a model answers each time: a trial asks none",
                    None => "which nobody understands",
                };
                let text = format!("it sends {:?}, {why}", missing.selector);
                return failed(ErrorReply::new(ErrorKind::NotUnderstood, text));
            }
            Ended::Refused(error) => return failed(error.to_reply()),
            Ended::Failed(VmError { kind, message, stack, .. }) => {
                return failed(ErrorReply { stack, ..ErrorReply::new(kind, message) });
            }
        };
        if let Err(error) = fits(&effects) {
            return failed(error.to_reply());
        }
        let (mut seen, mut touched) = (BTreeSet::new(), BTreeSet::new());
        for write in effects.writes.iter().filter(|write| write.prev_rev.is_some()) {
            if write.id != receiver {
                let name = write.record.name.clone().unwrap_or_else(|| write.id.to_string());
                seen.insert(format!("it changes another object ({name})"));
                touched.insert(name);
            } else if let Some(slot) = reshaped(&given, &write.record) {
                seen.insert(format!("it changes slots or parents ({slot})"));
            }
        }
        seen.extend(
            effects.posts.iter().map(|post| format!("it sends messages that run on their own ({})", post.selector)),
        );
        if !effects.cancelled.is_empty() {
            seen.insert("it stops timers".to_owned());
        }
        let after = effects.writes.iter().find(|write| write.id == receiver).map_or(&given, |write| &write.record);
        Ok(Ok(Trace { answer: Ok(effects.answer), leaves: data(after), effects: seen, touched, base }))
    }

    /// Objects beside the receiver that the source has a name for, whether or not an example led there. Collections that
    /// the receiver keeps in its slots are its own.
    async fn neighbours(&self, source: &str) -> Result<(BTreeSet<String>, BTreeSet<String>), UniverseError> {
        let sent = sent_by(source);
        let (mut reached, mut touched) = (BTreeSet::new(), BTreeSet::new());
        for name in sent.iter().filter(|name| !name.ends_with(':')) {
            let id = match self.inherited(name).await? {
                Some(SlotKind::Constant(Value::Ref(id)) | SlotKind::Assignable(Value::Ref(id))) => Some(id),
                Some(_) => None,
                None => self.view.universe().lookup_name(name).await?,
            };
            let Some(id) = id.filter(|id| *id != self.receiver) else { continue };
            let Some((_, record)) = self.view.object(id).await? else { continue };
            if !record.is_kernel && record.payload == Payload::None {
                reached.insert(format!("it reaches another object ({name})"));
                touched.insert(name.clone());
                touched.extend(record.name.clone());
            }
        }
        Ok((reached, touched))
    }

    /// The slot that the receiver has or inherits; of several the nearest.
    pub(crate) async fn inherited(&self, name: &str) -> Result<Option<SlotKind>, UniverseError> {
        let (mut seen, mut next) = (BTreeSet::from([self.receiver]), VecDeque::from([self.receiver]));
        while let Some(id) = next.pop_front() {
            let Some((_, record)) = self.view.object(id).await? else { continue };
            if let Some(slot) = record.slot(name) {
                return Ok(Some(slot.kind.clone()));
            }
            next.extend(parents_of(&record).filter(|parent| seen.len() < MAX_CHAIN && seen.insert(*parent)));
        }
        Ok(None)
    }
}

pub(crate) fn message(selector: &str, arguments: Vec<Wire>) -> Example {
    let send = SendCommand { selector: selector.to_owned(), arguments };
    Example { given: BTreeMap::new(), send, answers: None, leaves: BTreeMap::new(), hidden: true }
}

/// Why nothing can tell a right draft from a wrong one.
pub(crate) fn unjudgeable(patch: Patch<'_>, examples: &[Example], contract: Option<&Contract>) -> Option<String> {
    let (Patch::Method(selector) | Patch::Intent { selector, .. }) = patch else { return None };
    let reason = || format!("nothing to judge by: give the prototype an example that sends {selector:?}");
    (examples.is_empty() && contract.is_none()).then(reason)
}

/// What the trace does otherwise than the example says.
pub(crate) fn differs(trace: &Trace, example: &Example) -> Option<String> {
    let answer = match &trace.answer {
        Ok(answer) => answer,
        Err(error) => {
            // The innermost activation says in which line.
            let place = error.stack.first().map(|activation| format!(" in {activation}")).unwrap_or_default();
            return Some(format!("{error}{place}"));
        }
    };
    if let Some(wanted) = &example.answers
        && wanted != answer
    {
        return Some(format!("it answers {}, not {wanted}", brief(answer)));
    }
    example.leaves.iter().find_map(|(name, wanted)| {
        let left = trace.leaves.get(name);
        let shown = || left.map(plain).unwrap_or_else(|| "no such slot".to_owned());
        (left != scalar(wanted).as_ref()).then(|| format!("it leaves {name} = {}, not {wanted}", shown()))
    })
}

/// Whether the store and the bus take what a turn comes to.
fn fits(effects: &Effects) -> Result<(), UniverseError> {
    let size = serde_json::to_vec(&effects.answer).map_or(0, |bytes| bytes.len());
    if size > MAX_REPLY {
        let text = format!("the answer has {size} bytes; at most {MAX_REPLY} fit into a message");
        return Err(VmError::new(ErrorKind::LimitExceeded, text).into());
    }
    for write in &effects.writes {
        write.record.encode().map_err(|source| UniverseError::Record { object: write.id, source })?;
    }
    Ok(())
}

/// The first slot that is there no more, or is another one in more than a value that can be assigned.
fn reshaped<'a>(before: &'a Record, after: &'a Record) -> Option<&'a str> {
    let is_data = |slot: &Slot| matches!(slot.kind, SlotKind::Assignable(_));
    let lost = before.slots.iter().find(|slot| match after.slot(&slot.name) {
        Some(now) => now.kind != slot.kind && !(is_data(now) && is_data(slot)),
        None => true,
    });
    let gained = || after.slots.iter().find(|slot| before.slot(&slot.name).is_none() && !is_data(slot));
    lost.or_else(gained).map(|slot| slot.name.as_str())
}

pub(crate) fn parents_of(record: &Record) -> impl Iterator<Item = ObjectId> {
    record.slots.iter().filter_map(|slot| match slot.kind {
        SlotKind::Parent(Value::Ref(parent)) => Some(parent),
        _ => None,
    })
}

fn data(record: &Record) -> BTreeMap<String, Value> {
    let value = |slot: &Slot| match &slot.kind {
        SlotKind::Constant(value) | SlotKind::Assignable(value) => Some((slot.name.clone(), value.clone())),
        SlotKind::Parent(_) | SlotKind::Method(_) | SlotKind::Intent(_) => None,
    };
    record.slots.iter().filter_map(value).collect()
}

/// An example's message and the state before it.
pub(crate) fn told(example: &Example) -> String {
    let Example { given, send, .. } = example;
    let arguments = Wire::Array(send.arguments.clone());
    match given.is_empty() {
        true => format!("{} {arguments}", send.selector),
        false => format!("{} {arguments} given {}", send.selector, serde_json::to_string(given).unwrap_or_default()),
    }
}

fn scalar(value: &Wire) -> Option<Value> {
    Some(match value {
        Wire::Null => Value::Nil,
        Wire::Bool(b) => Value::Bool(*b),
        Wire::Number(n) => n.as_i64().map(Value::Int).or_else(|| n.as_f64().map(Value::Float))?,
        Wire::String(text) => Value::Str(text.clone()),
        Wire::Array(_) | Wire::Object(_) => return None,
    })
}

/// Longest value that a reason shows, in characters.
const MAX_SHOWN: usize = 200;

fn brief(value: &Wire) -> String {
    let text = value.to_string();
    match text.chars().count() > MAX_SHOWN {
        true => text.chars().take(MAX_SHOWN).chain(['…']).collect(),
        false => text,
    }
}

pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::Nil => "null".to_owned(),
        Value::Bool(b) => b.to_string(),
        Value::Int(n) => n.to_string(),
        Value::Float(x) => x.to_string(),
        Value::Str(text) => brief(&Wire::String(text.clone())),
        other => brief(&Wire::String(format!("{other:?}"))),
    }
}
