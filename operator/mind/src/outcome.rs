//! Intents of which a model says the outcome each time: it is asked outside any turn, what it says is held against the
//! declared shape, and the turn runs again with it.

use batos_covenant::{Encoding, OutcomeDefinition, Shape, Wire, decode, encode};
use batos_graph::{Intent, ObjectId, SlotKind, StoreError};
use batos_uvm::{
    universe::{Changes, Outcome as Supplied, Unanswered, UniverseError, View, now},
    vm::Question,
};
use serde::{Deserialize, Serialize};

use crate::{BecomingError, ClientError, Forge, Job, Mind, MindError, Prompt, Trigger, Usage, budget, draft::usage_of};

/// What came of asking.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// For the turn that asked.
    Answer(Supplied),
    /// No answer had the shape; why the last one did not.
    Refused(String),
}

/// Published on `….evt.<object>.outcome` when a model has been asked. It has no values: they may be private.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutcomeEvent {
    /// Id of the receiver.
    pub object: String,
    pub selector: String,
    pub mind: String,
    /// Digest of the last request.
    pub request: String,
    pub model_calls: u32,
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    /// Why there is no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

impl Mind {
    /// Asks for the outcome of an intent. `scope` names the message: the same message hears the same answer, whatever
    /// dies meanwhile.
    pub async fn outcome(
        &self,
        missing: &Unanswered,
        question: &Question,
        scope: Option<&[u8]>,
    ) -> Result<Said, BecomingError> {
        let gone = || UniverseError::Internal(format!("{:?} is no intent any more", missing.selector));
        let holder = missing.intent.ok_or_else(gone)?;
        let found = View::new(&self.universe).object(holder).await?;
        let slot = found.and_then(|(_, record)| record.slot(&missing.selector).map(|slot| slot.kind.clone()));
        let Some(SlotKind::Intent(intent)) = slot else { return Err(gone().into()) };
        let outcome: OutcomeDefinition = serde_json::from_str(intent.outcome.as_deref().unwrap_or_default())
            .map_err(|e| UniverseError::Internal(format!("outcome of {:?}: {e}", missing.selector)))?;
        // Another intent asks another question.
        let mut asked = blake3::Hasher::new();
        asked.update(&question.key).update(intent.text.as_bytes()).update(&[0]);
        asked.update(intent.outcome.as_deref().unwrap_or_default().as_bytes());
        let asked = *asked.finalize().as_bytes();
        let mut keys = Vec::new();
        keys.extend(scope.map(|scope| place(&asked, "message", scope)));
        // A window of time, so that what is old needs no deletion.
        let window = outcome.cache_seconds.map(|seconds| now() / 1000 / seconds.max(1));
        keys.extend(window.map(|window| place(&asked, "cache", &window.to_be_bytes())));
        let alone = match keys.last() {
            Some(key) => ObjectId(*key),
            None => ObjectId::of_name(&format!("question {:?}", self.universe.fresh_marker()?)),
        };
        self.alone(alone, async {
            for key in &keys {
                if let Some(bytes) = self.universe.recall(holder, *key).await? {
                    let (value, _): (Wire, _) = decode(&bytes).map_err(|e| UniverseError::Internal(e.to_string()))?;
                    return Ok(Said::Answer((question.key, value)));
                }
            }
            let said = self.rounds(missing, question, &intent, &outcome.answers).await?;
            let (value, event) = match said {
                Ok((value, event)) => (value, event),
                Err((reason, event)) => {
                    self.tell(missing, alone, event, Vec::new()).await?;
                    let what = self.in_vain(Job::asked(holder, missing), Trigger::Outcome).await?;
                    return Ok(Said::Refused(format!("{reason}; {what}")));
                }
            };
            let value = outcome.answers.values(&value);
            let bytes = encode(&value, Encoding::MessagePack).map_err(|e| UniverseError::Internal(e.to_string()))?;
            let rows =
                keys.iter().map(|key| self.universe.kept(holder, *key, bytes.clone())).collect::<Result<_, _>>()?;
            match self.tell(missing, alone, event, rows).await {
                // Another worker was first: all hear its answer.
                Err(UniverseError::Store(StoreError::Conflict(_))) => {}
                other => {
                    other?;
                    return Ok(Said::Answer((question.key, value)));
                }
            }
            for key in &keys {
                if let Some(bytes) = self.universe.recall(holder, *key).await? {
                    let (value, _): (Wire, _) = decode(&bytes).map_err(|e| UniverseError::Internal(e.to_string()))?;
                    return Ok(Said::Answer((question.key, value)));
                }
            }
            Ok(Said::Answer((question.key, value)))
        })
        .await
    }

