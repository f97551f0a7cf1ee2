//! The prompts and policies that live in the graph, as slots of the image's organs, and are versioned like code.

use std::sync::Arc;

use batos_graph::{ObjectId, Record, Rev, SlotKind, Value};
use batos_uvm::{
    image::{ATOMIC_SWAP, CODEX, CRUCIBLE, SCRIBE, TOOL_FORGE, WEAVER},
    universe::{Universe, View},
};
use serde::{Deserialize, Serialize};

use crate::{BecomingError, MindError};

/// What minds are told, and how they are asked: `toolForge`, `codex` and `weaver` as they were at the time of a draft.
#[derive(Debug, Clone, PartialEq)]
pub struct Forge {
    /// Of `toolForge`.
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
    /// Who makes methods, makes them anew, and says outcomes, when it is not the mind's own model.
    pub makes: Option<String>,
    pub repairs: Option<String>,
    pub says: Option<String>,
}

/// How drafts are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crucible {
    /// Messages without an example that a draft is tried on.
    pub probes: usize,
    pub laws: bool,
}

/// What is kept of how methods came to be, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scribe {
    /// Of a prompt and of a refused draft.
    pub prompt: usize,
    /// Of all answers of a becoming.
    pub answers: usize,
}

/// Longest prompt slot, in bytes.
const MAX_TEXT: usize = 16 * 1024;
/// Longest name of a model, in bytes.
const MAX_MODEL: usize = 253;

impl Forge {
    pub(crate) async fn read(universe: &Universe) -> Result<Self, BecomingError> {
        let (rev, forge) = organ(universe, TOOL_FORGE).await?;
        let (_, codex) = organ(universe, CODEX).await?;
        let (_, weaver) = organ(universe, WEAVER).await?;
        Ok(Self::of(rev, &forge, &codex, &weaver)?)
    }

    fn of(rev: Rev, record: &Record, codex: &Record, weaver: &Record) -> Result<Self, MindError> {
        let drafts = whole(record, "drafts", 1..=8)?;
        let temperature = number(record, "temperature")?;
        if !(0.0..=2.0).contains(&temperature) || (drafts > 1 && temperature == 0.0) {
            return Err(bad(record, &format!("temperature {temperature} for {drafts} drafts")));
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
            persona_system: text(codex, "personaSystem")?,
            persona_request: text(codex, "personaRequest")?,
            attempts: whole(record, "attempts", 1..=8)? as usize,
            drafts,
            agreement: whole(record, "agreement", 1..=8)? as usize,
            max_tokens: whole(record, "maxTokens", 1..=8192)?,
            temperature,
            makes: model(weaver, "makes")?,
            repairs: model(weaver, "repairs")?,
            says: model(weaver, "says")?,
        })
    }
}

impl Default for Crucible {
    fn default() -> Self {
        Self { probes: 64, laws: true }
    }
}

impl Crucible {
    pub(crate) async fn read(universe: &Universe) -> Result<Self, BecomingError> {
        let (_, record) = organ(universe, CRUCIBLE).await?;
        Ok(Self { probes: whole(&record, "probes", 0..=256)? as usize, laws: truth(&record, "laws")? })
    }
}

impl Scribe {
    pub(crate) async fn read(universe: &Universe) -> Result<Self, BecomingError> {
        let (_, record) = organ(universe, SCRIBE).await?;
        Ok(Self {
            prompt: whole(&record, "promptBytes", 0..=49_152)? as usize,
            answers: whole(&record, "answerBytes", 0..=131_072)? as usize,
        })
    }
}

/// Conflicts with others that one run of a becoming survives.
pub(crate) async fn swap_attempts(universe: &Universe) -> Result<u32, BecomingError> {
    let (_, record) = organ(universe, ATOMIC_SWAP).await?;
    Ok(whole(&record, "attempts", 1..=64)?)
}

async fn organ(universe: &Universe, id: ObjectId) -> Result<(Rev, Arc<Record>), BecomingError> {
    let found = View::new(universe).object(id).await?;
    Ok(found.ok_or_else(|| MindError::BadOrgan(format!("{id} is not in the universe")))?)
}

fn bad(record: &Record, what: &str) -> MindError {
    MindError::BadOrgan(format!("{}: {what}", record.name.as_deref().unwrap_or("an organ")))
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
        _ => Err(bad(record, &format!("its slot {name:?} must be a string of at most {MAX_TEXT} bytes"))),
    }
}

/// A model's name; none when it is empty.
fn model(record: &Record, name: &str) -> Result<Option<String>, MindError> {
    let text = text(record, name)?;
    match text.len() <= MAX_MODEL {
        true => Ok(Some(text).filter(|text| !text.is_empty())),
        false => Err(bad(record, &format!("its slot {name:?} names a model in at most {MAX_MODEL} bytes"))),
    }
}

fn truth(record: &Record, name: &str) -> Result<bool, MindError> {
    match value(record, name) {
        Some(Value::Bool(b)) => Ok(*b),
        _ => Err(bad(record, &format!("its slot {name:?} must be true or false"))),
    }
}

fn whole(record: &Record, name: &str, allowed: std::ops::RangeInclusive<i64>) -> Result<u32, MindError> {
    match value(record, name) {
        Some(Value::Int(n)) if allowed.contains(n) => Ok(u32::try_from(*n).unwrap_or(u32::MAX)),
        _ => {
            let (least, most) = allowed.into_inner();
            Err(bad(record, &format!("its slot {name:?} must be an integer from {least} to {most}")))
        }
    }
}

fn number(record: &Record, name: &str) -> Result<f64, MindError> {
    match value(record, name) {
        Some(Value::Float(x)) => Ok(*x),
        Some(Value::Int(n)) => Ok(*n as f64),
        _ => Err(bad(record, &format!("its slot {name:?} must be a number"))),
    }
}
