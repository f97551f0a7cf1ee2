//! Chats and completions.

use std::collections::BTreeSet;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt as _;
use futures::stream;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::api::{Malformed, error, parse};
use crate::engine::{Engine, InFlight, Refusal, now};
use crate::log;
use crate::script::{Fault, Script, Step};

/// The fields that vLLM knows and this fake looks at, or may pass over.
const KNOWN: &[&str] = &[
    "model",
    "messages",
    "prompt",
    "n",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "seed",
    "stop",
    "stream",
    "stream_options",
    "structured_outputs",
    "frequency_penalty",
    "presence_penalty",
    "logprobs",
    "user",
];
/// Of constraints, beside `grammar`.
const KINDS: &[&str] = &["json", "regex", "choice", "json_object", "structural_tag"];

#[derive(Deserialize)]
struct Ask {
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    messages: Option<Vec<Message>>,
    #[serde(default)]
    prompt: Option<String>,
    #[serde(default)]
    n: Option<i64>,
    #[serde(default)]
    max_tokens: Option<i64>,
    #[serde(default)]
    max_completion_tokens: Option<i64>,
    #[serde(default)]
    temperature: Option<f64>,
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default)]
    stream_options: Option<StreamOptions>,
    #[serde(default)]
    structured_outputs: Option<Constraint>,
}

#[derive(Deserialize)]
struct Constraint {
    #[serde(default)]
    grammar: Option<String>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: Option<bool>,
}

#[derive(Deserialize)]
struct Message {
    role: String,
    #[serde(default)]
    content: Value,
}

impl Message {
    /// Content is a text, or parts of which some are texts.
    fn text(&self) -> String {
        match &self.content {
            Value::String(text) => text.clone(),
            Value::Array(parts) => parts.iter().filter_map(|part| part.get("text")?.as_str()).collect(),
            _ => String::new(),
        }
    }
}

pub(crate) async fn chat(State(engine): State<Engine>, headers: HeaderMap, body: Bytes) -> Response {
    answer(&engine, "/v1/chat/completions", &headers, &body).await
}

pub(crate) async fn completions(State(engine): State<Engine>, headers: HeaderMap, body: Bytes) -> Response {
    answer(&engine, "/v1/completions", &headers, &body).await
}

