//! What goes over the wire to an OpenAI-compatible server, and how its answers are put together.
//! <https://platform.openai.com/docs/api-reference/chat>, <https://docs.vllm.ai/en/latest/features/structured_outputs.html>

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::ClientError;

/// One message of a chat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChatMessage {
    pub role: &'static str,
    pub content: String,
}

/// What a model is to go on with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// `/chat/completions`
    Chat(Vec<ChatMessage>),
    /// `/completions`
    Text(String),
}

#[derive(Debug, Clone, PartialEq)]
pub struct ModelRequest {
    pub input: Input,
    /// Answers to one request.
    pub choices: u32,
    /// Tokens of one answer.
    pub max_tokens: u32,
    pub temperature: f64,
    /// Of the server's sampling, where it has one: the same request then gets the same answer.
    pub seed: Option<u32>,
    /// What an answer must be a sentence of, as EBNF. Only vLLM is told.
    pub grammar: Option<String>,
    /// Another model of the same server than the endpoint's.
    pub model: Option<String>,
}

/// Tokens as the server counts them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    #[serde(default)]
    pub prompt_tokens: u64,
    #[serde(default)]
    pub completion_tokens: u64,
}

impl Usage {
    pub(crate) fn add(&mut self, other: Self) {
        self.prompt_tokens = self.prompt_tokens.saturating_add(other.prompt_tokens);
        self.completion_tokens = self.completion_tokens.saturating_add(other.completion_tokens);
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelAnswer {
    /// The finished answers, in the server's order. There is at least one.
    pub texts: Vec<String>,
    /// Nothing when the server does not say.
    pub usage: Usage,
}

impl ModelRequest {
    pub(crate) fn route(&self) -> &'static str {
        match self.input {
            Input::Chat(_) => "chat/completions",
            Input::Text(_) => "completions",
        }
    }

    pub(crate) fn body(&self, model: &str, streamed: bool, with_grammar: bool) -> Value {
        let mut body = json!({
            "model": model, "n": self.choices, "max_tokens": self.max_tokens, "temperature": self.temperature,
            "stream": streamed,
        });
        let Some(fields) = body.as_object_mut() else { return body };
        match &self.input {
            Input::Chat(messages) => fields.insert("messages".to_owned(), json!(messages)),
            Input::Text(prompt) => fields.insert("prompt".to_owned(), json!(prompt)),
        };
        if streamed {
            fields.insert("stream_options".to_owned(), json!({ "include_usage": true }));
        }
        if let Some(seed) = self.seed {
            fields.insert("seed".to_owned(), json!(seed));
        }
        if let Some(grammar) = self.grammar.as_ref().filter(|_| with_grammar) {
            fields.insert("structured_outputs".to_owned(), json!({ "grammar": grammar }));
        }
        body
    }
}

/// A whole answer, or one event of a stream: they differ in where the text stands.
#[derive(Deserialize)]
struct Part {
    #[serde(default)]
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Option<Usage>,
    #[serde(default)]
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    index: u64,
    #[serde(default, alias = "delta")]
    message: Option<Content>,
    /// Of `/completions`.
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Content {
    #[serde(default)]
    content: Option<String>,
}

/// Collects an answer from its parts.
pub(crate) struct Collector {
    choices: BTreeMap<u64, (String, Option<String>)>,
    usage: Usage,
    most_choices: u64,
    bytes_left: usize,
}

impl Collector {
    /// Of at most so many choices with so many bytes of text together.
    pub(crate) fn new(choices: u32, bytes: usize) -> Self {
        Self { choices: BTreeMap::new(), usage: Usage::default(), most_choices: u64::from(choices), bytes_left: bytes }
    }

    /// Adds a part; answers the text that it brought.
    pub(crate) fn add(&mut self, part: &str) -> Result<String, ClientError> {
        let malformed = |what: String| Err(ClientError::Malformed(what));
        let part: Part = match serde_json::from_str(part) {
            Ok(part) => part,
            Err(error) => return malformed(format!("no answer of a model: {error}")),
        };
        if let Some(error) = part.error {
            return Err(ClientError::Refused { status: status_of(&error), message: message_of(&error) });
        }
        if let Some(usage) = part.usage {
            self.usage = usage;
        }
        let mut news = String::new();
        for choice in part.choices {
            if choice.index >= self.most_choices {
                return malformed(format!("choice {} of {}", choice.index, self.most_choices));
            }
            let text = choice.text.or(choice.message.and_then(|message| message.content)).unwrap_or_default();
            let Some(left) = self.bytes_left.checked_sub(text.len()) else {
                return malformed("the answer is longer than its tokens allow".to_owned());
            };
            self.bytes_left = left;
            let (collected, reason) = self.choices.entry(choice.index).or_default();
            collected.push_str(&text);
            *reason = choice.finish_reason.or(reason.take());
            news.push_str(&text);
        }
        Ok(news)
    }