    /// As many rounds as a becoming has; what was wrong is told.
    async fn rounds(
        &self,
        missing: &Unanswered,
        question: &Question,
        intent: &Intent,
        shape: &Shape,
    ) -> Result<Result<(Wire, OutcomeEvent), (String, OutcomeEvent)>, BecomingError> {
        let forge = Forge::read(&self.universe).await?;
        let mut event = OutcomeEvent {
            object: missing.receiver.to_string(),
            selector: missing.selector.clone(),
            mind: String::new(),
            request: String::new(),
            model_calls: 0,
            prompt_tokens: 0,
            completion_tokens: 0,
            refused: None,
        };
        let mut refused: Vec<String> = Vec::new();
        while refused.len() < forge.attempts {
            let prompt = Prompt::outcome(&forge, &missing.selector, &told(question, intent, shape, &refused));
            event.request = prompt.digest();
            budget::allow(&self.universe, &self.policy.budget).await?;
            let asked = self.drafter.draft(&prompt).await;
            budget::pay(&self.universe, usage_of(&asked)).await?;
            let (text, usage) = match asked {
                Ok(answer) => {
                    event.mind = answer.mind;
                    (Ok(answer.texts.into_iter().next().unwrap_or_default()), answer.usage)
                }
                Err(MindError::Client(ClientError::Truncated { usage })) => {
                    (Err(format!("it was cut off at the limit of {} tokens", prompt.max_tokens)), usage)
                }
                // The recording ends with the last answer, which did not fit.
                Err(MindError::NotRecorded { .. }) if !refused.is_empty() => break,
                Err(error) => return Err(error.into()),
            };
            event.model_calls += 1;
            let Usage { prompt_tokens, completion_tokens } = usage;
            event.prompt_tokens += prompt_tokens;
            event.completion_tokens += completion_tokens;
            match text.and_then(|text| value(&text, shape)) {
                Ok(value) => return Ok(Ok((value, event))),
                Err(reason) => refused.push(reason),
            }
        }
        let reason = refused.pop().unwrap_or_default();
        event.refused = Some(reason.clone());
        Ok(Err((reason, event)))
    }

    /// The event and the rows that keep the answer, in one commit.
    async fn tell(
        &self,
        missing: &Unanswered,
        id: ObjectId,
        event: OutcomeEvent,
        rows: Vec<(batos_graph::Put, Option<batos_graph::Rev>)>,
    ) -> Result<(), UniverseError> {
        let record = View::new(&self.universe).object(missing.receiver).await?;
        let name = record.and_then(|(_, record)| record.name.clone()).unwrap_or_else(|| missing.receiver.to_string());
        let marker = self.universe.fresh_marker()?;
        // A refusal may come again under one key.
        let subject = ObjectId::of_name(&format!("outcome {id} {marker:?}"));
        let events = vec![self.universe.event_row(subject, 1, name, "outcome", &event)?];
        self.universe.commit(marker, Vec::new(), Changes { rows, events, ..Changes::default() }).await
    }
}