async fn answer(engine: &Engine, path: &str, headers: &HeaderMap, body: &[u8]) -> Response {
    let is_chat = path.contains("chat");
    let ask: Ask = match parse(headers, body) {
        Ok(ask) => ask,
        Err(malformed) => return malformed.into_response(),
    };
    let fields: Map<String, Value> = serde_json::from_slice(body).unwrap_or_default();
    let ignored: Vec<String> = fields.keys().filter(|field| !KNOWN.contains(&field.as_str())).cloned().collect();
    if !ignored.is_empty() {
        log(&format!("fields that are ignored: {ignored:?}"));
    }
    engine.script.note(path, body, &ignored, headers);
    let step = engine.script.next();
    if let Some(Step { fault: Some(Fault::Hang), .. }) = step {
        std::future::pending::<()>().await;
    }
    if let Some(Step { fault: Some(Fault::Dead), .. }) = step {
        return late(Refusal::dead(), &ask);
    }
    if let Some(Step { fault: Some(Fault::Status), status, retry_after, message, .. }) = &step {
        return refuse(status.unwrap_or(500), *retry_after, message.as_deref());
    }
    let asked = match (is_chat, &ask.messages, &ask.prompt) {
        (true, Some(messages), _) => messages.iter().map(Message::text).collect::<Vec<_>>(),
        (false, _, Some(prompt)) => vec![prompt.clone()],
        (true, None, _) => return Malformed::missing("messages", body).into_response(),
        (false, _, None) => {
            let message =
                "Either prompt or prompt_embeds must be provided and non-empty. (parameter=prompt)".to_owned();
            return Refusal::BadRequest { message, param: Some("prompt") }.into_response();
        }
    };
    let prompt_tokens = asked.iter().map(|text| words(text)).sum::<usize>();
    if let Err(refusal) = check(&ask, prompt_tokens, engine.limits.max_model_len) {
        return refusal.into_response();
    }
    let model = ask.model.clone().filter(|model| !model.is_empty()).unwrap_or_else(|| engine.base.clone());
    let grammar = ask.structured_outputs.as_ref().and_then(|constraint| constraint.grammar.as_deref());
    if let Some(refusal) = grammar.and_then(|grammar| check_grammar(grammar).err()) {
        return late(refusal, &ask);
    }
    let in_flight = match engine.begin(&model) {
        Ok(guard) => guard,
        Err(refusal) => return refusal.into_response(),
    };
    let user = ask.messages.iter().flatten().rev().find(|message| message.role == "user").map(Message::text);
    let max_tokens = ask.max_completion_tokens.or(ask.max_tokens).and_then(|tokens| usize::try_from(tokens).ok());
    let echo = || {
        let text = format!("{model}: {}", user.or(ask.prompt.clone()).unwrap_or_default());
        let most = max_tokens.unwrap_or(usize::MAX);
        let finish_reason = (words(&text) > most).then(|| "length".to_owned());
        Step { texts: vec![text.split_inclusive(' ').take(most).collect()], finish_reason, ..Step::default() }
    };
    let step = step.unwrap_or_else(echo);
    let choices = usize::try_from(ask.n.unwrap_or(1)).unwrap_or(1);
    let texts: Vec<String> =
        (0..choices).map(|index| step.texts.get(index).or(step.texts.last()).cloned().unwrap_or_default()).collect();
    let completion_tokens = texts.iter().map(|text| words(text)).sum::<usize>();
    let usage = json!({
        "prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    });
    let includes_usage = ask.stream_options.is_some_and(|options| options.include_usage == Some(true));
    let whole = Whole { is_chat, model, texts, usage, includes_usage, step };
    match ask.stream {
        Some(true) => whole.streamed(in_flight, engine.script.clone()),
        _ => whole.at_once(),
    }
}

fn words(text: &str) -> usize {
    text.split_whitespace().count()
}

fn refuse(status: u16, retry_after: Option<u64>, message: Option<&str>) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let kind = if status.is_client_error() { "BadRequestError" } else { "InternalServerError" };
    let mut response = error(status, kind, message.unwrap_or("as the script says"), None);
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

fn check(ask: &Ask, prompt_tokens: usize, max_model_len: u32) -> Result<(), Refusal> {
    let bad = |message: String| Err(Refusal::BadRequest { message, param: None });
    // `value` is what vLLM adds in brackets.
    let bad_field = |field: &'static str, message: &str, value: Option<String>| {
        let value = value.map(|value| format!(", value={value}")).unwrap_or_default();
        Err(Refusal::BadRequest { message: format!("{message} (parameter={field}{value})"), param: Some(field) })
    };
    if ask.messages.as_ref().is_some_and(Vec::is_empty) {
        return bad("Cannot apply chat template to an empty conversation. Provide at least one message.".to_owned());
    }
    let temperature = ask.temperature.unwrap_or(1.0);
    if !(0.0..=2.0).contains(&temperature) {
        let must = if temperature < 0.0 { "non-negative" } else { "in [0, 2]" };
        let message = format!("temperature must be {must}, got {temperature:?}.");
        return bad_field("temperature", &message, Some(format!("{temperature:?}")));
    }
    let n = ask.n.unwrap_or(1);
    if n < 1 {
        return bad(format!("n must be at least 1, got {n}."));
    }
    if temperature < 1e-5 && n > 1 {
        return bad(format!("n must be 1 when using greedy sampling, got {n}."));
    }
    let max_tokens = ask.max_completion_tokens.or(ask.max_tokens);
    if let Some(max_tokens) = max_tokens.filter(|tokens| *tokens < 1) {
        let message = format!("max_tokens must be at least 1, got {max_tokens}.");
        return bad_field("max_tokens", &message, Some(max_tokens.to_string()));
    }
    let most = i64::from(max_model_len);
    if let Some(max_tokens) = max_tokens.filter(|tokens| *tokens > most) {
        let message = format!(
            "max_tokens={max_tokens} cannot be greater than max_model_len={most}. Please request fewer output tokens."
        );
        return bad_field("max_tokens", &message, Some(max_tokens.to_string()));
    }
    let asked = i64::try_from(prompt_tokens).unwrap_or(i64::MAX).saturating_add(max_tokens.unwrap_or(0));
    if asked > most {
        // Tokens beyond the context are not counted.
        let input = most + 1;
        let message = format!(
            "This model's maximum context length is {most} tokens. However, your prompt contains at least {input} input \
             tokens, which exceeds this limit even without any output tokens. Please reduce the length of the input prompt."
        );
        return bad_field("input_tokens", &message, Some(input.to_string()));
    }
    if ask.stream_options.is_some() && ask.stream != Some(true) {
        return bad_field("stream_options", "Stream options can only be defined when `stream=True`.", None);
    }
    let Some(constraint) = &ask.structured_outputs else { return Ok(()) };
    let others =
        KINDS.iter().filter(|kind| constraint.others.get(**kind).is_some_and(|value| !value.is_null())).count();
    let kinds = others + usize::from(constraint.grammar.is_some());
    if kinds > 1 {
        return bad("You can only use one kind of structured outputs constraint but multiple are specified".to_owned());
    }
    if kinds < 1 {
        return bad("You must use one kind of structured outputs constraint but none are specified".to_owned());
    }
    Ok(())
}

fn check_grammar(grammar: &str) -> Result<(), Refusal> {
    let message = match grammar {
        _ if grammar.trim().is_empty() => "structured_outputs.grammar cannot be an empty string",
        _ if !is_grammar(grammar) => "Invalid grammar specification: some rule is none, or missing",
        _ => return Ok(()),
    };
    Err(Refusal::BadRequest { message: message.to_owned(), param: None })
}

/// A refusal by the engine itself: the status of a stream is out by then, so that it stands in place of the first event.
fn late(refusal: Refusal, ask: &Ask) -> Response {
    if ask.stream != Some(true) {
        return refusal.into_response();
    }
    let events = vec![format!("data: {}\n\n", refusal.body()), "data: [DONE]\n\n".to_owned()];
    as_events(sent(events, End::Whole, None))
}

fn as_events(mut response: Response) -> Response {
    let media = HeaderValue::from_static("text/event-stream; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, media);
    response
}

/// Rules `name ::= …`, one a line, a `root` among them, and none that is named but not there.
fn is_grammar(text: &str) -> bool {
    let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    let rules: Option<Vec<(&str, &str)>> = lines.map(|line| line.split_once(" ::= ")).collect();
    let Some(rules) = rules else { return false };
    let defined: BTreeSet<&str> = rules.iter().map(|(name, _)| *name).collect();
    defined.contains("root")
        && rules.iter().all(|(_, right)| {
            names(right).is_some_and(|names| names.iter().all(|name| defined.contains(name.as_str())))
        })
}

/// The rules that a right-hand side names: its words outside of texts and classes, if those end.
fn names(right: &str) -> Option<Vec<String>> {
    let (mut names, mut close) = (vec![String::new()], None);
    let mut chars = right.chars();
    while let Some(c) = chars.next() {
        match close {
            Some(_) if c == '\\' => {
                chars.next();
            }
            Some(end) if c == end => close = None,
            Some(_) => {}
            None if c == '"' => close = Some('"'),
            None if c == '[' => close = Some(']'),
            None if c == '{' => close = Some('}'),
            None if c.is_alphanumeric() || c == '-' || c == '_' => names.last_mut().map_or((), |name| name.push(c)),
            None => names.push(String::new()),
        }
    }
    names.retain(|name| !name.is_empty());
    close.is_none().then_some(names)
}

struct Whole {
    is_chat: bool,
    model: String,
    texts: Vec<String>,
    usage: Value,
    includes_usage: bool,
    step: Step,
}

impl Whole {
    fn finish_reason(&self) -> &str {
        self.step.finish_reason.as_deref().unwrap_or("stop")
    }

    fn envelope(&self, object: &str, choices: Value) -> Value {
        let (object, id) = match self.is_chat {
            true => (format!("chat.completion{object}"), "chatcmpl"),
            false => ("text_completion".to_owned(), "cmpl"),
        };
        json!({
            "id": format!("{id}-{:x}", (now() * 1e6) as u64),
            "object": object, "created": now() as u64, "model": self.model, "choices": choices,
        })
    }

    fn at_once(self) -> Response {
        let choice = |(index, text): (usize, &String)| match self.is_chat {
            true => json!({
                "index": index, "message": { "role": "assistant", "content": text }, "logprobs": null,
                "finish_reason": self.finish_reason(),
            }),
            false => json!({ "index": index, "text": text, "logprobs": null, "finish_reason": self.finish_reason() }),
        };
        let choices = self.texts.iter().enumerate().map(choice).collect();
        let mut body = self.envelope("", choices);
        if let Some(fields) = body.as_object_mut() {
            fields.insert("usage".to_owned(), self.usage.clone());
        }
        let json = body.to_string();
        let half = json.get(..json.len() / 2).unwrap_or_default().to_owned();
        match self.step.fault {
            Some(Fault::Cut) => sent(vec![half], End::Break, None),
            Some(Fault::Stall) => sent(vec![half], End::Silence, None),
            Some(Fault::Garbage) => "<html>no JSON</html>".into_response(),
            Some(Fault::Error) => refuse(500, None, Some("EngineCore encountered an issue.")),
            Some(Fault::Flood) => sent(vec![json], End::Flood("a".repeat(1 << 16)), None),
            _ => Json(body).into_response(),
        }
    }

    /// The events of a stream. A piece is a word.
    fn streamed(self, in_flight: InFlight, script: Script) -> Response {
        let mut events = Vec::new();
        let chunk = |delta: Value| self.envelope(".chunk", delta).to_string();
        for index in 0..self.texts.len() {
            if self.is_chat {
                let delta = json!({ "role": "assistant", "content": "" });
                events
                    .push(chunk(json!([{ "index": index, "delta": delta, "logprobs": null, "finish_reason": null }])));
            }
        }
        for (index, text) in self.texts.iter().enumerate() {
            let pieces: Vec<&str> = text.split_inclusive(' ').collect();
            for (at, piece) in pieces.iter().enumerate() {
                let reason = (at + 1 == pieces.len()).then(|| self.finish_reason());
                events.push(chunk(match self.is_chat {
                    true => json!([{ "index": index, "delta": { "content": piece }, "logprobs": null, "finish_reason": reason }]),
                    false => json!([{ "index": index, "text": piece, "logprobs": null, "finish_reason": reason }]),
                }));
            }
        }
        let half = events.len() / 2;
        let end = match self.step.fault {
            Some(Fault::Cut) => Some(End::Break),
            Some(Fault::Stall) => Some(End::Silence),
            Some(Fault::Flood) => {
                Some(End::Flood(chunk(json!([{ "index": 0, "delta": { "content": "a".repeat(1000) }, "text": null }]))))
            }
            Some(Fault::Garbage) => {
                events.insert(half, "{\"choices\":".to_owned());
                None
            }
            Some(Fault::Error) => {
                events.truncate(half);
                let error = json!({ "message": "EngineCore encountered an issue.", "type": "InternalServerError", "param": null, "code": 500 });
                events.push(json!({ "error": error }).to_string());
                None
            }
            _ => None,
        };
        let mut rest = Vec::new();
        match end {
            Some(_) => events.truncate(half),
            None => {
                if self.includes_usage && self.step.fault.is_none() {
                    let mut last = self.envelope(".chunk", json!([]));
                    if let Some(fields) = last.as_object_mut() {
                        fields.insert("usage".to_owned(), self.usage.clone());
                    }
                    events.push(last.to_string());
                }
                events.push("[DONE]".to_owned());
                if self.step.fault == Some(Fault::Wait) {
                    rest = events.split_off(half);
                }
            }
        }
        let framed = |event: String| format!("data: {event}\n\n");
        let events = events.into_iter().map(framed).collect();
        let end = match end {
            Some(End::Flood(chunk)) => End::Flood(framed(chunk)),
            Some(end) => end,
            None if rest.is_empty() => End::Whole,
            None => End::Wait(script, rest.into_iter().map(framed).collect()),
        };
        as_events(sent(events, end, Some(in_flight)))
    }
}

/// What follows the last piece of a body.
enum End {
    Whole,
    Break,
    Silence,
    Wait(Script, Vec<String>),
    Flood(String),
}

/// A body of these pieces and what follows them; the request is in flight as long as it is sent.
fn sent(begin: Vec<String>, end: End, in_flight: Option<InFlight>) -> Response {
    let pieces = |pieces: Vec<String>| stream::iter(pieces).map(|piece| Ok::<_, std::io::Error>(Bytes::from(piece)));
    let begin = pieces(begin);
    let whole = match end {
        End::Whole => begin.boxed(),
        End::Break => {
            let error = || async { Err(std::io::Error::other("as the script says")) };
            begin.chain(stream::once(error())).boxed()
        }
        End::Silence => begin.chain(stream::pending()).boxed(),
        End::Wait(script, rest) => {
            let rest = stream::once(script.released()).flat_map(move |()| pieces(rest.clone()));
            begin.chain(rest).boxed()
        }
        End::Flood(piece) => {
            let flood = stream::repeat_with(move || Ok(Bytes::from(piece.clone())));
            begin.chain(flood).boxed()
        }
    };
    Response::new(Body::from_stream(whole.map(move |piece| {
        let _ = &in_flight;
        piece
    })))
}
