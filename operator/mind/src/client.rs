//! A client of servers that speak OpenAI's protocol.
//!
//! A call ends in time: one deadline holds for its wait, its tries and its answer. Dropping it cancels it, and the
//! server with it, because its connection closes. Answers are bounded. Tried again is only what has no answer yet, or
//! what the server says it could not do now; a request has no effect but its cost.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use reqwest::{Response, StatusCode, header};
use serde::Deserialize;
use tokio::{
    sync::{OnceCell, Semaphore},
    time::Instant,
};

use crate::{
    ApiKey,
    openai::{Collector, ModelAnswer, ModelRequest, Usage, message_in},
    retry::backoff,
    sse::Decoder,
};

const CONNECT: Duration = Duration::from_secs(10);
/// For the question which server it is.
const VERSION: Duration = Duration::from_secs(10);
/// Longest text of a server's that an error repeats, in characters.
const MAX_MESSAGE: usize = 500;
/// A token's text has fewer bytes than this on the average, whatever the script.
const BYTES_PER_TOKEN: usize = 32;
/// Around each token of a stream there may be so many bytes of JSON.
const BYTES_PER_EVENT: usize = 2048;

/// Where a model is and how it may be asked.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// What `/chat/completions` follows: `http://vllm:8000/v1`.
    pub url: String,
    pub model: String,
    pub key: Option<ApiKey>,
    /// For a call with all its tries.
    pub timeout: Duration,
    /// Longest silence in an answer that has begun.
    pub idle_timeout: Duration,
    /// Calls at once; others wait.
    pub max_concurrency: usize,
    /// Tries of a call, at least 1.
    pub tries: u32,
}

impl Endpoint {
    /// With the usual limits.
    pub fn new(url: &str, model: &str) -> Self {
        Self {
            url: url.to_owned(),
            model: model.to_owned(),
            key: None,
            timeout: Duration::from_secs(120),
            idle_timeout: Duration::from_secs(30),
            max_concurrency: 4,
            tries: 4,
        }
    }
}

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ClientError {
    /// The endpoint cannot be used as it is written down.
    #[error("{0}")]
    BadEndpoint(String),
    /// There was no connection, or it broke; `sent` when the server had the request by then.
    #[error("the model's server cannot be reached: {reason}")]
    Unreachable { reason: String, sent: bool },
    #[error("the model's server answered {status}: {message}")]
    Refused { status: u16, message: String },
    #[error("the model's server wants fewer requests{}", after(*.retry_after))]
    RateLimited { retry_after: Option<Duration> },
    #[error("no answer of the model in {0:?}")]
    TimedOut(Duration),
    /// The answer ended at its limit of tokens.
    #[error("the model's answer was cut off at its limit of tokens")]
    Truncated { usage: Usage },
    #[error("the model's server sent what is no answer: {0}")]
    Malformed(String),
}

fn after(wait: Option<Duration>) -> String {
    wait.map(|wait| format!(", again in {} s", wait.as_secs())).unwrap_or_default()
}

impl ClientError {
    /// Whether the same request may well succeed, and has not been answered.
    fn may_be_tried_again(&self) -> bool {
        match self {
            Self::Unreachable { sent, .. } => !sent,
            Self::Refused { status, .. } => matches!(status, 408 | 500 | 502 | 503 | 504),
            Self::RateLimited { .. } => true,
            Self::BadEndpoint(_) | Self::TimedOut(_) | Self::Truncated { .. } | Self::Malformed(_) => false,
        }
    }
}

/// What a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Server {
    /// With its version.
    Vllm(String),
    Other,
}

/// What a client has used so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// Requests that were sent, tries included.
    pub requests: u64,
    pub usage: Usage,
}

/// Cheap to clone; clones share connections, limits and accounts.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    http: reqwest::Client,
    endpoint: Endpoint,
    turns: Semaphore,
    server: OnceCell<Server>,
    /// The server takes no grammars, though it should.
    without_grammar: AtomicBool,
    spent: Mutex<Spent>,
}

impl Client {
    pub fn new(mut endpoint: Endpoint) -> Result<Self, ClientError> {
        check_url(&endpoint.url).map_err(ClientError::BadEndpoint)?;
        endpoint.url = endpoint.url.trim_end_matches('/').to_owned();
        // Whoever comes first installs it; another of the process does as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| ClientError::BadEndpoint(format!("HTTP client: {error}")))?;
        let turns = Semaphore::new(endpoint.max_concurrency.clamp(1, Semaphore::MAX_PERMITS));
        let (server, without_grammar, spent) = (OnceCell::new(), AtomicBool::new(false), Mutex::default());
        Ok(Self { inner: Arc::new(Inner { http, endpoint, turns, server, without_grammar, spent }) })
    }

    pub fn endpoint(&self) -> &Endpoint {
        &self.inner.endpoint
    }

