//! The engine's HTTP interface, as vLLM 0.33 documents and implements it: `/v1/models`, `/v1/load_lora_adapter`,
//! `/v1/unload_lora_adapter`.

use std::{collections::BTreeMap, time::Duration};

use futures::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Value, json};

use super::workload::PORT;
use crate::{condition::truncated, error::Error};

const ASK: Duration = Duration::from_secs(5);
/// Reading an adapter from disk and copying it to the card.
const LOAD: Duration = Duration::from_secs(60);

/// The engines of all pods, by address.
pub trait Engines: Send + Sync {
    /// Adapters that the engine on `ip` has registered, with their folders. Fails when it serves another model.
    fn adapters<'a>(&'a self, ip: &'a str, model: &'a str) -> BoxFuture<'a, Result<BTreeMap<String, String>, String>>;
    fn load<'a>(&'a self, ip: &'a str, adapter: &'a str, path: &'a str) -> BoxFuture<'a, Result<(), String>>;
    /// An adapter that the engine does not know is unloaded.
    fn unload<'a>(&'a self, ip: &'a str, adapter: &'a str) -> BoxFuture<'a, Result<(), String>>;
}

/// Over HTTP.
pub struct Http {
    http: reqwest::Client,
}

#[derive(Deserialize)]
struct Models {
    data: Vec<Model>,
}

#[derive(Deserialize)]
struct Model {
    id: String,
    /// The adapter's folder; the base model's own card has none that matters.
    root: Option<String>,
    /// Only adapters have one.
    parent: Option<String>,
}

impl Http {
    pub fn new() -> Result<Self, Error> {
        let http = reqwest::Client::builder()
            .connect_timeout(ASK)
            .no_proxy()
            .build()
            .map_err(|error| Error::Start(format!("HTTP client: {error}")))?;
        Ok(Self { http })
    }

    fn url(ip: &str, route: &str) -> String {
        match ip.contains(':') {
            true => format!("http://[{ip}]:{PORT}/v1/{route}"),
            false => format!("http://{ip}:{PORT}/v1/{route}"),
        }
    }

    async fn post(&self, ip: &str, route: &str, body: &Value) -> Result<(), (u16, String)> {
        let request = self.http.post(Self::url(ip, route)).timeout(LOAD).json(body);
        let answer = request.send().await.map_err(|error| (0, reason(&error)))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let text = answer.text().await.unwrap_or_default();
        // OpenAI's error shape; a route that is not there answers {"detail": …}.
        let said = serde_json::from_str::<Value>(&text).ok().and_then(|body| {
            let message = body.pointer("/error/message").or_else(|| body.get("detail"))?;
            message.as_str().map(str::to_owned)
        });
        let message = truncated(&said.unwrap_or(text), 500);
        Err((status.as_u16(), format!("{}: {message}", status.as_u16())))
    }
}

impl Engines for Http {
    fn adapters<'a>(&'a self, ip: &'a str, model: &'a str) -> BoxFuture<'a, Result<BTreeMap<String, String>, String>> {
        Box::pin(async move {
            let request = self.http.get(Self::url(ip, "models")).timeout(ASK);
            let answer = request.send().await.map_err(|error| reason(&error))?;
            let models: Models = answer.json().await.map_err(|error| reason(&error))?;
            if !models.data.iter().any(|card| card.parent.is_none() && card.id == model) {
                return Err(format!("the engine does not serve {model:?}"));
            }
            let adapters = models.data.into_iter().filter(|card| card.parent.is_some());
            Ok(adapters.map(|card| (card.id, card.root.unwrap_or_default())).collect())
        })
    }

    fn load<'a>(&'a self, ip: &'a str, adapter: &'a str, path: &'a str) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let body = json!({ "lora_name": adapter, "lora_path": path });
            self.post(ip, "load_lora_adapter", &body).await.map_err(|(_, text)| text)
        })
    }

    fn unload<'a>(&'a self, ip: &'a str, adapter: &'a str) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let body = json!({ "lora_name": adapter });
            match self.post(ip, "unload_lora_adapter", &body).await {
                Err((404, text)) if text.contains(adapter) => Ok(()),
                Err((_, text)) => Err(text),
                Ok(()) => Ok(()),
            }
        })
    }
}

/// The innermost cause, which names what is wrong.
fn reason(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    if error.is_timeout() { "no answer in time".to_owned() } else { cause.to_string() }
}
