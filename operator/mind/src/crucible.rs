//! The Crucible judges a draft by running it in turns that are thrown away.

use std::collections::BTreeSet;

use batos_covenant::{Example, Wire};
use batos_graph::{ObjectId, Record, Slot, SlotKind, Value};
use batos_uvm::{
    universe::{Universe, UniverseError, View},
    vm::{Call, Exit, Limits, Turn, Write},
};

use crate::extract;

/// What the Crucible found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Admitted {
        /// Canonical.
        source: String,
        /// What it did beyond its receiver, for people.
        effects: BTreeSet<String>,
    },
    /// After so many examples that held; the reason is for people and for the mind.
    Refused { held: usize, reason: String },
}

/// Judges what a model wrote as the method `selector` of `holder`, on the receiver that lacked it. The draft must compile
/// to just that selector and do what every example says, within the limits of a turn.
pub async fn judge(
    universe: &Universe,
    receiver: ObjectId,
    holder: (ObjectId, &Record),
    selector: &str,
    answer: &str,
    examples: &[Example],
) -> Result<Verdict, UniverseError> {
    let refused = |held, reason| Ok(Verdict::Refused { held, reason });
    let source = match extract::method(answer, selector) {
        Ok(source) => source,
        Err(reason) => return refused(0, reason),
    };
    if examples.is_empty() {
        return refused(0, format!("nothing to judge by: give the prototype an example that sends {selector:?}"));
    }
    let mut trial = holder.1.clone();
    trial.slots.retain(|slot| slot.name != selector);
    trial.slots.push(Slot { name: selector.to_owned(), kind: SlotKind::Method(source.clone()) });
    let mut effects = BTreeSet::new();
    for (number, example) in examples.iter().enumerate() {
        let mut view = View::new(universe);
        view.overlay(holder.0, trial.clone());
        match run_example(&mut view, receiver, example).await? {
            Ok(more) => effects.extend(more),
            Err(reason) => {
                let example = serde_json::to_string(example).unwrap_or_default();
                return refused(number, format!("example {} ({example}): {reason}", number + 1));
            }
        }
    }
    Ok(Verdict::Admitted { source, effects })
}

async fn run_example(
    view: &mut View<'_>,
    receiver: ObjectId,
    example: &Example,
) -> Result<Result<BTreeSet<String>, String>, UniverseError> {
    let Some((_, record)) = view.object(receiver).await? else {
        return Ok(Err(format!("receiver {receiver} is gone")));
    };
    let mut given = (*record).clone();
    for (name, value) in &example.given {
        let Some(value) = scalar(value) else { return Ok(Err(format!("given {name}: {value} is no scalar"))) };
        given.slots.retain(|slot| slot.name != *name);
        given.slots.push(Slot { name: name.clone(), kind: SlotKind::Assignable(value) });
    }
    view.overlay(receiver, given.clone());
    let call = Call { receiver, selector: example.send.selector.clone(), arguments: example.send.arguments.clone() };
    // A fixed seed: the same draft gets the same verdict.
    let mut turn = match Turn::new(&call, Limits::default(), [0; 32]) {
        Ok(turn) => turn,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let effects = match view.run(&mut turn).await? {
        Exit::Done => match turn.effects() {
            Ok(effects) => effects,
            Err(error) => return Ok(Err(error.to_string())),
        },
        Exit::NotUnderstood(missing) => {
            return Ok(Err(format!("it sends {:?}, which nobody understands", missing.selector)));
        }
        Exit::Failed(error) => {
            // The innermost activation says in which line.
            let place = error.stack.first().map(|activation| format!(" in {activation}")).unwrap_or_default();
            return Ok(Err(format!("{error}{place}")));
        }
        Exit::Paused | Exit::Fault(_) => return Err(UniverseError::Internal("unfinished turn".to_owned())),
    };
    if let Some(wanted) = &example.answers
        && *wanted != effects.answer
    {
        return Ok(Err(format!("it answers {}, not {wanted}", brief(&effects.answer))));
    }
    let after = effects.writes.iter().find(|write| write.id == receiver).map_or(&given, |write| &write.record);
    for (name, wanted) in &example.leaves {
        let left = after.slot(name).and_then(|slot| match &slot.kind {
            SlotKind::Constant(value) | SlotKind::Assignable(value) => Some(value),
            SlotKind::Parent(_) | SlotKind::Method(_) | SlotKind::Intent(_) => None,
        });
        if left != scalar(wanted).as_ref() {
            let left = left.map(plain).unwrap_or_else(|| "no such slot".to_owned());
            return Ok(Err(format!("it leaves {name} = {left}, not {wanted}")));
        }
    }
    let others = effects.writes.iter().filter(|write| write.prev_rev.is_some() && write.id != receiver);
    let name = |write: &Write| write.record.name.clone().unwrap_or_else(|| write.id.to_string());
    Ok(Ok(others.map(|write| format!("it changes another object ({})", name(write))).collect()))
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

fn plain(value: &Value) -> String {
    match value {
        Value::Nil => "null".to_owned(),
        Value::Bool(b) => b.to_string(),
        Value::Int(n) => n.to_string(),
        Value::Float(x) => x.to_string(),
        Value::Str(text) => brief(&Wire::String(text.clone())),
        other => brief(&Wire::String(format!("{other:?}"))),
    }
}
