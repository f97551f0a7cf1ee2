//! Definitions that people write, merged into the living graph.
//!
//! A Prototype makes two objects: the prototype with its data slots, and its traits parent with its methods, so that a
//! method that is made or changed reaches every clone. The traits delegate to the parents that the definition names.

use std::collections::BTreeMap;

use batos_covenant::{
    ApplyCommand, ContractDefinition, Example, IntentDefinition, OkReply, OutcomeDefinition, PrototypeDefinition,
    Reply, SlotDefinition,
};
use batos_graph::{Intent, Manifest, ObjectId, Record, Slot, SlotKind, Value};
use serde_json::json;

use super::{Patch, Universe, UniverseError, View, commit::Changes, patch::put_slot, render, turns::Attempt};
use crate::{
    image,
    syntax::parse_method,
    vm::{Write, arity, check_method, header},
};

/// Name of a prototype's traits object: this before the prototype's name.
pub const TRAITS_PREFIX: &str = "traits ";

/// The traits parent of a prototype or a clone of one.
pub(super) fn traits_of(record: &Record) -> Option<ObjectId> {
    record.slots.iter().find_map(|slot| match &slot.kind {
        SlotKind::Parent(Value::Ref(id)) => Some(*id),
        _ => None,
    })
}

impl Universe {
    /// The prototype of this name and its traits, whether they are there or would be.
    pub(super) async fn pair(&self, name: &str) -> Result<[ObjectId; 2], UniverseError> {
        let traits = traits_name(name);
        let id = |found: Option<ObjectId>, name: &str| found.unwrap_or_else(|| ObjectId::of_name(name));
        Ok([id(self.lookup_name(name).await?, name), id(self.lookup_name(&traits).await?, &traits)])
    }

    pub(super) async fn attempt_apply(&self, name: &str, command: &ApplyCommand) -> Result<Attempt, UniverseError> {
        let definition = &command.definition;
        let traits_name = traits_name(name);
        let [object, traits] = self.pair(name).await?;
        self.inner.cache.forget([object, traits]);
        let view = View::new(self);
        let (old, old_traits) = (view.record(object).await?, view.record(traits).await?);
        let is_gone = old.as_ref().is_some_and(|(_, record)| record.is_gone());
        let known = old.as_ref().and_then(|(_, record)| record.manifest.clone());
        if let Some(known) = &known {
            fence(name, (&command.uid, command.generation, command.term), known)?;
            // Files have no uid, and may say again what a resource said.
            if is_gone && known.uid == command.uid && !command.uid.is_empty() {
                let (seen, known) = (format!("an apply of {}", known.uid), "its removal".to_owned());
                return Err(UniverseError::Stale { object: name.to_owned(), seen, known });
            }
        }

        let last: PrototypeDefinition = match known.as_ref().filter(|_| !is_gone) {
            Some(manifest) => serde_json::from_str(&manifest.definition)
                .map_err(|e| UniverseError::Internal(format!("manifest of {name:?}: {e}")))?,
            None => PrototypeDefinition::default(),
        };
        let mut manifest = Manifest {
            uid: command.uid.clone(),
            generation: command.generation,
            term: command.term,
            definition: serde_json::to_string(definition).map_err(|e| UniverseError::Internal(e.to_string()))?,
        };
        // A repeat under a later term changes nothing: what an older term could still say is the same, or older.
        if let Some(known) = &known
            && (&known.uid, known.generation, &known.definition)
                == (&manifest.uid, manifest.generation, &manifest.definition)
        {
            manifest.term = known.term;
        }
        let mut changes = Changes::default();
        let mut parents = Vec::new();
        for parent in &definition.parents {
            let id = self.resolve(parent).await?;
            if view.object(id).await?.is_none() {
                return Err(UniverseError::NoSuchObject(parent.clone()));
            }
            parents.push(Slot { name: parent.clone(), kind: SlotKind::Parent(Value::Ref(id)) });
            changes.lock.push(id);
        }
        if parents.is_empty() {
            parents.push(Slot { name: "parent".to_owned(), kind: SlotKind::Parent(Value::Ref(image::ROOT_TRAITS)) });
        }

        let (data, methods) = (slots(definition, false)?, slots(definition, true)?);
        let (last_data, last_methods) = (slots(&last, false)?, slots(&last, true)?);
        let parent = Slot { name: "parent".to_owned(), kind: SlotKind::Parent(Value::Ref(traits)) };
        let mut drift = Vec::new();
        for (id, old, name, parents, last, wanted) in [
            (traits, old_traits, &traits_name, parents, last_methods, methods),
            (object, old, &name.to_owned(), vec![parent], last_data, data),
        ] {
            let rev = old.as_ref().map(|(rev, _)| *rev);
            let present = old.map(|(_, record)| (*record).clone()).unwrap_or_default();
            changes.reads.objects.push((id, rev));
            let mut record = present.clone();
            record.name = Some(name.clone());
            record.is_trait = id == traits;
            record.manifest = Some(manifest.clone());
            let mut changed = merge(&mut record, parents, &last, &wanted);
            if command.enforce {
                for name in drifted(&record, &wanted) {
                    if let Some(slot) = wanted.get(&name) {
                        put_slot(&mut record.slots, slot.clone());
                        changed.push(name);
                    }
                }
            }
            drift.extend(drifted(&record, &wanted));
            if record != present {
                changes.writes.push(Write { id, prev_rev: rev, record, changed });
            }
        }
        let named = changes.writes.iter().flat_map(|write| write.record.targets()).collect();
        self.require(&mut changes, named, &view).await?;
        let rev = changes.rev_after(object);
        let value = json!({ "object": object.to_string(), "rev": rev, "drift": drift });
        Ok(Attempt::Commit(changes, Reply::Ok(OkReply::new(value, rev))))
    }

