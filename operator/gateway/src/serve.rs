//! OpenAI's routes.

use std::{
    convert::Infallible,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use batos_weaver::AdapterId;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, combinators::UnsyncBoxBody};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::{Body, Bytes, Incoming},
    header,
};
use serde_json::{Map, Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    answer::{Answer, Answered, first},
    desk::{Desk, Ticket},
    failure::Failure,
    tokens::Tokens,
};

/// Longest body of a request, in bytes: contexts of 8 GB cards are shorter than this by far.
const LONGEST: usize = 8 << 20;
/// A body of this many bytes takes one permit of the memory.
const PERMIT: usize = 1 << 10;
/// How long a body may take to come.
const BODY: Duration = Duration::from_secs(60);
/// Headers of an engine's answer that are sent on.
const SENT_ON: [header::HeaderName; 4] =
    [header::CONTENT_TYPE, header::CONTENT_LENGTH, header::CACHE_CONTROL, header::RETRY_AFTER];

pub type Reply = Response<UnsyncBoxBody<Bytes, std::io::Error>>;

pub struct Routes {
    desk: Arc<Desk>,
    /// None: whoever comes may ask.
    tokens: RwLock<Option<Arc<Tokens>>>,
    silence: Duration,
    /// For bodies, in permits.
    memory: Arc<Semaphore>,
    /// Seconds since 1970.
    began: u64,
}

impl Routes {
    /// Routes that nobody may take: without [`Routes::set_tokens`] there is no token.
    pub fn new(desk: Arc<Desk>, silence: Duration, memory_mib: u32) -> Self {
        let permits = (memory_mib as usize).saturating_mul((1 << 20) / PERMIT);
        let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let memory = Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
        let tokens = RwLock::new(Some(Arc::default()));
        Self { desk, tokens, silence, memory, began }
    }

    /// Who may ask from now on; none: whoever comes.
    pub fn set_tokens(&self, tokens: Option<Tokens>) {
        *self.tokens.write().unwrap_or_else(PoisonError::into_inner) = tokens.map(Arc::new);
    }

    pub async fn answer(&self, request: Request<Incoming>) -> Result<Reply, Infallible> {
        let reply = self.route(request).await.unwrap_or_else(|failure| {
            tracing::debug!(%failure, "refused");
            told(&failure)
        });
        Ok(reply)
    }

    async fn route(&self, request: Request<Incoming>) -> Result<Reply, Failure> {
        let path = request.uri().path().to_owned();
        match (request.method(), path.as_str()) {
            (&Method::GET, "/version") => {
                let version = self.desk.version().ok_or(Failure::NoEngine)?;
                Ok(json(StatusCode::OK, &json!({ "version": version })))
            }
            (_, route) if route == "/v1" || route.starts_with("/v1/") => {
                let sender =
                    self.sender(request.headers()).inspect_err(|failure| self.desk.metrics.refused(failure.code()))?;
                self.v1(request, &path, sender.as_deref()).await
            }
            (method, _) => Err(Failure::NoRoute(method.to_string(), shortened(&path))),
        }
    }

    fn sender(&self, headers: &HeaderMap) -> Result<Option<String>, Failure> {
        let Some(tokens) = self.tokens.read().unwrap_or_else(PoisonError::into_inner).clone() else { return Ok(None) };
        let authorization = headers.get(header::AUTHORIZATION).ok_or(Failure::NoToken)?;
        let sender = tokens.sender(Some(authorization.as_bytes())).ok_or(Failure::BadToken)?;
        Ok(Some(sender.to_owned()))
    }

    async fn v1(&self, request: Request<Incoming>, path: &str, sender: Option<&str>) -> Result<Reply, Failure> {
        match (request.method(), path) {
            (&Method::POST, "/v1/chat/completions" | "/v1/completions") => self.generate(request, path, sender).await,
            (&Method::GET, "/v1/models") => {
                Ok(json(StatusCode::OK, &json!({ "object": "list", "data": self.cards() })))
            }
            (&Method::GET, _) if path.starts_with("/v1/models/") => {
                let name = path.trim_start_matches("/v1/models/");
                let card = self.cards().into_iter().find(|card| card.get("id").is_some_and(|id| id == name));
                Ok(json(StatusCode::OK, &card.ok_or_else(|| Failure::NoModel(shortened(name)))?))
            }
            (_, "/v1/chat/completions" | "/v1/completions" | "/v1/models") => Err(Failure::NoMethod(path.to_owned())),
            (method, _) => Err(Failure::NoRoute(method.to_string(), shortened(path))),
        }
    }

    /// As vLLM tells of its models: `root` is what answers for the name.
    fn cards(&self) -> Vec<Value> {
        let base = self.desk.model();
        let card = |id: &str, root: &str, parent: Option<&str>| {
            json!({
                "id": id, "object": "model", "created": self.began, "owned_by": "batos", "root": root, "parent": parent,
            })
        };
        let facets = self.desk.facets();
        let facets = facets.iter().map(|(name, adapter)| card(name, adapter, Some(base)));
        [card(base, base, None)].into_iter().chain(facets).collect()
    }

    async fn generate(&self, request: Request<Incoming>, path: &str, sender: Option<&str>) -> Result<Reply, Failure> {
        let (adapter, asked) =
            self.read(request).await.inspect_err(|failure| self.desk.metrics.refused(failure.code()))?;
        let mut ticket = self.desk.enter(adapter, sender)?;
        let answered = self.ask(&mut ticket, path, &asked).await;
        match answered {
            Ok((pod, parts, first, body)) => Ok(self.reply(ticket, pod, parts, first, body)),
            Err(failure) => {
                ticket.ends(failure.code());
                Err(failure)
            }
        }
    }

