//! The prompts and policies that live in the graph, as slots of the object `toolForge`, and are versioned like code.

use batos_graph::{Record, Rev, SlotKind, Value};
use batos_uvm::{
    image::TOOL_FORGE,
    universe::{Universe, View},
};

use crate::{BecomingError, MindError};

/// `toolForge` as it was at the time of a draft.
#[derive(Debug, Clone, PartialEq)]
pub struct Forge {
    pub rev: Rev,
    pub system: String,
    pub request: String,
    pub repair: String,
    pub ask_system: String,
    pub ask_request: String,
    pub mend_request: String,
    pub outcome_system: String,
    pub outcome_request: String,
    pub persona_system: String,
    pub persona_request: String,
    /// Rounds of drafts that a becoming has.
    pub attempts: usize,
    /// Drafts in a round.
    pub drafts: u32,
    /// Drafts of a round that must do the same, or as many as the mind gave.
    pub agreement: usize,
    /// Tokens of a draft.
    pub max_tokens: u32,
    pub temperature: f64,
}

/// Longest prompt slot, in bytes.
const MAX_TEXT: usize = 16 * 1024;

impl Forge {
    pub(crate) async fn read(universe: &Universe) -> Result<Self, BecomingError> {
        let found = View::new(universe).object(TOOL_FORGE).await?;
        let (rev, record) = found.ok_or_else(|| MindError::BadForge("it is not in the universe".to_owned()))?;
        Ok(Self::of(rev, &record)?)
    }

    fn of(rev: Rev, record: &Record) -> Result<Self, MindError> {
        let drafts = whole(record, "drafts", 1..=8)?;
        let temperature = number(record, "temperature")?;
        if !(0.0..=2.0).contains(&temperature) || (drafts > 1 && temperature == 0.0) {
            return Err(MindError::BadForge(format!("temperature {temperature} for {drafts} drafts")));
        }
        Ok(Self {
            rev,
            system: text(record, "system")?,
            request: text(record, "request")?,
            repair: text(record, "repair")?,
            ask_system: text(record, "askSystem")?,
            ask_request: text(record, "askRequest")?,
            mend_request: text(record, "mendRequest")?,
            outcome_system: text(record, "outcomeSystem")?,
            outcome_request: text(record, "outcomeRequest")?,
            persona_system: text(record, "personaSystem")?,
            persona_request: text(record, "personaRequest")?,
            attempts: whole(record, "attempts", 1..=8)? as usize,
            drafts,
            agreement: whole(record, "agreement", 1..=8)? as usize,
            max_tokens: whole(record, "maxTokens", 1..=8192)?,
            temperature,
        })
    }
}

fn value<'a>(record: &'a Record, name: &str) -> Option<&'a Value> {
    match &record.slot(name)?.kind {
        SlotKind::Constant(value) | SlotKind::Assignable(value) => Some(value),
        SlotKind::Parent(_) | SlotKind::Method(_) | SlotKind::Intent(_) => None,
    }
}

fn text(record: &Record, name: &str) -> Result<String, MindError> {
    match value(record, name) {
        Some(Value::Str(text)) if text.len() <= MAX_TEXT => Ok(text.clone()),
        _ => Err(MindError::BadForge(format!("its slot {name:?} must be a string of at most {MAX_TEXT} bytes"))),
    }
}

fn whole(record: &Record, name: &str, allowed: std::ops::RangeInclusive<i64>) -> Result<u32, MindError> {
    match value(record, name) {
        Some(Value::Int(n)) if allowed.contains(n) => Ok(u32::try_from(*n).unwrap_or(u32::MAX)),
        _ => {
            let (least, most) = allowed.into_inner();
            Err(MindError::BadForge(format!("its slot {name:?} must be an integer from {least} to {most}")))
        }
    }
}

fn number(record: &Record, name: &str) -> Result<f64, MindError> {
    match value(record, name) {
        Some(Value::Float(x)) => Ok(*x),
        Some(Value::Int(n)) => Ok(*n as f64),
        _ => Err(MindError::BadForge(format!("its slot {name:?} must be a number"))),
    }
}