    pub(super) async fn attempt_create_method(
        &self,
        object: ObjectId,
        name: &str,
        source: &str,
    ) -> Result<Attempt, UniverseError> {
        let (changes, holder) = self.change(Patch::Method(name), object, source).await?;
        let rev = changes.rev_after(holder);
        let value = json!({ "holder": holder.to_string(), "selector": name });
        Ok(Attempt::Commit(changes, Reply::Ok(OkReply::new(value, rev))))
    }
}

fn traits_name(name: &str) -> String {
    format!("{TRAITS_PREFIX}{name}")
}

/// Older generations and terms never come back; `command` has uid, generation and term.
pub(super) fn fence(
    name: &str,
    (uid, generation, term): (&str, i64, i64),
    known: &Manifest,
) -> Result<(), UniverseError> {
    let stale = |what: &str, seen: i64, known: i64| UniverseError::Stale {
        object: name.to_owned(),
        seen: format!("{what} {seen}"),
        known: format!("{what} {known}"),
    };
    if term < known.term {
        return Err(stale("term", term, known.term));
    }
    if uid == known.uid && generation < known.generation {
        return Err(stale("generation", generation, known.generation));
    }
    Ok(())
}

/// The definition's slots that hold methods, or those that hold data.
fn slots(definition: &PrototypeDefinition, methods: bool) -> Result<BTreeMap<String, Slot>, UniverseError> {
    let chosen = definition.slots.iter().filter(|slot| (slot.method.is_some() || slot.intent.is_some()) == methods);
    chosen.map(|slot| Ok((slot.name.clone(), slot_of(slot)?))).collect()
}

fn slot_of(definition: &SlotDefinition) -> Result<Slot, UniverseError> {
    let name = definition.name.clone();
    let bad = |reason: String| UniverseError::BadSlot { slot: definition.name.clone(), reason };
    match (&definition.method, &definition.intent, &definition.value) {
        (Some(source), None, None) => method(&name, source),
        (None, Some(definition), None) => intent(&name, definition),
        (Some(_), ..) | (_, Some(_), _) => Err(bad("give one of value, method and intent".to_owned())),
        (None, None, value) => {
            let value = render::stored(value.as_ref().unwrap_or(&serde_json::Value::Null)).map_err(bad)?;
            let kind = match definition.constant {
                true => SlotKind::Constant(value),
                false => SlotKind::Assignable(value),
            };
            Ok(Slot { name, kind })
        }
    }
}

/// An intent without a method yet.
fn intent(name: &str, definition: &IntentDefinition) -> Result<Slot, UniverseError> {
    let bad = |reason: String| UniverseError::BadSlot { slot: name.to_owned(), reason };
    let arity = arity(name);
    let arguments = match definition.arguments.as_slice() {
        [] => ('a'..='z').take(arity).map(String::from).collect(),
        arguments => arguments.to_vec(),
    };
    if arguments.len() != arity {
        return Err(bad(format!("the intent names {} arguments, the selector takes {arity}", arguments.len())));
    }
    let examples: Vec<Example> = definition.examples.iter().map(|example| example.clone().of(name)).collect();
    if let Some(example) = examples.iter().find(|example| example.send.arguments.len() != arity) {
        return Err(bad(format!(
            "an example gives {} arguments, the selector takes {arity}",
            example.send.arguments.len()
        )));
    }
    let examples = serde_json::to_string(&examples).map_err(|e| UniverseError::Internal(e.to_string()))?;
    let outcome = definition.outcome.as_ref().map(|outcome| outcome_of(name, outcome)).transpose()?;
    // The names have to be such that a method can have.
    method(name, &format!("{} = ( nil )", header(name, &arguments)))?;
    let contract = definition.contract.as_ref().map(|contract| contract_of(name, &arguments, contract)).transpose()?;
    let intent = Intent { text: definition.text.clone(), arguments, examples, compiled: None, outcome, contract };
    Ok(Slot { name: name.to_owned(), kind: SlotKind::Intent(Box::new(intent)) })
}