    /// The answer, once the server has said that it is whole.
    pub(crate) fn finish(self) -> Result<ModelAnswer, ClientError> {
        let (mut texts, mut worst) = (Vec::new(), None);
        for (text, reason) in self.choices.into_values() {
            match reason.as_deref() {
                Some("stop") => texts.push(text),
                Some("length") => worst = Some(ClientError::Truncated { usage: self.usage }),
                Some(other) => {
                    let error = ClientError::Malformed(format!("the model stopped for {other:?}"));
                    worst = worst.or(Some(error));
                }
                None => {
                    let error = ClientError::Malformed("the server does not say why the answer ends".to_owned());
                    worst = worst.or(Some(error));
                }
            }
        }
        match (texts.is_empty(), worst) {
            (false, _) => Ok(ModelAnswer { texts, usage: self.usage }),
            (true, Some(error)) => Err(error),
            (true, None) => Err(ClientError::Malformed("an answer without choices".to_owned())),
        }
    }
}

/// What an error body says, in OpenAI's shape, FastAPI's, or any.
pub(crate) fn message_in(body: &str) -> String {
    match serde_json::from_str::<Value>(body) {
        Ok(json) => match json.get("error").or_else(|| json.get("detail")) {
            Some(error) => message_of(error),
            None => body.to_owned(),
        },
        Err(_) => body.to_owned(),
    }
}

fn message_of(error: &Value) -> String {
    let message = error.get("message").unwrap_or(error);
    message.as_str().map_or_else(|| message.to_string(), str::to_owned)
}

/// vLLM gives the status that the answer would have had, had it not begun already.
fn status_of(error: &Value) -> u16 {
    error.get("code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok()).unwrap_or(500)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collected(choices: u32, parts: &[&str]) -> Result<ModelAnswer, ClientError> {
        let mut collector = Collector::new(choices, 64);
        for part in parts {
            collector.add(part)?;
        }
        collector.finish()
    }

    #[test]
    fn parts_make_one_answer_for_each_choice() {
        let answer = collected(
            2,
            &[
                r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#,
                r#"{"choices":[{"index":1,"delta":{"content":"B"},"finish_reason":"stop"}]}"#,
                r#"{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}],"usage":null}"#,
                r#"{"choices":[{"index":0,"delta":{"reasoning_content":"hm","content":null},"finish_reason":"stop"}]}"#,
                r#"{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}}"#,
            ],
        );
        let usage = Usage { prompt_tokens: 5, completion_tokens: 2 };
        assert_eq!(answer, Ok(ModelAnswer { texts: vec!["a".to_owned(), "B".to_owned()], usage }));
        let whole = collected(1, &[r#"{"choices":[{"index":0,"text":"t","finish_reason":"stop"}]}"#]);
        assert_eq!(whole.map(|answer| answer.texts), Ok(vec!["t".to_owned()]));
    }

    #[test]
    fn an_answer_that_is_not_whole_is_none() {
        let cut = r#"{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"length"}]}"#;
        assert!(matches!(collected(1, &[cut]), Err(ClientError::Truncated { .. })));
        for parts in [
            &[r#"{"choices":[{"index":0,"delta":{"content":"a"}}]}"#][..],
            &[r#"{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"content_filter"}]}"#],
            &[r#"{"choices":[{"index":7,"delta":{"content":"a"},"finish_reason":"stop"}]}"#],
            &[r#"{"choices":[]}"#],
            &[r#"{}"#],
            &["[1"],
            &[
                r#"{"choices":[{"index":0,"text":"0123456789012345678901234567890123456789012345678901234567890123456789"}]}"#,
            ],
        ] {
            assert!(matches!(collected(1, parts), Err(ClientError::Malformed(_))), "{parts:?}");
        }
        let error = collected(1, &[r#"{"error":{"message":"engine died","code":503}}"#]);
        assert_eq!(error, Err(ClientError::Refused { status: 503, message: "engine died".to_owned() }));
    }
}
