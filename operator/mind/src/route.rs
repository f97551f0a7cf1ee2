//! Who deals with what an object cannot: the table. Each decision is kept in the journal with what it was made by.

use std::{collections::HashMap, fmt};

use batos_covenant::ErrorKind;
use batos_graph::{Record, SlotKind, Value};
use serde::{Deserialize, Serialize};

use crate::Job;

/// Whose it is to deal with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Organ {
    /// Makes methods.
    ToolForge,
    /// Would train the persona whose judgement falls short.
    UnslothForge,
    /// Would ask the object who it is, when it knows little of itself and is asked openly.
    CharacterologicalInquiry,
    /// The Architect answers before anything more is made.
    PhilosophicalLoop,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Trigger {
    /// Nobody understood a message.
    NotUnderstood,
    /// An intent without a method was sent.
    Intent,
    /// A method failed again and again.
    Failing(ErrorKind),
    /// The Architect asked for something.
    Asked,
    /// No answer of a model had the shape that an outcome declares.
    Outcome,
    /// What was made breaks the Codex.
    Conflict,
}

/// What a decision is made by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Situation {
    pub trigger: Trigger,
    pub selector: String,
    /// Examples that a method could be judged by.
    pub examples: usize,
    /// Shannon's entropy of the values in the receiver's data slots, in bits.
    pub entropy: f64,
}

/// A decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Route {
    pub organ: Organ,
    pub situation: Situation,
}

struct Row {
    organ: Organ,
    when: fn(&Situation) -> bool,
}

/// The first row that fits decides.
const TABLE: &[Row] = &[
    Row { organ: Organ::PhilosophicalLoop, when: |s| s.trigger == Trigger::Conflict },
    Row { organ: Organ::UnslothForge, when: |s| s.trigger == Trigger::Outcome },
    Row {
        organ: Organ::CharacterologicalInquiry,
        when: |s| s.trigger == Trigger::NotUnderstood && s.examples == 0 && explores(&s.selector) && s.entropy < 1.0,
    },
    Row { organ: Organ::ToolForge, when: |_| true },
];

/// First words of messages that ask an object openly, about itself.
const EXPLORING: &[&str] = &["explore", "wonder", "imagine", "reflect", "ponder", "dream", "who", "what", "why", "how"];

fn explores(selector: &str) -> bool {
    EXPLORING.iter().any(|word| {
        let rest = selector.strip_prefix(word);
        rest.is_some_and(|rest| rest.is_empty() || rest == ":" || rest.starts_with(char::is_uppercase))
    })
}

impl Route {
    pub fn of(situation: Situation) -> Self {
        let organ = TABLE.iter().find(|row| (row.when)(&situation)).map_or(Organ::ToolForge, |row| row.organ);
        Self { organ, situation }
    }
}

impl Organ {
    /// Why it cannot do anything yet.
    pub fn is_missing(self) -> Option<&'static str> {
        match self {
            Self::ToolForge | Self::PhilosophicalLoop => None,
            Self::UnslothForge => Some("training a persona whose judgement falls short (UnslothForge)"),
            Self::CharacterologicalInquiry => Some("asking an object openly, about itself (CharacterologicalInquiry)"),
        }
    }
}

impl Situation {
    pub fn of(job: &Job, receiver: &Record, examples: usize) -> Self {
        let trigger = match (&job.directive, &job.defect, job.intent) {
            (Some(_), ..) => Trigger::Asked,
            (_, Some(defect), _) => Trigger::Failing(defect.kind),
            (.., Some(_)) => Trigger::Intent,
            (None, None, None) => Trigger::NotUnderstood,
        };
        Self { trigger, selector: job.selector.clone(), examples, entropy: entropy(receiver) }
    }
}

/// Of the values of an object's data slots, each slot one draw.
pub fn entropy(record: &Record) -> f64 {
    let value = |slot: &batos_graph::Slot| match &slot.kind {
        SlotKind::Constant(value) | SlotKind::Assignable(value) if *value != Value::Nil => Some(format!("{value:?}")),
        _ => None,
    };
    let values: Vec<String> = record.slots.iter().filter_map(value).collect();
    let mut counts: HashMap<&str, u32> = HashMap::new();
    values.iter().for_each(|value| *counts.entry(value).or_default() += 1);
    let all = values.len() as f64;
    let mut shares: Vec<f64> = counts.into_values().map(|count| f64::from(count) / all).collect();
    // Summed in one order, so that the same object has the same entropy to the last bit.
    shares.sort_by(f64::total_cmp);
    shares.iter().fold(0.0, |bits, share| bits - share * share.log2())
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Situation { trigger, selector, examples, entropy } = &self.situation;
        let organ = self.organ;
        write!(f, "{organ:?}: {trigger:?}, {selector:?}, {examples} examples, {entropy:.1} bits of state")
    }
}

#[cfg(test)]
mod tests {
    use batos_graph::Slot;

    use super::*;

    #[test]
    fn the_table_decides() {
        let (missing, outcome) = (Trigger::NotUnderstood, Trigger::Outcome);
        for (trigger, selector, examples, entropy, organ) in [
            (missing, "withdraw:", 2, 0.0, Organ::ToolForge),
            (missing, "withdraw:", 0, 0.0, Organ::ToolForge),
            (missing, "whoAreYou", 0, 0.0, Organ::CharacterologicalInquiry),
            (missing, "imagine:", 0, 0.9, Organ::CharacterologicalInquiry),
            (missing, "whoAreYou", 0, 2.0, Organ::ToolForge),
            (missing, "whoAreYou", 1, 0.0, Organ::ToolForge),
            (missing, "whole", 0, 0.0, Organ::ToolForge),
            (Trigger::Intent, "whoAreYou", 0, 0.0, Organ::ToolForge),
            (Trigger::Asked, "ask", 0, 0.0, Organ::ToolForge),
            (Trigger::Failing(ErrorKind::LimitExceeded), "why", 0, 0.0, Organ::ToolForge),
            (outcome, "mood:", 3, 3.0, Organ::UnslothForge),
            (Trigger::Conflict, "withdraw:", 2, 0.0, Organ::PhilosophicalLoop),
        ] {
            let situation = Situation { trigger, selector: selector.to_owned(), examples, entropy };
            assert_eq!(Route::of(situation).organ, organ, "{trigger:?} {selector}");
        }
    }

    #[test]
    fn entropy_counts_values() {
        let record = |values: &[i64]| Record {
            slots: (values.iter().enumerate())
                .map(|(n, value)| Slot { name: format!("s{n}"), kind: SlotKind::Assignable(Value::Int(*value)) })
                .collect(),
            ..Record::default()
        };
        for (values, bits) in [(&[][..], 0.0), (&[1], 0.0), (&[1, 1, 1], 0.0), (&[1, 2], 1.0), (&[1, 2, 3, 4], 2.0)] {
            assert_eq!(entropy(&record(values)), bits, "{values:?}");
        }
    }
}