/// A contract as it is stored: its parts are expressions.
fn contract_of(name: &str, arguments: &[String], contract: &ContractDefinition) -> Result<String, UniverseError> {
    let bad = |reason: String| UniverseError::BadSlot { slot: name.to_owned(), reason };
    if let Some(taken) = arguments.iter().find(|argument| matches!(argument.as_str(), "answer" | "before")) {
        return Err(bad(format!("{taken:?} means something in a contract: give the argument another name")));
    }
    let header = header(name, arguments);
    let parts = [("requires", contract.requires.as_ref()), ("ensures", Some(&contract.ensures))];
    for (part, expression) in parts.into_iter().filter_map(|(part, text)| Some((part, text?))) {
        let slot = || format!("{name} ({part})");
        // The expression has its lines for itself.
        let source = format!("{header} = ( | before answer | ^(\n{expression}\n) )");
        parse_method(&source).map_err(|mut error| {
            error.at.line = error.at.line.saturating_sub(1).max(1);
            UniverseError::Syntax { slot: slot(), error: error.into() }
        })?;
        check_method(&source).map_err(|error| UniverseError::Syntax { slot: slot(), error })?;
    }
    serde_json::to_string(contract).map_err(|e| UniverseError::Internal(e.to_string()))
}

/// An outcome as it is stored: its fields become slots.
fn outcome_of(name: &str, outcome: &OutcomeDefinition) -> Result<String, UniverseError> {
    let bad = |reason: String| UniverseError::BadSlot { slot: name.to_owned(), reason };
    if let Some(flaw) = outcome.answers.flaw() {
        return Err(bad(format!("the shape of its answers: {flaw}")));
    }
    let is_name = |field: &&String| check_method(&format!("{field} = ( nil )")).is_ok_and(|m| m.selector == **field);
    if let Some(field) = outcome.answers.fields.keys().find(|field| !is_name(field)) {
        return Err(bad(format!("the shape of its answers: {field:?} is no name of a slot")));
    }
    serde_json::to_string(outcome).map_err(|e| UniverseError::Internal(e.to_string()))
}

pub(super) fn method(name: &str, source: &str) -> Result<Slot, UniverseError> {
    let slot = || name.to_owned();
    let checked = check_method(source).map_err(|error| UniverseError::Syntax { slot: slot(), error })?;
    match checked.selector == name {
        true => Ok(Slot { name: checked.selector, kind: SlotKind::Method(checked.source) }),
        false => {
            let reason = format!("its source defines {:?}", checked.selector);
            Err(UniverseError::BadSlot { slot: slot(), reason })
        }
    }
}

/// Three-way merge of what the manifest said last, says now, and what lives: a slot that the universe changed itself is
/// kept unless the manifest changed that slot. Answers the names of changed slots.
fn merge(
    record: &mut Record,
    parents: Vec<Slot>,
    last: &BTreeMap<String, Slot>,
    wanted: &BTreeMap<String, Slot>,
) -> Vec<String> {
    let before = record.slots.clone();
    record
        .slots
        .retain(|slot| !matches!(slot.kind, SlotKind::Parent(_)) || parents.iter().any(|p| p.name == slot.name));
    record.slots.retain(|slot| !last.contains_key(&slot.name) || wanted.contains_key(&slot.name));
    parents.into_iter().rev().for_each(|parent| match record.slots.iter_mut().find(|slot| slot.name == parent.name) {
        Some(slot) => *slot = parent,
        None => record.slots.insert(0, parent),
    });
    for (name, slot) in wanted {
        if last.get(name) != Some(slot) {
            put_slot(&mut record.slots, slot.clone());
        }
    }
    let changed = |slot: &&Slot| !before.contains(slot);
    let gone = before.iter().filter(|slot| !record.slots.iter().any(|now| now.name == slot.name));
    record.slots.iter().filter(changed).chain(gone).map(|slot| slot.name.clone()).collect()
}

/// Names of methods and constants that live otherwise than the definition has them, because the universe changed them.
/// Assignable data is there to change.
fn drifted(record: &Record, wanted: &BTreeMap<String, Slot>) -> Vec<String> {
    let differs = |slot: &&Slot| match record.slot(&slot.name) {
        Some(Slot { kind: SlotKind::Intent(now), .. }) => match &slot.kind {
            SlotKind::Intent(wanted) => Intent { compiled: None, ..(**now).clone() } != **wanted,
            _ => true,
        },
        Some(now) => now != *slot && !matches!(slot.kind, SlotKind::Assignable(_)),
        None => true,
    };
    wanted.values().filter(differs).map(|slot| slot.name.clone()).collect()
}