    /// Reads a request: which adapter it is for, and what the engines get.
    async fn read(&self, request: Request<Incoming>) -> Result<(AdapterId, Asked), Failure> {
        let told = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let length = told.unwrap_or(LONGEST);
        if length > LONGEST {
            return Err(Failure::TooLarge(LONGEST));
        }
        // Whoever does not tell his length takes as much as anybody may.
        let permits = u32::try_from(length.div_ceil(PERMIT).max(1)).unwrap_or(u32::MAX);
        let memory = self.memory.clone().try_acquire_many_owned(permits).map_err(|_| Failure::Full)?;
        let body = collect(request.into_body()).await?;
        let malformed = |error: serde_json::Error| Failure::Malformed(error.to_string());
        let mut fields: Map<String, Value> = serde_json::from_slice(&body).map_err(malformed)?;
        let Some(Value::String(model)) = fields.get("model") else {
            return Err(Failure::Malformed("model is wanted, the name of a facet".to_owned()));
        };
        let (adapter, name) = self.desk.resolve(model).ok_or_else(|| Failure::NoModel(shortened(model)))?;
        fields.insert("model".to_owned(), Value::String(name.clone()));
        let body = Bytes::from(serde_json::to_vec(&fields).map_err(malformed)?);
        Ok((adapter, Asked { body, name, _memory: memory }))
    }

    /// Asks engines until one begins to answer.
    async fn ask(&self, ticket: &mut Ticket, path: &str, asked: &Asked) -> Result<Begun, Failure> {
        loop {
            let pod = ticket.turn().await?;
            let Some(engine) = self.desk.engine(pod) else {
                // It has gone since.
                ticket.broken(pod);
                continue;
            };
            let begins = async {
                let (parts, mut body) = hyper::Response::from(engine.ask(path, asked.body.clone()).await?).into_parts();
                let first = first(&mut body).await?;
                Ok::<_, reqwest::Error>((pod, parts, first, body))
            };
            match tokio::time::timeout(self.silence, begins).await {
                Ok(Ok(begun)) if !failed(&begun, ticket, &asked.name) => return Ok(begun),
                Ok(Ok((_, parts, ..))) => {
                    tracing::warn!(engine = engine.url(), status = parts.status.as_u16(), "the engine fails");
                }
                Ok(Err(error)) => tracing::warn!(engine = engine.url(), %error, "the engine fails"),
                // What takes so long would take as long elsewhere.
                Err(_) => {
                    ticket.suspect(pod);
                    return Err(Failure::Silent(self.silence));
                }
            }
            ticket.broken(pod);
        }
    }

    fn reply(&self, ticket: Ticket, pod: u32, parts: Parts, first: Option<Bytes>, body: reqwest::Body) -> Reply {
        let kind = parts.headers.get(header::CONTENT_TYPE).map(|kind| kind.as_bytes());
        let events = kind.is_some_and(|kind| kind.starts_with(b"text/event-stream"));
        let answered = Answered { events, ok: parts.status.is_success(), silence: self.silence };
        let answer = Answer::new(first, body, ticket, pod, answered);
        let mut reply = Response::new(answer.boxed_unsync());
        *reply.status_mut() = parts.status;
        for name in SENT_ON {
            if let Some(value) = parts.headers.get(&name) {
                reply.headers_mut().insert(name, value.clone());
            }
        }
        reply
    }
}

type Parts = hyper::http::response::Parts;
/// Pod, head, first piece and the rest of an answer.
type Begun = (u32, Parts, Option<Bytes>, reqwest::Body);

/// A request as the engines get it.
struct Asked {
    body: Bytes,
    /// Of the adapter, at the engines.
    name: String,
    /// Held until the answer has begun: then nobody sends the body again.
    _memory: OwnedSemaphorePermit,
}

/// What vLLM tells of each request that it had when its engine died: as an answer, or as a stream's first event.
const DEAD: &str = "EngineCore encountered an issue";

/// Whether another pod should be asked: an engine that dies, or starts, or has started anew without the adapter.
fn failed((_, parts, first, _): &Begun, ticket: &Ticket, name: &str) -> bool {
    let text = first.as_deref().unwrap_or_default();
    let says = |words: &str| text.windows(words.len()).any(|window| window == words.as_bytes());
    match parts.status {
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => true,
        StatusCode::NOT_FOUND => ticket.is_for_adapter() && says(name),
        StatusCode::INTERNAL_SERVER_ERROR => says(DEAD),
        StatusCode::OK => text.starts_with(b"data: {\"error\"") && says(DEAD),
        _ => false,
    }
}

async fn collect(body: Incoming) -> Result<Bytes, Failure> {
    if body.is_end_stream() {
        return Err(Failure::Malformed("it is empty".to_owned()));
    }
    let collected = tokio::time::timeout(BODY, Limited::new(body, LONGEST).collect()).await;
    match collected.map_err(|_| Failure::SlowBody)? {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Failure::TooLarge(LONGEST)),
        Err(error) => Err(Failure::Malformed(error.to_string())),
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(100).collect()
}

fn json(status: StatusCode, body: &Value) -> Reply {
    let bytes = Full::new(Bytes::from(body.to_string())).map_err(|never: Infallible| match never {});
    let mut reply = Response::new(bytes.boxed_unsync());
    *reply.status_mut() = status;
    reply.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    reply
}

fn told(failure: &Failure) -> Reply {
    let mut reply = json(failure.status(), &failure.body());
    if let Some(after) = failure.retry_after() {
        let seconds = after.as_millis().div_ceil(1_000).max(1);
        let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
        reply.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from(seconds));
    }
    if failure.status() == StatusCode::UNAUTHORIZED {
        reply.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
    }
    reply
}
