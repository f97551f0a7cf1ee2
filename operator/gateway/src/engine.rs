//! vLLM's HTTP interface, as its versions to 0.33 have it.

use std::{collections::BTreeSet, time::Duration};

use hyper::body::Bytes;
use reqwest::{Client, RequestBuilder, Response, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};

/// For a connection, and for each question that is no request to a model.
const ASK: Duration = Duration::from_secs(5);
/// vLLM closes connections that were idle for 5 s (`VLLM_HTTP_TIMEOUT_KEEP_ALIVE`): none is used that it may be closing.
const IDLE: Duration = Duration::from_secs(4);
/// Reading an adapter from disk and copying it to the card.
const LOAD: Duration = Duration::from_secs(120);
/// Longest text of an engine's that is repeated, in characters.
const MAX_TEXT: usize = 500;

/// Before it, an adapter that was loaded beside others that were in use could be taken for one of them (vllm#47725).
const SAFE: (u64, u64) = (0, 26);
/// Before it, an adapter of an old name could be given another's cached prefixes. Names here carry a digest.
const PREFERRED: (u64, u64) = (0, 31);

/// Not to be printed: it has a key.
#[derive(Clone)]
pub struct Engine {
    http: Client,
    /// Without a slash at its end.
    url: String,
    key: Option<String>,
}

/// What an engine answers about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    pub version: String,
    /// Names of the registered adapters.
    pub adapters: BTreeSet<String>,
}

/// Why an adapter is not loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotLoaded {
    Unreachable(String),
    /// The engine's words, after its status.
    Refused(String),
}

#[derive(Deserialize)]
struct Models {
    data: Vec<Card>,
}

#[derive(Deserialize)]
struct Card {
    id: String,
    /// Only adapters have one.
    parent: Option<String>,
}

#[derive(Deserialize)]
struct Version {
    version: String,
}

impl Engine {
    pub fn client() -> reqwest::Result<Client> {
        // Whoever comes first installs it; another of the process does as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Client::builder()
            .connect_timeout(ASK)
            .pool_idle_timeout(IDLE)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
    }

    pub fn new(http: Client, url: &str, key: Option<String>) -> Self {
        Self { http, url: url.trim_end_matches('/').to_owned(), key }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    fn with_key(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    async fn get(&self, path: &str) -> Result<Response, String> {
        let request = self.with_key(self.http.get(format!("{}{path}", self.url))).timeout(ASK);
        let answer = request.send().await.map_err(|error| reason(&error))?;
        match answer.status() {
            StatusCode::OK => Ok(answer),
            status => Err(format!("GET {path} answers {status}")),
        }
    }

    /// Fails if the engine does not answer, says that it is dead, or serves another model.
    pub async fn about(&self, model: &str) -> Result<About, String> {
        self.get("/health").await?;
        let version: Version = self.get("/version").await?.json().await.map_err(|error| reason(&error))?;
        let models: Models = self.get("/v1/models").await?.json().await.map_err(|error| reason(&error))?;
        if !models.data.iter().any(|card| card.parent.is_none() && card.id == model) {
            return Err(format!("the engine does not serve {model:?}"));
        }
        let adapters = models.data.into_iter().filter(|card| card.parent.is_some());
        Ok(About { version: version.version, adapters: adapters.map(|card| card.id).collect() })
    }

    /// An adapter of this name that is registered already is this one: the name carries its digest.
    pub async fn load(&self, adapter: &str, path: &str) -> Result<(), NotLoaded> {
        let body = json!({ "lora_name": adapter, "lora_path": path });
        match self.post("/v1/load_lora_adapter", &body).await {
            Err(NotLoaded::Refused(text)) if text.contains("has already been loaded") => Ok(()),
            answered => answered,
        }
    }

    /// An adapter that the engine does not know is unloaded.
    pub async fn unload(&self, adapter: &str) -> Result<(), NotLoaded> {
        match self.post("/v1/unload_lora_adapter", &json!({ "lora_name": adapter })).await {
            Err(NotLoaded::Refused(text)) if text.starts_with("404") && text.contains(adapter) => Ok(()),
            answered => answered,
        }
    }

    async fn post(&self, path: &str, body: &Value) -> Result<(), NotLoaded> {
        let request = self.with_key(self.http.post(format!("{}{path}", self.url))).timeout(LOAD).json(body);
        let answer = request.send().await.map_err(|error| NotLoaded::Unreachable(reason(&error)))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let text = answer.text().await.map_err(|error| NotLoaded::Unreachable(reason(&error)))?;
        let text: String = said(&text).chars().take(MAX_TEXT).collect();
        Err(NotLoaded::Refused(format!("{}: {text}", status.as_u16())))
    }

    /// Sends a request to a model; `path` is `/v1/chat/completions` or the like.
    pub async fn ask(&self, path: &str, body: Bytes) -> reqwest::Result<Response> {
        let request = self.http.post(format!("{}{path}", self.url)).header(header::CONTENT_TYPE, "application/json");
        self.with_key(request).body(body).send().await
    }
}

/// Why an engine of this version must not load adapters while it serves; or a warning.
pub fn judge(version: &str) -> Result<Option<String>, String> {
    let mut numbers = version.split('.').map_while(|part| part.parse::<u64>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) < SAFE => Err(format!(
            "vLLM {version} may serve one adapter in place of another while it loads a third; 0.26 is the first that does not"
        )),
        (Some(major), Some(minor)) if (major, minor) < PREFERRED => {
            Ok(Some(format!("vLLM {version} does not tell paths of adapters apart in its cache; 0.31 does")))
        }
        (Some(_), Some(_)) => Ok(None),
        // A build of somebody's own.
        _ => Ok(Some(format!("{version:?} is no version of vLLM: it is taken for a new one"))),
    }
}

/// What an error body says: OpenAI's shape; a route that is not there answers `{"detail": …}`; older versions put the
/// fields of `error` beside `object`.
fn said(text: &str) -> String {
    let body = serde_json::from_str::<Value>(text).unwrap_or_default();
    let message = ["/error/message", "/message", "/detail"].iter().find_map(|place| body.pointer(place)?.as_str());
    message.unwrap_or(text).to_owned()
}

/// The innermost cause, which names what is wrong.
fn reason(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    if error.is_timeout() { "no answer in time".to_owned() } else { cause.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_versions_load_nothing_and_older_ones_are_warned_of() {
        for (version, loads, warned) in [
            ("0.25.1", false, false),
            ("0.9", false, false),
            ("0.26.0", true, true),
            ("0.30.2rc1", true, true),
            ("0.31.0", true, false),
            ("1.0.0", true, false),
            ("0.33.1.dev7+gabcdef", true, false),
            ("dev", true, true),
        ] {
            let judged = judge(version);
            assert_eq!(judged.is_ok(), loads, "{version}");
            assert_eq!(matches!(judged, Ok(Some(_))), warned, "{version}");
        }
    }

    #[test]
    fn each_dialect_of_errors_is_understood() {
        for (text, told) in [
            (r#"{"error":{"message":"a","type":"t","param":null,"code":404}}"#, "a"),
            (r#"{"object":"error","message":"b","type":"t","code":400}"#, "b"),
            (r#"{"detail":"Not Found"}"#, "Not Found"),
            ("<html>", "<html>"),
        ] {
            assert_eq!(said(text), told);
        }
    }
}