    pub fn spent(&self) -> Spent {
        *self.inner.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a whole answer at once.
    pub async fn ask(&self, request: &ModelRequest) -> Result<ModelAnswer, ClientError> {
        self.call(request, None).await
    }

    /// Asks for an answer as it is made: `heard` gets each piece of text, of all choices. A server that falls silent
    /// is noticed early.
    pub async fn stream(
        &self,
        request: &ModelRequest,
        mut heard: impl FnMut(&str) + Send,
    ) -> Result<ModelAnswer, ClientError> {
        self.call(request, Some(&mut heard)).await
    }

    /// What the server is. It is asked once.
    pub async fn server(&self) -> Result<&Server, ClientError> {
        self.inner.server.get_or_try_init(|| self.inner.ask_version()).await
    }

    async fn call(&self, request: &ModelRequest, heard: Heard<'_>) -> Result<ModelAnswer, ClientError> {
        let timeout = self.inner.endpoint.timeout;
        let deadline = Instant::now() + timeout;
        let call = self.tries(request, heard, deadline);
        let answer = tokio::time::timeout_at(deadline, call).await.unwrap_or(Err(ClientError::TimedOut(timeout)));
        match &answer {
            Ok(ModelAnswer { usage, .. }) | Err(ClientError::Truncated { usage }) => {
                self.inner.account(|spent| spent.usage.add(*usage));
            }
            Err(_) => {}
        }
        answer
    }

    async fn tries(
        &self,
        request: &ModelRequest,
        mut heard: Heard<'_>,
        deadline: Instant,
    ) -> Result<ModelAnswer, ClientError> {
        let Ok(_turn) = self.inner.turns.acquire().await else { return Err(ClientError::TimedOut(Duration::ZERO)) };
        let mut tried = 0;
        loop {
            tried += 1;
            let error = match self.inner.once(self, request, reborrow(&mut heard)).await {
                Err(error) if error.may_be_tried_again() && tried < self.inner.endpoint.tries => error,
                Err(ClientError::Refused { status: 400, message }) if self.gives_up_grammar(request, &message) => {
                    continue;
                }
                ended => return ended,
            };
            let wait = match error {
                ClientError::RateLimited { retry_after: Some(wait) } => wait,
                _ => backoff(tried),
            };
            if Instant::now() + wait >= deadline {
                return Err(error);
            }
            tracing::warn!(%error, ?wait, "asking the model again");
            tokio::time::sleep(wait).await;
        }
    }

    /// Whether the request shall be repeated without its grammar: a server may be set up with an engine that has none.
    fn gives_up_grammar(&self, request: &ModelRequest, message: &str) -> bool {
        let about_grammar = request.grammar.is_some() && message.to_lowercase().contains("grammar");
        let first = about_grammar && !self.inner.without_grammar.swap(true, Ordering::Relaxed);
        if first {
            tracing::warn!(message, "the model's server takes no grammar; answers are checked all the same");
        }
        first
    }
}

/// Who listens to a stream; nobody when the whole answer is wanted at once.
type Heard<'a> = Option<&'a mut (dyn FnMut(&str) + Send)>;

fn reborrow<'a>(heard: &'a mut Heard<'_>) -> Heard<'a> {
    match heard {
        Some(heard) => Some(&mut **heard),
        None => None,
    }
}

impl Inner {
    fn account(&self, change: impl FnOnce(&mut Spent)) {
        change(&mut self.spent.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn request(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.endpoint.key {
            Some(key) => request.bearer_auth(key.expose()),
            None => request,
        }
    }

    /// One try.
    async fn once(
        &self,
        client: &Client,
        request: &ModelRequest,
        heard: Heard<'_>,
    ) -> Result<ModelAnswer, ClientError> {
        let with_grammar = request.grammar.is_some()
            && !self.without_grammar.load(Ordering::Relaxed)
            && matches!(client.server().await?, Server::Vllm(_));
        let body = request.body(request.model.as_ref().unwrap_or(&self.endpoint.model), heard.is_some(), with_grammar);
        let url = format!("{}/{}", self.endpoint.url, request.route());
        self.account(|spent| spent.requests += 1);
        let response = self.request(self.http.post(url)).json(&body).send().await;
        let response = response.map_err(|error| self.unreachable(&error, !error.is_connect()))?;
        let response = self.accepted(response).await?;
        let tokens = (request.max_tokens as usize).saturating_mul(request.choices as usize).saturating_add(16);
        let collector = Collector::new(request.choices, tokens.saturating_mul(BYTES_PER_TOKEN));
        let most = tokens.saturating_mul(BYTES_PER_EVENT);
        match heard {
            Some(heard) => self.streamed(response, collector, most, heard).await,
            None => self.whole(response, collector, most).await,
        }
    }

    /// The response, when its status says that an answer follows.
    async fn accepted(&self, response: Response) -> Result<Response, ClientError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        if status == StatusCode::TOO_MANY_REQUESTS {
            let header = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
            // A date is taken for no time at all: only seconds are read.
            let retry_after = header.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
            return Err(ClientError::RateLimited { retry_after });
        }
        let body = self.body(response, 64 * 1024).await.unwrap_or_default();
        Err(self.shown(ClientError::Refused { status: status.as_u16(), message: message_in(&body) }))
    }

    async fn whole(
        &self,
        response: Response,
        mut collector: Collector,
        most: usize,
    ) -> Result<ModelAnswer, ClientError> {
        let body = self.body(response, most).await?;
        collector.add(&body).map_err(|error| self.shown(error))?;
        collector.finish()
    }

    async fn streamed(
        &self,
        mut response: Response,
        mut collector: Collector,
        most: usize,
        heard: &mut (dyn FnMut(&str) + Send),
    ) -> Result<ModelAnswer, ClientError> {
        let mut decoder = Decoder::default();
        let (mut left, mut begun) = (most, false);
        while let Some(piece) = self.piece(&mut response, &mut left).await? {
            for event in decoder.feed(&piece).map_err(ClientError::Malformed)? {
                if event == "[DONE]" {
                    return collector.finish();
                }
                let text = match collector.add(&event) {
                    Ok(text) => text,
                    // The engine died while it answered: what was heard cannot be unheard, so this is not tried again.
                    Err(error @ ClientError::Refused { .. }) if begun => {
                        let reason = format!("the answer broke off: {}", self.shown(error));
                        return Err(ClientError::Unreachable { reason, sent: true });
                    }
                    // vLLM begins a stream before it looks at the grammar: this is what it would have answered at once.
                    Err(error) => return Err(self.shown(error)),
                };
                if !text.is_empty() {
                    begun = true;
                    heard(&text);
                }
            }
        }
        Err(ClientError::Unreachable { reason: "the answer broke off".to_owned(), sent: true })
    }

    async fn body(&self, mut response: Response, most: usize) -> Result<String, ClientError> {
        let (mut body, mut left) = (Vec::new(), most);
        while let Some(piece) = self.piece(&mut response, &mut left).await? {
            body.extend_from_slice(&piece);
        }
        String::from_utf8(body).map_err(|_| ClientError::Malformed("no UTF-8".to_owned()))
    }

    /// The next bytes, not later than the idle time-out and not more than are left.
    async fn piece(&self, response: &mut Response, left: &mut usize) -> Result<Option<Vec<u8>>, ClientError> {
        let idle = self.endpoint.idle_timeout;
        let piece = tokio::time::timeout(idle, response.chunk()).await.map_err(|_| ClientError::TimedOut(idle))?;
        let Some(piece) = piece.map_err(|error| self.unreachable(&error, true))? else { return Ok(None) };
        match left.checked_sub(piece.len()) {
            Some(rest) => *left = rest,
            None => return Err(ClientError::Malformed("the answer is longer than its tokens allow".to_owned())),
        }
        Ok(Some(piece.to_vec()))
    }

    async fn ask_version(&self) -> Result<Server, ClientError> {
        #[derive(Deserialize)]
        struct Version {
            version: String,
        }
        let root = self.endpoint.url.strip_suffix("/v1").unwrap_or(&self.endpoint.url);
        let request = self.request(self.http.get(format!("{root}/version"))).timeout(VERSION);
        let response = request.send().await.map_err(|error| self.unreachable(&error, false))?;
        let server = match response.status() {
            StatusCode::OK => match self.body(response, 4096).await {
                Ok(body) => serde_json::from_str(&body).map_or(Server::Other, |v: Version| Server::Vllm(v.version)),
                Err(_) => Server::Other,
            },
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                let message = "it does not say its version".to_owned();
                return Err(ClientError::Refused { status: status.as_u16(), message });
            }
            _ => Server::Other,
        };
        tracing::info!(url = self.endpoint.url, ?server, "the model's server");
        Ok(server)
    }