/// Where an answer is kept.
fn place(asked: &[u8; 32], what: &str, scope: &[u8]) -> [u8; 16] {
    let mut key = blake3::Hasher::new();
    key.update(asked).update(what.as_bytes()).update(&[0]).update(scope);
    let mut short = [0; 16];
    short.copy_from_slice(key.finalize().as_bytes().split_at(16).0);
    short
}

fn told(question: &Question, intent: &Intent, shape: &Shape, refused: &[String]) -> Vec<(&'static str, Vec<String>)> {
    let arguments = question.inputs.get("arguments").and_then(Wire::as_array).into_iter().flatten();
    let arguments = arguments.zip(&intent.arguments).map(|(value, name)| format!("{name}: {value}"));
    let own = question.inputs.get("receiver").and_then(Wire::as_object).into_iter().flatten();
    let own = own.map(|(name, value)| format!("{name}: {value}"));
    let examples: Vec<Wire> = serde_json::from_str(&intent.examples).unwrap_or_default();
    vec![
        ("question", vec![intent.text.clone()]),
        ("arguments", arguments.collect()),
        ("slots of the object", own.collect()),
        ("examples", examples.iter().filter(|example| !is_hidden(example)).map(Wire::to_string).collect()),
        ("shape of the answer", vec![serde_json::to_string(shape).unwrap_or_default()]),
        ("why answers before were refused", refused.to_vec()),
    ]
}

fn is_hidden(example: &Wire) -> bool {
    example.get("hidden").is_some_and(|hidden| hidden == true)
}

/// The first value in a model's text that has the shape; else what is wrong with the text.
pub(crate) fn value(text: &str, shape: &Shape) -> Result<Wire, String> {
    // What a model thought aloud is no answer.
    let text = text.rsplit_once("</think>").map_or(text, |(_, answer)| answer).trim();
    let fenced = text.split("```").skip(1).step_by(2).map(|piece| piece.trim().trim_start_matches("json").trim());
    let braced = text.find('{').zip(text.rfind('}')).and_then(|(start, end)| text.get(start..=end));
    let mut wrong = None;
    for candidate in [text].into_iter().chain(fenced).chain(braced) {
        // A word without quotes is a string, if such a string is wanted.
        let bare = Wire::String(candidate.to_owned());
        let read = serde_json::from_str::<Wire>(candidate).ok();
        for value in read.into_iter().chain(shape.allowed.contains(&bare).then_some(bare)) {
            match shape.check(&value) {
                Ok(()) => return Ok(value),
                Err(why) => wrong = wrong.or(Some(why)),
            }
        }
    }
    Err(wrong.unwrap_or_else(|| format!("{:?} is no JSON", text.chars().take(120).collect::<String>())))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_value_is_found_in_whatever_stands_around_it() {
        let mood: Shape = serde_json::from_value(json!({ "type": "string", "enum": ["calm", "angry"] })).unwrap();
        let both: Shape =
            serde_json::from_value(json!({ "type": "record", "fields": { "n": { "type": "integer" } } })).unwrap();
        for (text, shape, wanted) in [
            ("\"calm\"", &mood, Ok(json!("calm"))),
            (" calm\n", &mood, Ok(json!("calm"))),
            ("```json\n\"angry\"\n```", &mood, Ok(json!("angry"))),
            ("<think>\"calm\"</think>\nangry", &mood, Ok(json!("angry"))),
            ("{\"n\": 3}", &both, Ok(json!({ "n": 3 }))),
            ("It is {\"n\": 3}, I think.", &both, Ok(json!({ "n": 3 }))),
            ("glad", &mood, Err("is no JSON")),
            ("\"glad\"", &mood, Err("is none of")),
            ("{\"n\": \"3\"}", &both, Err("field \"n\"")),
            ("", &mood, Err("is no JSON")),
        ] {
            match (value(text, shape), wanted) {
                (Ok(value), Ok(wanted)) => assert_eq!(value, wanted, "{text}"),
                (Err(why), Err(wanted)) => assert!(why.contains(wanted), "{text}: {why}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }
}