    fn unreachable(&self, error: &reqwest::Error, sent: bool) -> ClientError {
        // The innermost cause names what is wrong.
        let mut cause: &dyn std::error::Error = error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        let reason = if error.is_timeout() { "no answer in time".to_owned() } else { cause.to_string() };
        ClientError::Unreachable { reason, sent }
    }

    /// An error with a server's words, as it may be shown.
    fn shown(&self, error: ClientError) -> ClientError {
        let ClientError::Refused { status, message } = error else { return error };
        let message = self.endpoint.key.as_ref().map_or(message.clone(), |key| key.strike(&message));
        ClientError::Refused { status, message: message.chars().take(MAX_MESSAGE).collect() }
    }
}

fn check_url(url: &str) -> Result<(), String> {
    let bad = |why: &str| Err(format!("{why}: a model's server is http://HOST:PORT/v1 or https://…"));
    let Ok(parsed) = reqwest::Url::parse(url) else { return bad("no URL") };
    if !matches!(parsed.scheme(), "http" | "https") || parsed.host_str().is_none() {
        return bad("no URL of a server");
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return bad("a key or password belongs into a file, not into the URL");
    }
    if parsed.query().is_some() || parsed.fragment().is_some() {
        return bad("the URL has a query or a fragment");
    }
    Ok(())
}
